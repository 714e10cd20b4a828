"""KrizhevskySGD against the update of the paper, in plain NumPy."""

import keras
import numpy as np
import pytest

from keras_videofusion.training.optimizer import KrizhevskySGD


def plain(weight, gradients, rate, momentum, decay):
    speed = np.zeros_like(weight)
    for gradient in gradients:
        speed = momentum * speed - decay * rate * weight - rate * gradient
        weight = weight + speed
    return weight


@pytest.fixture
def gradients():
    return np.random.default_rng(0).standard_normal((5, 3, 2)).astype("f4")


def test_decay_passes_through_the_momentum(gradients):
    weight = keras.Variable(np.ones((3, 2), "float32"))
    optimizer = KrizhevskySGD(0.1, momentum=0.9, decay=0.05)
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weight])
    expected = plain(np.ones((3, 2)), gradients, 0.1, 0.9, 0.05)
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-5)


def test_keras_decoupled_decay_is_another_update(gradients):
    weight = keras.Variable(np.ones((3, 2), "float32"))
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.05)
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weight])
    expected = plain(np.ones((3, 2)), gradients, 0.1, 0.9, 0.05)
    assert np.abs(weight.numpy() - expected).max() > 1e-2


def test_biases_do_not_decay():
    bias = keras.Variable(np.ones(3, "float32"))
    optimizer = KrizhevskySGD(0.1, momentum=0.0, decay=0.5)
    optimizer.apply([keras.ops.zeros(3)], [bias])
    np.testing.assert_array_equal(bias.numpy(), np.ones(3))


def test_config_round_trip():
    optimizer = KrizhevskySGD(0.2, momentum=0.8, decay=0.01)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(again, KrizhevskySGD)
    assert again.get_config() == optimizer.get_config()


def test_negative_decay_is_refused():
    with pytest.raises(ValueError, match="`decay` must be 0 or more"):
        KrizhevskySGD(decay=-1)

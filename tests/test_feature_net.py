"""What FeatureMLP alone has: rates per layer, the linear model, its start."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_videofusion.applications import FeatureMLP
from keras_videofusion.layers import Columns, SignedRoot
from keras_videofusion.training.optimizer import KrizhevskySGD


def histograms(count, size=900, blocks=6, classes=3, seed=0):
    """Vectors of some histograms, whose classes differ a little, and labels."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    usual = draw.gamma(0.3, 1.0, size) * np.exp(
        draw.normal(0, 0.5, (classes, size))
    )
    x = draw.gamma(2 * usual[labels] + 1e-3)
    for part in np.array_split(np.arange(size), blocks):
        x[:, part] /= x[:, part].sum(1, keepdims=True)
    return x.astype("float32"), np.eye(classes, dtype="float32")[labels]


def layer_names(**arguments):
    model = FeatureMLP(input_shape=(9,), classes=3, **arguments)
    return [layer.name for layer in model.layers]


def test_dropout_comes_before_every_layer_with_weights():
    assert layer_names(hidden=(8, 8)) == [
        "features", "scale", "features_dropout", "fc1", "fc1_dropout", "fc2",
        "fc2_dropout", "predictions",
    ]  # fmt: skip


def test_every_layer_may_have_a_rate_of_its_own():
    model = FeatureMLP(
        input_shape=(9,), classes=3, hidden=[8, 4], dropout=[0.1, 0.0, 0.7]
    )

    rates = {
        layer.name: layer.rate
        for layer in model.layers
        if isinstance(layer, keras.layers.Dropout)
    }
    assert rates == {"features_dropout": 0.1, "fc2_dropout": 0.7}
    assert [model.get_layer(x).units for x in ("fc1", "fc2")] == [8, 4]


def test_without_hidden_layers_it_is_the_linear_model():
    model = FeatureMLP(
        input_shape=(9,), classes=3, hidden=(), classifier_activation=None
    )
    kernel, bias = model.get_layer("predictions").get_weights()
    x = np.random.default_rng(0).normal(size=(4, 9)).astype("float32")

    y = ops.convert_to_numpy(model(x))

    roots = np.sign(x) * np.sqrt(np.abs(x))
    np.testing.assert_allclose(y, roots @ kernel + bias, rtol=1e-5, atol=1e-6)
    assert model.count_params() == 9 * 3 + 3


def test_answers_are_those_of_plain_products():
    model = FeatureMLP(input_shape=(9,), classes=3, hidden=(8, 5), scale=None)
    x = y = np.random.default_rng(0).normal(size=(4, 9)).astype("float32")

    for name in ("fc1", "fc2", "predictions"):
        kernel, bias = model.get_layer(name).get_weights()
        y = y @ kernel + bias
        y = np.maximum(y, 0) if name != "predictions" else y

    shares = np.exp(y) / np.exp(y).sum(1, keepdims=True)
    np.testing.assert_allclose(model(x), shares, rtol=1e-4)


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_without_a_top_it_ends_in_its_last_hidden_layer(pooling):
    model = FeatureMLP(
        include_top=False, input_shape=(9,), hidden=(8, 5), pooling=pooling
    )

    assert model.output.shape == (None, 5)
    assert model.layers[-1].name == "fc2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": (8, 0)}, r"`hidden` must be integers.*hidden=\(8, 0\)"),
        ({"hidden": "8"}, "`hidden` must be integers.*hidden='8'"),
        ({"dropout": (0.5, 0.5)}, "or 3 such rates"),
        ({"dropout": (0.5, 0.5, 1.0)}, "or 3 such rates"),
        ({"dropout": -0.1}, r"`dropout`.*dropout=-0\.1"),
        ({"scale": "log"}, "`scale` must be.*scale='log'"),
        ({"input_shape": (0,)}, r"one integer.*input_shape=\(0,\)"),
        ({"input_shape": (None,)}, "one integer"),
        ({"input_shape": 9}, "one integer.*input_shape=9"),
        ({"input_shape": (3, 3)}, "one integer"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        FeatureMLP(classes=3, **arguments)


def test_tensors_and_shapes_must_agree():
    with pytest.raises(ValueError, match="must be that of `input_tensor`"):
        FeatureMLP(input_tensor=keras.Input((9,)), input_shape=(8,))
    with pytest.raises(TypeError, match="must be a Keras tensor"):
        FeatureMLP(input_tensor=np.zeros((1, 9)))


def test_roots_of_histograms_are_unit_vectors():
    x, _ = histograms(5, blocks=1)

    y = ops.convert_to_numpy(SignedRoot()(x))

    np.testing.assert_allclose((y**2).sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(
        SignedRoot()(np.array([-4.0, 0.0, 9.0])), [-2, 0, 3]
    )


def test_columns_are_what_the_network_sees(tmp_path):
    keras.utils.set_random_seed(0)
    model = FeatureMLP(
        input_shape=(9,), classes=3, hidden=(5,), columns=[[0, 2], [6, 9]]
    )
    x = np.random.default_rng(0).random((4, 9), "float32")
    other = x.copy()
    other[:, 2:6] = 7
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")

    assert model.get_layer("fc1").kernel.shape == (5, 5)
    np.testing.assert_array_equal(model(x), model(other))
    np.testing.assert_array_equal(model(x), again(x))
    seen = Columns([[6, 9], [0, 2]])(x)
    np.testing.assert_array_equal(seen, x[:, [6, 7, 8, 0, 1]])


@pytest.mark.parametrize("columns", [[], [[3, 3]], [[-1, 2]], [[0, 10]]])
def test_columns_that_are_not_there_are_refused(columns):
    with pytest.raises(ValueError, match="`spans` must .* Received: spans="):
        FeatureMLP(input_shape=(9,), classes=3, columns=columns)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="asks TensorFlow's tape"
)
def test_the_root_has_a_slope_at_zero():
    import tensorflow as tf

    x = tf.Variable([-1.0, 0.0, 4.0])
    with tf.GradientTape() as tape:
        y = SignedRoot()(x)

    np.testing.assert_allclose(tape.gradient(y, x), [0.5, 0.0, 0.25])


def test_scores_start_near_even_at_full_size():
    """41 histograms of 25,000 numbers in all, through hidden layers."""
    keras.utils.set_random_seed(0)
    x, _ = histograms(4, 25_000, 41)
    model = FeatureMLP(
        classes=3, hidden=(64, 64), classifier_activation=None, dropout=0.0
    )

    y = ops.convert_to_numpy(model(x))

    assert 0.05 < y.std() < 1.0


@pytest.mark.parametrize("hidden", [(), (32,), (32, 32)])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: KrizhevskySGD(learning_rate=0.01, momentum=0.9, decay=5e-4),
        lambda: keras.optimizers.Adam(1e-3),
    ],
    ids=["sgd", "adam"],
)
def test_it_learns_from_its_own_start(hidden, optimizer):
    keras.utils.set_random_seed(0)
    x, y = histograms(120)
    unseen, right = x[90:], y[90:]
    model = FeatureMLP(
        input_shape=(900,), classes=3, hidden=hidden, dropout=0.3
    )
    model.compile(optimizer(), "categorical_crossentropy")

    model.fit(x[:90], y[:90], 16, epochs=20, verbose=0)

    found = model.predict(unseen, verbose=0).argmax(1)
    assert np.mean(found == right.argmax(1)) > 0.8

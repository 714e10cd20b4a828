"""The loss, against a plain loop over clips and parts."""

import keras
import numpy as np
import pytest

from keras_videofusion.training.losses import (
    PartsBinaryCrossentropy,
    PartsCrossentropy,
)

draw = np.random.default_rng(0)


def distribution(*shape):
    scores = np.exp(draw.normal(size=shape))
    return (scores / scores.sum(-1, keepdims=True)).astype("float32")


def crossentropy(truth, scores, smoothing):
    truth = truth * (1 - smoothing) + smoothing / len(truth)
    return -(truth * np.log(scores)).sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_every_part_is_held_to_the_label(smoothing):
    truth = np.eye(5, dtype="float32")[[0, 3, 1]]
    scores = distribution(3, 4, 5)

    loss = PartsCrossentropy(label_smoothing=smoothing)(truth, scores)

    expected = np.mean(
        [
            crossentropy(truth[clip], scores[clip, part], smoothing)
            for clip in range(3)
            for part in range(4)
        ]
    )
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)


def test_it_is_not_the_loss_of_the_mean():
    truth, scores = np.eye(5, dtype="float32"), distribution(5, 4, 5)

    apart = float(PartsCrossentropy()(truth, scores))

    assert apart > 1.02 * float(PartsCrossentropy()(truth, scores.mean(1)))


def test_one_part_is_keras_s_own():
    truth, scores = np.eye(5, dtype="float32"), distribution(5, 5)

    ours = PartsCrossentropy(label_smoothing=0.2)(truth, scores)

    theirs = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)
    assert float(ours) == float(theirs(truth, scores))


@pytest.mark.parametrize("parts", [None, 4])
def test_a_clip_counts_as_much_as_its_classes(parts):
    truth = np.array([[1, 0, 0], [0, 0.5, 0.5], [0.3, 0, 0.7]], dtype="float32")
    weights = [2.0, 0.5, 4.0]
    shape = (3, 3) if parts is None else (3, parts, 3)
    scores = distribution(*shape)

    loss = PartsCrossentropy(class_weights=weights, label_smoothing=0.1)
    found = float(loss(truth, scores))

    rows = scores[:, None] if parts is None else scores
    expected = np.mean(
        [
            sum(t * w for t, w in zip(truth[clip], weights, strict=True))
            * np.mean(
                [crossentropy(truth[clip], row, 0.1) for row in rows[clip]]
            )
            for clip in range(3)
        ]
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    again = PartsCrossentropy.from_config(loss.get_config())
    assert float(again(truth, scores)) == found


SEVERAL = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 0]], dtype="float32")


def binary(truth, scores, weights, smoothing):
    """The mean over the classes, by a plain loop."""
    total = 0.0
    for true, score, weight in zip(truth, scores, weights, strict=True):
        true = true * (1 - smoothing) + 0.5 * smoothing
        own = -true * np.log(score) - (1 - true) * np.log(1 - score)
        total += weight * own
    return total / len(truth)


@pytest.mark.parametrize("parts", [None, 4])
@pytest.mark.parametrize("weights", [None, [2.0, 0.5, 4.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_every_class_is_true_or_not_by_itself(parts, weights, smoothing):
    scores = draw.uniform(0.05, 0.95, (3, parts or 1, 3)).astype("float32")

    loss = PartsBinaryCrossentropy(
        class_weights=weights, label_smoothing=smoothing
    )
    found = float(loss(SEVERAL, scores if parts else scores[:, 0]))

    expected = np.mean(
        [
            binary(truth, row, weights or [1, 1, 1], smoothing)
            for truth, rows in zip(SEVERAL, scores, strict=True)
            for row in rows
        ]
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    again = PartsBinaryCrossentropy.from_config(loss.get_config())
    assert float(again(SEVERAL, scores if parts else scores[:, 0])) == found


def test_several_labels_of_one_part_are_keras_s_own():
    scores = draw.uniform(0.05, 0.95, (3, 3)).astype("float32")

    ours = PartsBinaryCrossentropy(label_smoothing=0.2)(SEVERAL, scores)

    theirs = keras.losses.BinaryCrossentropy(label_smoothing=0.2)
    np.testing.assert_allclose(ours, theirs(SEVERAL, scores), rtol=1e-6)

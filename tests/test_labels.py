"""Names of the classes that published weights tell apart."""

import numpy as np
import pytest
import tensorflow as tf

from keras_videofusion.applications.labels import (
    class_names,
    decode_predictions,
    LISTS,
    sports1m_classes,
)

# Beneath the folder of annotations.
SOURCES = {
    "sports1m": "sports-1m/labels.txt",
    "kinetics400": "kinetics/label_map.txt",
    "kinetics600": "kinetics/label_map_600.txt",
    "ucf101": "mmaction2_ucf101/label_map.txt",
}


@pytest.mark.parametrize(("labels", "source"), SOURCES.items())
def test_names_are_those_of_the_authors_in_their_order(shared, labels, source):
    text = (shared / "data/annotations" / source).read_text(encoding="utf-8")

    assert list(class_names(labels)) == text.splitlines()


@pytest.mark.parametrize(
    ("labels", "count", "known"),
    [
        ("sports1m", 487, {0: "boomerang", 1: "boxing"}),
        ("kinetics400", 400, {0: "abseiling", 399: "zumba"}),
        ("kinetics600", 600, {0: "abseiling", 599: "zumba"}),
        ("ucf101", 101, {0: "ApplyEyeMakeup", 100: "YoYo"}),
    ],
)
def test_every_class_has_one_name(labels, count, known):
    names = class_names(labels)

    assert len(names) == len(set(names)) == count
    assert {place: names[place] for place in known} == known
    assert all(name and name == name.strip() for name in names)


def test_lists_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="one of sports1m, .*'imagenet'"):
        class_names("imagenet")


def test_topics_are_freebases_where_the_authors_give_them():
    topics = [topic for topic, _ in sports1m_classes()]

    assert all(t == "-" or t.startswith("/m/") for t in topics)


@pytest.mark.parametrize(("count", "labels"), LISTS.items())
def test_predictions_are_named_best_first(count, labels):
    names = class_names(labels)
    preds = np.zeros((2, count), "float32")
    preds[0, [0, 1, count - 1]] = 0.1, 0.6, 0.3
    preds[1, 2] = 1

    first, second = decode_predictions(preds, top=3)

    assert [name for _, name, _ in first] == [names[1], names[-1], names[0]]
    assert [score for *_, score in first] == pytest.approx([0.6, 0.3, 0.1])
    assert second[0][1] == names[2]
    assert len(decode_predictions(tf.constant(preds))[0]) == 5


def test_only_sports1m_has_topics():
    (sports,) = decode_predictions(np.eye(1, 487), top=1)
    (kinetics,) = decode_predictions(np.eye(1, 400), top=1)

    assert sports == [("/m/01dd3", "boomerang", 1.0)]
    assert kinetics == [("-", "abseiling", 1.0)]


@pytest.mark.parametrize("shape", [(487,), (2, 102), (1, 2, 487)])
def test_only_batches_over_known_classes_can_be_named(shape):
    with pytest.raises(ValueError, match=r"\(samples, 487\).*Received") as it:
        decode_predictions(np.zeros(shape))

    assert str(shape) in str(it.value)

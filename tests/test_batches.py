"""Batches are the same whoever reads them, from whatever step, in parts."""

import dataclasses
import functools
import operator
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from batches import assert_equal, taken

from keras_videofusion.data.batches import Batches
from keras_videofusion.data.catalog import Catalog, open_catalog, Video
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.pipeline import (
    Reader,
    steps,
    training_clips,
    validation_clips,
)
from keras_videofusion.data.prepare import prepare

SPEC = ClipSpec(frames=3, step=2, resize=("square", 40), size=(32, 30))
EPOCH = 4  # steps of 16 videos in batches of 5, the last of 1


@pytest.fixture(scope="module")
def stored(shapes_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("batches") / "shards"
    prepare(open_catalog(shapes_folder), out, SPEC, clips=2)
    return open_catalog(out).where("train")


@pytest.fixture(params=["videos", "shards"])
def learned(request, shapes):
    if request.param == "videos":
        return shapes.where("train")
    return request.getfixturevalue("stored")


def few(catalog, count=16):
    return dataclasses.replace(catalog, videos=catalog.videos[:count])


def joined(parts):
    """Batches of several parts as whole ones, without what only fills."""
    found = []
    for batch in zip(*parts, strict=True):
        kept = [
            [values[weights > 0] for values in (clips, labels)]
            for clips, labels, weights in batch
        ]
        found.append(tuple(map(np.concatenate, zip(*kept, strict=True))))
    return found


def test_a_stream_goes_on_from_any_step(learned):
    some = few(learned)
    whole = taken(training_clips(some, SPEC, 5, seed=2), 4 * EPOCH)
    assert [len(labels) for _, labels in whole] == 4 * [5, 5, 5, 1]
    for step in range(EPOCH):
        rest = training_clips(
            some, SPEC, 5, seed=2, first_epoch=1, first_step=step
        )
        assert_equal(taken(rest, 6), whole[EPOCH + step :][:6])


@pytest.mark.parametrize("mixup", [0.0, 0.4])
@pytest.mark.parametrize("count", [2, 3])
def test_the_parts_of_a_batch_are_the_batch(learned, count, mixup):
    some = few(learned)
    given = {"seed": 1, "first_step": 2, "mixup": mixup}
    whole = taken(training_clips(some, SPEC, 5, **given), 2 * EPOCH)
    parts = [
        taken(
            training_clips(some, SPEC, 5, part=(index, count), **given),
            2 * EPOCH,
        )
        for index in range(count)
    ]
    assert_equal(joined(parts), whole)
    # All parts take the same steps, and none of them is without a clip.
    assert all(len(labels) for part in parts for _, labels, _ in part)


def test_the_parts_of_validation_are_validation(learned):
    some = few(learned, 11)
    whole = taken(validation_clips(some, SPEC, 4, clips=2))
    parts = [
        taken(validation_clips(some, SPEC, 4, clips=2, part=(index, 3)))
        for index in range(3)
    ]
    assert_equal(joined(parts), whole)


@pytest.mark.parametrize(
    ("samples", "batch"), [(1, 1), (7, 3), (12, 4), (9, 8)]
)
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_row_has_one_owner_and_pairs_stay_together(samples, batch, count):
    parts = [Batches(samples, batch, (k, count)) for k in range(count)]
    for step in range(parts[0].steps):
        rows = [list(range(*part.rows(step))) for part in parts]
        size = min(batch, samples - step * batch)
        assert functools.reduce(operator.iadd, rows, []) == list(range(size))
        assert all(row[0] % 2 == 0 for row in rows if row)
        for part, own in zip(parts, rows, strict=True):
            begin, end = part.rows(tf.constant(step, tf.int64))
            assert list(range(begin, end)) == own


def test_mixed_pairs_are_shares_of_both(shapes):
    """Slow oracle: the share is read off the labels, the clip made of it."""
    catalog = shapes.where("train")
    plain = taken(training_clips(catalog, SPEC, 8, seed=4), 6)
    mixed = taken(training_clips(catalog, SPEC, 8, seed=4, mixup=0.5), 6)
    shares = []
    for (clips, labels), (clips_, labels_) in zip(plain, mixed, strict=True):
        for row in range(len(labels)):
            other = min(row ^ 1, len(labels) - 1)
            own, its = labels[row], labels[other]
            if (own == its).all():
                continue
            (share,) = labels_[row][own > 0]
            shares.append(share)
            np.testing.assert_allclose(
                labels_[row], share * own + (1 - share) * its, atol=1e-6
            )
            expected = share * clips[row] + (1 - share) * clips[other]
            assert np.abs(clips_[row] - expected).max() <= 0.5 + 1e-3
            assert clips_.dtype == np.uint8
    # Beta(1/2, 1/2) has its mass at both ends, and no two steps share draws.
    assert len(np.unique(np.round(shares, 5))) > len(shares) // 4
    assert np.std(shares) > 0.2


def test_shares_of_a_pair_have_the_distribution_of_beta():
    some = Batches(4000, 4000)
    rows = tf.one_hot(tf.range(4000) % 2, 2)
    clips = tf.zeros((4000, 1, 1, 1, 3), tf.uint8)
    batch = tf.data.Dataset.from_tensors((clips, rows))
    ((_, labels),) = taken(some.mixed(batch, 0.3, seed=3))
    shares = labels[::2, 0]
    np.testing.assert_allclose(labels[1::2, 1], shares, atol=1e-6)
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)).
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * 1.6), abs=0.01)


# Classes that come equally often.


def balanced(labels, clips=2):
    catalog = Catalog(
        tuple(
            Video(f"{number}.mp4", tuple(names.split(";")))
            for number, names in enumerate(labels)
        ),
        ("a", "b", "c", "unseen"),
        ".",
    )
    reader = Reader(
        catalog, SPEC, "random", clips, 7, True, True, "raise", None,
        alike="classes",
    )  # fmt: skip
    return catalog, reader


def test_every_class_comes_equally_often():
    catalog, reader = balanced(["a"] * 17 + ["b"] * 3 + ["c"])
    counts = Counter()
    for epoch in range(60):
        order = reader.order(epoch)
        assert len(order) == len(reader) == 42
        videos = order // 2
        shown = Counter(catalog[int(v)].labels[0] for v in videos)
        assert set(shown.values()) == {14}
        counts.update(videos.tolist())
    # Within a class every video comes alike: 840 samples of 17, 3 and 1.
    assert counts[20] == 840
    assert all(270 <= counts[v] <= 290 for v in (17, 18, 19))
    assert all(30 <= counts[v] <= 70 for v in range(17))
    assert reader.order(0).tolist() != reader.order(1).tolist()
    again = balanced(["a"] * 17 + ["b"] * 3 + ["c"])[1]
    assert again.order(3).tolist() == reader.order(3).tolist()


def test_a_video_of_two_classes_serves_both():
    _catalog, reader = balanced(["a;b", "a", "b", "c", "c", "c"], clips=1)
    counts = Counter()
    for epoch in range(300):
        counts.update(reader.order(epoch).tolist())
    total = sum(counts.values())
    assert counts[0] / total == pytest.approx(1 / 3, abs=0.04)
    assert counts[1] / total == pytest.approx(1 / 6, abs=0.04)
    assert sum(counts[k] for k in (3, 4, 5)) == pytest.approx(total / 3)


def test_shards_do_not_balance_classes(stored):
    with pytest.raises(ValueError, match="Received: alike='classes'"):
        training_clips(stored, SPEC, 4, alike="classes")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"part": (2, 2)}, "Received: part=\\(2, 2\\)"),
        ({"first_step": 99}, "Received: first=\\(0, 99\\)"),
        ({"mixup": -1.0}, "Received: mixup=-1.0"),
        ({"alike": "people"}, "Received: alike='people'"),
    ],
)
def test_an_argument_out_of_range_is_refused(shapes, given, told):
    with pytest.raises(ValueError, match=told):
        training_clips(shapes, SPEC, 4, **given)


def test_an_epoch_has_as_many_steps_as_batches(shapes):
    assert steps(shapes, 5) == Batches(len(shapes), 5).steps

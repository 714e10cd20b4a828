"""Figures of merit against plain loops."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from keras_videofusion.evaluation.metrics import (
    average_precision,
    chance,
    clip_hit_at_1,
    confusion,
    hit_at_k,
    mean_average_precision,
    standard_error,
    summary,
    wilson,
)
from keras_videofusion.evaluation.scores import probabilities, Scores

TABLES = st.tuples(st.integers(0, 7), st.integers(1, 6)).flatmap(
    lambda shape: st.tuples(
        arrays.arrays(bool, shape),
        # Few values, so that ties are many.
        arrays.arrays(
            np.float32,
            shape,
            elements=st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan]),
        ),
    )
)


def slow_hit(truth, scores, k):
    found = 0
    for row, values in zip(truth, scores, strict=True):
        known = [c for c in range(len(row)) if not math.isnan(values[c])]
        known.sort(key=lambda c: (-values[c], c))
        found += any(row[c] for c in known[:k])
    return found / len(truth) if len(truth) else math.nan


def slow_average_precision(truth, scores):
    scores = [-math.inf if math.isnan(s) else s for s in scores]
    total = 0.0
    before = 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [
            t for t, s in zip(truth, scores, strict=True) if s >= threshold
        ]
        recall = sum(taken) / sum(truth)
        total += (recall - before) * sum(taken) / len(taken)
        before = recall
    return total


@given(TABLES, st.data())
def test_hit_at_k_agrees_with_a_loop(table, data):
    truth, scores = table
    k = data.draw(st.integers(1, truth.shape[1]))
    np.testing.assert_allclose(
        hit_at_k(truth, scores, k), slow_hit(truth, scores, k)
    )


@given(TABLES)
def test_average_precision_agrees_with_a_loop(table):
    truth, scores = table
    each = []
    for column in range(truth.shape[1]):
        found = average_precision(truth[:, column], scores[:, column])
        if truth[:, column].any():
            expected = slow_average_precision(
                truth[:, column], scores[:, column]
            )
            assert found == pytest.approx(expected)
            each.append(expected)
        else:
            assert math.isnan(found)
    mean = mean_average_precision(truth, scores)
    assert mean == pytest.approx(
        sum(each) / len(each) if each else math.nan, nan_ok=True
    )


def test_average_precision_of_a_worked_example():
    # Ranks 1, 3 and 4 are true: (1/1 + 2/3 + 3/4) / 3.
    truth = np.array([True, False, True, True, False])
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    assert average_precision(truth, scores) == pytest.approx(
        (1 + 2 / 3 + 3 / 4) / 3
    )


@given(TABLES, st.randoms())
def test_average_precision_does_not_depend_on_the_order_of_ties(table, draw):
    truth, scores = table
    order = list(range(len(truth)))
    draw.shuffle(order)
    assert average_precision(truth[:, 0], scores[:, 0]) == pytest.approx(
        average_precision(truth[order, 0], scores[order, 0]), nan_ok=True
    )


def test_the_first_of_equal_scores_ranks_first():
    scores = np.full((1, 3), 0.5)
    assert hit_at_k(np.array([[True, False, False]]), scores, 1) == 1
    assert hit_at_k(np.array([[False, True, False]]), scores, 1) == 0
    assert hit_at_k(np.array([[False, True, False]]), scores, 2) == 1


def test_videos_without_a_label_are_misses():
    assert hit_at_k(np.zeros((2, 3), bool), np.ones((2, 3)), 3) == 0


@pytest.mark.parametrize("k", [0, 4])
def test_k_must_be_a_number_of_classes(k):
    with pytest.raises(ValueError, match=f"1..3.*Received: k={k}"):
        hit_at_k(np.ones((1, 3), bool), np.ones((1, 3)), k)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"truth.shape=\(1, 3\)"):
        hit_at_k(np.ones((1, 3), bool), np.ones((2, 3)), 1)
    with pytest.raises(ValueError, match=r"scores.shape=\(3,\)"):
        average_precision(np.ones(2, bool), np.ones(3))


@given(TABLES)
def test_confusion_agrees_with_a_loop(table):
    truth, scores = table
    expected = np.zeros((truth.shape[1],) * 2)
    for row, values in zip(truth, scores, strict=True):
        known = [c for c in range(len(row)) if not math.isnan(values[c])]
        if not known or not row.any():
            continue
        guess = min(known, key=lambda c: (-values[c], c))
        if row[guess]:
            expected[guess, guess] += 1
        else:
            for true in np.flatnonzero(row):
                expected[true, guess] += 1 / row.sum()
    np.testing.assert_allclose(confusion(truth, scores), expected)


def test_every_labelled_video_counts_once_in_the_confusion():
    generator = np.random.default_rng(0)
    truth = generator.random((50, 6)) < 0.3
    counts = confusion(truth, generator.random((50, 6)))
    assert counts.sum() == pytest.approx(truth.any(axis=1).sum())


@given(st.integers(0, 60), st.integers(1, 60))
def test_the_interval_holds_the_shares_that_explain_what_was_seen(hits, count):
    hits = min(hits, count)
    low, high = wilson(hits / count, count)
    assert 0 <= low <= hits / count + 1e-12
    assert hits / count - 1e-12 <= high <= 1
    # By its definition: the ends are 1.96 of their own errors away.
    for end in (low, high):
        if 1e-9 < end < 1 - 1e-9:
            away = abs(hits / count - end) / standard_error(end, count)
            assert away == pytest.approx(1.96, rel=1e-6)


def test_nothing_seen_has_no_interval():
    assert all(math.isnan(end) for end in wilson(0.5, 0))
    assert math.isnan(standard_error(0.5, 0))


def test_chance_counts_labels():
    truth = np.array([[1, 0, 0, 0], [1, 1, 0, 0]], bool)
    assert chance(truth) == pytest.approx((1 / 4 + 2 / 4) / 2)


# Summary


def make(clips=(3, 2, 4, 1), multi_label=False, seed=0):
    generator = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(clips)), clips)
    logits = generator.normal(size=(len(owner), 6))
    truth = np.zeros((len(clips), 6), bool)
    truth[np.arange(len(clips)), np.arange(len(clips)) % 4] = True
    if multi_label:
        truth[::2, 5] = True
    return Scores(
        [f"{place}.mp4" for place in range(len(clips))],
        list("abcdef"),
        truth,
        owner,
        np.zeros(len(owner)),
        logits,
        probabilities(logits, "softmax"),
    )


FAMILIES = {"a": "letters", "b": "letters", "c": "others"}


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("clips", [(3, 2, 4, 1), (3, 0, 4, 1) * 5])
def test_summary_agrees_with_a_loop_over_clips(clips, multi_label):
    scores = make(clips, multi_label)
    found = summary(scores, FAMILIES, [{"path": "x", "error": "empty"}])

    rows, kept, clip_hits = [], [], []
    for video in range(len(clips)):
        mine = scores.clip_probabilities[scores.clip_video == video]
        for row in mine:
            clip_hits.append(scores.truth[video, row.argmax()])
        if len(mine):
            rows.append(mine.mean(axis=0))
            kept.append(scores.truth[video])
    rows, kept = np.array(rows), np.array(kept)
    hit = np.array(
        [slow_hit([t], [r], 1) for t, r in zip(kept, rows, strict=True)]
    )
    assert found["clip_hit_at_1"] == pytest.approx(np.mean(clip_hits))
    assert found["clip_hit_at_1"] == clip_hit_at_1(scores)
    assert found["video_hit_at_1"] == pytest.approx(hit.mean())
    assert found["video_hit_at_5"] == pytest.approx(slow_hit(kept, rows, 5))
    precisions = {
        name: slow_average_precision(kept[:, c], rows[:, c])
        for c, name in enumerate("abcdef")
        if kept[:, c].any()
    }
    assert found["mean_average_precision"] == pytest.approx(
        np.mean(list(precisions.values()))
    )
    assert found["videos"] == len(rows)
    assert found["clips"] == len(clip_hits)
    assert found["skipped"] == [{"path": "x", "error": "empty"}]
    for c, name in enumerate("abcdef"):
        part = found["per_class"][name]
        having = kept[:, c]
        assert part["videos"] == having.sum()
        if having.any():
            assert part["hit_at_1"] == pytest.approx(hit[having].mean())
            assert part["average_precision"] == pytest.approx(precisions[name])
        else:
            assert part["hit_at_1"] is part["average_precision"] is None
    letters = kept[:, [0, 1]].any(axis=1)
    part = found["per_family"]["letters"]
    assert part["videos"] == letters.sum()
    assert part["hit_at_1"] == pytest.approx(hit[letters].mean())
    assert part["average_precision"] == pytest.approx(
        np.mean([precisions[name] for name in "ab" if name in precisions])
    )
    assert list(found["per_family"]) == ["letters", "others"]


def test_summary_is_strict_json_even_of_nothing():
    empty = make(())
    found = json.loads(json.dumps(summary(empty), allow_nan=False))
    assert found["video_hit_at_1"] is None
    assert found["videos"] == found["clips"] == 0
    assert list(found) == [
        "clip_hit_at_1",
        "video_hit_at_1",
        "video_hit_at_5",
        "mean_average_precision",
        "videos",
        "clips",
        "skipped",
        "per_class",
        "per_family",
    ]


def test_hit_at_5_of_two_classes_is_that_of_both():
    scores = Scores(
        ["v"], ["a", "b"], [[True, False]], [0], [0.0], [[0, 1]], [[0.3, 0.7]]
    )
    assert summary(scores)["video_hit_at_5"] == 1


def test_scores_of_videos_alone_have_no_clip_hits():
    scores = make()
    parts = {name: getattr(scores, name) for name in Scores.__match_args__}
    fused = Scores(**{**parts, "protocol": {"level": "videos"}})
    assert summary(fused)["clip_hit_at_1"] is None


def test_a_network_of_nan_hits_nothing():
    scores = make()
    parts = {name: getattr(scores, name) for name in Scores.__match_args__}
    broken = np.full_like(scores.clip_probabilities, np.nan)
    found = summary(Scores(**{**parts, "clip_probabilities": broken}))
    assert found["video_hit_at_1"] == 0
    assert found["clip_hit_at_1"] == 0

"""Scores: averages, fusion, and a file that survives strangers."""

import io
import json
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_videofusion.data.catalog import Catalog, Video
from keras_videofusion.evaluation.scores import (
    fuse,
    probabilities,
    Scores,
    video_ids,
)


def make(clips=(2, 3, 1), classes=4, seed=0, names=None, **protocol):
    """Scores with so many clips of each video."""
    generator = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(clips)), clips)
    logits = generator.normal(size=(len(owner), classes))
    truth = np.zeros((len(clips), classes), bool)
    truth[np.arange(len(clips)), np.arange(len(clips)) % classes] = True
    return Scores(
        names or [f"v{place}.mp4" for place in range(len(clips))],
        [f"class {place}" for place in range(classes)],
        truth,
        owner,
        np.arange(len(owner)) / 4,
        logits,
        probabilities(logits, protocol.get("activation", "softmax")),
        protocol,
    )


def same(a, b):
    assert a.video_ids == b.video_ids
    assert a.classes == b.classes
    assert a.protocol == b.protocol
    for name in (
        "truth",
        "clip_video",
        "clip_start_seconds",
        "clip_logits",
        "clip_probabilities",
    ):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_video_probabilities_are_means_over_the_clips_of_a_video():
    scores = make((2, 3, 1))
    for video in range(3):
        rows = [
            row
            for row, owner in zip(
                scores.clip_probabilities, scores.clip_video, strict=True
            )
            if owner == video
        ]
        np.testing.assert_allclose(
            scores.video_probabilities[video], sum(rows) / len(rows), rtol=1e-6
        )


def test_a_video_without_clips_is_missing_and_not_zero():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = make((2, 0, 1)).video_probabilities
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[[0, 2]]).all()


def test_a_file_gives_back_what_was_saved(tmp_path):
    scores = make(
        (1, 0, 2),
        names=["käse/ü.mp4", "b\udcff\udc80.avi", "c d;e,.mkv "],
        passes=4,
        activation="softmax",
    )
    scores.save(tmp_path / "scores.npz")
    same(Scores.load(tmp_path / "scores.npz"), scores)


def test_a_file_holds_the_contract_s_arrays_and_no_pickle(tmp_path):
    make(clips_note="x").save(tmp_path / "scores.npz")
    with np.load(tmp_path / "scores.npz", allow_pickle=False) as stored:
        assert sorted(stored.files) == [
            "classes",
            "clip_logits",
            "clip_probabilities",
            "clip_start_seconds",
            "clip_video",
            "protocol",
            "truth",
            "video_ids",
        ]
        assert stored["truth"].dtype == bool
        assert json.loads(str(stored["protocol"])) == {"clips_note": "x"}


def test_no_videos_can_be_saved_too(tmp_path):
    scores = make(())
    scores.save(tmp_path / "scores.npz")
    assert Scores.load(tmp_path / "scores.npz").truth.shape == (0, 4)


def test_saving_leaves_nothing_else_behind_and_keeps_the_old_on_failure(
    tmp_path,
):
    path = tmp_path / "scores.npz"
    good = make()
    good.save(path)
    with pytest.raises(ValueError, match="JSON"):
        make(bad=float("nan")).save(path)
    assert [place.name for place in tmp_path.iterdir()] == ["scores.npz"]
    same(Scores.load(path), good)


def npz(**changes):
    """Bytes of a file of scores with some arrays changed or left out."""
    scores = make()
    arrays = {
        "video_ids": np.array(scores.video_ids),
        "classes": np.array(scores.classes),
        "truth": scores.truth,
        "clip_video": scores.clip_video,
        "clip_start_seconds": scores.clip_start_seconds,
        "clip_logits": scores.clip_logits,
        "clip_probabilities": scores.clip_probabilities,
        "protocol": np.array("{}"),
    }
    arrays.update(changes)
    buffer = io.BytesIO()
    np.savez(buffer, **{k: v for k, v in arrays.items() if v is not None})
    return buffer.getvalue()


def one_array():
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"video_ids,classes\n", id="text"),
        pytest.param(npz()[:400], id="cut_short"),
        pytest.param(pickle.dumps({"truth": 1}), id="pickle"),
        pytest.param(one_array(), id="one_array"),
        pytest.param(npz(truth=None), id="array_missing"),
        pytest.param(npz(truth=np.zeros((3, 5), bool)), id="shape"),
        pytest.param(npz(truth=np.zeros((3, 4))), id="kind"),
        pytest.param(npz(clip_video=np.array([0] * 5 + [3])), id="no_video"),
        pytest.param(npz(clip_video=np.array([0] * 5 + [-1])), id="negative"),
        pytest.param(npz(classes=np.array(["a"] * 4)), id="class_twice"),
        pytest.param(npz(classes=np.array([{}] * 4, object)), id="objects"),
        pytest.param(npz(video_ids=np.array([["a", "b", "c"]])), id="rank"),
        pytest.param(npz(protocol=np.array("[1]")), id="protocol_list"),
        pytest.param(npz(protocol=np.array("{")), id="protocol_text"),
    ],
)
def test_a_damaged_or_foreign_file_is_one_clear_error(tmp_path, data):
    path = tmp_path / "scores.npz"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged or no file of scores") as e:
        Scores.load(path)
    assert str(path) in str(e.value)
    assert "\n" not in str(e.value)


def test_a_missing_file_is_named_in_full(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        Scores.load(tmp_path / "scores.npz")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_flipped_bytes_give_the_same_scores_or_one_clear_error(
    tmp_path_factory, data
):
    path = tmp_path_factory.mktemp("flip") / "scores.npz"
    stored = bytearray(npz())
    place = data.draw(st.integers(0, len(stored) - 1))
    stored[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(stored))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = Scores.load(path)
        except ValueError:
            return
    path.write_bytes(npz())
    whole = Scores.load(path)
    assert found.video_ids == whole.video_ids
    assert found.classes == whole.classes
    for name in ("truth", "clip_video", "clip_logits", "clip_probabilities"):
        np.testing.assert_array_equal(
            getattr(found, name), getattr(whole, name)
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": np.zeros((2, 4), bool)}, "`truth` must have the shape"),
        ({"clip_logits": np.zeros((6, 3))}, "`clip_logits` must have"),
        ({"clip_video": np.full(6, 3)}, "`clip_video` must be in 0..2"),
        ({"video_ids": ("a", "a", "b")}, "`video_ids` must all differ"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, message):
    scores = make()
    parts = {name: getattr(scores, name) for name in Scores.__match_args__}
    with pytest.raises(ValueError, match=message) as error:
        Scores(**{**parts, **change})
    assert "Received:" in str(error.value)


# Probabilities


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=6))
def test_softmax_and_sigmoid_do_not_overflow_and_agree_with_a_loop(logits):
    largest = max(logits)
    powers = [np.exp(value - largest) for value in logits]
    np.testing.assert_allclose(
        probabilities(np.array(logits), "softmax"),
        [power / sum(powers) for power in powers],
        rtol=1e-5,
        atol=1e-7,
    )
    with np.errstate(over="ignore"):
        expected = [1 / (1 + np.exp(-value)) for value in logits]
    found = probabilities(np.array(logits), "sigmoid")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match="activation='tanh'"):
        probabilities(np.zeros(3), "tanh")


# Names


def test_segments_and_repeated_rows_get_names_of_their_own():
    rows = (
        Video("a.mp4", ("x",)),
        Video("a.mp4", ("x",), start=1.5, end=3.0),
        Video("a.mp4", ("x",), start=3.0),
        Video("a.mp4", ("x",), end=1.0),
        Video("a.mp4", ("x",)),
    )
    assert video_ids(Catalog(rows, ("x",), "")) == (
        "a.mp4",
        "a.mp4#1.5-3",
        "a.mp4#3-",
        "a.mp4#0-1",
        "a.mp4#again2",
    )


# Fusion


def shuffled(scores, order):
    """The same scores, the videos in another order, their clips in a third."""
    order = np.array(order)
    back = np.argsort(order)
    mix = np.concatenate(
        [np.flatnonzero(scores.clip_video == video) for video in order[::-1]]
    )
    return Scores(
        [scores.video_ids[place] for place in order],
        scores.classes,
        scores.truth[order],
        back[scores.clip_video[mix]],
        scores.clip_start_seconds[mix],
        scores.clip_logits[mix],
        scores.clip_probabilities[mix],
        scores.protocol,
    )


def test_the_average_is_that_of_the_probabilities_clip_by_clip():
    one, other = make(seed=1), make(seed=2)
    fused = fuse([one, other])
    np.testing.assert_allclose(
        fused.clip_probabilities,
        (one.clip_probabilities + other.clip_probabilities) / 2,
        rtol=1e-6,
    )
    assert fused.protocol["level"] == "clips"


def test_fusion_brings_videos_into_the_order_of_the_first():
    one, other = make(seed=1), make(seed=2)
    mixed = shuffled(other, [2, 0, 1])
    assert mixed.video_ids != one.video_ids
    expected = fuse([one, other])
    found = fuse([one, mixed])
    assert found.video_ids == expected.video_ids
    np.testing.assert_array_equal(found.truth, expected.truth)
    np.testing.assert_array_equal(
        found.clip_probabilities, expected.clip_probabilities
    )


def test_weights_of_probabilities_are_scaled_to_sum_to_one():
    one, other = make(seed=1), make(seed=2)
    fused = fuse([one, other], weights=[3, 1])
    np.testing.assert_allclose(
        fused.clip_probabilities,
        0.75 * one.clip_probabilities + 0.25 * other.clip_probabilities,
        rtol=1e-6,
    )
    np.testing.assert_allclose(fused.clip_probabilities.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_logits_are_added_before_the_activation(activation):
    one = make(seed=1, activation=activation)
    other = make(seed=2, activation=activation)
    fused = fuse([one, other], by="logits", weights=[1, 2])
    expected = one.clip_logits + 2 * other.clip_logits
    np.testing.assert_allclose(fused.clip_logits, expected, rtol=1e-5)
    np.testing.assert_allclose(
        fused.clip_probabilities,
        probabilities(expected, activation),
        rtol=1e-5,
    )


def test_other_numbers_of_clips_are_fused_as_videos():
    one, other = make((2, 3, 1), seed=1), make((1, 1, 4), seed=2)
    fused = fuse([one, other])
    np.testing.assert_allclose(
        fused.video_probabilities,
        (one.video_probabilities + other.video_probabilities) / 2,
        rtol=1e-6,
    )
    assert fused.protocol["level"] == "videos"
    assert np.isnan(fused.clip_start_seconds).all()


def test_what_is_missing_in_one_is_missing_in_the_fusion():
    fused = fuse([make((2, 0, 1), seed=1), make((1, 1, 0), seed=2)])
    np.testing.assert_array_equal(fused.clips_per_video, [1, 0, 0])


def test_a_fusion_survives_its_file(tmp_path):
    fused = fuse([make((2, 3, 1)), make((1, 1, 4))])
    fused.save(tmp_path / "scores.npz")
    same(Scores.load(tmp_path / "scores.npz"), fused)


def other_truth():
    scores = make()
    truth = ~scores.truth
    parts = {name: getattr(scores, name) for name in Scores.__match_args__}
    return Scores(**{**parts, "truth": truth})


@pytest.mark.parametrize(
    ("scores", "arguments", "message"),
    [
        ([], {}, "`scores` must not be empty"),
        ([make(), make(classes=5)], {}, "same classes"),
        ([make(), make(names=["a", "b", "c"])], {}, "same videos.*6 videos"),
        ([make(), other_truth()], {}, "agree on the truth"),
        ([make(), make(activation="sigmoid")], {}, "one activation"),
        ([make()], {"by": "votes"}, "by='votes'"),
        ([make()], {"weights": [1, 2]}, "`weights` must be 1 numbers"),
        ([make()], {"weights": [-1]}, "0 or more"),
        ([make()], {"weights": [0]}, "not all 0"),
    ],
)
def test_what_cannot_be_fused_is_told(scores, arguments, message):
    with pytest.raises(ValueError, match=message):
        fuse(scores, **arguments)

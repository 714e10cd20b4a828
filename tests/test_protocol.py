"""The test protocol against a loop over clips and passes."""

import json
import math
import os
import threading
from itertools import pairwise

import keras
import numpy as np
import pytest

from keras_videofusion.data.augmentation import center_crop
from keras_videofusion.data.augmentation import test_passes as four_passes
from keras_videofusion.data.catalog import Catalog, Video
from keras_videofusion.data.clips import ClipSpec, generator_of
from keras_videofusion.data.flow import from_bytes, open_flow
from keras_videofusion.data.video import read_clips, timeline, VideoError
from keras_videofusion.evaluation import protocol
from keras_videofusion.evaluation.protocol import (
    logits_model,
    predict,
    score,
)
from keras_videofusion.evaluation.scores import probabilities

SPEC = ClipSpec(frames=3, step=2, resize=("square", 20), size=(16, 16))


def network(classes=4, activation="softmax", seed=0):
    """A small network that tells clips, crops and flips apart."""
    keras.utils.set_random_seed(seed)
    clip = keras.Input((3, 16, 16, 3))
    x = keras.layers.Rescaling(1 / 64)(clip)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(classes, activation=activation, name="predictions")(
        x
    )
    return keras.Model(clip, x)


@pytest.fixture
def two_per_class(shapes):
    return shapes.where("test")


def plainly(model, catalog, clips, passes, seed):
    """Probabilities of every clip, a pass at a time."""
    rows = []
    for video in catalog:
        generator = generator_of(seed, video.path)
        found, _ = read_clips(
            catalog.file(video), SPEC, "random", clips, generator
        )
        for clip in found:
            if passes == 1:
                views = [center_crop(clip, SPEC.size)]
            else:
                views = four_passes(clip, SPEC.size, generator)
            outputs = [
                keras.ops.convert_to_numpy(model(view[None]))[0]
                for view in views
            ]
            rows.append(sum(outputs) / len(outputs))
    return np.array(rows)


@pytest.mark.parametrize("passes", [1, 4])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_scores_agree_with_a_loop_over_clips_and_passes(
    two_per_class, passes, activation
):
    model = network(activation=activation)
    scores, skipped = score(
        model, two_per_class, SPEC, clips=3, passes=passes, batch=5, seed=7
    )
    expected = plainly(model, two_per_class, 3, passes, 7)
    assert skipped == []
    np.testing.assert_allclose(
        scores.clip_probabilities, expected, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        scores.video_probabilities,
        expected.reshape(len(two_per_class), 3, 4).mean(axis=1),
        rtol=1e-4,
        atol=1e-6,
    )
    assert scores.video_ids == tuple(video.path for video in two_per_class)
    np.testing.assert_array_equal(scores.truth, two_per_class.truth)
    np.testing.assert_array_equal(
        scores.clip_video, np.repeat(np.arange(len(two_per_class)), 3)
    )


def test_logits_are_averaged_over_passes_before_any_activation(two_per_class):
    scores, _ = score(
        network(), two_per_class, SPEC, clips=2, passes=4, batch=8
    )
    logits = network(activation=None)  # the same weights, drawn again
    expected = plainly(logits, two_per_class, 2, 4, 0)
    np.testing.assert_allclose(scores.clip_logits, expected, rtol=1e-3)


def test_clips_begin_where_they_say(two_per_class):
    scores, _ = score(network(), two_per_class, SPEC, clips=4, passes=1)
    for place, video in enumerate(two_per_class):
        _, starts = read_clips(
            two_per_class.file(video),
            SPEC,
            "random",
            4,
            generator_of(0, video.path),
        )
        mine = scores.clip_start_seconds[scores.clip_video == place]
        np.testing.assert_array_equal(mine, starts)
    assert len(set(scores.clip_start_seconds)) > 4


def test_more_videos_change_nothing_for_the_others(shapes):
    model = network()
    many, _ = score(model, shapes, SPEC, clips=2, batch=6)
    few = Catalog(shapes.videos[5:2:-1], shapes.classes, shapes.root)
    found, _ = score(model, few, SPEC, clips=2, batch=8)
    for place, name in enumerate(found.video_ids):
        np.testing.assert_allclose(
            found.video_probabilities[place],
            many.video_probabilities[many.video_ids.index(name)],
            rtol=1e-4,
        )


def test_another_seed_draws_other_clips(two_per_class):
    model = network()
    starts = [
        score(model, two_per_class, SPEC, clips=3, passes=1, seed=seed)[
            0
        ].clip_start_seconds.tolist()
        for seed in (0, 0, 1)
    ]
    assert starts[0] == starts[1] != starts[2]


def test_every_batch_has_one_shape_and_the_network_is_traced_once(
    two_per_class,
):
    seen = []

    class Watch(keras.layers.Layer):
        def call(self, inputs):
            seen.append(tuple(inputs.shape))
            return inputs

    clip = keras.Input((3, 16, 16, 3))
    x = keras.layers.Flatten()(Watch()(clip))
    model = keras.Model(clip, keras.layers.Dense(4, "softmax")(x))
    seen.clear()

    score(model, two_per_class, SPEC, clips=3, passes=1, batch=7)

    traced = [shape for shape in seen if shape[0] is not None]
    assert traced == [(7, 3, 16, 16, 3)]


def test_batches_run_across_videos(two_per_class, monkeypatch):
    calls = []
    fed = protocol._Network._fed
    monkeypatch.setattr(
        protocol._Network, "_fed", lambda self: calls.append(1) or fed(self)
    )
    score(network(), two_per_class, SPEC, clips=3, passes=4, batch=32)
    assert len(calls) == math.ceil(len(two_per_class) * 3 * 4 / 32)


def test_only_a_few_videos_are_read_ahead(shapes, monkeypatch):
    begun = []
    ahead = []
    lock = threading.Lock()

    def counted(*arguments, **named):
        with lock:
            begun.append(1)
        return read_clips(*arguments, **named)

    monkeypatch.setattr(protocol, "read_clips", counted)
    score(
        network(),
        shapes,
        SPEC,
        clips=2,
        passes=1,
        batch=2,
        progress=lambda done: ahead.append(len(begun) - done),
    )
    assert len(begun) == len(shapes) > 12
    assert max(ahead) <= 6


def test_progress_climbs_to_the_number_of_videos(two_per_class):
    told = []
    score(
        network(), two_per_class, SPEC, clips=1, passes=1, progress=told.append
    )
    assert told == list(range(1, len(two_per_class) + 1))


@pytest.fixture
def with_broken(two_per_class, tmp_path):
    """Broken videos before, amid and after the good ones."""
    empty = tmp_path / "empty.mp4"
    empty.touch()
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    label = two_per_class.classes[0]

    def broken(path):
        return Video(os.fspath(path), (label,))

    rows = list(two_per_class)
    rows = [
        broken(empty),
        *rows[:2],
        broken(text),
        *rows[2:],
        broken(tmp_path / "absent.mp4"),
    ]
    return Catalog(tuple(rows), two_per_class.classes, two_per_class.root)


def test_broken_videos_are_left_out_and_named(two_per_class, with_broken):
    model = network()
    expected, _ = score(model, two_per_class, SPEC, clips=2, batch=4)
    scores, skipped = score(model, with_broken, SPEC, clips=2, batch=4)
    assert [os.path.basename(row["path"]) for row in skipped] == [
        "empty.mp4",
        "text.mp4",
        "absent.mp4",
    ]
    assert all(row["error"] and "\n" not in row["error"] for row in skipped)
    assert scores.video_ids == expected.video_ids
    np.testing.assert_array_equal(scores.truth, expected.truth)
    np.testing.assert_allclose(
        scores.clip_probabilities, expected.clip_probabilities, rtol=1e-5
    )


def test_a_broken_video_ends_the_work_if_it_shall(with_broken):
    with pytest.raises(VideoError, match="empty"):
        score(network(), with_broken, SPEC, clips=1, on_error="raise")


def test_videos_that_are_all_broken_leave_empty_scores(with_broken):
    only = Catalog(with_broken.videos[:1], with_broken.classes, "")
    scores, skipped = score(network(), only, SPEC, clips=1)
    assert len(skipped) == 1
    assert scores.truth.shape == scores.clip_logits.shape == (0, 4)


def test_scores_of_a_segment_come_from_the_segment(two_per_class):
    video = two_per_class[0]
    half = timeline(two_per_class.file(video)).times[12]
    rows = (
        Video(video.path, video.labels, start=half),
        Video(video.path, video.labels, end=half),
    )
    catalog = Catalog(rows, two_per_class.classes, two_per_class.root)
    scores, _ = score(network(), catalog, SPEC, clips=5, passes=1)
    starts = scores.clip_start_seconds.reshape(2, 5)
    assert (starts[0] >= half).all()
    assert (starts[1] < half).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clips": 0}, "clips=0"),
        ({"passes": 2}, "passes=2"),
        ({"batch": 0}, "batch=0"),
        ({"seed": -1}, "seed=-1"),
        ({"on_error": "stop"}, "on_error='stop'"),
    ],
)
def test_arguments_out_of_range_are_named(two_per_class, arguments, message):
    with pytest.raises(ValueError, match=message):
        score(network(), two_per_class, SPEC, **arguments)


def test_another_number_of_classes_is_told(two_per_class):
    with pytest.raises(ValueError, match=r"one score per class.*, 4"):
        score(network(classes=5), two_per_class, SPEC, clips=1)


# The network before its softmax


def trunk():
    clip = keras.Input((8,))
    return clip, keras.layers.Dense(6, activation="relu")(clip)


def dense(activation):
    clip, x = trunk()
    return keras.Model(clip, keras.layers.Dense(3, activation=activation)(x))


def without_bias():
    clip, x = trunk()
    last = keras.layers.Dense(3, activation="softmax", use_bias=False)
    return keras.Model(clip, last(x))


def activation_layer(name):
    clip, x = trunk()
    x = keras.layers.Dense(3)(x)
    return keras.Model(clip, keras.layers.Activation(name)(x))


def softmax_layer():
    clip, x = trunk()
    return keras.Model(clip, keras.layers.Softmax()(keras.layers.Dense(3)(x)))


def sequential():
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(5, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def nested(activation="softmax"):
    clip = keras.Input((8,))
    return keras.Model(clip, dense(activation)(clip))


def subclassed():
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.last = keras.layers.Dense(3, activation="softmax")

        def call(self, inputs):
            return self.last(inputs)

    made = Network()
    made(np.zeros((1, 8), "float32"))
    return made


def averaged():
    """The mean of two parts' sigmoids, one of them nested."""
    inputs = keras.Input((8,))
    parts = [
        keras.layers.Dense(3, activation="sigmoid")(inputs),
        nested("sigmoid")(inputs),
    ]
    return keras.Model(inputs, keras.layers.Average()(parts))


NETWORKS = {
    "dense": (lambda: dense("softmax"), "softmax"),
    "dense_sigmoid": (lambda: dense("sigmoid"), "sigmoid"),
    "without_bias": (without_bias, "softmax"),
    "activation": (lambda: activation_layer("softmax"), "softmax"),
    "activation_sigmoid": (lambda: activation_layer("sigmoid"), "sigmoid"),
    "softmax_layer": (softmax_layer, "softmax"),
    "sequential": (sequential, "softmax"),
    "nested": (nested, "softmax"),
    "nested_sigmoid": (lambda: nested("sigmoid"), "sigmoid"),
    "averaged_sigmoids": (averaged, "sigmoid"),
    "subclassed": (subclassed, "softmax"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_give_the_network_s_probabilities(name):
    build, expected = NETWORKS[name]
    model = build()
    inputs = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")
    logits, activation = logits_model(model)
    assert activation == expected
    np.testing.assert_allclose(
        probabilities(logits.predict_on_batch(inputs), activation),
        model.predict_on_batch(inputs),
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_follow_the_network_s_weights(name):
    model = NETWORKS[name][0]()
    logits, activation = logits_model(model)
    generator = np.random.default_rng(1)
    model.set_weights(
        [generator.normal(size=w.shape) for w in model.get_weights()]
    )
    inputs = generator.normal(size=(5, 8)).astype("float32")
    np.testing.assert_allclose(
        probabilities(logits.predict_on_batch(inputs), activation),
        model.predict_on_batch(inputs),
        rtol=1e-4,
        atol=1e-6,
    )


def test_the_output_of_a_last_layer_without_activation_is_logits():
    model = dense(None)
    inputs = np.ones((2, 8), "float32")
    logits, activation = logits_model(model)
    assert activation == "softmax"
    np.testing.assert_array_equal(
        logits.predict_on_batch(inputs), model.predict_on_batch(inputs)
    )


def test_a_last_activation_that_is_linear_shows_logits():
    clip = keras.Input((8,))
    x = keras.layers.Dense(3)(clip)
    model = keras.Model(clip, keras.layers.Activation(None)(x))
    inputs = np.ones((2, 8), "float32")
    logits, activation = logits_model(model)
    assert activation == "softmax"
    np.testing.assert_array_equal(
        logits.predict_on_batch(inputs), model.predict_on_batch(inputs)
    )


def test_logits_reach_beyond_what_a_softmax_can_show():
    model = dense("softmax")
    weights = model.get_weights()
    weights[-1] = np.array([0.0, 300.0, 600.0])
    model.set_weights(weights)
    found = logits_model(model)[0].predict_on_batch(np.zeros((1, 8)))
    np.testing.assert_allclose(found, [[0, 300, 600]])


# Prediction


@pytest.fixture
def files(two_per_class):
    return [two_per_class.file(video) for video in two_per_class][:3]


def test_predictions_are_averages_over_evenly_spread_clips(files):
    model = network()
    (found,) = predict(model, SPEC, "abcd", files[:1], top=4, clips=3, passes=1)
    clips, _ = read_clips(files[0], SPEC, "uniform", 3)
    expected = model.predict_on_batch(
        np.stack([center_crop(clip, SPEC.size) for clip in clips])
    ).mean(axis=0)
    rows = {row["class"]: row["score"] for row in found["predictions"]}
    np.testing.assert_allclose([rows[c] for c in "abcd"], expected, rtol=1e-4)
    scores = [row["score"] for row in found["predictions"]]
    assert scores == sorted(scores, reverse=True)


def test_predictions_are_plain_values_in_the_order_of_the_files(files):
    found = list(predict(network(), SPEC, "abcd", files, top=2, clips=1))
    assert [row["path"] for row in found] == files
    assert all(len(row["predictions"]) == 2 for row in found)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found[0]) == {"path", "predictions", "error"}


def test_a_broken_file_is_told_and_the_others_go_on(files, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"")
    found = list(predict(network(), SPEC, "abcd", [broken, files[0]], clips=1))
    assert found[0]["predictions"] == []
    assert "empty" in found[0]["error"]
    assert found[1]["error"] is None
    with pytest.raises(VideoError, match="empty"):
        list(
            predict(
                network(), SPEC, "abcd", [broken], clips=1, on_error="raise"
            )
        )


def test_windows_cover_the_video_and_score_their_own_part(files):
    model = network()
    (found,) = predict(
        model, SPEC, "abcd", files[:1], top=4, every=0.3, clips=2, passes=1
    )
    times = timeline(files[0]).times
    windows = found["windows"]
    assert windows[0]["start"] == 0
    assert windows[-1]["end"] > times[-1]
    for before, after in pairwise(windows):
        assert before["end"] == pytest.approx(after["start"])
        assert before["end"] - before["start"] == pytest.approx(0.3)
    second = windows[1]
    clips, _ = read_clips(
        files[0], SPEC, "uniform", 2, None, second["start"], second["end"]
    )
    expected = model.predict_on_batch(
        np.stack([center_crop(clip, SPEC.size) for clip in clips])
    ).mean(axis=0)
    rows = {row["class"]: row["score"] for row in second["predictions"]}
    np.testing.assert_allclose([rows[c] for c in "abcd"], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top": 0}, "top=0"),
        ({"every": 0}, "every=0"),
        ({"every": math.nan}, "every=nan"),
        ({"classes": "abc"}, "4. Received: 3 classes"),
    ],
)
def test_wrong_calls_of_predict_are_named(files, arguments, message):
    arguments = {"classes": "abcd", **arguments}
    with pytest.raises(ValueError, match=message):
        list(predict(network(), SPEC, paths=files, clips=1, **arguments))


def test_the_overlay_is_the_video_again_with_bars_in_its_corner(
    files, tmp_path
):
    pytest.importorskip("matplotlib")
    from keras_videofusion.data.video import decode

    folder = tmp_path / "labelled"
    list(
        predict(
            network(),
            SPEC,
            "abcd",
            files[:1] * 2,
            clips=1,
            every=0.3,
            overlay=folder,
        )
    )
    name = os.path.splitext(os.path.basename(files[0]))[0]
    assert sorted(os.listdir(folder)) == [f"{name}-2.mp4", f"{name}.mp4"]
    before, after = timeline(files[0]), timeline(folder / f"{name}.mp4")
    assert after.codec == "h264"
    np.testing.assert_allclose(after.times, before.times, atol=1e-3)
    shown = [0, len(before) - 1]
    old = decode(files[0], shown).astype(int)
    new = decode(folder / f"{name}.mp4", shown).astype(int)
    away = np.abs(old - new)[:, : old.shape[1] // 4].mean()
    assert away < 12  # coding again costs sharp edges some of their colour
    assert np.abs(old - new)[:, -8:, :8].mean() > 2 * away + 12


# Optical flow.

FLOW = ClipSpec(
    2, resize=("square", 20), size=(16, 16), streams=("flow",), flow=3
)
BOTH = ClipSpec(
    2, resize=("square", 20), size=(16, 16), streams=("rgb", "flow"), flow=3
)


def streams_network(spec, activation="softmax"):
    """A small network of one or two streams."""
    keras.utils.set_random_seed(0)
    clips = {n: keras.Input(s, name=n) for n, s in spec.shapes.items()}
    parts = [
        keras.layers.Dense(4)(keras.layers.Flatten()(clip))
        for clip in clips.values()
    ]
    x = keras.layers.add(parts) if len(parts) > 1 else parts[0]
    x = keras.layers.Rescaling(1 / 64)(x)
    if activation == "average":
        x = keras.layers.Rescaling(1.0)(keras.layers.Softmax()(x))
    else:
        x = keras.layers.Activation(activation, name="predictions")(x)
    return keras.Model(clips if len(clips) > 1 else clips["flow"], x)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "average"])
@pytest.mark.parametrize("spec", [FLOW, BOTH], ids=["flow", "both"])
def test_streams_are_scored_as_a_loop_over_clips_and_passes_scores_them(
    two_per_class, shapes_flow, spec, activation
):
    model = streams_network(spec, activation)
    scores, skipped = score(
        model, two_per_class, spec, 2, 4, batch=5, seed=7, flow=shapes_flow
    )
    expected = []
    for video in two_per_class:
        generator = generator_of(7, video.path)
        found, _ = read_clips(
            two_per_class.file(video), spec, "random", 2, generator,
            flow=open_flow(shapes_flow),
        )  # fmt: skip
        for place in range(2):
            if spec is FLOW:
                views = from_bytes(
                    four_passes(found[place], spec.size, generator)
                )
            else:
                views = four_passes(
                    {name: stream[place] for name, stream in found.items()},
                    spec.size,
                    generator,
                )
                views["flow"] = from_bytes(views["flow"])
            outputs = keras.ops.convert_to_numpy(model(views))
            expected.append(outputs.mean(axis=0))
    assert skipped == []
    np.testing.assert_allclose(
        scores.clip_probabilities, expected, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("spec", [FLOW, BOTH], ids=["flow", "both"])
def test_networks_of_flow_predict_without_preparation(
    two_per_class, shapes_flow, spec
):
    model = streams_network(spec)
    paths = [two_per_class.file(video) for video in two_per_class][:2]
    asked = model, spec, two_per_class.classes, paths
    kept = {"clips": 2, "passes": 4}
    prepared = list(predict(*asked, flow=shapes_flow, **kept))
    computed = list(predict(*asked, **kept))
    assert prepared == computed
    assert [row["error"] for row in computed] == [None, None]
    windows = list(predict(*asked, every=0.3, **kept))
    assert len(windows[0]["windows"]) == 3


def test_a_video_without_flow_is_skipped_and_told(two_per_class, shapes_flow):
    whole = two_per_class.with_classes(two_per_class.classes)
    elsewhere = Catalog(
        (*whole.videos[:1], Video("../nowhere.mp4", ("up",))),
        whole.classes,
        whole.root,
    )
    scores, skipped = score(
        streams_network(FLOW), elsewhere, FLOW, 1, 1, flow=shapes_flow
    )
    assert len(scores.video_ids) == 1
    assert [row["path"] for row in skipped] == ["../nowhere.mp4"]

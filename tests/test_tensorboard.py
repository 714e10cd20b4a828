"""What TensorBoard is given of a run, and what it shows of it."""

import builtins
import importlib.util
import itertools
import json
import math
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from browser import Browser, chromium
from tensorboard.backend.event_processing import (
    plugin_event_accumulator as reader,
)
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util

from keras_videofusion.applications import clip_spec, get_model, MODELS
from keras_videofusion.data.pipeline import (
    steps,
    training_clips,
    validation_clips,
)
from keras_videofusion.evaluation import pictures
from keras_videofusion.training import tensorboard
from keras_videofusion.training.losses import PartsCrossentropy
from keras_videofusion.training.metrics import HitAtK
from keras_videofusion.training.recipe import Recipe
from keras_videofusion.training.tensorboard import TensorBoard

RECIPE = Recipe(
    model="slow_fusion", width=0.02, size=40, batch=6, epochs=2, dropout=0.5
)
SPEC = clip_spec("slow_fusion").with_size(40)


def summaries(folder):
    """Of a folder's event files, in their order: tag, step, value's proto."""
    for file in sorted(Path(folder).glob("*tfevents*")):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = Event.FromString(record)
            for value in event.summary.value:
                yield value.tag, event.step, value


def read(folder):
    """A folder as TensorBoard's own reader sees it, every event of it."""
    found = reader.EventAccumulator(
        str(folder), size_guidance={reader.TENSORS: 0}
    )
    found.Reload()
    return found


def scalars(folder):
    """Dict of tag to its pairs of step and value."""
    found = {}
    for tag, step, value in summaries(folder):
        if value.metadata.plugin_data.plugin_name in ("scalars", ""):
            number = tensor_util.make_ndarray(value.tensor).item()
            found.setdefault(tag, []).append((step, pytest.approx(number)))
    return found


def images(folder):
    """Dict of tag to its pairs of step and list of files."""
    found = {}
    for tag, step, value in summaries(folder):
        if value.metadata.plugin_data.plugin_name == "images":
            files = list(value.tensor.string_val)[2:]
            found.setdefault(tag, []).append((step, files))
    return found


def build():
    keras.utils.set_random_seed(0)
    model = get_model(
        "slow_fusion",
        weights=None,
        classes=4,
        width=0.02,
        dropout=0.5,
        input_shape=SPEC.shapes["rgb"],
    )
    model.compile(
        keras.optimizers.SGD(1e-3, 0.9),
        PartsCrossentropy(),
        metrics=[HitAtK(1)],
    )
    return model


def fit(shapes, callbacks, epochs=2, first=0, checked=True):
    """A fit of three steps an epoch, the last one ragged; gives the model."""
    model = build()
    learned = shapes.where("train")
    model.fit(
        training_clips(learned, SPEC, 6, first_epoch=first),
        initial_epoch=first,
        epochs=epochs,
        steps_per_epoch=steps(learned, 6),
        validation_data=samples(shapes) if checked else None,
        callbacks=callbacks,
        verbose=0,
        shuffle=False,
    )
    return model


def samples(shapes):
    return validation_clips(shapes.where("validation"), SPEC, 3)


def names(shapes):
    return [video.path for video in shapes.where("validation")]


def made(folder, shapes, **arguments):
    given = {
        "samples": samples(shapes),
        "names": names(shapes),
        "steps_between": 2,
        "share": math.inf,
        **arguments,
    }
    return TensorBoard(folder, RECIPE, shapes.classes, **given)


@pytest.fixture(scope="module")
def run(shapes_folder, tmp_path_factory):
    """A run of two epochs that Keras's own callback watched too; read only."""
    from keras_videofusion.data.catalog import open_catalog

    shapes = open_catalog(shapes_folder)
    folder = tmp_path_factory.mktemp("runs") / "first"
    theirs = keras.callbacks.TensorBoard(folder / "theirs", write_graph=False)
    ours = made(folder / "tensorboard", shapes, profile=(2, 3))
    model = fit(shapes, [theirs, ours])
    # It writes epochs or batches whole, not both.
    batches = keras.callbacks.TensorBoard(
        folder / "batches", update_freq=2, write_graph=False
    )
    fit(shapes, [batches])
    return folder, model, shapes


@pytest.mark.parametrize("part", ["train", "validation"])
def test_scalars_have_the_names_steps_and_values_of_keras(run, part):
    folder, _, _ = run
    ours = {
        tag: points
        for tag, points in scalars(folder / "tensorboard" / part).items()
        if tag.startswith("epoch")
    }
    theirs = {
        tag: points
        for tag, points in scalars(folder / "theirs" / part).items()
        if not tag.startswith("evaluation")
    }
    assert ours == theirs
    assert {"epoch_loss", "epoch_hit_at_1"} <= set(ours)
    assert [step for step, _ in ours["epoch_loss"]] == [0, 1]


def test_running_scores_have_the_names_steps_and_values_of_keras(run):
    folder, _, _ = run
    ours, theirs = (
        {
            tag: points
            for tag, points in scalars(folder / which / "train").items()
            if tag.startswith("batch")
        }
        for which in ("tensorboard", "batches")
    )
    # Some releases of Keras write every step, whatever they are told.
    theirs = {
        tag: [point for point in points if point[0] % 2 == 0]
        for tag, points in theirs.items()
    }
    assert ours == theirs
    assert [step for step, _ in ours["batch_loss"]] == [2, 4, 6]


def test_histograms_have_the_names_of_keras_and_count_every_weight(run):
    folder, model, _ = run
    found = {
        (tag, step): tensor_util.make_ndarray(value.tensor)
        for tag, step, value in summaries(folder / "tensorboard/train")
        if value.metadata.plugin_data.plugin_name == "histograms"
    }
    paths = [weight.path for weight in model.weights]
    assert set(found) == {
        (f"{path}/histogram", epoch) for path in paths for epoch in (0, 1)
    }
    for weight in model.weights:
        values = weight.numpy()
        counts = found[f"{weight.path}/histogram", 1]  # from, to, count
        assert counts[:, 2].sum() == values.size
        assert counts[0, 0] == pytest.approx(values.min())
        assert counts[-1, 1] == pytest.approx(values.max())
        half = counts[: len(counts) // 2]
        assert half[:, 2].sum() == pytest.approx(
            (values < half[-1, 1]).sum(), abs=1
        )


def test_large_weights_are_counted_by_a_part(
    run, shapes, tmp_path, monkeypatch
):
    _, model, _ = run
    monkeypatch.setattr(tensorboard, "SAMPLED", 1000)
    callback = begun(made(tmp_path, shapes), model)
    callback.draw(0)
    callback.on_train_end()
    counts = {
        tag: tensor_util.make_ndarray(value.tensor)[:, 2].sum()
        for tag, _, value in summaries(tmp_path / "train")
        if tag.endswith("histogram")
    }
    for weight in model.weights:
        size = math.prod(weight.shape)
        stride = math.ceil(size / 1000)
        assert counts[f"{weight.path}/histogram"] == math.ceil(size / stride)


def begun(callback, model):
    """A callback as it stands in the first step of a fit."""
    callback.set_model(model)
    callback.set_params({"steps": 3})
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    callback.on_train_batch_begin(0)
    return callback


def test_pictures_are_drawn_at_every_epoch(run):
    folder, _, _ = run
    found = images(folder / "tensorboard/train")
    found.update(images(folder / "tensorboard/validation"))
    assert set(found) == {"first_layer", "confusion_matrix", "clips"}
    for points in found.values():
        assert [step for step, _ in points] == [0, 1]
    for _, files in found["clips"]:
        assert len(files) == 4  # as many as there are
        assert tf.io.decode_gif(files[0]).shape[0] == 10
    (_, (picture,)) = found["confusion_matrix"][0]
    assert tf.io.decode_png(picture).shape[-1] == 4


def test_the_size_that_is_told_of_pictures_is_theirs(run):
    folder, _, _ = run
    for _, _, value in summaries(folder / "tensorboard/validation"):
        if value.metadata.plugin_data.plugin_name == "images":
            width, height, *files = value.tensor.string_val
            for file in files:
                shape = tf.io.decode_image(file).shape
                assert (int(height), int(width)) == shape[-3:-1]


def test_clips_are_shown_with_their_own_classes(
    run, shapes, tmp_path, monkeypatch
):
    _, model, _ = run
    drawn, matrices = [], []
    real = pictures.moving_clip, pictures.confusion_matrix
    monkeypatch.setattr(
        pictures, "moving_clip", lambda x: drawn.append(x) or real[0](x)
    )
    monkeypatch.setattr(
        pictures,
        "confusion_matrix",
        lambda *x: matrices.append(x) or real[1](*x),
    )
    begun(made(tmp_path, shapes), model).draw(0)
    clips, labels = (
        np.concatenate(parts)
        for parts in zip(*samples(shapes).as_numpy_iterator(), strict=True)
    )
    scores = model.predict(clips, verbose=0)
    assert len(drawn) == len(clips)
    for sample, clip, label, score in zip(
        drawn, clips, labels, scores, strict=True
    ):
        np.testing.assert_array_equal(sample.frames, clip)
        assert sample.labels == [shapes.classes[label.argmax()]]
        ((_, best),) = sample.predictions.items()
        order = np.argsort(-score)[:3]
        assert [name for name, _ in best] == [shapes.classes[i] for i in order]
        assert [x for _, x in best] == pytest.approx(score[order], rel=1e-4)
    counts = np.zeros((4, 4))
    for label, score in zip(labels, scores, strict=True):
        counts[label.argmax(), score.argmax()] += 1
    np.testing.assert_array_equal(matrices[0][0], counts)


def test_a_clip_of_every_class_is_shown_first(run, shapes, tmp_path):
    _, model, _ = run
    clips = np.zeros((24, 10, 40, 40, 3), np.uint8)
    labels = np.eye(4, dtype=np.float32)[np.repeat(np.arange(4), 6)]
    given = tf.data.Dataset.from_tensor_slices((clips, labels)).batch(5)
    callback = begun(made(tmp_path, shapes, samples=given, names=()), model)
    shown = [place for place, _ in callback._look().shown]
    assert shown == [0, 1, 2, 3, 4, 6, 12, 18]


def test_several_labels_are_all_shown_and_count(
    run, shapes, tmp_path, monkeypatch
):
    _, model, _ = run
    labels = np.array([[0.5, 0.5, 0, 0], [0, 0, 0, 1]], np.float32)
    given = tf.data.Dataset.from_tensors(
        (np.zeros((2, 10, 40, 40, 3), np.uint8), labels)
    )
    drawn = []
    real = pictures.moving_clip
    monkeypatch.setattr(
        pictures, "moving_clip", lambda x: drawn.append(x) or real(x)
    )
    callback = begun(made(tmp_path, shapes, samples=given, names=()), model)
    callback.draw(0)
    assert [sample.labels for sample in drawn] == [
        list(shapes.classes[:2]),
        [shapes.classes[3]],
    ]
    rows = (tmp_path / "features-clips.tsv").read_text().splitlines()
    assert rows[1].split("\t")[1] == ", ".join(shapes.classes[:2])


def test_the_projector_has_the_features_names_and_frames(run):
    folder, model, shapes = run
    place = folder / "tensorboard"
    rows = np.loadtxt(place / "features.tsv", delimiter="\t")
    clips, labels = (
        np.concatenate(parts)
        for parts in zip(*samples(shapes).as_numpy_iterator(), strict=True)
    )
    below = keras.Model(model.input, model.get_layer("predictions").input)
    np.testing.assert_allclose(
        rows, below.predict(clips, verbose=0), rtol=1e-3, atol=1e-5
    )
    header, *told = (place / "features-clips.tsv").read_text().splitlines()
    assert header.split("\t") == ["video", "true", "predicted"]
    guesses = model.predict(clips, verbose=0).argmax(-1)
    assert [line.split("\t") for line in told] == [
        [name, shapes.classes[label.argmax()], shapes.classes[guess]]
        for name, label, guess in zip(
            names(shapes), labels, guesses, strict=True
        )
    ]
    sprite = tf.io.decode_png((place / "features-frames.png").read_bytes())
    assert sprite.shape == (128, 128, 3)
    # The second thumbnail: the middle frame, every pixel from its place.
    at = np.arange(64) * 40 // 64
    np.testing.assert_array_equal(sprite[:64, 64:], clips[1][5][at][:, at])


def test_the_projector_stays_small(run, shapes, tmp_path, monkeypatch):
    _, model, _ = run
    monkeypatch.setattr(tensorboard, "POINTS", 2)
    begun(made(tmp_path, shapes), model).draw(0)
    rows = (tmp_path / "features-clips.tsv").read_text().splitlines()
    videos = [row.split("\t")[0] for row in rows[1:]]
    assert videos == [names(shapes)[0], names(shapes)[2]]


def test_recipe_is_there_as_text_and_as_hyperparameters(run):
    folder, _, _ = run
    found = {tag: value for tag, _, value in summaries(folder / "tensorboard")}
    text = tensor_util.make_ndarray(found["recipe"].tensor).item().decode()
    assert "| learning_rate | 0.001 |" in text
    content = found["_hparams_/session_start_info"].metadata.plugin_data.content
    info = plugin_data_pb2.HParamsPluginData.FromString(content)
    told = info.session_start_info
    assert told.group_name == f"{folder.parent.name}/first"
    assert told.hparams["model"].string_value == "slow_fusion"
    assert told.hparams["batch"].number_value == 6
    assert told.hparams["augment"].bool_value is True
    assert "frames" not in told.hparams  # None: neither number nor word
    assert "_hparams_/session_end_info" in found


def test_a_trace_of_the_steps_lands_in_the_folder(run):
    folder, _, _ = run
    (trace,) = (folder / "tensorboard/profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 1000


def test_weights_are_the_same_to_the_bit_with_and_without(shapes, tmp_path):
    plain = fit(shapes, [])
    watched = fit(shapes, [made(tmp_path, shapes)])
    for one, other in zip(
        plain.get_weights(), watched.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_run_that_goes_on_shows_every_step_once(shapes, tmp_path):
    # The first process dies in its third epoch: of two epochs and a step
    # there is no checkpoint.
    first = made(tmp_path, shapes, samples=None, steps_between=1)
    begun(first, build())
    for step in range(7):
        first.on_epoch_begin(step // 3)
        first.on_train_batch_begin(step % 3)
        first.on_train_batch_end(step % 3, {"loss": float(step)})
    first._flush()
    second = made(tmp_path, shapes, samples=None, steps_between=1)
    fit(shapes, [second], epochs=3, first=1)
    seen = read(tmp_path / "train")
    points = seen.Tensors("batch_loss")
    assert [event.step for event in points] == list(range(1, 10))
    values = [tensor_util.make_ndarray(x.tensor_proto).item() for x in points]
    assert values[:3] == [0, 1, 2]
    assert values[3] != 3
    assert [e.step for e in seen.Tensors("epoch_loss")] == [1, 2]


def test_the_last_epoch_is_drawn_whatever_it_takes(shapes, tmp_path):
    drawn = []
    for every, share in ((1, 0.0), (2, math.inf), (1, math.inf)):
        callback = made(tmp_path, shapes, every=every, share=share)
        times = []

        def draw(epoch, callback=callback, times=times):
            times.append(epoch)
            callback.drawn = epoch
            callback.latest = 1.0

        callback.draw = draw
        begun(callback, build())
        for epoch in range(4):
            callback.on_epoch_begin(epoch)
            callback.on_epoch_end(epoch, {"loss": 1.0})
        callback.on_train_end()
        drawn.append(times)
    assert drawn == [[0, 3], [0, 2, 3], [0, 1, 2, 3]]


def test_it_serves_without_validation(shapes, tmp_path):
    fit(shapes, [made(tmp_path, shapes, samples=None)], checked=False)
    assert set(images(tmp_path / "train")) == {"first_layer"}
    assert not (tmp_path / "validation").exists()


def test_only_the_chief_writes(shapes, tmp_path):
    fit(shapes, [made(tmp_path / "logs", shapes, chief=False)], epochs=1)
    assert not (tmp_path / "logs").exists()


def test_without_matplotlib_all_but_pictures_is_there(
    shapes, tmp_path, monkeypatch
):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    said = []
    fit(shapes, [made(tmp_path, shapes, say=said.append)])
    assert said == [
        "TensorBoard will not show all: pictures need matplotlib: pip install "
        "'keras-videofusion[report]'"
    ]
    assert len(scalars(tmp_path / "train")["epoch_loss"]) == 2
    assert not images(tmp_path / "train")
    assert (tmp_path / "projector_config.pbtxt").exists()


def test_a_full_disk_does_not_end_the_training(shapes, tmp_path):
    said = []
    callback = made(tmp_path, shapes, say=said.append, steps_between=0)
    draw = callback.draw
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def squeezed(epoch):
        if epoch == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        try:
            draw(epoch)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    callback.draw = squeezed
    fit(shapes, [callback])
    assert len(said) == 1
    assert said[0].startswith("TensorBoard will not show all: ")
    assert "File too large" in said[0]
    # What was whole is read, and what came after too.
    seen = read(tmp_path / "train")
    assert [e.step for e in seen.Tensors("epoch_loss")] == [0, 1]
    assert [e.step for e in read(tmp_path / "validation").Tensors("clips")] == [
        1
    ]


def test_a_folder_that_cannot_be_is_told_once(shapes, tmp_path):
    (tmp_path / "logs").write_text("in the way")
    said = []
    fit(shapes, [made(tmp_path / "logs", shapes, say=said.append)])
    assert said
    assert len(said) == len(set(said)) <= 3


@pytest.mark.parametrize(
    ("name", "channels", "streams"),
    [
        ("late_fusion", 205, {""}),
        ("multires_slow_fusion", 205, {"fovea", "context"}),
        ("lrcn", 12, {""}),
        ("temporal_stream", 102, {""}),
        ("two_stream", 204, {"rgb", "flow"}),
        ("fused_two_stream", 26, {"rgb", "flow"}),
        ("s3dg_flow", 50, {""}),
    ],
)
def test_every_family_shows_features_and_filters(name, channels, streams):
    entry = MODELS[name]
    model = get_model(
        name, weights=None, classes=7, width=0.05, **entry.training
    )
    found = tensorboard.features(model)
    assert tuple(found.shape) == (None, channels)
    kernels = pictures.first_kernels(model)
    assert set(kernels) == streams
    for kernel in kernels.values():
        assert kernel.ndim == 5
        assert kernel.shape[3] == 3


def test_two_streams_in_parts_and_in_half_precision_are_looked_at(tmp_path):
    rgb = keras.Input((4, 8, 8, 3), name="rgb")
    flow = keras.Input((3, 8, 8, 2), name="flow")
    x = keras.layers.Concatenate(1)(
        [
            keras.layers.GlobalAveragePooling3D(keepdims=True)(
                keras.layers.Conv3D(5, 1, dtype="mixed_bfloat16")(x)
            )
            for x in (rgb, flow)
        ]
    )
    x = keras.layers.Reshape((2, 5))(x)
    out = keras.layers.Dense(3, "softmax", dtype="mixed_bfloat16")(x)
    model = keras.Model({"rgb": rgb, "flow": flow}, out)
    model.compile("sgd", "mse")
    generator = np.random.default_rng(0)
    clips = {
        "rgb": generator.integers(0, 256, (5, 4, 8, 8, 3), np.uint8),
        "flow": generator.normal(0, 5, (5, 3, 8, 8, 2)).astype(np.float32),
    }
    labels = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]]
    given = tf.data.Dataset.from_tensor_slices((clips, labels)).batch(2)
    callback = begun(TensorBoard(tmp_path, RECIPE, "abc", given), model)
    seen = callback._look()
    parts = np.asarray(model.predict(clips, verbose=0), np.float32)
    np.testing.assert_allclose(seen.scores, parts.mean(1), atol=1e-2)
    np.testing.assert_array_equal(seen.shown[1][1], clips["rgb"][1])
    callback.draw(0)
    assert callback.told == set()


def test_flow_alone_is_shown_in_red_and_green():
    flow = np.zeros((1, 2, 2, 2, 2), np.float32)
    flow[0, 0, 0, 0] = (20, -20)
    shown = tensorboard.frames(tf.constant(flow), 0)
    assert shown[0, 0, 0].tolist() == [255, 1, 128]
    assert shown[1, 1, 1].tolist() == [128, 128, 128]


def test_many_classes_are_shown_by_family():
    generator = np.random.default_rng(0)
    classes = [f"c{number}" for number in range(9)]
    families = {name: "abc"[int(name[1]) % 3] for name in classes[:7]}
    counts = generator.integers(0, 9, (9, 9))
    found, told = tensorboard.by_family(counts, classes, families)
    assert told == ["a", "b", "c", "other"]
    slow = np.zeros((4, 4))
    for (row, true), (column, guess) in itertools.product(
        enumerate(classes), repeat=2
    ):
        place = told.index(families.get(true, "other"))
        other = told.index(families.get(guess, "other"))
        slow[place, other] += counts[row, column]
    np.testing.assert_array_equal(found, slow)


def test_scaled_losses_hide_no_learning_rate():
    inner = keras.optimizers.SGD(0.125)
    scaled = keras.optimizers.LossScaleOptimizer(inner)
    assert tensorboard.learning_rate(scaled) == 0.125


@pytest.mark.parametrize(
    "arguments", [{"every": 0}, {"profile": (3, 2)}, {"profile": (0, 2)}]
)
def test_arguments_out_of_range_are_refused(arguments, tmp_path):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        TensorBoard(tmp_path, RECIPE, ["a"], **arguments)


@pytest.fixture(scope="module")
def shown(run, tmp_path_factory):
    """A browser, and the address of a TensorBoard that shows the run.

    `KVF_LOGS` names logs to show instead, `KVF_SCREENSHOTS` the folder for a
    picture of every tab.
    """
    if chromium() is None:
        pytest.skip("no Chromium: apt-get install chromium")
    logs = os.environ.get("KVF_LOGS", run[0] / "tensorboard")
    server = subprocess.Popen(
        [
            sys.executable,
            *("-m", "tensorboard.main"),
            *("--logdir", str(logs)),
            *("--port", "0"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = iter(server.stderr.readline, "")
        told = next(line for line in lines if " at http" in line)
        with Browser(tmp_path_factory.mktemp("browser")) as browser:
            yield browser, re.search(r"http://\S+", told)[0]
    finally:
        server.terminate()
        server.wait()
        server.stderr.close()


PICTURES = """
all('img').filter((x) => x.src.includes('individualImage') && x.naturalWidth)
"""


@pytest.mark.parametrize(
    ("tab", "words", "script"),
    [
        ("timeseries", ["batch_loss", "train", "Settings"], "true"),
        ("scalars", ["epoch_hit_at_1", "train", "validation"], "true"),
        (
            "images",
            ["clips", "confusion_matrix", "first_layer", "sample: 1 of"],
            f"{PICTURES}.length > 1",
        ),
        (
            "histograms",
            ["conv1/kernel/histogram"],
            "all('svg').length > 3",
        ),
        ("text", ["recipe", "learning_rate", "weight_decay"], "true"),
        ("hparams", ["Trial ID", "learning_rate", "TABLE VIEW"], "true"),
        (
            "projector",
            ["Points:", "Dimension:", "1 tensor found", "PCA"],
            "all('canvas').length > 0",
        ),
        ("profile", ["Sessions (1)", "Overview Page"], "true"),
    ],
)
def test_every_tab_shows_its_part_in_a_browser(shown, tab, words, script):
    if tab == "profile" and importlib.util.find_spec("xprof") is None:
        pytest.skip("needs pip install 'keras-videofusion[profile]'")
    browser, address = shown
    # Another fragment alone would not load the page anew.
    browser.open("about:blank")
    time.sleep(0.2)
    browser.open(f"{address}#{tab}")
    needed = json.dumps([word.lower() for word in words])
    browser.wait(
        f"{needed}.every((x) => words().toLowerCase().includes(x))", 40
    )
    browser.wait(script, 40)
    folder = os.environ.get("KVF_SCREENSHOTS")
    if folder:
        time.sleep(3)  # what moves has come to rest
        browser.screenshot(Path(folder, f"tensorboard-{tab}.png"))

"""Runs that begin with others' weights: the regimes, their caches, the verb."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from narrow import QUIET, SMALL, small

from keras_videofusion import cli
from keras_videofusion.applications import (
    clip_spec,
    SlowFusion,
)
from keras_videofusion.data.augmentation import random_crop_flip
from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.data.clips import generator_of
from keras_videofusion.data.pipeline import validation_clips
from keras_videofusion.data.vectors import read_vectors
from keras_videofusion.data.video import read_clips, VideoError
from keras_videofusion.evaluation.scores import video_ids
from keras_videofusion.training import fit, transfer
from keras_videofusion.training.activations import (
    kept_activations,
    Stitched,
    Top,
)
from keras_videofusion.training.build import clip_of, recipe_after
from keras_videofusion.training.optimizer import (
    KrizhevskySGD,
)
from keras_videofusion.training.recipe import Recipe
from keras_videofusion.training.run import load_model, Run


def rates(model):
    return {
        path: layer.rate
        for path, layer in transfer.leaves(model)
        if isinstance(layer, keras.layers.Dropout)
    }


def equal(model, other, names):
    return all(
        np.array_equal(a, b)
        for name in names
        for a, b in zip(
            model.get_layer(name).get_weights(),
            other.get_layer(name).get_weights(),
            strict=True,
        )
    )


BELOW = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")


@pytest.fixture(scope="module")
def catalog(shapes_folder):
    return fit.split(open_catalog(shapes_folder))


@pytest.fixture(scope="module")
def other(catalog):
    """The same videos, of two classes."""
    classes = {
        name: ("along", "across")[i % 2]
        for i, name in enumerate(catalog.classes)
    }
    videos = tuple(
        dataclasses.replace(v, labels=tuple(classes[x] for x in v.labels))
        for v in catalog
    )
    return dataclasses.replace(
        catalog, videos=videos, classes=("across", "along")
    )


@pytest.fixture(scope="module")
def before(catalog, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer") / "before"
    return fit.train(SMALL, catalog, folder, **QUIET)


@pytest.mark.parametrize("train", ["top", "top3"])
def test_a_run_of_every_regime_is_an_ordinary_one(
    before, other, tmp_path, train
):
    said = []
    recipe = dataclasses.replace(
        SMALL, train=train, top_dropout=0.9, weight_decay=0.1
    )
    run = fit.train(
        recipe, other, tmp_path, weights=before.folder, verbose=0,
        say=said.append,
    )  # fmt: skip
    model = load_model(run.path("model.keras"))
    source = before.model()
    places = {
        "top": {"fc6_dropout": 0.0, "fc7_dropout": 0.9},
        "top3": {"fc6_drop": 0.9, "fc6_dropout": 0.9, "fc7_dropout": 0.9},
    }
    assert rates(model) == places[train]
    moving = {
        "top": {"predictions"}, "top3": {"fc6", "fc7", "predictions"}
    }[train]  # fmt: skip
    for name in BELOW:
        assert equal(model, source, [name]) == (name not in moving)
    told = run.settings["transfer"]
    assert told["new"] == ["predictions"]
    assert tuple(told["copied"]) == BELOW
    line = next(line for line in said if "copied" in line)
    assert "7 layers copied, predictions new" in line
    assert all(layer.trainable for layer in model.layers)
    assert model.predict_on_batch(np.zeros((1, 10, 40, 40, 3))).shape == (1, 2)


def test_frozen_averages_stay_and_frozen_dropout_drops_nothing():
    model = small("c3d", style="quo_vadis", dropout=0.9)
    model = transfer.regularized(model, "top", 0.0)
    transfer.freeze(model, "top")
    model.compile(KrizhevskySGD(0.1, decay=0.5), "categorical_crossentropy")
    kept = [
        w
        for x in model.layers
        if x.name != "predictions"
        for w in x.get_weights()
    ]
    clips = np.random.default_rng(0).uniform(
        0, 255, (4, *model.input_shape[1:])
    )
    labels = np.eye(3)[[0, 1, 2, 0]]
    first = model.evaluate(clips, labels, batch_size=4, verbose=0)
    # Nothing drops and no batch is averaged: training sees the same loss.
    seen = model.train_on_batch(clips, labels)
    assert float(seen) == pytest.approx(first, rel=1e-5)
    now = [
        w
        for x in model.layers
        if x.name != "predictions"
        for w in x.get_weights()
    ]
    for a, b in zip(kept, now, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_old_layers_move_by_their_share(before, other, tmp_path, precision):
    """One step of plain SGD: a tenth of the rate is a tenth of the way."""
    found = []
    for share in (1.0, 0.1):
        recipe = dataclasses.replace(
            SMALL, momentum=0.0, weight_decay=0.0, batch=16, old_rate=share,
            dropout=None, precision=precision, plateau_patience=0,
            learning_rate=1e-2,
        )  # fmt: skip
        run = fit.train(
            recipe, other, tmp_path / str(share), weights=before.folder, **QUIET
        )
        found.append(run.model())
    source = before.model()

    def way(model, name):
        return (
            model.get_layer(name).get_weights()[0]
            - source.get_layer(name).get_weights()[0]
        )

    for name in ("fc7", "conv5"):
        whole, tenth = way(found[0], name), way(found[1], name)
        assert np.abs(whole).max() > 0
        np.testing.assert_allclose(
            tenth, 0.1 * whole, rtol=0.05, atol=np.abs(whole).max() * 1e-3
        )
    assert equal(found[0], found[1], ["predictions"])


def test_a_stopped_run_with_rates_goes_on_to_the_same_bits(
    before, other, tmp_path
):
    recipe = dataclasses.replace(
        SMALL, optimizer="adamw", weight_decay=0.01, old_rate=0.1,
        train="top3", top_dropout=0.5, clip_norm=1.0, accumulate=2, batch=5,
    )  # fmt: skip
    given = {"checkpoint_steps": 1, **QUIET}

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise KeyboardInterrupt

    whole = fit.train(
        recipe, other, tmp_path / "whole", weights=before.folder, **given
    )
    with pytest.raises(KeyboardInterrupt):
        fit.train(
            recipe, other, tmp_path / "cut", weights=before.folder,
            callbacks=[Stop()], **given,
        )  # fmt: skip
    # The source is not asked for again.
    cut = fit.train(recipe, other, tmp_path / "cut", resume=True, **given)
    for a, b in zip(
        whole.model().get_weights(), cut.model().get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_recipe_of_before_still_loads(before, tmp_path):
    settings = before.settings
    for name in ("train", "old_rate", "top_dropout", "cache_activations"):
        del settings["recipe"][name]
    del settings["transfer"]
    (tmp_path / "recipe.json").write_text(json.dumps(settings))
    assert Run(tmp_path).recipe == before.recipe


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": "half"}, "`train` must be one of all, top"),
        ({"top_dropout": 1.0}, "`top_dropout` must be in"),
        ({"old_rate": -1.0}, "`old_rate` must be 0 or more"),
        ({"cache_activations": 4}, "`cache_activations` must be 0, but"),
        (
            {"cache_activations": 4, "train": "top", "mixup": 0.2},
            "`cache_activations` must be 0, but",
        ),
    ],
)
def test_recipes_out_of_range(changes, told):
    with pytest.raises(ValueError, match=told):
        Recipe(**changes)


SCRIPT = """
import dataclasses, sys
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
half = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(cpu, [half, half])
from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.training import fit
from keras_videofusion.training.recipe import Recipe

data, source, out = sys.argv[1:]
weights = {}
for name in ("one", "mirrored"):
    # 16 clips in batches of 5: parts of 3 and 2, the last of 1 and none.
    recipe = Recipe(width=0.02, size=40, batch=5, epochs=1, train="top3",
                    learning_rate=1e-3, weight_decay=0.1, optimizer="adamw",
                    old_rate=0.1, accumulate=2, strategy=name)
    run = fit.train(recipe, fit.split(open_catalog(data)), f"{out}/{name}",
                    weights=source, verbose=0, say=lambda line: None)
    weights[name] = run.model().get_weights()
for a, b in zip(weights["one"], weights["mirrored"]):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
"""


def test_two_devices_give_old_layers_the_same_share(
    before, shapes_folder, tmp_path
):
    done = subprocess.run(
        [
            sys.executable, "-c", SCRIPT, shapes_folder, before.folder, tmp_path
        ],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


# Tops that learn from what is below them, kept.


@pytest.mark.parametrize("name", ["slow_fusion", "lrcn", "i3d", "two_stream"])
def test_a_network_cut_in_two_answers_as_it_did(name):
    model = transfer.regularized(small(name), "top", 0.5)
    transfer.freeze(model, "top")
    top = Top(model)
    draws = np.random.default_rng(0)
    clip = keras.tree.map_structure(
        lambda x: draws.uniform(0, 255, (2, *x.shape[1:])).astype("f4"),
        model.input,
    )
    below = top.below.predict_on_batch(clip)
    assert below.shape == (2, top.size)
    np.testing.assert_allclose(
        top.model.predict_on_batch(below),
        model.predict_on_batch(clip),
        atol=1e-6,
    )
    sizes = [
        sorted(tuple(x.shape) for x in part.trainable_variables)
        for part in (top.model, model)
    ]
    assert sizes[0] == sizes[1]
    # What the top learns goes back where it came from.
    whole = transfer.regularized(small(name), "top", 0.5)
    transfer.copy(model, whole)
    moved = [draws.normal(size=w.shape) for w in top.model.get_weights()]
    Stitched(whole, top).set_weights(moved)
    top.model.set_weights(moved)
    np.testing.assert_allclose(
        top.model.predict_on_batch(below),
        whole.predict_on_batch(clip),
        atol=1e-6,
    )


CACHED = dataclasses.replace(
    SMALL, train="top", top_dropout=0.5, cache_activations=3, epochs=2
)


@pytest.fixture(scope="module")
def cached(before, other, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cached") / "run"
    return fit.train(CACHED, other, folder, weights=before.folder, **QUIET)


def test_a_top_learns_from_kept_activations_and_is_stitched(
    cached, before, other
):
    model, source = cached.model(), before.model()
    assert equal(model, source, BELOW)
    # The loss that was told is the whole network's, of the same clips.
    rows = cached.path("history.csv").read_text().splitlines()
    told = [
        float(
            dict(zip(rows[0].split(","), row.split(","), strict=True))[
                "val_loss"
            ]
        )
        for row in rows[1:]
    ]
    assert len(told) == 2
    model.compile(loss="categorical_crossentropy")
    clips = validation_clips(other.where("validation"), cached.spec, 8)
    found = model.evaluate(clips, verbose=0)
    assert found == pytest.approx(min(told), rel=1e-5)
    state = cached.state_of(cached.checkpoints()[0])
    size = (cached.path("checkpoints") / state["weights"]).stat().st_size
    assert size < cached.path("model.keras").stat().st_size


def test_kept_activations_are_those_of_clips_drawn_by_the_seed(
    cached, before, other
):
    folders = {
        found.each: found
        for found in map(read_vectors, cached.path("activations").iterdir())
    }
    assert set(folders) == {1, 3}
    found = folders[3]
    assert found.kind == "features"
    learned = other.where("train")
    assert [v.path for v in found.catalog] == [v.path for v in learned]
    # One video's, computed plainly.
    place, video = 5, learned[5]
    spec = cached.spec
    generator = generator_of(0, video_ids(learned)[place])
    clips, _ = read_clips(
        learned.file(video), spec, "random", 3, generator, None, None
    )
    shown = np.stack([random_crop_flip(x, spec.size, generator) for x in clips])
    source = before.model()
    below = keras.Model(source.input, source.get_layer("fc7").output)
    np.testing.assert_allclose(
        found.rows(place), below.predict_on_batch(shown), rtol=1e-4, atol=1e-5
    )


def test_a_damaged_or_foreign_cache_is_made_anew(cached, other, tmp_path):
    folder = tmp_path / "shared"
    shutil.copytree(cached.path("activations"), folder)
    model = transfer.regularized(cached.model(), "top")
    transfer.freeze(model, "top")
    top = Top(model)

    def found(top=top, **changes):
        said = []
        kept_activations(
            top,
            dataclasses.replace(CACHED, **changes),
            (other.where("train"), other.where("validation")),
            cached.spec,
            folder,
            say=said.append,
        )
        return sum("found in" in line for line in said)

    # How the top learns is nothing to them; what is drawn is.
    assert found(top_dropout=0.9, epochs=9) == 2
    assert found(seed=1) == 1
    assert found(seed=1) == 2
    part = next(
        path
        for path in folder.iterdir()
        if read_vectors(path).each == 3
        and read_vectors(path).settings["seed"] == 0
    )
    numbers = part / "vectors-00000.npy"
    whole = numbers.read_bytes()
    for damage in (whole[:-4] + b"\0\0\0\0", whole[:-4], b""):
        numbers.write_bytes(damage)
        assert found() == 1
        assert numbers.read_bytes() == whole
    for name in ("manifest.json", "catalog.csv", "checksums.json"):
        (part / name).write_text("{")
        assert found() == 1
    weights = model.get_layer("fc6").get_weights()
    model.get_layer("fc6").set_weights([weights[0] + 1e-3, weights[1]])
    assert found(Top(model)) == 0


def test_a_stopped_top_goes_on_to_the_same_bits(
    cached, before, other, tmp_path
):
    class Stop(keras.callbacks.Callback):
        def __init__(self, epoch):
            super().__init__()
            self.last = epoch

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            if self.epoch == self.last and batch == 1:
                raise KeyboardInterrupt

    # In the first epoch, before there is a whole network, and later.
    for epoch in (0, 1):
        folder = tmp_path / str(epoch)
        with pytest.raises(KeyboardInterrupt):
            fit.train(
                CACHED, other, folder, weights=before.folder,
                checkpoint_steps=1, callbacks=[Stop(epoch)], **QUIET,
            )  # fmt: skip
        run = Run(folder)
        assert run.started
        assert run.path("model.keras").exists() == bool(epoch)
        fit.train(CACHED, other, folder, resume=True, **QUIET)
        for a, b in zip(
            cached.model().get_weights(), run.model().get_weights(), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_a_broken_video_is_left_out(before, other, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(other.root, data)
    moved = dataclasses.replace(other, root=data)
    first = moved.where("train")[0]
    Path(moved.file(first)).write_bytes(b"no video")
    said = []
    run = fit.train(
        dataclasses.replace(CACHED, epochs=1), moved, tmp_path / "run",
        weights=before.folder, verbose=0, say=said.append,
    )  # fmt: skip
    assert any(f"skipped {first.path}" in line for line in said)
    assert run.model()
    with pytest.raises(VideoError):
        fit.train(
            CACHED, moved, tmp_path / "other", weights=before.folder,
            on_error="raise", **QUIET,
        )  # fmt: skip


# The verb.


def call(*words):
    return cli.run(cli.parse([str(word) for word in words]))


def test_the_verb_takes_the_network_from_the_model(
    before, shapes_folder, tmp_path, capsys
):
    words = ("--train", "top3", "--epochs", 1, "--batch", 8)
    assert (
        call(
            "finetune",
            before.folder,
            shapes_folder,
            "--run",
            tmp_path / "a",
            *words,
        )
        == 0
    )
    run = Run(tmp_path / "a")
    assert run.recipe == dataclasses.replace(
        Recipe(), width=0.02, size=40, dropout=0.5, train="top3", epochs=1,
        batch=8,
    )  # fmt: skip
    assert "none new; train=top3" in capsys.readouterr().out
    assert call("finetune", "--resume", "--run", run.folder) == 0
    assert "has finished" in capsys.readouterr().out
    # From the file in that folder, and from scratch, with no weights.
    assert (
        call(
            "finetune", run.path("model.keras"), shapes_folder, "--run",
            tmp_path / "b", "--train", "scratch", "--epochs", 1, "--width",
            0.03,
        )
        == 0
    )  # fmt: skip
    run = Run(tmp_path / "b")
    assert run.settings["transfer"] is None
    assert (run.recipe.width, run.recipe.size) == (0.03, 40)


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["--run", "r"], 2, "finetune needs MODEL and DATA"),
        (["none", "DATA", "--run", "r"], 1, "there is none of that name"),
        (["BEFORE", "none", "--run", "r"], 2, "none"),
        (
            ["BEFORE", "DATA", "--run", "r", "--width", "0.05"],
            1,
            "--width",
        ),
        (
            ["BEFORE", "DATA", "--run", "r", "--cache-activations", "2"],
            2,
            "`cache_activations` must be 0, but",
        ),
    ],
)
def test_wrong_calls_are_one_line(
    before, shapes_folder, tmp_path, monkeypatch, capsys, words, status, told
):
    monkeypatch.chdir(tmp_path)
    here = {"BEFORE": before.folder, "DATA": shapes_folder}
    assert call("finetune", *[here.get(word, word) for word in words]) == status
    error = capsys.readouterr().err.strip()
    assert told in error
    assert "\n" not in error


def test_recipes_after_files_and_published_weights(tmp_path):
    model = SlowFusion(width=0.02, classes=5, input_shape=(10, 40, 40, 3))
    model.save(tmp_path / "alone.keras")
    base = Recipe(width=0.02, epochs=7)
    found = recipe_after(str(tmp_path / "alone.keras"), base)
    assert found == dataclasses.replace(base, size=40)
    found = recipe_after("s3d:kinetics400", Recipe())
    assert found.options == {"style": "torchvision", "grid": "torch"}
    assert clip_of(found) == clip_spec("s3d", "kinetics400")
    assert (found.frames, found.fps, found.size) == (128, 15.0, None)

"""Training, scoring and predicting of real videos, on any backend."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_videofusion import applications
from keras_videofusion.applications import clip_spec
from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.data.pipeline import (
    steps,
    training_clips,
    validation_clips,
)
from keras_videofusion.training.fit import split, train
from keras_videofusion.training.losses import PartsCrossentropy
from keras_videofusion.training.metrics import HitAtK
from keras_videofusion.training.optimizer import KrizhevskySGD
from keras_videofusion.training.recipe import Recipe
from keras_videofusion.training.run import Run

BATCH = 6  # of 16 videos: the last batch of an epoch holds 4


@pytest.fixture
def learned(shapes):
    return shapes.where("train")


@pytest.fixture
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def slow_fusion(**arguments):
    keras.utils.set_random_seed(0)
    return applications.SlowFusion(
        input_shape=(10, 32, 32, 3), classes=4, width=0.1, **arguments
    )


def fit(model, catalog, optimizer, epochs, spec, **arguments):
    """Plain `fit` on the package's clips; the losses of the epochs."""
    model.compile(optimizer, PartsCrossentropy(), metrics=[HitAtK(1)])
    told = model.fit(
        training_clips(catalog, spec, BATCH, **arguments),
        epochs=epochs,
        steps_per_epoch=steps(catalog, BATCH),
        validation_data=validation_clips(
            catalog, spec, BATCH, flow=arguments.get("flow")
        ),
        verbose=0,
        validation_freq=min(5, epochs),
        shuffle=False,
    )
    return told.history


def test_fit_learns_from_real_videos(learned):
    spec = clip_spec("slow_fusion").with_size(32)
    model = slow_fusion(dropout=0.2)

    told = fit(
        model,
        learned,
        keras.optimizers.Adam(2e-3),
        10,
        spec,
        # By heart: the same clips in every epoch.
        sampler="centre",
        augment=False,
    )

    assert np.mean(told["loss"][-3:]) < 0.8 * np.mean(told["loss"][:3])
    watched = validation_clips(learned, spec, BATCH)
    found = model.evaluate(watched, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(told["val_loss"][-1], rel=1e-4)
    scores = model.predict(watched, verbose=0)
    truth = np.concatenate([np.asarray(labels) for _, labels in watched])
    assert scores.shape == (len(learned), 4)
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-4)
    hits = np.mean(scores.argmax(1) == truth.argmax(1))
    assert found["hit_at_1"] == pytest.approx(hits)


@pytest.mark.parametrize("policy", ["mixed_bfloat16"], indirect=True)
def test_half_precision_trains_on_full_weights(learned, policy):
    spec = clip_spec("slow_fusion").with_size(32)
    model = slow_fusion()
    before = model.get_weights()

    told = fit(model, learned, KrizhevskySGD(1e-3), 1, spec)

    assert np.isfinite(told["loss"]).all()
    assert {str(w.dtype) for w in model.weights} == {"float32"}
    assert not any(map(np.array_equal, before, model.get_weights()))


def test_two_streams_are_fed_by_name(shapes_flow, learned):
    spec = clip_spec("two_stream").with_size(48)
    model = applications.TwoStream(
        input_shape=spec.shapes, classes=4, width=0.02
    )

    told = fit(
        model, learned, keras.optimizers.SGD(1e-3), 1, spec, flow=shapes_flow
    )

    assert np.isfinite([*told["loss"], *told["val_loss"]]).all()


def videofusion(*words, status=0):
    """Runs the command under this process's backend."""
    done = subprocess.run(
        [sys.executable, "-m", "keras_videofusion", *map(str, words)],
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr[-2000:]
    return done


TRAIN = (
    *("--model", "slow_fusion", "--width", "0.05", "--size", "32"),
    *("--batch", "4", "--dropout", "0.5"),
)


@pytest.fixture(scope="module")
def resumed(shapes_folder, tmp_path_factory):
    """A run of an epoch that went on for another; read only."""
    run = tmp_path_factory.mktemp("runs") / "resumed"
    videofusion("train", shapes_folder, "--run", run, *TRAIN, "--epochs", 1)
    videofusion("train", "--resume", "--run", run, "--epochs", 2)
    return run


def test_a_resumed_run_ends_with_the_weights_of_a_whole_one(
    resumed, shapes_folder, tmp_path
):
    whole = tmp_path / "whole"
    videofusion("train", shapes_folder, "--run", whole, *TRAIN, "--epochs", 2)

    lines = (resumed / "history.csv").read_text().splitlines()
    ours, theirs = (
        keras.saving.load_model(run / "model.keras", compile=False)
        for run in (resumed, whole)
    )

    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2"]
    assert_same(ours, theirs)


def assert_same(ours, theirs):
    for mine, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(mine),
            keras.ops.convert_to_numpy(other),
            err_msg=mine.path,
        )


class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            raise InterruptedError


def test_a_run_stopped_in_the_middle_of_an_epoch_ends_the_same(
    shapes, tmp_path
):
    recipe = Recipe(width=0.05, size=32, batch=4, dropout=0.5, epochs=2)
    catalog = split(shapes)
    whole, stopped = Run(tmp_path / "whole"), Run(tmp_path / "stopped")
    quiet = {"verbose": 0, "say": str}
    train(recipe, catalog, whole.folder, **quiet)
    with pytest.raises(InterruptedError):
        train(
            *(recipe, catalog, stopped.folder),
            checkpoint_steps=1,
            callbacks=[Stop()],
            **quiet,
        )

    train(recipe, catalog, stopped.folder, resume=True, **quiet)

    assert stopped.state["epoch"] == 2
    assert_same(stopped.model(), whole.model())


def test_the_commands_evaluate_and_predict(resumed, shapes_folder, tmp_path):
    out = tmp_path / "out.json"
    video = next(shapes_folder.rglob("*.mp4"))

    videofusion("evaluate", resumed, "--clips", 2, "--json", out)
    told = json.loads(out.read_text())
    videofusion("predict", resumed, video, "--clips", 2, "--json", out)
    (named,) = json.loads(out.read_text())

    assert told["videos"] == 8
    assert not told["skipped"]
    assert {x["class"] for x in named["predictions"]} == set(
        open_catalog(shapes_folder).classes
    )
    assert named["error"] is None


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="TensorFlow has them all"
)
def test_strategies_of_tensorflow_are_refused_in_one_line(
    shapes_folder, tmp_path
):
    done = videofusion(
        *("train", shapes_folder, "--run", tmp_path / "run"),
        *("--strategy", "mirrored"),
        status=1,
    )

    *_, line = done.stderr.strip().splitlines()
    assert "strategy" in line
    assert keras.backend.backend() in line
    assert not (tmp_path / "run").exists()

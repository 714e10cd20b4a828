"""A run that was killed, at whatever step, ends as if it never had been."""

import dataclasses
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.data.prepare import prepare
from keras_videofusion.training import build, callbacks, fit
from keras_videofusion.training.callbacks import Rate, rate_of, TrainingError
from keras_videofusion.training.recipe import Recipe
from keras_videofusion.training.run import Run, RunError

# 16 videos to learn, in 4 steps of which the last is ragged.
SMALL = Recipe(
    width=0.02,
    size=40,
    batch=5,
    epochs=3,
    learning_rate=1e-3,
    dropout=0.5,
    plateau_patience=1,
)
STEPS = 4


def quiet(line):
    """Where a test does not look at what is said."""


@pytest.fixture(scope="module")
def catalog(shapes_folder):
    return fit.split(open_catalog(shapes_folder))


class Stop(keras.callbacks.Callback):
    """Ends the work like Ctrl-C after a step, counted from 0 over the run."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch * STEPS + batch == self.step:
            raise KeyboardInterrupt


def state_of(run):
    """Weights, optimizer, seeds and history of a run's newest checkpoint."""
    state = run.state
    model = build.build(run.recipe, run.spec, 4)
    build.compiled(model, run.recipe, run.catalog().where("train"))
    model.optimizer.build(model.trainable_variables)
    model.load_weights(run.path("checkpoints") / state["weights"])
    # How fast it was is another matter.
    rows = [
        {
            name: value
            for name, value in row.items()
            if name not in ("clips_per_second", "input_wait")
        }
        for row in state["history"]
    ]
    arrays = [*model.get_weights(), *map(np.asarray, model.optimizer.variables)]
    return arrays, rows, state["seeds"], state["memory"], state["best"]


def assert_same(first, second):
    (arrays, *rest), (arrays_, *rest_) = state_of(first), state_of(second)
    for a, b in zip(arrays, arrays_, strict=True):
        np.testing.assert_array_equal(a, b)
    assert rest == rest_
    weights = [run.model().get_weights() for run in (first, second)]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


RECIPES = {
    "paper": SMALL,
    "everything": dataclasses.replace(
        SMALL,
        optimizer="adam",
        schedule="cosine",
        warmup=0.5,
        accumulate=3,
        clip_norm=1.0,
        mixup=0.4,
        jitter=0.3,
        balance="sampling",
        label_smoothing=0.1,
    ),
    "half": dataclasses.replace(
        SMALL, model="single_frame", precision="mixed_float16"
    ),
}


@pytest.fixture(scope="module", params=RECIPES)
def undisturbed(request, catalog, tmp_path_factory):
    run = tmp_path_factory.mktemp(request.param) / "whole"
    recipe = RECIPES[request.param]
    return fit.train(recipe, catalog, run, verbose=0, say=quiet)


@pytest.mark.parametrize(("step", "every"), [(2, 1), (5, 0), (9, 2)])
def test_a_stopped_run_goes_on_to_the_same_bits(
    undisturbed, catalog, tmp_path, step, every
):
    recipe = undisturbed.recipe
    given = {"checkpoint_steps": every, "verbose": 0, "say": quiet}
    with pytest.raises(KeyboardInterrupt):
        fit.train(recipe, catalog, tmp_path, callbacks=[Stop(step)], **given)
    run = Run(tmp_path)
    if run.started:
        # What is kept is as near as was asked for: `Stop` comes before it.
        kept = run.state["epoch"] * STEPS + run.state["step"]
        assert step - max(every, 1) < kept <= step or not every
    fit.train(recipe, catalog, tmp_path, resume=True, **given)
    assert_same(undisturbed, run)


def test_shards_are_gone_on_with_in_the_middle(shapes_folder, tmp_path):
    prepare(
        open_catalog(shapes_folder), tmp_path / "shards",
        build.clip_of(SMALL), clips=2,
    )  # fmt: skip
    catalog = fit.split(open_catalog(tmp_path / "shards"))
    given = {"checkpoint_steps": 1, "verbose": 0, "say": quiet}
    whole = fit.train(SMALL, catalog, tmp_path / "whole", **given)
    with pytest.raises(KeyboardInterrupt):
        fit.train(
            SMALL, catalog, tmp_path / "cut", callbacks=[Stop(6)], **given
        )
    cut = fit.train(SMALL, catalog, tmp_path / "cut", resume=True, **given)
    assert_same(whole, cut)


@pytest.fixture(scope="module")
def whole(catalog, tmp_path_factory):
    """A run of three epochs that nothing disturbed; read only."""
    run = tmp_path_factory.mktemp("whole") / "run"
    return fit.train(SMALL, catalog, run, verbose=0, say=quiet)


@pytest.fixture(scope="module")
def two(catalog, tmp_path_factory):
    """A run of the first two of these epochs; read only."""
    run = tmp_path_factory.mktemp("two") / "run"
    recipe = dataclasses.replace(SMALL, epochs=2)
    return fit.train(recipe, catalog, run, verbose=0, say=quiet)


SCRIPT = """
import os, signal, sys
import keras
from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.training import fit
from keras_videofusion.training.recipe import Recipe
import json

data, run, recipe, dies = sys.argv[1:]

class Dies(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
    def on_train_batch_end(self, batch, logs=None):
        if self.epoch * 4 + batch == int(dies):
            os.kill(os.getpid(), signal.SIGKILL)

fit.train(Recipe.from_json(json.loads(recipe)),
          fit.split(open_catalog(data)), run, resume=True,
          checkpoint_steps=1, callbacks=[Dies()], verbose=0)
"""


def start(folder, run, recipe, dies=-1, **more):
    return subprocess.Popen(
        [
            sys.executable, "-c", SCRIPT, str(folder), str(run),
            json.dumps(recipe.to_json()), str(dies),
        ],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )  # fmt: skip


def test_sigkill_at_random_steps_changes_no_bit(
    catalog, whole, shapes_folder, tmp_path
):
    draw = random.Random()
    seed = draw.getrandbits(32)
    draw.seed(seed)
    steps = sorted(draw.sample(range(3 * STEPS - 1), 3))
    print(f"seed {seed}: killed at steps {steps}")
    for step in steps:
        done = start(shapes_folder, tmp_path / "cut", SMALL, step)
        done.communicate(timeout=300)
        assert done.returncode == -signal.SIGKILL
    # And once from outside, whatever it is at: maybe it writes.
    process = start(shapes_folder, tmp_path / "cut", SMALL)
    time.sleep(draw.uniform(4, 9))
    process.kill()
    process.communicate()
    done = start(shapes_folder, tmp_path / "cut", SMALL)
    _, told = done.communicate(timeout=300)
    assert done.returncode == 0, told[-3000:]
    assert_same(whole, Run(tmp_path / "cut"))


def test_sigterm_keeps_the_step_and_says_how_to_go_on(
    catalog, shapes_folder, tmp_path
):
    class Ask(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingError, match="step 3 of 4 of epoch 1.*--resume"):
        fit.train(
            SMALL, catalog, tmp_path, callbacks=[Ask()], verbose=0, say=quiet
        )
    assert signal.getsignal(signal.SIGTERM) is before
    assert (Run(tmp_path).state["epoch"], Run(tmp_path).state["step"]) == (0, 3)


# Checkpoints.


def test_the_two_newest_are_kept(catalog, tmp_path):
    run = fit.train(
        SMALL, catalog, tmp_path, checkpoint_steps=3, verbose=0, say=quiet
    )
    assert run.checkpoints() == [
        "epoch-00003-step-00000000",
        "epoch-00002-step-00000003",
    ]
    files = sorted(path.name for path in run.path("checkpoints").iterdir())
    assert files == sorted(
        name + ending
        for name in run.checkpoints()
        for ending in (".json", ".weights.h5")
    )


def test_epochs_between_checkpoints_change_no_bit(whole, catalog, tmp_path):
    given = {"checkpoint_epochs": 2, "verbose": 0, "say": quiet}
    with pytest.raises(KeyboardInterrupt):
        # In the last epoch.
        fit.train(
            SMALL, catalog, tmp_path, callbacks=[Stop(2 * STEPS + 1)], **given
        )
    run = Run(tmp_path)
    assert run.checkpoints() == ["epoch-00002-step-00000000"]

    fit.train(SMALL, catalog, tmp_path, resume=True, **given)

    assert run.checkpoints() == [
        "epoch-00003-step-00000000",
        "epoch-00002-step-00000000",
    ]
    assert_same(whole, run)


@pytest.mark.parametrize("checkpoint_epochs", [1, 5])
def test_the_best_network_is_kept_whenever_it_was(
    catalog, tmp_path, checkpoint_epochs
):
    class Worse(keras.callbacks.Callback):
        """Makes the second epoch the best."""

        def on_epoch_end(self, epoch, logs=None):
            logs["val_loss"] = abs(epoch - 1.0)
            if epoch == 1:
                self.weights = self.model.get_weights()

    worse = Worse()
    run = fit.train(
        SMALL, catalog, tmp_path, checkpoint_epochs=checkpoint_epochs,
        callbacks=[worse], verbose=0, say=quiet,
    )  # fmt: skip

    kept = run.model().get_weights()
    for mine, best in zip(kept, worse.weights, strict=True):
        np.testing.assert_array_equal(mine, best)
    assert run.state["best"] == 0.0


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "json"])
def test_of_a_damaged_checkpoint_the_one_before_serves(
    catalog, whole, two, tmp_path, damage
):
    shutil.copytree(two.folder, tmp_path / "run")
    other = Run(tmp_path / "run")
    newest = other.checkpoints()[0]
    path = other.path("checkpoints") / f"{newest}.weights.h5"
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "gone":
        path.unlink()
    else:
        path.with_name(f"{newest}.json").write_text('{"epoch": ')
    lines = []
    fit.train(
        SMALL, catalog, other.folder, resume=True, verbose=0, say=lines.append
    )
    assert any("going on from the checkpoint before" in line for line in lines)
    assert_same(whole, other)


def test_if_all_are_damaged_it_says_what_is_left(catalog, two, tmp_path):
    run = Run(tmp_path / "run")
    shutil.copytree(two.folder, run.folder)
    for path in run.path("checkpoints").glob("*.h5"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"damaged.*--overwrite.*model\.keras"):
        fit.train(SMALL, catalog, run.folder, resume=True, say=quiet)
    assert run.model() is not None


def test_a_full_disk_loses_nothing_and_says_what_to_do(
    catalog, whole, tmp_path, monkeypatch
):
    save = keras.Model.save_weights

    def full(self, path, *arguments, **more):
        if "epoch-00002" in str(path):
            Path(path).write_bytes(b"half of")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return save(self, path, *arguments, **more)

    monkeypatch.setattr(keras.Model, "save_weights", full)
    with pytest.raises(TrainingError, match="No space left.*Make room.*--resu"):
        fit.train(SMALL, catalog, tmp_path / "cut", verbose=0, say=quiet)
    run = Run(tmp_path / "cut")
    assert run.state["epoch"] == 1
    assert not [p for p in run.folder.rglob("*") if "draft" in p.name]
    monkeypatch.setattr(keras.Model, "save_weights", save)
    fit.train(SMALL, catalog, run.folder, resume=True, verbose=0, say=quiet)
    assert_same(whole, run)


def test_a_loss_that_is_no_number_leaves_what_was_good(catalog, tmp_path):
    class Poison(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2:
                some = self.model.trainable_variables[0]
                some.assign(np.full(some.shape, np.nan))

    # A rectifier hides it from the loss, not from the checkpoint.
    told = r"^a weight became.*epoch 1, step 3\..*kept.*--learning-rate"
    with pytest.raises(TrainingError, match=told):
        fit.train(
            SMALL, catalog, tmp_path, checkpoint_steps=1,
            callbacks=[Poison()], verbose=0, say=quiet,
        )  # fmt: skip
    run = Run(tmp_path)
    assert (run.state["epoch"], run.state["step"]) == (0, 2)
    assert all(np.isfinite(a).all() for a in state_of(run)[0])


def test_a_cosine_cannot_be_lengthened(catalog, tmp_path):
    recipe = dataclasses.replace(SMALL, schedule="cosine", epochs=1)
    fit.train(recipe, catalog, tmp_path, verbose=0, say=quiet)
    longer = dataclasses.replace(recipe, epochs=2)
    with pytest.raises(RunError, match=r"epochs=2 \(was 1\)"):
        fit.train(longer, catalog, tmp_path, resume=True, say=quiet)


# The rate of every step.


class Rates(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(rate_of(self.model))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [1.0] * 12),
        (
            {"schedule": "cosine"},
            [0.5 * (1 + np.cos(np.pi * s / 12)) for s in range(12)],
        ),
        (
            {"schedule": "steps", "drops": (1.0, 2.5), "drop_factor": 0.5},
            [1.0] * 4 + [0.5] * 6 + [0.25] * 2,
        ),
        ({"warmup": 1.0}, [0.2, 0.4, 0.6, 0.8] + [1.0] * 8),
        (
            {"warmup": 0.5, "schedule": "cosine"},
            [1 / 3, 2 / 3]
            + [0.5 * (1 + np.cos(np.pi * s / 10)) for s in range(10)],
        ),
    ],
    ids=["constant", "cosine", "steps", "warmup", "both"],
)
def test_the_rate_of_every_step_is_the_schedules(
    catalog, tmp_path, given, expected
):
    recipe = dataclasses.replace(SMALL, plateau_patience=0, **given)
    rates = Rates()
    fit.train(
        recipe, catalog, tmp_path, callbacks=[rates], verbose=0, say=quiet
    )
    np.testing.assert_allclose(rates.seen, 1e-3 * np.array(expected), rtol=1e-6)


def test_a_plateau_lowers_the_whole_schedule_from_there():
    recipe = dataclasses.replace(SMALL, schedule="cosine")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e-3))
    rate = Rate(recipe, STEPS)
    rate.set_model(model)
    seen = []
    for epoch in range(3):
        rate.on_epoch_begin(epoch)
        for step in range(STEPS):
            rate.on_train_batch_begin(step)
            seen.append(rate_of(model))
        if epoch == 0:
            model.optimizer.learning_rate = 0.1 * rate_of(model)
    expected = [0.5 * (1 + np.cos(np.pi * s / 12)) for s in range(12)]
    expected = 1e-3 * np.array(expected) * ([1] * 4 + [0.1] * 8)
    np.testing.assert_allclose(seen, expected, rtol=1e-5)


def test_the_bytes_of_a_checkpoint_are_summed(tmp_path):
    import zlib

    data = os.urandom(5 * 2**20 + 3)
    (tmp_path / "file").write_bytes(data)
    assert callbacks.checksum(tmp_path / "file") == zlib.crc32(data)

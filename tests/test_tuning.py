"""Searches: what varies, what is looked at, what is kept, who shares them."""

import csv
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from browser import Browser, chromium
from tensorboard.backend.event_processing import event_accumulator as reader
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.plugins.hparams.api_pb2 import Status

from keras_videofusion import cli
from keras_videofusion.data.catalog import Catalog, open_catalog, Video
from keras_videofusion.data.vectors import write_vectors
from keras_videofusion.training import fit, spaces, trials
from keras_videofusion.training.callbacks import TrainingError
from keras_videofusion.training.recipe import Recipe
from keras_videofusion.training.run import Run, RunError
from keras_videofusion.training.spaces import space_of
from keras_videofusion.training.tuning import (
    folds_of,
    HyperFeatureMLP,
    HyperFinetune,
    HyperLinear,
    HyperRecipe,
    search,
    tune,
    Tuned,
)

pytestmark = pytest.mark.filterwarnings(
    # KerasTuner still calls these of Python's threads.
    "ignore:currentThread:DeprecationWarning",
    "ignore:getName:DeprecationWarning",
)
ROOT = Path(__file__).parents[1]
CLASSES = ("jump", "run", "walk")
RECIPE = Recipe(
    model="feature_mlp", epochs=2, options={"hidden": [4, 4], "scale": None}
)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """A folder of vectors of 8 numbers: 12 recordings of each class."""
    folder = tmp_path_factory.mktemp("vectors") / "v"
    generator = np.random.default_rng(0)
    videos = [
        Video(f"{name}/{group}.mp4", (name,), group=f"g{group}", split=split)
        for group, split in enumerate(
            ["train"] * 7 + ["validation"] * 2 + ["test"] * 3
        )
        for name in CLASSES
    ]
    rows = [
        generator.normal(size=8) + 2 * np.eye(3, 8)[CLASSES.index(v.labels[0])]
        for v in videos
    ]
    catalog = Catalog(tuple(videos), CLASSES, str(folder))
    write_vectors(folder, catalog, 8, rows, kind="features")
    return folder


def space(kind=HyperFeatureMLP, **arguments):
    arguments = {"recipe": RECIPE, **arguments}
    if kind is HyperFeatureMLP:
        arguments.setdefault("units", (2, 8))
    return kind(input_shape=(8,), classes=3, **arguments)


def quiet(line):
    """Says nothing."""


def found_in(folder):
    """The rows of `search.csv`."""
    with open(Path(folder, "search.csv"), newline="") as file:
        return list(csv.DictReader(file))


def told_of(rows):
    """What of a search must not depend on the clock."""
    return [
        {name: x for name, x in row.items() if name != "seconds"}
        for row in rows
    ]


@pytest.fixture(scope="module")
def tuned(vectors, tmp_path_factory):
    """Three trials of the network and of the linear model, trained."""
    folder = tmp_path_factory.mktemp("tuned")
    lines = []
    found = tune(
        {"": space(), "-linear": space(HyperLinear)},
        open_catalog(vectors),
        folder / "run",
        trials=3,
        seed=1,
        verbose=0,
        say=lines.append,
    )
    return folder, found, lines


def test_spaces_are_made_as_those_of_keras():
    with pytest.raises(ValueError, match="specify `classes` when `include_top"):
        HyperFeatureMLP(input_shape=(8,))
    with pytest.raises(ValueError, match="either `input_shape` or `input_tens"):
        HyperLinear(classes=3)
    made = HyperFeatureMLP(True, (8,), None, 3, name="mine", tunable=False)
    assert (made.name, made.tunable) == ("mine", False)
    hp = keras_tuner.HyperParameters()
    model = space().build(hp)
    assert model.optimizer is not None
    assert model.output_shape == (None, 3)
    assert [x.units for x in model.layers if hasattr(x, "units")] == [2, 3]
    tensor = keras.Input((8,))
    assert space(input_tensor=tensor).build(hp).input is tensor
    bare = HyperFeatureMLP(False, (8,), recipe=RECIPE, units=(2, 8)).build(hp)
    assert bare.output_shape == (None, 2)


def test_spaces_serve_kerastuners_own_tuners_on_arrays(tmp_path):
    x = np.random.default_rng(0).normal(size=(12, 8)).astype("f4")
    y = np.eye(3, dtype="f4")[np.arange(12) % 3]
    tuner = keras_tuner.RandomSearch(
        space(), "val_loss", max_trials=1, directory=tmp_path
    )
    tuner.search(x, y, validation_data=(x, y), verbose=0)
    (best,) = tuner.get_best_hyperparameters()
    assert best.get("layers") in (1, 2)
    (trial,) = tuner.oracle.get_best_trials()
    # Two epochs, as the recipe says.
    assert trial.best_step in (0, 1)


def test_what_varies_makes_a_recipe():
    hp = keras_tuner.HyperParameters()
    hp.values = {
        "learning_rate": 0.012345678, "weight_decay": 5e-5, "layers": 2,
        "units_1": 8, "units_2": 4, "dropout_1": 0.30000000000000004,
        "dropout_2": 0.0, "dropout_top": 0.7,
    }  # fmt: skip
    recipe = space().recipe(hp)
    assert recipe.learning_rate == 0.0123
    assert recipe.weight_decay == 5e-5
    assert recipe.options == {
        "hidden": [8, 4], "dropout": [0.3, 0.0, 0.7], "scale": None,
    }  # fmt: skip
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    hp.values["layers"] = 1
    assert space().recipe(hp).options["dropout"] == [0.3, 0.7]
    linear = space(HyperLinear).recipe(keras_tuner.HyperParameters())
    assert linear.options["hidden"] == []
    assert len(linear.options["dropout"]) == 1


def test_a_space_knows_what_stands_under_conditions():
    class Guarded(HyperRecipe):
        def recipe(self, hp):
            if hp.Boolean("mixes"):
                with hp.conditional_scope("mixes", [True]):
                    hp.Float("mixup", 0.1, 1.0)
            with hp.conditional_scope("mixes", [True]):
                pass
            return self.base

    found = space_of(space(Guarded))
    assert {part.name for part in found.space} == {"mixes", "mixup"}
    assert found.values == {"mixes": False}
    assert {part.name for part in space_of(space()).space} == {
        "learning_rate", "weight_decay", "layers", "units_1", "units_2",
        "dropout_1", "dropout_2", "dropout_top",
    }  # fmt: skip


def test_folds_keep_recordings_whole_and_leave_the_test_alone(vectors):
    catalog = open_catalog(vectors)
    ((learned, watched),) = folds_of(catalog)
    assert (len(learned), len(watched)) == (21, 6)
    tested = {video.path for video in catalog.where("test")}
    seen = []
    for learned, watched in folds_of(catalog, 3):
        assert len(learned) + len(watched) == 27
        groups = [{v.group for v in part} for part in (learned, watched)]
        assert not groups[0] & groups[1]
        assert not tested & {v.path for v in [*learned, *watched]}
        seen += [video.path for video in watched]
    assert len(seen) == len(set(seen)) == 27
    alone = dataclasses.replace(
        catalog, videos=tuple(v for v in catalog if v.split != "validation")
    )
    with pytest.raises(ValueError, match="others to validate"):
        folds_of(alone)


def test_a_search_lands_as_runs_whose_loss_is_the_best_trials(tuned):
    folder, found, lines = tuned
    assert sorted(path.name for path in folder.iterdir()) == [
        "run", "run-linear", "run-linear-search", "run-search",
    ]  # fmt: skip
    for one in found:
        rows = found_in(one.found.folder)
        assert [row["trial"] for row in rows] == ["0", "1", "2"]
        assert {row["status"] for row in rows} == {"COMPLETED"}
        saved = json.loads(Path(one.found.folder, "best.json").read_text())
        losses = {row["trial"]: float(row["val_loss"]) for row in rows}
        losses[None] = saved["untuned"]["val_loss"]
        best = min(losses, key=losses.get)
        assert saved["trial"] == best
        assert one.run.recipe == one.found.recipe
        assert one.validation["val_loss"] == pytest.approx(
            losses[best], rel=1e-5
        )
        assert set(one.found.best["untuned"]) >= {"val_loss", "val_hit_at_1"}
        assert Path(one.found.folder, "search.png").read_bytes()[:4] == (
            b"\x89PNG"
        )
    assert found[1].run.recipe.options["hidden"] == []
    told = [line for line in lines if line.startswith("trial ")]
    assert len(told) == 6
    assert "3 of 3" in told[2]
    assert "left" in told[2]
    assert (
        cli.run(cli.parse(["evaluate", str(folder / "run"), "--clips=1"])) == 0
    )
    assert Run(folder / "run").path("scores.npz").exists()


@pytest.mark.parametrize("folds", [1, 2])
def test_no_test_row_is_looked_at(vectors, tmp_path, monkeypatch, folds):
    seen = set()

    def spied(given):
        def told(catalog, *args, **kwargs):
            seen.update(video.path for video in catalog)
            return given(catalog, *args, **kwargs)

        return told

    for name in ("training_clips", "validation_clips"):
        monkeypatch.setattr(spaces, name, spied(getattr(spaces, name)))
    catalog = open_catalog(vectors)
    search(space(), catalog, tmp_path / "s", trials=1, folds=folds, say=quiet)
    assert seen == {v.path for v in catalog if v.split != "test"}


def test_a_score_is_the_mean_over_folds(vectors, tmp_path):
    catalog = open_catalog(vectors)
    found = search(
        space(), catalog, tmp_path / "s", trials=1, folds=2, say=quiet
    )
    losses = []
    for learned, watched in folds_of(catalog, 2):
        rows = dataclasses.replace(
            catalog,
            videos=(
                *(dataclasses.replace(v, split="train") for v in learned),
                *(dataclasses.replace(v, split="validation") for v in watched),
            ),
        )
        run = fit.train(
            found.recipe, rows, tmp_path / str(len(losses)), verbose=0,
            say=quiet,
        )  # fmt: skip
        with open(run.path("history.csv"), newline="") as file:
            epochs = [float(row["val_loss"]) for row in csv.DictReader(file)]
        losses.append(min(epochs))
    assert found.best["val_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


class Breaks(HyperFeatureMLP):
    """Its odd trials, or all, cannot be trained."""

    which = staticmethod(lambda number: number % 2 == 1)
    count = 0

    def build(self, hp):
        Breaks.count += 1
        if self.which(Breaks.count - 1):
            raise MemoryError("no room for the weights")
        return super().build(hp)


def test_a_failed_trial_is_told_and_others_follow(vectors, tmp_path):
    Breaks.count = 0
    lines = []
    found = search(
        space(Breaks, units=(2, 8)), open_catalog(vectors), tmp_path,
        trials=3, say=lines.append,
    )  # fmt: skip
    assert [row["status"] for row in found.rows] == [
        "COMPLETED", "FAILED", "COMPLETED",
    ]  # fmt: skip
    assert found.rows[1]["error"] == "out of memory: no room for the weights"
    assert any("trial 1  failed: out of memory" in line for line in lines)
    assert sessions(tmp_path / "tensorboard")["trial-1"][1] == (
        Status.STATUS_FAILURE
    )


@pytest.mark.parametrize("objective", ["val_loss", "val_hit_at_1"])
def test_where_no_trial_is_better_the_recipe_stays_as_it_was(
    vectors, tmp_path, objective, capfd
):
    class Poor(HyperFeatureMLP):
        def recipe(self, hp):
            return dataclasses.replace(super().recipe(hp), learning_rate=1e-9)

    base = dataclasses.replace(
        RECIPE,
        optimizer="adam",
        learning_rate=0.02,
        epochs=6,
        dropout=0.0,
        options={"hidden": [32], "scale": None},
    )
    (one,) = tune(
        {"": space(Poor, recipe=base)},
        open_catalog(vectors),
        tmp_path / "run",
        trials=2,
        objective=objective,
        verbose=0,
        say=print,
    )

    best = one.found.best
    assert (best["trial"], best["values"]) == (None, {})
    assert best["score"] == best["untuned"][objective]
    assert one.run.recipe == base
    assert one.validation[objective] == pytest.approx(best["score"], rel=1e-5)
    assert "training the untuned recipe in" in capfd.readouterr().out


def test_the_linear_model_is_linear_before_it_is_tuned():
    given = dataclasses.replace(
        RECIPE, dropout=0.2, options={"hidden": [4, 4], "dropout": [0, 0, 0.5]}
    )
    linear = space(HyperLinear, recipe=given)

    model = linear.unvaried(linear.base).build(keras_tuner.HyperParameters())

    dense = [x for x in model.layers if isinstance(x, keras.layers.Dense)]
    assert [layer.units for layer in dense] == [3]


def test_networks_that_were_tried_keep_no_memory(vectors, tmp_path):
    """TensorFlow keeps their variables; what these held must be gone."""
    kept = []

    class Keeping(HyperFeatureMLP):
        def build(self, hp):
            model = super().build(hp)
            kept.extend(model.variables)
            return model

        def fit(self, hp, model, *args, **kwargs):
            found = super().fit(hp, model, *args, **kwargs)
            kept.extend(model.optimizer.variables)
            if len(kept) > 20:
                raise RuntimeError("trials that fail, too")
            return found

    search(
        space(Keeping),
        open_catalog(vectors),
        tmp_path / "search",
        trials=2,
        say=quiet,
    )

    sizes = [
        np.prod(tf.raw_ops.VariableShape(input=x.value.handle)) for x in kept
    ]
    assert len(sizes) > 20
    assert not any(sizes)


def test_a_loss_that_is_no_number_fails_a_trial(vectors, tmp_path):
    class Wild(HyperFeatureMLP):
        def recipe(self, hp):
            hp.Int("try", 0, 99)
            return dataclasses.replace(self.base, learning_rate=1e30)

    with pytest.raises(TrainingError, match=r"none of 5 trials .* became nan"):
        search(
            space(Wild, units=(2, 8)), open_catalog(vectors), tmp_path,
            trials=9, say=quiet,
        )  # fmt: skip
    assert len(found_in(tmp_path)) == trials.HOPELESS


class Interrupts(keras.callbacks.Callback):
    """Control-C in the second trial."""

    begun = 0

    def on_train_begin(self, logs=None):
        Interrupts.begun += 1
        if Interrupts.begun == 2:
            raise KeyboardInterrupt

    def __deepcopy__(self, memory):
        return Interrupts()


def test_a_search_that_was_stopped_goes_on_as_if_it_was_not(
    tuned, vectors, tmp_path, monkeypatch
):
    monkeypatch.setattr(trials.Trials, "untuned", lambda self: {})
    catalog, lines = open_catalog(vectors), []
    common = {"seed": 1, "say": lines.append}
    folder = tmp_path / "s"
    with pytest.raises(KeyboardInterrupt):
        search(
            space(), catalog, folder, trials=3, callbacks=[Interrupts()],
            **common,
        )  # fmt: skip
    assert "interrupted: go on with --resume" in lines[-1]
    assert len(found_in(folder)) == 1
    with pytest.raises(RunError, match=r"--resume .*--overwrite"):
        search(space(), catalog, folder, trials=3, **common)
    found = search(space(), catalog, folder, trials=3, resume=True, **common)
    # So a search repeats, too.
    assert told_of(found.rows) == told_of(tuned[1][0].found.rows)
    more = search(space(), catalog, folder, trials=4, resume=True, **common)
    assert told_of(more.rows)[:3] == told_of(found.rows)
    assert len(more.rows) == 4


@pytest.mark.parametrize("tuner", ["random", "bayesian", "hyperband"])
def test_oracles_go_on_as_if_they_had_not_been_stopped(tmp_path, tuner):
    def drawn(folder, again):
        values = []
        oracle = oracle_of(tuner)
        oracle._set_project_dir(tmp_path, folder)
        for count in range(8):
            if count == again:
                oracle = oracle_of(tuner)
                oracle._set_project_dir(tmp_path, folder)
                oracle.reload()
            trial = oracle.create_trial("one")
            if count == again - 1:
                continue  # it dies in this trial, which then begins anew
            values.append((trial.trial_id, trial.hyperparameters.values))
            x = trial.hyperparameters.get("x")
            ended(oracle, trial, (x - 0.3) ** 2)
        return values

    assert drawn("stopped", 5) == drawn("whole", -1)[:7]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tuner": "hyperband"}, r"tuner='hyperband' \(was 'random'\)"),
        ({"folds": 2}, r"folds=2 \(was 1\), other rows"),
        ({"seed": 9}, r"seed=9 \(was 1\)"),
        ({"objective": "val_hit_at_1"}, "objective="),
        ({"hypermodel": space(units=(2, 4))}, "another space"),
        (
            {"hypermodel": space(recipe=dataclasses.replace(RECIPE, batch=5))},
            r"batch=5 \(was 32\)",
        ),
    ],
)
def test_another_search_does_not_go_on(tuned, vectors, change, told):
    arguments = {"hypermodel": space(), "seed": 1, "trials": 3, **change}
    with pytest.raises(RunError, match=told):
        search(
            catalog=open_catalog(vectors), folder=tuned[0] / "run-search",
            resume=True, say=quiet, **arguments,
        )  # fmt: skip


@pytest.mark.parametrize(
    "harm",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"Float"', '"Lambda"'),
        lambda text: text.replace('"hyperparameters"', '"others"'),
    ],
)
def test_damaged_or_foreign_trials_are_one_line(tuned, vectors, tmp_path, harm):
    folder = tmp_path / "s"
    shutil.copytree(tuned[0] / "run-search", folder)
    path = next(folder.glob("trials/trial_*/trial.json"))
    path.write_text(harm(path.read_text()))
    with pytest.raises(RunError, match=r"cannot be gone on with: [^\n]*$"):
        search(
            space(), open_catalog(vectors), folder, trials=3, seed=1,
            resume=True, say=quiet,
        )  # fmt: skip


def test_strangers_files_are_left_alone(vectors, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="holds no search"):
        search(space(), open_catalog(vectors), tmp_path, say=quiet)
    with pytest.raises(RunError, match="on this machine"):
        search(space(), open_catalog(vectors), "s3://b/s", say=quiet)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"tuner": "grid"}, "`tuner` must be one of"),
        ({"objective": "loss"}, "`objective` must be one of"),
        ({"trials": 0}, "`trials` must be 1 or more"),
        ({"seed": -1}, "`seed` must be 0 or more"),
    ],
)
def test_wrong_arguments_are_refused(vectors, tmp_path, arguments, told):
    with pytest.raises(ValueError, match=told):
        search(
            space(), open_catalog(vectors), tmp_path / "s", say=quiet,
            **arguments,
        )  # fmt: skip
    assert not (tmp_path / "s").exists()


def test_bayesian_search_without_its_libraries_is_one_line(
    vectors, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"keras-videofusion\[tune\]"):
        search(space(), open_catalog(vectors), tmp_path / "s", tuner="bayesian")


@pytest.mark.parametrize("epochs", [1, 2, 3, 8, 9, 27, 30])
def test_hyperbands_trials_are_counted_as_kerastuner_runs_them(epochs):
    oracle = oracle_of("hyperband", max_epochs=epochs)
    oracle.save = oracle._save_trial = lambda *args: None
    count = 0
    while (trial := oracle.create_trial("one")).status == "RUNNING":
        ended(oracle, trial, float(count))
        count += 1
    assert count == trials.hyperband_trials(epochs)


def test_hyperband_trains_the_best_for_longer(vectors, tmp_path, monkeypatch):
    monkeypatch.setattr(trials.Trials, "untuned", lambda self: {})
    recipe = dataclasses.replace(RECIPE, epochs=3)
    found = search(
        space(recipe=recipe), open_catalog(vectors), tmp_path,
        tuner="hyperband", say=quiet,
    )  # fmt: skip
    epochs = [row["epochs"] for row in found.rows]
    assert epochs == [1, 1, 1, 3, 3, 3]
    first = min(found.rows[:3], key=lambda row: row["val_loss"])
    assert found.rows[3]["learning_rate"] == first["learning_rate"]
    assert found.recipe.epochs in (1, 3)


def oracle_of(tuner="random", **arguments):
    """An oracle over the hyperparameter `x`."""
    found = keras_tuner.HyperParameters()
    found.Float("x", 0.0, 1.0)
    kinds = {
        "random": (trials.RandomOracle, {"max_trials": 9}),
        "bayesian": (
            trials.BayesianOracle,
            {"max_trials": 9, "num_initial_points": 3},
        ),
        "hyperband": (trials.HyperbandOracle, {"max_epochs": 9}),
    }
    kind, own = kinds[tuner]
    return kind(
        told=lambda trial: None,
        objective=keras_tuner.Objective("s", "min"),
        hyperparameters=found,
        seed=1,
        **{**own, **arguments},
    )


def watched_oracle(total):
    """One of random trials that writes nothing, and whose clock stands."""
    oracle = oracle_of(max_trials=total)
    oracle.save = oracle._save_trial = lambda *args: None
    oracle.now = 1000.0
    oracle.clock = lambda: oracle.now
    return oracle


def ended(oracle, trial, score=1.0):
    oracle.update_trial(trial.trial_id, {"s": score})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


def test_the_trial_of_a_lost_worker_goes_to_another():
    oracle = watched_oracle(2)
    lost = oracle.create_trial("dies")
    done = oracle.create_trial("lives")
    ended(oracle, done)
    # Nobody leaves while a trial is under way.
    assert oracle.create_trial("lives").status == "IDLE"
    assert not oracle.over
    oracle.now += trials.SILENCE - 1
    oracle.get_trial(done.trial_id)  # no sign of life of who has no trial
    assert oracle.create_trial("lives").status == "IDLE"
    oracle.now += 2
    again = oracle.create_trial("lives")
    assert (again.status, again.trial_id) == ("RUNNING", lost.trial_id)
    ended(oracle, again)
    assert oracle.create_trial("lives").status == "STOPPED"
    assert oracle.done


def test_a_worker_that_gives_signs_of_life_keeps_its_trial():
    oracle = watched_oracle(1)
    slow = oracle.create_trial("slow")
    for _ in range(5):
        oracle.now += trials.SILENCE - 1
        oracle.get_trial(slow.trial_id)
        assert oracle.create_trial("other").status == "IDLE"
    ended(oracle, slow)
    assert oracle.create_trial("other").status == "STOPPED"
    # The other one has not been told yet, and may be busy saying so.
    assert not oracle.done
    assert oracle.create_trial("slow").status == "STOPPED"
    assert oracle.done


WHERE = {
    "KERASTUNER_TUNER_ID": "worker0",
    "KERASTUNER_ORACLE_IP": "127.0.0.1",
    "KERASTUNER_ORACLE_PORT": "1",
}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"KERASTUNER_ORACLE_IP": None}, "all of them; none, to search alone"),
        ({"KERASTUNER_TUNER_ID": None}, "all of them"),
        ({"KERASTUNER_ORACLE_PORT": ""}, "all of them"),
        ({"KERASTUNER_ORACLE_PORT": "http"}, "must be a port"),
        ({"KERASTUNER_ORACLE_PORT": "65536"}, "must be a port"),
        ({}, "no chief of the search was to be reached at 127.0.0.1:1 "),
    ],
)
def test_a_wrong_environment_is_one_line(
    vectors, tmp_path, monkeypatch, capfd, change, told
):
    from keras_videofusion.training import tuning

    monkeypatch.setattr(tuning, "PATIENCE", 0.1)
    for name, value in {**WHERE, **change}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    status = cli.run(
        cli.parse(
            ["tune", "baseline", str(vectors), f"--run={tmp_path / 'run'}",
             "--no-linear"]
        )
    )  # fmt: skip
    assert status == 1
    errors = capfd.readouterr().err.strip()
    assert told in errors
    assert len(errors.split("\n")) == 1


def free_port():
    """The first of two ports at which nothing listens."""
    import socket

    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def start(name, port, vectors, run, *flags):
    """The command as one of the processes that share a search."""
    return subprocess.Popen(
        [sys.executable, "-m", "keras_videofusion", "tune", "baseline",
         str(vectors), "--run", str(run), "--no-linear", "--epochs=2",
         "--units", "2", "8", "--option=scale=null", *flags],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERASTUNER_TUNER_ID": name,
            "KERASTUNER_ORACLE_IP": "127.0.0.1",
            "KERASTUNER_ORACLE_PORT": str(port),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def test_three_processes_share_a_search(vectors, tmp_path):
    port, run = free_port(), tmp_path / "run"
    processes = [
        start(name, port, vectors, run, "--trials=3")
        for name in ("chief", "worker0", "worker1")
    ]
    # Of another command: it may not take part.
    stranger = start("worker2", port, vectors, run, "--trials=3", "--seed=7")
    said = [one.communicate(timeout=240) for one in [*processes, stranger]]
    for process, (_, errors) in zip(processes, said, strict=False):
        assert process.returncode == 0, errors[-2000:]
    assert stranger.returncode == 1
    assert "must be started by the chief's own command" in said[3][1]
    rows = found_in(tmp_path / "run-search")
    assert [row["trial"] for row in rows] == ["0", "1", "2"]
    assert {row["status"] for row in rows} == {"COMPLETED"}
    assert Run(run).path("model.keras").exists()
    told = said[0][0].split("\n")
    assert sum(line.startswith("trial ") for line in told) == 3
    # Of the conditions that it reads KerasTuner prints the values.
    assert not {"1", "2"} & set(told)
    assert re.search(r"training (trial \d|the untuned recipe) in", said[0][0])
    for out, _ in said[1:3]:
        assert out.strip().split("\n") == [
            f"searching in {run}-search",
            f"waiting for the chief at 127.0.0.1:{port}",
            "no more trials; the chief trains the best",
        ]


def sessions(logs):
    """Dict from a trial to its hyperparameters and the way it ended."""
    found = {}
    for folder in sorted({path.parent for path in logs.rglob("*tfevents*")}):
        tags = reader.EventAccumulator(str(folder))
        tags.Reload()
        summaries = {
            tag: plugin_data_pb2.HParamsPluginData.FromString(
                tags.SummaryMetadata(tag).plugin_data.content
            )
            for tag in tags.Tags()["tensors"]
            if tag.startswith("_hparams_/session")
        }
        begun = summaries.get("_hparams_/session_start_info")
        if begun is None:
            continue
        ended = summaries.get("_hparams_/session_end_info")
        found[str(folder.relative_to(logs))] = (
            dict(begun.session_start_info.hparams),
            ended and ended.session_end_info.status,
        )
    return found


def test_tensorboard_is_told_every_trials_hyperparameters(tuned):
    one = tuned[1][0]
    found = sessions(Path(one.found.folder, "tensorboard"))
    assert set(found) == {"trial-0", "trial-1", "trial-2", "untuned"}
    for row in one.found.rows:
        values, status = found[f"trial-{row['trial']}"]
        assert status == Status.STATUS_SUCCESS
        assert values["learning_rate"].number_value == row["learning_rate"]
        assert values["layers"].number_value == row["layers"]
        assert ("units_2" in values) == (row["layers"] == 2)
        assert not any(name.startswith("tuner/") for name in values)
    root = reader.EventAccumulator(str(Path(one.found.folder, "tensorboard")))
    root.Reload()
    content = root.SummaryMetadata("_hparams_/experiment").plugin_data.content
    told = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
    assert {info.name for info in told.hparam_infos} >= {"layers", "units_1"}
    assert ("validation", "epoch_loss") in {
        (info.name.group, info.name.tag) for info in told.metric_infos
    }


def test_a_browser_shows_the_trials(tuned, tmp_path):
    if chromium() is None:
        pytest.skip("no Chromium: apt-get install chromium")
    logs = tuned[0] / "run-search" / "tensorboard"
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs),
         "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        lines = iter(server.stderr.readline, "")
        told = next(line for line in lines if " at http" in line)
        with Browser(tmp_path) as browser:
            browser.open(re.search(r"http://\S+", told)[0] + "#hparams")
            words = [
                "trial-0",
                "trial-2",
                "learning_rate",
                "loss of validation",
            ]
            browser.wait(
                f"{json.dumps(words)}.every((x) => words().includes(x))", 40
            )
            picture = os.environ.get("KVF_SCREENSHOTS")
            if picture:
                time.sleep(3)
                browser.screenshot(Path(picture, "tensorboard-search.png"))
    finally:
        server.terminate()
        server.wait()
        server.stderr.close()


def test_the_verb_searches_and_tells(vectors, tmp_path, capfd):
    call = [
        "tune", "baseline", str(vectors), f"--run={tmp_path / 'run'}",
        "--trials=2", "--epochs=1", "--units", "2", "4", "--no-linear",
        "--option=scale=null", "--validation-folds=2",
    ]  # fmt: skip
    assert cli.run(cli.parse([*call, "--json=-"])) == 0
    said, errors = capfd.readouterr()
    (told,) = json.loads(said)
    assert told["trials"] == 2
    assert told["failed"] == 0
    # The recipe as it was given may be the best, and varies nothing.
    varied = {"learning_rate", "layers"} if told["best"]["trial"] else set()
    assert set(told["best"]["values"]) >= varied
    assert "trial 0" in errors
    assert cli.run(cli.parse(call)) == 1
    assert "holds a run already" in capfd.readouterr().err
    # All is done: nothing changes.
    assert cli.run(cli.parse([*call, "--resume"])) == 0
    said, _ = capfd.readouterr()
    assert "2 of 2 trials are done" in said
    assert "feature_mlp, untuned" in said
    assert re.search(r"feature_mlp, best .* %   2 folds", said)


def test_the_verb_refuses_what_holds_no_vectors(shapes_folder, tmp_path, capfd):
    call = ["tune", "baseline", str(shapes_folder), f"--run={tmp_path / 'r'}"]
    assert cli.run(cli.parse(call)) == 2
    assert "needs a folder of vectors" in capfd.readouterr().err


@pytest.fixture(scope="module")
def moved(shapes_folder, tmp_path_factory):
    """A run of two of the four classes of `shapes_folder`."""
    catalog = open_catalog(shapes_folder)
    names = catalog.classes[:2]
    part = dataclasses.replace(
        catalog,
        videos=tuple(v for v in catalog if v.labels[0] in names),
        classes=names,
    )
    recipe = Recipe(
        model="single_frame", width=0.02, size=40, batch=4, epochs=1
    )
    return fit.train(
        recipe, part, tmp_path_factory.mktemp("moved") / "run", verbose=0,
        say=quiet,
    )  # fmt: skip


@pytest.mark.parametrize(
    "flags",
    [("--train=top", "--cache-activations=2"), ("--train=top3",)],
)
def test_finetuning_is_searched(moved, shapes_folder, tmp_path, capfd, flags):
    run = tmp_path / "run"
    status = cli.run(
        cli.parse(
            ["tune", "finetune", str(moved.folder), str(shapes_folder),
             f"--run={run}", "--trials=2", "--epochs=1", "--batch=4", *flags]
        )
    )  # fmt: skip
    said, errors = capfd.readouterr()
    assert status == 0, errors
    rows = found_in(f"{run}-search")
    assert {row["status"] for row in rows} == {"COMPLETED"}, rows
    assert {"top_dropout", "learning_rate"} <= set(rows[0])
    assert ("old_rate" in rows[0]) == ("--train=top3" in flags)
    best = json.loads(Path(f"{run}-search", "best.json").read_text())
    assert Run(run).recipe.top_dropout == best["recipe"]["top_dropout"]
    assert Run(run).recipe.width == 0.02
    # All trials learn from the same clips.
    if "--train=top" in flags:
        assert said.count("pass the frozen part once") == 4


def test_only_what_learns_with_weights_has_a_rate_of_its_own():
    hp = keras_tuner.HyperParameters()
    for train, known in (("top", False), ("top3", True), ("scratch", False)):
        base = Recipe(model="single_frame", train=train)
        made = HyperFinetune(
            input_shape=(1, 170, 170, 3), classes=2, recipe=base
        )
        made.recipe(hp := keras_tuner.HyperParameters())
        assert ("old_rate" in hp) == known
        assert hp.get("top_dropout") == 0.0
        assert hp.get("learning_rate") == base.learning_rate


def test_a_run_without_validation_has_no_scores_of_it(tmp_path):
    run = Run(tmp_path)
    (tmp_path / "history.csv").write_text("epoch,loss\n1,0.5\n2,0.25\n")
    assert Tuned("", None, run).validation == {}
    (tmp_path / "history.csv").write_text(
        "epoch,loss,val_loss,val_hit_at_1\n1,0.5,0.5,0.75\n2,0.25,0.6,0.5\n"
    )
    assert Tuned("", None, run).validation["val_hit_at_1"] == 0.75


def test_the_best_epoch_is_the_one_that_train_keeps():
    history = {
        "val_loss": [0.9, 0.4, 0.6, float("nan")],
        "val_hit_at_1": [0.9, 0.5, 1.0, 1.0],
    }
    assert trials.best_epoch(history) == {
        "val_loss": 0.4, "val_hit_at_1": 0.5, "epoch": 2,
    }  # fmt: skip
    with pytest.raises(trials.FailedTrialError, match="was a number"):
        trials.best_epoch({"val_loss": [float("nan")]})

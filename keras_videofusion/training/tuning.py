"""Searches by KerasTuner: what varies, over which rows, and what is best.

A space is a `HyperModel` whose hyperparameters make a `Recipe`, so the best
trial is a recipe that `keras_videofusion.training.fit.train` runs as it
stands. A search's folder holds

    search.json     what is searched: recipe, space, tuner, folds, seed
    trials/         KerasTuner's own, by which a search is gone on with
    search.csv      a row per trial: hyperparameters, scores, seconds
    best.json       the best trial and its recipe; the untuned recipe's scores
    search.png      scores by trial and by hyperparameter
    tensorboard/    every trial's curves and hyperparameters
    activations/    what a frozen part answers, where the recipe keeps it

No row that is held out for a test is ever looked at.
"""

import csv
import dataclasses
import io
import json
import math
import os
import sys
import time
import zlib
from contextlib import redirect_stdout
from dataclasses import dataclass

import keras_tuner
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams import summary_v2 as hparams

from keras_videofusion.data.files import (
    exists,
    is_folder,
    is_remote,
    join,
    make_folder,
    names,
    read_json,
    read_text,
    remove,
    write_json,
    write_text,
    written,
)
from keras_videofusion.evaluation import pictures
from keras_videofusion.training import fit
from keras_videofusion.training.callbacks import table, TrainingError
from keras_videofusion.training.progress import duration, scores
from keras_videofusion.training.recipe import Recipe
from keras_videofusion.training.run import Run, RunError
from keras_videofusion.training.spaces import (
    HyperFeatureMLP,
    HyperFinetune,
    HyperLinear,
    HyperRecipe,
    space_of,
)
from keras_videofusion.training.tensorboard import events_file
from keras_videofusion.training.trials import (
    BayesianOracle,
    best_epoch,
    hyperband_trials,
    HyperbandOracle,
    MARK,
    number,
    PATIENCE,
    RandomOracle,
    read_sharing,
    shown,
    Trials,
)

__all__ = [
    "Found",
    "HyperFeatureMLP",
    "HyperFinetune",
    "HyperLinear",
    "HyperRecipe",
    "Tuned",
    "folds_of",
    "search",
    "tune",
]

TUNERS = ("random", "bayesian", "hyperband")
# Hit@1 of a dozen videos has thirteen values: the best trials tie, and the
# first of them would win. The loss tells them apart.
OBJECTIVES = {"val_loss": "min", "val_hit_at_1": "max"}
SETTINGS = "search.json"
HISTORY = "history.csv"
OURS = (
    SETTINGS,
    "trials",
    "search.csv",
    "best.json",
    "untuned.json",
    "search.png",
    "tensorboard",
    "activations",
)


def folds_of(catalog, count=1):
    """The pairs of rows that a trial learns and is validated on.

    Args:
        catalog: `Catalog` whose rows all carry a split, as
            `keras_videofusion.training.fit.split` gives it.
        count: Integer. 1: the rows of "train" and of "validation". More: both
            are dealt anew to so many folds, whole recordings at a time, and
            each validates what the others teach.

    Returns:
        List of pairs of `Catalog`, none of whose rows are of "test".

    Raises:
        ValueError: If there is nothing to validate on.
    """
    if count == 1:
        learned, watched = map(catalog.where, ("train", "validation"))
        if not len(learned) or not len(watched):
            raise ValueError(
                "a search needs rows to learn and others to validate: give "
                "--validation-split a share, or --validation-folds 2 or more. "
                f"Received: {len(learned)} rows to learn, {len(watched)} to "
                "validate"
            )
        return [(learned, watched)]
    rows = dataclasses.replace(
        catalog,
        videos=tuple(v for v in catalog if v.split in ("train", "validation")),
    )
    return [
        (fold.where("train"), fold.where("test")) for fold in rows.folds(count)
    ]


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Args:
        folder: Path of its folder.
        rows: List of dicts, a trial each, as `search.csv` has them.
        best: Dict: `trial`, `score`, `values`, `recipe` of the best trial and
            `untuned`, the scores of the recipe that nothing was varied of.
            Where no trial is better than that one, it is the best: `trial` is
            None then, and `values` is empty.
    """

    folder: str
    rows: list
    best: dict

    @property
    def recipe(self):
        """The best trial's `Recipe`."""
        return Recipe.from_json(self.best["recipe"])

    @property
    def name(self):
        """String, what the best is called."""
        trial = self.best["trial"]
        return "the untuned recipe" if trial is None else f"trial {trial}"


def search(
    hypermodel,
    catalog,
    folder,
    *,
    tuner="random",
    trials=None,
    folds=1,
    objective="val_loss",
    seed=0,
    resume=False,
    overwrite=False,
    callbacks=(),
    later=0,
    say=print,
    **reading,
):
    """Searches a space of recipes for the one that validates best.

    A trial trains on every fold's rows as `train` would, and its score is
    the mean over folds of the loss, or the Hit@1, of validation in the epoch
    of the least loss, which is the one that `train` keeps. It has a seed of
    its own, drawn from the search's and the trial's number, so that a search
    repeats. A trial that fails is marked so and told, and others follow.
    After all of them the recipe is trained as it was given, and may be the
    best.

    Processes whose environment names KerasTuner's chief share one search.

    Args:
        hypermodel: `HyperRecipe`.
        catalog: `Catalog` whose rows all carry a split.
        folder: Path of the search's folder, on this machine.
        tuner: `"random"`, `"bayesian"` or `"hyperband"`.
        trials: Integer, how many; 20 if None, and with Hyperband as many as
            it takes.
        folds: Integer, as for `folds_of`.
        objective: `"val_loss"` or `"val_hit_at_1"`, which ties on few videos.
        seed: Integer, 0 or more.
        resume: Goes on with the search in the folder, of which a trial that
            was under way begins anew; starts one in an empty folder. More
            trials than at first lengthen it.
        overwrite: Replaces the search that stands in the folder.
        callbacks: Keras callbacks that can be copied; a trial's network is
            emptied when it is over.
        later: Integer, searches that processes which share this one have
            shared before it.
        say: Function of one line of text.
        **reading: `on_error`, `flow`, `cache` of
            `keras_videofusion.data.pipeline.training_clips`.

    Returns:
        `Found`; None in a worker, whose chief knows.

    Raises:
        RunError: If the folder cannot be used.
        ClusterError: If other processes that share the search are lost.
        TrainingError: If no trial succeeds.
        ValueError: If arguments do not fit together.
    """
    _check(hypermodel, tuner, trials, objective, seed)
    sharing = read_sharing(later)
    chief = sharing is None or sharing.chief
    pairs = folds_of(catalog, folds)
    space = space_of(hypermodel)
    settings = {
        "recipe": hypermodel.base.to_json(),
        "weights": hypermodel.weights and str(hypermodel.weights),
        "space": space.get_config()["space"],
        "tuner": tuner,
        "objective": objective,
        "folds": folds,
        "seed": seed,
        "rows": [[fit.fingerprint(rows) for rows in pair] for pair in pairs],
    }
    mark = f"{zlib.crc32(json.dumps(settings).encode()):08x}"
    if chief:
        _begin(folder, settings, resume, overwrite)
    else:
        say(f"waiting for the chief at {sharing.host}:{sharing.port}")
        sharing.meet(PATIENCE)
    space.Fixed(MARK, mark)
    total = trials or 20
    if tuner == "hyperband":
        whole = hyperband_trials(hypermodel.base.epochs)
        total = min(whole, trials or whole)
    skipped, stdout = set(), sys.stdout

    def aloud(line):
        # Where a search is shared, it is closed to what KerasTuner prints.
        with redirect_stdout(stdout):
            say(line)

    def skip(path, error):
        if path not in skipped:
            skipped.add(path)
            aloud(f"skipped {path}: {error}")

    hypermodel.activations = join(folder, "activations")
    hypermodel.say = aloud
    ledger = Ledger(folder, hypermodel, objective, total, aloud)
    oracle = _oracle(tuner, hypermodel, space, objective, seed, total, ledger)

    try:
        runner = Trials(
            oracle,
            hypermodel,
            os.fspath(folder),
            pairs,
            seed=seed,
            mark=mark,
            sharing=sharing,
            callbacks=callbacks,
            reading={**reading, "on_skip": skip},
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise RunError(
            f"the search in {folder} cannot be gone on with: {reason}. Pass "
            "--overwrite to start again"
        ) from error
    if chief:
        ledger.open(runner, oracle)
        _show_parameters(folder, space)
    try:
        runner.search()
    except KeyboardInterrupt:
        if chief:
            say(f"interrupted: go on with --resume; {folder} knows the trials")
        raise
    if not chief:
        say("no more trials; the chief trains the best")
        return None
    return ledger.close()


class Ledger:
    """What the trials came to, told and written as they end.

    Args:
        folder: Path of the search's folder.
        hypermodel: `HyperRecipe`.
        objective: Name of the score.
        total: Integer, trials of the whole search at most.
        say: Function of one line of text.
    """

    def __init__(self, folder, hypermodel, objective, total, say):
        self.folder = folder
        self.hypermodel = hypermodel
        self.objective = objective
        self.total = total
        self.say = say
        self.seconds = []

    def open(self, runner, oracle):
        """Takes up a search, the trials that were run before with it.

        Args:
            runner: `Trials`.
            oracle: The oracle that this process keeps.
        """
        self.runner = runner
        self.oracle = oracle
        self.begun = time.monotonic()
        done = len(oracle.end_order)
        self.before = done
        self.say(
            f"{done} of {self.total} trials are done"
            if done
            else f"up to {self.total} trials, scored by {self.objective}"
        )

    def __call__(self, trial):
        """Hears of a trial that has ended."""
        if trial.trial_id not in self.oracle.end_order:
            return
        rows = self.rows()
        row = next(r for r in rows if r["trial"] == trial.trial_id)
        parts = [f"trial {trial.trial_id}"]
        if row["status"] == "COMPLETED":
            parts += [*scores(row, "val_", "validation ")]
            parts.append(f"took {duration(row['seconds'])}")
        else:
            parts.append(f"failed: {row['error']}")
        best = self.best(rows)
        if best:
            parts.append(f"best {best['score']:.4f} (trial {best['trial']})")
        done = len(self.oracle.end_order)
        left = (self.total - done) / max(1, done - self.before)
        left *= time.monotonic() - self.begun
        parts.append(f"{done} of {self.total}, {duration(left)} left")
        self.say("  ".join(parts))
        self.write(rows)

    def rows(self):
        """A dict for every trial that has ended, in the order of their ids."""
        found = []
        for name, trial in sorted(self.oracle.trials.items(), key=number):
            if name not in self.oracle.end_order:
                continue
            done = trial.status == "COMPLETED"
            row = {"trial": name, "status": trial.status}
            row["score"] = float(trial.score) if done else ""
            row |= {
                part: float(trial.metrics.get_last_value(part)) if done else ""
                for part in (
                    "val_loss", "val_hit_at_1", "loss", "hit_at_1", "epoch",
                    "seconds",
                )
            }  # fmt: skip
            row["error"] = self._error(trial)
            found.append(row | shown(trial.hyperparameters.values))
        return found

    def _error(self, trial):
        """Why a trial failed, in one line; empty if it did not."""
        if trial.status == "COMPLETED":
            return ""
        place = join(self.runner.get_trial_dir(trial.trial_id), "error.txt")
        if exists(place):
            return read_text(place).strip()
        return (trial.message or "its worker knows why").strip().split("\n")[-1]

    def rank(self, row):
        """Sorts scores, the best first, of several that of the least loss."""
        sign = 1 if OBJECTIVES[self.objective] == "min" else -1
        return sign * row[self.objective], row["val_loss"]

    def best(self, rows):
        """The row of the best trial; None if none was completed."""
        done = [row for row in rows if row["status"] == "COMPLETED"]
        return min(done, key=self.rank, default=None)

    def write(self, rows, untuned=None):
        """Writes `search.csv`, `best.json` and, last, `search.png`."""
        write_text(join(self.folder, "search.csv"), table(rows))
        best = self.best(rows)
        if best is None:
            return None
        trial = self.oracle.trials[best["trial"]]
        name, values = trial.trial_id, shown(trial.hyperparameters.values)
        recipe = self.runner.recipe_of(name, trial.hyperparameters)
        whole = untuned and "error" not in untuned
        if whole and self.rank(untuned) <= self.rank(best):
            best, name, values = untuned, None, {}
            recipe = self.runner.base
        found = {
            "trial": name,
            "score": best[self.objective],
            "objective": self.objective,
            "val_loss": best["val_loss"],
            "val_hit_at_1": best["val_hit_at_1"],
            "values": values,
            "untuned": untuned,
            "recipe": recipe.to_json(),
        }
        write_json(join(self.folder, "best.json"), found)
        return found

    def close(self):
        """Measures the untuned recipe, and gives what was found.

        Returns:
            `Found`.

        Raises:
            TrainingError: If no trial was completed.
        """
        rows = self.rows()
        if self.best(rows) is None:
            last = rows[-1]["error"] if rows else "there was none"
            raise TrainingError(
                f"none of {len(rows)} trials succeeded; the last: {last}. "
                f"See {join(self.folder, 'search.csv')}"
            )
        found = self.write(rows, self._untuned())
        try:
            figure = pictures.search_history(
                [row["score"] if row["status"] == "COMPLETED" else math.nan
                 for row in rows],
                [shown(self.oracle.trials[row["trial"]].hyperparameters.values)
                 for row in rows],
                self.objective,
                OBJECTIVES[self.objective],
                (found["untuned"] or {}).get(self.objective),
            )  # fmt: skip
            with written(join(self.folder, "search.png")) as draft:
                draft.write_bytes(pictures.png(figure))
        except ImportError as error:
            self.say(str(error))
        return Found(os.fspath(self.folder), rows, found)

    def _untuned(self):
        """Scores of the recipe as it was given; None if it fails."""
        path = join(self.folder, "untuned.json")
        if exists(path):
            return read_json(path)
        self.say("measuring the recipe that nothing was varied of")
        found = self.runner.untuned()
        write_json(path, found)
        return found


@dataclass(frozen=True)
class Tuned:
    """A search and the run that came of it.

    Args:
        name: String, what was searched: the run's ending after the name that
            was given.
        found: `Found`.
        run: The `Run` of the best recipe.
    """

    name: str
    found: Found
    run: Run

    @property
    def validation(self):
        """Dict of the run's scores in the epoch that it kept.

        Empty where no rows validated: the least loss of training chose.
        """
        rows = csv.DictReader(io.StringIO(read_text(self.run.path(HISTORY))))
        history: dict = {}
        for row in rows:
            for name, value in row.items():
                history.setdefault(name, []).append(float(value or "nan"))
        return best_epoch(history) if "val_loss" in history else {}


def tune(
    spaces,
    catalog,
    run,
    *,
    resume=False,
    overwrite=False,
    say=print,
    on_error="skip",
    flow=None,
    cache=None,
    verbose="auto",
    **searching,
):
    """Searches spaces, and trains the best recipe of each into a run.

    The search of the run `RUN` stands in `RUN-search` beside it. A run is
    trained exactly as `train` does: on the rows of "train", those of
    "validation" choose its epoch, and those of "test" stay held out.

    Args:
        spaces: Dict from the ending of a run's name to a `HyperRecipe`; all
            have the same trials, epochs and rows.
        catalog: `Catalog` whose rows all carry a split.
        run: Path of the folder of the run whose ending is "".
        resume: As for `search`, and for `keras_videofusion.training.fit.train`.
        overwrite: The same.
        say: Function of one line of text.
        on_error: As for `keras_videofusion.training.fit.train`.
        flow: The same.
        cache: The same.
        verbose: The same, of the runs alone.
        **searching: Further arguments of `search`.

    Returns:
        List of `Tuned`; empty in a worker.

    Raises:
        RunError: If a folder cannot be used.
        TrainingError: If a search or a training fails.
        ClusterError: If other processes that share a search are lost.
        ValueError: If arguments do not fit together.
    """
    sharing = read_sharing(len(spaces) - 1)
    reading = {"on_error": on_error, "flow": flow, "cache": cache}
    places = {name: (f"{run}{name}", f"{run}{name}-search") for name in spaces}
    if sharing is None or sharing.chief:
        for place, folder in places.values():
            _expect_room(Run(place), folder, resume, overwrite)
    found = {}
    for later, (name, hypermodel) in enumerate(spaces.items()):
        _, folder = places[name]
        say(f"searching in {folder}")
        found[name] = search(
            hypermodel,
            catalog,
            folder,
            resume=resume,
            overwrite=overwrite,
            later=later,
            say=say,
            **reading,
            **searching,
        )
    if sharing is not None and not sharing.chief:
        return []
    trained = []
    for name, hypermodel in spaces.items():
        recipe, own = found[name].recipe, Run(places[name][0])
        say(f"training {found[name].name} in {own.folder}")
        # A search that was lengthened may have found a better one.
        other = resume and own.exists and own.recipe != recipe
        fit.train(
            recipe,
            catalog,
            own.folder,
            weights=hypermodel.weights,
            resume=resume and not other,
            overwrite=overwrite or other,
            verbose=verbose,
            say=say,
            **reading,
        )
        trained.append(Tuned(name, found[name], own))
    return trained


def _check(hypermodel, tuner, trials, objective, seed):
    """Refuses a wrong call before any work."""
    if not isinstance(hypermodel, HyperRecipe):
        raise TypeError(
            "`hypermodel` must be a HyperRecipe, such as HyperFeatureMLP. "
            f"Received: hypermodel of {type(hypermodel)}"
        )
    for name, value, known in (
        ("tuner", tuner, TUNERS),
        ("objective", objective, tuple(OBJECTIVES)),
    ):
        if value not in known:
            raise ValueError(
                f"`{name}` must be one of {', '.join(known)}. "
                f"Received: {name}={value!r}"
            )
    if trials is not None and trials < 1:
        raise ValueError(f"`trials` must be 1 or more. Received: {trials=}")
    if seed < 0:
        raise ValueError(f"`seed` must be 0 or more. Received: {seed=}")
    if hypermodel.base.strategy != "one":
        raise ValueError(
            "a search trains on one device; several processes share one by "
            "KerasTuner's chief and workers. "
            f"Received: strategy={hypermodel.base.strategy!r}"
        )
    if tuner == "bayesian":
        try:
            import scipy  # noqa: F401
            import sklearn  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "the bayesian tuner needs scikit-learn and scipy: pip install "
                "'keras-videofusion[tune]'"
            ) from error


def _begin(folder, settings, resume, overwrite):
    """Makes a search's folder, or finds the same search in it."""
    if is_remote(folder):
        raise RunError(
            f"a search's folder must be on this machine. Received: {folder}"
        )
    path = join(folder, SETTINGS)
    if exists(folder) and not is_folder(folder):
        raise RunError(f"a search's folder is needed. Received: {folder}")
    if exists(path) and not overwrite:
        if not resume:
            raise RunError(
                f"{folder} holds a search already: pass --resume to go on with "
                "it, --overwrite to replace it, or another --run."
            )
        try:
            before = read_json(path)
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read: {error}") from error
        now = json.loads(json.dumps(settings))
        changed = [name for name in now if before.get(name) != now[name]]
        if changed:
            raise RunError(
                "a search that is gone on with keeps what it began with; pass "
                f"--overwrite to start again. Received: {_told(before, now)}"
            )
        return
    if exists(folder) and names(folder):
        if not exists(path):
            raise RunError(
                f"{folder} is not empty and holds no search: pass another "
                "--run, so that nothing of yours is lost."
            )
        for name in OURS:
            remove(join(folder, name))
    make_folder(folder)
    write_json(path, settings)


def _told(before, now):
    """What has changed of a search, in few words."""
    found = []
    for name, value in now.items():
        old = before.get(name)
        if old == value:
            continue
        if name == "recipe" and isinstance(old, dict):
            found += [
                f"{part}={value[part]!r} (was {old.get(part)!r})"
                for part in value
                if value[part] != old.get(part)
            ]
        elif name == "rows":
            found.append("other rows, or other splits of them")
        elif name == "space":
            found.append("another space of hyperparameters")
        else:
            found.append(f"{name}={value!r} (was {old!r})")
    return ", ".join(found)


def _expect_room(run, folder, resume, overwrite):
    """Refuses a run's folder before the search, not after it."""
    begun = exists(join(folder, SETTINGS))
    if run.exists and not overwrite and not (resume and begun):
        way = (
            "--resume finds no search of it"
            if resume
            else "pass --resume to go on with its search"
        )
        raise RunError(
            f"{run.folder} holds a run already: {way}, --overwrite to replace "
            "it, or another --run."
        )


def _oracle(tuner, hypermodel, space, objective, seed, total, told):
    """The oracle of a search."""
    common = {
        "told": told,
        "objective": keras_tuner.Objective(objective, OBJECTIVES[objective]),
        "hyperparameters": space,
        # KerasTuner takes 0 for none.
        "seed": seed + 1,
    }
    if tuner == "random":
        return RandomOracle(max_trials=total, **common)
    if tuner == "bayesian":
        # Its own default, three points for each hyperparameter, would leave
        # a search of twenty trials to chance.
        points = max(3, min(total // 3, 3 * len(space.space)))
        return BayesianOracle(
            max_trials=total, num_initial_points=points, **common
        )
    oracle = HyperbandOracle(max_epochs=hypermodel.base.epochs, **common)
    oracle.max_trials = total
    return oracle


def _show_parameters(folder, space):
    """Says to TensorBoard what varies, and by what trials are compared."""
    logs = join(folder, "tensorboard")
    if exists(logs):
        return
    domains = {}
    for part in space.space:
        if isinstance(part, keras_tuner.engine.hyperparameters.Choice):
            domains[part.name] = hparams.Discrete(part.values)
        elif isinstance(part, keras_tuner.engine.hyperparameters.Int):
            domains[part.name] = hparams.IntInterval(
                part.min_value, part.max_value
            )
        elif isinstance(part, keras_tuner.engine.hyperparameters.Float):
            domains[part.name] = hparams.RealInterval(
                part.min_value, part.max_value
            )
        elif isinstance(part, keras_tuner.engine.hyperparameters.Boolean):
            domains[part.name] = hparams.Discrete([False, True])
    summary = hparams.hparams_config_pb(
        [hparams.HParam(name, domain) for name, domain in domains.items()],
        [
            hparams.Metric(f"epoch_{part}", group=group, display_name=name)
            for part, group, name in (
                ("loss", "validation", "loss of validation"),
                ("hit_at_1", "validation", "Hit@1 of validation"),
                ("loss", "train", "loss"),
                ("hit_at_1", "train", "Hit@1"),
            )
        ],
    )
    file = events_file(logs, 1)
    event = Event(wall_time=time.time(), step=0)
    event.summary.ParseFromString(summary.SerializeToString())
    file.write(event.SerializeToString())
    file.close()

"""The trials of one search: handed out, run, watched, shared by processes.

KerasTuner's oracle says which hyperparameters come next, its tuner runs them.
Where the environment says so, one process keeps the oracle and others run
the trials: its own chief and workers, by `KERASTUNER_TUNER_ID` ("chief" in
it for that one), `KERASTUNER_ORACLE_IP` and `KERASTUNER_ORACLE_PORT`.
"""

import dataclasses
import gc
import logging
import math
import os
import socket
import sys
import threading
import time
import traceback
import warnings
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass

import keras
import keras_tuner
import numpy as np
from keras_tuner.errors import FailedTrialError, FatalRuntimeError
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.summary import session_end_pb

from keras_videofusion.data.files import (
    join,
    remove,
    write_json,
    write_text,
)
from keras_videofusion.training.cluster import BEAT, ClusterError
from keras_videofusion.training.devices import release
from keras_videofusion.training.spaces import rounded
from keras_videofusion.training.tensorboard import TensorBoard

# Seconds: how long a worker may not be heard of until its trial goes to
# another, and how long the chief waits for workers, and they for it.
SILENCE = 60
PATIENCE = 600
# So many trials fail before the search is given up, if none succeeds.
HOPELESS = 5
# What marks a worker's search as the chief's; KerasTuner's own such names
# begin alike, and no table shows them.
MARK = "tuner/search"
VARIABLES = (
    "KERASTUNER_TUNER_ID",
    "KERASTUNER_ORACLE_IP",
    "KERASTUNER_ORACLE_PORT",
)


@dataclass(frozen=True)
class Sharing:
    """This process's part in a search that several share.

    Args:
        name: String, "chief" in it for the one that keeps the oracle.
        host: String, where the chief listens.
        port: Integer.
    """

    name: str
    host: str
    port: int

    @property
    def chief(self):
        return "chief" in self.name

    @property
    def reachable(self):
        """Whether something listens there."""
        try:
            with socket.create_connection((self.host, self.port), timeout=5):
                return True
        except OSError:
            return False

    def meet(self, patience):
        """Waits for the chief.

        Args:
            patience: Float, seconds.

        Raises:
            ClusterError: If it does not come.
        """
        until = time.monotonic() + patience
        while not self.reachable:
            if time.monotonic() >= until:
                raise ClusterError(
                    f"no chief of the search was to be reached at {self.host}:"
                    f"{self.port} for {patience:.0f} s. Start it by the same "
                    "command with KERASTUNER_TUNER_ID=chief"
                )
            time.sleep(0.2)


def read_sharing(later=0):
    """What the environment says of the processes that share a search.

    Args:
        later: Integer, searches that these processes have done before: each
            has a port of its own, the next one.

    Returns:
        `Sharing`, or None: this process searches alone.

    Raises:
        ClusterError: If it says only a part, or no port.
    """
    found = {name: os.environ.get(name, "") for name in VARIABLES}
    if not any(found.values()):
        return None
    told = ", ".join(f"{name}={value!r}" for name, value in found.items())
    if not all(found.values()):
        raise ClusterError(
            f"processes that share a search need {', '.join(VARIABLES)}, all "
            f"of them; none, to search alone. Received: {told}"
        )
    name, host, port = found.values()
    if not port.isdecimal() or not 1 <= int(port) <= 65535 - later:
        raise ClusterError(
            f"`{VARIABLES[2]}` must be a port, 1 to {65535 - later}. "
            f"Received: {told}"
        )
    return Sharing(name, host, int(port) + later)


class Watched(keras_tuner.Oracle):
    """What our oracles do beside KerasTuner's, before which it is mixed in.

    A worker that was not heard of for `SILENCE` seconds is given up, and its
    trial run again by another: so nobody leaves while a trial is under way.
    Its files are whole or not there.

    Args:
        told: Function of a trial that has ended.
        **kwargs: As for the oracle.
    """

    def __init__(self, told, **kwargs):
        # One failed trial, or three in a row, end no search.
        super().__init__(max_consecutive_failed_trials=sys.maxsize, **kwargs)
        self.told = told
        self.verbose = 0
        self.clock = time.monotonic
        # Of every worker, when it was heard of last; whether one was let go.
        self.heard = {}
        self.over = False

    @property
    def hopeless(self):
        """Whether many trials failed and none was completed."""
        ended = [self.trials[name].status for name in self.end_order]
        return len(ended) >= HOPELESS and set(ended) == {"FAILED"}

    @property
    def idle(self):
        """Seconds since any worker was heard of; None before the first."""
        if not self.heard:
            return None
        return self.clock() - max(self.heard.values())

    @property
    def done(self):
        """Whether all workers were let go, or are lost."""
        here = {*self.tuner_ids, *self.ongoing_trials}
        return self.over and all(map(self.lost, here))

    def lost(self, worker):
        """Whether a worker was not heard of for too long."""
        return self.clock() - self.heard.get(worker, 0) > SILENCE

    @keras_tuner.synchronized
    def create_trial(self, tuner_id):
        self.heard[tuner_id] = self.clock()
        if self.hopeless:
            self.max_trials = len(self.trials)
        for worker, trial in list(self.ongoing_trials.items()):
            if worker != tuner_id and self.lost(worker):
                # As an oracle does with trials that it finds half run.
                self._retry_queue.append(trial.trial_id)
                del self.ongoing_trials[worker]
        self.tuner_ids -= set(filter(self.lost, self.tuner_ids))
        with warnings.catch_warnings():
            # Gaussian processes of few points say that they may not be good.
            warnings.simplefilter("ignore")
            trial = super().create_trial(tuner_id)
        if trial.status == "STOPPED":
            if self.ongoing_trials:
                trial.status = "IDLE"
                self.tuner_ids.add(tuner_id)
            else:
                self.over = True
        return trial

    @keras_tuner.synchronized
    def end_trial(self, trial):
        super().end_trial(trial)
        self.told(self.trials[trial.trial_id])

    def get_trial(self, trial_id):
        # Workers ask for their trial again and again: a sign of life.
        for worker, trial in list(self.ongoing_trials.items()):
            if trial.trial_id == trial_id:
                self.heard[worker] = self.clock()
        return super().get_trial(trial_id)

    def save(self):
        write_json(self._get_oracle_fname(), self.get_state())

    def _save_trial(self, trial):
        folder = self._get_trial_dir(trial.trial_id)
        write_json(join(folder, "trial.json"), trial.get_state())


class RandomOracle(Watched, keras_tuner.oracles.RandomSearchOracle):
    """Draws at random."""


class BayesianOracle(Watched, keras_tuner.oracles.BayesianOptimizationOracle):
    """Draws where a Gaussian process of the trials so far hopes for most."""

    def populate_space(self, trial_id):
        # So that a search that is gone on with draws as the undisturbed one:
        # its trials come from disk in any order.
        self.trials: dict = dict(sorted(self.trials.items(), key=number))
        self._random_state = np.random.RandomState(
            (self.seed + len(self.trials)) % 2**32
        )
        return super().populate_space(trial_id)


class HyperbandOracle(Watched, keras_tuner.oracles.HyperbandOracle):
    """Trains many for few epochs, and the best of them for more."""


def number(item):
    """Sorts pairs of a trial's name and whatever by the name's number."""
    return int(item[0])


def hyperband_trials(epochs, factor=3):
    """How many trials KerasTuner's Hyperband runs.

    Args:
        epochs: Integer, epochs of its longest trials.
        factor: Integer.

    Returns:
        Integer.
    """
    brackets = 0
    while epochs >= factor**brackets:
        brackets += 1
    last = math.ceil(1 + math.log(epochs, factor))
    return sum(
        math.ceil(last / (bracket + 1) * factor ** (bracket - round_))
        for bracket in range(brackets)
        for round_ in range(bracket + 1)
    )


class TrialBoard(TensorBoard):
    """TensorBoard's curves of one trial, and its hyperparameters.

    Args:
        folder: Path of the logs.
        values: Dict of hyperparameters.
        name: String: logs of one name are one trial, averaged.
        recipe: `Recipe`.
    """

    def __init__(self, folder, values, name, recipe):
        super().__init__(folder, recipe, (), steps_between=0)
        self.values = values
        self.name = name
        self.void = None

    def write_recipe(self):
        with self._forgiving():
            self._write("", 0, hparams.hparams_pb(self.values, self.name))
            self._flush()

    def draw(self, epoch):
        """Nothing: a search has many trials, and curves tell them apart."""
        self.drawn = epoch

    def fail(self):
        """Marks the trial as failed."""
        if self.void is None:
            # It did not come to its first step.
            self.void = 1
            self.write_recipe()
        with self._forgiving():
            self._write("", 0, session_end_pb(Status.STATUS_FAILURE))
            self._flush()
        self._close()


class Trials(keras_tuner.Tuner):
    """Runs trials: each learns every fold's rows, and is scored by their mean.

    Hyperband's longer trials begin anew rather than from the weights of the
    shorter ones: that takes up to half as long again, and needs neither a
    disk that workers share nor gigabytes on it, and the best trial is a
    recipe that `train` repeats.

    Args:
        oracle: One of ours.
        hypermodel: `keras_videofusion.training.tuning.HyperRecipe`.
        folder: Path of the search's folder.
        folds: List of pairs of catalogs, to learn and to validate.
        seed: Integer.
        mark: String that tells this search from others.
        sharing: `Sharing`, or None.
        callbacks: Further Keras callbacks, copied for every training.
        reading: Dict of further arguments of `HyperRecipe.fit`.
    """

    def __init__(
        self,
        oracle,
        hypermodel,
        folder,
        folds,
        *,
        seed=0,
        mark="",
        sharing=None,
        callbacks=(),
        reading=None,
    ):
        self.base = hypermodel.base
        self.hypermodel = hypermodel
        self.folder = folder
        self.folds = folds
        self.seed = seed
        self.mark = mark
        self.sharing = sharing
        self.callbacks = list(callbacks)
        self.reading = reading or {}
        self.waits = False
        with _environment(sharing), redirect_stdout(None):
            super().__init__(
                oracle,
                hypermodel,
                directory=folder,
                project_name="trials",
                tuner_id=sharing.name if sharing else None,
            )

    def _populate_initial_space(self):
        """Nothing: the oracle was given the space, and no network is built."""

    def recipe_of(self, trial_id, hp):
        """The recipe of a trial, with a seed of its own.

        Args:
            trial_id: String.
            hp: `keras_tuner.HyperParameters`.

        Returns:
            `Recipe`.
        """
        seeds = np.random.SeedSequence([self.seed, int(trial_id)])
        self.hypermodel.base = dataclasses.replace(
            self.base,
            seed=int(seeds.generate_state(1)[0] >> 1),
            epochs=hp.values.get("tuner/epochs", self.base.epochs),
        )
        return self.hypermodel.recipe(hp)

    def search(self):
        """Runs trials until there are no more.

        Raises:
            ClusterError: If other processes that share the search are lost.
        """
        # KerasTuner prints what it reads and writes of conditions in messages.
        mute = redirect_stdout(None) if self.sharing else nullcontext()
        with _environment(self.sharing), _unwarned(), mute:
            if self.sharing and self.sharing.chief:
                self._serve()
                return
            try:
                super().search()
            except FatalRuntimeError as error:
                raise ClusterError(str(error)) from error

    def _serve(self):
        """Lets the oracle be asked until all workers have been let go."""
        failed = []

        def serve():
            try:
                super(Trials, self).search()
            except Exception as error:
                failed.append(error)

        served = threading.Thread(target=serve, daemon=True)
        served.start()
        begun = time.monotonic()
        while served.is_alive() and not self.oracle.done:
            served.join(0.2)
            idle = self.oracle.idle
            if idle is None:
                idle = time.monotonic() - begun
            if idle > PATIENCE:
                raise ClusterError(
                    f"no worker of the search was heard of for {PATIENCE} s. "
                    "Start some by the same command with another "
                    "KERASTUNER_TUNER_ID, and this one with --resume"
                )
        if failed:
            raise ClusterError(
                f"the chief cannot listen at {self.sharing.host}:"
                f"{self.sharing.port}: {str(failed[0]).splitlines()[0]}"
            )
        # The last worker's answer is on its way.
        time.sleep(1)

    def pre_create_trial(self):
        if self.waits:
            # Nothing to do until others have done something.
            time.sleep(0.5)
        else:
            self._expect_chief()
            self._expect_same()
        self.waits = True

    def on_trial_begin(self, trial):
        self.waits = False

    def on_trial_end(self, trial):
        self._expect_chief()
        super().on_trial_end(trial)

    def run_trial(self, trial, *args, **kwargs):
        """Trains a trial on every fold.

        Returns:
            List of dicts, the best epoch's scores of each fold.

        Raises:
            FailedTrialError: If one fails; one line that says why.
        """
        begun = time.monotonic()
        hp = trial.hyperparameters
        with self._heard(trial.trial_id):
            try:
                rows = self.measure(
                    hp,
                    self.recipe_of(trial.trial_id, hp),
                    f"trial-{trial.trial_id}",
                )
            except FailedTrialError as error:
                place = self.get_trial_dir(trial.trial_id)
                write_text(join(place, "error.txt"), f"{error}\n")
                raise
        self._expect_chief()
        seconds = time.monotonic() - begun
        return [{**row, "seconds": seconds} for row in rows]

    def measure(self, hp, recipe, name):
        """Trains a recipe on every fold.

        Args:
            hp: `keras_tuner.HyperParameters`, which `hypermodel` makes a
                network of.
            recipe: `Recipe`, the one that it makes of them.
            name: String, the name of the logs.

        Returns:
            List of dicts, the scores of each fold in the epoch of the least
            loss of validation, which is the one that `train` keeps.

        Raises:
            FailedTrialError: If a training fails; one line that says why.
        """
        logs = join(self.folder, "tensorboard", name)
        remove(logs)
        rows = []
        for number, fold in enumerate(self.folds, 1):
            place = (
                join(logs, f"fold-{number}") if len(self.folds) > 1 else logs
            )
            board = TrialBoard(place, shown(hp.values), name, recipe)
            failure = None
            try:
                history = self._fit(hp, recipe, fold, board, name, number)
                rows.append(best_epoch(history))
            except (FatalRuntimeError, FailedTrialError):
                raise
            except Exception as error:
                failure = explained(error)
                # The frames of the traceback hold the network.
                traceback.clear_frames(error.__traceback__)
            finally:
                gc.collect()
            if failure:
                board.fail()
                raise FailedTrialError(failure)
        return rows

    def untuned(self):
        """Scores of the recipe that nothing is varied of, by the same folds.

        Returns:
            Dict of the means over folds; with `error` alone if it fails.
        """
        searched = self.hypermodel
        self.hypermodel = searched.unvaried(self.base)
        try:
            rows = self.measure(
                keras_tuner.HyperParameters(), self.base, "untuned"
            )
        except FailedTrialError as error:
            return {"error": str(error)}
        finally:
            self.hypermodel = searched
        return {
            name: float(np.mean([row[name] for row in rows]))
            for name in rows[0]
        }

    def _fit(self, hp, recipe, fold, board, name, number):
        learned, watched = fold
        keras.utils.clear_session()
        keras.utils.set_random_seed(recipe.seed)
        self.hypermodel.catalog = learned
        callbacks = self._deepcopy_callbacks(self.callbacks)
        self._configure_tensorboard_dir(
            callbacks,
            keras_tuner.engine.trial.Trial(hp, name),
            number - 1,
        )
        model = self.hypermodel.build(hp)
        try:
            fitted = self.hypermodel.fit(
                hp,
                model,
                learned,
                validation_data=watched,
                callbacks=[*callbacks, board],
                verbose=0,
                **self.reading,
            )
            # Without the network, which a `History` holds.
            return getattr(fitted, "history", fitted)
        finally:
            release(model)

    def _expect_chief(self):
        """Ends a worker whose chief is gone."""
        if not self.sharing or self.sharing.chief:
            return
        try:
            self.sharing.meet(SILENCE)
        except ClusterError:
            raise FatalRuntimeError(
                f"the chief at {self.sharing.host}:{self.sharing.port} is "
                f"gone: it did not answer for {SILENCE} s. Start it again "
                "with --resume, then this worker"
            ) from None

    def _expect_same(self):
        """Ends a worker whose search is another than the chief's."""
        if not self.sharing or self.sharing.chief:
            return
        theirs = [
            part.value
            for part in self.oracle.get_space().space
            if part.name == MARK
        ]
        if theirs != [self.mark]:
            raise FatalRuntimeError(
                "a worker must be started by the chief's own command, and see "
                f"the same rows of DATA. Received: search {self.mark}, where "
                f"the chief's is {', '.join(map(str, theirs)) or 'not ours'}"
            )

    @contextmanager
    def _heard(self, trial_id):
        """Tells the chief that this worker lives."""
        if not self.sharing:
            yield
            return
        ended = threading.Event()

        def beat():
            while not ended.wait(BEAT):
                with suppress(Exception):
                    self.oracle.get_trial(trial_id)

        threading.Thread(target=beat, daemon=True).start()
        try:
            yield
        finally:
            ended.set()


@contextmanager
def _environment(sharing):
    """The environment as KerasTuner reads it, where a search is shared."""
    if sharing is None:
        yield
        return
    before = {name: os.environ[name] for name in VARIABLES}
    os.environ[VARIABLES[2]] = str(sharing.port)
    try:
        yield
    finally:
        os.environ.update(before)


@contextmanager
def _unwarned():
    """Keeps TensorFlow from warning of each new network's graph."""
    logger = logging.getLogger("tensorflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def shown(values):
    """Hyperparameters as tables show them.

    Args:
        values: Dict, KerasTuner's own `tuner/...` in it.

    Returns:
        Dict, to three digits; of KerasTuner's own Hyperband's epochs alone.
    """
    found = {
        name: rounded(value) if isinstance(value, float) else value
        for name, value in values.items()
        if not name.startswith("tuner/")
    }
    if "tuner/epochs" in values:
        found["epochs"] = values["tuner/epochs"]
    return found


def best_epoch(history):
    """The scores of the epoch that `train` would keep.

    Args:
        history: `keras.callbacks.History`, or its dict.

    Returns:
        Dict of loss and Hit@1, learned and validated, and `epoch`, counted
        from 1.

    Raises:
        FailedTrialError: If there is none.
    """
    found = getattr(history, "history", history)
    losses = np.asarray(found.get("val_loss", ()), float)
    if not np.isfinite(losses).any():
        raise FailedTrialError("no loss of validation was a number")
    place = int(np.nanargmin(losses))
    row = {
        name: float(found[name][place])
        for name in ("loss", "hit_at_1", "val_loss", "val_hit_at_1")
        if name in found
    }
    return {**row, "epoch": place + 1}


def explained(error):
    """Why a training failed, in one line.

    Args:
        error: Exception.

    Returns:
        String.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    told = f"{type(error).__name__} {error}".lower()
    if isinstance(error, MemoryError) or any(
        sign in told
        for sign in ("resource_exhausted", "outofmemory", "out of memory")
    ):
        return f"out of memory: {first[:200]}"
    return first[:400]

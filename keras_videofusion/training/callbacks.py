"""Keras callbacks that write a run's folder and read it to go on."""

import csv
import io
import math
import time
import zlib

import keras
import numpy as np

from keras_videofusion.data.files import (
    exists,
    join,
    names,
    remove,
    write_json,
    write_text,
    written,
)

ENDING = ".weights.h5"
# What a callback of Keras remembers between epochs and does not save.
MEMORY = {
    "ReduceLROnPlateau": ("best", "wait", "cooldown_counter"),
    "EarlyStopping": ("best", "wait", "best_epoch", "stopped_epoch"),
    "ModelCheckpoint": ("best",),
}


class TrainingError(RuntimeError):
    """Training cannot go on; one line that says what to do."""


class Checkpoints(keras.callbacks.Callback):
    """Weights, optimizer, metrics, callbacks' memory and history, on disk.

    They are written at the ends of epochs, and within epochs, as often as is
    asked. A run that is resumed from any of them repeats, on one
    processor, the run that was never stopped to the bit. The one before the
    newest is kept too, in case that the newest is damaged.

    Keep it last in the list, so that it sees what the other callbacks have
    decided.

    Args:
        run: `keras_videofusion.training.run.Run`.
        network: The uncompiled twin of the model under training; it carries
            the weights into `model.keras`, which holds no optimizer.
        monitor: Name of the log by which the best network is chosen, lower
            is better.
        others: The callbacks whose memory is kept: of Keras's what `MEMORY`
            names, of others what their attribute `kept` names.
        metrics: List of `keras.metrics.Metric`, whose sums of an epoch that
            is gone on with count too.
        steps: Integer, steps of a whole epoch.
        state: Dict of the checkpoint that is gone on from, or None.
        epochs: Integer, a checkpoint after so many epochs, and at the end of
            training. Until then the best network is kept in memory.
        every: Integer, a checkpoint after so many steps; 0: none within
            epochs for that reason.
        minutes: Float, and after so many minutes; 0: none.
        ended: Function that says whether the run was asked to end; it ends
            then at once, with a checkpoint.
        chief: Whether this process writes. Others take part, since reading
            what several hold together needs them all.
    """

    def __init__(
        self,
        run,
        network,
        monitor,
        others,
        metrics,
        steps,
        state=None,
        epochs=1,
        every=0,
        minutes=0.0,
        ended=lambda: False,
        chief=True,
    ):
        super().__init__()
        self.run = run
        self.network = network
        self.monitor = monitor
        self.others = others
        self.metrics = metrics
        self.steps = steps
        self.epochs = epochs
        self.every = every
        self.seconds = 60 * minutes
        self.ended = ended
        self.chief = chief
        self.rows = list(state["history"]) if state else []
        self.best = state["best"] if state else None
        self.memory = state["memory"] if state else {}
        self.sums = state["metrics"] if state else []
        self.draws = state.get("draws") if state else None
        # Weights of the best network, where no file has them yet.
        self.better = None
        self.written = time.monotonic()

    def on_train_begin(self, logs=None):
        # Keras's callbacks forget everything in their `on_train_begin`,
        # which runs before this one's since this one is last.
        for other in self.others:
            kept = self.memory.get(type(other).__name__, {})
            for name, value in kept.items():
                setattr(other, name, value)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        # Keras has just set them to nothing: of the epoch that is gone on
        # with, the steps before count too.
        sums, self.sums = self.sums, []
        if sums:
            for variable, value in zip(self.variables, sums, strict=True):
                variable.assign(np.array(value, variable.dtype))

    def on_train_batch_begin(self, batch, logs=None):
        # Not before: torch draws for every reader of data that is opened,
        # and a run that goes on opens one where the whole run has its own.
        if self.draws:
            draw_on(self.draws)
            self.draws = None

    @property
    def variables(self):
        """The variables of all metrics."""
        return [v for metric in self.metrics for v in metric.variables]

    def on_train_batch_end(self, batch, logs=None):
        done = batch + 1
        if done == self.steps:
            return
        ended = self.ended()
        often = self.every and done % self.every == 0
        if often or self.late or ended:
            self.save(self.epoch, done)
        if ended:
            raise TrainingError(
                f"asked to end, after step {done} of {self.steps} of epoch "
                f"{self.epoch + 1}, which is kept. Go on with --resume --run "
                f"{self.run.folder}"
            )

    def on_epoch_end(self, epoch, logs=None):
        row = {"epoch": epoch + 1}
        row.update({key: float(value) for key, value in logs.items()})
        self.rows.append(row)
        self.draws = drawn()
        weights = self.weights(epoch, self.steps)
        if self.chief:
            self.judge(row.get(self.monitor, math.nan), weights)
        ends = epoch + 1 == self.params["epochs"] or self.model.stop_training
        if ends or (epoch + 1) % self.epochs == 0 or self.late:
            self.save(epoch + 1, 0)

    def judge(self, value, weights):
        """Takes weights for the best network's, if they are.

        Args:
            value: Float, of `monitor`; nan if it is not known.
            weights: List of arrays.
        """
        first = self.better is None and not exists(self.run.path("model.keras"))
        if first or self.best is None or value < self.best:
            if math.isfinite(value):
                self.best = value
            self.better = weights

    @property
    def late(self):
        """Whether the last checkpoint is as old as one may get."""
        age = time.monotonic() - self.written
        return bool(self.seconds) and age >= self.seconds

    def weights(self, epoch, step):
        """The model's weights.

        Args:
            epoch: Integer, the epoch under way, from 0.
            step: Integer, steps of it that are done.

        Returns:
            List of arrays.

        Raises:
            TrainingError: If a number among them is none.
        """
        found = self.model.get_weights()
        if not all(np.isfinite(weight).all() for weight in found):
            # The loss may not show it: a rectifier makes 0 of no number.
            raise diverged(
                "a weight became infinite or no number",
                epoch + 1,
                step,
                self.run,
            )
        return found

    def save(self, epoch, step):
        """Writes a checkpoint.

        Args:
            epoch: Integer, whole epochs done.
            step: Integer, steps done of the next.

        Raises:
            TrainingError: If it cannot be written.
        """
        state = self.state(epoch, step)
        if step:
            self.weights(epoch, step)
        if not self.chief:
            return
        folder = self.run.path("checkpoints")
        name = f"epoch-{epoch:05d}-step-{step:08d}"
        try:
            state["weights"] = name + ENDING
            with written(join(folder, state["weights"])) as draft:
                self.model.save_weights(draft)
                state["checksum"] = checksum(draft)
            if self.better is not None:
                self.network.set_weights(self.better)
                with written(self.run.path("model.keras")) as draft:
                    self.network.save(draft)
                self.better = None
            if self.rows:
                write_text(self.run.path("history.csv"), table(self.rows))
            write_json(join(folder, name + ".json"), state)
            # Two are kept.
            older = [n for n in self.run.checkpoints() if n != name][1:]
            for old in older:
                remove(join(folder, old + ".json"))
            kept = {n + ENDING for n in self.run.checkpoints()}
            for file in names(folder):
                if file.endswith(ENDING) and file not in kept:
                    remove(join(folder, file))
        except OSError as error:
            raise TrainingError(
                f"the checkpoint of epoch {epoch}, step {step} could not be "
                f"written to {folder}: {error.strerror or error}. Make room, "
                f"then go on with --resume --run {self.run.folder}"
            ) from error
        self.written = time.monotonic()

    def state(self, epoch, step):
        """What no weights file holds, as JSON takes it."""
        memory = {
            type(other).__name__: {
                name: plain(getattr(other, name))
                for name in kept_of(other)
                if getattr(other, name, None) is not None
            }
            for other in self.others
            if kept_of(other)
        }
        sums = self.variables if step else []
        return {
            "epoch": epoch,
            "step": step,
            "best": self.best,
            "monitor": self.monitor,
            "stopped": bool(self.model.stop_training),
            "history": self.rows,
            "metrics": [value_of(v) for v in sums],
            "seeds": [value_of(v) for v in seeds(self.model)],
            "draws": drawn(),
            "memory": memory,
        }


def kept_of(callback):
    """Names of what a callback remembers between epochs."""
    return getattr(callback, "kept", MEMORY.get(type(callback).__name__, ()))


def seeds(model):
    """The states of a network's random draws, which no weights file keeps.

    Args:
        model: `keras.Model`.

    Returns:
        List of `keras.Variable`, in the order of the layers.
    """
    weights = {id(weight) for weight in model.weights}
    return [
        variable
        for layer in model._flatten_layers(include_self=False)
        for variable in layer.variables
        if id(variable) not in weights
    ]


def drawn():
    """The state of torch's own generator, of which Keras's dropout draws.

    Returns:
        String; None under the other backends, whose draws are `seeds`.
    """
    if keras.backend.backend() != "torch":
        return None
    import torch

    return torch.get_rng_state().numpy().tobytes().hex()


def draw_on(state):
    """Goes on drawing where `drawn` was called.

    Args:
        state: String.
    """
    import torch

    values = bytearray.fromhex(state)
    torch.set_rng_state(torch.frombuffer(values, dtype=torch.uint8))


def checksum(file):
    """CRC-32 of a file's bytes."""
    found = 0
    with open(file, "rb") as bytes_:
        while block := bytes_.read(2**22):
            found = zlib.crc32(block, found)
    return found


def plain(value):
    """A NumPy number as one of Python's, for JSON."""
    return value.item() if hasattr(value, "item") else value


def table(rows):
    """`history.csv`: a line per epoch, `epoch` first."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class Rate(keras.callbacks.Callback):
    """Sets the learning rate of every step, and tells it in every epoch.

    The rate is a function of the step alone, times whatever other callbacks
    have lowered it by: a plateau's fall stays.

    Args:
        recipe: `Recipe`.
        steps: Integer, steps of a whole epoch.

    References:
        Warm-up: Goyal et al., "Accurate, Large Minibatch SGD", 2017, section
        2.2. Cosine: Loshchilov & Hutter, "SGDR", ICLR 2017, equation 5.
    """

    kept = ("scale", "last")

    def __init__(self, recipe, steps):
        super().__init__()
        self.recipe = recipe
        self.steps = steps
        self.scale = 1.0
        self.last = None

    def share(self, step):
        """The share of the whole rate at a step of the whole run, from 0."""
        recipe = self.recipe
        warmup = recipe.warmup * self.steps
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if recipe.schedule == "cosine":
            left = recipe.epochs * self.steps - warmup
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / left))
        passed = sum(step >= epoch * self.steps for epoch in recipe.drops)
        return recipe.drop_factor**passed

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        now = rate_of(self.model)
        if self.last and now != self.last:
            self.scale *= now / self.last
            self.last = now

    def on_train_batch_begin(self, batch, logs=None):
        if self.recipe.schedule == "constant" and not self.recipe.warmup:
            return
        share = self.share(self.epoch * self.steps + batch)
        rate = float(np.float32(self.recipe.learning_rate * self.scale * share))
        if rate != self.last:
            self.model.optimizer.learning_rate = rate
            self.last = rate

    def on_epoch_end(self, epoch, logs=None):
        logs["learning_rate"] = rate_of(self.model)


def value_of(variable):
    """A variable's value as JSON takes it, on any backend."""
    return keras.ops.convert_to_numpy(variable).tolist()


def rate_of(model):
    """The learning rate of a compiled model, a float."""
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))


class NoNaN(keras.callbacks.Callback):
    """Ends training with one clear line at the first loss that is no number.

    Raises:
        TrainingError: Then.
    """

    def __init__(self, run):
        super().__init__()
        self.run = run

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise diverged(
                f"the loss became {float(loss)}",
                self.epoch,
                batch + 1,
                self.run,
            )


def diverged(what, epoch, step, run):
    """The error of a training that has left all bounds.

    Args:
        what: String, what is no number.
        epoch: Integer, counted from 1.
        step: Integer, counted from 1.
        run: `keras_videofusion.training.run.Run`.

    Returns:
        `TrainingError`.
    """
    return TrainingError(
        f"{what} in epoch {epoch}, step {step}. What was good before is kept "
        f"in {run.folder}. Start again with a lower --learning-rate, or bound "
        "the gradient with --clip-norm 1"
    )


class Speed(keras.callbacks.Callback):
    """Adds clips per second to every epoch's logs, and who waited.

    `input_wait` is the share of the time of training in which no step was
    taken since its clips were not ready.

    Args:
        clips: Integer, training clips in an epoch.
        batch: Integer, clips in a step.
    """

    def __init__(self, clips, batch):
        super().__init__()
        self.clips = clips
        self.batch = batch
        self.waits = []

    def wait(self, seconds):
        """Hears of the seconds that a step has waited for its clips."""
        self.waits.append(float(seconds))

    def on_epoch_begin(self, epoch, logs=None):
        self.begun = time.perf_counter()
        self.seconds = None
        self.seen = 0
        self.waits.clear()

    def on_train_batch_end(self, batch, logs=None):
        self.seen += min(self.batch, self.clips - batch * self.batch)

    def on_test_begin(self, logs=None):
        # Validation within the epoch starts here: it is not training.
        self.seconds = time.perf_counter() - self.begun

    def on_epoch_end(self, epoch, logs=None):
        seconds = self.seconds or time.perf_counter() - self.begun
        logs["clips_per_second"] = self.seen / seconds
        if self.waits:
            logs["input_wait"] = min(1.0, sum(self.waits) / seconds)

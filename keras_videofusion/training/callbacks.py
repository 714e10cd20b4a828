"""Keras callbacks that write a run's folder and read it to go on."""

import csv
import io
import math
import time

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
    """After every epoch: weights, optimizer, callbacks' memory, history.

    A run that is resumed from them repeats, on one processor, the run that
    was never stopped to the bit. Keep it last in the list, so that it sees
    what the other callbacks have decided.

    Args:
        run: `keras_videofusion.training.run.Run`.
        network: The uncompiled twin of the model under training; it carries
            the weights into `model.keras`, which holds no optimizer.
        monitor: Name of the log by which the best network is chosen, lower
            is better.
        others: The callbacks whose memory is kept.
        state: Dict of an earlier checkpoint, or None.
    """

    def __init__(self, run, network, monitor, others, state=None):
        super().__init__()
        self.run = run
        self.network = network
        self.monitor = monitor
        self.others = others
        self.rows = list(state["history"]) if state else []
        self.best = state["best"] if state else math.inf
        self.memory = state["memory"] if state else {}

    def on_train_begin(self, logs=None):
        # Keras's callbacks forget everything in their `on_train_begin`,
        # which runs before this one's since this one is last.
        for other in self.others:
            kept = self.memory.get(type(other).__name__, {})
            for name, value in kept.items():
                setattr(other, name, value)

    def on_epoch_end(self, epoch, logs=None):
        row = {"epoch": epoch + 1}
        row.update({key: float(value) for key, value in logs.items()})
        self.rows.append(row)
        self.save(row)

    def save(self, row):
        """Writes the checkpoint of the epoch that `row` tells of."""
        epoch = row["epoch"]
        folder = self.run.path("checkpoints")
        try:
            weights = f"epoch-{epoch:05d}{ENDING}"
            with written(join(folder, weights)) as draft:
                self.model.save_weights(draft)
            better = row.get(self.monitor, math.nan) < self.best
            if better or not exists(self.run.path("model.keras")):
                self.best = row.get(self.monitor, self.best)
                self.network.set_weights(self.model.get_weights())
                with written(self.run.path("model.keras")) as draft:
                    self.network.save(draft)
            write_text(self.run.path("history.csv"), table(self.rows))
            write_json(join(folder, "state.json"), self.state(epoch, weights))
            for older in names(folder):
                if older.endswith(ENDING) and older != weights:
                    remove(join(folder, older))
        except OSError as error:
            raise TrainingError(
                f"the checkpoint of epoch {epoch} could not be written to "
                f"{folder}: {error.strerror or error}. Make room, then go on "
                f"with --resume --run {self.run.folder}"
            ) from error

    def state(self, epoch, weights):
        return {
            "epoch": epoch,
            "weights": weights,
            "best": self.best,
            "monitor": self.monitor,
            "stopped": bool(self.model.stop_training),
            "history": self.rows,
            "seeds": [np.asarray(v).tolist() for v in seeds(self.model)],
            "memory": {
                type(other).__name__: {
                    name: plain(getattr(other, name))
                    for name in MEMORY[type(other).__name__]
                    if getattr(other, name, None) is not None
                }
                for other in self.others
                if type(other).__name__ in MEMORY
            },
        }


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
            raise TrainingError(
                f"the loss became {float(loss)} in epoch {self.epoch}, step "
                f"{batch + 1}. The last whole epoch is kept in "
                f"{self.run.folder}. Start again with a lower "
                "--learning-rate, or bound the gradient with --clip-norm 1"
            )


class Speed(keras.callbacks.Callback):
    """Adds clips per second to every epoch's logs.

    Args:
        clips: Integer, training clips in an epoch.
    """

    def __init__(self, clips):
        super().__init__()
        self.clips = clips

    def on_epoch_begin(self, epoch, logs=None):
        self.begun = time.perf_counter()
        self.seconds = None

    def on_test_begin(self, logs=None):
        # Validation within the epoch starts here: it is not training.
        self.seconds = time.perf_counter() - self.begun

    def on_epoch_end(self, epoch, logs=None):
        seconds = self.seconds or time.perf_counter() - self.begun
        logs["clips_per_second"] = self.clips / seconds

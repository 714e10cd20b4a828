"""What a run tells on a terminal: a line that moves, or a line per epoch."""

import shutil
import sys
import time

import keras


class Progress(keras.callbacks.Callback):
    """One line per epoch: step, loss, Hit@1, clips per second, time left.

    On a terminal the line of the epoch moves and says how long the epoch and
    the run will still take; elsewhere nothing moves, and an epoch is told
    once it is over.

    Args:
        epochs: Integer, epochs of the whole run.
        steps: Integer, steps of an epoch.
        clips_per_step: Integer, clips of a step, over all devices.
        begun: Pair of integers, epoch and step at which a resumed run goes
            on; `(3, 120)` if three epochs and 120 steps of the fourth are
            done.
        verbose: 0: nothing; 1: the line moves; 2: a line per epoch;
            `"auto"`: 1 on a terminal, else 2.
        chief: Whether this process is the one of several that speaks.
        stream: Where to write; standard output if None.

    Raises:
        ValueError: If `verbose` is none of these.
    """

    def __init__(
        self,
        epochs,
        steps,
        clips_per_step,
        begun=(0, 0),
        verbose="auto",
        chief=True,
        stream=None,
    ):
        super().__init__()
        if verbose not in ("auto", 0, 1, 2):
            raise ValueError(
                "`verbose` must be 'auto', 0, 1 or 2. "
                f"Received: verbose={verbose!r}"
            )
        self.epochs = epochs
        self.steps = steps
        self.clips_per_step = clips_per_step
        self.begun = begun
        self.stream = stream or sys.stdout
        if verbose == "auto":
            verbose = 1 if self.stream.isatty() else 2
        self.verbose = verbose if chief else 0
        self.clock = time.monotonic
        # Seconds of a step, and of what follows the last one, as last seen.
        self.pace = self.rest = None
        self.drawn = 0.0
        self.shown = False

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        # A resumed epoch has steps behind it that this process did not take.
        self.first = self.begun[1] if epoch == self.begun[0] else 0
        self.step = self.first
        self.number = None
        self.opened = self.clock()
        self.started = None

    def on_train_batch_end(self, batch, logs=None):
        now = self.clock()
        # `batch` may count from 0 or, in a resumed epoch, from the true step.
        if self.number is None or self.started is None:
            self.number = batch
            # The first step compiles the network: it tells no pace.
            self.started = now
        self.step = self.first + batch - self.number + 1
        taken = batch - self.number
        if taken:
            self.pace = (now - self.started) / taken
        self.ended = now
        if self.verbose == 1 and now - self.drawn >= 0.1:
            self.drawn = now
            self.move(self.line(logs or {}))

    def on_epoch_end(self, epoch, logs=None):
        now = self.clock()
        if self.started is not None:
            self.rest = now - self.ended
        if not self.verbose:
            return
        logs = logs or {}
        parts = [
            f"epoch {epoch + 1}/{self.epochs}",
            *scores(logs),
            *scores(logs, "val_", "validation "),
        ]
        if "clips_per_second" in logs:
            parts.append(f"{logs['clips_per_second']:.1f} clips/s")
        parts.append(f"took {duration(now - self.opened)}")
        left = self.left(self.steps)
        if left is not None and epoch + 1 < self.epochs:
            parts.append(f"{duration(left[1])} left")
        self.say("  ".join(parts))

    def on_train_end(self, logs=None):
        self.clear()

    def line(self, logs):
        """The line that moves: of an epoch that is under way."""
        parts = [
            f"epoch {self.epoch + 1}/{self.epochs}",
            f"step {self.step}/{self.steps}",
            *scores(logs),
        ]
        left = self.left(self.step)
        if left is not None:
            parts.append(f"{self.clips_per_step / self.pace:.1f} clips/s")
            parts.append(f"left: epoch {duration(left[0])}")
            parts.append(f"run {duration(left[1])}")
        return "  ".join(parts)

    def left(self, step):
        """Seconds that epoch and run will still take; None if not known."""
        if not self.pace:
            return None
        rest = self.rest or 0.0
        # Of a finished epoch nothing is left, its validation neither.
        epoch = (self.steps - step) * self.pace
        epoch += rest * (step < self.steps)
        later = self.epochs - self.epoch - 1
        return epoch, epoch + later * (self.steps * self.pace + rest)

    def say(self, line):
        """Prints a line of its own, above the one that moves.

        Args:
            line: String.
        """
        self.clear()
        print(line, file=self.stream, flush=True)

    def move(self, line):
        columns = shutil.get_terminal_size().columns
        # A line that is wrapped could not be taken back.
        text = line[: max(1, columns - 1)]
        print(f"\r{text}\x1b[K", end="", file=self.stream, flush=True)
        self.shown = True

    def clear(self):
        if self.shown:
            print("\r\x1b[K", end="", file=self.stream, flush=True)
            self.shown = False


def scores(logs, prefix="", name=""):
    """Loss and Hit@1 of an epoch's logs as they are printed.

    Args:
        logs: Dict.
        prefix: String before the logs' names.
        name: String before the printed names.

    Returns:
        List of strings; what the logs lack is left out.
    """
    found = []
    if f"{prefix}loss" in logs:
        found.append(f"{name}loss {float(logs[f'{prefix}loss']):.4f}")
    if f"{prefix}hit_at_1" in logs:
        share = float(logs[f"{prefix}hit_at_1"])
        found.append(f"{name}Hit@1 {100 * share:.1f} %")
    return found


def duration(seconds):
    """Seconds as a clock shows them: `0:07`, `12:34`, `3:02:01`, `2 d 3 h`.

    Args:
        seconds: Float.

    Returns:
        String.
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    if hours:
        return f"{hours}:{minutes:02d}:{seconds:02d}"
    return f"{minutes}:{seconds:02d}"

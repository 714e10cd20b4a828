"""The line that a run shows on a terminal, and the lines elsewhere."""

import io

import keras
import numpy as np
import pytest

from keras_videofusion.training.progress import duration, Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True

    @property
    def lines(self):
        """What stands there in the end, carriage returns obeyed."""
        found = []
        for line in self.getvalue().split("\n"):
            found.append(line.split("\r")[-1].replace("\x1b[K", ""))
        return found

    @property
    def moves(self):
        """Every text that the moving line showed."""
        parts = self.getvalue().replace("\n", "\r").split("\r")
        return [part.removesuffix("\x1b[K") for part in parts if part]


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self):
        return self.now


def epoch(progress, number, steps, seconds=1.0, logs=None, first=0, rest=0.0):
    progress.on_epoch_begin(number)
    for batch in range(first, steps):
        progress.clock.now += seconds
        progress.on_train_batch_end(batch, logs or {"loss": 2.0})
    progress.clock.now += rest
    progress.on_epoch_end(number, logs or {"loss": 2.0})


def made(stream, **arguments):
    given = {"epochs": 3, "steps": 10, "clips_per_step": 4, **arguments}
    progress = Progress(stream=stream, **given)
    progress.clock = Clock()
    progress.clock.now = 100.0
    return progress


def test_the_moving_line_tells_step_scores_speed_and_time_left(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    stream = Terminal()
    progress = made(stream)
    epoch(progress, 0, 10, 2.0, {"loss": 1.25, "hit_at_1": 0.5}, rest=5.0)
    # The first step compiles; from the second on a step takes 2 seconds.
    assert stream.moves[2] == (
        "epoch 1/3  step 3/10  loss 1.2500  Hit@1 50.0 %  2.0 clips/s  "
        "left: epoch 0:14  run 0:54"
    )
    progress.on_epoch_begin(1)
    for batch in range(2):
        progress.clock.now += 2.0
        progress.on_train_batch_end(batch, {"loss": 1.0})
    # 8 steps and 5 seconds of validation, then an epoch of 20 + 5 seconds.
    assert stream.moves[-1].endswith("left: epoch 0:21  run 0:46")


def test_a_finished_epoch_keeps_one_line():
    stream = Terminal()
    progress = made(stream, epochs=2)
    logs = {"loss": 1.0, "hit_at_1": 0.25, "val_loss": 2.0, "val_hit_at_1": 1}
    epoch(progress, 0, 10, 2.0, {**logs, "clips_per_second": 2.5}, rest=1.0)
    epoch(progress, 1, 10, 2.0, logs, rest=1.0)
    progress.on_train_end()
    assert stream.lines == [
        "epoch 1/2  loss 1.0000  Hit@1 25.0 %  validation loss 2.0000  "
        "validation Hit@1 100.0 %  2.5 clips/s  took 0:21  0:21 left",
        "epoch 2/2  loss 1.0000  Hit@1 25.0 %  validation loss 2.0000  "
        "validation Hit@1 100.0 %  took 0:21",
        "",
    ]


def test_elsewhere_there_is_a_line_per_epoch_and_nothing_moves():
    stream = io.StringIO()
    progress = made(stream, epochs=2)
    for number in range(2):
        epoch(progress, number, 10)
    text = stream.getvalue()
    assert text.count("\n") == 2
    assert "\r" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("arguments", [{"verbose": 0}, {"chief": False}])
def test_who_shall_be_silent_is(arguments):
    stream = Terminal()
    progress = made(stream, **arguments)
    epoch(progress, 0, 10)
    progress.on_train_end()
    assert not stream.getvalue()


@pytest.mark.parametrize("first", [0, 6])
def test_a_resumed_epoch_goes_on_at_its_step(first):
    """Whether the loop counts its batches from 0 or from the true step."""
    stream = Terminal()
    progress = made(stream, begun=(1, 6))
    progress.on_epoch_begin(1)
    for batch in range(first, first + 2):
        progress.clock.now += 3.0
        progress.on_train_batch_end(batch, {"loss": 1.0})
    assert "epoch 2/3  step 8/10" in stream.moves[-1]
    # Steps 9 and 10; then an epoch of 10 steps.
    assert stream.moves[-1].endswith("left: epoch 0:06  run 0:36")
    progress.on_epoch_end(1, {"loss": 1.0})
    progress.on_epoch_begin(2)
    progress.on_train_batch_end(0, {"loss": 1.0})
    progress.drawn = 0.0
    progress.on_train_batch_end(1, {"loss": 1.0})
    assert "epoch 3/3  step 2/10" in stream.moves[-1]


def test_a_line_never_exceeds_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    epoch(made(stream), 0, 3)
    assert max(len(move) for move in stream.moves[:3]) == 29


def test_the_line_is_not_redrawn_at_every_short_step():
    stream = Terminal()
    epoch(made(stream, steps=1000), 0, 1000, 0.001)
    assert 5 < len(stream.moves) < 15


def test_what_is_said_meanwhile_stands_on_a_line_of_its_own():
    stream = Terminal()
    progress = made(stream)
    progress.on_epoch_begin(0)
    for batch in range(2):
        progress.clock.now += 1.0
        progress.on_train_batch_end(batch, {"loss": 1.0})
    progress.say("skipped a.mp4: broken")
    progress.clock.now += 1.0
    progress.on_train_batch_end(2, {"loss": 1.0})
    assert stream.lines[0] == "skipped a.mp4: broken"
    assert "step 3/10" in stream.lines[1]


def test_it_serves_fit_in_place_of_its_own_bar(capsys):
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    progress = Progress(2, 3, 4)
    model.fit(
        np.ones((12, 2)),
        np.ones((12, 1)),
        batch_size=4,
        epochs=2,
        verbose=0,
        callbacks=[progress],
    )
    told = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in told] == ["epoch 1/2", "epoch 2/2"]
    assert "loss" in told[0]


def test_an_unknown_verbosity_is_refused():
    with pytest.raises(ValueError, match="verbose=3"):
        Progress(1, 1, 1, verbose=3)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0:00"),
        (59.6, "1:00"),
        (754, "12:34"),
        (10921, "3:02:01"),
        (183700, "2 d 3 h"),
    ],
)
def test_durations_read_as_a_clock(seconds, text):
    assert duration(seconds) == text

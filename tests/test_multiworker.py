"""Processes that train together end as one would, whoever dies between."""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from keras_videofusion import cli
from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.training import fit
from keras_videofusion.training.recipe import Recipe
from keras_videofusion.training.run import Run

ROOT = Path(__file__).parents[1]
# 16 videos to learn in batches of 5: parts of two processes have 2 and 3
# clips, those of three 2, 2 and 1; of the last batch one clip is left.
FLAGS = ("--width=0.02", "--size=40", "--batch=5", "--epochs=4")
RECIPE = Recipe(width=0.02, size=40, batch=5, epochs=4)
# The machine's processors are shared, and sums are in one order.
ALONE = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
}


def free_port(count=1):
    """The first of so many ports in a row at which nothing listens."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
        try:
            for other in range(port, port + count):
                with socket.socket() as door:
                    door.bind(("127.0.0.1", other))
        except OSError:
            continue
        return port


def config(count, index):
    """`TF_CONFIG` of one of the processes, at the addresses of this test."""
    workers = [f"127.0.0.1:{port}" for port in config.ports[:count]]
    return json.dumps(
        {
            "cluster": {"worker": workers},
            "task": {"type": "worker", "index": index},
        }
    )


def train(data, run, count, *flags):
    """Runs the same command in so many processes; all must end well."""
    first = free_port(count)
    config.ports = range(first, first + count)
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "keras_videofusion", "train", data,
             "--run", run, "--strategy", "multiworker", *FLAGS, *flags],
            cwd=ROOT,
            env={**ALONE, "TF_CONFIG": config(count, index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]  # fmt: skip
    said = [process.communicate(timeout=240) for process in processes]
    for process, (_, errors) in zip(processes, said, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return Run(run), [out for out, _ in said]


def history(run):
    """The history without what depends on the clock."""
    with open(run.path("history.csv"), newline="") as file:
        return [
            {
                name: float(value)
                for name, value in row.items()
                if name not in ("clips_per_second", "input_wait")
            }
            for row in csv.DictReader(file)
        ]


def assert_alike(run, other):
    for a, b in zip(
        run.model().get_weights(), other.model().get_weights(), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for row, row_ in zip(history(run), history(other), strict=True):
        assert row == pytest.approx(row_, rel=1e-4)


@pytest.fixture(scope="module")
def one(shapes_folder, tmp_path_factory):
    """The run of one process on one device."""
    return fit.train(
        RECIPE,
        fit.split(open_catalog(shapes_folder)),
        tmp_path_factory.mktemp("one") / "run",
        verbose=0,
        say=lambda line: None,
    )


@pytest.fixture(scope="module")
def two(shapes_folder, tmp_path_factory):
    """The run of two processes, and what each of them said."""
    return train(shapes_folder, tmp_path_factory.mktemp("two") / "run", 2)


def test_two_processes_train_to_the_weights_and_logs_of_one(one, two):
    assert_alike(one, two[0])


def test_one_process_speaks_for_all(two):
    _, (first, second) = two
    assert first.count("epoch ") == 4
    assert second == ""


def test_three_processes_train_to_the_weights_and_logs_of_one(
    one, shapes_folder, tmp_path
):
    run, _ = train(shapes_folder, tmp_path / "run", 3)
    assert_alike(one, run)


def wait_for(true, what, seconds=200):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_killed_processes_are_started_again_to_the_same_weights(
    two, shapes_folder, tmp_path
):
    command = tmp_path / "bin" / "videofusion"
    command.parent.mkdir()
    command.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m keras_videofusion "$@"\n'
    )
    command.chmod(0o755)
    run = Run(tmp_path / "run")
    told = tmp_path / "told"

    def reached(epoch):
        folder = run.path("checkpoints")
        return folder.is_dir() and any(
            name.name >= f"epoch-{epoch:05d}-step-00000001"
            for name in folder.glob("*.json")
        )

    def kill(worker, start):
        """Kills a worker of a start, and waits until the next one began."""
        lines = [
            line.split()
            for line in told.read_text().split("\n")
            if line.startswith(f"launch: worker {worker} at")
        ]
        subprocess.run(["kill", "-9", lines[start][-1]], check=True)
        before = time.monotonic()
        wait_for(
            lambda: told.read_text().count("all start again") > start, told
        )
        assert time.monotonic() - before < 60

    with (
        told.open("w") as out,
        subprocess.Popen(
            ["bash", ROOT / "examples" / "launch.sh", "-n", "2",
             "-p", str(free_port(2)), shapes_folder, "--run",
             run.folder, *FLAGS, "--checkpoint-steps", "1"],
            env={**ALONE, "PATH": f"{command.parent}:{os.environ['PATH']}"},
            stdout=out,
            stderr=out,
        ) as launched,
    ):  # fmt: skip
        try:
            wait_for(lambda: reached(0), "the first epoch")
            kill(1, 0)
            wait_for(lambda: reached(2), "the third epoch")
            kill(0, 1)
            assert launched.wait(240) == 0
        finally:
            launched.terminate()
    said = told.read_text()
    assert said.count("videofusion: lost worker 1 at localhost:") == 1
    assert said.count("videofusion: lost worker 0 at localhost:") == 1
    assert said.count("videofusion: ") == 2
    for a, b in zip(
        two[0].model().get_weights(), run.model().get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert_alike(two[0], run)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "videofusion: strategy multiworker needs the environment's"),
        ('{"cluster": 1}', "videofusion: `TF_CONFIG` must be of the form"),
    ],
)
def test_a_wrong_tf_config_is_one_line(
    shapes_folder, tmp_path, monkeypatch, capsys, text, told
):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text:
        monkeypatch.setenv("TF_CONFIG", text)
    words = ["train", shapes_folder, "--run", tmp_path / "run"]
    words += ["--strategy", "multiworker", *FLAGS]
    assert cli.run(cli.parse([str(word) for word in words])) == 1
    error = capsys.readouterr().err
    assert error.startswith(told)
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_missing_process_is_one_line(
    shapes_folder, tmp_path, monkeypatch, capsys
):
    from keras_videofusion.training import cluster

    first = free_port(2)
    config.ports = range(first, first + 2)
    monkeypatch.setattr(cluster, "WAIT", 1)
    monkeypatch.setenv("TF_CONFIG", config(2, 0))
    words = ["train", shapes_folder, "--run", tmp_path / "run"]
    words += ["--strategy", "multiworker", *FLAGS]
    assert cli.run(cli.parse([str(word) for word in words])) == 1
    error = capsys.readouterr().err
    assert error.startswith("videofusion: missing after 1 seconds: worker 1 ")
    assert f"127.0.0.1:{first + 1}" in error
    assert error.count("\n") == 1

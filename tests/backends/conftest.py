"""What the tests of other backends share: an exchange with TensorFlow."""

import os
import warnings

# Half of JAX's time here went into making fast what runs once.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

with warnings.catch_warnings():
    # torch complains where its build is for cards and the machine has none.
    warnings.simplefilter("ignore")
    import keras

import json
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

Exchange = namedtuple("Exchange", ["ours", "theirs", "verdict"])


def pytest_report_header():
    return f"Keras {keras.version()} on {keras.backend.backend()}"


@pytest.fixture(scope="session")
def exchange(tmp_path_factory):
    """Folders that this backend and TensorFlow wrote; what TensorFlow read.

    `verdict` is the dict of `peer.read` by network.
    """
    import peer

    folder = tmp_path_factory.mktemp("exchange")
    ours, theirs = folder / "ours", folder / "tensorflows"
    ours.mkdir()
    theirs.mkdir()
    peer.write(ours)
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    done = subprocess.run(
        [sys.executable, peer.__file__, ours, theirs],
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return Exchange(ours, theirs, json.loads(done.stdout.split("\n")[-2]))

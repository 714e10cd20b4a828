"""Another backend beside TensorFlow: logits, gradients, and each other's files.

`make test` holds TensorFlow's side against the authors' networks.
"""

import h5py
import numpy as np
import peer
import pytest

from keras_videofusion.applications import MODELS

TOLERANCE = 1e-4  # of the largest

every_network = pytest.mark.parametrize("name", MODELS)


@every_network
def test_logits_are_tensorflows(name, exchange):
    with (
        np.load(exchange.ours / "logits.npz") as ours,
        np.load(exchange.theirs / "logits.npz") as theirs,
    ):
        assert np.ptp(theirs[name], axis=0).max() > 0
        assert peer.miss(ours[name], theirs[name]) <= TOLERANCE


@every_network
def test_tensorflows_files_are_read_to_the_bit(name, exchange):
    found = peer.read(exchange.theirs, name)

    assert found["weights"]
    assert found["saved"]
    assert found["off"] <= TOLERANCE


@every_network
def test_tensorflow_reads_our_files_to_the_bit(name, exchange):
    found = exchange.verdict[name]

    assert found["weights"]
    assert found["saved"]
    assert found["off"] <= TOLERANCE


@every_network
def test_files_of_weights_are_the_same(name, exchange):
    """So that a third backend reads ours as it reads TensorFlow's."""
    ours, theirs = (
        contents(folder / f"{name}.weights.h5")
        for folder in (exchange.ours, exchange.theirs)
    )

    assert ours.keys() == theirs.keys()
    for place, value in theirs.items():
        assert peer.same([ours[place]], [value]), place


def contents(path):
    """The arrays of an HDF5 file by place."""
    found = {}

    def note(place, item):
        if isinstance(item, h5py.Dataset):
            found[place] = item[()]

    with h5py.File(path) as file:
        file.visititems(note)
    return found


@pytest.mark.parametrize("name", peer.LEARNERS)
def test_a_step_of_training_moves_weights_as_far(name, exchange):
    """Through the loss, the metric and the optimizer of the package."""
    ours, theirs = (
        learned(folder, name) for folder in (exchange.ours, exchange.theirs)
    )

    assert ours.keys() == theirs.keys()
    assert len(ours) > 10
    for path, expected in theirs.items():
        # Rounding, where all that moves a weight cancels out.
        near = 2e-3 * np.abs(expected).max() + 1e-6
        np.testing.assert_allclose(
            ours[path], expected, rtol=0, atol=near, err_msg=path
        )


def learned(folder, name):
    """What `peer.step` gave."""
    with np.load(folder / "learned.npz") as file:
        return {
            path.partition(":")[2]: file[path]
            for path in file.files
            if path.partition(":")[0] == name
        }

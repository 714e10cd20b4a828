"""Batches of data sets, to be looked at and compared."""

import numpy as np


def taken(dataset, count=None):
    """Batches as NumPy arrays."""
    dataset = dataset if count is None else dataset.take(count)
    return [tuple(part.numpy() for part in batch) for batch in dataset]


def assert_equal(first, second):
    """Two lists of batches hold the same."""
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)

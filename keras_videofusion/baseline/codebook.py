"""Words for local descriptors, and what each descriptor gives to them.

A file of codebooks is an `.npz` file of plain arrays, nothing of it pickled,
with the settings as JSON inside.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_videofusion.baseline.arrays import read_arrays, write_arrays
from keras_videofusion.baseline.settings import Settings

FORMAT = "keras_videofusion codebooks"
VERSION = 1
LEARNED = ("points", "cuboids", "vectors")  # kinds of blocks that have words
# Descriptors whose distances to all words are in memory at a time: a table
# that stays in the processor's cache makes it twice as fast.
_CHUNK = 256
# Descriptors per step of k-means.
_BATCH = 4096
# Cuboids that the PCA is learned of: 170 MB. Words are learned of them all.
_PCA_SAMPLE = 5000


@dataclass(frozen=True)
class Vocabulary:
    """The words of one block.

    Args:
        words: Float32 array of shape `(words, numbers)`; none if there was
            nothing to learn from.
        sigma: Float, mean distance of the sample to its nearest words.
        mean: Float32 array of shape `(raw,)` to take off descriptors before
            they are reduced; None: they are not.
        axes: Float32 array of shape `(raw, numbers)` to reduce them by.
    """

    words: np.ndarray
    sigma: float
    mean: np.ndarray | None = None
    axes: np.ndarray | None = None

    def reduced(self, values) -> np.ndarray:
        """Descriptors as they are compared with words.

        Args:
            values: Float array of shape `(descriptors, raw)`.

        Returns:
            Float32 array of shape `(descriptors, numbers)`.
        """
        values = np.asarray(values, np.float32)
        if self.axes is None:
            return values
        return (values - self.mean) @ self.axes

    def nearest(self, values, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest words, the nearest first.

        Args:
            values: Float32 array of shape `(descriptors, numbers)`, reduced.
            count: Integer, how many; fewer if there are fewer words.

        Returns:
            Int64 array of shape `(descriptors, count)`, places of words, and
            a float32 array of squared distances of the same shape.
        """
        count = min(count, len(self.words))
        places = np.zeros((len(values), count), np.int64)
        squares = np.zeros((len(values), count), np.float32)
        if not count:
            return places, squares
        # Around their mean, so that squares of lengths cancel little.
        centre = self.words.mean(0)
        words = self.words - centre
        lengths = np.square(words).sum(1) / 2
        for begin in range(0, len(values), _CHUNK):
            part = values[begin : begin + _CHUNK] - centre
            # |x - w|² / 2, but for what is the same for all words.
            far = lengths - part @ words.T
            own = np.square(part).sum(1)
            rows = np.arange(len(part))
            for place in range(count):
                found = far.argmin(1)
                places[begin : begin + _CHUNK, place] = found
                squares[begin : begin + _CHUNK, place] = (
                    2 * far[rows, found] + own
                )
                far[rows, found] = np.inf
        return places, np.maximum(squares, 0)

    def shares(self, values, count: int) -> tuple[np.ndarray, np.ndarray]:
        """What each descriptor gives to the words next to it: 1 in all.

        Args:
            values: Float array of shape `(descriptors, raw)`.
            count: Integer, words that share a descriptor.

        Returns:
            Int64 array of shape `(descriptors, count)`, places of words, and
            a float64 array of shares of the same shape. With fewer words than
            `count` these alone share it.

        Reference:
            van Gemert et al., PAMI 2010: codeword uncertainty,
            `exp(-d² / 2σ²)` over its sum.
        """
        places, squares = self.nearest(self.reduced(values), count)
        # As distances beyond the nearest, which leaves the shares as they
        # are: far from all words each exponential by itself would be 0.
        beyond = (squares - squares[:, :1]).astype(np.float64)
        # Of a sample that is its own words σ is 0: the nearest takes all.
        spread = max(2 * self.sigma**2, np.finfo(np.float32).tiny)
        shares = np.exp(-beyond / spread)
        return places, shares / shares.sum(1, keepdims=True)


@dataclass(frozen=True)
class Codebooks:
    """Everything that turns a video's descriptors into its vector.

    Args:
        settings: `Settings`.
        vocabularies: Dict of `Vocabulary` by block, of all that have words.
    """

    settings: Settings
    vocabularies: Mapping[str, Vocabulary]

    def vector(self, runs: Iterable[Mapping[str, Any]]) -> np.ndarray:
        """The histograms of a video, one after the other.

        Each is divided by its sum; one without descriptors is uniform.

        Args:
            runs: What `describe` yields.

        Returns:
            Float32 array of shape `(settings.size,)`.
        """
        blocks = self.settings.blocks
        counts = {
            block.name: np.zeros((block.cells, block.words)) for block in blocks
        }
        for run in runs:
            for block in blocks:
                counts[block.name] += self._counts(block, run[block.name])
        return np.concatenate(
            [_normalised(counts[block.name]).ravel() for block in blocks]
        ).astype(np.float32)

    def _counts(self, block, found):
        """Float64 array of shape `(cells, words)`: what a run adds."""
        if block.kind == "counts":
            return np.asarray(found, np.float64)
        if block.kind == "faces":
            bins = np.minimum(found, block.words - 1)
            return np.bincount(bins, minlength=block.words)[None].astype(float)
        vocabulary = self.vocabularies[block.name]
        places, shares = vocabulary.shares(
            found.values, self.settings.neighbours
        )
        bins = found.cells.astype(np.int64)[:, None] * block.words + places
        counts = np.bincount(
            bins.ravel(), shares.ravel(), block.cells * block.words
        ).reshape(block.cells, block.words)
        if block.kind != "vectors":  # the whole frame is its quadrants
            counts[0] = counts[1:].sum(0)
        return counts

    def save(self, file: str | os.PathLike) -> None:
        """Writes them, whole or not at all.

        Args:
            file: Path or address, `.npz`.
        """
        write_arrays(file, self._arrays())

    def _arrays(self):
        header = {
            "format": FORMAT,
            "version": VERSION,
            "settings": self.settings.to_json(),
        }
        yield "header", np.array(json.dumps(header))
        for name, vocabulary in self.vocabularies.items():
            yield from arrays_of(vocabulary, f"{name}/")

    @classmethod
    def load(cls, file: str | os.PathLike) -> "Codebooks":
        """The codebooks that `save` wrote.

        Args:
            file: Path or address.

        Raises:
            ValueError: If it is something else, damaged, or written by
                another release.
            OSError: If it cannot be read.
        """
        try:
            with read_arrays(file) as arrays:
                header = json.loads(str(arrays["header"]))
                if header["format"] != FORMAT:
                    raise ValueError("it holds something else")
                if header["version"] != VERSION:
                    raise ValueError(f"it is of version {header['version']}")
                settings = Settings.from_json(header["settings"])
                found = {
                    block.name: vocabulary_of(arrays, f"{block.name}/")
                    for block in settings.blocks
                    if block.kind in LEARNED
                }
                for block in settings.blocks:
                    if block.kind in LEARNED and not _fits(found, block):
                        raise ValueError(f"its words of {block.name} are none")
        except ValueError as error:
            raise ValueError(
                f"{os.fspath(file)} is no file of codebooks: {error}"
            ) from error
        return cls(settings, found)


def learn(sample, words: int, seed: int) -> Vocabulary:
    """Learns the words of a sample by k-means.

    With no more different descriptors than words, these are the words; the
    bins that are left stay empty.

    Args:
        sample: Float32 array of shape `(descriptors, numbers)`.
        words: Integer.
        seed: Integer, 0 or more.

    Returns:
        `Vocabulary`.

    Raises:
        ImportError: If scikit-learn is not installed.

    Reference:
        Sculley, WWW 2010: k-means by mini-batches.
    """
    sample = np.ascontiguousarray(sample, np.float32)
    different = np.unique(sample, axis=0)
    if len(different) <= words:
        return Vocabulary(different, 0.0)
    means = _imported("sklearn.cluster").MiniBatchKMeans(
        words,
        batch_size=_BATCH,
        n_init=1,
        random_state=seed,
        compute_labels=False,
    )
    found = means.fit(sample).cluster_centers_.astype(np.float32)
    squares = Vocabulary(found, 0.0).nearest(sample, 1)[1]
    sigma = float(np.sqrt(squares, dtype=np.float64).mean())
    return Vocabulary(found, sigma)


def learn_reduced(
    parts: Sequence[Callable[[], np.ndarray]],
    keys: Sequence[np.ndarray],
    words: int,
    numbers: int,
    seed: int,
) -> Vocabulary:
    """As `learn`, of descriptors too large to be all in memory.

    A PCA reduces them first. It is learned of those with the smallest keys.

    Args:
        parts: Sequence of functions that return float arrays of shape
            `(descriptors, raw)`; each is called twice.
        keys: A float array of shape `(descriptors,)` per part.
        words: Integer.
        numbers: Integer, what descriptors are reduced to; fewer where the
            sample has fewer dimensions.
        seed: Integer, 0 or more.

    Returns:
        `Vocabulary`.
    """
    total = sum(map(len, keys))
    limit = np.inf
    if total > _PCA_SAMPLE:
        limit = np.partition(np.concatenate(keys), _PCA_SAMPLE)[_PCA_SAMPLE]
    if not total:
        return Vocabulary(np.zeros((0, numbers), np.float32), 0.0)
    chosen = [
        part()[own < limit] for part, own in zip(parts, keys, strict=True)
    ]
    sample = np.concatenate(chosen, dtype=np.float32, casting="same_kind")
    del chosen
    mean, axes = _principal(sample, numbers, seed)
    none = np.zeros((0, axes.shape[1]), np.float32)
    reducer = Vocabulary(none, 0.0, mean, axes)
    sample = np.concatenate([reducer.reduced(part()) for part in parts])
    found = learn(sample, words, seed)
    return replace(reducer, words=found.words, sigma=found.sigma)


def _principal(sample, numbers, seed):
    """Mean `(raw,)` and axes `(raw, numbers)`; the sample is used up."""
    numbers = min(numbers, len(sample) - 1, sample.shape[1])
    mean = sample.mean(0)
    if not numbers or not (sample != sample[0]).any():
        return mean, np.zeros((sample.shape[1], 0), np.float32)
    pca = _imported("sklearn.decomposition").PCA(
        numbers, copy=False, svd_solver="randomized", random_state=seed
    )
    pca.fit(sample)
    return (
        pca.mean_.astype(np.float32),
        np.ascontiguousarray(pca.components_.T, np.float32),
    )


def _imported(name):
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            "histograms need scikit-learn: "
            "pip install 'keras-videofusion[baseline]'"
        ) from error


def _normalised(counts):
    """Rows that sum to 1; those of nothing are uniform."""
    sums = counts.sum(1, keepdims=True)
    uniform = np.full_like(counts, 1 / counts.shape[1])
    return np.divide(counts, sums, out=uniform, where=sums > 0)


def _fits(vocabularies, block):
    """Whether a block's arrays go together."""
    found = vocabularies[block.name]
    words, mean, axes = found.words, found.mean, found.axes
    arrays = [array for array in (words, mean, axes) if array is not None]
    return (
        all(array.dtype == np.float32 for array in arrays)
        and words.ndim == 2
        and len(words) <= block.words
        and found.sigma >= 0
        and (axes is None or axes.shape == (*mean.shape, words.shape[1]))
    )


def arrays_of(vocabulary: Vocabulary, prefix: str = "") -> Iterator[tuple]:
    """Names and arrays of a vocabulary, for `write_arrays`.

    Args:
        vocabulary: `Vocabulary`.
        prefix: String before each name.
    """
    yield f"{prefix}words", vocabulary.words
    yield f"{prefix}sigma", np.array(vocabulary.sigma)
    if vocabulary.axes is not None:
        yield f"{prefix}mean", vocabulary.mean
        yield f"{prefix}axes", vocabulary.axes


def vocabulary_of(arrays, prefix: str = "") -> Vocabulary:
    """The vocabulary whose arrays a file holds.

    Args:
        arrays: What `read_arrays` yields.
        prefix: As for `arrays_of`.
    """
    reduces = f"{prefix}axes" in arrays
    return Vocabulary(
        arrays[f"{prefix}words"],
        float(arrays[f"{prefix}sigma"]),
        arrays[f"{prefix}mean"] if reduces else None,
        arrays[f"{prefix}axes"] if reduces else None,
    )

"""From a catalog and a clip to batches: `tf.data` of (clips, labels).

What a sample is depends on seed, epoch and position alone, never on the
order in which threads finish, so a run repeats, and resumes, exactly.
"""

import atexit
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from operator import itemgetter
from typing import Any, cast

import numpy as np
import tensorflow as tf

from keras_videofusion.data.augmentation import (
    center_crop,
    random_colour,
    random_crop_flip,
)
from keras_videofusion.data.batches import Batches
from keras_videofusion.data.catalog import Catalog
from keras_videofusion.data.clips import ClipSpec, each_stream
from keras_videofusion.data.flow import LIMIT, open_flow
from keras_videofusion.data.manifest import read_manifest
from keras_videofusion.data.shards import ShardReader, stored_samples
from keras_videofusion.data.vectors import (
    expect_fitting,
    read_vectors,
    Vectors,
    VectorSpec,
)
from keras_videofusion.data.video import read_clips, VideoError

# "dense" gives every video another number of clips: it serves scoring.
SAMPLERS = ("random", "uniform", "centre")
# What comes equally often in an epoch: every video, or every class.
ORDERS = ("videos", "classes")
# What learns the labels: a softmax shares of one, a sigmoid each by itself.
ACTIVATIONS = ("softmax", "sigmoid")


def steps(
    catalog: Catalog,
    batch: int,
    clips_per_video: int = 1,
    worker: tuple[int, int] | None = None,
) -> int:
    """Batches in an epoch; the last may be ragged.

    Args:
        catalog: `Catalog`.
        batch: Integer, clips in a batch.
        clips_per_video: Integer.
        worker: As for `training_clips`.

    Returns:
        Integer.
    """
    return math.ceil(samples(catalog, clips_per_video, worker) / batch)


def samples(
    catalog: Catalog,
    clips_per_video: int = 1,
    worker: tuple[int, int] | None = None,
) -> int:
    """Clips in an epoch: of shards and vectors no more than there are.

    Args:
        catalog: `Catalog`.
        clips_per_video: Integer.
        worker: As for `training_clips`.

    Returns:
        Integer.
    """
    vectors = read_vectors(catalog.root)
    if vectors is not None:
        return len(catalog) * min(clips_per_video, vectors.each)
    found = stored_samples(catalog, clips_per_video, worker)
    return len(catalog) * clips_per_video if found is None else found


# An iterator that is still alive when the program ends goes on calling Python
# while the interpreter takes itself down, and the two wait for one another for
# ever. So the readers are told, and their last calls are waited for.
_readers: weakref.WeakSet = weakref.WeakSet()


@atexit.register
def _close_readers():
    for reader in _readers:
        reader.closed = True
    before = None
    while True:
        begun = sum(reader.begun for reader in _readers)
        if begun == before and begun == sum(r.ended for r in _readers):
            return
        before = begun
        time.sleep(0.05)


class Drawn:
    """The order of an epoch's samples, and Python that reads them.

    Args:
        catalog: `Catalog`.
        clips: Integer, samples per video in an epoch.
        seed: Integer, 0 or more.
        shuffle: Whether every epoch has an order of its own.
        alike: `"videos"`: every video gives as many samples as any other;
            `"classes"`: every class does, and within it every video.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        catalog: Catalog,
        clips: int,
        seed: int,
        shuffle: bool,
        alike: str = "videos",
    ):
        _expect_one_of(ORDERS, "alike", alike)
        self.catalog = catalog
        self.clips = clips
        self.seed = seed
        self.shuffle = shuffle
        self.alike = alike
        # Two epochs meet in the pipeline where one ends.
        self.order = lru_cache(maxsize=2)(self._order)
        self._lock = threading.Lock()
        self.begun = self.ended = 0
        self.closed = False
        _readers.add(self)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Counts a call from a data set, which may outlive the program."""
        with self._lock:
            self.begun += 1
        try:
            if self.closed:
                raise RuntimeError("the program is ending")
            yield
        finally:
            with self._lock:
                self.ended += 1

    def __len__(self) -> int:
        return len(self.catalog) * self.clips

    def _order(self, epoch: int) -> np.ndarray:
        """Which sample stands at each position of an epoch: `(samples,)`."""
        if not self.shuffle:
            return np.arange(len(self))
        generator = np.random.default_rng([self.seed, epoch])
        if self.alike == "classes":
            return self._balanced(generator)
        return generator.permutation(len(self))

    def _balanced(self, generator):
        """An epoch in which classes come equally often, one more or less.

        A class whose videos are too few shows them again; of one that has
        too many another choice is shown in every epoch.
        """
        numbers, begins = self.catalog.numbers
        shown = np.unique(numbers)
        videos = np.repeat(np.arange(len(self.catalog)), np.diff(begins))
        sorted_ = np.argsort(numbers, kind="stable")
        bounds = np.searchsorted(numbers[sorted_], [*shown, np.inf])
        # The classes that get one sample more are drawn too.
        quotas = np.full(len(shown), len(self) // len(shown))
        more = generator.permutation(len(shown))[: len(self) % len(shown)]
        quotas[more] += 1
        found = []
        for place, quota in enumerate(quotas):
            own = videos[sorted_[bounds[place] : bounds[place + 1]]]
            own = (own[:, None] * self.clips + np.arange(self.clips)).ravel()
            rounds = -(-int(quota) // len(own))
            drawn = [generator.permutation(own) for _ in range(rounds)]
            found.append(np.concatenate([[], *drawn])[:quota])
        order = np.concatenate(found).astype(np.int64)
        return generator.permutation(order)


class Reader(Drawn):
    """Draws the sample at (epoch, position): the only source of randomness.

    Args:
        catalog: `Catalog`.
        spec: `ClipSpec`.
        sampler: `"random"`, `"uniform"` or `"centre"`: where clips begin.
        clips: Integer, samples per video in an epoch.
        seed: Integer, 0 or more.
        shuffle: Whether every epoch has an order of its own.
        augment: Whether crops and flips are drawn; else the centre.
        on_error: `"skip"` or `"raise"`.
        on_skip: Function of (path, reason), called once per broken file.
        jitter: Float, strength of `random_colour` where `augment`.
        flow: Where flow comes from, for clips with a flow stream: the folder
            that `videofusion flow` made, or the name of a method.
        alike: `"videos"`: every video gives as many samples as any other;
            `"classes"`: every class does, and within it every video.

    Raises:
        ValueError: If the catalog is empty or an argument out of range, or if
            the clips need `flow` and it is None.
    """

    def __init__(
        self,
        catalog: Catalog,
        spec: ClipSpec,
        sampler: str,
        clips: int,
        seed: int,
        shuffle: bool,
        augment: bool,
        on_error: str,
        on_skip: Callable[[str, str], None] | None,
        jitter: float = 0.0,
        flow: str | os.PathLike | None = None,
        alike: str = "videos",
    ):
        _expect_drawing(catalog, sampler, clips, seed, on_error)
        super().__init__(catalog, clips, seed, shuffle, alike)
        self.flow = None
        if "flow" in spec.streams:
            self.flow = open_flow(flow, catalog.root)
        self.spec = spec
        self.sampler = sampler
        self.augment = augment
        self.on_error = on_error
        self.on_skip = on_skip
        self.jitter = jitter
        self._told: set[str] = set()

    def __call__(self, epoch: int, position: int) -> tuple[Any, int]:
        """The clip at a position, and the number of its video.

        A broken video's place is taken by the next whole one in the epoch's
        order. Nothing is remembered of it: whether a video of which one half
        is damaged serves must not depend on what was read before.

        Returns:
            Uint8 array of shape `(time, height, width, 3)`, cropped, and an
            integer. Of flow the array is `(chunks * flow, height, width, 2)`,
            in bytes; of two streams it is a dict.

        Raises:
            VideoError: With `on_error="raise"`, or if every video is broken.
        """
        order = self.order(epoch)
        for ahead in range(len(order)):
            sample = int(order[(position + ahead) % len(order)])
            place, number = divmod(sample, self.clips)
            # Not [seed, epoch, position]: a last 0 would not count.
            generator = np.random.default_rng([self.seed, epoch, position + 1])
            try:
                return self._clip(place, number, generator), place
            except VideoError as error:
                if self.on_error == "raise":
                    raise
                self._tell(error)
                last = error
        raise VideoError(
            self.catalog.root,
            f"every video of the catalog is broken; the last: {last}",
        )

    def _clip(self, place, number, generator):
        video = self.catalog[place]
        clips, _ = read_clips(
            self.catalog.file(video),
            self.spec,
            self.sampler,
            1 if self.sampler == "random" else self.clips,
            generator,
            video.start,
            video.end,
            only=0 if self.sampler == "random" else number,
            flow=self.flow,
        )
        clip = each_stream(itemgetter(0), clips)
        if self.augment:
            clip = random_crop_flip(clip, self.spec.size, generator)
            if self.jitter:
                clip = random_colour(clip, self.jitter, generator)
            return clip
        return center_crop(clip, self.spec.size)

    def _tell(self, error):
        with self._lock:
            first = error.path not in self._told
            self._told.add(error.path)
        if first and self.on_skip:
            self.on_skip(error.path, error.reason)

    def dataset(
        self,
        batches: Batches | None,
        epochs: tf.data.Dataset,
        labels: Callable[[int], np.ndarray] | None,
    ) -> tf.data.Dataset:
        """Batches of (clips, labels), or of clips, epoch after epoch.

        Args:
            batches: `Batches`, or None for single samples.
            epochs: Dataset of int64 scalars.
            labels: Function from a video's place to its label, an array of
                one shape and kind, or None.

        Returns:
            `tf.data.Dataset`; no batch straddles two epochs. Of parts of
            batches it is of (clips, labels, weights).
        """
        label = labels or (lambda place: np.zeros(()))
        kind = np.asarray(label(0))
        shapes = self.spec.shapes
        one = len(shapes) == 1

        def read(epoch, position):
            with self.working():
                clip, place = self(int(epoch), int(position))
                streams = [clip] if one else [clip[name] for name in shapes]
                row = np.asarray(label(place))[None]
                return *(stream[None] for stream in streams), row

        def sample(epoch, position):
            *streams, row = tf.numpy_function(
                read,
                [epoch, position],
                [tf.uint8] * len(shapes) + [kind.dtype],
                stateful=False,
            )
            clip = {
                name: tf.ensure_shape(stream, (1, *shape))
                for (name, shape), stream in zip(
                    shapes.items(), streams, strict=True
                )
            }
            row = tf.ensure_shape(row, (1, *kind.shape))
            clip = clip[self.spec.streams[0]] if one else clip
            if labels is None:
                return clip
            if batches is None or batches.part is None:
                return clip, row
            return clip, row, batches.weight(position)[None]

        def positions(epoch):
            found = tf.data.Dataset.range(len(self)).map(
                lambda position: (epoch, position)
            )
            return found if batches is None else batches.chosen(epoch, found)

        # One parallel map over all epochs: threads do not wait at their ends.
        found = epochs.flat_map(positions).map(
            sample,
            # PyAV lets go of the interpreter while it decodes, so threads
            # are as good as processes.
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        found = found.unbatch() if batches is None else batches.gathered(found)
        return _in_pixels(found, self.spec)


class VectorReader(Drawn):
    """Reads the samples of a folder of vectors, a batch at a time.

    Args:
        catalog: `Catalog`, rows of the folder's own.
        vectors: `Vectors`.
        clips: Integer, vectors per video in an epoch; all of them, if there
            are fewer. In training every epoch takes others.
        seed: Integer, 0 or more.
        shuffle: Whether every epoch has an order of its own.
        alike: As for `Drawn`.

    Raises:
        ValueError: If a row has no vectors in the folder, or an argument is
            out of range.
    """

    def __init__(
        self,
        catalog: Catalog,
        vectors: Vectors,
        clips: int,
        seed: int,
        shuffle: bool,
        alike: str = "videos",
    ):
        super().__init__(
            catalog, min(clips, vectors.each), seed, shuffle, alike
        )
        self.vectors = vectors
        self.places = vectors.places(catalog)
        self.first = lru_cache(maxsize=2)(self._first)

    def _first(self, epoch: int) -> np.ndarray:
        """Which of its vectors each video begins with: `(videos,)`."""
        videos = len(self.catalog)
        if not self.shuffle:
            return np.zeros(videos, np.int64)
        generator = np.random.default_rng([self.seed, epoch, 0, 1])
        return generator.integers(0, self.vectors.each, videos)

    def __call__(
        self, epoch: int, positions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The vectors at some positions, and the numbers of their videos.

        Returns:
            Float32 array of shape `(positions, size)` and integers of shape
            `(positions,)`.
        """
        videos, numbers = np.divmod(self.order(epoch)[positions], self.clips)
        # Evenly spread, and all of them if all are asked for.
        steps = np.arange(self.clips) * self.vectors.each // self.clips
        rows = (self.first(epoch)[videos] + steps[numbers]) % self.vectors.each
        found = np.empty((len(rows), self.vectors.size), np.float32)
        for into, video, row in zip(found, videos, rows, strict=True):
            into[:] = self.vectors.row(int(self.places[video]), int(row))
        return found, videos

    def dataset(
        self, batches: Batches, epochs: tf.data.Dataset
    ) -> tf.data.Dataset:
        """Batches of (vectors, labels), epoch after epoch.

        Args:
            batches: `Batches`.
            epochs: Dataset of int64 scalars.

        Returns:
            `tf.data.Dataset`; of parts of batches it is of (vectors, labels,
            weights).
        """
        classes = len(self.catalog.classes)

        def read(epoch, step):
            with self.working():
                begin, end = batches.rows(int(step))
                # An empty part is filled up with the batch's first sample.
                rows = np.arange(begin, end) if end > begin else np.zeros(1)
                positions = (int(step) * batches.batch + rows).astype(np.int64)
                found, videos = self(int(epoch), positions)
                truth = self.catalog.truth_of(videos).astype(np.float32)
                weights = np.full(len(found), end > begin, np.float32)
                labels = truth / truth.sum(1, keepdims=True)
                return found, labels, weights

        def batch(epoch, step):
            found, labels, weights = tf.numpy_function(
                read, [epoch, step], [tf.float32] * 3, stateful=False
            )
            found = tf.ensure_shape(found, (None, self.vectors.size))
            labels = tf.ensure_shape(labels, (None, classes))
            if batches.part is None:
                return found, labels
            return found, labels, tf.ensure_shape(weights, (None,))

        def numbered(epoch):
            begun = tf.where(epoch == batches.first[0], batches.first[1], 0)
            steps = tf.data.Dataset.range(
                tf.cast(begun, tf.int64), batches.steps
            )
            return steps.map(lambda step: (epoch, step))

        return epochs.flat_map(numbered).map(
            batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )


def _in_pixels(clips, spec):
    """A data set whose flow came in bytes, a fourth of what floats carry."""
    if "flow" not in spec.streams:
        return clips

    def pixels(stream):
        if stream.shape[-1] != 2:
            return stream
        return (tf.cast(stream, tf.float32) - 128) * (LIMIT / 127)

    def each(clips, *rest):
        found = each_stream(pixels, clips)
        return (found, *rest) if rest else found

    return clips.map(
        each, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


def training_clips(
    catalog: Catalog,
    spec: ClipSpec | VectorSpec,
    batch: int,
    seed: int = 0,
    clips_per_video: int = 1,
    first_epoch: int = 0,
    augment: bool = True,
    on_error: str = "skip",
    on_skip: Callable[[str, str], None] | None = None,
    sampler: str = "random",
    jitter: float = 0.0,
    flow: str | os.PathLike | None = None,
    worker: tuple[int, int] | None = None,
    cache: str | None = None,
    first_step: int = 0,
    part: tuple[int, int] | None = None,
    alike: str = "videos",
    mixup: float = 0.0,
    activation: str = "softmax",
) -> tf.data.Dataset:
    """Clips to learn from, without end; an epoch has `steps(...)` batches.

    From a catalog of shards the stored clips are drawn, each once in an
    epoch, `clips_per_video` of each video or as many as it has; `sampler`
    and `flow` were settled when the shards were made. So it is with a
    catalog of vectors, which are not augmented.

    Args:
        catalog: `Catalog`, of videos, of shards or of vectors.
        spec: `ClipSpec`, or `VectorSpec` for vectors.
        batch: Integer, clips in a batch; the last of an epoch may be ragged.
        seed: Integer, 0 or more.
        clips_per_video: Integer, clips of every video in an epoch.
        first_epoch: Integer; the stream begins as one from 0 goes on there.
        augment: Whether crops and flips are drawn; else the centre.
        on_error: `"skip"`: a broken video is replaced by the next of the
            epoch's order; `"raise"`: it ends the stream.
        on_skip: Function of (path, reason), called once per broken file.
        sampler: Where clips begin: `"random"`, `"uniform"` or `"centre"`.
        jitter: Float, strength of
            `keras_videofusion.data.augmentation.random_colour`; 0: none.
        flow: Where flow comes from, for clips with a flow stream: the folder
            that `videofusion flow` made, or the name of a method.
        worker: `(index, count)`: of shards every `count`-th alone, for one
            of several workers; None: all.
        cache: Of shards: `"memory"`: they are read once, and the encoded
            clips kept; `"pixels"`: the decoded ones (1.2 MB for ten frames of
            200 x 200); None: they are read in every epoch.
        first_step: Integer, the batch of the first epoch to begin with.
        part: `(index, count)`: of every batch one of `count` parts, for one
            of several machines that share each step; None: all of it.
        alike: `"videos"`: every video comes equally often; `"classes"`:
            every class does, and within it every video. Not of shards.
        mixup: Float, strength of
            `keras_videofusion.data.batches.Batches.mixed`; 0: none.
        activation: `"softmax"` or `"sigmoid"`: what learns the labels.

    Returns:
        `tf.data.Dataset` of uint8 `(batch, time, height, width, 3)` and
        float32 `(batch, classes)`, each row uniform over the true classes,
        or for a sigmoid 1 at each of them. Flow is float32 of shape `(batch,
        chunks * flow, height, width, 2)`, in pixels per frame; two streams
        are a dict; vectors are float32 `(batch, size)`. With `part` float32
        weights of shape `(batch,)` follow, 0 for a clip that only fills.

    Raises:
        ValueError: If the catalog is empty or an argument out of range.
    """
    epochs = tf.data.Dataset.counter(first_epoch)
    if mixup < 0:
        raise ValueError(f"`mixup` must be 0 or more. Received: mixup={mixup}")
    _expect_drawing(catalog, sampler, clips_per_video, seed, on_error)
    vectors = expect_fitting(catalog, spec)
    clip = cast(ClipSpec, spec)  # of all but vectors
    reader: Reader | ShardReader | VectorReader
    if vectors is not None:
        if worker is not None or cache is not None:
            raise ValueError(
                "`cache`, and workers of parameter servers, read shards, no "
                f"vectors: train with another strategy. Received: {worker=}, "
                f"{cache=}"
            )
        reader = VectorReader(
            catalog, vectors, clips_per_video, seed, True, alike
        )
    elif read_manifest(catalog.root) is not None:
        if alike != "videos":
            raise ValueError(
                "`alike` is for videos: shards come in the order in which "
                "they lie. Give their classes weights instead. "
                f"Received: alike={alike!r}"
            )
        reader = ShardReader(
            catalog, clip, clips_per_video, seed, True, augment, on_error,
            on_skip, jitter, worker, cache,
        )  # fmt: skip
    elif worker is not None or cache is not None:
        raise ValueError(
            "`cache`, and workers of parameter servers, read shards: make them "
            "with videofusion prepare. Received: a catalog of videos, "
            f"worker={worker}, cache={cache!r}"
        )
    else:
        reader = Reader(
            catalog, clip, sampler, clips_per_video, seed, True, augment,
            on_error, on_skip, jitter, flow, alike,
        )  # fmt: skip
    batches = Batches(len(reader), batch, part, (first_epoch, first_step))
    found = _labelled(reader, batches, epochs, activation)
    if mixup:
        found = batches.mixed(found, mixup, seed)
    # A batch or two ahead of who asks.
    return found.prefetch(2)


def validation_clips(
    catalog: Catalog,
    spec: ClipSpec | VectorSpec,
    batch: int,
    clips: int = 1,
    on_error: str = "skip",
    on_skip: Callable[[str, str], None] | None = None,
    flow: str | os.PathLike | None = None,
    part: tuple[int, int] | None = None,
    activation: str = "softmax",
) -> tf.data.Dataset:
    """The same clips every time: evenly spread, centre crop.

    Args:
        catalog: `Catalog`.
        spec: `ClipSpec`, or `VectorSpec` for vectors.
        batch: Integer.
        clips: Integer, clips per video.
        on_error: As for `training_clips`.
        on_skip: As for `training_clips`.
        flow: As for `training_clips`.
        part: As for `training_clips`.
        activation: As for `training_clips`.

    Returns:
        `tf.data.Dataset` of one epoch, as `training_clips` gives them.

    Raises:
        ValueError: If the catalog is empty or an argument out of range.
    """
    epochs = tf.data.Dataset.from_tensors(tf.constant(0, tf.int64))
    _expect_drawing(catalog, "uniform", clips, 0, on_error)
    vectors = expect_fitting(catalog, spec)
    clip = cast(ClipSpec, spec)  # of all but vectors
    reader: Reader | ShardReader | VectorReader
    if vectors is not None:
        reader = VectorReader(catalog, vectors, clips, 0, False)
    elif read_manifest(catalog.root) is not None:
        reader = ShardReader(
            catalog,
            clip,
            clips,
            0,
            False,
            False,
            on_error,
            on_skip,
        )
    else:
        reader = Reader(
            catalog, clip, "uniform", clips, 0, False, False, on_error,
            on_skip, flow=flow,
        )  # fmt: skip
    batches = Batches(len(reader), batch, part)
    return (
        _labelled(reader, batches, epochs, activation)
        .prefetch(2)
        .apply(tf.data.experimental.assert_cardinality(batches.steps))
    )


def watched_clips(
    batches: tf.data.Dataset, tell: Callable[[float], None]
) -> tf.data.Dataset:
    """Tells of every batch how long its taker had to wait for it.

    Put it last: what is ready ahead of who asks costs no wait.

    Args:
        batches: Data set of tuples.
        tell: Function of seconds, called once per batch.

    Returns:
        `tf.data.Dataset` of the same batches.
    """
    # `zip` asks its parts in turn: the clock, for the batch, the clock again.
    clock = tf.data.Dataset.counter().map(lambda _: tf.timestamp())

    def strip(begun, batch, ended):
        told = tf.numpy_function(tell, [ended - begun], [])
        with tf.control_dependencies([told]):
            return tf.nest.map_structure(tf.identity, batch)

    found = tf.data.Dataset.zip((clock, batches, clock)).map(strip)
    options = tf.data.Options()
    # Nobody may run ahead of who asks.
    options.experimental_optimization.inject_prefetch = False
    return found.with_options(options)


def _labelled(reader, batches, epochs, activation):
    """Batches of (clips, labels) of any reader."""
    _expect_one_of(ACTIVATIONS, "activation", activation)
    if isinstance(reader, Reader):
        found = reader.dataset(batches, epochs, reader.catalog.target)
    elif isinstance(reader, ShardReader):
        found = _in_pixels(reader.dataset(batches, epochs), reader.spec)
    else:
        found = reader.dataset(batches, epochs)
    if activation == "softmax":
        return found
    return found.map(
        lambda clips, labels, *rest: (
            clips,
            tf.cast(labels > 0, tf.float32),
            *rest,
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _expect_drawing(catalog, sampler, clips, seed, on_error):
    if not len(catalog):
        raise ValueError("`catalog` has no videos.")
    _expect_one_of(("skip", "raise"), "on_error", on_error)
    _expect_one_of(SAMPLERS, "sampler", sampler)
    _expect_at_least(1, "clips_per_video", clips)
    _expect_at_least(0, "seed", seed)


def _expect_one_of(choices, name, value):
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, choices))}. "
            f"Received: {name}={value!r}"
        )


def _expect_at_least(least, name, value):
    if value < least:
        raise ValueError(
            f"`{name}` must be {least} or more. Received: {name}={value!r}"
        )

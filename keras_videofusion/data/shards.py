"""Reads shards by TensorFlow's own operations, on whatever machine reads.

How JPEG is set decides size, quality and speed. Clips of ten frames of
200 x 200 of real recordings, against the pixels of the direct path; clips per
second of one core, cut to 170 x 170 as they are decoded (optimal codes take a
fourth of a millisecond more to encode a frame, and nothing to decode):

    quality  colour   kB a clip   the same, optimal     dB   error   clips/s
       75    4:2:0       40.8            36.3          42.0   1.46     804
       85    4:2:0       53.2            49.5          43.8   1.17     738
       85    4:4:4       60.6            55.6          44.5   1.08     565
       90    4:2:0       66.0            62.7          44.8   1.03     700
       95    4:2:0       93.7            90.2          46.2   0.86     634
       95    4:4:4      106.9           102.5          47.2   0.78     488

The default is 85, 4:2:0, optimal: its error is half of what the choice of a
resampling filter makes (`keras_videofusion.data.video.Picture`). The accurate
cosine transform is as fast as the fast one, which is TensorFlow's default and
1.6 dB worse. `benchmarks/shards.py` measures it.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from keras_videofusion.data import files
from keras_videofusion.data.batches import Batches
from keras_videofusion.data.catalog import Catalog, open_catalog
from keras_videofusion.data.clips import (
    clip_starts,
    ClipSpec,
    each_stream,
    within,
)
from keras_videofusion.data.manifest import Manifest, read_manifest
from keras_videofusion.data.video import grid_numbers, VideoError

# Shards that are read in turn, a record of each.
CYCLE = 16
# Shards at addresses that are fetched at a time, and ahead of their turn.
AHEAD = 4
# Encoded bytes among which records are shuffled.
WINDOW = 128 * 2**20
_AS_IS = {"fancy_upscaling": False, "dct_method": "INTEGER_ACCURATE"}
CACHES = (None, "memory", "pixels")
# What is drawn; the kinds must not share their draws.
_ORDER, _WINDOWS, _CROPS, _STARTS = range(4)


class ShardReader:
    """Draws the samples of an epoch from shards.

    An epoch has `clips` of the stored clips of every video, or all that it
    has. Which they are goes round from epoch to epoch, so that all serve
    alike; the others are passed over unread by the decoder, which costs a
    thirtieth of a clip each. Of whole videos clips are drawn anew.

    Order, choice, crops and flips are functions of seed, epoch and position.

    Args:
        catalog: `Catalog` of the folder's rows, or of some of them.
        spec: `ClipSpec`.
        clips: Integer, clips of a video in an epoch.
        seed: Integer, 0 or more.
        shuffle: Whether every epoch has an order and a choice of its own.
        augment: Whether crops and flips are drawn; else the centre.
        on_error: `"skip"`: of a damaged shard the records after the damage
            are left out; others take their places. `"raise"`: it is an error.
        on_skip: Function of (path, reason), called once per video that was
            broken when the shards were made and per damaged shard. Without
            it damage is printed, and no operation calls Python.
        jitter: Float, as for
            `keras_videofusion.data.augmentation.random_colour`.
        worker: `(index, count)`: of the shards every `count`-th alone.
        cache: `"memory"`: the encoded clips are read once and kept;
            `"pixels"`: the decoded ones, resized and not cropped.

    Raises:
        ValueError: If an argument is out of range, if the shards cannot feed
            the clip, or if none of them is there.
        VideoError: With `on_error="raise"`, if a video or a shard is missing.
    """

    def __init__(
        self,
        catalog: Catalog,
        spec: ClipSpec,
        clips: int,
        seed: int,
        shuffle: bool,
        augment: bool,
        on_error: str,
        on_skip: Callable[[str, str], None] | None,
        jitter: float = 0.0,
        worker: tuple[int, int] | None = None,
        cache: str | None = None,
    ):
        manifest = _manifest(catalog)
        self.frames, self.fields = fitting(manifest, spec)
        self.catalog = catalog
        self.manifest = manifest
        self.spec = spec
        self.clips = clips
        self.seed = seed
        self.shuffle = shuffle
        self.augment = augment
        self.on_error = on_error
        self.on_skip = on_skip
        self.jitter = jitter
        self.whole = manifest.spec is None
        self._told: set[str] = set()
        _expect_cache(cache, self.whole)

        mine, place_of = _videos(catalog, manifest, worker)
        self.samples = _count(mine, clips, manifest)
        self.shards = used = np.unique(mine[:, 0])
        self._present = _present(self)
        # All videos of these shards, shard after shard: who reads one
        # record passes the others.
        index = manifest.index[np.isin(manifest.index[:, 0], used)]
        places = place_of[index[:, 1]]
        self._bounds = np.searchsorted(index[:, 0], [*used, np.inf])
        draws = np.random.default_rng(seed).integers(0, 2**31, len(place_of))
        self._videos = tf.constant(
            np.stack(
                [
                    places,
                    index[:, 2],  # records
                    index[:, 3],  # frames
                    draws[index[:, 1]] if shuffle else 0 * places,
                ],
                axis=1,
            )
        )
        numbers, begins = catalog.numbers
        self._numbers, self._begins = map(tf.constant, (numbers, begins))
        size = sum(shard["bytes"] for shard in manifest.shards)
        each = size / max(1, sum(s["records"] for s in manifest.shards))
        if self.whole:
            each *= spec.time / max(1.0, np.mean(index[:, 3] / index[:, 2]))
        self.window = int(np.clip(WINDOW / max(each, 1), 16, 8192))
        self._tables: dict[str, Any] = {}
        if cache is not None:
            self._load(cache)

    def __len__(self) -> int:
        return self.samples

    # Which records, in which order.

    def _seed(self, kind, epoch, number):
        """A seed of its own for every draw."""
        first = (4 * self.seed + kind) % 2**63
        second = tf.cast(epoch, tf.int64) * 2**32 + tf.cast(number, tf.int64)
        return tf.stack([tf.constant(first, tf.int64), second])

    def _epoch(self, epoch) -> tf.data.Dataset:
        """The encoded samples of an epoch, numbered by position."""
        shards = tf.range(len(self.shards))
        if self.shuffle:
            shards = tf.random.experimental.stateless_shuffle(
                shards, self._seed(_ORDER, epoch, 0)
            )
        found = tf.data.Dataset.from_tensor_slices(shards)
        if not (self._tables or files.streams(self.manifest.folder)):
            # The next ones are on their way while these are read.
            found = found.map(
                lambda shard: (shard, self._copy(shard))[0],
                num_parallel_calls=AHEAD,
                deterministic=True,
            ).prefetch(AHEAD)
        found = found.interleave(
            lambda shard: self._shard(shard, epoch),
            cycle_length=CYCLE if self.shuffle else 1,
            block_length=1,
        )
        # Others take the places of what is lost, until the epoch is full; not
        # for ever, if nothing is left.
        found = found.repeat(8).take(len(self))
        found = found.apply(tf.data.experimental.assert_cardinality(len(self)))
        if self.shuffle:

            def shuffled(number, window):
                count = tf.shape(window["place"])[0]
                order = tf.random.experimental.stateless_shuffle(
                    tf.range(count), self._seed(_WINDOWS, epoch, number)
                )
                return {k: tf.gather(v, order) for k, v in window.items()}

            found = found.batch(self.window).enumerate().map(shuffled)
            found = found.unbatch()
        return found.enumerate().map(
            lambda position, sample: (epoch, position, sample)
        )

    def _shard(self, shard, epoch) -> tf.data.Dataset:
        """The samples that an epoch takes of one shard."""
        bounds = tf.constant(self._bounds)
        videos = self._videos[bounds[shard] : bounds[shard + 1]]
        if self.whole:
            return self._drawn(shard, epoch, videos)
        counts = videos[:, 1]
        begins = tf.cumsum(counts, exclusive=True)
        place, count, _, draw = tf.unstack(
            tf.repeat(videos, counts, axis=0), axis=1
        )
        number = tf.range(tf.shape(place, tf.int64)[0]) - tf.repeat(
            begins, counts
        )
        # Evenly spread over the video's clips, from one that moves on.
        kept = tf.minimum(count, self.clips)
        turn = tf.math.floormod(number - draw - epoch * self.shuffle, count)
        chosen = (place >= 0) & (turn * kept % count < kept)
        if self._tables:
            mine = tf.where(chosen)[:, 0]
            record = tf.gather(self._tables["begins"], shard) + mine
            record = tf.gather(self._tables["records"], record)
            mine = tf.boolean_mask(mine, record >= 0)
            return tf.data.Dataset.from_tensor_slices(
                {
                    "place": tf.gather(place, mine),
                    "record": tf.boolean_mask(record, record >= 0),
                }
            )
        # Damage reaches to the end of a shard: its last record tells of it.
        last = number == tf.shape(number, tf.int64)[0] - 1
        marks = tf.data.Dataset.from_tensor_slices(
            (chosen | last, {"mine": chosen, "last": last, "place": place})
        )
        records = self._records(shard, tf.shape(place)[0])
        return (
            tf.data.Dataset.zip((marks, records))
            # A mark alone is looked at without a call: a record that is
            # passed over costs no more than its reading.
            .filter(lambda marks, record: marks[0])
            .filter(
                lambda marks, record: (
                    self._there(shard, record, marks[1]["last"])
                    & marks[1]["mine"]
                )
            )
            .map(lambda marks, record: self._parsed(marks[1]["place"], record))
        )

    def _records(self, shard, count) -> tf.data.Dataset:
        """Records of a shard; empty ones from where it is damaged."""
        if files.streams(self.manifest.folder):
            name = tf.gather(tf.constant(self._places), shard)
        else:
            name = self._copy(shard)
        # Of a name that is no file `ignore_errors` would never come back.
        there = tf.gather(tf.constant(self._present), shard) & _is_file(name)
        records = tf.data.TFRecordDataset(tf.boolean_mask([name], [there]))
        lost = tf.data.Dataset.from_tensors(b"").repeat()
        return (
            records.ignore_errors()
            .concatenate(lost)
            .take(tf.cast(count, tf.int64))
        )

    @property
    def _places(self) -> list[str]:
        """Where the shards lie."""
        return [
            self.manifest.place(self.manifest.shards[number]["name"])
            for number in self.shards
        ]

    def _copy(self, shard):
        """The name of a shard's copy on this machine."""
        names = self._places
        name = tf.numpy_function(
            lambda number: _copied(names[int(number)]), [shard], tf.string
        )
        return tf.ensure_shape(name, [])

    def _there(self, shard, record, last):
        """Whether a record was read; tells of it if not."""

        def lost():
            self._tell_lost(shard, last)
            return tf.constant(False)

        return tf.cond(
            tf.strings.length(record) > 0, lambda: tf.constant(True), lost
        )

    def _tell_lost(self, shard, last):
        names = self._places
        told = "it is damaged: the rest of its records is left out"
        if self.on_error == "raise":
            name = tf.gather(tf.constant(names), shard)
            tf.debugging.Assert(False, [name + ": it is damaged"])
        elif self.on_skip is not None:
            tf.numpy_function(
                lambda number: self._tell(names[int(number)], told), [shard], []
            )
        else:
            name = tf.gather(tf.constant(names), shard)
            tf.cond(
                last,
                lambda: tf.print("skipped", name + ":", told),
                tf.no_op,
            )

    def _tell(self, path, reason):
        if path not in self._told and self.on_skip:
            self._told.add(path)
            self.on_skip(path, reason)

    def _drawn(self, shard, epoch, videos) -> tf.data.Dataset:
        """Clips drawn from whole videos, which lie in parts."""
        place, parts, frames, _ = tf.unstack(videos, axis=1)
        shape = (tf.shape(videos)[0], self.clips)
        if self.shuffle:
            at = tf.random.stateless_uniform(
                shape,
                self._seed(_STARTS, epoch, tf.gather(self.shards, shard)),
                dtype=tf.float64,
                alg="philox",
            )
        else:
            even = np.linspace(0, 1, self.clips) if self.clips > 1 else [0.5]
            at = tf.broadcast_to(tf.constant(even, tf.float64), shape)
        parts, frames = parts[:, None], frames[:, None]
        frame = tf.cast(at * tf.cast(frames, tf.float64), tf.int64)
        frame = tf.minimum(frame, frames - 1)
        part = ((frame + 1) * parts - 1) // frames
        first = frames * part // parts
        length = frames * (part + 1) // parts - first
        inside = (at * tf.cast(frames, tf.float64)) - tf.cast(first, tf.float64)
        inside = inside / tf.cast(length, tf.float64)
        record = part + tf.cumsum(parts, exclusive=True)
        mine = tf.broadcast_to(place[:, None] >= 0, shape)
        drawn = tf.boolean_mask(record, mine)
        inside = tf.boolean_mask(inside, mine)
        places = tf.repeat(place, parts[:, 0])

        def clips(number, data):
            starts = tf.boolean_mask(inside, drawn == number)
            return tf.data.Dataset.from_tensor_slices(starts).map(
                lambda start: self._cut(tf.gather(places, number), data, start)
            )

        return (
            self._records(shard, tf.shape(places)[0])
            .enumerate()
            .filter(
                lambda number, record: self._there(
                    shard, record, number == tf.size(places, tf.int64) - 1
                )
            )
            .flat_map(clips)
        )

    # From a record to a clip.

    def _parsed(self, place, data):
        """The JPEG pictures of a stored clip that the network needs."""
        stored: Any = self.manifest.spec
        sizes = {}
        if "rgb" in self.spec.streams:
            sizes["frames"] = stored.time
        if "flow" in self.spec.streams:
            sizes["flow"] = 2 * stored.chunks * stored.flow
        found = tf.io.parse_single_example(
            data,
            {
                name: tf.io.FixedLenFeature([size], tf.string)
                for name, size in sizes.items()
            },
        )
        sample = {"place": place}
        if "frames" in found:
            sample["rgb"] = tf.gather(found["frames"], self.frames)
        if "flow" in found:
            sample["flow"] = tf.gather(found["flow"], self.fields)
        return sample

    def _cut(self, place, data, at):
        """The JPEG pictures of a clip of a whole video's part."""
        found = tf.io.parse_single_example(
            data,
            {
                name: tf.io.FixedLenSequenceFeature([], kind, True)
                for name, kind in (("frames", tf.string), ("times", tf.int64))
            },
        )
        numbers = tf.range(tf.shape(found["times"])[0])
        if self.spec.fps is not None:
            times = tf.cast(found["times"], tf.float64) / 1e6
            length = times[-1] - times[0]
            ticks = tf.range(
                tf.cast(length * self.spec.fps + 1e-6, tf.int32) + 1
            )
            grid = times[0] + tf.cast(ticks, tf.float64) / self.spec.fps
            numbers = tf.searchsorted(times, grid + 1e-6, side="right") - 1
        count = tf.shape(numbers)[0]
        last = tf.maximum(0, count - self.spec.span)
        if self.shuffle:
            start = tf.cast(at * tf.cast(last + 1, tf.float64), tf.int32)
        else:
            half = 0.5 if self.clips > 1 else 0.0
            start = tf.cast(at * tf.cast(last, tf.float64) + half, tf.int32)
        inside = tf.minimum(start, last) + self.spec.offsets.astype(np.int32)
        inside = (
            inside % count
            if self.spec.short == "loop"
            else tf.minimum(inside, count - 1)
        )
        wanted = tf.gather(numbers, inside)
        return {"place": place, "rgb": tf.gather(found["frames"], wanted)}

    def _sample(self, epoch, position, sample):
        """The clip of a sample, `(1, time, height, width, channels)`."""
        streams = self._streams(sample)
        draws = tf.random.stateless_uniform(
            [9], self._seed(_CROPS, epoch, position), alg="philox"
        )
        cached = next(iter(streams.values()))
        if cached.dtype == tf.string:
            if self._same_size:
                shape = tf.io.extract_jpeg_shape(cached[0])[:2]
                window = self._window(shape, draws)
                clip = {
                    name: _decoded(jpegs, window)
                    for name, jpegs in streams.items()
                }
            else:
                clip = {
                    name: resized(_decoded(jpegs), self.spec.resize)
                    for name, jpegs in streams.items()
                }
                clip = self._cropped(clip, draws)
        else:
            clip = self._cropped(streams, draws)
        shapes = self.spec.shapes
        clip = {
            name: tf.ensure_shape(
                one if name == "rgb" else _fields(one), shapes[name]
            )
            for name, one in clip.items()
        }
        if self.augment:
            clip = tf.cond(
                draws[2] < 0.5,
                lambda: each_stream(mirrored, clip),
                lambda: clip,
            )
            if self.jitter and "rgb" in clip:
                clip["rgb"] = coloured(clip["rgb"], self.jitter, draws[3:])
        return {name: one[None] for name, one in clip.items()}

    @property
    def _same_size(self):
        return self.manifest.resize == self.spec.resize

    def _streams(self, sample):
        if not self._tables:
            return {k: v for k, v in sample.items() if k != "place"}
        return {
            name: tf.gather(table, sample["record"])
            for name, table in self._tables.items()
            if name in self.spec.streams
        }

    def _window(self, shape, draws):
        """`(top, left, height, width)` of the crop in a frame."""
        size = tf.constant(self.spec.size)
        room = tf.cast(shape, tf.int32) - size
        if not self.augment:
            return tf.concat([room // 2, size], 0)
        # The largest float below 1 may round up to `room + 1`.
        drawn = tf.cast(draws[:2] * tf.cast(room + 1, tf.float32), tf.int32)
        return tf.concat([tf.minimum(drawn, room), size], 0)

    def _cropped(self, clip, draws):
        shape = tf.shape(next(iter(clip.values())))[1:3]
        top, left, tall, wide = tf.unstack(self._window(shape, draws))
        return {
            name: one[:, top : top + tall, left : left + wide]
            for name, one in clip.items()
        }

    def _target(self, place):
        """What a softmax learns of a video, `(1, classes)`."""
        numbers = self._numbers[self._begins[place] : self._begins[place + 1]]
        shown = tf.reduce_max(
            tf.one_hot(numbers, len(self.catalog.classes)), axis=0
        )
        return (shown / tf.reduce_sum(shown))[None]

    def dataset(
        self, batches: Batches, epochs: tf.data.Dataset
    ) -> tf.data.Dataset:
        """Batches of (clips, labels), epoch after epoch.

        Args:
            batches: `Batches`.
            epochs: Dataset of int64 scalars.

        Returns:
            `tf.data.Dataset`; flow in bytes. Of parts of batches it is of
            (clips, labels, weights).
        """

        def sample(epoch, position, sample):
            clip = self._sample(epoch, position, sample)
            if len(clip) == 1:
                clip = clip[self.spec.streams[0]]
            target = self._target(sample["place"])
            if batches.part is None:
                return clip, target
            return clip, target, batches.weight(position)[None]

        def samples(epoch):
            return batches.chosen(epoch, self._epoch(epoch))

        return batches.gathered(
            epochs.flat_map(samples).map(
                sample, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
            )
        )

    # In memory.

    def _load(self, cache) -> None:
        """Reads the chosen videos' records into tables, once."""
        found: dict[str, list] = {name: [] for name in self.spec.streams}
        places: list[int] = []
        begins = []
        bounds = self._bounds
        videos = self._videos.numpy()
        for shard in range(len(self.shards)):
            begins.append(len(places))
            mine = videos[bounds[shard] : bounds[shard + 1]]
            place = np.repeat(mine[:, 0], mine[:, 1])
            records = self._records(tf.constant(shard), len(place))
            at = [-1] * len(place)
            for number, data in enumerate(records):
                if not self._there(tf.constant(shard), data, tf.constant(True)):
                    break
                if place[number] < 0:
                    continue
                at[number] = len(found[self.spec.streams[0]])
                sample = self._parsed(place[number], data)
                for name, kept in found.items():
                    kept.append(self._kept(sample[name], cache))
            places += at
        if not found[self.spec.streams[0]]:
            raise ValueError(
                f"no record of {self.manifest.folder} could be read."
            )
        self._tables = {
            name: tf.constant(np.stack(kept)) for name, kept in found.items()
        }
        self._tables["begins"] = tf.constant(begins, tf.int64)
        self._tables["records"] = tf.constant(places, tf.int64)

    def _kept(self, jpegs, cache):
        if cache == "memory":
            return jpegs.numpy()
        pixels = _decoded(jpegs)
        if not self._same_size:
            pixels = resized(pixels, self.spec.resize)
        return pixels.numpy()


def stored_samples(
    catalog: Catalog, clips: int, worker: tuple[int, int] | None = None
) -> int | None:
    """Clips in an epoch of shards; None: the catalog is not of shards.

    Args:
        catalog: `Catalog`.
        clips: Integer, clips of a video in an epoch.
        worker: As for `ShardReader`.
    """
    manifest = read_manifest(catalog.root)
    if manifest is None:
        return None
    index, _ = _videos(catalog, manifest, worker)
    return _count(index, clips, manifest)


def _count(videos, clips, manifest):
    """Clips that an epoch takes of some rows of the index."""
    if manifest.spec is None:
        return clips * len(videos)
    return int(np.minimum(videos[:, 2], clips).sum())


def fitting(manifest: Manifest, spec: ClipSpec):
    """Which pictures of a stored clip a network's clip is made of.

    Args:
        manifest: `Manifest`.
        spec: `ClipSpec` that the network needs.

    Returns:
        Two integer arrays, places among a record's `frames` and among its
        `flow`; None for what is not needed or, of whole videos, not known.

    Raises:
        ValueError: If the shards cannot feed the network.
    """
    stored, resize = manifest.spec, manifest.resize
    same = resize == spec.resize
    kind = resize[0]
    lengths = [side for side in resize if not isinstance(side, str)]
    if stored is None:
        # Of whole frames every other size, unless it is larger.
        fits = same or min(spec.resized) <= lengths[0]
        if fits and "flow" not in spec.streams:
            return None, None
    else:
        smaller = (
            spec.resize[0] == kind
            and kind in ("square", "short_side")
            and spec.resize[1] <= resize[1]
            and "flow" not in spec.streams
        )
        if same or smaller:
            found = _among(stored, spec)
            if found is not None:
                return found
    raise ValueError(
        f"{manifest.folder} cannot feed this network: prepare shards for it. "
        f"Stored: {_described(stored, resize)}. "
        f"Received: {_described(spec, spec.resize)}"
    )


def _among(stored, spec):
    """Places of a clip's pictures in a stored clip, from its middle."""
    if (
        not set(spec.streams) <= set(stored.streams)
        or (spec.fps, spec.short) != (stored.fps, stored.short)
        or ("flow" in spec.streams and spec.step != stored.step)
    ):
        return None
    frames = stored.offsets.tolist() if "rgb" in spec.streams else []
    wanted = spec.offsets if "rgb" in spec.streams else np.zeros(0, int)
    fields = stored.flow_offsets[:, :-1].ravel().tolist()
    needed = spec.flow_offsets[:, :-1].ravel()
    shifts = [
        shift
        for shift in range(stored.span)
        if set((wanted + shift).tolist()) <= set(frames)
        and set((needed + shift).tolist()) <= set(fields)
    ]
    if not shifts:
        return None
    shift = shifts[(len(shifts) - 1) // 2]
    places = [fields.index(field) for field in (needed + shift).tolist()]
    return (
        np.array([frames.index(f) for f in (wanted + shift).tolist()], int),
        np.array(
            [2 * place + axis for place in places for axis in (0, 1)], int
        ),
    )


def _described(spec, resize):
    """A clip in a few words."""
    shape = f"frames resized to {resize}"
    if spec is None:
        return f"whole videos, rgb, {shape}"
    rate = "the video's own rate" if spec.fps is None else f"{spec.fps:g} fps"
    chunks = f"{spec.chunks} times " if spec.chunks > 1 else ""
    flow = f", {spec.flow} fields" if spec.flow else ""
    return (
        f"{chunks}{spec.frames} frames, step {spec.step} at {rate}{flow}, "
        f"{' and '.join(spec.streams)}, {spec.short}, {shape}"
    )


def _decoded(jpegs, window=None):
    """Pictures of a clip, uint8 of shape `(pictures, height, width, colours)`.

    Colour or grey as they were encoded.
    """

    def one(jpeg):
        if window is None:
            return tf.io.decode_jpeg(jpeg, **_AS_IS)
        return tf.io.decode_and_crop_jpeg(jpeg, window, **_AS_IS)

    return tf.map_fn(
        one,
        jpegs,
        fn_output_signature=tf.TensorSpec([None, None, None], tf.uint8),
    )


def _fields(planes):
    """Flow from pictures of x and y in turn, `(fields, height, width, 2)`."""
    x, y = planes[0::2, ..., 0], planes[1::2, ..., 0]
    # A byte of 0 has no mirror image; JPEG may make one of 1.
    return tf.maximum(tf.stack([x, y], axis=-1), tf.constant(1, tf.uint8))


def mirrored(clip):
    """Left and right exchanged in every frame; of flow x changes its sign.

    Args:
        clip: Uint8 tensor of shape `(time, height, width, channels)`.

    Returns:
        Tensor of the same shape.
    """
    time, height, width, channels = clip.shape
    # A picture of rank 3 is turned in a tenth of the time of one of rank 4.
    flat = tf.reshape(clip, (time * height, width, channels))
    found = tf.reshape(tf.reverse(flat, [1]), clip.shape)
    if channels != 2:
        return found
    x = tf.cast(256 - tf.cast(found[..., 0], tf.int32), tf.uint8)
    return tf.stack([x, found[..., 1]], axis=-1)


def coloured(clip, strength, draws):
    """Contrast and brightness drawn anew, as `random_colour` does.

    Args:
        clip: Uint8 tensor of shape `(..., 3)`.
        strength: Float in [0, 1].
        draws: Float tensor of shape `(6,)`, uniform in [0, 1).

    Returns:
        Uint8 tensor of the same shape.
    """
    gain = 1 + strength * (2 * draws[:3] - 1)
    shift = 80 * strength * (2 * draws[3:] - 1)
    found = 117 + gain * (tf.cast(clip, tf.float32) - 117) + shift
    return tf.cast(tf.clip_by_value(tf.round(found), 0, 255), tf.uint8)


def resized(frames, resize):
    """Frames at another size, by the rules of `ClipSpec`.

    Args:
        frames: Uint8 tensor of shape `(time, height, width, 3)`.
        resize: As in `ClipSpec`.

    Returns:
        Uint8 tensor.
    """
    kind, *lengths = resize
    if kind in ("square", "short_side"):
        lengths = lengths * 2
    if kind in ("square", "short_side", "cover", "pad"):
        sides = tf.cast(tf.shape(frames)[1:3], tf.float64)
        ratios = tf.constant(lengths, tf.float64) / sides
        scale = (tf.reduce_min if kind == "pad" else tf.reduce_max)(ratios)
        size = tf.cast(
            tf.maximum(tf.round(sides * scale), tf.ones_like(sides)), tf.int32
        )
    else:
        lengths = resize
        size = tf.constant(resize)
    found = tf.image.resize(frames, size, method="area")
    if kind in ("square", "cover", "pad"):
        found = tf.image.resize_with_crop_or_pad(found, *lengths)
    return tf.cast(tf.round(found), tf.uint8)


def stored_videos(
    catalog: Catalog,
    spec: ClipSpec,
    clips: int,
) -> Iterator[tuple[int, Callable[[np.random.Generator], Any]]]:
    """The videos of shards, one after the other, to be scored.

    Args:
        catalog: `Catalog` of the folder's rows, or of some of them.
        spec: `ClipSpec`.
        clips: Integer: of the stored clips so many, evenly spread, or all
            that there are; of whole videos so many random ones.

    Returns:
        Iterator of a video's place in the catalog and a function of a
        `numpy.random.Generator`, which returns what
        `keras_videofusion.data.video.read_clips` does, or raises
        `VideoError`. Places come in the order of the shards.

    Raises:
        ValueError: If the shards cannot feed the clip.
    """
    manifest = _manifest(catalog)
    chosen = fitting(manifest, spec)
    place_of = _places(catalog, manifest)
    return _stored(catalog, manifest, spec, clips, chosen, place_of)


def _stored(catalog, manifest, spec, clips, chosen, place_of):
    """Yields what `stored_videos` promises."""
    index = manifest.index
    seen = np.zeros(len(catalog), bool)
    for number, shard in enumerate(manifest.shards):
        mine = index[index[:, 0] == number]
        if not (place_of[mine[:, 1]] >= 0).any():
            continue
        name = manifest.place(shard["name"])
        records = _examples(name)
        for _, row, count, _ in mine.tolist():
            place = int(place_of[row])
            found = [one for _, one in zip(range(count), records, strict=False)]
            if place < 0:
                continue
            seen[place] = True
            whole = manifest.spec is None
            if not found or (whole and len(found) < count):
                reason = f"{shard['name']} is damaged or missing"
                yield place, _failing(catalog[place].path, reason)
            elif whole:
                yield place, _drawing(found, spec, clips, manifest)
            else:
                many = min(clips, len(found))
                some = np.linspace(0, len(found) - 1, many).round().astype(int)
                kept = [found[one] for one in some]
                yield place, _loading(kept, spec, chosen, manifest)
    reasons = {row["path"]: row["error"] for row in manifest.skipped}
    for place in np.flatnonzero(~seen).tolist():
        path = catalog[place].path
        yield place, _failing(path, reasons.get(path, "it has no records"))


def _examples(name) -> Iterator[Any]:
    """Records of a shard, up to where it is damaged."""
    if _size(name) is None:
        return
    name = name if files.streams(name) else _copied(name)
    records = iter(tf.data.TFRecordDataset(name).ignore_errors())
    for data in records:
        example = tf.train.Example.FromString(data.numpy())
        yield example.features.feature


def _copied(name) -> str:
    """The copy of a shard; nothing if it is not there.

    A connection that cannot be mended is no damage: it ends the work.
    """
    try:
        return files.kept(name)
    except FileNotFoundError:
        return ""


def _failing(path, reason):
    def fail(generator):
        raise VideoError(path, reason)

    return fail


def _loading(records, spec, chosen, manifest):
    """Decodes stored clips."""
    frames, fields = chosen

    def load(generator):
        found = {}
        if "rgb" in spec.streams:
            found["rgb"] = np.stack(
                [
                    _pixels(
                        one["frames"].bytes_list.value, frames, spec, manifest
                    )
                    for one in records
                ]
            )
        if "flow" in spec.streams:
            found["flow"] = np.stack(
                [
                    _fields(
                        np.stack(
                            [
                                tf.io.decode_jpeg(
                                    one["flow"].bytes_list.value[k], **_AS_IS
                                )
                                for k in fields
                            ]
                        )
                    ).numpy()
                    for one in records
                ]
            )
        starts = [one["start"].float_list.value[0] for one in records]
        one = found[spec.streams[0]] if len(found) == 1 else found
        return one, np.array(starts, np.float64)

    return load


def _drawing(records, spec, clips, manifest):
    """Decodes random clips of a whole video."""

    def load(generator):
        jpegs = [j for one in records for j in one["frames"].bytes_list.value]
        times = np.array(
            [t for one in records for t in one["times"].int64_list.value]
        )
        times = times / 1e6
        numbers = np.arange(len(times))
        if spec.fps is not None:
            numbers = grid_numbers(times, spec.fps)
        starts = clip_starts(len(numbers), spec, "random", clips, generator)
        inside = within(
            starts[:, None] + spec.offsets, len(numbers), spec.short
        )
        wanted, places = np.unique(numbers[inside], return_inverse=True)
        pixels = _pixels(jpegs, wanted, spec, manifest)
        return pixels[places.reshape(inside.shape)], times[numbers[starts]]

    return load


def _pixels(jpegs, wanted, spec, manifest):
    """Frames at the clip's size, uint8 `(frames, height, width, 3)`."""
    frames = np.stack([tf.io.decode_jpeg(jpegs[k], **_AS_IS) for k in wanted])
    if manifest.resize == spec.resize:
        return frames
    return resized(frames, spec.resize).numpy()


def _manifest(catalog) -> Manifest:
    manifest = read_manifest(catalog.root)
    if manifest is None:
        raise ValueError(
            "`catalog` must be of a folder of shards. "
            f"Received: root={catalog.root!r}"
        )
    return manifest


def _places(catalog, manifest) -> np.ndarray:
    """Of every row of the folder its place in a catalog; -1: not in it."""
    stored = open_catalog(manifest.folder)
    found = np.full(len(stored), -1, np.int64)
    found[manifest.rows(stored, catalog)] = np.arange(len(catalog))
    return found


def _videos(catalog, manifest, worker):
    """The rows of the index that a reader takes.

    Returns:
        Int64 array of shape `(videos, 4)`, and what `_places` returns.
    """
    place_of = _places(catalog, manifest)
    index = manifest.index
    mine = index[place_of[index[:, 1]] >= 0]
    if worker is None:
        return mine, place_of
    number, count = worker
    used = np.unique(mine[:, 0])
    if not 0 <= number < count:
        raise ValueError(
            "`worker` must be (index, count) with an index in 0..count-1. "
            f"Received: worker={worker}"
        )
    if len(used) < count:
        raise ValueError(
            f"{manifest.folder} has {len(used)} shards of these rows, too few "
            f"for {count} workers: prepare smaller ones. "
            f"Received: worker={worker}"
        )
    return mine[np.isin(mine[:, 0], used[number::count])], place_of


def _is_file(name):
    """Whether a file is there by the time that it is wanted."""
    # What looks files up takes patterns.
    literal = tf.strings.regex_replace(name, r"([\[\]*?\\])", r"\\\1")
    return tf.size(tf.io.matching_files(literal)) > 0


def _present(reader) -> list[bool]:
    """Which shards are there; tells, once, of what is not as it should be.

    Raises:
        VideoError: With `on_error="raise"`.
        ValueError: If no shard is there.
    """
    manifest = reader.manifest
    shards = [manifest.shards[number] for number in reader.shards]
    with ThreadPoolExecutor(16) as pool:
        sizes = list(
            pool.map(lambda s: _size(manifest.place(s["name"])), shards)
        )
    if not shards or all(size is None for size in sizes):
        raise ValueError(
            f"{manifest.folder} has no shard of the rows that are asked for."
        )
    wrong = []
    for shard, size in zip(shards, sizes, strict=True):
        if size != shard["bytes"]:
            what = "no such file" if size is None else f"it has {size} bytes"
            reason = (
                f"{what}; the manifest says {shard['bytes']} bytes. Run "
                "videofusion prepare again"
            )
            wrong.append((manifest.place(shard["name"]), reason))
    paths = {video.path for video in reader.catalog}
    wrong += [
        (row["path"], row["error"])
        for row in manifest.skipped
        if row["path"] in paths
    ]
    for path, reason in wrong:
        if reader.on_error == "raise":
            raise VideoError(path, reason)
        reader._tell(path, reason)
    return [size is not None for size in sizes]


def _size(place) -> int | None:
    """Bytes of a file; None: there is none."""
    try:
        return files.bytes_of(place)
    except FileNotFoundError:
        return None


def _expect_cache(cache, whole):
    if cache not in CACHES:
        raise ValueError(
            "`cache` must be 'memory', 'pixels' or None. "
            f"Received: cache={cache!r}"
        )
    if cache and whole:
        raise ValueError(
            "`cache` is of stored clips; these shards hold whole videos. "
            f"Received: cache={cache!r}"
        )

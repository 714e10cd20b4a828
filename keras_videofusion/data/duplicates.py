"""Finds videos that are copies of others, frame by frame.

Two stages. An index proposes pairs: of every sampled frame a few keys of 32
bits say which low frequencies are light or dark, and videos that share keys
are held against each other. Then what changes in the two is correlated over
time: scenes with the same background share keys, but only copies move alike
at one offset. The share of frames that do is the result.

A copy may be encoded anew, rescaled, lighter or darker, cropped by a twentieth
on any sides, cut at both ends, and bear a logo.

Measured, per video and core: looking at one of four seconds 16 ms and 9 kB of
cache, the index 1 ms and 17 kB of scratch on disk, a comparison 1.5 ms (of
neighbours; 6 ms of copies). Memory peaks at 1.3 GB for 30,000 videos and 1.7
for 100,000, drawn crowded on purpose. For a million that leads to 0.6 hours of
index, 15 of comparisons and 17 GB of scratch; of five minutes each they keep
194 kB of cache, 194 GB in all, and looking at them takes longest. No million
was run.

Reference:
    Karpathy et al., CVPR 2014, section 4.1: of a million videos 1,755 have a
    significant fraction of near-duplicate frames across the splits.
"""

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from keras_videofusion.data.catalog import Catalog
from keras_videofusion.data.fingerprints import (
    Fingerprint,
    fingerprint,
    identity,
    MIRROR,
    Store,
    WHOLE,
)
from keras_videofusion.data.flow import sources
from keras_videofusion.data.video import VideoError

# Edges of what may be left of a picture that was cropped.
SPANS = ((0, 1), (0.05, 1), (0, 0.95), (0.05, 0.95))
CROPS = tuple((*rows, *columns) for rows in SPANS for columns in SPANS)

# What part of the picture the keys of each table are made of: what was cropped
# on all sides is found by the inner part, logos in corners by the halves.
TABLES = ((WHOLE, CROPS[-1]), ((0, 0.55, 0, 1),), ((0.45, 1, 0, 1),))
KEY_BITS = 32
# Each of the weakest bits of a key is tried both ways: it is they that differ.
WEAK_BITS = 4
# Frames that share a key may differ in so many of all their 63 bits.
DISTANCE = 12
# Long videos keep about so many keys per table, chosen by the keys' own
# values, so that copies keep the same ones.
KEYS = 512
# A key that more videos share (a station's intro) joins each of them to so few
# of those whose bits are nearest.
CROWD = 64
NEAREST = 2
# Videos with fewer keys in common are not compared; of the others every video
# is compared with so many, those with most keys in common.
FEWEST_KEYS = 3
PARTNERS = 64

# Frames on either side of one that its likeness is taken over.
REACH = 8
# What a still picture weighs beside what changes in the video.
STILL = 0.02
# From here on a frame counts as one of the other's.
ALIKE = 0.9
# What a cropped frame must have before the crop is known; copies have 0.7.
LIKELY = 0.6
# Fewer frames could be chance.
FEWEST = 3


@dataclass(frozen=True)
class Pair:
    """Two videos with frames in common.

    Args:
        one: Path, relative to the data.
        other: Path, relative to the data.
        share: Float in 0..1: of the frames of the shorter video, those that
            the other has too; flat frames (black, white) do not count.
        share_one: Float in 0..1, of the frames of `one`.
        share_other: Float in 0..1, of the frames of `other`.
        offset: Float, seconds: `other` begins at this time of `one`.
        mirrored: Whether one is the other's mirror image.
        splits: The two videos' splits, None where there is none.
        groups: The two videos' groups, None where there is none.
    """

    one: str
    other: str
    share: float
    share_one: float
    share_other: float
    offset: float
    mirrored: bool = False
    splits: tuple[str | None, str | None] = (None, None)
    groups: tuple[str | None, str | None] = (None, None)

    @property
    def straddles_split(self) -> bool:
        """Whether what is learned from one is tested on the other."""
        one, other = self.splits
        return None not in self.splits and one != other

    @property
    def straddles_group(self) -> bool:
        """Whether a split by groups could tear the two apart."""
        one, other = self.groups
        return one is None or one != other


@dataclass(frozen=True)
class Duplicates:
    """What a search found.

    Args:
        videos: Integer, how many were looked at.
        frames: Integer, how many of their frames.
        pairs: Tuple of `Pair`, in the order of the data.
        compared: Integer, pairs that the index proposed.
        crowded: Integer, keys that more than 64 videos share: of these not
            all pairs were looked at.
        left_out: Integer, pairs that were not compared since either video has
            more in common with 64 others.
        skipped: Tuple of dicts `{path, error}`: videos that do not decode.
    """

    videos: int
    frames: int
    pairs: tuple[Pair, ...]
    compared: int
    crowded: int
    left_out: int
    skipped: tuple[dict[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """Dict of all of it, as the command writes it."""
        return {
            **asdict(self),
            "pairs": [
                {
                    **asdict(pair),
                    "straddles_split": pair.straddles_split,
                    "straddles_group": pair.straddles_group,
                }
                for pair in self.pairs
            ],
        }


def duplicates(
    data: Catalog | str | os.PathLike,
    threshold: float = 0.3,
    mirrored: bool = False,
    workers: int | None = None,
    cache: str | os.PathLike | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Duplicates:
    """Finds the pairs of videos that have frames in common.

    Every video is decoded once and kept as thumbnails of 144 bytes per
    sampled frame: 4 per second, up to 16 of videos that are shorter than 16
    seconds. Segments of one file are not held against each other.

    Args:
        data: `Catalog`, or a folder: then all videos below it.
        threshold: Float in (0, 1]: the least share of the shorter video's
            frames that both must have.
        mirrored: Whether mirror images count; it doubles the index.
        workers: Integer, videos at a time, by threads; as many as processors
            if None.
        cache: File that keeps the thumbnails, so that a search that was
            stopped goes on where it was and the next one decodes only what
            is new; None to throw them away.
        progress: Function of what is done ("videos" or "pairs"), how many of
            them are, and how many there are; or None.

    Returns:
        `Duplicates`.

    Raises:
        ValueError: If an argument is out of range, or `cache` is some other
            file.
        OSError: If `cache` cannot be written.
    """
    if not 0 < threshold <= 1:
        raise ValueError(
            "`threshold` must be more than 0 and at most 1. "
            f"Received: threshold={threshold}"
        )
    if workers is not None and workers < 1:
        raise ValueError(
            f"`workers` must be 1 or more. Received: workers={workers}"
        )
    tell = progress or (lambda what, done, total: None)
    files = sources(data)
    root = data.root if isinstance(data, Catalog) else os.fspath(data)
    names: list[str] = []
    numbers: list[int] = []
    skipped, frames = [], 0
    with ExitStack() as stack:
        store = stack.enter_context(Store(cache))
        index = stack.enter_context(Index(len(files), mirrored))
        for done, (path, found) in enumerate(
            _stored(store, files, workers or os.cpu_count() or 1), 1
        ):
            name = os.path.relpath(path, root)
            if isinstance(found, VideoError):
                skipped.append({"path": name, "error": found.reason})
            else:
                looks_like = store[found]
                index.add(len(names), looks_like)
                frames += len(looks_like)
                names.append(name)
                numbers.append(found)
            tell("videos", done, len(files))

        # A two-hour video takes 25 MB; pairs come sorted by their first.
        @lru_cache(maxsize=32)
        def looks(video):
            return Looks(store[numbers[video]])

        candidates = index.pairs()
        pairs = []
        for done, (one, other) in enumerate(candidates.tolist(), 1):
            match = compare(looks(one), looks(other), threshold, mirrored)
            if match:
                pairs.append(Pair(names[one], names[other], *match))
            tell("pairs", done, len(candidates))
    if isinstance(data, Catalog):
        pairs = _told(pairs, data)
    return Duplicates(
        len(names),
        frames,
        tuple(pairs),
        len(candidates),
        index.crowded,
        index.left_out,
        tuple(skipped),
    )


def _stored(store, files, workers):
    """Yields files and the numbers of their fingerprints, or `VideoError`s.

    Only a few files are under way at a time, however many there are.
    """

    def made(path, key):
        try:
            return key, fingerprint(path)
        except VideoError as error:
            return key, error

    def begun(path):
        try:
            key = identity(path)
        except VideoError as error:
            return path, error
        number = store.find(key)
        if number is None:
            return path, pool.submit(made, path, key)
        return path, number

    def finished(path, state):
        if isinstance(state, Future):
            key, state = state.result()
            if isinstance(state, Fingerprint):
                state = store.add(key, state)
        return path, state

    saved = time.monotonic()
    waiting: deque = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for path in files:
            waiting.append(begun(path))
            if len(waiting) > 4 * workers:
                yield finished(*waiting.popleft())
            if time.monotonic() > saved + 2:
                store.save()
                saved = time.monotonic()
        while waiting:
            yield finished(*waiting.popleft())
        store.save()
    finally:
        pool.shutdown(cancel_futures=True)


def _name(catalog, video):
    """A video as `duplicates` names it."""
    return os.path.relpath(catalog.file(video), catalog.root)


def _told(pairs, catalog):
    """The pairs, with the splits and groups of a catalog's rows."""
    rows = {_name(catalog, video): video for video in catalog}
    return [
        replace(
            pair,
            splits=(rows[pair.one].split, rows[pair.other].split),
            groups=(rows[pair.one].group, rows[pair.other].group),
        )
        for pair in pairs
    ]


def merged(
    catalog: Catalog, found: Duplicates, root: str | os.PathLike | None = None
) -> Catalog:
    """The catalog with copies in one group, so that no split parts them.

    Where rows carry splits already, what is tested stays as it is: of a group
    that straddles them now, rows to learn from are left out.

    Args:
        catalog: The `Catalog` that was searched.
        found: What `duplicates` returned.
        root: Folder for the result: paths are relative to it, or whole where
            a video lies elsewhere. None leaves paths as they are.

    Returns:
        `Catalog`, perhaps with fewer rows. Groups that became one have the
        name of the first, or its path where it has none.
    """
    leaders: dict[tuple, tuple] = {}

    def leader(node):
        while node in leaders:
            node = leaders[node]
        return node

    def join(one, other):
        one, other = sorted(map(leader, (one, other)), key=places.__getitem__)
        if one != other:
            leaders[other] = one

    # A row without a group is one of its own.
    nodes = [
        ("group", video.group)
        if video.group
        else ("path", _name(catalog, video))
        for video in catalog
    ]
    places = {node: place for place, node in reversed([*enumerate(nodes)])}
    files: dict[str, tuple] = {}
    for video, node in zip(catalog, nodes, strict=True):
        # Segments of one file belong together.
        join(files.setdefault(_name(catalog, video), node), node)
    for pair in found.pairs:
        join(files[pair.one], files[pair.other])
    grown = set(map(leader, leaders))
    strongest: dict[tuple, int] = {}
    for video, node in zip(catalog, nodes, strict=True):
        group = leader(node)
        strength = max(strongest.get(group, 0), _STRENGTH.get(video.split, 0))
        strongest[group] = strength
    videos = []
    for video, node in zip(catalog, nodes, strict=True):
        group = leader(node)
        if group not in grown:
            videos.append(video)
        elif _STRENGTH.get(video.split, 0) == strongest[group]:
            videos.append(replace(video, group=group[1]))
    if root is None:
        return Catalog(tuple(videos), catalog.classes, catalog.root)

    def placed(video):
        path = os.path.abspath(catalog.file(video))
        below = os.path.relpath(path, root)
        away = below.split(os.sep)[0] == os.pardir
        return replace(video, path=path if away else below)

    return Catalog(tuple(map(placed, videos)), catalog.classes, os.fspath(root))


# Of two splits that share a recording, the one that keeps its rows.
_STRENGTH = {None: 0, "train": 1, "validation": 2, "test": 3}


# An entry of the index: a key of a video, and all bits of a frame that has it.
_ENTRY = np.dtype([("key", "<u4"), ("video", "<u4"), ("bits", "<u8")])
# Entries that are sorted at a time: 128 MB, and twice that to sort them.
_AT_ONCE = 2**23


class Index:
    """Proposes pairs of videos that share keys, without trying all pairs.

    Entries of 16 bytes lie in files that go away; a file holds the keys of
    one table in some range, and is sorted by itself. So do hits, 8 bytes for
    each of two videos and each key that they share. Time grows with the
    entries, of which a video has at most `len(TABLES) * KEYS`, and the hits.

    Args:
        videos: Integer, how many will be added at most.
        mirrored: Whether mirror images shall meet.

    Attributes:
        crowded: Integer, keys that more than `CROWD` videos share.
        left_out: Integer, pairs that share keys and are not proposed, since
            both videos share more with `PARTNERS` others.
    """

    def __init__(self, videos, mirrored=False):
        self.mirrored = mirrored
        self.videos = max(1, videos)
        self.crowded = self.left_out = 0
        self.keys = KEYS * (1 + mirrored)
        self.parts = 1 + videos * self.keys // _AT_ONCE
        self._stack = ExitStack()

    def __enter__(self):
        def scratch():
            file = tempfile.TemporaryFile()  # noqa: SIM115
            return self._stack.enter_context(file)

        self.files = [[scratch() for _ in range(self.parts)] for _ in TABLES]
        self.hits = [scratch() for _ in range(self.parts)]
        return self

    def __exit__(self, *_):
        self._stack.close()

    def add(self, video: int, found: Fingerprint) -> None:
        """Adds a video.

        Args:
            video: Integer; larger than those before.
            found: Its `Fingerprint`.
        """
        live = found.live
        for table, windows in enumerate(TABLES):
            views = [found.view(window)[live] for window in windows]
            if self.mirrored:
                views += [view * MIRROR for view in views]
            self.insert(table, video, np.concatenate(views))

    def insert(self, table: int, video: int, views: np.ndarray) -> None:
        """Adds a video's patterns to one table.

        Args:
            table: Integer, the place in `TABLES`.
            video: Integer; larger than those before.
            views: Float32 array of shape `(frames, 63)`.
        """
        if not len(views):
            return
        keys, bits = _keys(views)
        keys, places = np.unique(keys, return_index=True)
        # The same keys of every video, of long ones a half, a quarter ...
        halvings = max(0, int(np.ceil(np.log2(len(keys) / self.keys))))
        kept = keys & np.uint32((1 << halvings) - 1) == 0
        entries = np.empty(int(kept.sum()), _ENTRY)
        entries["key"] = keys[kept]
        entries["video"] = video
        entries["bits"] = bits[places[kept] % len(bits)]
        part = (entries["key"] >> np.uint32(16)).astype(np.int64)
        part = part * self.parts >> 16
        for number in np.unique(part):
            chosen = entries[part == number]
            self.files[table][number].write(chosen.tobytes())

    def pairs(self) -> np.ndarray:
        """The pairs of videos that share keys.

        Returns:
            Int64 array of shape `(pairs, 2)`, sorted, the smaller video
            first.
        """
        for file in (file for files in self.files for file in files):
            file.seek(0)
            entries = np.frombuffer(file.read(), _ENTRY)
            if len(entries):
                self._meet(entries)
        eligible, found = 0, [np.empty(0, np.uint64)]
        for file in self.hits:
            file.seek(0)
            hits = np.frombuffer(file.read(), np.uint64)
            pairs, counts = np.unique(hits, return_counts=True)
            common = counts >= FEWEST_KEYS
            pairs, counts = pairs[common], counts[common]
            eligible += len(pairs)
            # Of each video, those with most keys in front.
            video = pairs >> np.uint64(32)
            pairs = pairs[np.lexsort((-counts, video))]
            rank = np.arange(len(pairs)) - np.searchsorted(video, video)
            one, other = _unpacked(pairs[rank < PARTNERS])
            found.append(
                _packed(np.minimum(one, other), np.maximum(one, other))
            )
        kept = np.unique(np.concatenate(found))
        # Every pair has been counted by both of its videos.
        self.left_out = eligible // 2 - len(kept)
        return np.stack(_unpacked(kept), 1).astype(np.int64)

    def _meet(self, entries):
        """Notes who meets whom by the keys of one file."""
        entries = entries[np.argsort(entries["key"], kind="stable")]
        fresh = entries["key"][1:] != entries["key"][:-1]
        begins = np.flatnonzero(np.concatenate([[True], fresh]))
        sizes = np.diff(begins, append=len(entries))
        self.crowded += int((sizes > CROWD).sum())
        size = np.repeat(sizes, sizes)
        few = entries[(size > 1) & (size <= CROWD)]
        many = entries[size > CROWD]
        # Copies have nearly the same bits, so that they stand side by side.
        many = many[np.lexsort((many["bits"], many["key"]))]
        for group, reach in ((few, CROWD), (many, NEAREST + 1)):
            for step in range(1, reach):
                one, other = group[:-step], group[step:]
                near = np.flatnonzero(one["key"] == other["key"])
                if not len(near):
                    break
                one, other = one[near], other[near]
                differing = _ones(one["bits"] ^ other["bits"])
                close = differing <= DISTANCE
                self._hit(one["video"][close], other["video"][close])
                self._hit(other["video"][close], one["video"][close])

    def _hit(self, videos, partners):
        """Writes hits to the file of the video's range."""
        part = videos.astype(np.int64) * self.parts // self.videos
        hits = _packed(videos, partners)
        for number in np.unique(part):
            self.hits[number].write(hits[part == number].tobytes())


def _packed(high, low):
    """Pairs of numbers as one of 64 bits, which sorts by the first."""
    return high.astype(np.uint64) << np.uint64(32) | low


def _unpacked(pairs):
    return pairs >> np.uint64(32), pairs & np.uint64(0xFFFFFFFF)


def _ones(bits):
    """How many bits are set in each of some uint64."""
    return _ONES[bits.view(np.uint8).reshape(-1, 8)].sum(1, dtype=np.uint8)


_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


def _keys(views):
    """Keys of patterns, each with its weakest bits both ways.

    Args:
        views: Float32 array of shape `(frames, 63)`.

    Returns:
        Uint32 array of shape `(2 ** WEAK_BITS * frames,)`, mixed so that any
        of its bits may be used to choose; uint64 array of shape `(frames,)`,
        all 63 bits.
    """
    signs = views > 0
    bits = signs @ (np.uint64(1) << np.arange(63, dtype=np.uint64))
    low = np.abs(views[:, :KEY_BITS])
    weak = np.argpartition(low, WEAK_BITS, 1)[:, :WEAK_BITS]
    keys = [bits.astype(np.uint32)]
    for flip in np.uint32(1) << weak.T.astype(np.uint32):
        keys += [key ^ flip for key in keys]
    mixed = np.concatenate(keys)
    # Murmur's last steps: one to one, and every bit hangs on all others.
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return mixed, bits


class Looks:
    """A video's patterns, as `compare` needs them again and again.

    Args:
        found: `Fingerprint`.

    Attributes:
        rate: Integer, frames per second.
        live: Float32 array of shape `(frames,)`: 1 where a frame shows
            something, else 0.
    """

    def __init__(self, found: Fingerprint):
        self.rate = found.rate
        self.live = found.live.astype(np.float32)
        self._found = found
        self._whole = found.view() * self.live[:, None]
        self._traces: dict[tuple[int, bool], np.ndarray] = {}

    @property
    def seconds(self) -> float:
        """Float, the time in which the video shows something."""
        return float(self.live.sum()) / self.rate

    def view(self, window=WHOLE, mirrored: bool = False) -> np.ndarray:
        """Patterns of shape `(frames, 63)`, zero where nothing is shown."""
        view = self._whole
        if window != WHOLE:
            view = self._found.view(window) * self.live[:, None]
        return view * MIRROR if mirrored else view

    def trace(self, rate: int, mirrored: bool) -> np.ndarray:
        """What to correlate over time: changes, and a little of the picture.

        Args:
            rate: Integer, frames per second, at most the video's.
            mirrored: Whether of the mirror image.

        Returns:
            Float32 array of shape `(frames, 126)`, of length near 1 each.
        """
        if (rate, mirrored) not in self._traces:
            step = self.rate // rate
            view, live = self.view(WHOLE, mirrored)[::step], self.live[::step]
            count = np.maximum(_around(live), 1)[:, None]
            change = (view - _around(view) / count) * live[:, None]
            both = np.concatenate([change, np.sqrt(STILL) * view], 1)
            energy = _around((both**2).sum(1, keepdims=True)) / count
            trace = (both / np.sqrt(energy + 1e-6)).astype(np.float32)
            self._traces[rate, mirrored] = trace
        return self._traces[rate, mirrored]


def compare(
    one: Looks, other: Looks, threshold: float, mirrored: bool = False
) -> tuple[float, float, float, float, bool] | None:
    """Holds two videos against each other.

    Args:
        one: `Looks`.
        other: `Looks`.
        threshold: Float: the least share of the shorter one.
        mirrored: Whether the mirror image may match too.

    Returns:
        The share of the shorter one's frames, of the first's, of the
        second's, the seconds of the first at which the second begins, and
        whether it is mirrored; None if they have too little in common.
    """
    least = min(one.seconds, other.seconds)
    if not least:
        return None
    proposed = [
        _moved(one, other, offset, (WHOLE, WHOLE), turned)
        for turned in (False, True)[: 1 + mirrored]
        for offset in _offsets(one, other, turned, threshold * least)
    ]
    if not proposed:
        return None
    _, _, offset, turned = max(proposed)
    alike = _likeness(one, other, offset, (WHOLE, WHOLE), turned)
    rate = min(one.rate, other.rate)
    if (alike >= LIKELY).sum() < threshold * least * rate:
        return None
    windows = max(
        [(WHOLE, crop) for crop in CROPS] + [(crop, WHOLE) for crop in CROPS],
        key=lambda windows: _fit(one, other, offset, windows, turned),
    )
    _, _, offset, _ = _moved(one, other, offset, windows, turned)
    alike = _likeness(one, other, offset, windows, turned)
    common = int((alike >= ALIKE).sum())
    share = min(1.0, common / rate / least)
    if common < FEWEST or share < threshold:
        return None
    shares = (
        round(min(1.0, common / rate / seconds), 4)
        for seconds in (least, one.seconds, other.seconds)
    )
    return (*shares, round(offset, 3), turned)


def _offsets(one, other, mirrored, least):
    """Where two videos correlate best over time.

    Args:
        one: `Looks`.
        other: `Looks`.
        mirrored: Whether the mirror image of `other` is meant.
        least: Float, seconds that the two must have in common.

    Returns:
        List of at most three floats, seconds.
    """
    rate = min(one.rate, other.rate)
    a, b = one.trace(rate, False), other.trace(rate, mirrored)
    size = len(a) + len(b)
    spectrum = np.fft.rfft(a, size, 0) * np.fft.rfft(b, size, 0).conj()
    # Roughly the frames in common, by how many frames later `other` begins.
    common = np.roll(np.fft.irfft(spectrum.sum(1), size), len(b))
    found = []
    for _ in range(3):
        place = int(common.argmax())
        # A crop that is not yet fitted correlates by 0.7 and more.
        if common[place] < 0.5 * least * rate:
            break
        found.append((place - len(b)) / rate)
        common[max(0, place - 2) : place + 3] = -np.inf
    return found


def _moved(one, other, offset, windows, mirrored):
    """Fits two videos in time, to a quarter of a sample.

    Returns:
        Float, how well they fit; float, minus the distance from the given
        offset, which decides between equals; float, the offset; `mirrored`.
    """
    step = 0.25 / min(one.rate, other.rate)
    return max(
        (
            _fit(one, other, offset + move * step, windows, mirrored),
            -abs(move),
            offset + move * step,
            mirrored,
        )
        for move in range(-2, 3)
    )


def _fit(one, other, offset, windows, mirrored):
    """How well two videos fit: their likeness, summed over frames."""
    alike = _likeness(one, other, offset, windows, mirrored)
    return round(float(np.maximum(alike, 0).sum()), 6)


def _likeness(one, other, offset, windows, mirrored):
    """How like two videos are, frame by frame.

    Of the frames near each, what changes is correlated, and by a small weight
    the picture itself; so a common background does not count for much unless
    nothing moves in either.

    Args:
        one: `Looks`.
        other: `Looks`.
        offset: Float, seconds of `one` at which `other` begins.
        windows: The parts of the pictures of the two.
        mirrored: Whether the mirror image of `other` is meant.

    Returns:
        Array of shape `(shared frames,)` at the lower rate, -1 where one of
        the two shows nothing.
    """
    a, b = one.view(windows[0]), other.view(windows[1], mirrored)
    # The video of the lower rate gives the frames, the other is interpolated.
    if one.rate <= other.rate:
        a, b, live = _paired(a, one, b, other, -offset)
    else:
        b, a, live = _paired(b, other, a, one, offset)
    if len(a) < FEWEST:
        return np.empty(0)
    width = a.shape[1]
    pair = np.concatenate([a, b], 1)
    products = [(x * y).sum(1) for x, y in ((a, b), (a, a), (b, b))]
    sums = _around(np.column_stack([pair, *products, live]))
    a, b = sums[:, :width], sums[:, width:-4]
    ab, aa, bb, count = sums[:, -4:].T

    def alike(product, x, y):
        """What changes; the still part is the product of the means."""
        still = (x * y).sum(1) / np.maximum(count, 1)
        return product - (1 - STILL) * still

    alone = alike(aa, a, a) * alike(bb, b, b)
    likeness = alike(ab, a, b) / np.sqrt(np.maximum(alone, 1e-6))
    return np.where(live > 0, likeness, -1)


def _paired(coarse, slow, fine, fast, offset):
    """Frames of one video and what another shows at the same times.

    Args:
        coarse: Array of shape `(frames, 63)`.
        slow: Its `Looks`.
        fine: Array of shape `(frames, 63)`.
        fast: Its `Looks`, of the same rate or a multiple.
        offset: Float, seconds of `fast` at which `slow` begins.

    Returns:
        Two arrays of shape `(shared frames, 63)` and one of shape `(shared
        frames,)`: 1 where both show something, else 0.
    """
    step = fast.rate // slow.rate
    place = offset * fast.rate
    skipped = max(0, int(np.ceil(-place / step - 1e-6)))
    place += skipped * step
    begin = int(place + 1e-6)
    part = np.float32(max(0.0, place - begin))
    if part < 1e-3:
        later, live = fine[begin::step], fast.live[begin::step]
    else:
        following = fine[begin + 1 :: step]
        later = fine[begin::step][: len(following)]
        later = later + part * (following - later)
        live = fast.live[begin + 1 :: step]
        live = live * fast.live[begin::step][: len(live)]
    length = max(0, min(len(coarse) - skipped, len(later)))
    mine = coarse[skipped : skipped + length]
    live = live[:length] * slow.live[skipped : skipped + length]
    return mine * live[:, None], later[:length] * live[:, None], live


def _around(values):
    """Sums over a frame and `REACH` frames on either side."""
    total = np.zeros((len(values) + 1, *values.shape[1:]))
    np.cumsum(values, 0, out=total[1:])
    place = np.arange(len(values))
    # Sums up to the end of what is near, less those before it.
    end = total[np.minimum(place + REACH + 1, len(values))]
    end -= total[np.maximum(place - REACH, 0)]
    return end

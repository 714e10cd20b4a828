"""Reads video files: which frames there are, and their pixels.

A frame's number is its place in the order of presentation, whatever the
container says of rates and counts. `timeline` finds the numbers by reading
packets without decoding them; `decode` seeks to the keyframe before a frame
and tells frames apart by their time stamps, so that a clip costs a few frames
and is right to the frame.
"""

import errno
import itertools
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.video.reformatter import (
    ColorRange,
    Interpolation,
    VideoReformatter,
)

from keras_videofusion.data.boxes import composition_offsets
from keras_videofusion.data.clips import (
    clip_starts,
    ClipSpec,
    field_indices,
    within,
)
from keras_videofusion.data.files import kept
from keras_videofusion.data.frames import image_names, RATE, read_images

VIDEO_ENDINGS = (
    ".3gp",
    ".asf",
    ".avi",
    ".flv",
    ".gif",
    ".m2ts",
    ".m4v",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpeg",
    ".mpg",
    ".mts",
    ".ogv",
    ".ts",
    ".vob",
    ".webm",
    ".wmv",
)
# A file may declare what it likes; beyond these it is refused before memory
# is set aside. 8K is 7680 x 4320; four million frames are 38 hours.
MAX_PIXELS = 8192 * 8192
MAX_FRAMES = 2**22
# What FFmpeg may take a file for: films, not lists of other files, which it
# would go on to open, nor sound or text.
_CONTAINERS = (
    "mov,matroska,avi,gif,asf,flv,live_flv,mpegts,mpeg,mpegvideo,ogg,m4v,"
    "h264,hevc,ivf,obu,av1,nut,rm,dv,mxf,wtv,mjpeg,apng,yuv4mpegpipe"
)


class VideoError(ValueError):
    """A file that cannot be read as a video; one line that names it.

    Args:
        path: The file.
        reason: What is wrong with it, in a few words.
    """

    def __init__(self, path, reason):
        self.path = os.fspath(path)
        self.reason = " ".join(str(reason).split())
        super().__init__(f"{self.path}: {self.reason}")


@dataclass(frozen=True)
class Timeline:
    """The frames of a video and where decoding may start.

    Args:
        times: Float64 array of shape `(frames,)`: seconds from the first
            frame, ascending.
        height: Integer, pixels, rotation applied.
        width: Integer, pixels, rotation applied.
        rate: Float, frames per second: the declared rate where it is right
            to a hundredth, else the average.
        codec: Name of the decoder.
        stamps: Int64 array of shape `(frames,)`: time stamps as frames carry
            them, or None where they do not follow the order of presentation
            (MPEG-4 with B-frames in AVI): then frames are counted.
        keyframes: Int64 array: numbers of the frames to start at; the first
            stands for the beginning of the file.
        entries: Int64 array, as long as `keyframes`: where to seek for each.
        rotation: Integer, quarter turns counter-clockwise.
        stream: Integer, the place of the pictures among the file's streams.
        described: Whether the container's head tells all that a decoder must
            know, so that the file may be opened without probing.
        images: Names of the frames' files, where the video is a folder of
            images; else empty.
    """

    times: np.ndarray
    height: int
    width: int
    rate: float
    codec: str
    stamps: np.ndarray | None
    keyframes: np.ndarray
    entries: np.ndarray
    rotation: int
    stream: int
    described: bool
    images: tuple[str, ...] = ()

    def __len__(self):
        return len(self.times)


def timeline(path) -> Timeline:
    """Finds the frames of a video without decoding them.

    (Where packets do not tell what is shown when, as in AVI with B-frames and
    in VP8, all frames are decoded once and counted.)

    Frames before the first that decodes do not count (a recording that was
    cut out of a broadcast may begin amid a group), nor do those that an edit
    list hides or whose data is cut off. The files last asked for are
    remembered, by path, size and time of change, some four million frames.

    A folder of numbered images is a video too, of 12 frames per second: see
    `keras_videofusion.data.frames`. A video at an address is copied whole
    (`keras_videofusion.data.files.kept`).

    Args:
        path: File, its address, or folder of images.

    Returns:
        `Timeline`.

    Raises:
        VideoError: If the file is missing, is no video, has no frames or more
            than `MAX_FRAMES`, or frames of more than `MAX_PIXELS`; or if
            reading it takes longer than `time_limit`.
    """
    place = os.fspath(path)
    try:
        found = os.stat(kept(place))
    except (OSError, ValueError) as error:
        raise VideoError(place, reason(error)) from error
    if stat.S_ISDIR(found.st_mode):
        return _remembered(_image_timeline, place, found.st_mtime_ns)
    # Opening a FIFO would wait for ever.
    if not stat.S_ISREG(found.st_mode):
        raise VideoError(place, "not a file but a special file")
    if not found.st_size:
        raise VideoError(place, "the file is empty")
    return _remembered(_timeline, place, found.st_size, found.st_mtime_ns)


class _Remembered:
    """Calls functions that find timelines, and keeps what they found.

    Args:
        frames: Integer, the frames in all of the timelines that are kept; the
            longest unused go first. A frame takes 16 bytes.
    """

    def __init__(self, frames):
        self.room = frames
        self.kept: OrderedDict[tuple, Timeline] = OrderedDict()
        self.lock = threading.Lock()

    def __call__(self, find, *file):
        key = (find, *file)
        with self.lock:
            if key in self.kept:
                self.kept.move_to_end(key)
                return self.kept[key]
        found = find(*file)
        with self.lock:
            if key not in self.kept:
                self.kept[key] = found
                self.room -= self._cost(found)
            while self.room < 0 and len(self.kept) > 1:
                self.room += self._cost(self.kept.popitem(last=False)[1])
        return found

    @staticmethod
    def _cost(found):
        return len(found) + 32  # the objects around the arrays


_remembered = _Remembered(2**22)


def time_limit(size: int) -> float:
    """How long a file may keep its reader busy, so that none does for ever.

    A minute, and 20 seconds for every megabyte. Of that, real files were seen
    to need a fiftieth for all of their frames.

    Args:
        size: Integer, bytes.

    Returns:
        Float, seconds.
    """
    return 60.0 + size / 50_000


class _Watch:
    """Ends the reading of a file that takes longer than its `time_limit`.

    It counts the thread's own processor time: neither a slow disk nor a busy
    machine makes a file bad.
    """

    def __init__(self, container):
        self.allowed = time_limit(max(container.size, 0))
        self.end = time.thread_time() + self.allowed

    def look(self):
        if time.thread_time() > self.end:
            raise ValueError(
                f"reading it took more than {self.allowed:.0f} seconds"
            )

    @contextmanager
    def paused(self):
        """What whoever asked for frames does with them does not count."""
        begin = time.thread_time()
        yield
        self.end += time.thread_time() - begin


def _timeline(path, size, changed):
    with opened(path) as (container, stream):
        first, shown, decoded, keys = _from_index(
            path, container, stream
        ) or _from_packets(container, stream)
        base = float(stream.time_base or 0)
        declared = float(stream.average_rate or stream.guessed_rate or 0)
        codec = stream.codec_context.name
        container_name = container.format.name
        place = stream.index
        # AVI carries the order of decoding for times; VP8 has packets that
        # show nothing.
        trusted = (
            first.pts is not None
            and None not in shown
            and not (
                container_name == "avi" and stream.codec_context.has_b_frames
            )
            and codec not in ("vp8", "libvpx")
        )
    # MPEG streams have no index: seeking in them goes by time of decoding.
    by_decoding = container_name in ("mpegts", "mpeg")
    to_seek = decoded if by_decoding or not trusted else shown
    starts = [(shown[place], to_seek[place]) for place in keys]
    order: Any = np.sort(np.array(shown if trusted else [], np.int64))
    if trusted and (np.diff(order) > 0).all():
        order = order[order >= first.pts]
        times = (order - order[:1]) * base
        starts = [start for start in starts if start[0] >= first.pts]
        keyframes = np.searchsorted(order, [key for key, _ in starts]).tolist()
    else:
        order = None
        count, keyframes = _decoded_keyframes(path)
        # Such containers have a fixed rate or none at all.
        times = np.arange(count) / (declared or 25.0)
    if not len(times):
        raise VideoError(path, "none of its packets shows a frame")
    entries = [entry for _, entry in starts]
    if len(keyframes) != len(entries) or None in entries or not entries:
        keyframes, entries = [0], [0]
    span = float(times[-1])
    if not np.isfinite(span) or (np.diff(times) < 0).any():
        raise VideoError(path, "its time stamps are beyond counting")
    rate = (len(times) - 1) / span if span else declared or 25.0
    if abs(declared - rate) < 0.01 * rate:
        rate = declared
    turns = round(first.rotation / 90) % 4
    height, width = first.height, first.width
    if turns % 2:
        height, width = width, height
    return Timeline(
        times,
        height,
        width,
        rate,
        codec,
        order,
        np.asarray(keyframes, np.int64),
        np.asarray(entries, np.int64),
        turns,
        place,
        container_name.startswith(("mov", "matroska")),
    )


def _from_packets(container, stream):
    """Reads a file from end to end.

    Returns:
        The first `av.VideoFrame`; lists of the time stamps by which packets
        are shown and decoded; and a list of places of keyframes in them.
    """
    first: Any = None
    shown: list[int | None] = []
    decoded: list[int | None] = []
    keys: list[int] = []
    for packet in _whole(container, stream, _Watch(container)):
        if first is None:
            # The picture's size and turn stand in the frame itself.
            first = next(iter(packet.decode()), None)
        if packet.size and not packet.is_discard:
            if packet.is_keyframe:
                keys.append(len(shown))
            shown.append(packet.pts)
            decoded.append(packet.dts)
    if first is None:
        raise ValueError("no frame of it can be decoded")
    return first, shown, decoded, keys


def _from_index(path, container, stream):
    """As `_from_packets`, from the index of a long MP4 or MOV file.

    Two hours take a third of a second instead of one.

    Returns:
        The same; None where the file is short or no such file, where its
        index hides something or is not confirmed by packets of both ends.
        Then the stream stands at its beginning.
    """
    # Older releases of PyAV show no index.
    index = getattr(stream, "index_entries", ())
    if not container.format.name.startswith("mov") or len(index) < _LONG:
        return None
    offsets = composition_offsets(kept(path), stream.id)
    if offsets is None or len(offsets) not in (0, len(index)):
        return None
    fields = (
        field
        for entry in index
        for field in (entry.timestamp, entry.pos, entry.size, entry.flags)
    )
    decoded, places, sizes, flags = (
        np.fromiter(fields, np.int64, 4 * len(index)).reshape(-1, 4).T
    )
    keys, hidden = np.flatnonzero(flags & 1), flags & 2
    if (
        hidden.any()
        or sizes.min() < 1
        or (places + sizes).max() > container.size
        or len(keys) < 2
        or keys[0]
        or np.diff(decoded).min() < 1
    ):
        return None
    shown = decoded + offsets if len(offsets) else decoded
    first, shifts = None, set()
    for begin in (0, int(keys[-1])):
        if begin:
            container.seek(int(shown[begin]), stream=stream)
        packets = itertools.islice(container.demux(stream), _CONFIRMED)
        for place, packet in enumerate(packets, begin):
            if first is None:
                first = next(iter(packet.decode()), None)
            if packet.size:
                same = place < len(index) and (
                    packet.dts == decoded[place]
                    and packet.is_keyframe == (place in keys)
                    and packet.pts is not None
                )
                shifts.add(int(packet.pts - shown[place]) if same else None)
        # Edit lists shift all frames alike.
        if first is None or len(shifts) != 1 or None in shifts:
            container.seek(int(shown[0]), stream=stream)
            return None
        shown = shown + shifts.pop()
        shifts = {0}
    return first, shown.tolist(), decoded.tolist(), keys.tolist()


# Frames from which on an index is worth its trouble, and packets of each end
# that must agree with it.
_LONG = 10_000
_CONFIRMED = 100


def _image_timeline(path, changed):
    try:
        names = image_names(path)
        if not names:
            raise VideoError(path, "not a file but a folder")
        first = next(read_images(path, names))
    except VideoError:
        raise
    except (OSError, ValueError) as error:
        raise VideoError(path, reason(error)) from error
    turns = round(first.rotation / 90) % 4
    size = (first.height, first.width)
    start = np.zeros(1, np.int64)
    return Timeline(
        np.arange(len(names)) / RATE,
        *(size[::-1] if turns % 2 else size),
        RATE,
        "images",
        None,
        start,
        start,
        turns,
        0,
        False,
        tuple(names),
    )


def _images(path, frames, wanted):
    """Yields frames of a video that is a folder of images."""
    size = (frames.height, frames.width)
    flat = size[::-1] if frames.rotation % 2 else size
    names = [frames.images[number] for number in wanted]
    try:
        for name, frame in zip(names, read_images(path, names), strict=True):
            if (frame.height, frame.width) != flat:
                raise ValueError(
                    f"{name} is {frame.width} x {frame.height} pixels, the "
                    f"first image {flat[1]} x {flat[0]}"
                )
            yield frame
    except ValueError as error:
        raise VideoError(path, reason(error)) from error


def _decoded_keyframes(path):
    """Counts frames by decoding all of them, where packets do not tell.

    Returns:
        Integer, frames; list of integers, the numbers of keyframes.
    """
    count, keyframes = 0, []
    with opened(path) as (container, stream):
        for packet in _whole(container, stream, _Watch(container)):
            for frame in packet.decode():
                if frame.key_frame:
                    keyframes.append(count)
                count += 1
    return count, keyframes


def _whole(container, stream, watch):
    """Yields packets, but those whose end is missing where a file was cut."""
    for number, packet in enumerate(container.demux(stream)):
        if number > MAX_FRAMES:
            raise ValueError(f"it has more than {MAX_FRAMES} frames")
        if not number % 16:
            watch.look()
        if not packet.is_corrupt:
            yield packet


@contextmanager
def opened(path, frames: Timeline | None = None) -> Iterator[tuple[Any, Any]]:
    """Opens a video file for reading; what fails inside is a `VideoError`.

    Args:
        path: File.
        frames: Its `Timeline`: the file is then opened without probing if
            that will do. None where it is not known.

    Yields:
        Container and stream of the pictures, decoded by one thread.

    Raises:
        VideoError: If the file is no video, its frames are too large, or the
            body of the `with` statement could not read it.
    """
    options = {"format_whitelist": _CONTAINERS}
    # No decoder is let in while probing: an H.264 file opens in 0.2 ms
    # instead of 1.5, which is a fifth of what a clip costs.
    if frames is not None and frames.described:
        options["codec_whitelist"] = "none"
    try:
        # "file:", or FFmpeg takes what stands before a colon for a protocol.
        with av.open(
            f"file:{kept(path)}",
            options=_PROBING,
            container_options=options,
            metadata_errors="replace",
            timeout=_PATIENCE,
        ) as container:
            if frames is None:
                # Not a cover's picture, where there is also a film.
                stream = container.streams.best("video")
            elif frames.stream < len(container.streams):
                stream = container.streams[frames.stream]
            else:
                raise VideoError(path, "it changed while it was read")
            if stream is None:
                raise VideoError(path, "it has no pictures")
            context = stream.codec_context
            if context is None:
                raise VideoError(path, "there is no decoder for its pictures")
            if context.width * context.height > MAX_PIXELS:
                raise VideoError(
                    path,
                    f"frames of {context.width} x {context.height} pixels are "
                    "too large",
                )
            # One thread per decoder: clips run side by side instead.
            context.thread_type = "NONE"
            context.thread_count = 1
            # Some decoders settle at this moment which frames they skip.
            if not context.is_open:
                # Frames may turn out larger than the container says.
                context.options = {"max_pixels": str(MAX_PIXELS)}
                context.open()
            yield container, stream
    except VideoError:
        raise
    except (av.error.FFmpegError, ValueError, OSError, MemoryError) as error:
        raise VideoError(path, reason(error)) from error


# `options` go to the decoders that probe a file. Before 18 PyAV frees more of
# them than it was given (FLV, MPEG): a crash.
_PROBING = (
    {"max_pixels": str(MAX_PIXELS)}
    if int(av.__version__.split(".")[0]) >= 18
    else {}
)
# Seconds on the clock within which a file opens, and gives its next packet.
_PATIENCE = 60.0


def reason(error: BaseException) -> str:
    """What FFmpeg or the system says, in its own words, without the rest.

    Args:
        error: The exception.

    Returns:
        A few words.
    """
    if getattr(error, "errno", None) == errno.ENOENT:
        return "no such file"
    if isinstance(error, av.error.ExitError):
        return f"reading on took more than {_PATIENCE:.0f} seconds"
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    said = getattr(error, "strerror", None) or str(error)
    return said or type(error).__name__


def decode(path, indices, resize=None) -> np.ndarray:
    """The pixels of some frames of a video.

    Args:
        path: File, or folder of images.
        indices: Integers of shape `(frames,)` in any order, repeats allowed,
            by order of presentation.
        resize: As in `ClipSpec`; None for the video's own size.

    Returns:
        Uint8 RGB array of shape `(frames, height, width, 3)`, rotation tags
        applied.

    Raises:
        VideoError: If the file or one of the frames cannot be decoded.
        IndexError: If there is no frame of such a number.
    """
    frames = timeline(path)
    indices = np.asarray(indices, np.int64)
    if not indices.size:
        raise ValueError(f"`indices` must not be empty. Received: {indices}")
    if indices.min() < 0 or indices.max() >= len(frames):
        raise IndexError(
            f"`indices` must be in 0..{len(frames) - 1}, the frames of {path}."
            f" Received: {indices.min()}..{indices.max()}"
        )
    wanted, places = np.unique(indices, return_inverse=True)
    picture = Picture(frames, resize)
    _expect_moderate(path, picture)
    pixels = np.empty((len(wanted), *picture.shape, 3), np.uint8)
    chosen = decoded_frames(os.fspath(path), frames, wanted)
    try:
        for frame, into in zip(chosen, pixels, strict=True):
            picture(frame, into)
    except (av.error.FFmpegError, MemoryError) as error:
        raise VideoError(path, reason(error)) from error
    return pixels if np.array_equal(wanted, indices) else pixels[places]


def _expect_moderate(path, fit):
    """Refuses frames that grow beyond all bounds: 1 x 16,000, made 200 wide."""
    height, width = fit.scaled
    if height * width > MAX_PIXELS:
        raise VideoError(
            path, f"resized, its frames would be {width} x {height} pixels"
        )


def pictures(path, wanted, resize=None) -> Iterator[np.ndarray]:
    """Pixels of frames, one after the other, in the same memory.

    Args:
        path: File, or folder of images.
        wanted: Int64 array of ascending numbers of frames, without repeats.
        resize: As for `decode`.

    Yields:
        Uint8 RGB array of shape `(height, width, 3)`, which the next frame
        overwrites.

    Raises:
        VideoError: If the file or one of the frames cannot be decoded.
    """
    frames = timeline(path)
    picture = Picture(frames, resize)
    _expect_moderate(path, picture)
    pixels = np.empty((*picture.shape, 3), np.uint8)
    for frame in decoded_frames(os.fspath(path), frames, wanted):
        try:
            picture(frame, pixels)
        except (av.error.FFmpegError, MemoryError) as error:
            raise VideoError(path, reason(error)) from error
        yield pixels


def decoded_frames(path, frames: Timeline, wanted) -> Iterator[av.VideoFrame]:
    """Frames of a video as its decoder gives them, one after the other.

    Args:
        path: String.
        frames: The video's `Timeline`.
        wanted: Int64 array of ascending numbers of frames, without repeats.

    Yields:
        `av.VideoFrame`, one for each number.

    Raises:
        VideoError: If the file or one of the frames cannot be decoded.
    """
    if frames.images:
        yield from _images(path, frames, wanted)
        return
    done = 0
    with opened(path, frames) as (container, stream):
        watch = _Watch(container)
        for begin, numbers in _runs(frames, wanted):
            last = done + len(numbers) == len(wanted)
            if begin and not _sought(container, stream, frames, begin):
                break
            packets = _packets(container, stream, frames, begin, watch)
            if frames.stamps is None:
                decoded = _decoded(packets)
            else:
                stamps = frames.stamps[numbers].tolist()
                decoded = _spared(packets, stream, stamps, last)
            found = yield from _chosen(decoded, frames, begin, numbers, watch)
            done += found
            if found < len(numbers):
                break
    if done < len(wanted):
        # A seek may come out too late, or at a keyframe that does not stand
        # by itself: then all from the beginning.
        with opened(path) as (container, stream):
            watch = _Watch(container)
            decoded = _decoded(_packets(container, stream, frames, 0, watch))
            rest = wanted[done:]
            done += yield from _chosen(decoded, frames, 0, rest, watch)
    if done < len(wanted):
        raise VideoError(path, f"frame {wanted[done]} does not decode")


def _runs(frames, wanted):
    """Splits frame numbers where going to a later keyframe saves decoding.

    Yields:
        Pairs of the place of a keyframe and the numbers to decode from there.
    """
    places = np.searchsorted(frames.keyframes, wanted, side="right") - 1
    places = np.maximum(places, 0)
    ahead = frames.keyframes[places[1:]] > wanted[:-1] + 1
    cuts = np.flatnonzero(ahead) + 1
    for numbers in np.split(np.arange(len(wanted)), cuts):
        yield int(places[numbers[0]]), wanted[numbers]


def _sought(container, stream, frames, begin):
    """Goes to a keyframe; tells whether the container can."""
    try:
        container.seek(int(frames.entries[begin]), stream=stream)
    except av.error.FFmpegError:
        return False
    return True


def _packets(container, stream, frames, begin, watch):
    """Yields packets; behind a seek, from a keyframe that is not too late."""
    waiting = begin > 0
    for packet in _whole(container, stream, watch):
        if waiting:
            if not packet.is_keyframe:
                continue
            if frames.stamps is None:
                right = packet.dts == frames.entries[begin]
            else:
                right = packet.pts <= frames.stamps[frames.keyframes[begin]]
            if not right:
                return
            waiting = False
        yield packet


def _decoded(packets):
    """Yields all frames."""
    for packet in packets:
        yield from packet.decode()


def _spared(packets, stream, stamps, last):
    """Yields the frames of some time stamps and those that they lean on.

    The decoder passes over other frames that no frame leans on. Behind the
    last packet of the `last` run it is emptied, so that nothing is decoded
    only to bring out what waits for its turn. (Decoders of AV1 do not go on
    after that, so earlier runs wait.)
    """
    context = stream.codec_context
    wanted = set(stamps)
    skipped = "DEFAULT"
    for packet in packets:
        skip = "DEFAULT" if packet.pts in wanted else "NONREF"
        if skip != skipped:
            context.skip_frame = skipped = skip
        yield from packet.decode()
        wanted.discard(packet.pts)
        if last and not wanted and packet.size:
            yield from context.decode(None)
            return


def _chosen(decoded, frames, begin, numbers, watch):
    """Yields the frames of ascending numbers; stops at one that is missing.

    Args:
        decoded: Iterable of frames, from a keyframe on.
        frames: `Timeline`.
        begin: Integer, the place of that keyframe in `frames.keyframes`.
        numbers: Int64 array.
        watch: `_Watch`.

    Returns:
        Integer, how many frames were found.
    """
    counted = frames.stamps is None
    key = int(frames.keyframes[begin])
    # Where frames are counted, their place does for a stamp.
    wanted = (numbers if counted else frames.stamps[numbers]).tolist()
    start = key if counted else frames.stamps[key]
    inside = not begin
    place = start if begin else 0
    found = 0
    for frame in decoded:
        if not inside:
            # Frames shown before the keyframe lean on some that were not
            # read. And where pictures are refreshed bit by bit a packet may
            # be a keyframe by name only.
            if not frame.key_frame if counted else frame.pts < start:
                continue
            if not frame.key_frame or frame.is_corrupt:
                return found
            inside = True
        stamp = place if counted else frame.pts
        place += 1
        if stamp > wanted[found]:
            return found
        if stamp == wanted[found]:
            with watch.paused():
                yield frame
            found += 1
            if found == len(wanted):
                break
    return found


class Fit:
    """What becomes of a frame where a clip asks for another size.

    Args:
        height: Integer, pixels of the frame.
        width: Integer, pixels of the frame.
        resize: As in `ClipSpec`; None to keep the size.

    Attributes:
        scaled: `(height, width)` to scale the whole frame to.
        shape: `(height, width)` of what is kept.
        source: Slices of the scaled frame that are kept,
        target: and slices of the place that they go to.
        padded: Whether that place is larger, so that some of it stays empty.
    """

    def __init__(self, height, width, resize):
        self.scaled, self.shape = _sizes(height, width, resize)
        # Of the scaled frame and of the place it goes to, what they share.
        self.source, self.target = zip(
            *map(_shared, self.scaled, self.shape), strict=True
        )
        self.padded = any(
            side < kept
            for side, kept in zip(self.scaled, self.shape, strict=True)
        )


class Picture(Fit):
    """Turns decoded frames into pixels of one size.

    Its reformatters serve all frames of a clip: PyAV makes a scaling context
    per frame otherwise, which costs more than decoding.

    Frames are scaled as they come, with half the columns of colour, and made
    RGB afterwards: swscale does the two in a third of the time of one.
    Distance from an antialiased resize (root of the mean square in grey
    levels) and milliseconds per frame, on real clips:

                               two, AREA   one, AREA   one, FAST_BILINEAR
        320x240 -> 267x200     2.1  0.08   1.1  0.27       2.7  0.28
        340x256 -> 266x200     2.1  0.09   2.1  0.27       4.0  0.16
        640x480 -> 267x200     3.1  0.12   1.4  0.50       8.7  0.35
    """

    def __init__(self, frames, resize):
        super().__init__(frames.height, frames.width, resize)
        self.scaler, self.painter = VideoReformatter(), VideoReformatter()
        self.turns = frames.rotation
        # The frame is turned when it has been scaled.
        flat = self.scaled[::-1] if self.turns % 2 else self.scaled
        self.height, self.width = flat

    def __call__(self, frame, into):
        """Writes a frame to `into`, uint8 of shape `(*self.shape, 3)`."""
        # Before PyAV 17 what a frame says of its colours is passed over
        # unless it is repeated.
        matrix = _MATRIX.get(int(frame.colorspace), _BT601)
        colours = _RANGE.get(int(frame.color_range))
        same = (frame.height, frame.width) == (self.height, self.width)
        if not same and not frame.format.is_rgb:
            frame = self.scaler.reformat(
                frame,
                self.width,
                self.height,
                "yuv422p",
                interpolation=Interpolation.AREA,
                src_colorspace=matrix,
                dst_colorspace=matrix,
                src_color_range=colours,
                dst_color_range=ColorRange.MPEG,
                **ONE_THREAD,
            )
            colours = ColorRange.MPEG
        plane = self.painter.reformat(
            frame,
            self.width,
            self.height,
            "rgb24",
            interpolation=Interpolation.AREA,
            src_colorspace=matrix,
            dst_colorspace=_BT601,
            src_color_range=colours,
            dst_color_range=ColorRange.JPEG,
            **ONE_THREAD,
        ).planes[0]
        pixels: np.ndarray = np.ndarray(
            (self.height, self.width, 3),
            np.uint8,
            plane,  # type: ignore[arg-type]
            strides=(plane.line_size, 3, 1),
        )
        if self.turns:
            pixels = np.rot90(pixels, self.turns)
        if self.padded:
            into[:] = 0
        into[self.target] = pixels[self.source]


# FFmpeg's number of a frame's matrix -> swscale's: BT.709, FCC, SMPTE 240M,
# BT.2020. What is not said counts as BT.601, as swscale has it.
_MATRIX = {1: 1, 4: 4, 7: 7, 9: 9, 10: 9}
_BT601 = 5
_RANGE = {1: ColorRange.MPEG, 2: ColorRange.JPEG}
# Else swscale starts as many threads per clip as there are processors; older
# releases know no such argument and start none.
ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


def _shared(scaled, kept):
    """Slices of the middle: what is read of `scaled`, written of `kept`."""
    read, written = max(0, scaled - kept) // 2, max(0, kept - scaled) // 2
    length = min(scaled, kept)
    return slice(read, read + length), slice(written, written + length)


def _sizes(height, width, resize):
    """Size to scale a frame to, and the size that is kept of its middle."""
    if resize is None:
        return (height, width), (height, width)
    kind, *lengths = resize
    if kind in ("square", "short_side"):
        lengths = lengths * 2
    elif kind not in ("cover", "pad"):
        return tuple(resize), tuple(resize)
    tall, wide = lengths[0] / height, lengths[1] / width
    scale = min(tall, wide) if kind == "pad" else max(tall, wide)
    scaled = max(1, round(height * scale)), max(1, round(width * scale))
    return scaled, scaled if kind == "short_side" else tuple(lengths)


def frame_numbers(
    path,
    fps: float | None = None,
    start: float | None = None,
    end: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The frames of a segment that clips are counted in.

    Args:
        path: File.
        fps: As in `ClipSpec`.
        start: As for `read_clips`.
        end: As for `read_clips`.

    Returns:
        Int64 array of shape `(numbers,)`, frames of the video, and a float64
        array of shape `(frames,)`, the seconds of all its frames.

    Raises:
        VideoError: If the file cannot be read or the segment is empty.
    """
    times = timeline(path).times
    # A microsecond forgives seconds that were written down and read again.
    first = 0 if start is None else int(np.searchsorted(times, start - 1e-6))
    last = (
        len(times) if end is None else int(np.searchsorted(times, end - 1e-6))
    )
    if first >= last:
        raise VideoError(
            path,
            f"no frame between {start or 0:g} and "
            f"{end if end is not None else times[-1]:g} seconds; it lasts "
            f"{times[-1]:g} seconds",
        )
    numbers = np.arange(first, last)
    if fps is not None:
        length = times[last - 1] - times[first]
        if length * fps > MAX_FRAMES:
            raise VideoError(path, f"it claims to last {length:.0f} seconds")
        numbers = first + grid_numbers(times[first:last], fps)
    return numbers, times


def grid_numbers(times, fps: float) -> np.ndarray:
    """The frames on screen at the times of a fixed rate.

    Args:
        times: Float64 array of shape `(frames,)`, seconds, ascending.
        fps: Float, frames per second.

    Returns:
        Int64 array of shape `(numbers,)`.
    """
    length = times[-1] - times[0]
    grid = times[0] + np.arange(int(length * fps + 1e-6) + 1) / fps
    return np.searchsorted(times, grid + 1e-6, side="right") - 1


def read_clips(
    path,
    spec: ClipSpec,
    sampler: str = "random",
    clips: int = 1,
    generator: np.random.Generator | None = None,
    start: float | None = None,
    end: float | None = None,
    only: int | None = None,
    flow: Callable[..., np.ndarray] | None = None,
) -> tuple[Any, np.ndarray]:
    """Clips of one video, resized and not yet cropped.

    Args:
        path: File.
        spec: `ClipSpec`.
        sampler: As for `keras_videofusion.data.clips.clip_starts`.
        clips: Integer; not used by `"dense"`.
        generator: `numpy.random.Generator` for `"random"`.
        start: Float, seconds; earlier frames do not count.
        end: Float, seconds; frames from there on do not count.
        only: Integer, the number of the one clip to read; None for all.
        flow: What `keras_videofusion.data.flow.open_flow` returned, for clips
            with a flow stream; else None.

    Returns:
        The clips, and a float64 array of shape `(clips,)`: seconds at which
        each clip begins. Clips are a uint8 array of shape `(clips, time,
        height, width, 3)` or, of flow alone, of bytes `(clips, chunks * flow,
        height, width, 2)`; where there are both, a dict of such by stream.

    Raises:
        VideoError: If the file cannot be read or the segment is empty.
        ValueError: If clips of flow are asked for without `flow`.
    """
    if "flow" in spec.streams and flow is None:
        raise ValueError(
            "`flow` must say where flow comes from: open_flow(...). "
            f"Received: flow=None, streams={spec.streams}"
        )
    frames = timeline(path)
    _expect_moderate(path, Fit(frames.height, frames.width, spec.resize))
    numbers, times = frame_numbers(path, spec.fps, start, end)
    starts = clip_starts(len(numbers), spec, sampler, clips, generator)
    if only is not None:
        starts = starts[only : only + 1]
    found = {}
    if "rgb" in spec.streams:
        inside = starts[:, None] + spec.offsets
        indices = numbers[within(inside, len(numbers), spec.short)]
        pixels = decode(path, indices.ravel(), spec.resize)
        found["rgb"] = pixels.reshape(*indices.shape, *pixels.shape[1:])
    if flow is not None and "flow" in spec.streams:
        motions = field_indices(starts, spec, len(numbers))
        found["flow"] = flow(path, numbers, motions, spec.resize)
    one = found[spec.streams[0]]
    return one if len(found) == 1 else found, times[numbers[starts]]


def video_files(names: Sequence[str]) -> list[str]:
    """Those of some names that end like a video's, hidden ones left out.

    Args:
        names: Names of files, with or without folders.

    Returns:
        The names, in their order.
    """
    return [
        name
        for name in names
        if name.lower().endswith(VIDEO_ENDINGS)
        and not os.path.basename(name).startswith(".")
    ]

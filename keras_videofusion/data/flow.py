"""Optical flow: from frames to fields, to files, and to clips.

A field says for every pixel of a frame where it is in the next frame: how many
pixels to the right (x) and how many down (y). A video of n frames has n - 1
fields. They are kept as bytes, `u = 128 + round(v * 127 / 20)` for v clipped
to -20..20 pixels, which is what the networks of the papers were trained on.

A file of flow is a Matroska video of grey pictures, one for each field, x
above y, compressed without loss and each by itself. So a clip of flow costs as
many pictures as it has fields, and the reader of videos reads it. Measured on
fields of a 340 x 256 film (174 kB), one core:

                                      kB a field   ms to read
    H.264, lossless, intra (this)           11.7         0.35
    the same, groups of 8                   11.9         0.34
    FFV1                                     9.7         0.76
    zlib                                    28.0         0.42
    zlib of differences                     24.3         0.88
    the film itself, a frame                 2.3         0.45

Clips of flow are read four times as fast as clips of H.264 videos, and as fast
as those of MPEG-4 in AVI, at the size that they were computed at; at another
size they are scaled, which costs a fifth. `benchmarks/flow_reading.py`
measures it.

OpenCV and scikit-image are imported where they are used: reading files of flow
needs neither.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path, PurePath
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from keras_videofusion.data.catalog import Catalog, video_paths
from keras_videofusion.data.files import write_json, written
from keras_videofusion.data.video import (
    decoded_frames,
    Fit,
    ONE_THREAD,
    Picture,
    timeline,
    VideoError,
)

LIMIT = 20.0  # pixels of displacement that a byte can tell
ENDING = ".flow"
MANIFEST = "manifest.json"
VERSION = 1


def fields(frames, method: str = "dis") -> np.ndarray:
    """The flow between neighbouring frames.

    Args:
        frames: Uint8 array of shape `(frames, height, width)`, grey.
        method: `"tvl1"`: TV-L1 of scikit-image, which the papers use, and a
            third of a second a field; `"dis"`: dense inverse search of
            OpenCV, some milliseconds; `"farneback"`: OpenCV's polynomial
            expansion. OpenCV's own threads are switched off.

    Returns:
        Float32 array of shape `(frames - 1, height, width, 2)`: pixels per
        frame, x (to the right) and y (down).

    Raises:
        ValueError: If the method is unknown or the frames too small for it.
        ImportError: If the method's library is not installed.

    Reference:
        Zach, Pock & Bischof, DAGM 2007 (TV-L1); Kroeger et al., ECCV 2016
        (DIS); Farnebäck, SCIA 2003.
    """
    between = _method(method)
    found = np.zeros((max(0, len(frames) - 1), *frames.shape[1:], 2), "float32")
    for number in range(len(found)):
        found[number] = between(frames[number], frames[number + 1])
    return found


def to_bytes(fields) -> np.ndarray:
    """Displacements as bytes: `128 + round(v * 127 / 20)`.

    Args:
        fields: Float array, pixels per frame; clipped to -20..20.

    Returns:
        Uint8 array of the same shape, in 1..255.
    """
    clipped = np.clip(fields, -LIMIT, LIMIT)
    return (128 + np.round(clipped * (127 / LIMIT))).astype(np.uint8)


def from_bytes(values) -> np.ndarray:
    """Bytes as displacements, what a network is fed.

    Args:
        values: Uint8 array.

    Returns:
        Float32 array of the same shape, pixels per frame.
    """
    return (values.astype(np.float32) - 128) * np.float32(LIMIT / 127)


def _tvl1():
    registration = _imported("skimage.registration")

    def between(first, second):
        down, right = registration.optical_flow_tvl1(
            first, second, dtype=np.float32
        )
        return np.stack([right, down], axis=-1)

    return between


def _dis():
    cv2 = _imported("cv2")
    cv2.setNumThreads(1)
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def between(first, second):
        try:
            return flow.calc(first, second, None)
        except cv2.error as error:
            height, width = first.shape
            raise ValueError(
                f"frames of {width}x{height} are too small for dis"
            ) from error

    return between


def _farneback():
    cv2 = _imported("cv2")
    cv2.setNumThreads(1)
    # Scale and number of pyramid levels, window, iterations, neighbourhood
    # and spread of the polynomials: the values of OpenCV's documentation.
    chosen = (0.5, 3, 15, 3, 5, 1.2, 0)

    def between(first, second):
        return cv2.calcOpticalFlowFarneback(first, second, None, *chosen)

    return between


_METHODS = {"tvl1": _tvl1, "dis": _dis, "farneback": _farneback}
METHODS = tuple(_METHODS)


def _method(name) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A function of two grey frames; it serves one thread."""
    if name not in METHODS:
        raise ValueError(
            f"`method` must be one of {', '.join(METHODS)}. "
            f"Received: method={name!r}"
        )
    return _METHODS[name]()


def _imported(name):
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"optical flow needs {name.split('.')[0]}: "
            "pip install 'keras-videofusion[flow]'"
        ) from error


def _resize_of(frames, short_side):
    """How a video's frames are resized before flow: they are never enlarged."""
    if min(frames.height, frames.width) <= short_side:
        return None
    return ("short_side", short_side)


def _bytes_of(path, frames, wanted, method, short_side) -> Iterator[np.ndarray]:
    """Computes fields of a video, one after the other.

    Args:
        path: The video.
        frames: Its `Timeline`.
        wanted: Int64 array of ascending numbers of fields.
        method: As for `fields`.
        short_side: Integer, pixels.

    Yields:
        Uint8 arrays of shape `(height, width, 2)`.
    """
    between = _method(method)
    needed, ends = np.union1d(wanted, wanted + 1), set((wanted + 1).tolist())
    picture = Picture(frames, _resize_of(frames, short_side))
    pixels = np.empty((*picture.shape, 3), np.uint8)
    grey: Any = None
    for number, frame in zip(
        needed.tolist(), decoded_frames(path, frames, needed), strict=True
    ):
        picture(frame, pixels)
        before, grey = grey, _grey(pixels)
        if number in ends:
            try:
                yield to_bytes(between(before, grey))
            except ValueError as error:
                raise VideoError(path, error) from error


def _grey(pixels):
    """Luma of RGB by BT.601's weights, rounded to 256ths: `(height, width)`."""
    weighed = pixels * np.array([77, 150, 29], np.uint16)
    return ((weighed.sum(-1, dtype=np.uint16) + 128) >> 8).astype(np.uint8)


# Files.


def compute(
    data: Catalog | str | os.PathLike,
    out: str | os.PathLike,
    method: str = "dis",
    short_side: int = 256,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Computes the flow of videos and keeps it in files.

    The flow of `DATA/a/1.avi` is `out/a/1.avi.flow`; it stands there whole or
    not at all. `out/manifest.json` tells method and size. What has been
    computed of the same source is not computed again, so that work that was
    stopped goes on where it was.

    Args:
        data: `Catalog`, or a folder: then all videos below it.
        out: Folder; made if it does not exist.
        method: As for `fields`.
        short_side: Integer, pixels: larger frames are resized first.
        workers: Integer, videos at a time, by threads (two are 1.7 to 1.9
            times as fast as one); as many as processors if None.
        overwrite: Whether all is computed anew.
        progress: Function of the number of videos done, or None.

    Returns:
        Iterator of dicts `{path, ok, fields, computed, error}` in the order
        of the videos; `path` is relative to the data, `computed` is False
        where the file stood there already, `error` is one line, None if `ok`.

    Raises:
        ValueError: If an argument is out of range, or if `out` holds flow of
            another method or size.
        ImportError: If the method's library is not installed.
    """
    _method(method)
    for name, value in (("short_side", short_side), ("workers", workers)):
        if value is not None and value < 1:
            raise ValueError(
                f"`{name}` must be 1 or more. Received: {name}={value}"
            )
    root = data.root if isinstance(data, Catalog) else os.fspath(data)
    files = sources(data)
    settings = {"method": method, "short_side": short_side, "version": VERSION}
    manifest = Path(out) / MANIFEST
    if manifest.exists() and not overwrite:
        before = _manifest(out)
        if {key: before[key] for key in settings} != settings:
            raise ValueError(
                f"{out} holds flow of method {before['method']} at a short "
                f"side of {before['short_side']}: pass --overwrite to compute "
                "it anew, or another folder. "
                f"Received: method={method!r}, short_side={short_side}"
            )
    Path(out).mkdir(parents=True, exist_ok=True)
    write_json(manifest, {**settings, "data": os.path.abspath(root)})
    _sweep(out)

    def one(path):
        name = os.path.relpath(path, root)
        row: dict[str, Any] = {
            "path": name,
            "ok": False,
            "fields": None,
            "computed": False,
            "error": None,
        }
        target = Path(out) / file_name(path, root)
        try:
            if overwrite or not _stands(target, path, settings):
                _write(target, path, settings)
                row["computed"] = True
            row.update(ok=True, fields=_info(target)["fields"])
        except VideoError as error:
            row["error"] = error.reason
        return row

    def rows():
        found = {"videos": 0, "fields": 0, "broken": 0}
        pool = ThreadPoolExecutor(workers or os.cpu_count())
        try:
            for done, row in enumerate(pool.map(one, files), 1):
                found["videos"] += row["ok"]
                found["fields"] += row["fields"] or 0
                found["broken"] += not row["ok"]
                if progress:
                    progress(done)
                yield row
        finally:
            pool.shutdown(cancel_futures=True)
        write_json(
            manifest, {**settings, "data": os.path.abspath(root), **found}
        )

    return rows()


def sources(data: Catalog | str | os.PathLike) -> list[str]:
    """The files whose flow `compute` computes, each once.

    Args:
        data: As for `compute`.

    Returns:
        List of paths.
    """
    if isinstance(data, Catalog):
        return list(dict.fromkeys(data.file(video) for video in data))
    return [os.path.join(data, name) for name in video_paths(data)]


def file_name(path, root) -> str:
    """Where a video's flow stands in a folder of flow.

    Args:
        path: The video.
        root: The folder of the data.

    Returns:
        Relative path; a video that lies outside of `root` is put under `up`.
    """
    parts = PurePath(os.path.relpath(path, root)).parts
    inside = ["up" if part == os.pardir else part for part in parts]
    return os.path.join(*inside) + ENDING


def _manifest(folder):
    """What `manifest.json` of a folder of flow says."""
    path = Path(folder) / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.get("version") == VERSION and found["method"] in METHODS:
            return found
        reason = "it was written by another release"
    except FileNotFoundError:
        reason = "no such file"
    except (OSError, ValueError, KeyError, AttributeError) as error:
        reason = f"it cannot be read: {error}"
    raise ValueError(
        f"{path}: {reason}. A folder of flow is what `videofusion flow DATA "
        "OUT` makes"
    )


def _sweep(folder):
    """Removes what processes that are no more left half written."""
    for draft in Path(folder).rglob(f".draft-*{ENDING}"):
        owner = draft.name.split("-")[1]
        try:
            os.kill(int(owner), 0)
        except ProcessLookupError:
            draft.unlink(missing_ok=True)


def _stands(target, path, settings):
    """Whether a whole file of the same settings and source is there."""
    try:
        info = _info(target)
    except VideoError:
        return False
    same = all(info[key] == value for key, value in settings.items())
    return same and _fresh(info, path)


def _fresh(info, path):
    """Whether a file of flow was computed of the video as it is now.

    A copy has another time of change: then what is in it decides.
    """
    known = info["source"]
    try:
        found = os.stat(path)
        if found.st_size != known["bytes"]:
            return False
        if found.st_mtime_ns == known["mtime_ns"]:
            return True
        return _digest(path, found.st_mtime_ns) == known["blake2b"]
    except OSError as error:
        raise VideoError(path, error.strerror or error) from error


@lru_cache(maxsize=16384)
def _digest(path, changed):
    """Hash of a file; `changed` makes the memory of it forget."""
    digest = hashlib.blake2b(digest_size=32)
    with open(path, "rb") as file:
        for part in iter(partial(file.read, 1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()


def _write(target, path, settings):
    """Computes the flow of one video into a file."""
    frames = timeline(path)
    count = len(frames) - 1
    height, width = Fit(
        frames.height,
        frames.width,
        _resize_of(frames, settings["short_side"]),
    ).shape
    found = os.stat(path)
    info = {
        **settings,
        "fields": count,
        "height": height,
        "width": width,
        "source": {
            "frames": len(frames),
            "bytes": found.st_size,
            "mtime_ns": found.st_mtime_ns,
            "blake2b": _digest(path, found.st_mtime_ns),
        },
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        written(target) as draft,
        # Without dates and chance: the same flow makes the same file.
        av.open(
            str(draft), "w", "matroska", {"fflags": "bitexact"}
        ) as container,
    ):
        container.metadata["comment"] = json.dumps(info)
        codec = "libx264" if "libx264" in av.codecs_available else "ffv1"
        # At quantiser 0 H.264 loses nothing; "ultrafast" decodes twice as
        # fast as "veryfast", for a fifth more bytes.
        fast = {"qp": "0", "preset": "ultrafast"} if codec == "libx264" else {}
        stream: Any = container.add_stream(codec, rate=25, options=fast)
        stream.pix_fmt = "gray"
        stream.height, stream.width = 2 * height, width
        stream.gop_size = 1
        stream.codec_context.thread_count = 1
        computed = _bytes_of(
            path,
            frames,
            np.arange(count),
            settings["method"],
            settings["short_side"],
        )
        # FFmpeg opens no film without a picture: one that nobody reads.
        still = np.full((height, width, 2), 128, np.uint8)
        for field in computed if count else [still]:
            planes = np.concatenate([field[..., 0], field[..., 1]])
            picture = av.VideoFrame.from_ndarray(planes, format="gray")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _info(path):
    """What a file of flow says of itself.

    Raises:
        VideoError: If it is missing or no such file.
    """
    place = os.fspath(path)
    try:
        found = os.stat(place)
    except OSError as error:
        raise VideoError(place, error.strerror or error) from error
    return _read_info(place, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=16384)
def _read_info(path, size, changed):
    try:
        # "file:", or FFmpeg takes what stands before a colon for a protocol.
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            info = json.loads(container.metadata.get("COMMENT", ""))
        if info["version"] == VERSION:
            return info
        reason = "it was written by another release"
    except (av.error.FFmpegError, OSError, ValueError, KeyError, TypeError):
        reason = "no file of flow"
    raise VideoError(path, f"{reason}; compute it again")


# Clips.


class Flow:
    """Where the flow of clips comes from; `read_clips` calls it.

    Args:
        method: As for `fields`.
        place: What `open_flow` was told, a folder as an absolute path.
    """

    def __init__(self, method: str, place: str):
        self.method = method
        self.place = place

    def planes(self, path, wanted) -> np.ndarray:
        """Fields of a video.

        Args:
            path: The video.
            wanted: Int64 array of ascending numbers of fields.

        Returns:
            Uint8 array of shape `(fields, 2, height, width)`, of the size
            that flow is computed at.

        Raises:
            VideoError: If they cannot be had.
        """
        raise NotImplementedError

    def __call__(self, path, numbers, motions, resize) -> np.ndarray:
        """The flow of some clips, resized and not yet cropped.

        A field that leads over several frames of the video, as clips of a
        larger step or of a fixed rate ask for, is the sum of the fields on
        the way, place by place. Where the frame is resized, displacements
        are too: they count pixels of the clip's own frames.

        Args:
            path: The video.
            numbers: Int64 array: the video's frames that clips are made of.
            motions: What `keras_videofusion.data.clips.field_indices` gave,
                of shape `(clips, fields, step)`.
            resize: As in `ClipSpec`.

        Returns:
            Uint8 array of shape `(clips, fields, height, width, 2)`.

        Raises:
            VideoError: If the fields cannot be had.
        """
        frames = timeline(path)
        fit = Fit(frames.height, frames.width, resize)
        owners, summands = _summands(numbers, motions)
        wanted, places = np.unique(summands, return_inverse=True)
        count = motions.shape[0] * motions.shape[1]
        total = np.full((count, 2, *fit.shape), 128, np.uint8)
        if len(wanted):
            planes = self.planes(path, wanted)
            ratio = np.divide(fit.scaled[::-1], planes.shape[:-3:-1])
            read, write = (..., *fit.source), (..., *fit.target)
            kept = _scaled(planes, fit.scaled)[read]
            _add(total[write], kept, owners, places, ratio)
        # x and y in turn, by pairs: four times as fast as by bytes.
        pairs = np.left_shift(total[:, 1], 8, dtype="<u2")
        pairs |= total[:, 0]
        return pairs.view(np.uint8).reshape(*motions.shape[:2], *fit.shape, 2)


class FlowAsRead(Flow):
    """Computes flow at the moment when a clip needs it.

    What it gives is what a file would hold.

    Args:
        method: As for `fields`.
        short_side: Integer, pixels: larger frames are resized first.

    Raises:
        ValueError: If the method is unknown.
        ImportError: If the method's library is not installed.
    """

    def __init__(self, method: str = "dis", short_side: int = 256):
        _method(method)
        super().__init__(method, method)
        self.short_side = short_side

    def planes(self, path, wanted):
        fields = _bytes_of(
            os.fspath(path),
            timeline(path),
            wanted,
            self.method,
            self.short_side,
        )
        return np.stack([np.moveaxis(field, -1, 0) for field in fields])


class FlowFolder(Flow):
    """Reads flow that was computed before.

    Args:
        folder: What `compute` made.
        root: Folder of the data now; the one that the flow was computed of if
            it is None, or if nothing is found by the former.

    Raises:
        ValueError: If it is no such folder.
    """

    def __init__(self, folder, root=None):
        manifest = _manifest(folder)
        super().__init__(manifest["method"], os.path.abspath(folder))
        self.roots = [root, manifest["data"]] if root else [manifest["data"]]

    def file(self, path) -> str:
        """The file of a video's flow.

        Args:
            path: The video.

        Raises:
            VideoError: If there is none, or if the video has changed.
        """
        for root in self.roots:
            found = os.path.join(self.place, file_name(path, root))
            if os.path.isfile(found):
                break
        else:
            raise VideoError(
                path,
                f"{self.place} has no flow of it: run videofusion flow DATA "
                f"{self.place}",
            )
        if not _fresh(_info(found), path):
            raise VideoError(
                path,
                "it has changed since its flow was computed: run videofusion "
                f"flow DATA {self.place}",
            )
        return found

    def planes(self, path, wanted):
        file = self.file(path)
        info, frames = _info(file), timeline(file)
        if len(frames) != info["fields"]:
            raise VideoError(file, "it is damaged; compute it again")
        height, width = info["height"], info["width"]
        planes = np.empty((len(wanted), 2 * height, width), np.uint8)
        for frame, into in zip(
            decoded_frames(file, frames, wanted), planes, strict=True
        ):
            into[:] = _plane(frame)
        return planes.reshape(-1, 2, height, width)


def open_flow(flow, root=None) -> Flow:
    """Where flow shall come from.

    Args:
        flow: Folder that `compute` made, or the name of a method to compute
            flow as clips are read. (A folder of such a name is `./dis`.)
        root: Folder of the data, as for `FlowFolder`.

    Returns:
        `Flow`.

    Raises:
        ValueError: If it is neither.
        ImportError: If the method's library is not installed.
    """
    if flow is None:
        raise ValueError(
            "this network eats optical flow: run `videofusion flow DATA OUT`, "
            "then pass --flow OUT (or --flow dis, to compute it as clips are "
            "read). Received: flow=None"
        )
    if flow in METHODS:
        return FlowAsRead(flow)
    return FlowFolder(flow, root)


def _summands(numbers, motions):
    """Which fields of the video add up to the fields of the clips.

    Returns:
        Two int64 arrays of one length: places of clips' fields, counted
        through all clips, and the video's fields that belong to them.
    """
    step = motions.shape[-1]
    flat = motions.ravel()
    owners = np.repeat(np.arange(len(flat) // step), step)[flat >= 0]
    begins = numbers[flat[flat >= 0]]
    # At a fixed rate a motion leads over any number of frames, even none.
    counts = numbers[flat[flat >= 0] + 1] - begins
    ends = np.cumsum(counts)
    inside = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
    return np.repeat(owners, counts), np.repeat(begins, counts) + inside


def _add(total, planes, owners, places, ratio):
    """Writes to `total` the sums of the planes that belong to each place.

    Args:
        total: Uint8 array of shape `(fields, 2, height, width)`, all 128.
        planes: Uint8 array of shape `(planes, 2, height, width)`.
        owners: Int64 array: places in `total`,
        places: and in `planes`, what belongs to them.
        ratio: Float array `(x, y)` by which displacements grow.
    """
    alone = len(np.unique(owners)) == len(owners)
    if alone and np.all(ratio == 1):
        total[owners] = planes[places]
        return
    if alone:
        for owner, place in zip(owners.tolist(), places.tolist(), strict=True):
            for axis in range(2):
                _grow(planes[place, axis], 128, ratio[axis], total[owner, axis])
        return
    sums = np.zeros(total.shape, np.int16)
    for owner, place in zip(owners.tolist(), places.tolist(), strict=True):
        sums[owner] += planes[place]
        sums[owner] -= 128
    for axis in range(2):
        _grow(sums[:, axis], 0, ratio[axis], total[:, axis])


def _grow(values, zero, ratio, into):
    """Multiplies displacements, in the bytes' unit, and writes bytes."""
    found = values.astype(np.float32)
    found *= np.float32(ratio)
    found += np.float32(128.5 - zero * ratio)  # the cast rounds down
    into[:] = np.clip(found, 1, 255, out=found)


def _scaled(planes, size):
    """Grey pictures at another size; their values stay as they are.

    Args:
        planes: Uint8 array of shape `(pictures, 2, height, width)`.
        size: `(height, width)`.

    Returns:
        Uint8 array of shape `(pictures, 2, *size)`.
    """
    if planes.shape[-2:] == tuple(size):
        return planes
    height, width = planes.shape[-2:]
    scaler = VideoReformatter()
    # One frame serves all: to make one costs as much as to scale it.
    frame = av.VideoFrame(width, height, "gray")
    found = np.empty((*planes.shape[:2], *size), np.uint8)
    for plane, into in zip(
        planes.reshape(-1, height, width),
        found.reshape(-1, *size),
        strict=True,
    ):
        _plane(frame)[:] = plane
        into[:] = _plane(
            scaler.reformat(
                frame,
                size[1],
                size[0],
                "gray",
                interpolation=Interpolation.AREA,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.JPEG,
                **ONE_THREAD,
            )
        )
    return found


def _plane(frame):
    """The pixels of a grey frame, uint8 of shape `(height, width)`."""
    plane = frame.planes[0]
    return np.ndarray(
        (plane.height, plane.width),
        np.uint8,
        plane,
        strides=(plane.line_size, 1),
    )

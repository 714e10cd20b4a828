"""The boxes of MP4 and MOV files, of which FFmpeg keeps one to itself.

To read all packets of two hours takes half a second and more. Their index has
all that a `Timeline` needs but one table: how much later than it is decoded
each frame is shown. Here it is read.

Reference:
    ISO/IEC 14496-12, 8.6.1.3 (composition time to sample box).
"""

import os
import struct
from collections.abc import Iterator
from typing import IO

import numpy as np

_LARGEST = 2**26  # bytes of the box of all tables; two hours take 3 MB


def composition_offsets(path, track: int) -> np.ndarray | None:
    """How much later than they are decoded the frames of a track are shown.

    Args:
        path: File.
        track: Integer, the track's own number, as FFmpeg gives it for `id`.

    Returns:
        Int64 array of shape `(frames,)` in the order of decoding, in units of
        the track's time base. One of no frames, if the track has no such
        table. None, if the file has no such track or keeps it in fragments.
    """
    with open(path, "rb") as file:
        top = dict(_boxes(file, 0, os.fstat(file.fileno()).st_size))
        if b"moof" in top or b"moov" not in top:
            return None
        for name, place in _boxes(file, *top[b"moov"]):
            if name != b"trak":
                continue
            inside = dict(_boxes(file, *place))
            head = _read(file, inside.get(b"tkhd"))
            # Times of 32 or 64 bits stand before the number.
            number = head[20:24] if head[:1] == b"\1" else head[12:16]
            if int.from_bytes(number, "big") != track:
                continue
            for name in (b"mdia", b"minf", b"stbl"):
                if name not in inside:
                    return None
                inside = dict(_boxes(file, *inside[name]))
            table = _read(file, inside.get(b"ctts"))[8:]
            pairs = np.frombuffer(table[: len(table) // 8 * 8], ">i4")
            counts, offsets = pairs.astype(np.int64).reshape(-1, 2).T
            if not 0 <= counts.sum() < 2**26 or (counts < 0).any():
                return None
            return np.repeat(offsets, counts)
    return None


def _boxes(
    file: IO[bytes], begin: int, end: int
) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Yields name, and begin and end of the contents, of boxes in a row."""
    while begin + 8 <= end:
        file.seek(begin)
        size, name = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            size, head = int.from_bytes(file.read(8), "big"), 16
        elif size == 0:  # to the end
            size = end - begin
        if size < head or begin + size > end:
            return
        yield name, (begin + head, begin + size)
        begin += size


def _read(file, place):
    if place is None or place[1] - place[0] > _LARGEST:
        return b""
    file.seek(place[0])
    return file.read(place[1] - place[0])

"""What a video looks like over time, in 144 bytes per sampled frame.

A fingerprint is a row of grey thumbnails at a fixed rate. It outlives
re-encoding and rescaling by itself; cropping, logos and brightness are the
affair of whoever compares two (`keras_videofusion.data.duplicates`). Made
once, it is kept in a file by path, size and time of change.
"""

import os
import sqlite3
from dataclasses import dataclass
from functools import lru_cache

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from keras_videofusion.data.video import (
    decoded_frames,
    ONE_THREAD,
    timeline,
    VideoError,
)

SIDE = 12
# Frames are scaled to this by swscale and averaged from there: its filters do
# not reach from 4,000 pixels to 12.
SCALED = 48
# Long videos are sampled at the first rate; short ones at the first of these
# that gives as many frames as `ENOUGH`, so that an action of two seconds is
# told from its neighbours.
RATES = (4, 8, 16)
ENOUGH = 64
# A thumbnail is the mean of so many moments per second: what moves between
# samples would else look different in a copy that begins between them.
GLANCES = 8
# Grey levels of deviation below which a frame shows nothing: black, white,
# the ends of fades.
FLAT = 4.0
# Of each view the coefficients of the 8 x 8 lowest frequencies but the mean.
VIEW = 8
WHOLE = (0.0, 1.0, 0.0, 1.0)


@dataclass(frozen=True)
class Fingerprint:
    """Grey thumbnails of a video at a fixed rate.

    Args:
        rate: Integer, thumbnails per second.
        thumbnails: Uint8 array of shape `(frames, 12, 12)`, rotation applied.
    """

    rate: int
    thumbnails: np.ndarray

    def __len__(self):
        return len(self.thumbnails)

    @property
    def live(self) -> np.ndarray:
        """Boolean array of shape `(frames,)`: frames that show something."""
        return self.thumbnails.std((1, 2)) > FLAT

    def view(self, window=WHOLE) -> np.ndarray:
        """The pattern of a part of the picture, without its mean.

        Args:
            window: `(top, bottom, left, right)` as shares of the picture.

        Returns:
            Float32 array of shape `(frames, 63)`: coefficients of an
            orthonormal cosine transform, low frequencies first.
        """
        rows, columns = _basis(*window[:2]), _basis(*window[2:])
        pattern = rows @ self.thumbnails.astype(np.float32) @ columns.T
        return pattern.reshape(len(self), -1)[:, ORDER]


def _low_first():
    """Places of the coefficients by frequency, the mean left out."""
    y, x = np.mgrid[:VIEW, :VIEW].reshape(2, -1)
    return np.lexsort((y, np.maximum(x, y), x + y))[1:]


ORDER = _low_first()
# A mirrored picture has the odd horizontal waves upside down.
MIRROR = np.where(ORDER % VIEW % 2, -1, 1).astype(np.float32)


@lru_cache(maxsize=256)
def _basis(begin, end):
    """Averages part of a thumbnail to 8 places and transforms them.

    Returns:
        Float32 array of shape `(8, 12)`.
    """
    edges = np.linspace(begin * SIDE, end * SIDE, VIEW + 1)
    pixel = np.arange(SIDE)
    cover = np.minimum(edges[1:, None], pixel + 1) - np.maximum(
        edges[:-1, None], pixel
    )
    cover = np.maximum(cover, 0)
    cover /= cover.sum(1, keepdims=True)
    place = np.arange(VIEW)
    waves = np.cos(np.pi * (place + 0.5) * place[:, None] / VIEW)
    waves *= np.sqrt(np.where(place, 2, 1) / VIEW)[:, None]
    return (waves @ cover).astype(np.float32)


def fingerprint(path) -> Fingerprint:
    """Decodes a video at a fixed rate into thumbnails.

    Args:
        path: File.

    Returns:
        `Fingerprint`.

    Raises:
        VideoError: If the file cannot be decoded.
    """
    path = os.fspath(path)
    frames = timeline(path)
    seconds = float(frames.times[-1]) + 1 / frames.rate
    rate = next((r for r in RATES if r * seconds >= ENOUGH), RATES[-1])
    moments = max(1, GLANCES // rate)
    count = max(1, int(seconds * rate + 1e-6))
    grid = np.arange(count * moments) / (rate * moments)
    # The frame on screen at each time; a microsecond forgives rounding.
    numbers = np.searchsorted(frames.times, grid + 1e-6, side="right") - 1
    wanted, places = np.unique(numbers, return_inverse=True)
    small = np.empty((len(wanted), SIDE, SIDE), np.float32)
    scaler = VideoReformatter()
    try:
        for frame, into in zip(
            decoded_frames(path, frames, wanted), small, strict=True
        ):
            plane = scaler.reformat(
                frame,
                SCALED,
                SCALED,
                "gray",
                interpolation=Interpolation.AREA,
                **ONE_THREAD,
            ).planes[0]
            pixels: np.ndarray = np.ndarray(
                (SIDE, SCALED // SIDE, SIDE, SCALED // SIDE),
                np.uint8,
                plane,  # type: ignore[arg-type]
                strides=(
                    plane.line_size * (SCALED // SIDE),
                    plane.line_size,
                    SCALED // SIDE,
                    1,
                ),
            )
            pixels.mean((1, 3), out=into)
    except av.error.FFmpegError as error:
        raise VideoError(path, error.strerror) from error
    if frames.rotation:
        small = np.rot90(small, frames.rotation, (1, 2))
    means = small[places].reshape(count, moments, SIDE, SIDE).mean(1)
    return Fingerprint(rate, np.rint(means).astype(np.uint8))


# "KVFp": an SQLite file says whose it is.
_OURS = 0x4B564670
_VERSION = 1


class Store:
    """Fingerprints in one SQLite file, by path, size and time of change.

    What is stored before a kill stays, but for the last seconds. One process
    at a time writes to it; it must not lie on a network drive without locks.

    Args:
        file: Path; a file of the system's that goes away if None.

    Raises:
        ValueError: If it is another kind of file, or of another version.
        OSError: If it cannot be opened, or another process writes to it.
    """

    def __init__(self, file=None):
        self.file = file
        self._said(self._open)

    def _open(self):
        # An empty name is SQLite's own temporary file.
        self.data = sqlite3.connect(
            "" if self.file is None else os.fspath(self.file)
        )
        (tables,) = self.data.execute(
            "SELECT count(*) FROM sqlite_master"
        ).fetchone()
        if not tables:
            self.data.execute(f"PRAGMA application_id = {_OURS}")
            self.data.execute(f"PRAGMA user_version = {_VERSION}")
            self.data.execute(
                "CREATE TABLE fingerprints (number INTEGER PRIMARY KEY, "
                "path BLOB UNIQUE, size INTEGER, changed INTEGER, "
                "rate INTEGER, thumbnails BLOB)"
            )
            self.data.commit()
        (ours,) = self.data.execute("PRAGMA application_id").fetchone()
        (version,) = self.data.execute("PRAGMA user_version").fetchone()
        if ours != _OURS:
            raise sqlite3.DatabaseError("it belongs to another program")
        if version != _VERSION:
            raise sqlite3.DatabaseError(f"it is of version {version}")

    def _said(self, action, *arguments):
        """Does something; SQLite's failures become ours."""
        try:
            return action(*arguments)
        except sqlite3.OperationalError as error:
            raise OSError(f"{self.file}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{self.file} is no file of fingerprints: {error}. Delete it, "
                "or name another."
            ) from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.save()
        self.data.close()

    def find(self, key: tuple) -> int | None:
        """The number under which a file's fingerprint is stored.

        Args:
            key: What `identity` returned.

        Returns:
            Integer, or None if there is none of the file as it is now.
        """
        found = self._said(
            lambda: self.data.execute(
                "SELECT number FROM fingerprints "
                "WHERE path = ? AND size = ? AND changed = ?",
                key,
            ).fetchone()
        )
        return found and found[0]

    def add(self, key: tuple, found: Fingerprint) -> int:
        """Stores a fingerprint in place of the file's former one.

        Args:
            key: What `identity` returned.
            found: `Fingerprint`.

        Returns:
            Integer, its number.
        """
        done = self._said(
            self.data.execute,
            "INSERT OR REPLACE INTO fingerprints "
            "(path, size, changed, rate, thumbnails) VALUES (?, ?, ?, ?, ?)",
            (*key, found.rate, found.thumbnails.tobytes()),
        )
        return done.lastrowid

    def __getitem__(self, number: int) -> Fingerprint:
        rate, pixels = self._said(
            lambda: self.data.execute(
                "SELECT rate, thumbnails FROM fingerprints WHERE number = ?",
                (number,),
            ).fetchone()
        )
        if rate not in RATES or not pixels or len(pixels) % SIDE**2:
            raise ValueError(
                f"{self.file} is damaged: delete it. Received: rate={rate}, "
                f"{len(pixels or b'')} bytes"
            )
        thumbnails = np.frombuffer(pixels, np.uint8)
        return Fingerprint(rate, thumbnails.reshape(-1, SIDE, SIDE))

    def save(self):
        """Makes sure that what was stored outlives the process."""
        self._said(self.data.commit)


def identity(path) -> tuple[bytes, int, int]:
    """What tells a file as it is now from all others.

    Args:
        path: File.

    Returns:
        The whole path in bytes, since names need not be text; size in bytes;
        time of change in nanoseconds.

    Raises:
        VideoError: If there is no such file.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise VideoError(path, getattr(error, "strerror", error)) from error
    whole = os.fsencode(os.path.abspath(path))
    return whole, found.st_size, found.st_mtime_ns

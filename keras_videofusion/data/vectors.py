"""A vector, or several, per video: what networks of no clips learn from.

    manifest.json          kind, size, blocks, settings, parts, what was skipped
    catalog.csv            the rows that have vectors, with their splits
    classes.txt            a class a line
    codebooks.npz          of histograms: what makes them of other videos
    vectors-00000.npy      float32 (rows, size), video by video; and so on

The manifest is written last: it is what makes a folder a folder of vectors.
NumPy is all that is needed to read one.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from keras_videofusion.data.catalog import Catalog, open_catalog
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.files import (
    absolute,
    exists,
    is_folder,
    join,
    kept,
    make_folder,
    names,
    remove,
    write_json,
    write_text,
    written,
)
from keras_videofusion.data.manifest import (
    CATALOG,
    CLASSES,
    MANIFEST,
    places,
    read_header,
    VECTORS,
    VERSIONS,
)

KINDS = ("histograms", "features", "youtube8m")
STEM = "vectors-"
CODEBOOKS = "codebooks.npz"
# Bytes of a part; one is held in memory while it is filled.
PART = 64 << 20


@dataclass(frozen=True)
class VectorSpec:
    """What a network of vectors must be fed, as `ClipSpec` is of clips.

    Args:
        size: Integer, numbers of a vector.

    Raises:
        ValueError: If the size is less than 1.
    """

    size: int

    def __post_init__(self):
        if not isinstance(self.size, int) or self.size < 1:
            raise ValueError(
                "`size` must be an integer, 1 or more. "
                f"Received: size={self.size!r}"
            )

    @property
    def streams(self) -> tuple[str, ...]:
        """The only one: `("features",)`."""
        return ("features",)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Dict of `"features"`: `(size,)`."""
        return {"features": (self.size,)}

    def to_json(self) -> dict[str, int]:
        """A dict of plain values."""
        return {"features": self.size}


def spec_from_json(values: Mapping[str, Any]) -> ClipSpec | VectorSpec:
    """What a network must be fed, as `to_json` of either kind wrote it.

    Args:
        values: Dict.

    Raises:
        ValueError: If it is neither's.
    """
    if set(values) == {"features"}:
        return VectorSpec(values["features"])
    return ClipSpec.from_json(values)


@dataclass(frozen=True)
class Vectors:
    """A folder of vectors.

    Args:
        folder: Path or address.
        kind: One of `KINDS`: where the vectors come from.
        size: Integer, numbers of a vector.
        each: Integer, vectors per video.
        classes: Class names.
        blocks: Dict of names to `(begin, end)`, parts of a vector; or None.
        settings: Dict of what the numbers depend on.
        source: Where the videos lay.
        parts: List of `{name, videos}`, the files in their order.
        skipped: List of `{path, error}`: videos without vectors.
    """

    folder: str
    kind: str
    size: int
    each: int
    classes: tuple[str, ...]
    blocks: dict[str, tuple[int, int]] | None
    settings: dict[str, Any]
    source: str
    parts: list[dict[str, Any]]
    skipped: list[dict[str, str]]

    @property
    def spec(self) -> VectorSpec:
        """What a network of these vectors is fed."""
        return VectorSpec(self.size)

    @property
    def codebooks(self) -> str | None:
        """Where the file lies that makes histograms of other videos."""
        place = join(self.folder, CODEBOOKS)
        return place if exists(place) else None

    @cached_property
    def catalog(self) -> Catalog:
        """The rows that have vectors, as `open_catalog` opens the folder."""
        return open_catalog(self.folder)

    def __len__(self) -> int:
        return int(self._begins[-1])

    def places(self, chosen: Catalog) -> np.ndarray:
        """Which rows of the folder's own catalog some videos are.

        Args:
            chosen: `Catalog`, such as one split of `catalog`.

        Returns:
            Int64 array of shape `(videos,)`.

        Raises:
            ValueError: If one has no vectors here.
        """
        return places(self.folder, "vectors", self.catalog, chosen)

    def rows(self, place: int) -> np.ndarray:
        """The vectors of one video.

        They are read from the file, which is never whole in memory.

        Args:
            place: Integer, the video's place in `catalog`.

        Returns:
            Float32 array of shape `(each, size)`.

        Raises:
            IndexError: If there is no such video.
            ValueError: If the file is damaged.
        """
        return self._read(place, 0, self.each)

    def row(self, place: int, number: int) -> np.ndarray:
        """One of a video's vectors.

        Args:
            place: Integer, the video's place in `catalog`.
            number: Integer, in 0..each-1.

        Returns:
            Float32 array of shape `(size,)`.

        Raises:
            IndexError: If there is no such video.
            ValueError: If the file is damaged.
        """
        return self._read(place, number, 1)[0]

    def _read(self, place, first, count):
        if not 0 <= place < len(self):
            raise IndexError(
                f"`place` must be in 0..{len(self) - 1}. "
                f"Received: place={place}"
            )
        part = int(np.searchsorted(self._begins, place, side="right")) - 1
        path, offset = self._opened(part)
        row = (place - int(self._begins[part])) * self.each + first
        # Not mapped: what a map has touched counts as this process's memory.
        found = np.fromfile(
            path,
            "<f4",
            count * self.size,
            offset=offset + 4 * row * self.size,
        )
        return found.reshape(count, self.size)

    @cached_property
    def _begins(self) -> np.ndarray:
        """The first video of every part, and the number of all."""
        return np.cumsum([0, *(part["videos"] for part in self.parts)])

    @cached_property
    def _offsets(self) -> dict[int, int]:
        """First byte of the numbers of every part that was looked at."""
        return {}

    def _opened(self, part):
        """Path of a part on this machine, and first byte of its numbers."""
        name, videos = self.parts[part]["name"], self.parts[part]["videos"]
        place = join(self.folder, name)
        # Of addresses a copy, which may have made room for others.
        path = kept(place)
        if part not in self._offsets:
            try:
                found = np.load(path, mmap_mode="r", allow_pickle=False)
            except (ValueError, EOFError) as error:
                raise ValueError(f"{place} is damaged: {error}") from error
            shape = (videos * self.each, self.size)
            if found.shape != shape or found.dtype != np.dtype("<f4"):
                raise ValueError(
                    f"{place} must hold float32 numbers of shape {shape}. "
                    f"Received: {found.dtype} of shape {found.shape}"
                )
            self._offsets[part] = found.offset
        return path, self._offsets[part]


def read_vectors(folder: str | os.PathLike) -> Vectors | None:
    """A folder of vectors, if it is one.

    Args:
        folder: Path or address.

    Returns:
        `Vectors`, or None: the folder holds something else.

    Raises:
        ValueError: If it was written by another release.
    """
    found = read_header(folder)
    if found is None or found["format"] != VECTORS:
        return None
    return _vectors(folder, found)


def _vectors(folder, found):
    blocks = found["blocks"]
    return Vectors(
        os.fspath(folder),
        found["kind"],
        found["size"],
        found["vectors"],
        tuple(found["classes"]),
        blocks and {name: tuple(span) for name, span in blocks.items()},
        found["settings"],
        found["source"],
        found["parts"],
        found["skipped"],
    )


def expect_fitting(
    catalog: Catalog, spec: ClipSpec | VectorSpec
) -> Vectors | None:
    """The vectors that a catalog is of, if they are what a network is fed.

    Args:
        catalog: `Catalog`.
        spec: What the network must be fed.

    Returns:
        `Vectors`; None of clips for a network of clips.

    Raises:
        ValueError: If one is of vectors and the other is not, or if the
            vectors are of another length.
    """
    found = read_vectors(catalog.root)
    if isinstance(spec, VectorSpec):
        if found is None:
            raise ValueError(
                "the network is fed vectors: make a folder of them with "
                "videofusion histograms, or videofusion features. "
                f"Received: {catalog.root}, which holds none"
            )
        if found.size != spec.size:
            raise ValueError(
                f"the network is fed vectors of {spec.size} numbers. "
                f"Received: {catalog.root}, whose vectors have {found.size}"
            )
    elif found is not None:
        raise ValueError(
            "the network is fed clips, and feature_mlp alone vectors. "
            f"Received: {catalog.root}, a folder of vectors"
        )
    return found


def write_vectors(
    folder: str | os.PathLike,
    catalog: Catalog,
    size: int,
    vectors: Iterable[np.ndarray | None],
    *,
    kind: str,
    each: int = 1,
    blocks: Mapping[str, Sequence[int]] | None = None,
    settings: Mapping[str, Any] | None = None,
    source: str | os.PathLike | None = None,
    skipped: Sequence[Mapping[str, str]] = (),
    overwrite: bool = False,
) -> Vectors:
    """Writes a folder of vectors; a part of it is in memory at a time.

    Other files in the folder stay as they are.

    Args:
        folder: Path or address; made if need be.
        catalog: `Catalog` of the videos, with their splits.
        size: Integer, numbers of a vector.
        vectors: Iterable of an array of shape `(each, size)` per video, or of
            `(size,)` where `each` is 1, in the catalog's order; None: the
            video has none, and its row is left out.
        kind: One of `KINDS`.
        each: Integer, vectors per video.
        blocks: Dict of names to `(begin, end)`, parts of a vector, or None.
        settings: Dict of plain values that the numbers depend on.
        source: Where the videos lie; the catalog's root if not given.
        skipped: List of `{path, error}` of videos without vectors, which may
            grow while `vectors` is read.
        overwrite: Whether vectors that the folder holds are replaced.

    Returns:
        `Vectors`.

    Raises:
        ValueError: If the folder holds something already, or the vectors are
            not as many or not of the shape that was told.
    """
    spec = VectorSpec(size)
    if kind not in KINDS:
        raise ValueError(
            f"`kind` must be one of {', '.join(map(repr, KINDS))}. "
            f"Received: kind={kind!r}"
        )
    expect_room(folder, overwrite)
    # Labels that CSV cannot hold: now, not after hours.
    replace(catalog, videos=()).to_csv()
    make_folder(folder)
    for name in _ours(folder):
        remove(join(folder, name))
    draft = _Parts(folder, each, spec.size)
    rows = []
    count = 0
    for count, found in enumerate(vectors, 1):
        if count > len(catalog):
            break
        if found is not None:
            video = catalog[count - 1]
            draft.add(found, video.path)
            rows.append(video)
    if count != len(catalog):
        raise ValueError(
            f"`vectors` must be of {len(catalog)} videos, as the catalog is. "
            f"Received: {'more' if count > len(catalog) else count}"
        )
    if not rows:
        raise ValueError(f"no video of {catalog.root} has vectors.")
    parts = draft.closed()
    replace(catalog, videos=tuple(rows)).save(join(folder, CATALOG))
    write_text(
        join(folder, CLASSES), "".join(f"{name}\n" for name in catalog.classes)
    )
    # Last: its presence says that the folder is whole.
    header = {
        "format": VECTORS,
        "version": VERSIONS[VECTORS],
        "kind": kind,
        "size": size,
        "vectors": each,
        "blocks": blocks and {k: list(span) for k, span in blocks.items()},
        "settings": dict(settings or {}),
        "source": absolute(source or catalog.root),
        "classes": list(catalog.classes),
        "parts": parts,
        "skipped": [dict(one) for one in skipped],
    }
    write_json(join(folder, MANIFEST), header)
    return _vectors(folder, header)


class _Parts:
    """Files of whole videos' vectors, written as they fill."""

    def __init__(self, folder, each, size):
        videos = max(1, PART // (4 * each * size))
        self.folder = folder
        self.rows = np.empty((videos, each, size), "<f4")
        self.filled = 0
        self.parts: list[dict[str, Any]] = []

    def add(self, vectors, path):
        shape = self.rows.shape[1:]
        found = np.asarray(vectors)
        if found.shape == shape[1:] and shape[0] == 1:
            found = found[None]
        if found.shape != shape:
            raise ValueError(
                f"the vectors of {path} must have the shape {shape}. "
                f"Received: shape={found.shape}"
            )
        if not np.isfinite(found).all():
            raise ValueError(
                f"the vectors of {path} must be finite numbers. "
                f"Received: {found[~np.isfinite(found)][0]}"
            )
        self.rows[self.filled] = found
        self.filled += 1
        if self.filled == len(self.rows):
            self._write()

    def _write(self):
        name = f"{STEM}{len(self.parts):05d}.npy"
        found = self.rows[: self.filled].reshape(-1, self.rows.shape[-1])
        with (
            written(join(self.folder, name)) as draft,
            draft.open("wb") as file,
        ):
            np.save(file, found, allow_pickle=False)
        self.parts.append({"name": name, "videos": self.filled})
        self.filled = 0

    def closed(self):
        if self.filled:
            self._write()
        return self.parts


def expect_room(folder: str | os.PathLike, overwrite: bool = False) -> None:
    """Refuses a folder to write into whose files would be lost.

    Args:
        folder: Path or address.
        overwrite: Whether vectors that it holds may be.

    Raises:
        ValueError: Then; the line says what to do.
    """
    if exists(folder) and not is_folder(folder):
        raise ValueError(f"OUT must be a folder. Received: {folder}")
    header = read_header(folder)
    if header is None or header["format"] != VECTORS:
        for name in (MANIFEST, CATALOG, CLASSES):
            if exists(join(folder, name)):
                raise ValueError(
                    f"{folder} holds something else: name another folder, so "
                    f"that nothing of yours is lost. Received: {name} in it"
                )
    elif not overwrite:
        raise ValueError(
            f"{folder} holds vectors already: pass --overwrite to replace "
            "them, or name another folder."
        )


def _ours(folder):
    """Names of the files in a folder that writing vectors replaces."""
    found = [MANIFEST] if exists(join(folder, MANIFEST)) else []
    return found + [
        name
        for name in names(folder)
        if name.startswith(STEM) and name.endswith(".npy")
    ]

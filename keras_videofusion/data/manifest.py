"""What a folder of shards says of itself; NumPy is all that it needs.

    manifest.json          recipe, classes, counts, shards, what was skipped
    catalog.csv            every row; a record's `video` is its place here
    classes.txt            a class a line
    index.csv              the videos of every shard, as they follow in it
    train-00000.tfrecord   and so on, by split; rows without one: "unmarked"

The manifest is written last: it is what makes a folder a folder of shards.
"""

import io
import os
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.files import exists, join, read_json, read_text

MANIFEST = "manifest.json"
CATALOG = "catalog.csv"
CLASSES = "classes.txt"
INDEX = "index.csv"
ENDING = ".tfrecord"
FORMAT = "keras_videofusion shards"
VECTORS = "keras_videofusion vectors"
# What a folder with a manifest may hold, and the version that is read here.
VERSIONS = {FORMAT: 1, VECTORS: 1}
VERSION = VERSIONS[FORMAT]
COLUMNS = ("shard", "video", "records", "frames")


@dataclass(frozen=True)
class Manifest:
    """The manifest of a folder of shards.

    Args:
        folder: Path or address.
        recipe: Dict of the settings that the pixels depend on.
        classes: Class names.
        shards: List of `{name, split, records, videos, bytes, sha256}`.
        skipped: List of `{path, error, shard}`: videos without records.
        source: Where the videos lay when the shards were made.
    """

    folder: str
    recipe: dict[str, Any]
    classes: tuple[str, ...]
    shards: list[dict[str, Any]]
    skipped: list[dict[str, str]]
    source: str

    @property
    def spec(self) -> ClipSpec | None:
        """The clip that is stored; None where whole videos are."""
        clip = self.recipe["clip"]
        return None if clip is None else ClipSpec.from_json(clip)

    @property
    def resize(self) -> tuple:
        """How stored frames were resized, as in `ClipSpec`."""
        return tuple(self.recipe["resize"])

    def place(self, name: str) -> str:
        """Where a file of the folder lies.

        Args:
            name: String.
        """
        return join(self.folder, name)

    @cached_property
    def index(self) -> np.ndarray:
        """The videos of all shards in the order in which they are stored.

        Int64 array of shape `(videos, 4)`: number of the shard, row of
        `catalog.csv`, records, frames of the video.
        """
        text = io.StringIO(read_text(self.place(INDEX)))
        table = np.loadtxt(text, np.int64, delimiter=",", skiprows=1, ndmin=2)
        return table.reshape(-1, len(COLUMNS))

    def rows(self, stored, chosen) -> np.ndarray:
        """Which rows of the folder's own catalog some videos are.

        Videos are known by path, start and end.

        Args:
            stored: The `Catalog` of `catalog.csv`.
            chosen: `Catalog`.

        Returns:
            Int64 array of shape `(videos,)`.

        Raises:
            ValueError: If one is not among them.
        """
        return places(self.folder, "shards", stored, chosen)


def places(folder: str, what: str, stored, chosen) -> np.ndarray:
    """Which rows of a folder's own catalog some videos are.

    Videos are known by path, start and end.

    Args:
        folder: Path or address of what was made of the videos.
        what: String, what that is.
        stored: The `Catalog` of its `catalog.csv`.
        chosen: `Catalog`.

    Returns:
        Int64 array of shape `(videos,)`.

    Raises:
        ValueError: If one is not among them.
    """
    known = defaultdict(list)
    for row in reversed(range(len(stored))):
        video = stored[row]
        known[video.path, video.start, video.end].append(row)
    found = np.zeros(len(chosen), np.int64)
    for place, video in enumerate(chosen):
        rows = known[video.path, video.start, video.end]
        if not rows:
            raise ValueError(
                f"{folder} has no {what} of it. Received: {video.path}"
            )
        found[place] = rows.pop()
    return found


def read_header(folder: str | os.PathLike) -> dict[str, Any] | None:
    """The manifest of a folder that this package made, of either kind.

    Args:
        folder: Path or address.

    Returns:
        Dict with `format`, or None: the folder holds something else.

    Raises:
        ValueError: If the manifest was written by another release.
    """
    place = join(folder, MANIFEST)
    if not exists(place):
        return None
    try:
        found = read_json(place)
    except ValueError:
        return None
    if not isinstance(found, dict) or found.get("format") not in VERSIONS:
        return None
    if found.get("version") != VERSIONS[found["format"]]:
        what = found["format"].rpartition(" ")[2]
        raise ValueError(
            f"{place} was written by another release: make the {what} anew. "
            f"Received: version={found.get('version')}"
        )
    return found


def read_manifest(folder: str | os.PathLike) -> Manifest | None:
    """The manifest of a folder, if that is a folder of shards.

    Args:
        folder: Path or address.

    Returns:
        `Manifest`, or None: the folder holds something else.

    Raises:
        ValueError: If the manifest was written by another release.
    """
    found = read_header(folder)
    if found is None or found["format"] != FORMAT:
        return None
    return Manifest(
        os.fspath(folder),
        found["recipe"],
        tuple(found["classes"]),
        found["shards"],
        found["skipped"],
        found["source"],
    )

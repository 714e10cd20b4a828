"""What the data sets share: their folders, their lists, what is not there.

Annotations are other people's files. They come from other systems (byte order
marks, carriage returns), by hand, and half copied: whatever is wrong in one is
one line that names the file, the line and what stands there.
"""

import csv
import gzip
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from keras_videofusion.data.catalog import Catalog, Video, video_paths
from keras_videofusion.data.video import VIDEO_ENDINGS


def wrong_root(
    name: str, root, tree: str, address: str, lacking: str | None = None
) -> ValueError:
    """The error of a folder that is not the data set.

    Args:
        name: Name of the data set.
        root: The folder that was given.
        tree: The files and folders expected below it, a line each.
        address: Where its authors publish it.
        lacking: What was looked for and not found, or None for all of it.

    Returns:
        `ValueError`, to be raised.
    """
    what = "is no folder" if not Path(root).is_dir() else "is not this data set"
    if lacking and Path(root).is_dir():
        what = f"has no {lacking}"
    shown = "".join(f"\n    {line}" for line in tree.strip("\n").splitlines())
    return ValueError(
        f"`root` must hold {name}, but {what}. Expected:\n{shown}\n\n"
        f"Its authors publish it at {address}; nothing is downloaded for you. "
        f"Received: root={os.fspath(root)!r}"
    )


def expect_choice(argument: str, value, choices: Sequence) -> None:
    """Refuses what is not among the choices.

    Args:
        argument: Name of the argument.
        value: What came.
        choices: What may come.

    Raises:
        ValueError: If it is none of them.
    """
    # 1.0 and True equal 1, but are nobody's fold.
    if not any(type(value) is type(one) and value == one for one in choices):
        expected = ", ".join(map(repr, choices))
        raise ValueError(
            f"`{argument}` must be {'one of ' * (len(choices) > 1)}{expected}. "
            f"Received: {argument}={value!r}"
        )


def find(root, *candidates: str) -> Path | None:
    """The first of several usual places that is there.

    Args:
        root: Folder.
        *candidates: Files or folders relative to it; "." is the root itself.

    Returns:
        Path of the first that exists, or None.
    """
    for name in candidates:
        place = Path(root) / name
        if place.exists():
            return place
    return None


def read_lines(path) -> Iterator[tuple[int, str]]:
    """The lines of a list that say something, with their numbers.

    Args:
        path: Text file, compressed if its name ends in `.gz`.

    Yields:
        `(number, line)`, counted from 1; without the white space around.

    Raises:
        ValueError: If it cannot be read or is no text.
    """
    for number, line in _text(path):
        if line := line.strip():
            yield number, line


def read_table(
    path,
    columns: Sequence[str] = (),
    separator: str = ",",
    names: Sequence[str] | None = None,
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file, with the numbers of their lines.

    Args:
        path: Text file, compressed if its name ends in `.gz`.
        columns: Columns that it must have; those beside them are read too.
        separator: What stands between fields.
        names: Columns of a file whose first line is a row already.

    Yields:
        `(number, row)`: a row maps column to text, without the white space
        around.

    Raises:
        ValueError: If it cannot be read, lacks a column, or a row has other
            fields than the columns. File and line are named.
    """
    reader = csv.reader(
        (line for _, line in _text(path)),
        delimiter=separator,
        skipinitialspace=True,
    )
    header = None if names is None else list(names)
    try:
        for fields in reader:
            fields = [field.strip() for field in fields]
            if not any(fields):
                continue
            if header is None:
                header = fields
                _expect_columns(path, reader.line_num, header, columns)
                continue
            if len(fields) != len(header):
                raise ValueError(
                    f"{path}, line {reader.line_num} must have the "
                    f"{len(header)} fields {separator.join(header)}. "
                    f"Received: {separator.join(fields)!r}"
                )
            yield reader.line_num, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num} is not CSV: {error}"
        ) from error
    if header is None:
        _expect_columns(path, 1, [], columns)


def relative(name: str, where: str) -> str:
    """A path out of a list, if it stays below the data set's folder.

    Args:
        name: Path with "/".
        where: File and line that it comes from, for the error.

    Returns:
        The path without "." in it.

    Raises:
        ValueError: If it is absolute, climbs, or is empty.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError(
            f"{where}: a path must be relative and lead down from the data "
            f"set's folder. Received: {name!r}"
        )
    return path.as_posix()


def stem(path: str) -> str:
    """A file's name without its folders and without a video's ending.

    Args:
        path: String, with or without either.

    Returns:
        String; dots that begin no video's ending stay.
    """
    name = path.rpartition("/")[2]
    base, _, ending = name.rpartition(".")
    return base if f".{ending.lower()}" in VIDEO_ENDINGS else name


def videos_below(
    root, folder=".", key: Callable[[str], str] = stem
) -> dict[str, str]:
    """What there is of the videos: one walk of the tree, no look at a file.

    Empty and damaged files are there like all others: `check` and whoever
    reads them name them. Endings differ from publisher to publisher and from
    crawler to crawler, so that videos go by their stems.

    Args:
        root: The data set's folder.
        folder: Folder to look below, relative to `root`.
        key: What a video is known by: a function of its path, relative to
            `folder`.

    Returns:
        Dict from key to path, relative to `root`. Of two files with one key,
        the path that sorts first.
    """
    place = Path(root) / folder
    before = prefix(root, place)
    there: dict[str, str] = {}
    for name in video_paths(place):
        there.setdefault(key(name), before + name)
    return there


def prefix(root, folder) -> str:
    """What leads from the data set's folder to one below it.

    Args:
        root: The data set's folder.
        folder: Path of it or of a folder below it.

    Returns:
        String that ends in "/", or "".
    """
    below = Path(folder).relative_to(root).as_posix()
    return "" if below == "." else f"{below}/"


def gather(
    root,
    videos: Iterable[Video],
    there: dict[str, str],
    classes: Sequence[str],
    split: str | None = None,
    key: Callable[[str], str] = stem,
) -> Catalog:
    """The catalog of what a list names and the disk has.

    Args:
        root: The data set's folder.
        videos: A `Video` per row of the list; its path is where the file
            would lie, relative to `root`.
        there: What `videos_below` found.
        classes: Class names, all that the data set has.
        split: String: these rows only. None: all.
        key: The function of a path that `there` is keyed by.

    Returns:
        `Catalog`: rows whose videos are there, in the list's order and each
        once (annotators note some segments twice); among `missing` the paths
        of the others, each once.
    """
    rows: dict[Video, None] = {}
    missing: dict[str, None] = {}  # in order, each once
    for video in videos:
        if split is not None and video.split != split:
            continue
        found = there.get(key(video.path))
        if found is None:
            missing[video.path] = None
        elif found == video.path:
            rows[video] = None
        else:
            rows[replace(video, path=found)] = None
    return Catalog(
        tuple(rows), tuple(classes), os.fspath(root), missing=tuple(missing)
    )


def _text(path):
    """Yields `(number, line)` of a text file, line ends as they are."""
    opened = gzip.open if Path(path).suffix == ".gz" else open
    number = 0
    try:
        with opened(
            path,
            "rt",
            encoding="utf-8-sig",
            errors="surrogateescape",
            newline="",
        ) as file:
            for number, line in enumerate(file, 1):
                if "\0" in line:
                    raise ValueError(
                        f"{path}, line {number} is no text: it holds zero "
                        "bytes."
                    )
                yield number, line
    # Compressed files that are cut or damaged raise errors of their own.
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"{path} cannot be read after line {number}: {reason}"
        ) from error


def _expect_columns(path, number, header, columns):
    lacking = [name for name in columns if name not in header]
    if lacking or not header:
        raise ValueError(
            f"{path}, line {number} must name the columns "
            f"{', '.join(columns)}. "
            f"Received: {','.join(header) or 'an empty file'}"
        )
    if len(set(header)) < len(header):
        raise ValueError(
            f"{path}, line {number} names a column twice. "
            f"Received: {','.join(header)}"
        )

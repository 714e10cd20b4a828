"""Files that stand whole under their name or not at all, wherever they lie.

A place is a path of this machine or an address such as `s3://bucket/run`.
What lies at an address goes through TensorFlow's file systems, which are not
loaded before they are needed.
"""

import json
import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, IO

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def is_remote(place: str | os.PathLike) -> bool:
    """Whether a place is an address, not a path of this machine.

    Args:
        place: Path or address.
    """
    return bool(ADDRESS.match(os.fspath(place)))


def join(place: str | os.PathLike, *names: str) -> str:
    """The place of a name below another.

    Args:
        place: Path or address.
        *names: Names with "/" or the system's own sign.

    Returns:
        String.
    """
    if is_remote(place):
        return posixpath.join(os.fspath(place), *names)
    return os.path.join(os.fspath(place), *names)


def exists(place: str | os.PathLike) -> bool:
    """Whether there is a file or a folder.

    Args:
        place: Path or address.
    """
    if is_remote(place):
        return bool(_file_system(place).exists(os.fspath(place)))
    return os.path.exists(place)


def is_folder(place: str | os.PathLike) -> bool:
    """Whether there is a folder.

    Args:
        place: Path or address.
    """
    if is_remote(place):
        return bool(_file_system(place).isdir(os.fspath(place)))
    return os.path.isdir(place)


def names(folder: str | os.PathLike) -> list[str]:
    """Sorted names of what lies in a folder.

    Args:
        folder: Path or address.
    """
    if is_remote(folder):
        found = _file_system(folder).listdir(os.fspath(folder))
        return sorted(name.rstrip("/") for name in found)
    return sorted(os.listdir(folder))


def make_folder(place: str | os.PathLike) -> None:
    """Makes a folder, and those above it, unless it is there.

    Args:
        place: Path or address.
    """
    if is_remote(place):
        _file_system(place).makedirs(os.fspath(place))
    else:
        os.makedirs(place, exist_ok=True)


def remove(place: str | os.PathLike) -> None:
    """Removes a file or a folder with all in it; nothing, if there is none.

    Args:
        place: Path or address.
    """
    if is_remote(place):
        files = _file_system(place)
        if files.isdir(os.fspath(place)):
            files.rmtree(os.fspath(place))
        elif files.exists(os.fspath(place)):
            files.remove(os.fspath(place))
    elif os.path.isdir(place) and not os.path.islink(place):
        shutil.rmtree(place)
    else:
        Path(place).unlink(missing_ok=True)


def opened(place: str | os.PathLike) -> IO[bytes]:
    """A file's bytes to read, and to seek in.

    Args:
        place: Path or address.

    Returns:
        File object; the caller closes it.
    """
    if is_remote(place):
        return _file_system(place).GFile(os.fspath(place), "rb")
    return open(place, "rb")


def read_text(place: str | os.PathLike) -> str:
    """A text file; undecodable bytes of names come back as they went.

    Args:
        place: Path or address.
    """
    with opened(place) as file:
        return file.read().decode("utf-8-sig", "surrogateescape")


def read_json(place: str | os.PathLike) -> Any:
    """What a JSON file holds.

    Args:
        place: Path or address.

    Raises:
        ValueError: If it is not JSON.
    """
    return json.loads(read_text(place))


@contextmanager
def written(place: str | os.PathLike) -> Iterator[Path]:
    """Yields a name of this machine; on success that file takes its place.

    Args:
        place: Path or address where the file shall stand in the end. The name
            that is yielded ends alike, since Keras chooses formats by it.
    """
    if is_remote(place):
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder, posixpath.basename(os.fspath(place)))
            yield draft
            _file_system(place).copy(str(draft), os.fspath(place), True)
        return
    path = Path(place)
    draft = path.with_name(f".draft-{os.getpid()}-{path.name}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def fetched(place: str | os.PathLike) -> Iterator[Path]:
    """Yields a file of this machine with the contents of a place.

    Args:
        place: Path or address.
    """
    if not is_remote(place):
        yield Path(place)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, posixpath.basename(os.fspath(place)))
        _file_system(place).copy(os.fspath(place), str(copy), True)
        yield copy


def write_text(place: str | os.PathLike, text: str) -> None:
    """Writes a text file; undecodable bytes of names come out as they were.

    Args:
        place: Path or address.
        text: String.
    """
    with written(place) as draft:
        draft.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(place: str | os.PathLike, value: Any) -> None:
    """Writes a JSON file.

    Args:
        place: Path or address.
        value: What `json` can write.
    """
    write_text(place, json.dumps(value, indent=2) + "\n")


def _file_system(place: str | os.PathLike) -> Any:
    """TensorFlow's file systems, which open the addresses of a scheme."""
    import tensorflow

    return tensorflow.io.gfile

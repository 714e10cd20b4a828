"""Files that stand whole under their name or not at all, wherever they lie.

A place is a path of this machine or an address such as `s3://bucket/run`.
What lies at an address is fetched or sent whole; what breaks on the way is
tried again (`keras_videofusion.data.addresses`).
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

from keras_videofusion.data import addresses

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def is_remote(place: str | os.PathLike) -> bool:
    """Whether a place is an address, not a path of this machine.

    Args:
        place: Path or address.
    """
    return bool(ADDRESS.match(os.fspath(place)))


def streams(place: str | os.PathLike) -> bool:
    """Whether TensorFlow's own operations read a file where it lies.

    They do on this machine and at `gs://`, where they mend connections that
    break. Elsewhere a stream that breaks would end early: `kept` copies.

    Args:
        place: Path or address.
    """
    return not is_remote(place) or os.fspath(place).lower().startswith("gs:")


def join(place: str | os.PathLike, *names: str) -> str:
    """The place of a name below another.

    Args:
        place: Path or address.
        *names: Names with "/" or the system's own sign; an absolute path or
            an address begins anew.

    Returns:
        String.
    """
    found = os.fspath(place)
    for name in names:
        if is_remote(name):
            found = name
        else:
            found = (posixpath if is_remote(found) else os.path).join(
                found, name
            )
    return found


def absolute(place: str | os.PathLike) -> str:
    """The name of a place wherever one stands, through all links.

    Args:
        place: Path or address.
    """
    return os.fspath(place) if is_remote(place) else os.path.realpath(place)


def exists(place: str | os.PathLike) -> bool:
    """Whether there is a file or a folder.

    Args:
        place: Path or address.
    """
    if is_remote(place):
        return _store(place).exists(os.fspath(place))
    return os.path.exists(place)


def is_folder(place: str | os.PathLike) -> bool:
    """Whether there is a folder; of a web server nobody can tell.

    Args:
        place: Path or address.
    """
    if is_remote(place):
        return _store(place).is_folder(os.fspath(place))
    return os.path.isdir(place)


def bytes_of(place: str | os.PathLike) -> int:
    """Bytes of a file.

    Args:
        place: Path or address.

    Raises:
        FileNotFoundError: If there is none.
    """
    if is_remote(place):
        return _store(place).size(os.fspath(place))
    return os.path.getsize(place)


def names(folder: str | os.PathLike) -> list[str]:
    """Sorted names of what lies in a folder.

    Args:
        folder: Path or address.
    """
    if is_remote(folder):
        return _store(folder).names(os.fspath(folder))
    return sorted(os.listdir(folder))


def make_folder(place: str | os.PathLike) -> None:
    """Makes a folder, and those above it, unless it is there.

    Args:
        place: Path or address.
    """
    if is_remote(place):
        _store(place).make_folder(os.fspath(place))
    else:
        os.makedirs(place, exist_ok=True)


def remove(place: str | os.PathLike) -> None:
    """Removes a file or a folder with all in it; nothing, if there is none.

    Args:
        place: Path or address.
    """
    if is_remote(place):
        _store(place).remove(os.fspath(place))
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
    # The name of a copy goes at once; its bytes stay until it is closed.
    with fetched(place) as path:
        return open(path, "rb")


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
        store = _store(place)
        store.check_writable(os.fspath(place))
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder, posixpath.basename(os.fspath(place)))
            yield draft
            store.put(draft, os.fspath(place))
        return
    path = Path(place)
    draft = path.with_name(f".draft-{os.getpid()}-{path.name}")
    try:
        yield draft
        os.replace(draft, path)
    except OSError as error:
        # The caller knows the file by its own name.
        if error.filename == os.fspath(draft):
            error.filename = os.fspath(path)
        raise
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
        _store(place).fetch(os.fspath(place), copy)
        yield copy


def kept(place: str | os.PathLike) -> str:
    """A file of this machine with the contents of a place, to read again.

    Copies of what lies at addresses stay until the process ends or the room
    for them is taken: 16 GB, or what the variable `KVF_COPIES_GB` says.

    Args:
        place: Path or address.

    Returns:
        Path; open it soon.
    """
    if not is_remote(place):
        return os.fspath(place)
    return addresses.COPIES.of(os.fspath(place))


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


def _store(place: str | os.PathLike) -> Any:
    return addresses.store(os.fspath(place))

"""What lies at addresses: object stores, Hadoop, and the web, read only.

`gs://` is TensorFlow's own. `s3://`, `az://` and `hdfs://` come with
tensorflow-io, which is loaded when such an address is first used. `http://`
and `https://` are read by the standard library, on every TensorFlow.

A connection that breaks is tried again, after waits that grow; what does not
come back is an OSError of one line.
"""

import ctypes
import errno
import hashlib
import http.client
import os
import platform
import re
import shutil
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before each further try
PATIENCE = 30.0  # seconds; later than that no further try begins
PART = 16 * 2**20  # bytes that are fetched at a time

# Stores that replace objects whole and know folders by their names alone.
OBJECTS = ("gs", "s3", "az")
INSTALL = (
    "pip install 'keras-videofusion[tensorflow-io]', on Python 3.10 to 3.12; "
    "it brings TensorFlow 2.16, the last one that tensorflow-io loads with"
)

Result = TypeVar("Result")


class BrokenError(Exception):
    """A connection that broke; it is worth another try."""


def persist(action: Callable[[], Result], address: str) -> Result:
    """Acts, and acts again while the connection breaks.

    Args:
        action: Function without arguments.
        address: What it is about, for the error.

    Returns:
        What `action` returns.

    Raises:
        OSError: If it keeps breaking.
    """
    begun = time.monotonic()
    for wait in (*WAITS, None):
        try:
            return action()
        except BrokenError as broken:
            late = time.monotonic() - begun > PATIENCE
            if wait is None or late:
                raise OSError(errno.EIO, str(broken), address) from broken
            time.sleep(wait)
    raise AssertionError  # the last wait is None


def store(address: str) -> Any:
    """What reads and writes addresses of a scheme.

    Args:
        address: String.

    Returns:
        `Web` or `Store`.

    Raises:
        ImportError: If the scheme needs tensorflow-io and it does not load.
    """
    scheme = _scheme(address)
    return Web() if scheme in ("http", "https") else _store(scheme)


def _scheme(address):
    return address.split("://")[0].lower()


@cache
def _store(scheme):
    import tensorflow

    if scheme not in tensorflow.io.gfile.get_registered_schemes():
        _load_tensorflow_io(scheme)
    return Store(tensorflow)


def _load_tensorflow_io(scheme):
    """Has tensorflow-io register its file systems."""
    import tensorflow

    # Its parallel download, when a connection is cut, tries again and leaves
    # what had come before in the file: read bytes are then not those stored.
    os.environ["S3_DISABLE_MULTI_PART_DOWNLOAD"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(ImportError, NotImplementedError, OSError):
            import tensorflow_io  # noqa: F401
    if scheme in tensorflow.io.gfile.get_registered_schemes():
        # Its libraries abort when they are torn down at the process's end,
        # which would hide the exit status; so they are not torn down.
        system = ctypes.CDLL(None)
        if hasattr(system, "on_exit"):
            system.on_exit(system._exit, None)
        return
    try:
        found = f"tensorflow-io {metadata.version('tensorflow-io')}"
    except metadata.PackageNotFoundError:
        found = "no tensorflow-io"
    raise ImportError(
        f"{scheme}:// is read and written by tensorflow-io: {INSTALL}. "
        f"Received: Python {platform.python_version()}, TensorFlow "
        f"{tensorflow.__version__}, {found}"
    )


class Store:
    """TensorFlow's file systems.

    Args:
        tensorflow: The module.
    """

    def __init__(self, tensorflow):
        self.tensorflow = tensorflow
        self.files = tensorflow.io.gfile

    def exists(self, address):
        try:
            self._ask(self.files.stat, address)
        except FileNotFoundError:
            # The S3 file system says so too if the server does not answer:
            # then only reading tells why, and a run is not taken for none.
            try:
                self._ask(self._peek, address)
            except FileNotFoundError:
                return False
        return True

    def _peek(self, address):
        with self.files.GFile(address, "rb") as file:
            file.read(1)

    def is_folder(self, address):
        return bool(self._ask(self.files.isdir, address))

    def size(self, address):
        return self._ask(self.files.stat, address).length

    def names(self, address):
        try:
            found = self._ask(self.files.listdir, address)
        except FileNotFoundError:
            self.exists(address)  # it may know a better reason
            if _scheme(address) not in OBJECTS:
                raise
            found = []  # an empty folder is none there
        return sorted(name.rstrip("/") for name in found)

    def make_folder(self, address):
        self._ask(self.files.makedirs, address)

    def remove(self, address):
        COPIES.forget(address)
        if self.is_folder(address):
            self._ask(self.files.rmtree, address)
        elif self.exists(address):
            self._ask(self.files.remove, address)

    def fetch(self, address, path):
        size = self.size(address)
        with open(path, "wb") as file:
            for begin in range(0, size, PART):
                part = min(PART, size - begin)
                file.write(self._ask(self._part, address, begin, part, size))

    def _part(self, address, begin, part, size):
        """Some bytes of a file, never asking for one behind its end.

        The S3 file system crashes there, and TensorFlow's own copy asks.
        """
        records = self.tensorflow.data.FixedLengthRecordDataset(
            address,
            part,
            header_bytes=begin,
            footer_bytes=size - begin - part,
            buffer_size=part,
        )
        for record in records:
            return record.numpy()
        raise BrokenError("it ended early")

    def check_writable(self, address):
        """Every file system of TensorFlow's writes, if it may."""

    def put(self, path, address):
        COPIES.forget(address)
        # Other file systems write as they go.
        if _scheme(address) in OBJECTS:
            self._ask(self.files.copy, str(path), address, True)
            return
        draft = f"{address}.draft-{os.getpid()}"
        self._ask(self.files.copy, str(path), draft, True)
        self._ask(self.files.rename, draft, address, True)

    def _ask(self, function, *arguments):
        """Calls TensorFlow; its errors come as OSError of one line."""
        address = next(a for a in arguments if "://" in a)
        errors = self.tensorflow.errors

        def call():
            try:
                return function(*arguments)
            except errors.NotFoundError as error:
                # A bucket that is not there is told apart from its files.
                raise FileNotFoundError(
                    errno.ENOENT, _line(error) or "no such file", address
                ) from error
            except (
                errors.PermissionDeniedError,
                errors.UnauthenticatedError,
            ) as error:
                raise PermissionError(
                    errno.EACCES, _line(error), address
                ) from error
            except (
                errors.InvalidArgumentError,
                errors.UnimplementedError,
                errors.AlreadyExistsError,
            ) as error:
                raise OSError(errno.EINVAL, _line(error), address) from error
            except (errors.OpError, RuntimeError) as error:
                raise BrokenError(_line(error)) from error

        return persist(call, address)


def _line(error):
    """What a TensorFlow error says, without the names of its own parts."""
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", str(error))
    return " ".join(text.split()).strip(": ")


class Web:
    """Files of web servers: to read, not to list or to write."""

    timeout = 30  # seconds without a byte

    def exists(self, address):
        try:
            persist(lambda: self._open(address).close(), address)
        except FileNotFoundError:
            return False
        return True

    def is_folder(self, address):
        """What a server calls a folder is a page: nobody can tell."""
        return False

    def size(self, address):
        def length():
            with self._open(address) as answer:
                return answer.headers.get("Content-Length")

        found = persist(length, address)
        if found is None:
            raise OSError(errno.EIO, "the server tells no size", address)
        return int(found)

    def names(self, address):
        raise OSError(
            errno.EPERM,
            "a web server cannot be listed; name a catalog's CSV file, a "
            "run's folder, or a folder of shards with its manifest",
            address,
        )

    def check_writable(self, address):
        raise OSError(
            errno.EROFS, "http:// and https:// are read only", address
        )

    make_folder = remove = check_writable

    def fetch(self, address, path):
        with open(path, "wb") as file:
            # The version of the file that the first bytes came from.
            known: dict[str, str] = {}
            persist(lambda: self._append(address, file, known), address)

    def _append(self, address, file, known):
        """Reads on from where the last try broke, if the server can."""
        headers = {}
        if known and file.tell():
            headers = {"Range": f"bytes={file.tell()}-", **known}
        with self._open(address, headers) as answer:
            if answer.status != 206:
                file.seek(0)
                file.truncate()
            version = answer.headers.get("ETag", "")
            if version.startswith('"'):
                known["If-Range"] = version
            length = answer.headers.get("Content-Length")
            left = None if length is None else int(length)
            try:
                while block := answer.read(2**20):
                    file.write(block)
                    left = None if left is None else left - len(block)
            except (OSError, http.client.HTTPException) as error:
                raise BrokenError(f"the connection broke: {error}") from error
        if left:
            raise BrokenError(
                f"the connection broke, {left} bytes before the end"
            )

    def _open(self, address, headers=None):
        # Blanks and letters beyond ASCII are written as addresses have them.
        quoted = urllib.parse.quote(address, safe="%/:=&?~#+!$,;'@()*[]")
        request = urllib.request.Request(quoted, headers=headers or {})
        try:
            return urllib.request.urlopen(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"the server answers {error.code} {error.reason}"
            if error.code in (404, 410):
                raise FileNotFoundError(errno.ENOENT, reason, address) from None
            if error.code in (401, 403):
                raise PermissionError(errno.EACCES, reason, address) from None
            if error.code in (408, 429) or error.code >= 500:
                raise BrokenError(reason) from None
            raise OSError(errno.EIO, reason, address) from None
        except (OSError, http.client.HTTPException) as error:
            raise BrokenError(str(getattr(error, "reason", error))) from error
        except ValueError as error:
            raise OSError(errno.EINVAL, str(error), address) from error


class Copies:
    """Copies of files at addresses, the oldest removed when room is needed."""

    newest = 8  # of them always stay: someone may be about to open one

    def __init__(self):
        self._lock = threading.Lock()
        self._folder: str | None = None
        self._locks: dict[str, threading.Lock] = {}
        self._paths: dict[str, Path] = {}  # in the order of their last use

    def of(self, address: str) -> str:
        """The copy of a file, fetched if it is not here.

        Args:
            address: String.

        Returns:
            Path.

        Raises:
            OSError: If the file cannot be read.
        """
        with self._lock:
            mine = self._locks.setdefault(address, threading.Lock())
        with mine:
            with self._lock:
                path = self._paths.pop(address, None)
                if path is not None:
                    self._paths[address] = path
                    return str(path)
                if self._folder is None:
                    self._folder = tempfile.mkdtemp(prefix="copies-")
                    weakref.finalize(self, shutil.rmtree, self._folder, True)
            name = hashlib.sha256(address.encode()).hexdigest()
            path = Path(self._folder, name)
            store(address).fetch(address, path)
            with self._lock:
                self._paths[address] = path
                self._make_room()
            return str(path)

    def forget(self, address: str) -> None:
        """Has a file fetched anew when it is next asked for.

        Args:
            address: String.
        """
        with self._lock:
            self._paths.pop(address, None)

    def _make_room(self):
        room = float(os.environ.get("KVF_COPIES_GB", 16)) * 1e9
        sizes = {
            address: path.stat().st_size
            for address, path in self._paths.items()
        }
        taken = sum(sizes.values())
        for address in list(sizes)[: -self.newest]:
            if taken <= room:
                break
            self._paths.pop(address).unlink()
            taken -= sizes[address]


COPIES = Copies()

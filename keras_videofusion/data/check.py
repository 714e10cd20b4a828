"""Decodes whole files and tells which are broken, whatever they hold.

Files are decoded by worker processes, which load NumPy and FFmpeg alone. A
file that crashes its decoder, asks for too much memory or comes to no end
costs a worker and is a row like any other; the rest go on. (Threads are no
faster: a worker takes 0.3 seconds to start, once.)
"""

import csv
import errno
import json
import os
import shutil
import signal
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

try:
    import resource
except ImportError:  # Windows knows no such limits.
    resource = None  # type: ignore[assignment]

from keras_videofusion.data.catalog import Catalog, open_catalog
from keras_videofusion.data.files import written
from keras_videofusion.data.frames import read_images
from keras_videofusion.data.processes import (
    answer_all,
    code_of,
    name_of,
    Team,
)
from keras_videofusion.data.video import (
    opened,
    reason,
    time_limit,
    timeline,
    VIDEO_ENDINGS,
    VideoError,
)

COLUMNS = (
    "path", "ok", "frames", "height", "width", "rate", "seconds", "error"
)  # fmt: skip
QUARANTINE_FILE = "quarantine.csv"
# The pictures that an 8K decoder keeps, of 10 bits, fit in half of this.
WORKER_BYTES = 4 << 30
# A worker is replaced after so many files: what libraries lose adds up.
_FILES_EACH = 1000
_WORKER = code_of("keras_videofusion.data.check")
_ALARM = getattr(signal, "SIGALRM", 0)


@dataclass(frozen=True)
class Sources:
    """The files that `check` looks at.

    Args:
        root: Folder that the names are relative to.
        names: Tuple of paths, relative to `root` or absolute.
    """

    root: str
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


def sources(data: Catalog | Sources | str | os.PathLike) -> Sources:
    """The files that `check` looks at, without opening one.

    Below a folder these are all things with a video's name, in whatever
    folders they lie: links, FIFOs and folders of such names too. Hidden names
    are passed over.

    Args:
        data: Folder, video file, CSV file as for `open_catalog`, or
            `Catalog`.

    Returns:
        `Sources`, sorted; of a catalog every file once, in the rows' order.
    """
    if isinstance(data, Sources):
        return data
    if isinstance(data, Catalog):
        paths = dict.fromkeys(video.path for video in data)
        return Sources(data.root, tuple(paths))
    place = os.fspath(data)
    if os.path.isdir(place):
        return Sources(place, tuple(sorted(_video_names(place))))
    if place.lower().endswith(".csv"):
        return sources(open_catalog(place))
    root, name = os.path.split(place)
    return Sources(root, (name,))


def check(
    data: Catalog | Sources | str | os.PathLike,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
    seconds: float | None = None,
    cache: str | os.PathLike | None = None,
) -> Iterator[dict[str, Any]]:
    """Decodes every frame of every video.

    Args:
        data: As for `sources`.
        workers: Integer, files at a time; as many as processors if None.
        progress: Function of the number of files done, or None.
        seconds: Float, how long a file may take; by its size if None, see
            `keras_videofusion.data.video.time_limit`.
        cache: File that remembers what was found, a line as soon as a file is
            done. With it, work that was stopped at whatever moment goes on
            where it was, and later only new and changed files are decoded.

    Returns:
        Iterator of dicts `{path, ok, frames, height, width, rate, seconds,
        error}` in the order of `sources`, `path` as named there; `error` is
        one line, None when `ok`. What could not be found out is None.

    Raises:
        ValueError: If an argument is out of range.
        RuntimeError: If worker processes do not start.
    """
    for name, value in (("workers", workers), ("seconds", seconds)):
        if value is not None and not value > 0:
            raise ValueError(
                f"`{name}` must be more than 0. Received: {name}={value}"
            )
    found = sources(data)
    count = max(1, min(workers or os.cpu_count() or 1, len(found)))
    return _rows(found, count, progress or (lambda done: None), seconds, cache)


def _rows(found, count, progress, seconds, cache):
    """Yields the rows; `count` files are decoded at a time."""
    journal = _Journal(cache)

    def look(name):
        path = os.path.join(found.root, name)
        state = _state(path)
        known = journal.get(name, state, seconds)
        if known:
            return known
        allowed = seconds or time_limit(state[0] if state else 0)
        question = found.root, name, allowed
        row, status = team.ask(question, last=-_ALARM)
        late = bool(status) and status == -_ALARM
        if status:
            row = _row(name)
            row["error"] = (
                f"decoding it took more than {allowed:g} seconds"
                if late
                else f"its decoder crashed ({name_of(status)})"
            )
        journal.add(name, state, row, allowed if late else None)
        return row

    try:
        with Team(_WORKER, count, _FILES_EACH) as team:
            rows = team.in_order(look, found.names)
            for done, row in enumerate(rows, 1):
                progress(done)
                yield row
    finally:
        journal.close()


def _state(path):
    """Size and times of change; None for what is not worth remembering."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    # The last of them changes with permissions, and cannot be set.
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


class _Journal:
    """Rows by path and state of the file, a line of JSON each.

    Args:
        path: File, or None to remember nothing.
    """

    def __init__(self, path):
        self.known, self.file, self.lock = {}, None, threading.Lock()
        if path is None:
            return
        # The last line is torn where a run was killed while it wrote.
        self.file = open(path, "a+b")  # noqa: SIM115
        self.file.seek(0)
        data = self.file.read()
        for line in data.splitlines():
            try:
                entry = json.loads(line)
                row = {name: entry["row"][name] for name in COLUMNS}
                self.known[row["path"]] = entry["state"], entry["late"], row
            except (ValueError, LookupError, TypeError):
                continue
        if data and not data.endswith(b"\n"):
            self.file.write(b"\n")

    def get(self, name, state, seconds):
        """The row of a file that has not changed; else None."""
        was, late, row = self.known.get(name, (None, None, None))
        if state is None or was != state:
            return None
        # With more time a file that had too little may come to its end.
        if late and late < (seconds or time_limit(state[0])):
            return None
        return row

    def add(self, name, state, row, late):
        if self.file is None or state is None:
            return
        entry = {"state": state, "late": late, "row": row}
        with self.lock:
            self.file.write(json.dumps(entry).encode() + b"\n")
            self.file.flush()

    def close(self):
        if self.file:
            self.file.close()


def serve() -> None:
    """What a worker process runs: a row for every file that it is asked for.

    An alarm ends it when a file takes too long.
    """
    if resource:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        limits = ((resource.RLIMIT_AS, WORKER_BYTES), (resource.RLIMIT_CORE, 0))
        for kind, most in limits:
            hard = resource.getrlimit(kind)[1]
            if hard != resource.RLIM_INFINITY:
                most = min(most, hard)
            resource.setrlimit(kind, (most, hard))
    answer_all(_answer)


def _answer(question):
    """The row of a file, looked at for some seconds at most."""
    root, name, seconds = question
    if resource:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        row = _checked(root, name)
    except Exception as error:  # of this file; the others go on
        row = {**_row(name), "error": " ".join(reason(error).split())}
    if resource:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return row


def _video_names(root, folder="", above=()):
    """Yields what has a video's name below a folder, relative to `root`."""
    place = os.path.join(root, folder)
    real = os.path.realpath(place)
    if real in above:  # a link that leads back
        return
    try:
        with os.scandir(place) as found:
            entries = list(found)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        name = os.path.join(folder, entry.name)
        if entry.name.lower().endswith(VIDEO_ENDINGS):
            yield name
        if os.path.isdir(entry.path):
            yield from _video_names(root, name, (*above, real))


def _row(name):
    return {**dict.fromkeys(COLUMNS), "path": name, "ok": False}


def _checked(root, name):
    """The row of one file."""
    row = _row(name)
    path = os.path.join(root, name)
    try:
        frames = timeline(path)
        row.update(
            frames=0,
            height=frames.height,
            width=frames.width,
            rate=round(frames.rate, 3),
            seconds=round(float(frames.times[-1]) + 1 / frames.rate, 3),
        )
        damage = _damaged_images if frames.images else _damage
        row["error"] = damage(path, frames, row)
    except VideoError as error:
        row["error"] = error.reason
    row["ok"] = row["error"] is None
    return row


def _damaged_images(path, frames, row):
    """As `_damage`, of a folder of images."""
    size = None
    try:
        for frame in read_images(path, frames.images):
            if size not in (None, (frame.height, frame.width)):
                return (
                    f"{frames.images[row['frames']]} is "
                    f"{frame.width} x {frame.height} pixels, those before it "
                    f"{size[1]} x {size[0]}"
                )
            size = frame.height, frame.width
            row["frames"] += 1
    except ValueError as error:
        return f"{reason(error)}; {row['frames']} frames decode"
    return None


def _damage(path, frames, row):
    """Decodes all of a file, counts in `row`; says what is wrong, or None."""
    cut, damaged, failure = 0, 0, None
    with opened(path) as (container, stream):
        declared = stream.frames
        seconds = float((stream.duration or 0) * (stream.time_base or 0))
        if not seconds and len(container.streams) == 1:
            seconds = (container.duration or 0) / av.time_base
        for packet in container.demux(stream):
            declared -= bool(packet.size)
            if packet.is_corrupt:
                cut += 1
                continue
            try:
                for frame in packet.decode():
                    row["frames"] += 1
                    damaged += frame.is_corrupt
            except av.error.FFmpegError as error:
                failure = failure or reason(error)
    if failure:
        return f"{failure}; {row['frames']} frames decode"
    if row["frames"] < len(frames):
        return f"only {row['frames']} of its {len(frames)} frames decode"
    if cut:
        return (
            f"{cut} of its packets are cut off; {row['frames']} frames decode"
        )
    if damaged:
        return f"{damaged} of its {row['frames']} frames are damaged"
    # Headers may be a little off, but not by a twentieth.
    if declared > 0.05 * row["frames"] + 1:
        return f"cut short: {declared} of the frames it declares are missing"
    if row["seconds"] < 0.95 * seconds - 3 / frames.rate:
        return f"cut short: it declares {seconds:.1f} seconds"
    return None


def quarantine(
    root: str | os.PathLike,
    rows: Iterable[dict[str, Any]],
    folder: str | os.PathLike,
    dry_run: bool = False,
) -> Iterator[tuple[str, str | None]]:
    """Moves files that are not ok out of a data set, and keeps its tree.

    `folder/quarantine.csv` tells where each lay and what is wrong with it.
    Nothing is written over: what has the name of an earlier one gets a number
    to it. Links move as they are, what they lead to stays. So do folders, and
    what does not lie below `root` or is reached there through a link only.

    Args:
        root: The data set's folder, to which the rows' paths are relative.
        rows: What `check` said.
        folder: Folder to move them to; made when it is needed.
        dry_run: Whether all stays where it is.

    Yields:
        Pairs for every file that is not ok and is there: its path as in its
        row, and None, or why it was not moved.

    Raises:
        ValueError: If `folder` lies below `root`, where `check` would find
            the files again. (It passes over hidden folders.)
    """
    home = Path(os.path.realpath(os.fspath(root) or "."))
    away = Path(os.path.realpath(folder))
    if away.is_relative_to(home) and not any(
        part.startswith(".") for part in away.relative_to(home).parts
    ):
        raise ValueError(
            "the quarantine must lie outside of the data, or in a hidden "
            f"folder. Received: {folder}, data={home}"
        )
    for row in rows:
        path = os.path.join(home, row["path"])
        if row["ok"] or not os.path.lexists(path):
            continue
        real = Path(os.path.realpath(os.path.dirname(path)))
        kept = None
        if not real.is_relative_to(home):
            kept = f"it does not lie in {home}"
        elif os.path.isdir(path) and not os.path.islink(path):
            kept = "it is a folder"
        elif not dry_run:
            name = real.relative_to(home) / os.path.basename(path)
            try:
                target = _free(away / name)
                target.parent.mkdir(parents=True, exist_ok=True)
                _move(path, target)
                _note(away, row, target.relative_to(away).as_posix())
            except OSError as error:
                kept = reason(error)
        yield row["path"], kept


def _free(target):
    """A name that nothing has yet."""
    tried, number = target, 1
    while os.path.lexists(tried):
        number += 1
        tried = target.with_name(f"{target.stem}-{number}{target.suffix}")
    return tried


def _move(path, target):
    """Moves a file or a link, to another file system too."""
    try:
        os.rename(path, target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
    elif os.path.isfile(path):
        with written(target) as draft:
            shutil.copy2(path, draft)
    else:
        raise OSError("a special file does not move to another file system")
    os.unlink(path)


def _note(folder, row, name):
    """Writes down what was moved; a row at a time, so that none is lost."""
    place = os.path.join(folder, QUARANTINE_FILE)
    begun = os.path.exists(place)
    with open(
        place, "a", encoding="utf-8", errors="surrogateescape", newline=""
    ) as file:
        table = csv.writer(file, lineterminator="\n")
        if not begun:
            table.writerow(("path", "file", "error"))
        table.writerow((row["path"], name, row["error"]))

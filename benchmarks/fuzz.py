"""Reads thousands of hostile files, as training does and as `check` does.

    python benchmarks/fuzz.py --clips FOLDER [--files 5000] [--seed 0]
        [--first 0] [--keep FOLDER]

Every file is a real clip of FOLDER with bytes flipped, overwritten, cut,
spliced, or with header fields that lie, under an odd name. Each is read by
`timeline` and `read_clips` in one long-lived process, as training reads in
one, and all of them by `check`. A file must end as clips of the right shape or
as a `VideoError`. Printed are, by kind of damage, how many were clips and how
many were skipped; crashes, other errors and files that took more than a
second; the slowest file and the most memory a file took. Exit status 1 if one
crashed, erred otherwise, or took more than a minute.

The same seed and numbers make the same files; --first N and --files let one
run be made in parts, --keep keeps the files that did harm.
"""

import argparse
import collections
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import hostile
import numpy as np

LIMIT = 60.0
PART = 500


def read():
    """The reader: a path a line on standard input, an answer a line."""
    from keras_videofusion.data.clips import ClipSpec
    from keras_videofusion.data.video import read_clips, VideoError

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    spec, by_time = ClipSpec(10), ClipSpec(4, fps=8.0)
    for number, line in enumerate(sys.stdin):
        path = json.loads(line)
        generator = np.random.default_rng(number)
        # The most memory from here on.
        Path("/proc/self/clear_refs").write_text("5")
        before = _memory("VmRSS")
        begin = time.perf_counter()
        try:
            clips, times = read_clips(path, spec, "random", 2, generator)
            found = "clips"
            if (
                clips.shape != (2, 10, 200, 200, 3)
                or not np.isfinite(times).all()
            ):
                found = f"shape {clips.shape}, times {times}"
            read_clips(path, by_time, "uniform", 2)
        except VideoError as error:
            found = "skipped"
            if "\n" in str(error.reason):
                found = "a message of several lines"
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - begin
        grown = _memory("VmHWM") - before
        answers.write(json.dumps([found, seconds, grown]) + "\n")
        answers.flush()


def _memory(name):
    """Megabytes."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(name):
                return int(line.split()[1]) / 1e3
    return 0.0


class Reader:
    """A process that reads; another takes its place when it crashes."""

    def __init__(self):
        self.crashes = 0
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--reader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, path):
        self.process.stdin.write(json.dumps(path) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if answer:
            return json.loads(answer)
        status = self.process.wait()
        self.start()
        return [f"crash {status}", 0.0, 0.0]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def main():
    from keras_videofusion.data.check import check

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--reader", action="store_true")
    own = parser.parse_args()
    if own.reader:
        read()
        return 0
    clips = [
        (path.name, path.read_bytes())
        for path in sorted(own.clips.rglob("*.*"))
        if path.is_file()
    ]
    counts = collections.defaultdict(collections.Counter)
    harm, slow, largest = [], [], (0.0, "")
    taken = np.zeros(2)
    reader = Reader()
    for first in range(own.first, own.first + own.files, PART):
        numbers = range(first, min(first + PART, own.first + own.files))
        with tempfile.TemporaryDirectory() as folder:
            kinds = {}
            for number in numbers:
                kind, data, name = hostile.mutant(clips, own.seed, number)
                path = os.path.join(folder, os.fsdecode(name))
                Path(path).write_bytes(data)
                kinds[os.path.basename(path)] = kind

            def note(name, how, found, seconds, folder=folder, kinds=kinds):
                counts[kinds[name]][f"{how} {found.split(':')[0][:12]}"] += 1
                if seconds > 1:
                    slow.append((seconds, how, name))
                if found not in ("clips", "skipped", "ok", "broken"):
                    harm.append((name, how, found))
                    if own.keep:
                        own.keep.mkdir(exist_ok=True)
                        shutil.copy(os.path.join(folder, name), own.keep)
                if seconds > LIMIT:
                    harm.append((name, how, f"{seconds:.0f} seconds"))

            begin = time.perf_counter()
            for name in kinds:
                found, seconds, grown = reader(os.path.join(folder, name))
                note(name, "read:", found, seconds)
                largest = max(largest, (grown, name))
            taken[0] += time.perf_counter() - begin
            begin = time.perf_counter()
            rows = list(check(folder, own.workers))
            taken[1] += time.perf_counter() - begin
            if len(rows) != len(kinds):
                harm.append((folder, "check", f"{len(rows)} rows"))
            for row in rows:
                found = "ok" if row["ok"] else "broken"
                if row["error"] and "\n" in row["error"]:
                    found = "a message of several lines"
                if row["error"] and "crashed" in row["error"]:
                    found = row["error"]
                if row["error"] and "took more than" in row["error"]:
                    found = row["error"]
                with contextlib.suppress(KeyError):
                    note(row["path"], "check:", found, 0.0)
        print(f"{numbers[-1] + 1 - own.first} files", file=sys.stderr)
    reader.close()
    for kind, found in sorted(counts.items()):
        told = ", ".join(f"{how} {n}" for how, n in sorted(found.items()))
        print(f"{kind}: {told}")
    print(
        f"{own.files} files: read in {taken[0]:.0f} s, checked in "
        f"{taken[1]:.0f} s"
    )
    for seconds, how, name in sorted(slow, reverse=True)[:5]:
        print(f"slow: {seconds:.1f} s {how} {name!r}")
    print(f"most memory for one file: {largest[0]:.0f} MB, {largest[1]!r}")
    for name, how, what in harm:
        print(f"HARM {how} {name!r}: {what}")
    return 1 if harm else 0


if __name__ == "__main__":
    sys.exit(main())

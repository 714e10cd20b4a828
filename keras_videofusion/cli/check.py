"""`videofusion check`."""

import collections
import os
import re
import sys

from keras_videofusion.cli.flags import (
    CallError,
    data_flags,
    json_flag,
    open_data,
    positive,
    verb_parser,
)
from keras_videofusion.cli.output import give, printable, Progress


def flags(verbs):
    """Adds the verb and its flags."""
    parser = verb_parser(
        verbs,
        "check",
        check,
        "decode every frame of every video, of a folder down to its ends, and "
        "tell which files are broken",
        (
            "videos/",
            "videos/ --json broken.json --cache checked.jsonl --workers 16",
            "videos/ --cache checked.jsonl --quarantine broken/ --dry-run",
            "kinetics --root data/kinetics --data-option edition=600",
        ),
    )
    data_flags(parser)
    parser.add_argument(
        "--workers",
        metavar="INT",
        type=positive,
        help="files at a time, each in a process of its own, so that no file "
        "can do harm (default: as many as processors)",
    )
    parser.add_argument(
        "--time-limit",
        metavar="SECONDS",
        type=seconds,
        help="how long a file may take (default: 60, and 20 for a megabyte)",
    )
    parser.add_argument(
        "--cache",
        metavar="FILE",
        help="remember here what was found: work that was stopped goes on "
        "where it was, and later only new and changed files are decoded",
    )
    parser.add_argument(
        "--quarantine",
        metavar="DIR",
        help="move broken files there, tree and all, with a quarantine.csv "
        "that tells why",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="with --quarantine: tell what would be moved, and move nothing",
    )
    json_flag(parser)


def seconds(text):
    """Seconds, more than 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def check(arguments):
    """`videofusion check`."""
    from keras_videofusion.data.check import check, quarantine, sources

    named = arguments.root is not None or arguments.data_options
    if not named and not os.path.lexists(arguments.data):
        raise CallError(f"no such file or folder: {arguments.data}")
    if arguments.dry_run and not arguments.quarantine:
        raise CallError("--dry-run goes with --quarantine")
    files = sources(open_data(arguments) if named else arguments.data)
    # Where the result goes to the terminal, nothing else does.
    out = sys.stderr if arguments.json == "-" else sys.stdout

    def tell(line):
        print(printable(line), file=out, flush=True)

    found = []
    for row in check(
        files,
        arguments.workers,
        Progress(len(files), "videos"),
        arguments.time_limit,
        arguments.cache,
    ):
        found.append(row)
        if not row["ok"] and arguments.json != "-":
            tell(f"BROKEN {row['path']}: {row['error']}")
    if arguments.json:
        give(found, arguments.json)
    if arguments.quarantine:
        verb = "would move" if arguments.dry_run else "moved"
        for path, kept in quarantine(
            files.root, found, arguments.quarantine, arguments.dry_run
        ):
            tell(f"left {path}: {kept}" if kept else f"{verb} {path}")
    broken = [row["error"] for row in found if not row["ok"]]
    if arguments.json != "-":
        for line in summary(found):
            tell(line)
        print(f"{len(found)} videos, {len(broken)} broken")
    return 1 if broken else 0


def summary(rows):
    """Yields lines: how long, of which kinds, sizes and rates, and why not."""
    whole = [row for row in rows if row["ok"]]
    if whole:
        hours = sum(row["seconds"] for row in whole) / 3600
        frames = sum(row["frames"] for row in whole)
        yield f"{hours:.2f} hours, {frames} frames"
    for name, values in (
        ("kinds", (os.path.splitext(r["path"])[1].lower() for r in whole)),
        ("sizes", (f"{row['width']}x{row['height']}" for row in whole)),
        ("rates", (f"{row['rate']:g}" for row in whole)),
        # What differs in its numbers alone is one reason.
        ("reasons", (re.sub(r"\d[\d.]*", "N", r["error"]) for r in rows
                     if not r["ok"])),
    ):  # fmt: skip
        counts = collections.Counter(values).most_common()
        if counts:
            told = [f"{count} of {value}" for value, count in counts[:6]]
            others = sum(count for _, count in counts[6:])
            told += [f"{others} others"] * bool(others)
            yield f"{name}: " + "; ".join(told)

"""`videofusion duplicates`."""

import argparse
import sys
from pathlib import Path

from keras_videofusion.cli.flags import (
    data_flags,
    json_flag,
    open_data,
    positive,
    verb_parser,
)
from keras_videofusion.cli.output import give, printable, Progress, share


def flags(verbs):
    """Adds the verb and its flags."""
    parser = verb_parser(
        verbs,
        "duplicates",
        duplicates,
        "find videos that are copies of others, and copies across the splits",
        (
            "videos/",
            "list.csv --cache looks.db --json copies.json",
            "videos/ --mirrored --threshold 0.5 --workers 16",
            "list.csv --csv clean.csv",
        ),
    )
    data_flags(parser)
    parser.add_argument(
        "--threshold",
        metavar="SHARE",
        type=_share,
        default=0.3,
        help="least share of the shorter video's frames that both must have "
        "(default: 0.3)",
    )
    parser.add_argument(
        "--mirrored",
        action="store_true",
        help="find mirror images too; it doubles the index",
    )
    parser.add_argument(
        "--workers",
        metavar="INT",
        type=positive,
        help="videos to decode at a time (default: as many as processors)",
    )
    parser.add_argument(
        "--cache",
        metavar="FILE",
        help="keep here what the videos look like (35 kB a minute, "
        "of short videos up to 140), so that "
        "work that was stopped goes on where it was",
    )
    parser.add_argument(
        "--csv",
        metavar="OUT",
        help="write the rows with copies in one group, so that no split parts "
        "them; rows to learn from that are copies of tested ones are left out",
    )
    json_flag(parser)


def _share(text):
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(
            f"expected more than 0 and at most 1, got {text}"
        )
    return value


def duplicates(arguments):
    """`videofusion duplicates`."""
    from keras_videofusion.data.catalog import LABELS_FILE
    from keras_videofusion.data.duplicates import duplicates, merged

    folder = Path(arguments.data)
    # Of a plain folder all videos, in whatever folders they lie.
    plain = folder.is_dir() and not (folder / LABELS_FILE).is_file()
    rows = not plain or arguments.csv or arguments.group_pattern
    data = open_data(arguments) if rows else arguments.data
    bars: dict[str, Progress] = {}

    def progress(what, done, total):
        bars.setdefault(what, Progress(total, what))(done)

    found = duplicates(
        data,
        arguments.threshold,
        arguments.mirrored,
        arguments.workers,
        arguments.cache,
        progress,
    )
    for row in found.skipped:
        line = f"skipped {row['path']}: {row['error']}"
        print(printable(line), file=sys.stderr, flush=True)
    if arguments.csv:
        clean = merged(data, found, Path(arguments.csv).parent)
        clean.save(arguments.csv)
    if arguments.json:
        give(found.to_json(), arguments.json)
    if arguments.json == "-":
        return
    # Those that spoil a test come first.
    for pair in sorted(found.pairs, key=lambda pair: not pair.straddles_split):
        print(printable(_line(pair)))
    splits = sum(pair.straddles_split for pair in found.pairs)
    print(
        f"{found.videos} videos, {len(found.skipped)} skipped; pairs of "
        f"copies: {len(found.pairs)}, across splits: {splits}"
    )
    if found.crowded or found.left_out:
        print(
            f"{found.crowded} patterns are in more than 64 videos each, and "
            f"{found.left_out} pairs of videos are less alike than those with "
            "64 others: not all of these were compared"
        )
    if arguments.csv:
        print(
            printable(
                f"{len(clean)} of {len(data)} rows in {arguments.csv}, copies "
                "in one group"
            )
        )


def _line(pair):
    """A pair in words."""
    mark = "/".join(pair.splits) + " " if pair.straddles_split else ""
    mirror = ", mirrored" if pair.mirrored else ""
    if any(pair.groups) and pair.straddles_group:
        mark += "/".join(group or "-" for group in pair.groups) + " "
    return (
        f"{mark}{pair.one} = {pair.other}: {share(pair.share)} of the shorter "
        f"({share(pair.share_one)} and {share(pair.share_other)}), the second "
        f"begins at {pair.offset:.1f} s of the first{mirror}"
    )

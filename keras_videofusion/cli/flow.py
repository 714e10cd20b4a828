"""`videofusion flow`."""

import sys
from pathlib import Path

from keras_videofusion.cli.flags import (
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
        "flow",
        flow,
        "compute the optical flow of videos, for networks that eat it",
        (
            "videos/ videos_flow/",
            "list.csv videos_flow/ --method tvl1 --workers 8",
        ),
    )
    data_flags(parser)
    parser.add_argument(
        "out",
        metavar="OUT",
        help="folder; the flow of DATA/a/1.avi becomes OUT/a/1.avi.flow. What "
        "stands there already is not computed again",
    )
    parser.add_argument(
        "--method",
        # `keras_videofusion.data.flow.METHODS`, which loads NumPy.
        choices=("tvl1", "dis", "farneback"),
        default="dis",
        help="tvl1 is the papers' and takes a third of a second a field; dis "
        "and farneback take milliseconds (default: dis)",
    )
    parser.add_argument(
        "--short-side",
        metavar="INT",
        type=positive,
        default=256,
        help="larger frames are resized first (default: 256)",
    )
    parser.add_argument(
        "--workers",
        metavar="INT",
        type=positive,
        help="videos at a time (default: as many as processors)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="compute all of it anew"
    )
    json_flag(parser)


def flow(arguments):
    """`videofusion flow`."""
    from keras_videofusion.data.catalog import LABELS_FILE
    from keras_videofusion.data.flow import compute, sources

    folder = Path(arguments.data)
    # Of a plain folder all videos, in whatever folders they lie.
    plain = folder.is_dir() and not (folder / LABELS_FILE).is_file()
    data = arguments.data if plain else open_data(arguments)
    progress = Progress(len(sources(data)), "videos")
    found = []
    for row in compute(
        data,
        arguments.out,
        arguments.method,
        arguments.short_side,
        arguments.workers,
        arguments.overwrite,
        progress,
    ):
        found.append(row)
        if row["error"]:
            line = f"skipped {row['path']}: {row['error']}"
            print(printable(line), file=sys.stderr, flush=True)
    broken = sum(not row["ok"] for row in found)
    if arguments.json:
        give(found, arguments.json)
    if arguments.json != "-":
        computed = sum(row["computed"] for row in found)
        fields = sum(row["fields"] or 0 for row in found)
        print(
            f"{len(found)} videos: {computed} computed, "
            f"{len(found) - computed - broken} stood there, {broken} broken; "
            f"{fields} fields in {printable(arguments.out)}"
        )
    return 1 if broken else 0

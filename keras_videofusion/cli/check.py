"""`videofusion check`."""

import os

from keras_videofusion.cli.flags import CallError, json_flag, verb_parser
from keras_videofusion.cli.output import give, printable


def flags(verbs):
    """Adds the verb and its flags."""
    parser = verb_parser(
        verbs,
        "check",
        check,
        "decode every video below a folder and tell which are broken",
        ("videos/", "videos/ --json broken.json"),
    )
    parser.add_argument("data", metavar="DATA", help="folder, or a video file")
    json_flag(parser)


def check(arguments):
    """`videofusion check`."""
    from keras_videofusion.data import video

    if not os.path.lexists(arguments.data):
        raise CallError(f"no such file or folder: {arguments.data}")
    found = []
    for row in video.check(arguments.data):
        found.append(row)
        if arguments.json == "-":
            continue
        if row["ok"]:
            text = (
                f"{row['frames']} frames {row['width']}x{row['height']} "
                f"{row['rate']:.2f} per second"
            )
        else:
            text = row["error"]
        mark = "ok    " if row["ok"] else "BROKEN"
        print(printable(f"{mark} {row['path']}: {text}"), flush=True)
    broken = sum(not row["ok"] for row in found)
    if arguments.json:
        give(found, arguments.json)
    if arguments.json != "-":
        print(f"{len(found)} videos, {broken} broken")
    return 1 if broken else 0

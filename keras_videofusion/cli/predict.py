"""`videofusion predict`."""

import sys

from keras_videofusion.cli.flags import (
    CallError,
    error_flag,
    flow_flag,
    json_flag,
    MODEL,
    positive,
    scoring_flags,
    verb_parser,
)
from keras_videofusion.cli.output import give, printable


def flags(verbs):
    """Adds the verb and its flags."""
    parser = verb_parser(
        verbs,
        "predict",
        predict,
        "name the classes of video files",
        (
            "runs/first clip.mp4",
            "runs/first *.avi --top 3 --json -",
            "runs/first match.mp4 --every 5",
            "runs/first clip.mp4 --overlay labelled/",
            "runs/histograms clip.mp4",
        ),
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument("videos", metavar="VIDEO", nargs="+", help="files")
    parser.add_argument(
        "--top",
        metavar="INT",
        type=positive,
        default=5,
        help="classes to name (default: 5)",
    )
    parser.add_argument(
        "--every",
        metavar="SECONDS",
        type=float,
        help="name the classes anew every so many seconds",
    )
    parser.add_argument(
        "--overlay",
        metavar="DIR",
        help="write copies of the videos with the classes drawn on them",
    )
    flow_flag(parser, "default: computed as the run's own was, else by dis")
    scoring_flags(parser)
    error_flag(parser)
    json_flag(parser)


def predict(arguments):
    """`videofusion predict`."""
    from keras_videofusion.evaluation import protocol
    from keras_videofusion.training.evaluate import describe_of, flow_of
    from keras_videofusion.training.run import open_model

    if arguments.every is not None and not arguments.every > 0:
        raise CallError(
            f"--every must be more than 0 seconds. Received: {arguments.every}"
        )
    opened = open_model(arguments.model)
    results = protocol.predict(
        opened.model,
        opened.spec,
        opened.classes,
        arguments.videos,
        top=arguments.top,
        every=arguments.every,
        overlay=arguments.overlay,
        clips=arguments.clips,
        passes=arguments.passes,
        batch=arguments.batch,
        seed=arguments.seed,
        on_error=arguments.on_error,
        flow=arguments.flow or flow_of(opened, arguments.videos),
        describe=describe_of(opened, arguments.videos),
    )
    collected = []
    for result in results:
        collected.append(result)
        if arguments.json != "-":
            _print_prediction(result)
    if arguments.json:
        give(collected, arguments.json)
    return 1 if any(result["error"] for result in collected) else 0


def _print_prediction(result):
    print(printable(result["path"]))
    if result["error"]:
        print(printable(f"  {result['error']}"), file=sys.stderr)
    for part in result.get("windows") or [result]:
        if "start" in part:
            print(f"  {part['start']:.1f} to {part['end']:.1f} s")
        for row in part["predictions"]:
            print(f"  {row['score']:6.1%}  {printable(row['class'])}")
    sys.stdout.flush()

"""`videofusion features`."""

import sys

from keras_videofusion.cli.flags import (
    data_flags,
    error_flag,
    flow_flag,
    MODEL,
    open_data,
    scoring_flags,
    verb_parser,
)
from keras_videofusion.cli.output import printable, Progress


def flags(verbs):
    """Adds the verb and its flags."""
    parser = verb_parser(
        verbs,
        "features",
        features,
        "write what a layer of a network answers to videos, as vectors",
        (
            "runs/first videos/ fc7/ --layer fc7",
            "runs/first videos/ fc7/ --layer fc7 --clips 5 --per clip",
            "s3d:kinetics400 videos/ s3d/ --clips 4 --passes 1",
            "runs/first fc7/ --layer fc7 && videofusion train fc7/ "
            "--recipe baseline2014 --run runs/on_fc7",
        ),
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    data_flags(parser, optional=True)
    parser.add_argument(
        "out", metavar="OUT", help="folder or address of the vectors"
    )
    parser.add_argument(
        "--layer",
        metavar="NAME",
        help="the layer; what it answers at every point of space and time is "
        "averaged (default: what the classifier sees)",
    )
    parser.add_argument(
        "--per",
        choices=("video", "clip"),
        default="video",
        help="a vector per video, the mean over its clips, or one per clip "
        "(default: video)",
    )
    flow_flag(parser, "default: the run's own; else computed, by dis")
    scoring_flags(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="replace vectors in OUT"
    )
    error_flag(parser)


def features(arguments):
    """`videofusion features`."""
    from keras_videofusion.training.activations import write_features
    from keras_videofusion.training.evaluate import flow_of
    from keras_videofusion.training.run import open_model

    opened = open_model(arguments.model)
    given = open_data(arguments) if arguments.data else None
    found = write_features(
        opened,
        given,
        arguments.out,
        arguments.layer,
        per=arguments.per,
        clips=arguments.clips,
        passes=arguments.passes,
        batch=arguments.batch,
        seed=arguments.seed,
        on_error=arguments.on_error,
        flow=arguments.flow or flow_of(opened, given),
        overwrite=arguments.overwrite,
        progress=lambda total: Progress(total, "videos"),
    )
    for row in found.skipped:
        line = f"skipped {row['path']}: {row['error']}"
        print(printable(line), file=sys.stderr)
    print(
        printable(
            f"{len(found)} videos, {len(found.skipped)} skipped; vectors of "
            f"{found.size:,} numbers, per video: {found.each}; in "
            f"{arguments.out}"
        )
    )
    return 1 if found.skipped else 0

"""The flags that several verbs share, and what they stand for."""

import argparse
from pathlib import Path

DATA = (
    "a folder with a folder of videos per class (a labels.csv in it wins), a "
    "CSV file with columns path,label[,group][,family][,split][,start][,end],"
    " or moving_shapes, which is drawn into --root"
)
MODEL = "a run's folder, a .keras file, or name:weights"


class CallError(ValueError):
    """Arguments that cannot be right together: exit status 2."""


def verb_parser(verbs, name, function, summary, examples):
    """Adds a verb to the command; its examples end its help."""
    parser = verbs.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog="examples:\n"
        + "".join(f"  videofusion {name} {line}\n" for line in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(verb=function)
    return parser


def data_flags(parser, optional=False):
    """DATA and what goes with it."""
    parser.add_argument(
        "data", metavar="DATA", nargs="?" if optional else None, help=DATA
    )
    parser.add_argument(
        "--root", metavar="DIR", help="folder of a data set that has a name"
    )
    parser.add_argument(
        "--group-pattern",
        metavar="REGEX",
        help="reads a video's group (source recording) off its path",
    )


def error_flag(parser):
    """What a broken video does."""
    parser.add_argument(
        "--on-error",
        choices=("skip", "raise"),
        default="skip",
        help="what a broken video does (default: skip)",
    )


def flow_flag(parser, otherwise):
    """Where flow comes from; `otherwise` says what happens without."""
    parser.add_argument(
        "--flow",
        metavar="DIR",
        help="for networks that eat optical flow: the folder that `videofusion"
        " flow` made, or tvl1, dis or farneback to compute it as clips are "
        f"read ({otherwise})",
    )


def json_flag(parser):
    """Where the result goes as JSON."""
    parser.add_argument(
        "--json", metavar="FILE", help="write the result; - for the terminal"
    )


def scoring_flags(parser):
    """The paper's test protocol."""
    parser.add_argument(
        "--clips",
        metavar="INT",
        type=positive,
        default=20,
        help="clips per video (default: 20)",
    )
    parser.add_argument(
        "--passes",
        type=int,
        choices=(1, 4),
        default=4,
        help="passes per clip: 4 are the centre and a random crop, each "
        "plain and flipped; 1 is the centre crop (default: 4)",
    )
    parser.add_argument(
        "--batch",
        metavar="INT",
        type=positive,
        default=32,
        help="clips at a time (default: 32)",
    )
    parser.add_argument(
        "--seed",
        metavar="INT",
        type=int,
        default=0,
        help="seed of clips and crops (default: 0)",
    )


def positive(text):
    """An integer, 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return value


def open_data(arguments):
    """The catalog behind DATA."""
    from keras_videofusion.data.catalog import open_catalog

    data = arguments.data
    if data == "moving_shapes" and not Path(data).exists():
        from keras_videofusion.datasets import moving_shapes

        data = arguments.root or "data/moving_shapes"
        moving_shapes.draw(data)
    elif arguments.root is not None:
        raise CallError(
            "--root goes with the name of a data set, such as moving_shapes. "
            f"Received: DATA={data}"
        )
    try:
        return open_catalog(data, group_pattern=arguments.group_pattern)
    except FileNotFoundError as error:
        raise CallError(str(error)) from error


def expect_model(name):
    """Refuses the name of a network that there is not."""
    from keras_videofusion.applications import MODELS

    if name not in MODELS:
        raise CallError(
            f"--model must be one of {', '.join(MODELS)}. Received: {name}"
        )

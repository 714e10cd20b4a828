"""The flags that several verbs share, and what they stand for."""

import argparse
import json
import sys
from pathlib import Path

from keras_videofusion.cli.output import printable

DATA = (
    "a folder with a folder of videos per class (a labels.csv in it wins), a "
    "CSV file with columns path,label[,group][,family][,split][,start][,end],"
    " a folder of shards or of vectors, or the name of a data set that lies "
    "in --root (ucf101, hmdb51, sports1m, kinetics ...; moving_shapes is "
    "drawn there)"
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
        "--data-option",
        dest="data_options",
        action="append",
        type=option,
        metavar="NAME=VALUE",
        help="argument of such a data set, as fold=2 of ucf101 or edition=600 "
        "of kinetics; may be repeated",
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


def split_flags(parser, otherwise):
    """Which rows are held out; `otherwise` says what no validation means."""
    parser.add_argument(
        "--test-split",
        metavar="SHARE",
        type=float,
        default=0.2,
        help="share of the groups held out where no row is marked test "
        "(default: 0.2)",
    )
    parser.add_argument(
        "--validation-split",
        metavar="SHARE",
        type=float,
        default=0.1,
        help="share of all groups that chooses the best epoch where no row "
        f"is marked validation; {otherwise} (default: 0.1)",
    )
    parser.add_argument(
        "--fold",
        metavar="K/N",
        type=_fold,
        help="hold out the K-th of N folds of groups",
    )


def _fold(text):
    k, slash, n = text.partition("/")
    try:
        if slash:
            return int(k), int(n)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected K/N such as 1/5, got {text!r}")


def open_split(arguments, seed):
    """The catalog behind DATA with its splits, as `split_flags` say."""
    from keras_videofusion.training.fit import split

    try:
        return split(
            open_data(arguments),
            held_out=arguments.test_split,
            validation=arguments.validation_split,
            fold=arguments.fold,
            seed=seed,
        )
    except ValueError as error:
        raise CallError(str(error)) from error


def cache_flag(parser):
    """What is kept of shards from one epoch to the next."""
    parser.add_argument(
        "--cache",
        choices=("memory", "pixels"),
        help="keep shards in memory, encoded or decoded",
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


def option(text):
    """NAME=VALUE; the value is a number, true, false, or a word."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(
            f"expected NAME=VALUE such as momentum=0.9, got {text!r}"
        )
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def positive(text):
    """An integer, 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return value


def open_data(arguments):
    """The catalog behind DATA; what is missing of it is told."""
    from keras_videofusion import datasets
    from keras_videofusion.data.catalog import open_catalog

    data, root = arguments.data, arguments.root
    options = dict(arguments.data_options or ())
    named = _named(data)
    if not named and (root is not None or options):
        raise CallError(
            "--root and --data-option go with the name of a data set: "
            f"{', '.join(datasets.DATASETS)}. Received: DATA={data}"
        )
    if not named:
        try:
            return open_catalog(data, group_pattern=arguments.group_pattern)
        except FileNotFoundError as error:
            raise CallError(str(error)) from error
    if root is None and data != "moving_shapes":
        raise CallError(
            f"{data} needs --root, the folder that it lies in; nothing is "
            f"downloaded. Received: DATA={data}"
        )
    if data == "youtube8m":
        raise CallError(
            "youtube8m publishes features, no videos: write them once as "
            f"vectors, videofusion prepare youtube8m OUT --root {root}, and "
            f"give OUT as DATA. Received: DATA={data}"
        )
    catalog = datasets.load(data, root or "data/moving_shapes", **options)
    if catalog.missing:
        first = ", ".join(catalog.missing[:3])
        print(
            printable(
                f"{len(catalog.missing)} of "
                f"{len(catalog) + len(catalog.missing)} videos are not there, "
                f"the first of them {first}"
            ),
            file=sys.stderr,
        )
    return catalog


def _named(data):
    """Whether DATA is the name of a data set."""
    from keras_videofusion import datasets

    return data in datasets.DATASETS and not Path(data).exists()


def root_of(arguments):
    """Where the videos of DATA lie, for a run that knows its rows itself.

    Returns:
        Folder or address; None without DATA.
    """
    from keras_videofusion.data.files import is_remote

    data = arguments.data
    if data is None or is_remote(data):
        return data
    if _named(data):
        return open_data(arguments).root
    return str(Path(data).parent) if Path(data).is_file() else data


def expect_model(name):
    """Refuses the name of a network that there is not."""
    from keras_videofusion.applications import MODELS

    if name not in MODELS:
        raise CallError(
            f"--model must be one of {', '.join(MODELS)}. Received: {name}"
        )

"""`videofusion histograms`."""

import sys

from keras_videofusion.baseline.settings import Settings
from keras_videofusion.cli.flags import (
    CallError,
    data_flags,
    error_flag,
    json_flag,
    open_split,
    option,
    positive,
    split_flags,
    verb_parser,
)
from keras_videofusion.cli.output import give, printable, Progress


def flags(verbs):
    """Adds the verb and its flags."""
    parser = verb_parser(
        verbs,
        "histograms",
        histograms,
        "describe videos by hand-made features, the baseline to beat",
        (
            "videos/ histograms/",
            "list.csv fold1/ --fold 1/10 --keep descriptors/",
            "list.csv fold2/ --fold 2/10 --keep descriptors/ --seed 1",
            "videos/ small/ --set hog_dense_words=400 --set fit=stretch",
            "videos/ histograms/ && videofusion train histograms/ "
            "--recipe baseline2014 --run runs/baseline",
        ),
    )
    data_flags(parser)
    parser.add_argument(
        "out",
        metavar="OUT",
        help="folder or address of the vectors and of codebooks.npz, the "
        "words. Work that was stopped goes on where it was",
    )
    split_flags(parser, "0: none, and words are learned from those rows too")
    what = parser.add_argument_group("what is described")
    what.add_argument(
        "--size",
        metavar="INT",
        type=positive,
        help=f"side of the resized frame (default: {Settings.side})",
    )
    what.add_argument(
        "--resize",
        choices=("square", "stretch"),  # `baseline.settings.FITS`
        help="the central square of each frame, or all of it "
        f"(default: {Settings.fit})",
    )
    what.add_argument(
        "--set",
        dest="changes",
        metavar="NAME=VALUE",
        action="append",
        type=option,
        default=[],
        help="a field of keras_videofusion.baseline.settings.Settings, such "
        "as cuboid_points_words=400 or neighbours=1; may be repeated",
    )
    what.add_argument(
        "--seed",
        metavar="INT",
        type=int,
        default=0,
        help="seed of the splits, of the sample that words are learned from, "
        "and of the words (default: 0)",
    )
    work = parser.add_argument_group("how")
    work.add_argument(
        "--keep",
        metavar="DIR",
        help="keep all descriptors here, some 250 kB a frame, so that other "
        "folds, seeds and vocabularies need not compute them again",
    )
    work.add_argument(
        "--workers",
        metavar="INT",
        type=positive,
        help="videos at a time (default: as many as processors)",
    )
    work.add_argument(
        "--overwrite",
        action="store_true",
        help="replace histograms of another call that stand in OUT",
    )
    error_flag(work)
    json_flag(parser)


def histograms(arguments):
    """`videofusion histograms`."""
    from keras_videofusion.baseline.histograms import compute

    settings = _settings(arguments)
    bars = {}

    def progress(what, done, total):
        if what not in bars:
            bars[what] = Progress(total, what)
        bars[what](done)

    found = compute(
        open_split(arguments, arguments.seed),
        arguments.out,
        settings,
        seed=arguments.seed,
        workers=arguments.workers,
        keep=arguments.keep,
        overwrite=arguments.overwrite,
        on_error=arguments.on_error,
        progress=progress,
    )
    for row in found["skipped"]:
        line = f"skipped {row['path']}: {row['error']}"
        print(printable(line), file=sys.stderr)
    if arguments.json:
        give(found, arguments.json)
    if arguments.json != "-":
        print(_told(found, settings, arguments.out))
    return 1 if found["skipped"] else 0


def _settings(arguments):
    """The settings that the flags ask for."""
    changes = {
        name: value
        for name, value in (("side", arguments.size), ("fit", arguments.resize))
        if value is not None
    }
    try:
        return Settings.from_json({**changes, **dict(arguments.changes)})
    except ValueError as error:
        raise CallError(str(error)) from error


def _told(found, settings, out):
    """What was done, in a line or two."""
    lines = [
        f"{found['videos']} videos of {found['size']:,} numbers, "
        f"{len(found['skipped'])} skipped, words learned from "
        f"{found['learned_from']}, in {printable(out)}"
    ]
    if found["computed"]:
        rate = found["frames"] / max(found["seconds"], 1e-3)
        lines[0] += (
            f": {found['computed']} described, {found['frames']} frames in "
            f"{found['seconds']:.0f} s ({rate:.1f} a second)"
        )
    few = [
        f"{block.name} {found['words'][block.name]} of {block.words}"
        for block in settings.blocks
        if found["words"].get(block.name, block.words) < block.words
    ]
    if few:
        lines.append(
            "fewer different descriptors than words to learn: " + ", ".join(few)
        )
    return "\n".join(lines)

"""The command line: one verb is parse, call, print.

At the top only what needs neither NumPy nor Keras is imported, so that
`--help`, `--version` and wrong arguments are answered at once; a verb imports
its room when it runs.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from keras_videofusion.training.recipe import Recipe, RECIPES
from keras_videofusion.version import __version__

DATA = (
    "a folder with a folder of videos per class (a labels.csv in it wins), a "
    "CSV file with columns path,label[,group][,family][,split][,start][,end],"
    " or moving_shapes, which is drawn into --root"
)
MODEL = "a run's folder, a .keras file, or name:weights"
TOP = """\
examples:
  videofusion train videos/ --model slow_fusion --run runs/first
  videofusion evaluate runs/first
  videofusion predict runs/first clip.mp4
  videofusion report runs/first --out runs/first
"""


class CallError(ValueError):
    """Arguments that cannot be right together: exit status 2."""


def parse(argv=None):
    """Reads the arguments; prints help or a usage error and exits if due.

    Args:
        argv: List of strings; the process's own if not given.

    Returns:
        `argparse.Namespace` with the verb's function as `verb`.

    Raises:
        SystemExit: 0 after `--help` and `--version`, 2 if the call is wrong.
    """
    parser = argparse.ArgumentParser(
        prog="videofusion",
        description="Video classification for Keras 3.",
        epilog=TOP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"videofusion {__version__}"
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for add in (
        _train_flags,
        _evaluate_flags,
        _predict_flags,
        _report_flags,
        _check_flags,
        _flow_flags,
        _fuse_flags,
        _benchmark_flags,
        _models_flags,
    ):
        add(verbs)
    return parser.parse_args(argv)


def run(arguments):
    """Runs the verb that `parse` found.

    Args:
        arguments: What `parse` returned.

    Returns:
        Exit status; an error is one line on standard error.
    """
    try:
        return arguments.verb(arguments) or 0
    except CallError as error:
        return _failed(error, 2)
    except KeyboardInterrupt:
        return _failed("interrupted", 130)
    except BrokenPipeError:
        # The reader of a pipe has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        if os.environ.get("KVF_TRACEBACK"):
            raise
        return _failed(error, 1)


@contextmanager
def quiet():
    """Keeps TensorFlow's start-up notes off the terminal.

    They are written by its libraries while these load, past every setting;
    so for that while nothing reaches standard error. An exception does.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if os.environ.get("KVF_TRACEBACK"):
        yield
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _failed(error, status):
    line = " ".join(str(error).split()) or type(error).__name__
    print(f"videofusion: {_printable(line)}", file=sys.stderr)
    return status


def _printable(text):
    """Text that any terminal takes, whatever bytes a name is made of."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _verb(verbs, name, function, summary, examples):
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


def _data_flags(parser, optional=False):
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


def _error_flag(parser):
    parser.add_argument(
        "--on-error",
        choices=("skip", "raise"),
        default="skip",
        help="what a broken video does (default: skip)",
    )


def _flow_flag(parser, otherwise):
    parser.add_argument(
        "--flow",
        metavar="DIR",
        help="for networks that eat optical flow: the folder that `videofusion"
        " flow` made, or tvl1, dis or farneback to compute it as clips are "
        f"read ({otherwise})",
    )


def _json_flag(parser):
    parser.add_argument(
        "--json", metavar="FILE", help="write the result; - for the terminal"
    )


def _recipe_flags(parser):
    """A flag per field of `Recipe`, so that the two cannot drift apart."""
    group = parser.add_argument_group("recipe (each overrides --recipe)")
    for part in dataclasses.fields(Recipe):
        flag = "--" + part.name.replace("_", "-")
        help = part.metadata["help"].replace("%", "%%")
        if part.name == "options":
            group.add_argument(
                "--option",
                dest="options",
                action="append",
                type=_option,
                metavar="NAME=VALUE",
                help=help,
            )
            continue
        if part.default is not None:
            help += f" (default: {part.default})"
        if isinstance(part.default, bool):
            group.add_argument(
                flag,
                action=argparse.BooleanOptionalAction,
                default=None,
                help=help.replace(f" (default: {part.default})", ""),
            )
            continue
        kind = part.metadata["kind"]
        group.add_argument(
            flag,
            type=kind,
            choices=part.metadata["choices"],
            metavar=None if part.metadata["choices"] else kind.__name__.upper(),
            help=help,
        )


def _option(text):
    """An argument of a builder: a number, true, false, or a word."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(
            f"expected NAME=VALUE such as momentum=0.9, got {text!r}"
        )
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _recipe_of(arguments, base):
    """`base` with the flags that were given."""
    given = {
        part.name: getattr(arguments, part.name)
        for part in dataclasses.fields(Recipe)
        if getattr(arguments, part.name) is not None
    }
    if "options" in given:
        given["options"] = {**base.options, **dict(given["options"])}
    try:
        return dataclasses.replace(base, **given)
    except ValueError as error:
        raise CallError(str(error)) from error


def _open_data(arguments):
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


def _give(value, path):
    """Writes JSON to a file, whole or not at all, or to the terminal."""
    from keras_videofusion.data.files import write_text

    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    if path == "-":
        sys.stdout.write(text)
    else:
        write_text(path, text)


def _share(value):
    return "-" if value is None else f"{100 * value:.1f} %"


class Progress:
    """Tells how far long work has come: a line that moves on a terminal.

    Elsewhere a plain line every tenth of the way. It writes to standard
    error, so that a result on standard output stays whole.
    """

    def __init__(self, total, what):
        self.total = total
        self.what = what
        self.begun = time.monotonic()
        self.told = 0

    def __call__(self, done):
        seconds = time.monotonic() - self.begun
        left = seconds / max(done, 1) * (self.total - done)
        line = f"{done} of {self.total} {self.what}, {left:.0f} s left"
        if sys.stderr.isatty():
            end = "\n" if done == self.total else ""
            print(f"\r{line:<60}{end}", end="", file=sys.stderr, flush=True)
        elif 10 * done // max(self.total, 1) > self.told:
            self.told = 10 * done // self.total
            print(line, file=sys.stderr, flush=True)


# train


def _fold(text):
    k, slash, n = text.partition("/")
    try:
        if slash:
            return int(k), int(n)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected K/N such as 1/5, got {text!r}")


def _train_flags(verbs):
    parser = _verb(
        verbs,
        "train",
        train,
        "train a network on labelled videos",
        (
            "videos/ --model slow_fusion --run runs/first",
            "list.csv --recipe small --fold 1/5 --run runs/fold1",
            "--resume --run runs/first",
            "moving_shapes --model slow_fusion --width 0.125 --run runs/shapes",
        ),
    )
    _data_flags(parser, optional=True)
    parser.add_argument(
        "--run", metavar="DIR", required=True, help="folder of the run"
    )
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default="karpathy2014",
        help="recipe to start from (default: karpathy2014)",
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="weights to start from"
    )
    _flow_flag(parser, "needed by such networks")
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
        "is marked validation; 0: training loss chooses (default: 0.1)",
    )
    parser.add_argument(
        "--fold",
        metavar="K/N",
        type=_fold,
        help="hold out the K-th of N folds of groups",
    )
    stands = parser.add_mutually_exclusive_group()
    stands.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in the folder; starts one in an empty folder",
    )
    stands.add_argument(
        "--overwrite", action="store_true", help="replace the run there"
    )
    _error_flag(parser)
    _recipe_flags(parser)


def train(arguments):
    """`videofusion train`."""
    from keras_videofusion.training import fit
    from keras_videofusion.training.run import Run

    run = Run(arguments.run)
    if arguments.resume and run.exists:
        # The folder knows its recipe and its rows; DATA, if given, says
        # where the videos are now.
        recipe = _recipe_of(arguments, run.recipe)
        catalog = run.catalog(root=arguments.data)
    elif arguments.data is None:
        raise CallError(
            "train needs DATA, unless --resume finds a run in --run. "
            f"Received: --run {arguments.run}"
        )
    else:
        recipe = _recipe_of(arguments, RECIPES[arguments.recipe])
        _expect_model(recipe.model)
        try:
            catalog = fit.split(
                _open_data(arguments),
                held_out=arguments.test_split,
                validation=arguments.validation_split,
                fold=arguments.fold,
                seed=recipe.seed,
            )
        except ValueError as error:
            raise CallError(str(error)) from error
    fit.train(
        recipe,
        catalog,
        run.folder,
        weights=arguments.weights,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        on_error=arguments.on_error,
        flow=arguments.flow,
        say=lambda line: print(_printable(line), flush=True),
    )


def _expect_model(name):
    from keras_videofusion.applications import MODELS

    if name not in MODELS:
        raise CallError(
            f"--model must be one of {', '.join(MODELS)}. Received: {name}"
        )


# evaluate


def _evaluate_flags(verbs):
    parser = _verb(
        verbs,
        "evaluate",
        evaluate,
        "score a network by the paper's protocol",
        (
            "runs/first",
            "runs/first --clips 20 --passes 4 --json metrics.json",
            "runs/first other_videos/ --split all",
        ),
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    _data_flags(parser, optional=True)
    parser.add_argument(
        "--split",
        default="test",
        help="rows to score: test, validation, or all, which scores rows that "
        "were trained on too (default: test)",
    )
    _flow_flag(parser, "default: the run's own; else computed, by dis")
    _scoring_flags(parser)
    _error_flag(parser)
    _json_flag(parser)


def _scoring_flags(parser):
    parser.add_argument(
        "--clips",
        metavar="INT",
        type=_positive,
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
        type=_positive,
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


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return value


def evaluate(arguments):
    """`videofusion evaluate`."""
    from keras_videofusion.training.evaluate import evaluate, flow_of, rows_of
    from keras_videofusion.training.run import open_model

    opened = open_model(arguments.model)
    given = _open_data(arguments) if arguments.data else None
    catalog = rows_of(opened, given, arguments.split)
    metrics = evaluate(
        opened,
        catalog,
        clips=arguments.clips,
        passes=arguments.passes,
        batch=arguments.batch,
        seed=arguments.seed,
        on_error=arguments.on_error,
        flow=arguments.flow or flow_of(opened, given),
        progress=Progress(len(catalog), "videos"),
    )
    if arguments.json:
        _give(metrics, arguments.json)
    if arguments.json == "-":
        return
    for skipped in metrics["skipped"]:
        print(_printable(f"skipped {skipped['path']}: {skipped['error']}"))
    print(
        f"{metrics['videos']} videos, {metrics['clips']} clips, "
        f"{len(metrics['skipped'])} skipped\n"
        f"clip Hit@1   {_share(metrics['clip_hit_at_1'])}\n"
        f"video Hit@1  {_share(metrics['video_hit_at_1'])}\n"
        f"video Hit@5  {_share(metrics['video_hit_at_5'])}\n"
        f"mAP          {_share(metrics['mean_average_precision'])}"
    )
    for title, part in (("class", "per_class"), ("family", "per_family")):
        if metrics[part]:
            width = max(len(_printable(name)) for name in metrics[part])
            print(f"\n{title:<{width}}  videos   Hit@1      AP")
        for name, row in metrics[part].items():
            print(
                f"{_printable(name):<{width}}  {row['videos']:>6} "
                f"{_share(row['hit_at_1']):>8} "
                f"{_share(row['average_precision']):>8}"
            )


# predict


def _predict_flags(verbs):
    parser = _verb(
        verbs,
        "predict",
        predict,
        "name the classes of video files",
        (
            "runs/first clip.mp4",
            "runs/first *.avi --top 3 --json -",
            "runs/first match.mp4 --every 5",
            "runs/first clip.mp4 --overlay labelled/",
        ),
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument("videos", metavar="VIDEO", nargs="+", help="files")
    parser.add_argument(
        "--top",
        metavar="INT",
        type=_positive,
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
    _flow_flag(parser, "default: computed as the run's own was, else by dis")
    _scoring_flags(parser)
    _error_flag(parser)
    _json_flag(parser)


def predict(arguments):
    """`videofusion predict`."""
    from keras_videofusion.evaluation import protocol
    from keras_videofusion.training.evaluate import flow_of
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
    )
    collected = []
    for result in results:
        collected.append(result)
        if arguments.json != "-":
            _print_prediction(result)
    if arguments.json:
        _give(collected, arguments.json)
    return 1 if any(result["error"] for result in collected) else 0


def _print_prediction(result):
    print(_printable(result["path"]))
    if result["error"]:
        print(_printable(f"  {result['error']}"), file=sys.stderr)
    for part in result.get("windows") or [result]:
        if "start" in part:
            print(f"  {part['start']:.1f} to {part['end']:.1f} s")
        for row in part["predictions"]:
            print(f"  {row['score']:6.1%}  {_printable(row['class'])}")
    sys.stdout.flush()


# report


def _report_flags(verbs):
    parser = _verb(
        verbs,
        "report",
        report,
        "write a page with tables and pictures of runs",
        ("runs/first runs/second --out runs",),
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run's folder")
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="folder of report.html"
    )


def report(arguments):
    """`videofusion report`."""
    from keras_videofusion.evaluation.report import write_report
    from keras_videofusion.training.run import Run, RunError

    runs = {}
    for folder in arguments.runs:
        run = Run(folder)
        if not run.exists:
            raise RunError(f"{folder} is not a run's folder.")
        name = run.folder.resolve().name
        while name in runs:
            name = f"{name}'"
        runs[name] = run.folder
    print(write_report(runs, arguments.out))


# check


def _check_flags(verbs):
    parser = _verb(
        verbs,
        "check",
        check,
        "decode every video below a folder and tell which are broken",
        ("videos/", "videos/ --json broken.json"),
    )
    parser.add_argument("data", metavar="DATA", help="folder, or a video file")
    _json_flag(parser)


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
        print(_printable(f"{mark} {row['path']}: {text}"), flush=True)
    broken = sum(not row["ok"] for row in found)
    if arguments.json:
        _give(found, arguments.json)
    if arguments.json != "-":
        print(f"{len(found)} videos, {broken} broken")
    return 1 if broken else 0


# flow


def _flow_flags(verbs):
    parser = _verb(
        verbs,
        "flow",
        flow,
        "compute the optical flow of videos, for networks that eat it",
        (
            "videos/ videos_flow/",
            "list.csv videos_flow/ --method tvl1 --workers 8",
        ),
    )
    _data_flags(parser)
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
        type=_positive,
        default=256,
        help="larger frames are resized first (default: 256)",
    )
    parser.add_argument(
        "--workers",
        metavar="INT",
        type=_positive,
        help="videos at a time (default: as many as processors)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="compute all of it anew"
    )
    _json_flag(parser)


def flow(arguments):
    """`videofusion flow`."""
    from keras_videofusion.data.catalog import LABELS_FILE
    from keras_videofusion.data.flow import compute, sources

    folder = Path(arguments.data)
    # Of a plain folder all videos, in whatever folders they lie.
    plain = folder.is_dir() and not (folder / LABELS_FILE).is_file()
    data = arguments.data if plain else _open_data(arguments)
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
            print(_printable(line), file=sys.stderr, flush=True)
    broken = sum(not row["ok"] for row in found)
    if arguments.json:
        _give(found, arguments.json)
    if arguments.json != "-":
        computed = sum(row["computed"] for row in found)
        fields = sum(row["fields"] or 0 for row in found)
        print(
            f"{len(found)} videos: {computed} computed, "
            f"{len(found) - computed - broken} stood there, {broken} broken; "
            f"{fields} fields in {_printable(arguments.out)}"
        )
    return 1 if broken else 0


# fuse


def _fuse_flags(verbs):
    parser = _verb(
        verbs,
        "fuse",
        fuse,
        "join a run that eats RGB and one that eats flow into a run of both",
        (
            "runs/spatial runs/temporal --run runs/two_stream",
            "runs/rgb runs/flow --by logits --shares 1 1 --run runs/both",
            "runs/spatial runs/temporal --by svm --run runs/machine",
        ),
    )
    parser.add_argument("rgb", metavar="RGB_RUN", help="run that eats RGB")
    parser.add_argument("flow", metavar="FLOW_RUN", help="run that eats flow")
    parser.add_argument(
        "--run", metavar="DIR", required=True, help="folder of the new run"
    )
    parser.add_argument(
        "--by",
        # `keras_videofusion.training.fusion.WAYS`, which loads Keras.
        choices=("probabilities", "logits", "svm"),
        default="probabilities",
        help="what is fused: averaged probabilities, added logits, or "
        "probabilities that a linear machine reads (default: probabilities)",
    )
    parser.add_argument(
        "--shares",
        metavar=("RGB", "FLOW"),
        nargs=2,
        type=float,
        default=(0.5, 0.5),
        help="weights of the two (default: 0.5 0.5)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the run there"
    )


def fuse(arguments):
    """`videofusion fuse`."""
    from keras_videofusion.training.fusion import fuse
    from keras_videofusion.training.run import Run, RunError

    rgb, flow = Run(arguments.rgb), Run(arguments.flow)
    for run in (rgb, flow):
        if not run.exists:
            raise RunError(f"{run.folder} is not a run's folder.")
    fuse(
        rgb,
        flow,
        arguments.run,
        by=arguments.by,
        shares=arguments.shares,
        overwrite=arguments.overwrite,
        say=lambda line: print(_printable(line), flush=True),
    )


# benchmark


def _benchmark_flags(verbs):
    parser = _verb(
        verbs,
        "benchmark",
        benchmark,
        "measure clips per second of networks and of the input pipeline",
        (
            "--model slow_fusion --width 0.25",
            "--pipeline videos/ --model slow_fusion",
        ),
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        action="append",
        help="network; may be repeated (default: slow_fusion)",
    )
    parser.add_argument(
        "--pipeline",
        metavar="DATA",
        help="measure reading these videos too, and name the bottleneck",
    )
    _flow_flag(parser, "needed by such networks with --pipeline")
    parser.add_argument(
        "--task",
        choices=("train", "infer", "both"),
        default="both",
        help="what to measure of the network (default: both)",
    )
    parser.add_argument("--width", metavar="FLOAT", type=float, default=1.0)
    parser.add_argument("--batch", metavar="INT", type=_positive, default=16)
    parser.add_argument("--steps", metavar="INT", type=_positive, default=10)
    _json_flag(parser)


# models


def _models_flags(verbs):
    parser = _verb(
        verbs,
        "models",
        models,
        "list the networks: clip, parameters, multiply-adds, weights",
        ("", "--json models.json"),
    )
    _json_flag(parser)


def models(arguments):
    """`videofusion models`."""
    from keras_videofusion.applications import clip_spec, costs_table

    rows = costs_table()
    if arguments.json:
        _give(rows, arguments.json)
    if arguments.json == "-":
        return
    width = max(len(row["name"]) for row in rows)
    print(
        f"{'name':<{width}}  frames     size  streams     parameters     GMACs"
        "  weights"
    )
    for row in rows:
        height, breadth = row["size"]
        streams = "+".join(clip_spec(row["name"]).streams)
        print(
            f"{row['name']:<{width}}  {row['frames']:>6}  "
            f"{f'{height}x{breadth}':>7}  {streams:<8}  "
            f"{row['parameters']:>12,}  "
            f"{row['macs'] / 1e9:>8.3f}  {', '.join(row['weights']) or '-'}"
        )


def benchmark(arguments):
    """`videofusion benchmark`."""
    from keras_videofusion import benchmark as bench
    from keras_videofusion.applications import clip_spec
    from keras_videofusion.data.catalog import open_catalog

    names = arguments.model or ["slow_fusion"]
    for name in names:
        _expect_model(name)
    tasks = {"both": ("infer", "train")}.get(arguments.task, (arguments.task,))
    catalog = None
    if arguments.pipeline:
        try:
            catalog = open_catalog(arguments.pipeline)
        except FileNotFoundError as error:
            raise CallError(str(error)) from error
    rows, verdicts = [], []
    for name in names:
        networks = [
            bench.benchmark_network(
                name,
                arguments.batch,
                arguments.steps,
                task,
                width=arguments.width,
            )
            for task in tasks
        ]
        rows += networks
        if catalog is not None:
            pipeline = bench.benchmark_pipeline(
                catalog,
                clip_spec(name),
                arguments.batch,
                arguments.steps,
                arguments.flow,
            )
            rows.append({**pipeline, "name": f"pipeline for {name}"})
            verdicts += [bench.bottleneck(row, pipeline) for row in networks]
    if arguments.json:
        _give(rows, arguments.json)
    if arguments.json == "-":
        return
    for row in rows:
        print(
            f"{row['name']:<32} {row['task']:<6} "
            f"{row['clips_per_second']:>9.1f} clips per second"
        )
    for verdict in verdicts:
        print(verdict)

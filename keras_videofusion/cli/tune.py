"""`videofusion tune`."""

import sys
from argparse import BooleanOptionalAction

from keras_videofusion.cli.flags import (
    cache_flag,
    CallError,
    data_flags,
    error_flag,
    flow_flag,
    json_flag,
    MODEL,
    open_split,
    positive,
    split_flags,
    verb_parser,
)
from keras_videofusion.cli.output import give, printable, share
from keras_videofusion.cli.train import recipe_flags, recipe_of
from keras_videofusion.training.recipe import RECIPES

# A search finds the network by itself, and trains on one device.
FIXED = ("model", "strategy")
SHARING = """\
Several processes share a search: start this command in each, with
KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT, where the chief listens, and
KERASTUNER_TUNER_ID=chief in one, worker0, worker1 ... in the others. Each
search takes a port, the one that is given and the next. The chief trains
nothing until the trials are done, and then the best; the folder is its own.
"""


def flags(verbs):
    """Adds the verb, its two subjects and their flags."""
    parser = verb_parser(
        verbs,
        "tune",
        None,
        "search for good hyperparameters, and train the best",
        (
            "baseline histograms/ --run runs/baseline --trials 30",
            "baseline histograms/ --run runs/baseline --tuner hyperband "
            "--epochs 50 --validation-folds 3",
            "finetune runs/shapes videos/ --train top3 --run runs/moved",
        ),
    )
    subjects = parser.add_subparsers(metavar="WHAT", required=True)
    _baseline_flags(subjects)
    _finetune_flags(subjects)


def _baseline_flags(subjects):
    parser = verb_parser(
        subjects,
        "baseline",
        baseline,
        "search for a network upon vectors, and a linear model beside it",
        (),
    )
    parser.description += (
        " DATA is a folder of vectors, as `videofusion histograms` and "
        "`videofusion features` write them. Learning rate, weight decay, one "
        "hidden layer or two, their units and the dropout before every layer "
        "are searched; of the linear model, with as many trials, what it has "
        "of these. The best of each, the recipe as it was given among them, is "
        "trained as `videofusion train` does, into RUN and RUN-linear; the "
        "searches stand in RUN-search and RUN-linear-search."
    )
    parser.epilog = (
        "examples:\n"
        "  videofusion tune baseline histograms/ --run runs/baseline\n"
        "  videofusion tune baseline histograms/ --run runs/baseline --tuner "
        "bayesian --trials 40 --validation-folds 3\n"
        "  videofusion tune baseline histograms/ --run runs/baseline --resume"
        f"\n\n{SHARING}"
    )
    data_flags(parser)
    _recipe_flag(parser, "baseline2014")
    _search_flags(parser)
    parser.add_argument(
        "--linear",
        action=BooleanOptionalAction,
        default=True,
        help="search a linear model too",
    )
    parser.add_argument(
        "--units",
        metavar=("FEWEST", "MOST"),
        nargs=2,
        type=positive,
        default=(512, 4096),
        help="units of a hidden layer, doubled from one to the other "
        "(default: 512 4096)",
    )
    recipe_flags(
        parser,
        without=(
            *FIXED, "size", "resize", "frames", "fps", "step", "sampler",
            "augment", "jitter", "train", "old_rate", "top_dropout",
            "cache_activations",
        ),
    )  # fmt: skip


def _finetune_flags(subjects):
    parser = verb_parser(
        subjects,
        "finetune",
        finetune,
        "search for how a trained network learns other classes",
        (),
    )
    parser.description += (
        " The dropout of the layers that learn, the learning rate and, where "
        "layers that came with weights learn, their share of it are searched."
        " The best is trained into RUN; the search stands in RUN-search."
    )
    parser.epilog = (
        "examples:\n"
        "  videofusion tune finetune runs/shapes videos/ --train top --run "
        "runs/top\n"
        "  videofusion tune finetune s3d:kinetics400 videos/ --train top3 "
        f"--trials 12 --run runs/top3\n\n{SHARING}"
    )
    parser.add_argument("source", metavar="MODEL", help=MODEL)
    data_flags(parser)
    _recipe_flag(parser, "karpathy2014")
    flow_flag(parser, "needed by such networks")
    _search_flags(parser)
    recipe_flags(parser, without=FIXED)


def _recipe_flag(parser, default):
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default=default,
        help=f"recipe to start from (default: {default})",
    )


def _search_flags(parser):
    parser.add_argument(
        "--run", metavar="DIR", required=True, help="folder of the run"
    )
    parser.add_argument(
        "--tuner",
        # `keras_videofusion.training.tuning.TUNERS`, which loads Keras.
        choices=("random", "bayesian", "hyperband"),
        default="random",
        help="how trials are chosen (default: random); hyperband trains many "
        "for few epochs and the best of them for --epochs",
    )
    parser.add_argument(
        "--trials",
        metavar="INT",
        type=positive,
        help="trials of each search at the most (default: 20; of hyperband as "
        "many as it takes)",
    )
    parser.add_argument(
        "--objective",
        choices=("val_loss", "val_hit_at_1"),
        default="val_loss",
        help="what the best trial is best in, each in its epoch of the least "
        "loss of validation; Hit@1 of few videos ties (default: val_loss)",
    )
    parser.add_argument(
        "--validation-folds",
        metavar="N",
        type=positive,
        default=1,
        help="score every trial by the mean over N folds of the rows that are "
        "no test's, whole recordings at a time; 1: by the validation rows "
        "(default: 1)",
    )
    split_flags(parser, "0: only with --validation-folds")
    cache_flag(parser)
    stands = parser.add_mutually_exclusive_group()
    stands.add_argument(
        "--resume",
        action="store_true",
        help="go on with the search in the folder, with more --trials if "
        "more are given; starts one in an empty folder",
    )
    stands.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the search and the run there",
    )
    error_flag(parser)
    json_flag(parser)


def baseline(arguments):
    """`videofusion tune baseline`."""
    from keras_videofusion.data.vectors import read_vectors
    from keras_videofusion.training import spaces

    recipe = recipe_of(arguments, RECIPES[arguments.recipe])
    if recipe.model != "feature_mlp":
        raise CallError(
            "tune baseline searches feature_mlp: pass --recipe baseline2014. "
            f"Received: --recipe {arguments.recipe} of {recipe.model}"
        )
    catalog = open_split(arguments, recipe.seed)
    vectors = read_vectors(catalog.root)
    if vectors is None:
        raise CallError(
            "tune baseline needs a folder of vectors: make one with "
            f"videofusion histograms. Received: DATA={arguments.data}"
        )
    given = {
        "input_shape": (vectors.size,),
        "classes": len(catalog.classes),
        "recipe": recipe,
    }
    found = {"": spaces.HyperFeatureMLP(units=arguments.units, **given)}
    if arguments.linear:
        found["-linear"] = spaces.HyperLinear(**given)
    _tune(arguments, found, catalog, recipe)


def finetune(arguments):
    """`videofusion tune finetune`."""
    from keras_videofusion.training.build import clip_of, recipe_after
    from keras_videofusion.training.spaces import HyperFinetune

    base = recipe_after(arguments.source, RECIPES[arguments.recipe])
    recipe = recipe_of(arguments, base)
    catalog = open_split(arguments, recipe.seed)
    shapes = clip_of(recipe).shapes
    space = HyperFinetune(
        input_shape=shapes if len(shapes) > 1 else next(iter(shapes.values())),
        classes=len(catalog.classes),
        recipe=recipe,
        weights=None if recipe.train == "scratch" else arguments.source,
    )
    _tune(arguments, {"": space}, catalog, recipe)


def _tune(arguments, found, catalog, recipe):
    """Searches and trains; prints what came of it."""
    from keras_videofusion.training.tuning import tune

    quiet = arguments.json == "-"

    def say(line):
        # A result on standard output stays whole.
        stream = sys.stderr if quiet else sys.stdout
        print(printable(line), file=stream, flush=True)

    tuned = tune(
        found,
        catalog,
        arguments.run,
        tuner=arguments.tuner,
        trials=arguments.trials,
        folds=arguments.validation_folds,
        objective=arguments.objective,
        seed=recipe.seed,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        on_error=arguments.on_error,
        flow=getattr(arguments, "flow", None),
        cache=arguments.cache,
        verbose=0 if quiet else "auto",
        say=say,
    )
    if arguments.json and tuned:
        give([_told(one) for one in tuned], arguments.json)
    if quiet or not tuned:
        return
    folds = arguments.validation_folds
    scored = "validation" if folds == 1 else f"{folds} folds"
    print(f"\n{'':<24}{'loss':>10}{'Hit@1':>10}   of")
    for one in tuned:
        name = "linear" if one.name == "-linear" else recipe.model
        best = one.found.best
        for title, row, rows in (
            (f"{name}, untuned", best["untuned"], scored),
            (f"{name}, best", best, scored),
            (f"{name}, trained", one.validation, "validation"),
        ):
            print(f"{_line(title, row)}   {rows}")
    for one in tuned:
        _print_best(one)


def _line(title, row):
    loss = row.get("val_loss")
    return (
        f"{title:<24}{'-' if loss is None else f'{loss:.4f}':>10}"
        f"{share(row.get('val_hit_at_1')):>10}"
    )


def _print_best(one):
    """What was searched, and the best trial's hyperparameters."""
    rows, best = one.found.rows, one.found.best
    failed = sum(row["status"] != "COMPLETED" for row in rows)
    print(
        printable(
            f"\n{one.run.folder}: {one.found.name}, the best of {len(rows)} "
            f"trials{f', {failed} of which failed,' * bool(failed)} and of the "
            "recipe as given"
        )
    )
    for name, value in best["values"].items():
        print(f"  {name:<16}{value}")


def _told(one):
    """A search and its run as JSON."""
    best = one.found.best
    names = ("val_loss", "val_hit_at_1")
    return {
        "run": str(one.run.folder),
        "search": one.found.folder,
        "trials": len(one.found.rows),
        "failed": sum(row["status"] != "COMPLETED" for row in one.found.rows),
        "objective": best["objective"],
        "best": {
            "trial": best["trial"],
            **{name: best[name] for name in names},
            "values": best["values"],
        },
        "untuned": best["untuned"],
        "trained": one.validation or None,
    }

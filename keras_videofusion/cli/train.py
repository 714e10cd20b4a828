"""`videofusion train`."""

import argparse
import dataclasses

from keras_videofusion.cli.flags import (
    cache_flag,
    CallError,
    data_flags,
    error_flag,
    expect_model,
    flow_flag,
    open_split,
    option,
    positive,
    root_of,
    split_flags,
    verb_parser,
)
from keras_videofusion.cli.output import printable
from keras_videofusion.training.recipe import Recipe, RECIPES


def _steps(text):
    first, comma, last = text.partition(",")
    try:
        if comma and 1 <= int(first) <= int(last):
            return int(first), int(last)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(
        f"expected FIRST,LAST such as 20,30, got {text!r}"
    )


def flags(verbs):
    """Adds the verb and its flags."""
    parser = verb_parser(
        verbs,
        "train",
        train,
        "train a network on labelled videos",
        (
            "videos/ --model slow_fusion --run runs/first",
            "list.csv --recipe small --fold 1/5 --run runs/fold1",
            "--resume --run runs/first",
            "histograms/ --recipe baseline2014 --run runs/baseline",
            "list.csv --model c3d --activation sigmoid --run runs/several",
            "moving_shapes --model slow_fusion --width 0.125 --run runs/shapes",
        ),
    )
    data_flags(parser, optional=True)
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="weights to start from: a run's folder, a .keras or .weights.h5 "
        "file, or a published name; classifiers of other classes begin afresh",
    )
    run_flags(parser)


def run_flags(parser):
    """Flags of verbs that leave a run: its folder, its rows, its recipe."""
    parser.add_argument(
        "--run", metavar="DIR", required=True, help="folder of the run"
    )
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default="karpathy2014",
        help="recipe to start from (default: karpathy2014)",
    )
    flow_flag(parser, "needed by such networks")
    split_flags(parser, "0: training loss chooses")
    cache_flag(parser)
    parser.add_argument(
        "--activations",
        metavar="DIR",
        help="where --cache-activations keeps them, for several runs to share "
        "(default: in the run's folder)",
    )
    parser.add_argument(
        "--checkpoint-epochs",
        metavar="INT",
        type=positive,
        default=1,
        help="keep all that --resume needs after so many epochs, and at the "
        "end; more where epochs take less time than checkpoints (default: 1)",
    )
    parser.add_argument(
        "--checkpoint-steps",
        metavar="INT",
        type=int,
        default=0,
        help="and after so many steps, beside the ends of epochs; 0: not for "
        "that reason (default: 0)",
    )
    parser.add_argument(
        "--checkpoint-minutes",
        metavar="FLOAT",
        type=float,
        default=10.0,
        help="and after so many minutes; 0: not for that reason (default: 10)",
    )
    parser.add_argument(
        "--profile",
        metavar="FIRST,LAST",
        type=_steps,
        help="trace these steps, counted from 1, for TensorBoard's Profile "
        "tab (needs the extra [profile])",
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
    error_flag(parser)
    recipe_flags(parser)


def recipe_flags(parser, without=()):
    """A flag per field of `Recipe`, so that the two cannot drift apart.

    Args:
        parser: `argparse.ArgumentParser`.
        without: Names of fields that have no flag here.
    """
    group = parser.add_argument_group("recipe (each overrides --recipe)")
    for part in dataclasses.fields(Recipe):
        if part.name in without:
            continue
        flag = "--" + part.name.replace("_", "-")
        help = part.metadata["help"].replace("%", "%%")
        if part.metadata["kind"] is dict:
            group.add_argument(
                flag.removesuffix("s"),
                dest=part.name,
                action="append",
                type=option,
                metavar="NAME=VALUE",
                help=help,
            )
            continue
        if part.default not in (None, ()):
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


def recipe_of(arguments, base):
    """`base` with the flags that were given.

    Args:
        arguments: What `parse` returned.
        base: `Recipe`.

    Returns:
        `Recipe`.

    Raises:
        CallError: If a value is out of range.
    """
    given = {
        part.name: value
        for part in dataclasses.fields(Recipe)
        if (value := getattr(arguments, part.name, None)) is not None
    }
    for name, value in given.items():
        if isinstance(getattr(base, name), dict):
            given[name] = {**getattr(base, name), **dict(value)}
    try:
        return dataclasses.replace(base, **given)
    except ValueError as error:
        raise CallError(str(error)) from error


def train(arguments):
    """`videofusion train`."""

    def first():
        if arguments.data is None:
            raise CallError(
                "train needs DATA, unless --resume finds a run in --run. "
                f"Received: --run {arguments.run}"
            )
        recipe = recipe_of(arguments, RECIPES[arguments.recipe])
        expect_model(recipe.model)
        return recipe, arguments.weights

    leave_run(arguments, first)


def leave_run(arguments, first):
    """Trains as the flags say, or goes on with the run that is there.

    Args:
        arguments: What `parse` returned.
        first: Function that gives the recipe and the weights of a run that
            begins.
    """
    from keras_videofusion.training import fit
    from keras_videofusion.training.run import Run
    from keras_videofusion.training.strategy import served

    if served(arguments.strategy):
        return
    run = Run(arguments.run)
    if arguments.resume and run.exists:
        # The folder knows its recipe, its rows and its weights; DATA, if
        # given, says where the videos are now.
        recipe = recipe_of(arguments, run.recipe)
        catalog = run.catalog(root=root_of(arguments))
        weights = None
    else:
        recipe, weights = first()
        catalog = open_split(arguments, recipe.seed)
    fit.train(
        recipe,
        catalog,
        run.folder,
        weights=weights,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        on_error=arguments.on_error,
        flow=arguments.flow,
        cache=arguments.cache,
        activations=arguments.activations,
        checkpoint_epochs=arguments.checkpoint_epochs,
        checkpoint_steps=arguments.checkpoint_steps,
        checkpoint_minutes=arguments.checkpoint_minutes,
        profile=arguments.profile,
        say=lambda line: print(printable(line), flush=True),
    )

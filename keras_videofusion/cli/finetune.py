"""`videofusion finetune`."""

from keras_videofusion.cli.flags import (
    CallError,
    data_flags,
    expect_model,
    MODEL,
    verb_parser,
)
from keras_videofusion.cli.train import leave_run, recipe_of, run_flags
from keras_videofusion.training.recipe import RECIPES


def flags(verbs):
    """Adds the verb and its flags."""
    parser = verb_parser(
        verbs,
        "finetune",
        finetune,
        "train a network on other videos from the weights that it has",
        (
            "runs/first videos/ --train top3 --top-dropout 0.9 --run runs/top3",
            "runs/first videos/ --train top --cache-activations 20 "
            "--run runs/top",
            "runs/first videos/ --train all --old-rate 0.1 --run runs/all",
            "runs/first videos/ --train scratch --run runs/scratch",
            "s3d:kinetics400 videos/ --train top --run runs/s3d",
            "--resume --run runs/top3",
        ),
    )
    parser.add_argument(
        "source",
        metavar="MODEL",
        nargs="?",
        help=f"{MODEL}; a .weights.h5 file too, with --model and --width",
    )
    data_flags(parser, optional=True)
    run_flags(parser)


def finetune(arguments):
    """`videofusion finetune`."""
    source = arguments.source

    def first():
        from keras_videofusion.training.build import recipe_after

        if source is None or arguments.data is None:
            raise CallError(
                "finetune needs MODEL and DATA, unless --resume finds a run "
                f"in --run. Received: --run {arguments.run}"
            )
        base = recipe_of(arguments, RECIPES[arguments.recipe])
        expect_model(base.model)
        recipe = recipe_of(arguments, recipe_after(source, base))
        return recipe, None if recipe.train == "scratch" else source

    leave_run(arguments, first)

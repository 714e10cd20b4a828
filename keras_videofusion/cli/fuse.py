"""`videofusion fuse`."""

from keras_videofusion.cli.flags import verb_parser
from keras_videofusion.cli.output import printable


def flags(verbs):
    """Adds the verb and its flags."""
    parser = verb_parser(
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
        say=lambda line: print(printable(line), flush=True),
    )

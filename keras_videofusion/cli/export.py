"""`videofusion export`."""

import os
import re

from keras_videofusion.cli.flags import CallError, MODEL, verb_parser
from keras_videofusion.cli.output import printable

# How a file's name ends.
ENDINGS = {"savedmodel": ".savedmodel", "onnx": ".onnx", "litert": ".tflite"}
OPSET = 17


def flags(verbs):
    """Adds the verb and its flags."""
    parser = verb_parser(
        verbs,
        "export",
        export,
        "write a network for runtimes without Keras",
        (
            "runs/first --format onnx",
            "runs/first --format litert --quantize float16 --out first.tflite",
            "s3d:kinetics400 --format savedmodel --out served/s3d/1",
        ),
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument(
        "--format",
        required=True,
        choices=tuple(ENDINGS),
        help="savedmodel for TensorFlow and its servers, onnx for ONNX "
        "Runtime, litert (TensorFlow Lite) for phones and small devices",
    )
    parser.add_argument(
        "--out",
        metavar="PATH",
        help="file, or of savedmodel folder (default: MODEL's name and "
        f"{', '.join(ENDINGS.values())} here)",
    )
    parser.add_argument(
        "--quantize",
        choices=("none", "float16", "dynamic"),
        default="none",
        help="of litert: weights of half the bytes, or of a quarter "
        "(default: none)",
    )
    parser.add_argument(
        "--opset",
        metavar="INT",
        type=int,
        default=OPSET,
        help=f"of onnx: version of its operations, 13 to 18 (default: {OPSET})",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what stands at PATH"
    )


def export(arguments):
    """`videofusion export`."""
    format = arguments.format
    for flag, owner, given in (
        ("quantize", "litert", arguments.quantize != "none"),
        ("opset", "onnx", arguments.opset != OPSET),
    ):
        if given and format != owner:
            raise CallError(
                f"--{flag} goes with --format {owner}. "
                f"Received: --format {format}"
            )
    if not 13 <= arguments.opset <= 18:
        raise CallError(
            f"--opset must be 13 to 18. Received: {arguments.opset}"
        )
    from keras_videofusion.cli import quiet
    from keras_videofusion.training.run import open_model

    out = arguments.out or _name(arguments.model) + ENDINGS[format]
    opened = open_model(arguments.model)
    # Converters talk of their own affairs, past every setting.
    with quiet():
        from keras_videofusion.export import export

        written = export(
            opened,
            format,
            out,
            quantize=arguments.quantize,
            opset=arguments.opset,
            overwrite=arguments.overwrite,
        )
    real = ", one of them of a video" if written["real"] else ""
    print(
        f"{printable(written['path'])}: {written['bytes'] / 1e6:.1f} MB; its "
        f"answers to {written['clips']} clips{real} are the network's to "
        f"{written['difference']:.0e} of their range"
    )


def _name(model):
    """A file's name for a run's folder, a `.keras` file, or `name:weights`."""
    name = os.path.basename(os.path.normpath(model)).removesuffix(".keras")
    return re.sub(r"[:/\\]", "_", name)

"""The command line: one verb is a module that parses, calls and prints.

At the top only what needs neither NumPy nor Keras is imported, so that
`--help`, `--version` and wrong arguments are answered at once; a verb imports
its room when it runs.
"""

import argparse
import os
import sys
from contextlib import contextmanager

from keras_videofusion.cli import (
    benchmark,
    check,
    duplicates,
    evaluate,
    export,
    features,
    finetune,
    flow,
    fuse,
    histograms,
    models,
    predict,
    prepare,
    report,
    train,
    tune,
)
from keras_videofusion.cli.flags import CallError
from keras_videofusion.cli.output import printable
from keras_videofusion.version import __version__

# In the order in which one comes to need them.
VERBS = (
    train,
    finetune,
    evaluate,
    tune,
    predict,
    features,
    export,
    report,
    check,
    duplicates,
    prepare,
    histograms,
    flow,
    fuse,
    benchmark,
    models,
)
TOP = """\
examples:
  videofusion train videos/ --model slow_fusion --run runs/first
  videofusion evaluate runs/first
  videofusion predict runs/first clip.mp4
  videofusion report runs/first --out runs/first
"""


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
    for verb in VERBS:
        verb.flags(verbs)
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
    said = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        # Without the number that the system has for it.
        said = f"{error.filename}: {error.strerror}"
    line = " ".join(said.split()) or type(error).__name__
    print(f"videofusion: {printable(line)}", file=sys.stderr)
    return status

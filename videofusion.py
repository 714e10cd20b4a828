"""The command's own door: it answers `--help` before Keras has loaded.

Importing `keras_videofusion` registers its layers and so loads Keras, which
takes seconds. The flags need none of that: the package is found but not yet
run, the arguments are read, and only then its `__init__` is executed.
"""

import functools
import importlib.util
import sys


def main(argv=None):
    """Runs one verb.

    Args:
        argv: List of strings; the process's own arguments if not given.

    Returns:
        Exit status: 0 success, 1 the work failed, 2 the call was wrong.
    """
    begin = None
    if "keras_videofusion" not in sys.modules:
        spec = importlib.util.find_spec("keras_videofusion")
        if spec is None or spec.loader is None:
            raise ImportError("pip install keras-videofusion")
        package = importlib.util.module_from_spec(spec)
        sys.modules["keras_videofusion"] = package
        begin = functools.partial(spec.loader.exec_module, package)
    from keras_videofusion import cli

    arguments = cli.parse(argv)
    if begin:
        with cli.quiet():
            begin()
            import tensorflow

            # The search for graphics cards is noted too.
            tensorflow.config.list_physical_devices()
    return cli.run(arguments)


if __name__ == "__main__":
    sys.exit(main())

"""The strategies by name."""

import keras

from keras_videofusion.training.cluster import read_cluster
from keras_videofusion.training.devices import Devices, Mirrored
from keras_videofusion.training.recipe import STRATEGIES


def open_devices(name):
    """The devices of a strategy.

    Args:
        name: `"one"` (no distribution, on any backend); `"mirrored"`: every
            graphics card of this machine, or every logical processor device
            where there is no card; `"multiworker"`: those of several machines
            in step; `"parameter-server"`: of several machines, each at its
            own pace. The last two read `TF_CONFIG`. `Recipe.batch` counts the
            clips of all devices together; of parameter servers, of each
            worker.

    Returns:
        `Devices`.

    Raises:
        ValueError: If the name is unknown, or Keras does not run on
            TensorFlow, which all but the first need.
        ClusterError: If `TF_CONFIG` is missing or wrong, or a machine.
    """
    if name not in STRATEGIES:
        raise ValueError(
            f"`strategy` must be one of {', '.join(STRATEGIES)}. "
            f"Received: strategy={name!r}"
        )
    if name == "one":
        return Devices()
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"strategy {name!r} needs Keras on TensorFlow. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    if name == "mirrored":
        return Mirrored()
    if name == "multiworker":
        from keras_videofusion.training.workers import Workers

        return Workers()
    from keras_videofusion.training.servers import Servers

    return Servers()


def served(name):
    """Serves the chief until it is done, if that is this process's part.

    Args:
        name: As for `open_devices`.

    Returns:
        Whether it was: a process that serves needs no data of its own.

    Raises:
        ClusterError: As `open_devices`, and if the chief fails or is lost.
    """
    if (
        name != "parameter-server"
        or read_cluster("parameter-server").job == "chief"
    ):
        return False
    open_devices(name).serve()
    return True

"""Which devices train: one, or every graphics card of this machine."""

import tensorflow as tf


def open_strategy(name):
    """The `tf.distribute` strategy of that name.

    Args:
        name: `"one"` (no distribution), or `"mirrored"`: every graphics card
            of this machine, or every logical processor device where there is
            no card, holds a copy, and gradients are summed. `Recipe.batch`
            counts the clips of all copies together.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        ValueError: If the name is unknown.
    """
    if name == "one":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        devices = [
            device.name for device in tf.config.list_logical_devices(kind)
        ]
        # NCCL needs cards; the copies of a processor meet on the processor.
        join = (
            tf.distribute.NcclAllReduce()
            if kind == "GPU" and len(devices) > 1
            else tf.distribute.ReductionToOneDevice()
        )
        return tf.distribute.MirroredStrategy(devices, cross_device_ops=join)
    raise ValueError(
        f"`strategy` must be 'one' or 'mirrored'. Received: strategy={name!r}"
    )

"""Train one network on two devices of this machine.

    python examples/two_devices.py VIDEOS [--smoke]

With two graphics cards each takes half of every batch. Without, the processor
is split into two logical devices, which gains no speed but shows the same
arithmetic. The command line's word for it is `--strategy mirrored`.
"""

import sys
import tempfile

import tensorflow as tf

from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.training import Recipe
from keras_videofusion.training.fit import split, train


def main(folder, smoke=False):
    if not tf.config.list_physical_devices("GPU"):
        cpu = tf.config.list_physical_devices("CPU")[0]
        half = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [half, half])
    recipe = Recipe(
        model="slow_fusion",
        strategy="mirrored",
        size=64 if smoke else None,
        width=0.05 if smoke else 0.25,
        batch=4 if smoke else 32,
        epochs=1 if smoke else 20,
    )
    run = train(recipe, split(open_catalog(folder)), tempfile.mkdtemp())
    print(run.path("history.csv").read_text())


if __name__ == "__main__":
    main(sys.argv[1], smoke="--smoke" in sys.argv)

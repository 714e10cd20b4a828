"""Two devices equal one, ragged last batch included."""

import subprocess
import sys
from pathlib import Path

import pytest

from keras_videofusion.training.strategy import open_devices

SCRIPT = """
import sys
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
half = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(cpu, [half, half])
from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.training import build, fit
from keras_videofusion.training.recipe import Recipe

data, out = sys.argv[1:]
weights = {}
for name in ("one", "mirrored"):
    # 16 clips in batches of 6: the last has 4, two for each device.
    recipe = Recipe(width=0.02, size=40, batch=6, epochs=2,
                    learning_rate=1e-3, strategy=name)
    run = fit.train(recipe, fit.split(open_catalog(data)), f"{out}/{name}",
                    verbose=0, say=lambda line: None)
    weights[name] = run.model().get_weights()
for a, b in zip(weights["one"], weights["mirrored"]):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
start = build.build(recipe, run.spec, 4).get_weights()
assert max(np.abs(a - b).max() for a, b in zip(start, weights["one"])) > 1e-4
"""


def test_two_devices_train_to_the_weights_of_one(shapes_folder, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(shapes_folder), str(tmp_path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="Received: strategy='two'"):
        open_devices("two")

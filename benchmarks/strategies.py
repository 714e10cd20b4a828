"""What one copy of a network costs beside plain `fit`: steps per second.

    python benchmarks/strategies.py [one mirrored multiworker] [--steps 6]

SlowFusion at a quarter of its width on random clips, one device. Each
strategy takes turns with plain `fit` in one process, a few steps at a time;
the median of the ratios is told, so that what else the machine does falls on
both. Expected: 1.00 to 1.03 (README, "Several devices and machines").
"""

import argparse
import json
import os
import socket
import statistics
import time

import numpy as np


def steps_taken(model, devices, data, steps):
    """Seconds of processor and of wall for some steps."""
    wall, cpu = time.perf_counter(), time.process_time()
    devices.fit(
        model,
        lambda epoch, step, part=None: data,
        None,
        epochs=1,
        steps=steps,
        begun=(0, 0),
        callbacks=[],
        verbose=0,
    )
    return time.process_time() - cpu, time.perf_counter() - wall


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("strategies", nargs="*", default=["mirrored"])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--batch", type=int, default=8)
    arguments = parser.parse_args()
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
    os.environ["TF_CONFIG"] = json.dumps(
        {
            "cluster": {"worker": [f"127.0.0.1:{port}"]},
            "task": {"type": "worker", "index": 0},
        }
    )
    # Several processes are joined before TensorFlow does anything else.
    from keras_videofusion.training.strategy import open_devices

    names = sorted({"one", *arguments.strategies}, reverse=True)
    devices = {name: open_devices(name) for name in names}

    import tensorflow as tf

    from keras_videofusion.applications import SlowFusion
    from keras_videofusion.training.losses import PartsCrossentropy
    from keras_videofusion.training.metrics import HitAtK
    from keras_videofusion.training.optimizer import KrizhevskySGD

    draws = np.random.default_rng(0)
    clips = draws.integers(0, 256, (arguments.batch, 10, 170, 170, 3), "uint8")
    labels = np.eye(487, dtype="float32")[: arguments.batch]
    data = tf.data.Dataset.from_tensors((clips, labels)).repeat()
    models = {}
    for name in names:
        with devices[name].scope():
            model = devices[name].trainable(SlowFusion(width=0.25))
            model.compile(
                KrizhevskySGD(1e-3),
                PartsCrossentropy(),
                metrics=[HitAtK(1), HitAtK(5)],
                jit_compile=False,
            )
        models[name] = model
        steps_taken(model, devices[name], data, 2)
    ratios = {name: [] for name in names if name != "one"}
    for turn in range(arguments.turns):
        order = names if turn % 2 else names[::-1]
        taken = {
            name: steps_taken(
                models[name], devices[name], data, arguments.steps
            )
            for name in order
        }
        for name, found in ratios.items():
            found.append(
                [a / b for a, b in zip(taken[name], taken["one"], strict=True)]
            )
    print(f"plain fit: {arguments.steps / taken['one'][1]:.2f} steps/s")
    for name, found in ratios.items():
        cpu, wall = (
            statistics.median(column) for column in zip(*found, strict=True)
        )
        print(
            f"{name}: {cpu:.3f} of its processor time, {wall:.3f} of its wall"
        )


if __name__ == "__main__":
    main()

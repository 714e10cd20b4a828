"""One recipe under every strategy: the same curve, as far as it must be.

    python benchmarks/learning_curves.py DATA --out DIR [--group-pattern REGEX]

Trains slow fusion by the recipe `small` on one device, on two logical ones,
by two processes in step, and by a chief, two workers and two parameter
servers, all on this machine. The first three see the same batches and differ
by rounding alone, which grows as training goes on (no dropout: copies draw
each for themselves); the last reads shards, at
its workers' own pace, and gets three times the epochs. Prints the epochs'
losses and how far they lie apart, and draws DIR/curves.png.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

# The command, on a processor that is split in two.
HALVES = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
half = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(cpu, [half, half])
from videofusion import main
sys.exit(main())
"""
LAUNCH = Path(__file__).parents[1] / "examples/launch.sh"


def commands(arguments, shards):
    """The command of every strategy."""
    given = [
        "--model", "slow_fusion", "--recipe", "small", "--epochs",
        str(arguments.epochs), "--fold", arguments.fold,
        "--validation-split", "0.15", "--dropout", "0",
    ]  # fmt: skip
    pattern = ["--group-pattern", arguments.group_pattern]
    videos = [arguments.data, *(pattern if arguments.group_pattern else [])]
    for name, command in (
        ("one device", ["videofusion", "train"]),
        (
            "two devices",
            [
                sys.executable,
                "-c",
                HALVES,
                "train",
                "--strategy",
                "mirrored",
            ],
        ),
        ("two processes", [LAUNCH, "-n", "2"]),
    ):
        yield name, [*command, *videos, *given]
    longer = [*given]
    longer[5] = str(3 * arguments.epochs)
    yield "parameter servers", [LAUNCH, "-s", "2", "-n", "2", shards, *longer]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("--out", required=True)
    parser.add_argument("--group-pattern")
    parser.add_argument("--fold", default="1/5")
    parser.add_argument("--epochs", type=int, default=40)
    arguments = parser.parse_args()
    out = Path(arguments.out)
    shards = out / "shards"
    pattern = arguments.group_pattern
    subprocess.run(
        [
            "videofusion", "prepare", arguments.data, shards, "--all-frames",
            "--short-side", "128", "--shard-size", "4",
            *(["--group-pattern", pattern] if pattern else []),
        ],
        check=True,
    )  # fmt: skip
    from keras_videofusion.evaluation import pictures
    from keras_videofusion.training.run import Run

    histories = {}
    for name, command in commands(arguments, shards):
        run = Run(out / name.replace(" ", "-"))
        print(f"{name}:", flush=True)
        subprocess.run(
            [*command, "--run", run.folder], check=True, env=os.environ
        )
        rows = run.state["history"]
        histories[name] = {key: [row[key] for row in rows] for key in rows[0]}
    one = np.array(histories["one device"]["loss"])
    for name, history in histories.items():
        loss = np.array(history["loss"])
        told = f"{name:18s} loss {loss[0]:.4f} to {loss[-1]:.4f}"
        if len(loss) == len(one) and loss is not one:
            apart = np.abs(loss - one)
            told += f", from one device's {apart[0]:.1e} to {apart.max():.1e}"
        best = max(history["val_hit_at_1"])
        print(f"{told}; validation Hit@1 {100 * best:.1f} % at best")
    figure = pictures.learning_curves(histories)
    (out / "curves.png").write_bytes(pictures.png(figure))


if __name__ == "__main__":
    main()

"""Frames per second that the baseline's descriptors take, block by block.

    python benchmarks/descriptors.py DATA [--videos 3] [--set NAME=VALUE]

Describes videos below DATA on one core, each block by itself and all of them
together, which decode once. Printed are milliseconds of processor time per
frame, without decoding in a block's row, its share of all, and frames per
second. No block should take more than half.
"""

import argparse
import json
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from keras_videofusion.baseline.descriptors import describe
from keras_videofusion.baseline.settings import Settings
from keras_videofusion.data.catalog import video_paths
from keras_videofusion.data.video import pictures, timeline


def seconds_of(work, repeats=3):
    """The least processor time of some repeats: others disturb, none help."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data")
    parser.add_argument("--videos", type=int, default=3)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE"
    )
    own = parser.parse_args()
    told = dict(part.split("=", 1) for part in own.set)
    settings = Settings.from_json(
        {
            name: value if name == "fit" else json.loads(value)
            for name, value in told.items()
        }
    )
    names = video_paths(own.data)
    names = names[:: max(1, len(names) // own.videos)][: own.videos]
    paths = [os.path.join(own.data, name) for name in names]
    frames = sum(len(timeline(path)) for path in paths)

    def described(blocks):
        for path in paths:
            for _ in describe(path, settings, blocks=blocks):
                pass

    def decoded():
        for path in paths:
            numbers = np.arange(len(timeline(path)))
            for _ in pictures(path, numbers, settings.resize):
                pass

    decoding = seconds_of(decoded) / frames
    names = [block.name for block in settings.blocks]
    costs = {
        name: max(
            0.0, seconds_of(lambda n=name: described([n])) / frames - decoding
        )
        for name in names
    }
    together = seconds_of(lambda: described(names)) / frames
    print(f"{len(paths)} videos, {frames} frames of {settings.side} pixels")
    print(f"{'':16}{'ms':>8}{'share':>8}{'frames/s':>10}")
    for name, cost in {"decoding": decoding, **costs}.items():
        print(
            f"{name:16}{1e3 * cost:8.2f}{cost / together:8.0%}"
            f"{1 / max(cost, 1e-9):10.0f}"
        )
    print(f"{'all':16}{1e3 * together:8.2f}{1:8.0%}{1 / together:10.1f}")


if __name__ == "__main__":
    main()

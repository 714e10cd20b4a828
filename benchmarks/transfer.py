"""What each regime of transfer trains, and what kept activations save.

    python benchmarks/transfer.py DATA [--epochs 6] [--cached 20]

SlowFusion as of the recipe `small` (width 1/4, 80 pixels), 487 classes at
first: how many parameters learn in each regime; then the seconds of an epoch
of `--train top`, with every clip drawn and passed anew, and with activations
that are kept. Steps alone, and all of an epoch: validation, checkpoint and
logs too. The weights are random: they cost what others cost.
"""

import argparse
import csv
import dataclasses
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.data.pipeline import samples
from keras_videofusion.training import fit, transfer
from keras_videofusion.training.build import build, clip_of
from keras_videofusion.training.recipe import RECIPES


class Clock(keras.callbacks.Callback):
    """Seconds from the beginning of an epoch to that of the next."""

    def __init__(self):
        super().__init__()
        self.times = []

    def on_epoch_begin(self, epoch, logs=None):
        self.times.append(time.perf_counter())

    def on_train_end(self, logs=None):
        self.times.append(time.perf_counter())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--cached", type=int, default=20)
    given = parser.parse_args()
    catalog = fit.split(open_catalog(given.data))
    small = dataclasses.replace(RECIPES["small"], epochs=given.epochs)
    spec = clip_of(small)
    print("regime   parameters that learn")
    for train in ("top", "top3", "all", "scratch"):
        recipe = dataclasses.replace(small, train=train)
        model = build(recipe, spec, len(catalog.classes))
        transfer.freeze(model, train)
        count = sum(int(np.prod(x.shape)) for x in model.trainable_variables)
        share = count / model.count_params()
        told = f"{count:>10,} of {model.count_params():,} ({share:.1%})"
        print(f"{train:8} {told}")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source.keras")
        build(small, spec, 487).save(source)
        epochs = {}
        for name, count in (("drawn anew", 0), ("kept", given.cached)):
            recipe = dataclasses.replace(
                small, train="top", cache_activations=count
            )
            clock = Clock()
            begun = time.perf_counter()
            run = fit.train(
                recipe, catalog, Path(folder, name), weights=source,
                callbacks=[clock], verbose=0, say=lambda line: None,
            )  # fmt: skip
            before = clock.times[0] - begun
            with run.path("history.csv").open() as file:
                rows = list(csv.DictReader(file))
            clips = samples(catalog.where("train"), small.clips_per_video)
            steps = [clips / float(x["clips_per_second"]) for x in rows[1:]]
            whole = np.diff(clock.times)[1:]
            epochs[name] = np.median(steps), np.median(whole)
            print(
                f"{name:10}: {before:6.1f} s before the first epoch, then "
                f"{epochs[name][0]:.3f} s of steps an epoch, "
                f"{epochs[name][1]:.3f} s in all; {clips} clips"
            )
    ratio = np.divide(epochs["drawn anew"], epochs["kept"])
    print(f"ratio: {ratio[0]:.0f} of steps, {ratio[1]:.0f} in all")


if __name__ == "__main__":
    main()

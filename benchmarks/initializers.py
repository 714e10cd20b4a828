"""Loss under the paper's SGD from each way to begin the weights.

    python benchmarks/initializers.py DATA [--model slow_fusion]
        [--width 0.25] [--steps 48] [--kinds halving he_normal ...]

Clips of 32 a step, rate 1e-3, momentum 0.9, decay 5e-4; printed are the mean
losses of eight equal parts. A minute or two for each kind on two cores.
"""

import argparse

import keras
import numpy as np

from keras_videofusion.applications import clip_spec, get_model
from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.data.pipeline import training_clips
from keras_videofusion.training.optimizer import KrizhevskySGD


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--model", default="slow_fusion")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--steps", type=int, default=48)
    kinds = ["halving", "glorot_uniform", "krizhevsky", "he_normal"]
    parser.add_argument("--kinds", nargs="+", default=kinds)
    own = parser.parse_args()
    catalog = open_catalog(own.data)
    clips = training_clips(catalog, clip_spec(own.model), 32, clips_per_video=8)
    # Ten batches, seen again and again: every kind sees the same.
    batches = list(clips.take(10).as_numpy_iterator())
    for kind in own.kinds:
        keras.utils.set_random_seed(1)
        model = get_model(
            own.model,
            width=own.width,
            classes=len(catalog.classes),
            kernel_initializer=kind,
        )
        model.compile(KrizhevskySGD(), "categorical_crossentropy")
        losses = [
            float(model.train_on_batch(*batches[step % len(batches)]))
            for step in range(own.steps)
        ]
        means = [part.mean() for part in np.array_split(losses, 8)]
        told = " ".join(f"{mean:.4g}" for mean in means)
        print(f"{kind:<16} {told}", flush=True)


if __name__ == "__main__":
    main()

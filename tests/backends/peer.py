"""One backend's side of an exchange of files with another.

    KERAS_BACKEND=tensorflow python tests/backends/peer.py OURS THEIRS

writes every network into the folder THEIRS, reads those that another backend
wrote into OURS, and prints what it found as JSON. The tests do the same in
their own process, the folders the other way around.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np
from test_applications import (
    bare,
    clips,
    FAMILY,
    fill,
    floats,
    leaves,
    moves,
    named,
    shapes_of,
    small,
    steady,
)

from keras_videofusion.applications import MODELS
from keras_videofusion.training.losses import PartsCrossentropy
from keras_videofusion.training.metrics import HitAtK
from keras_videofusion.training.optimizer import KrizhevskySGD

# These learn; all answer.
LEARNERS = (
    "slow_fusion",
    "context_single_frame",
    "lrcn_flow",
    "inception_lstm",
    "c3d",
    "temporal_stream",
    "two_stream",
    "s3dg_flow",
)

# TensorFlow compiles a graph for longer than it takes to walk it; JAX compiles
# operations one by one if it may not compile the whole.
EAGERLY = keras.backend.backend() != "jax"


def frames(name):
    """Long enough that every stride in time has something to skip."""
    return 2 * (FAMILY[name].frames or 0)


def network(name):
    """A small network that gives logits; its weights are all 0."""
    shapes = shapes_of(name, frames=frames(name))
    return small(
        name,
        width=0.05,
        classifier_activation=None,
        # A backend that compiles would compile each random draw by itself.
        kernel_initializer="zeros",
        input_shape=bare(shapes),
    )


def given(name):
    """Two clips, the same under every backend."""
    return floats(clips(name, 2, frames=frames(name)))


def answer(model, clip):
    """What `predict` gives."""
    model.compile(run_eagerly=EAGERLY)
    return model.predict(clip, verbose=0)


def write(folder):
    """Writes both files of every network, its logits, and what it learns.

    Args:
        folder: Path.
    """
    answers, learned = {}, {}
    for name in MODELS:
        model = fill(network(name), variance=0.4)
        model.save_weights(folder / f"{name}.weights.h5")
        model.save(folder / f"{name}.keras")
        answers[name] = answer(model, given(name))
    np.savez(folder / "logits.npz", **answers)
    for name in LEARNERS:
        for path, moved in step(name).items():
            learned[f"{name}:{path}"] = moved
    np.savez(folder / "learned.npz", **learned)


def step(name):
    """How far one step of training moves the weights of a network.

    Of an Inception those after the last overlapping pools are compared. Such
    pools make maps of equal neighbours, and the next pool's maximum is then
    several pixels': on a processor TensorFlow's `MaxPool3D` hands the whole
    gradient to each of them, where JAX and torch choose one.

    Returns:
        Dict of arrays by path; and of the loss and Hit@1, as `found`.
    """
    own = dict(MODELS[name].training)
    model = fill(steady(name, kernel_initializer="zeros", **own), variance=0.4)
    for layer in leaves(model).values():
        # Over the last map of four small clips, 1 x 1 x 1, its averages make
        # gradients of rounding errors.
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    model.compile(
        KrizhevskySGD(0.1, momentum=0.9, decay=5e-4),
        PartsCrossentropy(label_smoothing=0.1),
        metrics=[HitAtK(1)],
        run_eagerly=EAGERLY,
    )
    before = model.get_weights()
    found = model.train_on_batch(
        floats(clips(name)), np.eye(4, dtype="float32")
    )
    moved = {
        path: after - old
        for path, after, old in zip(
            named(model), model.get_weights(), before, strict=True
        )
        if not moves(path)
    }
    if any(path.startswith("mixed_5c") for path in moved):
        late = ("mixed_5c", "lstm1", "logits", "predictions")
        moved = {k: x for k, x in moved.items() if k.startswith(late)}
    return {**moved, "found": np.array(found, "float32")}


def read(folder, name):
    """Reads what another backend wrote of a network.

    Args:
        folder: Path.
        name: String.

    Returns:
        Dict: whether the weights of either file are the formula's to the bit,
        and how far the saved network's logits are off its writer's, as a
        share of the largest.
    """
    model = network(name)
    model.load_weights(folder / f"{name}.weights.h5")
    loaded = model.get_weights()
    wanted = fill(model, variance=0.4).get_weights()
    saved = keras.saving.load_model(folder / f"{name}.keras")
    with np.load(folder / "logits.npz") as file:
        theirs = file[name]
    ours = answer(saved, given(name))
    return {
        "weights": same(loaded, wanted),
        "saved": same(saved.get_weights(), wanted),
        "off": miss(ours, theirs),
    }


def same(ours, theirs):
    """Whether two lists of arrays are equal to the bit."""
    return len(ours) == len(theirs) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(ours, theirs, strict=True)
    )


def miss(ours, theirs):
    """The largest difference, as a share of the largest of theirs."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


if __name__ == "__main__":
    ours, theirs = map(Path, sys.argv[1:])
    write(theirs)
    print(json.dumps({name: read(ours, name) for name in MODELS}))

"""From a recipe to what trains: the clip, the network, the compiled model."""

import dataclasses
import inspect
import itertools
import os

import keras
import numpy as np

from keras_videofusion.applications import clip_spec, get_model, MODELS
from keras_videofusion.applications.assembly import SHARED
from keras_videofusion.applications.weights import release
from keras_videofusion.data.files import exists
from keras_videofusion.data.vectors import VectorSpec
from keras_videofusion.training.losses import (
    PartsBinaryCrossentropy,
    PartsCrossentropy,
)
from keras_videofusion.training.metrics import HitAtK
from keras_videofusion.training.optimizer import (
    KrizhevskySGD,
    RatedAdam,
    RatedAdamW,
    RatedRMSprop,
)
from keras_videofusion.training.recipe import RESIZES
from keras_videofusion.training.run import open_model, Run
from keras_videofusion.training.transfer import regularized

# Fields of a recipe that say what a clip is, or what is drawn of its pixels.
OF_CLIPS = ("size", "resize", "frames", "fps", "step", "sampler", "jitter")


def clip_of(recipe, vectors=None):
    """The clip, or the vector, that the recipe's network eats.

    Args:
        recipe: `Recipe`; its `size`, `resize`, `frames`, `fps` and `step`
            change the network's own.
        vectors: The `Vectors` that it learns from, or None: a network of
            vectors takes those of any length.

    Returns:
        `ClipSpec`, or `VectorSpec` of a network of vectors.

    Raises:
        ValueError: If the recipe asks for clips of a network of vectors.
    """
    spec = clip_spec(recipe.model)
    if isinstance(spec, VectorSpec):
        for name in OF_CLIPS:
            own = type(recipe).__dataclass_fields__[name].default
            if getattr(recipe, name) != own:
                raise ValueError(
                    f"`{name}` is of clips, and {recipe.model} is fed "
                    f"vectors. Received: {name}={getattr(recipe, name)!r}"
                )
        return spec if vectors is None else vectors.spec
    if recipe.frames is not None:
        # A field per frame stays one; ten about each frame stay ten.
        flow = recipe.frames if spec.flow == spec.frames else spec.flow
        spec = dataclasses.replace(spec, frames=recipe.frames, flow=flow)
    if recipe.size is not None:
        spec = spec.with_size(recipe.size)
    if recipe.resize == "square":
        spec = dataclasses.replace(spec, resize=("square", max(spec.resized)))
    if recipe.resize == "stretch":
        spec = dataclasses.replace(spec, resize=spec.resized)
    if recipe.fps is not None:
        spec = dataclasses.replace(spec, fps=recipe.fps or None)
    if recipe.step is not None:
        spec = dataclasses.replace(spec, step=recipe.step)
    return spec


def build(recipe, spec, classes, weights=None, training=False, **given):
    """The network of a recipe, not compiled.

    Args:
        recipe: `Recipe`.
        spec: `ClipSpec` that says the input's shape.
        classes: Integer.
        weights: As for every builder.
        training: Whether it is built to be trained: some networks then give
            the scores of their parts, each to be trained on the label, of
            shape `(batch, parts, classes)`.
        **given: Arguments of every builder that win over all of these.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If the recipe's options are none of the builder's.
    """
    entry = MODELS[recipe.model]
    own = {
        "width": recipe.width,
        "dropout": recipe.dropout,
        "kernel_initializer": recipe.initializer,
    }
    own = {key: value for key, value in own.items() if value is not None}
    known = list(inspect.signature(entry.builder).parameters)[len(SHARED) :]
    if isinstance(entry.spec, VectorSpec):
        known.append("dropout")  # a rate per layer, which no field holds
    unknown = set(recipe.options) - set(known)
    if unknown:
        raise ValueError(
            f"`options` of {recipe.model} must be among "
            f"{', '.join(known) or 'none'}. "
            f"Received: {', '.join(sorted(unknown))}"
        )
    options = {**(entry.training if training else {}), **recipe.options}
    shapes = spec.shapes
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.precision)
    try:
        model = get_model(
            recipe.model,
            **{
                "weights": weights,
                "classes": classes,
                "classifier_activation": recipe.activation,
                "input_shape": (
                    shapes if len(shapes) > 1 else shapes[spec.streams[0]]
                ),
                **own,
                **options,
                **given,
            },
        )
        return regularized(model, recipe.train, recipe.top_dropout)
    finally:
        keras.config.set_dtype_policy(before)


# Fields of a recipe that say which network it is, and of what clips.
OF_NETWORK = (
    "model", "width", "size", "resize", "frames", "fps", "step", "dropout",
    "initializer", "options",
)  # fmt: skip


def recipe_after(source, base):
    """A recipe with the network that some weights are of.

    Args:
        source: A run's folder, a file, or `name:weights`.
        base: `Recipe` that tells all else, and of a file that is not in a
            run's folder what the file does not tell: its width, and of a
            `.weights.h5` the network.

    Returns:
        `Recipe`.

    Raises:
        RunError: If there is no such thing, or it cannot be read.
        ValueError: If its clips are such as no recipe asks for.
    """
    for folder in (source, os.path.dirname(source)):
        if Run(folder).exists:
            before = Run(folder).recipe
            return dataclasses.replace(
                base, **{name: getattr(before, name) for name in OF_NETWORK}
            )
    if source.endswith(".weights.h5") and exists(source):
        return base
    network, colon, name = source.partition(":")
    found = release(network, name) if colon else None
    if found is not None:
        options = {**base.options, **found.arguments}
        base = dataclasses.replace(base, model=network, options=options)
        return _fed(base, clip_spec(network, name))
    opened = open_model(source)
    if opened.model.name in MODELS:
        base = dataclasses.replace(base, model=opened.model.name)
    return _fed(base, opened.spec)


def _fed(base, spec):
    """A recipe whose network is fed such clips."""
    if isinstance(spec, VectorSpec):
        return base
    own = clip_spec(base.model)
    changes = {
        "frames": None if spec.frames == own.frames else spec.frames,
        "fps": None if spec.fps == own.fps else spec.fps or 0.0,
        "step": None if spec.step == own.step else spec.step,
    }
    sides = (None, *sorted(set(spec.size)))
    for size, resize in itertools.product(sides, RESIZES):
        found = dataclasses.replace(base, size=size, resize=resize, **changes)
        if clip_of(found) == spec:
            return found
    raise ValueError(
        f"no recipe of {base.model} asks for clips such as {spec}: train from "
        "a run's folder, or from a .weights.h5 file with --size and --frames"
    )


def drawing(recipe):
    """What a recipe asks of the clips that it is trained on.

    Args:
        recipe: `Recipe`.

    Returns:
        Dict, arguments of `keras_videofusion.data.pipeline.training_clips`.
    """
    return {
        "seed": recipe.seed,
        "clips_per_video": recipe.clips_per_video,
        "augment": recipe.augment,
        "sampler": recipe.sampler,
        "jitter": recipe.jitter,
        "mixup": recipe.mixup,
        "activation": recipe.activation,
        "alike": "classes" if recipe.balance == "sampling" else "videos",
    }


def optimizer_of(recipe, rates=None):
    """The optimizer of a recipe, as Keras knows it.

    Args:
        recipe: `Recipe`.
        rates: List of floats, each trainable variable's share of the learning
            rate; None: all take the whole.

    Returns:
        A `keras.optimizers.Optimizer`.
    """
    common = {
        "learning_rate": recipe.learning_rate,
        "global_clipnorm": recipe.clip_norm,
    }
    if rates is not None:
        common["rates"] = rates
    if recipe.accumulate > 1:
        common["gradient_accumulation_steps"] = recipe.accumulate
    if recipe.optimizer == "sgd":
        return KrizhevskySGD(
            momentum=recipe.momentum, decay=recipe.weight_decay, **common
        )
    kinds = {
        "adam": (keras.optimizers.Adam, RatedAdam),
        "adamw": (keras.optimizers.AdamW, RatedAdamW),
        "rmsprop": (keras.optimizers.RMSprop, RatedRMSprop),
    }
    plain, rated = kinds[recipe.optimizer]
    # Keras decouples the decay of these three, as AdamW's authors do.
    return (plain if rates is None else rated)(
        weight_decay=recipe.weight_decay or None, **common
    )


def compiled(model, recipe, catalog, rates=None):
    """Compiles a network for training by a recipe.

    Args:
        model: `keras.Model` that `build` made for training.
        recipe: `Recipe`.
        catalog: `Catalog` that is learned; it tells how rare classes are.
        rates: As for `optimizer_of`.

    Returns:
        List of `keras.metrics.Metric`, all that an epoch's logs come from.

    Raises:
        ValueError: If weights of classes are given for none of the classes.
    """
    # Of five classes or fewer one of the best five is always right.
    metrics = [HitAtK(1), *[HitAtK(5)] * (len(catalog.classes) > 5)]
    loss = PartsCrossentropy
    if recipe.activation == "sigmoid":
        loss = PartsBinaryCrossentropy
    model.compile(
        optimizer=optimizer_of(recipe, rates),
        loss=loss(
            label_smoothing=recipe.label_smoothing,
            class_weights=class_weights(recipe, catalog),
        ),
        metrics=list(metrics),
        jit_compile=recipe.jit_compile,
    )
    # The first is the loss's mean.
    return [model.metrics[0], *metrics]


def class_weights(recipe, catalog):
    """What a clip of each class counts for in the loss.

    Args:
        recipe: `Recipe`: its `class_weights`, times, with `balance="loss"`,
            the classes' mean number of videos over each one's own.
        catalog: `Catalog` that is learned.

    Returns:
        List of floats, a number per class; None if all count alike.

    Raises:
        ValueError: If a class is unknown.
    """
    classes = catalog.classes
    unknown = sorted(set(recipe.class_weights) - set(classes))
    if unknown:
        raise ValueError(
            f"`class_weights` must be of the classes {', '.join(classes[:9])}"
            f"{' ...' if len(classes) > 9 else ''}. "
            f"Received: {', '.join(unknown)}"
        )
    if recipe.balance != "loss" and not recipe.class_weights:
        return None
    found = np.array(
        [float(recipe.class_weights.get(name, 1.0)) for name in classes]
    )
    if recipe.balance == "loss":
        numbers, _ = catalog.numbers
        counts = np.bincount(numbers, minlength=len(classes))
        shown = counts > 0
        found[shown] *= counts[shown].mean() / counts[shown]
    return found.tolist()

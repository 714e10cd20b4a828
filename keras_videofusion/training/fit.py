"""Trains a network on a catalog and leaves a run's folder."""

import dataclasses
import gc
import inspect
import sys
import traceback

import keras
import numpy as np
import tensorflow as tf

from keras_videofusion.applications import clip_spec, get_model, MODELS
from keras_videofusion.applications.assembly import SHARED
from keras_videofusion.data.files import fetched
from keras_videofusion.data.flow import open_flow
from keras_videofusion.data.manifest import read_manifest
from keras_videofusion.data.pipeline import (
    samples,
    steps,
    training_clips,
    validation_clips,
)
from keras_videofusion.training.callbacks import (
    Checkpoints,
    NoNaN,
    seeds,
    Speed,
    TrainingError,
)
from keras_videofusion.training.losses import PartsCrossentropy
from keras_videofusion.training.metrics import HitAtK
from keras_videofusion.training.optimizer import KrizhevskySGD
from keras_videofusion.training.run import Run, RunError
from keras_videofusion.training.strategy import open_strategy


def train(
    recipe,
    catalog,
    run,
    *,
    weights=None,
    resume=False,
    overwrite=False,
    on_error="skip",
    flow=None,
    cache=None,
    callbacks=(),
    verbose="auto",
    say=print,
):
    """Trains a network by a recipe; the run's folder holds all that results.

    Training is `keras.Model.fit`. What a sample is depends on the seed, the
    epoch and its position alone, and every epoch leaves a checkpoint, so a
    run that was killed goes on from the last whole epoch as if it had never
    stopped.

    Args:
        recipe: `Recipe`.
        catalog: `Catalog` whose rows all carry a split: "train" is learned,
            "validation" chooses the best epoch, other rows are held out.
        run: Path or address of the folder.
        weights: Path of a `.weights.h5` or `.keras` file to start from, or a
            published name.
        resume: Goes on with the run that stands in the folder, and starts
            one in an empty folder. A finished run is left as it is.
        overwrite: Replaces the run that stands in the folder.
        on_error: `"skip"`: a broken video is replaced by another and named;
            `"raise"`: it ends the run.
        flow: Where flow comes from, for a network that eats it: the folder
            that `videofusion flow` made, or the name of a method to compute
            it as clips are read. A resumed run knows its own.
        cache: What is kept of shards between epochs, as for
            `keras_videofusion.data.pipeline.training_clips`.
        callbacks: Further Keras callbacks.
        verbose: As for `keras.Model.fit`.
        say: Function of one line of text.

    Returns:
        The `Run`.

    Raises:
        RunError: If the folder cannot be used.
        TrainingError: If training cannot go on.
        ValueError: If catalog or recipe do not fit together.

    Reference:
        Karpathy et al., CVPR 2014, section 3.3.
    """
    run = Run(run)
    learned = catalog.where("train")
    watched = catalog.where("validation")
    if not len(learned):
        raise ValueError(
            "`catalog` has no rows to train on: their split must be 'train'. "
            f"Received: splits={sorted({str(v.split) for v in catalog})}"
        )
    if len(catalog.classes) < 2:
        raise ValueError(
            "`catalog` must have two classes or more to tell apart. "
            f"Received: classes={catalog.classes}"
        )
    state = None
    if resume and run.exists:
        _same(run.recipe, recipe)
        state = run.state if run.started else None
        if state and (state["epoch"] >= recipe.epochs or state["stopped"]):
            say(f"{run.folder} has finished its {state['epoch']} epochs.")
            return run
    spec = clip_of(recipe)
    source = None
    shards = read_manifest(catalog.root)
    if "flow" in spec.streams and shards is None:
        before = run if resume and run.exists else None
        source = _open_flow(flow, before, catalog.root)
    flow = source and source.place
    keras.utils.set_random_seed(recipe.seed)
    if recipe.deterministic:
        tf.config.experimental.enable_op_determinism()
    with open_strategy(recipe.strategy).scope():
        model = build(
            recipe, spec, len(catalog.classes), weights, training=True
        )
        model.compile(
            optimizer=optimizer_of(recipe),
            loss=PartsCrossentropy(label_smoothing=recipe.label_smoothing),
            # Of five classes or fewer one of the best five is always right.
            metrics=[HitAtK(1), *[HitAtK(5)] * (len(catalog.classes) > 5)],
            jit_compile=recipe.jit_compile,
        )
        # Cloning would copy the optimizer, which `model.keras` leaves out.
        network = build(recipe, spec, len(catalog.classes))
    # Before the folder is made: shards may not feed this network.
    per_epoch = samples(learned, recipe.clips_per_video)
    skipped = {}

    def skip(path, error):
        skipped[path] = error
        say(f"skipped {path}: {error}")

    clips = training_clips(
        learned,
        spec,
        recipe.batch,
        seed=recipe.seed,
        clips_per_video=recipe.clips_per_video,
        first_epoch=state["epoch"] if state else 0,
        augment=recipe.augment,
        sampler=recipe.sampler,
        jitter=recipe.jitter,
        on_error=on_error,
        on_skip=skip,
        flow=flow,
        cache=cache,
    )
    checked = None
    if len(watched):
        checked = validation_clips(
            watched,
            spec,
            recipe.batch,
            clips=recipe.validation_clips,
            on_error=on_error,
            on_skip=skip,
            flow=flow,
        )
    settings = {
        "recipe": recipe.to_json(),
        "clip": spec.to_json(),
        "data": str(catalog.root),
        "flow": flow,
        "flow_method": (
            shards.recipe["flow"] if shards else source and source.method
        ),
    }
    if not (resume and run.exists):
        run.create(settings, catalog, overwrite)
    elif state:
        _restore(model, run, state)
    monitor = "val_loss" if checked is not None else "loss"
    if verbose == "auto":
        verbose = 1 if sys.stdout.isatty() else 2
    ours = [*_stock_callbacks(recipe, run, monitor, per_epoch), *callbacks]
    say(
        f"{recipe.model}: {model.count_params():,} parameters; "
        f"{len(learned)} videos to learn, {len(watched)} to validate, "
        f"{len(catalog) - len(learned) - len(watched)} held out; "
        f"{len(catalog.classes)} classes"
    )
    failure = None
    try:
        model.fit(
            clips,
            epochs=recipe.epochs,
            initial_epoch=state["epoch"] if state else 0,
            steps_per_epoch=steps(
                learned, recipe.batch, recipe.clips_per_video
            ),
            validation_data=checked,
            callbacks=[
                Speed(per_epoch),
                *ours,
                Checkpoints(run, network, monitor, ours, state),
            ],
            verbose=verbose,
            shuffle=False,  # the clips come shuffled
        )
    except tf.errors.ResourceExhaustedError:
        failure = TrainingError(
            "out of memory: pass a smaller --batch "
            f"(it is {recipe.batch}), --size or --width, or "
            "--precision mixed_bfloat16"
        )
    except tf.errors.OpError as error:
        failure = TrainingError(_first_line(error))
    except BaseException as error:
        # The frames of the traceback hold the data set's iterator, whose
        # threads call Python: they must end before the interpreter does.
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        gc.collect()
    if failure:
        raise failure
    if skipped:
        say(f"{len(skipped)} broken videos were skipped.")
    return run


def clip_of(recipe):
    """The clip that the recipe's network eats.

    Args:
        recipe: `Recipe`; its `size`, `resize`, `frames`, `fps` and `step`
            change the network's own.

    Returns:
        `ClipSpec`.
    """
    spec = clip_spec(recipe.model)
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


def build(recipe, spec, classes, weights=None, training=False):
    """The network of a recipe, not compiled.

    Args:
        recipe: `Recipe`.
        spec: `ClipSpec` that says the input's shape.
        classes: Integer.
        weights: As for every builder.
        training: Whether it is built to be trained: some networks then give
            the scores of their parts, each to be trained on the label, of
            shape `(batch, parts, classes)`.

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
        return get_model(
            recipe.model,
            weights=weights,
            classes=classes,
            input_shape=(
                shapes if len(shapes) > 1 else shapes[spec.streams[0]]
            ),
            **own,
            **options,
        )
    finally:
        keras.config.set_dtype_policy(before)


def optimizer_of(recipe):
    """The optimizer of a recipe, as Keras knows it.

    Args:
        recipe: `Recipe`.

    Returns:
        A `keras.optimizers.Optimizer`.
    """
    common = {
        "learning_rate": recipe.learning_rate,
        "global_clipnorm": recipe.clip_norm,
    }
    if recipe.optimizer == "sgd":
        return KrizhevskySGD(
            momentum=recipe.momentum, decay=recipe.weight_decay, **common
        )
    kinds = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "rmsprop": keras.optimizers.RMSprop,
    }
    # Keras decouples the decay of these three, as AdamW's authors do.
    return kinds[recipe.optimizer](
        weight_decay=recipe.weight_decay or None, **common
    )


def split(catalog, held_out=0.2, validation=0.1, fold=None, seed=0):
    """Gives every row of a catalog its split, whole groups at a time.

    Splits that the rows already carry are kept: "test" rows are held out,
    "validation" rows validate, the others are learned. Without test rows a
    share of the groups is held out; the paper's shares are the defaults.

    Args:
        catalog: `Catalog`.
        held_out: Float in [0, 1), share of test rows where none are marked.
        validation: Float in [0, 1), share of all rows that validate where
            none are marked.
        fold: Pair of integers (k, n) to hold out the k-th of n folds, k from
            1, whatever the rows say; or None.
        seed: Integer.

    Returns:
        `Catalog` whose rows all carry "train", "validation" or "test".

    Raises:
        ValueError: If a share or the fold is out of range.

    Reference:
        Karpathy et al., CVPR 2014, section 4.1: 70, 10 and 20 %.
    """
    for name, share in (("held_out", held_out), ("validation", validation)):
        if not 0 <= share < 1:
            raise ValueError(
                f"`{name}` must be in [0, 1). Received: {name}={share}"
            )
    if fold is not None:
        k, n = fold
        if not 1 <= k <= n or n < 2:
            raise ValueError(
                "`fold` must be k of n with n at least 2, such as 1/5. "
                f"Received: fold={k}/{n}"
            )
        catalog = catalog.folds(n)[k - 1]
    marked = {video.split for video in catalog}
    if "test" not in marked and held_out:
        catalog = catalog.hold_out(held_out, seed, "test")
    kept = dataclasses.replace(
        catalog,
        videos=tuple(
            dataclasses.replace(video, split=video.split or "train")
            for video in catalog
        ),
    )
    if "validation" in marked or not validation:
        return kept
    learned = kept.where("train")
    share = min(0.9, validation * len(kept) / max(1, len(learned)))
    chosen = iter(learned.hold_out(share, seed, "validation"))
    return dataclasses.replace(
        kept,
        videos=tuple(
            next(chosen) if video.split == "train" else video for video in kept
        ),
    )


def _stock_callbacks(recipe, run, monitor, per_epoch):
    """The callbacks of every run, in the order in which they act."""
    found = [NoNaN(run)]
    if recipe.plateau_patience:
        found.append(
            keras.callbacks.ReduceLROnPlateau(
                monitor=monitor,
                factor=recipe.plateau_factor,
                patience=recipe.plateau_patience,
            )
        )
    if recipe.early_stopping:
        found.append(
            keras.callbacks.EarlyStopping(
                monitor=monitor, patience=recipe.early_stopping
            )
        )
    found.append(
        keras.callbacks.TensorBoard(
            run.path("tensorboard"), write_graph=False, profile_batch=0
        )
    )
    return found


def _restore(model, run, state):
    """Loads weights and optimizer of a checkpoint into the model."""
    path = run.path(f"checkpoints/{state['weights']}")
    try:
        model.optimizer.build(model.trainable_variables)
        with fetched(path) as file:
            model.load_weights(file)
        for variable, value in zip(seeds(model), state["seeds"], strict=True):
            variable.assign(np.array(value, variable.dtype))
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise RunError(
            f"{path} cannot be read: {reason}. Start again with --overwrite; "
            f"the best network so far is {run.path('model.keras')}"
        ) from error


def _open_flow(flow, before, root):
    """Where flow comes from; a run that is gone on with keeps its method."""
    if before is None:
        return open_flow(flow, root)
    source = open_flow(flow or before.flow, root)
    if source.method != before.flow_method:
        raise RunError(
            f"the run learned from flow of method {before.flow_method}. "
            f"Received: flow={source.place!r} of method {source.method}"
        )
    return source


def _same(before, now):
    """Refuses to go on with another recipe than the run began with."""
    changed = [
        part.name
        for part in dataclasses.fields(before)
        # More epochs than at first only lengthen the same run.
        if part.name != "epochs"
        and getattr(before, part.name) != getattr(now, part.name)
    ]
    if changed:
        told = ", ".join(
            f"{name}={getattr(now, name)!r} (was {getattr(before, name)!r})"
            for name in changed
        )
        raise RunError(
            "a resumed run keeps its recipe; pass --overwrite to start "
            f"again. Received: {told}"
        )


def _first_line(error):
    """The line of a TensorFlow error that a user can act upon."""
    lines = [line.strip() for line in str(error.message).split("\n")]
    named = [line for line in lines if "VideoError" in line]
    line = (named or [line for line in lines if line] or ["failed"])[0]
    return line.split("VideoError:", 1)[-1].strip()

"""Trains a network on a catalog and leaves a run's folder."""

import contextlib
import dataclasses
import gc
import json
import math
import signal
import traceback
import zlib

import keras
import numpy as np
import tensorflow as tf

from keras_videofusion.data.files import fetched
from keras_videofusion.data.flow import open_flow
from keras_videofusion.data.manifest import read_manifest
from keras_videofusion.data.pipeline import (
    samples,
    steps,
    training_clips,
    validation_clips,
    watched_clips,
)
from keras_videofusion.data.vectors import (
    expect_fitting,
    read_vectors,
    VectorSpec,
)
from keras_videofusion.training import transfer
from keras_videofusion.training.activations import (
    kept_activations,
    Stitched,
    Top,
)
from keras_videofusion.training.build import (
    build,
    clip_of,
    compiled,
    drawing,
)
from keras_videofusion.training.callbacks import (
    Checkpoints,
    checksum,
    NoNaN,
    Rate,
    seeds,
    Speed,
    TrainingError,
)
from keras_videofusion.training.progress import Progress
from keras_videofusion.training.recipe import Recipe
from keras_videofusion.training.run import Run, RunError
from keras_videofusion.training.strategy import open_devices
from keras_videofusion.training.tensorboard import TensorBoard


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
    activations=None,
    checkpoint_epochs=1,
    checkpoint_steps=0,
    checkpoint_minutes=10.0,
    profile=None,
    callbacks=(),
    verbose="auto",
    say=print,
):
    """Trains a network by a recipe; the run's folder holds all that results.

    Training is `keras.Model.fit`, but of parameter servers, which it does not
    know. What a sample is depends on the seed, the epoch and its position
    alone, so a run that was killed goes on from its last checkpoint as if it
    had never stopped: at the end of an epoch or in the middle of one.

    Args:
        recipe: `Recipe`.
        catalog: `Catalog` whose rows all carry a split: "train" is learned,
            "validation" chooses the best epoch, other rows are held out.
        run: Path or address of the folder.
        weights: What to start from: a run's folder, a `.weights.h5` or
            `.keras` file, or a published name. Classifiers of other classes
            begin afresh. A resumed run knows its own.
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
        activations: Folder in which the frozen part's answers are kept, where
            the recipe asks for that: several runs may share one. The run's
            own if not given.
        checkpoint_epochs: Integer: a checkpoint after so many epochs, and at
            the end. More where an epoch takes less time than its checkpoint.
        checkpoint_steps: Integer: a checkpoint after so many steps of an
            epoch, beside the one at its end; 0: none for that reason.
        checkpoint_minutes: Float: and after so many minutes; 0: none. Of
            several machines that share each step the steps alone count.
        profile: Pair of integers, the first and the last step that TensorBoard
            shall show in all detail; None: none.
        callbacks: Further Keras callbacks.
        verbose: 0: nothing; 1: a line that moves; 2: a line per epoch;
            "auto": 1 on a terminal, else 2.
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
    devices = open_devices(recipe.strategy)
    if devices.serves:
        devices.serve()
        return Run(run)
    try:
        found = _train(
            devices, recipe, catalog, Run(run), weights, resume, overwrite,
            on_error, flow, cache, activations, checkpoint_epochs,
            checkpoint_steps, checkpoint_minutes, profile, callbacks, verbose,
            say,
        )  # fmt: skip
    except BaseException as error:
        devices.close(
            f"the chief has ended: {str(error) or type(error).__name__}"
        )
        raise
    devices.close()
    return found


def _train(
    devices, recipe, catalog, run, weights, resume, overwrite, on_error, flow,
    cache, activations, checkpoint_epochs, checkpoint_steps,
    checkpoint_minutes, profile, callbacks, verbose, say,
):  # fmt: skip
    """Does what `train` promises, on these devices."""
    if not devices.chief:
        say, verbose = _nothing, 0
    # One process looks at the folder; what it finds, all do.
    before = _agreed(devices, lambda: _before(recipe, catalog, run, resume))
    recipe = Recipe.from_json(before["recipe"])
    if before["rows"] != fingerprint(catalog):
        raise RunError(
            "DATA must list the same rows on every machine, in one order. "
            f"Received: {len(catalog)} rows of {catalog.root} that differ "
            "from the chief's"
        )
    if before["finished"]:
        say(f"{run.folder} has finished its epochs.")
        return run
    learned = catalog.where("train")
    watched = catalog.where("validation")
    vectors = read_vectors(catalog.root)
    spec = clip_of(recipe, vectors)
    expect_fitting(catalog, spec)
    shards = read_manifest(catalog.root)
    source = None
    if "flow" in spec.streams and shards is None:
        source = _open_flow(flow, before, catalog.root)
    flow = source and source.place
    keras.utils.set_random_seed(recipe.seed)
    if recipe.deterministic and keras.backend.backend() == "tensorflow":
        tf.config.experimental.enable_op_determinism()
    with devices.scope():
        whole = build(recipe, spec, len(catalog.classes), training=True)
        moved = transfer.Moved.from_json(before["transfer"])
        if not before["started"]:
            weights = moved.source if moved else weights
            moved = transfer.begin(whole, recipe, weights, catalog.classes)
        transfer.freeze(whole, recipe.train)
        top, own = None, whole
        if recipe.cache_activations:
            if before["started"]:
                transfer.again(whole, recipe, run, moved, catalog.classes)
            top = Top(whole)
            own = top.model
        model = devices.trainable(own)
        layers = top.layers if top else dict(transfer.leaves(whole))
        rates = transfer.rates(model, layers, moved, recipe.old_rate)
        metrics = compiled(model, recipe, learned, rates)
    # Cloning would copy the optimizer, which `model.keras` leaves out.
    network = build(recipe, spec, len(catalog.classes))
    if top:
        transfer.copy(whole, network)
        network, cache = Stitched(network, top), None
    skipped = {}

    def skip(path, error):
        if path not in skipped:
            skipped[path] = error
            aloud(f"skipped {path}: {error}")

    def aloud(line):
        """Says a line where one that moves may stand."""
        progress.clear()
        say(line)

    def feed(epoch, step, part=None, worker=None, cache=cache):
        found = training_clips(
            learned,
            spec,
            recipe.batch,
            **drawing(recipe),
            first_epoch=epoch,
            first_step=step,
            on_error=on_error,
            # Who reads shards for another calls no Python.
            on_skip=skip if worker is None else None,
            flow=flow,
            cache=cache,
            part=part,
            worker=worker,
        )
        if not devices.watches:
            return found
        return watched_clips(found, speed.wait)

    def checked(part=None):
        return validation_clips(
            watched,
            spec,
            recipe.batch,
            clips=recipe.validation_clips,
            activation=recipe.activation,
            on_error=on_error,
            on_skip=skip,
            flow=flow,
            part=part,
        )

    def pace():
        """Steps of an epoch, and what tells how they go on."""
        count = steps(learned, recipe.batch, recipe.clips_per_video)
        return (
            count,
            Progress(
                recipe.epochs,
                count,
                recipe.batch,
                verbose=verbose,
                chief=devices.chief,
            ),
            Speed(samples(learned, recipe.clips_per_video), recipe.batch),
        )

    count, progress, speed = pace()
    settings = {
        "recipe": recipe.to_json(),
        "clip": spec.to_json(),
        "data": str(catalog.root),
        "vectors": vectors and {"kind": vectors.kind, "source": vectors.source},
        "flow": flow,
        "flow_method": (
            shards.recipe["flow"] if shards else source and source.method
        ),
        "transfer": moved and moved.to_json(),
    }

    def begin():
        """Makes the folder, or takes up what it holds."""
        # Before the folder is made: shards may not feed this network.
        devices.expect(recipe, feed)
        if before["exists"]:
            return _restore(model, run, say)
        codebooks = vectors and vectors.codebooks
        return run.create(settings, catalog, overwrite, codebooks)

    state = _agreed(devices, begin)
    if state:
        devices.synchronize(model)
    if top:
        # From here on a clip is what the frozen part made of it.
        learned, watched = kept_activations(
            top,
            recipe,
            (learned, watched),
            spec,
            activations or run.path("activations"),
            on_error=on_error,
            flow=flow,
            say=say,
        )
        spec = VectorSpec(top.size)
        count, progress, speed = pace()
    begun = (state["epoch"], state["step"]) if state else (0, 0)
    progress.begun = begun
    monitor = "val_loss" if len(watched) else "loss"
    say(
        f"{recipe.model}: {whole.count_params():,} parameters; "
        f"{len(learned)} videos to learn, {len(watched)} to validate, "
        f"{len(catalog) - len(learned) - len(watched)} held out; "
        f"{len(catalog.classes)} classes"
    )
    if moved:
        say(transfer.told(whole, recipe, moved))
    failure = None
    with asked_to_end(devices) as ended:
        ours = [
            speed,
            Rate(recipe, count),
            NoNaN(run),
            *plateaus(recipe, monitor),
            *callbacks,
            TensorBoard(
                run.path("tensorboard"),
                recipe,
                catalog.classes,
                checked() if len(watched) and devices.chief else None,
                names=[] if shards else _names(watched, recipe, vectors),
                families=catalog.families,
                profile=profile,
                chief=devices.chief,
                say=aloud,
            ),
        ]
        kept = Checkpoints(
            run,
            network,
            monitor,
            ours,
            metrics,
            count,
            state,
            epochs=checkpoint_epochs,
            every=checkpoint_steps,
            # No two machines' clocks agree on a step.
            minutes=0 if devices.part else checkpoint_minutes,
            ended=ended,
            chief=devices.chief,
        )
        try:
            devices.fit(
                model,
                feed,
                checked if len(watched) else None,
                epochs=recipe.epochs,
                steps=count,
                begun=begun,
                callbacks=[*ours, kept, progress],
            )
        except BaseException as error:
            failure = _explained(error, devices, recipe, model, spec)
            # The frames of the traceback hold the data set's iterator, whose
            # threads call Python: they must end before the interpreter does.
            traceback.clear_frames(error.__traceback__)
            if failure is None:
                raise
        finally:
            gc.collect()
    if failure:
        raise failure
    if skipped:
        say(f"{len(skipped)} broken videos were skipped.")
    return run


def _nothing(line):
    """Says nothing: one of several processes speaks."""


def fingerprint(catalog):
    """A number that tells whether two machines have the same rows.

    Where the files lie is each machine's own affair.
    """
    rows = [
        [v.path, *v.labels, str(v.split), str(v.start), str(v.end)]
        for v in catalog
    ]
    return zlib.crc32(json.dumps([rows, catalog.classes]).encode())


def _agreed(devices, decide):
    """What the chief decides, on every process; its error ends them all.

    Args:
        devices: `Devices`.
        decide: Function without arguments, called on the chief alone.
    """
    error = None
    value = {}
    if devices.chief:
        try:
            value["value"] = decide()
        except (ValueError, RuntimeError, OSError) as found:
            error = found
            value["error"] = " ".join(str(found).split())
    value = devices.agree(value)
    if error:
        raise error
    if "error" in value:
        raise TrainingError(f"the chief could not begin: {value['error']}")
    return value["value"]


def _before(recipe, catalog, run, resume):
    """What the folder says before anything is built."""
    if not len(catalog.where("train")):
        raise ValueError(
            "`catalog` has no rows to train on: their split must be 'train'. "
            f"Received: splits={sorted({str(v.split) for v in catalog})}"
        )
    if len(catalog.classes) < 2:
        raise ValueError(
            "`catalog` must have two classes or more to tell apart. "
            f"Received: classes={catalog.classes}"
        )
    exists = bool(resume and run.exists)
    state = None
    if exists:
        _same(run.recipe, recipe)
        state = run.state if run.started else None
    return {
        "exists": exists,
        "started": state is not None,
        "transfer": run.settings.get("transfer") if exists else None,
        "recipe": recipe.to_json(),
        "rows": fingerprint(catalog),
        "finished": bool(
            state and (state["epoch"] >= recipe.epochs or state["stopped"])
        ),
        "flow": run.flow if exists else None,
        "flow_method": run.flow_method if exists else None,
    }


@contextlib.contextmanager
def asked_to_end(devices):
    """Yields a function that says whether the process was asked to end.

    A cluster's scheduler asks by SIGTERM some time before it kills; who asks
    twice is obeyed at once. Off the main thread, where no signal can be
    caught, nobody is heard. One of several processes in step ends at once:
    the others must not wait for it in a checkpoint of its own.

    Args:
        devices: `Devices`.
    """
    asked = []
    if devices.part is not None:
        yield lambda: False
        return

    def hear(number, frame):
        asked.append(number)
        signal.signal(signal.SIGTERM, before)

    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, hear)
    except ValueError:
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, before)


def _explained(error, devices, recipe, model, spec):
    """The error in one line for the user, or None if it is no user's."""
    if isinstance(error, TrainingError):
        return None
    line = devices.explain(error)
    if line:
        return TrainingError(line)
    told = f"{type(error).__name__}: {error}"
    if (
        isinstance(error, MemoryError | tf.errors.ResourceExhaustedError)
        or "RESOURCE_EXHAUSTED" in told
        or "OutOfMemory" in told
        or "out of memory" in told.lower()
    ):
        return TrainingError(no_room(recipe, model, spec))
    if isinstance(error, tf.errors.OpError):
        return TrainingError(_first_line(error))
    return None


def no_room(recipe, model, spec):
    """What took the memory, and what takes less.

    Args:
        recipe: `Recipe`.
        model: Compiled `keras.Model`.
        spec: `ClipSpec` or `VectorSpec`.

    Returns:
        String of one line.
    """
    weights = _bytes(model.trainable_variables)
    clips = sum(
        math.prod(shape) * (1 if name == "rgb" else 4)
        for name, shape in spec.shapes.items()
    )
    outputs = sum(
        math.prod(side or 1 for side in tensor.shape)
        for operation in model.operations
        for tensor in keras.tree.flatten(operation.output)
    )
    wide = 4 if recipe.precision == "float32" else 2
    parts = {
        "the weights": _bytes(model.variables),
        "their gradients": weights,
        "the optimizer": _bytes(model.optimizer.variables),
        f"{recipe.batch} clips": recipe.batch * clips,
        "what the layers make of them": recipe.batch * outputs * wide,
    }
    sizes = ", ".join(
        f"{name} {size / 2**20:,.0f} MiB" for name, size in parts.items()
    )
    clipped = not isinstance(spec, VectorSpec)
    ways = [f"a smaller {'--size or ' if clipped else ''}--width"]
    if recipe.precision == "float32":
        ways.insert(0, "--precision mixed_bfloat16")
    if recipe.batch > 1:
        half = recipe.batch // 2
        ways.insert(
            0,
            f"--batch {half} --accumulate {2 * recipe.accumulate} (steps as "
            "good as these, in less room)",
        )
    return (
        f"out of memory. At the least it takes {sizes}. "
        f"Pass {', or '.join(ways)}"
    )


def _bytes(variables):
    """What variables take, at four bytes a number."""
    return 4 * sum(math.prod(variable.shape) for variable in variables)


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


def plateaus(recipe, monitor):
    """Keras's callbacks that look whether validation gets better.

    Args:
        recipe: `Recipe`.
        monitor: Name of the log that they watch, lower is better.

    Yields:
        `keras.callbacks.Callback`s.
    """
    if recipe.plateau_patience:
        yield keras.callbacks.ReduceLROnPlateau(
            monitor=monitor,
            factor=recipe.plateau_factor,
            patience=recipe.plateau_patience,
        )
    if recipe.early_stopping:
        yield keras.callbacks.EarlyStopping(
            monitor=monitor, patience=recipe.early_stopping
        )


def _names(catalog, recipe, vectors):
    """The videos that validation clips are of, in the clips' order."""
    clips = recipe.validation_clips
    if vectors is not None:
        clips = min(clips, vectors.each)
    return [video.path for video in catalog for _ in range(clips)]


def _restore(model, run, say):
    """Loads the newest whole checkpoint into the model.

    Returns:
        Its state; None if the run has none yet.

    Raises:
        RunError: If there are some and none can be read.
    """
    reasons = []
    for name in run.checkpoints():
        try:
            state = run.state_of(name)
            _load(model, run.path(f"checkpoints/{state['weights']}"), state)
        except RunError as error:
            reasons.append(str(error))
            continue
        if reasons:
            say(f"{reasons[0]}; going on from the checkpoint before it")
        return state
    if reasons:
        raise RunError(
            f"{reasons[0]}. Start again with --overwrite; the best network "
            f"so far is {run.path('model.keras')}"
        )
    return None


def _load(model, path, state):
    """Loads weights and optimizer of a checkpoint into the model."""
    try:
        model.optimizer.build(model.trainable_variables)
        with fetched(path) as file:
            if checksum(file) != state["checksum"]:
                raise ValueError("it is damaged")
            model.load_weights(file)
        for variable, value in zip(seeds(model), state["seeds"], strict=True):
            variable.assign(np.array(value, variable.dtype))
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise RunError(f"{path} cannot be read: {reason}") from error


def _open_flow(flow, before, root):
    """Where flow comes from; a run that is gone on with keeps its method."""
    if not before["exists"]:
        return open_flow(flow, root)
    source = open_flow(flow or before["flow"], root)
    if source.method != before["flow_method"]:
        raise RunError(
            "the run learned from flow of method "
            f"{before['flow_method']}. "
            f"Received: flow={source.place!r} of method {source.method}"
        )
    return source


def _same(before, now):
    """Refuses to go on with another recipe than the run began with."""
    changed = [
        part.name
        for part in dataclasses.fields(before)
        if getattr(before, part.name) != getattr(now, part.name)
    ]
    # More epochs than at first only lengthen the same run, unless the rate
    # is spread over them all.
    if "epochs" in changed and before.schedule != "cosine":
        changed.remove("epochs")
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

"""Two networks that were trained apart, fused into one run.

Reference: Simonyan & Zisserman, NIPS 2014, sections 2 and 5; Carreira &
Zisserman, CVPR 2017, section 2.4.
"""

import dataclasses

import keras
import numpy as np

from keras_videofusion.applications.two_stream import fused
from keras_videofusion.data.files import (
    absolute,
    write_json,
    write_text,
    written,
)
from keras_videofusion.data.pipeline import steps, validation_clips
from keras_videofusion.evaluation.protocol import logits_model
from keras_videofusion.training.run import Run, RunError

WAYS = ("probabilities", "logits", "svm")


def fuse(
    rgb,
    flow,
    run,
    *,
    by="probabilities",
    shares=(0.5, 0.5),
    clips=5,
    margin=1.0,
    overwrite=False,
    say=print,
):
    """Joins a run that eats RGB and one that eats flow into a run of both.

    The new run holds the same rows with the same splits, so that what either
    network was trained on is not scored, and a network that takes
    `{"rgb": ..., "flow": ...}`.

    Args:
        rgb: `Run` of a network that eats RGB.
        flow: `Run` of a network that eats flow.
        run: Path or address of the new run's folder.
        by: `"probabilities"` are averaged, by `shares`; `"logits"` are added,
            each times its share, before the activation; `"svm"`: a linear
            support vector machine, trained on the training rows, reads the
            probabilities, each stream's L2-normalised.
        shares: Two numbers, for RGB and flow.
        clips: Integer, clips of every training video that the machine sees.
        margin: Float, the machine's C.
        overwrite: Replaces the run that stands in the folder.
        say: Function of one line of text.

    Returns:
        The new `Run`.

    Raises:
        RunError: If the two cannot be joined, or the folder cannot be used.
        ValueError: If an argument is out of range.

    Reference:
        Simonyan & Zisserman, NIPS 2014, section 5 (averaging; machine);
        Carreira & Zisserman, CVPR 2017 (their code adds logits).
    """
    if by not in WAYS:
        raise ValueError(
            f"`by` must be one of {', '.join(map(repr, WAYS))}. "
            f"Received: by={by!r}"
        )
    if len(shares) != 2 or min(shares) < 0 or not sum(shares) > 0:
        raise ValueError(
            "`shares` must be two numbers, 0 or more and not both 0. "
            f"Received: shares={tuple(shares)}"
        )
    shares = tuple(float(share) for share in shares)
    if by == "probabilities":
        shares = tuple(share / sum(shares) for share in shares)
    spec = _joined_clip(rgb, flow)
    rows = _same_rows(rgb, flow)
    towers = {"rgb": rgb.model(), "flow": flow.model()}
    activations = {k: logits_model(tower)[1] for k, tower in towers.items()}
    if len(set(activations.values())) > 1:
        raise RunError(
            "the two runs must end in the same activation. "
            f"Received: {activations['rgb']} and {activations['flow']}"
        )
    if by == "logits":
        towers = {
            "rgb": _unactivated(towers["rgb"], rgb),
            "flow": _unactivated(towers["flow"], flow),
        }
    for stream, tower in towers.items():
        tower.name = f"{stream}_tower"
    model = fused(towers, by, shares, activations["rgb"], "two_stream")
    if by == "svm":
        _train_machine(model, rows, spec, flow.flow, clips, margin, say)
    run = Run(run)
    recipe = dataclasses.replace(
        rgb.recipe, model="two_stream", options={}, frames=None
    )
    run.create(
        {
            "recipe": recipe.to_json(),
            "clip": spec.to_json(),
            "data": str(rows.root),
            "flow": flow.flow,
            "flow_method": flow.flow_method,
            "fused": {
                "rgb": absolute(rgb.folder),
                "flow": absolute(flow.folder),
                "by": by,
                "shares": list(shares),
            },
        },
        rows,
        overwrite,
    )
    with written(run.path("model.keras")) as draft:
        model.save(draft)
    write_text(run.path("history.csv"), "epoch\n")
    # Finished: there is nothing for `train --resume` to go on with.
    write_json(
        run.path("checkpoints/epoch-00000-step-00000000.json"),
        {"epoch": 0, "step": 0, "stopped": True, "history": []},
    )
    say(f"{run.folder}: {rgb.folder} and {flow.folder}, fused by {by}")
    return run


def _unactivated(model, run):
    """The same network without its last layer's softmax or sigmoid."""
    last = model.layers[-1]
    if not hasattr(last, "activation"):
        raise RunError(
            "`logits` can be added of networks whose last layer has a softmax "
            f"or a sigmoid; fuse by probabilities. Received: {run.folder}, "
            f"which ends in {type(last).__name__}"
        )
    config = model.get_config()
    for layer in config["layers"]:
        if layer["config"]["name"] == last.name:
            layer["config"]["activation"] = "linear"
    bare = type(model).from_config(config)
    bare.set_weights(model.get_weights())
    return bare


def _joined_clip(rgb, flow):
    """The clip that holds what both networks eat."""
    for name, run in (("rgb", rgb), ("flow", flow)):
        if run.spec.streams != (name,):
            raise RunError(
                f"{run.folder} must be a run of a network that eats {name}. "
                f"Received: streams={', '.join(run.spec.streams)}"
            )
    first, second = rgb.spec, flow.spec
    if first.time == 1:
        # A single frame has no next one to be a step away from.
        first = dataclasses.replace(first, step=second.step)
    both = dataclasses.replace(first, streams=("rgb", "flow"), flow=second.flow)
    alone = dataclasses.replace(both, streams=("flow",), frames=second.frames)
    if alone != second or both.frames not in (second.frames, 1):
        differ = [
            f"{part.name}={getattr(first, part.name)} and "
            f"{getattr(second, part.name)}"
            for part in dataclasses.fields(first)
            if part.name not in ("streams", "flow")
            and getattr(first, part.name) != getattr(second, part.name)
        ]
        raise RunError(
            "the two runs must cut their clips alike: train both with the "
            "same --size, --resize, --frames, --step and --fps. "
            f"Received: {'; '.join(differ)}"
        )
    return both


def _same_rows(rgb, flow):
    """The runs' rows, which must be the same in the same parts."""
    rows, others = rgb.catalog(), flow.catalog()
    if rows.classes != others.classes:
        raise RunError(
            "the two runs must know the same classes. Received: "
            f"{len(rows.classes)} in {rgb.folder}, {len(others.classes)} in "
            f"{flow.folder}"
        )

    def parts(catalog):
        return {(v.path, v.start, v.end): v.split for v in catalog}

    first, second = parts(rows), parts(others)
    if first != second:
        differ = [
            name
            for name in {**first, **second}
            if first.get(name) != second.get(name)
        ]
        raise RunError(
            "the two runs must have learned and held out the same rows: "
            "train both with the same DATA, --fold and --seed. Received: "
            f"{len(differ)} rows that differ, such as {min(differ)[0]}"
        )
    return rows


def _train_machine(model, rows, spec, flow, clips, margin, say):
    """Fits the linear machine on the training rows' scores."""
    try:
        from sklearn.svm import LinearSVC
    except ImportError:
        raise RunError(
            "fusing by svm needs scikit-learn: "
            "pip install 'keras-videofusion[tune]'"
        ) from None
    learned = rows.where("train")
    batch = 16
    scores = keras.Model(model.inputs, model.get_layer("scores").output)
    seen: list = []
    truths: list = []
    for clip, truth in validation_clips(
        learned, spec, batch, clips=clips, flow=flow
    ).take(steps(learned, batch, clips)):
        seen.append(np.asarray(scores.predict_on_batch(clip)))
        truths.append(np.asarray(truth).argmax(axis=-1))
    features, labels = np.concatenate(seen), np.concatenate(truths)
    known = np.unique(labels)
    if len(known) < 2:
        raise RunError(
            "a machine needs training rows of two classes or more. "
            f"Received: {len(known)}"
        )
    machine = LinearSVC(C=margin, random_state=0, max_iter=20000)
    machine.fit(features, labels)
    coefficients, offsets = machine.coef_, machine.intercept_
    if len(known) == 2:  # one plane between two classes
        coefficients = np.concatenate([-coefficients, coefficients])
        offsets = np.concatenate([-offsets, offsets])
    top = model.get_layer("predictions")
    kernel = np.zeros(top.kernel.shape, "float32")
    # A class that no training row shows loses.
    bias = np.full(kernel.shape[1], offsets.min() - 1, "float32")
    kernel[:, known], bias[known] = coefficients.T, offsets
    top.set_weights([kernel, bias])
    right = np.mean(machine.predict(features) == labels)
    say(f"machine: {right:.1%} of {len(labels)} training clips right")

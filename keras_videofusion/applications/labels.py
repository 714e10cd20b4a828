"""The names of the classes that published weights tell apart."""

from importlib import resources

import numpy as np
from keras import ops

# Classes -> list of names, a text file beside this one. No two are as long.
LISTS = {
    487: "sports1m",
    400: "kinetics400",
    600: "kinetics600",
    101: "ucf101",
}


def class_names(labels):
    """Names of a data set's classes, in the order of published weights.

    Args:
        labels: `"sports1m"`, `"kinetics400"`, `"kinetics600"` or `"ucf101"`.

    Returns:
        Tuple of strings.

    Raises:
        ValueError: If there is no such list.
    """
    return tuple(name for _, name in _classes(labels))


def sports1m_classes():
    """Topics and names of Sports-1M's 487 classes, in the authors' order.

    Returns:
        List of pairs of strings: Freebase topic ("-" if the authors give
        none) and name.
    """
    return _classes("sports1m")


def decode_predictions(preds, top=5):
    """Names the best classes of each clip.

    Which data set is meant is told by the number of classes: 487 are
    Sports-1M's, 400 and 600 those of Kinetics, 101 those of UCF-101.

    Args:
        preds: Array of shape `(samples, classes)`.
        top: Integer, how many.

    Returns:
        A list per sample of `(topic, name, score)`, the best first; the topic
        is "-" where the data set has none.

    Raises:
        ValueError: If the shape is another.
    """
    preds = ops.convert_to_numpy(preds)
    if preds.ndim != 2 or preds.shape[1] not in LISTS:
        shapes = ", ".join(f"(samples, {count})" for count in LISTS)
        raise ValueError(
            "`decode_predictions` expects a batch of predictions, an array "
            f"of one of the shapes {shapes}. "
            f"Received: preds of shape {preds.shape}"
        )
    names = _classes(LISTS[preds.shape[1]])
    return [
        [
            (*names[c], float(row[c]))
            for c in np.argsort(-row, kind="stable")[:top]
        ]
        for row in preds
    ]


def _classes(labels):
    """Pairs of topic and name; only Sports-1M's list has topics."""
    if labels not in LISTS.values():
        raise ValueError(
            f"`labels` must be one of {', '.join(LISTS.values())}. "
            f"Received: labels={labels!r}"
        )
    text = resources.files(__package__).joinpath(f"{labels}.txt")
    lines = [
        line
        for line in text.read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    if labels == "sports1m":
        return [tuple(line.split(",", 1)) for line in lines]
    return [("-", line) for line in lines]

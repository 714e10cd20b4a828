"""From networks of images to networks of video: filters inflated into time.

Reference: Carreira & Zisserman, Quo Vadis, Action Recognition?, CVPR 2017,
section 2.4.1.
"""

import numpy as np
from keras import ops

from keras_videofusion.layers import StackFrames


def inflate(source, target, names=None):
    """Fills a network of video with the weights of a network of images.

    A filter of k x k pixels is repeated over the t frames under its heir and
    divided by t, so that a layer gives for a still video, where it sees no
    zeros before the first and after the last frame, what its parent gives for
    the image. Filters over other channels than the parent's (flow for RGB)
    get the mean over the parent's channels. Everything else is copied where
    the shapes agree.

    For example, I3D from a network of images of the same plan, and slow
    fusion from single-frame:

        inflate(I2D(weights="imagenet.weights.h5"), I3D())
        inflate(SingleFrame(weights="first.weights.h5"), SlowFusion())

    Args:
        source: `keras.Model` over images, or over frames one by one.
        target: `keras.Model`; its weights are changed.
        names: Function from the name of a layer of `source` to that of its
            heir in `target`; the same name if not given.

    Returns:
        List of strings: the layers of `target` that have weights and were
        left as they were, some or all of them: filters in time alone, a top
        for other classes.

    Raises:
        ValueError: If no layer found an heir.

    Reference:
        Carreira & Zisserman, CVPR 2017, section 2.4.1; Wang et al., arXiv
        1507.02159, section 3 (mean over the channels).
    """
    parents = {
        (names or str)(layer.name): layer
        for layer in source.layers
        if layer.weights
    }
    heirs = [layer for layer in target.layers if layer.weights]
    left, filled = [], 0
    for layer in heirs:
        parent = parents.get(layer.name)
        given = {w.name: _array(w) for w in parent.weights} if parent else {}
        whole = True
        for weight in layer.weights:
            value = given.get(weight.name)
            if value is not None and weight.name == "kernel":
                value = _kernel(
                    value, tuple(weight.shape), _extent(target, layer)
                )
            if value is None or value.shape != tuple(weight.shape):
                whole = False
            else:
                weight.assign(value)
                filled += 1
        if not whole:
            left.append(layer.name)
    if not filled:
        raise ValueError(
            "no layer of `target` has the name and shape of one of `source`; "
            "pass `names` if they are called otherwise. Received: source with "
            f"{', '.join(list(parents)[:3])} ..., target with "
            f"{', '.join(layer.name for layer in heirs[:3])} ..."
        )
    return left


def _array(weight):
    return ops.convert_to_numpy(weight)


def _extent(model, layer):
    """Frames side by side in the channels that a layer sees."""
    for other in model.layers:
        if isinstance(other, StackFrames) and other.output is layer.input:
            return other.extent
    return 1


def _kernel(value, shape, extent):
    """A parent's kernel in its heir's shape, or None."""
    if len(value.shape) == 4 and len(shape) == 5:
        value = value[None]
    if value.shape == shape:
        return value
    if len(value.shape) != len(shape) or len(shape) < 4:
        return None
    *window, channels, filters = value.shape
    if filters != shape[-1] or window[-2:] != list(shape[-4:-2]):
        return None
    if len(shape) == 5:
        if window[0] != 1:
            return None
        value = np.repeat(value, shape[0], axis=0) / shape[0]
    if shape[-2] == channels:
        return value
    if shape[-2] == channels * extent:
        # Frame after frame in the channels.
        return np.concatenate([value] * extent, axis=-2) / extent
    if channels > 4:
        return None  # not pixels: another network
    mean = value.mean(axis=-2, keepdims=True)
    return np.repeat(mean, shape[-2], axis=-2)

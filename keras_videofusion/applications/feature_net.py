"""A vector of hand-made features, and one or two hidden layers upon it.

The opponent that Karpathy et al. set against their networks: histograms of
local and global features of all frames, 25,000 numbers per video, and a
network of one or two hidden layers. It serves for any vectors, YouTube-8M's
(1,024 numbers, 1,152 with sound) and other networks' activations among them.

Reference: Karpathy et al., CVPR 2014, section 4.1, "Feature histogram
baselines".
"""

import math

import keras
from keras import layers

from keras_videofusion.applications import weights as weight_files
from keras_videofusion.applications.assembly import (
    check,
    predictions,
    sources,
    tensor_shape,
    whole,
)
from keras_videofusion.applications.inception import expect_one_of
from keras_videofusion.applications.notation import Making
from keras_videofusion.data.vectors import VectorSpec
from keras_videofusion.layers import Columns, SignedRoot

HISTOGRAMS = VectorSpec(25_000)
SCALES = ("root", None)
# Roots of as many histograms are as many unit vectors side by side.
COUNT = 41


def FeatureMLP(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=487,
    classifier_activation="softmax",
    name="feature_mlp",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.5,
    kernel_initializer="halving",
    hidden=(4096, 4096),
    scale="root",
    columns=None,
):
    """One or two hidden layers of ReLUs between a vector and the classes.

    Takes vectors of shape `(25000,)`, or of any other length. The arguments
    are those of every builder, see `keras_videofusion.applications`; without
    a top the network ends in its last hidden layer, and `pooling` changes
    nothing, since a vector has no places to pool. And:

    Args:
        dropout: Float, rate before every layer with weights; or one per such
            layer, `predictions` included.
        hidden: Integers, units of the hidden layers, before `width`. None at
            all, `()`: the linear model.
        scale: `"root"`: the network's first layer takes the root of every
            number's size and keeps its sign, so that each histogram, which
            sums to 1, becomes a unit vector (Hellinger's kernel). None: the
            numbers enter as they are.
        columns: List of pairs (begin, end): parts of the vector that the
            network sees, such as some of its histograms. None: all of it.

    Returns:
        A `keras.Model`; 121,180,647 parameters.

    Raises:
        ValueError: If an argument is wrong; it is named.

    Reference:
        Karpathy et al., CVPR 2014, section 4.1.
    """
    check(
        "feature_mlp",
        include_top,
        weights,
        pooling,
        classes,
        classifier_activation,
        width,
        0.0,
    )
    hidden = _hidden(hidden)
    rates = _rates(dropout, hidden)
    expect_one_of("scale", scale, SCALES)
    size = _size(input_tensor, input_shape)
    if input_tensor is None:
        x = layers.Input((size,), dtype="float32", name="features")
    else:
        x = input_tensor
    inputs = {"features": x}
    if columns is not None:
        x = Columns(columns, name="columns")(x)
        size = x.shape[-1]
    rooted = include_preprocessing and scale == "root"
    making = Making(
        width, kernel_initializer=kernel_initializer, reach=_reach(rooted, size)
    )
    if rooted:
        x = SignedRoot(name="scale")(x)
    before = "features"
    for number, (units, rate) in enumerate(zip(hidden, rates, strict=False), 1):
        x = _dropped(x, rate, before)
        before = f"fc{number}"
        x = layers.Dense(
            making.scaled(units),
            activation="relu",
            name=before,
            **making.start(before, 0.005),
        )(x)
    if include_top:
        x = _dropped(x, rates[-1], before)
        x = predictions(x, making, classes, classifier_activation)
    model = keras.Model(sources(inputs, input_tensor), x, name=name)
    weight_files.load(model, weights, "feature_mlp")
    return model


def _dropped(x, rate, name):
    return layers.Dropout(rate, name=f"{name}_dropout")(x) if rate else x


def _reach(rooted, size):
    """Spread that fc1 brings to one: 1, where nothing of it is known.

    Twice the spread of roots: dropout before every layer adds noise that
    whole scores of order one would drown in. Keras's own starts take vectors
    of 25,000 numbers to nothing, and SGD moves them only after many epochs.
    """
    return min(1.0, 2 * math.sqrt(COUNT / size)) if rooted else 1.0


def _hidden(hidden):
    found = tuple(hidden) if isinstance(hidden, tuple | list) else (hidden,)
    if not all(whole(units) and units >= 1 for units in found):
        raise ValueError(
            "`hidden` must be integers, 1 or more, units of the hidden "
            f"layers. Received: hidden={hidden!r}"
        )
    return found


def _rates(dropout, hidden):
    """A rate of dropout per layer with weights."""
    several = isinstance(dropout, tuple | list)
    count = len(hidden) + 1
    found = tuple(dropout) if several else (dropout,) * count
    if len(found) != count or not all(0 <= rate < 1 for rate in found):
        raise ValueError(
            f"`dropout` must be in [0, 1), or {count} such rates, one before "
            f"every layer with weights. Received: dropout={dropout!r}"
        )
    return found


def _size(tensor, shape):
    """Numbers of a vector, checked."""
    if tensor is not None:
        shape = tensor_shape(tensor, shape)
    if shape is None:
        return HISTOGRAMS.size
    if (
        not isinstance(shape, tuple | list)
        or len(shape) != 1
        or not whole(shape[0])
        or shape[0] < 1
    ):
        raise ValueError(
            "`input_shape` must be a tuple of one integer, the numbers of a "
            f"vector. Received: input_shape={shape}"
        )
    return shape[0]

"""Two streams: one sees a frame, the other how pixels move.

Each is a network of its own, trained apart; their scores are averaged, or a
linear support vector machine reads them.

Reference: Simonyan & Zisserman, Two-Stream Convolutional Networks for Action
Recognition in Videos, NIPS 2014.
"""

from dataclasses import replace

import keras
from keras import layers

from keras_videofusion.applications import weights as weight_files
from keras_videofusion.applications.assembly import (
    assemble,
    check,
    connected,
    shared,
    sources,
)
from keras_videofusion.applications.inception import (
    averaged,
    expect_one_of,
    SITES,
    Style,
    trunk,
    unit_range,
)
from keras_videofusion.applications.notation import C, FC, N, P, stack
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.layers import (
    Blend,
    FieldCentering,
    StackFrames,
    Standardization,
)

# One frame, and the ten fields about it.
RGB = ClipSpec(1, resize=("short_side", 256), size=(224, 224))
FLOW = replace(RGB, streams=("flow",), flow=10)
BOTH = replace(RGB, streams=("rgb", "flow"), flow=10)

# Mean colour of ImageNet.
MEAN = (123.68, 116.779, 103.939)


# fmt: off
def cnn_m(second):
    """CNN-M-2048; `second` stands between conv2 and its pool."""
    norm = N(2.0, 5, 1e-4, 0.75)
    return (
        C(96, 7, 2, pad=0), norm, P(3),
        C(256, 5, 2, pad=1), *second, P(3),
        C(512, 3, 1),
        C(512, 3, 1),
        C(512, 3, 1), P(3),
    )


SPATIAL = cnn_m((N(2.0, 5, 1e-4, 0.75),))
TEMPORAL = cnn_m(())  # "to reduce memory consumption"
TOP = (FC(4096, "full"), FC(2048, "full"))
# fmt: on

BACKBONES = ("cnn_m", "inception")

# A frame at a time: filters in the plane, no strides nor pools in time.
PLANE = dict.fromkeys(SITES, 1)

LEAST = {"cnn_m": 41, "inception": 32}


def still(momentum):
    """Inception-V1 with batch normalisation, frame by frame."""
    return Style(PLANE, momentum=momentum, time=False)


def centred(clip, stream, name="center"):
    """Colours less ImageNet's mean; fields less their own mean.

    Args:
        clip: Tensor.
        stream: `"rgb"` or `"flow"`.
        name: String, the layer's.

    Returns:
        Tensor of the same shape.

    Reference:
        Simonyan & Zisserman, NIPS 2014, section 3.1.
    """
    if stream == "rgb":
        return Standardization(MEAN, name=name)(clip)
    return FieldCentering(name=name)(clip)


def stream(network, clip, tokens, backbone, momentum, arguments):
    """A network of one stream.

    Args:
        network: String, its name in `applications.MODELS`.
        clip: `ClipSpec`.
        tokens: Tokens of CNN-M.
        backbone: `"cnn_m"` or `"inception"`.
        momentum: Float, of batch normalisation.
        arguments: Dict, the builder's.

    Returns:
        A `keras.Model`.
    """
    expect_one_of("backbone", backbone, BACKBONES)

    def folded(x):
        # Ten fields are twenty channels: x1, y1, x2, y2, ...
        fields = x.shape[1]
        return x if fields == 1 else StackFrames(fields, name="fields")(x)

    if backbone == "inception":
        style = still(momentum)
        return assemble(
            network,
            clip,
            unit_range,
            lambda x, making: trunk(folded(x), style, making),
            averaged(style),
            LEAST[backbone],
            **arguments,
        )
    return assemble(
        network,
        clip,
        centred,
        lambda x, making: stack(folded(x), tokens, making),
        connected(TOP),
        LEAST[backbone],
        making={"reach": 1.0 if "flow" in clip.streams else 20.0},
        **arguments,
    )


def SpatialStream(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=101,
    classifier_activation="softmax",
    name="spatial_stream",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.5,
    kernel_initializer="authors",
    backbone="cnn_m",
    momentum=0.99,
):
    """Sees one frame: CNN-M-2048.

    Takes clips of shape `(1, 224, 224, 3)`. The arguments are those of every
    builder, see `keras_videofusion.applications`, and:

    Args:
        backbone: `"cnn_m"`, or `"inception"`: Inception-V1 with batch
            normalisation, as Carreira & Zisserman have it (figure 2c).
        momentum: Float, decay of batch normalisation's averages.

    Returns:
        A `keras.Model`; 90,627,813 parameters.

    Reference:
        Simonyan & Zisserman, NIPS 2014, section 2 and figure 1.
    """
    return stream(
        "spatial_stream", RGB, SPATIAL, backbone, momentum, shared(locals())
    )


def TemporalStream(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=101,
    classifier_activation="softmax",
    name="temporal_stream",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.5,
    kernel_initializer="authors",
    backbone="cnn_m",
    momentum=0.99,
):
    """Sees ten flow fields at once: CNN-M-2048 without its second LRN.

    Takes clips of shape `(10, 224, 224, 2)`, pixels per frame. The arguments
    are those of every builder, see `keras_videofusion.applications`, and
    those of `SpatialStream`.

    Returns:
        A `keras.Model`; 90,707,781 parameters.

    Reference:
        Simonyan & Zisserman, NIPS 2014, section 3 and figure 1.
    """
    return stream(
        "temporal_stream", FLOW, TEMPORAL, backbone, momentum, shared(locals())
    )


def TwoStream(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=101,
    classifier_activation="softmax",
    name="two_stream",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.5,
    kernel_initializer="authors",
    backbone="cnn_m",
    momentum=0.99,
    fusion="mean",
):
    """A spatial and a temporal stream whose scores are fused.

    Takes `{"rgb": (1, 224, 224, 3), "flow": (10, 224, 224, 2)}`. The streams
    are the nested models `rgb_tower` and `flow_tower`. The arguments are those
    of every builder, see `keras_videofusion.applications`, those of
    `SpatialStream`, and:

    Args:
        fusion: `"mean"` of the streams' scores; a pair of numbers, the
            shares of RGB and of flow in a weighted mean; or `"svm"`: a linear
            machine on the L2-normalised scores side by side, whose margins
            `predictions` gives: see
            `keras_videofusion.training.fusion.fuse`, which trains it.

    Returns:
        A `keras.Model`; 181,335,594 parameters (and those of the machine).

    Reference:
        Simonyan & Zisserman, NIPS 2014, sections 2 and 5.
    """
    shares = (0.5, 0.5) if fusion in ("mean", "svm") else _shares(fusion)
    return join(
        "two_stream",
        {"rgb": SpatialStream, "flow": TemporalStream},
        "svm" if fusion == "svm" else "probabilities",
        shares,
        shared(locals()),
        {"backbone": backbone, "momentum": momentum},
    )


def _shares(fusion):
    """A pair of weights, scaled to sum to one."""
    pair = isinstance(fusion, list | tuple) and len(fusion) == 2
    if not pair or min(fusion) < 0 or not sum(fusion) > 0:
        raise ValueError(
            "`fusion` must be 'mean', 'svm', or two weights, 0 or more and "
            f"not both 0. Received: fusion={fusion!r}"
        )
    return tuple(share / sum(fusion) for share in fusion)


def join(network, towers, by, shares, arguments, own):
    """Two networks under one roof.

    Args:
        network: String, the whole's name in `applications.MODELS`.
        towers: Dict from stream to builder.
        by: As of `fused`.
        shares: As of `fused`.
        arguments: Dict, the builder's that all builders have.
        own: Dict, further arguments of both towers' builders.

    Returns:
        A `keras.Model` with the nested models `rgb_tower` and `flow_tower`.

    Raises:
        ValueError: If an argument is wrong; it is named.
    """
    told = dict(arguments)
    name, weights = told.pop("name"), told.pop("weights")
    shapes, tensors = told.pop("input_shape"), told.pop("input_tensor")
    include_top = told["include_top"]
    activation = told.pop("classifier_activation")
    check(
        network,
        include_top,
        weights,
        told["pooling"],
        told["classes"],
        activation,
        told["width"],
        told["dropout"],
    )
    for key, given in (("input_shape", shapes), ("input_tensor", tensors)):
        if given is None:
            continue
        if not isinstance(given, dict) or set(given) != set(towers):
            raise ValueError(
                f"`{key}` must be a dict with the keys 'rgb' and 'flow'. "
                f"Received: {key}={given}"
            )
    if tensors is not None:
        shapes = {k: tuple(x.shape[1:]) for k, x in tensors.items()}
    published = weight_files.release(network, weights) is not None
    built = {
        stream: tower(
            name=f"{stream}_tower",
            weights=weights if published else None,
            input_shape=shapes and shapes[stream],
            classifier_activation=None if by == "logits" else activation,
            **told,
            **own,
        )
        for stream, tower in towers.items()
    }
    if include_top:
        model = fused(built, by, shares, activation, name, tensors)
    else:
        inputs = _inputs(built, tensors)
        maps = [built[stream](inputs[stream]) for stream in built]
        x = layers.Concatenate(name="streams")(maps)
        model = keras.Model(sources(inputs, tensors), x, name=name)
    if not published:
        weight_files.load(model, weights, network)
    return model


def fused(towers, by, shares, activation="softmax", name=None, tensors=None):
    """One network of two trained ones, each for a stream of its own.

    Args:
        towers: Dict from stream to a `keras.Model`; their names differ from
            the streams'.
        by: `"probabilities"`: the towers' scores are added, each times its
            share. `"logits"`: the towers give logits, which are added, then
            `activation` follows. `"svm"`: a linear machine reads the scores,
            each L2-normalised, side by side.
        shares: A number per tower.
        activation: Of `predictions`, where it is not the towers'.
        name: String, the model's.
        tensors: Dict from stream to Keras tensor to build upon, or None.

    Returns:
        A `keras.Model`.

    Reference:
        Simonyan & Zisserman, NIPS 2014, section 2; Carreira & Zisserman,
        CVPR 2017 (their code adds logits).
    """
    inputs = _inputs(towers, tensors)
    scores = [towers[stream](inputs[stream]) for stream in towers]
    if by == "svm":
        unit = [
            layers.UnitNormalization(name=f"{stream}_unit", dtype="float32")(x)
            for stream, x in zip(towers, scores, strict=True)
        ]
        x = layers.Concatenate(name="scores", dtype="float32")(unit)
        classes = scores[0].shape[-1]
        x = layers.Dense(
            classes, activation, name="predictions", dtype="float32"
        )(x)
    elif by == "logits":
        x = Blend(shares, name="logits", dtype="float32")(scores)
        x = layers.Activation(activation, dtype="float32", name="predictions")(
            x
        )
    else:
        x = Blend(shares, name="predictions", dtype="float32")(scores)
    return keras.Model(sources(inputs, tensors), x, name=name)


def _inputs(towers, tensors):
    if tensors is not None:
        return tensors
    return {
        stream: layers.Input(
            tower.input.shape[1:], dtype="float32", name=stream
        )
        for stream, tower in towers.items()
    }

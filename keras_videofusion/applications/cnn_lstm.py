"""A network of images, then a recurrent one over its answers.

Reference: Donahue et al., Long-term Recurrent Convolutional Networks for
Visual Recognition and Description, CVPR 2015; Carreira & Zisserman, Quo
Vadis, Action Recognition?, CVPR 2017, section 2.1.
"""

from dataclasses import replace

import keras
from keras import layers

from keras_videofusion.applications.assembly import (
    assemble,
    predictions,
    shared,
)
from keras_videofusion.applications.inception import (
    expect_one_of,
    trunk,
    unit_range,
)
from keras_videofusion.applications.notation import C, FC, N, P, stack
from keras_videofusion.applications.two_stream import still
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.layers import FlowImage, Framewise, Standardization

RGB = ClipSpec(16, resize=(240, 320), size=(227, 227))
FLOW = replace(RGB, streams=("flow",), flow=16)
MODALITIES = {"rgb": RGB, "flow": FLOW}

# Every fifth frame of 25 a second: five seconds.
LONG = ClipSpec(
    25,
    step=5,
    fps=25.0,
    resize=("short_side", 256),
    size=(224, 224),
    short="loop",
)

# fmt: off
NORM = N(1.0, 5, 2e-5, 0.75)
CAFFENET = (
    C(96, 7, 2, pad=0), P(3), NORM,
    C(384, 5, 2, pad=0, groups=2), P(3), NORM,
    C(512, 3, 1),
    C(512, 3, 1, groups=2),
    C(384, 3, 1, groups=2), P(3),
)
# fmt: on

LEAST = 49


def entrance(clip, stream):
    """Colours less the training set's mean; flow as a picture of bytes."""
    if stream == "flow":
        return FlowImage(name="flow_image")(clip)
    return Standardization((128.68, 116.779, 103.939), name="center")(clip)


def _normal(bias):
    return {
        "kernel_initializer": keras.initializers.RandomNormal(stddev=0.01),
        "bias_initializer": keras.initializers.Constant(bias),
    }


def LRCN(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=101,
    classifier_activation="softmax",
    name="lrcn",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.9,
    kernel_initializer="authors",
    modality="rgb",
    units=256,
    lstm_dropout=0.5,
    apart=False,
):
    """A CaffeNet on every frame, an LSTM over them, the mean of its answers.

    Takes clips of shape `(16, 227, 227, 3)`, or of 2 channels of flow, in
    pixels per frame, which it shows to the CaffeNet as pictures of x, y and
    length; of more or fewer frames too. The arguments are those of every
    builder, see `keras_videofusion.applications`, and:

    Args:
        modality: `"rgb"` or `"flow"`.
        units: Integer, of the LSTM; the paper compares 256, 512 and 1024.
        lstm_dropout: Float, rate after the LSTM.
        apart: Whether the answers of the frames stay apart, of shape
            `(batch, time, classes)`, each to be trained on the label, as the
            paper does; else their mean is the answer.

    Returns:
        A `keras.Model`; 65,421,285 parameters.

    Reference:
        Donahue et al., CVPR 2015, section 4.1 (LRCN-fc6).
    """
    expect_one_of("modality", modality, tuple(MODALITIES))

    def top(x, making, classes, activation):
        # Frame by frame from here on: (batch, time, features)
        x = layers.Reshape((x.shape[1], -1), name="flatten")(x)
        x = stack(x, (FC(4096),), making, first=6)
        uniform = {
            kernel: keras.initializers.RandomUniform(-0.01, 0.01)
            for kernel in ("kernel_initializer", "recurrent_initializer")
        }
        x = layers.LSTM(
            making.scaled(units),
            return_sequences=True,
            unit_forget_bias=False,  # Keras would add 1; Caffe does not
            name="lstm1",
            **(uniform if making.kernel_initializer == "authors" else {}),
        )(x)
        if lstm_dropout:
            x = layers.Dropout(lstm_dropout, name="lstm1_dropout")(x)
        # Each frame's own scores are averaged, not what leads to them.
        x = layers.Dense(
            classes,
            activation=activation,
            dtype="float32",
            name="fc8",
            **making.start("fc8", 0.01, _normal(0.0)),
        )(x)
        if apart:
            return layers.Activation(None, name="predictions", dtype="float32")(
                x
            )
        return layers.GlobalAveragePooling1D(
            name="predictions", dtype="float32"
        )(x)

    return assemble(
        "lrcn" if modality == "rgb" else "lrcn_flow",
        MODALITIES[modality],
        entrance,
        lambda x, making: stack(x, CAFFENET, making),
        top,
        LEAST,
        any_time=True,
        making={
            "convolutions": _normal(0.1),
            "connected": _normal(0.1),
            "whole": 2,
        },
        **shared(locals()),
    )


def InceptionLSTM(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=400,
    classifier_activation="softmax",
    name="inception_lstm",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.0,
    kernel_initializer="authors",
    momentum=0.99,
    units=512,
    apart=False,
):
    """Inception-V1 on every frame, an LSTM over them, its last answer.

    Takes clips of shape `(25, 224, 224, 3)`, every fifth frame of 25 a
    second; of more or fewer frames too. The arguments are those of every
    builder, see `keras_videofusion.applications`, and:

    Args:
        momentum: Float, decay of batch normalisation's averages.
        units: Integer, of the LSTM.
        apart: Whether the answers of all frames are given, of shape
            `(batch, time, classes)`, each to be trained on the label, as the
            paper does; else the last alone.

    Returns:
        A `keras.Model`; 8,945,600 parameters.

    Reference:
        Carreira & Zisserman, CVPR 2017, section 2.1 and figure 2a.
    """
    style = still(momentum)

    def top(x, making, classes, activation):
        pool = layers.GlobalAveragePooling2D(name="avg_pool")
        x = Framewise(pool, name="avg_pool")(x)
        # Shift and scale would be one with the LSTM's own weights.
        x = layers.BatchNormalization(
            momentum=momentum,
            epsilon=1e-3,
            center=False,
            scale=False,
            name="avg_pool_bn",
        )(x)
        x = layers.LSTM(
            making.scaled(units), return_sequences=apart, name="lstm1"
        )(x)
        if making.dropout:
            x = layers.Dropout(making.dropout, name="lstm1_dropout")(x)
        return predictions(x, making, classes, activation)

    return assemble(
        "inception_lstm",
        LONG,
        unit_range,
        lambda x, making: trunk(x, style, making),
        top,
        32,
        any_time=True,
        making={"reach": 1.0},
        **shared(locals()),
    )

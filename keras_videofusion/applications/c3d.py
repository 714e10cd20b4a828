"""C3D: eight convolutions of 3 x 3 x 3, the same all the way up.

Reference: Tran et al., Learning Spatiotemporal Features with 3D Convolutional
Networks, ICCV 2015, section 3.3 and figure 3.
"""

import keras
from keras import layers

from keras_videofusion.applications.assembly import (
    assemble,
    classes_for,
    predictions,
    settle,
    shared,
)
from keras_videofusion.applications.inception import expect_one_of, GRIDS
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.layers import Standardization

CLIP = ClipSpec(16, resize=(128, 171), size=(112, 112))

# fmt: off
# Name, filters; a pool after the last of every number.
COLUMN = (
    ("conv1a", 64),
    ("conv2a", 128),
    ("conv3a", 256), ("conv3b", 256),
    ("conv4a", 512), ("conv4b", 512),
    ("conv5a", 512), ("conv5b", 512),
)
# fmt: on

STYLES = ("sports1m", "quo_vadis")

# Torch's grid drops what does not fill a pool of two.
LEAST = {"tf": (1, 16), "torch": (16, 16)}


def centre(clip, stream):
    """RGB less a mean colour, unscaled: that of OpenMMLab's weights."""
    return Standardization((104.0, 117.0, 128.0), name="center")(clip)


def start(deviation, bias):
    """N(0, deviation) and a constant, as the authors' solver has it."""
    return {
        "kernel_initializer": keras.initializers.RandomNormal(stddev=deviation),
        "bias_initializer": keras.initializers.Constant(bias),
    }


def C3D(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=487,
    classifier_activation="softmax",
    name="c3d",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.5,
    kernel_initializer="authors",
    grid=None,
    style="sports1m",
    momentum=0.99,
):
    """Filters of 3 x 3 x 3 everywhere, pools of 2 x 2 x 2 but for the first.

    Takes clips of shape `(16, 112, 112, 3)`; fc6 is made for the frames and
    pixels that are asked for. The arguments are those of every builder, see
    `keras_videofusion.applications`, and:

    Args:
        grid: `"tf"`: pools keep what is left over at the far edge, as Caffe
            does. `"torch"`: they drop it, and pool5 is padded on both sides,
            as OpenMMLab's weights need. `"tf"` if not given, but for those.
        style: `"sports1m"`, the authors'; or `"quo_vadis"`: with batch
            normalisation after every layer with weights, and strides of two
            frames in the first pool too.
        momentum: Float, decay of batch normalisation's averages.

    Returns:
        A `keras.Model`; 79,991,015 parameters.

    Reference:
        Tran et al., ICCV 2015, section 3.3; Carreira & Zisserman, CVPR 2017,
        section 2.2 ("3D-ConvNet").
    """
    classes = classes_for("c3d", weights, classes, 487)
    grid = settle("c3d", weights, {"grid": "tf"}, {"grid": grid})["grid"]
    expect_one_of("grid", grid, GRIDS)
    expect_one_of("style", style, STYLES)
    normed = style == "quo_vadis"

    def activate(x, name):
        if normed:
            x = layers.BatchNormalization(
                momentum=momentum,
                epsilon=1e-3,
                scale=False,
                name=f"{name}_bn",
            )(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    def body(x, making):
        for place, (name, filters) in enumerate(COLUMN):
            x = layers.Conv3D(
                making.scaled(filters),
                3,
                padding="same",
                use_bias=not normed,
                name=name,
                **making.start(
                    name, authors=start(0.01, 0.0 if place == 0 else 1.0)
                ),
            )(x)
            x = activate(x, name)
            number = name[4]
            above = COLUMN[place + 1 : place + 2]
            if not above or above[0][0][4] != number:
                x = pool(x, f"pool{number}")
        return x

    def pool(x, name):
        extent = 1 if name == "pool1" and not normed else 2
        padding = "same"
        if grid == "torch":
            padding = "valid"
            if name == "pool5":
                # After a ReLU, zeros do not win.
                x = layers.ZeroPadding3D((0, 1, 1), name="pool5_pad")(x)
        return layers.MaxPooling3D((extent, 2, 2), None, padding, name=name)(x)

    def top(x, making, classes, activation):
        x = layers.Flatten(name="flatten")(x)
        for name in ("fc6", "fc7"):
            x = layers.Dense(
                making.scaled(4096),
                use_bias=not normed,
                name=name,
                **making.start(name, authors=start(0.005, 1.0)),
            )(x)
            x = activate(x, name)
            if making.dropout:
                x = layers.Dropout(making.dropout, name=f"{name}_dropout")(x)
        return predictions(x, making, classes, activation, start(0.01, 0.0))

    return assemble(
        "c3d",
        CLIP,
        centre,
        body,
        top,
        LEAST[grid],
        any_time=True,
        **shared(locals()),
    )

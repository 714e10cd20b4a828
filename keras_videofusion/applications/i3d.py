"""I3D: an image network whose filters were inflated into time.

For RGB, for flow, and for both: two networks that are trained apart, whose
logits are added.

Reference: Carreira & Zisserman, Quo Vadis, Action Recognition? A New Model
and the Kinetics Dataset, CVPR 2017, sections 2.4 and 2.5.
"""

from dataclasses import replace

from keras_videofusion.applications.assembly import (
    assemble,
    classes_for,
    shared,
)
from keras_videofusion.applications.inception import (
    averaged,
    expect_one_of,
    GRIDS,
    SITES,
    Style,
    trunk,
    unit_range,
)
from keras_videofusion.applications.two_stream import join
from keras_videofusion.data.clips import ClipSpec

RGB = ClipSpec(
    64, fps=25.0, resize=("short_side", 256), size=(224, 224), short="loop"
)
FLOW = replace(RGB, streams=("flow",), flow=64)
BOTH = replace(RGB, streams=("rgb", "flow"), flow=64)

# Side and frames of the smallest clip that leaves something after the
# strides; torch's grid drops what does not fill a window.
LEAST = {"tf": (1, 32), "torch": (5, 32)}

MODALITIES = {"rgb": RGB, "flow": FLOW}

# Filters reach over three frames everywhere, and over seven in the first.
EVERYWHERE = {**dict.fromkeys(SITES, 3), "conv_1a": 7}


def inflated(network, clip, style, arguments, entrance=unit_range):
    """A network of the Inception family.

    Args:
        network: String, its name in `applications.MODELS`.
        clip: `ClipSpec`.
        style: `Style`.
        arguments: Dict, the builder's.
        entrance: As of `assembly.assemble`.

    Returns:
        A `keras.Model`.
    """
    return assemble(
        network,
        clip,
        entrance,
        lambda x, making: trunk(x, style, making),
        averaged(style),
        LEAST[style.grid],
        any_time=True,
        making={"reach": 1.0},
        **arguments,
    )


def I3D(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=400,
    classifier_activation="softmax",
    name="i3d",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.5,
    kernel_initializer="authors",
    modality="rgb",
    grid="tf",
    momentum=0.99,
):
    """Inception-V1 with filters of 3 x 3 x 3 for 3 x 3.

    Takes clips of shape `(64, 224, 224, 3)`, or of 2 channels of flow, in
    pixels per frame; of more or fewer frames too, and of other sizes from 32
    pixels. The arguments are those of every builder, see
    `keras_videofusion.applications`, and:

    Args:
        modality: `"rgb"` or `"flow"`.
        grid: Where strides begin: `"tf"`, as the authors' weights need, or
            `"torch"`.
        momentum: Float, decay of batch normalisation's averages; the authors
            have 0.999, which needs thousands of steps to warm up.

    Returns:
        A `keras.Model`; 12,689,984 parameters for RGB, 12,668,032 for flow.

    Reference:
        Carreira & Zisserman, CVPR 2017, section 2.4 and figure 3.
    """
    expect_one_of("modality", modality, tuple(MODALITIES))
    expect_one_of("grid", grid, GRIDS)
    network = "i3d" if modality == "rgb" else "i3d_flow"
    classes = classes_for(network, weights, classes, 400)
    style = Style(EVERYWHERE, momentum=momentum, grid=grid)
    return inflated(network, MODALITIES[modality], style, shared(locals()))


def TwoStreamI3D(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=400,
    classifier_activation="softmax",
    name="two_stream_i3d",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.5,
    kernel_initializer="authors",
    grid="tf",
    momentum=0.99,
):
    """I3D for RGB and I3D for flow, whose logits are added.

    Takes `{"rgb": (64, 224, 224, 3), "flow": (64, 224, 224, 2)}`. The two are
    the nested models `rgb_tower` and `flow_tower`. The arguments are those of
    every builder, see `keras_videofusion.applications`,
    and those of `I3D`.

    Returns:
        A `keras.Model`; 25,358,016 parameters.

    Reference:
        Carreira & Zisserman, CVPR 2017, sections 2.4 and 2.5.
    """
    return join(
        "two_stream_i3d",
        {
            "rgb": lambda **shared: I3D(modality="rgb", **shared),
            "flow": lambda **shared: I3D(modality="flow", **shared),
        },
        "logits",
        (1.0, 1.0),
        shared(locals()),
        {"grid": grid, "momentum": momentum},
    )

"""How much of a network must look along time, and can it be done in two steps?

I2D looks at frames; bottom-heavy and top-heavy networks look along time below
or above a named block; S3D parts every filter into one in space and one in
time; S3D-G weighs its channels by what all of them say of the clip.

Reference: Xie et al., Rethinking Spatiotemporal Feature Learning: Speed-
Accuracy Trade-offs in Video Classification, ECCV 2018.
"""

from keras_videofusion.applications.assembly import settle, shared
from keras_videofusion.applications.i3d import (
    EVERYWHERE,
    inflated,
    MODALITIES,
    RGB,
)
from keras_videofusion.applications.inception import (
    expect_one_of,
    expect_site,
    GRIDS,
    SITES,
    Style,
    unit_range,
)
from keras_videofusion.applications.two_stream import join
from keras_videofusion.layers import Standardization

STYLES = ("slim", "torchvision")


def from_site(boundary, conv1):
    """Frames under the filters of a network that looks along time on top.

    Args:
        boundary: The lowest site, conv_1a aside, whose filters do.
        conv1: Integer, frames under the first filters.

    Returns:
        Dict from site to extent.
    """
    first = SITES.index(boundary)
    above = {site: 3 if SITES.index(site) >= first else 1 for site in SITES[1:]}
    return {"conv_1a": conv1, **above}


def up_to_site(boundary):
    """The reverse: filters look along time up to that site.

    Args:
        boundary: The highest site whose filters do.

    Returns:
        Dict from site to extent.
    """
    last = SITES.index(boundary)
    return {
        site: reach if SITES.index(site) <= last else 1
        for site, reach in EVERYWHERE.items()
    }


def _expect_extent(conv1):
    expect_one_of("conv1", conv1, (1, 3, 5, 7))


def I2D(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=400,
    classifier_activation="softmax",
    name="i2d",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.2,
    kernel_initializer="authors",
    grid="tf",
    momentum=0.99,
    pool_time=True,
):
    """I3D's plan with filters that see one frame.

    Takes clips of shape `(64, 224, 224, 3)`, of more or fewer frames too. As
    the authors built it, it still strides and pools along time. The arguments
    are those of every builder, see `keras_videofusion.applications`, those of
    `I3D`, and:

    Args:
        pool_time: Whether it does; False: the order of the frames cannot
            change the answer.

    Returns:
        A `keras.Model`; 6,002,624 parameters.

    Reference:
        Xie et al., ECCV 2018, section 4.1 and figure 2b.
    """
    expect_one_of("grid", grid, GRIDS)
    extents = dict.fromkeys(SITES, 1)
    style = Style(
        extents, momentum=momentum, grid=grid, time=pool_time, started="slim"
    )
    return inflated("i2d", RGB, style, shared(locals()))


def BottomHeavyI3D(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=400,
    classifier_activation="softmax",
    name="bottom_heavy_i3d",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.2,
    kernel_initializer="authors",
    grid="tf",
    momentum=0.99,
    boundary="mixed_3c",
):
    """I3D up to a named block, I2D above it.

    Takes clips of shape `(64, 224, 224, 3)`, of more or fewer frames too. The
    arguments are those of every builder, see
    `keras_videofusion.applications`, those of `I3D`, and:

    Args:
        boundary: The last site whose filters look along time: `"conv_1a"`,
            `"conv_2c"`, `"mixed_3b"` ... `"mixed_5c"`.

    Returns:
        A `keras.Model`; 7,008,320 parameters.

    Reference:
        Xie et al., ECCV 2018, section 4.2 and figure 2c.
    """
    expect_one_of("grid", grid, GRIDS)
    expect_site(boundary)
    style = Style(
        up_to_site(boundary), momentum=momentum, grid=grid, started="slim"
    )
    return inflated("bottom_heavy_i3d", RGB, style, shared(locals()))


def TopHeavyI3D(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=400,
    classifier_activation="softmax",
    name="top_heavy_i3d",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.2,
    kernel_initializer="authors",
    grid="tf",
    momentum=0.99,
    boundary="mixed_4b",
    conv1=1,
):
    """I2D below a named block, I3D from there up.

    Takes clips of shape `(64, 224, 224, 3)`, of more or fewer frames too. The
    arguments are those of every builder, see
    `keras_videofusion.applications`, those of `I3D`, and:

    Args:
        boundary: The first site whose filters look along time: `"conv_2c"`,
            `"mixed_3b"` ... `"mixed_5c"`.
        conv1: Frames under the filters of conv_1a: 1, 3, 5 or 7.

    Returns:
        A `keras.Model`; 11,684,288 parameters.

    Reference:
        Xie et al., ECCV 2018, section 4.2 and figure 2d.
    """
    expect_one_of("grid", grid, GRIDS)
    expect_site(boundary, SITES[1:])
    _expect_extent(conv1)
    style = Style(
        from_site(boundary, conv1),
        momentum=momentum,
        grid=grid,
        started="slim",
    )
    return inflated("top_heavy_i3d", RGB, style, shared(locals()))


def S3D(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=400,
    classifier_activation="softmax",
    name="s3d",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.2,
    kernel_initializer="authors",
    grid=None,
    momentum=0.99,
    boundary="conv_2c",
    conv1=None,
    style=None,
):
    """I3D with every filter parted: first space, then time.

    Takes clips of shape `(64, 224, 224, 3)`, of more or fewer frames too. The
    arguments are those of every builder, see
    `keras_videofusion.applications`, those of `I3D`, and:

    Args:
        boundary: The first site whose filters look along time, conv_1a
            aside; `"mixed_4b"` and so on make it top-heavy.
        conv1: Frames under the filters of conv_1a: 1, 3, 5 or 7; 3 if not
            given, and 7 in torchvision's style.
        style: `"slim"`, the authors' code: conv_1a is one step, filters in
            time have a bias and no batch normalisation. `"torchvision"`:
            conv_1a is parted too, the reverse holds, and batch normalisation
            has a scale. `"slim"` if not given, but for published weights.
        grid: As of `I3D`; torch's for torchvision's weights, else `"tf"`.

    Returns:
        A `keras.Model`; 8,299,520 parameters, 8,320,048 in torchvision's
        style.

    Reference:
        Xie et al., ECCV 2018, section 4.3 and figure 2e.
    """
    return separable("s3d", "rgb", weights, locals())


def S3DG(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=400,
    classifier_activation="softmax",
    name="s3dg",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.2,
    kernel_initializer="authors",
    grid=None,
    momentum=0.99,
    boundary="conv_2c",
    conv1=None,
    style=None,
    modality="rgb",
    gate_bias=False,
):
    """S3D with gates: channels are weighed by what the whole clip shows.

    Takes clips of shape `(64, 224, 224, 3)`, or of 2 channels of flow, in
    pixels per frame; of more or fewer frames too. The arguments are those of
    every builder, see `keras_videofusion.applications`, those of `S3D`, and:

    Args:
        modality: `"rgb"` or `"flow"`.
        gate_bias: Whether gates have a bias; the authors' have none.

    Returns:
        A `keras.Model`; 9,518,848 parameters for RGB, 9,509,440 for flow.

    Reference:
        Xie et al., ECCV 2018, sections 4.5 and 5.
    """
    expect_one_of("modality", modality, tuple(MODALITIES))
    network = "s3dg" if modality == "rgb" else "s3dg_flow"
    return separable(network, modality, weights, locals(), gated=True)


def TwoStreamS3DG(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=400,
    classifier_activation="softmax",
    name="two_stream_s3dg",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.2,
    kernel_initializer="authors",
    grid=None,
    momentum=0.99,
    boundary="conv_2c",
    conv1=None,
    style=None,
    gate_bias=False,
):
    """S3D-G for RGB and S3D-G for flow, whose logits are averaged.

    Takes `{"rgb": (64, 224, 224, 3), "flow": (64, 224, 224, 2)}`. The two are
    the nested models `rgb_tower` and `flow_tower`. The arguments are those of
    every builder, see `keras_videofusion.applications`,
    and those of `S3DG`.

    Returns:
        A `keras.Model`; 19,028,288 parameters.

    Reference:
        Xie et al., ECCV 2018, section 5.
    """
    own = ("grid", "momentum", "boundary", "conv1", "style", "gate_bias")
    arguments = locals()
    return join(
        "two_stream_s3dg",
        {
            "rgb": lambda **both: S3DG(modality="rgb", **both),
            "flow": lambda **both: S3DG(modality="flow", **both),
        },
        "logits",
        (0.5, 0.5),
        shared(arguments),
        {key: arguments[key] for key in own},
    )


def separable(network, modality, weights, arguments, gated=False):
    """S3D, with gates or without.

    Args:
        network: String, its name in `applications.MODELS`.
        modality: `"rgb"` or `"flow"`.
        weights: The builder's argument.
        arguments: Dict, all of the builder's.
        gated: Whether there are gates.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If an argument is wrong; it is named.
    """
    told = {key: arguments[key] for key in ("style", "grid")}
    told = settle(network, weights, {"style": "slim", "grid": "tf"}, told)
    expect_one_of("style", told["style"], STYLES)
    expect_one_of("grid", told["grid"], GRIDS)
    boundary, conv1 = arguments["boundary"], arguments["conv1"]
    expect_site(boundary, SITES[1:])
    torchvision = told["style"] == "torchvision"
    if conv1 is None:
        conv1 = 7 if torchvision else 3
    _expect_extent(conv1)
    sites = SITES[SITES.index(boundary) :] if gated else ()
    style = Style(
        from_site(boundary, conv1),
        separable=True,
        temporal="norm" if torchvision else "bias",
        gated=frozenset(sites),
        gate_bias=arguments.get("gate_bias", False),
        gamma=torchvision,
        momentum=arguments["momentum"],
        grid=told["grid"],
        started=told["style"],
    )
    return inflated(
        network,
        MODALITIES[modality],
        style,
        shared(arguments),
        kinetics_range if torchvision else unit_range,
    )


def kinetics_range(clip, stream):
    """RGB 0..255 less Kinetics' mean, over its deviation; flow to -1..1.

    The numbers are those that torchvision's video networks are trained with.
    """
    if stream == "flow":
        return unit_range(clip, stream)
    mean, deviation = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
    return Standardization(
        [255 * share for share in mean],
        [255 * share for share in deviation],
        name="scale",
    )(clip)

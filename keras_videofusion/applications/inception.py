"""The Inception network in space and time, on which a family stands.

One table of filters, one module of four branches; the members of the family
differ in how far filters reach in time, at which sites, and whether in one
step or two:

                   under time                separable   gates
    I2D            nowhere                       -         -
    BottomHeavy    up to a named block           no        -
    TopHeavy       from a named block            no        -
    I3D            everywhere                    no        -
    S3D            everywhere (or from one)      yes       -
    S3DG           everywhere (or from one)      yes       yes

References:
    Carreira & Zisserman, Quo Vadis, Action Recognition?, CVPR 2017.
    Xie et al., Rethinking Spatiotemporal Feature Learning, ECCV 2018.
"""

from dataclasses import dataclass

import keras
from keras import layers

from keras_videofusion.layers import (
    IdentityKernel,
    SelfGating,
    Standardization,
)

# fmt: off
#         1x1x1  1x1x1 -> 3x3x3  1x1x1 -> 3x3x3  pool -> 1x1x1
TABLE = {
    "mixed_3b": (64,    96, 128,     16, 32,      32),
    "mixed_3c": (128,  128, 192,     32, 96,      64),
    "mixed_4b": (192,   96, 208,     16, 48,      64),
    "mixed_4c": (160,  112, 224,     24, 64,      64),
    "mixed_4d": (128,  128, 256,     24, 64,      64),
    "mixed_4e": (112,  144, 288,     32, 64,      64),
    "mixed_4f": (256,  160, 320,     32, 128,    128),
    "mixed_5b": (256,  160, 320,     32, 128,    128),
    "mixed_5c": (384,  192, 384,     48, 128,    128),
}
# fmt: on

# Where filters may reach in time, from the bottom up.
SITES = ("conv_1a", "conv_2c", *TABLE)

GRIDS = ("tf", "torch")


@dataclass(frozen=True)
class Style:
    """What tells the members of the family, and their authors' code, apart.

    Args:
        extents: Dict from site to the frames under its filters.
        separable: Whether a filter in space is followed by one in time.
        temporal: `"bias"`: filters in time have a bias and no batch
            normalisation (the authors'); `"norm"`: the reverse (torchvision).
        gated: Sites whose answers are gated.
        gate_bias: Whether gates have a bias.
        gamma: Whether batch normalisation has a scale beside its shift.
        momentum: Float, decay of batch normalisation's moving averages.
        grid: `"tf"`: padding as Keras's "same"; `"torch"`: the same zeros on
            both sides, which is another grid where strides meet even sides.
        time: Whether strides and pools act in time as they do in space;
            otherwise every frame is on its own where extents are 1.
        started: Which authors' initial weights: `"deepmind"`, `"slim"` or
            `"torchvision"`.
    """

    extents: dict
    separable: bool = False
    temporal: str = "bias"
    gated: frozenset = frozenset()
    gate_bias: bool = False
    gamma: bool = False
    momentum: float = 0.99
    grid: str = "tf"
    time: bool = True
    started: str = "deepmind"

    def kernels(self, kind="conv"):
        """Initializers of a layer as the authors have them, as a dict."""
        if self.started == "slim":
            found = {
                "conv": keras.initializers.TruncatedNormal(stddev=0.01),
                "temporal": IdentityKernel(),
                "logits": keras.initializers.GlorotUniform(),
            }[kind]
        elif self.started == "torchvision":
            # U(-1 / sqrt(fan_in), 1 / sqrt(fan_in))
            found = keras.initializers.VarianceScaling(
                1 / 3, "fan_in", "uniform"
            )
        else:
            found = keras.initializers.VarianceScaling(
                1.0, "fan_in", "truncated_normal"
            )
        return {"kernel_initializer": found}


def unit_range(clip, stream, name="scale"):
    """RGB 0..255, or flow of up to 20 pixels per frame, to -1..1.

    Args:
        clip: Tensor.
        stream: `"rgb"` or `"flow"`.
        name: String, the layer's.

    Returns:
        Tensor of the same shape.

    Reference:
        Carreira & Zisserman, CVPR 2017, section 2.5.
    """
    if stream == "flow":
        return Standardization(0.0, 20.0, limit=20.0, name=name)(clip)
    return Standardization(127.5, 127.5, name=name)(clip)


def conv(x, name, filters, size, stride, style, making, bias=False, kind=None):
    """A convolution alone.

    Args:
        x: Tensor of shape `(batch, time, height, width, channels)`.
        name: String.
        filters: Integer, at the width that is built.
        size: `(time, height, width)` of the filters.
        stride: The same of their steps.
        style: `Style`.
        making: `Making`.
        bias: Whether there is one.
        kind: What it is to `Style.kernels`, `"conv"` if not given.

    Returns:
        Tensor.
    """
    padding = "same"
    if style.grid == "torch" and max(stride) > 1:
        zeros = layers.ZeroPadding3D(
            tuple((side - 1) // 2 for side in size), name=f"{name}_pad"
        )
        x, padding = zeros(x), "valid"
    return layers.Conv3D(
        filters,
        size,
        stride,
        padding,
        use_bias=bias,
        name=name,
        **making.start(name, authors=style.kernels(kind or "conv")),
    )(x)


def norm(x, name, style):
    """Batch normalisation and ReLU."""
    x = layers.BatchNormalization(
        momentum=style.momentum,
        epsilon=1e-3,
        scale=style.gamma,
        name=f"{name}_bn",
    )(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def unit(x, name, filters, size, style, making, extent=1, stride=(1, 1, 1)):
    """Convolution, batch normalisation, ReLU: one step, or space then time.

    Args:
        x: Tensor of shape `(batch, time, height, width, channels)`.
        name: String; the parts are `name`, `name_bn`, `name_t`.
        filters: Integer, at full width.
        size: Integer, side of the filters in pixels.
        style: `Style`.
        making: `Making`.
        extent: Integer, frames under a filter.
        stride: `(time, height, width)`.

    Returns:
        Tensor.
    """
    filters = making.scaled(filters)
    # The authors' conv_1a is one step even in their separable networks.
    apart = style.separable and (
        name.removeprefix("rgb_").removeprefix("flow_") != "conv_1a"
        or style.temporal == "norm"
    )
    if extent == 1 or not apart:
        taps = (extent, size, size)
        x = conv(x, name, filters, taps, stride, style, making)
        return norm(x, name, style)
    across = (1, *stride[1:])
    x = conv(x, name, filters, (1, size, size), across, style, making)
    x = norm(x, name, style)
    along, steps = (extent, 1, 1), (stride[0], 1, 1)
    late = f"{name}_t"
    if style.temporal == "norm":
        x = conv(x, late, filters, along, steps, style, making)
        return norm(x, late, style)
    x = conv(x, late, filters, along, steps, style, making, True, "temporal")
    return layers.ReLU(name=f"{late}_relu")(x)


def gate(x, name, site, style, making):
    """A gate where the style has one."""
    if site not in style.gated:
        return x
    start = making.start(name, authors=style.kernels())
    return SelfGating(
        style.gate_bias, start["kernel_initializer"], name=f"{name}_g"
    )(x)


def pool(x, name, size, stride, style):
    """Maximum over `(time, height, width)`."""
    if not style.time:
        size, stride = (1, *size[1:]), (1, *stride[1:])
    padding = "same"
    if style.grid == "torch" and max(stride) > 1:
        padding = "valid"
        if max(size) > 2:
            # Zeros do not win: pools follow a ReLU.
            zeros = layers.ZeroPadding3D(
                tuple((side - 1) // 2 for side in size), name=f"{name}_pad"
            )
            x = zeros(x)
    return layers.MaxPooling3D(size, stride, padding, name=name)(x)


def module(x, site, style, making, prefix=""):
    """Four branches side by side: the Inception module, once for all.

    Args:
        x: Tensor of shape `(batch, time, height, width, channels)`.
        site: Key of `TABLE`.
        style: `Style`.
        making: `Making`.
        prefix: String before every layer's name.

    Returns:
        Tensor of the same shape but for its channels.
    """
    b0, b1a, b1b, b2a, b2b, b3 = TABLE[site]
    extent = style.extents[site]
    name = f"{prefix}{site}"

    def one(x, branch, filters, size=1):
        reach = extent if size > 1 else 1
        return unit(x, f"{name}_{branch}", filters, size, style, making, reach)

    branches = {
        "b0": one(x, "b0", b0),
        "b1": one(one(x, "b1a", b1a), "b1b", b1b, 3),
        "b2": one(one(x, "b2a", b2a), "b2b", b2b, 3),
        "b3": one(
            pool(x, f"{name}_b3_pool", (3, 3, 3), (1, 1, 1), style), "b3", b3
        ),
    }
    ends = {"b0": "b0", "b1": "b1b", "b2": "b2b", "b3": "b3"}
    return layers.Concatenate(name=name)(
        [
            gate(y, f"{name}_{ends[branch]}", site, style, making)
            for branch, y in branches.items()
        ]
    )


def trunk(x, style, making, prefix=""):
    """The network up to its last module.

    Args:
        x: Tensor of shape `(batch, time, height, width, channels)`.
        style: `Style`.
        making: `Making`.
        prefix: String before every layer's name.

    Returns:
        Tensor of shape `(batch, time / 8, height / 32, width / 32, 1024)`, or
        with all of its frames where the style leaves time alone.
    """

    def step(x, name, filters, size, extent=1, stride=(1, 1, 1)):
        name = f"{prefix}{name}"
        return unit(x, name, filters, size, style, making, extent, stride)

    def down(x, name, size, stride):
        return pool(x, f"{prefix}{name}", size, stride, style)

    at = style.extents
    first = (2 if style.time else 1, 2, 2)
    x = step(x, "conv_1a", 64, 7, at["conv_1a"], first)
    x = down(x, "pool_2a", (1, 3, 3), (1, 2, 2))
    x = step(x, "conv_2b", 64, 1)
    x = step(x, "conv_2c", 192, 3, at["conv_2c"])
    x = gate(x, f"{prefix}conv_2c", "conv_2c", style, making)
    x = down(x, "pool_3a", (1, 3, 3), (1, 2, 2))
    for site in TABLE:
        if site == "mixed_4b":
            x = down(x, "pool_4a", (3, 3, 3), (2, 2, 2))
        if site == "mixed_5b":
            x = down(x, "pool_5a", (2, 2, 2), (2, 2, 2))
        x = module(x, site, style, making, prefix)
    return x


def averaged(style):
    """The top of the family: a sliding mean, a classifier, the mean of it.

    The window is 2 x 7 x 7 and moves by one frame, so that the first and the
    last frame count half: not the same as one mean over all.

    Args:
        style: `Style`.

    Returns:
        Function as `assembly.assemble` takes it for `top`.
    """

    def top(x, making, classes, activation):
        time, height, width = x.shape[1:4]
        window = (
            min(2, time) if style.time else 1,
            min(7, height),
            min(7, width),
        )
        x = layers.AveragePooling3D(window, 1, "valid", name="avg_pool")(x)
        if making.dropout:
            x = layers.Dropout(making.dropout, name="dropout")(x)
        x = layers.Dense(
            classes,
            name="logits",
            # Small probabilities are lost in half precision.
            dtype="float32",
            **making.start("logits", authors=style.kernels("logits")),
        )(x)
        x = layers.GlobalAveragePooling3D(name="mean", dtype="float32")(x)
        return layers.Activation(
            activation, dtype="float32", name="predictions"
        )(x)

    return top


def expect_site(boundary, known=SITES):
    """Refuses a boundary that is no site of the network.

    Args:
        boundary: String.
        known: Sites to choose from.

    Raises:
        ValueError: Then; the line names the sites.
    """
    if boundary not in known:
        raise ValueError(
            f"`boundary` must be one of {', '.join(known)}. "
            f"Received: boundary={boundary!r}"
        )


def expect_one_of(name, value, known):
    """Refuses an argument that is none of a few.

    Args:
        name: String, the argument's.
        value: What came.
        known: Tuple of what may.

    Raises:
        ValueError: Then.
    """
    if value not in known:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, known))}. "
            f"Received: {name}={value!r}"
        )

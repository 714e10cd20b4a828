"""Two streams that meet in a layer of 3-D convolution, not in their scores.

Reference: Feichtenhofer et al., Convolutional Two-Stream Network Fusion for
Video Action Recognition, CVPR 2016; Carreira & Zisserman, Quo Vadis, Action
Recognition?, CVPR 2017, section 2.3 ("3D-Fused Two-Stream").
"""

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
from keras_videofusion.applications.notation import C, FC, P, stack
from keras_videofusion.applications.two_stream import centred, still
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.layers import (
    Blend,
    IdentityKernel,
    StackFrames,
)

# Five instants, ten frames apart: a frame, and the ten fields about it.
CLIP = ClipSpec(
    1,
    resize=("short_side", 256),
    size=(224, 224),
    streams=("rgb", "flow"),
    flow=10,
    chunks=5,
    spacing=10,
)

# fmt: off
# Convolutions of VGG-16 by block; a pool after every block but the last.
VGG = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# fmt: on

BACKBONES = ("inception", "vgg16")


def inception_fusion(maps, making, momentum=0.99):
    """A convolution over both streams' maps at all instants, and a pool.

    Args:
        maps: List of the streams' maps, `(batch, 5, 7, 7, 1024)` each.
        making: `Making`.
        momentum: Float, decay of batch normalisation's averages.

    Returns:
        Tensor of shape `(batch, 3, 4, 4, 512)`.
    """
    x = layers.Concatenate(name="streams")(maps)
    normal = keras.initializers.RandomNormal(stddev=0.01)
    x = layers.Conv3D(
        making.scaled(512),
        3,
        padding="same",
        use_bias=False,
        name="fuse_conv",
        **making.start("fuse_conv", authors={"kernel_initializer": normal}),
    )(x)
    x = layers.BatchNormalization(
        momentum=momentum, epsilon=1e-3, scale=False, name="fuse_conv_bn"
    )(x)
    x = layers.ReLU(name="fuse_conv_relu")(x)
    return layers.MaxPooling3D(3, 2, "same", name="pool")(x)


def inception_top(x, making, classes, activation):
    """One classifier over the mean of the fused map."""
    normal = keras.initializers.RandomNormal(stddev=0.01)
    x = layers.GlobalAveragePooling3D(name="avg_pool")(x)
    if making.dropout:
        x = layers.Dropout(making.dropout, name="dropout")(x)
    start = {"kernel_initializer": normal}
    return predictions(x, making, classes, activation, start)


def vgg(x, making, prefix):
    """VGG-16 to the ReLU of its last convolution, frame by frame."""
    for block, filters in enumerate(VGG, 1):
        for place, count in enumerate(filters, 1):
            x = C(count, 3)(x, f"{prefix}conv{block}_{place}", making)
        if block < len(VGG):
            x = P()(x, f"{prefix}pool{block}", making)
    return x


def vgg_fusion(maps, making):
    """The fused map beside the temporal stream's own, which is kept.

    Args:
        maps: List of the streams' maps, `(batch, 5, 14, 14, 512)` each.
        making: `Making`.

    Returns:
        List of two tensors of shape `(batch, 1, 7, 7, 512)`.
    """
    x = layers.Concatenate(name="streams")(maps)
    # The temporal stream answers more faintly: it counts three times.
    start = {"kernel_initializer": IdentityKernel((0.25, 0.75), 1.0)}
    x = layers.Conv3D(
        making.scaled(512),
        3,
        padding="same",
        activation="relu",
        name="conv3D5",
        **making.start("conv3D5", authors=start),
    )(x)
    instants = x.shape[1]
    return [
        layers.MaxPooling3D((instants, 2, 2), name=name)(y)
        for name, y in (("pool3D5", x), ("flow_pool3D5", maps[1]))
    ]


def vgg_top(apart):
    """Fully connected layers for the fused map, others for the temporal.

    Args:
        apart: Whether their scores stay apart.

    Returns:
        Function as `assembly.assemble` takes it for `top`.
    """

    def head(x, making, classes, activation, prefix):
        x = layers.Flatten(name=f"{prefix}flatten")(x)
        x = stack(x, (FC(4096), FC(4096)), making, prefix, first=6)
        return layers.Dense(
            classes,
            activation=activation,
            dtype="float32",
            name=f"{prefix}fc8",
            **making.start(f"{prefix}fc8", 0.005),
        )(x)

    def top(maps, making, classes, activation):
        scores = [
            head(x, making, classes, activation, prefix)
            for prefix, x in zip(("", "flow_"), maps, strict=True)
        ]
        if not apart:
            return Blend((0.5, 0.5), name="predictions", dtype="float32")(
                scores
            )
        rows = [
            layers.Reshape((1, classes), name=name, dtype="float32")(x)
            for name, x in zip(("fused", "temporal"), scores, strict=True)
        ]
        return layers.Concatenate(1, name="predictions", dtype="float32")(rows)

    return top


def FusedTwoStream(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=400,
    classifier_activation="softmax",
    name="fused_two_stream",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=None,
    kernel_initializer="authors",
    backbone="inception",
    momentum=0.99,
    apart=False,
):
    """Two image networks whose maps at five instants meet in a convolution.

    Takes `{"rgb": (5, 224, 224, 3), "flow": (50, 224, 224, 2)}`: five
    instants, of each a frame and the ten fields about it. The arguments are
    those of every builder, see `keras_videofusion.applications`, and:

    Args:
        dropout: Float; 0.85 for VGG-16 and 0 for Inception if not given.
        backbone: `"inception"`: Inception-V1 with batch normalisation, a
            fusion of 3 x 3 x 3, a mean and one classifier (Carreira &
            Zisserman). `"vgg16"`: VGG-16, a fusion that starts as a weighted
            sum of the streams, and the temporal stream kept beside it
            (Feichtenhofer et al.).
        momentum: Float, decay of batch normalisation's averages.
        apart: With VGG-16, whether the scores of the fused and of the
            temporal part stay apart, of shape `(batch, 2, classes)`, each to
            be trained on the label, as the paper does; else their mean.

    Returns:
        A `keras.Model`; 39,755,824 parameters, 283,514,762 with VGG-16's
        towers and 101 classes.

    Reference:
        Feichtenhofer et al., CVPR 2016, section 3.4 and figure 4; Carreira &
        Zisserman, CVPR 2017, section 2.3 and figure 2d.
    """
    expect_one_of("backbone", backbone, BACKBONES)
    if apart and backbone != "vgg16":
        raise ValueError(
            "`apart` needs the two classifiers of backbone='vgg16'. "
            f"Received: apart={apart!r}, backbone={backbone!r}"
        )
    deep = backbone == "vgg16"
    if dropout is None:
        dropout = 0.85 if deep else 0.0
    style = still(momentum)

    def body(clip, making):
        rgb, flow = clip["rgb"], clip["flow"]
        # (batch, 5, height, width, 20): ten fields at every instant
        flow = StackFrames(CLIP.flow, CLIP.flow, name="flow_fields")(flow)
        maps = [
            vgg(x, making, prefix) if deep else trunk(x, style, making, prefix)
            for x, prefix in ((rgb, "rgb_"), (flow, "flow_"))
        ]
        if not deep:
            return inception_fusion(maps, making, momentum)
        fused, temporal = vgg_fusion(maps, making)
        if include_top:
            return [fused, temporal]
        return layers.Concatenate(name="maps")([fused, temporal])

    return assemble(
        "fused_two_stream",
        CLIP,
        lambda x, stream: (centred if deep else unit_range)(
            x, stream, f"{stream}_scale"
        ),
        body,
        vgg_top(apart) if deep else inception_top,
        32,
        **shared(locals()),
    )

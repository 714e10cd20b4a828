"""Fovea and context: the middle of a frame sharp, the whole of it small.

Two streams of 89 x 89 pixels stand for one of 178 x 178: a quarter of the
pixels each, half of the input together. Either is a trunk of `fusion` without
its last pool, so that it too ends in 7 x 7 x 256; the filters are not shared.

Reference: Karpathy et al., Large-scale Video Classification with
Convolutional Neural Networks, CVPR 2014, section 3.2.
"""

from keras import layers

from keras_videofusion.applications.assembly import assemble
from keras_videofusion.applications.fusion import (
    EARLY,
    LATE,
    SINGLE,
    SLOW,
    TOP,
)
from keras_videofusion.applications.notation import stack
from keras_videofusion.layers import ContextHalf, FoveaCrop

# Side of the smallest frame whose half leaves a pixel after two pools.
LEAST = 20


def foveated(trunk):
    """The body of a network with both streams over a trunk of `fusion`.

    Args:
        trunk: Tokens that end in a pool.

    Returns:
        Function of (clip, `Making`) to the streams' maps side by side.
    """

    def body(clip, making):
        fovea = FoveaCrop(name="fovea")(clip)
        context = ContextHalf(name="context")(clip)
        return layers.Concatenate(name="streams")(
            [
                stack(fovea, trunk[:-1], making, "fovea_"),
                stack(context, trunk[:-1], making, "context_"),
            ]
        )

    return body


def one(stream, name):
    """The body of a network with one stream over a single frame.

    Args:
        stream: Layer class that cuts the stream out of a clip.
        name: String, the stream's.

    Returns:
        Function of (clip, `Making`) to the stream's map.
    """
    return lambda clip, making: stack(
        stream(name=name)(clip), SINGLE[:-1], making, f"{name}_"
    )


def MultiresSingleFrame(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=487,
    classifier_activation="softmax",
    name="multires_single_frame",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.0,
    kernel_initializer="halving",
):
    """Sees one frame twice: its middle sharp, the whole at half size.

    Takes clips of shape `(1, 178, 178, 3)`, of which it cuts its streams of
    89 x 89 itself. The arguments are those of every builder: see
    `keras_videofusion.applications`.

    Returns:
        A `keras.Model`; 129,035,495 parameters at full width.

    Reference:
        Karpathy et al., CVPR 2014, section 3.2.
    """
    return assemble(
        "multires_single_frame",
        foveated(SINGLE),
        TOP,
        1,
        178,
        LEAST,
        **locals(),
    )


def MultiresLateFusion(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=487,
    classifier_activation="softmax",
    name="multires_late_fusion",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.0,
    kernel_initializer="halving",
):
    """Compares two frames, 15 apart, in fovea and context.

    Takes clips of shape `(2, 178, 178, 3)`, of which it cuts its streams of
    89 x 89 itself. The arguments are those of every builder: see
    `keras_videofusion.applications`.

    Returns:
        A `keras.Model`; 231,795,943 parameters at full width.

    Reference:
        Karpathy et al., CVPR 2014, section 3.2.
    """
    return assemble(
        "multires_late_fusion", foveated(LATE), TOP, 2, 178, LEAST, **locals()
    )


def MultiresEarlyFusion(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=487,
    classifier_activation="softmax",
    name="multires_early_fusion",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.0,
    kernel_initializer="halving",
):
    """Sees ten frames at once, in fovea and context.

    Takes clips of shape `(10, 178, 178, 3)`, of which it cuts its streams of
    89 x 89 itself. The arguments are those of every builder: see
    `keras_videofusion.applications`.

    Returns:
        A `keras.Model`; 129,662,759 parameters at full width.

    Reference:
        Karpathy et al., CVPR 2014, section 3.2.
    """
    return assemble(
        "multires_early_fusion",
        foveated(EARLY),
        TOP,
        10,
        178,
        LEAST,
        **locals(),
    )


def MultiresSlowFusion(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=487,
    classifier_activation="softmax",
    name="multires_slow_fusion",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.0,
    kernel_initializer="halving",
):
    """Fuses ten frames slowly, in fovea and context.

    Takes clips of shape `(10, 178, 178, 3)`, of which it cuts its streams of
    89 x 89 itself. The arguments are those of every builder: see
    `keras_videofusion.applications`.

    Returns:
        A `keras.Model`; 132,242,855 parameters at full width.

    Reference:
        Karpathy et al., CVPR 2014, section 3.2.
    """
    return assemble(
        "multires_slow_fusion", foveated(SLOW), TOP, 10, 178, LEAST, **locals()
    )


def FoveaSingleFrame(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=487,
    classifier_activation="softmax",
    name="fovea_single_frame",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.0,
    kernel_initializer="halving",
):
    """Sees the middle of one frame alone.

    Takes clips of shape `(1, 178, 178, 3)`, as its multiresolution siblings
    do, and crops the 89 x 89 pixels in the middle itself. The
    arguments are those of every builder: see `keras_videofusion.applications`.

    Returns:
        A `keras.Model`; 73,908,071 parameters at full width.

    Reference:
        Karpathy et al., CVPR 2014, section 3.2; table 1, "Fovea Only".
    """
    return assemble(
        "fovea_single_frame",
        one(FoveaCrop, "fovea"),
        TOP,
        1,
        178,
        LEAST,
        **locals(),
    )


def ContextSingleFrame(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=487,
    classifier_activation="softmax",
    name="context_single_frame",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.0,
    kernel_initializer="halving",
):
    """Sees one frame at half its size alone.

    Takes clips of shape `(1, 178, 178, 3)`, as its multiresolution siblings
    do, and halves them to 89 x 89 itself. The arguments are
    those of every builder: see `keras_videofusion.applications`.

    Returns:
        A `keras.Model`; 73,908,071 parameters at full width.

    Reference:
        Karpathy et al., CVPR 2014, section 3.2; table 1, "Context Only".
    """
    return assemble(
        "context_single_frame",
        one(ContextHalf, "context"),
        TOP,
        1,
        178,
        LEAST,
        **locals(),
    )

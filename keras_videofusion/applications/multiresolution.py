"""Fovea and context: the middle of a frame sharp, the whole of it small.

Two streams of 89 x 89 pixels stand for one of 178 x 178: a quarter of the
pixels each, half of the input together. Either is a trunk of `fusion` without
its last pool, so that it too ends in 7 x 7 x 256; the filters are not shared.

Reference: Karpathy et al., Large-scale Video Classification with
Convolutional Neural Networks, CVPR 2014, section 3.2.
"""

from dataclasses import replace

from keras import layers

from keras_videofusion.applications.assembly import assemble, connected
from keras_videofusion.applications.fusion import (
    centre,
    EARLY,
    LATE,
    ONE,
    SINGLE,
    SLOW,
    TEN,
    TOP,
    TWO,
)
from keras_videofusion.applications.notation import stack
from keras_videofusion.layers import ContextHalf, FoveaCrop

# Crops that are cut into two streams of 89 pixels.
ONE_178, TEN_178, TWO_178 = (
    replace(clip, size=(178, 178)) for clip in (ONE, TEN, TWO)
)

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
        ONE_178,
        centre,
        foveated(SINGLE),
        connected(TOP),
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
        "multires_late_fusion",
        TWO_178,
        centre,
        foveated(LATE),
        connected(TOP),
        LEAST,
        **locals(),
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
        TEN_178,
        centre,
        foveated(EARLY),
        connected(TOP),
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
        "multires_slow_fusion",
        TEN_178,
        centre,
        foveated(SLOW),
        connected(TOP),
        LEAST,
        **locals(),
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
        ONE_178,
        centre,
        one(FoveaCrop, "fovea"),
        connected(TOP),
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
        ONE_178,
        centre,
        one(ContextHalf, "context"),
        connected(TOP),
        LEAST,
        **locals(),
    )

"""Single-frame, late, early and slow fusion of frames.

Four answers to one question: in which layer do the frames of a clip meet?

                 frames   conv1   conv2   conv3   frames meet in
    SingleFrame     1       -       -       -     (never)
    LateFusion      2       -       -       -     fc6
    EarlyFusion    10     T=10      -       -     conv1
    SlowFusion     10     T=4/2   T=2/2   T=2/2   conv1, conv2, conv3

Reference: Karpathy et al., Large-scale Video Classification with
Convolutional Neural Networks, CVPR 2014, section 3.1.
"""

from keras_videofusion.applications.assembly import assemble, connected
from keras_videofusion.applications.notation import C, FC, N, P, stack
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.layers import Standardization

# The paper's clips: central square at 200 pixels, crops of 170.
ONE, TEN, TWO = ClipSpec(1), ClipSpec(10), ClipSpec(2, step=15)


# fmt: off
def trunk(t1=(1, 1), t2=(1, 1), t3=(1, 1)):
    """The five convolutions; `t1`, `t2` and `t3` are (extent, step) in time."""
    return (
        C(96, 11, 3, *t1), N(), P(),
        C(256, 5, 1, *t2), N(), P(),
        C(384, 3, 1, *t3),
        C(384, 3, 1),
        C(256, 3, 1), P(),
    )
# fmt: on


SINGLE = LATE = trunk()
EARLY = trunk((10, 1))
SLOW = trunk((4, 2), (2, 2), (2, 2))
TOP = (FC(4096), FC(4096))

# Side of the smallest frame that leaves a pixel after stride 3 and three pools.
LEAST = 22


def centre(clip, stream):
    """Raw pixels less the approximate mean of all pixels, unscaled.

    Args:
        clip: Tensor, RGB 0..255.
        stream: `"rgb"`.

    Returns:
        Tensor of the same shape.

    Reference:
        Karpathy et al., CVPR 2014, section 3.3.
    """
    return Standardization(117.0, name="center")(clip)


def over(tokens):
    """The body of a network that is one line of tokens.

    Args:
        tokens: Sequence of tokens.

    Returns:
        Function of (clip, `Making`) to the last feature map.
    """
    return lambda clip, making: stack(clip, tokens, making)


def SingleFrame(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=487,
    classifier_activation="softmax",
    name="single_frame",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.0,
    kernel_initializer="halving",
):
    """Sees one frame: what the appearance of a still tells of a video.

    Takes clips of shape `(1, 170, 170, 3)`. The arguments are those of every
    builder: see `keras_videofusion.applications`.

    Returns:
        A `keras.Model`; 73,908,071 parameters at full width.

    Reference:
        Karpathy et al., CVPR 2014, section 3.1, "Single-frame".
    """
    return assemble(
        "single_frame",
        ONE,
        centre,
        over(SINGLE),
        connected(TOP),
        LEAST,
        **locals(),
    )


def LateFusion(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=487,
    classifier_activation="softmax",
    name="late_fusion",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.0,
    kernel_initializer="halving",
):
    """Compares two frames, 15 apart, in the first fully connected layer.

    Takes clips of shape `(2, 170, 170, 3)`; one trunk serves both frames, so
    its filters are shared. The arguments are those of every builder: see
    `keras_videofusion.applications`.

    Returns:
        A `keras.Model`; 125,288,295 parameters at full width.

    Reference:
        Karpathy et al., CVPR 2014, section 3.1, "Late Fusion".
    """
    return assemble(
        "late_fusion",
        TWO,
        centre,
        over(LATE),
        connected(TOP),
        LEAST,
        **locals(),
    )


def EarlyFusion(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=487,
    classifier_activation="softmax",
    name="early_fusion",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.0,
    kernel_initializer="halving",
):
    """Sees ten frames at once with filters of 11 x 11 x 3 x 10.

    Takes clips of shape `(10, 170, 170, 3)`. The arguments are those of every
    builder: see `keras_videofusion.applications`.

    Returns:
        A `keras.Model`; 74,221,703 parameters at full width.

    Reference:
        Karpathy et al., CVPR 2014, section 3.1, "Early Fusion".
    """
    return assemble(
        "early_fusion",
        TEN,
        centre,
        over(EARLY),
        connected(TOP),
        LEAST,
        **locals(),
    )


def SlowFusion(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=487,
    classifier_activation="softmax",
    name="slow_fusion",
    *,
    include_preprocessing=True,
    width=1.0,
    dropout=0.0,
    kernel_initializer="halving",
):
    """Lets higher layers see more and more of ten frames.

    Takes clips of shape `(10, 170, 170, 3)`: conv1 sees frames 0-3, 2-5, 4-7
    and 6-9, conv2 joins pairs of its answers, conv3 the last two. The
    arguments are those of every builder: see `keras_videofusion.applications`.

    Returns:
        A `keras.Model`; 75,511,751 parameters at full width.

    Reference:
        Karpathy et al., CVPR 2014, section 3.1, "Slow Fusion".
    """
    return assemble(
        "slow_fusion",
        TEN,
        centre,
        over(SLOW),
        connected(TOP),
        LEAST,
        **locals(),
    )

"""The layers that Keras lacks: time into channels, time into the batch, LRN.

All speak `keras.ops` only, so that they run on every backend.
"""

import keras
from keras import layers, ops

register = keras.saving.register_keras_serializable(package="keras_videofusion")


def _clip_rank(shape, name):
    if len(shape) != 5:
        raise ValueError(
            f"{name} takes clips of shape (batch, time, height, width, "
            f"channels). Received: shape={tuple(shape)}"
        )


@register
class StackFrames(layers.Layer):
    """Lays neighbouring frames into the channels.

    Output frame i holds frames `i * step` to `i * step + extent - 1`, the
    earliest in the first channels, and only where all of them exist. A 2-D
    convolution of the result is a convolution that is "valid" in time with
    `extent` frames under a filter and stride `step`.

    Args:
        extent: Integer, frames under one filter.
        step: Integer, stride in time.

    Raises:
        ValueError: If an argument is less than 1 or the clip is too short.

    Input shape:
        `(batch, time, height, width, channels)`, `time` known.

    Output shape:
        `(batch, (time - extent) // step + 1, height, width,
        extent * channels)`.

    Reference:
        Karpathy et al., CVPR 2014, section 3.1.
    """

    def __init__(self, extent, step=1, **kwargs):
        super().__init__(**kwargs)
        for name, value in (("extent", extent), ("step", step)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"`{name}` must be an integer, 1 or more. "
                    f"Received: {name}={value!r}"
                )
        self.extent = extent
        self.step = step

    def compute_output_shape(self, input_shape):
        _clip_rank(input_shape, "StackFrames")
        batch, time, height, width, channels = input_shape
        if time is None or time < self.extent:
            raise ValueError(
                f"the clip must have at least `extent` = {self.extent} "
                f"frames. Received: shape={tuple(input_shape)}"
            )
        time = (time - self.extent) // self.step + 1
        return (batch, time, height, width, self.extent * channels)

    def call(self, inputs):
        time = self.compute_output_shape(inputs.shape)[1]
        last = (time - 1) * self.step + 1
        return ops.concatenate(
            [
                inputs[:, first : first + last : self.step]
                for first in range(self.extent)
            ],
            axis=-1,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "extent": self.extent,
            "step": self.step,
        }


@register
class Framewise(layers.Wrapper):
    """Applies a layer of images to every frame of a clip.

    Time is folded into the batch and unfolded again, so that a 2-D
    convolution, pool or normalisation needs no 3-D twin. Unlike
    `keras.layers.TimeDistributed` it is one call of the wrapped layer, and
    shows the weights of what it wraps as `kernel` and `bias`.

    Args:
        layer: `keras.Layer` from images to images.

    Input shape:
        `(batch, time, height, width, channels)`.

    Output shape:
        `(batch, time, height', width', channels')`.
    """

    @property
    def kernel(self):
        return self.layer.kernel

    @property
    def bias(self):
        return self.layer.bias

    def build(self, input_shape):
        _clip_rank(input_shape, "Framewise")
        super().build((None, *input_shape[2:]))

    def compute_output_shape(self, input_shape):
        _clip_rank(input_shape, "Framewise")
        frame = self.layer.compute_output_shape((None, *input_shape[2:]))
        return (*input_shape[:2], *frame[1:])

    def call(self, inputs):
        sizes = ops.shape(inputs)
        frames = ops.reshape(inputs, (-1, *sizes[2:]))
        outputs = self.layer(frames)
        return ops.reshape(outputs, (-1, sizes[1], *ops.shape(outputs)[1:]))


@register
class LocalResponseNormalization(layers.Layer):
    """Divides every activation by the size of its neighbours in channel.

    `y_c = x_c / (k + alpha * sum of x_j^2 for |j - c| <= n // 2) ** beta`, at
    every point of every frame. `alpha` is that of Krizhevsky's formula and of
    `tf.nn.local_response_normalization`; Caffe and torch divide theirs by n.

    The sum is a product with a banded matrix: on a processor one to two times
    as fast as the native operation. It is computed in float32 at least,
    whatever the policy, since squares of activations overflow float16.

    Args:
        k: Float, what the sum is added to.
        n: Integer, odd: channels of a neighbourhood.
        alpha: Float.
        beta: Float.

    Raises:
        ValueError: If a constant is out of range.

    Input shape:
        `(..., channels)`.

    Output shape:
        As the input.

    Reference:
        Krizhevsky et al., NIPS 2012, section 3.3; Karpathy et al., CVPR
        2014, section 3.1: k 2, n 5, alpha 1e-4, beta 0.5.
    """

    def __init__(self, k=2.0, n=5, alpha=1e-4, beta=0.5, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(n, int) or n < 1 or n % 2 == 0:
            raise ValueError(
                f"`n` must be an odd integer, 1 or more. Received: n={n!r}"
            )
        if not k > 0:
            raise ValueError(f"`k` must be more than 0. Received: k={k!r}")
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not value >= 0:
                raise ValueError(
                    f"`{name}` must be 0 or more. Received: {name}={value!r}"
                )
        self.k = k
        self.n = n
        self.alpha = alpha
        self.beta = beta

    def call(self, inputs):
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        x = ops.cast(inputs, dtype)
        channel = ops.arange(x.shape[-1])
        apart = ops.absolute(channel[:, None] - channel[None, :])
        band = ops.cast(apart <= self.n // 2, dtype)
        around = self.k + self.alpha * ops.matmul(ops.square(x), band)
        if self.beta == 0.5:
            y = x * ops.rsqrt(around)
        else:
            y = x * ops.power(around, -self.beta)
        return ops.cast(y, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "k": self.k,
            "n": self.n,
            "alpha": self.alpha,
            "beta": self.beta,
        }


@register
class Shift(layers.Layer):
    """Adds a constant: `Shift(-117)` centres raw pixels about zero.

    The sum is taken in float32: bfloat16 keeps 8 bits, which hold a pixel of
    200 but not one of 200.5, as resized pixels are.

    Args:
        offset: Float.

    Input shape:
        Any.

    Output shape:
        As the input.

    Reference:
        Karpathy et al., CVPR 2014, section 3.3 (117, unscaled).
    """

    def __init__(self, offset, **kwargs):
        # Else a half policy rounds pixels before they reach the sum.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.offset = offset

    def call(self, inputs):
        shifted = ops.cast(inputs, "float32") + self.offset
        return ops.cast(shifted, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "offset": self.offset}


@register
class FoveaCrop(layers.Layer):
    """Keeps the middle of every frame, half as high and half as wide.

    Args:
        **kwargs: As for every layer.

    Input shape:
        `(batch, time, height, width, channels)`.

    Output shape:
        `(batch, time, height // 2, width // 2, channels)`; 178 pixels become
        the 89 that begin at pixel 44.

    Reference:
        Karpathy et al., CVPR 2014, section 3.2.
    """

    def compute_output_shape(self, input_shape):
        return _halved(input_shape, "FoveaCrop")

    def call(self, inputs):
        sizes = ops.shape(inputs)
        high, wide = sizes[2] // 2, sizes[3] // 2
        top, left = (sizes[2] - high) // 2, (sizes[3] - wide) // 2
        return inputs[:, :, top : top + high, left : left + wide]


@register
class ContextHalf(layers.Layer):
    """Shows every frame at half its size: the mean of 2 x 2 pixels.

    Args:
        **kwargs: As for every layer.

    Input shape:
        `(batch, time, height, width, channels)`.

    Output shape:
        `(batch, time, height // 2, width // 2, channels)`.

    Reference:
        Karpathy et al., CVPR 2014, section 3.2.
    """

    def compute_output_shape(self, input_shape):
        return _halved(input_shape, "ContextHalf")

    def call(self, inputs):
        sizes = ops.shape(inputs)
        frames = ops.reshape(inputs, (-1, *sizes[2:]))
        halved = ops.average_pool(
            frames, 2, 2, "valid", data_format="channels_last"
        )
        return ops.reshape(halved, (-1, sizes[1], *ops.shape(halved)[1:]))


def _halved(shape, name):
    _clip_rank(shape, name)
    sides = (None if side is None else side // 2 for side in shape[2:4])
    return (*shape[:2], *sides, shape[4])

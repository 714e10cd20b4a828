"""The layers that Keras lacks: time into channels, time into the batch, LRN.

All speak `keras.ops` only, so that they run on every backend.
"""

import keras
import numpy as np
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
class GroupedConv2D(layers.Conv2D):
    """A convolution of groups of channels that do not see one another.

    The same as `keras.layers.Conv2D(groups=...)`, weights included, as one
    convolution per group: on a processor TensorFlow would compile the grouped
    one anew for every shape.

    Args:
        *args: As for `keras.layers.Conv2D`.
        **kwargs: As for `keras.layers.Conv2D`.

    Reference:
        Krizhevsky et al., NIPS 2012, section 3.5.
    """

    def convolution_op(self, inputs, kernel):
        parts = zip(
            ops.split(inputs, self.groups, axis=-1),
            ops.split(kernel, self.groups, axis=-1),
            strict=True,
        )
        return ops.concatenate(
            [
                ops.conv(
                    x,
                    filters,
                    list(self.strides),
                    self.padding,
                    "channels_last",
                    self.dilation_rate,
                )
                for x, filters in parts
            ],
            axis=-1,
        )


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
class SignedRoot(layers.Layer):
    """The root of every number's size, with the number's sign.

    A histogram that sums to 1 becomes a vector of length 1, and the product
    of two of them Hellinger's kernel. The arithmetic is float32.

    Input shape:
        Any.

    Output shape:
        As the input.

    Reference:
        Arandjelovic & Zisserman, CVPR 2012, section 2.
    """

    def __init__(self, **kwargs):
        # Else float16 rounds what is less than 6e-8 to nothing.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)

    def call(self, inputs):
        x = ops.cast(inputs, "float32")
        # At 0 the root's own slope has no end.
        size = ops.maximum(ops.abs(x), 1.2e-38)
        return ops.cast(ops.sign(x) * ops.sqrt(size), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape


@register
class Columns(layers.Layer):
    """Parts of a vector, one behind the other.

    Args:
        spans: List of pairs (begin, end) of integers, with begin less than
            end.

    Input shape:
        `(batch, numbers)`.

    Output shape:
        `(batch, numbers of the spans)`.

    Raises:
        ValueError: If a span is no such pair, or reaches beyond the vector.
    """

    def __init__(self, spans, **kwargs):
        super().__init__(**kwargs)
        self.spans = [list(span) for span in spans]
        if not self.spans or not all(
            len(span) == 2 and 0 <= span[0] < span[1] for span in self.spans
        ):
            raise ValueError(
                "`spans` must be pairs (begin, end) with begin less than end. "
                f"Received: spans={spans}"
            )

    def build(self, input_shape):
        if max(end for _, end in self.spans) > input_shape[-1]:
            raise ValueError(
                f"`spans` must end within the vector's {input_shape[-1]} "
                f"numbers. Received: spans={self.spans}"
            )

    def call(self, inputs):
        return ops.concatenate(
            [inputs[:, begin:end] for begin, end in self.spans], axis=-1
        )

    def compute_output_shape(self, input_shape):
        count = sum(end - begin for begin, end in self.spans)
        return (*input_shape[:-1], count)

    def get_config(self):
        return {**super().get_config(), "spans": self.spans}


@register
class Standardization(layers.Layer):
    """Brings pixels, or flow, to the range that a network is made for.

    `y = (x - mean) / deviation`, after x was clipped to `-limit .. limit`.
    The arithmetic is float32: bfloat16 keeps 8 bits, which hold a pixel of
    200 but not one of 200.5, as resized pixels are.

    Args:
        mean: Float, or one per channel.
        deviation: Float, or one per channel, not 0.
        limit: Float, or None: nothing is clipped.

    Raises:
        ValueError: If a value is out of range.

    Input shape:
        `(..., channels)`.

    Output shape:
        As the input.

    Reference:
        Karpathy et al., CVPR 2014, section 3.3 (117, unscaled); Carreira &
        Zisserman, CVPR 2017, section 2.4 (flow: 20 pixels, then to -1 .. 1).
    """

    def __init__(self, mean=0.0, deviation=1.0, limit=None, **kwargs):
        # Else a half policy rounds pixels before they reach the sum.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.mean = _plain(mean)
        self.deviation = _plain(deviation)
        self.limit = limit
        if 0 in (self.deviation if _several(deviation) else [deviation]):
            raise ValueError(
                "`deviation` must not be 0. "
                f"Received: deviation={self.deviation!r}"
            )
        if limit is not None and not limit > 0:
            raise ValueError(
                "`limit` must be more than 0, or None. "
                f"Received: limit={limit!r}"
            )

    def build(self, input_shape):
        for name in ("mean", "deviation"):
            value = getattr(self, name)
            if _several(value) and len(value) != input_shape[-1]:
                raise ValueError(
                    f"`{name}` must have one value per channel. Received: "
                    f"{name}={value}, for {input_shape[-1]} channels"
                )

    def call(self, inputs):
        x = ops.cast(inputs, "float32")
        if self.limit is not None:
            x = ops.clip(x, -self.limit, self.limit)
        mean = ops.convert_to_tensor(self.mean, "float32")
        deviation = ops.convert_to_tensor(self.deviation, "float32")
        return ops.cast((x - mean) / deviation, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "mean": self.mean,
            "deviation": self.deviation,
            "limit": self.limit,
        }


def _several(value):
    return isinstance(value, list | tuple)


def _plain(value):
    return list(value) if _several(value) else value


@register
class FieldCentering(layers.Layer):
    """Takes the mean displacement out of every flow field.

    What the camera's own motion adds to a field is much the same everywhere.

    Args:
        **kwargs: As for every layer.

    Input shape:
        `(batch, time, height, width, channels)`.

    Output shape:
        As the input.

    Reference:
        Simonyan & Zisserman, NIPS 2014, section 3.1, "Mean flow subtraction".
    """

    def __init__(self, **kwargs):
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)

    def call(self, inputs):
        x = ops.cast(inputs, "float32")
        x = x - ops.mean(x, axis=(2, 3), keepdims=True)
        return ops.cast(x, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        _clip_rank(input_shape, "FieldCentering")
        return input_shape


@register
class FlowImage(layers.Layer):
    """Shows every flow field as a picture: x, y and length of displacement.

    All three are multiplied by 16 and clipped to `-128 .. 127`: what an image
    of bytes about 128 holds, less the 128.

    Args:
        **kwargs: As for every layer.

    Input shape:
        `(batch, time, height, width, 2)`, pixels per frame.

    Output shape:
        `(batch, time, height, width, 3)`.

    Reference:
        Donahue et al., CVPR 2015, section 4.1. (The factor 16 is not in the
        paper; it is our choice.)
    """

    def __init__(self, **kwargs):
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)

    def call(self, inputs):
        x = ops.cast(inputs, "float32")
        length = ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True))
        x = ops.clip(16.0 * ops.concatenate([x, length], axis=-1), -128, 127)
        return ops.cast(x, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        _clip_rank(input_shape, "FlowImage")
        return (*input_shape[:-1], 3)


@register
class SelfGating(layers.Layer):
    """Weighs every channel by what all channels say of the whole clip.

    `y = x * sigmoid(W mean(x))`, the mean over time, height and width.

    Args:
        use_bias: Whether a bias is added to `W mean(x)`.
        kernel_initializer: Keras initializer or its name.

    Input shape:
        `(batch, time, height, width, channels)`.

    Output shape:
        As the input.

    Reference:
        Xie et al., ECCV 2018, section 4.5 ("feature gating").
    """

    def __init__(
        self, use_bias=False, kernel_initializer="glorot_uniform", **kwargs
    ):
        super().__init__(**kwargs)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        _clip_rank(input_shape, "SelfGating")
        channels = input_shape[-1]
        self.kernel = self.add_weight(
            name="kernel",
            shape=(channels, channels),
            initializer=self.kernel_initializer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(channels,), initializer="zeros"
            )

    def call(self, inputs):
        mean = ops.mean(inputs, axis=(1, 2, 3), keepdims=True)
        gate = ops.matmul(mean, self.kernel)
        if self.use_bias:
            gate = gate + self.bias
        return inputs * ops.sigmoid(gate)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
        }


@register
class Blend(layers.Layer):
    """The weighted sum of several tensors of one shape: two-stream fusion.

    Args:
        shares: Sequence of floats, one per tensor.

    Input shape:
        List of tensors of one shape.

    Output shape:
        As one of them.

    Reference:
        Simonyan & Zisserman, NIPS 2014, section 5 (averaged scores).
    """

    def __init__(self, shares, **kwargs):
        super().__init__(**kwargs)
        self.shares = [float(share) for share in shares]

    def call(self, inputs):
        if len(inputs) != len(self.shares):
            raise ValueError(
                f"Blend takes {len(self.shares)} tensors, one per share. "
                f"Received: {len(inputs)} tensors"
            )
        pairs = zip(self.shares, inputs, strict=True)
        return sum(share * x for share, x in pairs)

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {**super().get_config(), "shares": self.shares}


@register
class IdentityKernel(keras.initializers.Initializer):
    """Starts a convolution as a weighted sum of channels, smoothed in place.

    Output channel i is `shares[0]` times input channel i, plus `shares[1]`
    times input channel `filters + i`, and so on; each is spread over the taps
    of the kernel by a Gaussian that sums to 1, or, if `deviation` is 0, sits
    in the middle tap.

    Args:
        shares: Sequence of floats.
        deviation: Float, taps.

    Reference:
        Feichtenhofer et al., CVPR 2016, section 3.3; Xie et al., ECCV 2018
        (the authors' temporal convolutions start as the identity).
    """

    def __init__(self, shares=(1.0,), deviation=0.0):
        self.shares = [float(share) for share in shares]
        self.deviation = float(deviation)

    def __call__(self, shape, dtype=None, **kwargs):
        *taps, channels, filters = shape
        spread = np.ones(())
        for length in taps:
            place = np.arange(length) - (length - 1) // 2
            if self.deviation:
                along = np.exp(-(place**2) / (2 * self.deviation**2))
            else:
                along = (place == 0).astype(float)
            spread = spread[..., None] * (along / along.sum())
        mix = np.zeros((channels, filters))
        for part, share in enumerate(self.shares):
            rows = np.arange(
                part * filters, min((part + 1) * filters, channels)
            )
            mix[rows, rows - part * filters] = share
        kernel = spread[..., None, None] * mix
        return ops.convert_to_tensor(kernel, dtype or keras.config.floatx())

    def get_config(self):
        return {"shares": self.shares, "deviation": self.deviation}


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

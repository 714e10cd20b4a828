"""Crops and flips, one draw per clip, so that its frames agree.

A clip is an array, or a dict of arrays by stream; the streams of a clip are
cut and mirrored alike. An array of two channels is optical flow: mirrored, its
x changes sign.

Each exists as a function of NumPy arrays, which the input pipeline uses on
bytes, and as a Keras layer, for users who build their own networks and
pipelines. Keras's own image layers refuse rank 5 and take time for the batch.
"""

import keras
import numpy as np
from keras import layers, ops

from keras_videofusion.data.clips import each_stream
from keras_videofusion.layers import register


def crop(clip, top, left, size):
    """A window of every frame.

    Args:
        clip: Array of shape `(..., height, width, channels)`, or a dict of
            such.
        top: Integer, first row.
        left: Integer, first column.
        size: `(height, width)` of the window.

    Returns:
        Array of shape `(..., size[0], size[1], channels)`, a view.

    Raises:
        ValueError: If the window reaches out of the frame.
    """
    height, width = _frame(clip)
    if not (0 <= top <= height - size[0] and 0 <= left <= width - size[1]):
        raise ValueError(
            f"the window must lie in the frame of {height} x {width}. "
            f"Received: top={top}, left={left}, size={tuple(size)}"
        )
    rows, columns = slice(top, top + size[0]), slice(left, left + size[1])
    return each_stream(lambda one: one[..., rows, columns, :], clip)


def flip(clip):
    """Left and right exchanged in every frame.

    Args:
        clip: Array of shape `(..., height, width, channels)`, or a dict of
            such. Of flow, as floats or as bytes, x is negated too.

    Returns:
        Array of the same shape, or dict; a view but for flow.
    """
    return each_stream(_flipped, clip)


def _flipped(one):
    mirrored = one[..., ::-1, :]
    if one.shape[-1] != 2:
        return mirrored
    found = np.empty(one.shape, one.dtype)
    # Of a byte, 256 - u: negation goes round at 256.
    np.negative(mirrored[..., 0], out=found[..., 0])
    # By channels: ten times as fast as a copy of both and a change of one.
    found[..., 1] = mirrored[..., 1]
    return found


def _frame(clip):
    """Height and width of the frames, which all streams share."""
    one = next(iter(clip.values())) if isinstance(clip, dict) else clip
    return one.shape[-3:-1]


def center_crop(clip, size):
    """The middle of every frame.

    Args:
        clip: As for `crop`.
        size: `(height, width)`.

    Returns:
        As `crop`.
    """
    height, width = _frame(clip)
    return crop(clip, (height - size[0]) // 2, (width - size[1]) // 2, size)


def random_crop(clip, size, generator):
    """The same random window of every frame.

    Args:
        clip: As for `crop`.
        size: `(height, width)`.
        generator: `numpy.random.Generator`.

    Returns:
        As `crop`.
    """
    height, width = _frame(clip)
    top = int(generator.integers(0, max(0, height - size[0]) + 1))
    left = int(generator.integers(0, max(0, width - size[1]) + 1))
    return crop(clip, top, left, size)


def random_crop_flip(clip, size, generator):
    """The paper's augmentation: a random window, mirrored half of the time.

    Args:
        clip: Array of shape `(time, height, width, channels)`, or a dict of
            such.
        size: `(height, width)`.
        generator: `numpy.random.Generator`.

    Returns:
        Array of shape `(time, size[0], size[1], channels)`, or a dict.

    Reference:
        Karpathy et al., CVPR 2014, section 3.3.
    """
    clip = random_crop(clip, size, generator)
    return flip(clip) if generator.random() < 0.5 else clip


def random_colour(clip, strength, generator):
    """Contrast and brightness of every colour drawn anew, once per clip.

    A pixel x of a colour becomes `117 + g (x - 117) + b`, clipped to bytes,
    with g drawn from 1 - strength .. 1 + strength and b from -80 strength ..
    80 strength. It is not the paper's: it keeps a network on few recordings
    from learning the colour of people's clothes.

    Args:
        clip: Uint8 array of shape `(..., 3)`, or a dict of streams: flow has
            no colour and stays as it is.
        strength: Float in [0, 1]; 0 changes nothing.
        generator: `numpy.random.Generator`.

    Returns:
        Uint8 array of the same shape, or dict.
    """
    if isinstance(clip, dict):
        coloured = random_colour(clip["rgb"], strength, generator)
        return {**clip, "rgb": coloured}
    if clip.shape[-1] == 2:
        return clip
    gain = generator.uniform(1 - strength, 1 + strength, 3)
    shift = generator.uniform(-80 * strength, 80 * strength, 3)
    byte = np.arange(256)[:, None]
    table = (117 + gain * (byte - 117) + shift).round().clip(0, 255)
    # A look-up costs a tenth of the arithmetic on every pixel.
    table = table.astype(np.uint8)
    return np.stack([table[:, c][clip[..., c]] for c in range(3)], axis=-1)


def test_passes(clip, size, generator):
    """The four views of a clip that are averaged at test.

    The paper says "4 times (with different crops and flips)" and no more;
    here the centre and one random window, each as it is and mirrored.

    Args:
        clip: Array of shape `(time, height, width, channels)`, or a dict of
            such.
        size: `(height, width)`.
        generator: `numpy.random.Generator`.

    Returns:
        Array of shape `(4, time, size[0], size[1], channels)`, or a dict.

    Reference:
        Karpathy et al., CVPR 2014, section 4.1.
    """
    views = center_crop(clip, size), random_crop(clip, size, generator)
    four = [view for v in views for view in (v, flip(v))]
    if isinstance(clip, dict):
        return {name: np.stack([view[name] for view in four]) for name in clip}
    return np.stack(four)


# pytest would take the name for a test's.
test_passes.__test__ = False  # type: ignore[attr-defined]


def _size_of(value, name):
    size = (value, value) if isinstance(value, int) else tuple(value)
    if len(size) != 2 or not all(
        isinstance(side, int) and side > 0 for side in size
    ):
        raise ValueError(
            f"`{name}` must be an integer or (height, width), in pixels. "
            f"Received: {name}={value!r}"
        )
    return size


class ClipLayer(layers.Layer):
    """What the clip layers share: rank 4 is one clip, rank 5 a batch."""

    def __init__(self, **kwargs):
        # Bytes stay bytes until the network's own first layer.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)

    def _rank(self, shape):
        if len(shape) not in (4, 5):
            raise ValueError(
                f"{type(self).__name__} takes a clip of shape (time, height, "
                "width, channels) or a batch of clips. "
                f"Received: shape={tuple(shape)}"
            )
        return len(shape)

    def _windows(self, inputs, tops, lefts):
        """Cuts a window out of every clip of a batch: one gather per axis."""
        for axis, starts, length in (
            (2, tops, self.size[0]),
            (3, lefts, self.size[1]),
        ):
            places = starts[:, None] + ops.arange(length)[None]
            shape = [-1, 1, 1, 1, 1]
            shape[axis] = length
            inputs = ops.take_along_axis(
                inputs, ops.reshape(places, shape), axis=axis
            )
        return inputs

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor(
            self.compute_output_shape(inputs.shape), dtype=inputs.dtype
        )


def _mirrored(clips, flow):
    """Left and right exchanged; of flow x is negated, a byte to `256 - u`."""
    clips = ops.flip(clips, axis=-2)
    if not flow:
        return clips
    if clips.shape[-1] != 2:
        raise ValueError(
            "`flow=True` takes clips of two channels, x and y. "
            f"Received: shape={tuple(clips.shape)}"
        )
    x, y = clips[..., :1], clips[..., 1:]
    if keras.backend.is_float_dtype(clips.dtype):
        x = -x
    else:
        x = ops.cast(256 - ops.cast(x, "int32"), clips.dtype)
    return ops.concatenate([x, y], axis=-1)


class SizedClipLayer(ClipLayer):
    """A clip layer that cuts frames to `size`."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = _size_of(size, "size")

    def compute_output_shape(self, input_shape):
        self._rank(input_shape)
        for side, least in zip(input_shape[-3:-1], self.size, strict=True):
            if side is not None and side < least:
                raise ValueError(
                    f"`size` must not exceed the frame of {input_shape[-3]} x "
                    f"{input_shape[-2]}. Received: size={self.size}"
                )
        return (*input_shape[:-3], *self.size, input_shape[-1])

    def _centre(self, inputs):
        self.compute_output_shape(inputs.shape)
        height, width = ops.shape(inputs)[-3:-1]
        top = (height - self.size[0]) // 2
        left = (width - self.size[1]) // 2
        return inputs[
            ..., top : top + self.size[0], left : left + self.size[1], :
        ]

    def get_config(self):
        return {**super().get_config(), "size": list(self.size)}


@register
class CenterClipCrop(SizedClipLayer):
    """Keeps the middle of every frame of a clip.

    Args:
        size: Integer or `(height, width)`, pixels.
        **kwargs: As for every layer.

    Raises:
        ValueError: If the size is wrong or exceeds the frame.

    Input shape:
        `(time, height, width, channels)` or a batch of such, of any dtype.

    Output shape:
        The same with `size` for height and width.
    """

    def call(self, inputs):
        return self._centre(inputs)


@register
class RandomClipCrop(SizedClipLayer):
    """Keeps one random window of every clip, the same in all its frames.

    Out of training it keeps the middle.

    Args:
        size: Integer or `(height, width)`, pixels.
        seed: Integer or None.
        **kwargs: As for every layer.

    Raises:
        ValueError: If the size is wrong or exceeds the frame.

    Input shape:
        `(time, height, width, channels)` or a batch of such, of any dtype.

    Output shape:
        The same with `size` for height and width.

    Reference:
        Karpathy et al., CVPR 2014, section 3.3.
    """

    def __init__(self, size, seed=None, **kwargs):
        super().__init__(size, **kwargs)
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        if not training:
            return self._centre(inputs)
        self.compute_output_shape(inputs.shape)
        one = self._rank(inputs.shape) == 4
        clips = inputs[None] if one else inputs
        sizes = ops.shape(clips)
        starts = []
        for axis in (2, 3):
            room = sizes[axis] - self.size[axis - 2]
            drawn = keras.random.uniform(
                (sizes[0],), dtype="float32", seed=self.generator
            )
            # The largest float below 1 may round up to `room + 1`.
            start = ops.cast(drawn * ops.cast(room + 1, "float32"), "int32")
            starts.append(ops.minimum(start, room))
        clips = self._windows(clips, *starts)
        return clips[0] if one else clips

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


@register
class RandomClipFlip(ClipLayer):
    """Mirrors half of the clips, each in all of its frames.

    Out of training it changes nothing.

    Args:
        rate: Float in [0, 1], share of clips that are mirrored.
        seed: Integer or None.
        flow: Whether clips are optical flow, in pixels or in bytes: then x is
            negated too.
        **kwargs: As for every layer.

    Raises:
        ValueError: If the rate is out of range.

    Input shape:
        `(time, height, width, channels)` or a batch of such, of any dtype.

    Output shape:
        As the input.

    Reference:
        Karpathy et al., CVPR 2014, section 3.3.
    """

    def __init__(self, rate=0.5, seed=None, flow=False, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate <= 1:
            raise ValueError(f"`rate` must be in [0, 1]. Received: {rate=}")
        self.rate = rate
        self.seed = seed
        self.flow = flow
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        rank = self._rank(inputs.shape)
        if not training:
            return inputs
        count = () if rank == 4 else (ops.shape(inputs)[0],)
        drawn = keras.random.uniform(
            count, dtype="float32", seed=self.generator
        )
        chosen = ops.reshape(drawn < self.rate, (*count, 1, 1, 1, 1))
        return ops.where(chosen, _mirrored(inputs, self.flow), inputs)

    def compute_output_shape(self, input_shape):
        self._rank(input_shape)
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "rate": self.rate,
            "seed": self.seed,
            "flow": self.flow,
        }


@register
class ClipPasses(RandomClipCrop):
    """The four views of every clip that are averaged at test.

    The centre and one random window, each as it is and mirrored, in training
    and out of it.

    Args:
        size: Integer or `(height, width)`, pixels.
        seed: Integer or None.
        flow: Whether clips are optical flow, as for `RandomClipFlip`.
        **kwargs: As for every layer.

    Raises:
        ValueError: If the size is wrong or exceeds the frame.

    Input shape:
        `(time, height, width, channels)` or a batch of such, of any dtype.

    Output shape:
        `(4, time, size[0], size[1], channels)`, or a batch of such.

    Reference:
        Karpathy et al., CVPR 2014, section 4.1.
    """

    def __init__(self, size, seed=None, flow=False, **kwargs):
        super().__init__(size, seed, **kwargs)
        self.flow = flow

    def compute_output_shape(self, input_shape):
        shape = super().compute_output_shape(input_shape)
        return (*shape[:-4], 4, *shape[-4:])

    def call(self, inputs, training=False):
        views = self._centre(inputs), super().call(inputs, training=True)
        return ops.stack(
            [v for view in views for v in (view, _mirrored(view, self.flow))],
            axis=-5,
        )

    def get_config(self):
        return {**super().get_config(), "flow": self.flow}

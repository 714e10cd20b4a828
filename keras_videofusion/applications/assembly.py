"""What all builders share: arguments, input, top, pooling, weights.

Checks come in the order of `keras.applications` and speak in its manner.
"""

import warnings

import keras
from keras import layers

from keras_videofusion.applications import weights as weight_files
from keras_videofusion.applications.notation import Making, stack
from keras_videofusion.layers import Shift


def assemble(  # noqa: D417 (the builders' own are told once, for all)
    network,
    body,
    top,
    frames,
    side,
    least,
    include_top,
    weights,
    input_tensor,
    input_shape,
    pooling,
    classes,
    classifier_activation,
    name,
    include_preprocessing,
    width,
    dropout,
    kernel_initializer,
):
    """Builds a network of convolutions under fully connected layers.

    The arguments after `least` are the builders' own: see
    `keras_videofusion.applications`.

    Args:
        network: String, the network's name in `applications.MODELS`.
        body: Function of (clip, `Making`) to the last feature map, of shape
            `(batch, time, height, width, channels)`.
        top: Tokens between the feature map and `predictions`; the first is
            number 6.
        frames: Integer, frames of a clip.
        side: Integer, height and width of the default input.
        least: Integer, smallest height and width.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If an argument is wrong; it is named.
    """
    weight_files.check(network, weights)
    if include_top and not (_whole(classes) and classes >= 1):
        raise ValueError(
            "`classes` must be an integer, 1 or more. "
            f"Received: classes={classes!r}"
        )
    shape = _input_shape(
        input_tensor, input_shape, frames, side, least, include_top
    )
    if keras.config.image_data_format() == "channels_first":
        raise ValueError(
            "keras_videofusion works on channels-last data: set "
            '"image_data_format" to "channels_last" in ~/.keras/keras.json '
            "or by `keras.config.set_image_data_format`. "
            "Received: image_data_format='channels_first'"
        )
    if pooling not in (None, "avg", "max"):
        raise ValueError(
            "`pooling` must be None, 'avg' or 'max'. "
            f"Received: pooling={pooling!r}"
        )
    if not width > 0:
        raise ValueError(
            f"`width` must be more than 0. Received: width={width!r}"
        )
    if not 0 <= dropout < 1:
        raise ValueError(
            f"`dropout` must be in [0, 1). Received: dropout={dropout!r}"
        )
    making = Making(width, dropout, kernel_initializer)

    if input_tensor is None:
        clip = layers.Input(shape=shape, dtype="float32", name="clip")
    else:
        clip = input_tensor
    x = clip
    if include_preprocessing:
        # Raw pixels less the approximate mean of all pixels, unscaled:
        # Karpathy et al. 2014, section 3.3.
        x = Shift(-117.0, name="center")(x)
    x = body(x, making)
    if include_top:
        # fc6 reads frame after frame, and each by row, column and channel.
        if x.shape[1] > 1:
            # fc6 reads the frames' channels side by side at every point, as
            # it reads the streams': columns (height, width, frame, channel).
            x = layers.Permute((2, 3, 1, 4), name="merge")(x)
        x = layers.Flatten(name="flatten")(x)
        x = stack(x, top, making, first=6)
        _check_activation(classifier_activation, weights)
        x = layers.Dense(
            classes,
            activation=classifier_activation,
            # A softmax in half precision loses small probabilities.
            dtype="float32",
            name="predictions",
            **making.start("predictions", 0.005),
        )(x)
    elif pooling == "avg":
        x = layers.GlobalAveragePooling3D(name="avg_pool")(x)
    elif pooling == "max":
        x = layers.GlobalMaxPooling3D(name="max_pool")(x)
    if input_tensor is not None:
        clip = keras.utils.get_source_inputs(input_tensor)
        # A list of one would make Keras warn at each call with a tensor.
        clip = clip[0] if len(clip) == 1 else clip
    model = keras.Model(clip, x, name=name)
    weight_files.load(model, weights)
    return model


def _input_shape(tensor, shape, frames, side, least, include_top):
    """The input's shape, checked; time is the network's own."""
    if tensor is not None:
        shape = _tensor_shape(tensor, shape)
    if shape is None:
        free = side if include_top else None
        return (frames, free, free, 3)
    if not isinstance(shape, tuple | list) or len(shape) != 4:
        raise ValueError(
            "`input_shape` must be a tuple of four integers (time, height, "
            f"width, channels). Received: input_shape={shape}"
        )
    shape = tuple(shape)
    time, height, width, channels = shape
    if time != frames:
        raise ValueError(
            f"`input_shape` must begin with {frames}, the frames of this "
            f"network's clip. Received: input_shape={shape}"
        )
    if not _whole(channels) or channels < 1:
        raise ValueError(
            "`input_shape` must end with the number of channels. "
            f"Received: input_shape={shape}"
        )
    if channels not in (1, 3):
        warnings.warn(
            "This model usually expects 1 or 3 input channels. "
            f"However, it was passed an input_shape with {channels} input "
            "channels.",
            stacklevel=4,  # the builder's caller
        )
    known = [length for length in (height, width) if length is not None]
    if any(not _whole(length) or length < least for length in known):
        raise ValueError(
            f"Input size must be at least {least}x{least}. "
            f"Received: input_shape={shape}"
        )
    if include_top and len(known) < 2:
        raise ValueError(
            "If `include_top` is True, you should specify a static "
            f"`input_shape`. Received: input_shape={shape}"
        )
    return shape


def _tensor_shape(tensor, shape):
    """What `input_tensor` says of the shape; `input_shape` must agree."""
    if not keras.utils.is_keras_tensor(tensor):
        raise TypeError(
            "`input_tensor` must be a Keras tensor, such as `keras.Input` "
            f"returns. Received: input_tensor of {type(tensor)}"
        )
    own = tuple(tensor.shape[1:])
    if shape is not None and tuple(shape) != own:
        raise ValueError(
            f"`input_shape` must be that of `input_tensor`, {own}, or None. "
            f"Received: input_shape={tuple(shape)}"
        )
    return own


def _check_activation(activation, weights):
    """Trained tops end in a softmax, in a sigmoid or, as logits, in nothing.

    `keras.applications` has no sigmoid here; videos have several labels.
    """
    if weights is None:
        return
    allowed = [keras.activations.get(a) for a in (None, "softmax", "sigmoid")]
    if keras.activations.get(activation) not in allowed:
        raise ValueError(
            "`classifier_activation` must be None, 'softmax' or 'sigmoid' "
            "when `weights` are given. Received: "
            f"classifier_activation={activation!r}"
        )


def _whole(value):
    return isinstance(value, int) and not isinstance(value, bool)

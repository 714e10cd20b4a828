"""What all builders share: arguments, input, top, pooling, weights.

Checks come in the order of `keras.applications` and speak in its manner.
"""

import warnings
from dataclasses import replace

import keras
from keras import layers

from keras_videofusion.applications import weights as weight_files
from keras_videofusion.applications.notation import Making, stack

CHANNELS = {"rgb": (1, 3), "flow": (2,)}

# The arguments of every builder.
SHARED = (
    "include_top",
    "weights",
    "input_tensor",
    "input_shape",
    "pooling",
    "classes",
    "classifier_activation",
    "name",
    "include_preprocessing",
    "width",
    "dropout",
    "kernel_initializer",
)


def shared(arguments):
    """Those of a builder's arguments that all builders have.

    Args:
        arguments: Dict, the builder's `locals()`.

    Returns:
        Dict.
    """
    return {key: arguments[key] for key in SHARED}


def assemble(
    network,
    clip,
    entrance,
    body,
    top,
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
    any_time=False,
    making=None,
):
    """Builds a network: entrance, body, top.

    The arguments from `include_top` to `kernel_initializer` are the
    builders': see `keras_videofusion.applications`.

    Args:
        network: String, the network's name in `applications.MODELS`.
        clip: `ClipSpec` that tells the streams and the default shapes.
        entrance: Function of (a stream's tensor, its name) to the same,
            scaled as the network wants it.
        body: Function of (clip, `Making`) to the last feature map, of shape
            `(batch, time, height, width, channels)`; of two streams it takes
            a dict.
        top: Function of (map, `Making`, classes, activation) to the scores;
            its last layer is `predictions`.
        least: Integer, smallest height and width, or a pair: smallest number
            of frames too.
        any_time: Whether a clip may have more or fewer frames than stated.
        making: Dict, further fields of `Making`.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If an argument is wrong; it is named.
    """
    check(
        network,
        include_top,
        weights,
        pooling,
        classes,
        classifier_activation,
        width,
        dropout,
    )
    clip = clip_for(network, weights, clip)
    shapes = _input_shapes(
        clip, input_tensor, input_shape, least, include_top, any_time
    )
    built = Making(width, dropout, kernel_initializer, **(making or {}))
    inputs = _inputs(shapes, input_tensor)
    x = inputs
    if include_preprocessing:
        x = {stream: entrance(x[stream], stream) for stream in x}
    x = body(_bare(x), built)
    if include_top:
        x = top(x, built, classes, classifier_activation)
    elif pooling == "avg":
        x = layers.GlobalAveragePooling3D(name="avg_pool")(x)
    elif pooling == "max":
        x = layers.GlobalMaxPooling3D(name="max_pool")(x)
    model = keras.Model(sources(inputs, input_tensor), x, name=name)
    weight_files.load(model, weights, network)
    return model


def check(
    network,
    include_top,
    weights,
    pooling,
    classes,
    classifier_activation,
    width,
    dropout,
):
    """Refuses arguments that no network takes.

    Args:
        network: String, the network's name in `applications.MODELS`.
        include_top: As of every builder; so are the others.
        weights: See there.
        pooling: See there.
        classes: See there.
        classifier_activation: See there.
        width: See there.
        dropout: See there.

    Raises:
        ValueError: If one is wrong; it is named.
    """
    if include_top and not (whole(classes) and classes >= 1):
        raise ValueError(
            "`classes` must be an integer, 1 or more. "
            f"Received: classes={classes!r}"
        )
    weight_files.check(network, weights, include_top, classes)
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
    if include_top:
        _check_activation(classifier_activation, weights)


def settle(network, weights, defaults, given):
    """A builder's own arguments, where published weights may ask for some.

    Args:
        network: String, the network's name in `applications.MODELS`.
        weights: The builder's argument.
        defaults: Dict, values where neither caller nor weights speak.
        given: Dict, the caller's; None: not given.

    Returns:
        Dict with the keys of `defaults`.

    Raises:
        ValueError: If the caller asks for what the weights cannot be.
    """
    release = weight_files.release(network, weights)
    needed = release.arguments if release else {}
    for key, value in needed.items():
        if given.get(key) not in (None, value):
            raise ValueError(
                f"weights={weights!r} need {key}={value!r}. "
                f"Received: {key}={given[key]!r}"
            )
    told = {key: x for key, x in given.items() if x is not None}
    return {**defaults, **told, **needed}


def classes_for(network, weights, classes, default):
    """The number of classes, where published weights may have their own.

    Args:
        network: String, the network's name in `applications.MODELS`.
        weights: The builder's argument.
        classes: The builder's argument.
        default: Integer, its default.

    Returns:
        Integer: that of the weights, unless the caller asks for another.
    """
    release = weight_files.release(network, weights)
    if release and release.classes and classes == default:
        return release.classes
    return classes


def clip_for(network, weights, clip):
    """The clip that a network is fed, as published weights were.

    Args:
        network: String, the network's name in `applications.MODELS`.
        weights: The builder's argument.
        clip: `ClipSpec` of the network without them.

    Returns:
        `ClipSpec`.
    """
    release = weight_files.release(network, weights)
    return replace(clip, **release.clip) if release else clip


def connected(tokens, first=6, authors=None):
    """The top of a network of fully connected layers.

    Args:
        tokens: Tokens between the feature map and `predictions`.
        first: Integer, number of the first.
        authors: Dict, how the source starts `predictions`, or None.

    Returns:
        Function as `assemble` takes it for `top`.
    """

    def top(x, making, classes, activation):
        if x.shape[1] > 1:
            # fc6 reads the frames' channels side by side at every point, as
            # it reads the streams': columns (height, width, frame, channel).
            x = layers.Permute((2, 3, 1, 4), name="merge")(x)
        x = layers.Flatten(name="flatten")(x)
        x = stack(x, tokens, making, first=first)
        return predictions(x, making, classes, activation, authors)

    return top


def predictions(x, making, classes, activation, authors=None):
    """The last fully connected layer.

    Args:
        x: Tensor of shape `(..., features)`.
        making: `Making`.
        classes: Integer.
        activation: The builder's `classifier_activation`.
        authors: Dict, how the source starts it, or None.

    Returns:
        Tensor of shape `(..., classes)`, float32.
    """
    return layers.Dense(
        classes,
        activation=activation,
        # A softmax in half precision loses small probabilities.
        dtype="float32",
        name="predictions",
        **making.start("predictions", 0.005, authors),
    )(x)


def _input_shapes(clip, tensor, shape, least, include_top, any_time):
    """The input's shape by stream, checked."""
    frames, side = least if isinstance(least, tuple) else (1, least)
    if tensor is not None:
        shape = tensor_shape(tensor, shape)
    if shape is None:
        # Without a top nothing hangs on height and width, nor on time where
        # the network does not hold it fast.
        shapes = {
            stream: (
                own
                if include_top
                else (None if any_time else own[0], None, None, own[3])
            )
            for stream, own in clip.shapes.items()
        }
        return shapes
    streams = tuple(clip.shapes)
    given = shape if isinstance(shape, dict) else {streams[0]: shape}
    if set(given) != set(streams):
        raise ValueError(
            "`input_shape` must be a dict with a shape per stream, "
            f"{', '.join(streams)}. Received: input_shape={shape}"
        )
    return {
        stream: _stream_shape(
            stream,
            given[stream],
            clip.shapes[stream],
            (frames, side),
            include_top,
            any_time,
        )
        for stream in streams
    }


def _stream_shape(stream, shape, own, least, include_top, any_time):
    """The shape of one stream's input, checked."""
    frames, side = least
    if not isinstance(shape, tuple | list) or len(shape) != 4:
        raise ValueError(
            "`input_shape` must be a tuple of four integers (time, height, "
            f"width, channels). Received: input_shape={shape}"
        )
    shape = tuple(shape)
    time, height, width, channels = shape
    if not any_time and time != own[0]:
        raise ValueError(
            f"`input_shape` must begin with {own[0]}, the frames of this "
            f"network's clip. Received: input_shape={shape}"
        )
    if time is not None and (not whole(time) or time < frames):
        raise ValueError(
            f"`input_shape` must begin with {frames} or more, the frames of "
            f"a clip. Received: input_shape={shape}"
        )
    if not whole(channels) or channels < 1:
        raise ValueError(
            "`input_shape` must end with the number of channels. "
            f"Received: input_shape={shape}"
        )
    if channels not in CHANNELS[stream]:
        usual = " or ".join(map(str, CHANNELS[stream]))
        warnings.warn(
            f"This model usually expects {usual} input channels. "
            f"However, it was passed an input_shape with {channels} input "
            "channels.",
            stacklevel=6,  # the builder's caller
        )
    known = [length for length in (height, width) if length is not None]
    if any(not whole(length) or length < side for length in known):
        raise ValueError(
            f"Input size must be at least {side}x{side}. "
            f"Received: input_shape={shape}"
        )
    if include_top and None in (time, height, width):
        raise ValueError(
            "If `include_top` is True, you should specify a static "
            f"`input_shape`. Received: input_shape={shape}"
        )
    return shape


def tensor_shape(tensor, shape):
    """What `input_tensor` says of the shape; `input_shape` must agree.

    Args:
        tensor: The builder's `input_tensor`; of several inputs a dict.
        shape: The builder's `input_shape`.

    Returns:
        Tuple without the batch, or a dict of them.

    Raises:
        TypeError: If it is no Keras tensor.
        ValueError: If the two differ.
    """
    several = isinstance(tensor, dict)
    own: dict | tuple
    for one in tensor.values() if several else (tensor,):
        if not keras.utils.is_keras_tensor(one):
            raise TypeError(
                "`input_tensor` must be a Keras tensor, such as `keras.Input` "
                f"returns. Received: input_tensor of {type(one)}"
            )
    if several:
        own = {stream: tuple(one.shape[1:]) for stream, one in tensor.items()}
        same = shape is None or dict(shape) == own
    else:
        own = tuple(tensor.shape[1:])
        same = shape is None or tuple(shape) == own
    if not same:
        raise ValueError(
            f"`input_shape` must be that of `input_tensor`, {own}, or None. "
            f"Received: input_shape={shape}"
        )
    return own


def _inputs(shapes, tensor):
    """A tensor per stream."""
    if tensor is not None:
        return tensor if isinstance(tensor, dict) else {_only(shapes): tensor}
    if len(shapes) == 1:
        names = {_only(shapes): "clip"}
    else:
        names = {stream: stream for stream in shapes}
    return {
        stream: layers.Input(shape, dtype="float32", name=names[stream])
        for stream, shape in shapes.items()
    }


def sources(inputs, tensor):
    """What a model of these tensors takes.

    Args:
        inputs: Dict from stream to tensor.
        tensor: The builder's `input_tensor`.

    Returns:
        The tensor of the only stream, or a dict from stream to tensor.
    """
    if tensor is None:
        return _bare(inputs)
    found = {
        stream: keras.utils.get_source_inputs(one)
        for stream, one in inputs.items()
    }
    # A list of one would make Keras warn at each call with a tensor.
    bare = {k: x[0] if len(x) == 1 else x for k, x in found.items()}
    return _bare(bare)


def _bare(by_stream):
    """One stream is spoken of by itself, several by name."""
    if len(by_stream) == 1:
        return by_stream[_only(by_stream)]
    return by_stream


def _only(by_stream):
    (stream,) = by_stream
    return stream


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


def whole(value):
    """Whether an argument is an integer."""
    return isinstance(value, int) and not isinstance(value, bool)

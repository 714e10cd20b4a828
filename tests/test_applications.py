"""Every network through every check: CHECKS x MODELS, and the catalogue.

Networks are built small: a tenth of the filters, on the smallest frames that
they take. `python tests/test_applications.py` writes the golden files anew.
"""

import contextlib
import functools
import inspect
import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_videofusion import applications
from keras_videofusion.applications import get_model, MODELS
from keras_videofusion.data.vectors import VectorSpec
from keras_videofusion.layers import Framewise

EXPECTED = Path(__file__).parent / "expected"

every_network = pytest.mark.parametrize("name", MODELS)
every_network_of_clips = pytest.mark.parametrize(
    "name",
    [name for name in MODELS if not isinstance(MODELS[name].spec, VectorSpec)],
)


@dataclass(frozen=True)
class Family:
    """What the checks must know of networks that are alike.

    Args:
        networks: Names.
        side: Side of the smallest frame that they take; of networks of
            vectors, the length of those that the checks feed.
        frames: Frames that the checks feed; None where a network takes its
            own number alone.
        classes: The builders' default, as are the next two.
        dropout: See there.
        start: See there: `kernel_initializer`.
        dropped: Names of the layers of dropout.
    """

    networks: tuple
    side: int
    frames: int | None
    classes: int
    dropout: float | None
    start: str
    dropped: tuple


FULL67 = ("full6_dropout", "full7_dropout")
TOWERS = ("rgb_tower/dropout", "flow_tower/dropout")

# Six frames, not five, go into I3D: where its first filters of 7 x 7 x 7 reach
# over 5, TensorFlow 2.21 ends the process in their gradient, on a processor.
# fmt: off
FAMILIES = (
    Family(("single_frame", "early_fusion", "late_fusion", "slow_fusion"),
           22, None, 487, 0.0, "halving", ("fc6_dropout", "fc7_dropout")),
    Family(("multires_single_frame", "multires_early_fusion",
            "multires_late_fusion", "multires_slow_fusion",
            "fovea_single_frame", "context_single_frame"),
           20, None, 487, 0.0, "halving", ("fc6_dropout", "fc7_dropout")),
    Family(("feature_mlp",), 60, None, 487, 0.5, "halving",
           ("features_dropout", "fc1_dropout", "fc2_dropout")),
    Family(("lrcn", "lrcn_flow"),
           49, 3, 101, 0.9, "authors", ("fc6_dropout",)),
    Family(("inception_lstm",),
           32, 3, 400, 0.0, "authors", ("lstm1_dropout",)),
    Family(("c3d",),
           16, 4, 487, 0.5, "authors", ("fc6_dropout", "fc7_dropout")),
    Family(("spatial_stream", "temporal_stream"),
           41, None, 101, 0.5, "authors", FULL67),
    Family(("two_stream",),
           41, None, 101, 0.5, "authors",
           tuple(f"{s}_tower/{x}" for s in ("rgb", "flow") for x in FULL67)),
    Family(("fused_two_stream",),
           32, None, 400, None, "authors", ("dropout",)),
    Family(("i3d", "i3d_flow"), 32, 6, 400, 0.5, "authors", ("dropout",)),
    Family(("two_stream_i3d",), 32, 6, 400, 0.5, "authors", TOWERS),
    Family(("i2d", "bottom_heavy_i3d", "top_heavy_i3d", "s3d", "s3dg",
            "s3dg_flow"), 32, 6, 400, 0.2, "authors", ("dropout",)),
    Family(("two_stream_s3dg",), 32, 6, 400, 0.2, "authors", TOWERS),
)
# fmt: on

FAMILY = {name: family for family in FAMILIES for name in family.networks}

# The networks of Karpathy et al., whose tops are fc6 and fc7.
KARPATHYS = (*FAMILIES[0].networks, *FAMILIES[1].networks)

# Filters and pools that reach over frames: `keras.layers.MaxPooling3D`.
SOLID = tuple(
    name
    for name in MODELS
    if name not in (*KARPATHYS, *FAMILIES[2].networks, *FAMILIES[3].networks)
    and not name.endswith(("spatial_stream", "temporal_stream"))
    and name != "two_stream"
)

# Layers whose width is the number of classes.
CLASSIFIERS = ("predictions", "logits", "fc8")


def shapes_of(name, height=0, width=0, frames=0):
    """Shapes of the smallest clip by stream, or of one of such sides."""
    family = FAMILY[name]
    if isinstance(MODELS[name].spec, VectorSpec):
        return {"features": (family.side,)}
    return {
        stream: (
            frames or family.frames or own[0],
            height or family.side,
            width or family.side + 3,
            own[3],
        )
        for stream, own in MODELS[name].spec.shapes.items()
    }


def shape_of(name, **sizes):
    return bare(shapes_of(name, **sizes))


def bare(by_stream):
    """One stream is spoken of by itself, as the builders do."""
    (first, *others) = by_stream.values()
    return by_stream if others else first


def small(name, **arguments):
    """The network at a tenth of its width, on its smallest frames."""
    shape = (
        {} if "input_tensor" in arguments else {"input_shape": shape_of(name)}
    )
    return get_model(
        name,
        **{
            "width": 0.1,
            "classes": 4,
            # What authors start from is made for full width.
            "kernel_initializer": "halving",
            **shape,
            **arguments,
        },
    )


@functools.cache
def ready(name):
    """The same, built once for many tests: change nothing in it."""
    # Another seed than the tests': loading must not be of equal weights.
    keras.utils.set_random_seed(2)
    model = small(name)
    keras.utils.set_random_seed(1)
    return model


def steady(name, **arguments):
    """The same as it learns best: no dropout, and averages of one step."""
    known = inspect.signature(MODELS[name].builder).parameters
    wanted = {"dropout": 0.0, "lstm_dropout": 0.0, "momentum": 0.0}
    own = {key: value for key, value in wanted.items() if key in known}
    return small(name, **{**own, **arguments})


def clips(name, count=4, **sizes):
    """Frames of bytes, flow of a few pixels per frame, and histograms."""
    draw = np.random.default_rng(0)
    kinds = {
        "rgb": lambda shape: draw.integers(0, 256, shape, "uint8"),
        "flow": lambda shape: draw.normal(0, 3, shape).astype("float32"),
        "features": lambda shape: draw.dirichlet(
            [0.3] * shape[1], shape[0]
        ).astype("float32"),
    }
    drawn = {
        stream: kinds[stream]((count, *shape))
        for stream, shape in shapes_of(name, **sizes).items()
    }
    return bare(drawn)


def floats(clip):
    return each(lambda x: x.astype("float32"), clip)


def each(function, clip):
    """What a function makes of every stream."""
    return keras.tree.map_structure(function, clip)


def answer(model, clip):
    return ops.convert_to_numpy(ops.cast(model(clip), "float32"))


def leaves(model, prefix=""):
    """Layers by name; those of nested models as `rgb_tower/conv1`."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found |= leaves(layer, f"{prefix}{layer.name}/")
        else:
            found[f"{prefix}{layer.name}"] = layer
    return found


def named(model):
    """Weights by name, such as `rgb_tower/conv1/kernel`."""
    return {
        name.removesuffix(layer.name) + weight.path: weight
        for name, layer in leaves(model).items()
        for weight in layer.weights
    }


def classifies(name):
    """Whether the layer of that name has one unit per class."""
    return name.rpartition("/")[2].removeprefix("flow_") in CLASSIFIERS


def spread(count, seed=0):
    """Numbers in 0..1 that no library's generator has a hand in."""
    mixed = (np.arange(count, dtype="uint64") + 77 * seed) * 2654435761
    return (mixed % 2**32) / 2**32


def fill(model, variance=1.0):
    """Weights by a formula, so that answers can be kept in a file."""
    for seed, weight in enumerate(model.weights):
        even = spread(math.prod(weight.shape), seed) - 0.5
        fan_in = math.prod(weight.shape[:-1])
        deviation = math.sqrt(2 / fan_in) if len(weight.shape) > 1 else 0.1
        values = even * math.sqrt(12) * deviation
        if weight.name == "gamma":
            values = 1 + values
        if weight.name == "moving_variance":
            values = variance * (1 + values)
        weight.assign(values.reshape(weight.shape))
    return model


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(1)


@pytest.fixture
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


# Shapes


@every_network
def test_scores_are_a_distribution_over_the_classes(name):
    y = answer(ready(name), clips(name))

    assert y.shape == (4, 4)
    assert np.all(y >= 0)
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-5)


@every_network
def test_the_default_input_is_the_clip_that_the_network_states(name):
    shapes = MODELS[name].spec.shapes

    model = get_model(name, width=0.01)

    inputs = model.input if len(shapes) > 1 else {"": model.input}
    assert model.name == name
    assert [x.shape[1:] for x in inputs.values()] == list(shapes.values())
    assert {x.dtype for x in inputs.values()} == {"float32"}
    assert len(shapes) == 1 or inputs.keys() == shapes.keys()
    assert model.output.shape == (None, FAMILY[name].classes)
    assert model.layers[-1].name == "predictions"


@every_network_of_clips
def test_any_larger_size_will_do(name):
    high, wide = FAMILY[name].side + 25, FAMILY[name].side + 40
    shape = shape_of(name, height=high, width=wide)

    model = small(name, input_shape=shape)

    x = clips(name, 1, height=high, width=wide)
    assert answer(model, x).shape == (1, 4)


@every_network_of_clips
def test_a_clip_of_other_length_will_do_where_nothing_hangs_on_it(name):
    own = MODELS[name].spec.shapes
    for frames in (1, 11):
        shape = shape_of(name, frames=frames)
        if FAMILY[name].frames:
            model = small(name, input_shape=shape)
            assert answer(model, clips(name, 1, frames=frames)).shape == (1, 4)
        elif {frames} != {one[0] for one in own.values()}:
            with pytest.raises(ValueError, match="must begin with"):
                small(name, input_shape=shape)


@every_network_of_clips
def test_without_a_top_height_and_width_are_free(name):
    model = small(name, include_top=False, input_shape=None)

    inputs = model.input if isinstance(model.input, dict) else [model.input]
    for x in keras.tree.flatten(inputs):
        assert x.shape[2:4] == (None, None)
    assert model.output.shape[2:4] == (None, None)
    for wider in (0, 23):
        side = FAMILY[name].side + wider
        sizes = {"height": side, "width": side + 4}
        y = answer(model, clips(name, 2, **sizes))
        fixed = small(
            name, include_top=False, input_shape=shape_of(name, **sizes)
        )
        assert y.shape == (2, *fixed.output.shape[1:])


@every_network_of_clips
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_pooling_is_over_all_of_the_last_map(name, pooling):
    side = FAMILY[name].side + 25
    sizes = {"height": side, "width": side + 15}
    shape = shape_of(name, **sizes)
    body = small(name, include_top=False, input_shape=shape)
    pooled = small(name, include_top=False, input_shape=shape, pooling=pooling)
    pooled.set_weights(body.get_weights())
    x = clips(name, 2, **sizes)

    y = answer(pooled, x)

    over = {"avg": np.mean, "max": np.max}[pooling]
    expected = over(answer(body, x), axis=(1, 2, 3))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


@every_network
def test_width_scales_filters_and_units(name):
    narrow, wide = (named(small(name, width=w)) for w in (0.125, 0.25))

    for path, weight in wide.items():
        layer, _, _ = path.rpartition("/")
        units = narrow[path].shape[-1] * (1 if classifies(layer) else 2)
        assert weight.shape[-1] == units
    least = min(w.shape[-1] for w in small(name, width=1e-9).weights)
    assert least == (2 if "lrcn" in name else 1)  # its groups are two


@pytest.mark.parametrize("name", KARPATHYS)
def test_a_quarter_of_the_width_is_a_quarter_of_the_papers(name):
    model = small(name, width=0.25)

    filters = [
        layer.layer.filters
        for layer in model.layers
        if isinstance(layer, Framewise) and hasattr(layer, "kernel")
    ]
    streams = 2 if name.startswith("multires") else 1
    assert sorted(filters) == sorted([24, 64, 96, 96, 64] * streams)
    assert model.get_layer("fc6").units == model.get_layer("fc7").units == 1024


# Arguments


@every_network
def test_signatures_are_those_of_keras(name):
    builder = MODELS[name].builder
    ours = inspect.signature(builder).parameters
    theirs = inspect.signature(keras.applications.VGG16).parameters

    shared = dict(list(ours.items())[: len(theirs)])

    assert list(shared) == list(theirs)
    defaults = {key: argument.default for key, argument in shared.items()}
    assert defaults == {
        **{key: argument.default for key, argument in theirs.items()},
        "weights": None,
        "classes": FAMILY[name].classes,
        "name": name.removesuffix("_flow"),
    }


@every_network
def test_own_arguments_begin_alike_and_are_by_keyword_alone(name):
    ours = inspect.signature(MODELS[name].builder).parameters

    own = list(ours.values())[8:]

    assert [(argument.name, argument.default) for argument in own[:4]] == [
        ("include_preprocessing", True),
        ("width", 1.0),
        ("dropout", FAMILY[name].dropout),
        ("kernel_initializer", FAMILY[name].start),
    ]
    assert all(argument.kind is argument.KEYWORD_ONLY for argument in own)
    assert len(own) == 4 or name not in KARPATHYS


@every_network
def test_a_tensor_can_be_built_upon(name):
    plain = ready(name)
    clip = {
        stream: keras.Input(shape, name=stream)
        for stream, shape in shapes_of(name).items()
    }
    halved = {k: layers.Rescaling(0.5)(one) for k, one in clip.items()}

    model = small(name, input_tensor=bare(halved))

    model.set_weights(plain.get_weights())
    x = floats(clips(name))
    assert {id(one) for one in model.inputs} == set(map(id, clip.values()))
    np.testing.assert_allclose(
        answer(model, each(lambda one: 2 * one, x)),
        answer(plain, x),
        rtol=1e-4,
        atol=1e-6,
    )


def scaled(name, x):
    """What the network's own first layers make of a clip."""
    if isinstance(x, dict):
        return {
            stream: scaled(f"{name}_{stream}", one) for stream, one in x.items()
        }
    if name == "lrcn_flow":
        length = np.sqrt((x**2).sum(-1, keepdims=True))
        return np.clip(16 * np.concatenate([x, length], -1), -128, 127)
    if name in ("temporal_stream", "two_stream_flow"):
        return x - x.mean((2, 3), keepdims=True)
    if name.endswith("flow"):
        return np.clip(x, -20, 20) / 20
    means = {
        "lrcn": (128.68, 116.779, 103.939),
        "c3d": (104, 117, 128),
        "spatial_stream": (123.68, 116.779, 103.939),
        "two_stream_rgb": (123.68, 116.779, 103.939),
    }
    if name == "feature_mlp":
        return np.sign(x) * np.sqrt(np.abs(x))
    if name in KARPATHYS:
        return x - 117
    if name in means:
        return x - np.array(means[name], "float32")
    return x / 127.5 - 1


@every_network
def test_pixels_are_scaled_unless_the_caller_does_it(name):
    own, x = ready(name), floats(clips(name))
    given = scaled(name, x)
    shape = (
        {k: one.shape[1:] for k, one in given.items()}
        if isinstance(given, dict)
        else given.shape[1:]
    )

    # LRCN's picture of the flow has a channel more than the flow.
    with (
        pytest.warns(UserWarning, match="expects 2 input channels")
        if name == "lrcn_flow"
        else contextlib.nullcontext()
    ):
        plain = small(name, include_preprocessing=False, input_shape=shape)

    plain.set_weights(own.get_weights())
    np.testing.assert_allclose(
        answer(own, x), answer(plain, given), rtol=1e-4, atol=1e-6
    )


@every_network
def test_dropout_is_where_it_belongs_and_in_training_alone(name):
    plain, model = steady(name), steady(name, dropout=0.5)
    model.set_weights(plain.get_weights())
    x = clips(name)

    dropped = [
        layer
        for layer, kind in leaves(model).items()
        if isinstance(kind, layers.Dropout)
    ]
    assert dropped == list(FAMILY[name].dropped)
    np.testing.assert_array_equal(answer(model, x), answer(plain, x))
    for one, same in ((plain, True), (model, False)):
        first, second = (
            ops.convert_to_numpy(one(x, training=True)) for _ in range(2)
        )
        assert np.allclose(first, second, atol=1e-6) == same


@pytest.mark.parametrize("name", KARPATHYS)
def test_dropout_follows_fc6_and_fc7(name):
    names = [layer.name for layer in small(name, dropout=0.5).layers]

    assert names[names.index("fc6") + 1] == "fc6_dropout"
    assert names[names.index("fc7") + 1] == "fc7_dropout"


@pytest.mark.parametrize("name", KARPATHYS)
def test_krizhevskys_start(name):
    model = small(name, width=0.25, kernel_initializer="krizhevsky")

    for layer in model.layers:
        if not hasattr(layer, "kernel") or not layer.weights:
            continue
        kind = layer.name.removeprefix("fovea_").removeprefix("context_")
        spread = 0.01 if kind.startswith("conv") else 0.005
        ones = kind in ("conv2", "conv4", "conv5", "fc6", "fc7")
        kernel = ops.convert_to_numpy(layer.kernel)
        assert abs(kernel.mean()) < 0.1 * spread
        assert kernel.std() == pytest.approx(spread, rel=0.1)
        assert np.all(ops.convert_to_numpy(layer.bias) == ones)


# What the authors start from, by layer: deviation of the kernel, and bias.
# MODELS.md, 3 to 8; None: 1 / sqrt(fan_in) of DeepMind's and torch's.
CUT = 0.8796  # of a normal distribution that is cut off at twice its deviation
STARTS = [
    ("c3d", {}, {"conv1a": (0.01, 0), "conv2a": (0.01, 1), "conv5b": (0.01, 1),
                 "fc6": (0.005, 1), "fc7": (0.005, 1),
                 "predictions": (0.01, 0)}),
    ("lrcn", {}, {"conv1": (0.01, 0.1), "conv5": (0.01, 0.1),
                  "fc6": (0.01, 0.1), "fc8": (0.01, 0)}),
    ("fused_two_stream", {}, {"fuse_conv": (0.01, None),
                              "predictions": (0.01, 0)}),
    ("i3d", {}, {"conv_1a": (None, None), "mixed_4b_b1b": (None, None),
                 "logits": (None, 0)}),
    ("i2d", {}, {"conv_2c": (0.01 * CUT, None)}),
    ("s3d", {}, {"conv_1a": (0.01 * CUT, None), "conv_2c": (0.01 * CUT, None),
                 "mixed_4b_b1b": (0.01 * CUT, None)}),
    ("s3dg", {}, {"conv_2c_g": (0.01 * CUT, None),
                  "mixed_5c_b0_g": (0.01 * CUT, None)}),
    ("s3d", {"style": "torchvision"},
     {"conv_1a": (3**-0.5, None), "mixed_4b_b1b_t": (3**-0.5, None),
      "logits": (3**-0.5, 0)}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "starts"), STARTS, ids=str)
def test_authors_networks_start_as_theirs(name, arguments, starts):
    model = small(name, width=0.25, kernel_initializer="authors", **arguments)

    for layer, (spread, bias) in starts.items():
        found = {w.name: np.array(w) for w in model.get_layer(layer).weights}
        kernel = found["kernel"]
        if spread is None or spread > 0.1:
            fan_in = math.prod(kernel.shape[:-1])
            spread = (spread or 1) / math.sqrt(fan_in)
        assert kernel.std() == pytest.approx(spread, rel=0.1)
        assert abs(kernel.mean()) < 0.1 * spread
        assert ("bias" in found) == (bias is not None)
        assert bias is None or np.all(found["bias"] == np.float32(bias))


def test_the_authors_filters_in_time_begin_by_handing_on_their_frame():
    model = small("s3dg", kernel_initializer="authors")

    for site in ("conv_2c", "mixed_3b_b1b", "mixed_5c_b2b"):
        kernel, bias = model.get_layer(f"{site}_t").get_weights()
        assert np.array_equal(kernel[1, 0, 0], np.eye(len(bias)))
        assert not np.any(kernel[[0, 2]])
        assert not np.any(bias)


def test_lrcns_memory_starts_small_and_with_no_bias():
    model = small("lrcn", kernel_initializer="authors")

    kernel, recurrent, bias = model.get_layer("lstm1").get_weights()

    for weights in (kernel, recurrent):
        assert 0.0095 < np.abs(weights).max() <= 0.01
        assert weights.std() == pytest.approx(0.01 / 3**0.5, rel=0.1)
    assert not np.any(bias)


def test_one_initializer_gives_every_layer_weights_of_its_own():
    model = small(
        "multires_single_frame",
        kernel_initializer=keras.initializers.HeNormal(),
    )

    fovea = ops.convert_to_numpy(model.get_layer("fovea_conv1").kernel)
    context = ops.convert_to_numpy(model.get_layer("context_conv1").kernel)

    assert not np.any(fovea == context)


# In the order of the checks.
WRONG = [
    ({"classes": 0}, "`classes`.*classes=0"),
    ({"weights": "nowhere"}, "`weights`.*weights='nowhere'"),
    ({"pooling": "mean"}, "`pooling`.*pooling='mean'"),
    ({"width": 0}, "`width`.*width=0"),
    ({"dropout": 1.0}, r"`dropout`.*dropout=1\.0"),
    (
        {"input_shape": (22, 22, 3)},
        "`input_shape`.*(four|one) integer",
    ),
]


@every_network
@pytest.mark.parametrize("first", range(len(WRONG)))
def test_the_first_wrong_argument_is_named(name, first):
    arguments = {}
    for wrong, _ in WRONG[first:]:
        arguments |= wrong
    streams = MODELS[name].spec.streams
    shape = arguments["input_shape"]
    arguments["input_shape"] = bare(dict.fromkeys(streams, shape))

    with pytest.raises(ValueError, match=WRONG[first][1]):
        get_model(name, **arguments)


SHAPES = [
    ((1, 21, 22, 3), "at least 22x22.*Received: input_shape"),
    ((1, 22, 21, 3), "at least 22x22.*Received: input_shape"),
    ((1, 22.5, 22, 3), "at least 22x22.*Received: input_shape"),
    ((2, 170, 170, 3), "must begin with 1, .*Received: input_shape"),
    ((1, None, 170, 3), "static `input_shape`.*Received: input_shape"),
    ((1, 170, 170, None), "number of channels.*Received: input_shape"),
    ((170, 170, 3), "four integers.*Received: input_shape"),
    (170, "four integers.*Received: input_shape=170"),
]


@pytest.mark.parametrize(("shape", "message"), SHAPES, ids=str)
def test_wrong_input_shapes_say_why(shape, message):
    with pytest.raises(ValueError, match=message):
        applications.SingleFrame(input_shape=shape)


@every_network_of_clips
def test_the_smallest_legal_size_is_named(name):
    side = FAMILY[name].side

    with pytest.raises(ValueError, match=f"at least {side}x{side}"):
        small(name, input_shape=shape_of(name, height=side - 1))


TWO_STREAMS = [
    "two_stream",
    "fused_two_stream",
    "two_stream_i3d",
    "two_stream_s3dg",
]


@pytest.mark.parametrize("name", TWO_STREAMS)
@pytest.mark.parametrize("kind", ["one", "none", "other", "tuple"])
def test_two_streams_want_a_shape_for_each(name, kind):
    shapes = shapes_of(name)
    wrong = {
        "one": {"rgb": shapes["rgb"]},
        "none": {},
        "other": {"rgb": shapes["rgb"], "depth": shapes["flow"]},
        "tuple": shapes["rgb"],
    }[kind]

    with pytest.raises(ValueError, match="`input_shape` must be a dict with"):
        get_model(name, input_shape=wrong)


@pytest.mark.parametrize("name", TWO_STREAMS)
def test_two_streams_want_a_tensor_for_each(name):
    with pytest.raises(ValueError, match=r"must be a dict with.*Received"):
        get_model(name, input_tensor=keras.Input(shapes_of(name)["rgb"]))


def test_unusual_channels_warn_and_work():
    with pytest.warns(
        UserWarning, match="expects 1 or 3 input channels"
    ) as log:
        model = applications.SlowFusion(
            input_shape=(10, 22, 22, 4), width=0.1, classes=4
        )

    assert model.output.shape == (None, 4)
    # The warning shows the line that asked.
    assert log[0].filename == __file__


def test_one_channel_is_as_usual_as_three():
    model = small("slow_fusion", input_shape=(10, 22, 22, 1))

    assert model.get_layer("conv1").kernel.shape[2] == 4


def test_input_tensors_must_be_tensors_of_keras():
    with pytest.raises(
        TypeError, match="`input_tensor` must be a Keras tensor"
    ):
        applications.SingleFrame(input_tensor=np.zeros((1, 1, 22, 22, 3)))


def test_input_tensors_must_be_clips_of_the_network():
    with pytest.raises(ValueError, match="must begin with 2"):
        applications.LateFusion(input_tensor=keras.Input((3, 170, 170, 3)))


def test_input_tensor_and_input_shape_must_agree():
    with pytest.raises(ValueError, match="must be that of `input_tensor`"):
        applications.SingleFrame(
            input_tensor=keras.Input((1, 89, 89, 3)),
            input_shape=(1, 170, 170, 3),
        )


def test_channels_first_is_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match=r"channels-last.*keras\.json"):
            applications.SingleFrame(width=0.01)
    finally:
        keras.config.set_image_data_format("channels_last")


# Precision


def needs_float16_pools(name):
    """Networks whose pools have no float16 kernel on a processor."""
    marks = ()
    if name in SOLID:
        bare_machine = not tf.config.list_physical_devices("GPU")
        marks = (
            pytest.mark.gpu,
            pytest.mark.skipif(bare_machine, reason="needs a graphics card"),
        )
    return pytest.param(name, "mixed_float16", marks=marks)


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        *((name, "mixed_bfloat16") for name in MODELS),
        *map(needs_float16_pools, MODELS),
    ],
    indirect=["policy"],
)
def test_half_precision_gives_nearly_the_same(name, policy):
    mixed = fill(small(name, classifier_activation=None))
    keras.config.set_dtype_policy("float32")
    full = fill(small(name, classifier_activation=None))
    x = clips(name)

    y, exact = answer(mixed, x), answer(full, x)

    computed = {
        layer.compute_dtype
        for path, layer in leaves(mixed).items()
        if layer.weights and not classifies(path)
    }
    assert computed == {policy[len("mixed_") :]}
    assert mixed.output.dtype == "float32"
    near = 0.04 if policy == "mixed_bfloat16" else 0.01
    np.testing.assert_allclose(y, exact, atol=near * np.abs(exact).max())


@every_network
def test_bytes_are_as_good_as_floats(name):
    model, x = ready(name), clips(name)

    np.testing.assert_array_equal(answer(model, x), answer(model, floats(x)))


# Saving


@every_network
@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_a_file_of_weights_gives_the_same_scores(name, ending, tmp_path):
    model, x = ready(name), clips(name)
    path = tmp_path / f"it{ending}"
    save = model.save if ending == ".keras" else model.save_weights
    save(path)

    again = small(name, weights=path, dropout=0.3)

    np.testing.assert_array_equal(answer(again, x), answer(model, x))


@every_network
def test_a_saved_model_gives_the_same_scores(name, tmp_path):
    model, x = ready(name), clips(name)
    model.save(tmp_path / "it.keras")

    again = keras.saving.load_model(tmp_path / "it.keras")

    # By way of JSON, where tuples are lists.
    assert json.dumps(again.get_config()) == json.dumps(model.get_config())
    np.testing.assert_array_equal(answer(again, x), answer(model, x))


@every_network
def test_a_model_comes_back_from_its_config(name):
    model, x = ready(name), clips(name)

    again = keras.Model.from_config(model.get_config())

    again.set_weights(model.get_weights())
    assert again.count_params() == model.count_params()
    np.testing.assert_array_equal(answer(again, x), answer(model, x))


@every_network
def test_the_body_loads_from_a_file_with_a_top(name, tmp_path):
    model = ready(name)
    model.save_weights(tmp_path / "it.weights.h5")

    body = small(name, include_top=False, weights=tmp_path / "it.weights.h5")

    ours, theirs = named(body), named(model)
    tops = (*CLASSIFIERS, "fc", "flow_fc", "full", "lstm", "avg_pool")
    for path in theirs.keys() - ours.keys():
        assert path.split("_tower/")[-1].startswith(tops)
    for path, weight in ours.items():
        np.testing.assert_array_equal(weight, theirs[path])


@every_network
@pytest.mark.slow
def test_an_exported_network_gives_the_same_scores(name, tmp_path):
    model, x = ready(name), clips(name)

    model.export(tmp_path / "it", verbose=False)

    again = tf.saved_model.load(tmp_path / "it")
    served = again.serve(floats(x))
    np.testing.assert_allclose(served, answer(model, x), rtol=1e-4, atol=1e-6)


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "late.weights.h5"
    small("late_fusion").save_weights(path)

    with pytest.raises(
        ValueError, match=r"do not fit slow_fusion.*late\.weights"
    ):
        small("slow_fusion", weights=path)


def test_weights_for_other_classes_are_refused(tmp_path):
    path = tmp_path / "four.weights.h5"
    small("single_frame").save_weights(path)

    with pytest.raises(ValueError, match="do not fit single_frame"):
        small("single_frame", classes=5, weights=path)


@pytest.mark.parametrize("name", ["it.weights.h5", "it.keras"])
def test_damaged_weights_are_one_clear_error(name, tmp_path):
    (tmp_path / name).write_bytes(b"not weights at all")

    with pytest.raises(
        ValueError, match=f"damaged.*Received: weights=.*{name}"
    ):
        small("single_frame", weights=tmp_path / name)


def test_weights_without_a_top_do_not_make_a_network(tmp_path):
    path = tmp_path / "body.weights.h5"
    small("single_frame", include_top=False).save_weights(path)

    with pytest.raises(ValueError, match="do not fit single_frame"):
        small("single_frame", weights=path)


def test_weights_of_an_unknown_kind_are_refused(tmp_path):
    (tmp_path / "it.pth").write_bytes(b"")

    with pytest.raises(ValueError, match=r"ends in .weights.h5 or .keras"):
        small("single_frame", weights=tmp_path / "it.pth")


@pytest.mark.parametrize("weights", ["sports1m", "nowhere.keras", True, 3])
def test_unpublished_weights_tell_how_to_train(weights):
    with pytest.raises(
        ValueError, match="train DATA --model slow_fusion"
    ) as it:
        applications.SlowFusion(weights=weights, name="mine")

    assert str(it.value).endswith(f"Received: weights={weights!r}")


def test_trained_tops_end_as_they_were_trained(tmp_path):
    path = tmp_path / "it.weights.h5"
    small("single_frame").save_weights(path)

    for fit in (None, "softmax", "sigmoid", keras.activations.softmax):
        small("single_frame", weights=path, classifier_activation=fit)
    with pytest.raises(ValueError, match=r"`classifier_activation`.*='relu'"):
        small("single_frame", weights=path, classifier_activation="relu")


# Learning


def compiled(model, rate=1e-3):
    model.compile(
        keras.optimizers.Adam(rate),
        "categorical_crossentropy",
        jit_compile=False,
    )
    return model


# No network's own answer: neither certain nor even, so that each clip pulls.
PULL = 0.6 * np.eye(4, dtype="float32") + 0.1


def moves(path):
    """Whether a weight follows batch normalisation's averages."""
    return path.endswith(("moving_mean", "moving_variance"))


@every_network
def test_one_step_changes_every_weight(name):
    model = compiled(steady(name))
    model.run_eagerly = True
    weights = named(model)
    before = {path: np.array(weight) for path, weight in weights.items()}

    model.train_on_batch(clips(name), PULL)

    kept = [
        path for path in before if np.array_equal(before[path], weights[path])
    ]
    assert kept == []
    assert len(model.trainable_weights) == sum(not moves(x) for x in weights)


@every_network
def test_four_clips_can_be_learned_by_heart(name):
    start = "glorot_uniform" if name in SOLID else "halving"
    model = steady(name, kernel_initializer=start)
    normed = any(map(moves, named(model)))
    compiled(model, 1e-2 if normed else 1e-3)
    # Compiling an Inception costs more than what it saves.
    model.run_eagerly = normed
    x, y = floats(clips(name)), np.eye(4, dtype="float32")

    for _ in range(60):
        loss = model.train_on_batch(x, y)
        if loss < 0.05:
            break

    model(x, training=True)  # averages of the weights as they are now
    assert loss < 0.1
    assert np.array_equal(answer(model, x).argmax(1), np.arange(4))


@every_network
def test_freezing_freezes(name):
    model = steady(name)
    for path, layer in leaves(model).items():
        layer.trainable = classifies(path)
    compiled(model).run_eagerly = True
    weights = named(model)
    before = {path: np.array(weight) for path, weight in weights.items()}

    model.train_on_batch(clips(name), PULL)

    changed = {
        path
        for path, weight in weights.items()
        if not np.array_equal(before[path], weight)
    }
    free = {path for path in weights if classifies(path.rpartition("/")[0])}
    assert len(model.trainable_weights) == len(free) > 0
    assert changed == free


# Files written today, answers given today


def paths(model):
    """Where in a `.weights.h5` file each weight lies, by layer and name."""
    weights = named(model)
    names = list(weights)
    for number, weight in enumerate(weights.values()):
        weight.assign(np.full(weight.shape, number))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "it.weights.h5")
        model.save_weights(path)
        with h5py.File(path) as file:

            def note(place, item):
                if isinstance(item, h5py.Dataset):
                    found[names[int(item[()].flat[0])]] = place

            file.visititems(note)
    return {name: found[name] for name in names}


def logits(name):
    """Answers to two clips by a formula, long enough for every stride."""
    frames = 2 * FAMILY[name].frames if FAMILY[name].frames else 0
    shapes = shapes_of(name, frames=frames)
    model = fill(
        small(
            name,
            width=0.05,
            classifier_activation=None,
            input_shape=bare(shapes),
        ),
        variance=0.4,  # lest the clip fade on its way through gates
    )
    x = {}
    for seed, (stream, shape) in enumerate(shapes.items(), 5):
        drawn = np.floor(256 * spread(2 * math.prod(shape), seed))
        if stream == "flow":
            drawn = (drawn - 128) / 16
        if stream == "features":
            drawn /= 256
        x[stream] = drawn.reshape(2, *shape)
    return answer(model, bare(x))


@functools.cache
def expected(file):
    return json.loads((EXPECTED / file).read_text(encoding="utf-8"))


def places(name):
    """The golden places of a network's weights."""
    laid = expected("weight_paths.json")
    return laid[laid[name]] if isinstance(laid[name], str) else laid[name]


@every_network
def test_weights_lie_where_they_always_lay(name):
    assert paths(small(name)) == places(name)


@every_network
def test_a_top_and_dropout_move_no_weight(name):
    whole = places(name)

    body = paths(small(name, include_top=False, include_preprocessing=False))

    assert paths(small(name, dropout=0.5)) == whole
    assert body.items() <= whole.items()


@every_network
def test_logits_are_what_they_always_were(name):
    y = logits(name)

    golden = np.array(expected("logits.json")[name])
    assert np.abs(golden).max() > 0.05
    np.testing.assert_allclose(y, golden, atol=1e-4 * np.abs(golden).max())


def write_expected():
    laid = {}
    for name in MODELS:
        row = paths(small(name))
        # The Inceptions' hundreds of lines are written once: of a network
        # whose weights lie like another's, that one's name is.
        twins = [other for other in laid if laid[other] == row]
        laid[name] = twins[0] if twins and len(row) > 100 else row
    rows = {
        "weight_paths.json": laid,
        "logits.json": {
            name: [[round(float(v), 5) for v in row] for row in logits(name)]
            for name in MODELS
        },
    }
    for file, row in rows.items():
        text = json.dumps(row, indent=1)
        (EXPECTED / file).write_text(text + "\n", encoding="utf-8")


# Networks that share their work


def test_late_fusion_is_two_towers_with_the_same_filters():
    late = fill(small("late_fusion", classifier_activation=None))
    tower = small("single_frame", include_top=False)
    tower.set_weights(late.get_weights()[: len(tower.weights)])
    x = clips("late_fusion").astype("float32")

    maps = [answer(tower, x[:, time : time + 1]) for time in (0, 1)]
    y = np.concatenate([one.reshape(4, -1) for one in maps], axis=1)
    for name in ("fc6", "fc7", "predictions"):
        kernel, bias = late.get_layer(name).get_weights()
        y = y @ kernel + bias
        if name != "predictions":
            y = np.maximum(y, 0)

    np.testing.assert_allclose(answer(late, x), y, atol=1e-5 * np.abs(y).max())


def test_multires_is_its_two_streams_side_by_side():
    both = fill(small("multires_single_frame", include_top=False))
    x = clips("multires_single_frame")

    y = answer(both, x)

    halves = np.split(y, 2, axis=-1)
    for half, stream in zip(halves, ("fovea", "context"), strict=True):
        alone = small(f"{stream}_single_frame", include_top=False)
        for layer in alone.layers:
            layer.set_weights(both.get_layer(layer.name).get_weights())
        np.testing.assert_allclose(half, answer(alone, x), rtol=1e-5)


def test_fovea_and_context_filters_are_not_shared():
    model = small("multires_slow_fusion")

    fovea, context = (
        model.get_layer(f"{stream}_conv1").kernel
        for stream in ("fovea", "context")
    )

    assert fovea is not context


# The catalogue


def test_networks_are_listed_by_pattern():
    assert applications.list_models() == list(MODELS)
    assert applications.list_models("multires_*_fusion") == [
        "multires_early_fusion",
        "multires_late_fusion",
        "multires_slow_fusion",
    ]
    assert applications.list_models("fusion") == []


def test_networks_are_had_by_name():
    model = applications.get_model("slow_fusion", width=0.01, classes=3)

    assert model.name == "slow_fusion"
    assert model.output.shape == (None, 3)


@pytest.mark.parametrize(
    "ask", [applications.get_model, applications.clip_spec]
)
def test_unknown_names_list_the_known(ask):
    with pytest.raises(
        ValueError, match=r"`name`.*slow_fusion.*Received: name='s4d'"
    ):
        ask("s4d")


SQUARE, SHORT = ("square", 200), ("short_side", 256)
# fmt: off
CLIPS = [
    # network             frames step fps   size resize     flow
    ("single_frame",          1,  1, None,  170, SQUARE,     None),
    ("early_fusion",         10,  1, None,  170, SQUARE,     None),
    ("late_fusion",           2, 15, None,  170, SQUARE,     None),
    ("slow_fusion",          10,  1, None,  170, SQUARE,     None),
    ("multires_single_frame", 1,  1, None,  178, SQUARE,     None),
    ("multires_early_fusion", 10, 1, None,  178, SQUARE,     None),
    ("multires_late_fusion",  2, 15, None,  178, SQUARE,     None),
    ("multires_slow_fusion", 10,  1, None,  178, SQUARE,     None),
    ("fovea_single_frame",    1,  1, None,  178, SQUARE,     None),
    ("context_single_frame",  1,  1, None,  178, SQUARE,     None),
    ("lrcn",                 16,  1, None,  227, (240, 320), None),
    ("lrcn_flow",            16,  1, None,  227, (240, 320), 16),
    ("inception_lstm",       25,  5, 25.0,  224, SHORT,      None),
    ("c3d",                  16,  1, None,  112, (128, 171), None),
    ("spatial_stream",        1,  1, None,  224, SHORT,      None),
    ("temporal_stream",       1,  1, None,  224, SHORT,      10),
    ("two_stream",            1,  1, None,  224, SHORT,      10),
    ("fused_two_stream",      1,  1, None,  224, SHORT,      10),
    ("i3d",                  64,  1, 25.0,  224, SHORT,      None),
    ("i3d_flow",             64,  1, 25.0,  224, SHORT,      64),
    ("two_stream_i3d",       64,  1, 25.0,  224, SHORT,      64),
    ("i2d",                  64,  1, 25.0,  224, SHORT,      None),
    ("bottom_heavy_i3d",     64,  1, 25.0,  224, SHORT,      None),
    ("top_heavy_i3d",        64,  1, 25.0,  224, SHORT,      None),
    ("s3d",                  64,  1, 25.0,  224, SHORT,      None),
    ("s3dg",                 64,  1, 25.0,  224, SHORT,      None),
    ("s3dg_flow",            64,  1, 25.0,  224, SHORT,      64),
    ("two_stream_s3dg",      64,  1, 25.0,  224, SHORT,      64),
]
# fmt: on


@pytest.mark.parametrize(
    ("name", "frames", "step", "fps", "size", "resize", "flow"), CLIPS
)
def test_networks_state_the_papers_clips(
    name, frames, step, fps, size, resize, flow
):
    """Karpathy et al., sections 3.1 to 3.3; MODELS.md, 3 to 8."""
    spec = applications.clip_spec(name)

    assert (spec.frames, spec.step, spec.fps) == (frames, step, fps)
    assert (spec.size, spec.resize) == ((size, size), resize)
    assert spec.flow == flow
    chunks = (5, 10) if name == "fused_two_stream" else (1, 0)
    assert (spec.chunks, spec.spacing) == chunks


def test_every_network_states_a_clip_or_a_vector():
    """Karpathy et al., section 4.1: 25,000 numbers."""
    vectors = {
        name: applications.clip_spec(name).size
        for name in MODELS
        if isinstance(MODELS[name].spec, VectorSpec)
    }

    assert vectors == {"feature_mlp": 25_000}
    assert [name for name, *_ in CLIPS] == [
        name for name in MODELS if name not in vectors
    ]


def test_preprocessing_leaves_clips_alone():
    x = np.zeros((1, 1, 2, 2, 3))

    assert applications.preprocess_input(x) is x
    assert applications.preprocess_input(x, "channels_last") is x
    with pytest.raises(ValueError, match=r"Expected data_format.*='NCHW'"):
        applications.preprocess_input(x, "NCHW")


def test_predictions_are_named_best_first():
    preds = np.zeros((2, 487), "float32")
    preds[0, [0, 1, 486]] = 0.1, 0.6, 0.3
    preds[1, 2] = 1

    first, second = applications.decode_predictions(preds, top=3)

    assert [name for _, name, _ in first] == [
        "boxing",
        "model aircraft",
        "boomerang",
    ]
    assert [score for *_, score in first] == pytest.approx([0.6, 0.3, 0.1])
    assert first[0][0].startswith("/m/")
    assert second[0][1] == "bowling"
    assert len(applications.decode_predictions(tf.constant(preds))[0]) == 5


@pytest.mark.parametrize("shape", [(487,), (2, 100), (1, 2, 487)])
def test_only_batches_over_a_known_set_can_be_named(shape):
    with pytest.raises(ValueError, match=r"\(samples, 487\).*Received") as it:
        applications.decode_predictions(np.zeros(shape))

    assert str(shape) in str(it.value)


def test_the_names_are_those_of_sports1m(shared):
    text = (shared / "data/annotations/sports-1m/labels.txt").read_text(
        encoding="utf-8"
    )

    names = [name for _, name in applications.sports1m_classes()]

    assert names == text.splitlines()


def test_names_of_builders_are_public():
    for entry in MODELS.values():
        builder = entry.builder
        assert getattr(applications, builder.__name__) is builder
        assert builder.__name__ in applications.__all__


if __name__ == "__main__":
    write_expected()

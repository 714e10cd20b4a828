"""The networks, against what the papers and their build sheet print."""

import math

import keras
import pytest
from keras import layers

from keras_videofusion import applications
from keras_videofusion.applications import macs, MODELS
from keras_videofusion.applications.fusion import (
    EARLY,
    LATE,
    SINGLE,
    SLOW,
    TOP,
)
from keras_videofusion.applications.notation import spell
from keras_videofusion.layers import (
    Framewise,
    LocalResponseNormalization,
    StackFrames,
)

# Karpathy et al., CVPR 2014, section 3.1, to the letter.
LINE = (
    "C(96, 11, 3)-N-P-C(256, 5, 1)-N-P-C(384, 3, 1)-C(384, 3, 1)-"
    "C(256, 3, 1)-P-FC(4096)-FC(4096)"
)


@pytest.mark.parametrize(
    ("trunk", "times"),
    [
        (SINGLE, {}),
        (LATE, {}),
        (EARLY, {1: "[T=10/1]"}),
        (SLOW, {1: "[T=4/2]", 2: "[T=2/2]", 3: "[T=2/2]"}),
    ],
    ids=["single", "late", "early", "slow"],
)
def test_lines_are_spelled_as_the_paper_prints_them(trunk, times):
    parts = LINE.split("-")
    convolutions = [i for i, part in enumerate(parts) if part.startswith("C")]
    for number, time in times.items():
        parts[convolutions[number - 1]] += time

    assert spell((*trunk, *TOP)) == "-".join(parts)


def read_back(model):
    """The paper's line, read off a built network's layers."""
    words = []
    for layer in model.layers:
        inner = layer.layer if isinstance(layer, Framewise) else layer
        if isinstance(inner, layers.Conv2D):
            assert inner.padding == "same"
            assert inner.activation is keras.activations.relu
            size, stride = inner.kernel_size[0], inner.strides[0]
            words.append(f"C({inner.filters}, {size}, {stride})")
        elif isinstance(inner, layers.MaxPooling2D):
            assert inner.pool_size == inner.strides == (2, 2)
            assert inner.padding == "valid"
            words.append("P")
        elif isinstance(inner, LocalResponseNormalization):
            constants = (inner.k, inner.n, inner.alpha, inner.beta)
            assert constants == (2.0, 5, 1e-4, 0.5)
            words.append("N")
        elif isinstance(inner, layers.Dense) and inner.name != "predictions":
            assert inner.activation is keras.activations.relu
            words.append(f"FC({inner.units})")
    return "-".join(words)


@pytest.mark.parametrize("name", ["single_frame", "late_fusion"])
def test_networks_are_built_of_the_papers_line(name):
    model = MODELS[name].builder(kernel_initializer="zeros")

    assert read_back(model) == LINE


def test_slow_fusion_meets_in_three_layers():
    """Section 3.1: T = 4 at stride 2, then T = 2 at stride 2 twice."""
    model = applications.SlowFusion(width=0.01)

    stacks = {
        layer.name: (layer.extent, layer.step)
        for layer in model.layers
        if isinstance(layer, StackFrames)
    }

    assert stacks == {
        "conv1_stack": (4, 2),
        "conv2_stack": (2, 2),
        "conv3_stack": (2, 2),
    }


def test_the_first_filters_of_early_fusion_are_11_x_11_x_3_x_10():
    model = applications.EarlyFusion(include_top=False)

    assert model.get_layer("conv1").kernel.shape == (11, 11, 3 * 10, 96)


def maps(model):
    """Shapes of the convolutions' and pools' answers, by layer."""
    return {
        layer.name: layer.output.shape[1:]
        for layer in model.layers
        if layer.name.startswith(("conv", "pool"))
        and not layer.name.endswith("_stack")
    }


def side_by_side(time, side):
    """Shapes after conv1, pool1, ... of `time` frames: MODELS.md, 1.4."""
    t1, t2, t3 = time
    s1, s2, s3 = side
    return {
        "conv1": (t1, s1, s1, 96),
        "pool1": (t1, s2, s2, 96),
        "conv2": (t2, s2, s2, 256),
        "pool2": (t2, s3, s3, 256),
        "conv3": (t3, s3, s3, 384),
        "conv4": (t3, s3, s3, 384),
        "conv5": (t3, s3, s3, 256),
        "pool5": (t3, 7, 7, 256),
    }


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("single_frame", (1, 1, 1)),
        ("early_fusion", (1, 1, 1)),
        ("late_fusion", (2, 2, 2)),
        ("slow_fusion", (4, 2, 1)),
    ],
)
@pytest.mark.parametrize(
    ("size", "side"), [(170, (57, 28, 14)), (178, (60, 30, 15))]
)
def test_maps_have_the_papers_sizes(name, time, size, side):
    builder, spec = MODELS[name]
    shape = (spec.time, size, size, 3)

    model = builder(include_top=False, input_shape=shape)

    assert maps(model) == side_by_side(time, side)


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("multires_single_frame", 1),
        ("multires_early_fusion", 1),
        ("multires_late_fusion", 2),
        ("multires_slow_fusion", 1),
    ],
)
def test_streams_of_89_pixels_end_in_7_x_7_x_256(name, frames):
    """Section 3.2: the last pool is gone, "so that" the map's size stays."""
    builder, spec = MODELS[name]

    model = builder(include_top=False, input_shape=(spec.time, 178, 178, 3))

    for stream in ("fovea", "context"):
        assert model.get_layer(stream).output.shape[2:] == (89, 89, 3)
        last = model.get_layer(f"{stream}_conv5")
        assert last.output.shape[1:] == (frames, 7, 7, 256)
    assert model.output.shape[1:] == (frames, 7, 7, 512)


# What the networks cost

# MODELS.md, 1.4. Multiply-adds are exact where the sheet adds up a table.
COSTS = {
    "single_frame": (73_908_071, 1.272, 1_271_991_840),
    "early_fusion": (74_221_703, 2.291, None),
    "late_fusion": (125_288_295, 2.525, 2_525_211_712),
    "slow_fusion": (75_511_751, 4.589, 4_588_786_176),
    "multires_single_frame": (129_035_495, 0.764, 764_203_264),
    "multires_early_fusion": (129_662_759, 1.329, None),
    "multires_late_fusion": (231_795_943, 1.510, None),
    "multires_slow_fusion": (132_242_855, 2.621, None),
    "fovea_single_frame": (73_908_071, 0.391, None),
    "context_single_frame": (73_908_071, 0.391, None),
}


def by_hand(times, extents, sides, streams=1, frames=1):
    """Parameters and multiply-adds of a fusion network, from the paper alone.

    Args:
        times: Frames of the answers of conv1, conv2 and conv3.
        extents: Frames under a filter of conv1, conv2 and conv3.
        sides: Of the maps of conv1, conv2 and conv3.
        streams: Integer, towers side by side.
        frames: Integer, frames whose maps meet in fc6.
    """
    weights = [
        extents[0] * 11 * 11 * 3 * 96,
        extents[1] * 5 * 5 * 96 * 256,
        extents[2] * 3 * 3 * 256 * 384,
        3 * 3 * 384 * 384,
        3 * 3 * 384 * 256,
    ]
    biases = [96, 256, 384, 384, 256]
    points = [
        time * side * side
        for time, side in zip(
            (*times, times[2], times[2]),
            (*sides, sides[2], sides[2]),
            strict=True,
        )
    ]
    top = [streams * frames * 7 * 7 * 256 * 4096, 4096 * 4096, 4096 * 487]
    parameters = (
        streams * (sum(weights) + sum(biases)) + sum(top) + 4096 + 4096 + 487
    )
    convolutions = sum(w * p for w, p in zip(weights, points, strict=True))
    return parameters, streams * convolutions + sum(top)


WHOLE, HALF = (57, 28, 14), (30, 15, 7)
BY_HAND = {
    "single_frame": by_hand((1, 1, 1), (1, 1, 1), WHOLE),
    "early_fusion": by_hand((1, 1, 1), (10, 1, 1), WHOLE),
    "late_fusion": by_hand((2, 2, 2), (1, 1, 1), WHOLE, frames=2),
    "slow_fusion": by_hand((4, 2, 1), (4, 2, 2), WHOLE),
    "multires_single_frame": by_hand((1, 1, 1), (1, 1, 1), HALF, 2),
    "multires_early_fusion": by_hand((1, 1, 1), (10, 1, 1), HALF, 2),
    "multires_late_fusion": by_hand((2, 2, 2), (1, 1, 1), HALF, 2, frames=2),
    "multires_slow_fusion": by_hand((4, 2, 1), (4, 2, 2), HALF, 2),
    "fovea_single_frame": by_hand((1, 1, 1), (1, 1, 1), HALF),
    "context_single_frame": by_hand((1, 1, 1), (1, 1, 1), HALF),
}


@pytest.fixture(scope="module")
def costs():
    return {row["name"]: row for row in applications.costs_table()}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_networks_cost_what_the_sheet_says(costs, name):
    parameters, giga, exact = COSTS[name]

    assert costs[name]["parameters"] == parameters
    assert round(costs[name]["macs"] / 1e9, 3) == giga
    assert exact is None or costs[name]["macs"] == exact


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_networks_cost_what_the_paper_comes_to(costs, name):
    counted = (costs[name]["parameters"], costs[name]["macs"])

    assert counted == BY_HAND[name]


@pytest.mark.slow
def test_the_table_of_costs_tells_the_clip(costs):
    assert list(costs) == list(MODELS)
    assert costs["multires_late_fusion"]["frames"] == 2
    assert costs["multires_late_fusion"]["size"] == [178, 178]
    assert costs["multires_late_fusion"]["weights"] == []


def test_multiply_adds_are_counted_in_nested_and_3d_layers():
    inner = keras.Sequential([keras.Input((4, 8, 8, 3))])
    inner.add(layers.Conv3D(5, (3, 2, 2), (1, 2, 2)))
    clip = keras.Input((4, 8, 8, 3))
    x = layers.Conv2D(2, 1, groups=1)(
        layers.Flatten()(inner(clip))[:, None, None]
    )
    model = keras.Model(clip, layers.Dense(7)(layers.Flatten()(x)))

    cost = macs(model)

    flat = 2 * 4 * 4 * 5
    assert cost == flat * math.prod((3, 2, 2, 3)) + flat * 2 + 2 * 7


def test_multiply_adds_need_a_known_size():
    model = applications.SingleFrame(include_top=False, width=0.01)

    with pytest.raises(ValueError, match="known input shape"):
        macs(model)

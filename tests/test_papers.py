"""The networks, against what the papers and their build sheet print."""

import functools
import gc
import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_videofusion import applications
from keras_videofusion.applications import (
    get_model,
    macs,
    MODELS,
    parameters,
)
from keras_videofusion.applications.fusion import (
    EARLY,
    LATE,
    SINGLE,
    SLOW,
    TOP,
)
from keras_videofusion.applications.inception import averaged, SITES, Style
from keras_videofusion.applications.notation import Making, spell
from keras_videofusion.layers import (
    Framewise,
    LocalResponseNormalization,
    SelfGating,
    StackFrames,
)

EXPECTED = Path(__file__).parent / "expected"

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
    shape = (MODELS[name].spec.time, size, size, 3)

    model = get_model(name, include_top=False, input_shape=shape)

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
    shape = (MODELS[name].spec.time, 178, 178, 3)

    model = get_model(name, include_top=False, input_shape=shape)

    for stream in ("fovea", "context"):
        assert model.get_layer(stream).output.shape[2:] == (89, 89, 3)
        last = model.get_layer(f"{stream}_conv5")
        assert last.output.shape[1:] == (frames, 7, 7, 256)
    assert model.output.shape[1:] == (frames, 7, 7, 512)


# What the networks cost

# MODELS.md, 1.4 and 3 to 8: parameters; billions of multiply-adds, to the
# digits that the sheet prints; and the number itself, where the sheet adds up
# a table.
# fmt: off
COSTS = {
    "single_frame":          (73_908_071, "1.272", 1_271_991_840),
    "early_fusion":          (74_221_703, "2.291", None),
    "late_fusion":           (125_288_295, "2.525", 2_525_211_712),
    "slow_fusion":           (75_511_751, "4.589", 4_588_786_176),
    "multires_single_frame": (129_035_495, "0.764", 764_203_264),
    "multires_early_fusion": (129_662_759, "1.329", None),
    "multires_late_fusion":  (231_795_943, "1.510", None),
    "multires_slow_fusion":  (132_242_855, "2.621", None),
    "fovea_single_frame":    (73_908_071, "0.391", None),
    "context_single_frame":  (73_908_071, "0.391", None),
    "feature_mlp":           (121_180_647, None, 121_171_968),
    "lrcn":                  (65_421_285, "19.110", 19_110_429_184),
    "lrcn_flow":             (65_421_285, "19.110", 19_110_429_184),
    "inception_lstm":        (8_945_600, "37.5", None),
    "c3d":                   (79_991_015, "38.549", 38_548_959_232),
    "spatial_stream":        (90_627_813, "1.664", 1_663_894_560),
    "temporal_stream":       (90_707_781, "2.614", 2_613_994_368),
    "two_stream":            (181_335_594, "4.278", 4_277_888_928),
    "fused_two_stream":      (39_755_824, "25.25", None),
    "i3d":                   (12_689_984, "111.153", 111_153_143_808),
    "i3d_flow":              (12_668_032, "102.341", None),
    "two_stream_i3d":        (25_358_016, "213.495", None),
    "i2d":                   (6_002_624, "36.891", None),
    "bottom_heavy_i3d":      (7_008_320, "100.012", None),
    "top_heavy_i3d":         (11_684_288, "48.033", None),
    "s3d":                   (8_299_520, "64.184", None),
    "s3dg":                  (9_518_848, "64.185", 64_184_810_240),
    "s3dg_flow":             (9_509_440, None, None),
    "two_stream_s3dg":       (19_028_288, "124.6", None),
}

TORCHVISION = {"style": "torchvision", "grid": "torch"}

# The same of networks that are had by an argument.
VARIANTS = (
    ("feature_mlp", {"hidden": (2048,)}, 52_199_911, None),
    ("feature_mlp", {"hidden": (2048, 2048)}, 56_396_263, None),
    ("feature_mlp", {"hidden": ()}, 12_175_487, None),
    ("lrcn", {"units": 1024}, 82_016_997, None),
    ("c3d", {"classes": 101}, 78_409_573, None),
    ("c3d", {"style": "quo_vadis", "classes": 400}, 79_634_576, "19.82"),
    ("spatial_stream", {"backbone": "inception", "classes": 400},
     6_002_624, "1.498"),
    ("temporal_stream", {"backbone": "inception", "classes": 400},
     6_055_936, "2.167"),
    ("two_stream", {"backbone": "inception", "classes": 400},
     12_058_560, None),
    ("fused_two_stream", {"backbone": "vgg16", "classes": 101},
     283_514_762, None),
    ("i2d", {"pool_time": False}, 6_002_624, None),
    ("s3d", {"conv1": 7}, 8_337_152, "79.289"),
    ("s3d", TORCHVISION, 8_320_048, "71.916"),
    ("s3dg", {"conv1": 7}, 9_556_480, "79.291"),
    ("s3dg", {"conv1": 7, "modality": "flow"}, 9_534_528, None),
    ("s3dg", {"boundary": "mixed_4b"}, 9_091_200, "48.308"),
    ("s3dg", TORCHVISION, 9_539_376, "71.918"),
)
# fmt: on


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


@functools.cache
def cost(name):
    """Parameters and multiply-adds of the network as it is by default."""
    gc.collect()  # a Keras model is a cycle, and some of these are large
    model = get_model(name, kernel_initializer="zeros")
    return parameters(model), macs(model)


def printed(number, like):
    """Billions, to as many digits as the sheet prints."""
    return f"{number / 1e9:.{len(like.partition('.')[2])}f}"


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_networks_cost_what_the_sheet_says(name):
    sheet_parameters, giga, exact = COSTS[name]

    counted, multiplied = cost(name)

    assert counted == sheet_parameters
    assert giga is None or printed(multiplied, giga) == giga
    assert exact is None or multiplied == exact


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_HAND)
def test_networks_cost_what_the_paper_comes_to(name):
    assert cost(name) == BY_HAND[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "sheet", "giga"), VARIANTS, ids=str
)
def test_variants_cost_what_the_sheet_says(name, arguments, sheet, giga):
    gc.collect()
    model = get_model(name, kernel_initializer="zeros", **arguments)

    assert parameters(model) == sheet
    assert giga is None or printed(macs(model), giga) == giga


# MODELS.md, 8: how much of the network looks along time. Millions of
# parameters and billions of multiply-adds of four kinds of top-heavy network,
# whose lowest site that does is the row's, and of a bottom-heavy one, whose
# highest is.
# fmt: off
SWEEP = {
    "conv_1a":  (None, None, None, None, "6.06 59.55"),
    "conv_2c":  ("12.63 88.49", "12.69 111.15", "8.28 56.63", "8.30 64.18",
                 "6.28 81.75"),
    "mixed_3b": ("12.41 66.30", "12.47 88.96", "8.17 45.53", "8.19 53.09",
                 "6.51 87.53"),
    "mixed_3c": ("12.18 60.52", "12.24 83.18", "8.12 44.22", "8.14 51.78",
                 "7.01 100.01"),
    "mixed_4b": ("11.68 48.03", "11.74 70.69", "7.98 40.75", "8.00 48.31",
                 "7.38 101.18"),
    "mixed_4c": ("11.31 46.86", "11.37 69.52", "7.84 40.33", "7.86 47.88",
                 "7.86 102.69"),
    "mixed_4d": ("10.83 45.36", "10.89 68.02", "7.68 39.81", "7.70 47.37",
                 "8.48 104.62"),
    "mixed_4e": ("10.21 43.42", "10.27 66.08", "7.47 39.16", "7.49 46.71",
                 "9.26 107.08"),
    "mixed_4f": ("9.43 40.97", "9.49 63.62", "7.21 38.34", "7.23 45.89",
                 "10.26 110.20"),
    "mixed_5b": ("8.44 37.84", "8.49 60.50", "6.85 37.22", "6.87 44.78",
                 "11.25 110.59"),
    "mixed_5c": ("7.44 37.45", "7.50 60.11", "6.49 37.08", "6.51 44.64",
                 "12.69 111.15"),
}
KINDS = (
    ("top_heavy_i3d", {"conv1": 1}),
    ("top_heavy_i3d", {"conv1": 7}),
    ("s3d", {"conv1": 1}),
    ("s3d", {"conv1": 3}),
    ("bottom_heavy_i3d", {}),
)
# fmt: on


@pytest.mark.slow
@pytest.mark.parametrize("site", SWEEP)
@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_the_sweep_over_boundaries_costs_what_the_sheet_says(site, kind):
    name, arguments = KINDS[kind]
    sheet = SWEEP[site][kind]
    if sheet is None:
        with pytest.raises(ValueError, match="`boundary`"):
            get_model(name, boundary=site, **arguments)
        return

    model = get_model(
        name, boundary=site, kernel_initializer="zeros", **arguments
    )

    millions = f"{parameters(model) / 1e6:.2f}"
    assert f"{millions} {macs(model) / 1e9:.2f}" == sheet


def test_the_table_of_costs_tells_the_clip(monkeypatch):
    def narrow(name, **arguments):
        return get_model(name, width=0.01, **arguments)

    some = (
        "multires_late_fusion",
        "lrcn",
        "two_stream_i3d",
        "s3d",
        "feature_mlp",
    )
    monkeypatch.setattr(applications, "get_model", narrow)
    monkeypatch.setattr(
        applications, "MODELS", {name: MODELS[name] for name in some}
    )

    rows = {row["name"]: row for row in applications.costs_table()}

    assert tuple(rows) == some
    assert rows["multires_late_fusion"]["frames"] == 2
    assert rows["multires_late_fusion"]["size"] == [178, 178]
    assert rows["multires_late_fusion"]["weights"] == []
    assert rows["s3d"]["weights"] == ["kinetics400"]
    assert rows["feature_mlp"]["frames"] is None
    assert rows["feature_mlp"]["size"] == [25_000]
    for name in ("lrcn", "two_stream_i3d"):
        model = narrow(name)
        counted = (rows[name]["parameters"], rows[name]["macs"])
        assert counted == (parameters(model), macs(model))


# Layer by layer

# The tables of MODELS.md, 3 to 8: of every layer the shape of its answer
# (channels alone, where it is a vector), parameters with those of its batch
# normalisation, and multiply-adds.
TABLES = json.loads((EXPECTED / "layers.json").read_text(encoding="utf-8"))


@functools.cache
def whole(name):
    gc.collect()
    return get_model(name, kernel_initializer="zeros")


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_layers_are_those_of_the_sheets_table(name):
    model = whole(name)
    found = {layer.name: layer for layer in model.layers}

    built = {}
    for row, (shape, _, _) in TABLES[name].items():
        layer = found[row]
        own = (row, f"{row}_bn")
        counted = sum(
            math.prod(weight.shape)
            for part in own
            if part in found
            for weight in found[part].trainable_weights
        )
        alone = keras.Model(layer.input, layer.output)
        answer = list(layer.output.shape[-len(shape) :])
        built[row] = [answer, counted, macs(alone)]

    assert built == TABLES[name]


@pytest.mark.parametrize(
    "name", ["lrcn", "c3d", "spatial_stream", "temporal_stream"]
)
def test_layers_come_in_the_sheets_order(name):
    names = [layer.name for layer in get_model(name, width=0.01).layers]

    order = [layer for layer in names if layer in TABLES[name]]

    assert order == list(TABLES[name])


@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("lrcn", (1.0, 5, 2e-5, 0.75)),
        ("spatial_stream", (2.0, 5, 1e-4, 0.75)),
        ("temporal_stream", (2.0, 5, 1e-4, 0.75)),
    ],
)
def test_normalisation_has_the_sources_constants(name, constants):
    """MODELS.md, 0.4: of Caffe's alpha, one fifth."""
    norms = [
        (layer.k, layer.n, layer.alpha, layer.beta)
        for layer in get_model(name, width=0.01).layers
        if isinstance(layer, LocalResponseNormalization)
    ]

    assert norms == [constants] * (1 if name == "temporal_stream" else 2)


def test_lrcns_second_fourth_and_fifth_convolutions_are_of_two_groups():
    groups = {
        layer.name: layer.layer.groups
        for layer in get_model("lrcn", width=0.01).layers
        if isinstance(layer, Framewise) and hasattr(layer, "kernel")
    }

    assert groups == {
        "conv1": 1,
        "conv2": 2,
        "conv3": 1,
        "conv4": 2,
        "conv5": 2,
    }


# Carreira & Zisserman, CVPR 2017, figure 3, and MODELS.md, 7: the four
# branches of every module.
# fmt: off
INCEPTION = {
    "mixed_3b": (64, 96, 128, 16, 32, 32),
    "mixed_3c": (128, 128, 192, 32, 96, 64),
    "mixed_4b": (192, 96, 208, 16, 48, 64),
    "mixed_4c": (160, 112, 224, 24, 64, 64),
    "mixed_4d": (128, 128, 256, 24, 64, 64),
    "mixed_4e": (112, 144, 288, 32, 64, 64),
    "mixed_4f": (256, 160, 320, 32, 128, 128),
    "mixed_5b": (256, 160, 320, 32, 128, 128),
    "mixed_5c": (384, 192, 384, 48, 128, 128),
}
# fmt: on


@pytest.mark.parametrize("name", ["i3d", "i2d", "s3d", "s3dg"])
def test_modules_have_the_papers_branches(name):
    model = get_model(
        name,
        include_top=False,
        input_shape=(8, 32, 32, 3),
        kernel_initializer="zeros",
    )

    for site, filters in INCEPTION.items():
        convolutions = [
            model.get_layer(f"{site}_{branch}")
            for branch in ("b0", "b1a", "b1b", "b2a", "b2b", "b3")
        ]
        assert tuple(one.filters for one in convolutions) == filters
        pool = model.get_layer(f"{site}_b3_pool")
        assert pool.pool_size == (3, 3, 3)
        assert pool.strides == (1, 1, 1)
        b0, _, b1b, _, b2b, b3 = filters
        assert model.get_layer(site).output.shape[-1] == b0 + b1b + b2b + b3


def extents(model):
    """Frames under the filters of every site, by its widest filter."""
    found = dict.fromkeys(SITES, 1)
    for layer in model.layers:
        if isinstance(layer, layers.Conv3D) and layer.name != "conv_2b":
            site = next((x for x in SITES if layer.name.startswith(x)), None)
            if site is not None:
                found[site] = max(found[site], layer.kernel_size[0])
    return list(found.values())


@pytest.mark.parametrize(
    ("name", "arguments", "reach"),
    [
        ("i3d", {}, [7] + [3] * 10),
        ("i2d", {}, [1] * 11),
        ("bottom_heavy_i3d", {}, [7, 3, 3, 3] + [1] * 7),
        ("bottom_heavy_i3d", {"boundary": "conv_1a"}, [7] + [1] * 10),
        ("bottom_heavy_i3d", {"boundary": "mixed_5c"}, [7] + [3] * 10),
        ("top_heavy_i3d", {}, [1, 1, 1, 1] + [3] * 7),
        (
            "top_heavy_i3d",
            {"boundary": "mixed_5c", "conv1": 5},
            [5] + [1] * 9 + [3],
        ),
        ("s3d", {}, [3] * 11),
        ("s3d", {"style": "torchvision"}, [7] + [3] * 10),
        ("s3dg", {"boundary": "mixed_4e"}, [3] + [1] * 6 + [3] * 4),
    ],
    ids=str,
)
def test_filters_reach_over_frames_where_they_should(name, arguments, reach):
    model = get_model(name, width=0.05, **arguments)

    assert extents(model) == reach


def test_c3ds_pools_halve_time_but_for_the_first():
    """Quo Vadis's has a stride in time there too: MODELS.md, 4."""

    def lengths(**arguments):
        model = get_model("c3d", width=0.01, **arguments)
        return [
            model.get_layer(f"pool{i}").output.shape[1] for i in range(1, 6)
        ]

    assert lengths() == [16, 8, 4, 2, 1]
    assert lengths(style="quo_vadis") == [8, 4, 2, 1, 1]


def test_quo_vadis_c3d_is_normed_after_every_layer_with_weights():
    model = get_model("c3d", width=0.01, style="quo_vadis")

    layered = [layer.name for layer in model.layers if layer.weights]

    for name in (
        *(row for row in TABLES["c3d"] if row[0] == "c"),
        "fc6",
        "fc7",
    ):
        assert layered[layered.index(name) + 1] == f"{name}_bn"
        assert not model.get_layer(name).use_bias
        assert not model.get_layer(f"{name}_bn").scale


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("inception_lstm", {}),
        ("c3d", {"style": "quo_vadis"}),
        ("two_stream", {"backbone": "inception"}),
        ("fused_two_stream", {}),
        ("two_stream_i3d", {}),
        ("i2d", {}),
        ("bottom_heavy_i3d", {}),
        ("top_heavy_i3d", {}),
        ("s3d", {"style": "torchvision"}),
        ("two_stream_s3dg", {}),
    ],
    ids=str,
)
def test_every_average_decays_by_the_momentum_that_is_asked_for(
    name, arguments
):
    model = get_model(name, width=0.01, momentum=0.7, **arguments)
    towers = [x for x in model.layers if isinstance(x, keras.Model)]

    found = {
        (layer.momentum, layer.epsilon)
        for part in towers or [model]
        for layer in part.layers
        if isinstance(layer, layers.BatchNormalization)
    }

    assert found == {(0.7, 1e-3)}


def test_maps_of_the_fused_streams_have_the_papers_sizes():
    """MODELS.md, 6.1 and 6.2."""
    inception = get_model("fused_two_stream", width=1 / 16)
    vgg = get_model("fused_two_stream", width=1 / 16, backbone="vgg16")

    for model, row in (
        (inception, {"streams": (5, 7, 7, 128), "pool": (3, 4, 4, 32)}),
        (inception, {"fuse_conv": (5, 7, 7, 32)}),
        (vgg, {"streams": (5, 14, 14, 64), "conv3D5": (5, 14, 14, 32)}),
        (vgg, {"pool3D5": (1, 7, 7, 32), "flow_pool3D5": (1, 7, 7, 32)}),
    ):
        for name, shape in row.items():
            assert model.get_layer(name).output.shape[1:] == shape


# What the networks do


def tiny(name, **arguments):
    """A narrow network of eight classes, its weights all in use."""
    model = get_model(
        name,
        **{
            "width": 0.1,
            "classes": 8,
            "kernel_initializer": "halving",
            **arguments,
        },
    )
    draw = np.random.default_rng(3)
    for weight in model.weights:
        if len(weight.shape) == 1:
            small = draw.uniform(0.02, 0.2, weight.shape)
            ones = weight.name in ("gamma", "moving_variance")
            weight.assign(1 + small if ones else small)
    return model


def part(model, *names):
    """The same network, seen at some of its layers."""
    seen = [model.get_layer(name).output for name in names]
    return keras.Model(model.input, seen if len(seen) > 1 else seen[0])


def values(tensor):
    return ops.convert_to_numpy(tensor)


def pixels(*shape, seed=0):
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, shape).astype("float32")


def fields(*shape, seed=1):
    return np.random.default_rng(seed).normal(0, 4, shape).astype("float32")


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(7)


def test_the_order_of_frames_is_nothing_to_i2d_without_pools_in_time():
    brighter = np.linspace(0.1, 1, 6).reshape(1, 6, 1, 1, 1)
    x = (pixels(1, 6, 32, 32, 3) * brighter).astype("float32")
    order = [3, 0, 5, 1, 4, 2]
    told = {
        "input_shape": x.shape[1:],
        "classifier_activation": None,
        "kernel_initializer": "he_normal",
    }
    free = tiny("i2d", pool_time=False, **told)
    authors = tiny("i2d", **told)
    authors.set_weights(free.get_weights())

    for model, same in ((free, True), (authors, False)):
        y, shuffled = values(model(x)), values(model(x[:, order]))
        assert np.allclose(y, shuffled, atol=1e-4 * np.abs(y).max()) == same


def test_the_first_and_last_frames_of_features_count_half():
    """MODELS.md, 7: feature frames weigh 1, 2, 2, ..., 2, 1."""
    shape = (64, 32, 32, 3)
    model = tiny(
        "i3d", width=0.05, input_shape=shape, classifier_activation=None
    )
    features, y = map(
        values, part(model, "mixed_5c", "predictions")(pixels(1, *shape))
    )
    kernel, bias = model.get_layer("logits").get_weights()

    weights = np.array([1, 2, 2, 2, 2, 2, 2, 1]) / 14
    meant = np.einsum("t,btc->bc", weights, features[:, :, 0, 0])

    near = 1e-4 * np.abs(y).max()
    np.testing.assert_allclose(y, meant @ kernel + bias, atol=near)
    even = features.mean((1, 2, 3)) @ kernel + bias
    assert not np.allclose(y, even, atol=near)


@pytest.mark.parametrize(
    ("time", "shape"),
    [(True, (3, 9, 8)), (True, (1, 2, 5)), (False, (3, 9, 8))],
)
def test_the_head_is_a_sliding_mean(time, shape):
    x = np.random.default_rng(0).normal(size=(2, *shape, 5)).astype("float32")
    top = averaged(Style(dict.fromkeys(SITES, 3), time=time))
    clip = keras.Input(x.shape[1:])
    model = keras.Model(clip, top(clip, Making(), 4, None))
    kernel, bias = model.get_layer("logits").get_weights()

    window = [
        min(extent, length)
        for extent, length in zip((2 if time else 1, 7, 7), shape, strict=True)
    ]
    places = [
        x[:, t : t + window[0], i : i + window[1], j : j + window[2]].mean(
            (1, 2, 3)
        )
        for t in range(shape[0] - window[0] + 1)
        for i in range(shape[1] - window[1] + 1)
        for j in range(shape[2] - window[2] + 1)
    ]
    expected = np.mean([mean @ kernel + bias for mean in places], axis=0)

    np.testing.assert_allclose(model(x), expected, atol=1e-5)


BRANCHES = ("b0", "b1b", "b2b", "b3")


@pytest.mark.parametrize(
    ("boundary", "sites"),
    [("conv_2c", SITES[1:]), ("mixed_4b", SITES[4:]), ("mixed_5c", SITES[-1:])],
)
def test_gates_stand_behind_every_branch_from_the_boundary_up(boundary, sites):
    model = get_model("s3dg", width=0.05, boundary=boundary)

    gated = {
        layer.name for layer in model.layers if isinstance(layer, SelfGating)
    }

    assert gated == {
        f"{site}_g" if site == "conv_2c" else f"{site}_{branch}_g"
        for site in sites
        for branch in (BRANCHES if site != "conv_2c" else ("",))
    }


def test_gates_weigh_what_the_last_step_of_a_branch_gives():
    shape = (8, 32, 32, 3)
    model = tiny("s3dg", input_shape=shape)
    site = "mixed_3b"
    last = {"b0": "b0", "b1b": "b1b_t", "b2b": "b2b_t", "b3": "b3"}
    names = [f"{site}_{last[branch]}_relu" for branch in BRANCHES]

    *answers, y = map(values, part(model, *names, site)(pixels(2, *shape)))

    gated = []
    for branch, x in zip(BRANCHES, answers, strict=True):
        (kernel,) = model.get_layer(f"{site}_{branch}_g").get_weights()
        signal = x.mean((1, 2, 3), keepdims=True) @ kernel
        gated.append(x / (1 + np.exp(-signal)))
    expected = np.concatenate(gated, axis=-1)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_slims_steps_in_time_have_a_bias_and_torchvisions_a_norm():
    slim, other = (
        get_model("s3d", width=0.05, style=style)
        for style in ("slim", "torchvision")
    )

    names = {layer.name for layer in slim.layers}
    assert slim.get_layer("conv_1a").kernel_size == (3, 7, 7)
    assert "conv_1a_t" not in names
    assert slim.get_layer("mixed_3b_b1b_t").use_bias
    assert "mixed_3b_b1b_t_bn" not in names
    assert not slim.get_layer("mixed_3b_b1b_bn").scale
    first, late = other.get_layer("conv_1a"), other.get_layer("conv_1a_t")
    assert (first.kernel_size, first.strides) == ((1, 7, 7), (1, 2, 2))
    assert (late.kernel_size, late.strides) == ((7, 1, 1), (2, 1, 1))
    assert not other.get_layer("mixed_3b_b1b_t").use_bias
    assert other.get_layer("mixed_3b_b1b_t_bn").scale


def test_c3ds_last_pool_has_two_readings():
    """MODELS.md, 4: Caffe's windows of 7 begin at 0, torch's at -1."""
    shape = (16, 112, 112, 3)
    caffe = tiny("c3d", width=0.03, input_shape=shape, include_top=False)
    torch = tiny(
        "c3d", width=0.03, input_shape=shape, include_top=False, grid="torch"
    )
    torch.set_weights(caffe.get_weights())
    x = pixels(1, *shape)

    for model, starts in (
        (caffe, [(0, 2), (2, 4), (4, 6), (6, 7)]),
        (torch, [(0, 1), (1, 3), (3, 5), (5, 7)]),
    ):
        before, pooled = map(values, part(model, "conv5b_relu", "pool5")(x))
        expected = [
            [before[:, :, i:k, j:n].max((1, 2, 3)) for j, n in starts]
            for i, k in starts
        ]
        np.testing.assert_array_equal(pooled[:, 0], np.moveaxis(expected, 2, 0))
    assert not np.allclose(values(caffe(x)), values(torch(x)))


def test_ten_fields_are_twenty_channels_x_and_y_in_turn():
    """Simonyan & Zisserman, NIPS 2014, section 3.1."""
    x = fields(2, 10, 41, 44, 2)
    model = tiny("temporal_stream", input_shape=x.shape[1:])

    stacked = values(part(model, "fields")(x))

    centred = x - x.mean((2, 3), keepdims=True)
    assert stacked.shape == (2, 1, 41, 44, 20)
    for field in range(10):
        for axis in range(2):
            np.testing.assert_allclose(
                stacked[:, 0, :, :, 2 * field + axis],
                centred[:, field, :, :, axis],
                atol=1e-5,
            )


def test_every_instant_has_ten_fields_of_its_own():
    x = fields(1, 50, 32, 32, 2)
    shapes = {"rgb": (5, 32, 32, 3), "flow": x.shape[1:]}
    model = tiny("fused_two_stream", input_shape=shapes)

    stacked = values(
        part(model, "flow_fields")({"rgb": pixels(1, 5, 32, 32, 3), "flow": x})
    )

    assert stacked.shape == (1, 5, 32, 32, 20)
    expected = np.clip(x, -20, 20) / 20
    for instant in range(5):
        for field in range(10):
            np.testing.assert_allclose(
                stacked[:, instant, :, :, 2 * field : 2 * field + 2],
                expected[:, 10 * instant + field],
                atol=1e-6,
            )


# Scores of several streams, and of every frame


def both(*sizes):
    """A clip of both streams, and its shapes."""
    rgb, flow = sizes
    x = {"rgb": pixels(3, *rgb, 3), "flow": fields(3, *flow, 2)}
    return x, {stream: one.shape[1:] for stream, one in x.items()}


def softmax(x):
    grown = np.exp(x - x.max(-1, keepdims=True))
    return grown / grown.sum(-1, keepdims=True)


def of_towers(model, x):
    """What the two nested models answer, each on its own."""
    return [
        values(model.get_layer(f"{stream}_tower")(x[stream]))
        for stream in ("rgb", "flow")
    ]


STILL = ((1, 41, 44), (10, 41, 44))
MOVING = ((6, 32, 32), (6, 32, 32))


@pytest.mark.parametrize(
    ("fusion", "shares"),
    [("mean", (1 / 2, 1 / 2)), ((1, 2), (1 / 3, 2 / 3)), ([1.0, 0], (1, 0))],
    ids=str,
)
def test_two_streams_scores_are_averaged(fusion, shares):
    x, shapes = both(*STILL)
    model = tiny("two_stream", input_shape=shapes, fusion=fusion)

    rgb, flow = of_towers(model, x)

    expected = shares[0] * rgb + shares[1] * flow
    np.testing.assert_allclose(model(x), expected, rtol=1e-5)
    assert not np.allclose(rgb, flow)


def test_a_linear_machine_reads_scores_of_unit_length():
    """Simonyan & Zisserman, NIPS 2014, section 2."""
    x, shapes = both(*STILL)
    model = tiny(
        "two_stream",
        input_shape=shapes,
        fusion="svm",
        classifier_activation="softmax",
    )
    kernel, bias = model.get_layer("predictions").get_weights()

    unit = [
        y / np.sqrt((y**2).sum(1, keepdims=True)) for y in of_towers(model, x)
    ]

    assert kernel.shape == (16, 8)
    margins = np.concatenate(unit, axis=1) @ kernel + bias
    np.testing.assert_allclose(model(x), softmax(margins), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "share"), [("two_stream_i3d", 1.0), ("two_stream_s3dg", 0.5)]
)
def test_inflated_streams_meet_in_their_logits(name, share):
    x, shapes = both(*MOVING)
    model = tiny(name, input_shape=shapes)

    rgb, flow = of_towers(model, x)

    expected = softmax(share * (rgb + flow))
    np.testing.assert_allclose(model(x), expected, rtol=1e-4)


def test_lrcn_averages_the_scores_of_its_frames():
    x = pixels(2, 4, 49, 49, 3)
    mean, apart = (
        tiny("lrcn", input_shape=x.shape[1:], apart=apart)
        for apart in (False, True)
    )
    apart.set_weights(mean.get_weights())

    rows = values(apart(x))

    assert rows.shape == (2, 4, 8)
    assert not np.allclose(rows[:, 0], rows[:, 3])
    np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(mean(x), rows.mean(1), rtol=1e-5)


def test_a_frame_of_lrcn_knows_those_before_it_alone():
    x = pixels(2, 4, 49, 49, 3)
    other = np.concatenate([x[:, :2], x[:, :1:-1]], axis=1)
    model = tiny("lrcn", input_shape=x.shape[1:], apart=True)

    y, changed = values(model(x)), values(model(other))

    np.testing.assert_allclose(y[:, :2], changed[:, :2], rtol=1e-5)
    assert not np.allclose(y[:, 2], changed[:, 2])


def test_inception_lstm_answers_after_its_last_frame():
    x = pixels(2, 4, 32, 32, 3)
    last, apart = (
        tiny("inception_lstm", input_shape=x.shape[1:], apart=apart)
        for apart in (False, True)
    )
    apart.set_weights(last.get_weights())

    rows = values(apart(x))

    assert rows.shape == (2, 4, 8)
    assert not np.allclose(rows[:, 0], rows[:, 3])
    np.testing.assert_allclose(last(x), rows[:, 3], rtol=1e-5)


def test_vggs_fused_and_temporal_scores_are_averaged():
    """Feichtenhofer et al., CVPR 2016, section 3.4."""
    x, shapes = both((5, 32, 32), (50, 32, 32))
    mean, apart = (
        tiny(
            "fused_two_stream",
            input_shape=shapes,
            backbone="vgg16",
            apart=apart,
        )
        for apart in (False, True)
    )
    apart.set_weights(mean.get_weights())

    rows = values(apart(x))

    fused, temporal = map(values, part(mean, "fc8", "flow_fc8")(x))
    assert rows.shape == (3, 2, 8)
    np.testing.assert_allclose(rows[:, 0], fused, rtol=1e-5)
    np.testing.assert_allclose(rows[:, 1], temporal, rtol=1e-5)
    np.testing.assert_allclose(mean(x), (fused + temporal) / 2, rtol=1e-5)
    assert not np.allclose(fused, temporal)


def test_vggs_temporal_part_sees_no_pixels():
    x, shapes = both((5, 32, 32), (50, 32, 32))
    model = tiny(
        "fused_two_stream", input_shape=shapes, backbone="vgg16", apart=True
    )

    y = values(model(x))
    other = values(model({**x, "rgb": 255 - x["rgb"]}))

    np.testing.assert_array_equal(y[:, 1], other[:, 1])
    assert not np.allclose(y[:, 0], other[:, 0])


# Arguments of their own

LOW = ", ".join(SITES)
HIGH = ", ".join(SITES[1:])
REFUSED = [
    ("BottomHeavyI3D", {"boundary": "mixed_6a"}, f"{LOW}.*='mixed_6a'"),
    ("TopHeavyI3D", {"boundary": "conv_1a"}, f"of {HIGH}.*='conv_1a'"),
    ("S3D", {"boundary": "conv_1a"}, f"of {HIGH}.*='conv_1a'"),
    ("S3DG", {"boundary": "Mixed_4b"}, f"of {HIGH}.*='Mixed_4b'"),
    ("TwoStreamS3DG", {"boundary": None}, f"of {HIGH}.*boundary=None"),
    ("TopHeavyI3D", {"conv1": 2}, "`conv1`.*1, 3, 5, 7.*conv1=2"),
    ("S3D", {"conv1": 0}, "`conv1`.*1, 3, 5, 7.*conv1=0"),
    ("S3DG", {"style": "caffe"}, "`style`.*'slim', 'torchvision'.*='caffe'"),
    ("C3D", {"style": "slim"}, "`style`.*'sports1m', 'quo_vadis'.*='slim'"),
    ("C3D", {"grid": "caffe"}, "`grid`.*'tf', 'torch'.*='caffe'"),
    ("I3D", {"grid": "caffe"}, "`grid`.*'tf', 'torch'.*='caffe'"),
    ("TwoStreamI3D", {"grid": None}, "`grid`.*'tf', 'torch'.*grid=None"),
    ("I2D", {"grid": 1}, "`grid`.*'tf', 'torch'.*grid=1"),
    ("I3D", {"modality": "both"}, "`modality`.*'rgb', 'flow'.*='both'"),
    ("S3DG", {"modality": None}, "`modality`.*'rgb', 'flow'.*=None"),
    ("LRCN", {"modality": "depth"}, "`modality`.*'rgb', 'flow'.*='depth'"),
    ("SpatialStream", {"backbone": "vgg16"}, "`backbone`.*'cnn_m', 'incep"),
    ("TwoStream", {"backbone": "vgg16"}, "`backbone`.*'cnn_m', 'inception'"),
    ("FusedTwoStream", {"backbone": "cnn_m"}, "`backbone`.*'vgg16'"),
    ("TwoStream", {"fusion": "max"}, "`fusion`.*'mean', 'svm'.*='max'"),
    ("TwoStream", {"fusion": (1, -1)}, r"`fusion`.*fusion=\(1, -1\)"),
    ("TwoStream", {"fusion": (0, 0)}, r"`fusion`.*fusion=\(0, 0\)"),
    ("TwoStream", {"fusion": (1, 1, 1)}, r"`fusion`.*=\(1, 1, 1\)"),
    ("FusedTwoStream", {"apart": True}, "`apart`.*'vgg16'.*apart=True"),
]


@pytest.mark.parametrize(("builder", "wrong", "message"), REFUSED, ids=str)
def test_own_arguments_name_what_is_wrong(builder, wrong, message):
    with pytest.raises(ValueError, match=message):
        getattr(applications, builder)(**wrong)


def test_torchs_grid_needs_clips_that_fill_its_windows():
    with pytest.raises(ValueError, match="must begin with 5 or more"):
        get_model("i3d", grid="torch", input_shape=(4, 32, 32, 3))
    with pytest.raises(ValueError, match="must begin with 16 or more"):
        get_model("c3d", grid="torch", input_shape=(15, 16, 16, 3))
    for name, frames, side in (("i3d", 5, 32), ("c3d", 16, 16)):
        shape = (frames, side, side, 3)
        model = tiny(name, grid="torch", input_shape=shape)
        assert model(pixels(1, *shape)).shape == (1, 8)


# Counting


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

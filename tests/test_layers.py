"""The layers, against slow plain NumPy and TensorFlow's own LRN."""

from copy import deepcopy

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_videofusion.layers import (
    Blend,
    ContextHalf,
    FieldCentering,
    FlowImage,
    FoveaCrop,
    Framewise,
    GroupedConv2D,
    IdentityKernel,
    LocalResponseNormalization,
    SelfGating,
    StackFrames,
    Standardization,
)

HALVES = ("mixed_bfloat16", "mixed_float16")


def numbers(*shape, scale=1.0, seed=0):
    draw = np.random.default_rng(seed).normal(0, scale, shape)
    return draw.astype("float32")


def lrn(x, k, n, alpha, beta):
    """The formula, channel by channel, in double precision."""
    x = x.astype("float64")
    y = np.empty_like(x)
    for c in range(x.shape[-1]):
        near = x[..., max(0, c - n // 2) : c + n // 2 + 1]
        around = k + alpha * (near**2).sum(-1)
        y[..., c] = x[..., c] / around**beta
    return y


def double(x):
    return ops.convert_to_numpy(ops.cast(x, "float64"))


def gradient(function, x, weights):
    """Of sum(weights * function(x)) in x."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(tf.cast(function(x), x.dtype) * weights)
    return tape.gradient(y, x).numpy()


# StackFrames


@pytest.mark.parametrize(
    ("extent", "step", "windows"),
    [
        (1, 1, [[0], [1], [2], [3], [4]]),
        (2, 2, [[0, 1], [2, 3]]),
        (3, 1, [[0, 1, 2], [1, 2, 3], [2, 3, 4]]),
        (2, 3, [[0, 1], [3, 4]]),
        (1, 2, [[0], [2], [4]]),
        (5, 1, [[0, 1, 2, 3, 4]]),
    ],
)
def test_stacked_frames_are_the_windows_in_order(extent, step, windows):
    clip = numbers(2, 5, 3, 4, 2)

    stacked = StackFrames(extent, step)(clip)

    expected = np.stack(
        [np.concatenate(list(clip[:, w].swapaxes(0, 1)), -1) for w in windows],
        axis=1,
    )
    np.testing.assert_array_equal(stacked, expected)


def test_slow_fusion_sees_the_papers_windows():
    clip = np.arange(10.0, dtype="float32").reshape(1, 10, 1, 1, 1)

    stacked = StackFrames(4, 2)(clip)

    np.testing.assert_array_equal(
        stacked[0, :, 0, 0],
        [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8, 9]],
    )


def test_a_convolution_of_stacked_frames_is_one_valid_in_time():
    clip = numbers(2, 7, 9, 8, 3)
    filters = numbers(3, 5, 5, 3, 4, seed=1)
    conv = Framewise(keras.layers.Conv2D(4, 5, padding="same"))

    y = conv(StackFrames(3, 2)(clip))
    conv.kernel.assign(filters.transpose(1, 2, 0, 3, 4).reshape(5, 5, 9, 4))
    y = conv(StackFrames(3, 2)(clip))

    padded = np.pad(clip, ((0, 0), (0, 0), (2, 2), (2, 2), (0, 0)))
    expected = tf.nn.conv3d(padded, filters, (1, 2, 1, 1, 1), "VALID")
    np.testing.assert_allclose(y, expected, atol=1e-4)


def test_too_short_a_clip_cannot_be_stacked():
    with pytest.raises(ValueError, match=r"`extent` = 4.*Received: shape"):
        StackFrames(4)(numbers(1, 3, 2, 2, 1))


@pytest.mark.parametrize("argument", ["extent", "step"])
@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_stacking_names_the_argument_that_is_wrong(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}`.*{argument}={value}"):
        StackFrames(**{"extent": 2, argument: value})


# Framewise


def test_framewise_does_to_every_frame_what_the_layer_does_to_one():
    clip = numbers(2, 3, 8, 7, 3)
    conv = keras.layers.Conv2D(5, 3, 2, "same", activation="relu")

    y = Framewise(conv)(clip)

    assert y.shape == (2, 3, 4, 4, 5)
    for time in range(3):
        np.testing.assert_allclose(y[:, time], conv(clip[:, time]), atol=1e-6)


def test_framewise_shows_the_weights_of_what_it_wraps():
    conv = keras.layers.Conv2D(5, 3)
    wrapped = Framewise(conv, name="conv1")

    wrapped(numbers(1, 2, 4, 4, 3))

    assert wrapped.kernel is conv.kernel
    assert wrapped.bias is conv.bias
    assert not hasattr(Framewise(keras.layers.MaxPooling2D()), "kernel")


def test_framewise_hands_on_whether_the_call_trains():
    clip = np.ones((1, 2, 16, 16, 4), "float32")
    wrapped = Framewise(keras.layers.Dropout(0.5))

    assert np.all(wrapped(clip, training=False) == 1)
    assert np.any(wrapped(clip, training=True) == 0)


def test_frozen_framewise_has_nothing_to_train():
    wrapped = Framewise(keras.layers.Conv2D(5, 3))
    wrapped(numbers(1, 2, 4, 4, 3))

    wrapped.trainable = False

    assert wrapped.trainable_weights == []


# LocalResponseNormalization


@pytest.mark.parametrize(
    "constants",
    [
        {},
        {"k": 2.0, "n": 5, "alpha": 1e-4, "beta": 0.75},
        {"k": 1.0, "n": 5, "alpha": 2e-5, "beta": 0.75},
        {"k": 0.5, "n": 3, "alpha": 0.3, "beta": 1.5},
        {"k": 1.0, "n": 1, "alpha": 1.0, "beta": 0.5},
        {"k": 1.0, "n": 9, "alpha": 0.1, "beta": 0.0},
        {"k": 3.0, "n": 7, "alpha": 0.0, "beta": 1.0},
    ],
    ids=str,
)
class TestLRN:
    full = {"k": 2.0, "n": 5, "alpha": 1e-4, "beta": 0.5}

    def test_meets_the_formula(self, constants):
        x = numbers(2, 3, 4, 4, 6, scale=60)

        y = LocalResponseNormalization(**constants)(x)

        expected = lrn(x, **{**self.full, **constants})
        np.testing.assert_allclose(y, expected, rtol=2e-5)

    def test_meets_tensorflows_own_and_its_gradient(self, constants):
        c = {**self.full, **constants}
        x = numbers(3, 5, 4, 12, scale=60)
        pull = numbers(3, 5, 4, 12, seed=1)

        def native(x):
            return tf.nn.local_response_normalization(
                x, c["n"] // 2, c["k"], c["alpha"], c["beta"]
            )

        ours = LocalResponseNormalization(**constants)
        scale = np.abs(native(x)).max()
        np.testing.assert_allclose(ours(x), native(x), atol=2e-6 * scale)
        expected = gradient(native, x, pull)
        np.testing.assert_allclose(
            gradient(ours, x, pull),
            expected,
            atol=5e-6 * np.abs(expected).max(),
        )

    def test_gradient_meets_small_differences(self, constants):
        c = {**self.full, **constants}
        x = numbers(2, 6, scale=5).astype("float64")
        pull = numbers(2, 6, seed=1).astype("float64")
        ours = LocalResponseNormalization(**constants, dtype="float64")

        slope = np.empty_like(x)
        for at in np.ndindex(*x.shape):
            by = np.zeros_like(x)
            by[at] = 1e-5
            rise = lrn(x + by, **c) - lrn(x - by, **c)
            slope[at] = (rise * pull).sum() / 2e-5

        np.testing.assert_allclose(
            gradient(ours, x, pull), slope, rtol=1e-6, atol=1e-8
        )

    @pytest.mark.parametrize("policy", HALVES)
    def test_is_right_in_half_precision(self, constants, policy):
        layer = LocalResponseNormalization(**constants, dtype=policy)
        # Squares of these sum to more than float16's 65,504.
        x = ops.cast(numbers(2, 3, 4, 4, 6, scale=255), layer.compute_dtype)

        y = layer(x)

        assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
        expected = lrn(double(x), **{**self.full, **constants})
        error = 2**-8 if policy == "mixed_bfloat16" else 2**-11
        np.testing.assert_allclose(
            double(y), expected, rtol=1.01 * error, atol=1e-7
        )


def test_lrn_reaches_no_further_than_its_neighbourhood():
    x = np.zeros((1, 1, 1, 1, 9), "float32")
    x[..., 4] = 1000
    x[..., [0, 1, 2, 6, 7, 8]] = 1
    layer = LocalResponseNormalization(k=1.0, n=5, alpha=1.0, beta=0.5)

    y = np.array(layer(x))[0, 0, 0, 0]

    assert np.all(y[[2, 6]] < 0.01)
    assert np.all(y[[0, 1, 7, 8]] > 0.4)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("k", 0),
        ("k", -1.0),
        ("k", float("nan")),
        ("n", 4),
        ("n", 0),
        ("n", 5.0),
        ("alpha", -1e-4),
        ("beta", -0.5),
    ],
)
def test_lrn_names_the_argument_that_is_wrong(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}`.*{argument}={value}"):
        LocalResponseNormalization(**{argument: value})


# GroupedConv2D


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_groups_of_channels_do_not_see_one_another(groups):
    x = numbers(2, 7, 9, 6)
    conv = GroupedConv2D(6, 3, 2, "valid", groups=groups, activation="relu")

    y = conv(x)
    kernel, _ = conv.get_weights()
    bias = numbers(6, seed=2)
    conv.set_weights([kernel, bias])
    y = conv(x)

    share = 6 // groups
    assert kernel.shape == (3, 3, share, 6)
    expected = np.zeros((2, 3, 4, 6))
    for row, column, out in np.ndindex(3, 4, 6):
        first = out // share * share
        seen = x[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
        seen = seen[..., first : first + share]
        summed = (seen * kernel[..., out]).sum((1, 2, 3)) + bias[out]
        expected[:, row, column, out] = np.maximum(summed, 0)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_a_grouped_convolutions_gradient_stays_in_its_group():
    x = numbers(1, 5, 5, 4)
    conv = GroupedConv2D(2, 3, padding="same", groups=2)
    conv(x)
    first = np.zeros((1, 5, 5, 2), "float32")
    first[..., 0] = 1

    slope = gradient(conv, x, first)

    assert np.all(slope[..., :2] != 0)
    assert np.all(slope[..., 2:] == 0)


# SelfGating, Blend, IdentityKernel


@pytest.mark.parametrize("use_bias", [False, True])
def test_gates_weigh_channels_by_the_mean_of_the_whole_clip(use_bias):
    x = numbers(2, 3, 4, 5, 6)
    gate = SelfGating(use_bias)
    gate(x)
    weights = [numbers(6, 6, seed=1), numbers(6, seed=2)][: 1 + use_bias]
    gate.set_weights(weights)

    y = gate(x)

    expected = np.empty_like(x)
    for sample, channel in np.ndindex(2, 6):
        said = sum(
            x[sample, ..., other].mean() * weights[0][other, channel]
            for other in range(6)
        )
        said += weights[1][channel] if use_bias else 0
        expected[sample, ..., channel] = x[sample, ..., channel] / (
            1 + np.exp(-said)
        )
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_a_gates_gradient_reaches_its_weights_and_every_pixel():
    x = tf.constant(numbers(2, 3, 4, 5, 6))
    gate = SelfGating(use_bias=True)
    gate(x)

    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(gate(x) ** 2)
    slopes = tape.gradient(total, [x, *gate.trainable_variables])

    assert len(slopes) == 3
    assert all(np.all(slope.numpy() != 0) for slope in slopes)


def test_a_blend_is_the_weighted_sum():
    one, other = numbers(2, 3), numbers(2, 3, seed=1)

    y = Blend((0.25, 2))([one, other])

    np.testing.assert_allclose(y, 0.25 * one + 2 * other, rtol=1e-6)


def test_a_blend_takes_as_many_tensors_as_shares():
    with pytest.raises(ValueError, match="takes 2 tensors.*Received: 3"):
        Blend((1, 1))([numbers(2, 3)] * 3)


def test_a_blend_comes_back_from_a_file(tmp_path):
    inputs = [keras.Input((3,)), keras.Input((3,))]
    model = keras.Model(inputs, Blend((0.25, 2), name="it")(inputs))
    x = [numbers(2, 3), numbers(2, 3, seed=1)]

    model.save(tmp_path / "it.keras")
    again = keras.saving.load_model(tmp_path / "it.keras")

    assert again.get_layer("it").shares == [0.25, 2.0]
    np.testing.assert_array_equal(again(x), model(x))


@pytest.mark.parametrize("taps", [(3, 1, 1), (3, 3, 3), (1, 5, 4)])
def test_an_identity_kernel_hands_on_what_it_is_given(taps):
    x = numbers(2, 5, 6, 7, 4)

    y = tf.nn.conv3d(x, IdentityKernel()((*taps, 4, 4)), (1,) * 5, "SAME")

    np.testing.assert_array_equal(y, x)


def test_an_identity_kernel_may_widen_or_narrow():
    wider = np.array(IdentityKernel()((1, 2, 4)))[0]
    narrower = np.array(IdentityKernel()((1, 4, 2)))[0]

    np.testing.assert_array_equal(wider, np.eye(2, 4))
    np.testing.assert_array_equal(narrower, np.eye(4, 2))


def test_an_identity_kernel_sums_two_halves_smoothed_by_a_gaussian():
    """MODELS.md, 6.2: [0.25 I; 0.75 I] over taps, sigma 1, that sum to 1."""
    kernel = np.array(IdentityKernel((0.25, 0.75), 1.0)((3, 3, 3, 10, 5)))

    expected = np.zeros_like(kernel)
    bell = np.zeros((3, 3, 3))
    for tap in np.ndindex(3, 3, 3):
        bell[tap] = np.exp(-sum((place - 1) ** 2 for place in tap) / 2)
    for channel in range(5):
        expected[..., channel, channel] = 0.25 * bell / bell.sum()
        expected[..., 5 + channel, channel] = 0.75 * bell / bell.sum()
    np.testing.assert_allclose(kernel, expected, atol=1e-7)


def test_an_identity_kernel_comes_back_from_its_config():
    kernel = IdentityKernel((0.25, 0.75), 1.0)

    config = keras.saving.serialize_keras_object(kernel)
    again = keras.saving.deserialize_keras_object(deepcopy(config))

    assert config["registered_name"].startswith("keras_videofusion>")
    assert again.get_config() == {"shares": [0.25, 0.75], "deviation": 1.0}
    assert keras.initializers.get(kernel.clone()).get_config() == (
        kernel.get_config()
    )


# FieldCentering, FlowImage


def test_centred_fields_have_no_mean():
    x = numbers(2, 3, 4, 5, 2, scale=4) + np.float32([3, -7])

    y = FieldCentering()(x)

    expected = np.empty_like(x)
    for sample, time, axis in np.ndindex(2, 3, 2):
        field = x[sample, time, ..., axis]
        expected[sample, time, ..., axis] = field - field.mean()
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_a_flow_image_is_x_y_and_length_in_sixteenths_of_a_pixel():
    x = np.zeros((1, 1, 2, 2, 2), "float32")
    x[0, 0] = [[[3, -4], [0.5, 0]], [[-20, 20], [7, -7.9]]]

    y = FlowImage()(x)

    np.testing.assert_allclose(
        y[0, 0],
        [
            [[48, -64, 80], [8, 0, 8]],
            [[-128, 127, 127], [112, -126.4, 127]],
        ],
        rtol=1e-6,
    )


@pytest.mark.parametrize("policy", ["float32", *HALVES])
@pytest.mark.parametrize("kind", [FieldCentering, FlowImage])
def test_flow_is_rounded_in_the_answer_alone(kind, policy):
    x = numbers(1, 2, 8, 8, 2, scale=2) + np.float32(1)

    y = kind(dtype=policy)(x)

    exact = ops.cast(kind(dtype="float32")(x), y.dtype)
    np.testing.assert_array_equal(double(y), double(exact))


@pytest.mark.parametrize("ending", ["config", "file"])
def test_a_flow_image_comes_back(ending, tmp_path):
    clip = keras.Input((2, 4, 5, 2))
    model = keras.Model(clip, FlowImage(name="it")(clip))
    x = numbers(1, 2, 4, 5, 2, scale=3)

    if ending == "file":
        model.save(tmp_path / "it.keras")
        again = keras.saving.load_model(tmp_path / "it.keras")
    else:
        again = keras.Model.from_config(deepcopy(model.get_config()))

    assert again.output.shape == (None, 2, 4, 5, 3)
    np.testing.assert_array_equal(again(x), model(x))


# Standardization, FoveaCrop, ContextHalf


@pytest.mark.parametrize("policy", ["float32", *HALVES])
def test_standardization_rounds_only_its_answer(policy):
    pixels = np.arange(0, 256, 0.125, dtype="float32").reshape(1, 1, 32, 64, 1)
    layer = Standardization(117.0, dtype=policy)

    y = layer(pixels)

    expected = ops.cast(pixels - 117, layer.compute_dtype)
    np.testing.assert_array_equal(double(y), double(expected))


def test_standardization_takes_bytes():
    y = Standardization(117.0)(np.array([[0, 117, 255]], "uint8"))

    np.testing.assert_array_equal(y, [[-117, 0, 138]])


def test_standardization_is_channel_by_channel_and_clips_first():
    x = numbers(2, 3, 4, 4, 3, scale=60)

    y = Standardization((1.0, 2.0, 3.0), [4.0, 5.0, 6.0], limit=50.0)(x)

    for channel in range(3):
        held = np.clip(x[..., channel], -50, 50)
        np.testing.assert_allclose(
            y[..., channel], (held - 1 - channel) / (4 + channel), rtol=1e-5
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"deviation": 0}, "`deviation` must not be 0.*deviation=0"),
        ({"deviation": (1.0, 0.0)}, r"`deviation`.*deviation=\[1\.0, 0\.0\]"),
        ({"limit": 0}, "`limit` must be more than 0.*limit=0"),
        ({"limit": -1.0}, r"`limit`.*limit=-1\.0"),
    ],
    ids=str,
)
def test_standardization_names_the_argument_that_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        Standardization(**arguments)


@pytest.mark.parametrize("argument", ["mean", "deviation"])
def test_standardization_wants_one_value_per_channel(argument):
    layer = Standardization(**{argument: (1.0, 2.0)})

    with pytest.raises(ValueError, match=f"`{argument}`.*for 3 channels"):
        layer(numbers(1, 2, 2, 2, 3))


@pytest.mark.parametrize(
    ("high", "wide", "top", "left"),
    [(178, 178, 44, 44), (20, 22, 5, 5), (7, 9, 2, 2), (2, 5, 0, 1)],
)
def test_fovea_is_the_middle_at_full_sharpness(high, wide, top, left):
    clip = numbers(1, 2, high, wide, 3)

    fovea = FoveaCrop()(clip)

    np.testing.assert_array_equal(
        fovea,
        clip[:, :, top : top + high // 2, left : left + wide // 2],
    )


@pytest.mark.parametrize(("high", "wide"), [(178, 178), (20, 22), (7, 9)])
def test_context_is_the_mean_of_two_by_two(high, wide):
    clip = numbers(2, 2, high, wide, 3)

    context = ContextHalf()(clip)

    expected = np.empty((2, 2, high // 2, wide // 2, 3))
    for row, column in np.ndindex(high // 2, wide // 2):
        square = clip[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        expected[:, :, row, column] = square.mean((2, 3))
    np.testing.assert_allclose(context, expected, atol=1e-6)


def test_context_passes_a_quarter_of_the_gradient_to_each_pixel():
    clip = numbers(1, 2, 5, 6, 1)
    pull = numbers(1, 2, 2, 3, 1, seed=1)

    slope = gradient(ContextHalf(), clip, pull)

    expected = np.zeros_like(clip)
    expected[:, :, :4] = pull.repeat(2, 2).repeat(2, 3) / 4
    np.testing.assert_allclose(slope, expected, atol=1e-7)


def test_fovea_passes_the_gradient_to_the_middle_alone():
    clip = numbers(1, 2, 5, 6, 1)
    pull = numbers(1, 2, 2, 3, 1, seed=1)

    slope = gradient(FoveaCrop(), clip, pull)

    expected = np.zeros_like(clip)
    expected[:, :, 1:3, 1:4] = pull
    np.testing.assert_array_equal(slope, expected)


# All of them

MAKERS = {
    "StackFrames": lambda **kw: StackFrames(3, 2, **kw),
    "Framewise": lambda **kw: Framewise(
        keras.layers.Conv2D(4, 3, 2, dtype=kw.get("dtype")), **kw
    ),
    "LocalResponseNormalization": lambda **kw: LocalResponseNormalization(
        1.0, 3, 1e-3, 0.75, **kw
    ),
    "Standardization": lambda **kw: Standardization(117.0, **kw),
    "StandardizationByChannel": lambda **kw: Standardization(
        (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), 20.0, **kw
    ),
    "FieldCentering": FieldCentering,
    "SelfGating": lambda **kw: SelfGating(
        True, keras.initializers.GlorotUniform(seed=1), **kw
    ),
    "GroupedConv2D": lambda **kw: Framewise(
        GroupedConv2D(6, 3, groups=3, dtype=kw.get("dtype")), **kw
    ),
    "FoveaCrop": FoveaCrop,
    "ContextHalf": ContextHalf,
}


@pytest.fixture(params=MAKERS, ids=str)
def make(request):
    return MAKERS[request.param]


def test_layers_come_back_from_their_config(make):
    layer = make(name="it")

    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(deepcopy(config))

    assert config["registered_name"].startswith("keras_videofusion>")
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    assert keras.saving.serialize_keras_object(again) == config


def test_layers_come_back_from_a_file(make, tmp_path):
    clip = numbers(2, 5, 9, 8, 3, scale=30)
    clips = keras.Input((5, 9, 8, 3))
    model = keras.Model(clips, make()(clips))

    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")

    assert again.count_params() == model.count_params()
    np.testing.assert_array_equal(again(clip), model(clip))


def test_layers_foretell_their_shape(make):
    layer = make()

    foretold = layer.compute_output_shape((2, 5, 9, 8, 3))

    assert tuple(foretold) == tuple(layer(numbers(2, 5, 9, 8, 3)).shape)


@pytest.mark.parametrize("policy", ["float32", *HALVES])
def test_layers_keep_to_the_policy(make, policy):
    layer = make(dtype=policy)
    x = keras.KerasTensor((2, 5, 9, 8, 3), layer.compute_dtype)

    symbolic = layer(x)
    concrete = layer(ops.cast(numbers(2, 5, 9, 8, 3), layer.compute_dtype))

    for y in (symbolic, concrete):
        assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype


def test_layers_learn_sizes_when_they_are_called(make):
    """Batch, height and width may be unknown when the graph is built."""
    clip = numbers(2, 5, 9, 8, 3)
    layer = make()
    layer(clip)
    spec = tf.TensorSpec((None, 5, None, None, 3))

    y = tf.function(layer, input_signature=[spec])(clip)

    np.testing.assert_allclose(y, layer(clip), atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        StackFrames(2),
        Framewise(keras.layers.MaxPooling2D()),
        FieldCentering(),
        FlowImage(),
        SelfGating(),
        FoveaCrop(),
        ContextHalf(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_of_clips_refuse_images(layer):
    with pytest.raises(ValueError, match=r"batch, time.*Received: shape"):
        layer(keras.KerasTensor((2, 8, 8, 3)))

"""Every network through every check: CHECKS x MODELS, and the catalogue.

Networks are built small: a tenth of the filters, on the smallest frames that
they take. `python tests/test_applications.py` writes the golden files anew.
"""

import functools
import inspect
import json
import math
import tempfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_videofusion import applications
from keras_videofusion.applications import MODELS
from keras_videofusion.layers import Framewise

EXPECTED = Path(__file__).parent / "expected"

every_network = pytest.mark.parametrize("name", MODELS)


def least(name):
    """Side of the smallest frame that a network takes."""
    return 20 if name.startswith(("multires", "fovea", "context")) else 22


def shape_of(name, height=0, width=0):
    time = MODELS[name].spec.time
    return (time, height or least(name), width or least(name) + 3, 3)


def small(name, **arguments):
    """The network at a tenth of its width, on its smallest frames."""
    shape = (
        {} if "input_tensor" in arguments else {"input_shape": shape_of(name)}
    )
    return MODELS[name].builder(
        **{"width": 0.1, "classes": 4, **shape, **arguments}
    )


def clips(name, count=4, **sizes):
    draw = np.random.default_rng(0)
    return draw.integers(0, 256, (count, *shape_of(name, **sizes)), "uint8")


def answer(model, clip):
    return ops.convert_to_numpy(ops.cast(model(clip), "float32"))


def spread(count, seed=0):
    """Numbers in 0..1 that no library's generator has a hand in."""
    mixed = (np.arange(count, dtype="uint64") + 77 * seed) * 2654435761
    return (mixed % 2**32) / 2**32


def fill(model):
    """Weights by a formula, so that answers can be kept in a file."""
    for seed, weight in enumerate(model.weights):
        even = spread(math.prod(weight.shape), seed) - 0.5
        fan_in = math.prod(weight.shape[:-1])
        deviation = math.sqrt(2 / fan_in) if len(weight.shape) > 1 else 0.1
        values = even * math.sqrt(12) * deviation
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
    y = answer(small(name), clips(name))

    assert y.shape == (4, 4)
    assert np.all(y >= 0)
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-5)


@every_network
def test_the_default_input_is_the_clip_that_the_network_states(name):
    builder, spec = MODELS[name]

    model = builder(width=0.01)

    assert model.name == name
    assert model.input.shape == (None, spec.time, *spec.size, 3)
    assert model.input.dtype == "float32"
    assert model.output.shape == (None, 487)
    assert model.layers[-1].name == "predictions"


@every_network
def test_any_larger_size_will_do(name):
    shape = shape_of(name, 47, 62)

    model = small(name, input_shape=shape)

    assert answer(model, clips(name, 1, height=47, width=62)).shape == (1, 4)


@every_network
def test_without_a_top_height_and_width_are_free(name):
    model = small(name, include_top=False, input_shape=None)

    assert model.input.shape[2:4] == (None, None)
    assert model.output.shape[2:4] == (None, None)
    for side in (least(name), 45):
        x = clips(name, 2, height=side, width=side + 4)
        y = answer(model, x)
        fixed = small(name, include_top=False, input_shape=x.shape[1:])
        assert y.shape == (2, *fixed.output.shape[1:])


@every_network
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_pooling_is_over_all_of_the_last_map(name, pooling):
    shape = shape_of(name, 47, 62)
    body = small(name, include_top=False, input_shape=shape)
    pooled = small(name, include_top=False, input_shape=shape, pooling=pooling)
    pooled.set_weights(body.get_weights())
    x = clips(name, 2, height=47, width=62)

    y = answer(pooled, x)

    over = {"avg": np.mean, "max": np.max}[pooling]
    expected = over(answer(body, x), axis=(1, 2, 3))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


@every_network
def test_width_scales_filters_and_units(name):
    model = small(name, width=0.25)

    filters = [
        layer.layer.filters
        for layer in model.layers
        if isinstance(layer, Framewise) and hasattr(layer, "kernel")
    ]
    streams = 2 if name.startswith("multires") else 1
    assert sorted(filters) == sorted([24, 64, 96, 96, 64] * streams)
    assert model.get_layer("fc6").units == model.get_layer("fc7").units == 1024
    assert min(w.shape[-1] for w in small(name, width=1e-9).weights) == 1


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
        "classes": 487,
        "name": name,
    }


@every_network
def test_own_arguments_are_equal_and_by_keyword_alone(name):
    first = next(iter(MODELS.values())).builder
    ours = inspect.signature(MODELS[name].builder).parameters

    own = list(ours.values())[8:]

    assert own == list(inspect.signature(first).parameters.values())[8:]
    assert all(argument.kind is argument.KEYWORD_ONLY for argument in own)


@every_network
def test_a_tensor_can_be_built_upon(name):
    plain = small(name)
    clip = keras.Input(shape_of(name))
    halved = layers.Rescaling(0.5)(clip)

    model = small(name, input_tensor=halved)

    model.set_weights(plain.get_weights())
    x = clips(name).astype("float32")
    assert model.inputs == [clip]
    np.testing.assert_allclose(
        answer(model, 2 * x), answer(plain, x), rtol=1e-4, atol=1e-6
    )


@every_network
def test_pixels_are_centred_unless_the_caller_does_it(name):
    own, bare = small(name), small(name, include_preprocessing=False)
    bare.set_weights(own.get_weights())
    x = clips(name).astype("float32")

    np.testing.assert_array_equal(answer(own, x), answer(bare, x - 117))


@every_network
def test_dropout_follows_fc6_and_fc7_in_training_alone(name):
    plain, model = small(name), small(name, dropout=0.5)
    model.set_weights(plain.get_weights())
    x = clips(name)

    names = [layer.name for layer in model.layers]
    assert names[names.index("fc6") + 1] == "fc6_dropout"
    assert names[names.index("fc7") + 1] == "fc7_dropout"
    np.testing.assert_array_equal(answer(model, x), answer(plain, x))
    dropped = ops.convert_to_numpy(model(x, training=True))
    assert not np.allclose(dropped, answer(plain, x))


@every_network
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
    ({"weights": "sports1m"}, ValueError, "`weights`.*weights='sports1m'"),
    ({"classes": 0}, ValueError, "`classes`.*classes=0"),
    ({"input_shape": (22, 22, 3)}, ValueError, "`input_shape`.*four integers"),
    ({"pooling": "mean"}, ValueError, "`pooling`.*pooling='mean'"),
    ({"width": 0}, ValueError, "`width`.*width=0"),
    ({"dropout": 1.0}, ValueError, r"`dropout`.*dropout=1\.0"),
]


@every_network
@pytest.mark.parametrize("first", range(len(WRONG)))
def test_the_first_wrong_argument_is_named(name, first):
    arguments = {}
    for wrong, _, _ in WRONG[first:]:
        arguments |= wrong
    _, kind, message = WRONG[first]

    with pytest.raises(kind, match=message):
        MODELS[name].builder(**arguments)


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


@every_network
def test_the_smallest_legal_size_is_named(name):
    time, _, width, channels = shape_of(name)
    side = least(name)

    with pytest.raises(ValueError, match=f"at least {side}x{side}"):
        small(name, input_shape=(time, side - 1, width, channels))


def test_unusual_channels_warn_and_work():
    with pytest.warns(
        UserWarning, match="expects 1 or 3 input channels"
    ) as log:
        model = small("slow_fusion", input_shape=(10, 22, 22, 4))

    assert model.output.shape == (None, 4)
    # The warning shows the line that asked, here that of `small`.
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


@pytest.mark.parametrize(
    "policy", ["mixed_bfloat16", "mixed_float16"], indirect=True
)
@every_network
def test_half_precision_gives_nearly_the_same(name, policy):
    mixed = fill(small(name, classifier_activation=None))
    keras.config.set_dtype_policy("float32")
    full = fill(small(name, classifier_activation=None))
    x = clips(name)

    y, exact = answer(mixed, x), answer(full, x)

    assert mixed.get_layer("fc6").compute_dtype == policy[len("mixed_") :]
    assert mixed.output.dtype == "float32"
    near = 0.04 if policy == "mixed_bfloat16" else 0.005
    np.testing.assert_allclose(y, exact, atol=near * np.abs(exact).max())


@every_network
def test_bytes_are_as_good_as_floats(name):
    model, x = small(name), clips(name)

    np.testing.assert_array_equal(
        answer(model, x), answer(model, x.astype("float32"))
    )


# Saving


@every_network
@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_a_file_of_weights_gives_the_same_scores(name, ending, tmp_path):
    model, x = small(name), clips(name)
    path = tmp_path / f"it{ending}"
    save = model.save if ending == ".keras" else model.save_weights
    save(path)

    again = small(name, weights=path, dropout=0.3)

    np.testing.assert_array_equal(answer(again, x), answer(model, x))


@every_network
def test_a_saved_model_gives_the_same_scores(name, tmp_path):
    model, x = small(name), clips(name)
    model.save(tmp_path / "it.keras")

    again = keras.saving.load_model(tmp_path / "it.keras")

    # By way of JSON, where tuples are lists.
    assert json.dumps(again.get_config()) == json.dumps(model.get_config())
    np.testing.assert_array_equal(answer(again, x), answer(model, x))


@every_network
def test_a_model_comes_back_from_its_config(name):
    model, x = small(name, dropout=0.5), clips(name)

    again = keras.Model.from_config(model.get_config())

    again.set_weights(model.get_weights())
    assert again.count_params() == model.count_params()
    np.testing.assert_array_equal(answer(again, x), answer(model, x))


@every_network
def test_the_body_loads_from_a_file_with_a_top(name, tmp_path):
    model = small(name)
    model.save_weights(tmp_path / "it.weights.h5")

    body = small(name, include_top=False, weights=tmp_path / "it.weights.h5")

    for ours, theirs in zip(body.weights, model.weights, strict=False):
        assert ours.path == theirs.path
        np.testing.assert_array_equal(ours, theirs)


@every_network
@pytest.mark.slow
def test_an_exported_network_gives_the_same_scores(name, tmp_path):
    model, x = small(name), clips(name)

    model.export(tmp_path / "it", verbose=False)

    again = tf.saved_model.load(tmp_path / "it")
    served = again.serve(x.astype("float32"))
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


@every_network
def test_one_step_changes_every_weight(name):
    model = compiled(small(name, classifier_activation="softmax"))
    model.run_eagerly = True
    before = model.get_weights()

    # No target is the network's own answer, so that each clip pulls.
    model.train_on_batch(clips(name), np.full((4, 4), 0.25, "float32"))

    changed = [
        not np.array_equal(old, new)
        for old, new in zip(before, model.get_weights(), strict=True)
    ]
    assert len(changed) == len(model.trainable_weights)
    assert all(changed)


@every_network
def test_four_clips_can_be_learned_by_heart(name):
    model = compiled(small(name))
    x, y = clips(name).astype("float32"), np.eye(4, dtype="float32")

    for _ in range(60):
        loss = model.train_on_batch(x, y)

    assert loss < 0.1
    assert np.array_equal(answer(model, x).argmax(1), np.arange(4))


@every_network
def test_freezing_freezes(name):
    model = small(name)
    for layer in model.layers[:-1]:
        layer.trainable = False
    compiled(model).run_eagerly = True
    before = model.get_weights()

    model.train_on_batch(clips(name), np.full((4, 4), 0.25, "float32"))

    assert [w.path for w in model.trainable_weights] == [
        "predictions/kernel",
        "predictions/bias",
    ]
    *frozen, kernel, bias = (
        np.array_equal(old, new)
        for old, new in zip(before, model.get_weights(), strict=True)
    )
    assert all(frozen)
    assert not kernel
    assert not bias


# Files written today, answers given today


def paths(model):
    """Where in a `.weights.h5` file each weight lies, by layer and name."""
    for number, weight in enumerate(model.weights):
        weight.assign(np.full(weight.shape, number))
    names = [weight.path for weight in model.weights]
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
    model = fill(small(name, width=0.05, classifier_activation=None))
    pixels = np.floor(256 * spread(2 * math.prod(shape_of(name)), 5))
    return answer(model, pixels.reshape(2, *shape_of(name)))


@functools.cache
def expected(file):
    return json.loads((EXPECTED / file).read_text(encoding="utf-8"))


@every_network
def test_weights_lie_where_they_always_lay(name):
    assert paths(small(name)) == expected("weight_paths.json")[name]


@every_network
def test_a_top_and_dropout_move_no_weight(name):
    whole = expected("weight_paths.json")[name]

    body = paths(small(name, include_top=False, include_preprocessing=False))

    assert paths(small(name, dropout=0.5)) == whole
    assert body.items() <= whole.items()


@every_network
def test_logits_are_what_they_always_were(name):
    y = logits(name)

    golden = np.array(expected("logits.json")[name])
    assert np.abs(golden).max() > 0.1
    np.testing.assert_allclose(y, golden, atol=1e-4 * np.abs(golden).max())


def write_expected():
    rows = {
        "weight_paths.json": {name: paths(small(name)) for name in MODELS},
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
        ValueError, match=r"`name`.*slow_fusion.*Received: name='s3d'"
    ):
        ask("s3d")


@pytest.mark.parametrize(
    ("name", "frames", "step", "size"),
    [
        ("single_frame", 1, 1, 170),
        ("early_fusion", 10, 1, 170),
        ("late_fusion", 2, 15, 170),
        ("slow_fusion", 10, 1, 170),
        ("multires_single_frame", 1, 1, 178),
        ("multires_early_fusion", 10, 1, 178),
        ("multires_late_fusion", 2, 15, 178),
        ("multires_slow_fusion", 10, 1, 178),
        ("fovea_single_frame", 1, 1, 178),
        ("context_single_frame", 1, 1, 178),
    ],
)
def test_networks_state_the_papers_clips(name, frames, step, size):
    """Sections 3.1 to 3.3."""
    spec = applications.clip_spec(name)

    assert (spec.frames, spec.step, spec.size) == (frames, step, (size, size))
    assert spec.resize == ("square", 200)
    assert spec.fps is None


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


@pytest.mark.parametrize("shape", [(487,), (2, 101), (1, 2, 487)])
def test_only_batches_over_sports1m_can_be_named(shape):
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
    for builder, _ in MODELS.values():
        assert getattr(applications, builder.__name__) is builder
        assert builder.__name__ in applications.__all__


if __name__ == "__main__":
    write_expected()

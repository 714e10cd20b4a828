"""What is copied, what learns, what drops, and at which rate."""

import dataclasses
import functools
import gc
import json

import keras
import numpy as np
import pytest
from narrow import SMALL, small

from keras_videofusion.applications import (
    MODELS,
    SlowFusion,
)
from keras_videofusion.training import transfer
from keras_videofusion.training.build import build, clip_of
from keras_videofusion.training.optimizer import (
    KrizhevskySGD,
    RatedAdam,
    RatedAdamW,
    RatedRMSprop,
)
from keras_videofusion.training.run import RunError


def modules(names, prefix=""):
    """Layers of modules, and of a top that stands over them."""
    branches = ("b0", "b1a", "b1b", "b2a", "b2b", "b3")
    return {
        f"{prefix}{name}_{branch}{end}"
        for name in names
        for branch in branches
        for end in ("", "_bn")
    }


FC = {"fc6", "fc7"}
FULL = {"full6", "full7"}
IN_TIME = {
    f"{name}_{branch}_t"
    for name in ("mixed_5b", "mixed_5c")
    for branch in ("b1b", "b2b")
}
GATES = {
    f"{name}_{branch}_g"
    for name in ("mixed_5b", "mixed_5c")
    for branch in ("b0", "b1b", "b2b", "b3")
}
LAST = modules(("mixed_5b", "mixed_5c"))


def towers(names):
    return {
        f"{stream}_tower/{name}" for stream in ("rgb", "flow") for name in names
    }


# The classifiers, and what learns beside them of the last three.
EXPECTED = {
    **{
        name: ({"predictions"}, FC)
        for name in MODELS
        if name.endswith(("fusion", "single_frame"))
    },
    "feature_mlp": ({"predictions"}, {"fc1", "fc2"}),
    "lrcn": ({"fc8"}, {"fc6", "lstm1"}),
    "lrcn_flow": ({"fc8"}, {"fc6", "lstm1"}),
    "inception_lstm": (
        {"predictions"},
        {"lstm1", "avg_pool_bn", *modules(["mixed_5c"])},
    ),
    "c3d": ({"predictions"}, FC),
    "spatial_stream": ({"predictions"}, FULL),
    "temporal_stream": ({"predictions"}, FULL),
    "two_stream": (towers(["predictions"]), towers(FULL)),
    "fused_two_stream": (
        {"predictions"},
        {
            "fuse_conv",
            "fuse_conv_bn",
            *modules(["mixed_5c"], "rgb_"),
            *modules(["mixed_5c"], "flow_"),
        },
    ),
    **{
        name: ({"logits"}, LAST)
        for name in (
            "i3d", "i3d_flow", "i2d", "bottom_heavy_i3d", "top_heavy_i3d",
        )
    },
    "two_stream_i3d": (towers(["logits"]), towers(LAST)),
    "s3d": ({"logits"}, LAST | IN_TIME),
    "s3dg": ({"logits"}, LAST | IN_TIME | GATES),
    "s3dg_flow": ({"logits"}, LAST | IN_TIME | GATES),
    "two_stream_s3dg": (
        towers(["logits"]),
        towers(LAST | IN_TIME | GATES),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_what_learns_of_every_network(name):
    gc.collect()
    model = small(name)
    top, more = EXPECTED[name]
    assert set(transfer.learning(model, "top")) == top
    assert set(transfer.learning(model, "top3")) == top | more
    every = {path for path, x in transfer.leaves(model) if x.weights}
    assert set(transfer.learning(model, "all")) == every
    transfer.freeze(model, "top3")
    free = [x for path, x in transfer.leaves(model) if path in top | more]
    assert len(model.trainable_variables) == sum(
        len(layer.trainable_variables) for layer in free
    )


def test_both_heads_of_fused_vgg_and_a_machine_over_scores():
    model = small("fused_two_stream", backbone="vgg16", apart=True)
    found = set(transfer.learning(model, "top3"))
    heads = {"fc6", "fc7", "fc8"}
    assert found == heads | {f"flow_{name}" for name in heads}
    # The machine reads scores of the same classes: one top with them.
    found = transfer.learning(small("two_stream", fusion="svm"), "top")
    assert set(found) == towers(["predictions"]) | {"predictions"}


def rates(model):
    return {
        path: layer.rate
        for path, layer in transfer.leaves(model)
        if isinstance(layer, keras.layers.Dropout)
    }


@pytest.mark.parametrize(
    ("name", "train", "rate", "expected"),
    [
        ("slow_fusion", "top", 0.9, {"predictions_drop": 0.9}),
        (
            "slow_fusion",
            "top3",
            0.9,
            {"fc6_drop": 0.9, "fc7_drop": 0.9, "predictions_drop": 0.9},
        ),
        # What stands there takes the rate; what is frozen drops nothing.
        ("c3d", "top", 0.9, {"fc6_dropout": 0.0, "fc7_dropout": 0.9}),
        ("c3d", "top", None, {"fc6_dropout": 0.0, "fc7_dropout": 0.5}),
        (
            "c3d",
            "all",
            0.9,
            {"fc6_drop": 0.9, "fc6_dropout": 0.9, "fc7_dropout": 0.9},
        ),
        (
            "two_stream",
            "top3",
            0.7,
            {
                f"{tower}/{layer}": 0.7
                for tower in ("rgb_tower", "flow_tower")
                for layer in ("full6_drop", "full6_dropout", "full7_dropout")
            },
        ),
        (
            "s3d",
            "top3",
            0.8,
            {"mixed_5b_drop": 0.8, "mixed_5c_drop": 0.8, "dropout": 0.8},
        ),
        ("lrcn", "top", 0.7, {"fc6_dropout": 0.0, "lstm1_dropout": 0.7}),
    ],
)
def test_dropout_stands_before_what_learns(name, train, rate, expected):
    model = small(name, **({"dropout": 0.5} if name == "s3d" else {}))
    made = transfer.regularized(model, train, rate)
    assert rates(made) == expected
    # Where nothing drops, the two are one network.
    before = dict(transfer.leaves(model))
    for path, layer in transfer.leaves(made):
        if layer.weights:
            for a, b in zip(
                before[path].get_weights(), layer.get_weights(), strict=True
            ):
                np.testing.assert_array_equal(a, b)
    clip = keras.tree.map_structure(
        lambda x: np.random.default_rng(0).uniform(0, 255, (2, *x.shape[1:])),
        model.input,
    )
    np.testing.assert_allclose(
        model.predict_on_batch(clip), made.predict_on_batch(clip), atol=1e-6
    )


@functools.cache
def _source():
    keras.utils.set_random_seed(3)
    return SlowFusion(width=0.02, classes=5, input_shape=(10, 40, 40, 3))


def target(classes=4, **changes):
    recipe = dataclasses.replace(SMALL, **changes)
    return build(recipe, clip_of(recipe), classes), recipe


def equal(model, other, names):
    return all(
        np.array_equal(a, b)
        for name in names
        for a, b in zip(
            model.get_layer(name).get_weights(),
            other.get_layer(name).get_weights(),
            strict=True,
        )
    )


BELOW = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_a_file_of_other_classes_brings_all_but_the_top(tmp_path, ending):
    source = _source()
    path = tmp_path / f"source{ending}"
    (source.save if ending == ".keras" else source.save_weights)(path)
    model, recipe = target(train="top")
    fresh = model.get_layer("predictions").get_weights()
    moved = transfer.begin(model, recipe, path, tuple("abcd"))
    assert moved.copied == BELOW
    assert moved.new == ("predictions",)
    assert equal(model, source, BELOW)
    for a, b in zip(
        fresh, model.get_layer("predictions").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    same, _ = target(5)
    moved = transfer.begin(same, recipe, path, tuple("abcde"))
    assert moved.new == ()
    assert equal(same, source, [*BELOW, "predictions"])


def test_classes_of_other_names_are_other_classes():
    model, _ = target(5)
    copied, new = transfer.copy(_source(), model, same=False)
    assert new == ("predictions",)
    assert not equal(model, _source(), ["predictions"])
    assert equal(model, _source(), copied)


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_what_does_not_fit_is_one_line_and_changes_nothing(tmp_path, ending):
    path = tmp_path / f"source{ending}"
    source = _source()
    (source.save if ending == ".keras" else source.save_weights)(path)
    model, recipe = target(size=80)
    with pytest.raises(ValueError, match="`weights` do not fit .*fc6.*--size"):
        transfer.begin(model, recipe, path, tuple("abcd"))


def test_weights_of_another_network_are_named():
    model = small("c3d")
    with pytest.raises(ValueError, match="another network than c3d: they lack"):
        transfer.copy(_source(), model)


def test_damaged_and_absent_weights(tmp_path):
    model, recipe = target()
    for name in ("bad.weights.h5", "bad.keras"):
        (tmp_path / name).write_bytes(b"no")
        with pytest.raises((ValueError, RunError), match=name):
            transfer.begin(model, recipe, tmp_path / name, tuple("abcd"))
    for name in ("none.keras", "none.weights.h5", "kinetics400"):
        with pytest.raises(ValueError, match="Nobody has published"):
            transfer.begin(model, recipe, name, tuple("abcd"))


@pytest.mark.parametrize(
    ("changes", "weights", "told"),
    [
        ({"train": "top"}, None, "train='top' needs weights"),
        ({"old_rate": 0.1}, None, "`old_rate` is for layers that came"),
        ({"train": "scratch"}, "x.keras", "train='scratch' takes no weights"),
    ],
)
def test_settings_that_need_weights_or_forbid_them(changes, weights, told):
    model, recipe = target()
    recipe = dataclasses.replace(recipe, **changes)
    with pytest.raises(ValueError, match=told):
        transfer.begin(model, recipe, weights, tuple("abcd"))


def test_a_source_without_a_top_needs_a_regime_that_learns_the_new_layers(
    monkeypatch,
):
    bare = SlowFusion(False, width=0.02, input_shape=(10, 40, 40, 3))
    monkeypatch.setattr(transfer, "_open", lambda source, recipe: (bare, ()))
    model, recipe = target()
    moved = transfer.begin(model, recipe, "any", tuple("abcd"))
    assert moved.new == ("fc6", "fc7", "predictions")
    recipe = dataclasses.replace(recipe, train="top")
    with pytest.raises(ValueError, match="have no fc6, fc7, which train='top'"):
        transfer.begin(model, recipe, "any", tuple("abcd"))


# Rates of their own for some variables.

SHARES = [1.0, 0.1]
GRADIENTS = np.random.default_rng(0).standard_normal((4, 2, 3, 2)).astype("f4")


def sgd(w, gradients, rate, share):
    speed = 0.0
    for g in gradients:
        speed = 0.9 * speed - 0.05 * rate * share * w - rate * share * g
        w = w + speed
    return w


def adam(w, gradients, rate, share, decay=0.05):
    m = v = 0.0
    for step, g in enumerate(gradients, 1):
        w = w - rate * share * decay * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        size = np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        w = w - rate * share * size * m / (np.sqrt(v) + 1e-7)
    return w


def rmsprop(w, gradients, rate, share, decay=0.05):
    v = 0.0
    for g in gradients:
        w = w - rate * share * decay * w
        v = 0.9 * v + 0.1 * g * g
        w = w - rate * share * g / np.sqrt(v + 1e-7)
    return w


RULES = {
    "sgd": (lambda **k: KrizhevskySGD(0.1, 0.9, 0.05, **k), sgd),
    "adam": (lambda **k: RatedAdam(0.1, weight_decay=0.05, **k), adam),
    "adamw": (lambda **k: RatedAdamW(0.1, weight_decay=0.05, **k), adam),
    "rmsprop": (lambda **k: RatedRMSprop(0.1, weight_decay=0.05, **k), rmsprop),
}


@pytest.mark.parametrize("accumulate", [None, 2])
@pytest.mark.parametrize("name", RULES)
def test_every_variable_takes_its_share_of_the_rate(name, accumulate):
    make, plain = RULES[name]
    rule = make(rates=SHARES, gradient_accumulation_steps=accumulate)
    weights = [keras.Variable(np.ones((3, 2), "f4")) for _ in SHARES]
    rule.build(weights)
    for pair in GRADIENTS:
        rule.apply([keras.ops.convert_to_tensor(g) for g in pair], weights)
    for place, share in enumerate(SHARES):
        gradients = GRADIENTS[:, place]
        if accumulate:
            gradients = gradients.reshape(-1, 2, 3, 2).mean(1)
        expected = plain(np.ones((3, 2)), gradients, 0.1, share)
        np.testing.assert_allclose(
            weights[place].numpy(), expected, rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("name", RULES)
def test_rates_survive_a_round_trip(name):
    rule = RULES[name][0](rates=SHARES)
    again = keras.optimizers.deserialize(
        json.loads(json.dumps(keras.optimizers.serialize(rule)))
    )
    assert type(again) is type(rule)
    assert again.get_config() == rule.get_config()
    assert again.rates == tuple(SHARES)


def test_rates_are_as_many_as_variables_and_not_negative():
    with pytest.raises(ValueError, match="`rates` must be 0 or more"):
        RatedAdam(rates=[-1.0])
    with pytest.raises(ValueError, match="`rates` must be as many as variab"):
        RatedAdam(rates=[1.0]).build([])

"""What is copied, what learns, what drops, and at which rate."""

import dataclasses
import functools
import gc
import json

import keras
import numpy as np
import pytest

from keras_videofusion.applications import get_model, MODELS, SlowFusion
from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.training import fit, transfer
from keras_videofusion.training.build import build, clip_of
from keras_videofusion.training.optimizer import (
    KrizhevskySGD,
    RatedAdam,
    RatedAdamW,
    RatedRMSprop,
)
from keras_videofusion.training.recipe import Recipe
from keras_videofusion.training.run import load_model, Run, RunError

SMALL = Recipe(
    width=0.02, size=40, batch=8, epochs=1, learning_rate=1e-3, dropout=0.5
)
QUIET = {"verbose": 0, "say": lambda line: None}


def small(name, **arguments):
    """A network as it is trained, narrow, of small clips."""
    entry = MODELS[name]
    spec = entry.spec
    if name == "feature_mlp":
        return get_model(name, input_shape=(9,), width=0.001, classes=3)
    side = 64 if name.startswith("lrcn") else 48
    long = any(word in name for word in ("i3d", "s3d", "i2d", "inception"))
    shapes = {
        stream: (8 if long else time, side, side, channels)
        for stream, (time, _, _, channels) in spec.shapes.items()
    }
    return get_model(
        name,
        width=0.02,
        classes=3,
        input_shape=shapes if len(shapes) > 1 else shapes[spec.streams[0]],
        **entry.training,
        **arguments,
    )


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


# Whole runs.


@pytest.fixture(scope="module")
def catalog(shapes_folder):
    return fit.split(open_catalog(shapes_folder))


@pytest.fixture(scope="module")
def other(catalog):
    """The same videos, of two classes."""
    classes = {
        name: ("along", "across")[i % 2]
        for i, name in enumerate(catalog.classes)
    }
    videos = tuple(
        dataclasses.replace(v, labels=tuple(classes[x] for x in v.labels))
        for v in catalog
    )
    return dataclasses.replace(
        catalog, videos=videos, classes=("across", "along")
    )


@pytest.fixture(scope="module")
def before(catalog, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer") / "before"
    return fit.train(SMALL, catalog, folder, **QUIET)


@pytest.mark.parametrize("train", ["top", "top3", "all"])
def test_a_run_of_every_regime_is_an_ordinary_one(
    before, other, tmp_path, train
):
    said = []
    recipe = dataclasses.replace(
        SMALL, train=train, top_dropout=0.9, weight_decay=0.1
    )
    run = fit.train(
        recipe, other, tmp_path, weights=before.folder, verbose=0,
        say=said.append,
    )  # fmt: skip
    model = run.model()
    source = before.model()
    moving = {
        "top": {"predictions"}, "top3": {"fc6", "fc7", "predictions"}
    }.get(train, {*BELOW, "predictions"})  # fmt: skip
    for name in BELOW:
        assert equal(model, source, [name]) == (name not in moving)
    told = run.settings["transfer"]
    assert told["new"] == ["predictions"]
    assert tuple(told["copied"]) == BELOW
    line = next(line for line in said if "copied" in line)
    assert "7 layers copied, predictions new" in line
    assert all(layer.trainable for layer in model.layers)
    assert model.predict_on_batch(np.zeros((1, 10, 40, 40, 3))).shape == (1, 2)


def test_frozen_averages_stay_and_frozen_dropout_drops_nothing():
    model = small("c3d", style="quo_vadis", dropout=0.9)
    model = transfer.regularized(model, "top", 0.0)
    transfer.freeze(model, "top")
    model.compile(KrizhevskySGD(0.1, decay=0.5), "categorical_crossentropy")
    kept = [
        w
        for x in model.layers
        if x.name != "predictions"
        for w in x.get_weights()
    ]
    clips = np.random.default_rng(0).uniform(
        0, 255, (4, *model.input_shape[1:])
    )
    labels = np.eye(3)[[0, 1, 2, 0]]
    first = model.evaluate(clips, labels, batch_size=4, verbose=0)
    # Nothing drops and no batch is averaged: training sees the same loss.
    seen = model.train_on_batch(clips, labels)
    assert float(seen) == pytest.approx(first, rel=1e-5)
    now = [
        w
        for x in model.layers
        if x.name != "predictions"
        for w in x.get_weights()
    ]
    for a, b in zip(kept, now, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_old_layers_move_by_their_share(before, other, tmp_path, precision):
    """One step of plain SGD: a tenth of the rate is a tenth of the way."""
    found = []
    for share in (1.0, 0.1):
        recipe = dataclasses.replace(
            SMALL, momentum=0.0, weight_decay=0.0, batch=16, old_rate=share,
            dropout=None, precision=precision, plateau_patience=0,
            learning_rate=1e-2,
        )  # fmt: skip
        run = fit.train(
            recipe, other, tmp_path / str(share), weights=before.folder, **QUIET
        )
        found.append(run.model())
    source = before.model()

    def way(model, name):
        return (
            model.get_layer(name).get_weights()[0]
            - source.get_layer(name).get_weights()[0]
        )

    for name in ("fc7", "conv5"):
        whole, tenth = way(found[0], name), way(found[1], name)
        assert np.abs(whole).max() > 0
        np.testing.assert_allclose(
            tenth, 0.1 * whole, rtol=0.05, atol=np.abs(whole).max() * 1e-3
        )
    assert equal(found[0], found[1], ["predictions"])


def test_a_stopped_run_with_rates_goes_on_to_the_same_bits(
    before, other, tmp_path
):
    recipe = dataclasses.replace(
        SMALL, epochs=2, optimizer="adamw", weight_decay=0.01, old_rate=0.1,
        train="top3", top_dropout=0.5, clip_norm=1.0, accumulate=2,
    )  # fmt: skip
    given = {"checkpoint_steps": 1, **QUIET}

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            if self.epoch == 1:
                raise KeyboardInterrupt

    whole = fit.train(
        recipe, other, tmp_path / "whole", weights=before.folder, **given
    )
    with pytest.raises(KeyboardInterrupt):
        fit.train(
            recipe, other, tmp_path / "cut", weights=before.folder,
            callbacks=[Stop()], **given,
        )  # fmt: skip
    # The source is not asked for again.
    cut = fit.train(recipe, other, tmp_path / "cut", resume=True, **given)
    for a, b in zip(
        whole.model().get_weights(), cut.model().get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_recipe_of_before_still_loads(before, tmp_path):
    settings = before.settings
    for name in ("train", "old_rate", "top_dropout", "cache_activations"):
        del settings["recipe"][name]
    del settings["transfer"]
    (tmp_path / "recipe.json").write_text(json.dumps(settings))
    assert Run(tmp_path).recipe == before.recipe


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": "half"}, "`train` must be one of all, top"),
        ({"top_dropout": 1.0}, "`top_dropout` must be in"),
        ({"old_rate": -1.0}, "`old_rate` must be 0 or more"),
        ({"cache_activations": 4}, "`cache_activations` must be 0, but"),
        (
            {"cache_activations": 4, "train": "top", "mixup": 0.2},
            "`cache_activations` must be 0, but",
        ),
    ],
)
def test_recipes_out_of_range(changes, told):
    with pytest.raises(ValueError, match=told):
        Recipe(**changes)


def test_the_kept_network_is_read_without_the_package_of_training(
    before, other, tmp_path
):
    recipe = dataclasses.replace(SMALL, train="top3", top_dropout=0.9)
    run = fit.train(recipe, other, tmp_path, weights=before.folder, **QUIET)
    model = load_model(run.path("model.keras"))
    assert rates(model) == {
        "fc6_drop": 0.9, "fc6_dropout": 0.9, "fc7_dropout": 0.9
    }  # fmt: skip

"""From a recipe to a compiled model: what each field of it does."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_videofusion.applications import clip_spec
from keras_videofusion.data.catalog import Catalog, open_catalog, Video
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.evaluation.protocol import logits_model
from keras_videofusion.evaluation.scores import probabilities
from keras_videofusion.training import build, fit
from keras_videofusion.training.callbacks import TrainingError
from keras_videofusion.training.recipe import Recipe

SMALL = Recipe(
    model="slow_fusion", width=0.02, size=40, batch=4, epochs=1, momentum=0.5
)


def quiet(line):
    """Where a test does not look at what is said."""


@pytest.fixture(scope="module")
def catalog(shapes_folder):
    return fit.split(open_catalog(shapes_folder))


def test_accumulated_steps_are_steps_of_larger_batches(catalog, tmp_path):
    """Sixteen clips in two steps of eight, and in four of which two move."""
    weights = []
    for name, batch, accumulate in (("whole", 8, 1), ("halves", 4, 2)):
        recipe = dataclasses.replace(
            SMALL, batch=batch, accumulate=accumulate, learning_rate=1e-2
        )
        run = fit.train(recipe, catalog, tmp_path / name, verbose=0, say=quiet)
        assert len(run.catalog().where("train")) == 16
        weights.append(run.model().get_weights())
    start = build.build(recipe, run.spec, 4).get_weights()
    moved = max(
        np.abs(a - b).max() for a, b in zip(start, weights[0], strict=True)
    )
    assert moved > 1e-4
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3 * moved)


def rows(labels):
    return Catalog(
        tuple(
            Video(f"{number}.mp4", tuple(names.split(";")))
            for number, names in enumerate(labels)
        ),
        ("a", "b", "unseen"),
        ".",
    )


def test_rare_classes_weigh_more():
    catalog = rows(["a"] * 6 + ["b"] * 2)
    weights = build.class_weights(Recipe(balance="loss"), catalog)
    # Four videos a class on the mean; both classes count alike in the sum.
    assert weights[:2] == [4 / 6, 2.0]
    assert weights[0] * 6 == weights[1] * 2
    given = Recipe(balance="loss", class_weights={"b": 3.0})
    assert build.class_weights(given, catalog)[1] == 6.0
    alone = Recipe(class_weights={"b": 3.0})
    assert build.class_weights(alone, catalog) == [1.0, 3.0, 1.0]
    assert build.class_weights(Recipe(), catalog) is None


def test_a_weight_of_no_class_is_refused():
    with pytest.raises(ValueError, match=r"a, b, unseen. Received: c"):
        build.class_weights(Recipe(class_weights={"c": 1.0}), rows(["a", "b"]))


def test_weights_of_classes_reach_the_loss(catalog, tmp_path):
    """With three of four classes weighing nothing the loss is a fourth."""
    losses = []
    for name, weights in (
        ("alike", {}),
        ("one", {"up": 0.0, "down": 0.0, "still": 0.0}),
    ):
        recipe = dataclasses.replace(
            SMALL, learning_rate=1e-9, class_weights=weights
        )
        run = fit.train(recipe, catalog, tmp_path / name, verbose=0, say=quiet)
        losses.append(run.state["history"][0]["loss"])
    assert losses[1] == pytest.approx(losses[0] / 4, rel=0.3)


def test_several_labels_are_learned_as_an_even_share(shapes_folder, tmp_path):
    """Section 1.6: cross-entropy against a uniform target."""
    shapes = open_catalog(shapes_folder)
    videos = [
        dataclasses.replace(video, labels=(*video.labels, "moves"))
        if "still" not in video.labels
        else video
        for video in shapes
    ]
    classes = (*shapes.classes, "moves")
    catalog = fit.split(Catalog(tuple(videos), classes, shapes.root))
    recipe = dataclasses.replace(
        SMALL, optimizer="adam", learning_rate=3e-3, epochs=12
    )
    run = fit.train(recipe, catalog, tmp_path, verbose=0, say=quiet)
    first, last = run.state["history"][0], run.state["history"][-1]
    # Who answers how often each class is true has this loss, and less cannot
    # be had than ln 2 for the three videos of four that have two classes.
    shares = np.array([1, 1, 1, 2, 3]) / 8
    assert first["loss"] == pytest.approx(np.log(5), abs=0.05)
    assert last["loss"] == pytest.approx(-shares @ np.log(shares), abs=0.05)
    assert last["loss"] > 0.75 * np.log(2)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("lrcn", {}),
        ("two_stream", {}),
        ("fused_two_stream", {"backbone": "vgg16", "apart": True}),
    ],
)
def test_every_network_learns_several_labels_each_by_itself(model, options):
    """In parts too; what is kept says each class's own probability."""
    recipe = Recipe(
        model=model,
        activation="sigmoid",
        width=0.05,
        options=options,
        label_smoothing=0.1,
        class_weights={"a": 3.0},
    )
    shapes = {
        name: (shape[0], 64, 64, shape[3])
        for name, shape in clip_spec(model).shapes.items()
    }
    spec = build.clip_of(dataclasses.replace(recipe, size=64))
    draw = np.random.default_rng(0)
    x = {k: draw.normal(100, 30, (2, *v)) for k, v in shapes.items()}
    x = x if len(x) > 1 else next(iter(x.values()))
    catalog = Catalog(
        (Video("1", ("a", "c")), Video("2", ("b",))), tuple("abc"), ""
    )
    trained = build.build(recipe, spec, 3, training=True)
    build.compiled(trained, recipe, catalog)
    kept = build.build(
        dataclasses.replace(
            recipe, options={**options, "apart": False} if options else {}
        ),
        spec,
        3,
    )
    kept.set_weights(trained.get_weights())
    truth = catalog.truth.astype("float32")
    # Compiling costs more than what it saves.
    trained.run_eagerly = kept.run_eagerly = True

    loss = trained.evaluate(x, truth, verbose=0, return_dict=True)["loss"]
    logits, activation = logits_model(kept)

    scores = trained.predict(x, verbose=0)
    parts = scores if scores.ndim == 3 else scores[:, None]
    soft = 0.9 * truth[:, None] + 0.05
    terms = -soft * np.log(parts) - (1 - soft) * np.log(1 - parts)
    np.testing.assert_allclose(loss, (terms * [3, 1, 1]).mean(), rtol=1e-4)
    assert activation == "sigmoid"
    np.testing.assert_allclose(
        probabilities(np.asarray(logits(x)), activation),
        kept.predict(x, verbose=0),
        atol=1e-6,
    )


def test_xla_trains(catalog, tmp_path):
    recipe = dataclasses.replace(SMALL, model="single_frame", jit_compile=True)
    run = fit.train(recipe, catalog, tmp_path, verbose=0, say=quiet)
    assert np.isfinite(run.state["history"][0]["loss"])


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"),
        MemoryError(),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying"),
    ],
    ids=["tensorflow", "python", "xla"],
)
def test_too_little_memory_ends_with_sizes_and_advice(
    catalog, tmp_path, monkeypatch, error
):
    def full(*arguments, **more):
        raise error

    monkeypatch.setattr(keras.Model, "fit", full)
    told = (
        r"^out of memory\. At the least it takes the weights \d+ MiB, .*"
        r"4 clips \d+ MiB, .*Pass --batch 2 --accumulate 2 .*"
        r"--precision mixed_bfloat16, or a smaller --size or --width$"
    )
    with pytest.raises(TrainingError, match=told):
        fit.train(SMALL, catalog, tmp_path, verbose=0, say=quiet)


def test_the_sizes_of_what_takes_memory():
    """Slow fusion at full size: 75,511,751 weights, SGD's momenta as many."""
    recipe = Recipe(batch=8)
    spec = build.clip_of(recipe)
    model = build.build(recipe, spec, 487)
    build.compiled(
        model,
        recipe,
        rows(["a", "b"]).with_classes(
            [str(n) for n in range(485)] + ["a", "b"]
        ),
    )
    model.optimizer.build(model.trainable_variables)
    line = fit.no_room(recipe, model, spec)
    assert "the weights 288 MiB, their gradients 288 MiB" in line
    assert "the optimizer 288 MiB, 8 clips 7 MiB" in line


def test_another_error_is_not_taken_for_memory(catalog, tmp_path, monkeypatch):
    def broken(*arguments, **more):
        raise RuntimeError("something else")

    monkeypatch.setattr(keras.Model, "fit", broken)
    with pytest.raises(RuntimeError, match="something else"):
        fit.train(SMALL, catalog, tmp_path, verbose=0, say=quiet)


def test_the_clip_keeps_what_the_recipe_leaves_alone():
    assert build.clip_of(Recipe()) == ClipSpec(
        10, resize=("square", 200), size=170
    )

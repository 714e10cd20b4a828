"""What a layer answers to videos, written as vectors."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest

from keras_videofusion import cli
from keras_videofusion.applications import (
    get_model,
    I3D,
    MODELS,
    SlowFusion,
    TwoStream,
)
from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.pipeline import training_clips
from keras_videofusion.data.prepare import prepare
from keras_videofusion.data.vectors import read_vectors, VectorSpec
from keras_videofusion.evaluation import protocol
from keras_videofusion.training import fit
from keras_videofusion.training.activations import layer_model, write_features
from keras_videofusion.training.recipe import Recipe
from keras_videofusion.training.run import Opened, RunError

SPEC = ClipSpec(10, size=(40, 40), resize=("square", 47))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return SlowFusion(width=0.02, classes=4, input_shape=(10, 40, 40, 3))


@pytest.fixture(scope="module")
def catalog(shapes_folder):
    return open_catalog(shapes_folder)


@pytest.fixture(scope="module")
def opened(model, catalog):
    return Opened(model, SPEC, catalog.classes)


def test_vectors_are_what_the_classifier_scores(
    opened, model, catalog, tmp_path
):
    """The protocol's own clips: the top upon them gives its logits."""
    few = dataclasses.replace(catalog, videos=catalog.videos[:5])
    given = {"clips": 3, "passes": 1, "batch": 4, "seed": 2}
    found = write_features(opened, few, tmp_path, per="clip", **given)
    assert (found.each, found.size, found.kind) == (3, 82, "features")
    scores, _ = protocol.score(model, few, SPEC, **given)
    kernel, bias = model.get_layer("predictions").get_weights()
    rows = np.concatenate([found.rows(place) for place in range(5)])
    np.testing.assert_allclose(
        rows @ kernel + bias, scores.clip_logits, rtol=1e-4, atol=1e-5
    )
    assert found.settings["clip"] == json.loads(json.dumps(SPEC.to_json()))


def test_a_video_is_the_mean_of_its_clips_and_passes(opened, catalog, tmp_path):
    few = dataclasses.replace(catalog, videos=catalog.videos[:3])
    given = {"clips": 2, "passes": 4, "layer": "fc6"}
    clips = write_features(opened, few, tmp_path / "c", per="clip", **given)
    videos = write_features(opened, few, tmp_path / "v", **given)
    assert (clips.each, videos.each) == (2, 1)
    for place in range(3):
        np.testing.assert_allclose(
            clips.rows(place).mean(0), videos.rows(place)[0], rtol=1e-5
        )


def test_maps_are_averaged_over_space_and_time(model):
    clip = np.random.default_rng(0).uniform(0, 255, (2, 10, 40, 40, 3))
    inner = keras.Model(model.input, model.get_layer("conv2").output)
    whole = inner.predict_on_batch(clip)
    assert whole.ndim == 5
    np.testing.assert_allclose(
        layer_model(model, "conv2").predict_on_batch(clip),
        whole.mean(axis=(1, 2, 3)),
        rtol=1e-4,
    )
    wide = I3D(width=0.02, classes=3, input_shape=(16, 32, 32, 3))
    assert layer_model(wide).output_shape == (None, 22)


def test_layers_of_nested_networks_have_paths():
    shapes = {"rgb": (1, 48, 48, 3), "flow": (10, 48, 48, 2)}
    both = TwoStream(width=0.02, classes=3, input_shape=shapes)
    draws = np.random.default_rng(0)
    clip = {name: draws.uniform(0, 9, (2, *x)) for name, x in shapes.items()}
    tower = both.get_layer("flow_tower")
    alone = keras.Model(tower.input, tower.get_layer("full6").output)
    np.testing.assert_allclose(
        layer_model(both, "flow_tower/full6").predict_on_batch(clip),
        alone.predict_on_batch(clip["flow"]),
        rtol=1e-5,
    )
    # Both classifiers' inputs, side by side.
    seen = layer_model(both).predict_on_batch(clip)
    parts = [
        layer_model(both, f"{name}_tower/full7").predict_on_batch(clip)
        for name in ("rgb", "flow")
    ]
    np.testing.assert_allclose(seen, np.concatenate(parts, 1), rtol=1e-5)


def test_an_unknown_layer_is_told_with_those_like_it(model):
    with pytest.raises(ValueError, match="such as fc7 or fc6: there are clip"):
        layer_model(model, "fc8")


def test_broken_videos_are_named_and_left_out(opened, shapes_folder, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(shapes_folder, data)
    catalog = open_catalog(data)
    few = dataclasses.replace(catalog, videos=catalog.videos[:4])
    for place in (0, 2):
        (data / few[place].path).write_bytes(b"no video")
    given = {"clips": 1, "passes": 1}
    found = write_features(opened, few, tmp_path / "out", **given)
    assert [v.path for v in found.catalog] == [few[1].path, few[3].path]
    assert [row["path"] for row in found.skipped] == [few[0].path, few[2].path]
    whole = write_features(
        opened, dataclasses.replace(few, videos=(few[3],)),
        tmp_path / "one", **given,
    )  # fmt: skip
    np.testing.assert_allclose(found.rows(1), whole.rows(0), rtol=1e-5)
    for place in (1, 3):
        (data / few[place].path).write_bytes(b"no video")
    with pytest.raises(ValueError, match="no video of"):
        write_features(opened, few, tmp_path / "none", **given)
    assert read_vectors(tmp_path / "none") is None


def test_shards_give_vectors_in_the_catalogs_order(opened, catalog, tmp_path):
    few = dataclasses.replace(catalog, videos=catalog.videos[::4])
    prepare(few, tmp_path / "shards", SPEC, clips=2)
    stored = open_catalog(tmp_path / "shards")
    rows = list(
        protocol.features(
            layer_model(opened.model), stored, SPEC, clips=3, passes=1
        )
    )
    assert [x.shape for x in rows] == [(3, 82)] * len(stored)
    for place, found in enumerate(rows):
        # Where two are stored, the first comes again.
        np.testing.assert_array_equal(found[0], found[2])
        one = dataclasses.replace(stored, videos=(stored[place],))
        (again,) = protocol.features(
            layer_model(opened.model), one, SPEC, clips=3, passes=1
        )
        np.testing.assert_allclose(found, again, rtol=1e-4, atol=1e-6)


def test_a_network_of_vectors_has_no_clips(tmp_path):
    mlp = get_model("feature_mlp", input_shape=(9,), width=0.01, classes=3)
    spec = MODELS["feature_mlp"].spec
    assert isinstance(spec, VectorSpec)
    with pytest.raises(ValueError, match="must be a network of clips"):
        write_features(Opened(mlp, spec, ("a", "b", "c")), None, tmp_path)


def test_a_file_knows_no_rows_of_its_own(opened, tmp_path):
    with pytest.raises(RunError, match="DATA is needed"):
        write_features(opened, None, tmp_path)


def call(*words):
    return cli.run(cli.parse([str(word) for word in words]))


def test_the_verb_writes_what_feature_mlp_trains_on(
    catalog, shapes_folder, tmp_path, capsys
):
    recipe = Recipe(width=0.02, size=40, batch=8, epochs=1)
    run = fit.train(
        recipe, fit.split(catalog), tmp_path / "run", verbose=0,
        say=lambda line: None,
    )  # fmt: skip
    # The run's rows, by DATA that tells no split, have the run's.
    bare = tmp_path / "bare.csv"
    dataclasses.replace(
        catalog,
        videos=tuple(
            dataclasses.replace(
                v, split=None, path=str((shapes_folder / v.path).resolve())
            )
            for v in catalog
        ),
    ).save(bare)
    words = ("--layer", "fc7", "--clips", 2, "--passes", 1)
    assert call("features", run.folder, bare, tmp_path / "f", *words) == 0
    assert "82 numbers, per video: 1" in capsys.readouterr().out
    found = read_vectors(tmp_path / "f")
    assert [v.split for v in found.catalog] == [v.split for v in run.catalog()]
    assert call("features", run.folder, tmp_path / "own", *words) == 0
    own = read_vectors(tmp_path / "own")
    assert [v.split for v in own.catalog] == [v.split for v in run.catalog()]
    assert call("features", run.folder, tmp_path / "own", *words) == 1
    assert "--overwrite" in capsys.readouterr().err
    (clips, labels) = next(
        iter(training_clips(own.catalog.where("train"), own.spec, 4))
    )
    assert clips.shape == (4, 82)
    assert labels.shape == (4, 4)
    assert (
        call(
            "train", tmp_path / "own", "--model", "feature_mlp", "--run",
            tmp_path / "mlp", "--epochs", 1, "--width", 0.01,
            "--option", "scale=null",
        )
        == 0
    )  # fmt: skip
    assert call("evaluate", tmp_path / "mlp") == 0

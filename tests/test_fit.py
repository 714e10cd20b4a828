"""Training: the run's folder, exact resume, splits, and failures."""

import csv
import dataclasses
import io
import json
import math
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_videofusion.applications import get_model
from keras_videofusion.data.catalog import Catalog, open_catalog, Video
from keras_videofusion.data.flow import open_flow
from keras_videofusion.training import build, fit
from keras_videofusion.training.callbacks import TrainingError
from keras_videofusion.training.evaluate import evaluate, flow_of, rows_of
from keras_videofusion.training.recipe import Recipe
from keras_videofusion.training.run import open_model, Run, RunError

SMALL = Recipe(
    model="slow_fusion",
    width=0.02,
    size=40,
    batch=5,
    epochs=2,
    learning_rate=1e-4,
)


def quiet(line):
    """Where a test does not look at what is said."""


@pytest.fixture
def catalog(shapes):
    return fit.split(shapes)


@pytest.fixture(scope="module")
def trained(shapes_folder, tmp_path_factory):
    """A run of two epochs; read only."""
    run = tmp_path_factory.mktemp("runs") / "run"
    catalog = fit.split(open_catalog(shapes_folder))
    return fit.train(SMALL, catalog, run, verbose=0, say=quiet)


def history(run):
    with open(run.path("history.csv"), newline="") as file:
        return list(csv.DictReader(file))


def weights(run):
    return [np.asarray(w) for w in Run(run).model().get_weights()]


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_folder_holds_what_the_contract_lists(trained):
    names = {place.name for place in trained.folder.iterdir()}
    assert names == {
        "recipe.json",
        "catalog.csv",
        "classes.txt",
        "checkpoints",
        "model.keras",
        "history.csv",
        "tensorboard",
        "environment.json",
    }
    rows = history(trained)
    assert next(iter(rows[0])) == "epoch"
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"loss", "hit_at_1", "val_loss", "clips_per_second"} <= set(rows[0])
    told = json.loads(trained.path("environment.json").read_text())
    assert {"command", "seed", "keras", "tensorflow"} <= set(told)
    assert trained.recipe == SMALL
    assert list(trained.path("tensorboard").rglob("events.out*"))


def test_model_keras_holds_no_optimizer(trained):
    with zipfile.ZipFile(trained.path("model.keras")) as archive:
        config = json.loads(archive.read("config.json"))
        assert not config.get("compile_config")
        data = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(data) as file:
        assert not file.get("optimizer")


def test_the_best_epoch_by_validation_is_kept(catalog, tmp_path):
    run = fit.train(
        dataclasses.replace(SMALL, epochs=3, learning_rate=1e-3),
        catalog,
        tmp_path / "run",
        verbose=0,
        say=quiet,
    )
    rows = history(run)
    best = min(float(row["val_loss"]) for row in rows)
    from keras_videofusion.data.pipeline import validation_clips

    model = run.model()
    model.compile(loss="categorical_crossentropy")
    watched = validation_clips(catalog.where("validation"), run.spec, 5)
    assert model.evaluate(watched, verbose=0) == pytest.approx(best, rel=1e-4)
    assert run.state["best"] == pytest.approx(best)


def test_two_runs_of_one_seed_are_equal_to_the_bit(catalog, trained, tmp_path):
    again = fit.train(SMALL, catalog, tmp_path / "again", verbose=0, say=quiet)
    assert same(weights(trained.folder), weights(again.folder))
    other = fit.train(
        dataclasses.replace(SMALL, seed=1),
        catalog,
        tmp_path / "other",
        verbose=0,
        say=quiet,
    )
    assert not same(weights(trained.folder), weights(other.folder))


def test_resume_changes_nothing_in_a_finished_run(trained, catalog):
    before = {
        p: p.stat().st_mtime_ns
        for p in trained.folder.rglob("*")
        if p.is_file()
    }
    lines = []
    fit.train(SMALL, catalog, trained.folder, resume=True, say=lines.append)
    assert "finished" in lines[0]
    assert before == {
        p: p.stat().st_mtime_ns
        for p in trained.folder.rglob("*")
        if p.is_file()
    }


def test_resume_with_another_recipe_is_refused(trained, catalog):
    other = dataclasses.replace(SMALL, width=0.5)
    with pytest.raises(RunError, match=r"width=0.5 \(was 0.02\)"):
        fit.train(other, catalog, trained.folder, resume=True, say=quiet)


def test_a_run_is_not_overwritten_unasked(trained, catalog):
    with pytest.raises(RunError, match="holds a run already"):
        fit.train(SMALL, catalog, trained.folder, say=quiet)


def test_a_strangers_folder_is_left_alone(catalog, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(RunError, match="is not empty and holds no run"):
            fit.train(SMALL, catalog, tmp_path, overwrite=overwrite, say=quiet)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_loss_that_is_no_number_ends_with_advice(catalog, tmp_path):
    wild = dataclasses.replace(SMALL, learning_rate=1e9)
    with pytest.raises(TrainingError, match="--learning-rate"):
        fit.train(wild, catalog, tmp_path / "run", verbose=0, say=quiet)


def test_broken_videos_are_named_and_do_not_end_the_run(
    shapes_folder, tmp_path
):
    folder = tmp_path / "data"
    shutil.copytree(shapes_folder, folder)
    broken = sorted(folder.rglob("*.mp4"))[0]
    broken.write_text("no video")
    catalog = fit.split(open_catalog(folder))
    lines = []
    recipe = dataclasses.replace(SMALL, epochs=1)
    fit.train(recipe, catalog, tmp_path / "r", verbose=0, say=lines.append)
    assert any(str(broken) in line for line in lines)
    assert lines[-1] == "1 broken videos were skipped."
    with pytest.raises(TrainingError, match=broken.name):
        fit.train(
            recipe,
            catalog,
            tmp_path / "r2",
            on_error="raise",
            verbose=0,
            say=quiet,
        )


def test_training_starts_from_given_weights(trained, catalog, tmp_path):
    start = trained.path("model.keras")
    still = dataclasses.replace(
        SMALL, epochs=1, learning_rate=1e-12, weight_decay=0.0
    )
    run = fit.train(
        still, catalog, tmp_path / "r", weights=start, verbose=0, say=quiet
    )
    for a, b in zip(weights(trained.folder), weights(run.folder), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_training_without_training_rows_is_refused(shapes, tmp_path):
    with pytest.raises(ValueError, match="no rows to train on"):
        fit.train(SMALL, shapes.where("test"), tmp_path / "r", say=quiet)


def test_one_class_is_refused(tmp_path):
    alone = grouped(classes=("a",))
    with pytest.raises(ValueError, match="two classes or more"):
        fit.train(SMALL, fit.split(alone), tmp_path / "r", say=quiet)


def test_a_folder_without_a_run_is_no_model(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        open_model(tmp_path)


def test_adam_and_smoothing_and_clipping_train(catalog, tmp_path):
    recipe = dataclasses.replace(
        SMALL, optimizer="adam", label_smoothing=0.1, clip_norm=1.0, epochs=1
    )
    run = fit.train(recipe, catalog, tmp_path / "r", verbose=0, say=quiet)
    assert run.path("model.keras").is_file()


def test_half_precision_trains_and_is_loaded_again(catalog, tmp_path):
    recipe = dataclasses.replace(SMALL, precision="mixed_bfloat16", epochs=1)
    run = fit.train(recipe, catalog, tmp_path / "r", verbose=0, say=quiet)
    assert keras.config.dtype_policy().name == "float32"
    assert run.model().get_layer("conv1").compute_dtype == "bfloat16"


# Splits


def grouped(count=20, per_group=3, classes=("a", "b")):
    videos = tuple(
        Video(f"{label}/{g}_{i}.mp4", (label,), group=f"g{g}")
        for g in range(count)
        for label in classes
        for i in range(per_group)
    )
    return Catalog(videos, classes, "root")


def test_a_split_has_the_papers_shares_and_whole_groups():
    cut = fit.split(grouped())
    shares = {
        name: len(cut.where(name)) / len(cut)
        for name in ("train", "validation", "test")
    }
    assert shares == pytest.approx(
        {"train": 0.7, "validation": 0.1, "test": 0.2}
    )
    where = {}
    for video in cut:
        where.setdefault(video.group, set()).add(video.split)
    assert all(len(splits) == 1 for splits in where.values())


def test_a_fold_holds_out_consecutive_groups():
    cut = fit.split(grouped(10), fold=(2, 5), validation=0)
    assert {v.group for v in cut.where("test")} == {"g2", "g3"}
    assert not len(cut.where("validation"))


def test_marked_rows_keep_their_split(shapes):
    cut = fit.split(shapes)
    assert [v.split for v in cut] == [v.split for v in shapes]


@pytest.mark.parametrize("fold", [(0, 5), (6, 5), (1, 1)])
def test_a_wrong_fold_is_refused(fold):
    with pytest.raises(ValueError, match="`fold` must be"):
        fit.split(grouped(), fold=fold)


# Scoring what was held out


def test_evaluate_scores_the_held_out_rows(trained, tmp_path):
    shutil.copytree(trained.folder, tmp_path / "run")
    opened = open_model(tmp_path / "run")
    rows = rows_of(opened)
    assert {v.split for v in rows} == {"test"}
    metrics = evaluate(opened, rows, clips=2, passes=1, batch=8)
    assert metrics["videos"] == len(rows)
    assert metrics["clips"] == 2 * len(rows)
    assert (tmp_path / "run" / "scores.npz").is_file()
    kept = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert kept == metrics


def test_rows_that_were_learned_are_refused(trained, shapes_folder, tmp_path):
    opened = open_model(trained.folder)
    whole = open_catalog(shapes_folder)
    plain = Catalog(
        tuple(dataclasses.replace(v, split=None) for v in whole),
        whole.classes,
        whole.root,
    )
    with pytest.raises(RunError, match="were trained on"):
        rows_of(opened, plain)
    assert len(rows_of(opened, plain, "all")) == len(whole)
    # The same files under another root, and through a link, are the same.
    shutil.copytree(shapes_folder, tmp_path / "copy")
    with pytest.raises(RunError, match="were trained on"):
        rows_of(opened, open_catalog(tmp_path / "copy"), "train")
    learned = whole.where("train")[0]
    link = tmp_path / "links" / learned.labels[0] / "other.mp4"
    link.parent.mkdir(parents=True)
    link.symlink_to(whole.file(learned))
    linked = open_catalog(tmp_path / "links")
    with pytest.raises(RunError, match="were trained on"):
        rows_of(opened, linked)


def test_another_datas_classes_must_be_the_networks(trained):
    opened = open_model(trained.folder)
    with pytest.raises(ValueError, match="not among"):
        rows_of(opened, grouped())


# MODEL


def test_a_keras_file_knows_its_clip_by_its_name(trained, tmp_path):
    opened = open_model(trained.path("model.keras"))
    assert opened.spec == trained.spec
    assert opened.classes == trained.classes
    alone = tmp_path / "m.keras"
    shutil.copy(trained.path("model.keras"), alone)
    assert open_model(alone).classes == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("name", "shape", "own"),
    [
        ("i3d", (8, 32, 32, 3), {"fps": 25.0, "frames": 8, "short": "loop"}),
        ("i3d_flow", (8, 32, 32, 2), {"fps": 25.0, "flow": 8}),
        ("temporal_stream", (10, 48, 48, 2), {"frames": 1, "flow": 10}),
        (
            "two_stream",
            {"rgb": (1, 48, 48, 3), "flow": (10, 48, 48, 2)},
            {"frames": 1, "flow": 10},
        ),
    ],
)
def test_a_keras_file_tells_what_clips_it_eats(name, shape, own, tmp_path):
    model = get_model(name, width=0.05, classes=3, input_shape=shape)
    model.save(tmp_path / "m.keras")

    spec = open_model(tmp_path / "m.keras").spec

    shapes = shape if isinstance(shape, dict) else {spec.streams[0]: shape}
    assert spec.shapes == shapes
    assert {key: getattr(spec, key) for key in own} == own


def test_a_network_of_something_else_is_one_clear_error(tmp_path):
    rows = keras.Input((5, 8))
    model = keras.Model(rows, keras.layers.Dense(3)(rows))
    model.save(tmp_path / "m.keras")

    with pytest.raises(RunError, match=r"not take clips.*\(None, 5, 8\)"):
        open_model(tmp_path / "m.keras")


def recipe(**changes):
    return Recipe(**{"model": "i3d", "width": 0.05, **changes})


def test_a_recipe_changes_the_clip():
    spec = build.clip_of(recipe(frames=16, size=64, step=2, fps=0.0))

    assert spec.shapes == {"rgb": (16, 64, 64, 3)}
    assert (spec.step, spec.fps, spec.short) == (2, None, "loop")
    assert spec.resize == ("short_side", 73)
    stretched = build.clip_of(recipe(size=64, resize="stretch"))
    assert stretched.resize == (73, 73)
    square = build.clip_of(recipe(model="c3d", resize="square"))
    assert square.resize == ("square", 171)


def test_ten_fields_stay_ten_however_many_frames():
    spec = build.clip_of(recipe(model="two_stream", frames=2))
    assert spec.shapes["flow"][0] == 10
    spec = build.clip_of(recipe(model="two_stream_i3d", frames=8))
    assert [shape[0] for shape in spec.shapes.values()] == [8, 8]


def test_options_reach_the_builder():
    chosen = recipe(
        model="top_heavy_i3d",
        frames=8,
        size=32,
        options={"boundary": "mixed_5b", "momentum": 0.9},
    )

    model = build.build(chosen, build.clip_of(chosen), 3)

    assert model.get_layer("mixed_4f_b1b").kernel.shape[0] == 1
    assert model.get_layer("mixed_5b_b1b").kernel.shape[0] == 3
    assert model.get_layer("conv_1a_bn").momentum == 0.9


def test_options_that_the_builder_has_not_are_named():
    chosen = recipe(options={"boundary": "mixed_5b"})
    with pytest.raises(ValueError, match=r"`options` of i3d.*grid.*boundary"):
        build.build(chosen, build.clip_of(chosen), 3)


@pytest.mark.slow
def test_a_recurrent_network_learns_from_every_frame(catalog, tmp_path):
    chosen = Recipe(
        model="lrcn",
        width=0.05,
        frames=3,
        size=49,
        batch=8,
        epochs=1,
        clips_per_video=1,
        initializer="halving",
    )
    run = fit.train(chosen, catalog, tmp_path / "r", verbose=0, say=quiet)

    shape = (None, 3, 49, 49, 3)
    parts = build.build(chosen, run.spec, 4, training=True)
    assert parts.input_shape == shape
    assert parts.output_shape == (None, 3, 4)
    assert run.model().output_shape == (None, 4)
    assert math.isfinite(float(history(run)[0]["loss"]))


@pytest.mark.parametrize("text", ["nothing", "slow_fussion:x", "a:b"])
def test_an_unknown_model_is_one_clear_error(text):
    with pytest.raises(RunError, match="MODEL must be.*Received"):
        open_model(text)


def test_a_foreign_file_is_one_clear_error(tmp_path):
    path = tmp_path / "m.keras"
    path.write_text("no model")
    with pytest.raises(RunError, match="cannot be loaded"):
        open_model(path)


def test_a_model_that_brings_code_is_refused(tmp_path):
    clip = keras.Input((10, 40, 40, 3))
    x = keras.layers.Lambda(lambda x: x[:, 0, 0, 0])(clip)
    keras.Model(clip, x).save(tmp_path / "m.keras")
    with pytest.raises(RunError, match="cannot be loaded"):
        open_model(tmp_path / "m.keras")


# Optical flow.

STREAMS = dataclasses.replace(
    SMALL, model="two_stream", size=48, width=0.03, batch=8
)


@pytest.fixture(scope="module")
def two_streams(shapes_folder, shapes_flow, tmp_path_factory):
    """A run of two epochs on both streams; read only."""
    run = tmp_path_factory.mktemp("streams") / "run"
    catalog = fit.split(open_catalog(shapes_folder))
    return fit.train(
        STREAMS, catalog, run, flow=shapes_flow, verbose=0, say=quiet
    )


def test_a_run_on_two_streams_knows_where_its_flow_is(two_streams, shapes_flow):
    assert two_streams.flow == str(shapes_flow)
    assert two_streams.flow_method == "dis"
    assert [row["epoch"] for row in history(two_streams)] == ["1", "2"]
    opened = open_model(two_streams.folder)
    rows = rows_of(opened)
    assert flow_of(opened) == str(shapes_flow)
    assert flow_of(opened, rows) == "dis"
    found = evaluate(opened, rows, clips=1, passes=4, flow=flow_of(opened))
    assert found["videos"] == found["clips"] == 8
    assert found["skipped"] == []


def test_a_run_on_frames_has_no_flow(trained):
    assert trained.flow is None
    assert trained.flow_method is None
    assert flow_of(open_model(trained.folder)) is None


def test_a_resumed_run_finds_its_flow_again(
    catalog, two_streams, shapes_flow, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    once = dataclasses.replace(STREAMS, epochs=1)
    fit.train(once, catalog, run, flow=shapes_flow, verbose=0, say=quiet)
    with pytest.raises(RunError, match=r"of method dis. Received.*farneback"):
        fit.train(
            STREAMS, catalog, run, flow="farneback", resume=True, say=quiet
        )
    asked = []
    monkeypatch.setattr(
        fit,
        "open_flow",
        lambda flow, root: asked.append(flow) or open_flow(flow, root),
    )
    fit.train(STREAMS, catalog, run, resume=True, verbose=0, say=quiet)
    assert asked == [str(shapes_flow)]
    assert same(weights(run), weights(two_streams.folder))


def test_flow_that_is_missing_is_told_before_any_training(catalog, tmp_path):
    with pytest.raises(ValueError, match=r"videofusion flow DATA OUT.*--flow"):
        fit.train(STREAMS, catalog, tmp_path / "run", say=quiet)
    assert not (tmp_path / "run").exists()

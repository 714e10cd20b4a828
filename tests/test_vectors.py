"""Folders of vectors: written, read, learned from, scored."""

import csv
import dataclasses
import json
import os

import keras
import numpy as np
import pytest

from keras_videofusion.cli import parse
from keras_videofusion.cli import run as call_verb
from keras_videofusion.data import vectors as rooms
from keras_videofusion.data.catalog import Catalog, open_catalog, Video
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.pipeline import (
    samples,
    training_clips,
    validation_clips,
)
from keras_videofusion.data.vectors import (
    read_vectors,
    spec_from_json,
    VectorSpec,
    write_vectors,
)
from keras_videofusion.data.video import VideoError
from keras_videofusion.evaluation import protocol
from keras_videofusion.evaluation.scores import Scores
from keras_videofusion.training import fit
from keras_videofusion.training.evaluate import describe_of, evaluate, rows_of
from keras_videofusion.training.recipe import Recipe
from keras_videofusion.training.run import open_model, Run, RunError

SIZE = 12
CLASSES = ("down", "still", "up")
SMALL = Recipe(
    model="feature_mlp",
    options={"hidden": [8], "scale": None},
    batch=4,
    epochs=3,
    learning_rate=0.05,
    dropout=0.2,
)


def quiet(line):
    """Where a test does not look at what is said."""


def listed(count=20, several=False):
    """Rows of which the first are learned and the last held out."""
    return Catalog(
        tuple(
            Video(
                f"{CLASSES[i % 3]}/{i}.mp4",
                (CLASSES[i % 3], *(CLASSES[:1] if several and i % 3 else ())),
                family="none" if i % 3 == 1 else "vertical",
                split="train" if i < 13 else "test" if i > 15 else "validation",
            )
            for i in range(count)
        ),
        CLASSES,
        "/videos",
    )


def drawn(catalog, each=1, size=SIZE):
    """Vectors that tell the classes, float32 `(videos, each, size)`."""
    draw = np.random.default_rng(0)
    found = draw.normal(0, 0.3, (len(catalog), each, size))
    found += catalog.truth[:, None, :].repeat(size // 3, -1)
    return found.astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    catalog = listed()
    write_vectors(
        tmp_path / "v", catalog, SIZE, drawn(catalog), kind="features"
    )
    return tmp_path / "v"


@pytest.fixture
def pairs(tmp_path):
    """Two vectors of every video."""
    catalog = listed()
    write_vectors(
        tmp_path / "p",
        catalog,
        SIZE,
        drawn(catalog, 2),
        kind="features",
        each=2,
    )
    return tmp_path / "p"


# Files


@pytest.mark.parametrize("each", [1, 3])
def test_what_was_written_is_read(tmp_path, monkeypatch, each):
    catalog = listed()
    x = drawn(catalog, each)
    # Parts of three videos; the last has two.
    monkeypatch.setattr(rooms, "PART", 3 * 4 * each * SIZE)

    written = write_vectors(
        tmp_path / "out",
        catalog,
        SIZE,
        iter(x),
        kind="histograms",
        each=each,
        blocks={"hog": (0, 8), "faces": (8, 12)},
        settings={"words": 4},
    )

    found = read_vectors(tmp_path / "out")
    assert found == written
    assert sorted(os.listdir(tmp_path / "out")) == [
        "catalog.csv", "classes.txt", "manifest.json",
        *(f"vectors-0000{part}.npy" for part in range(7)),
    ]  # fmt: skip
    assert len(found) == len(catalog) == 20
    assert found.catalog.videos == catalog.videos
    assert found.catalog.classes == CLASSES
    assert found.catalog.root == str(tmp_path / "out")
    assert found.blocks == {"hog": (0, 8), "faces": (8, 12)}
    assert (found.kind, found.source) == ("histograms", "/videos")
    assert found.settings == {"words": 4}
    assert found.spec.shapes == {"features": (SIZE,)}
    for place in range(20):
        np.testing.assert_array_equal(found.rows(place), x[place])
        np.testing.assert_array_equal(found.row(place, each - 1), x[place, -1])
    part = np.load(tmp_path / "out" / "vectors-00000.npy", allow_pickle=False)
    assert part.dtype == np.float32
    assert part.shape == (3 * each, SIZE)
    for place in (-1, 20):
        with pytest.raises(IndexError, match=f"place={place}"):
            found.rows(place)


def test_rows_are_found_by_their_videos(folder):
    found = read_vectors(folder)
    held_out = found.catalog.where("test")

    assert found.places(held_out).tolist() == [16, 17, 18, 19]
    strange = dataclasses.replace(
        held_out, videos=(Video("else.mp4", ("up",)),)
    )
    with pytest.raises(ValueError, match=r"no vectors of it.*else\.mp4"):
        found.places(strange)


def test_videos_without_vectors_leave_no_row(tmp_path):
    catalog, skipped = listed(), []

    def made():
        for place, row in enumerate(drawn(catalog)):
            if place == 4:
                skipped.append({"path": "still/4.mp4", "error": "damaged"})
            yield None if place == 4 else row[0]

    found = write_vectors(
        tmp_path, catalog, SIZE, made(), kind="features", skipped=skipped
    )

    assert [v.path for v in found.catalog] == [
        v.path for v in catalog if v.path != "still/4.mp4"
    ]
    np.testing.assert_array_equal(found.rows(4)[0], drawn(catalog)[5, 0])
    assert found.skipped == skipped


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda x: x[:19], "of 20 videos.*Received: 19"),
        (lambda x: [*x, x[0]], "of 20 videos.*Received: more"),
        (lambda x: x[..., :5], r"down/0\.mp4 must have the shape \(1, 12\)"),
        (lambda x: [x[0], x[1] * np.nan, *x[2:]], r"still/1\.mp4.*finite"),
        (lambda x: [None] * 20, "no video of /videos has vectors"),
    ],
)
def test_wrong_vectors_leave_no_folder_of_vectors(tmp_path, made, message):
    catalog = listed()
    with pytest.raises(ValueError, match=message):
        write_vectors(
            tmp_path, catalog, SIZE, made(drawn(catalog)), kind="features"
        )
    assert read_vectors(tmp_path) is None


def test_a_folder_is_replaced_when_asked(folder):
    (folder / "codebooks.npz").write_bytes(b"words")
    catalog = listed(3)
    new = drawn(catalog, size=6)

    with pytest.raises(ValueError, match="holds vectors already.*--overwrite"):
        write_vectors(folder, catalog, 6, new, kind="features")
    found = write_vectors(
        folder, catalog, 6, new, kind="features", overwrite=True
    )

    assert (len(found), found.size) == (3, 6)
    assert (folder / "codebooks.npz").exists()
    assert found.codebooks == str(folder / "codebooks.npz")


@pytest.mark.parametrize("name", ["manifest.json", "classes.txt"])
def test_other_peoples_files_are_left_alone(tmp_path, name):
    (tmp_path / name).write_text("{}")
    catalog = listed()

    for overwrite in (False, True):
        with pytest.raises(ValueError, match="holds something else"):
            write_vectors(
                tmp_path,
                catalog,
                SIZE,
                drawn(catalog),
                kind="features",
                overwrite=overwrite,
            )

    assert (tmp_path / name).read_text() == "{}"


def test_labels_that_cannot_be_written_are_told_first(tmp_path):
    catalog = Catalog((Video("a.mp4", ("a;b",)),), ("a;b",), "/videos")

    def never():
        raise AssertionError("it was begun")
        yield

    with pytest.raises(ValueError, match='must not hold ";"'):
        write_vectors(tmp_path, catalog, SIZE, never(), kind="features")


def test_damaged_parts_are_named(folder):
    part = folder / "vectors-00000.npy"
    whole = part.read_bytes()
    for damaged, message in (
        (whole[:20], r"vectors-00000\.npy is damaged"),
        (b"not NumPy's", r"vectors-00000\.npy is damaged"),
        (b"", r"vectors-00000\.npy is damaged"),
    ):
        part.write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            read_vectors(folder).rows(0)
    np.save(part, np.zeros((20, 5), "f4"))
    with pytest.raises(ValueError, match=r"shape \(20, 12\).*\(20, 5\)"):
        read_vectors(folder).rows(0)


def test_objects_are_not_unpickled(folder):
    np.save(
        folder / "vectors-00000.npy",
        np.array([{}] * 20, object),
        allow_pickle=True,
    )
    with pytest.raises(ValueError, match="is damaged"):
        read_vectors(folder).rows(0)


def test_another_releases_folder_is_one_line(folder):
    told = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**told, "version": 9}))

    with pytest.raises(ValueError, match="another release: make the vectors"):
        open_catalog(folder)


def test_specs_come_back_from_json():
    assert spec_from_json(VectorSpec(7).to_json()) == VectorSpec(7)
    clip = ClipSpec(10)
    assert spec_from_json(json.loads(json.dumps(clip.to_json()))) == clip
    for wrong in (0, 2.0, None):
        with pytest.raises(ValueError, match=f"size={wrong}"):
            VectorSpec(wrong)
    with pytest.raises(ValueError, match="not a clip"):
        spec_from_json({"feature": 7})


# The pipeline


def plain(dataset, count):
    """Some batches, as arrays."""
    return list(dataset.take(count).as_numpy_iterator())


def learned(folder, **arguments):
    catalog = open_catalog(folder).where("train")
    given = {"batch": 4, "seed": 3, **arguments}
    return training_clips(catalog, VectorSpec(SIZE), **given)


def test_an_epoch_shows_every_vector_once_with_its_label(folder):
    x = drawn(listed())[:13, 0]
    epochs = []
    for epoch in (0, 1):
        batches = plain(learned(folder, first_epoch=epoch), 4)
        assert [len(rows) for rows, _ in batches] == [4, 4, 4, 1]
        rows = np.concatenate([rows for rows, _ in batches])
        labels = np.concatenate([labels for _, labels in batches])
        places = [int((x == row).all(1).argmax()) for row in rows]
        assert sorted(places) == list(range(13))
        assert rows.dtype == labels.dtype == np.float32
        np.testing.assert_array_equal(labels, listed().truth[places])
        epochs.append(places)
    assert epochs[0] != epochs[1]


def test_any_step_is_the_same_from_wherever_one_begins(pairs):
    whole = plain(learned(pairs), 12)

    later = plain(learned(pairs, first_epoch=1, first_step=2), 6)

    for mine, right in zip(later, whole[6:], strict=True):
        np.testing.assert_array_equal(mine[0], right[0])
        np.testing.assert_array_equal(mine[1], right[1])


@pytest.mark.parametrize("mixup", [0.0, 0.4])
@pytest.mark.parametrize("count", [2, 5])
def test_parts_are_the_batch(folder, count, mixup):
    whole = plain(learned(folder, mixup=mixup), 8)
    parts = [
        plain(learned(folder, part=(index, count), mixup=mixup), 8)
        for index in range(count)
    ]
    for step, (rows, labels) in enumerate(whole):
        own = [part[step] for part in parts]
        kept = [weights > 0 for _, _, weights in own]
        for place, right in ((0, rows), (1, labels)):
            joined = [
                one[place][keep] for one, keep in zip(own, kept, strict=True)
            ]
            np.testing.assert_allclose(np.concatenate(joined), right, rtol=1e-6)
        assert all(len(weights) for _, _, weights in own)


def test_fewer_vectors_than_there_are_change_from_epoch_to_epoch(pairs):
    x = drawn(listed(), 2)[:13]
    catalog = open_catalog(pairs).where("train")
    shown = []
    for epoch in range(6):
        rows = np.concatenate(
            [rows for rows, _ in plain(learned(pairs, first_epoch=epoch), 4)]
        )
        found = [np.argwhere((x == row).all(-1))[0] for row in rows]
        assert sorted(video for video, _ in found) == list(range(13))
        shown.append(sorted(map(tuple, found)))
    assert len({tuple(one) for one in shown}) > 3
    assert samples(catalog, 1) == 13
    # And all of them, if as many or more are asked for.
    for clips in (2, 5):
        assert samples(catalog, clips) == 26
        batches = plain(learned(pairs, clips_per_video=clips), 7)
        rows = np.concatenate([rows for rows, _ in batches])
        assert sorted(map(tuple, rows)) == sorted(
            map(tuple, x.reshape(-1, SIZE))
        )


def test_classes_may_come_equally_often(tmp_path):
    rows = (*[Video(f"{i}", ("a",)) for i in range(9)], Video("9", ("b",)))
    catalog = Catalog(rows, ("a", "b"), "/videos")
    write_vectors(tmp_path, catalog, 3, np.ones((10, 3)), kind="features")

    found = training_clips(
        open_catalog(tmp_path), VectorSpec(3), 10, alike="classes"
    )

    ((_, labels),) = plain(found, 1)
    assert labels.sum(0).tolist() == [5, 5]


def test_validation_is_the_same_every_time_and_evenly_spread(tmp_path):
    catalog = listed(2)
    x = drawn(catalog, 5)
    write_vectors(tmp_path, catalog, SIZE, x, kind="features", each=5)

    found = validation_clips(
        open_catalog(tmp_path), VectorSpec(SIZE), 4, clips=2
    )

    for _ in range(2):
        ((rows, _),) = plain(found, 9)
        np.testing.assert_array_equal(rows, x[:, [0, 2]].reshape(4, SIZE))
    assert found.cardinality() == 1


def test_a_sigmoid_learns_one_at_each_class(tmp_path):
    catalog = listed(several=True)
    write_vectors(tmp_path, catalog, SIZE, drawn(catalog), kind="features")

    shares = plain(learned(tmp_path), 4)
    ones = plain(learned(tmp_path, activation="sigmoid"), 4)

    for (x, share), (same, one) in zip(shares, ones, strict=True):
        np.testing.assert_array_equal(x, same)
        np.testing.assert_allclose(share.sum(1), 1)
        np.testing.assert_array_equal(one, share > 0)
    assert np.concatenate([one for _, one in ones]).max(1).sum() == 13
    assert np.concatenate([one for _, one in ones]).sum() > 13


@pytest.mark.parametrize(
    ("spec", "arguments", "message"),
    [
        (VectorSpec(5), {}, "fed vectors of 5 numbers.*have 12"),
        (ClipSpec(10), {}, "fed clips.*a folder of vectors"),
        (VectorSpec(SIZE), {"worker": (0, 2)}, "workers of parameter servers"),
        (VectorSpec(SIZE), {"cache": "memory"}, "`cache`.*cache='memory'"),
    ],
)
def test_what_does_not_fit_is_one_line(folder, spec, arguments, message):
    with pytest.raises(ValueError, match=message):
        training_clips(open_catalog(folder), spec, 4, **arguments)


def test_clips_are_no_vectors(shapes):
    with pytest.raises(ValueError, match="make a folder of them"):
        validation_clips(shapes, VectorSpec(SIZE), 4)


# Runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on two vectors per video; read only."""
    place = tmp_path_factory.mktemp("run")
    catalog = listed()
    write_vectors(
        place / "v", catalog, SIZE, drawn(catalog, 2), kind="features", each=2
    )
    recipe = dataclasses.replace(SMALL, epochs=12, clips_per_video=2)
    return fit.train(
        recipe, open_catalog(place / "v"), place / "run", verbose=0, say=quiet
    )


def test_a_run_says_what_it_is_fed(trained):
    assert trained.spec == VectorSpec(SIZE)
    assert trained.settings["vectors"] == {
        "kind": "features",
        "source": "/videos",
    }
    assert open_model(trained.folder).spec == VectorSpec(SIZE)
    # And the file by itself.
    assert open_model(trained.path("model.keras")).spec == VectorSpec(SIZE)
    assert {"projector_config.pbtxt", "features.tsv"} <= set(
        os.listdir(trained.path("tensorboard"))
    )
    with open(trained.path("history.csv"), newline="") as file:
        assert float(list(csv.DictReader(file))[-1]["val_hit_at_1"]) == 1.0


def test_scores_are_the_networks_own(trained):
    opened = open_model(trained.folder)

    found = evaluate(opened, rows_of(opened), clips=20, passes=4)

    scores = Scores.load(trained.path("scores.npz"))
    held_out = np.arange(16, 20)
    x = drawn(listed(), 2)[held_out].reshape(-1, SIZE)
    shares = opened.model.predict(x, verbose=0)
    np.testing.assert_allclose(scores.clip_probabilities, shares, atol=1e-6)
    np.testing.assert_allclose(
        scores.video_probabilities,
        shares.reshape(4, 2, 3).mean(1),
        atol=1e-6,
    )
    assert scores.clip_video.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not scores.clip_start_seconds.any()
    assert scores.video_ids == tuple(listed()[i].path for i in held_out)
    assert scores.protocol["clip"] == {"features": SIZE}
    assert (found["videos"], found["clips"]) == (4, 8)
    assert found["video_hit_at_1"] == 1.0
    assert set(found["per_family"]) == {"none", "vertical"}


def test_a_resumed_run_ends_as_if_it_never_had_been_killed(pairs, tmp_path):
    class Stop(keras.callbacks.Callback):
        count = 0

        def on_train_batch_end(self, batch, logs=None):
            self.count += 1
            if self.count == 6:
                raise KeyboardInterrupt

    def train(run, **arguments):
        return fit.train(
            SMALL, open_catalog(pairs), tmp_path / run, verbose=0, say=quiet,
            checkpoint_steps=1, **arguments,
        )  # fmt: skip

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("killed", callbacks=[Stop()])
    again = train("killed", resume=True)

    assert Run(tmp_path / "killed").state["epoch"] == SMALL.epochs
    for one, other in zip(
        whole.model().get_weights(), again.model().get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_several_labels_are_learned_each_by_itself(tmp_path):
    catalog = listed(several=True)
    write_vectors(
        tmp_path / "v", catalog, SIZE, drawn(catalog), kind="features"
    )
    recipe = dataclasses.replace(SMALL, activation="sigmoid", epochs=40)

    run = fit.train(
        recipe, open_catalog(tmp_path / "v"), tmp_path / "run", verbose=0,
        say=quiet,
    )  # fmt: skip
    opened = open_model(run.folder)
    found = evaluate(opened, rows_of(opened))

    scores = Scores.load(run.path("scores.npz"))
    assert scores.protocol["activation"] == "sigmoid"
    right = opened.model.predict(drawn(catalog)[16:, 0], verbose=0)
    np.testing.assert_allclose(scores.clip_probabilities, right, atol=1e-6)
    np.testing.assert_array_equal(right > 0.5, scores.truth)
    assert scores.clip_probabilities.sum(1).max() > 1.3
    assert found["mean_average_precision"] == 1.0


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"size": 40}, "`size` is of clips.*size=40"),
        ({"frames": 5}, "`frames` is of clips"),
        ({"fps": 5.0}, "`fps` is of clips"),
        ({"jitter": 0.5}, "`jitter` is of clips"),
        ({"resize": "stretch"}, "`resize` is of clips"),
        ({"options": {"hidden": [4], "depth": 3}}, "`options` of feature_mlp"),
        ({"model": "slow_fusion", "options": {}}, "fed clips"),
    ],
)
def test_recipes_that_do_not_fit_are_one_line(
    folder, tmp_path, recipe, message
):
    recipe = dataclasses.replace(SMALL, **recipe)
    with pytest.raises(ValueError, match=message):
        fit.train(recipe, open_catalog(folder), tmp_path / "run", say=quiet)
    assert not (tmp_path / "run").exists()


def test_a_network_of_vectors_learns_no_clips(shapes, tmp_path):
    with pytest.raises(ValueError, match="make a folder of them"):
        fit.train(SMALL, fit.split(shapes), tmp_path / "run", say=quiet)


def test_rates_per_layer_are_an_option(folder, tmp_path):
    options = {"hidden": [8], "dropout": [0.1, 0.4]}
    recipe = dataclasses.replace(SMALL, options=options, epochs=1)

    run = fit.train(
        recipe, open_catalog(folder), tmp_path / "run", verbose=0, say=quiet
    )

    model = run.model()
    assert model.get_layer("features_dropout").rate == 0.1
    assert model.get_layer("fc1_dropout").rate == 0.4


# Other videos


class Words:
    """What stands in for the codebooks of histograms."""

    def __init__(self, monkeypatch):
        from keras_videofusion.baseline import histograms

        self.asked = []
        monkeypatch.setattr(
            histograms, "load_codebooks", lambda folder: "the words"
        )
        monkeypatch.setattr(histograms, "vector_of", self.vector_of)

    def vector_of(self, path, codebooks, start=None, end=None):
        assert codebooks == "the words"
        if "broken" in os.fspath(path):
            raise VideoError(path, "broken on purpose")
        self.asked.append((os.fspath(path), start, end))
        return np.full(SIZE, len(self.asked), np.float32)


@pytest.fixture
def counted(folder, tmp_path):
    """A run on histograms, which has their codebooks."""
    told = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(
        json.dumps({**told, "kind": "histograms"})
    )
    (folder / "codebooks.npz").write_bytes(b"words")
    return fit.train(
        dataclasses.replace(SMALL, epochs=1), open_catalog(folder),
        tmp_path / "run", verbose=0, say=quiet,
    )  # fmt: skip


def test_a_run_keeps_the_codebooks(counted, folder):
    assert counted.path("codebooks.npz").read_bytes() == b"words"
    # They are the run's own, and go with it.
    fit.train(
        dataclasses.replace(SMALL, epochs=1), open_catalog(folder),
        counted.folder, overwrite=True, verbose=0, say=quiet,
    )  # fmt: skip
    (folder / "codebooks.npz").unlink()
    fit.train(
        dataclasses.replace(SMALL, epochs=1), open_catalog(folder),
        counted.folder, overwrite=True, verbose=0, say=quiet,
    )  # fmt: skip
    assert counted.codebooks is None


def test_videos_are_named_by_their_histograms(
    counted, shapes_folder, monkeypatch
):
    words = Words(monkeypatch)
    opened = open_model(counted.folder)
    path = sorted(shapes_folder.rglob("*.mp4"))[0]

    (found,) = protocol.predict(
        opened.model,
        opened.spec,
        opened.classes,
        [path],
        every=0.5,
        describe=describe_of(opened, [path]),
    )

    assert [where for where, *_ in words.asked] == [str(path)] * 2
    assert sorted(ends[1:] for ends in words.asked)[0][0] == 0.0
    vectors = np.repeat([[1.0], [2.0]], SIZE, 1).astype("float32")
    right = opened.model.predict(vectors, verbose=0)
    for window, shares in zip(found["windows"], right, strict=True):
        for row in window["predictions"]:
            place = CLASSES.index(row["class"])
            assert row["score"] == pytest.approx(shares[place], abs=1e-6)


def test_other_videos_are_scored_by_their_histograms(counted, monkeypatch):
    words = Words(monkeypatch)
    opened = open_model(counted.folder)
    other = Catalog(
        (
            Video("a.mp4", ("up",), start=1.0, end=2.5),
            Video("broken.mp4", ("down",)),
            Video("b.mp4", ("still",)),
        ),
        CLASSES,
        "/other",
    )
    rows = rows_of(opened, other)

    found = evaluate(opened, rows, describe=describe_of(opened, other))

    assert sorted(words.asked, key=str) == [
        ("/other/a.mp4", 1.0, 2.5),
        ("/other/b.mp4", None, None),
    ]
    assert found["videos"] == 2
    assert found["skipped"] == [
        {"path": "broken.mp4", "error": "broken on purpose"}
    ]


def test_nothing_is_made_where_vectors_stand(counted, folder):
    opened = open_model(counted.folder)

    assert describe_of(opened) is None
    assert describe_of(opened, open_catalog(folder)) is None


def test_features_of_a_network_are_not_made_of_videos(trained):
    opened = open_model(trained.folder)

    with pytest.raises(RunError, match="codebooks.*a run on features"):
        describe_of(opened, ["a.mp4"])
    alone = open_model(trained.path("model.keras"))
    with pytest.raises(RunError, match="codebooks.*network without run"):
        describe_of(alone, ["a.mp4"])
    with pytest.raises(ValueError, match="`describe` is needed"):
        next(protocol.predict(alone.model, alone.spec, CLASSES, ["a.mp4"]))


# The command line


def call(*words):
    return call_verb(parse([str(word) for word in words]))


@pytest.mark.parametrize(
    ("kind", "papers"), [("histograms", "55.3"), ("features", "–")]
)
def test_a_report_sets_the_papers_baseline_beside_histograms_alone(
    tmp_path, kind, papers
):
    """Karpathy et al., CVPR 2014, table 1: video Hit@1 and no other."""
    catalog, data = listed(), tmp_path / "v"
    write_vectors(data, catalog, SIZE, drawn(catalog), kind=kind)
    assert call("train", data, "--model", "feature_mlp", "--width", 0.01,
                "--epochs", 1, "--run", tmp_path / "run") == 0  # fmt: skip
    assert call("evaluate", tmp_path / "run") == 0

    assert call("report", tmp_path / "run", "--out", tmp_path) == 0

    rows = (tmp_path / "report.md").read_text().splitlines()
    (row,) = (row for row in rows if row.startswith("| run | feature"))
    assert row.split(" | ")[-3:] == ["–", papers, "– |"]
    page = (tmp_path / "report.html").read_text()
    assert "A video is a vector" in page
    assert "clips of every video" not in page


def test_train_evaluate_report_on_vectors(folder, tmp_path, capsys):
    run = tmp_path / "run"

    assert call("train", folder, "--model", "feature_mlp", "--width", 0.01,
                "--epochs", 1, "--run", run) == 0  # fmt: skip
    assert call("evaluate", run, "--json", "-") == 0
    assert call("report", run, "--out", tmp_path / "report") == 0
    assert call("evaluate", run, folder, "--split", "all") == 0

    said = capsys.readouterr().out
    assert "13 videos to learn, 3 to validate, 4 held out" in said
    assert "20 videos, 20 clips, 0 skipped" in said
    assert (tmp_path / "report" / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "{v}", "--model", "feature_mlp", "--size", "40"), "`size`"),
        (("train", "{v}", "--model", "slow_fusion"), "fed clips"),
        (("train", "{v}", "--model", "feature_mlp", "--recipe", "small"),
         "is of clips"),
        (("train", "{s}", "--model", "feature_mlp"), "videofusion histograms"),
    ],
)  # fmt: skip
def test_calls_that_do_not_fit_are_one_line(
    folder, shapes_folder, tmp_path, capsys, words, said
):
    words = [
        w.replace("{v}", str(folder)).replace("{s}", str(shapes_folder))
        for w in words
    ]

    assert call(*words, "--run", tmp_path / "run") > 0

    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert said in told


def test_predict_by_features_is_one_line(trained, capsys):
    assert call("predict", trained.folder, "a.mp4") == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_clips_and_vectors_are_not_mixed_at_evaluation(
    trained, pairs, shapes_folder, tmp_path, capsys
):
    short = tmp_path / "short"
    catalog = dataclasses.replace(listed(), root="/else")
    write_vectors(short, catalog, 6, drawn(catalog, size=6), kind="features")

    assert call("evaluate", trained.folder, short, "--split", "all") == 1
    assert "fed vectors of 12 numbers" in capsys.readouterr().err
    assert call("evaluate", trained.folder, shapes_folder) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_pipeline_is_measured(folder, capsys):
    assert call("benchmark", "--pipeline", folder, "--model", "feature_mlp",
                "--width", 0.01, "--steps", 1, "--batch", 2) == 0  # fmt: skip

    assert "pipeline for feature_mlp" in capsys.readouterr().out


def test_shards_are_not_made_of_vectors(folder, tmp_path, capsys):
    assert call("prepare", folder, tmp_path / "out") == 1
    assert "holds vectors already" in capsys.readouterr().err
    assert call("prepare", "videos", tmp_path / "out", "--model",
                "feature_mlp") == 2  # fmt: skip
    assert "videofusion histograms" in capsys.readouterr().err

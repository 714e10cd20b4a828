"""Catalogs, shards, videos and runs at addresses are those of a folder.

`ram://`, a file system of TensorFlow's own in memory, stands for those of
clouds; tests/cloud runs the same tests at a real S3 server.
"""

import dataclasses
import json
import shutil
import uuid
from pathlib import Path

import numpy as np
import pytest
from webserver import serve

from keras_videofusion import cli
from keras_videofusion.data import addresses, files
from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.pipeline import steps, training_clips
from keras_videofusion.data.prepare import prepare
from keras_videofusion.evaluation.scores import Scores
from keras_videofusion.training import fit
from keras_videofusion.training.evaluate import evaluate, rows_of
from keras_videofusion.training.recipe import Recipe
from keras_videofusion.training.run import open_model, Run, RunError

SPEC = ClipSpec(4, 2, size=(32, 32), resize=("square", 40))
TINY = Recipe(
    model="single_frame",
    width=0.02,
    size=40,
    batch=8,
    epochs=1,
    learning_rate=1e-4,
)


def quiet(line):
    """Where a test does not look at what is said."""


@pytest.fixture
def cloud():
    """The address of a folder of its own."""
    return f"ram://{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def shards_folder(shapes_folder, tmp_path_factory):
    """Shards of `shapes_folder` on this machine. Change nothing in it."""
    folder = tmp_path_factory.mktemp("shards") / "shards"
    prepare(open_catalog(shapes_folder), folder, SPEC, clips=3)
    return folder


@pytest.fixture
def web(shards_folder, monkeypatch):
    """A web server of the shards; it waits for nobody."""
    monkeypatch.setattr(addresses, "WAITS", (0.01,) * 4)
    with serve(shards_folder.parent) as server:
        yield server


def send(folder, address):
    """Copies a folder's files to an address."""
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            place = files.join(address, path.relative_to(folder).as_posix())
            files.make_folder(place.rpartition("/")[0])
            with files.written(place) as draft:
                draft.write_bytes(path.read_bytes())


def clips_of(place, count=None, **arguments):
    """The training clips of an epoch, in their order."""
    catalog = open_catalog(place).where("train")
    found = training_clips(
        catalog, SPEC, 8, seed=3, clips_per_video=2, **arguments
    ).take(count or steps(catalog, 8, 2))
    return np.concatenate([np.asarray(clips) for clips, _ in found])


def weights(run):
    return [np.asarray(w) for w in run.model().get_weights()]


def names_below(folder):
    if not files.is_folder(folder):
        return []
    return [
        name
        for here in files.names(folder)
        for name in (here, *names_below(files.join(folder, here)))
        if not name.startswith("events.")
    ]


def test_a_run_at_an_address_is_the_run_of_a_folder(shapes, cloud, tmp_path):
    catalog = fit.split(shapes)
    longer = dataclasses.replace(TINY, epochs=2)
    here = fit.train(longer, catalog, tmp_path / "run", verbose=0, say=quiet)
    place = files.join(cloud, "run")
    fit.train(TINY, catalog, place, verbose=0, say=quiet)
    # It goes on from the checkpoint that lies at the address.
    fit.train(longer, catalog, place, resume=True, verbose=0, say=quiet)
    there = Run(place)
    for one, other in zip(weights(here), weights(there), strict=True):
        np.testing.assert_array_equal(one, other)
    assert names_below(place) == names_below(tmp_path / "run")
    assert there.state["epoch"] == 2
    assert there.catalog().videos == here.catalog().videos

    found = []
    for opened in (open_model(str(tmp_path / "run")), open_model(place)):
        evaluate(opened, rows_of(opened), clips=2, passes=1)
        found.append(Scores.load(opened.run.path("scores.npz")))
    np.testing.assert_array_equal(
        found[0].clip_probabilities, found[1].clip_probabilities
    )
    assert files.read_json(there.path("metrics.json")) == files.read_json(
        here.path("metrics.json")
    )

    with pytest.raises(RunError, match="holds a run already"):
        fit.train(TINY, catalog, place, say=quiet)
    with pytest.raises(RunError, match="holds no run"):
        open_model(cloud)
    with pytest.raises(RunError, match="none of that name"):
        open_model(files.join(cloud, "none"))
    files.write_text(files.join(cloud, "mine", "my.txt"), "x")
    with pytest.raises(RunError, match="not empty and holds no run"):
        fit.train(TINY, catalog, files.join(cloud, "mine"), say=quiet)
    fit.train(TINY, catalog, place, overwrite=True, verbose=0, say=quiet)
    assert Run(place).state["epoch"] == 1
    assert "scores.npz" not in files.names(place)


def test_verbs_take_addresses(shapes_folder, cloud, tmp_path, capsys):
    pytest.importorskip(
        "matplotlib", reason="needs pip install 'keras-videofusion[report]'"
    )
    rows = open_catalog(shapes_folder)
    absolute = tuple(
        dataclasses.replace(video, path=rows.file(video)) for video in rows
    )
    rows = dataclasses.replace(rows, videos=absolute)
    rows.save(files.join(cloud, "list.csv"))

    def call(*words):
        status = cli.run(cli.parse([str(word) for word in words]))
        told = capsys.readouterr()
        assert not status, told.err
        return told.out

    shards, run = files.join(cloud, "shards"), files.join(cloud, "run")
    call("prepare", files.join(cloud, "list.csv"), shards, "--frames", 1,
         "--size", 40, "--clips", 2)  # fmt: skip
    call("train", shards, "--model", "single_frame", "--width", 0.02,
         "--size", 40, "--batch", 8, "--epochs", 1, "--run", run)  # fmt: skip
    assert "finished" in call("train", "--resume", "--run", run)
    call("evaluate", run, "--clips", 2, "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["videos"] == 8
    call("report", run, "--out", tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "cannot be read" not in page


def test_shards_at_an_address_are_those_of_a_folder(
    shapes, shards_folder, cloud
):
    place = files.join(cloud, "shards")
    made = prepare(shapes, place, SPEC, clips=3)
    again = prepare(shapes, place, SPEC, clips=3)
    assert made == again == files.read_json(shards_folder / "manifest.json")
    assert files.names(place) == files.names(shards_folder)
    np.testing.assert_array_equal(clips_of(place), clips_of(shards_folder))
    np.testing.assert_array_equal(
        clips_of(place, cache="memory"), clips_of(shards_folder)
    )


def test_damage_at_an_address_is_named_and_mended(shapes, cloud):
    place = files.join(cloud, "shards")
    made = prepare(shapes, place, SPEC, clips=3)
    name = next(s["name"] for s in made["shards"] if s["split"] == "train")
    files.remove(files.join(place, name))
    told = []
    clips_of(place, on_skip=lambda path, reason: told.append((path, reason)))
    assert next(path for path, _ in told) == files.join(place, name)
    assert "no such file" in told[0][1]
    prepare(shapes, place, SPEC, clips=3)
    assert files.exists(files.join(place, name))


def test_videos_and_their_list_are_read_at_an_address(shapes_folder, cloud):
    send(shapes_folder, cloud)
    open_catalog(shapes_folder).save(files.join(cloud, "labels.csv"))
    catalog = open_catalog(cloud)
    assert catalog == dataclasses.replace(
        open_catalog(shapes_folder), root=cloud
    )
    np.testing.assert_array_equal(clips_of(cloud), clips_of(shapes_folder))


def test_a_folder_of_videos_at_an_address_must_be_listed(cloud):
    files.write_text(files.join(cloud, "class", "a.mp4"), "x")
    with pytest.raises(ValueError, match=r"must be listed: put a labels\.csv"):
        open_catalog(cloud)
    with pytest.raises(FileNotFoundError, match="no such folder or file"):
        open_catalog(files.join(cloud, "none.csv"))


def test_shards_of_a_web_server_are_found_by_their_manifest(web, shards_folder):
    place = web.address + "/shards"
    np.testing.assert_array_equal(clips_of(place), clips_of(shards_folder))
    shards = [path for path, _ in web.asked if path.endswith(".tfrecord")]
    wanted = sorted(shards_folder.glob("train-*.tfrecord"))
    # Each is asked for its size, then fetched, once for all epochs.
    assert sorted(shards) == sorted(2 * [f"/shards/{p.name}" for p in wanted])
    clips_of(place)
    assert all(
        asked is None or asked.startswith("bytes") for _, asked in web.asked
    )


def test_a_shard_that_a_web_server_lacks_is_named(shards_folder, tmp_path):
    shutil.copytree(shards_folder, tmp_path / "shards")
    gone = min((tmp_path / "shards").glob("train-*.tfrecord"))
    gone.unlink()
    told = []
    with serve(tmp_path) as server:
        place = server.address + "/shards"
        whole = clips_of(shards_folder)
        found = clips_of(place, on_skip=lambda *line: told.append(line))
    # Others take its clips' places.
    assert found.shape == whole.shape
    assert told[0][0] == f"{place}/{gone.name}"
    assert "no such file" in told[0][1]


def test_a_connection_that_breaks_amid_a_shard_is_mended(web, shards_folder):
    web.cuts, web.after = 12, 5000
    place = web.address + "/shards"
    np.testing.assert_array_equal(clips_of(place), clips_of(shards_folder))
    assert not web.cuts
    assert any(asked for _, asked in web.asked)


def test_a_connection_that_keeps_breaking_is_no_damage(web, shapes):
    """It ends the work with one line; nothing is skipped for it."""
    place = web.address + "/shards"
    told = []
    catalog = open_catalog(place).where("train")
    found = training_clips(
        catalog, SPEC, 8, on_skip=lambda *line: told.append(line)
    )
    web.cuts, web.after, web.ranges = 10**6, 5000, False
    with pytest.raises(Exception, match="the connection broke"):
        next(iter(found))
    assert not told


def test_a_run_is_read_from_a_web_server_and_not_written(
    shapes, tmp_path, shards_folder
):
    fit.train(TINY, fit.split(shapes), tmp_path / "run", verbose=0, say=quiet)
    with serve(tmp_path) as server:
        place = server.address + "/run"
        opened = open_model(place)
        assert opened.classes == shapes.classes
        with pytest.raises(RunError, match="holds a run already"):
            fit.train(TINY, fit.split(shapes), place, say=quiet)
        with pytest.raises(RunError, match="read only"):
            fit.train(
                TINY, fit.split(shapes), server.address + "/new", say=quiet
            )

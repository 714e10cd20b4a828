"""Folders of histograms, of small drawn videos."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_codebook import plain_vector

from keras_videofusion import cli
from keras_videofusion.baseline import histograms as module
from keras_videofusion.baseline.descriptors import describe
from keras_videofusion.baseline.histograms import (
    CODEBOOKS,
    compute,
    load_codebooks,
    vector_of,
)
from keras_videofusion.baseline.settings import Settings
from keras_videofusion.data.catalog import Catalog, open_catalog
from keras_videofusion.data.vectors import read_vectors, write_vectors
from keras_videofusion.data.video import VideoError

for _name in ("sklearn", "skimage", "cv2", "scipy"):
    pytest.importorskip(
        _name, reason="needs pip install 'keras-videofusion[baseline]'"
    )

TINY = Settings(
    side=48,
    hog_dense_words=9,
    hog_corners_words=8,
    texton_dense_words=7,
    texton_corners_words=6,
    texton_stride=12,
    corners=8,
    cuboid_points_words=5,
    cuboid_dense_words=6,
    cuboid_numbers=4,
    cuboid_rate=20,
    cuboid_threshold=1e-5,
    hues=4,
    saturations=2,
    colour_words=4,
    face_scale=2.0,
    sample=400,
    cuboid_sample=100,
)
CODE = module._CODE


@pytest.fixture(scope="module")
def data(shapes_folder, tmp_path_factory):
    """Five films: three to learn, one to validate, one to test."""
    folder = tmp_path_factory.mktemp("data")
    found = open_catalog(shapes_folder)
    videos = []
    for split, count in (("train", 3), ("validation", 1), ("test", 1)):
        for video in found.where(split).videos[:count]:
            name = video.path.replace("/", "-")
            shutil.copy(found.file(video), folder / name)
            videos.append(replace(video, path=name))
    return Catalog(tuple(videos), found.classes, str(folder))


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    """Their histograms, by one worker. Change nothing in it."""
    out = tmp_path_factory.mktemp("made") / "out"
    compute(data, out, TINY, workers=1)
    return out


@pytest.fixture
def copied(data, tmp_path):
    """The films in a folder of the test's own."""
    folder = tmp_path / "copied"
    shutil.copytree(data.root, folder)
    return replace(data, root=str(folder))


def contents(folder):
    """Bytes of all files, but for where the data lay."""
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }
    manifest = json.loads(found["manifest.json"])
    del manifest["source"]
    return {**found, "manifest.json": manifest}


def rows(folder):
    found = read_vectors(folder)
    return np.concatenate([found.rows(row) for row in range(len(found))])


def test_a_folder_of_vectors_and_words_is_made(data, made):
    found = read_vectors(made)

    assert sorted(os.listdir(made)) == [
        "catalog.csv", "classes.txt", "codebooks.npz", "manifest.json",
        "vectors-00000.npy",
    ]  # fmt: skip
    assert (found.kind, found.size, found.each) == ("histograms", TINY.size, 1)
    assert found.blocks == TINY.spans
    assert Settings.from_json(found.settings["settings"]) == TINY
    assert found.settings["learned_from"] == 3
    assert found.catalog.videos == data.videos
    assert found.catalog.classes == data.classes
    assert load_codebooks(made).settings == TINY


def test_every_histogram_sums_to_1_in_the_blocks_order(made):
    vectors = rows(made)

    assert vectors.shape == (5, TINY.size)
    begin = 0
    for block in TINY.blocks:
        for _ in range(block.cells):
            part = vectors[:, begin : begin + block.words]
            np.testing.assert_allclose(part.sum(1), 1, rtol=1e-5)
            begin += block.words
    # Nothing is empty: that would make the sums easy.
    for name, (begin, _) in TINY.spans.items():
        if name not in ("faces", "hue_saturation"):
            assert len(np.unique(vectors[:, begin : begin + 4])) > 4, name


def test_vectors_are_those_of_a_plain_computation(data, made):
    books = load_codebooks(made)
    runs = list(describe(data.file(data[4]), TINY))

    np.testing.assert_allclose(
        rows(made)[4], plain_vector(runs, books), rtol=2e-3, atol=1e-6
    )


def test_the_vector_of_a_film_is_its_row(data, made):
    books = load_codebooks(made)

    vector = vector_of(data.file(data[3]), books)

    np.testing.assert_array_equal(vector, rows(made)[3])
    part = vector_of(data.file(data[3]), books, start=0.2, end=0.5)
    assert part.shape == vector.shape
    assert not np.array_equal(part, vector)


def test_two_workers_write_the_same_bytes(data, made, tmp_path):
    told = []

    found = compute(
        data,
        tmp_path / "out",
        TINY,
        workers=2,
        progress=lambda *said: told.append(said),
    )

    assert contents(tmp_path / "out") == contents(made)
    assert (found["videos"], found["computed"]) == (5, 5)
    assert found["frames"] == 5 * 24
    assert found["skipped"] == []
    for what, total in (
        ("videos sampled", 3),
        ("blocks learned", 7),
        ("videos described", 5),
    ):
        done = [said[1:] for said in told if said[0] == what]
        assert done == [(step, total) for step in range(total + 1)]


def test_words_are_learned_of_training_videos_alone(copied, made, tmp_path):
    for video in copied.videos[3:]:
        shutil.copy(copied.file(copied[0]), copied.file(video))

    compute(copied, tmp_path / "out", TINY, workers=1)

    assert contents(tmp_path / "out")[CODEBOOKS] == contents(made)[CODEBOOKS]
    # The rows of the others are now the first's.
    vectors = rows(tmp_path / "out")
    np.testing.assert_array_equal(vectors[3:], vectors[[0, 0]])
    np.testing.assert_array_equal(vectors[:3], rows(made)[:3])


def test_finished_work_is_left_and_other_work_is_refused(data, made, tmp_path):
    before = contents(made)

    found = compute(data, made, TINY, workers=1)

    assert (found["videos"], found["computed"]) == (5, 0)
    assert contents(made) == before
    other = replace(TINY, neighbours=1)
    for difference, arguments in (
        ("seed", {"catalog": data, "settings": TINY, "seed": 1}),
        ("neighbours", {"catalog": data, "settings": other}),
        ("rows", {"catalog": data.where("train"), "settings": TINY}),
    ):
        with pytest.raises(ValueError, match="pass --overwrite") as refused:
            compute(out=made, workers=1, **arguments)
        assert str(refused.value).endswith(f"Different: {difference}")
    assert contents(made) == before


@pytest.fixture
def workers_do(monkeypatch):
    """Lets worker processes run a line before they answer."""

    def patch(line):
        monkeypatch.setattr(
            module,
            "_CODE",
            CODE.replace(
                "serve()",
                "import keras_videofusion.baseline.histograms as it, os\n"
                "answer = it._answer\n"
                "def before(question):\n"
                f"    {line}\n"
                "    return answer(question)\n"
                "it._answer = before\nserve()",
            ),
        )

    return patch


def killed(catalog, out, keep, at):
    """Starts the work and kills it when a file stands."""
    process = subprocess.Popen(
        [
            sys.executable, "-c",
            # As the workers do: without Keras, which takes seconds.
            CODE.replace(
                "from keras_videofusion.baseline.histograms import serve",
                "import json\n"
                "from keras_videofusion.baseline.histograms import *\n"
                "from keras_videofusion.data.catalog import Catalog, Video\n"
                "rows, classes, root, settings, out, keep = "
                "json.loads(sys.argv[2])\n"
                "rows = [Video(p, tuple(l), split=s) for p, l, s in rows]\n",
            ).replace(
                "serve()",
                "compute(Catalog(tuple(rows), tuple(classes), root), out, "
                "Settings(**settings), workers=1, keep=keep)",
            ),
            str(Path(module.__file__).parents[2]),
            json.dumps([
                [[v.path, v.labels, v.split] for v in catalog],
                catalog.classes, catalog.root, TINY.to_json(), str(out), keep,
            ]),
        ],
        start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 120
        while not (out / "work" / at).exists():
            assert process.poll() is None, "it ended by itself"
            assert time.monotonic() < until, f"{at} does not come"
            time.sleep(0.005)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_killed_work_goes_on_and_ends_with_the_same_bytes(
    data, tmp_path, workers_do
):
    plain = replace(
        data,
        videos=tuple(replace(v, group=None, family=None) for v in data),
    )
    whole, out = tmp_path / "whole", tmp_path / "out"
    compute(plain, whole, TINY, workers=1)

    killed(plain, out, None, "sample-00001.npz")
    assert read_vectors(out) is None
    killed(plain, out, None, "vector-00001.npz")
    sampled = (out / "work" / "sample-00001.npz").stat().st_mtime_ns
    # Between the last files, too.
    (out / "catalog.csv").write_text("path,label\n")
    with pytest.raises(ValueError, match="Different: kept"):
        compute(plain, out, TINY, workers=1, keep=tmp_path / "keep")
    assert (out / "work" / "sample-00001.npz").stat().st_mtime_ns == sampled
    log = tmp_path / "log"
    workers_do(f"print(question['do'], file=open({str(log)!r}, 'a'))")
    found = compute(plain, out, TINY, workers=1)

    # What had been done was not done again.
    assert log.read_text().split() == ["vector"] * found["computed"]
    assert found["computed"] <= 3
    assert contents(out) == contents(whole)


def test_kept_descriptors_are_not_computed_again(copied, made, tmp_path):
    keep = tmp_path / "keep"
    first = compute(copied, tmp_path / "a", TINY, workers=1, keep=keep)
    assert len(list(keep.iterdir())) == 5
    # Half the figures, and nearly the same words and histograms.
    vectors = rows(tmp_path / "a")
    assert 0 < np.abs(vectors - rows(made)).max() < 0.1

    # Nobody could compute them now: of the same size and time it is another.
    for video in copied:
        path = Path(copied.file(video))
        times = os.stat(path)
        path.write_bytes(bytes(times.st_size))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    again = compute(copied, tmp_path / "b", TINY, workers=1, keep=keep)
    fold = replace(
        copied,
        videos=tuple(
            replace(video, split="train" if place else "test")
            for place, video in enumerate(copied)
        ),
    )
    other = replace(TINY, hog_dense_words=5, neighbours=2, cuboid_numbers=3)
    compute(fold, tmp_path / "c", other, seed=5, workers=1, keep=keep)

    assert first["frames"] == again["frames"] == 5 * 24
    assert contents(tmp_path / "b") == contents(tmp_path / "a")
    assert rows(tmp_path / "c").shape == (5, other.size)
    # What descriptors depend on makes others.
    finer = replace(TINY, texton_stride=6)
    with pytest.raises(ValueError, match="none of 3 can be read"):
        compute(copied, tmp_path / "d", finer, workers=1, keep=keep)


def test_damaged_kept_descriptors_are_named_or_made_again(copied, tmp_path):
    keep = tmp_path / "keep"
    one = replace(copied, videos=copied.videos[:1])
    compute(one, tmp_path / "a", TINY, workers=1, keep=keep)
    (file,) = keep.iterdir()
    whole = file.read_bytes()

    file.write_bytes(whole[:-100])  # no longer a file of arrays
    compute(one, tmp_path / "b", TINY, workers=1, keep=keep)
    assert file.read_bytes() == whole
    assert contents(tmp_path / "a") == contents(tmp_path / "b")

    damaged = bytearray(whole)
    damaged[len(whole) // 3] ^= 255
    file.write_bytes(damaged)
    with pytest.raises(VideoError, match=f"are damaged, delete {file}"):
        compute(
            one, tmp_path / "c", TINY, workers=1, keep=keep, on_error="raise"
        )


def test_broken_films_are_skipped_and_named(copied, tmp_path):
    for place in (1, 3):
        Path(copied.file(copied[place])).write_bytes(b"no film")

    found = compute(copied, tmp_path / "out", TINY, workers=2)

    assert [row["path"] for row in found["skipped"]] == [
        copied[1].path,
        copied[3].path,
    ]
    assert found["videos"] == 3
    assert found["learned_from"] == 2
    made = read_vectors(tmp_path / "out")
    assert made.skipped == found["skipped"]
    assert made.catalog.videos == (copied[0], copied[2], copied[4])
    with pytest.raises(VideoError, match=copied[1].path):
        compute(copied, tmp_path / "not", TINY, workers=1, on_error="raise")


def test_what_kills_a_worker_is_skipped(data, tmp_path, workers_do):
    workers_do(
        f"if question.get('path', '').endswith({data[4].path!r}): "
        "os.kill(os.getpid(), 11)"
    )

    found = compute(data, tmp_path / "out", TINY, workers=1)

    (row,) = found["skipped"]
    assert row == {
        "path": data[4].path,
        "error": "describing it crashed (SIGSEGV)",
    }


@pytest.mark.parametrize(
    ("library", "name"),
    [("sklearn.cluster", "scikit-learn"), ("cv2", "OpenCV")],
)
def test_a_library_that_is_missing_ends_the_work(
    data, tmp_path, workers_do, library, name
):
    workers_do(f"import sys; sys.modules[{library!r}] = None")

    with pytest.raises(ImportError, match=f"need {name}.*: pip install"):
        compute(data, tmp_path / "out", TINY, workers=1)


def test_samples_do_not_depend_on_how_many_come_at_a_time():
    values = np.arange(500, dtype=np.float32)[:, None]

    def drawn(*cuts):
        sample = module._Sample(60, np.random.default_rng(1))
        for part in np.split(values, cuts):
            sample.add(part)
        return sample

    whole = drawn()
    keys = np.random.default_rng(1).random(500)
    np.testing.assert_array_equal(whole.values, values[np.argsort(keys)[:60]])
    for cuts in ((10,), (50, 60, 61, 300), tuple(range(0, 500, 7))):
        np.testing.assert_array_equal(drawn(*cuts).values, whole.values)
        np.testing.assert_array_equal(drawn(*cuts).keys, whole.keys)


def test_of_many_training_videos_some_are_drawn(data, monkeypatch):
    monkeypatch.setattr(module, "VIDEOS", 2)

    def learners(catalog, seed=0):
        job = module._Job(catalog, "out", TINY, seed, None, "skip")
        return job._learners()

    chosen = learners(data)
    assert len(chosen) == 2
    assert set(chosen) < {0, 1, 2}
    # Which they are depends on names, not on who else is there.
    assert learners(data.where("train")) == chosen
    assert len({tuple(learners(data, seed)) for seed in range(9)}) == 3


def test_what_cannot_be_right_is_said_in_a_line(data, made, tmp_path):
    def refused(reason, catalog=data, out=None, **arguments):
        with pytest.raises(ValueError, match=reason):
            compute(catalog, out or tmp_path / "out", TINY, **arguments)

    refused("workers=0", workers=0)
    refused("seed=-1", seed=-1)
    refused("on_error='stop'", on_error="stop")
    refused('split "train"', catalog=data.where("test"))
    refused("a folder of their own", out=data.root)
    refused("made of video files", catalog=open_catalog(made))
    (tmp_path / "out" / "work").mkdir(parents=True)
    (tmp_path / "out" / "work" / "thesis.txt").write_text("mine")
    refused("something else", overwrite=True)
    (tmp_path / "out" / "work" / "plan.json").write_text("{}")
    refused("something else", overwrite=True)
    assert (tmp_path / "out" / "work" / "thesis.txt").read_text() == "mine"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "catalog.csv").write_text("mine")
    refused("something else", out=tmp_path / "other")
    with pytest.raises(ValueError, match="no codebooks.npz"):
        load_codebooks(tmp_path)


def test_features_of_a_network_are_no_histograms(data, tmp_path):
    write_vectors(tmp_path, data, 3, np.zeros((5, 3)), kind="features")

    with pytest.raises(ValueError, match="pass --overwrite"):
        compute(data, tmp_path, TINY, workers=1)


TOLD = [
    f"--set={name}={value}"
    for name, value in TINY.to_json().items()
    if name not in ("side", "fit") and value != getattr(Settings(), name)
]


def videofusion(*arguments):
    return cli.run(cli.parse(["histograms", *map(str, arguments)]))


def test_the_verb_makes_a_folder_and_tells_of_it(
    shapes_folder, tmp_path, capsys
):
    folder = tmp_path / "data"
    for name in ("down/scene0000.mp4", "up/scene0000.mp4", "up/scene0001.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shapes_folder / name, folder / name)
    (folder / "up" / "broken.mp4").write_bytes(b"no film")
    call = [
        folder, tmp_path / "out", "--size=48", *TOLD, "--workers=1",
        "--validation-split=0", r"--group-pattern=\w+\.", "--fold=2/3",
        "--keep", tmp_path / "keep", "--json", tmp_path / "told.json",
    ]  # fmt: skip

    status = videofusion(*call)

    said = capsys.readouterr()
    assert status == 1  # for the broken one
    assert "skipped up/broken.mp4: " in said.err
    assert "4 of 4 videos described" in said.err
    assert f"3 videos of {TINY.size:,} numbers, 1 skipped" in said.out
    assert "72 frames in " in said.out
    told = json.loads((tmp_path / "told.json").read_text())
    assert (told["videos"], told["computed"], told["frames"]) == (3, 3, 72)
    assert [row["path"] for row in told["skipped"]] == ["up/broken.mp4"]
    made = read_vectors(tmp_path / "out")
    assert Settings.from_json(made.settings["settings"]) == TINY
    assert {video.split for video in made.catalog} == {"train", "test"}

    assert videofusion(*call, "--seed=1") == 1
    assert "pass --overwrite" in capsys.readouterr().err
    assert videofusion(*call, "--seed=1", "--overwrite") == 1
    assert read_vectors(tmp_path / "out").settings["seed"] == 1


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--set=ears=2", "no such fields"),
        ("--set=hues=0", "`hues` must be"),
        ("--size=3", "`side` must be"),
        ("--fold=9/3", "`fold` must be"),
        ("--test-split=2", "`held_out` must be"),
    ],
)
def test_a_wrong_call_is_status_2(
    shapes_folder, tmp_path, flag, reason, capsys
):
    assert videofusion(shapes_folder, tmp_path / "out", flag) == 2

    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1

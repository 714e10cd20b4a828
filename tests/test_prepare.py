"""Shards as they are written: the same bytes whoever works and dies."""

import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_videofusion import cli
from keras_videofusion.data import files
from keras_videofusion.data import prepare as writing
from keras_videofusion.data.catalog import Catalog, open_catalog, Video
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.flow import open_flow
from keras_videofusion.data.manifest import read_manifest
from keras_videofusion.data.prepare import prepare
from keras_videofusion.data.video import decode, read_clips, VideoError

RATE = 30  # frames per second of the shapes
SPEC = ClipSpec(frames=4, step=2, resize=("square", 40), size=(32, 30))


def records(folder, split=""):
    """Every record of the shards of a split, in order."""
    for path in sorted(Path(folder).glob(f"{split}*.tfrecord")):
        for data in tf.data.TFRecordDataset(str(path)):
            yield tf.train.Example.FromString(data.numpy()).features.feature


def contents(folder):
    """Names and bytes of all that stands in a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def psnr(first, second):
    """Decibels between two arrays of bytes."""
    error = np.square(first.astype(float) - second.astype(float)).mean()
    return 10 * np.log10(255**2 / error)


def pictures(record, name="frames"):
    return np.stack(
        [tf.io.decode_jpeg(j) for j in record[name].bytes_list.value]
    )


def one(record, name):
    kind = record[name].WhichOneof("kind")
    (value,) = getattr(record[name], kind).value
    return value


@pytest.fixture(scope="module")
def stored(shapes_folder, tmp_path_factory):
    """All of the shapes, five clips of each video. Change nothing in it."""
    out = tmp_path_factory.mktemp("prepared") / "shards"
    prepare(open_catalog(shapes_folder), out, SPEC, clips=5)
    return out


@pytest.fixture
def few(shapes):
    return dataclasses.replace(shapes, videos=shapes.videos[::4])


# What is stored.


def test_a_record_is_a_clip_of_its_video(stored, shapes):
    found = list(records(stored))
    assert len(found) == 5 * len(shapes)
    for record in found[::7]:
        video = shapes[one(record, "video")]
        assert one(record, "path").decode() == video.path
        assert shapes.classes[one(record, "labels")] == video.labels[0]
        start = round(one(record, "start") * RATE)
        direct = decode(shapes.file(video), start + SPEC.offsets, SPEC.resize)
        # Flat drawings with sharp edges are JPEG's worst case.
        assert psnr(pictures(record), direct) > 28


def test_real_clips_lose_little_and_a_shifted_frame_would_show(
    shared, tmp_path
):
    whole = open_catalog(shared / "data/ut-interaction-set1")
    some = dataclasses.replace(whole, videos=whole.videos[::12])
    spec = ClipSpec(10)
    prepare(some, tmp_path / "out", spec, clips=2)
    for record in records(tmp_path / "out"):
        video = some[one(record, "video")]
        from keras_videofusion.data.video import timeline

        times = timeline(some.file(video)).times
        start = int(np.argmin(abs(times - one(record, "start"))))
        frames = np.minimum(start + np.arange(11), len(times) - 1)
        direct = decode(some.file(video), frames, spec.resize)
        found = pictures(record)
        assert psnr(found, direct[:10]) > 40
        # The controls: a column aside, and a frame late where things move.
        assert (
            psnr(found[:, :, 1:], direct[:10, :, :-1])
            < psnr(found, direct[:10]) - 2
        )
        moved = np.square(np.diff(direct.astype(float), axis=0)).mean()
        if moved > 10:
            assert psnr(found, direct[1:]) < 38


def test_clips_of_a_video_are_neighbours_and_none_is_stored_twice(stored):
    found = [
        (one(r, "video"), one(r, "clip"), one(r, "start"))
        for r in records(stored)
    ]
    videos = [video for video, _ in groupby(found, key=lambda row: row[0])]
    assert len(videos) == len(set(videos))
    for _, clips in groupby(found, key=lambda row: row[0]):
        _, numbers, starts = zip(*clips, strict=True)
        assert numbers == (0, 1, 2, 3, 4)
        assert len(set(starts)) == 5
    assert videos != sorted(videos)


def test_splits_have_shards_of_their_own(stored, shapes):
    for split in ("train", "validation", "test"):
        rows = {one(r, "video") for r in records(stored, split)}
        assert {shapes[row].split for row in rows} == {split}


def test_a_short_video_gives_no_more_clips_than_it_has_starts(few, tmp_path):
    # 24 frames, of which a clip spans 21: it may begin at four.
    spec = dataclasses.replace(SPEC, frames=11)
    prepare(few, tmp_path / "out", spec, clips=9)
    assert {r for r in read_manifest(tmp_path / "out").index[:, 2]} == {4}
    # 24 frames, of which a clip spans 27: one, which holds the last frame.
    spec = dataclasses.replace(SPEC, frames=14)
    prepare(few, tmp_path / "held", spec, clips=9)
    for record in records(tmp_path / "held"):
        *_, before, last = record["frames"].bytes_list.value
        assert before == last


def test_uniform_clips_stand_where_the_direct_ones_do(few, tmp_path):
    prepare(few, tmp_path / "out", SPEC, clips=3, sampler="uniform")
    starts = [one(record, "start") for record in records(tmp_path / "out")]
    _, direct = read_clips(few.file(few[0]), SPEC, "uniform", 3)
    np.testing.assert_allclose(starts[:3], direct, atol=1e-5)


def test_segments_are_kept_to(few, tmp_path):
    part = tuple(
        dataclasses.replace(video, start=10 / RATE, end=20 / RATE)
        for video in few
    )
    few = dataclasses.replace(few, videos=part)
    prepare(few, tmp_path / "out", SPEC, clips=99)
    starts = {round(RATE * one(r, "start")) for r in records(tmp_path / "out")}
    assert starts == {10, 11, 12, 13}


def test_the_manifest_counts_and_names(stored, shapes):
    manifest = json.loads((stored / "manifest.json").read_text())
    assert manifest["records"] == 5 * len(shapes)
    assert manifest["videos"] == len(shapes)
    assert manifest["skipped"] == []
    assert manifest["classes"] == list(shapes.classes)
    assert manifest["recipe"]["clip"] == SPEC.to_json()
    for shard in manifest["shards"]:
        path = stored / shard["name"]
        assert path.stat().st_size == shard["bytes"]
        with open(path, "rb") as file:
            assert writing._digest(file) == shard["sha256"]
    assert set(contents(stored)) == {
        "manifest.json", "catalog.csv", "classes.txt", "index.csv",
        *(shard["name"] for shard in manifest["shards"]),
    }  # fmt: skip


def test_a_folder_of_shards_is_a_catalog(stored, shapes):
    found = open_catalog(stored)
    assert found.videos == shapes.videos
    assert found.classes == shapes.classes
    assert found.root == str(stored)


def test_shards_are_of_about_the_size_that_is_asked_for(
    few, tmp_path, monkeypatch
):
    monkeypatch.setattr(writing, "SHARDS", 1)
    monkeypatch.setattr(writing, "_videos_per_shard", lambda *_: 3)
    manifest = prepare(few, tmp_path / "out", SPEC, clips=1)
    counts = [shard["videos"] for shard in manifest["shards"]]
    assert max(counts) <= 3
    assert sum(counts) == len(few)


def test_what_a_video_takes_is_measured(few, tmp_path):
    found = prepare(few, tmp_path / "out", SPEC, clips=2, shard_megabytes=1)
    each = found["bytes"] / found["videos"]
    assert found["videos_per_shard"] == pytest.approx(1e6 / each, rel=0.3)


def test_flow_is_stored_as_x_and_y_within_a_byte_or_two(
    few, shapes_flow, tmp_path
):
    spec = dataclasses.replace(
        SPEC, step=1, streams=("rgb", "flow"), resize=("square", 64)
    )
    prepare(few, tmp_path / "out", spec, clips=2, flow=shapes_flow)
    source = open_flow(shapes_flow, few.root)
    for record in records(tmp_path / "out"):
        video = few[one(record, "video")]
        start = one(record, "start")
        clips, _ = read_clips(
            few.file(video), spec, "uniform", 1, None, start,
            start + 4.5 / RATE, flow=source,
        )  # fmt: skip
        direct = np.moveaxis(clips["flow"][0], -1, 1).reshape(-1, 64, 64)
        found = pictures(record, "flow")[..., 0]
        assert abs(found.astype(int) - direct).mean() < 1


def test_whole_videos_lie_in_parts(few, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "PART", 10)
    prepare(few, tmp_path / "out", short_side=48)
    found = list(records(tmp_path / "out"))
    assert len(found) == 3 * len(few)
    for video, parts in groupby(found, key=lambda r: one(r, "video")):
        parts = list(parts)
        assert [one(part, "first") for part in parts] == [0, 8, 16]
        assert {one(part, "total") for part in parts} == {24}
        times = [t for p in parts for t in p["times"].int64_list.value]
        np.testing.assert_allclose(times, np.arange(24) * 1e6 / RATE, atol=1)
        frames = np.concatenate([pictures(part) for part in parts])
        direct = decode(few.file(few[video]), range(24), ("short_side", 48))
        assert psnr(frames, direct) > 30


# The same bytes.


def test_any_number_of_workers_writes_the_same_bytes(stored, shapes, tmp_path):
    prepare(shapes, tmp_path / "out", SPEC, clips=5, workers=3)
    assert contents(tmp_path / "out") == contents(stored)


def test_the_seed_draws_other_clips(few, tmp_path):
    for seed in range(2):
        prepare(few, tmp_path / str(seed), SPEC, clips=1, seed=seed)
    zero, one = (contents(tmp_path / str(seed)) for seed in range(2))
    assert zero["index.csv"] != one["index.csv"]
    assert zero["train-00000.tfrecord"] != one["train-00000.tfrecord"]


class Killed(BaseException):
    """What a test kills with."""


def test_a_death_at_any_write_loses_nothing(few, tmp_path, monkeypatch):
    """Dies at the first file, at the second, and so on until none is left."""
    few = dataclasses.replace(few, videos=few.videos[:4])
    prepare(few, tmp_path / "whole", SPEC, clips=2, workers=1)
    left, deaths = 0, 0
    replace = os.replace

    def dying(*names):
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        replace(*names)

    monkeypatch.setattr(files.os, "replace", dying)
    out = tmp_path / "out"
    while True:
        left = deaths
        try:
            prepare(few, out, SPEC, clips=2, workers=1)
            break
        except Killed:
            assert not (out / "manifest.json").exists()
            assert read_manifest(out) is None
            shutil.rmtree(out)
            deaths += 1
    assert deaths > 8
    # And goes on where it was: a write further every time.
    shutil.rmtree(out)
    for _ in range(deaths):
        left = 4  # three files of the plan, and one of the work
        try:
            prepare(few, out, SPEC, clips=2, workers=1)
            break
        except Killed:
            continue
    left = 99
    prepare(few, out, SPEC, clips=2, workers=1)
    assert contents(out) == contents(tmp_path / "whole")


def test_what_stands_is_not_written_again(few, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first, count = writing.write_shard, 0

    def some(task):
        nonlocal count
        count += 1
        if count == 4:
            raise Killed
        return first(task)

    monkeypatch.setattr(writing, "write_shard", some)
    with pytest.raises(Killed):
        prepare(few, out, SPEC, clips=1, workers=1)
    stood, count = len(list((out / "parts").iterdir())), 10
    assert stood >= 3
    manifest = prepare(few, out, SPEC, clips=1, workers=1)
    assert count - 10 == len(manifest["shards"]) - stood


DYING = """
import sys
from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.prepare import prepare
spec = ClipSpec(frames=4, step=2, resize=("square", 40), size=(32, 30))
print("ready", flush=True)
prepare(open_catalog(sys.argv[1]), sys.argv[2], spec, clips=5, workers=2)
"""


def test_a_process_that_is_killed_goes_on(stored, shapes_folder, tmp_path):
    out = tmp_path / "out"
    for shards in (1, 9, 20):
        with subprocess.Popen(
            [sys.executable, "-c", DYING, str(shapes_folder), str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            process.stdout.readline()
            while len(list(out.glob("*.tfrecord"))) < shards:
                assert process.poll() is None, "it ended before it was killed"
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        assert not (out / "manifest.json").exists()
    (out / f".draft-{process.pid}-train-00001.tfrecord").write_bytes(b"half")
    prepare(open_catalog(shapes_folder), out, SPEC, clips=5)
    assert contents(out) == contents(stored)


def test_a_finished_folder_is_mended(stored, shapes, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(stored, out)
    before = contents(out)
    (out / "train-00003.tfrecord").unlink()
    damaged = bytearray((out / "test-00002.tfrecord").read_bytes())
    damaged[200] ^= 1
    (out / "test-00002.tfrecord").write_bytes(damaged)
    prepare(shapes, out, SPEC, clips=5)
    assert contents(out) == before


@pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason="needs pip install 'keras-videofusion[beam]'",
)
def test_beam_writes_the_same_shards(few, tmp_path):
    few.save(tmp_path / "few.csv")
    here = dataclasses.replace(few, root=str(tmp_path))
    for video in few:
        (tmp_path / video.path).parent.mkdir(exist_ok=True)
        shutil.copy(few.file(video), here.file(video))
    words = [tmp_path / "few.csv", "--frames", 4, "--clips", 2]
    for runner in ("local", "direct"):
        subprocess.run(
            [
                sys.executable, "-m", "keras_videofusion", "prepare",
                *map(str, words), "--runner", runner, "--workers", "2",
                # DATA and OUT in this order.
                str(tmp_path / runner),
            ],
            check=True,
            capture_output=True,
            cwd=Path(__file__).parents[1],
        )  # fmt: skip
    assert contents(tmp_path / "direct") == contents(tmp_path / "local")


def test_beam_is_asked_for_by_name_where_it_is_missing(
    few, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"keras-videofusion\[beam\]"):
        prepare(few, tmp_path / "out", SPEC, runner="direct")


# What is wrong.


def test_broken_videos_are_named_and_the_others_kept(shapes, tmp_path):
    videos = (*shapes.videos[:6], Video("gone.mp4", ("up",)))
    some = dataclasses.replace(shapes, videos=videos)
    found = prepare(some, tmp_path / "out", SPEC, clips=2)
    (skipped,) = found["skipped"]
    assert skipped["path"] == "gone.mp4"
    assert skipped["error"] == "no such file"
    assert found["records"] == 12
    with pytest.raises(VideoError, match="gone.mp4"):
        prepare(some, tmp_path / "other", SPEC, on_error="raise")


def test_nothing_readable_is_an_error(shapes, tmp_path):
    none = Catalog((Video("gone.mp4", ("up",)),), ("up",), shapes.root)
    with pytest.raises(ValueError, match="none of the 1 videos"):
        prepare(none, tmp_path / "out", SPEC)
    assert not (tmp_path / "out/manifest.json").exists()


def test_other_settings_need_overwrite(stored, shapes, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(stored, out)
    with pytest.raises(ValueError, match=r"clips=4 \(was 5\).*--overwrite|"
                       r"--overwrite.*clips=4 \(was 5\)"):  # fmt: skip
        prepare(shapes, out, SPEC, clips=4)
    assert contents(out) == contents(stored)
    found = prepare(shapes, out, SPEC, clips=4, overwrite=True)
    assert found["records"] == 4 * len(shapes)


def test_a_strangers_folder_is_left_alone(few, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"holds no shards.*thesis\.tex"):
        prepare(few, tmp_path, SPEC)
    assert set(contents(tmp_path)) == {"thesis.tex"}


def test_shards_of_shards_are_refused(stored, tmp_path):
    with pytest.raises(ValueError, match="holds shards already"):
        prepare(open_catalog(stored), tmp_path / "out", SPEC)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clips", 0),
        ("quality", 0),
        ("quality", 101),
        ("chroma", "4:2:2"),
        ("sampler", "dense"),
        ("short_side", 0),
        ("shard_megabytes", 0),
        ("seed", -1),
        ("workers", 0),
        ("runner", "ray"),
        ("on_error", "ignore"),
    ],
)
def test_errors_name_the_argument(few, tmp_path, name, value):
    with pytest.raises(ValueError, match=f"Received: {name}="):
        prepare(few, tmp_path / "out", SPEC, **{name: value})


def test_flow_is_asked_for(few, tmp_path):
    spec = dataclasses.replace(SPEC, streams=("flow",))
    with pytest.raises(ValueError, match="flow=None"):
        prepare(few, tmp_path / "out", spec)


def test_a_full_disk_is_one_line(few, tmp_path, monkeypatch):
    class Full:
        def __init__(self, name):
            raise tf.errors.ResourceExhaustedError(None, None, "disk full")

    monkeypatch.setattr(writing.tf.io, "TFRecordWriter", Full)
    with pytest.raises(OSError, match="cannot be written: disk full"):
        prepare(few, tmp_path / "out", SPEC, clips=1)


def test_the_verb_tells_and_returns(shapes_folder, tmp_path, capsys):
    data = tmp_path / "videos"
    shutil.copytree(shapes_folder / "up", data / "up")
    (data / "up/empty.mp4").write_bytes(b"")

    def call(*words):
        words = ["prepare", data, tmp_path / "out", "--clips", 2, *words]
        return cli.run(cli.parse([str(word) for word in words]))

    assert call("--model", "slow_fusion", "--size", 34) == 1
    found = capsys.readouterr()
    assert "skipped up/empty.mp4: the file is empty" in found.err
    assert "14 clips, 1 skipped; " in found.out
    spec = read_manifest(tmp_path / "out").spec
    assert (spec.frames, spec.size, spec.resize) == (
        10, (34, 34), ("square", 40),
    )  # fmt: skip
    assert call("--frames", 3) == 1
    assert "pass --overwrite" in capsys.readouterr().err
    assert call("--all-frames", "--overwrite", "--json", "-") == 1
    assert json.loads(capsys.readouterr().out)["recipe"]["clip"] is None
    assert call("--model", "no_such") == 2

"""Clips per second: that they are counted, and who is called the bottleneck."""

import time

import numpy as np
import pytest

from keras_videofusion import benchmark
from keras_videofusion.benchmark import (
    benchmark_decoding,
    benchmark_network,
    benchmark_pipeline,
    bottleneck,
)
from keras_videofusion.data.catalog import Catalog, Video
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.video import decode

SPEC = ClipSpec(10, resize=("square", 40), size=32)


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by a second whenever it is looked at."""
    seconds = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(seconds)))
    worked = iter(range(0, 2000, 2))
    monkeypatch.setattr(time, "process_time", lambda: float(next(worked)))


@pytest.mark.parametrize("task", ["infer", "train"])
def test_networks_are_measured_in_clips(task, clock):
    row = benchmark_network(
        "single_frame",
        batch=2,
        steps=3,
        task=task,
        width=0.05,
        classes=4,
        input_shape=(1, 89, 89, 3),
    )

    assert row["name"] == "single_frame"
    assert row["task"] == task
    assert row["clips_per_second"] == 6
    assert row["batch"] == 2
    assert row["parameters"] > 0
    assert isinstance(row["device"], str)


def test_the_pipeline_is_measured_in_clips(shapes, clock):
    row = benchmark_pipeline(shapes, SPEC, batch=7, steps=2)

    # 28 videos: four whole batches an epoch, so none is ragged.
    assert len(shapes) == 28
    assert row == {
        "name": "pipeline",
        "task": "read",
        "clips_per_second": 14,
        "clips_per_core_second": 7,
        "batch": 7,
        "videos": 28,
        "skipped": 0,
    }


def test_broken_videos_are_counted(shapes, clock, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    whole = Video(shapes.file(shapes[0]), shapes[0].labels)
    broken = Video("broken.mp4", shapes[0].labels)
    catalog = Catalog((whole, broken), shapes.classes, str(tmp_path))

    row = benchmark_pipeline(catalog, SPEC, batch=2, steps=2)

    assert row["videos"] == 2
    assert row["skipped"] == 1


def test_decoding_is_measured_beside_plain_readers(shapes, clock):
    rows = {r["name"]: r for r in benchmark_decoding(shapes, SPEC, rounds=3)}

    assert list(rows)[:2] == ["decoding, ours", "decoding, PyAV"]
    for row in rows.values():
        assert row["task"] == "decode"
        assert (row["clips"], row["clips_per_second"], row["ratio"]) == (
            3,
            0.5,
            1,
        )


def test_plain_readers_give_the_same_frames(shapes):
    path = shapes.file(shapes[0])
    wanted = np.arange(5, 15)

    ours = decode(path, wanted).astype(float)

    for name, read in {
        "PyAV": benchmark._plainly_decoded,
        **benchmark._decord(),
    }.items():
        theirs = np.asarray(read(path, wanted), float)
        # Colours are rounded otherwise; a frame earlier is 10 and more off.
        assert abs(ours - theirs).mean() < 3, name


def test_what_no_reader_reads_is_no_measurement(shapes, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    catalog = Catalog(
        (Video("broken.mp4", shapes[0].labels),), shapes.classes, str(tmp_path)
    )

    with pytest.raises(ValueError, match="no video that all readers"):
        benchmark_decoding(catalog, SPEC, rounds=2)


def test_the_slower_one_is_the_bottleneck():
    network = {"name": "c3d", "task": "train", "clips_per_second": 20.0}

    slow = bottleneck(network, {"clips_per_second": 5.0})
    fast = bottleneck(network, {"clips_per_second": 50.0})

    assert "the pipeline is the bottleneck" in slow
    assert "the network is the bottleneck" in fast
    for sentence in (slow, fast):
        assert sentence.startswith("c3d, training")
        assert "20.0" in sentence


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("task", {"task": "sleep"}),
        ("batch", {"batch": 0}),
        ("steps", {"steps": 0}),
    ],
)
def test_wrong_arguments_are_refused_by_name(name, values):
    with pytest.raises(ValueError, match=rf"`{name}` must be.*Received"):
        benchmark_network("single_frame", **values)


def test_importing_the_benchmark_is_light():
    assert not hasattr(benchmark, "keras")
    assert not hasattr(benchmark, "tf")


def test_networks_of_two_streams_are_measured(clock):
    row = benchmark_network(
        "two_stream",
        batch=2,
        steps=3,
        task="train",
        width=0.03,
        classes=4,
        input_shape={"rgb": (1, 48, 48, 3), "flow": (10, 48, 48, 2)},
    )

    assert row["clips_per_second"] == 6


def test_the_pipeline_is_measured_with_flow(shapes, shapes_flow, clock):
    spec = ClipSpec(
        2, resize=("square", 40), size=32, streams=("rgb", "flow"), flow=3
    )
    row = benchmark_pipeline(shapes, spec, batch=7, steps=2, flow=shapes_flow)

    assert (row["clips_per_second"], row["skipped"]) == (14, 0)

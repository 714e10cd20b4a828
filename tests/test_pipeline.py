"""The pipeline: a sample is a function of seed, epoch and position."""

import dataclasses
import os
import shutil
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from batches import assert_equal, taken

from keras_videofusion.data import pipeline
from keras_videofusion.data.augmentation import (
    center_crop,
    crop,
    random_crop_flip,
)
from keras_videofusion.data.catalog import Catalog, open_catalog, Video
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.flow import from_bytes, open_flow
from keras_videofusion.data.pipeline import (
    steps,
    training_clips,
    validation_clips,
    watched_clips,
)
from keras_videofusion.data.video import decode, read_clips

SPEC = ClipSpec(frames=3, step=2, resize=("square", 40), size=(32, 30))


def frames_of(catalog):
    """Every frame of every video at the spec's size, to look clips up in."""
    return [
        decode(catalog.file(video), range(24), SPEC.resize) for video in catalog
    ]


@pytest.fixture
def learned(shapes):
    return shapes.where("train")


@pytest.fixture
def broken(shapes_folder, tmp_path):
    """Eight videos, of which the second and the fifth are broken."""
    folder = tmp_path / "broken"
    shutil.copytree(shapes_folder / "up", folder / "up")
    (folder / "up/scene0001.mp4").write_bytes(b"")
    whole = (folder / "up/scene0004.mp4").read_bytes()
    (folder / "up/scene0004.mp4").write_bytes(whole[: len(whole) // 2])
    shutil.copy(folder / "up/scene0000.mp4", folder / "up/scene0009.mp4")
    return folder


# What a batch is.


def test_batches_are_bytes_and_shares_of_known_shape(learned):
    dataset = training_clips(learned, SPEC, 5)
    clips, labels = dataset.element_spec
    assert clips.dtype == tf.uint8
    assert labels.dtype == tf.float32
    assert clips.shape.as_list() == [None, 3, 32, 30, 3]
    assert labels.shape.as_list() == [None, 4]
    ((clips, labels),) = taken(dataset, 1)
    assert clips.shape == (5, 3, 32, 30, 3)
    np.testing.assert_array_equal(labels.sum(1), np.ones(5))


def test_steps_rounds_up(learned):
    assert [steps(learned, *p) for p in ((16,), (5,), (5, 2), (32, 3))] == [
        1, 4, 7, 2,
    ]  # fmt: skip


def test_no_batch_straddles_epochs(learned):
    sizes = [len(y) for _, y in taken(training_clips(learned, SPEC, 5), 12)]
    assert sizes == [5, 5, 5, 1] * 3


@pytest.mark.parametrize("clips_per_video", [1, 3])
def test_every_video_is_seen_as_often_in_every_epoch(learned, clips_per_video):
    dataset = training_clips(learned, SPEC, 16, clips_per_video=clips_per_video)
    for epoch in range(2):
        labels = np.concatenate(
            [
                y
                for _, y in taken(
                    dataset.skip(epoch * clips_per_video), clips_per_video
                )
            ]
        )
        np.testing.assert_array_equal(labels.sum(0), [4 * clips_per_video] * 4)


def test_clips_are_windows_of_the_videos_frames(learned):
    """Slow oracle: each clip is looked for among all windows of its class."""
    one = Catalog(learned.videos[:1], learned.classes, learned.root)
    (frames,) = frames_of(one)
    found = set()
    for (clip,), _ in taken(training_clips(one, SPEC, 1), 40):
        found.add(
            next(
                (start, top, left, mirrored)
                for start in range(20)
                for top in range(9)
                for left in range(11)
                for mirrored in (False, True)
                if np.array_equal(
                    clip[:, :, ::-1] if mirrored else clip,
                    crop(frames[start : start + 5 : 2], top, left, SPEC.size),
                )
            )
        )
    starts, tops, lefts, mirrored = (
        set(part) for part in zip(*found, strict=True)
    )
    assert mirrored == {False, True}
    assert min(len(starts), len(tops), len(lefts)) > 5


def test_without_augmentation_clips_are_centred(learned):
    one = Catalog(learned.videos[:1], learned.classes, learned.root)
    frames = center_crop(frames_of(one)[0], SPEC.size)
    windows = [frames[start : start + 5 : 2] for start in range(20)]
    for (clip,), _ in taken(training_clips(one, SPEC, 1, augment=False), 10):
        assert any(np.array_equal(clip, window) for window in windows)


def test_labels_go_with_their_clips(learned):
    frames = [center_crop(f, SPEC.size) for f in frames_of(learned)]
    ((clips, labels),) = taken(
        training_clips(learned, SPEC, 16, augment=False, sampler="centre"), 1
    )
    for clip, label in zip(clips, labels, strict=True):
        (owner,) = (
            n for n, f in enumerate(frames)
            if any(np.array_equal(clip[0], frame) for frame in f)
        )  # fmt: skip
        np.testing.assert_array_equal(label, learned.targets[owner])


def test_several_labels_share_the_target(shapes):
    videos = (Video(shapes[0].path, ("a", "c")), Video(shapes[1].path, ("b",)))
    catalog = Catalog(videos, ("a", "b", "c"), shapes.root)
    ((_, labels),) = taken(validation_clips(catalog, SPEC, 2))
    np.testing.assert_array_equal(labels, [[0.5, 0, 0.5], [0, 1, 0]])


def test_segments_give_frames_from_within_them_only(learned):
    video = Video(learned[0].path, learned[0].labels, start=0.2, end=0.4)
    catalog = Catalog((video,), learned.classes, learned.root)
    frames = center_crop(frames_of(catalog)[0], SPEC.size)
    for (clip,), _ in taken(training_clips(catalog, SPEC, 1, augment=False), 8):
        assert any(
            np.array_equal(clip, frames[start : start + 5 : 2])
            for start in (6, 7)
        )


# Seed, epoch and position.


def test_the_same_seed_gives_the_same_stream(learned):
    first, again, other = (
        taken(training_clips(learned, SPEC, 5, seed=seed), 6)
        for seed in (3, 3, 4)
    )
    assert_equal(first, again)
    assert not all(
        np.array_equal(a[0], b[0]) for a, b in zip(first, other, strict=True)
    )


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_stream_begun_at_an_epoch_is_the_rest_of_the_whole(learned, epoch):
    whole = taken(training_clips(learned, SPEC, 6, seed=2), 15)
    rest = taken(training_clips(learned, SPEC, 6, seed=2, first_epoch=epoch), 6)
    assert_equal(whole[3 * epoch : 3 * epoch + 6], rest)


def test_the_batch_size_changes_no_sample(learned):
    small, large = (
        [np.concatenate(part) for part in zip(*taken(d, n), strict=True)]
        for d, n in (
            (training_clips(learned, SPEC, 3), 6),
            (training_clips(learned, SPEC, 16), 1),
        )
    )
    assert_equal([small], [large])


def test_threads_that_finish_in_another_order_change_nothing(
    learned, monkeypatch
):
    expected = taken(training_clips(learned, SPEC, 4), 8)
    turns = [0]
    lock = threading.Lock()

    def late(*arguments, **options):
        with lock:
            turns[0] += 1
            turn = turns[0]
        if turn % 3 == 0:
            threading.Event().wait(0.02)
        return read_clips(*arguments, **options)

    monkeypatch.setattr(pipeline, "read_clips", late)
    assert_equal(taken(training_clips(learned, SPEC, 4), 8), expected)


def test_epochs_differ_in_order_and_clips(learned):
    first, second = taken(training_clips(learned, SPEC, 16), 2)
    assert not np.array_equal(first[1], second[1])
    assert not np.array_equal(
        np.sort(first[0].mean((1, 2, 3, 4))),
        np.sort(second[0].mean((1, 2, 3, 4))),
    )


# Validation.


def test_validation_is_the_same_every_time_and_in_order(learned):
    dataset = validation_clips(learned, SPEC, 5)
    first, again = taken(dataset), taken(dataset)
    assert_equal(first, again)
    assert dataset.cardinality() == len(first) == 4
    labels = np.concatenate([y for _, y in first])
    np.testing.assert_array_equal(labels, learned.targets)


def test_validation_spreads_its_clips_over_the_video(learned):
    one = Catalog(learned.videos[:1], learned.classes, learned.root)
    (frames,) = frames_of(one)
    ((clips, labels),) = taken(validation_clips(one, SPEC, 8, clips=3))
    assert labels.shape == (3, 4)
    for clip, start in zip(clips, (0, 10, 19), strict=True):
        expected = center_crop(frames[start : start + 5 : 2], SPEC.size)
        np.testing.assert_array_equal(clip, expected)


# Broken videos.


def test_broken_videos_are_replaced_and_named_once(broken):
    told = []
    dataset = training_clips(
        open_catalog(broken),
        SPEC,
        8,
        clips_per_video=2,
        on_skip=lambda path, reason: told.append((path, reason)),
    )
    batches = taken(dataset, 6)
    assert [len(labels) for _, labels in batches] == [8] * 6
    assert sorted(os.path.basename(path) for path, _ in told) == [
        "scene0001.mp4",
        "scene0004.mp4",
    ]
    assert all(reason and "\n" not in reason for _, reason in told)


def test_a_broken_videos_place_is_taken_by_the_next(broken):
    catalog = open_catalog(broken)
    reader = pipeline.Reader(
        catalog, SPEC, "centre", 1, 0, True, False, "skip", None
    )
    order = reader.order(5)
    places = [reader(5, position)[1] for position in range(len(order))]
    expected = []
    for position in range(len(order)):
        ahead = position
        while order[ahead % 8] in (1, 4):
            ahead += 1
        expected.append(order[ahead % 8])
    assert places == expected
    assert 1 in order


def test_streams_with_broken_videos_repeat_and_resume(broken):
    catalog = open_catalog(broken)
    whole = taken(training_clips(catalog, SPEC, 3), 9)
    rest = taken(training_clips(catalog, SPEC, 3, first_epoch=2), 3)
    assert_equal(whole[6:], rest)


def test_raise_ends_the_stream_with_the_files_name(broken):
    dataset = training_clips(open_catalog(broken), SPEC, 8, on_error="raise")
    with pytest.raises(tf.errors.OpError, match=r"VideoError: .*scene000[14]"):
        taken(dataset, 1)


def test_only_broken_videos_are_one_error_and_no_endless_search(tmp_path):
    for name in "abc":
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / f"run/{name}.mp4").write_bytes(b"not a video")
    dataset = training_clips(open_catalog(tmp_path), SPEC, 2)
    with pytest.raises(tf.errors.OpError, match=r"every video .* is broken"):
        taken(dataset, 1)


# Arguments.


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sampler": "dense"}, r"`sampler` must be one of 'random'.*'dense'"),
        ({"on_error": "ignore"}, r"`on_error` must be one of"),
        ({"clips_per_video": 0}, r"`clips_per_video` must be 1 or more"),
        ({"seed": -1}, r"`seed` must be 0 or more"),
        ({"batch": 0}, r"`batch` must be 1 or more"),
        (
            {"spec": ClipSpec(1, streams=("rgb", "flow"))},
            r"run `videofusion flow DATA OUT`.*flow=None",
        ),
    ],
)
def test_errors_name_the_argument(learned, changed, message):
    with pytest.raises(ValueError, match=message):
        training_clips(
            **{"catalog": learned, "spec": SPEC, "batch": 2, **changed}
        )


def test_a_catalog_without_videos_is_refused(shapes):
    with pytest.raises(ValueError, match="has no videos"):
        training_clips(shapes.where("nothing"), SPEC, 2)


# Optical flow.

FLOW = ClipSpec(
    2, resize=("square", 40), size=(32, 30), streams=("flow",), flow=3
)
BOTH = dataclasses.replace(FLOW, streams=("rgb", "flow"))


def test_batches_of_two_streams_are_bytes_and_pixels(learned, shapes_flow):
    dataset = training_clips(learned, BOTH, 5, flow=shapes_flow)
    clips, labels = dataset.element_spec
    assert list(clips) == ["rgb", "flow"]
    assert clips["rgb"].shape.as_list() == [None, 2, 32, 30, 3]
    assert clips["rgb"].dtype == tf.uint8
    assert clips["flow"].shape.as_list() == [None, 3, 32, 30, 2]
    assert clips["flow"].dtype == tf.float32
    (clips, labels) = next(iter(dataset))
    assert clips["flow"].shape == (5, 3, 32, 30, 2)
    assert labels.shape == (5, 4)
    alone, _ = training_clips(learned, FLOW, 5, flow=shapes_flow).element_spec
    assert alone.shape.as_list() == [None, 3, 32, 30, 2]


@pytest.mark.parametrize("spec", [FLOW, BOTH], ids=["flow", "both"])
def test_samples_of_flow_are_those_that_their_draws_say(
    learned, shapes_flow, spec
):
    reader = pipeline.Reader(
        learned, spec, "random", 1, 3, True, True, "raise", None,
        flow=shapes_flow,
    )  # fmt: skip
    source = open_flow(shapes_flow)
    batches = training_clips(learned, spec, 4, seed=3, flow=shapes_flow)
    position = 0
    for clips, _ in batches.take(2):
        clips = clips if isinstance(clips, dict) else {"flow": clips}
        for row in range(4):
            video = learned[int(reader.order(0)[position])]
            generator = np.random.default_rng([3, 0, position + 1])
            found, _ = read_clips(
                learned.file(video), spec, "random", 1, generator, flow=source
            )
            if not isinstance(found, dict):
                found = {"flow": found}
            expected = random_crop_flip(
                {name: stream[0] for name, stream in found.items()},
                spec.size,
                generator,
            )
            for name, stream in clips.items():
                wanted = expected[name]
                if name == "flow":
                    wanted = from_bytes(wanted)
                np.testing.assert_allclose(stream[row], wanted, atol=1e-6)
            position += 1


def test_clips_of_flow_repeat_and_go_on_as_others_do(learned, shapes_flow):
    def flat(dataset, count):
        return [
            (clips["rgb"].numpy(), clips["flow"].numpy(), rows.numpy())
            for clips, rows in dataset.take(count)
        ]

    kept = {"seed": 1, "flow": shapes_flow, "jitter": 0.5}
    whole = flat(training_clips(learned, BOTH, 5, **kept), 8)
    again = flat(training_clips(learned, BOTH, 5, **kept), 8)
    later = flat(training_clips(learned, BOTH, 5, first_epoch=1, **kept), 4)
    assert_equal(whole, again)
    assert_equal(whole[4:], later)


def test_validation_reads_flow_too(learned, shapes_flow):
    batches = validation_clips(learned, FLOW, 6, flow=shapes_flow)
    first, second = (taken(batches) for _ in range(2))
    assert_equal(first, second)
    assert [len(labels) for _, labels in first] == [6, 6, 4]
    found, _ = read_clips(
        learned.file(learned[0]), FLOW, "uniform", 1, None,
        flow=open_flow(shapes_flow),
    )  # fmt: skip
    expected = from_bytes(center_crop(found[0], FLOW.size))
    np.testing.assert_allclose(first[0][0][0], expected, atol=1e-6)


def test_a_method_computes_what_the_folder_holds(learned, shapes_flow):
    stored, computed = (
        taken(training_clips(learned, FLOW, 4, flow=flow), 2)
        for flow in (shapes_flow, "dis")
    )
    assert_equal(stored, computed)


def test_flow_serves_a_copy_of_the_data_elsewhere(
    shapes_folder, shapes_flow, tmp_path
):
    shutil.copytree(shapes_folder, tmp_path / "moved")
    there, here = (
        open_catalog(folder).where("train")
        for folder in (shapes_folder, tmp_path / "moved")
    )
    first, second = (
        taken(training_clips(c, FLOW, 4, flow=shapes_flow, on_error="raise"), 1)
        for c in (there, here)
    )
    assert_equal(first, second)


def test_a_video_without_flow_is_told_and_replaced(
    learned, shapes_flow, tmp_path
):
    shutil.copytree(shapes_flow, tmp_path / "flow")
    missing = tmp_path / "flow" / f"{learned[0].path}.flow"
    missing.unlink()
    told = []
    batches = training_clips(
        learned,
        FLOW,
        16,
        flow=tmp_path / "flow",
        on_skip=lambda path, reason: told.append((path, reason)),
    )
    assert [len(labels) for _, labels in taken(batches, 1)] == [16]
    ((path, reason),) = told
    assert path == learned.file(learned[0])
    assert reason.startswith(f"{tmp_path / 'flow'} has no flow of it: run ")
    with pytest.raises(tf.errors.InvalidArgumentError, match="has no flow"):
        taken(
            training_clips(
                learned, FLOW, 16, flow=tmp_path / "flow", on_error="raise"
            ),
            1,
        )


# At length.


@pytest.mark.slow
def test_memory_does_not_grow(learned):
    import resource

    batches = iter(training_clips(learned, SPEC, 16))
    for _ in range(30):
        next(batches)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(130):
        next(batches)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 20_000  # kilobytes, over 2,000 clips


def test_a_program_may_end_while_clips_are_being_read(shapes_folder):
    """Without the readers being told, the interpreter never comes down."""
    import subprocess
    import sys
    from pathlib import Path

    code = (
        "import sys\n"
        "from keras_videofusion.data.catalog import open_catalog\n"
        "from keras_videofusion.data.clips import ClipSpec\n"
        "from keras_videofusion.data.pipeline import training_clips\n"
        "catalog = open_catalog(sys.argv[1])\n"
        "clips = iter(training_clips(catalog, ClipSpec(10), 64,"
        " clips_per_video=8))\n"
        "next(clips)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(shapes_folder)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0


def test_the_wait_for_a_batch_is_told_and_nothing_else():
    """A batch that takes a while, and a taker who takes his time."""

    def slowly():
        for number in range(5):
            time.sleep(0.1)
            yield {"rgb": np.full((2, 3), number)}, np.ones((2, 4))

    kinds = (
        {"rgb": tf.TensorSpec((None, 3), tf.int64)},
        tf.TensorSpec((None, 4), tf.float64),
    )
    batches = tf.data.Dataset.from_generator(slowly, output_signature=kinds)
    waits = []
    found = watched_clips(batches, waits.append)
    assert found.element_spec == batches.element_spec
    for number, (clips, _) in enumerate(found):
        assert (clips["rgb"].numpy() == number).all()
    assert len(waits) == 5
    assert min(waits) > 0.09
    # What was made ahead, while the taker did something else, is not waited
    # for.
    waits.clear()
    for _ in watched_clips(batches.prefetch(2), waits.append):
        time.sleep(0.15)
    assert max(waits[1:]) < 0.05

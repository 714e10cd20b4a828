"""Reading shards: samples are the stored clips, by seed, epoch, position."""

import dataclasses
import json
import shutil
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from batches import assert_equal, taken

from keras_videofusion import benchmark, cli
from keras_videofusion.data import prepare as writing
from keras_videofusion.data import shards as reading
from keras_videofusion.data.augmentation import crop, flip
from keras_videofusion.data.catalog import Catalog, open_catalog, Video
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.pipeline import (
    samples,
    steps,
    training_clips,
    validation_clips,
)
from keras_videofusion.data.prepare import prepare
from keras_videofusion.data.video import decode, VideoError
from keras_videofusion.evaluation import protocol
from keras_videofusion.training import build, fit
from keras_videofusion.training.recipe import Recipe
from keras_videofusion.training.run import Run

SPEC = ClipSpec(frames=4, step=2, resize=("square", 40), size=(32, 30))
CLIPS = 5
ALL = 99  # more than is stored


def psnr(first, second):
    """Decibels between two arrays of bytes."""
    error = np.square(first.astype(float) - second.astype(float)).mean()
    return 10 * np.log10(255**2 / error)


def stored_pixels(folder):
    """Clips by (row, number): all frames of all records, decoded one by one."""
    found = {}
    for path in sorted(Path(folder).glob("*.tfrecord")):
        for data in tf.data.TFRecordDataset(str(path)):
            record = tf.train.Example.FromString(data.numpy()).features.feature
            key = tuple(
                record[name].int64_list.value[0] for name in ("video", "clip")
            )
            found[key] = np.stack(
                [
                    tf.io.decode_jpeg(
                        j, fancy_upscaling=False, dct_method="INTEGER_ACCURATE"
                    )
                    for j in record["frames"].bytes_list.value
                ]
            )
    return found


def centre(clip):
    return crop(clip, 4, 5, (32, 30))


@pytest.fixture(scope="module")
def stored(shapes_folder, tmp_path_factory):
    """Five clips of every video whose frames differ. Change nothing in it."""
    out = tmp_path_factory.mktemp("shards") / "shards"
    shapes = open_catalog(shapes_folder)
    moving = tuple(v for v in shapes if "still" not in v.labels)
    catalog = dataclasses.replace(shapes, videos=moving)
    prepare(catalog, out, SPEC, clips=CLIPS)
    return out


@pytest.fixture(scope="module")
def whole(shapes_folder, tmp_path_factory):
    """All frames of the shapes, each video in two parts."""
    out = tmp_path_factory.mktemp("shards") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "PART", 12)
        prepare(open_catalog(shapes_folder), out, short_side=48, quality=95)
    return out


@pytest.fixture(scope="module")
def pixels(stored):
    return stored_pixels(stored)


@pytest.fixture
def learned(stored):
    return open_catalog(stored).where("train")


@pytest.fixture
def copy(stored, tmp_path):
    shutil.copytree(stored, tmp_path / "copy")
    return tmp_path / "copy"


def owners(clips, pixels):
    """Of clips cut in the centre, the (row, number) that each was stored as."""
    known = {centre(clip).tobytes(): key for key, clip in pixels.items()}
    return [known[clip.tobytes()] for clip in clips]


def plain(catalog, epochs=1, **arguments):
    """The clips of some epochs, not augmented, and their labels."""
    clips = arguments.get("clips_per_video", 1)
    arguments = {"batch": 16, "augment": False, **arguments}
    dataset = training_clips(catalog, SPEC, **arguments)
    count = steps(catalog, arguments["batch"], clips) * epochs
    found = taken(dataset, count)
    return [np.concatenate(part) for part in zip(*found, strict=True)]


# What a sample is.


def test_samples_are_windows_of_stored_clips(learned, pixels):
    """Slow oracle: every sample is looked for among all windows."""
    some = dataclasses.replace(learned, videos=learned.videos[:2])
    windows = {
        turn(crop(clip, top, left, SPEC.size)).tobytes(): (top, left, turn)
        for (row, _), clip in pixels.items()
        for top in range(9)
        for left in range(11)
        for turn in (np.asarray, flip)
        if row in rows_of(some)
    }
    dataset = training_clips(some, SPEC, 10, clips_per_video=ALL)
    found = [
        windows[clip.tobytes()]
        for clips, _ in taken(dataset, 12)
        for clip in clips
    ]
    assert len({top for top, _, _ in found}) == 9
    assert len({left for _, left, _ in found}) == 11
    assert 40 < sum(turn is flip for _, _, turn in found) < 80


def rows_of(catalog):
    known = {
        video.path: row for row, video in enumerate(open_catalog(catalog.root))
    }
    return {known[video.path] for video in catalog}


def test_an_epoch_has_every_stored_clip_once(learned, pixels):
    clips, labels = plain(learned, clips_per_video=ALL)
    found = owners(clips, pixels)
    expected = {(row, n) for row in rows_of(learned) for n in range(CLIPS)}
    assert len(found) == len(expected)
    assert set(found) == expected
    catalog = open_catalog(learned.root)
    for (row, _), label in zip(found, labels, strict=True):
        assert catalog.classes[label.argmax()] == catalog[row].labels[0]
        assert label.sum() == 1


@pytest.mark.parametrize("cache", [None, "memory", "pixels"])
def test_fewer_clips_go_round_until_all_have_served(learned, pixels, cache):
    clips, _ = plain(learned, epochs=5, clips_per_video=2, cache=cache)
    found = np.array(owners(clips, pixels)).reshape(5, -1, 2)
    for epoch in found:
        keys = list(map(tuple, epoch.tolist()))
        assert len(set(keys)) == len(keys)
        rows, counts = np.unique(epoch[:, 0], return_counts=True)
        assert set(rows) == rows_of(learned)
        assert set(counts) == {2}
    for row in rows_of(learned):
        mine = found.reshape(-1, 2)
        assert set(mine[mine[:, 0] == row, 1]) == set(range(CLIPS))


def test_epochs_and_seeds_have_orders_of_their_own(learned, pixels):
    clips, _ = plain(learned, epochs=2, clips_per_video=ALL)
    found = owners(clips, pixels)
    half = len(found) // 2
    assert found[:half] != found[half:]
    other, _ = plain(learned, clips_per_video=ALL, seed=1)
    assert owners(other, pixels) != found[:half]
    # Well mixed: clips of one video, neighbours on the disk, are apart.
    same = sum(a[0] == b[0] for a, b in pairwise(found))
    assert same < half / 4


@pytest.mark.parametrize("cache", ["memory", "pixels"])
def test_a_cache_changes_no_sample(learned, cache):
    given = {"clips_per_video": 2, "jitter": 0.3}
    assert_equal(
        taken(training_clips(learned, SPEC, 7, cache=cache, **given), 12),
        taken(training_clips(learned, SPEC, 7, **given), 12),
    )


def test_a_stream_repeats_and_goes_on_at_any_epoch(learned):
    tf.random.set_seed(1)
    all_of_it = taken(training_clips(learned, SPEC, 7, seed=3), 6)
    tf.random.set_seed(2)
    rest = taken(training_clips(learned, SPEC, 7, seed=3, first_epoch=2), 2)
    assert_equal(all_of_it[4:], rest)


def test_batches_are_of_one_epoch_and_steps_counts_them(learned):
    dataset = training_clips(learned, SPEC, 32, clips_per_video=3)
    assert samples(learned, 3) == 36
    assert steps(learned, 32, 3) == 2
    assert steps(learned, 32, ALL) == 2
    assert [len(y) for _, y in taken(dataset, 4)] == [32, 4, 32, 4]
    clips, labels = dataset.element_spec
    assert clips.shape.as_list() == [None, 4, 32, 30, 3]
    assert labels.shape.as_list() == [None, 4]


def test_validation_takes_the_same_clips_evenly_in_the_centre(stored, pixels):
    watched = open_catalog(stored).where("validation")
    dataset = validation_clips(watched, SPEC, 3, 2)
    assert int(dataset.cardinality()) == 2
    first, second = taken(dataset), taken(dataset)
    assert_equal(first, second)
    found = owners(np.concatenate([x for x, _ in first]), pixels)
    assert {number for _, number in found} == {0, 3}
    assert len(found) == 6


def test_colours_are_drawn_as_for_files():
    generator = np.random.default_rng(0)
    clip = generator.integers(0, 256, (2, 3, 4, 3)).astype(np.uint8)
    draws = generator.random(6)
    gain, shift = 1 + 0.4 * (2 * draws[:3] - 1), 80 * 0.4 * (2 * draws[3:] - 1)
    expected = (117 + gain * (clip - 117.0) + shift).round().clip(0, 255)
    found = reading.coloured(clip, 0.4, tf.constant(draws, tf.float32))
    assert abs(found.numpy() - expected).max() <= 1
    assert np.mean(found.numpy() == expected) > 0.95


# Which rows.


def test_folds_and_subsets_choose_the_records(learned, pixels):
    fold = open_catalog(learned.root).folds(3)[1].where("test")
    clips, _ = plain(fold, clips_per_video=ALL)
    assert {row for row, _ in owners(clips, pixels)} == rows_of(fold)
    assert len(clips) == CLIPS * len(fold)


def test_labels_are_those_of_the_catalog_that_asks(learned, pixels):
    other = learned.relabelled(
        ["b" if "up" in v.labels else "a" for v in learned], ("x", "a", "b")
    )
    clips, labels = plain(other)
    catalog = open_catalog(learned.root)
    for (row, _), label in zip(owners(clips, pixels), labels, strict=True):
        is_up = "up" in catalog[row].labels
        np.testing.assert_array_equal(label, [0, not is_up, is_up])


def test_several_labels_share_the_target(shapes, tmp_path):
    videos = tuple(
        dataclasses.replace(v, labels=("up", "still"))
        for v in shapes.videos[:3]
    )
    few = dataclasses.replace(shapes, videos=videos)
    prepare(few, tmp_path / "out", SPEC, clips=1)
    _, labels = plain(open_catalog(tmp_path / "out"))
    np.testing.assert_array_equal(labels, [[0, 0, 0.5, 0.5]] * 3)


def test_rows_that_are_not_there_are_an_error(learned):
    strange = Catalog((Video("b.mp4", ("up",)),), ("up",), learned.root)
    with pytest.raises(ValueError, match=r"no shards of it.*b\.mp4"):
        training_clips(strange, SPEC, 2)


@pytest.mark.parametrize("count", [2, 5])
def test_workers_share_the_clips_out(learned, pixels, count):
    found = []
    for worker in ((number, count) for number in range(count)):
        number = samples(learned, ALL, worker)
        assert steps(learned, 4, ALL, worker) == -(-number // 4)
        dataset = training_clips(
            learned, SPEC, number, clips_per_video=ALL, augment=False,
            worker=worker,
        )  # fmt: skip
        ((clips, _),) = taken(dataset, 1)
        assert len(clips) == number
        found += owners(clips, pixels)
    assert len(found) == len(set(found)) == CLIPS * len(learned)


def test_more_workers_than_shards_are_an_error(learned):
    with pytest.raises(ValueError, match="12 shards of these rows, too few"):
        training_clips(learned, SPEC, 2, worker=(0, 13))
    with pytest.raises(ValueError, match=r"worker=\(2, 2\)"):
        training_clips(learned, SPEC, 2, worker=(2, 2))


def test_files_know_neither_workers_nor_caches(shapes):
    with pytest.raises(ValueError, match="with videofusion prepare"):
        training_clips(shapes, SPEC, 2, worker=(0, 1))
    with pytest.raises(ValueError, match="with videofusion prepare"):
        training_clips(shapes, SPEC, 2, cache="memory")


# What the shards can feed.


def test_a_shorter_clip_is_the_middle_of_the_stored_one(stored, pixels):
    watched = open_catalog(stored).where("validation")
    spec = dataclasses.replace(SPEC, frames=2, size=(20, 20))
    ((clips, _),) = taken(validation_clips(watched, spec, 4))
    expected = {
        crop(clip[1:3], 10, 10, (20, 20)).tobytes() for clip in pixels.values()
    }
    assert {clip.tobytes() for clip in clips} <= expected


def shown(catalog, labels):
    """The video of each label, of a catalog with one video per class."""
    of = {video.labels[0]: video for video in catalog}
    return [of[catalog.classes[label.argmax()]] for label in labels]


def test_smaller_frames_are_resized(stored, shapes):
    watched = open_catalog(stored).where("validation")
    spec = dataclasses.replace(SPEC, size=(20, 20), resize=("square", 20))
    ((clips, labels),) = taken(validation_clips(watched, spec, 4))
    for clip, video in zip(clips, shown(watched, labels), strict=True):
        frames = decode(shapes.file(video), range(24), ("square", 20))
        windows = [frames[start + SPEC.offsets] for start in range(18)]
        assert max(psnr(clip, window) for window in windows) > 24


@pytest.mark.parametrize(
    "changes",
    [
        {"frames": 5},
        {"step": 3},
        {"fps": 10.0},
        {"short": "loop"},
        {"streams": ("rgb", "flow")},
        {"resize": ("square", 41)},
        {"resize": ("short_side", 40)},
        {"resize": (40, 40)},
    ],
)
def test_a_clip_that_is_not_stored_is_refused(learned, changes):
    spec = dataclasses.replace(SPEC, **changes)
    with pytest.raises(ValueError, match="cannot feed this network") as error:
        training_clips(learned, spec, 2)
    assert "Stored: 4 frames, step 2" in str(error.value)
    with pytest.raises(ValueError, match="cannot feed this network"):
        protocol.score(network(spec), learned, spec)


@pytest.mark.parametrize(
    "resize",
    [
        ("short_side", 48),
        ("square", 40),
        ("short_side", 40),
        ("cover", 30, 40),
        ("pad", 40, 30),
        (32, 40),
    ],
)
def test_whole_videos_feed_any_clip(whole, shapes, resize):
    """The middle clip, against the direct path at the same place."""
    watched = open_catalog(whole).where("validation")
    spec = ClipSpec(3, 2, resize=resize, size=(28, 30))
    ((clips, labels),) = taken(validation_clips(watched, spec, 4))
    for clip, video in zip(clips, shown(watched, labels), strict=True):
        frames = decode(shapes.file(video), range(24), resize)
        height, width = frames.shape[1:3]
        direct = frames[:, (height - 28) // 2 :, (width - 30) // 2 :]
        direct = direct[:, :28, :30]
        worth = [psnr(clip, direct[at + spec.offsets]) for at in range(20)]
        # The videos lie in two parts; at the middle the second begins.
        assert np.argmax(worth) == 12 or worth[12] == max(worth)
        assert max(worth) > 26


def test_whole_videos_give_other_clips_in_every_epoch(whole, shapes):
    one = open_catalog(whole).where("validation")
    one = dataclasses.replace(one, videos=one.videos[:1])
    spec = ClipSpec(1, resize=("short_side", 48), size=(48, 48))
    frames = decode(shapes.file(one[0]), range(24), ("short_side", 48))
    dataset = training_clips(one, spec, 8, clips_per_video=8, augment=False)
    seen = [
        int(np.argmax([psnr(clip[0], frame) for frame in frames]))
        for clips, _ in taken(dataset, 12)
        for clip in clips
    ]
    assert len(set(seen)) > 18
    assert set(seen[:8]) != set(seen[8:16])


@pytest.mark.parametrize("short", ["hold", "loop"])
def test_whole_videos_count_at_a_fixed_rate(whole, shapes, short):
    one = open_catalog(whole).where("validation")
    one = dataclasses.replace(one, videos=one.videos[:1])
    spec = ClipSpec(
        9, fps=15.0, resize=("short_side", 48), size=(48, 48), short=short
    )
    ((clips, _),) = taken(validation_clips(one, spec, 1))
    frames = decode(shapes.file(one[0]), range(24), ("short_side", 48))
    # Twelve frames of the second part are six at half the rate.
    steps = np.minimum(range(9), 5) if short == "hold" else np.arange(9) % 6
    assert psnr(clips[0], frames[12 + 2 * steps]) > 30
    assert psnr(clips[0], frames[12 + np.roll(2 * steps, 1)]) < 30


def test_whole_videos_have_no_flow_and_no_cache(whole):
    catalog = open_catalog(whole)
    spec = ClipSpec(2, streams=("flow",), resize=("square", 40), size=(32, 32))
    with pytest.raises(ValueError, match="Stored: whole videos, rgb"):
        training_clips(catalog, spec, 2)
    with pytest.raises(ValueError, match="hold whole videos"):
        training_clips(catalog, SPEC, 2, cache="memory")
    with pytest.raises(ValueError, match="cache='disk'"):
        training_clips(catalog, SPEC, 2, cache="disk")


def test_flow_is_fed_in_pixels_and_turns_with_the_picture(
    shapes_folder, shapes_flow, tmp_path
):
    spec = ClipSpec(
        3, streams=("rgb", "flow"), resize=("square", 64), size=(60, 64)
    )
    found = open_catalog(shapes_folder).where("validation")
    prepare(found, tmp_path / "out", spec, clips=3, flow=shapes_flow)
    catalog = open_catalog(tmp_path / "out")
    given = {"clips_per_video": 3, "seed": 1}
    (clips, _), *_ = training_clips(catalog, spec, 12, **given).take(1)
    (direct, _), *_ = training_clips(
        found, spec, 12, flow=shapes_flow, **given
    ).take(1)
    assert {k: v.shape for k, v in clips.items()} == {
        k: v.shape for k, v in direct.items()
    }
    assert clips["flow"].dtype == tf.float32
    # Turned and not turned: where a picture moves x, so does its flow.
    alone = dataclasses.replace(spec, streams=("flow",))
    plain, turned = (
        next(iter(training_clips(
            catalog, alone, 12, clips_per_video=3, seed=seed, augment=augment
        )))[0].numpy()
        for seed, augment in ((1, False), (1, True))
    )  # fmt: skip
    for a, b in zip(plain, turned, strict=True):
        # The crop's rows are drawn; x on average does not know of them.
        assert abs(a[..., 0].mean()) == pytest.approx(
            abs(b[..., 0].mean()), abs=0.15
        )
    assert (np.sign(plain[..., 0].mean((1, 2, 3)).round(1)) != np.sign(
        turned[..., 0].mean((1, 2, 3)).round(1))).any()  # fmt: skip


def test_mirrored_flow_is_negated_and_nought_goes_round():
    flow = np.zeros((1, 1, 2, 2), np.uint8)
    flow[0, 0] = [[1, 7], [128, 9]]
    found = reading.mirrored(tf.constant(flow)).numpy()
    assert found[0, 0].tolist() == [[128, 9], [255, 7]]


# What is damaged.


def damage(folder, name="train-00003.tfrecord", at=0.5):
    path = folder / name
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("cache", [None, "memory"])
def test_a_damaged_shard_is_left_there_and_named(copy, pixels, cache):
    damage(copy)
    told = []
    clips, _ = plain(
        open_catalog(copy).where("train"),
        epochs=2,
        clips_per_video=ALL,
        cache=cache,
        on_skip=lambda *line: told.append(line),
    )
    ((path, reason),) = told
    assert path.endswith("train-00003.tfrecord")
    assert "damaged" in reason
    # The epoch is as long as ever; others stand in for what is lost.
    assert len(clips) == 2 * 12 * CLIPS
    found = owners(clips, pixels)
    assert 11 * CLIPS <= len(set(found)) < 12 * CLIPS


def test_without_python_damage_is_printed(copy, capfd):
    damage(copy)
    plain(open_catalog(copy).where("train"), clips_per_video=ALL)
    told = capfd.readouterr().err.strip().splitlines()
    told = [line for line in told if line.startswith("skipped")]
    # Once when it is met, once more where others stand in.
    assert len(set(told)) == 1
    assert "train-00003.tfrecord" in told[0]
    assert "it is damaged" in told[0]


def test_damage_can_be_an_error(copy):
    damage(copy)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"train-00003.*is damaged"
    ):
        plain(
            open_catalog(copy).where("train"),
            clips_per_video=ALL,
            on_error="raise",
        )


@pytest.mark.parametrize("change", ["cut", "gone"])
def test_a_shard_that_is_cut_or_gone_is_told_at_once(copy, change):
    path = copy / "train-00005.tfrecord"
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9])
    catalog = open_catalog(copy).where("train")
    told = []
    training_clips(catalog, SPEC, 2, on_skip=lambda *line: told.append(line))
    ((name, reason),) = told
    assert name == str(path)
    assert "the manifest says" in reason
    clips, _ = plain(catalog, clips_per_video=ALL)
    assert len(clips) == 12 * CLIPS
    with pytest.raises(VideoError, match="train-00005"):
        training_clips(catalog, SPEC, 2, on_error="raise")


@pytest.mark.parametrize("folder", ["plain", "[a] *b?"])
def test_a_shard_that_goes_while_others_are_read_is_named(
    stored, tmp_path, folder
):
    copy = shutil.copytree(stored, tmp_path / folder)
    told = []
    clips = training_clips(
        open_catalog(copy).where("train"),
        SPEC,
        4,
        clips_per_video=ALL,
        on_skip=lambda *line: told.append(line),
    )
    count = 12 * CLIPS // 4

    assert len(list(clips.take(count))) == count
    assert not told
    (copy / "train-00003.tfrecord").unlink()

    assert len(list(clips.take(count))) == count
    ((path, _),) = told
    assert path.endswith("train-00003.tfrecord")


def test_no_shard_at_all_is_one_line(copy):
    for path in copy.glob("*.tfrecord"):
        path.unlink()
    with pytest.raises(ValueError, match="has no shard of the rows"):
        training_clips(open_catalog(copy), SPEC, 2)


def test_all_shards_damaged_ends(copy):
    for path in copy.glob("train*"):
        path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(tf.errors.FailedPreconditionError, match="0 elements"):
        plain(open_catalog(copy).where("train"))


def test_videos_that_were_broken_are_told_again(shapes, tmp_path):
    videos = (*shapes.videos[:4], Video("gone.mp4", ("up",)))
    prepare(dataclasses.replace(shapes, videos=videos), tmp_path / "o", SPEC, 2)
    told = []
    catalog = open_catalog(tmp_path / "o")
    training_clips(catalog, SPEC, 2, on_skip=lambda *row: told.append(row))
    assert told == [("gone.mp4", "no such file")]
    assert samples(catalog, 9) == 8
    with pytest.raises(VideoError, match="gone.mp4"):
        training_clips(catalog, SPEC, 2, on_error="raise")


def test_a_manifest_of_another_release_is_refused(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(ValueError, match="version=99"):
        open_catalog(copy)


# Scores, training, the command.


def network(spec=SPEC, classes=4):
    """A small network that tells clips, crops and flips apart."""
    keras.utils.set_random_seed(0)
    clip = keras.Input((spec.frames, *spec.size, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 64)(clip))
    x = keras.layers.Dense(classes, activation="softmax", name="predictions")(x)
    return keras.Model(clip, x)


def test_scores_are_of_the_stored_clips(stored, pixels):
    """One pass, by hand."""
    catalog = open_catalog(stored).where("test")
    model = network()
    scores, skipped = protocol.score(model, catalog, SPEC, 3, passes=1)
    assert skipped == []
    assert scores.video_ids == tuple(video.path for video in catalog)
    rows = {v.path: r for r, v in enumerate(open_catalog(stored))}
    keys = [(rows[v.path], number) for v in catalog for number in (0, 2, 4)]
    clips = np.stack([centre(pixels[key]) for key in keys])
    np.testing.assert_allclose(
        scores.clip_probabilities, model.predict(clips, verbose=0), atol=1e-5
    )
    np.testing.assert_array_equal(
        scores.clip_video, np.repeat(np.arange(len(catalog)), 3)
    )


def test_scores_of_whole_videos_are_those_of_their_files(whole, shapes):
    spec = ClipSpec(4, 2, resize=("short_side", 48), size=(32, 30))
    model = network(spec)
    catalog = open_catalog(whole).where("test")
    found, _ = protocol.score(model, catalog, spec, 3)
    direct, _ = protocol.score(model, shapes.where("test"), spec, 3)
    assert found.video_ids == direct.video_ids
    np.testing.assert_allclose(
        found.clip_start_seconds, direct.clip_start_seconds, atol=1e-5
    )
    assert abs(found.clip_logits - direct.clip_logits).mean() < 0.05
    other, _ = protocol.score(model, catalog, spec, 3, seed=1)
    assert abs(other.clip_logits - direct.clip_logits).mean() > 0.1


def test_what_cannot_be_scored_is_named(copy):
    damage(copy, "test-00002.tfrecord", 0.01)
    (copy / "test-00004.tfrecord").unlink()
    catalog = open_catalog(copy).where("test")
    scores, skipped = protocol.score(network(), catalog, SPEC, 2)
    assert len(scores.video_ids) == len(catalog) - 2
    assert {row["error"] for row in skipped} == {
        "test-00002.tfrecord is damaged or missing",
        "test-00004.tfrecord is damaged or missing",
    }
    with pytest.raises(VideoError, match="is damaged or missing"):
        protocol.score(network(), catalog, SPEC, 2, on_error="raise")


RECIPE = Recipe(
    model="slow_fusion", width=0.02, size=40, batch=5, epochs=2,
    learning_rate=1e-4, clips_per_video=2, deterministic=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def learnable(shapes_folder, tmp_path_factory):
    """Shards that the recipe's network can eat."""
    out = tmp_path_factory.mktemp("shards") / "learnable"
    return prepare(
        open_catalog(shapes_folder), out, build.clip_of(RECIPE), clips=3
    ) and out  # fmt: skip


def test_a_run_from_shards_resumes_as_if_it_had_never_stopped(
    learnable, tmp_path
):
    catalog = fit.split(open_catalog(learnable))
    given = {"verbose": 0, "say": lambda line: None}
    once = fit.train(RECIPE, catalog, tmp_path / "once", **given)
    short = dataclasses.replace(RECIPE, epochs=1)
    fit.train(short, catalog, tmp_path / "twice", **given)
    twice = fit.train(RECIPE, catalog, tmp_path / "twice", resume=True, **given)
    for a, b in zip(
        once.model().get_weights(), twice.model().get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_the_command_trains_and_scores_shards(learnable, tmp_path, capsys):
    def call(*words):
        return cli.run(cli.parse([str(word) for word in words]))

    run = tmp_path / "run"
    small = ["--width", 0.02, "--size", 40, "--batch", 8, "--epochs", 1]
    assert call("train", learnable, "--run", run, *small) == 0
    assert call("evaluate", run, "--clips", 2) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["videos"], metrics["clips"]) == (8, 16)
    assert Run(run).catalog().root == str(learnable)
    # Pictures of clips come from the videos that the shards were made of.
    assert call("report", run, "--out", tmp_path) == 0
    assert "no pictures of clips" not in (tmp_path / "report.html").read_text()
    capsys.readouterr()
    assert call("train", learnable, "--run", run, "--overwrite") == 1
    assert "cannot feed this network" in capsys.readouterr().err


def test_the_pipeline_is_measured_on_shards(stored):
    for cache in (None, "pixels"):
        row = benchmark.benchmark_pipeline(
            open_catalog(stored), SPEC, 4, 3, cache=cache
        )
        assert row["clips_per_second"] > 0
        assert (row["videos"], row["skipped"]) == (21, 0)

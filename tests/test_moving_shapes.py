"""moving_shapes: single frames tell nothing, motion tells all."""

import collections

import av
import numpy as np
import pytest

from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.data.video import decode, timeline
from keras_videofusion.datasets import moving_shapes
from keras_videofusion.datasets.moving_shapes import _video, CLASSES, draw


def shift_of(before, after, most=8):
    """(down, right) that brings one frame nearest to the next, by trial."""
    before, after = before.astype(int), after.astype(int)
    steps = range(-most, most + 1)
    return min(
        ((down, right) for down in steps for right in steps),
        key=lambda shift: (
            abs(np.roll(before, shift, (0, 1)) - after).mean(),
            abs(shift[0]) + abs(shift[1]),
        ),
    )


def test_motion_in_the_decoded_frames_is_the_label(shapes):
    for video in shapes:
        frames = decode(shapes.file(video), [3, 4, 20, 21])
        first, second = (shift_of(frames[i], frames[i + 1]) for i in (0, 2))
        assert first == second
        (label,) = video.labels
        down, right = np.sign(first)
        if label == "sideways":
            assert (down, abs(right)) == (0, 1)
        else:
            assert (down, right) == CLASSES[label]


def test_sideways_goes_both_ways():
    ways = set()
    for scene in range(12):
        first, second = list(_video(0, scene, "sideways", (32, 32), 2))
        ways.add(int(np.sign(shift_of(first, second)[1])))
    assert ways == {-1, 1}


def test_classes_look_the_same_in_a_mirror():
    mirrored = {(down, abs(right)) for down, right in CLASSES.values()}
    assert len(mirrored) == len(CLASSES)


@pytest.mark.parametrize("time", [0, 7])
def test_a_frame_is_a_uniform_shift_of_its_scene_in_every_class(time):
    # Arrange: where the scene's corner stands in frame `time` of 600 videos.
    size, seeds = (16, 16), 600
    for label in CLASSES:
        rows = collections.Counter()
        columns = collections.Counter()
        for seed in range(seeds):
            frames = list(_video(seed, 0, label, size, time + 1))
            scene = moving_shapes._scene(np.random.default_rng([seed, 0]), size)
            # Row and column of the corner, by correlation on the torus.
            likeness = np.fft.ifft2(
                (
                    np.fft.fft2(frames[time], axes=(0, 1))
                    * np.fft.fft2(scene, axes=(0, 1)).conj()
                ).sum(2)
            ).real
            place = np.unravel_index(likeness.argmax(), size)
            np.testing.assert_array_equal(
                np.roll(scene, place, (0, 1)), frames[time]
            )
            rows[place[0] // 4] += 1
            columns[place[1] // 4] += 1
        # Assert: chi-squared of four bins, 3 degrees; 21.1 is 1 in 10,000.
        for bins in (rows, columns):
            expected = seeds / 4
            chi = sum((bins[i] - expected) ** 2 / expected for i in range(4))
            assert chi < 21.1


def test_classes_share_their_scenes(shapes):
    """What the frames hold, wherever it stands, is the same in all classes."""
    scenes = collections.defaultdict(list)
    for video in shapes:
        pixels = decode(shapes.file(video), [11])[0]
        scenes[video.group].append(pixels.reshape(-1, 3).mean(0))
    for colours in scenes.values():
        assert len(colours) == len(CLASSES)
        # Chroma is halved, so a shift by one pixel changes a mean a little.
        assert np.ptp(colours, axis=0).max() < 1.0


def test_a_frame_is_compressed_without_regard_to_its_neighbours(tmp_path):
    first, second = list(_video(0, 0, "up", (64, 64), 2))
    (other,) = _video(0, 1, "up", (64, 64), 1)
    codec = moving_shapes._codec()
    moving_shapes._encode(tmp_path / "a.mp4", [first, second], 30, codec)
    moving_shapes._encode(tmp_path / "b.mp4", [second, second], 30, codec)
    moving_shapes._encode(tmp_path / "c.mp4", [other, second], 30, codec)
    decoded = [decode(tmp_path / f"{name}.mp4", [1]) for name in "abc"]
    np.testing.assert_array_equal(decoded[0], decoded[1])
    np.testing.assert_array_equal(decoded[0], decoded[2])


def test_files_are_h264_of_the_stated_size_and_length(shapes):
    frames = timeline(shapes.file(shapes[0]))
    assert (len(frames), frames.height, frames.width) == (24, 64, 64)
    assert frames.rate == 30
    with av.open(shapes.file(shapes[0])) as container:
        assert container.streams.video[0].codec_context.name == "h264"


def test_decoded_frames_are_near_what_was_drawn(shapes_folder):
    drawn = list(_video(0, 0, "up", (64, 64), 24))
    found = decode(shapes_folder / "up" / "scene0000.mp4", range(24))
    error = abs(found.astype(int) - np.stack(drawn).astype(int))
    # The edges of colours blur, since chroma has half the resolution.
    assert np.median(error) <= 3
    assert error.mean() < 12


def test_labels_name_group_family_and_split(shapes):
    counts = collections.Counter(
        (video.split, video.labels) for video in shapes
    )
    assert counts == {
        (split, (label,)): count
        for split, count in (("train", 4), ("validation", 1), ("test", 2))
        for label in CLASSES
    }
    assert shapes.families == moving_shapes.FAMILIES
    assert shapes.classes == tuple(sorted(CLASSES))


def test_the_default_has_a_hundred_test_videos(monkeypatch, tmp_path):
    monkeypatch.setattr(
        moving_shapes, "_encode", lambda path, *rest: path.touch()
    )
    catalog = open_catalog(draw(tmp_path / "all"))
    assert len(catalog.where("test")) >= 100


def arguments(**changed):
    return {"train": 1, "validation": 0, "test": 1, "size": (32, 48),
            "frames": 3, **changed}  # fmt: skip


def bytes_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_arguments_draw_the_same_bytes(tmp_path):
    first = bytes_of(draw(tmp_path / "a", **arguments()))
    again = bytes_of(draw(tmp_path / "b", **arguments()))
    other = bytes_of(draw(tmp_path / "c", **arguments(seed=1)))
    assert first == again
    assert first["up/scene0000.mp4"] != other["up/scene0000.mp4"]


def test_what_is_drawn_is_not_drawn_again(tmp_path, monkeypatch):
    folder = draw(tmp_path / "a", **arguments())
    monkeypatch.setattr(moving_shapes, "_encode", None)
    assert draw(folder, **arguments()) == folder


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds something else"):
        draw(tmp_path, **arguments())
    assert [place.name for place in tmp_path.iterdir()] == ["notes.txt"]


def test_other_arguments_are_an_error_that_names_both(tmp_path):
    draw(tmp_path / "a", **arguments())
    with pytest.raises(ValueError, match=r"'seed': 0.*Received.*'seed': 1"):
        draw(tmp_path / "a", **arguments(seed=1))


def test_what_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    def fail(path, video, fps, codec):
        raise OSError("disk full")

    monkeypatch.setattr(moving_shapes, "_encode", fail)
    with pytest.raises(OSError, match="disk full"):
        draw(tmp_path / "a", **arguments())
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_filled(tmp_path):
    draw(tmp_path, **arguments())
    assert (tmp_path / "labels.csv").is_file()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("train", -1),
        ("seed", -1),
        ("frames", 0),
        ("fps", 0),
        ("size", (33, 48)),
        ("size", (8, 8)),
    ],
)
def test_errors_name_the_argument(tmp_path, name, value):
    with pytest.raises(
        ValueError, match=f"`{name}` must be .*Received: {name}="
    ):
        draw(tmp_path, **arguments(**{name: value}))


def test_without_h264_files_are_mpeg4(tmp_path, monkeypatch):
    monkeypatch.setattr(moving_shapes.av, "codecs_available", {"mpeg4"})
    folder = draw(tmp_path / "a", **arguments())
    assert timeline(folder / "up" / "scene0000.mp4").codec == "mpeg4"

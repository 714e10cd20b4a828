"""Folders of numbered images are videos, of 12 frames per second."""

import os
from fractions import Fraction

import av
import numbered
import numpy as np
import pytest
from av.video.reformatter import Interpolation

from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.frames import image_names
from keras_videofusion.data.video import (
    decode,
    read_clips,
    timeline,
    VideoError,
)


def draw(path, picture, codec=None, pixels=None):
    """Writes one image, by FFmpeg as everything here."""
    codec = codec or ("png" if str(path).endswith("png") else "mjpeg")
    context = av.CodecContext.create(codec, "w")
    context.height, context.width = picture.shape[:2]
    context.pix_fmt = pixels or ("rgb24" if codec == "png" else "yuvj420p")
    context.time_base = Fraction(1, 25)
    context.options = {"qmin": "1", "qmax": "3"} if codec == "mjpeg" else {}
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    frame = frame.reformat(format=context.pix_fmt, dst_color_range=2)
    frame.pts = 0
    packets = context.encode(frame) + context.encode(None)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(bytes(packet) for packet in packets))


@pytest.fixture
def folder(tmp_path):
    """Twenty JPEG images that carry their numbers; 1 to 20 by name."""
    for number in range(20):
        draw(tmp_path / "v" / f"{number + 1:05d}.jpg", numbered.picture(number))
    return tmp_path / "v"


def plain(path, size=None):
    """An image as the usual door opens it, without this package."""
    with av.open(f"file:{path}") as container:
        frame = next(container.decode(video=0))
    if size is not None and not frame.format.is_rgb:
        frame = frame.reformat(
            *size[::-1], "yuv422p", interpolation=Interpolation.AREA,
            src_colorspace=5, dst_colorspace=5, src_color_range=2,
            dst_color_range=1,
        )  # fmt: skip
    return frame.reformat(
        *((frame.width, frame.height) if size is None else size[::-1]),
        "rgb24", interpolation=Interpolation.AREA, src_colorspace=5,
        dst_colorspace=5, src_color_range=2 if size is None else 1,
        dst_color_range=2,
    ).to_ndarray()  # fmt: skip


def test_a_folder_of_images_has_a_timeline_of_12_frames_per_second(folder):
    frames = timeline(folder)
    assert len(frames) == 20
    assert (frames.height, frames.width) == (numbered.HEIGHT, numbered.WIDTH)
    np.testing.assert_allclose(frames.times, np.arange(20) / 12)
    assert frames.rate == 12


def test_frames_come_by_number_in_any_order(folder):
    wanted = [7, 0, 19, 7, 3]
    assert numbered.read(decode(folder, wanted)).tolist() == wanted


def test_pixels_are_those_of_the_single_images(folder):
    pixels = decode(str(folder), [0, 13])
    for number, row in zip((0, 13), pixels, strict=True):
        expected = plain(folder / f"{number + 1:05d}.jpg")
        np.testing.assert_array_equal(row, expected)


def test_resized_pixels_take_the_path_of_videos(folder):
    (pixels,) = decode(folder, [5], (48, 60))
    expected = plain(folder / "00006.jpg", (48, 60))
    np.testing.assert_array_equal(pixels, expected)


def test_png_images_are_exact(tmp_path):
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (3, 20, 30, 3), np.uint8)
    for number, picture in enumerate(pictures):
        draw(tmp_path / f"{number}.PNG", picture, "png")
    np.testing.assert_array_equal(decode(tmp_path, range(3)), pictures)


def test_what_an_image_is_stands_in_its_bytes_not_in_its_name(tmp_path):
    picture = numbered.picture(9)
    draw(tmp_path / "1.jpg", picture, "png")
    np.testing.assert_array_equal(decode(tmp_path, [0])[0], picture)


def test_numbers_count_and_not_letters(tmp_path):
    for number in (10, 2, 1, 33):
        draw(tmp_path / f"img_{number}.jpg", numbered.picture(number))
    for name in ("cover.jpg", ".5.jpg", "5.txt"):
        (tmp_path / name).write_bytes(b"no frame")
    (tmp_path / "7.jpg").mkdir()
    names = ["img_1.jpg", "img_2.jpg", "img_10.jpg", "img_33.jpg"]
    assert image_names(tmp_path) == names
    found = numbered.read(decode(tmp_path, range(4)))
    assert found.tolist() == [1, 2, 10, 33]


def test_clips_and_seconds_of_folders_are_as_of_files(folder):
    spec = ClipSpec(frames=4, resize=(64, 128), size=(64, 128))
    clips, starts = read_clips(
        folder, spec, "uniform", start=6 / 12, end=10 / 12
    )
    assert numbered.read(clips).tolist() == [[6, 7, 8, 9]]
    assert starts.tolist() == [0.5]


def test_a_change_of_the_folder_is_seen(folder):
    assert len(timeline(folder)) == 20
    os.remove(folder / "00020.jpg")
    os.utime(folder, ns=(1, 1))
    assert len(timeline(folder)) == 19


@pytest.mark.parametrize("content", [None, "clip.txt", "cover.jpg"])
def test_a_folder_without_numbered_images_is_no_video(tmp_path, content):
    if content:
        (tmp_path / content).write_bytes(b"x")
    with pytest.raises(VideoError, match="not a file but a folder"):
        timeline(tmp_path)


def test_images_of_several_kinds_are_refused(folder):
    draw(folder / "flow_x_1.jpg", numbered.picture(0))
    with pytest.raises(VideoError, match=r"several kinds: 1, \.\.\., flow_x_1"):
        timeline(folder)


def test_two_images_of_one_number_are_refused(folder):
    draw(folder / "7.png", numbered.picture(0))
    with pytest.raises(VideoError, match=r"number 7: 00007\.jpg, 7\.png"):
        timeline(folder)


def test_images_of_another_size_are_named(folder):
    draw(folder / "00003.jpg", np.zeros((32, 40, 3), np.uint8))
    assert len(decode(folder, [0, 1, 3])) == 3
    reason = r"v: 00003\.jpg is 40 x 32 pixels, the first image 128 x 64"
    with pytest.raises(VideoError, match=reason):
        decode(folder, [0, 2])


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "gone"])
def test_a_damaged_image_is_named_and_spoils_only_itself(folder, damage):
    place = folder / "00004.jpg"
    # Of noise, whose lower third would come out grey.
    noise = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    draw(place, noise)
    data = place.read_bytes()
    timeline(folder)
    if damage == "gone":
        seen = os.stat(folder).st_mtime_ns
        place.unlink()
        os.utime(folder, ns=(seen, seen))
    else:
        place.write_bytes(
            {
                "empty": b"",
                "cut": data[: len(data) * 2 // 3],
                "garbage": b"\xff\xd8" + bytes(300),
            }[damage]
        )
    with pytest.raises(VideoError, match=r"v: 00004\.jpg: ") as caught:
        decode(folder, [3])
    assert "\n" not in str(caught.value)
    assert numbered.read(decode(folder, [2, 4])).tolist() == [2, 4]

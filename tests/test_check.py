"""What `check` says of whole, broken and odd files."""

import os
import shutil

import av
import numbered
import numpy as np
import pytest

from keras_videofusion.data.check import check

KEYS = ["path", "ok", "frames", "height", "width", "rate", "seconds", "error"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole file of 40 frames, 128 x 64."""
    folder = tmp_path_factory.mktemp("whole")
    return numbered.draw(folder / "whole.mp4", b_frames=2)


def only(folder, **options):
    """The one row of a folder with one video."""
    (row,) = check(folder, **options)
    return row


def test_whole_files_are_ok_with_frames_size_rate_and_seconds(whole):
    row = only(whole)

    assert list(row) == KEYS
    assert row == {
        "path": "whole.mp4",
        "ok": True,
        "frames": 40,
        "height": 64,
        "width": 128,
        "rate": 25.0,
        "seconds": 1.6,
        "error": None,
    }
    assert [type(row[key]) for key in KEYS[1:7]] == [
        bool, int, int, int, float, float,
    ]  # fmt: skip


def test_the_whole_tree_is_looked_through_in_order(whole, tmp_path):
    names = ["b/deep/er/x.mp4", "a.MP4", "b/y.Mov", "b/no.txt", ".hidden.mp4",
             ".hidden/z.mp4", "b/mp4", "é ü.mkv"]  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(whole, tmp_path / name)
    done = []

    rows = list(check(tmp_path, workers=3, progress=done.append))

    found = [row["path"] for row in rows]
    assert found == sorted(["a.MP4", "b/deep/er/x.mp4", "b/y.Mov", "é ü.mkv"])
    assert all(row["ok"] for row in rows)
    assert done == [1, 2, 3, 4]


def test_links_are_followed_and_circles_end(whole, tmp_path):
    (tmp_path / "data" / "inner").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copy(whole, outside / "far.mp4")
    shutil.copy(whole, tmp_path / "data" / "near.mp4")
    links = {
        "link.mp4": whole,
        "folder": outside,
        "inner/up": "..",
        "dangling.avi": "nowhere",
        "circle.mkv": "circle.mkv",
    }
    for name, target in links.items():
        os.symlink(target, tmp_path / "data" / name)

    rows = {row["path"]: row for row in check(tmp_path / "data")}

    assert sorted(rows) == [
        "circle.mkv", "dangling.avi", "folder/far.mp4", "link.mp4", "near.mp4",
    ]  # fmt: skip
    assert rows["folder/far.mp4"]["ok"]
    assert rows["link.mp4"]["ok"]
    assert rows["dangling.avi"]["error"] == "no such file"
    assert not rows["circle.mkv"]["ok"]


def test_odd_things_with_a_videos_name_are_told_of(whole, tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    shutil.copy(whole, tmp_path / "folder.mp4" / "inside.mp4")
    os.symlink("/dev/zero", tmp_path / "zeros.avi")

    rows = {row["path"]: row for row in check(tmp_path)}

    assert rows["pipe.mp4"]["error"] == "not a file but a special file"
    assert rows["zeros.avi"]["error"] == "not a file but a special file"
    assert rows["folder.mp4"]["error"] == "not a file but a folder"
    assert rows["folder.mp4/inside.mp4"]["ok"]
    assert len(rows) == 4


def test_names_that_are_not_text_come_as_surrogate_escapes(whole, tmp_path):
    name = b"bad\xff\xfe.mp4"
    try:
        shutil.copy(whole, os.path.join(os.fsencode(tmp_path), name))
    except OSError:
        pytest.skip("this file system takes only text for names")

    row = only(tmp_path)

    assert row["path"] == os.fsdecode(name)
    assert row["ok"]
    assert row["frames"] == 40


def sound(path):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=44100)
        silence = np.zeros((1, 4410), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, "fltp", "mono")
        frame.sample_rate = 44100
        file.mux(stream.encode(frame))
        file.mux(stream.encode())


def no_frames(path):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        file.start_encoding()


def no_decoder(path):
    numbered.draw(path, "mpeg4")
    numbered.retag(path, b"FMP4", b"ZZQ9")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("empty.mp4", lambda path: path.write_bytes(b"")),
        ("text.mp4", lambda path: path.write_text("a film\n" * 99)),
        ("text.avi", lambda path: path.write_text("a film\n" * 99)),
        ("noise.mkv", lambda path: path.write_bytes(bytes(range(256)) * 99)),
        ("sound.mp4", sound),
        ("no_frames.avi", no_frames),
        ("no_decoder.avi", no_decoder),
    ],
)
def test_what_is_no_video_is_one_line(name, make, tmp_path):
    make(tmp_path / name)

    row = only(tmp_path)

    assert not row["ok"]
    assert row["path"] == name
    assert row["error"]
    assert "\n" not in row["error"]
    assert str(tmp_path) not in row["error"]
    assert not row["frames"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.avi", {"codec": "mpeg4"}),
        ("b.avi", {"codec": "mpeg4", "b_frames": 2}),
        ("x.mp4", {}),
        ("fast.mp4", {"container_options": {"movflags": "faststart"}}),
        ("x.mkv", {"b_frames": 2}),
        ("x.flv", {}),
        ("x.webm", {"codec": "libvpx-vp9"}),
    ],
)
def test_files_that_break_off_are_not_ok(name, options, tmp_path):
    path = tmp_path / name
    numbered.draw(path, **options)
    assert only(tmp_path)["ok"]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])

    row = only(tmp_path)

    assert not row["ok"]
    assert "\n" not in row["error"]
    if row["frames"] is not None:
        assert 0 < row["frames"] < 40
        assert (row["height"], row["width"]) == (64, 128)


@pytest.mark.parametrize(
    ("name", "place", "options"),
    [
        ("x.avi", 0.75, {"codec": "mpeg4"}),
        ("x.mp4", 0.4, {}),
        ("x.mkv", 0.5, {"b_frames": 2}),
    ],
)
def test_files_with_a_hole_are_not_ok_and_tell_what_decodes(
    name, place, options, tmp_path
):
    path = tmp_path / name
    numbered.draw(path, **options)
    data = bytearray(path.read_bytes())
    begin = int(place * len(data))
    for place in range(begin, begin + 300):
        data[place] ^= 0x5A
    path.write_bytes(data)

    row = only(tmp_path)

    assert not row["ok"]
    assert "\n" not in row["error"]
    assert 0 < row["frames"] <= 40


def test_workers_give_the_same_rows(whole, tmp_path):
    for number in range(7):
        shutil.copy(whole, tmp_path / f"{number}.mp4")
    (tmp_path / "3.mp4").write_bytes(b"x")

    assert list(check(tmp_path, workers=1)) == list(check(tmp_path, workers=4))


def test_an_empty_folder_has_no_rows(tmp_path):
    assert list(check(tmp_path)) == []


# From the inventory of the shared folder: frames, height, width.
INVENTORY = {
    "c3d/v_ApplyEyeMakeup_g01_c01.avi": (164, 240, 320),
    "c3d/v_BaseballPitch_g01_c01.avi": (107, 240, 320),
    "decord/flipping_a_pancake.mkv": (310, 240, 426),
    "decord/video_0.mov": (3, 320, 568),
    "decord/video_180.mov": (3, 320, 568),
    "decord/video_270.mov": (3, 568, 320),
    "decord/video_90.mov": (3, 568, 320),
    "gluoncv/action_basketball_demo.gif": (24, 240, 320),
    "imageio/newtonscradle.gif": (36, 150, 200),
    "imageio/realshort.mp4": (36, 240, 320),
    "intel-asl-gestures/again.mkv": (77, 480, 640),
    "intel-asl-gestures/bird.mkv": (63, 480, 640),
    "intel-asl-gestures/book.mkv": (109, 480, 640),
    "intel-asl-gestures/brother.mkv": (65, 480, 640),
    "intel-asl-gestures/eat.mkv": (47, 480, 640),
    "intel-asl-gestures/help.mkv": (58, 480, 640),
    "intel-asl-gestures/hungry.mkv": (49, 480, 640),
    "intel-asl-gestures/learn.mkv": (61, 480, 640),
    "intel-asl-gestures/milk.mkv": (51, 480, 640),
    "intel-asl-gestures/night.mkv": (68, 480, 640),
    "mmaction2/demo.mp4": (280, 256, 340),
    "mmaction2/test.mp4": (300, 256, 340),
    "tfio/small.mp4": (166, 320, 560),
    "torchcodec/av1_video.mkv": (125, 360, 640),
    "torchcodec/h264_10bits.mp4": (30, 200, 200),
    "torchcodec/h265_video.mp4": (10, 128, 128),
}


def test_real_files_have_their_true_frames_and_size(shared):
    rows = {row["path"]: row for row in check(shared / "data" / "clips")}

    broken = rows.pop("decord/corrupted.mp4")
    assert not broken["ok"]
    assert "Invalid data" in broken["error"]
    assert {
        path: (row["frames"], row["height"], row["width"])
        for path, row in rows.items()
    } == INVENTORY
    assert all(row["ok"] for row in rows.values())

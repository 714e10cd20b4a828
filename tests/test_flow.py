"""Optical flow: fields of known motion, their files, and clips of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from keras_videofusion.data import flow
from keras_videofusion.data.catalog import Catalog, Video
from keras_videofusion.data.clips import clip_starts, ClipSpec
from keras_videofusion.data.flow import (
    compute,
    fields,
    file_name,
    FlowAsRead,
    FlowFolder,
    from_bytes,
    open_flow,
    to_bytes,
)
from keras_videofusion.data.video import decode, read_clips, VideoError

pytest.importorskip("cv2", reason="needs pip install 'keras-videofusion[flow]'")

# (x, y) by which everything moves between neighbouring frames.
MOTIONS = (
    (3, -2), (0, 0), (-4, 1), (2, 5), (1, 0), (-1, -3), (6, 2), (0, 4),
    (-2, -2), (5, 0), (-3, 3),
)  # fmt: skip
HEIGHT, WIDTH = 72, 96


def texture(height, width):
    """Smooth noise, uint8, periodic, with detail at every scale."""
    generator = np.random.default_rng(0)
    waves = np.fft.rfft2(generator.normal(size=(height, width)))
    y = np.fft.fftfreq(height)[:, None]
    x = np.fft.rfftfreq(width)
    waves *= 1 / (0.01 + np.hypot(y, x)) ** 1.5
    noise = np.fft.irfft2(waves, s=(height, width))
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    return (20 + 215 * noise).astype(np.uint8)


def shifted(motions=MOTIONS, height=HEIGHT, width=WIDTH):
    """Frames of a texture on a torus that moves so, `(frames, h, w)`."""
    places = np.cumsum([(0, 0), *motions], axis=0)
    scene = texture(height, width)
    return np.stack([np.roll(scene, (y, x), axis=(0, 1)) for x, y in places])


def draw(path, frames, rate=25):
    """Writes grey frames without loss; returns the path as a string."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=Fraction(rate))
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "bgr0"
        for grey in frames:
            rgb = np.repeat(grey[..., None], 3, -1)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))
        file.mux(stream.encode())
    return str(path)


def middle(field):
    """Typical (x, y) of a field, away from the edges of the torus."""
    tall, wide = field.shape[-3] // 4, field.shape[-2] // 4
    inside = field[..., tall:-tall, wide:-wide, :]
    return np.median(inside, axis=(-3, -2))


def grey(pixels):
    """Luma of RGB, as the module's docstring says, one pixel at a time."""
    weighed = pixels.astype(int) @ [77, 150, 29]
    return ((weighed + 128) // 256).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of moving textures, and the flow of it; read only."""
    folder = tmp_path_factory.mktemp("flow")
    draw(folder / "data/a/moving.mkv", shifted())
    draw(folder / "data/a/one.mkv", shifted(()))
    draw(folder / "data/b/other.mkv", shifted(MOTIONS[::-1], 64, 64))
    rows = list(compute(folder / "data", folder / "out"))
    assert all(row["ok"] for row in rows)
    return folder


@pytest.fixture
def moving(data):
    return str(data / "data/a/moving.mkv")


@pytest.fixture
def stored(data):
    return FlowFolder(data / "out")


def all_bytes(path):
    """Every field of a video by its definition, `(fields, h, w, 2)`."""
    count = len(MOTIONS) + 1
    return to_bytes(fields(grey(decode(path, range(count)))))


# What a field is.


@pytest.mark.parametrize("method", flow.METHODS)
def test_every_method_finds_a_known_motion_x_first(method):
    if method == "tvl1":
        pytest.importorskip(
            "skimage", reason="needs pip install 'keras-videofusion[flow]'"
        )
    found = fields(shifted([(3, -2), (0, 4)], 96, 128), method)
    assert found.shape == (2, 96, 128, 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        middle(found), [(3, -2), (0, 4)], atol=0.05, rtol=0
    )


def test_one_frame_has_no_field():
    assert fields(shifted(())).shape == (0, HEIGHT, WIDTH, 2)


def test_unknown_methods_and_tiny_frames_are_refused():
    with pytest.raises(ValueError, match=r"`method` must be one of tvl1, dis"):
        fields(shifted(), "guess")
    with pytest.raises(ValueError, match=r"4x4 are too small for dis"):
        fields(np.zeros((2, 4, 4), np.uint8))


def test_a_missing_library_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"cv2: pip install '.*\[flow\]'"):
        fields(shifted())


def test_bytes_follow_their_formula():
    values = [
        -1e9,
        -20.5,
        -20,
        -19.95,
        -0.08,
        -0.0787,
        0,
        0.07,
        0.08,
        3,
        20,
        9e9,
    ]
    expected = [
        128 + round(max(-20, min(20, value)) * 127 / 20) for value in values
    ]
    assert to_bytes(np.array(values)).tolist() == expected
    assert to_bytes(np.zeros(1)).dtype == np.uint8


def test_bytes_come_back_within_half_a_step():
    values = np.linspace(-20, 20, 4001, dtype=np.float32)
    found = from_bytes(to_bytes(values))
    assert found.dtype == np.float32
    assert abs(found - values).max() <= 10 / 127 + 1e-5
    assert from_bytes(np.uint8([1, 128, 255])).tolist() == [-20, 0, 20]


# Files.


def test_files_give_back_every_byte(moving, stored):
    planes = stored.planes(moving, np.arange(len(MOTIONS)))
    np.testing.assert_array_equal(np.moveaxis(planes, 1, -1), all_bytes(moving))


def test_files_are_as_exact_without_h264(data, moving, tmp_path, monkeypatch):
    monkeypatch.setattr(
        av, "codecs_available", av.codecs_available - {"libx264"}
    )
    assert all(row["ok"] for row in compute(data / "data", tmp_path))
    monkeypatch.undo()
    planes = FlowFolder(tmp_path).planes(moving, np.array([2, 7, 8]))
    np.testing.assert_array_equal(
        np.moveaxis(planes, 1, -1), all_bytes(moving)[[2, 7, 8]]
    )
    with av.open(str(tmp_path / "a/moving.mkv.flow")) as file:
        assert file.streams.video[0].codec_context.name == "ffv1"


def test_field_i_leads_from_frame_i_to_the_next(moving, stored):
    for number, motion in enumerate(MOTIONS):
        planes = stored.planes(moving, np.array([number]))
        (field,) = from_bytes(np.moveaxis(planes, 1, -1))
        np.testing.assert_allclose(middle(field), motion, atol=0.16)


def test_what_is_computed_as_it_is_read_is_what_a_file_holds(moving, stored):
    wanted = np.array([0, 1, 4, 8, 9, 10])
    np.testing.assert_array_equal(
        FlowAsRead("dis").planes(moving, wanted), stored.planes(moving, wanted)
    )


def test_larger_frames_are_resized_and_smaller_ones_are_not(data, tmp_path):
    for side, shape in ((48, (2, 48, 64)), (500, (2, HEIGHT, WIDTH))):
        out = tmp_path / str(side)
        assert all(
            r["ok"] for r in compute(data / "data", out, short_side=side)
        )
        path = str(data / "data/a/moving.mkv")
        planes = FlowFolder(out).planes(path, np.arange(3))
        assert planes.shape[1:] == shape
        (field,) = from_bytes(np.moveaxis(planes[:1], 1, -1))
        grown = shape[1] / HEIGHT
        np.testing.assert_allclose(
            middle(field), np.array(MOTIONS[0]) * grown, atol=0.2
        )


def test_rotated_videos_have_the_flow_of_upright_ones(tmp_path):
    import numbered

    if "libx264" not in av.codecs_available:
        pytest.skip("PyAV was built without libx264")
    frames = shifted([(4, 0)] * 5, 64, 96)
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"qp": "4"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for picture in frames:
            rgb = np.repeat(picture[..., None], 3, -1)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))
        file.mux(stream.encode())
    numbered.turn(path, 180)
    list(compute(tmp_path, tmp_path / "out"))
    planes = FlowFolder(tmp_path / "out").planes(str(path), np.arange(5))
    found = middle(from_bytes(np.moveaxis(planes, 1, -1)))
    np.testing.assert_allclose(found, [(-4, 0)] * 5, atol=0.3)


def test_work_that_was_done_is_not_done_again(data, tmp_path):
    out = tmp_path / "out"
    first = list(compute(data / "data", out))
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*.flow")}
    second = list(compute(data / "data", out))
    assert [row["path"] for row in first] == [
        "a/moving.mkv", "a/one.mkv", "b/other.mkv",
    ]  # fmt: skip
    assert [row["fields"] for row in first] == [len(MOTIONS), 0, len(MOTIONS)]
    assert all(row["computed"] for row in first)
    assert not any(row["computed"] for row in second)
    assert times == {p: p.stat().st_mtime_ns for p in out.rglob("*.flow")}
    assert {str(p.relative_to(out)) for p in times} == {
        "a/moving.mkv.flow", "a/one.mkv.flow", "b/other.mkv.flow",
    }  # fmt: skip
    assert json.loads((out / "manifest.json").read_text()) == {
        "method": "dis",
        "short_side": 256,
        "version": 1,
        "data": str(data / "data"),
        "videos": 3,
        "fields": 2 * len(MOTIONS),
        "broken": 0,
    }


@pytest.mark.parametrize(
    "changed", [{"method": "farneback"}, {"short_side": 40}]
)
def test_other_settings_need_to_overwrite(data, tmp_path, changed):
    out = tmp_path / "out"
    list(compute(data / "data", out))
    with pytest.raises(ValueError, match=r"dis at a short side of 256.*--over"):
        compute(data / "data", out, **changed)
    rows = list(compute(data / "data", out, overwrite=True, **changed))
    assert all(row["computed"] for row in rows)
    FlowFolder(out).file(str(data / "data/a/moving.mkv"))


def test_broken_videos_are_named_and_the_others_done(data, tmp_path):
    shutil.copytree(data / "data", tmp_path / "data")
    (tmp_path / "data/a/moving.mkv").write_bytes(b"no video")
    rows = list(compute(tmp_path / "data", tmp_path / "out"))
    assert [row["ok"] for row in rows] == [False, True, True]
    assert rows[0]["error"]
    assert "\n" not in rows[0]["error"]
    assert not (tmp_path / "out/a/moving.mkv.flow").exists()
    assert (
        json.loads((tmp_path / "out/manifest.json").read_text())["broken"] == 1
    )


def test_a_changed_video_is_refused_until_computed_anew(data, tmp_path):
    shutil.copytree(data / "data", tmp_path / "data")
    path = str(tmp_path / "data/a/moving.mkv")
    list(compute(tmp_path / "data", tmp_path / "out"))
    source = FlowFolder(tmp_path / "out")
    source.file(path)
    draw(path, shifted(MOTIONS[:5]))
    with pytest.raises(VideoError, match=r"moving.mkv: it has changed since"):
        source.file(path)
    rows = list(compute(tmp_path / "data", tmp_path / "out"))
    assert [row["computed"] for row in rows] == [True, False, False]
    assert source.planes(path, np.arange(5)).shape[0] == 5


def test_a_change_of_the_same_length_is_noticed(data, tmp_path):
    shutil.copytree(data / "data", tmp_path / "data")
    path = tmp_path / "data/a/moving.mkv"
    list(compute(tmp_path / "data", tmp_path / "out"))
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    with pytest.raises(VideoError, match=r"it has changed since"):
        FlowFolder(tmp_path / "out").file(path)


def test_copies_of_the_videos_have_the_same_flow(data, tmp_path):
    for place in (data / "data").rglob("*.mkv"):
        copy = tmp_path / place.relative_to(data / "data")
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(place.read_bytes())
        os.utime(copy, ns=(7, 7))
    source = FlowFolder(data / "out", tmp_path)
    assert source.file(tmp_path / "a/moving.mkv") == str(
        data / "out/a/moving.mkv.flow"
    )


def test_a_video_without_flow_is_told_the_command(stored, tmp_path):
    path = draw(tmp_path / "new.mkv", shifted())
    with pytest.raises(
        VideoError, match=r"has no flow of it: run videofusion flow DATA /"
    ):
        stored.file(path)


@pytest.mark.parametrize("length", [100, -300])
def test_a_damaged_file_of_flow_is_named(data, tmp_path, length):
    shutil.copytree(data / "out", tmp_path / "out")
    file = tmp_path / "out/a/moving.mkv.flow"
    file.write_bytes(file.read_bytes()[:length])
    source = FlowFolder(tmp_path / "out")
    with pytest.raises(
        VideoError, match=r"moving.mkv.flow: .*compute it again"
    ):
        source.planes(str(data / "data/a/moving.mkv"), np.arange(11))


@pytest.mark.parametrize(
    "manifest", [None, "", "[]", '{"version": 1}', '{"version": 99}']
)
def test_a_folder_that_holds_no_flow_is_refused(tmp_path, manifest):
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(ValueError, match=r"manifest.json: .*videofusion flow"):
        open_flow(tmp_path)


def test_flow_that_is_needed_must_be_named():
    with pytest.raises(ValueError, match=r"videofusion flow DATA OUT.*--flow"):
        open_flow(None)


def test_arguments_of_compute_are_checked_before_any_work(data, tmp_path):
    for name in ("workers", "short_side"):
        with pytest.raises(ValueError, match=f"`{name}` must be 1 or more"):
            compute(data / "data", tmp_path / "out", **{name: 0})
    assert not (tmp_path / "out").exists()


def test_rows_of_one_file_share_its_flow(data, tmp_path):
    parts = tuple(
        Video("a/moving.mkv", ("a",), start=start, end=start + 0.1)
        for start in (0.0, 0.1)
    )
    catalog = Catalog(parts, ("a",), str(data / "data"))
    assert len(list(compute(catalog, tmp_path / "out"))) == 1


def test_files_outside_of_the_data_stay_inside_of_the_folder():
    assert file_name("/d/a/1.avi", "/d") == os.path.join("a", "1.avi.flow")
    assert file_name("/e/1.avi", "/d/x") == os.path.join(
        "up", "up", "e", "1.avi.flow"
    )


@pytest.mark.skipif(os.name != "posix", reason="kills by POSIX signals")
def test_work_that_was_killed_leaves_whole_files_and_goes_on(data, tmp_path):
    code = f"""
        import time
        from keras_videofusion.data import flow
        dis = flow._dis
        def slow():
            between = dis()
            def wait(first, second):
                time.sleep(0.1)
                return between(first, second)
            return wait
        flow._METHODS["dis"] = slow
        for row in flow.compute({str(data / "data")!r}, {str(tmp_path)!r},
                                workers=1):
            print(row["path"], flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout.readline() == "a/moving.mkv\n"
    first = tmp_path / "a/moving.mkv.flow"
    finished = first.stat().st_mtime_ns
    while not list(tmp_path.glob("b/.draft-*")):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert list(tmp_path.glob("b/.draft-*"))
    assert not (tmp_path / "b/other.mkv.flow").exists()

    rows = list(compute(data / "data", tmp_path))

    assert [row["computed"] for row in rows] == [False, False, True]
    assert first.stat().st_mtime_ns == finished
    assert not list(tmp_path.rglob(".draft-*"))
    assert (tmp_path / "b/other.mkv.flow").read_bytes() == (
        data / "out/b/other.mkv.flow"
    ).read_bytes()


# Clips.


def plainly(every, spec, start, numbers):
    """Displacements of a clip's fields, one at a time, `(fields, h, w, 2)`.

    Args:
        every: All fields of the video, in pixels.
        spec: `ClipSpec`.
        start: The clip's first frame.
        numbers: The video's frames that clips are made of.
    """
    last = len(numbers) - 1
    found = []
    for chunk in spec.flow_offsets:
        for begin, end in pairwise(chunk):
            field = np.zeros(every.shape[1:])
            for motion in range(start + begin, start + end):
                if spec.short == "loop":
                    # From the last frame to the first: as just before it.
                    motion = min(motion % (last + 1), last - 1)
                elif motion >= last:
                    continue
                for number in range(numbers[motion], numbers[motion + 1]):
                    field = field + every[number]
            found.append(field)
    return np.array(found)


def of_flow(frames, **changed):
    return ClipSpec(
        frames, resize=(HEIGHT, WIDTH), size=(HEIGHT, WIDTH),
        streams=("flow",), **changed,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "start", "end"),
    [
        (of_flow(4), None, None),
        (of_flow(3, step=2), None, None),
        (of_flow(1, flow=3, chunks=3, spacing=2), None, None),
        (of_flow(2, fps=12.5), None, None),
        (of_flow(9, fps=50), None, None),
        (of_flow(3, step=2, fps=12.5), None, None),
        (of_flow(3), 0.12, 0.33),
        (of_flow(20), None, None),
        (of_flow(20, short="loop"), None, None),
        (of_flow(9, step=3, short="loop"), 0.08, 0.4),
    ],
    ids=lambda value: None,
)
def test_clips_are_sums_of_the_fields_between_their_frames(
    moving, stored, spec, start, end
):
    every = from_bytes(all_bytes(moving)).astype(float)
    found, seconds = read_clips(
        moving, spec, "uniform", 3, None, start, end, flow=stored
    )
    frames = np.arange(len(MOTIONS) + 1)
    times = frames / 25
    inside = frames[(times > (start or 0) - 1e-6) & (times < (end or 1) - 1e-6)]
    if spec.fps:
        grid = np.arange(0, times[inside[-1]] + 1e-6, 1 / spec.fps)
        inside = np.array([frames[times <= t + 1e-6][-1] for t in grid])
    assert found.shape == (3, spec.chunks * spec.flow, HEIGHT, WIDTH, 2)
    starts = clip_starts(len(inside), spec, "uniform", 3)
    np.testing.assert_allclose(seconds, times[inside[starts]])
    for clip, begin in zip(found, starts, strict=True):
        expected = plainly(every, spec, begin, inside)
        np.testing.assert_array_equal(clip, to_bytes(expected))


def test_a_video_that_holds_stands_still_past_its_end(moving, stored):
    (clip,), _ = read_clips(moving, of_flow(20), "centre", 1, flow=stored)
    assert (clip[len(MOTIONS) :] == 128).all()
    assert (clip[0] != 128).any()


def test_one_frame_stands_still(data, stored):
    path = str(data / "data/a/one.mkv")
    for source in (stored, open_flow("dis")):
        found, _ = read_clips(path, of_flow(4), "centre", 1, flow=source)
        assert found.shape == (1, 4, HEIGHT, WIDTH, 2)
        assert (found == 128).all()


@pytest.mark.parametrize(
    ("resize", "shape", "grown"),
    [
        (("short_side", 144), (144, 192), (2, 2)),
        (("short_side", 36), (36, 48), (0.5, 0.5)),
        ((72, 192), (72, 192), (2, 1)),
        (("square", 36), (36, 36), (0.5, 0.5)),
    ],
)
def test_displacements_grow_with_the_frame(
    moving, stored, resize, shape, grown
):
    spec = ClipSpec(11, resize=resize, size=(36, 36), streams=("flow",))
    (clip,), _ = read_clips(moving, spec, "centre", 1, flow=stored)
    assert clip.shape == (11, *shape, 2)
    np.testing.assert_allclose(
        middle(from_bytes(clip)), np.array(MOTIONS) * grown, atol=0.32
    )


def test_places_of_flow_are_those_of_the_frames(tmp_path):
    """Half of the picture moves: colours and flow agree on which half."""
    scene = texture(96, 128)
    frames = np.stack([scene] * 3)
    for number in range(3):
        frames[number, :, 64:] = np.roll(scene[:, 64:], 3 * number, axis=0)
        frames[number, :, :64] //= 4
    path = draw(tmp_path / "half.mkv", frames)
    for resize in (("square", 48), ("pad", 80, 60), ("cover", 40, 80)):
        spec = ClipSpec(
            2, resize=resize, size=(40, 48), streams=("rgb", "flow")
        )
        clip, _ = read_clips(path, spec, "centre", 1, flow=open_flow("dis"))
        assert clip["rgb"].shape[2:4] == clip["flow"].shape[2:4]
        rows = slice(clip["rgb"].shape[2] // 3, -clip["rgb"].shape[2] // 3)
        moved = np.median(clip["flow"][0, 0, rows, :, 1], axis=0) > 132
        bright = clip["rgb"][0, 0, rows, :, 0].mean(axis=0) > 64
        assert abs(int(moved.sum()) - int(bright.sum())) <= 3
        assert (moved == bright).mean() > 0.9


def test_padding_stands_still(moving, stored):
    spec = ClipSpec(
        2, resize=("pad", 100, 96), size=(100, 96), streams=("flow",)
    )
    (clip,), _ = read_clips(moving, spec, "centre", 1, flow=stored)
    assert (clip[:, :14] == 128).all()
    assert (clip[:, 86:] == 128).all()
    assert (clip[0, 14:86, :, 0] != 128).mean() > 0.9


def test_mirrored_frames_have_the_mirrored_flow(tmp_path):
    from keras_videofusion.data.augmentation import flip

    path = draw(tmp_path / "a.mkv", shifted())
    mirrored = draw(tmp_path / "b.mkv", shifted()[:, :, ::-1])
    first, second = (
        read_clips(p, of_flow(11), "centre", 1, flow=open_flow("dis"))[0]
        for p in (path, mirrored)
    )
    expected = middle(from_bytes(flip(first)))
    np.testing.assert_allclose(middle(from_bytes(second)), expected, atol=0.16)
    np.testing.assert_allclose(
        expected[0], [(-x, y) for x, y in MOTIONS], atol=0.16
    )


def test_clips_of_flow_need_to_know_where_from(moving):
    with pytest.raises(ValueError, match=r"`flow` must say.*flow=None"):
        read_clips(moving, of_flow(2), "centre", 1)

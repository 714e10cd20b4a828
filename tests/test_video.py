"""Frames of video files, right to the frame: by drawing numbered ones."""

import os
import threading

import av
import numbered
import numpy as np
import pytest

from keras_videofusion.data import video
from keras_videofusion.data.clips import ClipSpec, frame_indices
from keras_videofusion.data.video import (
    decode,
    read_clips,
    timeline,
    VideoError,
)

UNEVEN = np.cumsum(np.random.default_rng(0).integers(5, 90, 40))
OPEN = {"x264-params": "open-gop=1:scenecut=0:b-adapt=0"}
PIECES = {"movflags": "frag_keyframe+empty_moov"}
QUIET = {"x265-params": "log-level=none"}
ALT = {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "5"}

# fmt: off
FILES = {
    "mpeg4.avi": dict(codec="mpeg4"),
    "mpeg4_b.avi": dict(codec="mpeg4", b_frames=2),  # counted: no stamps
    "mpeg4_b.mp4": dict(codec="mpeg4", b_frames=2),
    "h264_gop1.mp4": dict(gop=1),
    "h264_gop3.mp4": dict(gop=3, b_frames=2),
    "h264.mp4": dict(b_frames=3),
    "h264_gop250.mp4": dict(gop=250, b_frames=3),
    "h264.mkv": dict(b_frames=3),
    "h264.ts": dict(b_frames=3),
    "h264.flv": dict(b_frames=3),
    "h264.avi": dict(b_frames=3),
    "pieces.mp4": dict(b_frames=2, container_options=PIECES),
    "open_gop.mp4": dict(b_frames=3, options=OPEN),
    "open_gop.mkv": dict(b_frames=3, options=OPEN),
    "open_gop.ts": dict(b_frames=3, options=OPEN),
    # Keyframes that do not stand by themselves.
    "refreshed.mp4": dict(options={"x264-params": "intra-refresh=1"}),
    "ten_bits.mp4": dict(b_frames=3, pixels="yuv420p10le"),
    "uneven.mp4": dict(b_frames=3, milliseconds=UNEVEN),
    "uneven.mkv": dict(b_frames=3, milliseconds=UNEVEN),
    "late.mkv": dict(milliseconds=33 + 40 * np.arange(40)),
    "hevc.mp4": dict(codec="libx265", options=QUIET),
    "vp8.webm": dict(codec="libvpx", gop=24, options=ALT),
    "vp9.webm": dict(codec="libvpx-vp9", gop=24, options=ALT),
    "av1.mkv": dict(codec="libsvtav1", gop=24, options={"preset": "12"}),
    "mpeg2.mpg": dict(codec="mpeg2video", b_frames=2),
    "mpeg1.mpg": dict(codec="mpeg1video"),  # seeks amid groups
    "motion.avi": dict(codec="mjpeg", pixels="yuvj420p"),
    "turning.gif": dict(codec="gif", pixels="rgb8"),
    "one.mp4": dict(frames=1),
    "two.mp4": dict(frames=2, b_frames=3),
}
# fmt: on


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """Function from a name in `FILES` to a file; each is drawn once."""
    folder = tmp_path_factory.mktemp("drawn")

    def draw(name):
        arguments = dict(FILES[name])
        codec = arguments.get("codec", "libx264")
        if codec not in av.codecs_available:
            pytest.skip(f"PyAV was built without {codec}")
        path = folder / name
        if not path.exists():
            numbered.draw(path, **arguments)
        return str(path)

    return draw


@pytest.fixture
def opened(monkeypatch):
    """Counts how often a file is opened."""
    calls = []
    real = av.open

    def counted(*arguments, **options):
        calls.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(av, "open", counted)
    return calls


@pytest.mark.parametrize("name", FILES)
def test_timeline_counts_and_times_every_frame(name, drawn):
    found = timeline(drawn(name))

    count = FILES[name].get("frames", 40)
    assert len(found) == count
    assert (found.height, found.width) == (64, 128)
    times = FILES[name].get("milliseconds")
    times = 40 * np.arange(count) if times is None else times - times[0]
    # Matroska and FLV round to milliseconds.
    np.testing.assert_allclose(found.times, times / 1000, atol=1e-3)
    assert found.times[0] == 0
    if count > 1:
        rate = (count - 1) * 1000 / times[-1]
        assert found.rate == pytest.approx(rate, rel=0.01)
    assert found.keyframes[0] == 0
    assert (np.diff(found.keyframes) > 0).all()


@pytest.mark.parametrize("name", FILES)
def test_decode_gives_the_very_frames(name, drawn):
    path = drawn(name)
    count = len(timeline(path))
    # Each alone, so that every seek is tried; pairs far and near; all.
    wanted = [[number] for number in range(count)]
    generator = np.random.default_rng(0)
    wanted += [generator.integers(0, count, 5) for _ in range(12)]
    wanted += [np.arange(count), np.arange(count)[::-1]]

    found = [numbered.read(decode(path, numbers)) for numbers in wanted]

    for numbers, seen in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(seen, numbers)


def test_decode_equals_a_slow_decoding_of_everything(drawn):
    path = drawn("h264.mp4")
    with av.open(path) as container:
        slow = np.stack(
            [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        )

    pixels = decode(path, [30, 2, 30, 17])

    # Two grey levels: another way of rounding.
    difference = pixels.astype(int) - slow[[30, 2, 30, 17]]
    assert abs(difference).max() <= 2


@pytest.mark.parametrize("options", [{"x264-params": "intra-refresh=1"}, {}])
def test_frames_do_not_depend_on_where_decoding_began(options, tmp_path):
    path = str(tmp_path / "wide.mp4")
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 384, 192, "yuv420p"
        stream.gop_size = 12
        stream.codec_context.max_b_frames = 0
        for number in range(60):
            pixels = numbered.picture(number).repeat(3, 0).repeat(3, 1)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        file.mux(stream.encode())
    whole = decode(path, np.arange(60))

    for number in range(60):
        np.testing.assert_array_equal(decode(path, [number])[0], whole[number])


def test_decode_reads_no_more_than_the_groups_it_needs(drawn, monkeypatch):
    path = drawn("h264.mp4")
    timeline(path)
    seen = []
    real = video._packets

    def counted(*arguments):
        for packet in real(*arguments):
            seen.append(packet.pts)
            yield packet

    monkeypatch.setattr(video, "_packets", counted)

    # Keyframes at 0, 12, 24, 36 at the latest; three B-frames at a time.
    decode(path, [13, 38])

    assert len(seen) <= 2 * 5 + 2


def test_timeline_is_remembered_until_the_file_changes(tmp_path, opened):
    path = numbered.draw(tmp_path / "a.mp4", frames=5)
    opened.clear()

    assert len(timeline(path)) == len(timeline(path)) == 5
    assert len(opened) == 1

    numbered.draw(path, frames=7)
    os.utime(path, ns=(1, 1))
    assert len(timeline(path)) == 7


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_videos_are_turned_upright(degrees, tmp_path):
    path = numbered.draw(tmp_path / "turned.mp4")
    numbered.turn(path, degrees)

    found = timeline(path)
    pixels = decode(path, [3, 20, 39])
    small = decode(path, [3, 20, 39], ("short_side", 32))

    # A turn clockwise is undone by one counter-clockwise.
    shape = (64, 128) if degrees == 180 else (128, 64)
    assert (found.height, found.width) == pixels.shape[1:3] == shape
    for seen in (pixels, small):
        seen = np.rot90(seen, degrees // 90, (1, 2))
        assert numbered.read(seen).tolist() == [3, 20, 39]


def gradient(tmp_path, height, width, name="gradient.mp4"):
    """A file whose red tells the column and whose green tells the row."""
    path = str(tmp_path / name)
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 256 // width, y * 256 // height, 0 * x + 128], 2)
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"qp": "4"})
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p"
        frame = av.VideoFrame.from_ndarray(pixels.astype(np.uint8), "rgb24")
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path, pixels


def slow_resize(pixels, height, width):
    """Averages areas, pixel by pixel of a grid sixteen times as fine."""
    fine = 16
    rows = (np.arange(height * fine) + 0.5) / (height * fine) * len(pixels)
    columns = np.arange(width * fine) + 0.5
    columns = columns / (width * fine) * pixels.shape[1]
    found = pixels[rows.astype(int)][:, columns.astype(int)]
    return found.reshape(height, fine, width, fine, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("size", [(96, 160), (160, 96), (240, 320)])
@pytest.mark.parametrize(
    "resize",
    [
        None,
        ("square", 80),
        ("square", 40),
        ("square", 200),
        ("short_side", 64),
        ("cover", 60, 90),
        ("pad", 60, 90),
        (50, 70),
    ],
)
def test_resize_keeps_the_right_part_of_the_frame(size, resize, tmp_path):
    path, pixels = gradient(tmp_path, *size)
    height, width = size

    found = decode(path, [0], resize)[0].astype(float)

    kind, *to = resize or (None,)
    if kind == "square":
        side = min(size)
        top, left = (height - side) // 2, (width - side) // 2
        kept = pixels[top : top + side, left : left + side]
        expected = slow_resize(kept, to[0], to[0])
    elif kind == "short_side":
        scale = to[0] / min(size)
        expected = slow_resize(
            pixels, round(height * scale), round(width * scale)
        )
    elif kind in ("cover", "pad"):
        choose = max if kind == "cover" else min
        scale = choose(to[0] / height, to[1] / width)
        whole = slow_resize(pixels, round(height * scale), round(width * scale))
        expected = np.zeros((*to, 3))
        rows, columns = (
            min(a, b) for a, b in zip(to, whole.shape[:2], strict=True)
        )
        into = [(t - n) // 2 for t, n in zip(to, (rows, columns), strict=True)]
        out = [
            (w - n) // 2
            for w, n in zip(whole.shape[:2], (rows, columns), strict=True)
        ]
        expected[into[0] : into[0] + rows, into[1] : into[1] + columns] = whole[
            out[0] : out[0] + rows, out[1] : out[1] + columns
        ]
    else:
        expected = slow_resize(pixels, *(resize or size))
    assert found.shape == expected.shape
    # Blue is the same everywhere: what swscale rounds off goes with it.
    # One column of 40 is six levels of red.
    error = (found - found[..., 2:]) - (expected - expected[..., 2:])
    assert abs(error).mean() < 3
    assert np.percentile(abs(error), 99) < 14


COLOURS = np.array(
    [(255, 0, 0), (0, 255, 0), (0, 0, 255), (20, 120, 200), (128, 128, 128),
     (255, 255, 255), (0, 0, 0)]
)  # fmt: skip
# Shares of red and blue in the luma, and the number in the file.
MATRICES = {"bt601": (0.299, 0.114, 5), "bt709": (0.2126, 0.0722, 1)}


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("resize", [None, ("cover", 16, 112)])
def test_colours_obey_the_matrix_and_the_range_of_the_file(
    matrix, full, bits, resize, tmp_path
):
    old = int(av.__version__.split(".")[0]) < 17
    if old and (matrix, full, bits, resize) == ("bt601", True, 10, None):
        pytest.skip("PyAV before 17 passes over the range here")
    red, blue, number = MATRICES[matrix]
    colours = COLOURS / 255
    luma = colours @ [red, 1 - red - blue, blue]
    differences = (
        (colours[:, 2] - luma) / (2 - 2 * blue),
        (colours[:, 0] - luma) / (2 - 2 * red),
    )
    top, unit = 2**bits - 1, 2 ** (bits - 8)
    if full:
        planes = [luma * top] + [c * top + 128 * unit for c in differences]
    else:
        planes = [luma * 219 * unit + 16 * unit]
        planes += [c * 224 * unit + 128 * unit for c in differences]
    path = str(tmp_path / "colours.mp4")
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"qp": "1"})
        stream.width, stream.height = 32 * len(COLOURS), 32
        stream.pix_fmt = "yuv420p" if bits == 8 else "yuv420p10le"
        stream.codec_context.colorspace = number
        stream.codec_context.color_range = 2 if full else 1
        frame = av.VideoFrame(stream.width, 32, stream.pix_fmt)
        for plane, values in zip(frame.planes, planes, strict=True):
            wide = plane.width // len(COLOURS)
            kind = np.uint8 if bits == 8 else np.uint16
            row = np.clip(values.round(), 0, top).astype(kind).repeat(wide)
            rows = np.zeros(
                (plane.height, plane.line_size // row.itemsize), kind
            )
            rows[:, : len(row)] = row
            plane.update(rows.tobytes())
        file.mux(stream.encode(frame))
        file.mux(stream.encode())

    pixels = decode(path, [0], resize)[0].astype(int)
    side = len(pixels)
    seen = pixels[side // 2, side // 2 :: side]

    assert abs(seen - COLOURS).max() <= 5


def test_read_clips_are_the_frames_that_the_clip_names(drawn):
    path = drawn("h264.mp4")
    spec = ClipSpec(4, step=3, resize=("cover", 64, 128), size=64)

    clips, seconds = read_clips(path, spec, "uniform", 5)

    assert clips.shape == (5, 4, 64, 128, 3)
    assert clips.dtype == np.uint8
    starts = np.linspace(0, 30, 5).round()
    np.testing.assert_allclose(seconds, starts / 25)
    expected = [frame_indices(int(start), spec, 40) for start in starts]
    np.testing.assert_array_equal(numbered.read(clips), expected)


def test_read_clips_of_a_segment_stay_in_it(drawn):
    path = drawn("mpeg4.avi")
    spec = ClipSpec(10, resize=("cover", 64, 128), size=64)

    clips, seconds = read_clips(
        path, spec, "random", 50, np.random.default_rng(0), 0.4, 0.88
    )
    whole, _ = read_clips(path, spec, "dense", 1, None, 0.4)
    short, _ = read_clips(path, spec, "centre", 1, None, None, 0.12)

    # Seconds 0.4 to 0.88: frames 10 to 21; a start is one of three.
    found = numbered.read(clips)
    assert set(found[:, 0]) == {10, 11, 12}
    assert (np.diff(found) == 1).all()
    np.testing.assert_allclose(seconds, found[:, 0] / 25)
    assert set(numbered.read(whole).ravel()) == set(range(10, 40))
    assert numbered.read(short).tolist() == [[0, 1, 2, 2, 2, 2, 2, 2, 2, 2]]


@pytest.mark.parametrize("name", ["h264.mp4", "uneven.mp4", "uneven.mkv"])
@pytest.mark.parametrize("fps", [10.0, 15.0, 60.0])
def test_read_clips_at_a_fixed_rate_show_what_is_on_screen(name, fps, drawn):
    path = drawn(name)
    spec = ClipSpec(8, fps=fps, resize=("cover", 64, 128), size=64)

    clips, seconds = read_clips(path, spec, "uniform", 4)

    times = timeline(path).times
    for clip, start in zip(numbered.read(clips), seconds, strict=True):
        first = int(np.searchsorted(times, start))
        assert clip[0] == first
    # The first clip begins at 0, so its grid is known.
    on_screen = [
        max(n for n, time in enumerate(times) if time <= tick / fps + 1e-6)
        for tick in range(8)
    ]
    np.testing.assert_array_equal(numbered.read(clips)[0], on_screen)


def test_read_clips_of_an_empty_segment_say_how_long_the_video_is(drawn):
    with pytest.raises(VideoError, match=r"no frame between 7 and 9 seconds"):
        read_clips(drawn("h264.mp4"), ClipSpec(2), "centre", 1, None, 7, 9)


def test_random_clips_depend_on_the_generator_alone(drawn):
    path, spec = drawn("h264.mp4"), ClipSpec(5)

    one = read_clips(path, spec, "random", 3, np.random.default_rng(4))
    two = read_clips(path, spec, "random", 3, np.random.default_rng(4))

    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])


def test_recordings_that_begin_amid_a_group_lose_what_does_not_decode(drawn):
    path = drawn("open_gop.ts")
    cut = path.replace("open_gop.ts", "amid.ts")
    with open(path, "rb") as file, open(cut, "wb") as other:
        data = file.read()
        keys = timeline(path).keyframes
        # Packets of 188 bytes; the first quarter holds the first keyframe.
        other.write(data[len(data) // 4 // 188 * 188 :])

    count = len(timeline(cut))
    seen = numbered.read(decode(cut, np.arange(count)))

    assert count <= 40 - keys[1]
    np.testing.assert_array_equal(seen, np.arange(40 - count, 40))
    assert numbered.read(decode(cut, [count - 1])) == [39]


def test_a_file_that_breaks_off_is_a_shorter_video(drawn):
    for name in ("mpeg4.avi", "mpeg4_b.avi", "h264.mkv", "h264.flv"):
        path = drawn(name)
        cut = path.replace(name, f"cut_{name}")
        with open(path, "rb") as file, open(cut, "wb") as other:
            data = file.read()
            other.write(data[: len(data) * 3 // 4])

        count = len(timeline(cut))
        seen = numbered.read(decode(cut, np.arange(count)))

        assert 5 < count < 40
        # Of the last group of B-frames some may be lost and others not.
        np.testing.assert_array_equal(seen[:-3], np.arange(count - 3))
        assert (np.diff(seen) > 0).all()


def test_frames_that_do_not_decode_are_an_error_that_names_the_file(drawn):
    path = drawn("h264_gop250.mp4")
    broken = path.replace("h264_gop250", "broken")
    with open(path, "rb") as file, open(broken, "wb") as other:
        data = bytearray(file.read())
        # The second half of the pictures; the table of them stays whole.
        begin, end = data.index(b"mdat"), data.index(b"moov") - 4
        middle = (begin + end) // 2
        data[middle:end] = bytes([255]) * (end - middle)
        other.write(data)

    assert len(timeline(broken)) == 40
    assert numbered.read(decode(broken, [0, 1])).tolist() == [0, 1]
    with pytest.raises(VideoError, match=r"broken\.mp4: .+") as caught:
        decode(broken, np.arange(40))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("numbers", [[-1], [40], [0, 99]])
def test_numbers_without_a_frame_are_refused(numbers, drawn):
    with pytest.raises(IndexError, match=r"0\.\.39.*Received"):
        decode(drawn("h264.mp4"), numbers)


def test_no_numbers_are_refused(drawn):
    with pytest.raises(ValueError, match="must not be empty"):
        decode(drawn("h264.mp4"), [])


def test_names_that_look_like_addresses_or_patterns_are_files(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    names = ["a:b.mp4", "file:c.mp4", "d%03d.mp4", "e?*.mp4", "-.mp4"]
    for name in names:
        os.replace(numbered.draw("plain.mp4", frames=3), name)

    for name in names:
        assert len(timeline(name)) == 3
        assert len(decode(name, [0, 2])) == 2


def test_threads_decode_side_by_side(drawn):
    path = drawn("h264.mp4")
    failures = []

    def work(seed):
        numbers = np.random.default_rng(seed).integers(0, 40, (20, 4))
        for some in numbers:
            if numbered.read(decode(path, some)).tolist() != some.tolist():
                failures.append(some)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures


def test_files_are_closed(drawn):
    path = drawn("h264.mp4")
    decode(path, [3])
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc here")
    before = len(os.listdir("/proc/self/fd"))

    for number in range(20):
        decode(path, [number])
        with pytest.raises(VideoError):
            read_clips(path, ClipSpec(2), "centre", 1, None, 90)

    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.slow
def test_memory_does_not_grow_over_two_thousand_clips(drawn):
    path, spec = drawn("mpeg4.avi"), ClipSpec(10)
    generator = np.random.default_rng(0)

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def read(clips):
        for _ in range(clips):
            read_clips(path, spec, "random", 1, generator)

    read(200)
    before = resident()
    read(2000)

    # A leaked container is 80 kB and more: 2,000 of them are 160 MB.
    assert resident() - before < 16e6


TRUE = {
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
    "mmaction2/demo.mp4": (280, 256, 340),
    "tfio/small.mp4": (166, 320, 560),
    "torchcodec/av1_video.mkv": (125, 360, 640),
    "torchcodec/h264_10bits.mp4": (30, 200, 200),
    "torchcodec/h265_video.mp4": (10, 128, 128),
}


@pytest.mark.parametrize("name", TRUE)
def test_real_files_give_what_a_slow_decoding_gives(name, shared):
    path = str(shared / "data" / "clips" / name)
    frames, height, width = TRUE[name]
    generator = np.random.default_rng(0)
    wanted = np.sort(generator.choice(frames, min(frames, 6), replace=False))
    with av.open(path) as container:
        slow = {
            number: frame.to_ndarray(format="rgb24").astype(int)
            for number, frame in enumerate(container.decode(video=0))
            if number in wanted
        }

    found = timeline(path)
    pixels = np.concatenate([decode(path, [number]) for number in wanted])

    assert len(found) == frames
    assert (found.height, found.width) == (height, width)
    # Before PyAV 17 the plain way passes over the file's colours.
    near = 1.5 if int(av.__version__.split(".")[0]) >= 17 else 6
    for number, seen in zip(wanted, pixels, strict=True):
        plain = np.rot90(slow[number], found.rotation)
        assert abs(seen - plain).mean() < near

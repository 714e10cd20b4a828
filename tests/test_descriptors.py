"""Descriptors of frames that were drawn to have known ones."""

import sys
import tracemalloc
from dataclasses import replace
from functools import partial

import av
import numpy as np
import pytest

from keras_videofusion.baseline import descriptors
from keras_videofusion.baseline.descriptors import (
    colour_moments,
    corners,
    Cuboids,
    describe,
    faces,
    filters,
    hog,
    hue_saturation,
    Local,
    of_frames,
    quadrature,
    response,
    Textons,
)
from keras_videofusion.baseline.settings import Settings
from keras_videofusion.data import video
from keras_videofusion.data.video import VideoError

needed = partial(
    pytest.importorskip,
    reason="needs pip install 'keras-videofusion[baseline]'",
)
cv2, ndimage = needed("cv2"), needed("scipy.ndimage")
color, data = needed("skimage.color"), needed("skimage.data")

SIDE = 64
SMALL = Settings(side=SIDE, cuboid_rate=7, cuboid_threshold=1e-4)
NAMES = tuple(block.name for block in SMALL.blocks)


def film(path, frames, rate=25):
    """Writes frames, `(frames, height, width[, 3])`, without loss."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        for pixels in frames:
            if pixels.ndim == 2:
                pixels = np.repeat(pixels[..., None], 3, axis=2)
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            file.mux(stream.encode(picture.reformat(format="bgr0")))
        file.mux(stream.encode())
    return str(path)


def noise(*shape, smooth=2.0, seed=0):
    """Noise, uint8, smooth in space: something happens everywhere."""
    values = np.random.default_rng(seed).normal(size=shape)
    values = ndimage.gaussian_filter(values, smooth, axes=(-2, -1))
    values -= values.min()
    return np.uint8(255 * values / values.max())


def coloured(frames, side=SIDE, seed=0):
    """Noise in three channels, `(frames, side, side, 3)`."""
    return np.stack(
        [noise(frames, side, side, seed=seed + i) for i in range(3)], -1
    )


def gathered(path, settings, **options):
    """All that `describe` yields, joined."""
    found = {}
    for part in describe(path, settings, **options):
        for name, values in part.items():
            found.setdefault(name, []).append(values)

    def joined(name, parts):
        if name == "hue_saturation":
            return sum(parts)
        if name == "faces":
            return np.concatenate(parts)
        return Local(*map(np.concatenate, zip(*parts, strict=True)))

    return {name: joined(name, parts) for name, parts in found.items()}


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    """A film of 70 frames, 2.8 seconds, in which much happens."""
    path = tmp_path_factory.mktemp("films") / "noise.mkv"
    return film(path, coloured(70))


# Settings


def test_the_default_vector_has_25000_numbers():
    settings = Settings()
    assert settings.size == 25_000
    sizes = [block.words * block.cells for block in settings.blocks]
    assert sizes == [5000, 5000, 5000, 2000, 5000, 2000, 640, 350, 10]
    ends = np.cumsum(sizes)
    assert settings.spans == {
        block.name: (end - size, end)
        for block, size, end in zip(settings.blocks, sizes, ends, strict=True)
    }
    assert sum(block.cells for block in settings.blocks) == 41


def test_a_cuboid_is_six_times_the_scales_long():
    printed = Settings(cuboid_sigma=2.0, cuboid_tau=2.5)
    assert printed.cuboid_shape == (17, 13, 13)
    other = Settings(cuboid_sigma=1.2, cuboid_tau=1, cuboid_omega=0.3)
    assert other.cuboid_shape == (7, 9, 9)


@pytest.mark.parametrize("wrong", [{"cuboid_tau": 2}, {"cuboid_omega": 1.02}])
def test_a_frequency_that_stands_still_is_refused(wrong):
    """The printed 4 / tau is a whole number at scales that are in use."""
    with pytest.raises(ValueError, match="such a wave stands still"):
        Settings(**wrong)


def test_settings_survive_json():
    settings = replace(SMALL, fit="stretch", corners=12)
    assert Settings.from_json(settings.to_json()) == settings
    with pytest.raises(
        ValueError, match=r"no such fields; perhaps .* Received: wurds"
    ):
        Settings.from_json({"wurds": 3})


@pytest.mark.parametrize(
    "wrong",
    [
        {"fit": "round"},
        {"side": 0},
        {"side": 15},
        {"corners": 2.5},
        {"neighbours": True},
        {"cuboid_tau": 0},
        {"cuboid_sigma": float("nan")},
        {"cuboid_omega": -1},
        {"face_scale": 1.0},
    ],
    ids=str,
)
def test_settings_out_of_range_are_named(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"`{name}` must be .* Received: "):
        Settings(**wrong)


# All blocks


@pytest.mark.parametrize("run", [3, 20, 37])
def test_descriptors_do_not_depend_on_the_length_of_runs(moving, run):
    # Points in nearly every frame, so at the seams, too.
    settings = replace(SMALL, cuboid_rate=200)
    whole = gathered(moving, settings, run=1000)
    parts = gathered(moving, settings, run=run)
    assert tuple(parts) == tuple(whole) == NAMES
    assert len(whole["cuboid_points"].values) > 150
    for name in NAMES:
        for one, other in zip(whole[name], parts[name], strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)


def test_shapes_and_cells(moving):
    for name, found in gathered(moving, SMALL).items():
        if name == "faces":
            assert found.shape == (70,)
            assert found.dtype == np.int64
        elif name == "hue_saturation":
            assert found.shape == (5, 128)
            assert found.dtype == np.int64
        else:
            assert found.values.dtype == np.float32
            assert found.cells.dtype == np.int8
            assert len(found.values) == len(found.cells)
            first = 0 if name == "colour_moments" else 1
            assert set(found.cells) <= set(range(first, 5))
            assert np.isfinite(found.values).all()
    assert found.sum() == 0


def test_counts_of_dense_blocks(moving):
    found = gathered(moving, SMALL)
    assert len(found["hog_dense"].values) == 70 * 7 * 7
    assert len(found["texton_dense"].values) == 70 * 16 * 16
    assert len(found["colour_moments"].values) == 70 * 5
    # t = 4, 12 .. 68; y and x = 12, 37, 62
    assert len(found["cuboid_dense"].values) == 9 * 3 * 3
    for name in ("hog", "texton"):
        at_corners = len(found[f"{name}_corners"].values)
        assert 70 < at_corners <= 70 * 100


def test_a_segment_is_described_like_a_film_of_its_own(moving, tmp_path):
    alone = film(tmp_path / "part.mkv", coloured(70)[20:55])
    part = gathered(moving, SMALL, start=20 / 25, end=55 / 25)
    for name, found in gathered(alone, SMALL).items():
        for one, other in zip(part[name], found, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)


def test_blocks_may_be_chosen(moving):
    whole = gathered(moving, SMALL)
    for name in NAMES:
        (found,) = gathered(moving, SMALL, blocks=[name]).items()
        assert found[0] == name
        for one, other in zip(found[1], whole[name], strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("side", [16, 40])
def test_short_black_and_tiny_films_have_descriptors(tmp_path, frames, side):
    black = np.zeros((frames, 30, 50, 3), np.uint8)
    path = film(tmp_path / "black.mkv", black)
    found = gathered(path, replace(SMALL, side=side))
    for name in ("hog_corners", "texton_corners", "cuboid_points"):
        assert len(found[name].values) == 0
        assert found[name].values.shape[1] in (36, 8, 8619)
    assert found["hog_dense"].values.any() == 0
    assert found["texton_dense"].values.any() == 0
    np.testing.assert_array_equal(
        found["hue_saturation"][:, 0],
        frames * side**2 * np.array([1, 0.25, 0.25, 0.25, 0.25]),
    )
    assert found["colour_moments"].values.any() == 0
    assert found["faces"].tolist() == [0] * frames


def test_memory_does_not_grow_with_the_film(tmp_path):
    small = replace(SMALL, side=24)
    frames = coloured(288, 24)
    peaks = []
    for count in (48, 288):
        path = film(tmp_path / f"{count}.mkv", frames[:count])
        # Filters and libraries are loaded, and stay.
        next(describe(path, small))
        tracemalloc.start()
        for _ in describe(path, small, run=16):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Time stamps grow, and the deepest second may be a later one.
    assert peaks[1] < 1.5 * peaks[0]


def test_a_reader_that_is_left_is_closed(moving, monkeypatch):
    closed = []
    real = descriptors.pictures

    def watched(*arguments):
        try:
            yield from real(*arguments)
        finally:
            closed.append(True)

    monkeypatch.setattr(descriptors, "pictures", watched)
    runs = describe(moving, SMALL, blocks=["faces"], run=5)
    next(runs)
    assert not closed
    runs.close()
    assert closed


def test_broken_files_are_named(tmp_path):
    path = tmp_path / "broken.mkv"
    path.write_bytes(b"no video at all")
    with pytest.raises(VideoError, match=r"broken\.mkv: "):
        next(describe(path, SMALL))
    with pytest.raises(VideoError, match="no such file"):
        next(describe(tmp_path / "absent.mkv", SMALL))


def test_a_frame_that_cannot_be_made_rgb_is_named(moving, monkeypatch):
    def refuse(picture, frame, into):
        raise av.error.InvalidDataError(22, "no such colours")

    monkeypatch.setattr(video.Picture, "__call__", refuse)
    with pytest.raises(VideoError, match=r"noise\.mkv: no such colours"):
        next(describe(moving, SMALL))


def test_a_film_that_breaks_off_is_an_error(moving, tmp_path):
    with open(moving, "rb") as file:
        whole = bytearray(file.read())
    middle = len(whole) // 2
    whole[middle : middle + 20_000] = bytes(20_000)
    path = tmp_path / "holes.mkv"
    path.write_bytes(whole)
    try:
        count = sum(
            len(part["faces"])
            for part in describe(path, SMALL, blocks=["faces"])
        )
    except VideoError:
        return
    # Where the container leaves damaged frames out, fewer are counted.
    assert count < 70


def test_wrong_calls_are_told_at_once(moving):
    with pytest.raises(ValueError, match=r"`blocks` must be of hog_dense, "):
        describe(moving, SMALL, blocks=["sift"])
    with pytest.raises(ValueError, match="`run` must be 1 or more"):
        describe(moving, SMALL, run=0)
    with pytest.raises(VideoError, match="no frame between 9 and"):
        next(describe(moving, SMALL, start=9))


def test_a_missing_library_is_one_line(moving, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(
        ImportError,
        match=r"need OpenCV: pip install 'keras-videofusion\[baseline\]'",
    ):
        describe(moving, SMALL)


# Oriented gradients and corners


def test_gradients_of_an_edge_lie_in_its_orientation():
    edge = np.zeros((SIDE, SIDE), np.uint8)
    edge[:, 30:] = 200
    found = hog(edge, SMALL)
    assert found.shape == (7, 7, 36)
    by_column = found.reshape(7, 7, 4, 9).sum(axis=(0, 2))
    # Cells are 8 wide: the edge lies in cell 3, of blocks 2 and 3; the
    # gradient points right, in the first bin.
    assert by_column[:, 0].nonzero()[0].tolist() == [2, 3]
    assert by_column[:, 1:].max() == 0
    down = hog(edge.T.copy(), SMALL).reshape(7, 7, 4, 9).sum(axis=(0, 1, 2))
    assert down.argmax() == 4
    assert np.delete(down, 4).max() == 0


def square(top=20, left=30, side=14, height=SIDE, width=SIDE):
    """A light square on a dark ground."""
    frame = np.zeros((height, width), np.uint8)
    frame[top : top + side, left : left + side] = 220
    return frame


def test_corners_are_found_at_corners():
    found = corners(square(), SMALL)
    for y in (20, 33):
        for x in (30, 43):
            distances = np.abs(found - (y, x)).max(axis=1)
            assert distances.min() <= 1
    assert len(found) == 4
    assert corners(np.full((SIDE, SIDE), 9, np.uint8), SMALL).shape == (0, 2)


def test_descriptors_at_corners_are_those_of_their_places():
    frame = square()
    pixels = np.repeat(frame[None, ..., None], 3, axis=3)
    found = of_frames(pixels, SMALL, ["hog_corners", "texton_corners"])
    spots = corners(frame, SMALL)
    blocks = hog(frame, SMALL)
    # Middles of blocks in pixels: 8, 16, 24 ..
    middles = 8 * np.arange(1, 8)
    responses = responses_of(frame)
    for number, (y, x) in enumerate(spots):
        row = np.abs(middles - y - 0.5).argmin()
        column = np.abs(middles - x - 0.5).argmin()
        np.testing.assert_array_equal(
            found["hog_corners"].values[number], blocks[row, column]
        )
        np.testing.assert_allclose(
            found["texton_corners"].values[number],
            responses[y, x],
            atol=1e-4,
        )
        quadrant = 1 + 2 * (y >= 32) + (x >= 32)
        assert found["hog_corners"].cells[number] == quadrant
        assert found["texton_corners"].cells[number] == quadrant


# Textons


def responses_of(grey):
    """MR8 of every pixel, slowly: 38 convolutions of the mirrored frame."""
    frame = grey.astype(np.float64)
    frame = (frame - frame.mean()) / (frame.std() or 1)
    every = [
        ndimage.convolve(frame, one, mode="reflect", origin=0)
        for one in filters()
    ]
    mr8 = [
        np.abs(every[begin : begin + 6]).max(axis=0)
        for begin in range(0, 36, 6)
    ]
    found = np.stack([*mr8, *every[36:]], axis=-1)
    size = np.linalg.norm(found, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        weber = found * np.log(1 + size / 0.03) / size
    return np.where(size > 0, weber, 0)


def test_filters_are_varma_and_zissermans():
    bank = filters()
    assert bank.shape == (38, 49, 49)
    np.testing.assert_allclose(bank.sum(axis=(1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(np.abs(bank).sum(axis=(1, 2)), 1)
    # An edge is odd, a bar even; the first of each lies along the rows.
    np.testing.assert_allclose(bank[0], -bank[0, ::-1], atol=1e-12)
    np.testing.assert_allclose(bank[18], bank[18, ::-1], atol=1e-12)
    np.testing.assert_allclose(bank[0], bank[0, :, ::-1], atol=1e-12)
    # A Gaussian's derivatives, three times as long as wide: along its axis
    # the edge falls to exp(-1/2) at 3 pixels, across it peaks at 1.
    row = bank[0] - bank[0, 0, 0]
    assert np.abs(row[:, 24]).argmax() in (23, 25)
    np.testing.assert_allclose(
        row[23, 27] / row[23, 24], np.exp(-0.5), rtol=1e-6
    )
    blob = bank[36] - bank[36, 0, 0]
    assert blob.argmax() == 24 * 49 + 24


@pytest.mark.parametrize(
    ("height", "width", "stride"), [(64, 64, 4), (35, 26, 3), (12, 20, 1)]
)
def test_responses_equal_plain_convolutions(height, width, stride):
    grey = noise(height, width, smooth=1.0)
    expected = responses_of(grey)
    textons = Textons(height, width, stride)
    bordered = textons.bordered(grey)
    dense = textons.dense(bordered)
    begin = stride // 2
    np.testing.assert_allclose(
        dense, expected[begin::stride, begin::stride], atol=2e-4
    )
    spots = np.array([(0, 0), (height - 1, width - 1), (7, 5)])
    np.testing.assert_allclose(
        textons.at(bordered, spots), expected[tuple(spots.T)], atol=2e-4
    )


@pytest.mark.parametrize("turn", range(6))
def test_a_still_edge_answers_in_its_orientation(turn):
    angle = np.pi * turn / 6
    y, x = np.mgrid[24:-25:-1, -24:25]
    # The filters' own axes: across the edge at this turn.
    across = np.sin(angle) * x + np.cos(angle) * y
    edge = np.clip(across + 0.5, 0, 1)
    responses = np.abs((filters()[:36] * edge).sum(axis=(1, 2)))
    assert responses.reshape(6, 6)[:3].argmax(axis=1).tolist() == [turn] * 3
    # At the edge itself bars, which are even, see nothing of it.
    assert responses.reshape(6, 6)[3:].max() < 0.1 * responses.max()


def test_textons_do_not_turn_with_the_picture():
    def picture(angle):
        y, x = np.mgrid[-50:51, -50:51]
        u = np.cos(angle) * x + np.sin(angle) * y
        v = np.cos(angle) * y - np.sin(angle) * x
        inside = np.hypot(x, y) < 45
        waves = np.cos(u / 3) + np.cos(v / 5) / 2 + np.tanh(u / 2)
        return np.uint8(np.rint(np.where(inside, 100 + 50 * waves, 100)))

    middle = np.array([(50, 50)])
    textons = Textons(101, 101, 4)
    found, single = [], []
    for turn in range(6):
        frame = textons.bordered(picture(np.pi / 6 * turn))
        found.append(textons.at(frame, middle)[0])
        # The first filter alone, about the middle.
        around = slice(textons.before + 26, textons.before + 75)
        single.append(abs((frame[around, around] * filters()[0]).sum()))
    # Pixels and the filters' square are not round.
    assert np.ptp(found, axis=0).max() < 0.15
    assert np.max(found) > 2
    assert max(single) > 5 * min(single)


def test_textons_do_not_see_the_lighting():
    grey = noise(SIDE, SIDE) // 2
    textons = Textons(SIDE, SIDE, 4)
    dim = textons.dense(textons.bordered(grey))
    light = textons.dense(textons.bordered(2 * grey + 1))
    np.testing.assert_allclose(dim, light, atol=1e-4)


# Cuboids


def points_of(frames, settings, rate=25):
    """Where the interest points of frames are, slowly, all at once.

    Returns the responses and a list of (t, y, x) in the order of `describe`.
    """
    volume = np.pad(
        frames.astype(np.float64) / 255,
        ((settings.cuboid_reach,) * 2, (0, 0), (0, 0)),
        "edge",
    )
    smooth = ndimage.gaussian_filter(
        volume, settings.cuboid_sigma, axes=(1, 2), mode="nearest", truncate=8
    )
    even, odd = quadrature(settings.cuboid_tau, settings.cuboid_omega)
    answers = sum(
        ndimage.correlate1d(smooth, one, axis=0) ** 2 for one in (even, odd)
    )[settings.cuboid_reach : -settings.cuboid_reach]
    reach, side = (length // 2 for length in settings.cuboid_shape[:2])
    window = (2 * -(-3 * reach // 10) + 1, *(2 * -(-3 * side // 10) + 1,) * 2)
    most = ndimage.maximum_filter(answers, window, mode="constant")
    places = np.argwhere(
        (answers == most) & (answers > settings.cuboid_threshold)
    )
    chosen = []
    for second in range(len(frames) // rate + 1):
        inside = [
            place for place in places.tolist() if place[0] // rate == second
        ]
        inside.sort(key=lambda place: -answers[tuple(place)])
        chosen += sorted(inside[: settings.cuboid_rate])
    return smooth, answers, chosen


def cuboids_of(frames, settings, blocks=("cuboid_points",), rate=25):
    seconds = np.arange(len(frames)) // rate
    return Cuboids(settings, seconds, blocks)(frames, last=True)


def test_cuboids_equal_a_plain_computation_of_the_whole():
    frames = noise(60, SIDE, SIDE)
    smooth, _, places = points_of(frames, SMALL)
    found = cuboids_of(frames, SMALL)["cuboid_points"]
    assert len(found.values) == len(places) == 21
    time, side, _ = SMALL.cuboid_shape
    padded = np.pad(
        smooth, ((0, 0), (side // 2,) * 2, (side // 2,) * 2), "edge"
    )
    for value, cell, (t, y, x) in zip(*found, places, strict=True):
        volume = padded[t : t + time, y : y + side, x : x + side]
        slopes = np.stack(np.gradient(volume)) / volume.std()
        # OpenCV cuts the Gaussian off at four deviations.
        np.testing.assert_allclose(value, slopes.ravel(), atol=2e-2)
        assert cell == 1 + 2 * (y >= 32) + (x >= 32)


def test_dense_cuboids_lie_on_their_grid():
    frames = noise(30, SIDE, SIDE)
    smooth, _, _ = points_of(frames, SMALL)
    found = cuboids_of(frames, SMALL, ["cuboid_dense"])["cuboid_dense"]
    places = [
        (t, y, x) for t in (4, 12, 20, 28) for y in (12, 37, 62)
        for x in (12, 37, 62)
    ]  # fmt: skip
    padded = np.pad(smooth, ((0, 0), (6, 6), (6, 6)), "edge")
    for value, (t, y, x) in zip(found.values, places, strict=True):
        volume = padded[t : t + 17, y : y + 13, x : x + 13]
        slopes = np.stack(np.gradient(volume)) / volume.std()
        np.testing.assert_allclose(value, slopes.ravel(), atol=2e-2)


def grating(frequency, frames=40, wave=16):
    """Stripes that drift, `frequency` periods per frame at every pixel."""
    t = np.arange(frames)[:, None, None]
    x = np.arange(SIDE)
    light = 128 + 100 * np.cos(2 * np.pi * (x / wave - frequency * t))
    return np.uint8(np.broadcast_to(light, (frames, SIDE, SIDE)))


@pytest.mark.parametrize("omega", [0.1, 0.2, 0.3])
def test_a_grating_answers_at_the_frequency_of_the_detector(omega):
    pair = quadrature(4.0, omega)
    strength = {
        frequency: response(
            np.float32(grating(frequency)[: len(pair[0])]), pair
        ).mean()
        for frequency in (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)
    }
    assert max(strength, key=strength.get) == omega
    assert strength[0.0] < 1e-3 * strength[omega]


def test_the_printed_frequency_is_the_default():
    np.testing.assert_array_equal(quadrature(2.5, 0), quadrature(2.5, 1.6))
    even, odd = quadrature(2.5, 0)
    t = np.arange(-8, 9)
    np.testing.assert_allclose(
        odd, -np.sin(2 * np.pi * t * 1.6) * np.exp(-(t**2) / 6.25), atol=1e-6
    )
    np.testing.assert_allclose(
        even, -np.cos(2 * np.pi * t * 1.6) * np.exp(-(t**2) / 6.25), atol=1e-3
    )
    assert abs(even.sum()) < 1e-6


def test_a_still_edge_has_no_interest_points():
    still = np.repeat(square()[None], 40, axis=0)
    found = cuboids_of(still, replace(SMALL, cuboid_threshold=1e-9), NAMES[4:6])
    assert len(found["cuboid_points"].values) == 0
    slopes = found["cuboid_dense"].values.reshape(-1, 3, 17, 13, 13)
    assert np.abs(slopes[:, 0]).max() < 1e-5
    assert np.abs(slopes[:, 1:]).max() > 0.1


def test_a_corner_that_turns_is_an_interest_point():
    """The end of a bar comes from the left, turns at frame 30, goes back."""
    y, x = np.mgrid[:SIDE, :SIDE]
    ends = 44 - np.abs(np.arange(60) - 30)
    frames = np.stack(
        [np.uint8(200 * ((x <= end) & (abs(y - 25) < 4))) for end in ends]
    )
    settings = replace(SMALL, cuboid_rate=1, cuboid_omega=0.2)
    _, _, (place,) = points_of(frames, settings, rate=60)
    np.testing.assert_allclose(place, (30, 25, 44), atol=2)
    ((value, cell),) = zip(
        *cuboids_of(frames, settings, rate=60)["cuboid_points"], strict=True
    )
    assert cell == 2
    # Its cuboid is mirrored about the turn: light comes, then goes.
    change = value.reshape(3, 17, 13, 13)[0].sum(axis=(1, 2))
    np.testing.assert_allclose(change, -change[::-1], atol=0.2)
    assert change[:8].sum() > 5


def test_contrast_does_not_change_a_cuboid():
    frames = noise(30, SIDE, SIDE) // 2
    weak = cuboids_of(frames, SMALL, ["cuboid_dense"])["cuboid_dense"]
    strong = cuboids_of(2 * frames, SMALL, ["cuboid_dense"])["cuboid_dense"]
    np.testing.assert_allclose(weak.values, strong.values, atol=1e-4)


def test_only_the_strongest_points_of_each_second_count():
    frames = noise(75, SIDE, SIDE)
    for rate in (3, 11):
        settings = replace(SMALL, cuboid_rate=rate)
        assert len(cuboids_of(frames, settings)["cuboid_points"].values) == (
            3 * rate
        )
    none = replace(SMALL, cuboid_threshold=100.0)
    assert len(cuboids_of(frames, none)["cuboid_points"].values) == 0


# Colours


def test_pure_colours_have_their_bins():
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:2, :3] = 255, 0, 0
    pixels[:2, 3:] = 0, 255, 0
    pixels[2:, :3] = 0, 0, 255
    pixels[2:, 3:] = 90, 90, 90
    counts = hue_saturation(pixels, SMALL).reshape(5, 16, 8)
    # Of 16 hues: red 0, green 120 and blue 240 of 360 degrees.
    places = {1: (0, 7), 2: (5, 7), 3: (10, 7), 4: (0, 0)}
    for cell, (hue, saturation) in places.items():
        assert counts[cell, hue, saturation] == 6
        assert counts[cell].sum() == 6
        assert counts[0, hue, saturation] == 6
    assert counts[0].sum() == 24


def test_hues_and_saturations_are_those_of_scikit_image():
    pixels = coloured(1, seed=5)[0]
    counts = hue_saturation(pixels, SMALL)
    hue, saturation, _ = np.moveaxis(color.rgb2hsv(pixels), 2, 0)
    expected, _, _ = np.histogram2d(
        hue.ravel(), saturation.ravel(), (16, 8), ((0, 1), (0, 1))
    )
    # OpenCV rounds hue to two degrees.
    away = np.abs(counts[0] - expected.ravel()).sum() / 2
    assert away < 0.06 * pixels[..., 0].size
    np.testing.assert_array_equal(counts[0], counts[1:].sum(axis=0))


@pytest.mark.parametrize("shape", [(64, 64), (5, 7), (2, 1), (1, 1)])
def test_colour_moments_are_numpys(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    found = colour_moments(pixels)
    middle, centre = -(-shape[0] // 2), -(-shape[1] // 2)
    parts = [
        pixels,
        pixels[:middle, :centre],
        pixels[:middle, centre:],
        pixels[middle:, :centre],
        pixels[middle:, centre:],
    ]
    for part, row in zip(parts, found, strict=True):
        values = part.reshape(-1, 3) / 255
        if not len(values):
            assert not row.any()
            continue
        mean = values.mean(axis=0)
        third = ((values - mean) ** 3).mean(axis=0)
        expected = [*mean, *values.std(axis=0), *np.cbrt(third)]
        np.testing.assert_allclose(row, expected, atol=1e-4)


# Faces


@pytest.fixture(scope="module")
def astronaut():
    return cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY)


resized = partial(cv2.resize, interpolation=cv2.INTER_AREA)


def test_one_face_is_found(astronaut):
    ((top, left, height, width),) = faces(
        resized(astronaut, (200, 200)), Settings()
    )
    # Her face is at (125, 215) of 512.
    assert top < 125 * 200 / 512 < top + height
    assert left < 215 * 200 / 512 < left + width


def test_two_faces_are_two(astronaut):
    face = resized(astronaut[60:200, 150:290], (64, 64))
    frame = np.full((200, 200), 90, np.uint8)
    frame[20:84, 15:79] = face
    frame[70:134, 110:174] = face[:, ::-1]
    found = faces(frame, Settings())
    assert sorted(int(left > 90) for _, left, _, _ in found) == [0, 1]
    pixels = np.stack([np.stack([one] * 3, -1) for one in (frame, 0 * frame)])
    assert of_frames(pixels, Settings(), ["faces"])["faces"].tolist() == [2, 0]


def test_frames_smaller_than_a_face_have_none():
    assert faces(noise(20, 200), Settings()).shape == (0, 4)

"""Local descriptors of a video's frames, a run of frames at a time.

What is described, of frames resized to a square:

    hog_dense       oriented gradients of 2 x 2 cells, all such blocks
    hog_corners     the block nearest to each corner
    texton_dense    responses of 38 filters, the strongest of each six
                    orientations: 8 numbers, on a grid
    texton_corners  the same at corners
    cuboid_points   gradients of small volumes where something moves to and fro
    cuboid_dense    the same on a regular grid of space and time
    hue_saturation  counts of colours
    colour_moments  mean, deviation and skew of each channel
    faces           how many there are

Corners are Harris's. Memory does not grow with a video's length: cuboids keep
the frames within their reach, half a second, and a second's interest points.

scikit-image, SciPy and OpenCV are imported where they are used.

Reference:
    Karpathy et al., CVPR 2014, section 4.1; Yang & Toderici, CVPR 2011.
"""

import importlib
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from keras_videofusion.baseline.settings import Settings
from keras_videofusion.data.video import frame_numbers, pictures

RUN = 32
# Sides of the filters' square, scales of the oriented ones across, their
# orientations; scale of the two round ones.
SUPPORT = 49
SCALES = (1, 2, 4)
ORIENTATIONS = 6
ROUND = 10
# Grey levels, of frames in 0..1, below which a cuboid is noise: its gradients
# are not blown up to the strength of others.
_FLAT = 0.01


class Local(NamedTuple):
    """Descriptors of one block, and the cells of the frame they lie in.

    Args:
        values: Float32 array of shape `(descriptors, numbers)`.
        cells: Int8 array of shape `(descriptors,)`: the quadrant, 1 and 2
            above, 3 and 4 below; of colour moments also 0, the whole frame.
    """

    values: np.ndarray
    cells: np.ndarray


def describe(
    path,
    settings: Settings,
    start: float | None = None,
    end: float | None = None,
    blocks: Sequence[str] | None = None,
    run: int = RUN,
) -> Iterator[dict[str, Local | np.ndarray]]:
    """Descriptors of a video, a run of frames at a time, in order.

    Every frame counts. The same video gives the same numbers, to the bit.
    Interest points are the strongest of each second, so they come when that
    second is over; all together, the descriptors do not depend on `run`.

    Args:
        path: File, or folder of images.
        settings: `Settings`.
        start: Float, seconds; earlier frames do not count.
        end: Float, seconds; frames from there on do not count.
        blocks: Names of the blocks to compute; all if None.
        run: Integer, frames decoded at a time.

    Yields:
        Dict by block: `Local`; of `"hue_saturation"` an int64 array of counts
        of shape `(cells, bins)`; of `"faces"` an int64 array of shape
        `(frames,)`, the number of faces in each.

    Raises:
        VideoError: If the file or one of the frames cannot be decoded, or the
            segment is empty.
        ValueError: If a block is unknown or `run` less than 1.
        ImportError: If OpenCV, SciPy or scikit-image is not installed.
    """
    known = tuple(block.name for block in settings.blocks)
    chosen = known if blocks is None else tuple(blocks)
    if not set(chosen) <= set(known):
        raise ValueError(
            f"`blocks` must be of {', '.join(known)}. Received: blocks={chosen}"
        )
    if run < 1:
        raise ValueError(f"`run` must be 1 or more. Received: run={run}")
    _imported("cv2").setNumThreads(1)
    return _described(path, settings, start, end, chosen, run)


def _described(path, settings, start, end, chosen, run):
    numbers, times = frame_numbers(path, None, start, end)
    seconds = (times[numbers] - times[numbers[0]]).astype(np.int64)
    wanted = [name for name in chosen if name.startswith("cuboid")]
    cuboids = Cuboids(settings, seconds, wanted)
    left = len(numbers)
    reader: Any = pictures(path, numbers, settings.resize)
    with closing(reader) as frames:
        while left:
            taken = min(run, left)
            left -= taken
            # A picture is overwritten by the next.
            pixels = np.stack([frame.copy() for frame in islice(frames, taken)])
            found = of_frames(pixels, settings, chosen)
            if wanted:
                found |= cuboids(_grey(pixels), last=not left)
            yield {name: found[name] for name in chosen}


def of_frames(
    pixels: np.ndarray, settings: Settings, blocks: Sequence[str]
) -> dict[str, Local | np.ndarray]:
    """Descriptors that need one frame at a time.

    Args:
        pixels: Uint8 RGB array of shape `(frames, side, side, 3)`.
        settings: `Settings`.
        blocks: Names of blocks; those of cuboids are passed over.

    Returns:
        Dict by block, as `describe` yields.
    """
    grey = _grey(pixels)
    found: dict[str, Any] = {}
    spots: list[np.ndarray] = []
    if any(name.endswith("corners") for name in blocks):
        spots = [corners(frame, settings) for frame in grey]
    hog = [name for name in blocks if name.startswith("hog")]
    if hog:
        found |= _hogs(grey, settings, spots, hog)
    texton = [name for name in blocks if name.startswith("texton")]
    if texton:
        found |= _textons(grey, settings, spots, texton)
    if "hue_saturation" in blocks:
        found["hue_saturation"] = sum(
            hue_saturation(frame, settings) for frame in pixels
        )
    if "colour_moments" in blocks:
        found["colour_moments"] = Local(
            np.concatenate([colour_moments(frame) for frame in pixels]),
            np.tile(np.arange(5, dtype=np.int8), len(pixels)),
        )
    if "faces" in blocks:
        found["faces"] = np.array(
            [len(faces(frame, settings)) for frame in grey], np.int64
        )
    return found


def _grey(pixels):
    """Luma of frames: uint8 of shape `(frames, height, width)`."""
    cv2 = _imported("cv2")
    return np.stack([cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in pixels])


def corners(grey: np.ndarray, settings: Settings) -> np.ndarray:
    """Harris corners of a frame, the strongest first.

    Args:
        grey: Uint8 array of shape `(height, width)`.
        settings: `Settings`.

    Returns:
        Int64 array of shape `(corners, 2)`: y and x, pixels.

    Reference:
        Harris & Stephens, AVC 1988.
    """
    found = _imported("cv2").goodFeaturesToTrack(
        grey,
        settings.corners,
        settings.corner_quality,
        settings.corner_distance,
        useHarrisDetector=True,
        k=0.04,
    )
    if found is None:
        return np.zeros((0, 2), np.int64)
    return found[:, 0, ::-1].astype(np.int64)


def _quadrants(y, x, height, width):
    """The quadrants, 1..4, of places in a frame: int8, of their shape."""
    below, right = np.asarray(y) * 2 >= height, np.asarray(x) * 2 >= width
    return (1 + 2 * below + right).astype(np.int8)


def _local(values, cells, numbers):
    """`Local` of pieces, of which there may be none."""
    return Local(
        np.concatenate([np.zeros((0, numbers), np.float32), *values]),
        np.concatenate([np.zeros(0, np.int8), *cells]),
    )


# Oriented gradients


def hog(grey: np.ndarray, settings: Settings) -> np.ndarray:
    """Histograms of oriented gradients, of all blocks of cells.

    Args:
        grey: Uint8 array of shape `(height, width)`.
        settings: `Settings`.

    Returns:
        Float32 array of shape `(rows, columns, numbers)`; neighbouring blocks
        are one cell apart.

    Reference:
        Dalal & Triggs, CVPR 2005.
    """
    found = _imported("skimage.feature").hog(
        grey.astype(np.float32),
        settings.hog_orientations,
        (settings.hog_cell,) * 2,
        (settings.hog_block,) * 2,
        feature_vector=False,
    )
    return found.reshape(*found.shape[:2], -1).astype(np.float32)


def _hogs(grey, settings, spots, names):
    frames = [hog(frame, settings) for frame in grey]
    rows, columns, numbers = frames[0].shape
    half = settings.hog_block / 2
    found = {}
    if "hog_dense" in names:
        y, x = (
            (np.arange(count) + half) * settings.hog_cell
            for count in (rows, columns)
        )
        cells = _quadrants(y[:, None], x, *grey.shape[1:]).ravel()
        found["hog_dense"] = Local(
            np.concatenate(frames).reshape(-1, numbers),
            np.tile(cells, len(frames)),
        )
    if "hog_corners" in names:
        values, cells = [], []
        for frame, spot in zip(frames, spots, strict=True):
            # The middle of a pixel is half a pixel from its number.
            near = np.rint((spot + 0.5) / settings.hog_cell - half).astype(int)
            row, column = np.clip(near, 0, (rows - 1, columns - 1)).T
            values.append(frame[row, column])
            cells.append(_quadrants(*spot.T, *grey.shape[1:]))
        found["hog_corners"] = _local(values, cells, numbers)
    return found


# Textons


@lru_cache(maxsize=1)
def filters() -> np.ndarray:
    """The 38 filters of MR8, each of mean 0 and absolute sum 1.

    Returns:
        Float64 array of shape `(38, 49, 49)`: edges, scale by scale and six
        orientations of each; bars alike; a Gaussian and its Laplacian.

    Reference:
        Varma & Zisserman, IJCV 2005, section 2.
    """
    half = SUPPORT // 2
    y, x = np.mgrid[half : -half - 1 : -1, -half : half + 1]
    bank = []
    for order in (1, 2):
        for across in SCALES:
            along = 3 * across
            for turn in range(ORIENTATIONS):
                angle = np.pi * turn / ORIENTATIONS
                u = np.cos(angle) * x - np.sin(angle) * y
                v = np.sin(angle) * x + np.cos(angle) * y
                bell = np.exp(-((u / along) ** 2 + (v / across) ** 2) / 2)
                bank.append(bell * (v if order == 1 else (v / across) ** 2 - 1))
    squares = (x**2 + y**2) / ROUND**2
    bell = np.exp(-squares / 2)
    bank += [bell, bell * (squares - 2)]
    found = np.stack(bank)
    found -= found.mean(axis=(1, 2), keepdims=True)
    return found / np.abs(found).sum(axis=(1, 2), keepdims=True)


class Textons:
    """Responses of the filters to frames of one size, on a grid and at places.

    On the grid a response is needed at every `stride`-th pixel only, so the
    spectrum is folded before it is transformed back: 3 ms a frame where
    38 convolutions take 60.

    Frames are brought to mean 0 and deviation 1, so that lighting does not
    count; beyond their edges they are mirrored. Responses are compressed as
    the eye does: `F log(1 + |F| / 0.03) / |F|`.

    Args:
        height: Integer, pixels.
        width: Integer, pixels.
        stride: Integer, pixels; the first place of the grid is at half of it.

    Attributes:
        y: Rows of the grid.
        x: Columns of the grid.

    Reference:
        Varma & Zisserman, IJCV 2005, sections 2 and 3.
    """

    def __init__(self, height, width, stride):
        fft = _imported("scipy.fft")
        self.stride, half = stride, SUPPORT // 2
        self.y = np.arange(stride // 2, height, stride)
        self.x = np.arange(stride // 2, width, stride)
        # Mirrored pixels before the frame: the grid falls on multiples of
        # the stride.
        self.before = half + -(stride // 2 + half) % stride
        # Multiples of the stride that transform fast.
        self.grid = tuple(
            fft.next_fast_len(-(-(self.before + side + half) // stride))
            for side in (height, width)
        )
        rows, columns = (count * stride for count in self.grid)
        placed = np.zeros((len(filters()), rows, columns))
        placed[:, :SUPPORT, :SUPPORT] = filters()
        placed = np.roll(placed, (-half, -half), axis=(1, 2))
        spectra = np.stack([self._folds(fft.fft2(one)) for one in placed], 1)
        # (frequencies, filters, folds)
        self.spectra = (spectra / stride**2).astype(np.complex64)
        self.flat = filters().reshape(len(filters()), -1).T.astype(np.float32)

    def _folds(self, spectrum):
        """Frequencies that fall together on the grid: `(frequencies, folds)`.

        The responses are real, so half of the columns will do.
        """
        (rows, columns), stride = self.grid, self.stride
        parts = spectrum.reshape(stride, rows, stride, columns)
        parts = parts[..., : columns // 2 + 1].transpose(1, 3, 0, 2)
        return parts.reshape(-1, stride * stride)

    def bordered(self, grey):
        """A frame made comparable, with a mirrored border.

        Args:
            grey: Uint8 array of shape `(height, width)`.

        Returns:
            Float32 array of `before` pixels more on either side.
        """
        frame = grey.astype(np.float32)
        frame -= frame.mean(dtype=np.float64)
        deviation = frame.std(dtype=np.float64)
        if deviation:
            frame /= np.float32(deviation)
        return np.pad(frame, self.before, "symmetric")

    def dense(self, bordered):
        """MR8 on the grid: float32 of shape `(rows, columns, 8)`."""
        fft = _imported("scipy.fft")
        stride = self.stride
        (rows, columns), whole = self.grid, np.float32
        padded = np.zeros((rows * stride, columns * stride), whole)
        tall, wide = np.minimum(bordered.shape, padded.shape)
        padded[:tall, :wide] = bordered[:tall, :wide]
        folded = self._folds(fft.fft2(padded))
        found = np.matmul(self.spectra, folded[..., None])[..., 0]
        found = found.reshape(rows, columns // 2 + 1, -1)
        responses = fft.irfft2(found, (rows, columns), axes=(0, 1))
        top = self.before // stride + (self.before % stride > 0)
        inner = responses[top : top + len(self.y), top : top + len(self.x)]
        return _strongest(inner)

    def at(self, bordered, spots):
        """MR8 at some pixels.

        Args:
            bordered: What `bordered` returned.
            spots: Integer array of shape `(spots, 2)`: y and x.

        Returns:
            Float32 array of shape `(spots, 8)`.
        """
        y, x = spots.T + self.before - SUPPORT // 2
        windows = np.lib.stride_tricks.sliding_window_view(
            bordered, (SUPPORT, SUPPORT)
        )
        patches = windows[y, x].reshape(len(spots), SUPPORT**2)
        return _strongest(patches @ self.flat)


def _strongest(responses):
    """Of 38 responses 8: the strongest of each six orientations.

    Args:
        responses: Float32 array of shape `(..., 38)`.

    Returns:
        Float32 array of shape `(..., 8)`, compressed: edges of three scales,
        bars of three scales, Gaussian, Laplacian.
    """
    oriented = np.abs(responses[..., :-2])
    oriented = oriented.reshape(*responses.shape[:-1], 6, ORIENTATIONS)
    found = np.concatenate([oriented.max(-1), responses[..., -2:]], -1)
    size = np.linalg.norm(found, axis=-1, keepdims=True)
    tiny = np.finfo(np.float32).tiny
    return found * (np.log1p(size / np.float32(0.03)) / np.maximum(size, tiny))


_textons_of = lru_cache(maxsize=2)(Textons)


def _textons(grey, settings, spots, names):
    textons = _textons_of(*grey.shape[1:], settings.texton_stride)
    bordered = [textons.bordered(frame) for frame in grey]
    found = {}
    if "texton_dense" in names:
        cells = _quadrants(textons.y[:, None], textons.x, *grey.shape[1:])
        found["texton_dense"] = Local(
            np.concatenate([textons.dense(one) for one in bordered]).reshape(
                -1, 8
            ),
            np.tile(cells.ravel(), len(grey)),
        )
    if "texton_corners" in names:
        found["texton_corners"] = _local(
            map(textons.at, bordered, spots),
            [_quadrants(*spot.T, *grey.shape[1:]) for spot in spots],
            8,
        )
    return found


# Cuboids


def quadrature(tau: float, omega: float) -> np.ndarray:
    """The detector's two filters in time.

    Args:
        tau: Float, frames.
        omega: Float, per frame; 0 for `4 / tau`, as the paper has it.

    Returns:
        Float32 array of shape `(2, 2 * ceil(3 * tau) + 1)`: `-cos(2 pi t
        omega) exp(-t^2 / tau^2)` and the same of the sine. The mean of the
        even one, which the paper leaves, is taken away: a still video then
        has no response, however bright.

    Reference:
        Dollár et al., VS-PETS 2005, section 2.
    """
    reach = math.ceil(3 * tau)
    t = np.arange(-reach, reach + 1)
    angle = 2 * np.pi * t * (omega or 4 / tau)
    bell = np.exp(-(t**2) / tau**2)
    even, odd = -np.cos(angle) * bell, -np.sin(angle) * bell
    return np.stack([even - bell * even.sum() / bell.sum(), odd]).astype(
        np.float32
    )


def response(window: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """How much goes to and fro at each pixel of a window's middle frame.

    Args:
        window: Float32 array of shape `(time, height, width)`, smoothed.
        pair: Float32 array of shape `(2, time)`, what `quadrature` returned.

    Returns:
        Float32 array of shape `(height, width)`: the detector's R.
    """
    even, odd = pair @ window.reshape(len(window), -1)
    return (even * even + odd * odd).reshape(window.shape[1:])


class Cuboids:
    """Small volumes of a video, where something happens and on a grid.

    Called with a run of frames after the other, it returns the descriptors
    that can be known by then.

    The response is `R = (I * g * even)^2 + (I * g * odd)^2` with a Gaussian
    `g` in space. Interest points are where R is largest within a third of a
    cuboid's reach to all sides; the strongest of each second count. A
    descriptor is the cuboid's gradients in time, y and x, all of them, divided
    by the deviation of its grey levels, so that contrast does not count.

    Beyond a frame's edges its outermost pixels are repeated, before a video
    its first frame and after it its last, so that every pixel of every frame
    may be a point, in short videos too; what was added may not. A still video
    has none.

    Args:
        settings: `Settings`.
        seconds: Int64 array of shape `(frames,)`: the second in which each
            frame of the video is shown.
        blocks: `"cuboid_points"`, `"cuboid_dense"` or both.

    Reference:
        Dollár et al., VS-PETS 2005, sections 2 and 3. His program normalizes
        cuboids and spaces points so; the paper does not say.
    """

    def __init__(self, settings, seconds, blocks):
        self.settings, self.seconds, self.blocks = settings, seconds, blocks
        self.shape = settings.cuboid_shape
        self.reach, self.border = (length // 2 for length in self.shape[:2])
        self.apart = (math.ceil(0.3 * self.reach), math.ceil(0.3 * self.border))
        self.pair = quadrature(settings.cuboid_tau, settings.cuboid_omega)
        # Smoothed frames with a border, the first of them frame `first`.
        self.first = -self.reach
        self.frames: Any = None
        # Of the frames near `searched`: R, and R's maxima in space.
        self.responses: dict[int, tuple] = {}
        self.answered = self.searched = self.sampled = 0
        # Of the second under way.
        self.points: list[_Point] = []

    def __call__(self, grey, last):
        """Takes the next frames.

        Args:
            grey: Uint8 array of shape `(frames, height, width)`.
            last: Whether they are the last.

        Returns:
            Dict by block of `Local`.
        """
        self._take(grey, last)
        # Frames of which all is there that their descriptors need.
        known = max(0, self.first + len(self.frames) - self.reach)
        found = {}
        if "cuboid_points" in self.blocks:
            found["cuboid_points"] = self._points(known, last)
        else:
            self.searched = known
        if "cuboid_dense" in self.blocks:
            found["cuboid_dense"] = self._dense(known)
        # Points among later frames reach no further back.
        gone = self.searched - self.reach - self.first
        self.frames, self.first = self.frames[gone:], self.first + gone
        return found

    def _take(self, grey, last):
        """Smooths frames and lays them behind those that are kept."""
        cv2 = _imported("cv2")
        self.size = grey.shape[1:]
        kept = [] if self.frames is None else [self.frames]
        smooth = []
        for frame in grey:
            blurred = cv2.GaussianBlur(
                frame.astype(np.float32) / np.float32(255),
                (0, 0),
                self.settings.cuboid_sigma,
                borderType=cv2.BORDER_REPLICATE,
            )
            smooth.append(np.pad(blurred, self.border, "edge"))
        before = [] if kept else smooth[:1] * self.reach
        after = smooth[-1:] * self.reach if last else []
        self.frames = np.concatenate([*kept, np.stack(before + smooth + after)])

    def _points(self, known, last):
        """The interest points of the seconds that are over."""
        cv2 = _imported("cv2")
        ahead, around = self.apart
        box = np.ones((2 * around + 1,) * 2, np.uint8)
        inner = (slice(self.border, -self.border),) * 2
        for t in range(self.answered, known):
            begin = t - self.reach - self.first
            window = self.frames[begin : begin + self.shape[0]]
            answer = response(window, self.pair)[inner]
            self.responses[t] = answer, cv2.dilate(answer, box)
        self.answered = known
        # A point stands out among the frames after it, too.
        until = known if last else max(self.searched, known - ahead)
        done: list[_Point] = []
        for t in range(self.searched, until):
            if t and self.seconds[t] != self.seconds[t - 1]:
                done += self._second()
            self._search(t)
        if last:
            done += self._second()
        self.searched = until
        for t in [t for t in self.responses if t < until - ahead]:
            del self.responses[t]
        places = np.array([point[1:4] for point in done], int).reshape(-1, 3)
        return _local(
            [np.stack([point.values for point in done])] if done else [],
            [_quadrants(*places.T[1:], *self.size)],
            3 * math.prod(self.shape),
        )

    def _search(self, t):
        """Adds a frame's interest points to those of its second."""
        ahead = self.apart[0]
        answer = self.responses[t][0]
        near = [
            self.responses[other][1]
            for other in range(t - ahead, t + ahead + 1)
            if other in self.responses
        ]
        peaks = answer == np.maximum.reduce(near)
        peaks &= answer > self.settings.cuboid_threshold
        places = np.argwhere(peaks)
        fresh = [_Point(-answer[y, x], t, y, x) for y, x in places.tolist()]
        kept = sorted(self.points + fresh)[: self.settings.cuboid_rate]
        lacking = [
            place for place, point in enumerate(kept) if point.values is None
        ]
        if lacking:
            y, x = np.array([kept[place][2:4] for place in lacking]).T
            values = self._gradients(np.full(len(y), t), y, x)
            for place, value in zip(lacking, values, strict=True):
                kept[place] = kept[place]._replace(values=value)
        self.points = kept

    def _second(self):
        """The points of a second that is over, in order of time and place."""
        done, self.points = self.points, []
        return sorted(done, key=lambda point: point[1:4])

    def _dense(self, known):
        """Descriptors on the grid, of the frames from which all is known."""
        steps = self.settings.cuboid_time_stride, self.settings.cuboid_stride
        begin = self.sampled + (steps[0] // 2 - self.sampled) % steps[0]
        self.sampled = known
        t, y, x = (
            places.ravel()
            for places in np.meshgrid(
                np.arange(begin, known, steps[0]),
                *(
                    np.arange(steps[1] // 2, side, steps[1])
                    for side in self.size
                ),
                indexing="ij",
            )
        )
        return Local(self._gradients(t, y, x), _quadrants(y, x, *self.size))

    def _gradients(self, t, y, x):
        """Descriptors: float32 of shape `(places, 3 * 17 * 13 * 13)`."""
        numbers = 3 * math.prod(self.shape)
        if not len(t):
            return np.zeros((0, numbers), np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(
            self.frames, self.shape
        )
        volumes = windows[t - self.reach - self.first, y, x]
        slopes = np.stack(np.gradient(volumes, axis=(1, 2, 3)), axis=1)
        deviations = volumes.std(axis=(1, 2, 3))
        flat = slopes.reshape(len(slopes), numbers)
        return flat / np.maximum(deviations, np.float32(_FLAT))[:, None]


class _Point(NamedTuple):
    """An interest point; the strongest sorts first."""

    weakness: float  # -R
    t: int
    y: int
    x: int
    values: Any = None


# Colours


def hue_saturation(pixels: np.ndarray, settings: Settings) -> np.ndarray:
    """How many pixels have which hue and saturation.

    Args:
        pixels: Uint8 RGB array of shape `(height, width, 3)`.
        settings: `Settings`.

    Returns:
        Int64 array of shape `(5, hues * saturations)`: the whole frame and
        its quadrants; saturation counts fastest.
    """
    cv2 = _imported("cv2")
    # Hue in steps of two degrees, 0..179; saturation in 0..255.
    hue, saturation, _ = cv2.split(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV))
    hues = (np.arange(256) * settings.hues // 180).astype(np.int64)
    saturations = np.arange(256) * settings.saturations // 256
    bins = settings.hues * settings.saturations
    height, width = hue.shape
    cells = _quadrants(
        np.arange(height)[:, None], np.arange(width), height, width
    )
    places = (cells - 1) * np.int64(bins)
    places += hues[hue] * settings.saturations + saturations[saturation]
    counts = np.bincount(places.ravel(), minlength=4 * bins).reshape(4, bins)
    return np.concatenate([counts.sum(0, keepdims=True), counts])


def colour_moments(pixels: np.ndarray) -> np.ndarray:
    """Mean, deviation and skew of the channels, of the frame and quadrants.

    Args:
        pixels: Uint8 RGB array of shape `(height, width, 3)`.

    Returns:
        Float32 array of shape `(5, 9)`: the means of red, green and blue in
        0..1, their standard deviations, and the cube roots of their third
        central moments. A quadrant without pixels is a row of zeros.

    Reference:
        Stricker & Orengo, SPIE 1995.
    """
    cv2 = _imported("cv2")
    height, width = pixels.shape[:2]
    middle, centre = -(-height // 2), -(-width // 2)
    counts = np.zeros((5, 3, 256))
    for row in (0, 1):
        for column in (0, 1):
            part = pixels[
                row * middle : (row + 1) * middle,
                column * centre : (column + 1) * centre,
            ]
            if part.size:
                part = np.ascontiguousarray(part)
                for channel in range(3):
                    counts[1 + 2 * row + column, channel] = cv2.calcHist(
                        [part], [channel], None, [256], [0, 256]
                    ).ravel()
    counts[0] = counts[1:].sum(0)
    # (5, 3), of the counts of each level
    total = np.maximum(counts.sum(-1), 1)
    levels = np.arange(256) / 255
    mean = counts @ levels / total
    away = levels - mean[..., None]
    deviation = np.sqrt((counts * away**2).sum(-1) / total)
    skew = np.cbrt((counts * away**3).sum(-1) / total)
    return np.concatenate([mean, deviation, skew], -1).astype(np.float32)


# Faces


@lru_cache(maxsize=1)
def _cascade():
    data, feature = map(_imported, ("skimage.data", "skimage.feature"))
    return feature.Cascade(data.lbp_frontal_face_cascade_filename())


def faces(grey: np.ndarray, settings: Settings) -> np.ndarray:
    """Frontal faces, found by scikit-image's cascade of binary patterns.

    Args:
        grey: Uint8 array of shape `(height, width)`.
        settings: `Settings`.

    Returns:
        Int64 array of shape `(faces, 4)`: top, left, height and width.
    """
    side = min(grey.shape)
    if side < settings.face_side:
        return np.zeros((0, 4), np.int64)
    found = _cascade().detect_multi_scale(
        grey,
        settings.face_scale,
        1,
        (settings.face_side,) * 2,
        (side, side),
        min_neighbor_number=settings.face_neighbours,
    )
    return np.array(
        [(one["r"], one["c"], one["height"], one["width"]) for one in found],
        np.int64,
    ).reshape(-1, 4)


# What is known by another name than it is imported by.
_PROJECTS = {"cv2": "OpenCV", "skimage": "scikit-image", "scipy": "SciPy"}


def _imported(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"the baseline's descriptors need {_PROJECTS[name.split('.')[0]]}: "
            "pip install 'keras-videofusion[baseline]'"
        ) from error

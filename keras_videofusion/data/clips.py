"""What a clip is, and where in a video clips begin."""

import hashlib
import math
from dataclasses import asdict, dataclass, replace

import numpy as np

STREAMS = ("rgb", "flow")
SAMPLERS = ("random", "uniform", "dense", "centre")


@dataclass(frozen=True)
class ClipSpec:
    """What a network must be fed: the model states its clip, the data obeys.

    A clip is `chunks` runs of `frames` frames that are `step` apart; the
    first frames of neighbouring chunks are `spacing` apart. Most networks
    take one chunk. Distances count the video's own frames, whatever its rate,
    or frames of a fixed rate if `fps` is given: then a frame is the one on
    screen at that time, the last whose time is not later.

    A flow stream adds `flow` fields to every chunk. Field i lies between
    frames i and i + 1, so that n fields need n + 1 frames; the fields are
    centred on the chunk's frames (one RGB frame and ten fields: the frame
    stands before the fifth field).

    A video that is shorter than the clip obeys `short`: `"hold"` repeats its
    last frame, `"loop"` starts again with the first.

    Args:
        frames: Integer, RGB frames of a chunk.
        step: Integer, distance of neighbouring frames.
        fps: Float, frames per second to count in, or None.
        resize: `("square", n)`: the central square, at n x n pixels;
            `("short_side", n)`: the short side at n, aspect kept;
            `("cover", height, width)`: aspect kept, what reaches over the
            edges cut off; `("pad", height, width)`: aspect kept, what is
            missing black; `(height, width)`: stretched.
        size: Integer or `(height, width)` of the crop that the network eats.
        streams: Tuple of `"rgb"`, `"flow"` or both.
        flow: Integer, flow fields of a chunk; `frames` if not given.
        chunks: Integer.
        spacing: Integer, distance of neighbouring chunks' first frames.
        short: `"hold"` or `"loop"`.

    Raises:
        ValueError: If a value is out of range.

    Reference:
        Karpathy et al., CVPR 2014, sections 3.1 and 3.3 (200, 170);
        Feichtenhofer et al., CVPR 2016, section 3.4 (chunks, spacing);
        Carreira & Zisserman, CVPR 2017, section 2.5 (short videos loop).
    """

    frames: int
    step: int = 1
    fps: float | None = None
    resize: tuple = ("square", 200)
    size: tuple[int, int] = (170, 170)
    streams: tuple[str, ...] = ("rgb",)
    flow: int | None = None
    chunks: int = 1
    spacing: int = 0
    short: str = "hold"

    def __post_init__(self):
        if isinstance(self.size, int):
            object.__setattr__(self, "size", (self.size, self.size))
        for name in ("size", "resize", "streams"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.flow is None and "flow" in self.streams:
            object.__setattr__(self, "flow", self.frames)
        for name in ("frames", "step", "chunks"):
            value = getattr(self, name)
            _expect(_count(value, 1), name, "an integer, 1 or more", value)
        _expect(
            self.fps is None or (math.isfinite(self.fps) and self.fps > 0),
            "fps",
            "frames per second, more than 0, or None",
            self.fps,
        )
        _expect(
            self.resized is not None,
            "resize",
            "('square', n), ('short_side', n), ('cover', height, width), "
            "('pad', height, width) or (height, width)",
            self.resize,
        )
        _expect(
            len(self.size) == 2 and all(_count(side, 1) for side in self.size),
            "size",
            "(height, width) in pixels",
            self.size,
        )
        _expect(
            self.size[0] <= self.resized[0] and self.size[1] <= self.resized[1],
            "size",
            f"no larger than the resized frame, {self.resize}",
            self.size,
        )
        _expect(
            bool(self.streams) and set(self.streams) <= set(STREAMS),
            "streams",
            "a tuple of 'rgb', 'flow' or both",
            self.streams,
        )
        _expect(
            ("flow" in self.streams) == (self.flow is not None)
            and (self.flow is None or _count(self.flow, 1)),
            "flow",
            "1 or more where `streams` has 'flow', else None",
            self.flow,
        )
        _expect(
            _count(self.spacing, 1) if self.chunks > 1 else self.spacing == 0,
            "spacing",
            "1 or more with several chunks, 0 with one",
            self.spacing,
        )
        _expect(
            self.short in ("hold", "loop"),
            "short",
            "'hold' or 'loop'",
            self.short,
        )

    @property
    def time(self):
        """Integer, RGB frames of a whole clip."""
        return self.chunks * self.frames

    @property
    def offsets(self):
        """Offsets of the RGB frames from the clip's first frame: `(time,)`.

        The clip's first frame is the first that any stream needs, so a clip
        whose flow reaches further back than its frames begins there.
        """
        return self._layout[0]

    @property
    def flow_offsets(self):
        """Offsets of the frames between which the flow fields lie.

        Integer array of shape `(chunks, flow + 1)`; empty without flow.
        """
        return self._layout[1]

    @property
    def span(self):
        """Integer, frames from the clip's first to its last, both counted."""
        frames, fields = self._layout
        return int(max(frames.max(), fields.max(initial=0))) + 1

    @property
    def shapes(self):
        """Shapes of a cropped clip, by stream.

        Dict of `"rgb"`: `(time, height, width, 3)` and `"flow"`:
        `(chunks * flow, height, width, 2)`, as far as the clip has them.
        """
        shapes = {"rgb": (self.time, *self.size, 3)}
        if self.flow is not None:
            shapes["flow"] = (self.chunks * self.flow, *self.size, 2)
        return {stream: shapes[stream] for stream in self.streams}

    @property
    def resized(self):
        """Least `(height, width)` of a resized frame; None if not valid."""
        kind, *rest = self.resize or (None,)
        lengths = tuple(rest)
        if kind in ("square", "short_side"):
            lengths = lengths * 2 if len(lengths) == 1 else ()
        elif kind not in ("cover", "pad"):
            lengths = self.resize
        if len(lengths) != 2 or not all(_count(side, 1) for side in lengths):
            return None
        return lengths

    @property
    def _layout(self):
        starts = np.arange(self.chunks)[:, None] * self.spacing
        frames = starts + np.arange(self.frames) * self.step
        if self.flow is None:
            return frames.ravel(), np.zeros((self.chunks, 0), np.int64)
        before = max(0, self.flow - self.frames) // 2 * self.step
        fields = starts + np.arange(self.flow + 1) * self.step - before
        first = min(frames.min(), fields.min())
        return frames.ravel() - first, fields - first

    def with_size(self, size):
        """The same clip with another crop, `resize` scaled in proportion.

        Args:
            size: Integer or `(height, width)`, pixels.

        Returns:
            `ClipSpec`.
        """
        size = (size, size) if isinstance(size, int) else tuple(size)
        if size == self.size:
            return self
        kind = self.resize[0]
        # Never smaller than the crop, however the rounding falls.
        tall, wide = (
            max(round(old * new / was), new)
            for old, new, was in zip(self.resized, size, self.size, strict=True)
        )
        if kind in ("square", "short_side"):
            return replace(self, size=size, resize=(kind, max(tall, wide)))
        named = (kind,) if kind in ("cover", "pad") else ()
        return replace(self, size=size, resize=(*named, tall, wide))

    def to_json(self):
        """A dict of plain values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, values):
        """The clip that `to_json` wrote.

        Args:
            values: Dict.

        Raises:
            ValueError: If a key is unknown or a value out of range.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"not a clip: {error}") from error


def clip_starts(frames, spec, sampler, clips, generator=None):
    """First frames of the clips of one video.

    A start is at most `frames - span`; a video shorter than the clip has one
    start, 0, which every clip shares.

    Args:
        frames: Integer, frames of the video (at `spec.fps` if that is given).
        spec: `ClipSpec`.
        sampler: `"random"`: drawn anew for every clip; `"uniform"`: evenly
            spread from the first start to the last, a single clip in the
            middle; `"centre"`: `clips` copies of the middle start;
            `"dense"`: from the first, a span apart, with the last start
            added, so that every frame is seen; `clips` is not used.
        clips: Integer, how many.
        generator: `numpy.random.Generator` for `"random"`.

    Returns:
        Int64 array of shape `(clips,)`, ascending except for `"random"`.

    Raises:
        ValueError: If the sampler is unknown, the video has no frames, or
            `"random"` has no generator.
    """
    _expect(sampler in SAMPLERS, "sampler", f"one of {SAMPLERS}", sampler)
    _expect(frames >= 1, "frames", "1 or more", frames)
    _expect(clips >= 1, "clips", "1 or more", clips)
    _expect(
        sampler != "random" or generator is not None,
        "generator",
        "a numpy.random.Generator for 'random'",
        generator,
    )
    last = max(0, frames - spec.span)
    if sampler == "random":
        return generator.integers(0, last + 1, clips)
    if sampler == "dense":
        starts = np.arange(0, last + 1, spec.span)
        return np.unique(np.append(starts, last))
    if sampler == "centre" or clips == 1:
        return np.full(clips, last // 2)
    return np.linspace(0, last, clips).round().astype(np.int64)


def frame_indices(start, spec, frames):
    """Frames of the video that make one clip, by the rule for short videos.

    Args:
        start: Integer, the clip's first frame.
        spec: `ClipSpec`.
        frames: Integer, frames of the video.

    Returns:
        Int64 array of shape `(spec.time,)`, all in 0..frames-1.
    """
    return within(start + spec.offsets, frames, spec.short)


def field_indices(starts, spec, frames):
    """Motions of the video that the flow fields of some clips are made of.

    Motion j leads from frame j to frame j + 1, so there is one fewer than
    frames. A field of a clip leads over `step` of them. Past the end, a video
    that holds stands still; one that loops has no motion from its last frame
    to its first: there the motion before is repeated.

    Args:
        starts: Integer array of shape `(clips,)`, the clips' first frames.
        spec: `ClipSpec` with a flow stream.
        frames: Integer, frames of the video.

    Returns:
        Int64 array of shape `(clips, chunks * flow, step)`: motions in
        0..frames-2, and -1 for none.
    """
    begins = spec.flow_offsets[:, :-1].ravel() + np.asarray(starts)[:, None]
    motions = begins[..., None] + np.arange(spec.step)
    if frames == 1:
        return np.full_like(motions, -1)
    if spec.short == "loop":
        return np.minimum(motions % frames, frames - 2)
    return np.where(motions < frames - 1, motions, -1)


def within(indices, frames, short):
    """Brings frame numbers into a video: past its end it holds or loops.

    Args:
        indices: Int64 array, 0 or more.
        frames: Integer, frames of the video.
        short: `"hold"` or `"loop"`.

    Returns:
        Int64 array of the same shape, all in 0..frames-1.
    """
    if short == "loop":
        return indices % frames
    return np.minimum(indices, frames - 1)


def generator_of(seed, name):
    """Draws that depend on a seed and a name alone.

    Args:
        seed: Integer, 0 or more.
        name: String, such as a video's.

    Returns:
        `numpy.random.Generator`.
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, np.uint32)])


def each_stream(change, clip, *arguments):
    """Does to every stream of a clip what is done to a clip of one.

    Args:
        change: Function of an array and of `arguments`.
        clip: Array, or a dict of arrays by stream.
        *arguments: Further arguments, the same for all streams.

    Returns:
        What `change` returned, or a dict of that by stream.
    """
    if isinstance(clip, dict):
        return {name: change(one, *arguments) for name, one in clip.items()}
    return change(clip, *arguments)


def _count(value, least):
    return (
        isinstance(value, int | np.integer)
        and not isinstance(value, bool)
        and value >= least
    )


def _expect(true, name, expected, value):
    if not true:
        raise ValueError(
            f"`{name}` must be {expected}. Received: {name}={value!r}"
        )

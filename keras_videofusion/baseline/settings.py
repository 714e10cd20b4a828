"""What the histograms are made of: every number in one record.

Imports the standard library alone, so that the command line answers at once.
"""

import difflib
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

FITS = ("square", "stretch")


class Block(NamedTuple):
    """A stretch of a video's vector: one kind of descriptor, all its cells.

    Args:
        name: String.
        kind: How descriptors become histograms. `"points"`: each lies in a
            quadrant and goes to its nearest words; cell 0 is the sum of the
            quadrants, 1..4. `"cuboids"`: the same, after a PCA to
            `Settings.cuboid_numbers`. `"vectors"`: the same as points, but
            cell 0 has descriptors of its own. `"counts"`: counts by cell and
            bin, nothing to learn; `"faces"`: a number per frame, counted.
        words: Integer, words of the vocabulary, or bins.
        cells: Integer, histograms of so many words: 5 (the whole frame and
            its quadrants) or 1.
    """

    name: str
    kind: str
    words: int
    cells: int

    @property
    def size(self) -> int:
        """Integer, numbers in a video's vector."""
        return self.words * self.cells


@dataclass(frozen=True)
class Settings:
    """Every number that decides a video's histograms.

    The block sizes are ours, since neither paper prints them; with these
    defaults they sum to the paper's 25,000. Lengths are pixels of the resized
    frame, times are frames of the video.

    Args:
        side: Integer, frames are resized to `side` x `side`.
        fit: `"square"`, the central square of each frame, or `"stretch"`, all
            of it.
        hog_dense_words: Integer, words for blocks of oriented gradients, all
            of them.
        hog_corners_words: Integer, the same, of the block nearest to each
            corner.
        hog_orientations: Integer, bins of a cell.
        hog_cell: Integer, side of a cell.
        hog_block: Integer, cells along a side of a block.
        texton_dense_words: Integer, words for responses of filters on a grid.
        texton_corners_words: Integer, the same at corners.
        texton_stride: Integer, distance of neighbours on the grid.
        corners: Integer, the most corners per frame.
        corner_quality: Float, a corner's least strength as a share of the
            frame's strongest.
        corner_distance: Integer, least distance of two corners.
        cuboid_points_words: Integer, words for cuboids at interest points.
        cuboid_dense_words: Integer, words for cuboids on a grid.
        cuboid_numbers: Integer, what a cuboid's gradients are reduced to.
        cuboid_sigma: Float, scale of the detector in space.
        cuboid_tau: Float, its scale in time.
        cuboid_omega: Float, its frequency, per frame; 0 for `4 / tau`, as
            printed. By default that is 1.6, which of a wave seen once a frame
            leaves 0.4. (The authors' program takes `0.5 / tau`.)
        cuboid_threshold: Float, least response of an interest point, of
            frames in 0..1.
        cuboid_rate: Integer, the most interest points per second.
        cuboid_time_stride: Integer, frames between neighbours on the grid.
        cuboid_stride: Integer, pixels between them.
        hues: Integer, bins of hue.
        saturations: Integer, bins of saturation.
        colour_words: Integer, words for colour moments.
        faces: Integer, bins for faces per frame; the last for more too.
        face_side: Integer, side of the least face looked for.
        face_scale: Float, ratio of neighbouring sizes looked for.
        face_neighbours: Integer, hits side by side that make a face.
        neighbours: Integer, nearest words that a descriptor is shared among.
        sample: Integer, descriptors per block that its words are learned of.
        cuboid_sample: Integer, the same of cuboids, which are large.

    Raises:
        ValueError: If a value is out of its range.

    Reference:
        Karpathy et al., CVPR 2014, section 4.1; Yang & Toderici, CVPR 2011.
        HOG: Dalal & Triggs, CVPR 2005. Textons: Varma & Zisserman, IJCV 2005.
        Cuboids: Dollár et al., VS-PETS 2005.
    """

    side: int = 200
    fit: str = "square"
    hog_dense_words: int = 1000
    hog_corners_words: int = 1000
    hog_orientations: int = 9
    hog_cell: int = 8
    hog_block: int = 2
    texton_dense_words: int = 1000
    texton_corners_words: int = 400
    texton_stride: int = 4
    corners: int = 100
    corner_quality: float = 0.01
    corner_distance: int = 5
    cuboid_points_words: int = 1000
    cuboid_dense_words: int = 400
    cuboid_numbers: int = 100
    cuboid_sigma: float = 2.0
    cuboid_tau: float = 2.5
    cuboid_omega: float = 0.0
    cuboid_threshold: float = 2e-4
    cuboid_rate: int = 120
    cuboid_time_stride: int = 8
    cuboid_stride: int = 25
    hues: int = 16
    saturations: int = 8
    colour_words: int = 70
    faces: int = 10
    face_side: int = 36
    face_scale: float = 1.2
    face_neighbours: int = 2
    neighbours: int = 4
    sample: int = 100_000
    cuboid_sample: int = 20_000

    def __post_init__(self):
        for part in fields(self):
            value = getattr(self, part.name)
            if part.name == "fit":
                _expect(value in FITS, "fit", f"one of {FITS}", value)
            elif part.type is int:
                counted = isinstance(value, int) and not isinstance(value, bool)
                _expect(
                    counted and value >= 1,
                    part.name,
                    "an integer, 1 or more",
                    value,
                )
            else:
                least = part.name == "cuboid_omega"
                _expect(
                    isinstance(value, int | float)
                    and math.isfinite(value)
                    and (value >= 0 if least else value > 0),
                    part.name,
                    f"a number, {'0 or more' if least else 'more than 0'}",
                    value,
                )
        omega = self.cuboid_omega or 4 / self.cuboid_tau
        _expect(
            abs(omega - round(omega)) >= 0.05,
            "cuboid_omega",
            "0.05 or more from a whole number (0 stands for 4 / cuboid_tau): "
            "seen once a frame, such a wave stands still",
            omega,
        )
        _expect(
            self.side >= self.hog_cell * self.hog_block,
            "side",
            f"no less than a block, {self.hog_cell * self.hog_block}",
            self.side,
        )
        _expect(
            self.face_scale > 1, "face_scale", "more than 1", self.face_scale
        )

    @property
    def resize(self) -> tuple:
        """How frames get their shape, as in `ClipSpec`."""
        if self.fit == "square":
            return ("square", self.side)
        return (self.side, self.side)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of a video's vector, in their order."""
        return (
            Block("hog_dense", "points", self.hog_dense_words, 5),
            Block("hog_corners", "points", self.hog_corners_words, 5),
            Block("texton_dense", "points", self.texton_dense_words, 5),
            Block("texton_corners", "points", self.texton_corners_words, 5),
            Block("cuboid_points", "cuboids", self.cuboid_points_words, 5),
            Block("cuboid_dense", "cuboids", self.cuboid_dense_words, 5),
            Block("hue_saturation", "counts", self.hues * self.saturations, 5),
            Block("colour_moments", "vectors", self.colour_words, 5),
            Block("faces", "faces", self.faces, 1),
        )

    @property
    def size(self) -> int:
        """Integer, numbers in a video's vector: 25,000 by default."""
        return sum(block.size for block in self.blocks)

    @property
    def spans(self) -> dict[str, tuple[int, int]]:
        """Where in a video's vector each block begins and ends."""
        spans, begin = {}, 0
        for block in self.blocks:
            spans[block.name] = (begin, begin + block.size)
            begin += block.size
        return spans

    @property
    def cuboid_shape(self) -> tuple[int, int, int]:
        """Frames, rows and columns of a cuboid: six times the scales."""
        reach = math.ceil(3 * self.cuboid_sigma)
        return (self.cuboid_reach * 2 + 1, reach * 2 + 1, reach * 2 + 1)

    @property
    def cuboid_reach(self) -> int:
        """Integer, frames of a cuboid, and of its detector, to either side."""
        return math.ceil(3 * self.cuboid_tau)

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values) -> "Settings":
        """The settings that `to_json` wrote.

        Args:
            values: Dict; keys that are no fields are an error.

        Raises:
            ValueError: If a key is unknown or a value out of range.
        """
        known = {part.name for part in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            near = difflib.get_close_matches(unknown[0], sorted(known), 3)
            raise ValueError(
                "settings of histograms have no such fields; perhaps "
                f"{' or '.join(near) or 'a newer release has'}. "
                f"Received: {', '.join(unknown)}"
            )
        return cls(**values)


def _expect(right, name, expected, value):
    if not right:
        raise ValueError(
            f"`{name}` must be {expected}. Received: {name}={value!r}"
        )

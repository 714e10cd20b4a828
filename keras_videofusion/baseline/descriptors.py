"""Local descriptors of a video's frames, a run of frames at a time."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from keras_videofusion.baseline.settings import Settings


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
    run: int = 32,
) -> Iterator[dict[str, Local | np.ndarray]]:
    """Descriptors of a video, a run of frames at a time, in order.

    Args:
        path: File, or folder of images.
        settings: `Settings`.
        start: Float, seconds; earlier frames do not count.
        end: Float, seconds; frames from there on do not count.
        blocks: Names of the blocks to compute; all if None.
        run: Integer, frames decoded at a time; all together the descriptors
            do not depend on it.

    Yields:
        Dict by block: `Local`; of `"hue_saturation"` an int64 array of counts
        of shape `(cells, bins)`; of `"faces"` an int64 array of shape
        `(frames,)`, the number of faces in each.
    """
    raise NotImplementedError

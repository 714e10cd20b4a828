"""JHMDB: 928 clips of 21 actions of HMDB-51, with puppets drawn over people.

Clips are 15 to 40 frames long; in each the one who acts is covered, frame by
frame, by a puppet of ten parts, whose outline gives a box. There are three
splits. What the clips were cut from is not published, so that rows have no
groups.

Published by the Max Planck Institute for Intelligent Systems at `ADDRESS`,
for research, to those who register.

Reference:
    Jhuang et al., Towards Understanding Action Recognition, ICCV 2013.
"""

from pathlib import PurePosixPath

import numpy as np

from keras_videofusion.data.catalog import Catalog, Video
from keras_videofusion.datasets.annotations import read_mat
from keras_videofusion.datasets.layout import (
    expect_choice,
    find,
    gather,
    prefix,
    read_lines,
    relative,
    videos_below,
    wrong_root,
)

ADDRESS = "http://jhmdb.is.tue.mpg.de"
TREE = """
splits/brush_hair_test_split1.txt
ReCompress_Videos/brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi
puppet_mask/brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0/puppet_mask.mat
"""
SPLITS = {"1": "train", "2": "test"}
FOLDS = (1, 2, 3)


def load(root, split: str | None = None, fold: int = 1) -> Catalog:
    """The catalog of JHMDB.

    Args:
        root: Folder as in `TREE`; the masks are not looked at.
        split: "train", "test", or None for both.
        fold: 1, 2 or 3.

    Returns:
        `Catalog`; its classes are sorted.

    Raises:
        ValueError: If an argument, the folder or a line of a list is wrong.
    """
    expect_choice("split", split, (*SPLITS.values(), None))
    expect_choice("fold", fold, FOLDS)
    lists = find(root, "splits", ".")
    ending = f"_test_split{fold}.txt"
    paths = sorted(lists.glob(f"*{ending}")) if lists else []
    if not paths:
        raise wrong_root("jhmdb", root, TREE, ADDRESS, f"splits/*{ending}")
    place = find(root, "ReCompress_Videos", "videos", ".")
    before = prefix(root, place)
    videos = []
    for path in paths:
        label = path.name.removesuffix(ending)
        for number, line in read_lines(path):
            where = f"{path}, line {number}"
            name, _, part = line.rpartition(" ")
            if not name or part not in SPLITS:
                raise ValueError(
                    f"{where} must be a file's name and 1 (train) or 2 "
                    f"(test). Received: {line!r}"
                )
            file = relative(f"{label}/{name.strip()}", where)
            videos.append(Video(before + file, (label,), split=SPLITS[part]))
    classes = sorted(path.name.removesuffix(ending) for path in paths)
    return gather(root, videos, videos_below(root, before), classes, split)


def boxes(root, video: Video | str) -> np.ndarray:
    """The boxes round the one who acts: the edges of the puppet.

    Args:
        root: Folder as in `TREE`.
        video: A row of the catalog, or its path.

    Returns:
        Float32 array of shape `(frames, 4)`: left, top, right and bottom edge
        in pixels, so that a puppet of one pixel has a box of 1 x 1. Frames
        without a puppet are `nan`.

    Raises:
        FileNotFoundError: If the video has no masks.
        ImportError: If SciPy is not installed.
        ValueError: If the folder is wrong or the masks are damaged.
    """
    path = PurePosixPath(video if isinstance(video, str) else video.path)
    place = find(root, "puppet_mask", "puppet_masks")
    if place is None:
        raise wrong_root("jhmdb", root, TREE, ADDRESS, "puppet_mask")
    file = place / path.parent.name / path.stem / "puppet_mask.mat"
    mask = np.asarray(read_mat(file, "part_mask"))
    # MATLAB drops the last axis of a single frame.
    mask = mask[..., None] if mask.ndim == 2 else mask
    if mask.ndim != 3 or mask.dtype.kind not in "biuf":
        raise ValueError(
            f"{file}: `part_mask` must be numbers of shape (height, width, "
            f"frames). Received: {mask.dtype} of shape {mask.shape}"
        )
    found = np.full((mask.shape[2], 4), np.nan, np.float32)
    for box, puppet in zip(found, np.moveaxis(mask != 0, 2, 0), strict=True):
        down, right = (np.flatnonzero(puppet.any(axis)) for axis in (1, 0))
        if len(down):
            box[:] = right[0], down[0], right[-1] + 1, down[-1] + 1
    return found

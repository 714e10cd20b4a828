"""UCF101-24: the 24 classes of UCF-101 that have boxes, 3,194 videos.

The boxes are the corrected ones of Singh et al.: tubes, each a class, a first
frame and a box per frame. Rows are the videos of split 1 that have any.

The boxes are at `ADDRESS`, the videos and their lists at the authors' of
UCF-101, https://www.crcv.ucf.edu/data/UCF101.php. Pickled editions of the
boxes are refused: to unpickle a file is to run it.

Reference:
    Soomro, Zamir, Shah, UCF101, CRCV-TR-12-01, 2012; Singh et al., Online
    Real-time Multiple Spatiotemporal Action Localisation and Prediction, ICCV
    2017.
"""

import numpy as np

from keras_videofusion.data.catalog import Catalog, Video
from keras_videofusion.datasets.annotations import field, read_mat
from keras_videofusion.datasets.layout import (
    expect_choice,
    find,
    gather,
    prefix,
    read_lines,
    relative,
    stem,
    videos_below,
    wrong_root,
)
from keras_videofusion.datasets.ucf101 import FAMILIES

ADDRESS = "https://github.com/gurkirt/corrected-UCF101-Annots"
TREE = """
finalAnnots.mat                               (or in annotations/, splitfiles/)
ucfTrainTestlist/trainlist01.txt              (or beside finalAnnots.mat)
ucfTrainTestlist/testlist01.txt
UCF-101/Basketball/v_Basketball_g01_c01.avi
"""
SPLITS = ("train", "test")
CLASSES = (
    "Basketball",
    "BasketballDunk",
    "Biking",
    "CliffDiving",
    "CricketBowling",
    "Diving",
    "Fencing",
    "FloorGymnastics",
    "GolfSwing",
    "HorseRiding",
    "IceDancing",
    "LongJump",
    "PoleVault",
    "RopeClimbing",
    "SalsaSpin",
    "SkateBoarding",
    "Skiing",
    "Skijet",
    "SoccerJuggling",
    "Surfing",
    "TennisSwing",
    "TrampolineJumping",
    "VolleyballSpiking",
    "WalkingWithDog",
)
_FAMILY = {name: family for family, names in FAMILIES.items() for name in names}
_PLACES = ("", "annotations/", "splitfiles/", "ucfTrainTestlist/")


def load(root, split: str | None = None, fold: int = 1) -> Catalog:
    """The catalog of UCF101-24.

    A group is a recording of UCF-101, as `ucf101` has it.

    Args:
        root: Folder as in `TREE`.
        split: "train", "test", or None for both.
        fold: 1; the boxes were corrected for that split.

    Returns:
        `Catalog` of 24 classes.

    Raises:
        ImportError: If SciPy is not installed.
        ValueError: If an argument, the folder, a line of a list or an entry
            of the boxes is wrong.
    """
    expect_choice("split", split, (*SPLITS, None))
    expect_choice("fold", fold, (1,))
    annotated = {stem(name) for name in _annotated(root)}
    before, there = _videos(root)
    videos = []
    for part in SPLITS:
        path = _file(root, f"{part}list01.txt")
        for number, line in read_lines(path):
            # Training lines end in the number of the class.
            name = relative(line.split()[0], f"{path}, line {number}")
            label = name.partition("/")[0]
            if stem(name) not in annotated:
                continue
            group = stem(name).removeprefix("v_").rpartition("_")[0]
            videos.append(
                Video(
                    f"{before}{label}/{stem(name)}.avi",
                    (label,),
                    group,
                    _FAMILY[label],
                    part,
                )
            )
    return gather(root, videos, there, CLASSES, split)


def tubes(root) -> dict[str, list[tuple[str, int, np.ndarray]]]:
    """Who does what where, in every video that has boxes.

    Args:
        root: Folder as in `TREE`.

    Returns:
        Dict from path, as in the catalog, to the video's tubes: class, number
        of the first frame, counted from 0, and a float32 array of shape
        `(frames, 4)`: left, top, right and bottom edge in pixels.

    Raises:
        ImportError: If SciPy is not installed.
        ValueError: If the folder or an entry is wrong.
    """
    before, there = _videos(root)
    return {
        there.get(stem(name), f"{before}{name}.avi"): found
        for name, found in _annotated(root).items()
    }


def _videos(root):
    place = find(root, "UCF-101", "UCF101", "videos", ".")
    before = prefix(root, place) if place else ""
    return before, videos_below(root, before)


def _file(root, name):
    found = find(root, *(f"{place}{name}" for place in _PLACES))
    if found is None:
        raise wrong_root("ucf101_24", root, TREE, ADDRESS, name)
    return found


def _annotated(root):
    """Dict from "Basketball/v_Basketball_g01_c01" to tubes."""
    pickled = find(
        root,
        *(
            f"{place}{name}"
            for place in _PLACES
            for name in ("UCF101v2-GT.pkl", "UCF101-GT.pkl", "pyannot.pkl")
        ),
    )
    if pickled and not find(root, *(f"{p}finalAnnots.mat" for p in _PLACES)):
        raise ValueError(
            f"{pickled} is a pickled file, and to read one is to run it. Put "
            f"finalAnnots.mat from {ADDRESS} beside it instead. Received: "
            f"root={str(root)!r}"
        )
    path = _file(root, "finalAnnots.mat")
    found = {}
    for number, entry in enumerate(_each(read_mat(path, "annot")), 1):
        where = f"{path}, entry {number}"
        name = relative(field(entry, "name", str, where).strip(), where)
        if name.partition("/")[0] not in CLASSES:
            raise ValueError(
                f"{where}: `name` must begin with one of the 24 classes. "
                f"Received: name={name!r}"
            )
        found[name] = [
            _tube(tube, f"{where} ({name}), tube {place}")
            for place, tube in enumerate(_each(entry.get("tubes")), 1)
        ]
    return found


def _each(structs):
    """MATLAB has no list of one, and no empty one."""
    if isinstance(structs, dict):
        return [structs]
    return [] if structs is None else list(np.atleast_1d(structs).ravel())


def _tube(tube, where):
    first = int(field(tube, "sf", (int, float), where))
    number = int(field(tube, "class", (int, float), where))
    corners = np.atleast_2d(tube.get("boxes"))
    if (
        corners.dtype.kind not in "iuf"
        or corners.ndim != 2
        or corners.shape[1] != 4
        or first < 1
        or not 1 <= number <= len(CLASSES)
    ):
        raise ValueError(
            f"{where} must have a class 1 to {len(CLASSES)}, a first frame "
            "`sf` from 1 and `boxes` of shape (frames, 4). Received: class="
            f"{number}, sf={first}, boxes of shape {corners.shape}"
        )
    # MATLAB counts frames and pixels from 1; boxes are x, y, width, height.
    edges = corners.astype(np.float32)
    edges[:, :2] -= 1
    edges[:, 2:] += edges[:, :2]
    return CLASSES[number - 1], first - 1, edges

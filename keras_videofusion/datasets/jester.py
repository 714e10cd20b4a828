"""Jester: 148,092 recordings of 27 gestures in front of a webcam.

A video is a folder of JPEG frames, 100 pixels high, at 12 per second. The
test videos have no labels, except in editions that bring `test-answers.csv`.
Who is seen is not published, so that rows have no groups.

Published by Qualcomm (first by Twenty Billion Neurons), at `ADDRESS`, for
research, to those who register and agree to its terms.

Reference:
    Materzynska et al., The Jester Dataset: A Large-Scale Video Dataset of
    Human Gestures, ICCV Workshops 2019.
"""

from keras_videofusion.data.catalog import Catalog
from keras_videofusion.datasets.twentybn import (
    expect_arguments,
    frame_folders,
    read_labelled,
    read_labels,
    Release,
)

ADDRESS = "https://www.qualcomm.com/developer/software/jester-dataset"
TREE = """
jester-v1-labels.csv           (or labels.csv; beside the videos' folder, in
jester-v1-train.csv             labels/ or in annotations/)
jester-v1-validation.csv
test-answers.csv               (only in later editions)
20bn-jester-v1/1/00001.jpg
20bn-jester-v1/1/00002.jpg
"""


def load(root, split: str | None = None, fold: int = 1) -> Catalog:
    """The catalog of Jester.

    Args:
        root: Folder as in `TREE`.
        split: "train", "validation", "test", or None for all with labels.
        fold: 1.

    Returns:
        `Catalog`; paths are folders of frames.

    Raises:
        ValueError: If an argument, the folder or a line of a list is wrong,
            or if test rows are asked for and have no labels.
    """
    expect_arguments(split, fold)
    release = Release(
        "jester", "jester-v1", ".csv", "20bn-jester-v1", "", TREE, ADDRESS
    )
    classes = read_labels(release.file(root, "labels"))
    there = frame_folders(root, release.folder, "frames", "videos")
    return release.catalog(root, split, classes, read_labelled, there)

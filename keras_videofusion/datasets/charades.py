"""Charades: 9,848 videos of people at home, 157 actions, several at a time.

Every video has a script and the intervals of the actions in it; 267 people
filmed them, and the two lists, train and test, share none of those. Videos
in which no action was marked are no rows: a row without a label says nothing
to a softmax, and CSV has none. (The authors score such test videos too, as
videos where every answer is wrong.)

Published by the Allen Institute for AI at `ADDRESS`, for non-commercial use,
without registration.

Reference:
    Sigurdsson et al., Hollywood in Homes: Crowdsourcing Data Collection for
    Activity Understanding, ECCV 2016.
"""

import math

from keras_videofusion.data.catalog import Catalog, Video
from keras_videofusion.datasets.layout import (
    expect_choice,
    find,
    gather,
    prefix,
    read_lines,
    read_table,
    relative,
    videos_below,
    wrong_root,
)

ADDRESS = "https://prior.allenai.org/projects/charades"
TREE = """
Charades/Charades_v1_classes.txt      (or beside the videos' folder)
Charades/Charades_v1_train.csv
Charades/Charades_v1_test.csv
Charades_v1_480/001YG.mp4             (or Charades_v1, at full size)
"""
SPLITS = ("train", "test")
COLUMNS = ("id", "subject", "actions")


def load(
    root, split: str | None = None, fold: int = 1, *, segments: bool = False
) -> Catalog:
    """The catalog of Charades.

    A video's group is who filmed it. (Where the lists had one person on both
    sides, those rows would have none.)

    Args:
        root: Folder as in `TREE`.
        split: "train", "test", or None for both.
        fold: 1.
        segments: Whether a row is an interval, with one label, start and
            end; else a video with all its labels. Intervals without length
            are passed over.

    Returns:
        `Catalog` of 157 classes by their published numbers.

    Raises:
        ValueError: If an argument, the folder or a line of a list is wrong.
    """
    expect_choice("split", split, (*SPLITS, None))
    expect_choice("fold", fold, (1,))
    expect_choice("segments", segments, (False, True))
    classes = _classes(_file(root, "Charades_v1_classes.txt"))
    rows = {
        part: list(_rows(_file(root, f"Charades_v1_{part}.csv"), classes))
        for part in SPLITS
    }
    people = [{person for _, person, _ in found} for found in rows.values()]
    both = set.intersection(*people)
    place = find(root, "Charades_v1", "Charades_v1_480", "videos", ".")
    before = prefix(root, place)
    videos = [
        Video(before + name, labels, group, None, part, start, end)
        for part, found in rows.items()
        for name, person, actions in found
        for group in [None if person in both else person]
        for labels, start, end in (
            _segments(actions) if segments else _whole(actions)
        )
    ]
    there = videos_below(root, before)
    return gather(root, videos, there, tuple(classes.values()), split)


def _file(root, name):
    found = find(root, f"Charades/{name}", name, f"annotations/{name}")
    if found is None:
        raise wrong_root("charades", root, TREE, ADDRESS, name)
    return found


def _classes(path):
    """Dict from "c000" to the name of the class."""
    classes: dict[str, str] = {}
    for number, line in read_lines(path):
        code, _, name = line.partition(" ")
        if not name or code in classes or name in classes.values():
            raise ValueError(
                f"{path}, line {number} must be a class of its own, such as "
                f"'c000 Holding some clothes'. Received: {line!r}"
            )
        classes[code] = name.strip()
    return classes


def _rows(path, classes):
    """Yields `(file name, person, [(label, start, end), ...])`."""
    for number, row in read_table(path, COLUMNS):
        where = f"{path}, line {number}"
        name = relative(f"{row['id']}.mp4", where)
        yield name, row["subject"] or None, _actions(row, classes, where)


def _actions(row, classes, where):
    actions = []
    for action in filter(None, row["actions"].split(";")):
        code, *times = action.split()
        try:
            start, end = map(float, times)
        except ValueError:
            start = end = math.nan
        if code not in classes or not (math.isfinite(end) and start >= 0):
            raise ValueError(
                f"{where}: an action must be a class, its start and its end "
                f"in seconds, such as 'c092 11.90 21.20'. Received: {action!r}"
            )
        actions.append((classes[code], start, end))
    return actions


def _segments(actions):
    return [
        ((label,), start, end) for label, start, end in actions if end > start
    ]


def _whole(actions):
    labels = tuple(dict.fromkeys(label for label, _, _ in actions))
    return [(labels, None, None)] if labels else []

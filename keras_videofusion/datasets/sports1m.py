"""Sports-1M: links to 1,133,158 videos of 487 sports, the paper's data.

Expected below the root, as the authors' repository lies there; the partitions
may be compressed (`.txt.gz`)::

    labels.txt
    sports_mids.txt
    original/
      train_partition.txt
      test_partition.txt
    videos/
      UDqivjS-lpI.mp4
      ...

A video is `<id of its link>` and any ending of a video, anywhere below
`videos` (in the root, if there is no such folder). The authors publish the
links at https://github.com/gtoderici/sports-1m-dataset under CC BY 3.0; the
videos belong to those who uploaded them, and many are gone: they are counted
and listed in the catalog's `missing`.

The published partitions are train and test. Validation is an eighth of train,
so that the three are the paper's 70, 10 and 20 %. Which eighth depends on the
seed and on the list alone, not on its order or on what is on disk.

Reference:
    Karpathy, Toderici, Shetty, Leung, Sukthankar, Fei-Fei, Large-scale Video
    Classification with Convolutional Neural Networks, CVPR 2014, section 4.1.
"""

import re
from hashlib import blake2b

import numpy as np

from keras_videofusion.data.catalog import Catalog, Video
from keras_videofusion.datasets import layout

ADDRESS = "https://github.com/gtoderici/sports-1m-dataset"
TREE = """
labels.txt
original/
  train_partition.txt
  test_partition.txt
videos/
  <YouTube id>.mp4
"""
SPLITS = ("train", "validation", "test")
FOLDS = (1,)
LABELS_FILE = "labels.txt"
TOPICS_FILE = "sports_mids.txt"
_ROW = re.compile(r"https?://\S+?[?&]v=([\w-]+)\S*\s+(\d+(?:,\d+)*)")


def load(
    root, split: str | None = None, fold: int = 1, *, seed: int = 0
) -> Catalog:
    """The catalog of the published partitions.

    A video may have several labels. One that stands in a partition twice has
    the labels of both lines; one that stands in both is tested, not trained.

    Args:
        root: Folder, as the module shows it.
        split: "train", "validation", "test", or None for all.
        fold: 1.
        seed: Integer: which eighth of train is validation.

    Returns:
        `Catalog` of 487 classes in the order of `labels.txt`.

    Raises:
        ValueError: If the split or fold is none, the folder is not Sports-1M,
            or a line of a list is wrong.
    """
    layout.expect_choice("split", split, (*SPLITS, None))
    layout.expect_choice("fold", fold, FOLDS)
    names = layout.find(root, LABELS_FILE)
    if names is None:
        raise layout.wrong_root("Sports-1M", root, TREE, ADDRESS)
    classes = tuple(line for _, line in layout.read_lines(names))
    train, test = (
        _partition(root, f"{name}_partition.txt", classes)
        for name in ("train", "test")
    )
    for name in test:
        train.pop(name, None)
    prefix = layout.prefix(root, layout.find(root, "videos", "."))
    there = layout.videos_below(root, prefix)
    held_out = _eighth(train, seed)

    def videos():
        for place, (name, labels) in enumerate(train.items()):
            marked = "validation" if held_out[place] else "train"
            yield Video(f"{prefix}{name}.mp4", labels, split=marked)
        for name, labels in test.items():
            yield Video(f"{prefix}{name}.mp4", labels, split="test")

    return layout.gather(root, videos(), there, classes, split)


def topics(root) -> dict[str, str]:
    """The topic by which each class was searched.

    Args:
        root: Folder, as the module shows it.

    Returns:
        Dict from class to topic id, such as "/m/012v4j".

    Raises:
        ValueError: If the folder has no `sports_mids.txt` or a line is wrong.
    """
    path = layout.find(root, TOPICS_FILE)
    if path is None:
        raise layout.wrong_root("Sports-1M", root, TREE, ADDRESS, TOPICS_FILE)
    found = {}
    for number, line in layout.read_lines(path):
        topic, _, name = line.partition(",")
        if not topic.startswith("/m/") or not name:
            raise ValueError(
                f"{path}, line {number} must be /m/<topic>,<class>. "
                f"Received: {line!r}"
            )
        found[name] = topic
    return found


def _partition(root, name, classes):
    """Labels of every video of a list, by its id, in the list's order."""
    path = layout.find(
        root,
        *(
            f"{folder}{name}{ending}"
            for folder in ("original/", "")
            for ending in ("", ".gz")
        ),
    )
    if path is None:
        raise layout.wrong_root(
            "Sports-1M", root, TREE, ADDRESS, f"original/{name}"
        )
    # A million videos share a few thousand sets of labels.
    known: dict[str, tuple[str, ...]] = {}
    found: dict[str, tuple[str, ...]] = {}
    for number, line in layout.read_lines(path):
        row = _ROW.fullmatch(line)
        if row is None:
            raise ValueError(
                f"{path}, line {number} must be a link and numbers of labels, "
                "such as https://www.youtube.com/watch?v=UDqivjS-lpI 168,169. "
                f"Received: {line!r}"
            )
        video, numbers = row.groups()
        labels = known.get(numbers)
        if labels is None:
            places = list(map(int, numbers.split(",")))
            if max(places) >= len(classes):
                raise ValueError(
                    f"{path}, line {number}: labels must be below "
                    f"{len(classes)}, the lines of {LABELS_FILE}. "
                    f"Received: {line!r}"
                )
            labels = tuple(dict.fromkeys(classes[place] for place in places))
            known[numbers] = labels
        earlier = found.get(video)
        if earlier is not None and earlier != labels:
            labels = tuple(dict.fromkeys(earlier + labels))
        found[video] = labels
    return found


def _eighth(names, seed):
    """Boolean array of shape `(names,)`, true for one in eight of them."""
    salt = str(seed).encode()
    drawn = np.fromiter(
        (
            int.from_bytes(
                blake2b(name.encode(), digest_size=8, key=salt).digest(), "big"
            )
            for name in names
        ),
        np.uint64,
        len(names),
    )
    chosen = np.zeros(len(names), bool)
    chosen[np.argsort(drawn, kind="stable")[: len(names) // 8]] = True
    return chosen

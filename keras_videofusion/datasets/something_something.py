"""Something-Something: what hands do with things, told by a template.

174 classes such as "Putting something on something": in version 2, 220,847
videos in WebM, in version 1, 108,499 folders of JPEG frames, 100 pixels high,
at 12 per second. A class is its template without brackets; what stood for the
somethings in a video of version 2 is among its `placeholders`. Test videos
have no labels, except in editions that bring `test-answers.csv`. Who filmed
is not published, so that rows have no groups.

Published by Qualcomm (first by Twenty Billion Neurons), at `ADDRESS`, for
research, to those who register and agree to its terms.

Reference:
    Goyal et al., The "Something Something" Video Database for Learning and
    Evaluating Visual Common Sense, ICCV 2017.
"""

from collections.abc import Iterator

from keras_videofusion.data.catalog import Catalog
from keras_videofusion.datasets.annotations import field, read_json
from keras_videofusion.datasets.layout import (
    expect_choice,
    find,
    prefix,
    videos_below,
)
from keras_videofusion.datasets.twentybn import (
    expect_arguments,
    frame_folders,
    plain,
    read_labelled,
    read_labels,
    Release,
)

ADDRESS = "https://www.qualcomm.com/developer/software/something-something-v-2-dataset"
TREE = """
something-something-v2-labels.json       (or labels.json; beside the videos'
something-something-v2-train.json         folder, in labels/ or annotations/)
something-something-v2-validation.json
test-answers.csv                         (only in later editions)
20bn-something-something-v2/1.webm
"""
TREE_1 = """
something-something-v1-labels.csv        (or labels.csv; beside the videos'
something-something-v1-train.csv          folder, in labels/ or annotations/)
something-something-v1-validation.csv
20bn-something-something-v1/1/00001.jpg
"""


def load(
    root, split: str | None = None, fold: int = 1, *, version: int = 2
) -> Catalog:
    """The catalog of Something-Something.

    Args:
        root: Folder as in `TREE`, or `TREE_1` for version 1.
        split: "train", "validation", "test", or None for all with labels.
        fold: 1.
        version: 1 or 2.

    Returns:
        `Catalog`; in version 1 paths are folders of frames.

    Raises:
        ValueError: If an argument, the folder, or a line or an entry of a
            list is wrong, or if test rows are asked for and have no labels.
    """
    expect_arguments(split, fold)
    expect_choice("version", version, (1, 2))
    release = _release(version)
    labels = release.file(root, "labels")
    if version == 1:
        classes = read_labels(labels)
        there = frame_folders(root, release.folder, "frames", "videos")
        read = read_labelled
    else:
        classes = _classes(labels)
        place = find(root, release.folder, "videos", ".")
        there = videos_below(root, prefix(root, place))
        read = _labelled
    return release.catalog(root, split, classes, read, there)


def placeholders(root) -> dict[str, tuple[str, ...]]:
    """What stood for each [something], in version 2.

    Args:
        root: Folder as in `TREE`.

    Returns:
        Dict from a video's number, as in its name, to the words that filled
        its template, from left to right.

    Raises:
        ValueError: If the folder or an entry of a list is wrong.
    """
    release = _release(2)
    found = {}
    for part in ("train", "validation"):
        for where, entry in _entries(release.file(root, part)):
            words = field(entry, "placeholders", list, where)
            found[_id(entry, where)] = tuple(str(word) for word in words)
    return found


def _release(version):
    return Release(
        "something_something",
        f"something-something-v{version}",
        ".csv" if version == 1 else ".json",
        f"20bn-something-something-v{version}",
        "" if version == 1 else ".webm",
        TREE_1 if version == 1 else TREE,
        ADDRESS,
    )


def _classes(path):
    """Class names by their published numbers."""
    numbers = {}
    labels = read_json(path, dict)
    for label in labels:
        number = field(labels, label, (str, int), f"{path}, {label!r}")
        if not str(number).isdecimal() or int(number) in numbers:
            raise ValueError(
                f"{path}, {label!r}: the number of a label must be its own, 0 "
                f"or more. Received: {number!r}"
            )
        numbers[int(number)] = plain(label)
    return tuple(numbers[number] for number in sorted(numbers))


def _entries(path) -> Iterator[tuple[str, dict]]:
    for number, entry in enumerate(read_json(path, list), 1):
        yield f"{path}, entry {number}", entry


def _labelled(path):
    """Yields `(where, video, label)` of a list of version 2."""
    for where, entry in _entries(path):
        template = field(entry, "template", str, where)
        yield where, _id(entry, where), plain(template)


def _id(entry, where):
    return str(field(entry, "id", (str, int), where))

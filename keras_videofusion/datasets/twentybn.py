"""What the data sets of Twenty Billion Neurons share: their lists.

Something-Something and Jester come as a list of labels, lists of videos by
number for training and validation, and one of test videos without labels.
Later editions leave the data set's name out of the files' names and add the
answers to the test videos.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_videofusion.data.catalog import Catalog, Video
from keras_videofusion.datasets.layout import (
    expect_choice,
    find,
    gather,
    read_lines,
    read_table,
    relative,
    wrong_root,
)

SPLITS = ("train", "validation", "test")
FOLDERS = ("", "labels/", "annotations/")


@dataclass(frozen=True)
class Release:
    """One of their data sets, as it is published.

    Args:
        name: Name of the data set.
        prefix: What its lists' names begin with, such as "jester-v1".
        ending: Of its lists: ".csv" or ".json".
        folder: Of its videos.
        video: Ending of a video; empty: it is a folder of frames.
        tree: As for `wrong_root`.
        address: As for `wrong_root`.
    """

    name: str
    prefix: str
    ending: str
    folder: str
    video: str
    tree: str
    address: str

    def find(self, root, part: str) -> Path | None:
        """One of the lists, where it is there.

        Args:
            root: The data set's folder.
            part: "labels.csv", "train.json" and so on.
        """
        return find(
            root,
            *(
                f"{folder}{name}"
                for folder in FOLDERS
                for name in (f"{self.prefix}-{part}", part)
            ),
        )

    def file(self, root, part: str) -> Path:
        """One of the lists.

        Args:
            root: The data set's folder.
            part: "labels", "train" and so on.

        Raises:
            ValueError: If it is not there.
        """
        found = self.find(root, f"{part}{self.ending}")
        if found is None:
            lacking = f"{self.prefix}-{part}{self.ending}"
            raise wrong_root(self.name, root, self.tree, self.address, lacking)
        return found

    def catalog(
        self,
        root,
        split: str | None,
        classes: Sequence[str],
        read: Callable[[Path], Iterable[tuple[str, str, str]]],
        there: dict[str, str],
    ) -> Catalog:
        """The rows of the lists whose videos are there.

        Args:
            root: The data set's folder.
            split: As for `keras_videofusion.datasets.load`.
            classes: Class names.
            read: Function of a list that yields `(where, video, label)`.
            there: As for `gather`.

        Returns:
            `Catalog`.

        Raises:
            ValueError: If a row is wrong, or if test rows are asked for and
                their labels are not there.
        """
        lists = [(part, self.file(root, part), read) for part in SPLITS[:2]]
        answers = self.find(root, "test-answers.csv")
        if answers is not None:
            lists.append(("test", answers, read_labelled))
        elif split == "test":
            raise ValueError(
                f"the test videos of {self.name} are published without "
                "labels; put test-answers.csv, which later editions bring, "
                "beside the other lists, or score on 'validation'. Received: "
                "split='test'"
            )
        known = set(classes)
        videos = (
            self._video(part, *row, known)
            for part, path, read in lists
            if split in (None, part)
            for row in read(path)
        )
        return gather(root, videos, there, classes, split)

    def _video(self, split, where, name, label, known):
        if label not in known:
            raise ValueError(
                f"{where}: the label must be among the {len(known)} of the "
                f"list of labels. Received: label={label!r}"
            )
        path = relative(f"{self.folder}/{name}{self.video}", where)
        return Video(path, (label,), split=split)


def expect_arguments(split, fold) -> None:
    """Refuses a split or a fold that neither data set has.

    Args:
        split: As for `keras_videofusion.datasets.load`.
        fold: As for `keras_videofusion.datasets.load`.

    Raises:
        ValueError: If it has no such.
    """
    expect_choice("split", split, (*SPLITS, None))
    expect_choice("fold", fold, (1,))


def read_labels(path) -> tuple[str, ...]:
    """The class names of a list with one in each line.

    Args:
        path: Text file.

    Returns:
        Tuple of strings, in the list's order.

    Raises:
        ValueError: If a name stands twice, or there is none.
    """
    names: dict[str, int] = {}
    for number, line in read_lines(path):
        if names.setdefault(line, number) != number:
            raise ValueError(
                f"{path}, line {number} names a label again. Received: {line!r}"
            )
    if not names:
        raise ValueError(f"{path} has no lines.")
    return tuple(names)


def read_labelled(path) -> Iterator[tuple[str, str, str]]:
    """The rows of a list of `number;label`.

    Args:
        path: Text file.

    Yields:
        `(where, video, label)`: file and line, the video's number, its label
        without brackets.
    """
    for number, row in read_table(path, separator=";", names=("id", "label")):
        yield f"{path}, line {number}", row["id"], plain(row["label"])


def plain(template: str) -> str:
    """A template without the brackets round what stands for objects.

    Args:
        template: "Putting [something] on [something]".
    """
    return template.replace("[", "").replace("]", "")


def frame_folders(root, *candidates: str) -> dict[str, str]:
    """The folders of frames there are, each a video; none is looked into.

    Args:
        root: The data set's folder.
        *candidates: Where they lie, relative to it: the first that exists.

    Returns:
        Dict from name to path, relative to `root`.
    """
    place = find(root, *candidates)
    if place is None:
        return {}
    below = place.relative_to(root)
    return {
        folder.name: (below / folder.name).as_posix()
        for folder in place.iterdir()
        if folder.is_dir() and not folder.name.startswith(".")
    }

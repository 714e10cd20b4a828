"""Kinetics-400, 600 and 700: ten seconds of each of many YouTube videos.

Expected below the root; the lists may also lie in the root or be called after
the edition (`kinetics-400_val.csv`), and the videos may lie anywhere below, in
folders by split or class or in none::

    annotations/
      train.csv  val.csv  test.csv
    train/
      abseiling/0wR5jVB-WPk_000417_000427.mp4
      ...
    val/
    test/

The columns are `label,youtube_id,time_start,time_end,split[,is_cc]`. A file
`<id>_<start>_<end>` of six digits each is the cut clip, as the usual crawlers
and mirrors leave it. A file `<id>` is taken for the whole video: its row has
the start and the end of the clip in seconds.

The authors publish the lists under CC BY 4.0 at
https://github.com/cvdfoundation/kinetics-dataset, without registration; the
videos belong to those who uploaded them, and many are gone. The test lists of
some editions carry no labels, and such a split makes no catalog.

A group is a YouTube id: in the validation list of 400 none comes twice, in
that of 600 six do. Should lists name an id in two splits, the splits stay as
they were published and its group is another one in each, since a group never
straddles. Between editions that is common: much of what 600 validates and
tests on is trained on in 700, so start no network of the one from the other.

Reference:
    Kay et al., The Kinetics Human Action Video Dataset, 2017. Carreira et al.,
    A Short Note about Kinetics-600, 2018, and A Short Note on the Kinetics-700
    Human Action Dataset, 2019.
"""

import itertools
import re

from keras_videofusion.data.catalog import Catalog, Video
from keras_videofusion.datasets import layout

ADDRESS = "https://github.com/cvdfoundation/kinetics-dataset"
TREE = """
annotations/
  train.csv, val.csv, test.csv
train/, val/, test/
  <class>/<YouTube id>_<start>_<end>.mp4, or <YouTube id>.mp4
"""
# How the lists of each split are called.
SPLITS = {
    "train": ("train",),
    "validation": ("val", "validate", "validation"),
    "test": ("test",),
}
FOLDS = (1,)
EDITIONS = (400, 600, 700)
COLUMNS = ("youtube_id", "time_start", "time_end")
_ID = re.compile(r"[\w-]+", re.ASCII)
_SECONDS = re.compile(r"\d{1,6}(\.\d*)?", re.ASCII)


def load(
    root, split: str | None = None, fold: int = 1, *, edition: int = 400
) -> Catalog:
    """The catalog of an edition.

    Args:
        root: Folder, as the module shows it.
        split: "train", "validation", "test", or None for all that have
            lists with labels.
        fold: 1.
        edition: 400, 600 or 700.

    Returns:
        `Catalog`; its classes are those of all lists that are there, sorted
        as in the label maps.

    Raises:
        ValueError: If the split, fold or edition is none, the folder is not
            that edition of Kinetics, a split has no labels, or a line of a
            list is wrong.
    """
    layout.expect_choice("split", split, (*SPLITS, None))
    layout.expect_choice("fold", fold, FOLDS)
    layout.expect_choice("edition", edition, EDITIONS)
    name = f"Kinetics-{edition}"
    lists = {
        part: path
        for part in SPLITS
        if (path := _list(root, part, edition)) is not None
    }
    if not lists:
        raise layout.wrong_root(name, root, TREE, ADDRESS)
    if split is not None and split not in lists:
        raise layout.wrong_root(
            name, root, TREE, ADDRESS, f"{SPLITS[split][0]}.csv"
        )
    clips = {part: list(_clips(path, part)) for part, path in lists.items()}
    if split is not None and not clips[split]:
        raise ValueError(
            f"{lists[split]} has no labels: nothing can be learned from it or "
            f"scored on it. Received: split={split!r}"
        )
    classes = sorted({clip[0] for rows in clips.values() for clip in rows})
    if not 0 < len(classes) <= edition:
        raise ValueError(
            f"`edition` must be that of the lists; those in {root} name "
            f"{len(classes)} classes. Received: edition={edition}"
        )
    there = layout.videos_below(root)
    videos = _videos(clips, there)
    return layout.gather(root, videos, there, classes, split)


def _list(root, split, edition):
    """The CSV file of a split, or None."""
    folders = (
        "annotations/",
        "",
        f"kinetics{edition}/",
        f"kinetics-{edition}/",
    )
    before = (
        f"kinetics-{edition}_",
        f"kinetics_{edition}_",
        f"kinetics{edition}_",
        f"kinetics-{edition}-",
        f"k{edition}_",
        "kinetics_",
        "",
    )
    return layout.find(
        root,
        *(
            f"{folder}{beginning}{name}.csv"
            for folder, beginning, name in itertools.product(
                folders, before, SPLITS[split]
            )
        ),
    )


def _clips(path, split):
    """Yields `(label, id, start, end)` of a list, times in whole seconds."""
    # The labels of test lists are held back in some editions.
    columns = COLUMNS if split == "test" else ("label", *COLUMNS)
    for number, row in layout.read_table(path, columns):
        label, name = row.get("label", ""), row["youtube_id"]
        start, end = (_seconds(row[column]) for column in COLUMNS[1:])
        if (
            not _ID.fullmatch(name)
            or start is None
            or end is None
            or start >= end
            or not (label or split == "test")
        ):
            raise ValueError(
                f"{path}, line {number} must have a label, a YouTube id, and "
                "seconds of which the second are more. "
                f"Received: {','.join(row.values())!r}"
            )
        if label:
            yield label, name, start, end


def _seconds(text):
    """Whole seconds of a text such as "36" or "36.0", or None."""
    return int(float(text)) if _SECONDS.fullmatch(text) else None


def _videos(clips, there):
    """Yields the row of every clip, of its own file or of the whole video."""
    splits: dict[str, str] = {}
    astride = {
        name
        for part, rows in clips.items()
        for _, name, _, _ in rows
        if splits.setdefault(name, part) != part
    }
    for part, rows in clips.items():
        # A row that stands there twice is one.
        for label, name, start, end in dict.fromkeys(rows):
            group = f"{part}/{name}" if name in astride else name
            cut = f"{name}_{start:06d}_{end:06d}"
            path = f"{SPLITS[part][0]}/{cut}.mp4"
            if cut not in there and name in there:
                yield Video(
                    there[name],
                    (label,),
                    group,
                    split=part,
                    start=float(start),
                    end=float(end),
                )
            else:
                yield Video(path, (label,), group, split=part)

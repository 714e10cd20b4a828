"""Published data sets as catalogs, one module each.

A module reads the lists that the authors publish and looks which of the videos
are on disk. It downloads nothing: its docstring says where the authors publish
the data set, under which terms, and the tree that it expects.
"""

import importlib
import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_videofusion.data.catalog import Catalog

DATASETS = (
    "activitynet",
    "charades",
    "hmdb51",
    "jester",
    "jhmdb",
    "kinetics",
    "moving_shapes",
    "something_something",
    "sports1m",
    "ucf101",
    "ucf101_24",
    "youtube8m",
)


def load(
    name: str, root, split: str | None = None, fold: int = 1, **options
) -> "Catalog":
    """The catalog of a published data set, from its authors' own lists.

    Nothing is downloaded. Videos that the lists name and that are not there
    are no rows but stand in the catalog's `missing`; files that are there but
    damaged are rows, which `check` and whoever reads them name.

    Args:
        name: One of `DATASETS`. `moving_shapes` is drawn where it is not yet.
        root: Folder of the data set, as its module's docstring shows it.
        split: "train", "validation" or "test", those of them that the data
            set has: these rows only. None: all rows, each marked.
        fold: Integer from 1: which of the authors' splits.
        **options: The data set's own, such as `edition=600` of `kinetics`.

    Returns:
        `Catalog`; its classes are all of the data set's, in its order.

    Raises:
        ValueError: If there is no such data set, split, fold or option; if
            the folder is not that data set, or a line of a list is wrong.
    """
    if name not in DATASETS:
        raise ValueError(
            f"`name` must be one of {', '.join(DATASETS)}. "
            f"Received: name={name!r}"
        )
    module = importlib.import_module(f"{__package__}.{name}")
    drawn = name == "moving_shapes"
    known = [
        option
        for option in inspect.signature(
            module.draw if drawn else module.load
        ).parameters
        if option not in ("root", "folder", "split", "fold")
    ]
    for option, value in options.items():
        if option not in known:
            raise ValueError(
                f"options of {name} are: {', '.join(known) or 'none'}. "
                f"Received: {option}={value!r}"
            )
    if drawn:
        return _drawn(module.draw(root, **options), split, fold)
    return module.load(root, split, fold, **options)


def _drawn(folder, split, fold):
    """The catalog of moving shapes, which stand in a folder like any other."""
    from keras_videofusion.data.catalog import open_catalog
    from keras_videofusion.datasets.layout import expect_choice

    expect_choice("split", split, ("train", "validation", "test", None))
    expect_choice("fold", fold, (1,))
    catalog = open_catalog(folder)
    return catalog if split is None else catalog.where(split)

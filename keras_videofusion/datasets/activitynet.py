"""ActivityNet 1.3: 19,994 videos of 200 activities, and where they show them.

The activities are the leaves of a tree: "Shoveling snow" belongs to "Interior
cleaning, lawn work" and so on, up to five families. The test videos have no
labels. Videos vanish from YouTube; those that are gone are in `missing`.

Annotations are free at `ADDRESS`; the whole set of videos is sent, for
research, to those who fill in the form there.

Reference:
    Caba Heilbron et al., ActivityNet: A Large-Scale Video Benchmark for Human
    Activity Understanding, CVPR 2015.
"""

import math

from keras_videofusion.data.catalog import Catalog, Video
from keras_videofusion.datasets.annotations import field, read_json
from keras_videofusion.datasets.layout import (
    expect_choice,
    find,
    gather,
    relative,
    stem,
    videos_below,
    wrong_root,
)

ADDRESS = "http://activity-net.org/download.html"
TREE = """
activity_net.v1-3.min.json            (or in annotations/)
videos/v_QOlSCBRmfWY.mp4              (anywhere below; with or without v_)
"""
SPLITS = {"training": "train", "validation": "validation"}
FILE = "activity_net.v1-3.min.json"


def load(
    root,
    split: str | None = None,
    fold: int = 1,
    *,
    level: int | None = None,
    segments: bool = False,
) -> Catalog:
    """The catalog of ActivityNet.

    A row's family is that of its activities at level 1, if it is one.

    Args:
        root: Folder as in `TREE`.
        split: "train", "validation", or None for both.
        fold: 1.
        level: Integer from 1, how far down the tree classes are told apart;
            None for the leaves. A leaf above that level stands for itself.
        segments: Whether a row is a segment, with one label, start and end;
            else a video with all its labels. Segments without length are
            passed over.

    Returns:
        `Catalog`; its classes are sorted.

    Raises:
        ValueError: If an argument, the folder or an entry is wrong.
    """
    if split == "test":
        raise ValueError(
            "the test videos of activitynet are published without labels; "
            "score on 'validation'. Received: split='test'"
        )
    expect_choice("split", split, (*SPLITS.values(), None))
    expect_choice("fold", fold, (1,))
    expect_choice("segments", segments, (False, True))
    path, content = _content(root)
    branches = _branches(path, content)
    deepest = max(map(len, branches.values()))
    expect_choice("level", level, (*range(1, deepest + 1), None))
    named = {
        leaf: branch[: level or deepest][-1]
        for leaf, branch in branches.items()
    }
    videos = [
        Video(
            name,
            tuple(dict.fromkeys(named[leaf] for leaf in leaves)),
            family=_family(leaves, branches),
            split=part,
            start=start,
            end=end,
        )
        for name, part, shown in _rows(path, content, branches)
        for leaves, start, end in (
            _segments(shown) if segments else _whole(shown)
        )
    ]
    # The authors say v_ before a video's name, many crawlers do not.
    there = videos_below(root, key=_named)
    classes = sorted(set(named.values()))
    return gather(root, videos, there, classes, split, _named)


def taxonomy(root) -> dict[str, tuple[str, ...]]:
    """Where in the tree each activity stands.

    Args:
        root: Folder as in `TREE`.

    Returns:
        Dict from activity, sorted, to the names on the way from level 1 to
        itself.

    Raises:
        ValueError: If the folder or an entry is wrong.
    """
    return _branches(*_content(root))


def _content(root):
    path = find(root, FILE, f"annotations/{FILE}", f"json/{FILE}")
    if path is None:
        raise wrong_root("activitynet", root, TREE, ADDRESS, FILE)
    return path, read_json(path, dict)


def _branches(path, content):
    nodes, parents = {}, set()
    for number, node in enumerate(field(content, "taxonomy", list, path), 1):
        where = f"{path}, node {number} of the taxonomy"
        key = field(node, "nodeId", (int, str), where)
        # The root has no parent.
        parent = node.get("parentId")
        nodes[key] = field(node, "nodeName", str, where), parent
        parents.add(parent)
    branches = {}
    for key in nodes.keys() - parents:
        branch: list[str] = []
        while nodes[key][1] is not None:
            name, parent = nodes[key]
            branch.insert(0, name)
            if parent not in nodes or len(branch) > len(nodes):
                raise ValueError(
                    f"{path}: the taxonomy must be a tree. Received: a node "
                    f"{name!r} with the parent {parent!r}"
                )
            key = parent
        if branch:
            branches[branch[-1]] = tuple(branch)
    if not branches:
        raise ValueError(f"{path} has an empty taxonomy.")
    return dict(sorted(branches.items()))


def _rows(path, content, branches):
    """Yields `(file name, split, [(activity, start, end), ...])`."""
    for name, entry in field(content, "database", dict, path).items():
        where = f"{path}, video {name!r}"
        part = SPLITS.get(field(entry, "subset", str, where))
        if part is None:  # "testing"
            continue
        shown = []
        for number, one in enumerate(
            field(entry, "annotations", list, where), 1
        ):
            here = f"{where}, annotation {number}"
            label = field(one, "label", str, here)
            if label not in branches:
                raise ValueError(
                    f"{here}: `label` must be a leaf of the taxonomy. "
                    f"Received: label={label!r}"
                )
            shown.append((label, *_seconds(one, here)))
        yield relative(f"videos/v_{name}.mp4", where), part, shown


def _seconds(annotation, where):
    segment = field(annotation, "segment", list, where)
    if len(segment) != 2 or not all(
        isinstance(time, int | float) and 0 <= time < math.inf
        for time in segment
    ):
        raise ValueError(
            f"{where}: `segment` must be [start, end] in seconds. "
            f"Received: segment={segment}"
        )
    return segment


def _family(leaves, branches):
    families = {branches[leaf][0] for leaf in leaves}
    return families.pop() if len(families) == 1 else None


def _segments(shown):
    return [
        ((label,), float(start), float(end))
        for label, start, end in shown
        if end > start
    ]


def _whole(shown):
    labels = tuple(dict.fromkeys(label for label, _, _ in shown))
    return [(labels, None, None)] if labels else []


def _named(path):
    """What a video is known by; YouTube's own names have 11 characters."""
    name = stem(path)
    return name if len(name) == 13 else f"v_{name}"

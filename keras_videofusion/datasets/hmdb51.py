"""HMDB-51: 6,766 clips of 51 actions out of films and the web, three splits.

Expected below the root; `videos` may be `hmdb51_org`, or the folders of the
classes may lie in the root itself, the lists too::

    videos/
      brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi
      ...
    testTrainMulti_7030_splits/
      brush_hair_test_split1.txt brush_hair_test_split2.txt ...

The authors publish both at the address below under CC BY 4.0, without
registration. In every split a class has 70 clips to train and 30 to test;
clips that the lists mark 0 are in neither, and so they are no rows.

A group is what clips of one class were cut from, by the names of the files;
in the official splits none of them is both trained and tested. But one film
gave clips to several classes, and the splits were drawn class by class: clips
of 133, 149 and 144 sources stand on both sides of splits 1, 2 and 3, always
under different classes. There is no validation split.

Reference:
    Kuehne, Jhuang, Garrote, Poggio, Serre, HMDB: A Large Video Database for
    Human Motion Recognition, ICCV 2011.
"""

from pathlib import Path

from keras_videofusion.data.catalog import Catalog, Video
from keras_videofusion.datasets import layout

ADDRESS = (
    "https://serre-lab.clps.brown.edu/resource/"
    "hmdb-a-large-human-motion-database/"
)
TREE = """
videos/
  <class>/<source>_<class>_<properties>_<clip>.avi
testTrainMulti_7030_splits/
  <class>_test_split1.txt, <class>_test_split2.txt, <class>_test_split3.txt
"""
SPLITS = {"train": "1", "test": "2"}
FOLDS = (1, 2, 3)
# The five types of action, as on the authors' page.
FAMILIES = {
    "General facial actions": ("chew", "laugh", "smile", "talk"),
    "Facial actions with object manipulation": ("drink", "eat", "smoke"),
    "General body movements": (
        "cartwheel",
        "clap",
        "climb",
        "climb_stairs",
        "dive",
        "fall_floor",
        "flic_flac",
        "handstand",
        "jump",
        "pullup",
        "pushup",
        "run",
        "sit",
        "situp",
        "somersault",
        "stand",
        "turn",
        "walk",
        "wave",
    ),
    "Body movements with object interaction": (
        "brush_hair",
        "catch",
        "draw_sword",
        "dribble",
        "golf",
        "hit",
        "kick_ball",
        "pick",
        "pour",
        "push",
        "ride_bike",
        "ride_horse",
        "shoot_ball",
        "shoot_bow",
        "shoot_gun",
        "swing_baseball",
        "sword_exercise",
        "throw",
    ),
    "Body movements for human interaction": (
        "fencing",
        "hug",
        "kick",
        "kiss",
        "punch",
        "shake_hands",
        "sword",
    ),
}
_FAMILY = {name: family for family, names in FAMILIES.items() for name in names}


def load(root, split: str | None = None, fold: int = 1) -> Catalog:
    """The catalog of one of the three official splits.

    Args:
        root: Folder, as the module shows it.
        split: "train", "test", or None for both.
        fold: Integer, 1 to 3.

    Returns:
        `Catalog`; its classes are those that there are lists of, sorted.

    Raises:
        ValueError: If the split or fold is none, the folder is not HMDB-51,
            or a line of a list is wrong.
    """
    layout.expect_choice("split", split, (*SPLITS, None))
    layout.expect_choice("fold", fold, FOLDS)
    ending = f"_test_split{fold}.txt"
    lists: dict[str, Path] = {}
    for name in ("testTrainMulti_7030_splits", "test_train_splits", "."):
        lists = lists or {
            path.name.removesuffix(ending): path
            for path in sorted(Path(root, name).glob(f"*{ending}"))
        }
    if not lists:
        raise layout.wrong_root("HMDB-51", root, TREE, ADDRESS)
    folder = layout.find(root, "videos", "hmdb51_org", "hmdb51", ".")
    prefix = layout.prefix(root, folder)
    videos: dict[str, Video] = {}
    for label in sorted(lists):
        for number, line in layout.read_lines(lists[label]):
            where = f"{lists[label]}, line {number}"
            video = _video(line, label, prefix, where)
            if videos.setdefault(video.path, video) is not video:
                raise ValueError(
                    f"{where}: a clip stands in a split's lists once. "
                    f"Received: {line!r} again"
                )
    return layout.gather(
        root,
        [video for video in videos.values() if video.split is not None],
        layout.videos_below(root, prefix),
        sorted(lists),
        split,
    )


def _video(line, label, prefix, where):
    """The row of a line: `name.avi` and 1 (train), 2 (test) or 0 (neither)."""
    name, _, mark = line.rpartition(" ")
    name = name.strip()
    source, found, _ = name.rpartition(f"_{label}_")
    if mark not in ("0", *SPLITS.values()) or "/" in name or not found:
        raise ValueError(
            f"{where} must be <source>_{label}_<properties>_<clip>.avi and "
            f"0, 1 or 2. Received: {line!r}"
        )
    return Video(
        f"{prefix}{label}/{name}",
        (label,),
        # With the class: sources are shared by classes on both sides.
        group=f"{label}/{source}",
        family=_FAMILY.get(label),
        split={mark: name for name, mark in SPLITS.items()}.get(mark),
    )

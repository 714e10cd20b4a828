"""UCF-101: 13,320 videos of 101 actions, three official folds.

Expected below the root, as the two archives unpack; the lists may also lie in
the root itself, the folders of videos too, or in `videos`::

    UCF-101/
      ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi
      ...
    ucfTrainTestlist/
      classInd.txt
      trainlist01.txt testlist01.txt
      trainlist02.txt testlist02.txt
      trainlist03.txt testlist03.txt

The authors publish both at https://www.crcv.ucf.edu/data/UCF101.php, without
registration and without a licence: the videos were uploaded by others.

There is no validation split; hold one out of the training rows, by groups.

Reference:
    Soomro, Zamir, Shah, UCF101: A Dataset of 101 Human Actions Classes From
    Videos in The Wild, CRCV-TR-12-01, 2012.
"""

import re

from keras_videofusion.data.catalog import Catalog, Video
from keras_videofusion.datasets import layout

ADDRESS = "https://www.crcv.ucf.edu/data/UCF101.php"
TREE = """
UCF-101/
  <class>/v_<class>_g<group>_c<clip>.avi
ucfTrainTestlist/
  classInd.txt
  trainlist01.txt, trainlist02.txt, trainlist03.txt
  testlist01.txt, testlist02.txt, testlist03.txt
"""
SPLITS = {"train": "trainlist", "test": "testlist"}
FOLDS = (1, 2, 3)
CLASSES_FILE = "classInd.txt"
# The five types of action, spelled as on the authors' page.
FAMILIES = {
    "Human-Object Interaction": (
        "ApplyEyeMakeup",
        "ApplyLipstick",
        "BlowDryHair",
        "BrushingTeeth",
        "CuttingInKitchen",
        "Hammering",
        "HulaHoop",
        "JugglingBalls",
        "JumpRope",
        "Knitting",
        "Mixing",
        "MoppingFloor",
        "Nunchucks",
        "PizzaTossing",
        "ShavingBeard",
        "SkateBoarding",
        "SoccerJuggling",
        "Typing",
        "WritingOnBoard",
        "YoYo",
    ),
    "Body-Motion Only": (
        "BabyCrawling",
        "BlowingCandles",
        "BodyWeightSquats",
        "HandstandPushups",
        "HandstandWalking",
        "JumpingJack",
        "Lunges",
        "PullUps",
        "PushUps",
        "RockClimbingIndoor",
        "RopeClimbing",
        "Swing",
        "TaiChi",
        "TrampolineJumping",
        "WalkingWithDog",
        "WallPushups",
    ),
    "Human-Human Interaction": (
        "BandMarching",
        "Haircut",
        "HeadMassage",
        "MilitaryParade",
        "SalsaSpin",
    ),
    "Playing Musical Instruments": (
        "Drumming",
        "PlayingCello",
        "PlayingDaf",
        "PlayingDhol",
        "PlayingFlute",
        "PlayingGuitar",
        "PlayingPiano",
        "PlayingSitar",
        "PlayingTabla",
        "PlayingViolin",
    ),
    "Sports": (
        "Archery",
        "BalanceBeam",
        "BaseballPitch",
        "Basketball",
        "BasketballDunk",
        "BenchPress",
        "Biking",
        "Billiards",
        "Bowling",
        "BoxingPunchingBag",
        "BoxingSpeedBag",
        "BreastStroke",
        "CleanAndJerk",
        "CliffDiving",
        "CricketBowling",
        "CricketShot",
        "Diving",
        "Fencing",
        "FieldHockeyPenalty",
        "FloorGymnastics",
        "FrisbeeCatch",
        "FrontCrawl",
        "GolfSwing",
        "HammerThrow",
        "HighJump",
        "HorseRace",
        "HorseRiding",
        "IceDancing",
        "JavelinThrow",
        "Kayaking",
        "LongJump",
        "ParallelBars",
        "PoleVault",
        "PommelHorse",
        "Punch",
        "Rafting",
        "Rowing",
        "Shotput",
        "Skiing",
        "Skijet",
        "SkyDiving",
        "SoccerPenalty",
        "StillRings",
        "SumoWrestling",
        "Surfing",
        "TableTennisShot",
        "TennisSwing",
        "ThrowDiscus",
        "UnevenBars",
        "VolleyballSpiking",
    ),
}
_FAMILY = {name: family for family, names in FAMILIES.items() for name in names}
_CLIP = re.compile(r"v_\w+_(g\d+)_c\d+")


def load(root, split: str | None = None, fold: int = 1) -> Catalog:
    """The catalog of one of the three folds.

    A group is a class's `gNN`, clips of one recording: none straddles a fold.
    Families are the authors' five types of action.

    Args:
        root: Folder, as the module shows it.
        split: "train", "test", or None for both.
        fold: Integer, 1 to 3.

    Returns:
        `Catalog` of 101 classes in the order of `classInd.txt`.

    Raises:
        ValueError: If the split or fold is none, the folder is not UCF-101,
            or a line of a list is wrong.
    """
    layout.expect_choice("split", split, (*SPLITS, None))
    layout.expect_choice("fold", fold, FOLDS)
    index = layout.find(root, f"ucfTrainTestlist/{CLASSES_FILE}", CLASSES_FILE)
    if index is None:
        raise layout.wrong_root("UCF-101", root, TREE, ADDRESS)
    classes = _classes(index)
    folder = layout.find(root, "UCF-101", "UCF101", "videos", ".")
    prefix = layout.prefix(root, folder)
    videos: dict[str, Video] = {}
    for name, beginning in SPLITS.items():
        path = index.with_name(f"{beginning}{fold:02d}.txt")
        if not path.exists():
            raise layout.wrong_root("UCF-101", root, TREE, ADDRESS, path.name)
        for number, line in layout.read_lines(path):
            where = f"{path}, line {number}"
            video = _video(line, name, classes, prefix, where)
            if videos.setdefault(video.path, video) is not video:
                raise ValueError(
                    f"{where}: a video stands in a fold's lists once. "
                    f"Received: {line!r} again"
                )
    there = layout.videos_below(root, prefix, _key)
    return layout.gather(
        root, videos.values(), there, classes.values(), split, _key
    )


def _key(path):
    """A video's name; hands differ on the case of v_HandStandPushups."""
    return layout.stem(path).lower()


def _classes(index):
    """The classes by their numbers, as text."""
    classes = {}
    for number, line in layout.read_lines(index):
        fields = line.split()
        if len(fields) != 2 or not fields[0].isdigit():
            raise ValueError(
                f"{index}, line {number} must be a number and a class. "
                f"Received: {line!r}"
            )
        classes[fields[0]] = fields[1]
    return classes


def _video(line, split, classes, prefix, where):
    """The row of a line: `class/name.avi`, in training lists its number."""
    name, *number = line.split()
    path = layout.relative(name, where)
    label = path.rpartition("/")[0].rpartition("/")[2]
    clip = _CLIP.fullmatch(layout.stem(path))
    if label not in classes.values() or clip is None or len(number) > 1:
        raise ValueError(
            f"{where} must be <class>/v_<class>_g<group>_c<clip>.avi with a "
            f"class of {CLASSES_FILE}. Received: {line!r}"
        )
    if number and classes.get(number[0]) != label:
        raise ValueError(
            f"{where}: the number must be that of the class in "
            f"{CLASSES_FILE}. Received: {line!r}"
        )
    return Video(
        prefix + path,
        (label,),
        # Groups are numbered anew in every class.
        group=f"{label}_{clip.group(1)}",
        family=_FAMILY.get(label),
        split=split,
    )

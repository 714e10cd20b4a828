"""Data sets by the formats their authors document: jester to YouTube-8M.

Real label maps where the shared folder has them, else small files as the
authors describe them; videos are there, missing, or broken.
"""

import csv
import importlib
import json

import numbered
import numpy as np
import pytest

from keras_videofusion import datasets
from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.video import read_clips, VideoError

NAMES = (
    "activitynet",
    "charades",
    "jester",
    "jhmdb",
    "something_something",
    "ucf101_24",
    "youtube8m",
)
SPEC = ClipSpec(frames=4, resize=(64, 128), size=(64, 128))


def write(path, content=""):
    """Writes text, bytes, JSON or rows of CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        path.write_text(json.dumps(content), encoding="utf-8")
    return path


def frame_folder(folder, numbers):
    """A video as folder of JPEG frames that carry these numbers."""
    cv2 = pytest.importorskip("cv2")
    folder.mkdir(parents=True)
    for place, number in enumerate(numbers, 1):
        picture = numbered.picture(number)[..., ::-1]
        cv2.imwrite(str(folder / f"{place:05d}.jpg"), picture)


def rows(catalog):
    return [(video.path, video.labels, video.split) for video in catalog]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["empty", "gone", "file"])
def test_another_folder_is_one_error_with_tree_and_address(
    tmp_path, name, kind
):
    module = importlib.import_module(f"keras_videofusion.datasets.{name}")
    root = {
        "empty": tmp_path,
        "gone": tmp_path / "gone",
        "file": write(tmp_path / "a file"),
    }[kind]
    with pytest.raises(ValueError, match=f"must hold {name}") as caught:
        datasets.load(name, root)
    message = str(caught.value)
    for line in module.TREE.strip().splitlines():
        assert line in message
    assert module.ADDRESS in message
    assert message.endswith(f"Received: root={str(root)!r}")


@pytest.mark.parametrize("name", NAMES)
def test_splits_folds_and_options_are_refused_by_name(tmp_path, name):
    for wrong in ({"split": "valid"}, {"fold": 7}, {"colour": "red"}):
        ((argument, value),) = wrong.items()
        received = f"Received: {argument}={value!r}"
        with pytest.raises(ValueError, match=received):
            datasets.load(name, tmp_path, **wrong)


# Jester


@pytest.fixture
def jester(tmp_path, shared):
    """Real labels; lists in the authors' format, frames of two videos."""
    labels = shared / "data/annotations/mmaction2_jester/label_map.txt"
    write(tmp_path / "jester-v1-labels.csv", labels.read_text())
    write(
        tmp_path / "jester-v1-train.csv",
        "34870;Drumming Fingers\n56557;Sliding Two Fingers Right\n",
    )
    write(tmp_path / "jester-v1-validation.csv", "9223;Thumb Up\n7;No gesture")
    write(tmp_path / "jester-v1-test.csv", "1\n2\n")
    videos = tmp_path / "20bn-jester-v1"
    frame_folder(videos / "34870", range(20))
    frame_folder(videos / "9223", range(40, 60))
    (videos / "7").mkdir()
    return tmp_path


def test_jester_has_folders_of_frames_for_videos(jester):
    catalog = datasets.load("jester", jester)
    assert rows(catalog) == [
        ("20bn-jester-v1/34870", ("Drumming Fingers",), "train"),
        ("20bn-jester-v1/9223", ("Thumb Up",), "validation"),
        ("20bn-jester-v1/7", ("No gesture",), "validation"),
    ]
    assert catalog.missing == ("20bn-jester-v1/56557",)
    assert len(catalog.classes) == 27
    assert catalog.classes[:2] == ("Swiping Left", "Swiping Right")
    assert catalog.classes[-1] == "Doing other things"


def test_jester_is_read_like_any_video(jester):
    catalog = datasets.load("jester", jester, split="validation")
    clips, _ = read_clips(catalog.file(catalog[0]), SPEC, "centre")
    assert numbered.read(clips).tolist() == [[48, 49, 50, 51]]
    with pytest.raises(VideoError, match="not a file but a folder"):
        read_clips(catalog.file(catalog[1]), SPEC, "centre")


def test_jester_survives_the_catalog_of_a_run(jester, tmp_path):
    catalog = datasets.load("jester", jester)
    catalog.save(jester / "labels.csv")
    again = open_catalog(jester / "labels.csv", classes=catalog.classes)
    assert again.videos == catalog.videos


def test_jester_test_rows_need_the_answers_of_a_later_edition(jester):
    with pytest.raises(ValueError, match=r"test-answers\.csv"):
        datasets.load("jester", jester, split="test")
    write(jester / "test-answers.csv", "34870;Stop Sign\n")
    catalog = datasets.load("jester", jester, split="test")
    assert rows(catalog) == [("20bn-jester-v1/34870", ("Stop Sign",), "test")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("3;Waving", r"line 2: the label must be among the 27"),
        ("3", r"line 2 must have the 2 fields"),
        ("../../3;Thumb Up", r"line 2: a path must be relative"),
    ],
)
def test_jester_names_wrong_lines(jester, line, said):
    write(jester / "jester-v1-train.csv", f"34870;Thumb Up\n{line}\n")
    with pytest.raises(ValueError, match=f"jester-v1-train.csv, {said}"):
        datasets.load("jester", jester)


def test_jester_without_frames_is_all_missing(jester):
    (jester / "20bn-jester-v1").rename(jester / "elsewhere")
    catalog = datasets.load("jester", jester)
    assert (len(catalog), len(catalog.missing)) == (0, 4)


def test_jester_refuses_an_empty_list_of_labels(jester):
    write(jester / "jester-v1-labels.csv", "\n")
    with pytest.raises(ValueError, match=r"labels\.csv has no lines"):
        datasets.load("jester", jester)


def test_jester_refuses_a_label_that_stands_twice(jester):
    write(jester / "jester-v1-labels.csv", "Thumb Up\r\nThumb Up\r\n")
    with pytest.raises(ValueError, match="line 2 names a label again"):
        datasets.load("jester", jester)


# Something-Something


def something(root, shared, version):
    """Labels of the real label map, two training and two other entries."""
    labels = shared / f"data/annotations/mmaction2_sthv{version}/label_map.txt"
    labels = labels.read_text().splitlines()
    if version == 1:
        write(root / "something-something-v1-labels.csv", "\n".join(labels))
        write(
            root / "something-something-v1-train.csv",
            "100218;Something falling like a feather or paper\n"
            "24413;Unfolding something\n",
        )
        write(
            root / "something-something-v1-validation.csv",
            "48032;Holding something\n",
        )
        return
    # As published: names by text, numbers as text.
    numbers = {label: str(place) for place, label in enumerate(labels)}
    name = "labels/something-something-v2-{}.json"
    write(root / name.format("labels"), dict(sorted(numbers.items())[::-1]))
    train = [
        {
            "id": "78687",
            "label": "holding potato next to vicks vaporub bottle",
            "template": "Holding [something] next to [something]",
            "placeholders": ["potato", "vicks vaporub bottle"],
        },
        {
            "id": "42326",
            "label": "spreading margarine onto bread",
            "template": "Spreading [something] onto [something]",
            "placeholders": ["margarine", "bread"],
        },
    ]
    other = {
        "id": "74225",
        "label": "spinning cube that quickly stops spinning",
        "template": "Spinning [something] that quickly stops spinning",
        "placeholders": ["cube"],
    }
    write(root / name.format("train"), train)
    write(root / name.format("validation"), [other])
    write(root / name.format("test"), [{"id": "1420"}])


@pytest.fixture
def something_2(tmp_path, shared):
    something(tmp_path, shared, 2)
    folder = tmp_path / "20bn-something-something-v2"
    folder.mkdir()
    numbered.draw(folder / "78687.webm", "libvpx-vp9", frames=6)
    write(folder / "74225.webm")
    return tmp_path


def test_something_something_2_takes_templates_for_classes(something_2):
    catalog = datasets.load("something_something", something_2)
    folder = "20bn-something-something-v2"
    assert rows(catalog) == [
        (
            f"{folder}/78687.webm",
            ("Holding something next to something",),
            "train",
        ),
        (
            f"{folder}/74225.webm",
            ("Spinning something that quickly stops spinning",),
            "validation",
        ),
    ]
    assert catalog.missing == (f"{folder}/42326.webm",)
    assert len(catalog.classes) == 174
    assert catalog.classes[0] == "Approaching something with your camera"
    clips, _ = read_clips(catalog.file(catalog[0]), SPEC, "centre")
    assert numbered.read(clips).tolist() == [[1, 2, 3, 4]]
    with pytest.raises(VideoError, match="empty"):
        read_clips(catalog.file(catalog[1]), SPEC, "centre")


def test_something_something_2_tells_what_the_somethings_were(something_2):
    from keras_videofusion.datasets.something_something import placeholders

    assert placeholders(something_2) == {
        "78687": ("potato", "vicks vaporub bottle"),
        "42326": ("margarine", "bread"),
        "74225": ("cube",),
    }


def test_something_something_2_test_rows_need_answers(something_2):
    with pytest.raises(ValueError, match="without labels"):
        datasets.load("something_something", something_2, split="test")
    answers = "78687;Holding something next to something\n"
    write(something_2 / "labels/test-answers.csv", answers)
    catalog = datasets.load("something_something", something_2, split="test")
    assert [video.split for video in catalog] == ["test"]


def test_something_something_2_may_lack_its_name_in_its_lists(something_2):
    for path in (something_2 / "labels").iterdir():
        path.rename(path.with_name(path.name.rpartition("v2-")[2]))
    assert len(datasets.load("something_something", something_2)) == 2


def test_something_something_1_is_frames(tmp_path, shared):
    something(tmp_path, shared, 1)
    frame_folder(tmp_path / "20bn-something-something-v1/24413", range(9))
    catalog = datasets.load("something_something", tmp_path, version=1)
    assert rows(catalog) == [
        (
            "20bn-something-something-v1/24413",
            ("Unfolding something",),
            "train",
        )
    ]
    assert len(catalog.missing) == 2
    assert len(catalog.classes) == 174
    assert catalog.classes[0] == "Holding something"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[{]", "v2-train.json, line 1 is not JSON"),
        ({}, "v2-train.json must hold a list. Received: a dict"),
        ([{"id": "5"}], "entry 1: `template` must be str"),
        ([7], "entry 1: `template` must be str. Received: 7"),
        (
            [{"id": True, "template": "Holding [something]"}],
            "entry 1: `id` must be str or int",
        ),
        (
            [{"id": "5", "template": "Eating [something]"}],
            "entry 1: the label must be among the 174",
        ),
        (
            [{"id": "../5", "template": "Holding [something]"}],
            "entry 1: a path must be relative",
        ),
    ],
)
def test_something_something_names_wrong_entries(something_2, content, said):
    name = "labels/something-something-v2-train.json"
    write(something_2 / name, content)
    with pytest.raises(ValueError, match="train.json") as caught:
        datasets.load("something_something", something_2)
    assert said in str(caught.value)


def test_annotations_that_cannot_be_read_are_one_line(something_2):
    path = something_2 / "labels/something-something-v2-labels.json"
    write(path, b"\xff\xfe{")
    with pytest.raises(ValueError, match=r"labels\.json is not JSON"):
        datasets.load("something_something", something_2)
    write(path, {"Holding something": "0", "Moving something": "0"})
    with pytest.raises(ValueError, match=r"the number of a label must be its"):
        datasets.load("something_something", something_2)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=r"labels\.json cannot be read: Is a"):
        datasets.load("something_something", something_2)


# Charades


def charades(root, train, test):
    columns = [
        "id", "subject", "scene", "quality", "relevance", "verified",
        "script", "objects", "descriptions", "actions", "length",
    ]  # fmt: skip
    write(
        root / "Charades/Charades_v1_classes.txt",
        "c000 Holding some clothes\nc092 Opening a bag\n"
        "c147 Taking something, from a box\n",
    )
    for part, videos in (("train", train), ("test", test)):
        path = root / f"Charades/Charades_v1_{part}.csv"
        with open(path, "w", newline="") as file:
            table = csv.DictWriter(file, columns, restval='a, "b";\nc')
            table.writeheader()
            for name, subject, actions in videos:
                table.writerow(
                    {"id": name, "subject": subject, "actions": actions}
                )


@pytest.fixture
def charades_root(tmp_path):
    charades(
        tmp_path,
        [
            ("46GP8", "HR43", "c092 11.90 21.20;c147 0.00 12.60;c092 1 2"),
            ("N11GT", "0KZ7", "c000 0.00 18.14"),
            ("0IH69", "6RE8", ""),
        ],
        [("YSE7K", "YMXV", "c147 3.00 9.10;c000 5.00 5.00")],
    )
    for name in ("46GP8", "0IH69", "YSE7K"):
        write(tmp_path / f"Charades_v1_480/{name}.mp4")
    return tmp_path


def test_charades_has_all_labels_of_a_video(charades_root):
    catalog = datasets.load("charades", charades_root)
    box = "Taking something, from a box"
    assert rows(catalog) == [
        ("Charades_v1_480/46GP8.mp4", ("Opening a bag", box), "train"),
        (
            "Charades_v1_480/YSE7K.mp4",
            (box, "Holding some clothes"),
            "test",
        ),
    ]
    assert [video.group for video in catalog] == ["HR43", "YMXV"]
    assert catalog.missing == ("Charades_v1_480/N11GT.mp4",)
    assert catalog.classes == ("Holding some clothes", "Opening a bag", box)
    assert catalog.truth.tolist() == [
        [False, True, True],
        [True, False, True],
    ]


def test_charades_has_a_row_per_interval_on_demand(charades_root):
    catalog = datasets.load("charades", charades_root, segments=True)
    assert [(v.labels, v.start, v.end) for v in catalog] == [
        (("Opening a bag",), 11.9, 21.2),
        (("Taking something, from a box",), 0.0, 12.6),
        (("Opening a bag",), 1.0, 2.0),
        (("Taking something, from a box",), 3.0, 9.1),
    ]
    assert len(catalog.missing) == 1


def test_charades_rows_of_someone_on_both_sides_have_no_group(charades_root):
    one = ("46GP8", "HR43", "c000 0 1")
    charades(charades_root, [one], [("YSE7K", "HR43", "c092 0 1")])
    catalog = datasets.load("charades", charades_root, split="train")
    assert [video.group for video in catalog] == [None]


@pytest.mark.parametrize(
    "actions", ["c999 0 1", "c000 0", "c000 one two", "c000 -1 2", "c000 0 inf"]
)
def test_charades_names_wrong_lines(charades_root, actions):
    row = ("46GP8", "HR43", "c000 0 1")
    charades(charades_root, [row, ("YSE7K", "X", actions)], [])
    # Eight quoted fields of either row run over two lines.
    said = rf"train\.csv, line 19: an action .* Received: '{actions}'"
    with pytest.raises(ValueError, match=said):
        datasets.load("charades", charades_root)


def test_charades_names_wrong_classes(charades_root):
    path = charades_root / "Charades/Charades_v1_classes.txt"
    for lines in ("c000 Holding\nc001\n", "c000 Holding\nc001 Holding\n"):
        write(path, lines)
        with pytest.raises(ValueError, match=r"classes\.txt, line 2 must be"):
            datasets.load("charades", charades_root)


# ActivityNet


TAXONOMY = [
    {"nodeId": 0, "nodeName": "Root", "parentId": None, "parentName": None},
    *(
        {
            "nodeId": key,
            "nodeName": name,
            "parentId": parent,
            "parentName": "left unread",
        }
        for key, name, parent in (
            (1, "Household Activities", 0),
            (2, "Sports, Exercise, and Recreation", 0),
            (3, "Housework", 1),
            (4, "Interior cleaning", 3),
            (9, "Mopping floor", 4),
            (8, "Cleaning windows", 4),
            (5, "Playing sports", 2),
            (7, "Surfing", 5),
        )
    ),
]


@pytest.fixture
def activitynet(tmp_path):
    def video(subset, *shown):
        return {
            "subset": subset,
            "duration": 82.75,
            "resolution": "320x240",
            "url": "https://www.youtube.com/watch?v=...",
            "annotations": [
                {"label": label, "segment": segment} for label, segment in shown
            ],
        }

    database = {
        "sJFgo9H6zNo": video("training", ("Surfing", [0.0, 30.5])),
        "-cAcA8dO7kA": video(
            "training",
            ("Mopping floor", [1, 2.5]),
            ("Cleaning windows", [3.0, 9.0]),
            ("Mopping floor", [9.0, 9.0]),
        ),
        "v_F8c6mkNRc": video(
            "validation",
            ("Surfing", [0.5, 1.5]),
            ("Mopping floor", [2.0, 3.0]),
        ),
        "gone0000000": video("validation", ("Surfing", [0.0, 1.0])),
        "test0000000": video("testing"),
    }
    write(
        tmp_path / "activity_net.v1-3.min.json",
        {"database": database, "taxonomy": TAXONOMY, "version": "VERSION 1.3"},
    )
    write(tmp_path / "v1-3/train_val/v_sJFgo9H6zNo.mp4")
    write(tmp_path / "v1-3/train_val/-cAcA8dO7kA.mkv")
    # As a crawler has it: v_ belongs to YouTube's own name.
    write(tmp_path / "v1-3/train_val/v_F8c6mkNRc.mp4")
    return tmp_path


def test_activitynet_has_all_activities_of_a_video(activitynet):
    catalog = datasets.load("activitynet", activitynet)
    folder = "v1-3/train_val"
    assert rows(catalog) == [
        (f"{folder}/v_sJFgo9H6zNo.mp4", ("Surfing",), "train"),
        (
            f"{folder}/-cAcA8dO7kA.mkv",
            ("Mopping floor", "Cleaning windows"),
            "train",
        ),
        (
            f"{folder}/v_F8c6mkNRc.mp4",
            ("Surfing", "Mopping floor"),
            "validation",
        ),
    ]
    assert catalog.missing == ("videos/v_gone0000000.mp4",)
    assert catalog.classes == ("Cleaning windows", "Mopping floor", "Surfing")
    assert [video.family for video in catalog] == [
        "Sports, Exercise, and Recreation",
        "Household Activities",
        None,
    ]


def test_activitynet_has_a_row_per_segment_on_demand(activitynet):
    catalog = datasets.load(
        "activitynet", activitynet, split="train", segments=True
    )
    assert [(v.labels, v.start, v.end) for v in catalog] == [
        (("Surfing",), 0.0, 30.5),
        (("Mopping floor",), 1.0, 2.5),
        (("Cleaning windows",), 3.0, 9.0),
    ]


@pytest.mark.parametrize(
    ("level", "labels"),
    [
        (1, ["Household Activities", "Sports, Exercise, and Recreation"]),
        (2, ["Housework", "Playing sports"]),
        (3, ["Interior cleaning", "Surfing"]),
        (4, ["Cleaning windows", "Mopping floor", "Surfing"]),
    ],
)
def test_activitynet_tells_classes_apart_at_any_level(
    activitynet, level, labels
):
    catalog = datasets.load("activitynet", activitynet, level=level)
    assert catalog.classes == tuple(labels)
    shown = {label for video in catalog for label in video.labels}
    assert shown == set(labels)


def test_activitynet_names_its_levels(activitynet):
    with pytest.raises(ValueError, match=r"one of 1, 2, 3, 4, None.*level=5"):
        datasets.load("activitynet", activitynet, level=5)


def test_activitynet_tells_its_tree(activitynet):
    from keras_videofusion.datasets.activitynet import taxonomy

    house = ("Household Activities", "Housework", "Interior cleaning")
    assert taxonomy(activitynet) == {
        "Cleaning windows": (*house, "Cleaning windows"),
        "Mopping floor": (*house, "Mopping floor"),
        "Surfing": (
            "Sports, Exercise, and Recreation",
            "Playing sports",
            "Surfing",
        ),
    }


def test_activitynet_sorts_the_real_classes(activitynet, shared):
    """All 200, of the real label map, under one parent."""
    labels = shared / "data/annotations/mmaction2_activitynet/label_map.txt"
    labels = labels.read_text().splitlines()
    leaves = [
        {"nodeId": 100 + key, "nodeName": name, "parentId": 1}
        for key, name in enumerate(labels)
    ]
    path = activitynet / "activity_net.v1-3.min.json"
    write(path, {"database": {}, "taxonomy": TAXONOMY[:2] + leaves})
    catalog = datasets.load("activitynet", activitynet)
    assert catalog.classes == tuple(sorted(labels))
    assert len(catalog.classes) == 200


def test_activitynet_refuses_its_test_videos(activitynet):
    with pytest.raises(ValueError, match="without labels"):
        datasets.load("activitynet", activitynet, split="test")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"annotations": [{"label": "Flying", "segment": [0, 1]}]},
            r"annotation 1: `label` must be a leaf of the taxonomy",
        ),
        (
            {"annotations": [{"label": "Housework", "segment": [0, 1]}]},
            r"annotation 1: `label` must be a leaf of the taxonomy",
        ),
        (
            {"annotations": [{"label": "Surfing", "segment": [0]}]},
            r"annotation 1: `segment` must be \[start, end\]",
        ),
        ({"annotations": None}, r"`annotations` must be list"),
        ({"subset": 5}, r"`subset` must be str"),
    ],
)
def test_activitynet_names_wrong_entries(activitynet, change, said):
    path = activitynet / "activity_net.v1-3.min.json"
    content = json.loads(path.read_text())
    content["database"]["sJFgo9H6zNo"].update(change)
    write(path, content)
    with pytest.raises(ValueError, match=f"video 'sJFgo9H6zNo'.*{said}"):
        datasets.load("activitynet", activitynet)


def test_activitynet_refuses_a_tree_without_leaves(activitynet):
    path = activitynet / "activity_net.v1-3.min.json"
    write(path, {"database": {}, "taxonomy": TAXONOMY[:1]})
    with pytest.raises(ValueError, match="empty taxonomy"):
        datasets.load("activitynet", activitynet)


def test_activitynet_refuses_a_tree_that_bites_its_tail(activitynet):
    path = activitynet / "activity_net.v1-3.min.json"
    content = json.loads(path.read_text())
    content["taxonomy"][1]["parentId"] = 4
    write(path, content)
    with pytest.raises(ValueError, match="taxonomy must be a tree"):
        datasets.load("activitynet", activitynet)


# JHMDB


CLIP = "April_09_brush_hair_u_nm_np1_ba_goo_0"


@pytest.fixture
def jhmdb(tmp_path):
    for fold in (1, 2, 3):
        write(
            tmp_path / f"splits/brush_hair_test_split{fold}.txt",
            f"{CLIP}.avi {1 + (fold == 2)}\nBrushing_hair_#2_brush_hair_h_cm_np"
            "1_le_goo_0.avi 2\n",
        )
        write(tmp_path / f"splits/wave_test_split{fold}.txt", "w_1.avi 1\r\n")
    videos = tmp_path / "ReCompress_Videos"
    (videos / "brush_hair").mkdir(parents=True)
    numbered.draw(videos / f"brush_hair/{CLIP}.avi", "mpeg4", frames=5)
    write(videos / "wave/w_1.avi", b"garbage")
    return tmp_path


def test_jhmdb_has_three_folds(jhmdb):
    for fold, split in ((1, "train"), (2, "test"), (3, "train")):
        catalog = datasets.load("jhmdb", jhmdb, fold=fold)
        assert rows(catalog) == [
            (
                f"ReCompress_Videos/brush_hair/{CLIP}.avi",
                ("brush_hair",),
                split,
            ),
            ("ReCompress_Videos/wave/w_1.avi", ("wave",), "train"),
        ]
        assert catalog.classes == ("brush_hair", "wave")
        assert len(catalog.missing) == 1
    assert len(datasets.load("jhmdb", jhmdb, split="test", fold=2)) == 1


def test_jhmdb_names_wrong_lines(jhmdb):
    write(jhmdb / "splits/wave_test_split1.txt", "w_1.avi 1\nw_2.avi 0\n")
    with pytest.raises(ValueError, match=r"wave_test_split1\.txt, line 2 must"):
        datasets.load("jhmdb", jhmdb)


@pytest.mark.parametrize("frames", [1, 5])
def test_jhmdb_boxes_are_the_edges_of_the_puppet(jhmdb, frames):
    io = pytest.importorskip("scipy.io")
    from keras_videofusion.datasets.jhmdb import boxes

    generator = np.random.default_rng(frames)
    mask = (generator.random((24, 32, frames)) > 0.995).astype(np.uint8)
    mask[7, 11, 0] = 1
    if frames > 1:
        mask[..., 3] = 0
        mask[..., 4] = 0
        mask[20, 30, 4] = 1
    path = jhmdb / "puppet_mask/brush_hair" / CLIP / "puppet_mask.mat"
    path.parent.mkdir(parents=True)
    io.savemat(path, {"part_mask": mask}, do_compression=True)

    catalog = datasets.load("jhmdb", jhmdb)
    found = boxes(jhmdb, catalog[0])
    expected = np.full((frames, 4), np.nan, np.float32)
    for frame in range(frames):
        spots = [
            (x, y) for y in range(24) for x in range(32) if mask[y, x, frame]
        ]
        if spots:
            xs, ys = zip(*spots, strict=True)
            expected[frame] = min(xs), min(ys), max(xs) + 1, max(ys) + 1
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(boxes(jhmdb, catalog[0].path), found)
    if frames > 1:
        assert np.isnan(found[3]).all()
        assert found[4].tolist() == [30, 20, 31, 21]


def test_jhmdb_says_which_masks_are_missing_or_broken(jhmdb):
    io = pytest.importorskip("scipy.io")
    from keras_videofusion.datasets.jhmdb import boxes

    catalog = datasets.load("jhmdb", jhmdb)
    with pytest.raises(ValueError, match="has no puppet_mask"):
        boxes(jhmdb, catalog[0])
    path = jhmdb / "puppet_mask/brush_hair" / CLIP / "puppet_mask.mat"
    path.parent.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"puppet_mask\.mat"):
        boxes(jhmdb, catalog[0])
    for content in (b"", b"garbage" * 99, b"\x89HDF\r\n\x1a\n" + bytes(600)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"puppet_mask\.mat is no MATLAB"):
            boxes(jhmdb, catalog[0])
    io.savemat(path, {"other": np.zeros(3)})
    with pytest.raises(ValueError, match="no variable 'part_mask'"):
        boxes(jhmdb, catalog[0])
    io.savemat(path, {"part_mask": np.zeros((2, 2, 2, 2))})
    with pytest.raises(ValueError, match="of shape"):
        boxes(jhmdb, catalog[0])


def test_matlab_files_without_scipy_are_one_line(jhmdb, monkeypatch):
    import sys

    from keras_videofusion.datasets.annotations import read_mat

    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-video.*tune"):
        read_mat(jhmdb / "a.mat", "b")


# UCF101-24


def ucf_tube(first, boxes, number=1):
    """As MATLAB has it: doubles, numbers from 1."""
    return {
        "ef": float(first + len(boxes) - 1),
        "sf": float(first),
        "class": float(number),
        "boxes": np.array(boxes, np.float64),
    }


def ucf_annotations(path, videos):
    """`annot`: a struct array of `num_imgs`, `name` and struct `tubes`."""
    io = pytest.importorskip("scipy.io")
    kind = [("num_imgs", object), ("name", object), ("tubes", object)]
    inner = [(name, object) for name in ("ef", "sf", "class", "boxes")]
    annot = np.zeros((1, len(videos)), kind)
    for place, (name, tubes) in enumerate(videos):
        struct = np.zeros((1, len(tubes)), inner)
        for number, tube in enumerate(tubes):
            for part, value in tube.items():
                struct[0, number][part] = value
        annot[0, place] = (100.0, name, struct)
    io.savemat(path, {"annot": annot})


BASKETBALL = "Basketball/v_Basketball_g01_c01"
DOG = "WalkingWithDog/v_WalkingWithDog_g08_c02"


@pytest.fixture
def ucf101_24(tmp_path, shared):
    """The real lists of fold 1; boxes of three videos, two of them there."""
    real = shared / "data/annotations/ucf101"
    for part in ("train", "test"):
        name = f"{part}list01.txt"
        write(tmp_path / "ucfTrainTestlist" / name, (real / name).read_text())
    ucf_annotations(
        tmp_path / "finalAnnots.mat",
        [
            (BASKETBALL, [ucf_tube(11, [[1, 1, 40, 60], [5, 7, 41, 62]])]),
            (
                DOG,
                [
                    ucf_tube(1, [[10, 20, 30, 40]] * 3, 24),
                    ucf_tube(4, [[11, 21, 30, 40]], 24),
                ],
            ),
            ("Diving/v_Diving_g01_c01", [ucf_tube(2, [[3, 3, 1, 1]], 6)]),
        ],
    )
    write(tmp_path / f"UCF-101/{BASKETBALL}.avi")
    write(tmp_path / f"UCF-101/{DOG}.mp4")
    return tmp_path


def test_ucf101_24_has_the_videos_with_boxes(ucf101_24):
    catalog = datasets.load("ucf101_24", ucf101_24)
    assert rows(catalog) == [
        (f"UCF-101/{DOG}.mp4", ("WalkingWithDog",), "train"),
        (f"UCF-101/{BASKETBALL}.avi", ("Basketball",), "test"),
    ]
    assert [(video.group, video.family) for video in catalog] == [
        ("WalkingWithDog_g08", "Body-Motion Only"),
        ("Basketball_g01", "Sports"),
    ]
    assert catalog.missing == ("UCF-101/Diving/v_Diving_g01_c01.avi",)
    assert len(catalog.classes) == 24


def test_ucf101_24_groups_are_those_of_ucf101(ucf101_24, shared):
    lists = shared / "data/annotations/ucf101"
    write(
        ucf101_24 / "ucfTrainTestlist/classInd.txt",
        (lists / "classInd.txt").read_text(),
    )
    whole = {v.path: v for v in datasets.load("ucf101", ucf101_24)}
    for video in datasets.load("ucf101_24", ucf101_24):
        assert whole[video.path] == video


def test_ucf101_24_takes_lists_without_endings(ucf101_24):
    for part in ("train", "test"):
        path = ucf101_24 / f"ucfTrainTestlist/{part}list01.txt"
        lines = [line.split()[0][:-4] for line in path.read_text().splitlines()]
        write(path, "\n".join(lines))
    assert len(datasets.load("ucf101_24", ucf101_24)) == 2


def test_ucf101_24_counts_frames_and_pixels_from_zero(ucf101_24):
    from keras_videofusion.datasets.ucf101_24 import tubes

    found = tubes(ucf101_24)
    assert list(found) == [
        f"UCF-101/{BASKETBALL}.avi",
        f"UCF-101/{DOG}.mp4",
        "UCF-101/Diving/v_Diving_g01_c01.avi",
    ]
    ((label, first, boxes),) = found[f"UCF-101/{BASKETBALL}.avi"]
    assert (label, first) == ("Basketball", 10)
    assert boxes.dtype == np.float32
    assert boxes.tolist() == [[0, 0, 40, 60], [4, 6, 45, 68]]
    dog = found[f"UCF-101/{DOG}.mp4"]
    assert [(tube[0], tube[1], tube[2].shape) for tube in dog] == [
        ("WalkingWithDog", 0, (3, 4)),
        ("WalkingWithDog", 3, (1, 4)),
    ]


@pytest.mark.parametrize(
    ("videos", "said"),
    [
        ([("Eating/v_Eating_g01_c01", [])], "entry 1: `name` must begin with"),
        (
            [(BASKETBALL, [ucf_tube(1, [[1, 1, 2, 2]], 25)])],
            "tube 1 must have a class 1 to 24",
        ),
        (
            [(DOG, []), (BASKETBALL, [ucf_tube(0, [[1, 1, 2, 2]])])],
            f"entry 2 ({BASKETBALL}), tube 1 must have",
        ),
        ([(BASKETBALL, [ucf_tube(1, [[1, 2, 2]])])], "boxes of shape (1, 3)"),
    ],
)
def test_ucf101_24_names_wrong_entries(ucf101_24, videos, said):
    ucf_annotations(ucf101_24 / "finalAnnots.mat", videos)
    with pytest.raises(ValueError, match=r"finalAnnots\.mat") as caught:
        datasets.load("ucf101_24", ucf101_24)
    assert said in str(caught.value)


def test_ucf101_24_refuses_pickles(ucf101_24):
    (ucf101_24 / "finalAnnots.mat").unlink()
    write(ucf101_24 / "UCF101v2-GT.pkl", b"cos\nsystem\n")
    with pytest.raises(ValueError, match=r"pickled.*finalAnnots\.mat"):
        datasets.load("ucf101_24", ucf101_24)


# YouTube-8M


def vocabulary(root):
    """Six classes, one of them without a name, two of one name."""
    write(
        root / "vocabulary.csv",
        "Index,TrainVideoCount,KnowledgeGraphId,Name,WikiUrl,Vertical1,"
        "Vertical2,Vertical3,WikiDescription\r\n"
        '0,9,/m/03bt1gh,Game,url,Games,,,"A ""game"",\r\nin two lines."\r\n'
        "1,8,/m/01mw1,,url,Games,,,\r\n"
        "2,7,/m/07yv9,Vehicle,url,Autos & Vehicles,,,\r\n"
        "3,6,/m/01jddz,Concert,url,Arts & Entertainment,,,\r\n"
        "4,5,/m/0k4j,Car,url,Autos & Vehicles,,,\r\n"
        "5,4,/m/0k4k,Car,url,,,,\r\n",
    )


def record(name, labels=(), mean=None, frames=None):
    """A record as documented: means of a video, or bytes of its frames."""
    import tensorflow as tf

    def numbers(values):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    def strings(*values):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    about = {"id": strings(name.encode())}
    if labels:
        about["labels"] = tf.train.Feature(
            int64_list=tf.train.Int64List(value=labels)
        )
    if frames is None:
        rgb, audio = mean
        about.update(mean_rgb=numbers(rgb), mean_audio=numbers(audio))
        example = tf.train.Example(features=tf.train.Features(feature=about))
    else:
        lists = {
            key: tf.train.FeatureList(
                feature=[strings(one.tobytes()) for one in stream]
            )
            for key, stream in zip(("rgb", "audio"), frames, strict=True)
        }
        example = tf.train.SequenceExample(
            context=tf.train.Features(feature=about),
            feature_lists=tf.train.FeatureLists(feature_list=lists),
        )
    return example.SerializeToString()


def shard(path, records):
    import tensorflow as tf

    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as file:
        for one in records:
            file.write(one)


def means(seed):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=n).astype(np.float32) for n in (1024, 128)]


def seconds(seed, count):
    generator = np.random.default_rng(seed)
    return [
        generator.integers(0, 256, (count, n), np.uint8) for n in (1024, 128)
    ]


LABELS = {"a": (2, 4), "b": (0,), "c": (1, 3), "d": (5,), "e": (0, 1, 2)}


@pytest.fixture
def youtube8m(tmp_path):
    """Videos a, b / c, d to train in two shards, e to validate, f to test."""
    vocabulary(tmp_path)

    def video(name):
        return record(name, LABELS.get(name, ()), mean=means(ord(name)))

    folder = tmp_path / "video"
    shard(folder / "train2.tfrecord", map(video, "ab"))
    shard(folder / "train10.tfrecord", map(video, "cd"))
    shard(folder / "validate00.tfrecord", [video("e")])
    shard(folder / "test00.tfrecord", [video("f")])
    return tmp_path


@pytest.fixture
def youtube8m_frames(youtube8m):
    lengths = {"a": 3, "b": 7, "c": 1}
    shard(
        youtube8m / "frame/train00.tfrecord",
        (
            record(name, LABELS[name], frames=seconds(ord(name), length))
            for name, length in lengths.items()
        ),
    )
    return youtube8m


def multi_hot(names):
    return [[float(k in LABELS[name]) for k in range(6)] for name in names]


def test_youtube8m_has_a_row_per_record(youtube8m):
    catalog = datasets.load("youtube8m", youtube8m)
    assert rows(catalog) == [
        ("video/train2.tfrecord#a", ("Vehicle", "Car"), "train"),
        ("video/train2.tfrecord#b", ("Game",), "train"),
        ("video/train10.tfrecord#c", ("/m/01mw1", "Concert"), "train"),
        ("video/train10.tfrecord#d", ("Car (/m/0k4k)",), "train"),
        (
            "video/validate00.tfrecord#e",
            ("Game", "/m/01mw1", "Vehicle"),
            "validation",
        ),
    ]
    assert [video.family for video in catalog] == [
        "Autos & Vehicles", "Games", None, None, None,
    ]  # fmt: skip
    assert len(catalog.classes) == 6
    assert len(datasets.load("youtube8m", youtube8m, "validation")) == 1


def test_youtube8m_rows_may_lead_to_frames(youtube8m_frames):
    catalog = datasets.load(
        "youtube8m", youtube8m_frames, "train", level="frame"
    )
    assert [video.path for video in catalog] == [
        f"frame/train00.tfrecord#{name}" for name in "abc"
    ]


def test_youtube8m_means_come_as_they_are(youtube8m):
    from keras_videofusion.datasets.youtube8m import features

    found = list(features(youtube8m, "train", batch=3).as_numpy_iterator())
    assert [len(labels) for _, labels in found] == [3, 1]
    for key, place in (("rgb", 0), ("audio", 1)):
        got = np.concatenate([vectors[key] for vectors, _ in found])
        expected = np.stack([means(ord(name))[place] for name in "abcd"])
        np.testing.assert_array_equal(got, expected)
    labels = np.concatenate([labels for _, labels in found])
    assert labels.tolist() == multi_hot("abcd")


def test_youtube8m_vectors_may_be_joined(youtube8m):
    from keras_videofusion.datasets.youtube8m import features

    found = features(youtube8m, "validation", concatenate=True)
    ((vectors, labels),) = found.as_numpy_iterator()
    np.testing.assert_array_equal(vectors, [np.concatenate(means(ord("e")))])
    assert labels.tolist() == multi_hot("e")
    assert found.element_spec[0].shape == (None, 1152)


def test_youtube8m_is_written_as_vectors(youtube8m, tmp_path):
    from keras_videofusion.data.catalog import open_catalog
    from keras_videofusion.data.vectors import read_vectors
    from keras_videofusion.datasets.youtube8m import vectors

    done = []
    vectors(youtube8m, tmp_path / "out", progress=lambda *n: done.append(n))

    found = read_vectors(tmp_path / "out")
    assert (found.kind, found.size, found.each) == ("youtube8m", 1152, 1)
    assert found.blocks == {"rgb": (0, 1024), "audio": (1024, 1152)}
    published = datasets.load("youtube8m", youtube8m)
    assert rows(open_catalog(tmp_path / "out")) == rows(published)
    assert found.catalog.classes == published.classes
    for place, name in enumerate("abcde"):
        right = np.concatenate(means(ord(name)))
        np.testing.assert_array_equal(found.rows(place), [right])
    assert done == [(n, 5) for n in range(1, 6)]
    with pytest.raises(ValueError, match="--overwrite"):
        vectors(youtube8m, tmp_path / "out")


def test_youtube8m_leaves_out_videos_whose_numbers_are_broken(
    youtube8m, tmp_path
):
    from keras_videofusion.datasets.youtube8m import vectors

    def video(name, short=False):
        found = [x[:-1] if short else x for x in means(ord(name))]
        return record(name, LABELS[name], mean=found)

    shard(
        youtube8m / "video/train2.tfrecord",
        [video("a", short=True), video("b")],
    )
    told = []

    found = vectors(
        youtube8m, tmp_path / "out", on_skip=lambda *one: told.append(one)
    )

    assert [video.path[-1] for video in found.catalog] == list("bcde")
    for place, name in enumerate("bcde"):
        right = np.concatenate(means(ord(name)))
        np.testing.assert_array_equal(found.rows(place), [right])
    assert len(found.skipped) == len(told) == 1
    assert "record 0" in found.skipped[0]["error"]


def test_youtube8m_is_learned_by_two_commands(youtube8m, tmp_path, capsys):
    from keras_videofusion.cli import parse, run

    def call(*words):
        return run(parse([str(word) for word in words]))

    out, folder = tmp_path / "out", tmp_path / "run"
    assert call("train", "youtube8m", "--root", youtube8m, "--run", folder) == 2
    assert "prepare youtube8m OUT" in capsys.readouterr().err
    assert call("prepare", "youtube8m", out, "--root", youtube8m) == 0
    assert "5 vectors of 1,152 numbers" in capsys.readouterr().out
    assert call("train", out, "--model", "feature_mlp", "--width", 0.01,
                "--option", "scale=null", "--activation", "sigmoid",
                "--test-split", 0, "--epochs", 1,
                "--run", folder) == 0  # fmt: skip
    assert "4 videos to learn, 1 to validate" in capsys.readouterr().out
    assert call("evaluate", folder, "--split", "validation") == 0
    assert call("prepare", "youtube8m", out) == 2
    assert "--root" in capsys.readouterr().err


def test_youtube8m_test_records_have_no_labels(youtube8m):
    from keras_videofusion.datasets.youtube8m import features

    (vectors,) = features(youtube8m, "test").as_numpy_iterator()
    np.testing.assert_array_equal(vectors["rgb"], [means(ord("f"))[0]])
    with pytest.raises(ValueError, match="without labels"):
        datasets.load("youtube8m", youtube8m, split="test")


def test_youtube8m_frames_are_dequantised_padded_and_masked(youtube8m_frames):
    from keras_videofusion.datasets.youtube8m import features

    ((vectors, labels),) = features(
        youtube8m_frames, "train", "frame", batch=8, max_frames=5
    ).as_numpy_iterator()
    assert labels.tolist() == multi_hot("abc")
    assert vectors["mask"].sum(1).tolist() == [3, 5, 1]
    for row, (name, length) in enumerate((("a", 3), ("b", 7), ("c", 1))):
        for key, stream in zip(
            ("rgb", "audio"), seconds(ord(name), length), strict=True
        ):
            got = vectors[key][row]
            kept = min(length, 5)
            # 0 is -2 and half a step of 1/128, 255 as much above 2.
            expected = -2 + stream[:kept] / 255 * 4 + 1 / 128
            np.testing.assert_allclose(got[:kept], expected, atol=1e-6)
            assert not got[kept:].any()


def test_youtube8m_frames_may_be_joined(youtube8m_frames):
    from keras_videofusion.datasets.youtube8m import features

    options = {"level": "frame", "batch": 2}
    apart = features(youtube8m_frames, "train", **options)
    joined = features(youtube8m_frames, "train", **options, concatenate=True)
    for (two, _), (one, _) in zip(
        apart.as_numpy_iterator(), joined.as_numpy_iterator(), strict=True
    ):
        assert one["features"].shape[1:] == (300, 1152)
        np.testing.assert_array_equal(
            one["features"], np.concatenate([two["rgb"], two["audio"]], -1)
        )
        np.testing.assert_array_equal(one["mask"], two["mask"])


def test_youtube8m_comes_in_the_same_order_every_time(youtube8m):
    from keras_videofusion.datasets.youtube8m import features

    dataset = features(youtube8m, "train", batch=1)
    first, second = (
        [vectors["rgb"][0, 0] for vectors, _ in dataset.as_numpy_iterator()]
        for _ in range(2)
    )
    assert first == second == [means(ord(name))[0][0] for name in "abcd"]


def names_left(root, level="video", **options):
    """Which of a to e come out, by their labels."""
    from keras_videofusion.datasets.youtube8m import features

    dataset = features(root, "train", level, batch=2, **options)
    return "".join(
        next(name for name in LABELS if multi_hot(name) == [row])
        for _, labels in dataset.as_numpy_iterator()
        for row in labels.tolist()
    )


@pytest.mark.parametrize(
    "broken",
    [
        b"no record at all",
        b"",
        record("x", (0,), mean=[np.zeros(1023), np.zeros(128)]),
        record("x", (6,), mean=means(0)),
        record("x", (-1,), mean=means(0)),
        record("x", (0,), frames=seconds(0, 2)),
    ],
    ids=["garbage", "nothing", "short", "label 6", "label -1", "frames"],
)
def test_youtube8m_names_and_skips_broken_records(youtube8m, broken):
    path = youtube8m / "video/train2.tfrecord"
    good = [record(name, LABELS[name], mean=means(ord(name))) for name in "ab"]
    shard(path, [good[0], broken, good[1]])
    told = []
    assert names_left(youtube8m, on_skip=lambda *one: told.append(one)) == (
        "abcd"
    )
    ((where, what),) = told
    assert where == str(path)
    assert what.startswith("record 1: ")
    assert "\n" not in what


@pytest.mark.parametrize("kind", ["rgb", "audio", "uneven"])
def test_youtube8m_names_and_skips_broken_frames(youtube8m_frames, kind):
    rgb, audio = seconds(0, 4)
    if kind == "rgb":
        rgb = rgb[:, :1000]
    elif kind == "audio":
        audio = audio[:, :0]
    else:
        audio = audio[:3]
    good = record("a", LABELS["a"], frames=seconds(0, 2))
    shard(
        youtube8m_frames / "frame/train00.tfrecord",
        [record("x", (0,), frames=(rgb, audio)), good],
    )
    told = []
    left = names_left(
        youtube8m_frames, "frame", on_skip=lambda *one: told.append(one)
    )
    assert left == "a"
    assert [what[:10] for _, what in told] == ["record 0: "]


@pytest.mark.parametrize("chunk", [1, 2])
def test_youtube8m_loses_only_the_rest_of_a_damaged_file(
    youtube8m, chunk, monkeypatch
):
    from keras_videofusion.datasets.youtube8m import CHUNKS

    monkeypatch.setitem(CHUNKS, "video", chunk)
    path = youtube8m / "video/train2.tfrecord"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 + 100] ^= 255
    path.write_bytes(data)
    with pytest.warns(RuntimeWarning, match="train2.tfrecord: record 1 and"):
        assert names_left(youtube8m) == "acd"
    told = []
    catalog = datasets.load(
        "youtube8m",
        youtube8m,
        "train",
        on_skip=lambda *one: told.append(one),
    )
    assert [video.path[-1] for video in catalog] == ["a", "c", "d"]
    assert len(told) == 1


@pytest.mark.parametrize("level", ["video", "frame"])
def test_youtube8m_pieces_are_the_same_outside_a_pipeline(
    youtube8m_frames, level
):
    """In this thread, where coverage sees them."""
    from keras_videofusion.datasets.youtube8m import (
        _chunks,
        _finished,
        features,
    )

    path = youtube8m_frames / level / "train2.tfrecord"
    frames = {"video": None, "frame": 4}[level]
    shown, short = {"mean": means(1)}, {"mean": means(1)[::-1]}
    if frames:
        rgb, audio = seconds(1, 6)
        shown, short = {"frames": (rgb, audio)}, {"frames": (audio, audio)}
    good = record("a", LABELS["a"], **shown)
    bad = [record("x", (9,), **shown), record("x", (0,), **short)]
    if frames:
        bad.append(record("x", (0,), frames=(rgb, audio[:5])))
    shard(path, [good, b"no record", good, *bad, good])
    for other in ("frame/train00", "video/train10"):
        (youtube8m_frames / f"{other}.tfrecord").unlink()
    told = []
    (piece,) = _chunks(
        [path], level, frames or 0, 6, lambda *one: told.append(one[1][:8])
    )
    broken = [f"record {place}" for place in (1, *range(3, 3 + len(bad)))]
    assert told == broken
    assert piece[-1].tolist() == multi_hot("aaa")
    for joined in (False, True):
        ((vectors, _),) = features(
            youtube8m_frames,
            "train",
            level,
            max_frames=4,
            concatenate=joined,
            on_skip=lambda *one: None,
        ).as_numpy_iterator()
        expected, _ = _finished(*piece, frames, joined, False)
        if not isinstance(vectors, dict):
            vectors, expected = {"all": vectors}, {"all": expected}
        for key, value in vectors.items():
            np.testing.assert_array_equal(value, expected[key])


# What Keras says to every finite data set whose length it cannot know.
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_youtube8m_teaches_a_network(youtube8m):
    import keras

    from keras_videofusion.datasets.youtube8m import features

    model = keras.Sequential(
        [keras.Input((1152,)), keras.layers.Dense(6, "sigmoid")]
    )
    model.compile("sgd", "binary_crossentropy")
    dataset = features(youtube8m, "train", batch=2, concatenate=True)
    fitted = model.fit(dataset, epochs=2, verbose=0, shuffle=False)
    assert len(fitted.history["loss"]) == 2


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("1,k,Game,Games\n", r"line 2: `Index` must be 0"),
        ("0,k,Game,Games\n0,l,Car,\n", r"line 3: `Index` must be 1"),
        ("0,k,Game,Games\n1,k,Game,\n2,k,Game,\n", "every class once"),
        ("0,k,Game\n", "line 2 must have the 4 fields"),
        ("", "every class once"),
    ],
)
def test_youtube8m_names_wrong_lines(youtube8m, lines, said):
    head = "Index,KnowledgeGraphId,Name,Vertical1\n"
    write(youtube8m / "vocabulary.csv", head + lines)
    with pytest.raises(ValueError, match=rf"vocabulary\.csv.*{said}"):
        datasets.load("youtube8m", youtube8m)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"split": "valid"}, "split='valid'"),
        ({"level": "clip"}, "level='clip'"),
        ({"batch": 0}, "batch=0"),
        ({"max_frames": 0}, "max_frames=0"),
        ({"level": "frame"}, "has no frame/train"),
    ],
)
def test_youtube8m_features_refuse_wrong_arguments(youtube8m, wrong, said):
    from keras_videofusion.datasets.youtube8m import features

    with pytest.raises(ValueError, match=said):
        features(youtube8m, **{"split": "train", **wrong})

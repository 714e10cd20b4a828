"""Published data sets: their real lists, and small trees of their kind."""

import collections
import csv
import gzip
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from keras_videofusion import datasets
from keras_videofusion.data.catalog import open_catalog, Video
from keras_videofusion.data.video import timeline, VideoError
from keras_videofusion.datasets import (
    hmdb51,
    kinetics,
    layout,
    sports1m,
    ucf101,
)

MODULES = {
    "hmdb51": hmdb51,
    "kinetics": kinetics,
    "sports1m": sports1m,
    "ucf101": ucf101,
}


@pytest.fixture
def annotations(shared):
    return shared / "data" / "annotations"


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def splits_of(catalog):
    return collections.Counter(video.split for video in catalog)


def groups_astride(catalog):
    """Groups whose rows carry more than one split, by a plain count."""
    splits = collections.defaultdict(set)
    for video in catalog:
        if video.group is not None:
            splits[video.group].add(video.split)
    return [group for group, found in splits.items() if len(found) > 1]


# --- layout: what the data sets share


def test_lists_of_other_systems_read_alike(tmp_path):
    plain = write(tmp_path / "plain.txt", "one 1\n\ntwo 2\n")
    foreign = write(tmp_path / "foreign.txt", "\ufeffone 1\r\n\r\n  two 2 \r\n")
    packed = tmp_path / "packed.txt.gz"
    packed.write_bytes(gzip.compress(foreign.read_bytes()))
    for path in (plain, foreign, packed):
        assert list(layout.read_lines(path)) == [(1, "one 1"), (3, "two 2")]


def test_tables_of_other_systems_read_alike(tmp_path):
    text = (
        '\ufeffname, more,id\r\n"a, ""b""",x,1\r\n\r\n c ,"two\r\nlines",2\r\n'
    )
    path = write(tmp_path / "table.csv", text)
    assert list(layout.read_table(path, ("id", "name"))) == [
        (2, {"name": 'a, "b"', "more": "x", "id": "1"}),
        (5, {"name": "c", "more": "two\r\nlines", "id": "2"}),
    ]
    path = write(tmp_path / "bare.csv", "7;a, b\n8;c\n")
    assert list(
        layout.read_table(path, separator=";", names=("id", "label"))
    ) == [
        (1, {"id": "7", "label": "a, b"}),
        (2, {"id": "8", "label": "c"}),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1 must name the columns label, id. Received: an empty"),
        ("label,name\n", "line 1 must name the columns label, id. Received: "),
        ("label,id,id\n", "line 1 names a column twice. Received: label,id,id"),
        ("label,id\na,1\nb\n", "line 3 must have the 2 fields label,id. "),
        ("label,id\na,1,2\n", "line 2 must have the 2 fields .*'a,1,2'"),
        ("label,id\na,\0\n", "line 2 is no text"),
        ("label,id\n" + "x" * 200_000 + ",1\n", "line 2 is not CSV: field"),
    ],
)
def test_a_wrong_table_is_one_line_with_its_number(tmp_path, text, says):
    path = write(tmp_path / "table.csv", text)
    with pytest.raises(ValueError, match=says) as caught:
        list(layout.read_table(path, ("label", "id")))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_lists_that_cannot_be_read_say_so(tmp_path):
    whole = gzip.compress(b"".join(b"%d\n" % n**5 for n in range(9999)))
    cut, damaged = tmp_path / "cut.gz", tmp_path / "damaged.gz"
    cut.write_bytes(whole[:-2000])
    # A block of a kind that there is not, after the header's ten bytes.
    damaged.write_bytes(whole[:10] + b"\x07" + whole[11:])
    for path in (cut, damaged, tmp_path, tmp_path / "absent.txt"):
        with pytest.raises(ValueError, match=r"cannot be read after line \d"):
            list(layout.read_lines(path))


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../up.avi", "a/../b", "", "."]
)
def test_paths_that_leave_the_folder_are_refused(name):
    with pytest.raises(ValueError, match="list, line 7: a path must be rel"):
        layout.relative(name, "list, line 7")


def test_paths_within_the_folder_are_kept():
    assert layout.relative("./a b/..c;.avi", "") == "a b/..c;.avi"


def test_videos_go_by_their_stems_wherever_they_are(tmp_path):
    for name in (
        "b/two.WEBM",
        "a/one.v2.mkv",
        "a/one.v2.txt",
        "z/two.mp4",
        "a/.hidden.mp4",
        ".draft/three.mp4",
        "four.avi",
    ):
        write(tmp_path / "videos" / name)
    (tmp_path / "videos" / "loop").symlink_to(tmp_path / "videos")
    assert layout.videos_below(tmp_path, "videos") == {
        "one.v2": "videos/a/one.v2.mkv",
        "two": "videos/b/two.WEBM",  # of two, the one that sorts first
        "four": "videos/four.avi",
    }
    assert layout.videos_below(tmp_path / "videos")["four"] == "four.avi"


def test_gathered_rows_keep_their_order_and_the_missing_are_named_once():
    rows = [
        Video("v/a.avi", ("x",), split="test"),
        Video("v/b.avi", ("x",), split="train", start=0.0, end=1.0),
        Video("v/b.avi", ("y",), split="train", start=1.0, end=2.0),
        Video("v/c.avi", ("y",), split="train"),
        Video("v/a.avi", ("y",), split="train"),
    ]
    there = {"a": "v/deep/a.webm"}
    catalog = layout.gather("root", rows, there, ["y", "x", "z"])
    assert list(catalog) == [
        replace(rows[0], path="v/deep/a.webm"),
        replace(rows[4], path="v/deep/a.webm"),
    ]
    assert catalog.missing == ("v/b.avi", "v/c.avi")
    assert (catalog.classes, catalog.root) == (("y", "x", "z"), "root")
    test = layout.gather("root", rows, there, ["x", "y"], "test")
    assert len(test) == 1
    assert test.missing == ()


# --- one door


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_every_data_set_opens_by_the_same_call(name):
    module = importlib.import_module(f"{datasets.__name__}.{name}")
    if name == "moving_shapes":
        assert "folder" in inspect.signature(module.draw).parameters
        return
    root, split, fold, *options = inspect.signature(
        module.load
    ).parameters.values()
    assert (root.name, split.name, fold.name) == ("root", "split", "fold")
    assert (split.default, fold.default) == (None, 1)
    assert all(option.kind is option.KEYWORD_ONLY for option in options)
    assert all(option.default is not option.empty for option in options)


def test_every_module_is_registered_and_tells_its_tree_and_address():
    for name, module in MODULES.items():
        assert name in datasets.DATASETS
        assert module.ADDRESS.split("/")[2] in module.__doc__ or (
            "address below" in module.__doc__
        )
        assert module.TREE.strip()
        assert "Reference:" in module.__doc__


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("kind", ["empty", "absent", "file"])
def test_a_wrong_root_tells_the_tree_and_where_to_get_it(tmp_path, name, kind):
    root = tmp_path / kind
    if kind == "empty":
        write(root / "videos" / "running" / "1.mp4")
    elif kind == "file":
        write(root)
    with pytest.raises(ValueError, match="^`root` must hold") as caught:
        datasets.load(name, root)
    module, message = MODULES[name], str(caught.value)
    for line in module.TREE.strip().splitlines():
        assert f"\n    {line}\n" in message
    assert module.ADDRESS in message
    assert message.endswith(f"Received: root={str(root)!r}")


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        (
            "ucf102",
            {},
            "`name` must be one of .*ucf101, .*Received: name='ucf1",
        ),
        (
            "ucf101",
            {"split": "validation"},
            "must be one of 'train', 'test', N",
        ),
        ("ucf101", {"fold": 0}, "`fold` must be one of 1, 2, 3. .*fold=0"),
        ("ucf101", {"fold": "1"}, "`fold` must be one of 1, 2, 3. .*fold='1'"),
        ("ucf101", {"fold": 1.0}, "`fold` must be one of 1, 2, 3. "),
        ("hmdb51", {"fold": 4}, "`fold` must be one of 1, 2, 3. .*fold=4"),
        (
            "hmdb51",
            {"fold": True},
            "`fold` must be one of 1, 2, 3. .*fold=True",
        ),
        ("sports1m", {"fold": 2}, "`fold` must be 1. Received: fold=2"),
        ("sports1m", {"split": "val"}, "'train', 'validation', 'test', None"),
        ("kinetics", {"edition": 500}, "`edition` must be one of 400, 600, 7"),
        ("kinetics", {"level": 1}, "kinetics are: edition. Received: level=1"),
        ("ucf101", {"edition": 1}, "ucf101 are: none. Received: edition=1"),
        ("moving_shapes", {"edge": 1}, "are: train, .*, fps. Received: edge=1"),
    ],
)
def test_wrong_calls_name_the_choices(tmp_path, name, arguments, says):
    with pytest.raises(ValueError, match=says):
        datasets.load(name, tmp_path, **arguments)


def test_moving_shapes_are_drawn_where_they_are_not(tmp_path):
    options = {"train": 1, "validation": 1, "test": 1}
    options |= {"size": (16, 16), "frames": 2}
    root = tmp_path / "shapes"
    catalog = datasets.load("moving_shapes", root, **options)
    assert splits_of(catalog) == {"train": 4, "validation": 4, "test": 4}
    again = datasets.load("moving_shapes", root, "test", **options)
    assert list(again) == [row for row in catalog if row.split == "test"]
    with pytest.raises(ValueError, match="`split` must be one of 'train', 'v"):
        datasets.load("moving_shapes", root, "val", **options)


# --- UCF-101


@pytest.fixture(scope="module")
def whole_ucf101(shared, tmp_path_factory):
    """All that the real lists name, as empty files. Change nothing in it."""
    lists = shared / "data" / "annotations" / "ucf101"
    root = tmp_path_factory.mktemp("ucf101")
    shutil.copytree(lists, root / "ucfTrainTestlist")
    for name in ("trainlist01.txt", "testlist01.txt"):
        for line in (lists / name).read_text().split("\n"):
            if line.strip():
                write(root / "UCF-101" / line.split()[0])
    return root


@pytest.mark.parametrize(
    ("fold", "train", "test"),
    [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)],
)
def test_folds_of_ucf101_are_the_published_ones(
    whole_ucf101, fold, train, test, tmp_path
):
    catalog = datasets.load("ucf101", whole_ucf101, fold=fold)
    assert len(catalog) == 13_320
    assert catalog.missing == ()
    assert splits_of(catalog) == {"train": train, "test": test}
    # Plainly, from the text of the list.
    text = (
        whole_ucf101 / f"ucfTrainTestlist/testlist{fold:02d}.txt"
    ).read_text()
    assert [v.path for v in catalog if v.split == "test"] == [
        f"UCF-101/{line.strip()}" for line in text.split("\n") if line.strip()
    ]
    assert all(video.path.split("/")[1] == video.labels[0] for video in catalog)
    assert groups_astride(catalog) == []
    assert len({video.group for video in catalog}) == 101 * 25
    assert len({(video.labels, video.group) for video in catalog}) == 101 * 25
    # A run writes its rows and reads them back, groups and all.
    catalog.save(tmp_path / "catalog.csv")
    assert open_catalog(tmp_path / "catalog.csv").videos == catalog.videos
    for split, count in (("train", train), ("test", test)):
        part = datasets.load("ucf101", whole_ucf101, split, fold)
        assert list(part) == [v for v in catalog if v.split == split]
        assert len(part) == count
        assert part.classes == catalog.classes


def test_ucf101_without_its_videos_counts_them(annotations):
    catalog = datasets.load("ucf101", annotations / "ucf101", "test", 2)
    assert len(catalog) == 0
    assert len(catalog.missing) == 3734
    first = "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi"
    assert catalog.missing[0] == first


def test_every_class_of_ucf101_has_the_authors_type(annotations):
    index = (annotations / "ucf101/classInd.txt").read_text().split()
    catalog = datasets.load("ucf101", annotations / "ucf101")
    assert catalog.classes == tuple(index[1::2])
    types = {c: f for f, names in ucf101.FAMILIES.items() for c in names}
    assert set(types) == set(catalog.classes)
    assert {f: len(names) for f, names in ucf101.FAMILIES.items()} == {
        "Human-Object Interaction": 20,
        "Body-Motion Only": 16,
        "Human-Human Interaction": 5,
        "Playing Musical Instruments": 10,
        "Sports": 50,
    }
    third = annotations / "ucf101/action_groups_from_third_party.csv"
    with open(third, newline="") as file:
        for row in csv.DictReader(file):
            if row["group"]:
                spelled = types[row["class"]].lower()
                assert row["group"] == spelled.replace(" ", "_").replace(
                    "-", "_"
                )
    assert types["Kayaking"] == types["Rowing"] == "Sports"
    assert types["WallPushups"] == "Body-Motion Only"


def small_ucf101(root, videos="UCF-101", lists="ucfTrainTestlist"):
    """Two classes, two groups each; one file is webm, one is missing."""
    place = root / lists
    write(place / "classInd.txt", "1 ApplyLipstick\r\n2 HandstandPushups\r\n")
    train = [
        "ApplyLipstick/v_ApplyLipstick_g01_c01.avi 1",
        "ApplyLipstick/v_ApplyLipstick_g01_c02.avi 1",
        "HandstandPushups/v_HandStandPushups_g01_c01.avi 2",
    ]
    test = [
        "ApplyLipstick/v_ApplyLipstick_g02_c01.avi",
        "HandstandPushups/v_HandStandPushups_g02_c01.avi",
    ]
    write(place / "trainlist01.txt", "\r\n".join([*train, ""]))
    write(place / "testlist01.txt", "\r\n".join([*test, ""]))
    below = root / videos
    write(below / "ApplyLipstick/v_ApplyLipstick_g01_c01.avi")
    write(below / "ApplyLipstick/v_ApplyLipstick_g02_c01.avi", "rubbish")
    # As some copies are named, whatever the lists say.
    write(below / "HandStandPushups/v_HandstandPushups_g01_c01.webm")
    write(below / "HandstandPushups/v_HandStandPushups_g02_c01.avi")
    return root


@pytest.mark.parametrize(
    ("videos", "lists"),
    [("UCF-101", "ucfTrainTestlist"), ("videos", "."), (".", ".")],
)
def test_ucf101_is_found_as_people_unpack_it(tmp_path, videos, lists):
    small_ucf101(tmp_path, videos, lists)
    catalog = datasets.load("ucf101", tmp_path)
    before = "" if videos == "." else f"{videos}/"
    assert [
        (v.path, v.labels, v.group, v.family, v.split) for v in catalog
    ] == [
        (
            f"{before}ApplyLipstick/v_ApplyLipstick_g01_c01.avi",
            ("ApplyLipstick",),
            "ApplyLipstick_g01",
            "Human-Object Interaction",
            "train",
        ),
        (
            f"{before}HandStandPushups/v_HandstandPushups_g01_c01.webm",
            ("HandstandPushups",),
            "HandstandPushups_g01",
            "Body-Motion Only",
            "train",
        ),
        (
            f"{before}ApplyLipstick/v_ApplyLipstick_g02_c01.avi",
            ("ApplyLipstick",),
            "ApplyLipstick_g02",
            "Human-Object Interaction",
            "test",
        ),
        (
            f"{before}HandstandPushups/v_HandStandPushups_g02_c01.avi",
            ("HandstandPushups",),
            "HandstandPushups_g02",
            "Body-Motion Only",
            "test",
        ),
    ]
    assert catalog.missing == (
        f"{before}ApplyLipstick/v_ApplyLipstick_g01_c02.avi",
    )
    assert all(os.path.isfile(catalog.file(video)) for video in catalog)


def test_broken_files_are_rows_that_their_reader_names(tmp_path, shapes_folder):
    small_ucf101(tmp_path)
    whole = next(shapes_folder.glob("up/*.mp4"))
    name = "UCF-101/HandstandPushups/v_HandStandPushups_g02_c01.avi"
    shutil.copy(whole, tmp_path / name)
    catalog = datasets.load("ucf101", tmp_path)
    assert len(catalog) == 4
    for video in catalog:
        path = catalog.file(video)
        if video.path == name:
            assert len(timeline(path)) == 24
        else:
            with pytest.raises(VideoError, match=re.escape(path)):
                timeline(path)


def test_a_list_that_is_lacking_is_named(tmp_path):
    small_ucf101(tmp_path)
    with pytest.raises(ValueError, match=r"but has no trainlist03\.txt\. Exp"):
        datasets.load("ucf101", tmp_path, fold=3)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/data/v_ApplyLipstick_g01_c01.avi 1", "a path must be relative"),
        ("../ApplyLipstick/v_ApplyLipstick_g01_c01.avi", "a path must be rel"),
        ("Archery/v_Archery_g01_c01.avi 1", "with a class of classInd"),
        ("ApplyLipstick/v_ApplyLipstick_g01_c09.avi 2", "number must be that"),
        ("ApplyLipstick/v_ApplyLipstick_g01_c09.avi x", "number must be that"),
        (
            "ApplyLipstick/v_ApplyLipstick_c09.avi 1",
            "must be <class>/v_<class>",
        ),
        ("ApplyLipstick/v_ApplyLipstick_g01_c09.avi 1 2", "must be <class>/v_"),
        ("ApplyLipstick/v_ApplyLipstick_g02_c01.avi 1", "a fold's lists once"),
        ("ApplyLipstick/v_ApplyLipstick_g01_c01.avi 1", "a fold's lists once"),
    ],
)
def test_a_wrong_line_of_ucf101_is_named(tmp_path, line, says):
    small_ucf101(tmp_path)
    lists = tmp_path / "ucfTrainTestlist"
    path = lists / "trainlist01.txt"
    path.write_bytes(path.read_bytes() + f"\r\n{line}\r\n".encode())
    # What also stands in the test list is found out there.
    told = "testlist01.txt, line 1" if "g02" in line else f"{path.name}, line 5"
    with pytest.raises(ValueError, match=f"{told}.*{says}") as caught:
        datasets.load("ucf101", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_wrong_line_of_the_classes_is_named(tmp_path):
    small_ucf101(tmp_path)
    write(tmp_path / "ucfTrainTestlist/classInd.txt", "1 A\nB 2\n")
    with pytest.raises(
        ValueError, match=r"classInd\.txt, line 2 must be a num"
    ):
        datasets.load("ucf101", tmp_path)


# --- HMDB-51


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_splits_of_hmdb51_are_the_published_ones(annotations, tmp_path, fold):
    lists = annotations / "hmdb51"
    shutil.copytree(lists, tmp_path / "testTrainMulti_7030_splits")
    # Plainly: every line of every list, by its mark.
    marked = collections.defaultdict(set)
    for path in lists.glob(f"*_test_split{fold}.txt"):
        label = path.name.replace(f"_test_split{fold}.txt", "")
        for line in path.read_text().split("\n"):
            if line.strip():
                name, mark = line.split()
                marked[mark].add(f"videos/{label}/{name}")
                write(tmp_path / "videos" / label / name)
    assert [len(marked[mark]) for mark in "120"] == [3570, 1530, 1666]
    catalog = datasets.load("hmdb51", tmp_path, fold=fold)
    assert catalog.missing == ()
    for mark, split in (("1", "train"), ("2", "test")):
        paths = [v.path for v in catalog if v.split == split]
        assert len(paths) == len(set(paths))
        assert set(paths) == marked[mark]
        part = datasets.load("hmdb51", tmp_path, split, fold)
        assert [video.path for video in part] == paths
    assert len(catalog) == 5100
    assert all(video.path.split("/")[1] == video.labels[0] for video in catalog)
    assert groups_astride(catalog) == []
    catalog.save(tmp_path / "catalog.csv")
    assert open_catalog(tmp_path / "catalog.csv").videos == catalog.videos


def test_sources_of_hmdb51_are_shared_by_classes_as_its_module_says(
    annotations,
):
    shared_sources = []
    for fold in (1, 2, 3):
        sides = collections.defaultdict(set)
        for split in ("train", "test"):
            catalog = datasets.load(
                "hmdb51", annotations / "hmdb51", split, fold
            )
            for path in catalog.missing:
                label, name = path.split("/")
                sides[name[: name.rindex(f"_{label}_")]].add(split)
        shared_sources.append(sum(len(found) == 2 for found in sides.values()))
    assert shared_sources == [133, 149, 144]
    assert "133, 149 and 144 sources" in hmdb51.__doc__


def test_every_class_of_hmdb51_has_the_authors_type(annotations):
    names = (annotations / "hmdb51/class_list.txt").read_text().split()
    catalog = datasets.load("hmdb51", annotations / "hmdb51")
    assert catalog.classes == tuple(sorted(names))
    listed = [name for group in hmdb51.FAMILIES.values() for name in group]
    assert sorted(listed) == sorted(names)
    assert [len(group) for group in hmdb51.FAMILIES.values()] == [
        4,
        3,
        19,
        18,
        7,
    ]


def test_hmdb51_takes_what_is_there_and_leaves_the_unused(tmp_path):
    lists = tmp_path / "test_train_splits"
    write(
        lists / "kick_test_split2.txt",
        "Film_kick_ball_kick_f_cm_np1_fr_med_0.avi 1 \n"
        "Film_kick_f_cm_np1_fr_med_1.avi 0 \n"
        "Other_kick_f_cm_np1_fr_med_2.avi 2 \n",
    )
    write(
        lists / "kick_ball_test_split2.txt",
        "Film_kick_ball_f_cm_np1_fr_med_3.avi 2 \n",
    )
    name = "hmdb51_org/kick/Film_kick_ball_kick_f_cm_np1_fr_med_0.mp4"
    write(tmp_path / name)
    write(tmp_path / "hmdb51_org/kick/Film_kick_f_cm_np1_fr_med_1.avi")
    catalog = datasets.load("hmdb51", tmp_path, fold=2)
    assert list(catalog) == [
        Video(
            name,
            ("kick",),
            "kick/Film_kick_ball",
            "Body movements for human interaction",
            "train",
        )
    ]
    assert catalog.missing == (
        "hmdb51_org/kick/Other_kick_f_cm_np1_fr_med_2.avi",
        "hmdb51_org/kick_ball/Film_kick_ball_f_cm_np1_fr_med_3.avi",
    )
    assert catalog.classes == ("kick", "kick_ball")
    with pytest.raises(ValueError, match="must hold HMDB-51"):
        datasets.load("hmdb51", tmp_path, fold=1)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("Film_kick_f_cm_np1_fr_med_1.avi 3", "0, 1 or 2. Received: 'Film"),
        ("Film_kick_f_cm_np1_fr_med_1.avi", "0, 1 or 2"),
        ("../Film_kick_f_cm_np1_fr_med_1.avi 1", "must be <source>_kick_<"),
        ("/Film_kick_f_cm_np1_fr_med_1.avi 1", "must be <source>_kick_<"),
        ("Film_hug_f_cm_np1_fr_med_1.avi 1", "must be <source>_kick_<"),
        ("Film_kick_f_cm_np1_fr_med_0.avi 2", "a clip stands in a split"),
    ],
)
def test_a_wrong_line_of_hmdb51_is_named(tmp_path, line, says):
    path = write(
        tmp_path / "kick_test_split1.txt",
        f"Film_kick_f_cm_np1_fr_med_0.avi 1 \n{line}\n",
    )
    with pytest.raises(ValueError, match=f"^{path}, line 2.*{says}") as caught:
        datasets.load("hmdb51", tmp_path)
    assert "\n" not in str(caught.value)


# --- Sports-1M

LINK = "https://www.youtube.com/watch?v="


def small_sports1m(root, train, test=(), labels="a\nb\nc\n"):
    write(root / "labels.txt", labels)
    write(root / "original/train_partition.txt", "\n".join([*train, ""]))
    write(root / "original/test_partition.txt", "\n".join([*test, ""]))
    return root


def test_labels_of_sports1m_are_the_numbers_of_its_lines(annotations, tmp_path):
    text = (annotations / "sports-1m/labels.txt").read_text()
    # The line that the authors' README gives as an example.
    line = f"{LINK}UDqivjS-lpI 168,169"
    small_sports1m(tmp_path, [line], [f"{LINK}-abcdefghij 0,486"], text)
    write(tmp_path / "videos/a/UDqivjS-lpI.mkv")
    write(tmp_path / "videos/-abcdefghij.mp4")
    catalog = datasets.load("sports1m", tmp_path)
    names = text.split("\n")
    assert list(catalog) == [
        Video(
            "videos/a/UDqivjS-lpI.mkv", (names[168], names[169]), split="train"
        ),
        Video(
            "videos/-abcdefghij.mp4",
            ("boomerang", "model aircraft"),
            split="test",
        ),
    ]
    assert len(catalog.classes) == 487
    assert catalog.truth.sum() == 4


def test_topics_of_sports1m_are_those_of_its_labels(annotations):
    root = annotations / "sports-1m"
    topics = sports1m.topics(root)
    assert sorted(topics) == sorted(
        name for name in (root / "labels.txt").read_text().split("\n") if name
    )
    assert topics["hiking"] == "/m/012v4j"


def test_validation_of_sports1m_is_a_seeded_eighth_of_train(tmp_path):
    names = [f"{number:011d}" for number in range(803)]
    lines = [f"{LINK}{name} {int(name) % 3}" for name in names]
    root = small_sports1m(tmp_path, lines[:800], lines[800:])
    for name in names:
        write(root / "videos" / f"{name}.mp4")

    def held_out(**options):
        part = datasets.load("sports1m", root, "validation", **options)
        return {video.path for video in part}

    whole = datasets.load("sports1m", root)
    assert splits_of(whole) == {"train": 700, "validation": 100, "test": 3}
    first, other = held_out(), held_out(seed=1)
    assert first == {v.path for v in whole if v.split == "validation"}
    assert len(other) == 100
    # By chance an eighth of an eighth is shared.
    assert len(first & other) < 40
    small_sports1m(tmp_path, lines[799::-1], lines[800:])
    for name in names[::2]:
        (root / "videos" / f"{name}.mp4").unlink()
    assert held_out() == {p for p in first if int(p[7:-4]) % 2}


def test_videos_of_sports1m_that_are_gone_are_counted(tmp_path):
    lines = [f"{LINK}{number:011d} 1" for number in range(8)]
    small_sports1m(tmp_path, lines, [f"{LINK}gone_______ 2"])
    write(tmp_path / "videos/deep/00000000003.webm")
    write(tmp_path / "videos/unlisted.mp4")
    catalog = datasets.load("sports1m", tmp_path)
    assert [video.path for video in catalog] == ["videos/deep/00000000003.webm"]
    assert len(catalog.missing) == 8
    assert catalog.missing[-1] == "videos/gone_______.mp4"
    held_out = datasets.load("sports1m", tmp_path, "validation")
    assert len(held_out) + len(held_out.missing) == 1


def test_a_video_of_sports1m_is_one_row_and_never_trained_and_tested(tmp_path):
    train = [f"{LINK}aaaaaaaaaaa 0", f"{LINK}bbbbbbbbbbb 0"]
    train += ["http://www.youtube.com/watch?v=aaaaaaaaaaa&t=1s 2,0"]
    small_sports1m(tmp_path, train, [f"{LINK}bbbbbbbbbbb 1,1"])
    for name in "ab":
        write(tmp_path / f"videos/{name * 11}.mp4")
    catalog = datasets.load("sports1m", tmp_path)
    assert [(v.path[7], v.labels, v.split) for v in catalog] == [
        ("a", ("a", "c"), "train"),
        ("b", ("b",), "test"),
    ]


def test_partitions_of_sports1m_may_be_compressed(tmp_path):
    small_sports1m(tmp_path, [f"{LINK}aaaaaaaaaaa 0"])
    path = tmp_path / "original/train_partition.txt"
    packed = tmp_path / "train_partition.txt.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    catalog = datasets.load("sports1m", tmp_path)
    assert catalog.missing == ("aaaaaaaaaaa.mp4",)
    packed.unlink()
    with pytest.raises(ValueError, match=r"no original/train_partition\.txt"):
        datasets.load("sports1m", tmp_path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f"{LINK}aaaaaaaaaaa", "must be a link and numbers of labels"),
        (f"{LINK}aaaaaaaaaaa 1,", "must be a link and numbers of labels"),
        (f"{LINK}aaaaaaaaaaa -1", "must be a link and numbers of labels"),
        (f"{LINK}../../a 1", "must be a link and numbers of labels"),
        ("aaaaaaaaaaa 1", "must be a link and numbers of labels"),
        (f"{LINK}aaaaaaaaaaa 2,3", "labels must be below 3"),
    ],
)
def test_a_wrong_line_of_sports1m_is_named(tmp_path, line, says):
    small_sports1m(tmp_path, [f"{LINK}ccccccccccc 0", "", line])
    path = tmp_path / "original/train_partition.txt"
    with pytest.raises(ValueError, match=f"^{path}, line 3.*{says}") as caught:
        datasets.load("sports1m", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ["hiking", "/m/012v4j", "x,hiking", "/m/1,"])
def test_a_wrong_line_of_the_topics_is_named(tmp_path, line):
    path = write(tmp_path / "sports_mids.txt", f"/m/0,a b\n{line}\n")
    with pytest.raises(ValueError, match=f"^{path}, line 2 must be /m/<topic>"):
        sports1m.topics(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"but has no sports_mids\.txt"):
        sports1m.topics(tmp_path)


# --- Kinetics


@pytest.mark.parametrize(
    ("edition", "count", "repeated"), [(400, 19_906, 0), (600, 30_000, 6)]
)
def test_validation_lists_of_kinetics_are_the_published_ones(
    annotations, tmp_path, edition, count, repeated
):
    real = annotations / "kinetics" / f"kinetics-{edition}_val.csv"
    with open(real, newline="") as file:
        rows = list(csv.DictReader(file))
    named = collections.Counter(row["youtube_id"] for row in rows)
    assert sum(times > 1 for times in named.values()) == repeated
    catalog = datasets.load(
        "kinetics", annotations / "kinetics", "validation", edition=edition
    )
    assert len(catalog) == 0
    assert len(catalog.missing) == count == len(rows)
    suffix = "" if edition == 400 else "_600"
    labels = annotations / "kinetics" / f"label_map{suffix}.txt"
    assert list(catalog.classes) == labels.read_text().splitlines()
    # A thousand of them present, by the names that crawlers give.
    write(tmp_path / "val.csv", real.read_text())
    for row in rows[:1000]:
        start, end = int(row["time_start"]), int(row["time_end"])
        folder = row["label"].replace(" ", "_") if start % 2 else row["label"]
        name = f"{row['youtube_id']}_{start:06d}_{end:06d}.mp4"
        write(tmp_path / "val" / folder / name)
    catalog = datasets.load("kinetics", tmp_path, edition=edition)
    assert [(v.group, v.labels) for v in catalog] == [
        (row["youtube_id"], (row["label"],)) for row in rows[:1000]
    ]
    assert all(v.start is v.end is None for v in catalog)
    assert splits_of(catalog) == {"validation": 1000}
    assert len(catalog.missing) == count - 1000
    catalog.save(tmp_path / "catalog.csv")
    assert open_catalog(tmp_path / "catalog.csv").videos == catalog.videos


def small_kinetics(root, edition=600):
    place = root / "annotations"
    write(
        place / f"kinetics-{edition}_train.csv",
        "\ufefflabel,youtube_id,time_start,time_end,split\r\n"
        '"tying knot (not on a tie)",-aaaaaaaaaa,3,13,train\r\n'
        "abseiling,bbbbbbbbbbb,0,10,train\r\n"
        "abseiling,bbbbbbbbbbb,20,30,train\r\n"
        "abseiling,bbbbbbbbbbb,20,30,train\r\n"
        "abseiling,ccccccccccc,1,11,train\r\n",
    )
    write(
        place / f"kinetics-{edition}_val.csv",
        "label,youtube_id,time_start,time_end,split,is_cc\n"
        "zumba,ccccccccccc,41.0,51.0,val,1\n"
        "zumba,ddddddddddd,0,10,val,0\n",
    )
    write(root / "train/-aaaaaaaaaa_000003_000013.mp4")
    write(root / "whole/bbbbbbbbbbb.mkv")
    write(root / "train/abseiling/bbbbbbbbbbb_000020_000030.mp4")
    write(root / "whole/ccccccccccc.webm")
    return root


def test_clips_of_kinetics_are_cut_files_or_parts_of_whole_videos(tmp_path):
    small_kinetics(tmp_path)
    catalog = datasets.load("kinetics", tmp_path, edition=600)
    assert list(catalog) == [
        Video(
            "train/-aaaaaaaaaa_000003_000013.mp4",
            ("tying knot (not on a tie)",),
            "-aaaaaaaaaa",
            split="train",
        ),
        Video(
            "whole/bbbbbbbbbbb.mkv",
            ("abseiling",),
            "bbbbbbbbbbb",
            split="train",
            start=0.0,
            end=10.0,
        ),
        Video(
            "train/abseiling/bbbbbbbbbbb_000020_000030.mp4",
            ("abseiling",),
            "bbbbbbbbbbb",
            split="train",
        ),
        # One id in two splits: a group on either side.
        Video(
            "whole/ccccccccccc.webm",
            ("abseiling",),
            "train/ccccccccccc",
            split="train",
            start=1.0,
            end=11.0,
        ),
        Video(
            "whole/ccccccccccc.webm",
            ("zumba",),
            "validation/ccccccccccc",
            split="validation",
            start=41.0,
            end=51.0,
        ),
    ]
    assert catalog.missing == ("val/ddddddddddd_000000_000010.mp4",)
    assert groups_astride(catalog) == []
    part = datasets.load("kinetics", tmp_path, "validation", edition=600)
    assert list(part) == list(catalog)[-1:]
    assert part.classes == catalog.classes
    assert list(part.classes) == sorted(part.classes)


def test_a_split_of_kinetics_without_labels_is_refused(tmp_path):
    small_kinetics(tmp_path, 700)
    path = tmp_path / "annotations/kinetics-700_test.csv"
    with pytest.raises(ValueError, match=r"but has no test\.csv\. Expected"):
        datasets.load("kinetics", tmp_path, "test", edition=700)
    for text in (
        "youtube_id,time_start,time_end,split\nddddddddddd,0,10,test\n",
        "label,youtube_id,time_start,time_end,split\n,ddddddddddd,0,10,test\n",
    ):
        write(path, text)
        with pytest.raises(ValueError, match=f"^{path} has no labels: .*test"):
            datasets.load("kinetics", tmp_path, "test", edition=700)
        catalog = datasets.load("kinetics", tmp_path, edition=700)
        assert splits_of(catalog) == {"train": 4, "validation": 1}


def test_lists_of_another_edition_are_refused(annotations, tmp_path):
    text = (annotations / "kinetics/kinetics-600_val.csv").read_text()
    write(tmp_path / "validate.csv", text)
    with pytest.raises(ValueError, match="name 600 classes. .*edition=400"):
        datasets.load("kinetics", tmp_path)
    assert len(datasets.load("kinetics", tmp_path, edition=600).missing)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("abseiling,aaaaaaaaaaa,0", "must have the 5 fields label,youtube_id,"),
        ("abseiling,aaaaaaaaaaa,0,x,train", "must have a label, a YouTube id"),
        ("abseiling,aaaaaaaaaaa,nan,10,train", "must have a label, a YouTube"),
        ("abseiling,aaaaaaaaaaa,10,10,train", "must have a label, a YouTube"),
        ("abseiling,aaaaaaaaaaa,-1,10,train", "must have a label, a YouTube"),
        (",aaaaaaaaaaa,0,10,train", "must have a label, a YouTube id"),
        ("abseiling,../../a,0,10,train", "must have a label, a YouTube id"),
        ("abseiling,/etc/passwd,0,10,train", "must have a label, a YouTube"),
        ("abseiling,,0,10,train", "must have a label, a YouTube id"),
    ],
)
def test_a_wrong_line_of_kinetics_is_named(tmp_path, line, says):
    path = write(
        tmp_path / "train.csv",
        "label,youtube_id,time_start,time_end,split\r\n"
        f"abseiling,bbbbbbbbbbb,0,10,train\r\n{line}\r\n",
    )
    with pytest.raises(ValueError, match=f"^{path}, line 3 {says}") as caught:
        datasets.load("kinetics", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_list_of_kinetics_without_its_columns_is_named(tmp_path):
    path = write(tmp_path / "train.csv", "youtube_id,time_start,time_end\n")
    with pytest.raises(ValueError, match=f"^{path}, line 1 must name the colu"):
        datasets.load("kinetics", tmp_path)


def test_data_sets_are_named_without_loading_numpy():
    """The command line names them; its `--help` does not wait for arrays."""
    code = (
        "import importlib.util as u, sys\n"
        "s = u.find_spec('keras_videofusion')\n"
        "sys.modules['keras_videofusion'] = u.module_from_spec(s)\n"
        "from keras_videofusion.datasets import DATASETS\n"
        "sys.exit('numpy' in sys.modules or not DATASETS)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert done.returncode == 0

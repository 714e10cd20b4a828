"""Catalogs: what is read, what is refused, and how groups are split."""

import collections
import os

import numpy as np
import pytest

from keras_videofusion.data.catalog import Catalog, open_catalog, Video


def csv_catalog(tmp_path, text, **options):
    path = tmp_path / "rows.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_catalog(path, **options)


def folder_of(tmp_path, *names):
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def grouped(rows, classes=None):
    """A catalog of (group, label) pairs."""
    videos = tuple(
        Video(f"{i}.mp4", tuple(label.split(";")), group=group)
        for i, (group, label) in enumerate(rows)
    )
    found = {name for video in videos for name in video.labels}
    return Catalog(videos, tuple(classes or sorted(found)), ".")


def groups_by_split(catalog):
    found = collections.defaultdict(set)
    for video in catalog:
        found[video.split].add(video.group or video.path)
    return found


# Folders.


def test_a_folder_per_class_is_sorted_and_hidden_names_are_passed_over(
    tmp_path,
):
    folder_of(
        tmp_path, "run/b.mp4", "run/a.AVI", "run/deep/c.webm", "jump/z.gif",
        "run/.hidden.mp4", "run/.cache/d.mp4", ".trash/e.mp4", "run/notes.txt",
        "loose.mp4",
    )  # fmt: skip

    catalog = open_catalog(tmp_path)

    assert [video.path for video in catalog] == [
        "jump/z.gif", "run/a.AVI", "run/b.mp4", "run/deep/c.webm",
    ]  # fmt: skip
    assert catalog.classes == ("jump", "run")
    assert [video.labels for video in catalog][:2] == [("jump",), ("run",)]
    assert catalog.file(catalog[0]) == str(tmp_path / "jump/z.gif")


def test_labels_csv_wins_over_the_folders(tmp_path):
    folder_of(tmp_path, "run/a.mp4", "run/b.mp4")
    (tmp_path / "labels.csv").write_text("path,label\nrun/b.mp4,walk\n")
    catalog = open_catalog(str(tmp_path))
    assert [(v.path, v.labels) for v in catalog] == [("run/b.mp4", ("walk",))]


def test_links_that_lead_back_are_walked_once(tmp_path):
    folder_of(tmp_path / "data", "run/a.mp4")
    os.symlink(".", tmp_path / "data/run/loop")
    assert len(open_catalog(tmp_path / "data")) == 1


def test_links_to_folders_are_followed_if_asked(tmp_path):
    folder_of(tmp_path / "data", "run/a.mp4")
    folder_of(tmp_path / "far", "b.mp4")
    os.symlink(tmp_path / "far", tmp_path / "data/run/far")
    paths = [
        [
            video.path
            for video in open_catalog(tmp_path / "data", follow_links=f)
        ]
        for f in (True, False)
    ]
    assert paths == [["run/a.mp4", "run/far/b.mp4"], ["run/a.mp4"]]


def test_a_folder_without_videos_says_what_was_expected(tmp_path):
    folder_of(tmp_path, "run/notes.txt", "loose.mp4")
    with pytest.raises(
        ValueError, match=r"no videos found in .*folder of videos"
    ):
        open_catalog(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_catalog(tmp_path / "nowhere")


# CSV.


def test_every_column_is_read(tmp_path):
    (video,) = csv_catalog(
        tmp_path,
        "path,label,group,family,split,start,end\n"
        "a/b.mp4,run;jump,g1,sports,train,1.5,3\n",
    )
    assert video == Video(
        "a/b.mp4", ("run", "jump"), "g1", "sports", "train", 1.5, 3.0
    )


def test_columns_may_stand_in_any_order_and_fields_may_be_empty(tmp_path):
    (video,) = csv_catalog(
        tmp_path, "label,end,path,group,start\nrun,,a.mp4,,\n"
    )
    assert video == Video("a.mp4", ("run",))


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfpath,label\r\na.mp4,run\r\nb.mp4,jump\r\n",
        b"path,label\n\na.mp4,run\n\nb.mp4,jump",
        b"path , label\n a.mp4 , run\n b.mp4, jump \n",
        b'"path","label"\n"a.mp4", "run"\n"b.mp4","jump"\n',
        b"path,label\na.mp4,run; run ;\nb.mp4,;jump\n",
    ],
    ids=["bom-crlf", "blank-lines", "spaces", "quotes", "repeated-labels"],
)
def test_spellings_of_the_same_rows(tmp_path, text):
    catalog = csv_catalog(tmp_path, text)
    assert [(v.path, v.labels) for v in catalog] == [
        ("a.mp4", ("run",)),
        ("b.mp4", ("jump",)),
    ]


def test_quoted_commas_and_letters_of_all_kinds(tmp_path):
    (video,) = csv_catalog(
        tmp_path, 'path,label\n"größe, 1.mp4","läuft, schnell"\n'
    )
    assert video == Video("größe, 1.mp4", ("läuft, schnell",))


def test_a_missing_file_is_no_error_yet(tmp_path):
    assert len(csv_catalog(tmp_path, "path,label\nnowhere.mp4,run\n")) == 1


HEAD = "path,label,split,start,end\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"must begin with a line of columns.*an empty file"),
        ("path,label\n", r"has no rows"),
        ("a.mp4,run\n", r"must begin .*path,label.*Received: a.mp4,run"),
        ("path;label\na;b\n", r"Received: path;label"),
        ("path,label,colour\na,b,c\n", r"Received: path,label,colour"),
        ("path,label,label\na,b,c\n", r"names a column twice"),
        (HEAD + "a,run,,,\nb,run,,\n", r"line 3 must have as many fields"),
        (HEAD + "a,run,,,,9\n", r"line 2 must have as many fields"),
        (HEAD + ",run,,,\n", r"line 2 has no path"),
        (HEAD + "a, ;,,,\n", r"line 2 has no label"),
        (HEAD + "a,run,,x,\n", r"line 2: `start` must be seconds.*'x'"),
        (HEAD + "a,run,,-1,\n", r"`start` must be seconds"),
        (HEAD + "a,run,,nan,\n", r"`start` must be seconds"),
        (HEAD + "a,run,,,inf\n", r"`end` must be seconds"),
        (HEAD + "a,run,,2,1\n", r"`end` must be after `start`"),
        (HEAD + "a,run,,,0\n", r"`end` must be after `start`"),
        (b"\x00\x00\x00\x18ftypmp42", r"not a CSV file"),
        ("x" * 200_000, r"not a CSV file"),
        (HEAD + "x" * 200_000 + ",run,,,\n", r"is not CSV"),
    ],
)  # fmt: skip
def test_bad_files_are_one_line_that_names_them(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        csv_catalog(tmp_path, text)
    assert str(tmp_path / "rows.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_group_in_two_splits_is_refused(tmp_path):
    text = "path,label,group,split\na,run,g,train\nb,run,h,test\nc,run,g,test\n"
    with pytest.raises(ValueError, match=r"straddle.*group='g'.*train.*test"):
        csv_catalog(tmp_path, text)


def test_classes_may_be_another_catalogs(tmp_path):
    text = "path,label\na,run\nb,jump\n"
    catalog = csv_catalog(tmp_path, text, classes=("run", "swim", "jump"))
    np.testing.assert_array_equal(catalog.truth, [[1, 0, 0], [0, 0, 1]])
    with pytest.raises(ValueError, match=r"b has a label.*'jump'"):
        csv_catalog(tmp_path, text, classes=("run",))


def test_saved_catalogs_read_back_the_same(tmp_path):
    text = (
        "path,label,group,family,split,start,end\n"
        '"a, ""b"".mp4",run;jump,g1,sports,train,0.1,3\n'
        "größe.mp4,run,,,test,,\n"
    )
    first = csv_catalog(tmp_path, text)
    first.save(tmp_path / "again.csv")
    again = open_catalog(tmp_path / "again.csv")
    assert again == first
    names = sorted(place.name for place in tmp_path.iterdir())
    assert names == ["again.csv", "rows.csv"]


def test_saving_leaves_out_columns_that_no_row_uses(tmp_path):
    csv_catalog(tmp_path, "path,label,group\na,run,\n").save(tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text() == "path,label\na,run\n"


def test_names_that_are_not_utf8_survive(tmp_path):
    catalog = csv_catalog(tmp_path, b"path,label\na\xff.mp4,run\n")
    catalog.save(tmp_path / "again.csv")
    assert os.fsencode(open_catalog(tmp_path / "again.csv")[0].path) == (
        b"a\xff.mp4"
    )


# Groups read off the path.


def test_a_pattern_reads_the_group_off_the_path(tmp_path):
    text = "path,label,group\nrun/v_g01_c1.avi,run,x\nrun/v_g02_c1.avi,run,x\n"
    first = csv_catalog(tmp_path, text, group_pattern=r"_(g\d+)_")
    whole = csv_catalog(tmp_path, text, group_pattern=r"v_g\d+")
    assert [video.group for video in first] == ["g01", "g02"]
    assert [video.group for video in whole] == ["v_g01", "v_g02"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [(r"seq\d+", r"does not match a.mp4"), ("(", "is no regular expression")],
)
def test_patterns_that_do_not_work_are_named(tmp_path, pattern, message):
    with pytest.raises(ValueError, match=message):
        csv_catalog(tmp_path, "path,label\na.mp4,run\n", group_pattern=pattern)


# Arrays.


def test_truth_and_targets_of_several_labels(tmp_path):
    catalog = grouped([("g", "a;c"), ("g", "b"), ("h", "c")])
    np.testing.assert_array_equal(
        catalog.truth, [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    )
    np.testing.assert_array_equal(
        catalog.targets, [[0.5, 0, 0.5], [0, 1, 0], [0, 0, 1]]
    )
    assert catalog.truth.dtype == bool
    assert catalog.targets.dtype == np.float32


def test_where_keeps_the_classes():
    catalog = Catalog(
        (Video("a", ("x",), split="train"), Video("b", ("y",), split="test")),
        ("x", "y"),
        ".",
    )
    assert [v.path for v in catalog.where("test")] == ["b"]
    assert catalog.where("test").classes == ("x", "y")
    assert not len(catalog.where("validation"))


# Splits.


def assert_split(catalog, cut, split="test"):
    """No group straddles, rows keep their order, both sides have a class."""
    assert [v.path for v in cut] == [v.path for v in catalog]
    sides = groups_by_split(cut)
    assert not sides[split] & sides[None]
    truth = cut.truth
    held = np.array([v.split == split for v in cut])
    for column in truth.T:
        members = {
            v.group or v.path
            for v, true in zip(cut, column, strict=True)
            if true
        }
        if len(members) > 1:
            assert 0 < column[held].sum() < column.sum()
    return held.mean()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_ungrouped_videos_are_held_out_class_by_class(share, seed):
    catalog = grouped([(None, c) for c in "abc" for _ in range(20)])
    held = assert_split(catalog, catalog.hold_out(share, seed))
    assert held == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("seed", range(5))
def test_small_classes_are_on_both_sides(seed):
    rows = [(None, "many")] * 60 + [(None, "few")] * 2 + [(None, "one")]
    assert_split(grouped(rows), grouped(rows).hold_out(0.1, seed))


@pytest.mark.parametrize("seed", range(5))
def test_large_groups_are_held_out_rather_than_none_of_a_class(seed):
    rows = [(f"b{i // 10}", "b") for i in range(20)]
    rows += [(None, "a") for _ in range(40)]
    cut = grouped(rows).hold_out(0.1, seed)
    assert_split(grouped(rows), cut)
    np.testing.assert_array_equal(cut.where("test").truth.sum(0), [4, 10])


@pytest.mark.parametrize("seed", range(8))
def test_groups_of_unlike_sizes_come_near_the_share(seed):
    random = np.random.default_rng(seed)
    rows = [
        (f"g{group}", label)
        for group in range(30)
        for label in random.choice(list("abcd"), random.integers(1, 9))
    ]
    cut = grouped(rows).hold_out(0.25, seed)
    assert assert_split(grouped(rows), cut) == pytest.approx(0.25, abs=0.04)


def test_the_seed_decides_and_nothing_else():
    catalog = grouped([(None, c) for c in "abc" for _ in range(20)])
    cuts = [catalog.hold_out(0.2, seed) for seed in (1, 1, 2)]
    assert cuts[0] == cuts[1]
    assert cuts[0] != cuts[2]


def test_other_rows_keep_their_split():
    catalog = grouped([(str(i), "a") for i in range(10)])
    cut = catalog.hold_out(0.3, 0, "test").hold_out(0.2, 1, "validation")
    assert set(groups_by_split(cut)) <= {"test", "validation", None}


def test_segments_of_a_file_belong_together():
    videos = tuple(
        Video(f"{file}.mp4", (label,), start=s, end=s + 1)
        for file in range(6)
        for s, label in enumerate("abc")
    )
    cut = Catalog(videos, ("a", "b", "c"), ".").hold_out(0.3)
    for part in zip(*[iter(cut)] * 3, strict=True):
        assert len({video.split for video in part}) == 1


@pytest.mark.parametrize("share", [0, 1, -0.5, 2])
def test_shares_out_of_range_are_refused(share):
    with pytest.raises(ValueError, match=r"`share` must be between 0 and 1"):
        grouped([("a", "x"), ("b", "x")]).hold_out(share)


def test_one_group_cannot_be_split():
    with pytest.raises(ValueError, match=r"two groups or more.*1 group of 3"):
        grouped([("g", "x")] * 3).hold_out(0.5)


# Folds.


def test_consecutive_groups_make_the_folds_by_number_not_by_letter():
    catalog = grouped([(f"seq{i}", c) for c in "ab" for i in range(1, 11)])
    held = [sorted(groups_by_split(f)["test"]) for f in catalog.folds(5)]
    assert held == [
        ["seq1", "seq2"], ["seq3", "seq4"], ["seq5", "seq6"],
        ["seq7", "seq8"], ["seq10", "seq9"],
    ]  # fmt: skip


@pytest.mark.parametrize("count", [2, 3, 5])
def test_folds_of_a_folder_per_class_hold_every_class(count):
    catalog = grouped([(None, c) for c in "abc" for _ in range(10)])
    for fold in catalog.folds(count):
        held = fold.where("test")
        assert (held.truth.sum(0) >= 10 // count).all()
        assert (fold.where("train").truth.sum(0) > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_folds_share_out_the_groups(seed):
    random = np.random.default_rng(seed)
    rows = [
        (f"{label}{group}", label)
        for label in "abcd"
        for group in range(6)
        for _ in range(random.integers(1, 6))
    ]
    folds = grouped(rows).folds(3)
    held = [groups_by_split(fold)["test"] for fold in folds]
    assert sum(map(len, held)) == len(set.union(*held)) == 24
    for fold in folds:
        sides = groups_by_split(fold)
        assert not sides["test"] & sides["train"]
        share = fold.where("test").truth.sum(0) / fold.truth.sum(0)
        assert share.min() > 0.1
        assert share.max() < 0.6


@pytest.mark.parametrize("count", [1, 4])
def test_more_folds_than_groups_are_refused(count):
    with pytest.raises(ValueError, match=rf"folds must be 2 to 3.*{count}"):
        grouped([(g, "x") for g in "abc"]).folds(count)


def test_ut_interaction_has_five_folds_of_two_sequences(shared):
    folder = shared / "data" / "ut-interaction-set1"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    catalog = open_catalog(folder)
    for number, fold in enumerate(catalog.folds(5)):
        held = fold.where("test")
        assert {video.group for video in held} == {
            f"seq{2 * number + 1:02d}", f"seq{2 * number + 2:02d}",
        }  # fmt: skip
        assert (held.truth.sum(0) >= 1).all()
        assert len(held) + len(fold.where("train")) == 60


def test_ut_interaction_holds_out_whole_sequences(shared):
    folder = shared / "data" / "ut-interaction-set1"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    cut = open_catalog(folder).hold_out(0.2, seed=0)
    held = cut.where("test")
    assert len({video.group for video in held}) == 2
    assert (held.truth.sum(0) >= 1).all()


def test_truth_of_some_rows_is_those_rows_of_the_truth():
    catalog = Catalog(
        (
            Video("a.mp4", ("y", "x")),
            Video("b.mp4", ("z",)),
            Video("c.mp4", ("x",)),
        ),
        ("x", "y", "z"),
        "root",
    )

    assert catalog.truth_of([2, 0]).tolist() == [[1, 0, 0], [1, 1, 0]]
    assert catalog.target(0).tolist() == [0.5, 0.5, 0.0]
    assert catalog.target(1).dtype == np.float32


def test_what_is_missing_stays_known_through_every_cut():
    catalog = Catalog(
        tuple(Video(f"{n}.mp4", ("x",), f"g{n}") for n in range(4)),
        ("x",),
        "root",
        ("gone.mp4",),
    )

    cut = catalog.hold_out(0.5).where("test")

    assert cut.missing == ("gone.mp4",)
    assert catalog.folds(2)[0].missing == ("gone.mp4",)
    assert catalog.with_classes(("x", "y")).missing == ("gone.mp4",)

"""Hostile files and tables end as clips, as rows, or as one clear line."""

import os
import threading
import time
from pathlib import Path

import hostile
import numbered
import numpy as np
import pytest
from hypothesis import given, settings, strategies

from keras_videofusion.data import video as module
from keras_videofusion.data.catalog import Catalog, open_catalog, Video
from keras_videofusion.data.check import check
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.video import (
    decode,
    read_clips,
    time_limit,
    timeline,
    VideoError,
)

FILES, SEED = 150, 7
SPEC = ClipSpec(4, resize=("square", 32), size=32)


def most_memory():
    """Megabytes, the most since last asked; also forgets it."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return int(line.split()[1]) / 1e3


def outcome(path, spec=SPEC, **options):
    """ "clips", or what is wrong; anything else is raised."""
    try:
        clips, times = read_clips(path, spec, "uniform", 2, **options)
    except VideoError as error:
        return error.reason
    assert clips.shape == (2, 4, 32, 32, 3)
    assert clips.dtype == np.uint8
    assert np.isfinite(times).all()
    return "clips"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Names and contents of whole files, one of each container."""
    folder = tmp_path_factory.mktemp("whole")
    kinds = {
        "a.mp4": {"b_frames": 2},
        "fast.mov": {"container_options": {"movflags": "faststart"}},
        "old.avi": {"codec": "mpeg4"},
        "b.mkv": {"b_frames": 2},
        "c.webm": {"codec": "libvpx-vp9"},
        "d.gif": {"codec": "gif", "pixels": "rgb8"},
        "e.ts": {},
    }
    for name, options in kinds.items():
        numbered.draw(folder / name, frames=24, **options)
    return [(name, (folder / name).read_bytes()) for name in kinds]


@pytest.fixture(scope="module")
def mutants(clips, tmp_path_factory):
    """The folder of `FILES` hostile files."""
    folder = tmp_path_factory.mktemp("mutants")
    for number in range(FILES):
        _, data, name = hostile.mutant(clips, SEED, number)
        Path(os.path.join(folder, os.fsdecode(name))).write_bytes(data)
    return folder


def test_mutated_files_are_clips_or_named_skips(mutants):
    most_memory()
    begin = most_memory()
    found = []
    for name in os.listdir(mutants):
        started = time.thread_time()
        found.append(outcome(mutants / name))
        assert time.thread_time() - started < 20, name

    assert len(found) == FILES
    assert not any("\n" in told for told in found)
    assert 20 < found.count("clips") < FILES - 20
    assert most_memory() - begin < 500


def test_an_index_that_lies_is_no_worse_than_packets(mutants, monkeypatch):
    monkeypatch.setattr(module, "_LONG", 1)
    monkeypatch.setattr(module, "_remembered", module._Remembered(0))
    names = [n for n in os.listdir(mutants) if n.endswith((".mp4", ".mov"))]

    found = [outcome(mutants / name) for name in names]

    assert len(found) > 20
    assert 0 < found.count("clips") < len(found)


def test_mutated_files_are_rows_and_no_worker_is_lost(mutants):
    rows = list(check(mutants, 2))

    assert len(rows) == FILES
    assert {row["path"] for row in rows} == set(os.listdir(mutants))
    assert 5 < sum(row["ok"] for row in rows) < FILES // 2
    for row in rows:
        assert row["ok"] == (row["error"] is None)
        assert "\n" not in (row["error"] or "")
        assert "crashed" not in (row["error"] or "")
        for key in ("rate", "seconds"):
            assert row[key] is None or np.isfinite(row[key])


def test_the_same_seed_makes_the_same_files(clips):
    assert hostile.mutant(clips, 3, 5) == hostile.mutant(clips, 3, 5)
    assert hostile.mutant(clips, 3, 5) != hostile.mutant(clips, 4, 5)


def test_odd_files_are_read_or_refused_at_once_and_in_little_memory(tmp_path):
    # A frame of 9,000 x 9,000 pixels takes 243 MB as RGB.
    readable = hostile.draw_odd(tmp_path, largest=9000)
    most_memory()
    begin = most_memory()

    found = {name: outcome(tmp_path / name) for name in readable}

    # 200 wide it would be too tall, 32 wide it is not.
    readable["thread.avi"] = True
    assert {
        name: reason == "clips" for name, reason in found.items()
    } == readable
    assert most_memory() - begin < 240
    assert {row["path"]: row["ok"] for row in check(tmp_path)} == readable


@pytest.mark.parametrize(
    ("number", "pixels", "refused"),
    [(64 * 128, 64 * 128, False), (64 * 128, 64 * 128 - 1, True)],
)
def test_frames_of_too_many_pixels_are_refused(
    number, pixels, refused, tmp_path, monkeypatch
):
    path = numbered.draw(tmp_path / "a.mp4")
    monkeypatch.setattr(module, "MAX_PIXELS", pixels)

    if refused:
        with pytest.raises(VideoError, match="128 x 64 pixels"):
            timeline(path)
    else:
        assert len(timeline(path)) == 40


def test_a_frame_that_grows_behind_a_modest_head_is_refused(
    tmp_path, monkeypatch
):
    # The container tells 64 x 64, the pictures are larger.
    path = Path(numbered.draw(tmp_path / "a.gif", "gif", pixels="rgb8"))
    monkeypatch.setattr(module, "MAX_PIXELS", 64 * 128 - 1)

    with pytest.raises(VideoError):
        timeline(path)


def test_a_frame_resized_beyond_all_bounds_is_refused(tmp_path):
    hostile.paint(tmp_path / "thin.avi", "mjpeg", 16_000, 1)

    assert decode(tmp_path / "thin.avi", [0]).shape == (1, 16_000, 1, 3)
    with pytest.raises(VideoError, match="200 x 3200000 pixels"):
        decode(tmp_path / "thin.avi", [0], ("short_side", 200))
    with pytest.raises(VideoError, match="200 x 3200000 pixels"):
        read_clips(tmp_path / "thin.avi", ClipSpec(1), "centre")


def test_more_frames_than_can_be_kept_are_refused(tmp_path, monkeypatch):
    path = numbered.draw(tmp_path / "a.mp4")
    monkeypatch.setattr(module, "MAX_FRAMES", 39)

    with pytest.raises(VideoError, match="more than 39 frames"):
        timeline(path)


def test_a_file_that_claims_to_last_for_years_is_refused(tmp_path):
    # Two frames, thirty years apart.
    path = numbered.draw(tmp_path / "a.mkv", frames=2, milliseconds=[0, 10**12])

    assert outcome(path) == "clips"
    spec = ClipSpec(4, fps=25.0, resize=("square", 32), size=32)
    assert outcome(path, spec) == "it claims to last 1000000000 seconds"


@pytest.mark.parametrize("name", ["a.mp4", "b.avi"])
def test_reading_ends_when_its_time_is_up(name, tmp_path, monkeypatch):
    codec = "mpeg4" if name == "b.avi" else "libx264"
    path = numbered.draw(tmp_path / name, codec, frames=200, gop=200)
    frames = timeline(path)
    monkeypatch.setattr(module, "time_limit", lambda size: -1.0)

    with pytest.raises(VideoError, match="took more than"):
        list(module.decoded_frames(path, frames, np.array([199])))
    os.utime(path)
    with pytest.raises(VideoError, match="took more than"):
        timeline(path)


def test_time_spent_on_frames_is_not_the_files(tmp_path, monkeypatch):
    path = numbered.draw(tmp_path / "a.mp4", frames=100)
    frames = timeline(path)
    monkeypatch.setattr(module, "time_limit", lambda size: 0.5)
    seen = 0
    for _ in module.decoded_frames(path, frames, np.arange(100)):
        end = time.thread_time() + 0.01
        while time.thread_time() < end:
            pass
        seen += 1

    assert seen == 100


def test_large_files_may_take_longer():
    assert time_limit(0) == 60
    assert time_limit(10**6) == 80


def test_a_file_that_grows_while_it_is_read(tmp_path):
    whole = Path(numbered.draw(tmp_path / "whole.ts", frames=200)).read_bytes()
    path = tmp_path / "growing.ts"
    path.write_bytes(whole[: len(whole) // 10])
    done = threading.Event()

    def grow():
        with open(path, "ab", 0) as file:
            for begin in range(len(whole) // 10, len(whole), 500):
                file.write(whole[begin : begin + 500])
                time.sleep(0.005)
        done.set()

    writer = threading.Thread(target=grow)
    writer.start()
    found = []
    while not done.is_set():
        found.append(outcome(path))
    writer.join()

    assert outcome(path) == "clips"
    assert len(timeline(path)) == 200
    assert len(found) > 3


def test_a_file_that_is_another_by_the_time_it_is_opened(tmp_path, clips):
    path = tmp_path / "a.mp4"
    for _, data in clips:
        path.write_bytes(clips[0][1])
        frames = timeline(path)
        path.write_bytes(data)
        try:
            found = list(
                module.decoded_frames(str(path), frames, np.arange(24))
            )
        except VideoError as error:
            found = error.reason
        assert isinstance(found, str) or len(found) == 24


def test_long_videos_do_not_crowd_the_memory(tmp_path):
    kept = module._Remembered(100)
    paths = [
        numbered.draw(tmp_path / f"{number}.mp4", frames=20)
        for number in range(4)
    ]
    asked = []

    def find(path):
        asked.append(path)
        return timeline(path)

    # 20 frames and 32 for the rest: one stays beside the newest at most.
    for path in (*paths, paths[3], paths[0]):
        kept(find, path)

    assert asked == [*paths, paths[0]]
    assert len(kept.kept) == 1


# Tables.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na,run\nb,run\na,run\n", "line 4 says the same as line 2"),
        ("path,label\na,run;hop\n\n a , run ; hop ;\n", "line 4 says the same"),
        (
            "path,label,start,end\na,run,0,1\na,run,1,2\na,run,0.0,1.0\n",
            "line 4 says the same as line 2. Received: a$",
        ),
        ("path,label,split\na,run,train\na,hop,test\n", "a file must not "
         "straddle a split. Received: path='a' in 'train' and 'test'$"),
        ("path,label\n\"a\nb\",run\nc\n", "line 4 must have as many fields"),
        ('path,label\n"a,run\n', "line 2 must have as many fields"),
        ("path,label\na,run,\n", "line 2 must have as many fields"),
        ("label\nrun\n", "must begin with .*path,label.* Received: label$"),
        ("path,label,start\na,run,NaN\n", "line 2: `start` must be seconds"),
        ("path,label,end\na,run,1e999\n", "line 2: `end` must be seconds"),
        ("path,label,end\na,run,-0.5\n", "line 2: `end` must be seconds"),
    ],
)  # fmt: skip
def test_hostile_tables_are_one_line_with_the_rows_number(
    text, message, tmp_path
):
    path = tmp_path / "rows.csv"
    path.write_text(text)

    with pytest.raises(ValueError, match=message) as caught:
        open_catalog(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_table_in_utf_16_says_so(encoding, tmp_path):
    (tmp_path / "rows.csv").write_text("\ufeffpath,label\na,b\n", encoding)

    with pytest.raises(ValueError, match="is written in UTF-16: save it as"):
        open_catalog(tmp_path / "rows.csv")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_way(end, tmp_path):
    rows = "path,label,group", "a.mp4,run;hop,g", '"b,c.mp4","hop",', ""
    (tmp_path / "rows.csv").write_bytes(end.join(rows).encode("utf-8-sig"))

    assert list(open_catalog(tmp_path / "rows.csv")) == [
        Video("a.mp4", ("run", "hop"), "g"),
        Video("b,c.mp4", ("hop",)),
    ]


def test_absolute_and_climbing_paths_are_the_users_own(tmp_path, clips):
    (tmp_path / "lists").mkdir()
    data = clips[0][1]
    for name in ("beside.mp4", "lists/here.mp4", "far.mp4"):
        (tmp_path / name).write_bytes(data)
    rows = tmp_path / "lists" / "rows.csv"
    names = ["../beside.mp4", "here.mp4", f"{tmp_path}/far.mp4"]
    rows.write_text("path,label\n" + "".join(f"{n},x\n" for n in names))

    catalog = open_catalog(rows)

    assert [video.path for video in catalog] == names
    assert all(outcome(catalog.file(video)) == "clips" for video in catalog)


# Surrogates stand for bytes that are no text; others no name can hold.
LETTERS = strategies.characters(
    exclude_categories=["Cs"], exclude_characters="\0"
)
ODD = (" a", "a ", "\ta", '"', '""', "a\nb", "\r", "a,b", "'", "\u2028", "-",
       "é\udcff")  # fmt: skip
NAMES = strategies.text(
    LETTERS, min_size=1, max_size=20
) | strategies.sampled_from(ODD)
LABELS = NAMES.map(lambda name: name.replace(";", ":"))
SECONDS = strategies.none() | strategies.floats(0, 1e6)


@given(
    strategies.lists(
        strategies.tuples(NAMES, LABELS, NAMES, SECONDS),
        min_size=1,
        max_size=5,
        unique_by=lambda row: row[0],
    )
)
@settings(max_examples=150, deadline=None)
def test_any_names_come_back_as_they_went(tmp_path_factory, rows):
    videos = tuple(
        Video(path, (label,), group, start=start)
        for path, label, group, start in rows
    )
    classes = tuple(sorted({label for _, label, _, _ in rows}))
    folder = tmp_path_factory.getbasetemp()
    catalog = Catalog(videos, classes, str(folder))

    catalog.save(folder / "any.csv")

    assert open_catalog(folder / "any.csv") == catalog


def test_a_label_that_would_become_two_is_not_saved(tmp_path):
    catalog = Catalog((Video("a", ("x;y",)),), ("x;y",), str(tmp_path))

    with pytest.raises(ValueError, match=r"must not hold \";\".*'x;y'"):
        catalog.save(tmp_path / "rows.csv")

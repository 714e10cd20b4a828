"""What `check` says of whole, broken and odd files."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numbered
import numpy as np
import pytest
from test_frames import draw

from keras_videofusion.data import check as module
from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.data.check import check, quarantine, sources

WORKER = module._WORKER
KEYS = ["path", "ok", "frames", "height", "width", "rate", "seconds", "error"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole file of 40 frames, 128 x 64."""
    folder = tmp_path_factory.mktemp("whole")
    return numbered.draw(folder / "whole.mp4", b_frames=2)


def only(folder, **options):
    """The one row of a folder with one video."""
    (row,) = check(folder, **options)
    return row


def test_whole_files_are_ok_with_frames_size_rate_and_seconds(whole):
    row = only(whole)

    assert list(row) == KEYS
    assert row == {
        "path": "whole.mp4",
        "ok": True,
        "frames": 40,
        "height": 64,
        "width": 128,
        "rate": 25.0,
        "seconds": 1.6,
        "error": None,
    }
    assert [type(row[key]) for key in KEYS[1:7]] == [
        bool, int, int, int, float, float,
    ]  # fmt: skip


def test_the_whole_tree_is_looked_through_in_order(whole, tmp_path):
    names = ["b/deep/er/x.mp4", "a.MP4", "b/y.Mov", "b/no.txt", ".hidden.mp4",
             ".hidden/z.mp4", "b/mp4", "é ü.mkv"]  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(whole, tmp_path / name)
    done = []

    rows = list(check(tmp_path, workers=3, progress=done.append))

    found = [row["path"] for row in rows]
    assert found == sorted(["a.MP4", "b/deep/er/x.mp4", "b/y.Mov", "é ü.mkv"])
    assert all(row["ok"] for row in rows)
    assert done == [1, 2, 3, 4]


def test_links_are_followed_and_circles_end(whole, tmp_path):
    (tmp_path / "data" / "inner").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copy(whole, outside / "far.mp4")
    shutil.copy(whole, tmp_path / "data" / "near.mp4")
    links = {
        "link.mp4": whole,
        "folder": outside,
        "inner/up": "..",
        "dangling.avi": "nowhere",
        "circle.mkv": "circle.mkv",
    }
    for name, target in links.items():
        os.symlink(target, tmp_path / "data" / name)

    rows = {row["path"]: row for row in check(tmp_path / "data")}

    assert sorted(rows) == [
        "circle.mkv", "dangling.avi", "folder/far.mp4", "link.mp4", "near.mp4",
    ]  # fmt: skip
    assert rows["folder/far.mp4"]["ok"]
    assert rows["link.mp4"]["ok"]
    assert rows["dangling.avi"]["error"] == "no such file"
    assert not rows["circle.mkv"]["ok"]


def test_odd_things_with_a_videos_name_are_told_of(whole, tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    shutil.copy(whole, tmp_path / "folder.mp4" / "inside.mp4")
    os.symlink("/dev/zero", tmp_path / "zeros.avi")

    rows = {row["path"]: row for row in check(tmp_path)}

    assert rows["pipe.mp4"]["error"] == "not a file but a special file"
    assert rows["zeros.avi"]["error"] == "not a file but a special file"
    assert rows["folder.mp4"]["error"] == "not a file but a folder"
    assert rows["folder.mp4/inside.mp4"]["ok"]
    assert len(rows) == 4


def test_names_that_are_not_text_come_as_surrogate_escapes(whole, tmp_path):
    name = b"bad\xff\xfe.mp4"
    try:
        shutil.copy(whole, os.path.join(os.fsencode(tmp_path), name))
    except OSError:
        pytest.skip("this file system takes only text for names")

    row = only(tmp_path)

    assert row["path"] == os.fsdecode(name)
    assert row["ok"]
    assert row["frames"] == 40


def sound(path):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=44100)
        silence = np.zeros((1, 4410), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, "fltp", "mono")
        frame.sample_rate = 44100
        file.mux(stream.encode(frame))
        file.mux(stream.encode())


def no_frames(path):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        file.start_encoding()


def no_decoder(path):
    numbered.draw(path, "mpeg4")
    numbered.retag(path, b"FMP4", b"ZZQ9")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("empty.mp4", lambda path: path.write_bytes(b"")),
        ("text.mp4", lambda path: path.write_text("a film\n" * 99)),
        ("text.avi", lambda path: path.write_text("a film\n" * 99)),
        ("noise.mkv", lambda path: path.write_bytes(bytes(range(256)) * 99)),
        ("sound.mp4", sound),
        ("no_frames.avi", no_frames),
        ("no_decoder.avi", no_decoder),
    ],
)
def test_what_is_no_video_is_one_line(name, make, tmp_path):
    make(tmp_path / name)

    row = only(tmp_path)

    assert not row["ok"]
    assert row["path"] == name
    assert row["error"]
    assert "\n" not in row["error"]
    assert str(tmp_path) not in row["error"]
    assert not row["frames"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.avi", {"codec": "mpeg4"}),
        ("b.avi", {"codec": "mpeg4", "b_frames": 2}),
        ("x.mp4", {}),
        ("fast.mp4", {"container_options": {"movflags": "faststart"}}),
        ("x.mkv", {"b_frames": 2}),
        ("x.flv", {}),
        ("x.webm", {"codec": "libvpx-vp9"}),
    ],
)
def test_files_that_break_off_are_not_ok(name, options, tmp_path):
    path = tmp_path / name
    numbered.draw(path, **options)
    assert only(tmp_path)["ok"]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])

    row = only(tmp_path)

    assert not row["ok"]
    assert "\n" not in row["error"]
    if row["frames"] is not None:
        assert 0 < row["frames"] < 40
        assert (row["height"], row["width"]) == (64, 128)


@pytest.mark.parametrize(
    ("name", "place", "options"),
    [
        ("x.avi", 0.75, {"codec": "mpeg4"}),
        ("x.mp4", 0.4, {}),
        ("x.mkv", 0.5, {"b_frames": 2}),
    ],
)
def test_files_with_a_hole_are_not_ok_and_tell_what_decodes(
    name, place, options, tmp_path
):
    path = tmp_path / name
    numbered.draw(path, **options)
    data = bytearray(path.read_bytes())
    begin = int(place * len(data))
    for place in range(begin, begin + 300):
        data[place] ^= 0x5A
    path.write_bytes(data)

    row = only(tmp_path)

    assert not row["ok"]
    assert "\n" not in row["error"]
    assert 0 < row["frames"] <= 40


def test_workers_give_the_same_rows(whole, tmp_path):
    for number in range(7):
        shutil.copy(whole, tmp_path / f"{number}.mp4")
    (tmp_path / "3.mp4").write_bytes(b"x")

    assert list(check(tmp_path, workers=1)) == list(check(tmp_path, workers=4))


def test_an_empty_folder_has_no_rows(tmp_path):
    assert list(check(tmp_path)) == []


def test_a_csv_file_names_the_files_to_check_each_once(whole, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "lists").mkdir()
    for name in ("a.mp4", "b.mp4", "far/c.mp4"):
        shutil.copy(whole, tmp_path / name)
    listed = tmp_path / "lists" / "some.csv"
    listed.write_text(
        "path,label,start,end\n../b.mp4,x,0,1\n../b.mp4,x,1,1.5\n"
        f"{tmp_path}/far/c.mp4,y,,\n../gone.mp4,y,,\n"
    )

    rows = list(check(listed))

    assert [(row["path"], row["ok"]) for row in rows] == [
        ("../b.mp4", True),
        (f"{tmp_path}/far/c.mp4", True),
        ("../gone.mp4", False),
    ]
    assert rows == list(check(open_catalog(listed)))
    assert sources(listed).root == str(tmp_path / "lists")


def test_a_folder_of_images_is_checked_image_by_image(tmp_path):
    for name in "abc":
        for number in range(3):
            width = 6 if (name, number) == ("c", 1) else 8
            picture = np.zeros((6, width, 3), np.uint8)
            draw(tmp_path / "x" / name / f"{number}.png", picture)
    (tmp_path / "x" / "b" / "2.png").write_bytes(b"\x89PNG and no more")
    listed = tmp_path / "frames.csv"
    listed.write_text("path,label\nx/a,x\nx/b,x\nx/c,x\n")

    rows = list(check(listed))

    assert [(row["ok"], row["frames"]) for row in rows] == [
        (True, 3), (False, 2), (False, 1)
    ]  # fmt: skip
    assert rows[1]["error"].startswith("2.png: ")
    assert "1.png is 6 x 6 pixels" in rows[2]["error"]


@pytest.fixture
def workers_do(monkeypatch):
    """Lets worker processes run some lines before they decode a file."""

    def patch(lines):
        body = "".join(f"    {line}\n" for line in lines.splitlines())
        monkeypatch.setattr(
            module,
            "_WORKER",
            WORKER.replace(
                "serve()",
                "import keras_videofusion.data.check as check, os, time\n"
                "decode = check._checked\n"
                f"def before(root, name):\n{body}"
                "    return decode(root, name)\n"
                "check._checked = before\nserve()",
            ),
        )

    return patch


def test_what_kills_a_worker_is_a_row_and_the_others_go_on(
    whole, tmp_path, workers_do
):
    names = ["a.mp4", "crash.mp4", "end.mp4", "hang.mp4", "hoard.mp4", "z.mp4"]
    for name in names:
        shutil.copy(whole, tmp_path / name)
    workers_do(
        "if name == 'crash.mp4': os.kill(os.getpid(), 11)\n"
        "if name == 'end.mp4': os._exit(3)\n"
        "if name == 'hang.mp4': time.sleep(600)\n"
        "if name == 'hoard.mp4': bytearray(8 << 30)"
    )
    begin = time.monotonic()

    rows = {row["path"]: row for row in check(tmp_path, 2, seconds=3)}

    assert list(rows) == names
    assert time.monotonic() - begin < 60
    assert [name for name in names if rows[name]["ok"]] == ["a.mp4", "z.mp4"]
    assert rows["crash.mp4"]["error"] == "its decoder crashed (SIGSEGV)"
    assert rows["end.mp4"]["error"] == "its decoder crashed (exit status 3)"
    assert rows["hang.mp4"]["error"] == "decoding it took more than 3 seconds"
    assert "memory" in rows["hoard.mp4"]["error"]


def test_a_worker_that_dies_of_something_else_costs_no_file(
    whole, tmp_path, workers_do
):
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(whole, tmp_path / name)
    once = tmp_path / "once"
    workers_do(
        f"if name == 'b.mp4' and not os.path.exists({str(once)!r}):\n"
        f"    open({str(once)!r}, 'w').close()\n"
        "    os.kill(os.getpid(), 9)"
    )

    assert all(row["ok"] for row in check(tmp_path, 1))
    assert once.exists()


def test_workers_that_do_not_start_are_no_broken_files(
    whole, tmp_path, monkeypatch
):
    shutil.copy(whole, tmp_path / "a.mp4")
    monkeypatch.setattr(module, "_WORKER", "import sys; sys.exit(5)")

    with pytest.raises(RuntimeError, match="does not start: exit status 5"):
        list(check(tmp_path))


def test_workers_are_renewed_and_give_the_same_rows(
    whole, tmp_path, monkeypatch
):
    for number in range(5):
        shutil.copy(whole, tmp_path / f"{number}.mp4")
    before = list(check(tmp_path, 1))
    monkeypatch.setattr(module, "_FILES_EACH", 2)

    assert list(check(tmp_path, 1)) == before


def test_work_that_is_given_up_leaves_no_process(whole, tmp_path, workers_do):
    for number in range(4):
        shutil.copy(whole, tmp_path / f"{number}.mp4")
    workers_do(
        f"open(os.path.join({str(tmp_path)!r}, str(os.getpid())), 'w').close()"
        "\nif name > '1': time.sleep(600)"
    )
    rows = check(tmp_path, 2)
    next(rows)
    begin = time.monotonic()

    rows.close()

    assert time.monotonic() - begin < 30
    for name in os.listdir(tmp_path):
        if name.isdigit():
            assert not os.path.exists(f"/proc/{name}")


@pytest.fixture
def decoded(tmp_path, workers_do):
    """Names of the files that workers decoded since last asked."""
    log = tmp_path / "log"
    workers_do(f"print(name, file=open({str(log)!r}, 'a'))")

    def names():
        found = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return sorted(found)

    return names


def test_what_was_found_is_remembered_until_a_file_changes(
    whole, tmp_path, decoded
):
    data, cache = tmp_path / "data", tmp_path / "cache.jsonl"
    data.mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        shutil.copy(whole, data / name)
    (data / "c.mp4").write_bytes(b"no film")
    first = list(check(data, cache=cache))
    assert decoded() == ["a.mp4", "b.mp4", "c.mp4"]

    assert list(check(data, cache=cache)) == first
    assert decoded() == []

    # Of the same size, and the time of change set back: still another file.
    times = os.stat(data / "b.mp4")
    (data / "b.mp4").write_bytes(bytes(times.st_size))
    os.utime(data / "b.mp4", ns=(times.st_atime_ns, times.st_mtime_ns))
    rows = list(check(data, cache=cache))
    assert decoded() == ["b.mp4"]
    assert [row["ok"] for row in rows] == [True, False, False]


def test_a_line_that_was_being_written_is_found_again(whole, tmp_path, decoded):
    data, cache = tmp_path / "data", tmp_path / "cache.jsonl"
    data.mkdir()
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(whole, data / name)
    first = list(check(data, 1, cache=cache))
    decoded()
    written = cache.read_bytes()
    line = len(written) // 2
    for end, known in ((-40, 1), (line + 1, 1), (line, 1), (line // 2, 0)):
        cache.write_bytes(written[:end])

        assert list(check(data, 1, cache=cache)) == first
        assert len(decoded()) == 2 - known
        assert list(check(data, 1, cache=cache)) == first
        assert decoded() == []


def test_a_file_that_had_too_little_time_may_have_more(
    whole, tmp_path, workers_do
):
    data, cache = tmp_path / "data", tmp_path / "cache.jsonl"
    data.mkdir()
    shutil.copy(whole, data / "slow.mp4")
    workers_do("time.sleep(2)")

    assert not only(data, seconds=0.5, cache=cache)["ok"]
    workers_do("pass")
    assert not only(data, seconds=0.5, cache=cache)["ok"]
    assert only(data, seconds=60, cache=cache)["ok"]
    assert only(data, seconds=0.5, cache=cache)["ok"]


def test_a_run_that_was_killed_goes_on_where_it_was(whole, tmp_path, decoded):
    data, cache = tmp_path / "data", tmp_path / "cache.jsonl"
    data.mkdir()
    for number in range(40):
        shutil.copy(whole, data / f"{number:02}.mp4")
    code = (
        "from keras_videofusion.data.check import check\n"
        f"list(check({str(data)!r}, 1, cache={str(cache)!r}))"
    )
    alone = WORKER.replace(
        "from keras_videofusion.data.check import serve\nserve()", code
    )
    with subprocess.Popen(
        [sys.executable, "-c", alone, str(Path(module.__file__).parents[2])]
    ) as process:
        while not cache.exists() or cache.read_bytes().count(b"\n") < 5:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    known = cache.read_bytes().count(b"\n")

    rows = list(check(data, 1, cache=cache))

    assert 5 <= known < 40
    assert len(decoded()) == 40 - known
    assert len(rows) == 40
    assert all(row["ok"] for row in rows)
    assert len({json.dumps(row) for row in rows}) == 40


@pytest.fixture
def spoilt(whole, tmp_path):
    """A data set with whole and broken files, links and odd things."""
    data = tmp_path / "data"
    (data / "in" / "folder.mp4").mkdir(parents=True)
    (tmp_path / "else").mkdir()
    shutil.copy(whole, data / "in" / "good.mp4")
    (data / "in" / "bad, so.mp4").write_bytes(b"bad")
    (data / "bad.mp4").write_bytes(b"also bad")
    (tmp_path / "else" / "far.mp4").write_bytes(b"elsewhere")
    os.symlink("../else", data / "there")
    os.symlink("nowhere", data / "dangling.avi")
    os.mkfifo(data / "pipe.mp4")
    return data


def tree(folder):
    return sorted(
        os.path.relpath(os.path.join(here, name), folder)
        for here, _, names in os.walk(folder)
        for name in names
    )


@pytest.mark.parametrize("far", [False, True], ids=["near", "far"])
def test_broken_files_move_with_their_tree_and_their_reasons(
    spoilt, tmp_path, far, monkeypatch
):
    if far:
        # As between file systems.
        def rename(path, target):
            raise OSError(module.errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(module.os, "rename", rename)
    rows = list(check(spoilt))
    away = tmp_path / "away"

    moved = dict(quarantine(spoilt, rows, away))

    gone = {"bad.mp4", "dangling.avi", "in/bad, so.mp4"}
    if not far:
        gone.add("pipe.mp4")
    assert {path for path, kept in moved.items() if kept is None} == gone
    assert set(tree(away)) == {*gone, "quarantine.csv"}
    assert moved["in/folder.mp4"] == "it is a folder"
    assert moved["there/far.mp4"] == f"it does not lie in {spoilt}"
    assert (away / "in" / "bad, so.mp4").read_bytes() == b"bad"
    assert os.readlink(away / "dangling.avi") == "nowhere"
    assert (tmp_path / "else" / "far.mp4").exists()
    left = {"in/good.mp4"} | ({"pipe.mp4"} if far else set())
    assert set(tree(spoilt)) == left
    with open(away / "quarantine.csv", newline="") as file:
        told = {row["path"]: row["error"] for row in csv.DictReader(file)}
    assert told == {
        row["path"]: row["error"] for row in rows if row["path"] in gone
    }


def test_a_quarantine_writes_nothing_over(spoilt, tmp_path):
    away = tmp_path / "away"
    for text in (b"1", b"2", b"3"):
        (spoilt / "bad.mp4").write_bytes(text)
        list(quarantine(spoilt, check(spoilt), away))

    assert [
        (away / name).read_bytes()
        for name in ("bad.mp4", "bad-2.mp4", "bad-3.mp4")
    ] == [b"1", b"2", b"3"]
    with open(away / "quarantine.csv", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["path"] == "bad.mp4"]
    assert [row["file"] for row in rows] == [
        "bad.mp4", "bad-2.mp4", "bad-3.mp4"
    ]  # fmt: skip


def test_a_dry_run_moves_nothing(spoilt, tmp_path):
    before = tree(spoilt)

    moved = dict(
        quarantine(spoilt, check(spoilt), tmp_path / "away", dry_run=True)
    )

    assert moved["bad.mp4"] is None
    assert tree(spoilt) == before
    assert not (tmp_path / "away").exists()


def test_a_quarantine_amid_the_data_is_refused(spoilt):
    with pytest.raises(ValueError, match="outside of the data"):
        list(quarantine(spoilt, [], spoilt / "away"))
    rows = list(check(spoilt))
    list(quarantine(spoilt, rows, spoilt / ".away"))
    assert (spoilt / ".away" / "bad.mp4").exists()
    left = {row["path"] for row in check(spoilt) if not row["ok"]}
    assert left == {"in/folder.mp4", "there/far.mp4"}


def test_the_command_moves_nothing_unless_asked(spoilt, tmp_path, capsys):
    from keras_videofusion import cli

    def call(*words):
        return cli.run(cli.parse(["check", str(spoilt), *map(str, words)]))

    before = tree(spoilt)
    away = tmp_path / "away"
    assert call() == 1
    assert call("--quarantine", away, "--dry-run") == 1
    assert "would move bad.mp4\n" in capsys.readouterr().out
    assert tree(spoilt) == before
    assert call("--dry-run") == 2
    capsys.readouterr()

    assert call("--quarantine", away, "--json", "-") == 1
    told = capsys.readouterr()
    assert len(json.loads(told.out)) == 7
    assert "moved bad.mp4\n" in told.err
    assert "left in/folder.mp4: it is a folder\n" in told.err
    assert (away / "bad.mp4").exists()


def test_the_command_checks_a_data_set_by_its_name(whole, tmp_path, capsys):
    from keras_videofusion import cli

    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 ApplyEyeMakeup\n")
    name = "ApplyEyeMakeup/v_ApplyEyeMakeup_g0{}_c01.avi"
    (lists / "trainlist01.txt").write_text(name.format(1) + " 1\n")
    (lists / "testlist01.txt").write_text(name.format(2) + "\n")
    for number in (1, 2, 3):
        path = tmp_path / "UCF-101" / name.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(whole, path)

    words = ["check", "ucf101", "--root", str(tmp_path), "--json", "-"]
    status = cli.run(cli.parse(words))

    assert status == 0
    rows = json.loads(capsys.readouterr().out)
    # The third is in no list.
    assert [row["path"] for row in rows] == [
        f"UCF-101/{name.format(number)}" for number in (1, 2)
    ]


def test_the_command_sums_up(whole, tmp_path, capsys):
    from keras_videofusion import cli

    for number in range(3):
        shutil.copy(whole, tmp_path / f"{number}.mp4")
        (tmp_path / f"bad{number}.avi").write_bytes(bytes(number))

    status = cli.run(cli.parse(["check", str(tmp_path), "--workers", "1"]))

    assert status == 1
    *broken, hours, kinds, sizes, rates, reasons, last = (
        capsys.readouterr().out.splitlines()
    )
    assert [line.split(":")[0] for line in broken] == [
        f"BROKEN bad{number}.avi" for number in range(3)
    ]
    assert hours == "0.00 hours, 120 frames"
    assert kinds == "kinds: 3 of .mp4"
    assert sizes == "sizes: 3 of 128x64"
    assert rates == "rates: 3 of 25"
    assert reasons.startswith("reasons: 2 of ")
    assert "1 of the file is empty" in reasons
    assert last == "6 videos, 3 broken"


# From the inventory of the shared folder: frames, height, width.
INVENTORY = {
    "c3d/v_ApplyEyeMakeup_g01_c01.avi": (164, 240, 320),
    "c3d/v_BaseballPitch_g01_c01.avi": (107, 240, 320),
    "decord/flipping_a_pancake.mkv": (310, 240, 426),
    "decord/video_0.mov": (3, 320, 568),
    "decord/video_180.mov": (3, 320, 568),
    "decord/video_270.mov": (3, 568, 320),
    "decord/video_90.mov": (3, 568, 320),
    "gluoncv/action_basketball_demo.gif": (24, 240, 320),
    "imageio/newtonscradle.gif": (36, 150, 200),
    "imageio/realshort.mp4": (36, 240, 320),
    "intel-asl-gestures/again.mkv": (77, 480, 640),
    "intel-asl-gestures/bird.mkv": (63, 480, 640),
    "intel-asl-gestures/book.mkv": (109, 480, 640),
    "intel-asl-gestures/brother.mkv": (65, 480, 640),
    "intel-asl-gestures/eat.mkv": (47, 480, 640),
    "intel-asl-gestures/help.mkv": (58, 480, 640),
    "intel-asl-gestures/hungry.mkv": (49, 480, 640),
    "intel-asl-gestures/learn.mkv": (61, 480, 640),
    "intel-asl-gestures/milk.mkv": (51, 480, 640),
    "intel-asl-gestures/night.mkv": (68, 480, 640),
    "mmaction2/demo.mp4": (280, 256, 340),
    "mmaction2/test.mp4": (300, 256, 340),
    "tfio/small.mp4": (166, 320, 560),
    "torchcodec/av1_video.mkv": (125, 360, 640),
    "torchcodec/h264_10bits.mp4": (30, 200, 200),
    "torchcodec/h265_video.mp4": (10, 128, 128),
}


def test_real_files_have_their_true_frames_and_size(shared):
    rows = {row["path"]: row for row in check(shared / "data" / "clips")}

    broken = rows.pop("decord/corrupted.mp4")
    assert not broken["ok"]
    assert "Invalid data" in broken["error"]
    assert {
        path: (row["frames"], row["height"], row["width"])
        for path, row in rows.items()
    } == INVENTORY
    assert all(row["ok"] for row in rows.values())

"""The command: statuses, streams, files, one line per mistake."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from keras_videofusion import cli, datasets
from keras_videofusion.version import __version__

ROOT = Path(__file__).parents[1]
SMALL = [
    "--width",
    "0.02",
    "--size",
    "40",
    "--batch",
    "8",
    "--epochs",
    "1",
    "--learning-rate",
    "1e-4",
]


def call(*words):
    """Runs a verb in this process."""
    return cli.run(cli.parse([str(word) for word in words]))


def door(*words):
    """Runs the command's own door in a process of its own."""
    return subprocess.run(
        [sys.executable, str(ROOT / "videofusion.py"), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def run(shapes_folder, tmp_path_factory):
    """A small run, trained by the command and evaluated; read only."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert call("train", shapes_folder, "--run", folder, *SMALL) == 0
    assert call("evaluate", folder, "--clips", 2) == 0
    return folder


VERBS = [verb.__name__.rpartition(".")[2] for verb in cli.VERBS]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples(verb, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.parse([verb, "--help"])
    assert exit.value.code == 0
    assert (
        f"videofusion {verb}" in capsys.readouterr().out.split("examples:")[1]
    )


def test_version_and_wrong_words_answer_without_keras():
    code = (
        "import sys; sys.argv = ['videofusion', *{words!r}]\n"
        "import videofusion\n"
        "try: videofusion.main()\n"
        "except SystemExit as e: status = e.code\n"
        "loaded = {{'keras', 'tensorflow', 'numpy'}} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "sys.exit(status)"
    )
    for words, status in (
        (["--version"], 0),
        (["train", "--help"], 0),
        (["train", "x", "--run", "r", "--colour", "red"], 2),
        (["fly"], 2),
        ([], 2),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code.format(words=words)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        if words == ["--version"]:
            assert done.stdout == f"videofusion {__version__}\n"


def test_the_door_and_the_module_do_the_same(tmp_path):
    for command in (
        [str(ROOT / "videofusion.py")],
        ["-m", "keras_videofusion"],
    ):
        done = subprocess.run(
            [sys.executable, *command, "check", str(tmp_path / "nothing")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        told = [x for x in done.stderr.splitlines() if "videofusion:" in x]
        assert told == [
            f"videofusion: no such file or folder: {tmp_path / 'nothing'}"
        ]


def test_train_evaluate_predict_report(run, shapes_folder, tmp_path, capsys):
    out = tmp_path / "metrics.json"
    assert call("evaluate", run, "--clips", 1, "--json", out) == 0
    metrics = json.loads(out.read_text())
    assert {
        "clip_hit_at_1",
        "video_hit_at_1",
        "video_hit_at_5",
        "mean_average_precision",
        "videos",
        "clips",
        "skipped",
        "per_class",
        "per_family",
    } == set(metrics)
    assert metrics["videos"] == metrics["clips"] == 8
    assert "video Hit@1" in capsys.readouterr().out

    video = next(shapes_folder.rglob("*.mp4"))
    assert call("predict", run, video, "--clips", 1, "--json", "-") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["path"] == str(video)
    assert row["error"] is None
    assert sum(p["score"] for p in row["predictions"]) == pytest.approx(
        1, abs=1e-4
    )

    assert call("predict", run, video, "--clips", 1, "--every", 0.4) == 0
    assert "0.0 to 0.4 s" in capsys.readouterr().out

    page = tmp_path / "page"
    assert call("report", run, "--out", page) == 0
    assert (page / "report.html").is_file()


def test_predict_tells_of_a_broken_file_and_goes_on(
    run, shapes_folder, tmp_path, capsys
):
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    good = next(shapes_folder.rglob("*.mp4"))
    status = call("predict", run, broken, good, "--clips", 1, "--json", "-")
    first, second = json.loads(capsys.readouterr().out)
    assert status == 1
    assert first["error"]
    assert first["predictions"] == []
    assert second["error"] is None


def test_resume_needs_nothing_but_the_folder(run, capsys):
    assert call("train", "--resume", "--run", run) == 0
    assert "has finished" in capsys.readouterr().out


def test_overwrite_and_resume_exclude_each_other():
    with pytest.raises(SystemExit) as exit:
        cli.parse(["train", "d", "--run", "r", "--resume", "--overwrite"])
    assert exit.value.code == 2


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["train", "nowhere", "--run", "{tmp}/r"], 2, "no such folder"),
        (["train", "--run", "{tmp}/r"], 2, "train needs DATA"),
        (["train", "{data}", "--run", "{run}", *SMALL], 1, "holds a run"),
        (
            ["train", "{data}", "--run", "{tmp}/r", "--model", "fast"],
            2,
            "--model must be one of",
        ),
        (
            ["train", "{data}", "--run", "{tmp}/r", "--batch", "0"],
            2,
            "`batch` must be 1 or more",
        ),
        (
            ["train", "{data}", "--run", "{tmp}/r", "--size", "5", *SMALL[:2]],
            1,
            "Input size must be at least",
        ),
        (["train", "{tmp}", "--run", "{tmp}/r"], 2, "no videos found"),
        (["evaluate", "nowhere"], 1, "MODEL must be"),
        (["evaluate", "{run}", "{data}", "--split", "train"], 1, "trained on"),
        (["predict", "{run}", "x.mp4", "--every", "0"], 2, "--every must be"),
        (["report", "{tmp}", "--out", "{tmp}/o"], 1, "not a run's folder"),
        (["check", "nowhere"], 2, "no such file or folder"),
        (["benchmark", "--model", "fast"], 2, "--model must be one of"),
    ],
)
def test_a_mistake_is_one_line_and_a_status(
    words, status, told, run, shapes_folder, tmp_path, capsys
):
    words = [
        word.format(tmp=tmp_path, run=run, data=shapes_folder) for word in words
    ]
    assert call(*words) == status
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_check_tells_and_counts(shapes_folder, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(shapes_folder, data)
    assert call("check", data) == 0
    assert capsys.readouterr().out.endswith("28 videos, 0 broken\n")
    os.mkfifo(data / "pipe.MP4")
    (data / "bad.avi").write_bytes(b"RIFF")
    assert call("check", data, "--json", "-") == 1
    rows = {r["path"]: r for r in json.loads(capsys.readouterr().out)}
    assert len(rows) == 30
    assert not rows["pipe.MP4"]["ok"]
    assert not rows["bad.avi"]["ok"]


@pytest.mark.slow
def test_models_lists_what_there_is(capsys):
    assert call("models", "--json", "-") == 0
    rows = json.loads(capsys.readouterr().out)
    slow = next(row for row in rows if row["name"] == "slow_fusion")
    assert slow == {
        "name": "slow_fusion",
        "parameters": 75_511_751,
        "macs": 4_588_786_176,
        "frames": 10,
        "size": [170, 170],
        "weights": [],
    }


def test_benchmark_names_the_bottleneck(shapes_folder, capsys):
    words = [
        "--width",
        "0.02",
        "--batch",
        "2",
        "--steps",
        "1",
        "--task",
        "infer",
    ]
    assert call("benchmark", *words, "--pipeline", shapes_folder) == 0
    out = capsys.readouterr().out
    assert "is the bottleneck" in out
    assert call("benchmark", *words, "--json", "-") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert {"name", "task", "clips_per_second"} <= set(row)
    assert row["clips_per_second"] > 0


def test_flow_is_computed_named_and_not_computed_again(
    shapes_folder, tmp_path, capsys
):
    pytest.importorskip(
        "cv2", reason="needs pip install 'keras-videofusion[flow]'"
    )
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(shapes_folder / "up", data / "up")
    (data / "up/scene0001.mp4").write_bytes(b"no video")
    assert call("flow", data, out, "--json", tmp_path / "rows.json") == 1
    told = capsys.readouterr()
    assert "skipped up/scene0001.mp4: " in told.err
    assert (
        "7 videos: 6 computed, 0 stood there, 1 broken; 138 fields" in told.out
    )
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["ok"] for row in rows].count(False) == 1
    (data / "up/scene0001.mp4").unlink()
    assert call("flow", data, out) == 0
    assert "6 videos: 0 computed, 6 stood there" in capsys.readouterr().out
    assert call("flow", data, out, "--method", "farneback") == 1
    assert "--overwrite" in capsys.readouterr().err
    assert call("flow", tmp_path / "nothing", out) == 2


def test_flow_of_a_list_is_that_of_its_files(shapes_folder, tmp_path):
    pytest.importorskip(
        "cv2", reason="needs pip install 'keras-videofusion[flow]'"
    )
    table = shapes_folder / "labels.csv"
    lines = table.read_text().splitlines()[:3]
    chosen = tmp_path / "chosen.csv"
    rows = [f"{shapes_folder}/{line}" for line in lines[1:]]
    chosen.write_text("\n".join([lines[0], *rows]) + "\n")
    assert call("flow", chosen, tmp_path / "out") == 0
    assert len(list((tmp_path / "out").rglob("*.flow"))) == 2


def test_networks_of_flow_go_through_the_same_verbs(
    shapes_folder, shapes_flow, tmp_path, capsys
):
    run = tmp_path / "run"
    words = ["train", shapes_folder, "--run", run, "--model", "temporal_stream"]
    small = ["--width", 0.03, "--size", 48, "--batch", 8, "--epochs", 1]
    assert call(*words, *small) == 1
    assert "videofusion flow DATA OUT" in capsys.readouterr().err
    assert call(*words, *small, "--flow", shapes_flow) == 0
    assert call("evaluate", run, "--clips", 1, "--json", tmp_path / "m") == 0
    assert json.loads((tmp_path / "m").read_text())["videos"] == 8
    assert call("train", "--resume", "--run", run) == 0
    video = next(shapes_folder.rglob("*.mp4"))
    capsys.readouterr()
    for flow in ([], ["--flow", "dis"], ["--flow", shapes_flow]):
        words = ["predict", run, video, "--clips", 1, "--json", "-", *flow]
        assert call(*words) == 0
    told = capsys.readouterr().out
    first, second, third = json.loads(f"[{told.replace(chr(10) + '[', ',[')}]")
    assert first == second == third


def test_methods_offered_are_those_there_are(capsys):
    from keras_videofusion.data.flow import METHODS

    with pytest.raises(SystemExit):
        cli.parse(["flow", "--help"])
    assert "{" + ",".join(METHODS) + "}" in capsys.readouterr().out


def test_a_published_data_set_is_trained_on_by_its_name(
    ucf101, tmp_path, capsys
):
    run = tmp_path / "run"
    words = ["--root", ucf101, "--data-option", "fold=2", "--run", run]

    assert call("train", "ucf101", *words, "--validation-split", 0, *SMALL) == 0

    rows = (run / "catalog.csv").read_text().splitlines()
    held = [row for row in rows if row.endswith("test")]
    assert len(held) == 2
    assert all("_g02_" in row for row in held)
    told = capsys.readouterr().err
    assert "2 of 8 videos are not there" in told
    assert "v_Archery_g04_c01" in told
    assert len((run / "missing.txt").read_text().splitlines()) == 2


def test_a_data_set_is_found_below_the_folder_one_stands_in(
    ucf101, monkeypatch
):
    monkeypatch.chdir(ucf101.parent)

    catalog = datasets.load("ucf101", ucf101.name)

    assert len(catalog) == 6
    assert all(Path(catalog.file(video)).is_file() for video in catalog)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ucf101"], "ucf101 needs --root"),
        (["ucf101", "--root", "."], "UCF-101/"),
        (["youtube8m", "--root", "."], "prepare youtube8m OUT --root ."),
        (["ucf102", "--root", "."], "--root and --data-option go with"),
        (["{}", "--data-option", "fold=2"], "--root and --data-option go with"),
        (["ucf101", "--root", "{}", "--data-option", "fold=4"], "fold=4"),
        (["ucf101", "--root", "{}", "--data-option", "edition=4"], "edition=4"),
    ],
)
def test_a_data_set_that_is_not_so_is_one_line(
    ucf101, tmp_path, capsys, words, said
):
    words = [word.replace("{}", str(ucf101)) for word in words]

    assert call("train", *words, "--run", tmp_path / "run") > 0

    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert said in told
    assert not (tmp_path / "run").exists()


def test_shards_that_cannot_feed_a_network_leave_no_run_behind(
    shapes_folder, tmp_path, capsys
):
    shards, run = tmp_path / "shards", tmp_path / "run"
    words = ["--frames", 4, "--size", 40, "--clips", 1]
    assert call("prepare", shapes_folder, shards, *words) == 0
    capsys.readouterr()

    assert call("train", shards, "--run", run, *SMALL) == 1

    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "Stored: 4 frames" in told
    assert not run.exists()


def test_a_file_that_cannot_be_written_is_named(
    shapes_folder, tmp_path, capsys
):
    video = next(shapes_folder.rglob("*.mp4"))
    place = tmp_path / "none" / "found.json"

    assert call("check", video, "--json", place) == 1

    assert capsys.readouterr().err.splitlines()[-1] == (
        f"videofusion: {place}: No such file or directory"
    )

"""The command: statuses, streams, files, one line per mistake."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from keras_videofusion import cli
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


VERBS = (
    "train",
    "evaluate",
    "predict",
    "report",
    "check",
    "benchmark",
    "models",
)


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

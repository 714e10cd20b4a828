"""Each example runs with --smoke; README's Python runs."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def example(name, *words, cwd):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *map(str, words)],
        cwd=cwd,
        env={**__import__("os").environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_fit_a_directory(shapes_folder, tmp_path):
    example("fit_a_directory.py", shapes_folder, "--smoke", cwd=tmp_path)
    assert (tmp_path / "slow_fusion.keras").is_file()


def test_two_streams(shapes_folder, tmp_path):
    pytest.importorskip("cv2", reason="flow needs OpenCV: the extra [flow]")
    out = example("two_streams.py", shapes_folder, "--smoke", cwd=tmp_path)
    assert "23 fields" in out
    assert (tmp_path / "two_streams.keras").is_file()


def test_two_devices(shapes_folder, tmp_path):
    out = example("two_devices.py", shapes_folder, "--smoke", cwd=tmp_path)
    assert "epoch,hit_at_1" in out


def test_own_space(shapes_folder, tmp_path):
    out = example("own_space.py", shapes_folder, "--smoke", cwd=tmp_path)
    assert re.search(r"runs/searched: (trial \d|the untuned recipe), {", out)
    assert (tmp_path / "runs/searched/model.keras").is_file()
    assert (tmp_path / "runs/searched-search/search.csv").is_file()


def test_classify_a_file(shapes_folder, tmp_path):
    from keras_videofusion.data.catalog import open_catalog
    from keras_videofusion.training import Recipe
    from keras_videofusion.training.fit import split, train

    recipe = Recipe(width=0.02, size=40, batch=8, epochs=1, learning_rate=1e-4)
    catalog = split(open_catalog(shapes_folder))
    train(recipe, catalog, tmp_path / "run", verbose=0, say=lambda line: None)
    video = next(shapes_folder.rglob("*.mp4"))
    out = example("classify_a_file.py", tmp_path / "run", video, cwd=tmp_path)
    assert "5 clips of shape" in out
    assert out.count("%") == 4


def test_readmes_python_runs(shapes_folder, ucf101, tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert blocks
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").symlink_to(shapes_folder)
    for place, block in enumerate(blocks):
        # The same lines at a size that a test can afford.
        small = block.replace("width=0.25", "width=0.02")
        small = re.sub(r"epochs=\d+", "epochs=1", small)
        small = small.replace("/data/ucf101", str(ucf101))
        script = tmp_path / f"readme{place}.py"
        script.write_text(small)
        runpy.run_path(str(script))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem
)
def test_examples_fit_a_page(path):
    assert len(path.read_text().splitlines()) <= 60

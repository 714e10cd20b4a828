"""The floors of ARCHITECTURE.md, walked with `ast`."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "keras_videofusion"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Rooms of one floor do not know each other. The package's own `__init__`
# names what is public and stands above all but the command line.
FLOORS = (
    {"version"},
    {"data", "layers"},
    {"applications", "evaluation", "datasets", "baseline"},
    {"training", "benchmark"},
    {"export"},
    {"keras_videofusion"},
    {"cli"},
    {"__main__"},
)
# The ground's two rooms: clips are cut by layers, layers know no data.
WITHIN_FLOOR = {("data", "layers")}
# A recipe is the standard library alone, and the evaluation of a run is
# training's affair. Releases import it where they read a checkpoint of its.
TENSORFLOW = {
    "applications/releases.py",
    "data/addresses.py",
    "data/batches.py",
    "data/pipeline.py",
    "data/prepare.py",
    "data/shards.py",
    "data/directory.py",
    "datasets/youtube8m.py",
    "training/devices.py",
    "training/fit.py",
    "training/replicas.py",
    "training/run.py",
    "training/servers.py",
    "training/tensorboard.py",
    "training/workers.py",
    "benchmark.py",
    "export.py",
}


def room(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "keras_videofusion" if parts == ("__init__",) else parts[0]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            if node.module == "keras_videofusion":
                yield from (f"{node.module}.{n.name}" for n in node.names)
            else:
                yield node.module


def floor(name):
    return next(i for i, rooms in enumerate(FLOORS) if name in rooms)


def test_every_room_has_a_floor():
    assert {room(path) for path in MODULES} == set().union(*FLOORS)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_imports_point_down(path):
    here = room(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "keras_videofusion":
            continue
        there = parts[1] if len(parts) > 1 else "keras_videofusion"
        if there == here or (here, there) in WITHIN_FLOOR:
            continue
        assert floor(there) < floor(here), f"{here} imports {there}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_only_the_pipeline_and_training_import_tensorflow(path):
    used = any(name.split(".")[0] == "tensorflow" for name in imports(path))
    if used:
        assert path.relative_to(PACKAGE).as_posix() in TENSORFLOW


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_every_module_and_public_name_is_documented(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path} has no docstring"
    for node in tree.body:
        public = isinstance(node, ast.FunctionDef | ast.ClassDef)
        if public and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}: {node.name}"


def test_nothing_unpickles_or_evaluates():
    for path in MODULES:
        text = path.read_text()
        for word in ("pickle.load", "allow_pickle=True", " eval(", "exec("):
            assert word not in text, f"{path}: {word}"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("keras_videofusion.data.clips", "keras_videofusion.data.pipeline"),
        # Worker processes load these.
        ("keras_videofusion.data.check", "keras"),
        ("keras_videofusion.baseline.histograms", "keras"),
        ("keras_videofusion.training.recipe", "numpy"),
        ("keras_videofusion.cli", "numpy"),
    ],
)
def test_light_modules_stay_light(module, absent):
    """As the command's door loads them: the package not yet executed."""
    code = (
        "import importlib.util as u, sys\n"
        "s = u.find_spec('keras_videofusion')\n"
        "sys.modules['keras_videofusion'] = u.module_from_spec(s)\n"
        f"import {module}\n"
        f"sys.exit({absent!r} in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, check=False
    )
    assert done.returncode == 0

"""The page of runs: what stands on it, and what it survives."""

import base64
import html.parser
import json
import os
import re

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from keras_videofusion.data.catalog import Catalog, open_catalog
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.evaluation import metrics, pictures
from keras_videofusion.evaluation.report import PAPER, write_report
from keras_videofusion.evaluation.scores import (
    probabilities,
    Scores,
    video_ids,
)


def make_run(
    folder, catalog, model="slow_fusion", seed=0, gain=1.0, skipped=()
):
    """A run's folder as training and evaluation leave it, without network."""
    folder.mkdir(parents=True)
    spec = ClipSpec(frames=10)
    settings = {
        "recipe": {"model": model, "width": 0.125, "seed": 0, "size": None},
        "clip": spec.to_json(),
        "data": str(catalog.root),
    }
    (folder / "recipe.json").write_text(json.dumps(settings))
    (folder / "environment.json").write_text(
        json.dumps({"command": ["videofusion", "train"], "keras": "3.15.0"})
    )
    (folder / "history.csv").write_text(
        "epoch,loss,hit_at_1,val_loss\n1,2.0,0.1,\n2,1.0,0.5,1.5\n"
    )
    catalog.save(folder / "catalog.csv")
    test = catalog.where("test")
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(3 * len(test), len(test.classes)))
    logits += gain * np.repeat(test.truth, 3, axis=0)
    scores = Scores(
        video_ids(test),
        test.classes,
        test.truth,
        np.repeat(np.arange(len(test)), 3),
        np.tile([0.0, 0.1, 0.2], len(test)),
        logits,
        probabilities(logits, "softmax"),
        {"clips": 3, "passes": 4, "sampler": "random"},
    )
    scores.save(folder / "scores.npz")
    found = metrics.summary(scores, catalog.families, skipped)
    (folder / "metrics.json").write_text(json.dumps(found))
    return found


class Page(html.parser.HTMLParser):
    """Text, pictures and the balance of tags of a page."""

    EMPTY = frozenset({"meta", "img", "br", "line", "circle"})

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open, self.text, self.images, self.titles = [], "", [], []
        self.links = []
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "img":
            self.images.append(given)
        self.links += [given[n] for n in ("src", "href") if n in given]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        # The cells and rows of a table close themselves in HTML; ours do not.
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)
        if "style" not in self.open:
            self.text += data + "\n"


def table_rows(path):
    """Rows of the first table of a Markdown file, as lists of cells."""
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = []
    for line in lines:
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            rows.append([cell.strip() for cell in cells])
        elif rows:
            break
    return rows


@pytest.fixture(scope="module")
def two_runs(shapes_folder, tmp_path_factory):
    """Folders and figures of two runs. Read them, change nothing in them."""
    shapes = open_catalog(shapes_folder)
    place = tmp_path_factory.mktemp("runs")
    empty = [{"path": "x.mp4", "error": "the file is empty"}]
    found = {
        "still": make_run(place / "still", shapes, "single_frame", 1, 0.1),
        "moving": make_run(
            place / "moving", shapes, "slow_fusion", 2, 3.0, empty
        ),
    }
    return {name: place / name for name in found}, found


@pytest.fixture(scope="module")
def of_two(two_runs, tmp_path_factory):
    """The folder that their report was written to."""
    return write_report(two_runs[0], tmp_path_factory.mktemp("out")).parent


@pytest.fixture
def undrawn(monkeypatch):
    """Leaves out the drawing, which takes a second or two a page."""
    monkeypatch.setattr(pictures, "png", lambda figure, dpi: b"")


def test_the_page_needs_no_other_file_and_is_whole(of_two):
    page = Page(of_two / "report.html")
    assert page.images
    for link in page.links:
        assert link.startswith(("#", "data:image/png;base64,"))
    for picture in page.images:
        data = base64.b64decode(picture["src"].split(",", 1)[1])
        assert data.startswith(b"\x89PNG")
        assert picture["alt"]
    assert sorted(os.listdir(of_two)) == ["report.html", "report.md"]


def test_the_page_shows_every_part_of_two_runs(of_two):
    page = Page(of_two / "report.html")
    assert page.titles == [
        "Results",
        "Clips and predictions",
        "Over time",
        "Learning",
        "Classes",
        "Confusions",
        "Recipes",
        "Left out",
    ]
    assert "skipped x.mp4: the file is empty" in page.text


def test_the_table_holds_the_runs_figures_and_the_paper_s(two_runs, of_two):
    found = two_runs[1]
    header, _, still, moving, average = table_rows(of_two / "report.md")
    assert header[:3] == ["run", "model", "clip Hit@1"]
    for row, name, model in (
        (still, "still", "single_frame"),
        (moving, "moving", "slow_fusion"),
    ):
        figures = found[name]
        assert row[0] == name
        assert row[2] == f"{100 * figures['clip_hit_at_1']:.1f}"
        assert row[3].startswith(f"{100 * figures['video_hit_at_1']:.1f} (")
        assert row[4] == f"{100 * figures['video_hit_at_5']:.1f}"
        assert row[5] == f"{100 * figures['mean_average_precision']:.1f}"
        assert row[6] == str(figures["videos"])
        assert row[7] == "25.0"
        assert row[8:] == [f"{number:.1f}" for number in PAPER[model]]
    assert average[0] == "average of 2"
    assert average[8:] == ["–"] * 3


def test_the_average_is_the_mean_of_the_runs_probabilities(two_runs, of_two):
    folders, _ = two_runs
    both = [Scores.load(folder / "scores.npz") for folder in folders.values()]
    mean = sum(one.video_probabilities for one in both) / 2
    expected = np.mean(both[0].truth[np.arange(len(mean)), mean.argmax(1)])
    average = table_rows(of_two / "report.md")[-1]
    assert average[3].startswith(f"{100 * expected:.1f} (")


def test_a_run_that_is_not_evaluated_has_dashes(shapes, undrawn, tmp_path):
    folders = {name: tmp_path / name for name in ("new", "done")}
    for folder in folders.values():
        make_run(folder, shapes)
    for name in ("scores.npz", "metrics.json"):
        (folders["new"] / name).unlink()
    page = Page(write_report(folders, tmp_path / "out"))
    rows = table_rows(tmp_path / "out" / "report.md")
    assert rows[2][2:8] == ["–"] * 6
    assert len(rows) == 4  # no average of one
    assert "it has not been evaluated yet" in page.text


def test_one_run_makes_a_page_too(two_runs, undrawn, tmp_path):
    folders, _ = two_runs
    page = Page(write_report({"moving": folders["moving"]}, tmp_path))
    assert "Clips and predictions" in page.titles


def test_an_empty_folder_makes_a_page_of_dashes(tmp_path):
    (tmp_path / "run").mkdir()
    page = Page(write_report({"run": tmp_path / "run"}, tmp_path / "out"))
    assert page.titles == ["Results", "Left out"]


FILES = (
    "recipe.json",
    "environment.json",
    "metrics.json",
    "history.csv",
    "catalog.csv",
    "scores.npz",
    "model.keras",
)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_told_and_the_rest_is_shown(
    shapes, undrawn, tmp_path, name
):
    make_run(tmp_path / "run", shapes)
    (tmp_path / "run" / name).write_bytes(b"\xff\x00{")
    page = Page(write_report({"run": tmp_path / "run"}, tmp_path / "out"))
    assert "Results" in page.titles
    assert f"{name} " in page.text


@pytest.mark.parametrize("data", [b"", b"[1, 2]", b"a,b\n1,x\n"])
def test_a_run_of_damaged_files_still_makes_a_page(tmp_path, data):
    (tmp_path / "run").mkdir()
    for name in FILES:
        (tmp_path / "run" / name).write_bytes(data)
    page = Page(write_report({"run": tmp_path / "run"}, tmp_path / "out"))
    assert page.titles[0] == "Results"
    for name in set(FILES) - {"history.csv"}:
        assert name in page.text


def test_videos_that_are_gone_leave_a_line_instead_of_pictures(
    shapes, undrawn, tmp_path
):
    moved = Catalog(shapes.videos, shapes.classes, str(tmp_path / "gone"))
    make_run(tmp_path / "run", moved)
    page = Page(write_report({"run": tmp_path / "run"}, tmp_path / "out"))
    assert "the videos are not at hand" in page.text
    assert not any("random" in picture["alt"] for picture in page.images)


def test_text_of_users_is_escaped(shapes, tmp_path):
    evil = '<script>alert("x")</script>&|`$\\'
    folder = tmp_path / "run"
    make_run(
        folder, shapes, model=evil, skipped=[{"path": evil, "error": evil}]
    )
    found = json.loads((folder / "metrics.json").read_text())
    found["per_class"] = {
        evil + name: row for name, row in found["per_class"].items()
    }
    found["per_family"] = {evil: next(iter(found["per_class"].values()))}
    (folder / "metrics.json").write_text(json.dumps(found))
    page = Page(write_report({evil: folder}, tmp_path / "out"))
    assert "<script" not in page.source
    assert evil in page.text
    rows = table_rows(tmp_path / "out" / "report.md")
    assert {len(row) for row in rows} == {len(rows[0])}
    assert "<script" not in (tmp_path / "out" / "report.md").read_text()


def test_names_that_are_no_text_are_shown_all_the_same(
    shapes, undrawn, tmp_path
):
    folder = tmp_path / "run"
    make_run(folder, shapes, skipped=[{"path": "b\udcff.mp4", "error": "no"}])
    page = Page(write_report({"run": folder}, tmp_path / "out"))
    assert "skipped b\\udcff.mp4: no" in page.text


def test_what_runs_share_is_folded_away_and_differences_stand_out(of_two):
    page = Page(of_two / "report.html")
    recipes = page.source.split('id="recipes"')[1]
    differing, shared = recipes.split("<details>")
    assert "single_frame" in differing
    assert "3.15.0" in shared
    assert "3.15.0" not in differing


def test_runs_on_other_videos_have_galleries_of_their_own(
    shapes, undrawn, tmp_path
):
    make_run(tmp_path / "one", shapes)
    few = Catalog(
        tuple(v for v in shapes if v.split != "test")
        + tuple(shapes.where("test"))[:3],
        shapes.classes,
        shapes.root,
    )
    make_run(tmp_path / "other", few)
    runs = {name: tmp_path / name for name in ("one", "other")}
    page = Page(write_report(runs, tmp_path / "out"))
    assert "Drawn at random: one" in page.text
    assert "Drawn at random: other" in page.text
    assert len(table_rows(tmp_path / "out" / "report.md")) == 4


def test_filters_of_the_first_layer_are_shown(shapes, undrawn, tmp_path):
    keras = pytest.importorskip("keras")
    from keras_videofusion.layers import Framewise, StackFrames

    clip = keras.Input((4, 16, 16, 3))
    x = StackFrames(4, name="conv1_stack")(clip)
    x = Framewise(keras.layers.Conv2D(5, 3), name="conv1")(x)
    make_run(tmp_path / "run", shapes)
    model = keras.Model(clip, x)
    model.save(tmp_path / "run" / "model.keras")
    page = Page(write_report({"run": tmp_path / "run"}, tmp_path / "out"))
    assert "First-layer filters" in page.titles

    from keras_videofusion.evaluation.report import _kernels, _read

    (kernel,) = _kernels(_read("run", tmp_path / "run")).values()
    assert kernel.shape == (4, 3, 3, 3, 5)
    # The filter's second frame meets the clip's second frame.
    stored = keras.ops.convert_to_numpy(model.get_layer("conv1").kernel)
    np.testing.assert_array_equal(kernel[1], stored[:, :, 3:6])


@pytest.mark.parametrize(
    ("name", "frames", "shapes_of"),
    [
        ("i3d", 8, {"": (7, 7, 7, 3, 6)}),
        ("temporal_stream", 10, {"": (10, 7, 7, 3, 10)}),
        (
            "two_stream",
            None,
            {"rgb": (1, 7, 7, 3, 10), "flow": (10, 7, 7, 3, 10)},
        ),
    ],
)
def test_filters_of_every_family_are_found(
    name, frames, shapes_of, shapes, tmp_path
):
    from keras_videofusion.applications import clip_spec, get_model
    from keras_videofusion.evaluation.report import _kernels, _read

    given = clip_spec(name).with_size(48).shapes
    if frames:
        ((_, (_, *rest)),) = given.items()
        given = (frames, *rest)
    model = get_model(name, width=0.1, classes=3, input_shape=given)
    make_run(tmp_path / "run", shapes)
    model.save(tmp_path / "run" / "model.keras")

    kernels = _kernels(_read("run", tmp_path / "run"))

    assert {key: kernel.shape for key, kernel in kernels.items()} == shapes_of
    for kernel in kernels.values():
        assert kernel[..., :2, :].any()
    if "flow" in kernels:
        layer = model.get_layer("flow_tower").get_layer("conv1")
        stored = np.asarray(layer.kernel)
        # x and y of the fourth field, and no third channel.
        flow = kernels["flow"]
        np.testing.assert_array_equal(flow[3, ..., :2, :], stored[:, :, 6:8])
        assert not flow[..., 2, :].any()


def test_the_same_runs_give_the_same_page(two_runs, of_two, tmp_path):
    again = write_report(two_runs[0], tmp_path)
    assert again.read_bytes() == (of_two / "report.html").read_bytes()


def test_wrong_calls_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"runs=\{\}"):
        write_report({}, tmp_path)
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "absent")):
        write_report({"a": tmp_path / "absent"}, tmp_path)

"""Pictures show the numbers they were given."""

import builtins
import io
import math

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")
image = pytest.importorskip("matplotlib.image")

from keras_videofusion.evaluation import pictures  # noqa: E402
from keras_videofusion.evaluation.pictures import Sample  # noqa: E402


def pixels(figure):
    """RGB of a figure's PNG, 0..1, `(height, width, 3)`."""
    return image.imread(io.BytesIO(pictures.png(figure)))[..., :3]


def texts(figure):
    return {
        text.get_text()
        for axes in figure.axes
        for text in [
            *axes.texts,
            *axes.get_xticklabels(),
            *axes.get_yticklabels(),
            axes.title,
            axes._left_title,
        ]
        if text.get_text()
    }


def bars(figure, colour):
    """Widths of the bars of a colour."""
    from matplotlib.colors import to_rgb

    return [
        patch.get_width()
        for axes in figure.axes
        for patch in axes.patches
        if np.allclose(patch.get_facecolor()[:3], to_rgb(colour))
        and patch.get_alpha()
    ]


def clip(colour=128, frames=6):
    return np.full((frames, 12, 16, 3), colour, np.uint8)


def test_right_bars_are_green_wrong_ones_red_and_as_long_as_their_scores():
    figure = pictures.clips_with_predictions(
        [Sample(clip(), ["run"], {"net": [("walk", 0.6), ("run", 0.3)]})]
    )
    assert bars(figure, pictures.RIGHT) == pytest.approx([0.3])
    assert bars(figure, pictures.WRONG) == pytest.approx([0.6])
    assert {"run", "walk", "60 %", "30 %"} <= texts(figure)


def test_the_true_label_is_blue():
    figure = pictures.clips_with_predictions([Sample(clip(), ["run"], {})])
    (label,) = [
        text
        for axes in figure.axes
        for text in axes.texts
        if text.get_text() == "run"
    ]
    assert label.get_color() == pictures.TRUE


def test_a_strip_shows_frames_from_the_first_to_the_last():
    frames = np.stack([clip(shade, 1)[0] for shade in range(0, 100, 10)])
    strip = pictures._strip(frames, 4)
    assert strip.shape == (12, 4 * 16 + 3, 3)
    assert [int(strip[0, x, 0]) for x in (0, 17, 34, 51)] == [0, 30, 60, 90]


@pytest.mark.parametrize("count", [1, 2, 5, 9])
@pytest.mark.parametrize("networks", [1, 2, 4])
def test_galleries_of_any_size_stay_within_the_page(count, networks):
    best = [("a", 0.5), ("b", 0.3), ("c", math.nan)]
    sample = Sample(
        clip(), ["a", "b"], {f"run {n}": best for n in range(networks)}
    )
    figure = pictures.clips_with_predictions([sample] * count)
    for axes in figure.axes:
        box = axes.get_position()
        assert box.x0 > -1e-6
        assert box.y0 > -1e-6
        assert box.x1 < 1 + 1e-6
        assert box.y1 < 1 + 1e-6
    assert len(figure.axes) == count * (2 + networks * (1 + (networks > 1)))


def test_a_gallery_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"samples=\[\]"):
        pictures.clips_with_predictions([])


def test_a_moving_clip_shows_its_frames_in_turn_and_text_that_stands_still():
    from PIL import Image, ImageSequence

    frames = np.stack([clip(shade, 1)[0] for shade in (20, 120, 220)])
    sample = Sample(frames, ["run"], {"net": [("run", 0.6)]})
    file = Image.open(io.BytesIO(pictures.moving_clip(sample, seconds=0.3)))
    assert file.info["duration"] == 300
    assert file.info["loop"] == 0
    seen = [
        np.array(frame.convert("RGB"), int)
        for frame in ImageSequence.Iterator(file)
    ]
    middle = seen[0].shape[0] // 2, seen[0].shape[1] // 2
    shades = [frame[middle] for frame in seen]
    np.testing.assert_allclose(shades, [[20] * 3, [120] * 3, [220] * 3], atol=3)
    changes = (seen[0] != seen[2]).any(-1)
    # What changes is a rectangle: the clip, of its own shape.
    rows, columns = changes.any(1), changes.any(0)
    assert changes[rows][:, columns].all()
    assert rows.sum() / columns.sum() == pytest.approx(12 / 16, rel=0.03)
    assert (seen[0][0, 0] == 255).all()


def test_of_a_long_clip_some_frames_move_from_first_to_last():
    from PIL import Image

    frames = np.stack([clip(shade, 1)[0] for shade in range(0, 250, 5)])
    made = pictures.moving_clip(Sample(frames, ["run"], {}), most=5)
    file = Image.open(io.BytesIO(made))
    assert file.n_frames == 5
    file.seek(4)
    middle = file.width // 2, file.height // 2
    assert file.convert("RGB").getpixel(middle)[0] == pytest.approx(245, abs=3)


def test_first_kernels_unfold_time_and_flow():
    import keras

    def kernel_of(shape, name):
        model = keras.Sequential(
            [
                keras.Input((*shape[:2], shape[2])),
                keras.layers.Conv2D(shape[3], shape[:2], name=name),
            ]
        )
        values = np.random.default_rng(0).normal(size=shape)
        model.layers[0].set_weights([values, np.zeros(shape[3])])
        return values, pictures.first_kernels(model)

    # Two frames of three colours: the earlier in the first channels.
    values, found = kernel_of((5, 5, 6, 4), "fovea_conv1")
    assert found["fovea"].shape == (2, 5, 5, 3, 4)
    np.testing.assert_allclose(found["fovea"][1], values[:, :, 3:], rtol=1e-6)
    # Ten fields of two components: the third colour is empty.
    values, found = kernel_of((5, 5, 20, 4), "conv1")
    assert found[""].shape == (10, 5, 5, 3, 4)
    np.testing.assert_allclose(
        found[""][9, ..., 1, :], values[:, :, 19], rtol=1e-6
    )
    assert not found[""][..., 2, :].any()


def test_cells_of_a_confusion_matrix_carry_shares_of_their_row():
    figure = pictures.confusion_matrix(
        np.array([[3, 1], [0, 5]]), ["up", "down"]
    )
    assert {"75", "25", "100", "up", "down"} <= texts(figure)
    (picture,) = figure.axes[0].get_images()
    np.testing.assert_allclose(picture.get_array(), [[0.75, 0.25], [0, 1]])


def test_classes_that_do_not_occur_are_empty_rows():
    figure = pictures.confusion_matrix(np.array([[0, 0], [0, 5]]), ["a", "b"])
    (picture,) = figure.axes[0].get_images()
    assert picture.get_array().mask.tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("number", [1, 2, 14, 15, 60, 61, 487])
def test_confusion_matrices_of_any_size_are_named_and_of_one_page(number):
    names = [f"class {place}" for place in range(number)]
    figure = pictures.confusion_matrix(np.eye(number), names)
    height, width, _ = pixels(figure).shape
    assert min(height, width) > 150
    assert max(height, width) < 1500
    shown = texts(figure) & set(names)
    assert len(shown) == number if number <= 60 else 20 <= len(shown) <= 60


def test_counts_must_fit_the_classes():
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(3, 3\)"):
        pictures.confusion_matrix(np.eye(3), ["a", "b"])


@pytest.mark.parametrize(
    "name", ["$x$", "a$b", "$\\frac$ of", "b\udcff\udc80", "中文", "a\nb", ""]
)
def test_any_class_name_can_be_drawn(name):
    matrix = pictures.confusion_matrix(np.eye(2), [name, "b"], name)
    assert pictures.png(matrix).startswith(b"\x89PNG")
    gallery = pictures.clips_with_predictions(
        [Sample(clip(), [name], {name: [(name, 1.0)]})]
    )
    assert pictures.png(gallery).startswith(b"\x89PNG")


def test_a_filter_s_frames_stand_below_each_other_in_time():
    kernel = np.zeros((2, 3, 3, 3, 1))
    kernel[0, ..., 0, 0] = 1.0  # first red,
    kernel[1, ..., 2, 0] = 0.5  # then half as blue
    sheet = pictures._filter_sheet(kernel)
    assert sheet.shape == (7, 3, 3)
    np.testing.assert_allclose(
        sheet[:3], np.broadcast_to([1, 0.5, 0.5], (3, 3, 3))
    )
    np.testing.assert_allclose(
        sheet[4:], np.broadcast_to([0.5, 0.5, 0.75], (3, 3, 3))
    )


@pytest.mark.parametrize("extent", [1, 4, 10])
@pytest.mark.parametrize("count", [1, 7, 200])
def test_sheets_hold_all_their_filters(extent, count):
    kernel = np.ones((extent, 3, 3, 3, count))
    sheet = pictures._filter_sheet(kernel)
    # Every weight is the largest of its filter: red, green and blue all 1;
    # shown against a darker twin.
    dark = pictures._filter_sheet(-kernel)
    assert (dark[..., 0] == 0).sum() == extent * 9 * count
    assert sheet.shape == dark.shape


def test_streams_have_a_panel_each():
    kernel = np.random.default_rng(0).normal(size=(1, 5, 5, 3, 8))
    figure = pictures.filters({"fovea": kernel, "context": kernel})
    assert {"fovea", "context"} <= texts(figure)
    assert len(figure.axes) == 2


@pytest.mark.parametrize("shape", [(5, 5, 3, 8), (1, 5, 5, 4, 8)])
def test_other_kernels_are_refused(shape):
    with pytest.raises(ValueError, match="of shape"):
        pictures.filters({"conv1": np.zeros(shape)})


def test_curves_are_the_histories():
    history = {
        "epoch": [1, 2, 3],
        "loss": [2.0, 1.0, 0.5],
        "val_loss": [2.0, math.nan, 1.0],
        "hit_at_1": [0.1, 0.5, 0.7],
    }
    figure = pictures.learning_curves({"a": history, "b": {"loss": [1.0]}})
    lines = [line.get_ydata().tolist() for line in figure.axes[0].lines]
    assert lines[0] == history["loss"]
    assert lines[2] == [1.0]
    assert figure.axes[1].lines[0].get_ydata().tolist() == history["hit_at_1"]
    assert pictures.png(figure)


def test_dots_stand_at_their_values_the_best_class_on_top():
    figure = pictures.class_dots(
        {"a": {"x": 0.2, "y": 0.9, "z": None}}, chance=0.5
    )
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["y", "x"]
    points = axes.collections[-1].get_offsets()
    np.testing.assert_allclose(points, [[0.9, 0], [0.2, 1]])


def test_of_many_classes_the_best_and_the_worst_are_shown():
    values = {f"c{place:03}": place / 100 for place in range(100)}
    figure = pictures.class_dots({"a": values}, most=10, title="Hit@1")
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert labels[:5] == ["c099", "c098", "c097", "c096", "c095"]
    assert labels[-1] == "c000"
    assert "Hit@1 (90 classes in the middle left out)" in texts(figure)


def test_scores_over_time_follow_the_clips_in_time():
    scores = np.array([[0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    figure = pictures.scores_over_time(
        [5.0, 1.0], scores, ["a", "b", "c"], ["c"], most=1
    )
    shown = {
        line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist())
        for line in figure.axes[0].lines
    }
    assert shown == {
        "b": ([1.0, 5.0], [0.3, 0.7]),
        "c (true)": ([1.0, 5.0], [0.1, 0.1]),
    }
    with pytest.raises(ValueError, match=r"scores.shape=\(2, 3\)"):
        pictures.scores_over_time([1.0], scores, ["a", "b", "c"])


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (16, 16), (64, 300), (720, 1280)]
)
def test_the_score_panel_fits_into_the_video(height, width):
    best = [("hug " * 9, 0.8), ("$", 0.2), ("b\udcff", math.nan)]
    panel = pictures.score_panel(best, height, width)
    assert panel.dtype == np.uint8
    assert panel.shape[2] == 4
    assert 0 < panel.shape[0] <= height
    assert 0 < panel.shape[1] <= width


def test_drawing_leaves_matplotlib_s_state_alone():
    from matplotlib._pylab_helpers import Gcf

    before = dict(matplotlib.rcParams)
    pictures.png(pictures.learning_curves({"a": {"loss": [1.0, 0.5]}}))
    assert dict(matplotlib.rcParams) == before
    assert Gcf.get_num_fig_managers() == 0


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def absent(name, *arguments, **named):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=r"pip install .*\[report\]"):
        pictures.learning_curves({})


def test_a_searchs_history_shows_every_trial_and_hyperparameter():
    scores = [0.9, float("nan"), 0.5, 0.7]
    values = [
        {"rate": 1e-4, "layers": 1, "kind": "a"},
        {"rate": 1e-2, "layers": 2, "kind": "b"},
        {"rate": 1e-1, "layers": 2, "kind": "b", "units_2": 8},
        {"rate": 3e-2, "layers": 1, "kind": "a"},
    ]
    figure = pictures.search_history(scores, values, "val_loss", untuned=0.8)
    history, *panels = figure.axes
    best = history.get_lines()[0].get_ydata()
    assert list(best) == [0.9, 0.9, 0.5, 0.5]
    assert [panel.get_title(loc="left") for panel in panels] == [
        "rate", "layers", "kind", "units_2",
    ]  # fmt: skip
    assert len(panels[3].collections[0].get_offsets()) == 1
    shown = [label.get_text() for label in history.get_legend().get_texts()]
    assert shown == ["best so far", "failed", "untuned"]
    assert pictures.png(figure)[:4] == b"\x89PNG"
    highest = pictures.search_history(scores, values, direction="max")
    assert list(highest.axes[0].get_lines()[0].get_ydata()) == [0.9] * 4
    for wrong in ([], values[:2]):
        with pytest.raises(ValueError, match="as many as `scores`"):
            pictures.search_history(scores, wrong)

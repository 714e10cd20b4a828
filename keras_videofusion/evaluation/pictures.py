"""Pictures of clips, predictions, filters, confusions and histories.

Most functions take arrays and return a `matplotlib.figure.Figure`, without
touching matplotlib's global state; `png` turns it into bytes. Colours are
those of Okabe and Ito, which colour-blind readers tell apart.
"""

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

INK = "#1f2933"
QUIET = "#7b8794"
FAINT = "#e4e7eb"
TRUE = "#0072b2"  # blue: the true label
RIGHT = "#009e73"  # green: a right answer
WRONG = "#d55e00"  # red: a wrong one
CYCLE = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#4d4d4d",
)


class Sample(NamedTuple):
    """A clip and what networks said of it.

    Args:
        frames: Uint8 array of shape `(time, height, width, 3)`.
        labels: Names of the true classes.
        predictions: For every network's name its best classes, best first,
            as pairs of class and score.
    """

    frames: np.ndarray
    labels: Sequence[str]
    predictions: Mapping[str, Sequence[tuple[str, float]]]


def png(figure, dpi: int = 110) -> bytes:
    """A figure as the bytes of a PNG file.

    Args:
        figure: `matplotlib.figure.Figure`.
        dpi: Integer, pixels per inch.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Class names in scripts that the font lacks show as boxes.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
        # Without matplotlib's release in it the file is easier to compare.
        figure.savefig(
            buffer, format="png", dpi=dpi, metadata={"Software": None}
        )
    return buffer.getvalue()


def clips_with_predictions(
    samples: Sequence[Sample],
    columns: int = 2,
    frames: int = 4,
    width: float = 5.3,
):
    """Clips as strips of frames, with the classes that networks named.

    Under each strip stand the true label in blue and, for every network, its
    best classes as bars: green where right, red where wrong.

    Args:
        samples: `Sample`s, one or more.
        columns: Integer, strips side by side.
        frames: Integer, frames of a strip, evenly taken from the clip.
        width: Float, inches of a strip at least.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: If there are no samples.

    Reference:
        Karpathy et al., CVPR 2014, figure 4.
    """
    if not samples:
        raise ValueError("`samples` must not be empty. Received: samples=[]")
    columns = min(columns, len(samples))
    rows = math.ceil(len(samples) / columns)
    networks = max(len(sample.predictions) for sample in samples)
    abreast = min(3, networks) or 1
    bars = max(
        (len(best) for s in samples for best in s.predictions.values()),
        default=0,
    )
    ratio = max(_strip_ratio(sample.frames, frames) for sample in samples)
    # All in inches.
    margin, gap = 0.15, 0.35
    width = max(width, 2.3 * abreast)
    strip, title, line = width * ratio, 0.30, 0.21
    heading = 0.22 if networks > 1 else 0.04
    block = heading + bars * line
    height = title + strip + math.ceil(networks / abreast) * block + gap
    total = (
        2 * margin + columns * width + (columns - 1) * gap,
        2 * margin + rows * height - gap,
    )
    figure = _figure(*total)

    def axes(left, top, wide, tall):
        """Axes at inches from the figure's left upper corner."""
        made = figure.add_axes(
            (
                left / total[0],
                1 - (top + tall) / total[1],
                wide / total[0],
                tall / total[1],
            )
        )
        made.set_axis_off()
        return made

    for place, sample in enumerate(samples):
        left = margin + place % columns * (width + gap)
        top = margin + place // columns * height
        head = axes(left, top, width, title)
        head.text(
            0,
            0.55,
            _text(", ".join(sample.labels) or "(no label)", int(width * 12)),
            color=TRUE,
            fontsize=11,
            fontweight="bold",
            va="center",
        )
        picture = axes(left, top + title, width, strip)
        picture.imshow(_strip(sample.frames, frames), aspect="equal")
        picture.set_anchor("NW")
        for number, (name, best) in enumerate(sample.predictions.items()):
            wide = (width - 0.12 * (abreast - 1)) / abreast
            box = (
                left + number % abreast * (wide + 0.12),
                top + title + strip + number // abreast * block,
                wide,
            )
            if networks > 1:
                axes(*box, heading).text(
                    0,
                    0.35,
                    _text(name, int(wide * 14)),
                    color=QUIET,
                    fontsize=8,
                    va="center",
                )
            shown = (box[0], box[1] + heading, wide, bars * line)
            _answer_bars(axes(*shown), best, sample.labels, bars, wide)
    return figure


def moving_clip(
    sample: Sample, most: int = 16, seconds: float = 0.2, width: float = 2.9
) -> bytes:
    """A clip that plays, with the classes that a network named under it.

    Args:
        sample: `Sample` of one network.
        most: Integer, frames that are shown, evenly taken from the clip.
        seconds: Float, how long each stands.
        width: Float, inches of the picture.

    Returns:
        The bytes of an animated GIF file; of one frame it stands still.

    Raises:
        ImportError: If matplotlib is missing.
    """
    clip = np.asarray(sample.frames)
    count = min(most, len(clip))
    chosen = np.linspace(0, len(clip) - 1, count).round().astype(int)
    figure = clips_with_predictions([sample], 1, 1, width)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(110)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
        canvas.draw()
    axes = next(axes for axes in figure.axes if axes.get_images())
    (shown,) = axes.get_images()
    drawn: list[np.ndarray] = []
    for place in chosen:
        # The text stays as it was drawn.
        shown.set_data(clip[place])
        axes.draw_artist(shown)
        drawn.append(np.array(canvas.buffer_rgba())[..., :3])
    # One palette for all frames, so that colours do not flicker; white, of
    # which the rest is, keeps its place in it.
    some = np.concatenate([frame[::2, ::2] for frame in drawn])
    found = Image.fromarray(some).quantize(255).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette([255, 255, 255, *(found or ())])
    images = [
        Image.fromarray(frame).quantize(
            palette=palette, dither=Image.Dither.NONE
        )
        for frame in drawn
    ]
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=images[1:],
        duration=round(1000 * seconds),
        loop=0,
    )
    return buffer.getvalue()


def _answer_bars(axes, best, labels, bars, width):
    """Bars of one network's best classes, the names written on them."""
    axes.set_xlim(0, 1)
    axes.set_ylim(bars - 0.5, -0.5)
    for row, (name, score) in enumerate(best):
        right = name in labels
        color = RIGHT if right else WRONG
        axes.barh(row, 1, 0.82, color="#f5f7fa", linewidth=0)
        length = float(np.nan_to_num(score))
        axes.barh(row, length, 0.82, color=color, alpha=0.42, linewidth=0)
        axes.barh(row, 0.008, 0.82, color=color, linewidth=0)
        axes.text(
            0.025,
            row,
            _text(name, int(width * 11) - 5),
            fontsize=8,
            color=INK,
            va="center",
            fontweight="bold" if right else "normal",
        )
        axes.text(
            0.985,
            row,
            _percent(score),
            fontsize=7.5,
            color=INK,
            va="center",
            ha="right",
        )


def _strip(frames, count):
    """Some frames of a clip side by side, white between them."""
    frames = np.asarray(frames)
    count = min(count, len(frames))
    chosen = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
    # A still stays as wide as a strip's single frame.
    height, width = chosen.shape[1:3]
    space = np.full((height, max(1, width // 40), 3), 255, np.uint8)
    parts: list[np.ndarray] = []
    for frame in chosen:
        parts += [frame, space]
    return np.concatenate(parts[:-1], axis=1)


def _strip_ratio(frames, count):
    """Height of a strip as a share of its width, were it full of frames."""
    height, width = np.asarray(frames).shape[1:3]
    return height / (count * width + (count - 1) * max(1, width // 40))


def confusion_matrix(
    counts: np.ndarray, classes: Sequence[str], title: str = ""
):
    """A confusion matrix: a row per true class, shares of the row as shades.

    Up to 14 classes the cells carry their shares in percent, up to 60 all
    classes are named, and of more than that every few; the darkest shade is
    100 % in all of them, so that pictures can be compared.

    Args:
        counts: Float array of shape `(classes, classes)`, from
            `keras_videofusion.evaluation.metrics.confusion`.
        classes: Names.
        title: Above the picture.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: If counts and classes do not fit together.
    """
    counts = np.asarray(counts, np.float64)
    number = len(classes)
    if counts.shape != (number, number):
        raise ValueError(
            f"`counts` must have the shape ({number}, {number}), a row and a "
            f"column per class. Received: counts.shape={counts.shape}"
        )
    sums = counts.sum(axis=1, keepdims=True)
    # Rows of classes that do not occur stay empty.
    shares = np.divide(
        counts, sums, out=np.full_like(counts, np.nan), where=sums > 0
    )
    side = min(9.0, max(2.6, 0.55 * number if number <= 14 else 0.17 * number))
    longest = max((len(_text(name, 28)) for name in classes), default=0)
    figure = _figure(
        side + 0.075 * longest + 0.9,
        side + 0.075 * longest + 0.6,
        layout="constrained",
    )
    axes = figure.add_subplot()
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    shades = LinearSegmentedColormap.from_list(
        "house", ("#ffffff", "#b9d6ea", TRUE, "#00344f")
    ).with_extremes(bad="#f5f7fa")
    axes.imshow(
        np.ma.masked_invalid(shares),
        cmap=shades,
        # A few confusions among hundreds of classes must still be seen.
        norm=PowerNorm(0.5 if number > 60 else 0.8, 0, 1),
        interpolation="nearest",
    )
    step = 1 if number <= 60 else math.ceil(number / 50)
    named = np.arange(0, number, step)
    labels = [_text(classes[int(place)], 28) for place in named]
    small = 9 if number <= 14 else 7 if number <= 40 else 5.5
    axes.set_xticks(named, labels, rotation=90, fontsize=small)
    axes.set_yticks(named, labels, fontsize=small)
    axes.set_xlabel("predicted", color=QUIET)
    axes.set_ylabel("true", color=QUIET)
    _plain_axes(axes)
    axes.tick_params(length=0 if number <= 60 else 2)
    for side_name in ("left", "bottom"):
        axes.spines[side_name].set_visible(False)
    if number <= 60:
        edges = np.arange(number + 1) - 0.5
        axes.set_xticks(edges, minor=True)
        axes.set_yticks(edges, minor=True)
        axes.grid(which="minor", color="white", linewidth=0.8)
        axes.tick_params(which="minor", length=0)
    if number <= 14:
        for row, column in np.argwhere(np.nan_to_num(shares) > 0.004):
            share = shares[row, column]
            axes.text(
                column,
                row,
                f"{100 * share:.0f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if share > 0.45 else INK,
            )
    if title:
        axes.set_title(_text(title, 60), loc="left", color=INK, fontsize=11)
    return figure


# What the first convolution is called in the networks of the papers.
FIRST = ("conv1", "conv1a", "conv_1a", "conv1_1")


def first_kernels(model: Any) -> dict[str, np.ndarray]:
    """The filters of a network's first layers, as `filters` shows them.

    Of flow, x is red and y is green.

    Args:
        model: `keras.Model`.

    Returns:
        Dict of the stream's name (`""` of the only one) to a float32 array of
        shape `(extent, height, width, 3, filters)`; empty where no first
        layer is found.
    """
    import keras

    kernels = {}
    for stream, kernel in _first_layers(model):
        array = np.asarray(keras.ops.convert_to_numpy(kernel), np.float32)
        if array.ndim == 5 and len(array) == 1:
            array = array[0]
        # Pixels have three channels, flow two.
        width = 2 if array.shape[-2] % 3 else 3
        if array.ndim == 4 and array.shape[2] % width == 0:
            # StackFrames lays the earliest frame into the first channels.
            height, across, channels, filters = array.shape
            shape = height, across, channels // width, width, filters
            array = array.reshape(shape).transpose(2, 0, 1, 3, 4)
        if array.ndim != 5 or array.shape[3] != width:
            continue
        if width == 2:
            array = np.pad(array, ((0, 0),) * 3 + ((0, 1), (0, 0)))
        kernels[stream] = array
    return kernels


def _first_layers(model: Any, stream: str = "") -> Iterator[tuple[str, Any]]:
    """Streams and kernels of the first convolutions, of nested models too."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _first_layers(layer, layer.name.removesuffix("_tower"))
        kernel = getattr(layer, "kernel", None)
        name = next((x for x in FIRST if layer.name.endswith(x)), None)
        if kernel is not None and name:
            yield layer.name.removesuffix(name).strip("_") or stream, kernel


def filters(kernels: Mapping[str, np.ndarray], most: int = 96):
    """The filters of a first layer, a panel per stream.

    A filter that extends in time is a column of its frames, the earliest on
    top. Every filter is scaled by its largest weight; grey is zero.

    Args:
        kernels: Dict of a stream's name (`"fovea"`, `"context"` …) to a float
            array of shape `(extent, height, width, 3, filters)`.
        most: Integer, filters shown of each.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: If a kernel has another shape, or there is none.

    Reference:
        Karpathy et al., CVPR 2014, figure 3.
    """
    if not kernels:
        raise ValueError("`kernels` must not be empty. Received: kernels={}")
    sheets = {}
    for name, kernel in kernels.items():
        kernel = np.asarray(kernel, np.float64)
        if kernel.ndim != 5 or kernel.shape[3] != 3:
            raise ValueError(
                "`kernels` must have the shape (extent, height, width, 3, "
                f"filters). Received: {name!r} of shape {kernel.shape}"
            )
        sheets[name] = _filter_sheet(kernel[..., :most])
    heights = [sheet.shape[0] for sheet in sheets.values()]
    widths = [sheet.shape[1] for sheet in sheets.values()]
    # Whole pixels per weight, so that the filters' own pixels are seen.
    zoom = max(2, min(6, 1000 // max(sum(widths), 1)))
    dpi = 110
    wide = zoom * sum(widths) / dpi + 0.3 * (len(sheets) + 1)
    tall = zoom * max(heights) / dpi + 0.65
    figure = _figure(wide, tall)
    left = 0.3
    for (name, sheet), width, height in zip(
        sheets.items(), widths, heights, strict=True
    ):
        size = zoom * width / dpi, zoom * height / dpi
        axes = figure.add_axes(
            (
                left / wide,
                1 - (size[1] + 0.4) / tall,
                size[0] / wide,
                size[1] / tall,
            )
        )
        axes.imshow(sheet, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        axes.set_title(_text(name, 40), loc="left", color=INK, fontsize=10)
        left += size[0] + 0.3
    return figure


def _filter_sheet(kernel):
    """Filters laid out in a sheet of colours in 0..1, white between them."""
    extent, height, width, _, count = kernel.shape
    largest = np.abs(kernel).max(axis=(0, 1, 2, 3), keepdims=True)
    colours = 0.5 + 0.5 * kernel / np.where(largest > 0, largest, 1)
    # About twice as wide as high, and the last row as full as the others.
    across = max(1, min(count, round(math.sqrt(2 * count * extent))))
    down = math.ceil(count / across)
    across = math.ceil(count / down)
    tall = extent * height + (extent - 1) + 3
    sheet = np.ones((down * tall - 3, across * (width + 2) - 2, 3))
    for number in range(count):
        top = number // across * tall
        left = number % across * (width + 2)
        for time in range(extent):
            begin = top + time * (height + 1)
            sheet[begin : begin + height, left : left + width] = colours[
                time, ..., number
            ]
    return sheet


def learning_curves(histories: Mapping[str, Mapping[str, Sequence[float]]]):
    """Loss and Hit@1 over the epochs, a colour per run.

    Validation is a full line, training a thin dashed one.

    Args:
        histories: Dict of a run's name to its columns of `history.csv`:
            `epoch`, `loss`, `hit_at_1`, and `val_loss`, `val_hit_at_1` if
            there was validation. What is missing is left out.

    Returns:
        `matplotlib.figure.Figure`.
    """
    figure = _figure(9.4, 3.4, layout="constrained")
    from matplotlib.lines import Line2D

    for axes, column, title in zip(
        figure.subplots(1, 2),
        ("loss", "hit_at_1"),
        ("Loss", "Hit@1 of clips"),
        strict=True,
    ):
        for number, history in enumerate(histories.values()):
            colour = CYCLE[number % len(CYCLE)]
            for prefix, style in (("", "--"), ("val_", "-")):
                values = np.array(history.get(prefix + column, ()), float)
                if not np.isfinite(values).any():
                    continue
                epochs = history.get("epoch", range(1, len(values) + 1))
                axes.plot(
                    epochs,
                    values,
                    style,
                    color=colour,
                    linewidth=1.8 if prefix else 1.0,
                    marker="o" if len(values) == 1 else None,
                    markersize=4,
                )
        axes.set_title(title, loc="left", color=INK, fontsize=11)
        axes.set_xlabel("epoch", color=QUIET)
        axes.grid(axis="y", color=FAINT, linewidth=0.8)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _plain_axes(axes)
        if column == "hit_at_1":
            axes.set_ylim(0, 1.02)
            axes.yaxis.set_major_formatter(lambda value, _: _percent(value))
        else:
            axes.set_ylim(bottom=0)
    keys = [
        Line2D([], [], color=CYCLE[number % len(CYCLE)], label=_text(name, 40))
        for number, name in enumerate(histories)
    ]
    keys += [
        Line2D([], [], color=QUIET, label="validation"),
        Line2D([], [], color=QUIET, linestyle="--", lw=1.0, label="training"),
    ]
    figure.legend(
        handles=keys,
        loc="outside lower center",
        ncols=min(6, len(keys)),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
    )
    return figure


def class_dots(
    values: Mapping[str, Mapping[str, float | None]],
    most: int = 40,
    title: str = "",
    chance: float | None = None,
):
    """A figure of merit per class, a dot per run, the best class on top.

    Args:
        values: Dict of a run's name to a dict of class to a share in 0..1;
            None and `nan` are left out.
        most: Integer, rows; of more classes the best and the worst are shown.
        title: Above the picture.
        chance: Share in 0..1 to mark, or None.

    Returns:
        `matplotlib.figure.Figure`.
    """
    classes = list(
        dict.fromkeys(name for run in values.values() for name in run)
    )

    def of(run, name):
        value = values[run].get(name)
        return math.nan if value is None else float(value)

    means = {}
    for name in classes:
        known = [v for run in values if not math.isnan(v := of(run, name))]
        if known:
            means[name] = sum(known) / len(known)
    ordered = sorted(means, key=lambda name: -means[name])
    left_out = len(ordered) - most
    if left_out > 0:
        ordered = ordered[: most - most // 2] + ordered[-(most // 2) :]
    figure = _figure(7.2, 0.95 + 0.24 * max(2, len(ordered)), "constrained")
    axes = figure.add_subplot()
    rows = np.arange(len(ordered))
    axes.hlines(rows, 0, 1, color=FAINT, linewidth=0.8, zorder=1)
    spread = np.linspace(-0.17, 0.17, len(values)) if len(values) > 1 else [0]
    for number, run in enumerate(values):
        axes.scatter(
            [of(run, name) for name in ordered],
            rows + spread[number],
            s=30,
            color=CYCLE[number % len(CYCLE)],
            edgecolor="white",
            linewidth=0.6,
            label=_text(run, 40),
            zorder=3,
            clip_on=False,
        )
    if chance is not None:
        axes.axvline(chance, color=QUIET, linestyle=":", linewidth=1.2)
        axes.annotate(
            "chance",
            (chance, 0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=8,
            color=QUIET,
        )
    axes.set_yticks(rows, [_text(name, 36) for name in ordered], fontsize=8)
    axes.set_ylim(max(1, len(ordered)) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: _percent(value))
    _plain_axes(axes)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if left_out > 0:
        title += f" ({left_out} classes in the middle left out)"
    if title:
        axes.set_title(_text(title, 80), loc="left", color=INK, fontsize=11)
    if len(values) > 1:
        figure.legend(
            loc="outside lower center",
            ncols=min(4, len(values)),
            frameon=False,
            fontsize=9,
            labelcolor=INK,
        )
    return figure


def scores_over_time(
    seconds: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
    labels: Sequence[str] = (),
    most: int = 5,
):
    """How the scores of one video's best classes go, clip by clip.

    Args:
        seconds: Float array of shape `(clips,)`: where the clips lie.
        scores: Float array of shape `(clips, classes)`, in 0..1.
        classes: Names.
        labels: Names of the true classes, drawn thicker.
        most: Integer, classes shown: those that score most on average, and
            the true ones.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    seconds, scores = np.asarray(seconds, float), np.asarray(scores, float)
    if scores.shape != (len(seconds), len(classes)):
        raise ValueError(
            f"`scores` must have the shape ({len(seconds)}, {len(classes)}), "
            f"(clips, classes). Received: scores.shape={scores.shape}"
        )
    order = np.argsort(seconds, kind="stable")
    means = scores.mean(axis=0) if len(seconds) else np.zeros(len(classes))
    shown = list(np.argsort(-means, kind="stable")[:most])
    shown += [
        i for i, n in enumerate(classes) if n in labels and i not in shown
    ]
    figure = _figure(5.2, 2.8, "constrained")
    axes = figure.add_subplot()
    for number, place in enumerate(shown):
        true = classes[place] in labels
        axes.plot(
            seconds[order],
            scores[order, place],
            color=CYCLE[number % len(CYCLE)],
            linewidth=2.6 if true else 1.3,
            marker="o",
            markersize=3.5,
            label=_text(classes[place], 30) + (" (true)" if true else ""),
            clip_on=False,
        )
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: _percent(value))
    axes.set_xlabel("seconds", color=QUIET)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    _plain_axes(axes)
    if shown:
        figure.legend(
            loc="outside lower center",
            ncols=3,
            frameon=False,
            fontsize=9,
            labelcolor=INK,
        )
    return figure


def search_history(
    scores: Sequence[float],
    values: Sequence[Mapping[str, Any]],
    name: str = "score",
    direction: str = "min",
    untuned: float | None = None,
):
    """A search's scores trial by trial, and by each hyperparameter.

    Args:
        scores: Floats, a trial each, numbered from 0; `nan`: it failed.
        values: A dict of hyperparameters for each trial; it may lack some.
        name: What the score is.
        direction: `"min"` or `"max"`, which is best.
        untuned: Score of the recipe that nothing was varied of, or None.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: If there are not as many dicts as scores, or none.
    """
    if not len(scores) or len(scores) != len(values):
        raise ValueError(
            "`values` must be as many as `scores`, one or more. "
            f"Received: {len(scores)} scores, {len(values)} values"
        )
    found = np.array(scores, float)
    better = np.fmin if direction == "min" else np.fmax
    parts = list(dict.fromkeys(part for row in values for part in row))
    columns = 4
    rows = math.ceil(len(parts) / columns)
    figure: Any = _figure(7.6, 2.6 + 1.7 * rows, "constrained")
    grid = figure.add_gridspec(
        1 + rows, columns, height_ratios=[2.4] + [1.7] * rows
    )
    axes = figure.add_subplot(grid[0, :])
    numbers = np.arange(len(found))
    axes.scatter(numbers, found, s=26, color=CYCLE[0], zorder=3, clip_on=False)
    axes.step(
        numbers,
        better.accumulate(found),
        where="post",
        color=CYCLE[1],
        linewidth=1.6,
        label="best so far",
    )
    failed = np.isnan(found)
    if failed.any():
        axes.plot(
            numbers[failed],
            np.zeros(failed.sum()),
            "x",
            color=WRONG,
            transform=axes.get_xaxis_transform(),
            clip_on=False,
            label="failed",
        )
    if untuned is not None:
        axes.axhline(
            untuned, color=QUIET, linestyle=":", linewidth=1.2, label="untuned"
        )
    axes.set_xlabel("trial", color=QUIET)
    axes.set_ylabel(_text(name, 30), color=QUIET)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    _plain_axes(axes)
    for place, part in enumerate(parts):
        panel = figure.add_subplot(
            grid[1 + place // columns, place % columns], sharey=axes
        )
        _by_value(panel, [row.get(part) for row in values], found)
        panel.set_title(_text(part, 22), loc="left", color=INK, fontsize=9)
        panel.tick_params(labelleft=place % columns == 0)
    return figure


def _by_value(axes, values, scores):
    """Dots of scores over one hyperparameter; trials without it are not."""
    known = [place for place, value in enumerate(values) if value is not None]
    own = [values[place] for place in known]
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool)
        for value in own
    )
    shown: list[Any] = sorted(set(own) if numbers else set(map(str, own)))
    if len(shown) <= 5 or not numbers:
        # A few values stand side by side, whatever lies between them.
        own = [shown.index(value if numbers else str(value)) for value in own]
        labels = [f"{v:g}" if numbers else _text(v, 12) for v in shown]
        axes.set_xticks(range(len(shown)), labels)
        axes.set_xlim(-0.5, len(shown) - 0.5)
    elif min(shown) > 0 and max(shown) >= 50 * min(shown):
        axes.set_xscale("log")
    axes.scatter(own, scores[known], s=16, color=CYCLE[0], clip_on=False)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    _plain_axes(axes)
    axes.tick_params(labelsize=8)


def score_panel(
    best: Sequence[tuple[str, float]], height: int, width: int
) -> np.ndarray:
    """Bars of a video's best classes, to lie over its lower left corner.

    Args:
        best: Pairs of class and score, best first; only as many are drawn as
            the video has room for.
        height: Integer, pixels of the video.
        width: Integer, pixels of the video.

    Returns:
        Uint8 array of shape `(h, w, 4)`: red, green, blue, opacity; no larger
        than the video.
    """
    line = int(np.clip(height // 14, 12, 48))
    best = list(best)[: max(1, (height - 4) // line - 1)]
    size = max(1, min(width, 13 * line)), max(1, min(height, len(best) * line))
    figure = _figure(size[0] / 100, size[1] / 100)
    figure.set_facecolor((0.06, 0.09, 0.12, 0.62))
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(max(1, len(best)) - 0.5, -0.5)
    points = 0.55 * line * 72 / 100
    letters = max(4, int(0.72 * size[0] / (0.36 * line)))
    for row, (name, score) in enumerate(best):
        length = float(np.nan_to_num(score))
        axes.barh(row, length, 0.8, color="#56b4e9", alpha=0.75, linewidth=0)
        for x, text, side in (
            (0.02, _text(name, letters), "left"),
            (0.98, _percent(score), "right"),
        ):
            axes.text(
                x,
                row,
                text,
                color="white",
                fontsize=points,
                va="center",
                ha=side,
                fontweight="bold" if row == 0 else "normal",
            )
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(100)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
        canvas.draw()
    # Rounding may make the canvas a pixel larger than asked for.
    return np.array(canvas.buffer_rgba())[:height, :width]


def _figure(width, height, layout=None):
    """An empty white figure of so many inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "pictures need matplotlib: pip install 'keras-videofusion[report]'"
        ) from error
    return Figure(figsize=(width, height), facecolor="white", layout=layout)


def _plain_axes(axes: Any) -> None:
    """Only the two lines that carry the ticks, in a quiet grey."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#cbd2d9")
    axes.tick_params(color="#cbd2d9", labelcolor=INK, labelsize=None)


def _text(name: str, longest: int) -> str:
    """A name as matplotlib shall show it: cut short, dollars and all."""
    name = "".join(
        sign if sign.isprintable() and not "\ud800" <= sign <= "\udfff" else "�"
        for sign in str(name)
    )
    if len(name) > longest:
        name = name[: max(1, longest - 1)].rstrip() + "…"
    # A bare dollar would start a formula.
    return name.replace("$", r"\$")


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.0f} %"

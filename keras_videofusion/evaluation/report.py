"""A page that shows runs side by side: tables and pictures, HTML, Markdown."""

import base64
import csv
import html
import io
import json
import math
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_videofusion.data.catalog import Catalog, open_catalog
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.files import (
    absolute,
    exists,
    fetched,
    is_folder,
    join,
    opened,
    read_json,
    written,
)
from keras_videofusion.data.manifest import read_manifest
from keras_videofusion.data.video import decode, timeline, VideoError
from keras_videofusion.evaluation import metrics, pictures
from keras_videofusion.evaluation.scores import (
    fuse,
    Scores,
    video_ids,
)
from keras_videofusion.version import __version__

# Karpathy et al., CVPR 2014, table 1, on 200,000 videos of Sports-1M: clip
# Hit@1, video Hit@1 and video Hit@5 in percent.
PAPER = {
    "single_frame": (41.1, 59.3, 77.7),
    "multires_single_frame": (42.4, 60.0, 78.5),
    "fovea_single_frame": (30.0, 49.9, 72.8),
    "context_single_frame": (38.1, 56.0, 77.2),
    "early_fusion": (38.9, 57.7, 76.8),
    "late_fusion": (40.7, 59.3, 78.7),
    "slow_fusion": (41.9, 60.9, 80.2),
}
# "Feature histograms + neural net": the network upon vectors, of this kind.
PAPER_HISTOGRAMS = (math.nan, 55.3, math.nan)
# Single-frame, early, late and slow fusion together.
PAPER_AVERAGE = (41.4, 63.9, 82.4)
AVERAGED = {"single_frame", "early_fusion", "late_fusion", "slow_fusion"}

DASH = "–"
SAMPLES = 8
MISTAKES = 4


@dataclass
class _Run:
    """What could be read of a run's folder; the rest is None and noted."""

    name: str
    folder: str
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    catalog: Catalog | None = None
    scores: Scores | None = None
    metrics: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def recipe(self) -> dict[str, Any]:
        recipe = self.settings.get("recipe")
        return recipe if isinstance(recipe, dict) else {}

    @property
    def model(self) -> str:
        return str(self.recipe.get("model", DASH))

    @property
    def paper(self) -> tuple[float, ...] | None:
        """The paper's figures of such a run; None if it has none."""
        vectors = self.settings.get("vectors")
        if isinstance(vectors, dict) and vectors.get("kind") == "histograms":
            return PAPER_HISTOGRAMS
        return PAPER.get(self.model)

    def of(self, name: str) -> float:
        """A number of `metrics.json`; `nan` if there is none."""
        value = (self.metrics or {}).get(name)
        return math.nan if value is None else float(value)


def write_report(
    runs: Mapping[str, str | os.PathLike], out: str | os.PathLike
) -> Path:
    """Writes `report.html`, which needs no other file, and `report.md`.

    What a run's folder does not hold yet is a dash; what in it is damaged is
    told on the page. Pictures of clips need the videos: where they are not
    found, the page says so.

    Args:
        runs: Dict of the name that a run goes by to its folder, path or
            address.
        out: Folder for the two files; made if it does not exist.

    Returns:
        Path of `report.html`.

    Raises:
        ValueError: If there are no runs.
        FileNotFoundError: If a run's folder does not exist.
        ImportError: If matplotlib is not installed.
    """
    if not runs:
        raise ValueError("`runs` must not be empty. Received: runs={}")
    found = [_read(name, os.fspath(folder)) for name, folder in runs.items()]
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "report.md", _markdown(found))
    _write(out / "report.html", _page(found))
    return out / "report.html"


def _write(path: Path, text: str) -> None:
    with written(path) as draft:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")


# Reading


def _read(name: str, folder: str) -> _Run:
    if not is_folder(folder) and not exists(join(folder, "recipe.json")):
        raise FileNotFoundError(f"no run at {absolute(folder)}")
    run = _Run(name, folder)
    run.settings = _object(run, "recipe.json") or {}
    run.environment = _object(run, "environment.json") or {}
    run.history = _history(run)
    run.catalog = _catalog(run)
    try:
        run.scores = Scores.load(join(folder, "scores.npz"))
    except FileNotFoundError:
        pass
    except ValueError as error:
        run.notes.append(str(error))
    run.metrics = _object(run, "metrics.json")
    if run.metrics is None and run.scores is not None:
        families = run.catalog.families if run.catalog else {}
        run.metrics = metrics.summary(run.scores, families)
    if run.metrics is None:
        run.notes.append("it has not been evaluated yet")
    return run


def _object(run: _Run, name: str) -> dict[str, Any] | None:
    """The JSON object in a file; None if it is not there or damaged."""
    path = join(run.folder, name)
    if not exists(path):
        return None
    try:
        value = read_json(path)
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        run.notes.append(f"{name} cannot be read: {error}")
        return None
    return value


def _history(run: _Run) -> dict[str, list[float]]:
    path = join(run.folder, "history.csv")
    if not exists(path):
        return {}
    columns: dict[str, list[float]] = {}
    try:
        with io.TextIOWrapper(opened(path), "utf-8", newline="") as file:
            for row in csv.DictReader(file):
                for column, text in row.items():
                    value = float(text) if text else math.nan
                    columns.setdefault(column, []).append(value)
    except (OSError, ValueError, TypeError, csv.Error) as error:
        run.notes.append(f"history.csv cannot be read: {error}")
        return {}
    return columns


def _catalog(run: _Run) -> Catalog | None:
    """The run's rows, their videos looked for where it was trained.

    Of a run from shards or vectors, where these were made from.
    """
    path = join(run.folder, "catalog.csv")
    if not exists(path):
        return None
    try:
        rows = open_catalog(path)
    except (OSError, ValueError) as error:
        run.notes.append(f"catalog.csv cannot be read: {error}")
        return None
    vectors = run.settings.get("vectors")
    if vectors:
        return replace(rows, root=str(vectors["source"]))
    root = str(run.settings.get("data", rows.root))
    shards = read_manifest(root)
    return replace(rows, root=root if shards is None else shards.source)


# Tables


def _results(runs: Sequence[_Run]) -> Iterator[dict[str, Any]]:
    """A row per run, and one for their average if it can be had."""
    for run in runs:
        yield _result(run, run.paper)
    average = _average(runs)
    if average is not None:
        models = {run.model for run in runs if run.scores is not None}
        yield _result(average, PAPER_AVERAGE if models == AVERAGED else None)


def _result(run: _Run, paper: tuple | None) -> dict[str, Any]:
    videos = (run.metrics or {}).get("videos", 0)
    share = run.of("video_hit_at_1")
    return {
        "name": run.name,
        "model": run.model,
        "clip": run.of("clip_hit_at_1"),
        "video": share,
        "interval": metrics.wilson(share, videos)
        if videos
        else (math.nan, math.nan),
        "video5": run.of("video_hit_at_5"),
        "map": run.of("mean_average_precision"),
        "videos": videos if run.metrics else None,
        "clips": (run.metrics or {}).get("clips"),
        "skipped": len((run.metrics or {}).get("skipped", ())),
        "chance": metrics.chance(run.scores.truth)
        if run.scores is not None
        else math.nan,
        "paper": paper or (math.nan,) * 3,
    }


def _average(runs: Sequence[_Run]) -> _Run | None:
    """The paper's "CNN average" of all runs that are evaluated."""
    scored = [run for run in runs if run.scores is not None]
    if len(scored) < 2:
        return None
    try:
        fused = fuse([run.scores for run in scored if run.scores is not None])
    except ValueError:
        # Runs on other videos or classes have no average.
        return None
    average = _Run(f"average of {len(scored)}", "")
    average.scores = fused
    average.metrics = metrics.summary(fused)
    return average


def _share(value: float | None, digits: int = 1) -> str:
    """A share in percent; a dash for a number that does not exist."""
    if value is None or math.isnan(value):
        return DASH
    return f"{100 * value:.{digits}f}"


def _markdown(runs: Sequence[_Run]) -> str:
    lines = [
        "# Video classification: results",
        "",
        "| run | model | clip Hit@1 | video Hit@1 (95 % interval) | video "
        "Hit@5 | mAP | videos | chance | paper: clip Hit@1 | video Hit@1 | "
        "video Hit@5 |",
        "| --- | --- " + "| ---: " * 9 + "|",
    ]
    for row in _results(runs):
        low, high = row["interval"]
        interval = (
            "" if math.isnan(low) else f" ({_share(low)} to {_share(high)})"
        )
        cells = [
            _mark(row["name"]),
            _mark(row["model"]),
            _share(row["clip"]),
            _share(row["video"]) + interval,
            _share(row["video5"]),
            _share(row["map"]),
            DASH if row["videos"] is None else f"{row['videos']:,}",
            _share(row["chance"]),
            *(DASH if math.isnan(n) else f"{n:.1f}" for n in row["paper"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", PAPER_NOTE, ""]
    for title, part in (("family", "per_family"), ("class", "per_class")):
        names, columns = _parts(runs, part)
        if not names:
            continue
        lines += [
            f"## Per {title}",
            "",
            f"| {title} | videos | "
            + " | ".join(f"{_mark(run.name)}: Hit@1 | AP" for run in columns)
            + " |",
            "| --- | ---: " + "| ---: | ---: " * len(columns) + "|",
        ]
        for name in names:
            cells = [_mark(name), _videos(columns, part, name)]
            for run in columns:
                row = (run.metrics or {})[part].get(name, {})
                cells.append(_share(row.get("hit_at_1")))
                cells.append(_share(row.get("average_precision")))
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    for run in runs:
        for note in _remarks(run):
            lines.append(f"* {_mark(run.name)}: {_mark(note)}")
    return "\n".join(lines).rstrip() + "\n"


PAPER_NOTE = (
    "All in percent. The paper's figures are those of Karpathy et al., CVPR "
    "2014, table 1, on 200,000 videos of Sports-1M with 487 classes: other "
    "data, so they are a landmark and no target."
)


def _mark(text: Any) -> str:
    """Text that a Markdown table takes as it is."""
    text = " ".join(_shown(text).split())
    for sign in "\\`*_|[]":
        text = text.replace(sign, "\\" + sign)
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _shown(text: Any) -> str:
    """Text without the lone surrogates of undecodable names."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def _parts(runs: Sequence[_Run], part: str) -> tuple[list[str], list[_Run]]:
    """Names of classes or families, and the runs that have figures of them."""
    having = [run for run in runs if (run.metrics or {}).get(part)]
    names = dict.fromkeys(
        name for run in having for name in (run.metrics or {})[part]
    )
    return list(names), having


def _videos(runs: Iterable[_Run], part: str, name: str) -> str:
    counts = {
        (run.metrics or {})[part].get(name, {}).get("videos") for run in runs
    } - {None}
    return " / ".join(f"{count:,}" for count in sorted(counts)) or DASH


def _remarks(run: _Run) -> list[str]:
    """What a reader must know of a run: gaps, damage, skipped videos."""
    skipped = (run.metrics or {}).get("skipped", ())
    return run.notes + [
        f"skipped {row.get('path')}: {row.get('error')}" for row in skipped
    ]


# The page


def _page(runs: Sequence[_Run]) -> str:
    scored = [run for run in runs if run.scores is not None]
    sections = [
        ("Results", _results_table(runs)),
        ("Clips and predictions", _gallery(scored)),
        ("Over time", _over_time(scored)),
        ("Learning", _curves(runs)),
        ("Classes", _classes(runs)),
        ("Confusions", _confusions(scored)),
        ("First-layer filters", _filters(runs)),
        ("Recipes", _recipes(runs)),
        ("Left out", _left_out(runs)),
    ]
    shown = [(title, body) for title, body in sections if body]
    links = "".join(
        f'<a href="#{_anchor(title)}">{title}</a>' for title, _ in shown
    )
    bodies = "".join(
        f'<section id="{_anchor(title)}"><h2>{title}</h2>{body}</section>'
        for title, body in shown
    )
    names = ", ".join(_e(run.name) for run in runs)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Video classification: {names}</title>"
        f"<style>{STYLE}</style></head><body><header><h1>Video "
        f"classification</h1><p>{names}</p><nav>{links}</nav></header>"
        f"<main>{bodies}</main><footer>keras_videofusion {__version__}; "
        "protocol and networks of Karpathy et al., <cite>Large-scale Video "
        "Classification with Convolutional Neural Networks</cite>, CVPR "
        "2014.</footer></body></html>\n"
    )


STYLE = """
:root{--ink:#1f2933;--quiet:#616e7c;--line:#e4e7eb;--blue:#0072b2}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1120px;padding:0 24px 48px;color:var(--ink);
background:#fff;font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif}
header{padding:40px 0 12px;border-bottom:3px solid var(--ink)}
h1{margin:0;font-size:34px;letter-spacing:-.02em;line-height:1.1}
header p{margin:6px 0 14px;color:var(--quiet);font-size:18px;
overflow-wrap:anywhere}
nav a{color:var(--blue);text-decoration:none;margin-right:18px;font-size:14px}
nav a:hover{text-decoration:underline}
section{padding-top:14px}
h2{font-size:23px;letter-spacing:-.01em;margin:26px 0 6px}
h3{font-size:16px;margin:22px 0 4px}
p{max-width:76ch;margin:6px 0 12px}
.note{color:var(--quiet);font-size:14px}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:14.5px;margin:8px 0 14px;
font-variant-numeric:tabular-nums}
th,td{padding:6px 12px 6px 0;text-align:right;border-bottom:1px solid
var(--line);vertical-align:middle;white-space:nowrap}
th{color:var(--quiet);font-weight:600;font-size:13px;vertical-align:bottom}
th:first-child,td:first-child,td.text,th.text,td.drawn{text-align:left}
td.drawn{line-height:1.2}svg{display:inline-block;vertical-align:middle}
td.text{white-space:normal;overflow-wrap:anywhere}
tr.sum td{border-top:2px solid var(--line);font-style:italic}
td.main{font-weight:700;font-size:17px}
th.paper,td.paper{color:var(--quiet)}
th.paper.first,td.paper.first{border-left:1px solid var(--line);
padding-left:12px}
img{max-width:100%;height:auto;display:block}
figure{margin:14px 0 18px}
figcaption{color:var(--quiet);font-size:14px;max-width:76ch;margin-top:6px}
.row{display:flex;flex-wrap:wrap;gap:20px 36px;align-items:flex-start}
.row>figure{flex:0 1 auto;margin-top:4px;max-width:100%}
details{margin:8px 0 14px}
summary{cursor:pointer;color:var(--blue);font-size:14.5px}
code{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
overflow-wrap:anywhere}
footer{margin-top:40px;padding-top:10px;border-top:1px solid var(--line);
color:var(--quiet);font-size:13px}
@media print{nav,summary{display:none}section{break-inside:avoid-page}}
"""


def _results_table(runs: Sequence[_Run]) -> str:
    rows = list(_results(runs))
    head = (
        "<tr><th>run</th><th class=text>model</th><th>video<br>Hit@1</th>"
        "<th class=text>95 % interval</th><th>clip<br>Hit@1</th>"
        "<th>video<br>Hit@5</th><th>mAP</th><th>videos</th><th>clips</th>"
        "<th>chance</th><th class='paper first'>paper:<br>video Hit@1</th>"
        "<th class=paper>clip<br>Hit@1</th>"
        "<th class=paper>video<br>Hit@5</th></tr>"
    )
    body = ""
    for place, row in enumerate(rows):
        clip, video, video5 = row["paper"]
        paper = [
            DASH if math.isnan(n) else f"{n:.1f}" for n in (video, clip, video5)
        ]
        skipped = f" (+{row['skipped']} skipped)" if row["skipped"] else ""
        body += (
            f"<tr{' class=sum' if place >= len(runs) else ''}>"
            f"<td>{_e(row['name'])}</td>"
            f"<td class=drawn>{_e(row['model'])}</td>"
            f"<td class=main>{_share(row['video'])}</td>"
            f"<td class=drawn>{_interval(row)}</td>"
            f"<td>{_share(row['clip'])}</td><td>{_share(row['video5'])}</td>"
            f"<td>{_share(row['map'])}</td>"
            f"<td>{_count(row['videos'])}{skipped}</td>"
            f"<td>{_count(row['clips'])}</td><td>{_share(row['chance'])}</td>"
            f"<td class='paper first'>{paper[0]}</td>"
            f"<td class=paper>{paper[1]}</td><td class=paper>{paper[2]}</td>"
            "</tr>"
        )
    protocols = dict.fromkeys(
        _protocol(run.scores.protocol) for run in runs if run.scores is not None
    )
    return (
        f"<div class=wide><table>{head}{body}</table></div>"
        f"<p class=note>{PAPER_NOTE}</p>"
        + "".join(f"<p class=note>{_e(text)}</p>" for text in protocols if text)
    )


def _protocol(protocol: Mapping[str, Any]) -> str:
    """One sentence on how clips were scored."""
    if "clips" not in protocol:
        return ""
    chance = "The dotted line is chance."
    if "features" in protocol.get("clip", ()):
        return f"A video is a vector, or the mean over several. {chance}"
    passes = protocol.get("passes")
    crops = (
        "the centre crop"
        if passes == 1
        else "the centre and a random crop, each plain and flipped"
    )
    return (
        f"{protocol['clips']} {protocol.get('sampler', '')} clips of every "
        f"video, each seen as {crops}; probabilities are averaged over the "
        f"passes of a clip, then over the clips of a video. {chance}"
    )


def _interval(row: Mapping[str, Any]) -> str:
    """The interval as a small drawing: dot, line, and chance dotted."""
    low, high = row["interval"]
    if math.isnan(low):
        return DASH
    width, middle = 150, 9

    def at(share: float) -> str:
        return f"{4 + share * (width - 8):.1f}"

    chance = ""
    if not math.isnan(row["chance"]):
        x = at(row["chance"])
        chance = (
            f'<line x1="{x}" x2="{x}" y1="0" y2="18" stroke="#616e7c" '
            'stroke-dasharray="2 2"/>'
        )
    words = f"{_share(low)} to {_share(high)} %"
    return (
        f'<svg width="{width}" height="18" role="img" aria-label="{words}">'
        f"<title>{words}</title>"
        f'<line x1="4" x2="{width - 4}" y1="{middle}" y2="{middle}" '
        f'stroke="#e4e7eb" stroke-width="2"/>{chance}'
        f'<line x1="{at(low)}" x2="{at(high)}" y1="{middle}" y2="{middle}" '
        'stroke="#0072b2" stroke-width="4" stroke-linecap="round" '
        'opacity=".45"/>'
        f'<circle cx="{at(row["video"])}" cy="{middle}" r="4.5" '
        f'fill="#0072b2"/></svg><br><span class=note>{words}</span>'
    )


def _curves(runs: Sequence[_Run]) -> str:
    histories = {run.name: run.history for run in runs if run.history}
    if not histories:
        return ""
    return _picture(
        pictures.learning_curves(histories),
        "Loss and Hit@1 over the epochs",
        "Of single clips, before any averaging.",
    )


def _classes(runs: Sequence[_Run]) -> str:
    parts = ""
    names, having = _parts(runs, "per_class")
    if names:
        values = {
            run.name: {
                name: row["hit_at_1"]
                for name, row in (run.metrics or {})["per_class"].items()
            }
            for run in having
        }
        chances = [
            metrics.chance(run.scores.truth)
            for run in runs
            if run.scores is not None
        ]
        parts += _picture(
            pictures.class_dots(
                values,
                title="Video Hit@1 per class",
                chance=chances[0] if chances else None,
            ),
            "Video Hit@1 per class",
        )
    families, _ = _parts(runs, "per_family")
    if families:
        parts += "<h3>Per family</h3>" + _part_table(runs, "per_family")
    if names:
        parts += (
            f"<details><summary>Table of all {len(names):,} classes"
            f"</summary>{_part_table(runs, 'per_class')}</details>"
        )
    return parts


def _part_table(runs: Sequence[_Run], part: str) -> str:
    names, having = _parts(runs, part)
    head = "".join(
        f"<th>{_e(run.name)}<br>Hit@1</th><th>AP</th>" for run in having
    )
    body = ""
    for name in names:
        cells = ""
        for run in having:
            row = (run.metrics or {})[part].get(name, {})
            cells += (
                f"<td>{_share(row.get('hit_at_1'))}</td>"
                f"<td>{_share(row.get('average_precision'))}</td>"
            )
        body += (
            f"<tr><td class=text>{_e(name)}</td>"
            f"<td>{_videos(having, part, name)}</td>{cells}</tr>"
        )
    return (
        "<div class=wide><table><tr><th></th><th>videos</th>"
        f"{head}</tr>{body}</table></div>"
    )


def _confusions(runs: Sequence[_Run]) -> str:
    parts = ""
    for run in runs:
        scores = run.scores
        if scores is None or not len(scores.classes):
            continue
        counts = metrics.confusion(scores.truth, scores.video_probabilities)
        parts += _picture(
            pictures.confusion_matrix(counts, scores.classes, run.name),
            f"Confusion matrix of {run.name}",
            _confused(counts, scores.classes),
        )
    return f"<div class=row>{parts}</div>" if parts else ""


def _confused(counts: np.ndarray, classes: Sequence[str], most: int = 3) -> str:
    """The commonest confusions in words."""
    mistakes = counts - np.diag(np.diag(counts))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:most]
    told = []
    for true, guess in zip(*np.unravel_index(order, counts.shape), strict=True):
        if mistakes[true, guess] > 0:
            told.append(
                f"{classes[true]} taken for {classes[guess]} "
                f"({mistakes[true, guess]:.3g} of {counts[true].sum():.3g})"
            )
    return "Most often " + "; ".join(told) + "." if told else "No mistakes."


def _filters(runs: Sequence[_Run]) -> str:
    parts = ""
    for run in runs:
        kernels = _kernels(run)
        if kernels:
            parts += _picture(
                pictures.filters(kernels),
                f"First-layer filters of {run.name}",
                run.name + _said_of(kernels),
            )
    return parts


def _said_of(kernels: dict[str, np.ndarray]) -> str:
    """What must be known to read a sheet of filters."""
    told = []
    if any(len(kernel) > 1 for kernel in kernels.values()):
        told.append("the frames of a filter stand below each other")
    if any(not kernel[..., 2, :].any() for kernel in kernels.values()):
        told.append("of flow, x is red and y is green")
    return f": {'; '.join(told)}." if told else ""


def _kernels(run: _Run) -> dict[str, np.ndarray]:
    """First-layer kernels of `model.keras`, `(extent, h, w, 3, filters)`."""
    path = join(run.folder, "model.keras")
    if not exists(path):
        return {}
    import keras

    try:
        with fetched(path) as file:
            model = keras.saving.load_model(file, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        run.notes.append(f"model.keras cannot be read: {reason}")
        return {}
    return pictures.first_kernels(model)


def _recipes(runs: Sequence[_Run]) -> str:
    """Where the runs differ, and all the rest folded away."""
    rows: dict[str, dict[str, Any]] = {}
    for run in runs:
        for key, value in {**run.recipe, **_facts(run)}.items():
            rows.setdefault(key, {})[run.name] = value
    if not rows:
        return ""

    def same(values: dict[str, Any]) -> bool:
        return len(values) == len(runs) and (
            len({json.dumps(v, sort_keys=True) for v in values.values()}) == 1
        )

    differing = {k: v for k, v in rows.items() if not same(v)}
    if len(runs) == 1:
        return _recipe_table(runs, rows)
    told = (
        _recipe_table(runs, differing)
        if differing
        else "<p>The runs share recipe and surroundings.</p>"
    )
    shared = {k: v for k, v in rows.items() if same(v)}
    if shared:
        told += (
            "<details><summary>What the runs share</summary>"
            f"{_recipe_table(runs[:1], shared)}</details>"
        )
    return told


def _facts(run: _Run) -> dict[str, Any]:
    """What is worth knowing beside the recipe."""
    facts: dict[str, Any] = {}
    if run.history.get("epoch"):
        facts["epochs done"] = int(run.history["epoch"][-1])
    if run.history.get("clips_per_second"):
        speeds = run.history["clips_per_second"]
        facts["clips per second"] = round(float(np.median(speeds)), 1)
    if run.catalog is not None:
        splits = [str(video.split) for video in run.catalog]
        facts["videos per split"] = ", ".join(
            f"{splits.count(name)} {name}" for name in sorted(set(splits))
        )
    for key in ("clip", "data"):
        if key in run.settings:
            facts[key] = run.settings[key]
    for key, value in run.environment.items():
        if key != "seed":
            facts[key] = value
    return facts


def _recipe_table(runs: Sequence[_Run], rows: Mapping[str, Mapping]) -> str:
    head = (
        "".join(f"<th class=text>{_e(run.name)}</th>" for run in runs)
        if len(runs) > 1
        else ""
    )
    body = ""
    for key, values in rows.items():
        cells = "".join(
            f"<td class=text><code>{_e(_value(values.get(run.name)))}</code>"
            "</td>"
            for run in runs
        )
        body += f"<tr><td>{_e(key.replace('_', ' '))}</td>{cells}</tr>"
    head = f"<tr><th></th>{head}</tr>" if head else ""
    return f"<div class=wide><table>{head}{body}</table></div>"


def _value(value: Any) -> str:
    """A setting in a few words: `frames 10, step 1, size 170 170`."""
    if value is None:
        return DASH
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {_value(part)}"
            for key, part in value.items()
            if part is not None
        )
    if isinstance(value, list):
        return " ".join(_value(part) for part in value)
    return value if isinstance(value, str) else json.dumps(value)


def _left_out(runs: Sequence[_Run]) -> str:
    items = [
        f"<li><b>{_e(run.name)}</b>: {_e(note)}</li>"
        for run in runs
        for note in _remarks(run)
    ]
    return f"<ul>{''.join(items)}</ul>" if items else ""


# Clips and predictions


def _gallery(runs: Sequence[_Run]) -> str:
    """Sample clips, and the surest mistakes, with what the runs said."""
    first = next((run for run in runs if run.scores is not None), None)
    if first is None or first.scores is None:
        return ""
    together = [run for run in runs if _same_videos(run, first)]
    parts = ""
    for group in [together] + [[run] for run in runs if run not in together]:
        parts += _samples(group)
    return parts


def _same_videos(run: _Run, other: _Run) -> bool:
    return (
        run.scores is not None
        and other.scores is not None
        and set(run.scores.video_ids) == set(other.scores.video_ids)
        and run.scores.classes == other.scores.classes
    )


def _samples(runs: Sequence[_Run]) -> str:
    scores = runs[0].scores
    if scores is None or not len(scores.clip_video):
        return ""
    finder = _Finder(runs)
    parts = ""
    names = ", ".join(run.name for run in runs)
    for title, chosen, words in (
        (
            "Drawn at random",
            _spread(scores),
            "One video of every class first. In blue the true label; the bars "
            "are the five best classes by the video's score, green where "
            "right.",
        ),
        (
            "The surest mistakes",
            _mistakes(runs),
            "The videos that the runs got most wrong: the highest score of a "
            "false class, averaged over the runs.",
        ),
    ):
        samples, missing = [], ""
        for video in chosen:
            try:
                frames = finder(scores.video_ids[video])
            except VideoError as error:
                missing = str(error)
                continue
            samples.append(_sample(runs, scores.video_ids[video], frames))
        if samples:
            heading = title if len(runs) > 1 else f"{title}: {names}"
            parts += f"<h3>{_e(heading)}</h3>" + _picture(
                pictures.clips_with_predictions(samples), title, words
            )
        elif missing:
            return (
                f"<p class=note>{_e(names)}: no pictures of clips, since the "
                f"videos are not at hand ({_e(missing)}).</p>"
            )
    return parts


def _over_time(runs: Sequence[_Run]) -> str:
    """The scores of one long video, clip by clip, as each run saw it."""
    parts, name = "", None
    for run in runs:
        scores = run.scores
        if scores is None:
            continue
        if name not in scores.video_ids:
            name = _longest(scores)
        if name is None:
            continue
        video = scores.video_ids.index(name)
        clips = scores.clip_video == video
        parts += _picture(
            pictures.scores_over_time(
                scores.clip_start_seconds[clips],
                scores.clip_probabilities[clips],
                scores.classes,
                [
                    scores.classes[c]
                    for c in np.flatnonzero(scores.truth[video])
                ],
            ),
            f"Scores of one video over time, {run.name}",
            f"{run.name}: the clips of {name}.",
        )
    return f"<div class=row>{parts}</div>" if parts else ""


def _longest(scores: Scores) -> str | None:
    """The video whose clips lie furthest apart; None if none has three."""
    reach = np.zeros(len(scores.video_ids))
    for video in np.flatnonzero(scores.clips_per_video > 2):
        reach[video] = np.ptp(
            scores.clip_start_seconds[scores.clip_video == video]
        )
    return scores.video_ids[int(reach.argmax())] if reach.any() else None


def _spread(scores: Scores) -> list[int]:
    """Videos drawn at random, as many classes as can be."""
    draw = random.Random(0)
    having = np.flatnonzero(scores.clips_per_video > 0).tolist()
    draw.shuffle(having)
    seen: dict[int, int] = {}

    def turn(video: int) -> int:
        true = int(scores.truth[video].argmax())
        seen[true] = seen.get(true, 0) + 1
        return seen[true]

    # Stable: the first of every class, then the second of every class ...
    return sorted(having, key=turn)[:SAMPLES]


def _mistakes(runs: Sequence[_Run]) -> list[int]:
    """Videos of the first run's order that are wrong with most certainty."""
    scores = runs[0].scores
    if scores is None:
        return []
    sure = np.mean(
        [
            np.where(scores.truth, 0, _by_name(run.scores, scores.video_ids))
            for run in runs
            if run.scores is not None
        ],
        axis=0,
    ).max(axis=1)
    wrong = np.zeros(len(sure), bool)
    for run in runs:
        if run.scores is not None:
            found = _by_name(run.scores, scores.video_ids)
            wrong |= ~metrics.hits(scores.truth, found, 1)
    wrong &= ~np.isnan(sure)
    order = np.argsort(-np.nan_to_num(sure), kind="stable")
    return [int(video) for video in order if wrong[video]][:MISTAKES]


def _by_name(scores: Scores, names: Sequence[str]) -> np.ndarray:
    """Video probabilities in the order of `names`."""
    place = {name: row for row, name in enumerate(scores.video_ids)}
    return scores.video_probabilities[[place[name] for name in names]]


def _sample(
    runs: Sequence[_Run], name: str, frames: np.ndarray
) -> pictures.Sample:
    labels: list[str] = []
    predictions = {}
    for run in runs:
        if run.scores is None:
            continue
        row = run.scores.video_ids.index(name)
        found = run.scores.video_probabilities[row]
        labels = [
            run.scores.classes[c] for c in np.flatnonzero(run.scores.truth[row])
        ]
        best = np.argsort(-np.nan_to_num(found), kind="stable")[:5]
        predictions[run.name] = [
            (run.scores.classes[c], float(found[c])) for c in best
        ]
    return pictures.Sample(frames, labels, predictions)


class _Finder:
    """Four frames of the first scored clip of a video, by the video's name."""

    def __init__(self, runs: Sequence[_Run]):
        # The longest clip among the runs shows what the others saw too.
        specs = [spec for run in runs if (spec := _clip(run)) is not None]
        self.spec = max(specs, key=lambda spec: spec.span, default=None)
        self.files: dict[str, str] = {}
        self.starts: dict[str, float] = {}
        for run in runs:
            if run.catalog is not None:
                for name, video in zip(
                    video_ids(run.catalog), run.catalog, strict=True
                ):
                    self.files.setdefault(name, run.catalog.file(video))
            if run.scores is not None:
                for video, start in zip(
                    run.scores.clip_video,
                    run.scores.clip_start_seconds,
                    strict=True,
                ):
                    name = run.scores.video_ids[video]
                    self.starts.setdefault(name, float(start))

    def __call__(self, name: str) -> np.ndarray:
        """Uint8 array of shape `(4, 160, 160, 3)`."""
        if name not in self.files:
            raise VideoError(name, "not a row of the run's catalog.csv")
        path = self.files[name]
        times = timeline(path).times
        start = np.nan_to_num(self.starts.get(name, 0.0))
        first = min(int(np.searchsorted(times, start - 1e-6)), len(times) - 1)
        # Of vectors alone, which are of all frames.
        span = self.spec.span if self.spec is not None else len(times)
        if self.spec is not None and self.spec.fps is not None:
            end = start + (span - 1) / self.spec.fps
            last = int(np.searchsorted(times, end + 1e-6)) - 1
        else:
            last = first + span - 1
        last = max(first, min(last, len(times) - 1))
        shown = np.linspace(first, last, 4).round().astype(int)
        return decode(path, shown, ("square", 160))


def _clip(run: _Run) -> ClipSpec | None:
    try:
        return ClipSpec.from_json(run.settings["clip"])
    except (KeyError, TypeError, ValueError):
        return None


# HTML


def _picture(figure, words: str, caption: str = "") -> str:
    """A picture within the page."""
    data = base64.b64encode(pictures.png(figure, dpi=144)).decode()
    width = round(figure.get_figwidth() * 96)
    under = f"<figcaption>{_e(caption)}</figcaption>" if caption else ""
    return (
        f'<figure style="max-width:{width}px">'
        f'<img alt="{_e(words)}" width="{width}" '
        f'src="data:image/png;base64,{data}">{under}</figure>'
    )


def _e(text: Any) -> str:
    """Text that HTML takes as it is."""
    return html.escape(_shown(text))


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _count(value: int | None) -> str:
    return DASH if value is None else f"{value:,}"

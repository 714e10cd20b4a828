"""Figures of merit, in NumPy: Hit@k, average precision, confusion."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_videofusion.evaluation.scores import Scores


def hit_at_k(truth: np.ndarray, scores: np.ndarray, k: int) -> float:
    """Share of videos with a true class among the `k` highest scores.

    A video may have several true classes; finding any one of them is a hit.
    Videos without a true class count as misses, not as missing. Among equal
    scores the class that comes first ranks first, as in `keras.ops.top_k`;
    a class whose score is `nan` ranks last and is never a hit.

    Args:
        truth: Boolean array of shape `(videos, classes)`.
        scores: Float array of shape `(videos, classes)`.
        k: Integer in 1..classes.

    Returns:
        Float in 0..1; `nan` if there are no videos.

    Raises:
        ValueError: If the shapes differ or `k` is out of range.

    Reference:
        Karpathy et al., CVPR 2014, table 1.
    """
    found = hits(truth, scores, k)
    return float(found.mean()) if len(found) else math.nan


def hits(truth: np.ndarray, scores: np.ndarray, k: int) -> np.ndarray:
    """Which videos have a true class among the `k` highest scores.

    Args and errors are those of `hit_at_k`.

    Returns:
        Boolean array of shape `(videos,)`.
    """
    truth, scores = _pair(truth, scores)
    if not 1 <= k <= truth.shape[1]:
        raise ValueError(
            f"`k` must be in 1..{truth.shape[1]}, the number of classes. "
            f"Received: k={k}"
        )
    best = _ranked(scores)[:, :k]
    found = truth & ~np.isnan(scores)
    return np.asarray(np.take_along_axis(found, best, axis=1).any(axis=1))


def clip_hit_at_1(scores: Scores) -> float:
    """Share of clips whose highest score is a true class of their video.

    Args:
        scores: `Scores`, whose clips have their passes averaged.

    Returns:
        Float in 0..1; `nan` if there are no clips, or if the scores are of
        videos only, as those of a fusion may be.

    Reference:
        Karpathy et al., CVPR 2014, table 1.
    """
    if scores.protocol.get("level") == "videos" or not len(scores.clip_video):
        return math.nan
    truth = scores.truth[scores.clip_video]
    return hit_at_k(truth, scores.clip_probabilities, 1)


def average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """Area under one class's steps of precision over recall.

    The sum over thresholds of (recall gained there) x (precision there),
    without interpolation. Equal scores are one threshold, so their order
    does not matter. A score that is `nan` ranks below all others.

    Args:
        truth: Boolean array of shape `(videos,)`.
        scores: Float array of shape `(videos,)`.

    Returns:
        Float in 0..1; `nan` if no video has the class.

    Raises:
        ValueError: If the shapes differ.
    """
    truth = np.asarray(truth, bool)
    scores = np.asarray(scores, np.float64)
    if truth.shape != scores.shape or truth.ndim != 1:
        raise ValueError(
            "`truth` and `scores` must have one shape, (videos,). Received: "
            f"truth.shape={truth.shape}, scores.shape={scores.shape}"
        )
    if not truth.any():
        return math.nan
    scores = np.where(np.isnan(scores), -np.inf, scores)
    order = np.argsort(-scores, kind="stable")
    truth, scores = truth[order], scores[order]
    # The last video of every run of equal scores.
    ends = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(truth) - 1)
    found = np.cumsum(truth)[ends]
    precision = found / (ends + 1)
    gained = np.diff(found, prepend=0) / truth.sum()
    return float((gained * precision).sum())


def mean_average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """Average precision, averaged over the classes that occur.

    Args:
        truth: Boolean array of shape `(videos, classes)`.
        scores: Float array of shape `(videos, classes)`.

    Returns:
        Float in 0..1; `nan` if no class occurs.

    Raises:
        ValueError: If the shapes differ.
    """
    return _mean(_average_precisions(*_pair(truth, scores)))


def confusion(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Counts of (true class, class of the highest score).

    Every video counts 1 in sum. One with several true classes counts on the
    diagonal if its highest score is any of them; otherwise it is shared
    equally among the rows of its true classes. A video without a true class
    or with a score of `nan` alone does not count.

    Args:
        truth: Boolean array of shape `(videos, classes)`.
        scores: Float array of shape `(videos, classes)`.

    Returns:
        Float64 array of shape `(classes, classes)`: a row per true class.

    Raises:
        ValueError: If the shapes differ.
    """
    truth, scores = _pair(truth, scores)
    counts = np.zeros((truth.shape[1], truth.shape[1]))
    kept = truth.any(axis=1) & ~np.isnan(scores).all(axis=1)
    truth, best = truth[kept], _ranked(scores[kept])[:, 0]
    for row, guess in zip(truth, best, strict=True):
        if row[guess]:
            counts[guess, guess] += 1
        else:
            counts[row, guess] += 1 / row.sum()
    return counts


def standard_error(share: float, count: int) -> float:
    """Binomial standard error of a share of `count` videos.

    Args:
        share: Float in 0..1.
        count: Integer.

    Returns:
        Float; `nan` if `count` is 0.
    """
    return math.sqrt(share * (1 - share) / count) if count else math.nan


def wilson(share: float, count: int, deviations: float = 1.96) -> tuple:
    """Wilson's interval of a share of `count` videos.

    Unlike share ± 2 standard errors it stays within 0..1 and does not
    shrink to nothing at 0 and 1.

    Args:
        share: Float in 0..1.
        count: Integer.
        deviations: Float; 1.96 for 95 %.

    Returns:
        Pair of floats; both `nan` if `count` is 0.

    Reference:
        Wilson, Probable inference, the law of succession, and statistical
        inference, JASA 1927.
    """
    if not count:
        return math.nan, math.nan
    squared = deviations**2 / count
    middle = share + squared / 2
    half = math.sqrt(share * (1 - share) * squared + squared**2 / 4)
    low, high = ((middle + sign * half) / (1 + squared) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def chance(truth: np.ndarray) -> float:
    """Hit@1 to expect of a network that names a class at random.

    Args:
        truth: Boolean array of shape `(videos, classes)`.

    Returns:
        Float in 0..1; `nan` if there are no videos.
    """
    truth = np.asarray(truth, bool)
    return float(truth.mean()) if truth.size else math.nan


def summary(
    scores: Scores,
    families: Mapping[str, str] | None = None,
    skipped: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """All figures of one evaluation: the object of `metrics.json`.

    Videos without clips do not count. Hit@5 of fewer than five classes is
    that of all of them. The Hit@1 of a class, or of a family of classes, is
    that of the videos which have the class, or any of them; the average
    precision of a family is the mean over its classes that occur.

    Args:
        scores: `Scores`.
        families: Dict of class to family, or None.
        skipped: Dicts with `path` and `error` of the videos left out.

    Returns:
        Dict of plain values, as DESIGN.md's `evaluate --json` has it; None
        where a number does not exist, so that it is strict JSON.
    """
    kept = scores.clips_per_video > 0
    truth, found = scores.truth[kept], scores.video_probabilities[kept]
    hit = hits(truth, found, 1) if len(scores.classes) else kept[kept]
    precisions = _average_precisions(truth, found)

    def part(columns: np.ndarray) -> dict[str, Any]:
        rows = truth[:, columns].any(axis=1)
        return {
            "videos": int(rows.sum()),
            "hit_at_1": _plain(_mean(hit[rows])),
            "average_precision": _plain(_mean(precisions[columns])),
        }

    members: dict[str, list[int]] = {}
    for place, name in enumerate(scores.classes):
        family = (families or {}).get(name)
        if family is not None:
            members.setdefault(family, []).append(place)
    k = min(5, len(scores.classes))
    return {
        "clip_hit_at_1": _plain(clip_hit_at_1(scores)),
        "video_hit_at_1": _plain(_mean(hit)),
        "video_hit_at_5": _plain(hit_at_k(truth, found, k) if k else math.nan),
        "mean_average_precision": _plain(_mean(precisions)),
        "videos": len(truth),
        "clips": len(scores.clip_video),
        "skipped": [
            {"path": str(row["path"]), "error": str(row["error"])}
            for row in skipped
        ],
        "per_class": {
            name: part(np.array([place]))
            for place, name in enumerate(scores.classes)
        },
        "per_family": {
            name: part(np.array(places))
            for name, places in sorted(members.items())
        },
    }


def _average_precisions(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Average precision of every class, `(classes,)`."""
    return np.array(
        [
            average_precision(truth[:, place], scores[:, place])
            for place in range(truth.shape[1])
        ],
        np.float64,
    )


def _ranked(scores: np.ndarray) -> np.ndarray:
    """Classes from the highest score to the lowest, `(videos, classes)`."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    return np.argsort(-scores, axis=1, kind="stable")


def _pair(truth, scores) -> tuple[np.ndarray, np.ndarray]:
    truth = np.asarray(truth, bool)
    scores = np.asarray(scores)
    if truth.shape != scores.shape or truth.ndim != 2:
        raise ValueError(
            "`truth` and `scores` must have one shape, (videos, classes). "
            f"Received: truth.shape={truth.shape}, "
            f"scores.shape={scores.shape}"
        )
    return truth, scores


def _mean(values: np.ndarray) -> float:
    """Mean of what is not `nan`; `nan` of nothing."""
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else math.nan


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value

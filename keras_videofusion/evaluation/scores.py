"""Scores: what a network said of every clip, and what that makes of videos."""

import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from keras_videofusion.data.catalog import Catalog
from keras_videofusion.data.files import absolute, exists, opened, written

ACTIVATIONS = ("softmax", "sigmoid")

ARRAYS = (
    "video_ids",
    "classes",
    "truth",
    "clip_video",
    "clip_start_seconds",
    "clip_logits",
    "clip_probabilities",
)


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of the clips of some videos, beside the truth.

    A clip's scores are those after its test passes were averaged. A video
    may have any number of clips; one without clips is missing, and its row of
    `video_probabilities` is `nan`, not zero.

    Args:
        video_ids: Names of the videos, all different: their paths as the
            catalog has them.
        classes: Names of the classes, all different.
        truth: Boolean array of shape `(videos, classes)`.
        clip_video: Integer array of shape `(clips,)`: the video of a clip.
        clip_start_seconds: Float array of shape `(clips,)`.
        clip_logits: Float array of shape `(clips, classes)`.
        clip_probabilities: Float array of shape `(clips, classes)`.
        protocol: How the scores came about, as plain JSON values.

    Raises:
        ValueError: If shapes do not fit together, a name occurs twice, or a
            clip belongs to no video.
    """

    video_ids: tuple[str, ...]
    classes: tuple[str, ...]
    truth: np.ndarray
    clip_video: np.ndarray
    clip_start_seconds: np.ndarray
    clip_logits: np.ndarray
    clip_probabilities: np.ndarray
    protocol: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("video_ids", "classes"):
            names = tuple(str(value) for value in getattr(self, name))
            if len(set(names)) < len(names):
                raise ValueError(
                    f"`{name}` must all differ. Received: {_twice(names)!r} "
                    "more than once"
                )
            object.__setattr__(self, name, names)
        videos, classes = len(self.video_ids), len(self.classes)
        clips = len(self.clip_video)
        for name, kind, shape in (
            ("truth", bool, (videos, classes)),
            ("clip_video", np.int64, (clips,)),
            ("clip_start_seconds", np.float64, (clips,)),
            ("clip_logits", np.float32, (clips, classes)),
            ("clip_probabilities", np.float32, (clips, classes)),
        ):
            array = np.asarray(getattr(self, name), kind)
            if array.shape != shape:
                raise ValueError(
                    f"`{name}` must have the shape {shape}: {videos} videos, "
                    f"{clips} clips, {classes} classes. "
                    f"Received: {name}.shape={array.shape}"
                )
            object.__setattr__(self, name, array)
        strays = (self.clip_video < 0) | (self.clip_video >= videos)
        if strays.any():
            raise ValueError(
                f"`clip_video` must be in 0..{videos - 1}. "
                f"Received: clip_video={self.clip_video[strays][0]}"
            )

    @cached_property
    def clips_per_video(self) -> np.ndarray:
        """Integer array of shape `(videos,)`."""
        return np.bincount(self.clip_video, minlength=len(self.video_ids))

    @cached_property
    def video_probabilities(self) -> np.ndarray:
        """Clip probabilities averaged over each video's clips.

        Returns:
            Float64 array of shape `(videos, classes)`; `nan` where a video
            has no clips.

        Reference:
            Karpathy et al., CVPR 2014, section 4.1.
        """
        return self._averaged(self.clip_probabilities)

    @cached_property
    def video_logits(self) -> np.ndarray:
        """Clip logits averaged likewise, `(videos, classes)`."""
        return self._averaged(self.clip_logits)

    def _averaged(self, of_clips: np.ndarray) -> np.ndarray:
        sums = np.zeros(self.truth.shape)
        np.add.at(sums, self.clip_video, of_clips)
        counts = self.clips_per_video[:, None]
        missing = np.full(self.truth.shape, np.nan)
        return np.divide(sums, counts, out=missing, where=counts > 0)

    def save(self, path: str | os.PathLike) -> None:
        """Writes `scores.npz`, whole or not at all.

        Args:
            path: Path or address where it shall stand.
        """
        with written(path) as draft, draft.open("wb") as file:
            np.savez_compressed(
                file,
                video_ids=np.array(self.video_ids, str),
                classes=np.array(self.classes, str),
                truth=self.truth,
                clip_video=self.clip_video,
                clip_start_seconds=self.clip_start_seconds,
                clip_logits=self.clip_logits,
                clip_probabilities=self.clip_probabilities,
                protocol=np.array(json.dumps(self.protocol, allow_nan=False)),
            )

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Scores":
        """Reads what `save` wrote; never unpickles.

        Args:
            path: Path or address of a `scores.npz`.

        Returns:
            `Scores`.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged or something else.
        """
        if not exists(path):
            raise FileNotFoundError(f"no scores at {absolute(path)}")
        try:
            # NumPy leaves a file that it opened itself open if it is damaged.
            with (
                opened(path) as file,
                np.load(file, allow_pickle=False) as stored,
            ):
                arrays = {name: stored[name] for name in ARRAYS}
                protocol = json.loads(str(stored["protocol"]))
            for name, kinds in _KINDS.items():
                if arrays[name].dtype.kind not in kinds:
                    raise ValueError(f"`{name}` is {arrays[name].dtype}")
            for name in ("video_ids", "classes"):
                arrays[name] = tuple(arrays[name].tolist())
            if not isinstance(protocol, dict):
                raise ValueError("`protocol` is not a JSON object")
            return cls(**arrays, protocol=protocol)
        except _DAMAGE as error:
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise ValueError(
                f"{path} is damaged or no file of scores: {reason}"
            ) from error


# Kinds of NumPy types that each array may have in a file.
_KINDS = {
    "video_ids": "U",
    "classes": "U",
    "truth": "b",
    "clip_video": "iu",
    "clip_start_seconds": "f",
    "clip_logits": "f",
    "clip_probabilities": "f",
}

# What NumPy and zipfile raise over bytes that are not an archive of arrays.
_DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    EOFError,
    MemoryError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
)


def probabilities(logits: np.ndarray, activation: str) -> np.ndarray:
    """What a softmax or a sigmoid makes of logits.

    Args:
        logits: Float array of shape `(..., classes)`.
        activation: `"softmax"` or `"sigmoid"`.

    Returns:
        Float32 array of the same shape.

    Raises:
        ValueError: If the activation is another.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"`activation` must be one of {ACTIVATIONS}. "
            f"Received: activation={activation!r}"
        )
    logits = np.asarray(logits, np.float64)
    if activation == "sigmoid":
        # By tanh, which does not overflow.
        return (0.5 * (1 + np.tanh(0.5 * logits))).astype(np.float32)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)


def video_ids(catalog: Catalog) -> tuple[str, ...]:
    """A name for every row of a catalog, all different.

    A row's name is its path, with its part of the video where the row has
    one (`a.mp4#2-5.5`); a row that occurs again is numbered (`a.mp4#again2`).

    Args:
        catalog: `Catalog`.

    Returns:
        Tuple of strings, one per row.
    """
    seen: dict[str, int] = {}
    found = []
    for video in catalog:
        name = str(video.path)
        if video.start is not None or video.end is not None:
            ends = (video.start or 0.0, video.end)
            first, last = ("" if s is None else f"{s:.10g}" for s in ends)
            name += f"#{first}-{last}"
        seen[name] = seen.get(name, 0) + 1
        again = f"#again{seen[name]}" if seen[name] > 1 else ""
        found.append(name + again)
    return tuple(found)


def fuse(
    scores: Sequence[Scores],
    by: str = "probabilities",
    weights: Sequence[float] | None = None,
) -> Scores:
    """Scores of several networks, or streams, for the same videos as one.

    Networks that scored as many clips of every video are fused clip by clip,
    in the order of the clips (with one seed they lie at the same places);
    otherwise their video scores are fused, and the result has one clip per
    video, which starts at `nan` seconds.

    Args:
        scores: `Scores` with the same classes and the same videos, whose
            order may differ: that of the first is kept.
        by: `"probabilities"` are averaged, with weights that are scaled to
            sum to 1: the paper's "CNN average". `"logits"` are added, each
            times its weight, before the activation: two-stream I3D.
        weights: A number per element of `scores`; all 1 if not given.

    Returns:
        `Scores`.

    Raises:
        ValueError: If classes, videos, truth or weights do not match.

    Reference:
        Karpathy et al., CVPR 2014, table 1 (average); Carreira & Zisserman,
        CVPR 2017, section 2.4 (addition).
    """
    if not scores:
        raise ValueError("`scores` must not be empty. Received: scores=[]")
    if by not in ("probabilities", "logits"):
        raise ValueError(
            f"`by` must be 'probabilities' or 'logits'. Received: by={by!r}"
        )
    shares = np.ones(len(scores)) if weights is None else np.array(weights)
    if shares.shape != (len(scores),) or not np.isfinite(shares).all():
        raise ValueError(
            f"`weights` must be {len(scores)} numbers, one per element of "
            f"`scores`. Received: weights={weights}"
        )
    if by == "probabilities":
        if shares.min() < 0 or shares.sum() <= 0:
            raise ValueError(
                "`weights` of probabilities must be 0 or more, and not all "
                f"0. Received: weights={weights}"
            )
        shares = shares / shares.sum()
    activations = {s.protocol.get("activation", "softmax") for s in scores}
    if len(activations) > 1:
        raise ValueError(
            "`scores` must come from one activation. "
            f"Received: activations={sorted(activations)}"
        )
    activation = activations.pop()
    aligned = [_aligned(one, scores[0]) for one in scores]
    first = aligned[0]
    by_clip = all(
        np.array_equal(one.clip_video, first.clip_video) for one in aligned
    )
    if by_clip:
        owner, starts = first.clip_video, first.clip_start_seconds
        all_logits = [one.clip_logits for one in aligned]
        all_probabilities = [one.clip_probabilities for one in aligned]
    else:
        # Missing in one is missing in the fusion.
        found = np.all([one.clips_per_video > 0 for one in aligned], axis=0)
        owner = np.flatnonzero(found)
        starts = np.full(len(owner), np.nan)
        all_logits = [one.video_logits[owner] for one in aligned]
        all_probabilities = [one.video_probabilities[owner] for one in aligned]
    logits = np.tensordot(shares, np.stack(all_logits), 1)
    if by == "logits":
        fused = probabilities(logits, activation)
    else:
        fused = np.tensordot(shares, np.stack(all_probabilities), 1)
    return Scores(
        first.video_ids,
        first.classes,
        first.truth,
        owner,
        starts,
        logits,
        fused,
        {
            "activation": activation,
            "fused": [one.protocol for one in scores],
            "by": by,
            "weights": shares.tolist(),
            "level": "clips" if by_clip else "videos",
        },
    )


def _aligned(other: Scores, first: Scores) -> Scores:
    """`other` with its videos in the order of `first`, clips by video."""
    if other.classes != first.classes:
        raise ValueError(
            "`scores` must have the same classes in the same order. Received: "
            f"{len(first.classes)} classes from {first.classes[:3]} and "
            f"{len(other.classes)} from {other.classes[:3]}"
        )
    strangers = set(first.video_ids) ^ set(other.video_ids)
    if strangers:
        raise ValueError(
            "`scores` must be of the same videos. Received: "
            f"{len(strangers)} videos that only some have, such as "
            f"{min(strangers)!r}"
        )
    place = {name: i for i, name in enumerate(first.video_ids)}
    to_first = np.array([place[name] for name in other.video_ids], np.int64)
    truth = np.empty_like(first.truth)
    truth[to_first] = other.truth
    if (truth != first.truth).any():
        row = int(np.flatnonzero((truth != first.truth).any(axis=1))[0])
        raise ValueError(
            "`scores` must agree on the truth. "
            f"Received: other labels for {first.video_ids[row]!r}"
        )
    owner = to_first[other.clip_video]
    order = np.argsort(owner, kind="stable")
    return Scores(
        first.video_ids,
        first.classes,
        truth,
        owner[order],
        other.clip_start_seconds[order],
        other.clip_logits[order],
        other.clip_probabilities[order],
        other.protocol,
    )


def _twice(names: Sequence[str]) -> str:
    """The first name that has occurred before."""
    seen: set[str] = set()
    return next(n for n in names if n in seen or seen.add(n))  # type: ignore[func-returns-value]

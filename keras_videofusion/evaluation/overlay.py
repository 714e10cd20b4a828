"""Copies of videos with the classes that a network named drawn on them."""

import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from keras_videofusion.data.files import written
from keras_videofusion.data.video import decode, timeline, VideoError
from keras_videofusion.evaluation import pictures

# Pixels of this many bytes are decoded at a time.
AT_A_TIME = 128_000_000


def write_overlay(
    path: str | os.PathLike,
    result: Mapping[str, Any],
    folder: str | os.PathLike,
) -> Path:
    """Writes a video again as H.264, its best classes as bars in a corner.

    Times of frames are kept; sound is not.

    Args:
        path: The video.
        result: What `keras_videofusion.evaluation.protocol.predict` yields
            of it; with `windows` the bars change over time.
        folder: Where the copy shall stand; made if it does not exist. It is
            called like the video, with `.mp4`, and numbered if a file of
            that name is there.

    Returns:
        Path of the copy.

    Raises:
        VideoError: If the video cannot be decoded.
        ImportError: If matplotlib is not installed.
    """
    place = os.fspath(path)
    frames = timeline(place)
    # yuv420p takes even sides only.
    height, width = frames.height // 2 * 2, frames.width // 2 * 2
    windows = result.get("windows") or [
        {"start": 0.0, "predictions": result["predictions"]}
    ]
    begins = np.array([window["start"] for window in windows])
    # A frame before the first window that has any takes that window.
    window_of = np.searchsorted(begins, frames.times + 1e-9, side="right") - 1
    window_of = np.maximum(window_of, 0)
    target = _free(Path(folder), Path(place).stem)
    step = max(1, AT_A_TIME // (3 * frames.height * frames.width))
    try:
        with written(target) as draft, av.open(draft, "w") as container:
            stream: Any = container.add_stream(
                "libx264",
                rate=Fraction(frames.rate or 25).limit_denominator(1001),
            )
            stream.height, stream.width = height, width
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": "20", "preset": "veryfast"}
            stream.codec_context.time_base = Fraction(1, 90_000)
            drawn, panel = -1, (np.zeros(0), np.zeros(0))
            for first in range(0, len(frames), step):
                numbers = np.arange(first, min(first + step, len(frames)))
                for number, pixels in zip(
                    numbers, decode(place, numbers), strict=True
                ):
                    if window_of[number] != drawn:
                        drawn = window_of[number]
                        best = windows[drawn]["predictions"]
                        panel = _panel(best, height, width)
                    picture = np.ascontiguousarray(pixels[:height, :width])
                    _lay(picture, *panel)
                    frame = av.VideoFrame.from_ndarray(picture, "rgb24")
                    frame.pts = round(frames.times[number] * 90_000)
                    frame.time_base = Fraction(1, 90_000)
                    container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except av.error.FFmpegError as error:
        reason = f"its copy cannot be written: {error}"
        raise VideoError(place, reason) from error
    return target


def _free(folder: Path, stem: str) -> Path:
    """A name in the folder that no file has."""
    folder.mkdir(parents=True, exist_ok=True)
    target, number = folder / f"{stem}.mp4", 2
    while target.exists():
        target, number = folder / f"{stem}-{number}.mp4", number + 1
    return target


def _panel(
    best: Sequence[Mapping[str, Any]], height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bars as colours `(h, w, 3)` and opacity `(h, w, 1)`, floats."""
    pixels = pictures.score_panel(
        [(row["class"], row["score"]) for row in best], height, width
    ).astype(np.float32)
    return pixels[..., :3], pixels[..., 3:] / 255


def _lay(picture: np.ndarray, colours: np.ndarray, opacity: np.ndarray) -> None:
    """Lays the panel over the lower left corner of a picture, in place."""
    tall, wide = opacity.shape[:2]
    corner = picture[-tall:, :wide]
    corner[:] = np.round(corner * (1 - opacity) + colours * opacity)

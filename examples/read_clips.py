"""Clips of a video as the `description.json` of an exported network asks.

What the three `run_*.py` beside this file share. It needs PyAV and NumPy only.
"""

import av
import numpy as np


def read_clips(path, told, count):
    """Evenly spread clips: uint8 `(count, time, height, width, 3)`."""
    clip = told["clip"]
    if clip["streams"] != ["rgb"]:
        raise SystemExit("this network eats optical flow, too")
    with av.open(path) as video:
        times = np.array([frame.time for frame in video.decode(video=0)])
    numbers = np.arange(len(times))
    if clip["fps"]:  # the frames on screen at the times of a fixed rate
        at = np.arange(times[0], times[-1] + 1e-6, 1 / clip["fps"]) + 1e-6
        numbers = np.searchsorted(times, at, side="right") - 1
    last = max(0, len(numbers) - told["span"])
    starts = np.linspace(0, last, count).round().astype(int)
    places = starts[:, None] + told["offsets"]
    if clip["short"] == "loop":  # a short video starts again
        places = places % len(numbers)
    # Of others the last frame stays; (count, time)
    wanted = numbers[np.minimum(places, len(numbers) - 1)]
    with av.open(path) as video:
        frames = enumerate(video.decode(video=0))
        found = {n: picture(x, clip) for n, x in frames if n in wanted}
    return np.stack([[found[one] for one in row] for row in wanted])


def picture(frame, clip):
    """A frame resized and cut: uint8 `(height, width, 3)`."""
    turns = round(frame.rotation / 90) % 4
    order = slice(None, None, -1 if turns % 2 else 1)
    size = np.array([frame.height, frame.width][order])
    kind, *sides = clip["resize"]
    if isinstance(kind, int):  # (height, width): stretched
        scaled = kept = np.array([kind, *sides])
    else:
        scales = np.array(sides) / size
        scale = scales.min() if kind == "pad" else scales.max()
        scaled = np.maximum(1, np.round(size * scale)).astype(int)
        kept = scaled if kind == "short_side" else np.resize(sides, 2)
    height, width = scaled[order].tolist()
    pixels = frame.to_ndarray(
        format="rgb24", width=width, height=height, interpolation="AREA"
    )
    return middle(middle(np.rot90(pixels, turns), kept), clip["size"])


def middle(pixels, size):
    """The middle of a picture; what it lacks is black."""
    lack = np.maximum(0, np.subtract(size, pixels.shape[:2]))
    sides = [(one // 2, one - one // 2) for one in (*lack, 0)]
    pixels = np.pad(pixels, sides)
    top, left = np.subtract(pixels.shape[:2], size) // 2
    return pixels[top : top + size[0], left : left + size[1]]

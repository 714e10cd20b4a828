"""Labelled H.264 files whose classes differ in motion and in nothing else.

A scene is a picture of coloured shapes on a torus: what leaves it on one side
comes in on the other. A video shifts one scene along a path that begins at a
place drawn uniformly, so that frame t of a video is a uniformly random shift
of its scene, for every t and every path; and every scene is shown once in each
class. A single frame tells therefore nothing about the class, and a network
that looks at single frames stays at chance. Frames are compressed one by one
at a fixed quality, so that not even the compression knows of the motion.

Classes look the same in a mirror, since training and testing mirror clips.
"""

import csv
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# Direction (down, right) of each class; "sideways" goes left or right.
CLASSES = {"down": (1, 0), "sideways": (0, 1), "still": (0, 0), "up": (-1, 0)}
FAMILIES = {
    "down": "vertical",
    "sideways": "horizontal",
    "still": "still",
    "up": "vertical",
}
PARAMETERS_FILE = "moving_shapes.json"


def draw(
    folder,
    train: int = 96,
    validation: int = 12,
    test: int = 36,
    seed: int = 0,
    size: tuple[int, int] = (200, 200),
    frames: int = 32,
    fps: int = 30,
) -> Path:
    """Draws the data set, or finds it drawn.

    The folder appears when all of it is there. What it holds depends on the
    arguments alone.

    Args:
        folder: Where to; must not exist, be empty, or hold the same data set.
        train: Integer, scenes to learn; every scene is a video per class.
        validation: Integer, scenes to validate on.
        test: Integer, scenes to test on.
        seed: Integer, 0 or more.
        size: `(height, width)` in pixels, both even.
        frames: Integer, frames of each video.
        fps: Integer, frames per second.

    Returns:
        The folder: a folder of `.mp4` files per class, and `labels.csv` with
        the columns `path,label,group,family,split`; a scene is a group.

    Raises:
        ValueError: If an argument is out of range, or the folder holds
            anything else.
    """
    scenes = {"train": train, "validation": validation, "test": test}
    for name, value in {**scenes, "seed": seed}.items():
        _expect(value >= 0, name, "0 or more", value)
    _expect(sum(scenes.values()) > 0, "train", "1 or more", train)
    _expect(frames >= 1, "frames", "1 or more", frames)
    _expect(fps >= 1, "fps", "1 or more", fps)
    _expect(
        len(size) == 2 and all(side >= 16 and side % 2 == 0 for side in size),
        "size",
        "(height, width), even and 16 or more",
        size,
    )
    size = (int(size[0]), int(size[1]))
    parameters = {
        **scenes,
        "classes": list(CLASSES),
        "seed": seed,
        "size": list(size),
        "frames": frames,
        "fps": fps,
        "codec": _codec(),
    }
    folder = Path(os.path.abspath(folder))
    if _holds(folder, parameters):
        return folder
    rows = [
        (number, split, label)
        for number, split in enumerate(
            split for split, count in scenes.items() for _ in range(count)
        )
        for label in CLASSES
    ]
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".draft-{os.getpid()}-{folder.name}")
    try:
        for label in CLASSES:
            (draft / label).mkdir(parents=True)

        def write(row):
            number, _, label = row
            path = draft / label / f"{_scene_name(number)}.mp4"
            video = _video(seed, number, label, size, frames)
            _encode(path, video, fps, parameters["codec"])

        # The encoder lets go of the interpreter.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(write, rows):
                pass
        with open(draft / "labels.csv", "w", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("path", "label", "group", "family", "split"))
            for number, split, label in rows:
                scene = _scene_name(number)
                table.writerow(
                    (
                        f"{label}/{scene}.mp4",
                        label,
                        scene,
                        FAMILIES[label],
                        split,
                    )
                )
        (draft / PARAMETERS_FILE).write_text(json.dumps(parameters) + "\n")
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _expect(true, name, expected, value):
    if not true:
        raise ValueError(
            f"`{name}` must be {expected}. Received: {name}={value!r}"
        )


def _scene_name(number):
    return f"scene{number:04d}"


def _codec():
    """The H.264 encoder, or MPEG-4 where PyAV was built without."""
    return "libx264" if "libx264" in av.codecs_available else "mpeg4"


def _holds(folder, parameters):
    """Whether a folder holds the data set; anything else in it is an error."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / PARAMETERS_FILE).read_text())
    except (OSError, ValueError):
        found = None
    if found != parameters:
        what = "something else" if found is None else f"one of {found}"
        raise ValueError(
            f"`folder` must be empty or hold the same data set; {folder} "
            f"holds {what}. Received: {parameters}"
        )
    return True


def _video(seed, number, label, size, frames):
    """Yields the frames of one video, uint8 `(height, width, 3)`."""
    scene = _scene(np.random.default_rng([seed, number]), size)
    place = list(CLASSES).index(label)
    generator = np.random.default_rng([seed, number, 1 + place])
    # 2.5 to 4.5 % of the frame: 5 to 9 pixels of 200.
    slow, fast = (max(1, round(rate * min(size))) for rate in (0.025, 0.045))
    speed = generator.integers(slow, fast + 1) * generator.choice((-1, 1))
    down, right = CLASSES[label]
    # Only sideways may go both ways.
    velocity = np.array([abs(speed) * down, speed * right])
    begin = generator.integers((0, 0), size)
    for time in range(frames):
        yield np.roll(scene, begin + time * velocity, axis=(0, 1))


def _scene(generator, size):
    """Shapes of random kind, place, size, turn and colour on a torus."""
    height, width = size
    picture = np.empty((height, width, 3), np.uint8)
    # Bright upon dark: edges, which are what moves, stand out.
    picture[:] = generator.integers(0, 64, 3)
    for _ in range(generator.integers(8, 13)):
        top, left = generator.integers((0, 0), size)
        radius = generator.uniform(0.06, 0.15) * min(size)
        turn = generator.uniform(0, 2 * np.pi)
        y = (np.arange(height)[:, None] - top) % height
        x = (np.arange(width) - left) % width
        y = np.where(y > height / 2, y - height, y)
        x = np.where(x > width / 2, x - width, x)
        a = np.cos(turn) * x + np.sin(turn) * y
        b = np.cos(turn) * y - np.sin(turn) * x
        inside = (
            np.hypot(a, b) < radius,  # disc
            np.maximum(abs(a), abs(b)) < 0.9 * radius,  # square
            np.maximum(abs(a) * 0.87 + b / 2, -b) < radius / 2,  # triangle
            np.maximum(abs(a), 3 * abs(b)) < 1.2 * radius,  # bar
        )[generator.integers(4)]
        picture[inside] = generator.integers(128, 256, 3)
    return picture


def _encode(path, video, fps, codec):
    """Writes frames as a video, each compressed by itself."""
    options = {
        "libx264": {"qp": "16", "preset": "veryfast", "threads": "1"},
        "mpeg4": {"qmin": "2", "qmax": "2"},
    }[codec]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            codec, rate=Fraction(fps), options=options
        )
        stream.pix_fmt = "yuv420p"
        stream.gop_size = 1
        for number, pixels in enumerate(video):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if not number:
                stream.height, stream.width = pixels.shape[:2]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())

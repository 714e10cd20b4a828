"""Folders of numbered images, which some data sets publish for videos.

A folder of `00001.jpg`, `00002.jpg` ... is a video wherever a file is one. It
tells no rate, so one is agreed on: 12 frames per second, at which both sets
that come so (Something-Something version 1, Jester) were extracted.
"""

import os
import re
from collections.abc import Iterable, Iterator
from sys import intern
from typing import Any

import av

RATE = 12.0

_NUMBERED = re.compile(r"(.*?)(\d+)\.(?:jpe?g|png)", re.IGNORECASE)
_DECODERS = {b"\xff\xd8": "mjpeg", b"\x89P": "png"}


def image_names(folder) -> list[str]:
    """The numbered images of a folder.

    Gaps do not matter; files of other names, and hidden ones, are passed
    over.

    Args:
        folder: Folder.

    Returns:
        Names by ascending number, "img2.jpg" before "img10.jpg"; none where
        the folder holds no such image.

    Raises:
        OSError: If the folder cannot be listed.
        ValueError: If the images are of several kinds (`img_1.jpg`,
            `flow_x_1.jpg`) or share a number.
    """
    found: dict[int, str] = {}
    kinds = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            match = _NUMBERED.fullmatch(entry.name)
            if entry.name.startswith(".") or not match or not entry.is_file():
                continue
            number = int(match[2])
            kinds.add(match[1])
            # A million folders share a few hundred names.
            other = found.setdefault(number, intern(entry.name))
            if other != entry.name and len(kinds) == 1:
                raise ValueError(
                    f"two of its images bear number {number}: "
                    f"{', '.join(sorted((other, entry.name)))}"
                )
    if len(kinds) > 1:
        raise ValueError(
            "its images are of several kinds: "
            + ", ".join(f"{kind}1, ..." for kind in sorted(kinds))
        )
    return [name for _, name in sorted(found.items())]


def read_images(folder, names: Iterable[str]) -> Iterator[av.VideoFrame]:
    """Decodes images one by one. What they are stands in their first bytes.

    Args:
        folder: Folder.
        names: Names of JPEG or PNG images in it.

    Yields:
        `av.VideoFrame`.

    Raises:
        ValueError: If an image cannot be read or is damaged; it is named.
    """
    for name in names:
        try:
            with open(os.path.join(folder, name), "rb") as file:
                data = file.read()
        except OSError as error:
            raise ValueError(f"{name}: {error.strerror}") from error
        codec = _DECODERS.get(data[:2])
        if codec is None:
            raise ValueError(f"{name}: neither a JPEG nor a PNG image")
        # One each: FFmpeg's decoder of PNG errs from its second image on.
        context: Any = av.CodecContext.create(codec, "r")
        context.thread_type, context.thread_count = "NONE", 1
        # Or half an image would come out, grey below the cut.
        context.options = {"err_detect": "explode"}
        try:
            frames = context.decode(av.Packet(data))
        except av.error.FFmpegError as error:
            raise ValueError(f"{name}: {error.strerror}") from error
        if not frames:
            raise ValueError(f"{name}: it holds no picture")
        yield frames[0]

"""Draws videos whose frames carry their own number, in blocks of 32 pixels."""

from fractions import Fraction

import av
import numpy as np

WIDTH, HEIGHT = 128, 64


def picture(number):
    """Frame `number` (0..255): uint8 of shape `(64, 128, 3)`."""
    bits = number >> np.arange(8) & 1
    blocks = np.where(bits, 210, 40).reshape(2, 4).astype(np.uint8)
    return np.repeat(blocks.repeat(32, 0).repeat(32, 1)[..., None], 3, 2)


def read(pixels):
    """Numbers of frames of shape `(..., height, width, 3)`, any size."""
    *front, height, width, _ = pixels.shape
    blocks = pixels.reshape(-1, 2, height // 2, 4, width // 4, 3)
    middle = blocks[
        :, :, height // 8 : height * 3 // 8, :, width // 16 : width * 3 // 16
    ]
    bits = middle.mean(axis=(2, 4, 5)) > 125
    return (bits.reshape(-1, 8) << np.arange(8)).sum(1).reshape(front)


def draw(
    path,
    codec="libx264",
    frames=40,
    gop=12,
    b_frames=0,
    milliseconds=None,
    pixels="yuv420p",
    options=None,
    rate=25,
    **container,
):
    """Writes frames 0, 1, 2 ... to `path`; returns it as a string."""
    with av.open(str(path), "w", **container) as file:
        stream = file.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        if milliseconds is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            if milliseconds is not None:
                frame.pts = int(milliseconds[number])
                frame.time_base = Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return str(path)


def turn(path, degrees):
    """Writes a turn into the track header of an MP4 file, as phones do."""
    with open(path, "rb") as file:
        data = bytearray(file.read())
    sine, cosine = {
        90: (1, 0), 180: (0, -1), 270: (-1, 0)
    }[degrees]  # fmt: skip
    matrix = [cosine, sine, 0, -sine, cosine, 0, 0, 0, 0x40000000]
    ones = [value << 16 for value in matrix[:8]] + matrix[8:]
    # Version 0 of the header: 40 bytes of times and places before it.
    place = data.index(b"tkhd") + 4 + 40
    data[place : place + 36] = b"".join(
        value.to_bytes(4, "big", signed=True) for value in ones
    )
    with open(path, "wb") as file:
        file.write(data)


def retag(path, was, now):
    """Replaces bytes of a file."""
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:
        file.write(data.replace(was, now))

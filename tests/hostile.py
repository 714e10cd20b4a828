"""Makes hostile files out of real ones: damaged, lying, and oddly named."""

import os
import struct

import av
import numpy as np

# Fields that tell size, length, rate, rotation and place, by container. In
# MP4 and MOV a box's size stands before its name, the fields behind it.
BOXES = (
    b"ftyp", b"moov", b"mvhd", b"trak", b"tkhd", b"edts", b"elst", b"mdhd",
    b"hdlr", b"stsd", b"avc1", b"avcC", b"hvc1", b"hvcC", b"mp4v", b"stts",
    b"ctts", b"stsc", b"stsz", b"stco", b"co64", b"stss", b"mdat",
)  # fmt: skip
CHUNKS = (b"RIFF", b"LIST", b"avih", b"strh", b"strf", b"movi", b"idx1",
          b"00dc", b"01wb", b"vids")  # fmt: skip
# fmt: off
ELEMENTS = tuple(map(bytes.fromhex, (
    "1a45dfa3", "18538067", "1549a966", "2ad7b1", "4489", "1654ae6b", "ae",
    "d7", "83", "86", "63a2", "23e383", "e0", "b0", "ba", "54b0", "54ba",
    "1f43b675", "e7", "a3", "a1", "a0", "9b", "1c53bb6b", "bb", "b3", "f1",
)))
# fmt: on
# Zero, one, signs, the ends of the numbers, and sizes beyond all reason.
LIES = (
    0,
    1,
    2,
    3,
    16,
    255,
    16_000,
    65_535,
    65_536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32 - 8,
    100_000_000,
    10_000_000,
)  # fmt: skip


def flip(data, generator, _):
    """A few bits, or many, turned over anywhere or in the head."""
    count = int(2 ** generator.uniform(0, 10))
    reach = len(data) if generator.random() < 0.6 else min(len(data), 2000)
    for place in generator.integers(0, reach, count):
        data[place] ^= 1 << int(generator.integers(8))
    return data


def overwrite(data, generator, _):
    """A stretch of zeros, ones or noise."""
    length = int(2 ** generator.uniform(0, 15))
    begin = int(generator.integers(0, len(data)))
    end = min(len(data), begin + length)
    noise = generator.integers(0, 256, end - begin).astype(np.uint8).tobytes()
    fills = (bytes(end - begin), b"\xff" * (end - begin), noise)
    data[begin:end] = fills[generator.integers(3)]
    return data


def cut(data, generator, _):
    """The end, the beginning or the middle is missing."""
    begin, end = sorted(generator.integers(0, len(data), 2).tolist())
    kind = generator.integers(3)
    if kind == 0:
        return data[:end]
    return data[begin:] if kind == 1 else data[:begin] + data[end:]


def splice(data, generator, other):
    """Part of another file behind, before or within it, or of itself again."""
    begin, end = sorted(generator.integers(0, len(other), 2).tolist())
    place = int(generator.integers(0, len(data)))
    kind = generator.integers(4)
    if kind == 0:
        return data[:place] + other[begin:]
    if kind == 1:
        return other[:end] + data[place:]
    if kind == 2:
        return data[:place] + other[begin:end] + data[place:]
    return data[:place] + data[max(0, place - 50_000) :]


def lie(data, generator, _):
    """One to three header fields that say something else."""
    for _ in range(int(generator.integers(1, 4))):
        value = int(generator.choice(np.array(LIES, np.uint64)))
        if generator.random() < 0.2:
            value = int(generator.integers(2**32))
        if data[:3] == b"GIF":
            _lie_in_gif(data, generator, value)
        elif data[:4] == b"RIFF":
            place = _found(data, CHUNKS, generator)
            _put(data, place + 4 * int(generator.integers(1, 16)), "<I", value)
        elif data[:4] == ELEMENTS[0]:
            _lie_in_matroska(data, generator, value)
        else:
            place = _found(data, BOXES, generator)
            step = int(generator.integers(-1, 24))
            form = ">I" if generator.random() < 0.7 else ">H"
            _put(data, place + 4 * (step + (step >= 0)), form, value)
    return data


def _lie_in_gif(data, generator, value):
    if generator.random() < 0.5:
        _put(data, int(generator.choice([6, 8])), "<H", value)
        return
    # Delay and size of an image behind its control block.
    place = _found(data, (b"\x21\xf9\x04",), generator)
    _put(data, place + int(generator.choice([4, 9, 11, 13, 15])), "<H", value)


def _lie_in_matroska(data, generator, value):
    # Names of one byte are found anywhere; the head is where they count.
    name = ELEMENTS[generator.integers(len(ELEMENTS))]
    reach = len(data) if len(name) > 2 else min(len(data), 2000)
    place = _found(data, (name,), generator, reach)
    size = int(generator.choice([1, 2, 4]))
    lies = (value & 2 ** (8 * size) - 1).to_bytes(size, "big")
    # The element's length itself, or the value behind it.
    begin = place + len(name) + int(generator.integers(2))
    data[begin : begin + size] = lies[: max(0, len(data) - begin)]


def _found(data, names, generator, reach=None):
    """A place of one of the names; anywhere if there is none of it."""
    name = names[generator.integers(len(names))]
    places = []
    place = data.find(name, 0, reach or len(data))
    while place >= 0 and len(places) < 200:
        places.append(place)
        place = data.find(name, place + 1, reach or len(data))
    if not places:
        return int(generator.integers(0, len(data)))
    return places[generator.integers(len(places))]


def _put(data, place, form, value):
    size = struct.calcsize(form)
    if 0 <= place <= len(data) - size:
        struct.pack_into(form, data, place, value & 2 ** (8 * size) - 1)


MUTATIONS = (flip, overwrite, cut, splice, lie, lie, lie)
STEMS = (
    "plain", "two words", "it's", 'say "so"', "line\nbreak", "tab\tstop",
    "Müller-日本-🎬", "-dash", "per%d cent", "a:b", "file:x", "a|b", "back\\",
    "comma,", "semi;colon", b"b\xff\xfeytes", "*", "$HOME", "concat:a|b",
    "x" * 240,
)  # fmt: skip


def mutant(clips, seed, number):
    """The contents and the name of one hostile file.

    Args:
        clips: List of pairs: name and contents of whole files.
        seed: Integer.
        number: Integer; the same makes the same file.

    Returns:
        Name of the mutation, bytes, name of the file (bytes).
    """
    generator = np.random.default_rng([seed, number])
    name, data = clips[generator.integers(len(clips))]
    other = clips[generator.integers(len(clips))][1]
    mutation = MUTATIONS[generator.integers(len(MUTATIONS))]
    made = bytes(mutation(bytearray(data), generator, other))
    # Now and then a second time, or under another container's name.
    if generator.random() < 0.2:
        again = MUTATIONS[generator.integers(len(MUTATIONS))]
        made = bytes(again(bytearray(made or b"\0"), generator, other))
    if generator.random() < 0.1:
        name = clips[generator.integers(len(clips))][0]
    stem = os.fsencode(STEMS[generator.integers(len(STEMS))])
    ending = os.fsencode(os.path.splitext(name)[1])
    return mutation.__name__, made, b"%d " % number + stem + ending


def draw_odd(folder, largest=16_000):
    """Makes files that are odd without being damaged.

    Args:
        folder: `Path`.
        largest: Integer, pixels: the side of the largest frame.

    Returns:
        Dict from a name to whether the file may be read as a clip.
    """
    sizes = {
        "one.mp4": ("mpeg4", 1, 1, True),
        "one.gif": ("gif", 1, 1, True),
        "thread.avi": ("mjpeg", largest, 1, False),
        "ribbon.avi": ("mjpeg", 16, largest, True),
        "giant.gif": ("gif", largest, largest, False),
    }
    for name, (codec, height, width, _) in sizes.items():
        paint(folder / name, codec, height, width)
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()
    os.symlink("loop.mp4", folder / "loop.mp4")
    os.symlink("there.mp4", folder / "here.mp4")
    os.symlink("here.mp4", folder / "there.mp4")
    os.symlink("/dev/zero", folder / "zeros.mp4")
    # What lists other files must not be followed: that one never answers.
    os.mkfifo(folder / "never.ts")
    lists = {
        "list.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nnever.ts\n",
        "concat.mp4": "ffconcat version 1.0\nfile never.ts\n",
        "text.mkv": "frames\n" * 5000,
    }
    for name, text in lists.items():
        (folder / name).write_text(text)
    refused = (
        "pipe.mp4", "folder.mp4", "loop.mp4", "here.mp4", "there.mp4",
        "zeros.mp4", "never.ts", *lists,
    )  # fmt: skip
    return {
        **{name: readable for name, (*_, readable) in sizes.items()},
        **dict.fromkeys(refused, False),
    }


def paint(path, codec, height, width, frames=2):
    """Writes a few grey frames of any size."""
    pixels = "rgb8" if codec == "gif" else "yuv420p"
    if codec == "mjpeg":
        pixels = "yuvj420p"
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        frame = av.VideoFrame(width, height, pixels)
        for number, plane in enumerate(frame.planes):
            plane.update(bytes([90 + 38 * (number > 0)]) * plane.buffer_size)
        for number in range(frames):
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode())

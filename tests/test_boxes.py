"""The index of MP4 files tells what reading all of their packets does."""

from pathlib import Path

import av
import numbered
import numpy as np
import pytest

from keras_videofusion.data import video
from keras_videofusion.data.boxes import composition_offsets
from keras_videofusion.data.video import decode, timeline


def looks(path, monkeypatch):
    """The timeline by packets, by index, and whether the index did."""
    found, read = [], []
    by_packets = video._from_packets
    monkeypatch.setattr(
        video, "_from_packets", lambda *a: read.append(1) or by_packets(*a)
    )
    for long in (10**9, 1):
        monkeypatch.setattr(video, "_LONG", long)
        monkeypatch.setattr(video, "_remembered", video._Remembered(1000))
        found.append(timeline(path))
    return *found, len(read) == 1


def assert_same(one, other):
    for name in one.__dataclass_fields__:
        np.testing.assert_array_equal(
            getattr(one, name), getattr(other, name), name
        )


@pytest.mark.skipif(
    not hasattr(av.video.stream.VideoStream, "index_entries"),
    reason="this PyAV shows no index",
)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.mp4", {}),
        ("b.mp4", {"b_frames": 3}),
        ("open.mp4", {"b_frames": 2, "options": {"x264-params": "open-gop=1"}}),
        ("keyframes.mp4", {"gop": 1}),
        ("fast.mov", {"container_options": {"movflags": "faststart"}}),
        ("part2.mp4", {"codec": "mpeg4", "b_frames": 2}),
        ("uneven.mp4", {"milliseconds": np.cumsum([40, 10, 90, 33] * 60)}),
    ],
)
def test_the_index_tells_what_the_packets_do(
    name, options, tmp_path, monkeypatch
):
    path = numbered.draw(tmp_path / name, frames=240, **options)

    packets, index, used = looks(path, monkeypatch)

    assert used
    assert_same(packets, index)
    assert numbered.read(decode(path, [200, 3, 77])).tolist() == [200, 3, 77]


def test_an_index_whose_end_cannot_be_looked_at_is_not_used(
    tmp_path, monkeypatch
):
    path = numbered.draw(tmp_path / "a.mp4", frames=240, gop=1000)

    packets, index, used = looks(path, monkeypatch)

    assert not used
    assert_same(packets, index)


def test_fragments_are_read_packet_by_packet(tmp_path, monkeypatch):
    path = numbered.draw(
        tmp_path / "a.mp4",
        frames=100,
        b_frames=2,
        container_options={"movflags": "frag_keyframe+empty_moov"},
    )

    packets, index, used = looks(path, monkeypatch)

    assert composition_offsets(path, 1) is None
    assert not used
    assert_same(packets, index)


@pytest.mark.parametrize(
    ("box", "skip", "value"),
    [
        # A table that is too short, one of a lesser offset at its beginning.
        (b"ctts", 8, 2),
        (b"ctts", 12, 7),
        # The track's number; a box that reaches beyond the one around it.
        (b"tkhd", 12, 9),
        (b"stbl", -4, 2**31),
        (b"ctts", -4, 4),
    ],
)
def test_an_index_that_packets_belie_is_not_believed(
    box, skip, value, tmp_path, monkeypatch
):
    path = Path(numbered.draw(tmp_path / "a.mp4", frames=100, b_frames=2))
    data = bytearray(path.read_bytes())
    whole = timeline(path)
    real = video.composition_offsets

    def spoilt(path, track):
        # FFmpeg reads the file as it is, we what became of it.
        place = data.index(box) + 4 + (skip if skip > 0 else skip - 4)
        changed = data[:place] + value.to_bytes(4, "big") + data[place + 4 :]
        copy = tmp_path / "spoilt.mp4"
        copy.write_bytes(changed)
        return real(copy, track)

    monkeypatch.setattr(video, "composition_offsets", spoilt)

    _, index, used = looks(str(path), monkeypatch)

    assert not used
    assert_same(index, whole)


def test_a_file_that_was_cut_is_read_packet_by_packet(tmp_path, monkeypatch):
    path = Path(
        numbered.draw(
            tmp_path / "a.mp4",
            frames=100,
            container_options={"movflags": "faststart"},
        )
    )
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])

    packets, index, used = looks(str(path), monkeypatch)

    assert not used
    assert_same(packets, index)
    assert len(index) < 100


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.mp4"])
def test_files_without_such_a_table(name, tmp_path):
    codec = "mpeg4" if name == "a.avi" else "libx264"
    path = numbered.draw(tmp_path / name, codec, b_frames=0)

    found = composition_offsets(path, 1)

    if name == "a.mp4":
        assert found.shape == (0,)
    else:
        assert found is None

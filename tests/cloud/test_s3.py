"""Everything that may live at an address, at a real S3 server.

In an environment of its own: `make test-tensorflow-io`.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import test_addresses as at_addresses

from keras_videofusion.data import addresses, files
from keras_videofusion.data.prepare import prepare

# The tests that other addresses pass, with this folder's `cloud`.
for _name, _value in vars(at_addresses).items():
    if _name.startswith("test_") or _name in ("shards_folder", "web"):
        globals()[_name] = _value


@pytest.mark.parametrize(
    "length", [0, 1, 131_072, 262_144, 1_048_576, 3_000_000]
)
def test_bytes_come_back_whatever_their_number(cloud, length, monkeypatch):
    monkeypatch.setattr(addresses, "PART", 1_048_576)
    place, data = files.join(cloud, "a ü+%41.bin"), os.urandom(length)
    with files.written(place) as draft:
        draft.write_bytes(data)
    assert files.bytes_of(place) == length
    with files.opened(place) as file:
        assert file.read() == data


@pytest.mark.parametrize("cuts", [1, 2, 4])
def test_a_download_that_is_cut_is_whole_in_the_end(cloud, gate, cuts):
    place, data = files.join(cloud, "a.bin"), os.urandom(3_000_000)
    with files.written(place) as draft:
        draft.write_bytes(data)
    gate.cuts, gate.after = cuts, 1_000_000
    with files.fetched(place) as path:
        assert path.read_bytes() == data
    assert not gate.cuts


def test_a_shard_that_is_cut_gives_the_same_clips(
    cloud, gate, shapes, shards_folder
):
    place = files.join(cloud, "shards")
    prepare(shapes, place, at_addresses.SPEC, clips=3)
    gate.cuts, gate.after = 3, 5000
    found = at_addresses.clips_of(place)
    assert not gate.cuts
    np.testing.assert_array_equal(found, at_addresses.clips_of(shards_folder))


def test_a_folder_of_many_files_is_listed_whole(cloud):
    for number in range(120):  # a page holds 100
        files.write_text(files.join(cloud, f"{number:03}.txt"), "x")
    assert files.names(cloud) == [f"{number:03}.txt" for number in range(120)]
    files.remove(cloud)
    assert not files.exists(cloud)


def test_a_bucket_that_is_not_there_is_one_clear_line(cloud):
    with pytest.raises(FileNotFoundError, match="bucket does not exist"):
        files.write_text("s3://no-such-bucket/a.txt", "x")


def test_a_command_ends_with_its_own_status(cloud):
    """The libraries of tensorflow-io would abort as they are torn down."""
    files.write_text(files.join(cloud, "list.csv"), "path,label\na.mp4,b\n")
    shell = [sys.executable, "-m", "keras_videofusion", "prepare"]
    done = subprocess.run(
        [*shell, files.join(cloud, "list.csv"), files.join(cloud, "out")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    told = done.stderr.strip()
    assert done.returncode == 1, told
    assert told.endswith("none of the 1 videos could be read; the first: "
                         "a.mp4: no such file")  # fmt: skip


def test_other_clouds_are_known_and_fail_in_one_line(gate, monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(addresses, "WAITS", ())
    files.exists("s3://bucket/none")
    assert {"az", "hdfs", "gs"} <= set(tf.io.gfile.get_registered_schemes())
    with pytest.raises(OSError, match="(?i)hdfs|hadoop") as caught:
        files.read_text("hdfs://127.0.0.1:9/none")
    assert "\n" not in str(caught.value)
    with pytest.raises(OSError, match="az://nobody") as caught:
        files.read_text("az://nobody/nothing/none")
    assert "\n" not in str(caught.value)

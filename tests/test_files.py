"""Files here and at addresses: whole or not at all, whatever breaks.

`ram://` is a file system of TensorFlow's own, in memory: it stands for those
of clouds, which tests/cloud meets at real servers.
"""

import json
import os
import re
import sys
import threading
import uuid

import pytest
from webserver import serve

from keras_videofusion.data import addresses, files


@pytest.fixture
def ram():
    """An address in memory of its own."""
    return f"ram://{uuid.uuid4().hex}/folder"


@pytest.fixture(params=["here", "ram"])
def folder(request, tmp_path, ram):
    """A folder of this machine, and one at an address."""
    place = str(tmp_path / "folder") if request.param == "here" else ram
    files.make_folder(place)
    return place


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A web server of the folder `tmp_path / "web"`; it waits for nobody."""
    monkeypatch.setattr(addresses, "WAITS", (0.01,) * 4)
    (tmp_path / "web").mkdir()
    with serve(tmp_path / "web") as server:
        server.folder = tmp_path / "web"
        yield server


def test_addresses_are_told_from_paths():
    for address in ("s3://b/x", "gs://b", "HTTPS://h/x", "ram://a/b"):
        assert files.is_remote(address)
    for path in ("x", "/x", "c:/x", "a/s3://x", "://x", "s3:/b/x"):
        assert not files.is_remote(path)


def test_names_are_joined_by_the_place_s_own_sign():
    assert files.join("s3://b/run", "checkpoints", "a") == (
        "s3://b/run/checkpoints/a"
    )
    assert files.join("s3://b/run/", "a") == "s3://b/run/a"
    assert files.join("run", "a") == os.path.join("run", "a")


def test_files_are_written_listed_read_and_removed(folder):
    place = files.join(folder, "a.txt")
    assert not files.exists(place)
    files.write_text(place, "one\n")
    files.write_text(place, "two, ü \udcff\n")  # replaces the whole of it
    assert files.exists(place)
    assert not files.is_folder(place)
    assert files.is_folder(folder)
    assert files.read_text(place) == "two, ü \udcff\n"
    assert files.bytes_of(place) == len(b"two, \xc3\xbc \xff\n")
    files.write_json(files.join(folder, "b.json"), {"x": [1, None]})
    assert files.read_json(files.join(folder, "b.json")) == {"x": [1, None]}
    assert files.names(folder) == ["a.txt", "b.json"]
    files.remove(place)
    files.remove(place)  # there is none: nothing
    assert files.names(folder) == ["b.json"]
    files.remove(folder)
    assert not files.exists(folder)


def test_what_is_not_there_is_one_clear_line(folder):
    place = files.join(folder, "none")
    for ask in (files.read_text, files.bytes_of, files.names, files.opened):
        with pytest.raises(FileNotFoundError, match="none") as caught:
            ask(place)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 1000, 2000, 2001])
def test_bytes_come_back_whatever_their_number(folder, length, monkeypatch):
    monkeypatch.setattr(addresses, "PART", 1000)
    place, data = files.join(folder, "a.bin"), os.urandom(length)
    with files.written(place) as draft:
        draft.write_bytes(data)
    with files.fetched(place) as path:
        assert path.read_bytes() == data
    with files.opened(place) as file:
        assert file.seek(length // 2) == length // 2
        assert file.read() == data[length // 2 :]


def test_a_file_whose_writing_fails_leaves_the_old_one(folder):
    place = files.join(folder, "a.txt")
    files.write_text(place, "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(place, "half \ud800")
    assert files.read_text(place) == "old"
    assert files.names(folder) == ["a.txt"]


def test_drafts_end_as_their_files_do(folder):
    with files.written(files.join(folder, "m.weights.h5")) as draft:
        assert draft.name.endswith("m.weights.h5")
        draft.write_bytes(b"x")


def test_copies_stay_and_are_made_anew_when_the_file_is(ram, monkeypatch):
    place = files.join(ram, "a.bin")
    files.write_text(place, "one")
    copy = files.kept(place)
    assert files.kept(place) == copy
    with open(copy) as file:
        assert file.read() == "one"
    files.write_text(place, "two")
    with open(files.kept(place)) as file:
        assert file.read() == "two"


def test_copies_make_room_for_one_another(ram, monkeypatch):
    copies = addresses.Copies()
    monkeypatch.setenv("KVF_COPIES_GB", "25e-9")  # 25 bytes
    monkeypatch.setattr(addresses.Copies, "newest", 1)
    paths = []
    for number in range(4):
        place = files.join(ram, str(number))
        files.write_text(place, "x" * 10)
        paths.append(copies.of(place))
    assert [os.path.exists(path) for path in paths] == [
        False, False, True, True,
    ]  # fmt: skip
    with open(copies.of(files.join(ram, "0"))) as file:
        assert file.read() == "x" * 10
    # The one that was used last stays, not the one that was made last.
    assert not os.path.exists(paths[2])


def test_many_threads_fetch_a_copy_once(web):
    (web.folder / "a.bin").write_bytes(b"x" * 1000)
    found = []
    threads = [
        threading.Thread(
            target=lambda: found.append(files.kept(web.address + "/a.bin"))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(web.asked) == 1


def test_files_of_a_web_server_are_read(web):
    (web.folder / "a b.json").write_text('{"x": "ü"}', encoding="utf-8")
    place = web.address + "/a b.json"
    assert files.exists(place)
    assert files.read_json(place) == {"x": "ü"}
    assert files.bytes_of(place) == 11
    assert not files.exists(web.address + "/none")
    assert not files.is_folder(web.address)
    with pytest.raises(FileNotFoundError, match="answers 404"):
        files.read_text(web.address + "/none")


def test_a_web_server_is_neither_listed_nor_written(web):
    place = web.address + "/a.txt"
    with (
        pytest.raises(OSError, match="read only"),
        files.written(place) as draft,
    ):
        pytest.fail(f"{draft} would be written in vain")
    for refused in (files.make_folder, files.remove):
        with pytest.raises(OSError, match="read only"):
            refused(place)
    with pytest.raises(OSError, match="cannot be listed"):
        files.names(web.address)
    assert not web.asked


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "whole"])
def test_a_connection_that_breaks_is_tried_again(web, ranges):
    data = os.urandom(300_000)
    (web.folder / "a.bin").write_bytes(data)
    web.cuts, web.after, web.ranges = 2, 100_000, ranges
    with files.fetched(web.address + "/a.bin") as path:
        assert path.read_bytes() == data
    ranges_asked = [asked for _, asked in web.asked]
    if ranges:  # it goes on where it broke
        assert ranges_asked == [None, "bytes=100000-", "bytes=200000-"]
    else:
        assert len(ranges_asked) == 3


def test_a_file_that_changed_while_it_broke_is_not_two_halves(web):
    path = web.folder / "a.bin"
    path.write_bytes(b"a" * 300_000)
    web.cuts, web.after = 1, 100_000

    class Changed(bytes):
        pass

    told = web.asked

    class Asked(list):
        def append(self, asked):
            if told:
                path.write_bytes(b"b" * 200_000)
            told.append(asked)

    web.asked = Asked()
    with files.fetched(web.address + "/a.bin") as copy:
        assert copy.read_bytes() == b"b" * 200_000


def test_a_busy_server_is_asked_again(web):
    (web.folder / "a.txt").write_text("x")
    web.busy = 3
    assert files.read_text(web.address + "/a.txt") == "x"
    assert len(web.asked) == 4


def test_a_connection_that_keeps_breaking_is_one_clear_line(web):
    (web.folder / "a.bin").write_bytes(b"x" * 1000)
    web.cuts, web.after, web.ranges = 100, 10, False
    with pytest.raises(OSError, match="990 bytes before the end") as caught:
        files.read_text(web.address + "/a.bin")
    assert web.address in str(caught.value)
    assert len(web.asked) == 5


def test_what_is_forbidden_is_not_asked_again(web):
    (web.folder / "a.txt").write_text("x")
    web.forbidden = True
    with pytest.raises(PermissionError, match="answers 403"):
        files.read_text(web.address + "/a.txt")
    assert len(web.asked) == 1


def test_a_server_that_is_not_there_is_not_an_empty_one(web):
    address = web.address
    web.shutdown()
    web.server_close()
    with pytest.raises(OSError, match="refused"):
        files.exists(address + "/a.txt")


def test_waits_grow_and_end(monkeypatch):
    waits = []
    monkeypatch.setattr(addresses.time, "sleep", waits.append)

    def breaks():
        raise addresses.BrokenError("cut")

    with pytest.raises(OSError, match="cut"):
        addresses.persist(breaks, "x://y")
    assert waits == sorted(waits)
    assert len(set(waits)) == len(waits) == 4


def test_late_tries_are_not_repeated(monkeypatch):
    clock = iter([0.0, 100.0])
    monkeypatch.setattr(addresses.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(addresses.time, "sleep", lambda seconds: None)
    calls = []

    def breaks():
        calls.append(1)
        raise addresses.BrokenError("cut")

    with pytest.raises(OSError, match="cut"):
        addresses.persist(breaks, "x://y")
    assert len(calls) == 1


def test_errors_of_tensorflow_become_one_line(monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(addresses, "WAITS", ())
    store = addresses.Store(tf)
    for raised, expected in (
        (tf.errors.NotFoundError, FileNotFoundError),
        (tf.errors.PermissionDeniedError, PermissionError),
        (tf.errors.InvalidArgumentError, OSError),
        (tf.errors.UnavailableError, OSError),
    ):

        def fails(address, kind=raised):
            raise kind(None, None, "{{function_node x}} it\nbroke [Op:Read]")

        with pytest.raises(expected) as caught:
            store._ask(fails, "s3://b/x")
        assert type(caught.value) is expected
        assert re.search(r"\] it broke: 's3://b/x'$", str(caught.value))


@pytest.mark.parametrize("scheme", ["s3", "az", "hdfs"])
def test_a_scheme_that_tensorflow_lacks_says_what_to_install(
    scheme, monkeypatch
):
    import tensorflow as tf

    if scheme in tf.io.gfile.get_registered_schemes():
        pytest.skip("tensorflow-io is loaded")
    addresses._store.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorflow_io", None)
    with pytest.raises(ImportError) as caught:
        files.exists(f"{scheme}://bucket/x")
    told = str(caught.value)
    assert f"{scheme}:// " in told
    assert "pip install 'keras-videofusion[tensorflow-io]'" in told
    assert "Python 3.10 to 3.12" in told
    assert f"TensorFlow {tf.__version__}" in told
    assert "\n" not in told


def test_nothing_of_tensorflow_is_loaded_for_paths(tmp_path):
    import subprocess

    code = (
        "import importlib.util as u, sys\n"
        "s = u.find_spec('keras_videofusion')\n"
        "sys.modules['keras_videofusion'] = u.module_from_spec(s)\n"
        "from keras_videofusion.data import files\n"
        f"files.write_json({json.dumps(str(tmp_path / 'x'))}, 1)\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert not subprocess.run([sys.executable, "-c", code]).returncode

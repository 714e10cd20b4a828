"""Torch's files are read without torch, and nothing in them is run."""

import contextlib
import struct
import zipfile

import handmade as hand
import numpy as np
import pytest

from keras_videofusion.applications import pth

F4 = np.arange(12, dtype="<f4").reshape(3, 4)


def one(made):
    """A pickle of a dict with one tensor, `w`."""
    return hand.pickled(hand.mapping({"w": made}))


def small(path, made, data=None):
    """An archive of `w` over one storage, 0."""
    return hand.archive(path, one(made), {"0": data or F4.tobytes()})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.pth"


def refused(path, message):
    with pytest.raises(ValueError, match=message) as caught:
        pth.read(path)
    line = str(caught.value)
    assert str(path) in line
    assert "\n" not in line


# What is read


ARRAYS = {
    "conv.weight": F4,
    "half": np.array([0.5, -2], "<f2"),
    "double": np.array([[1 / 3]], "<f8"),
    "count": np.array(7, "<i8"),
    "mask": np.array([True, False]),
    "nothing": np.zeros((0, 3), "<f4"),
}


def write_archive(path, value, storages):
    return hand.archive(path, hand.pickled(value), storages)


def write_stream(path, value, storages):
    sizes = {str(i): array.size for i, array in enumerate(ARRAYS.values())}
    return hand.stream(
        path, value, {key: (sizes[key], x) for key, x in storages.items()}
    )


def expect_arrays(read):
    assert list(read) == list(ARRAYS)
    for key, array in ARRAYS.items():
        wanted = array.astype("float32") if array.dtype.kind == "f" else array
        np.testing.assert_array_equal(read[key], wanted, strict=True)


@pytest.mark.parametrize("wrap", [hand.ordered, hand.mapping])
def test_archives_give_their_tensors(path, wrap):
    write_archive(path, *hand.state(ARRAYS, wrap))

    expect_arrays(pth.read(path))


def test_older_streams_give_the_same(path):
    write_stream(path, *hand.state(ARRAYS, view=b"N"))

    expect_arrays(pth.read(path))


def test_what_stands_beside_the_state_is_left_out(path):
    value, storages = hand.state(ARRAYS)
    meta = hand.mapping({"epoch": hand.number(45), "cfg": hand.text("x = 1")})
    write_archive(
        path, hand.mapping({"meta": meta, "state_dict": value}), storages
    )

    expect_arrays(pth.read(path))


def test_training_logs_beside_the_state_are_passed_over(path):
    value, storages = hand.state(ARRAYS)
    array = (
        hand.name("numpy.core.multiarray", "_reconstruct")
        + hand.row(hand.name("numpy", "ndarray"), b"K\x00\x85", b"C\x01b")
        + b"R"
        + hand.row(b"K\x01")
        + b"b"
    )
    log = (
        hand.name("mmengine.logging.history_buffer", "HistoryBuffer")
        + b")\x81"
        + hand.mapping({"_log_history": array})
        + b"b"
    )
    hub = hand.mapping({"loss": log})
    write_archive(
        path, hand.mapping({"message_hub": hub, "state_dict": value}), storages
    )

    expect_arrays(pth.read(path))


def test_views_share_their_storage(path):
    pointer = hand.storage("0", 12)
    made = hand.mapping(
        {
            "rows": hand.tensor(pointer, (2, 4), offset=4),
            "turned": hand.tensor(pointer, (4, 3), (1, 4)),
            "parameter": hand.parameter(hand.tensor(pointer, (3, 2), (4, 2))),
        }
    )
    hand.archive(path, hand.pickled(made), {"0": F4.tobytes()})

    read = pth.read(path)

    np.testing.assert_array_equal(read["rows"], F4[1:])
    np.testing.assert_array_equal(read["turned"], F4.T)
    np.testing.assert_array_equal(read["parameter"], F4[:, ::2])


def test_bfloat16_is_widened(path):
    # The upper halves of 1.0, -2.5 and 3.140625.
    data = struct.pack("<3H", 0x3F80, 0xC020, 0x4049)
    small(
        path, hand.tensor(hand.storage("0", 3, "BFloat16Storage"), (3,)), data
    )

    read = pth.read(path)["w"]

    np.testing.assert_array_equal(
        read, np.array([1, -2.5, 3.140625], "float32"), strict=True
    )


def test_the_order_of_bytes_is_heeded(path):
    made = hand.tensor(hand.storage("0", 12), (3, 4))
    data = {"0": F4.astype(">f4").tobytes()}
    hand.archive(path, one(made), data, others=[("archive/byteorder", b"big")])

    np.testing.assert_array_equal(pth.read(path)["w"], F4)


def test_attributes_of_an_ordered_dict_are_left_out(path):
    value, storages = hand.state({"w": F4})
    metadata = hand.mapping({"_metadata": hand.mapping({})})
    write_archive(path, value + metadata + b"b", storages)

    np.testing.assert_array_equal(pth.read(path)["w"], F4)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_writes_is_read_as_torch_reads_it(path, zipped):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    source = torch.Generator().manual_seed(0)
    conv = torch.nn.Conv3d(2, 3, (1, 2, 3))
    held = torch.nn.Sequential(conv, torch.nn.BatchNorm3d(3)).state_dict()
    wide = torch.randn(4, 6, generator=source)
    held["view"] = wide[1:3, ::2].T
    held["same"] = wide
    held["parameter"] = torch.nn.Parameter(wide[0])
    held["bfloat16"] = torch.randn(5, generator=source).bfloat16()
    held["half"] = torch.randn(5, generator=source).half()
    meta = {"epoch": 45, "lr": [0.1, None, True], "cfg": "x" * 300}
    torch.save(
        {"meta": meta, "state_dict": held},
        path,
        _use_new_zipfile_serialization=zipped,
    )

    read = pth.read(path)

    assert list(read) == list(held)
    for key, value in held.items():
        value = value.detach()
        if value.is_floating_point():
            value = value.float()
        np.testing.assert_array_equal(read[key], value.numpy(), strict=True)


# What is refused


SYSTEM = hand.name("os", "system") + hand.row(hand.text("touch MARK")) + b"R"
# The same, told by protocol 4, and by the oldest.
STACKED = hand.text("os") + hand.text("system") + b"\x93"
OLDEST = b"(" + hand.text("touch MARK") + b"ios\nsystem\n"
OBJECT = b"(" + hand.name("os", "system") + hand.text("touch MARK") + b"o"


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        (SYSTEM, r"asks for os\.system \(byte \d+ of its pickle\)"),
        (STACKED + hand.row(hand.text("touch MARK")) + b"R", r"os\.system"),
        (OLDEST, "asks for INST"),
        (OBJECT, r"os\.system"),
        (hand.name("builtins", "eval"), r"builtins\.eval"),
        (hand.name("builtins", "getattr"), r"builtins\.getattr"),
        (hand.name("torch", "load"), r"torch\.load"),
        (b"\x82\x01", "asks for EXT1"),
        (b"Pos\n", "asks for PERSID"),
    ],
    ids=[
        "global",
        "stack_global",
        "inst",
        "obj",
        "eval",
        "getattr",
        "torch",
        "extension",
        "persid",
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_is_called(path, tmp_path, instructions, message, zipped):
    mark = tmp_path / "mark"
    instructions = instructions.replace(
        hand.text("touch MARK"), hand.text(f"touch {mark}")
    )
    if zipped:
        small(path, instructions)
    else:
        hand.stream(path, hand.mapping({"w": instructions}), {})

    refused(path, message)

    assert not mark.exists()


WHOLE = hand.storage("0", 12)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (hand.tensor(WHOLE, (13,)), r"'w' of sizes \(13,\).* storage of 12"),
        (hand.tensor(WHOLE, (12,), offset=1), "larger than its storage"),
        (hand.tensor(WHOLE, (3, 4), (8, 1)), "larger than its storage"),
        (hand.tensor(WHOLE, (1 << 40,), (0,)), "larger than its storage"),
        (hand.tensor(WHOLE, (13,), (0,)), "larger than its storage"),
        (hand.tensor(WHOLE, (1 << 40,) * 4), "larger than|has sizes"),
        (hand.tensor(WHOLE, (2,), (-1,), 5), "has sizes"),
        (hand.tensor(WHOLE, (2,), offset=-1), "has sizes"),
        (hand.tensor(WHOLE, (2, 2), (1,)), "has sizes"),
        (hand.tensor(WHOLE, (1,) * 80), "has sizes"),
        (hand.tensor(hand.storage("0", 13), (12,)), "52 bytes, and has 48"),
        (hand.tensor(hand.storage("1", 12), (12,)), "no entry 'archive/data/1"),
        (
            hand.tensor(hand.storage("../../secret", 12), (12,)),
            "no entry 'archive/data/../../secret'",
        ),
        (hand.tensor(hand.storage("0", -12), (0,)), "no storage"),
        (hand.storage("0", 12, "OrderedDict"), r"torch\.OrderedDict"),
        (hand.text("a string"), "'w' is no tensor"),
        (hand.row(hand.text("module"), WHOLE) + b"Q", "no storage"),
        (
            hand.name("torch._utils", "_rebuild_tensor_v2")
            + hand.row(hand.text("x"))
            + b"R",
            "unknown way",
        ),
        (hand.text("x") + b")R", "calls what is no name"),
        (hand.tensor(WHOLE, (12,)) + b"}b", "sets attributes"),
        (b"]" + hand.text("x") + b"s", "damaged"),
        (b"0" * 9, "damaged|asks for POP"),
        (b"h\x63", "damaged"),
        (b"}((tNu", "no string and no number"),
    ],
)
def test_tensors_that_cannot_be_are_refused(path, made, message):
    small(path, made)

    refused(path, message)


def test_a_storage_cannot_be_two_things(path):
    made = hand.mapping(
        {
            "w": hand.tensor(WHOLE, (12,)),
            "v": hand.tensor(hand.storage("0", 6, "DoubleStorage"), (6,)),
        }
    )
    hand.archive(path, hand.pickled(made), {"0": F4.tobytes()})

    refused(path, "storage 0 is two things at once")


@pytest.mark.parametrize("value", [hand.number(3), b"]", b"N", b"}K\x01Ns"])
def test_files_without_a_dict_are_refused(path, value):
    hand.archive(path, hand.pickled(value))

    refused(path, "no dict of tensors")


@pytest.mark.parametrize(
    "entry", ["../outside", "/etc/passwd", "archive/../../outside", "C:/x"]
)
def test_entries_that_climb_out_are_refused(path, tmp_path, entry):
    made = hand.tensor(WHOLE, (12,))
    data = {"0": F4.tobytes()}
    hand.archive(path, one(made), data, others=[(entry, b"x")])
    before = set(tmp_path.parent.rglob("*"))

    refused(path, "climbs out")

    assert set(tmp_path.parent.rglob("*")) == before


def test_compressed_entries_are_refused(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\0" * 1_000_000)

    refused(path, "'archive/data.pkl' is compressed")


def test_two_entries_of_one_name_are_refused(path):
    with pytest.warns(UserWarning, match="Duplicate"):
        hand.archive(
            path, one(b"N"), {"0": b"1"}, others=[("archive/data/0", b"2")]
        )

    refused(path, "share one place")


@pytest.mark.parametrize("root", ["archive/deeper", ""])
def test_archives_of_another_layout_are_refused(path, root):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{root}/constants.pkl".lstrip("/"), b"x")
        file.writestr("code/x.py", b"x")

    refused(path, r"no NAME/data\.pkl")


@pytest.mark.parametrize("content", [b"", b"\x80", b"not weights", b"\x1f\x8b"])
def test_files_of_another_kind_are_refused(path, content):
    path.write_bytes(content)

    refused(path, "neither a zip archive nor|damaged")


def test_streams_of_another_magic_are_refused(path):
    hand.stream(path, hand.mapping({}), {}, magic=0x1950A86A20F9469CFC6D)

    refused(path, "neither a zip archive nor")


@pytest.mark.parametrize("numel", [11, 13, -1])
def test_streams_whose_storages_are_of_another_length_are_refused(path, numel):
    made = hand.tensor(WHOLE, (11,))
    hand.stream(path, hand.mapping({"w": made}), {"0": (numel, F4.tobytes())})

    refused(path, f"must have 12 elements, and has {numel}")


def test_views_of_the_oldest_streams_are_refused(path):
    view = hand.row(hand.text("1"), hand.number(0), hand.number(12))
    made = hand.tensor(hand.storage("0", 12, view=view), (12,))
    hand.stream(path, hand.mapping({"w": made}), {"0": (12, F4.tobytes())})

    refused(path, "no storage")


@pytest.mark.parametrize("zipped", [True, False])
def test_files_broken_off_anywhere_are_refused(path, zipped):
    value, storages = hand.state({"w": F4})
    if zipped:
        write_archive(path, value, storages)
    else:
        hand.stream(path, value, {"0": (12, storages["0"])})
    whole = path.read_bytes()

    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path, "cannot be read as torch weights")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_wrong_byte_gives_an_error_or_a_dict_and_nothing_else(path, zipped):
    value, storages = hand.state({"w": F4, "n": np.array(7, "<i8")})
    if zipped:
        write_archive(path, value, storages)
    else:
        sizes = {"0": 12, "1": 1}
        hand.stream(
            path, value, {key: (sizes[key], x) for key, x in storages.items()}
        )
    whole = path.read_bytes()
    source = np.random.default_rng(0)

    for _ in range(2000):
        wrong = bytearray(whole)
        wrong[source.integers(len(whole))] = source.integers(256)
        path.write_bytes(wrong)
        with contextlib.suppress(ValueError):
            assert isinstance(pth.read(path), dict)


def test_a_flipped_byte_among_the_numbers_of_an_archive_is_noticed(path):
    small(path, hand.tensor(WHOLE, (12,)))
    whole = path.read_bytes()
    at = whole.index(F4.tobytes()) + 5
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])

    refused(path, "CRC")


def test_absent_files_are_said_to_be_absent(path):
    with pytest.raises(FileNotFoundError, match=r"some\.pth"):
        pth.read(path)

"""Files in torch's two layouts, instruction by instruction, without torch."""

import struct
import zipfile

import numpy as np

# torch's names of storages.
KINDS = {
    "<f8": "DoubleStorage",
    "<f4": "FloatStorage",
    "<f2": "HalfStorage",
    "<i8": "LongStorage",
    "|b1": "BoolStorage",
}


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def text(string):
    data = string.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value):
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def row(*parts):
    return b"(" + b"".join(parts) + b"t"


def numbers(values):
    return row(*(number(value) for value in values))


def mapping(pairs):
    items = (text(key) + value for key, value in pairs.items())
    return b"}(" + b"".join(items) + b"u"


def ordered(pairs):
    """An OrderedDict, as `Module.state_dict` gives it."""
    items = b"".join(text(key) + value for key, value in pairs.items())
    made = name("collections", "OrderedDict") + b")R"
    return made + b"(" + items + b"u"


def storage(key, numel, kind="FloatStorage", view=b""):
    """A pointer to a storage; `view` follows in the older stream."""
    parts = (
        text("storage"),
        name("torch", kind),
        text(key),
        text("cpu"),
        number(numel),
        view,
    )
    return row(*parts) + b"Q"


def tensor(pointer, size, stride=None, offset=0):
    if stride is None:
        stride = [int(np.prod(size[i + 1 :])) for i in range(len(size))]
    hooks = name("collections", "OrderedDict") + b")R"
    arguments = (
        pointer,
        number(offset),
        numbers(size),
        numbers(stride),
        b"\x89",
        hooks,
    )
    return name("torch._utils", "_rebuild_tensor_v2") + row(*arguments) + b"R"


def parameter(made):
    hooks = name("collections", "OrderedDict") + b")R"
    called = name("torch._utils", "_rebuild_parameter")
    return called + row(made, b"\x88", hooks) + b"R"


def pickled(value):
    return b"\x80\x02" + value + b"."


def archive(path, pickle, storages=None, root="archive", others=()):
    """Writes the newer layout.

    Args:
        path: File.
        pickle: Bytes of `data.pkl`.
        storages: Dict from key to bytes.
        root: String, the folder within.
        others: Pairs of an entry's name and bytes.
    """
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{root}/data.pkl", pickle)
        for key, data in (storages or {}).items():
            file.writestr(f"{root}/data/{key}", data)
        file.writestr(f"{root}/version", "3\n")
        for entry, data in others:
            file.writestr(entry, data)
    return path


def stream(path, value, storages, magic=0x1950A86A20F9469CFC6C):
    """Writes the older layout.

    Args:
        path: File.
        value: Instructions that make the object.
        storages: Dict from key to (number of elements, bytes).
        magic: Integer.
    """
    large = magic.to_bytes(10, "little")
    machine = mapping(
        {"protocol_version": number(1001), "little_endian": b"\x88"}
    )
    keys = b"](" + b"".join(text(key) for key in storages) + b"e"
    with open(path, "wb") as file:
        file.write(pickled(b"\x8a\x0a" + large))
        for part in (number(1001), machine, value, keys):
            file.write(pickled(part))
        for numel, data in storages.values():
            file.write(struct.pack("<q", numel) + data)
    return path


def state(arrays, wrap=ordered, view=b""):
    """Instructions and storages of a dict of arrays.

    Args:
        arrays: Dict of NumPy arrays.
        wrap: `ordered` or `mapping`.
        view: See `storage`.

    Returns:
        Pair: bytes that make the dict, and a dict from key to bytes.
    """
    made, storages = {}, {}
    for place, (key, array) in enumerate(arrays.items()):
        kind = KINDS[array.dtype.str]
        pointer = storage(str(place), array.size, kind, view)
        made[key] = tensor(pointer, array.shape)
        storages[str(place)] = array.tobytes()
    return wrap(made), storages

"""Reads the tensors of a torch file without torch, and runs nothing of it.

A `.pth` file is a pickle, which is a program: whoever loads it with `pickle`
runs what its author wrote. Here the standard library's disassembler names the
instructions, and the few that weights are made of are carried out by hand; the
first other one ends the reading.

There are two layouts. The newer is a zip archive, nothing in it compressed:

    NAME/data.pkl       the pickle; tensors point to storages by key
    NAME/data/KEY       the bytes of one storage
    NAME/byteorder      "little" or "big"; older archives lack it: little

The older is a stream of five pickles (a magic number, the protocol, the
machine that wrote it, the object, the storages' keys), after which every
storage stands as its number of elements and its bytes, in the keys' order.
"""

import io
import math
import os
import pickletools
import re
import struct
import warnings
import zipfile
from dataclasses import dataclass

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001

# Storages by the name of their class in torch. bfloat16, which NumPy lacks,
# is read as the upper half of a float32.
TYPES = {
    "torch.DoubleStorage": "f8",
    "torch.FloatStorage": "f4",
    "torch.HalfStorage": "f2",
    "torch.BFloat16Storage": "u2",
    "torch.LongStorage": "i8",
    "torch.IntStorage": "i4",
    "torch.ShortStorage": "i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "u1",
}

DICT = "collections.OrderedDict"
SIZE = "torch.Size"
TENSOR = "torch._utils._rebuild_tensor_v2"
PARAMETER = "torch._utils._rebuild_parameter"
MADE = {DICT, SIZE, TENSOR, PARAMETER}

# OpenMMLab's training logs lie beside the weights. They are passed over:
# what would be made of these names is never made.
PASSED = {
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.ndarray",
    "numpy.dtype",
    "_codecs.encode",
}


@dataclass(frozen=True)
class Named:
    """A class or function that the pickle names; nothing is imported."""

    name: str


@dataclass(frozen=True)
class Passed:
    """In place of an object that is passed over."""

    name: str


@dataclass(frozen=True)
class Storage:
    """Where a tensor's numbers lie: `numel` elements under `key`."""

    type: str
    key: str
    numel: int


@dataclass(frozen=True)
class Tensor:
    """What a storage shows: sizes and strides in elements."""

    storage: Storage
    offset: int
    size: tuple
    stride: tuple


class Refusal(ValueError):  # noqa: N818
    """What is wrong with a file, before its name is told."""


# What damaged files make of the standard library, beside our own refusals.
DAMAGE = (
    ValueError,
    LookupError,
    TypeError,
    OSError,
    EOFError,
    RuntimeError,  # an archive under a password; a tuple too deep to compare
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
)


def read(path):
    """The tensors of a torch file, by name.

    Args:
        path: A `.pth` file that holds a dict of tensors, or a dict with such
            a one under `"state_dict"`, as training tools write them.

    Returns:
        Dict of NumPy arrays. Numbers with a fraction are float32, whatever
        they were in the file; others keep their type.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, or holds or does anything but
            weights; nothing of it was run.
    """
    path = os.fspath(path)
    with open(path, "rb") as file:
        try:
            if file.read(2) == b"PK":
                with zipfile.ZipFile(file) as archive:
                    return _tensors(*_archive(archive, os.path.getsize(path)))
            file.seek(0)
            # Read whole: a file would reserve what length a pickle claims.
            return _tensors(*_stream(io.BytesIO(file.read())))
        except DAMAGE as error:
            reason = str(error).split("\n")[0][:300]
            raise ValueError(
                f"{path!r} cannot be read as torch weights: {reason}"
            ) from error


def _tensors(held, raw):
    """The arrays by name; `raw` gives a storage's bytes and their order."""
    if isinstance(held, dict) and isinstance(held.get("state_dict"), dict):
        held = held["state_dict"]
    if not isinstance(held, dict) or not all(
        isinstance(name, str) for name in held
    ):
        raise Refusal("it holds no dict of tensors")
    return {name: _array(name, held[name], raw) for name in held}


def _archive(file, length):
    """The object of an open archive of `length` bytes, and its storages."""
    entries = file.infolist()
    names = {entry.filename for entry in entries}
    for entry in entries:
        parts = re.split(r"[/\\]", entry.filename)
        if ".." in parts or parts[0] in ("", ".") or ":" in parts[0]:
            raise Refusal(f"entry {entry.filename!r} climbs out of it")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise Refusal(f"entry {entry.filename!r} is compressed")
    # Entries that overlap would unfold to more than the file holds.
    claimed = sum(entry.file_size for entry in entries)
    if len(names) < len(entries) or claimed > length:
        raise Refusal("several of its entries share one place")
    roots = [n[: -len("data.pkl")] for n in names if n.endswith("/data.pkl")]
    if len(roots) != 1 or roots[0].count("/") != 1:
        raise Refusal("it has no NAME/data.pkl")
    (root,) = roots
    held = _object(io.BytesIO(file.read(f"{root}data.pkl")))
    order = b"little"
    if f"{root}byteorder" in names:
        order = file.read(f"{root}byteorder")
    if order not in (b"little", b"big"):
        raise Refusal(f"its byteorder is {order[:20]!r}")

    def raw(storage):
        name = f"{root}data/{storage.key}"
        if name not in names:
            raise Refusal(f"it has no entry {name!r}")
        return file.read(name), "<" if order == b"little" else ">"

    return held, raw


def _stream(stream):
    """The object of a stream of pickles in memory, and its storages."""
    if stream.getvalue()[:1] != b"\x80" or _object(stream) != MAGIC:
        raise Refusal("it is neither a zip archive nor torch's older stream")
    if _object(stream) != PROTOCOL:
        raise Refusal(f"its protocol is not {PROTOCOL}")
    machine = _object(stream)
    little = machine.get("little_endian") if isinstance(machine, dict) else 0
    if not isinstance(little, bool):
        raise Refusal("it does not tell the order of its bytes")
    seen: dict = {}
    held = _object(stream, seen)
    keys = _object(stream)
    if not isinstance(keys, list) or not all(
        isinstance(key, str) and key in seen for key in keys
    ):
        raise Refusal("its list of storages is not that of its tensors")
    places = {}
    for key in keys:
        numel = int.from_bytes(
            stream.read(8), "little" if little else "big", signed=True
        )
        if numel != seen[key].numel:
            raise Refusal(
                f"storage {key} must have {seen[key].numel} elements, "
                f"and has {numel}"
            )
        begin = stream.tell()
        end = begin + numel * np.dtype(TYPES[seen[key].type]).itemsize
        places[key] = slice(begin, end)
        stream.seek(end)

    def raw(storage):
        if storage.key not in places:
            raise Refusal(f"it has no storage {storage.key}")
        numbers = stream.getbuffer()[places[storage.key]]
        return numbers, "<" if little else ">"

    return held, raw


def _array(name, tensor, raw):
    """The numbers of one tensor, of shape `tensor.size`."""
    if not isinstance(tensor, Tensor):
        raise Refusal(f"{name!r} is no tensor")
    storage, size, stride = tensor.storage, tensor.size, tensor.stride
    whole = (storage.numel, tensor.offset, *size, *stride)
    if not len(size) == len(stride) <= 32 or not all(
        type(n) is int and 0 <= n < 1 << 48 for n in whole
    ):
        raise Refusal(f"{name!r} has sizes {size} and strides {stride}")
    last = tensor.offset + sum(
        (n - 1) * s for n, s in zip(size, stride, strict=True)
    )
    count = math.prod(size)  # exact: NumPy's could overflow
    # A stride of 0 would make a large tensor of a small storage.
    if count and (last >= storage.numel or count > storage.numel):
        raise Refusal(
            f"{name!r} of sizes {size} and strides {stride} from element "
            f"{tensor.offset} is larger than its storage of {storage.numel}"
        )
    buffer, order = raw(storage)
    dtype = np.dtype(TYPES[storage.type]).newbyteorder(order)
    if len(buffer) != storage.numel * dtype.itemsize:
        raise Refusal(
            f"storage {storage.key} must have "
            f"{storage.numel * dtype.itemsize} bytes, and has {len(buffer)}"
        )
    if not count:
        return np.zeros(size, "float32" if dtype.kind == "f" else dtype)
    seen = np.ndarray(
        size,
        dtype,
        buffer,
        tensor.offset * dtype.itemsize,
        [s * dtype.itemsize for s in stride],
    )
    if storage.type == "torch.BFloat16Storage":
        return (seen.astype("u4") << 16).view("f4")
    if storage.type == "torch.BoolStorage":
        return seen.astype(bool)
    return seen.astype("f4" if dtype.kind == "f" else dtype.newbyteorder("="))


def _object(stream, storages=None):
    """What the next pickle of a stream makes, up to its end.

    Args:
        stream: Binary file; stands after the pickle then.
        storages: Dict that gathers the storages by key, or None.

    Returns:
        Strings, numbers, None, lists, tuples and dicts, and in them `Tensor`
        and `Passed`.

    Raises:
        Refusal: If the pickle is damaged or does anything else.
    """
    machine = _Machine({} if storages is None else storages)
    try:
        with warnings.catch_warnings():
            # Of stray backslashes in names.
            warnings.simplefilter("ignore", DeprecationWarning)
            for instruction, value, place in pickletools.genops(stream):
                machine.step(instruction.name, value, place)
    except Refusal:
        raise
    # What the disassembler and the stack say to nonsense.
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise Refusal(f"its pickle is damaged ({error})") from error
    return machine.stack.pop()


class _Machine:
    """Carries out the instructions that weights need."""

    def __init__(self, storages):
        self.stack = []
        self.marks = []
        self.memo = {}
        self.storages = storages

    def step(self, instruction, value, place):
        """Carries out one instruction; `value` is the argument it carries."""
        push = self.stack.append
        match instruction:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self.marks.append(len(self.stack))
            case "NONE":
                push(None)
            case "NEWTRUE" | "NEWFALSE":
                push(instruction == "NEWTRUE")
            case (
                "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT"
                | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8"
                | "BINSTRING" | "SHORT_BINSTRING"
                | "BINBYTES" | "SHORT_BINBYTES"
            ):  # fmt: skip
                push(value)
            case "EMPTY_LIST":
                push([])
            case "EMPTY_DICT":
                push({})
            case "EMPTY_TUPLE":
                push(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(self.take(int(instruction[-1]))))
            case "TUPLE":
                push(tuple(self.since_mark()))
            case "APPEND":
                self.extend(self.take(1))
            case "APPENDS":
                self.extend(self.since_mark())
            case "SETITEM":
                self.update(self.take(2))
            case "SETITEMS":
                self.update(self.since_mark())
            case "BINPUT" | "LONG_BINPUT":
                self.memo[value] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                push(self.memo[value])
            case "GLOBAL":
                push(self.named(value.replace(" ", ".", 1), place))
            case "STACK_GLOBAL":
                push(self.named(".".join(self.take(2)), place))
            case "BINPERSID":
                push(self.storage(*self.take(1)))
            case "REDUCE" | "NEWOBJ":
                named, arguments = self.take(2)
                push(_made(named, arguments, place))
            case "BUILD":
                target, _ = self.take(2)
                # An OrderedDict's attributes are of no use here.
                if not isinstance(target, dict | Passed):
                    raise Refusal(_at("it sets attributes", place))
                push(target)
            case _:
                raise Refusal(_at(f"it asks for {instruction}", place))

    def take(self, count):
        """The last `count` values, off the stack; none from under a mark."""
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) - count < floor:
            raise Refusal("its pickle is damaged (stack underflow)")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def since_mark(self):
        """The values above the last mark, off the stack."""
        mark = self.marks.pop()
        taken = self.stack[mark:]
        del self.stack[mark:]
        return taken

    def extend(self, values):
        if not isinstance(self.stack[-1], list):
            raise Refusal("its pickle is damaged (values beside a list)")
        self.stack[-1].extend(values)

    def update(self, values):
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise Refusal("its pickle is damaged (values beside a dict)")
        for key, value in zip(values[::2], values[1::2], strict=True):
            # A tuple as a key could be nested too deep for its hash.
            if not isinstance(key, str | int | float):
                raise Refusal("it has a key that is no string and no number")
            target[key] = value

    def named(self, name, place):
        if name not in MADE | PASSED | set(TYPES):
            raise Refusal(_at(f"it asks for {name}", place))
        return Named(name)

    def storage(self, key):
        match key:
            case ("storage", Named(kind), str(name), str(), int(numel)):
                pass
            # In the older stream; a view into another storage is refused.
            case ("storage", Named(kind), str(name), str(), int(numel), None):
                pass
            case _:
                raise Refusal("it points to something that is no storage")
        if kind not in TYPES or numel < 0:
            raise Refusal("it points to something that is no storage")
        found = Storage(kind, name, numel)
        if self.storages.setdefault(name, found) != found:
            raise Refusal(f"storage {name} is two things at once")
        return found


def _made(named, arguments, place):
    """What a call of a name on the list gives; nothing is called."""
    match named, arguments:
        case Named(name), tuple() if name in PASSED:
            return Passed(name)
        case Named(name), () if name == DICT:
            return {}
        case Named(name), (tuple(size),) if name == SIZE:
            return size
        case (
            Named(name),
            (Storage() as storage, int(offset), tuple(size), tuple(stride), *_),
        ) if name == TENSOR:
            return Tensor(storage, offset, size, stride)
        case Named(name), (Tensor() as data, *_) if name == PARAMETER:
            return data
    what = named.name if isinstance(named, Named) else "what is no name"
    raise Refusal(_at(f"it calls {what} in an unknown way", place))


def _at(what, place):
    return f"{what} (byte {place} of its pickle), which weights never need"

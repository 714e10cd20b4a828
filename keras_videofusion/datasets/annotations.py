"""Annotations in JSON and in MATLAB's files, read without running anything.

Lists of lines and tables are `layout`'s; these are the two other forms.
"""

import json
from pathlib import Path
from typing import Any


def read_json(path, kind: type) -> Any:
    """What a JSON file holds.

    Args:
        path: File.
        kind: `dict` or `list`, what it must hold.

    Returns:
        Dict or list.

    Raises:
        ValueError: If it cannot be read, is no JSON, or holds another kind.
            The file is named, and the line where there is one.
    """
    try:
        value = json.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {error.lineno} is not JSON: {error.msg}"
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, kind):
        raise ValueError(
            f"{path} must hold a {kind.__name__}. "
            f"Received: a {type(value).__name__}"
        )
    return value


def field(entry, name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A field of one entry of an annotation file.

    Args:
        entry: Dict, or whatever stands in its place.
        name: Name of the field.
        kind: What the field must be.
        where: File and entry, for the error.

    Returns:
        The field.

    Raises:
        ValueError: If the entry has no such field, or one of another kind.
    """
    value = entry.get(name) if isinstance(entry, dict) else None
    # True is an integer to Python, and to nobody else.
    if not isinstance(value, kind) or isinstance(value, bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        raise ValueError(
            f"{where}: `{name}` must be "
            f"{' or '.join(one.__name__ for one in kinds)}. "
            f"Received: {_short(entry)}"
        )
    return value


def read_mat(path, name: str) -> Any:
    """A variable of a MATLAB file of version 4 to 7.

    Args:
        path: File.
        name: Name of the variable.

    Returns:
        NumPy array; structs are dicts, several of them a list.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If SciPy is not installed.
        ValueError: If it is no such file, or lacks the variable.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError(
            f"{path} is a MATLAB file: reading it needs SciPy. "
            "pip install 'keras-videofusion[tune]'"
        ) from error
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        found = loadmat(
            str(path),
            appendmat=False,
            variable_names=[name],
            simplify_cells=True,
        )
    # Of a damaged file SciPy says whatever it stumbles over.
    except Exception as error:
        raise ValueError(
            f"{path} is no MATLAB file of version 4 to 7, or is damaged: "
            f"{' '.join(str(error).split())}"
        ) from error
    if name not in found:
        raise ValueError(f"{path} has no variable {name!r}.")
    return found[name]


def _short(value):
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."

"""Files that stand whole under their name or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def written(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a name beside `path`; on success that file takes its place.

    Args:
        path: Where the file shall stand in the end. The name that is yielded
            ends alike, since Keras chooses formats by it.
    """
    path = Path(path)
    draft = path.with_name(f".draft-{os.getpid()}-{path.name}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file; undecodable bytes of names come out as they were.

    Args:
        path: File.
        text: String.
    """
    with written(path) as draft:
        draft.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a JSON file.

    Args:
        path: File.
        value: What `json` can write; NaN is refused.
    """
    write_text(path, json.dumps(value, indent=2) + "\n")

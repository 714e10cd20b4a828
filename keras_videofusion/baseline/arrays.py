"""Files of named arrays, `.npz`: whole or not there, and nothing pickled."""

import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from keras_videofusion.data.files import opened, written


def write_arrays(
    file: str | os.PathLike, arrays: Iterable[tuple[str, Any]]
) -> None:
    """Writes arrays as they come.

    Unlike `numpy.savez` it needs one of them at a time in memory. The same
    arrays give the same bytes whenever they are written.

    Args:
        file: Path or address.
        arrays: Pairs of a name and an array.
    """
    with written(file) as draft, zipfile.ZipFile(draft, "w") as archive:
        for name, array in arrays:
            entry = zipfile.ZipInfo(f"{name}.npy")  # of the year 1980
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(
                    member, np.asanyarray(array), allow_pickle=False
                )


@contextmanager
def read_arrays(file: str | os.PathLike) -> Iterator[Any]:
    """Yields a mapping of names to arrays; each is read when it is asked for.

    Args:
        file: Path or address.

    Raises:
        ValueError: If it is no `.npz` file, or an array of it is damaged; so
            is whatever else fails but the reading itself.
        OSError: If it cannot be read.
    """
    with opened(file) as source:
        if source.read(2) != b"PK":
            raise ValueError("it is no .npz file")
        source.seek(0)
        try:
            with np.load(source, allow_pickle=False) as arrays:
                yield arrays
        except (ValueError, OSError):
            raise
        except Exception as error:  # whatever strange bytes lead to
            raise ValueError(
                f"it is damaged: {str(error) or type(error).__name__}"
            ) from error

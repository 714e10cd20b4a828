"""Where weights come from: nowhere, a file, or their authors' release.

A release is looked for in the folder that `KVF_WEIGHTS_DIR` names, then beside
the weights that Keras keeps, then at its authors' address. It is known by its
hash before it is read. What was converted is kept beside Keras's weights, so
that the next time neither the authors' file nor its reader is needed.
"""

import contextlib
import hashlib
import http.client
import os
import shutil
import sys
import tempfile
import urllib.request
import warnings
import zipfile
from pathlib import Path

import h5py
import keras

from keras_videofusion.applications import releases
from keras_videofusion.applications.releases import RELEASES
from keras_videofusion.data.files import exists, fetched, written

# Network -> published names. The fusion networks of 2014 were never released.
WEIGHTS: dict[str, tuple[str, ...]] = {}
for _network, _name in RELEASES:
    WEIGHTS[_network] = (*WEIGHTS.get(_network, ()), _name)

# Seconds that an address may stay silent.
PATIENCE = 30.0


def release(network, weights):
    """What is known of published weights.

    Args:
        network: The network's name in `applications.MODELS`.
        weights: The builder's argument.

    Returns:
        `releases.Release`; None for None and for paths.
    """
    if not isinstance(weights, str):
        return None
    return RELEASES.get((network, weights))


def check(network, weights, include_top, classes):
    """Refuses weights that do not exist, or not for such a network.

    Args:
        network: The network's name in `applications.MODELS`.
        weights: The builder's argument.
        include_top: The builder's argument.
        classes: The builder's argument.

    Raises:
        ValueError: Then; the line says what there is.
    """
    if weights is None:
        return
    found = release(network, weights)
    if found is not None:
        if include_top and found.classes is None:
            raise ValueError(
                f"weights={weights!r} of {network} have no top. Pass "
                "`include_top=False`. Received: include_top=True"
            )
        if include_top and classes != found.classes:
            raise ValueError(
                f"`classes` must match the weights: {weights!r} was trained "
                f"on {found.classes} classes. Pass `include_top=False` to "
                f"train a new top. Received: classes={classes}"
            )
        return
    if isinstance(weights, str | os.PathLike) and exists(weights):
        return
    known = WEIGHTS.get(network, ())
    names = "".join(f"'{name}', " for name in known)
    hint = (
        ""
        if known
        else f" Nobody has published weights of {network}: train it with "
        f"`videofusion train DATA --model {network} --run RUN`."
    )
    raise ValueError(
        "The `weights` argument should be either `None` (random "
        f"initialization), {names}or the path to the weights file to be "
        f"loaded.{hint} Received: weights={weights!r}"
    )


def load(model, weights, network):
    """Loads a weights file, or a published set, into a network.

    Args:
        model: `keras.Model`.
        weights: Path or address of a `.weights.h5` or `.keras` file, a
            published name, or None.
        network: The network's name in `applications.MODELS`.

    Raises:
        ValueError: If the file is of another kind or of another network, or
            its hash is not what its authors publish.
        FileNotFoundError: If a published set is nowhere to be had; the line
            says what to put where.
    """
    if weights is None:
        return
    found = release(network, weights)
    if found is not None:
        _load_release(model, found)
        return
    path = os.fspath(weights)
    if not path.endswith((".weights.h5", ".keras")):
        raise ValueError(
            "`weights` must name a file that ends in .weights.h5 or .keras. "
            f"Received: weights={path!r}"
        )
    try:
        with warnings.catch_warnings():
            # What does not fit is warned of first, then raised.
            warnings.filterwarnings("ignore", "Skipping nested container")
            with fetched(path) as file:
                model.load_weights(file)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"`weights` do not fit {model.name}, or the file is damaged "
            f"({reason}). Received: weights={path!r}"
        ) from error


def _load_release(model, found):
    own = _from_folder(found, os.environ.get("KVF_WEIGHTS_DIR"))
    kept = _kept(model, found)
    if kept is not None and _load_kept(model, kept):
        return
    paths = own or _from_folder(found, _folder())
    with contextlib.ExitStack() as stack:
        if paths is None:
            paths = stack.enter_context(_fetched(found))
        held = releases.arrays(found, paths)
        weights = _weights(model, found)
        shapes = {key: tuple(weight.shape) for key, weight in weights.items()}
        # All is checked before the first weight is changed.
        values = releases.turned(found, held, shapes, paths[0])
    for key, value in values.items():
        weights[key].assign(value)
    if kept is not None:
        # A folder that cannot be written costs time, no more.
        with contextlib.suppress(OSError):
            _keep(model, kept)


def _weights(model, found):
    """A network's weights by (layer, weight), but for layers of others."""
    layers = {layer for layer, _ in found.peers}
    return {
        (layer.name, weight.name): weight
        for layer in model.layers
        if layer.name in layers
        for weight in layer.weights
    }


# Finding and fetching


def _folder():
    """Where Keras keeps weights, and in it ours."""
    home = os.environ.get("KERAS_HOME") or Path("~", ".keras").expanduser()
    return Path(home, "models", "keras_videofusion")


def _from_folder(found, folder):
    """The files of a release in a folder, their hashes checked, or None."""
    if not folder:
        return None
    folder = Path(folder).expanduser()
    # As downloaded, or in a clone of DeepMind's repository.
    for place in (folder, folder / "data" / "checkpoints"):
        paths = [place / file.path for file in found.files]
        if all(path.is_file() for path in paths):
            for file, path in zip(found.files, paths, strict=True):
                _check_digest(path, file.digest)
            return paths
    return None


def _check_digest(path, digest):
    """Refuses a file whose hash does not begin with the expected digits."""
    kind, _, expected = digest.partition(":")
    if not kind:
        return
    if kind == "git":
        length = os.path.getsize(path)
        # Git's own name of a file; the authors publish no other hash.
        summed = hashlib.sha1(b"blob %d\0" % length, usedforsecurity=False)
    else:
        summed = hashlib.new(kind)
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            summed.update(part)
    received = summed.hexdigest()
    if not received.startswith(expected):
        raise ValueError(
            f"{str(path)!r} is damaged or another file: its hash ({kind}) "
            f"must begin with {expected}. "
            f"Received: {received[: len(expected)]}"
        )


@contextlib.contextmanager
def _fetched(found):
    """Yields the files from their authors; once read, they take their place.

    Until then they lie in a folder of their own, so that what was broken off
    or cannot be read leaves nothing behind.
    """
    folder = _folder()
    draft = None
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=".fetch-", dir=folder))
            paths = [
                _fetch(file.address, draft / file.path) for file in found.files
            ]
        except (OSError, http.client.HTTPException) as error:
            raise FileNotFoundError(_wanted(found, error)) from error
        for file, path in zip(found.files, paths, strict=True):
            _check_digest(path, file.digest)
        yield paths
        for file, path in zip(found.files, paths, strict=True):
            place = folder / file.path
            place.parent.mkdir(exist_ok=True)
            os.replace(path, place)
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)


def _fetch(address, path):
    """Downloads a file; tells of it on standard error once it flows."""
    path.parent.mkdir(exist_ok=True)
    with (
        contextlib.redirect_stdout(sys.stderr),
        urllib.request.urlopen(address, timeout=PATIENCE) as answer,
        open(path, "wb") as file,
    ):
        length = int(answer.headers.get("Content-Length") or 0)
        print(f"Fetching {address} ({length / 1e6:.0f} MB)", flush=True)
        # A bar where somebody looks, not in a log.
        bar = keras.utils.Progbar(length or None, verbose=sys.stderr.isatty())
        while part := answer.read(1 << 20):
            file.write(part)
            bar.update(file.tell())
        received = file.tell()
    if length and received != length:
        raise OSError(f"it ended after {received} of {length} bytes")
    return path


def _wanted(found, error):
    """One line: what could not be had, from where, and where to put it."""
    asked = os.environ.get("KVF_WEIGHTS_DIR")
    where = (
        f"the folder that KVF_WEIGHTS_DIR names, {asked}"
        if asked
        else "a folder, and name it in KVF_WEIGHTS_DIR"
    )
    wanted = " and ".join(
        f"{file.address} as {file.path}" for file in found.files
    )
    reason = str(error).strip().split("\n")[0][:200]
    return (
        f"weights={found.name!r} of {found.network} are not here and could "
        f"not be fetched ({reason}): download {wanted} into {where}; or into "
        f"{_folder()}"
    )


# Keeping what was converted


def _kept(model, found):
    """Where the converted weights of such a network are kept, or None.

    Keras tells layers of one class apart by their number alone, so a network
    that was built upon other layers keeps nothing.
    """
    ours = {layer for layer, _ in found.peers}
    built = {layer.name for layer in model.layers if layer.weights}
    if built not in (ours, ours - set(found.top)):
        return None
    if any(weight.dtype != "float32" for weight in model.weights):
        return None
    digits = found.files[0].digest.partition(":")[2][:8]
    top = "" if built == ours else "-notop"
    return _folder() / (
        f"{found.network}-{found.name}{top}-v{releases.VERSION}-{digits}"
        ".weights.h5"
    )


def _keep(model, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as draft:
        model.save_weights(draft)
        with h5py.File(draft, "a") as file:
            file.attrs["sha256"] = _sum(file)


def _load_kept(model, path):
    """Whether what is kept was whole, and is loaded."""
    try:
        with h5py.File(path) as file:
            if file.attrs.get("sha256") != _sum(file):
                return False
        model.load_weights(path)
    except (OSError, ValueError, KeyError, RuntimeError):
        return False
    return True


def _sum(file):
    """SHA-256 of all numbers in an open HDF5 file, by name."""
    summed = hashlib.sha256()

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            summed.update(f"{name} {item.dtype} {item.shape}".encode())
            summed.update(item[()].tobytes())

    file.visititems(add)
    return summed.hexdigest()

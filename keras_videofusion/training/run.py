"""A run's folder: what is in it, and how it is written and read.

    recipe.json       recipe, clip, data root and flow
    catalog.csv       every row used, with its split
    classes.txt       a class a line
    missing.txt       videos that a data set lists and that are not there
    checkpoints/      the two newest, each a .json and the weights it names
    model.keras       the best network by validation, without optimizer
    codebooks.npz     of histograms: what makes them of other videos
    activations/      of a frozen part, where a top learns from them alone
    history.csv       a row per epoch
    tensorboard/      scalars
    environment.json  versions, command, seed
    scores.npz, metrics.json   after evaluation

Every file is written beside its name and then renamed, or at an address sent
whole, so that a run that dies leaves whole files only.
"""

import os
import platform
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from keras_videofusion.applications import (
    class_names,
    clip_spec,
    get_model,
    MODELS,
)
from keras_videofusion.applications.weights import release
from keras_videofusion.data.catalog import Catalog, open_catalog
from keras_videofusion.data.clips import ClipSpec, STREAMS
from keras_videofusion.data.files import (
    exists,
    fetched,
    is_folder,
    is_remote,
    join,
    make_folder,
    names,
    read_json,
    read_text,
    remove,
    write_json,
    write_text,
    written,
)
from keras_videofusion.data.vectors import (
    CODEBOOKS,
    spec_from_json,
    VectorSpec,
)
from keras_videofusion.training.recipe import Recipe
from keras_videofusion.version import __version__


class RunError(ValueError):
    """A run's folder that cannot be used; one line that says what to do."""


@dataclass(frozen=True)
class Run:
    """The folder of one training run.

    Args:
        folder: Path, or address such as `s3://bucket/run`; need not exist.
    """

    folder: Path | str

    def __post_init__(self):
        if not is_remote(self.folder):
            object.__setattr__(self, "folder", Path(self.folder))

    def path(self, name):
        place = join(self.folder, name)
        return place if is_remote(place) else Path(place)

    @property
    def exists(self):
        return exists(self.path("recipe.json"))

    @property
    def started(self):
        return bool(self.checkpoints())

    def checkpoints(self):
        """Names of the checkpoints without their endings, newest first."""
        folder = self.path("checkpoints")
        if not exists(folder):
            return []
        found = [name for name in names(folder) if name.startswith("epoch-")]
        return sorted(
            (name[:-5] for name in found if name.endswith(".json")),
            reverse=True,
        )

    def create(self, settings, catalog, overwrite=False, codebooks=None):
        """Makes the folder and writes what is known before training.

        Args:
            settings: Dict for `recipe.json`, as `settings` reads it back.
            catalog: `Catalog` with the split of every row.
            overwrite: Whether a run that stands there is deleted.
            codebooks: Place of the file of which the run keeps a copy, so
                that it makes histograms of other videos by itself; or None.

        Raises:
            RunError: If the folder holds a run or anything else of value.
        """
        if exists(self.folder) and not is_folder(self.folder):
            raise RunError(
                f"`run` must be a folder. Received: run={str(self.folder)!r}"
            )
        if self.exists and not overwrite:
            raise RunError(
                f"{self.folder} holds a run already: pass --resume to go on "
                "with it, --overwrite to replace it, or another --run."
            )
        if is_folder(self.folder) and names(self.folder):
            if not self.exists and not _only_ours(self.folder):
                raise RunError(
                    f"{self.folder} is not empty and holds no run: pass "
                    "another --run, so that nothing of yours is lost."
                )
            # Only what a run writes is removed; a stranger's file stays.
            for name in OURS:
                remove(self.path(name))
        try:
            make_folder(self.path("checkpoints"))
            catalog.save(self.path("catalog.csv"))
            write_text(
                self.path("classes.txt"),
                "".join(f"{name}\n" for name in catalog.classes),
            )
            if catalog.missing:
                write_text(
                    self.path("missing.txt"),
                    "".join(f"{name}\n" for name in catalog.missing),
                )
            if codebooks is not None:
                with (
                    fetched(codebooks) as file,
                    written(self.path(CODEBOOKS)) as draft,
                ):
                    shutil.copyfile(file, draft)
            write_json(self.path("environment.json"), environment(settings))
            # Last: its presence says that the folder holds a run.
            write_json(self.path("recipe.json"), settings)
        except OSError as error:
            raise RunError(
                f"{self.folder} cannot be written: {error.strerror}"
            ) from error

    @property
    def settings(self):
        """What `recipe.json` holds: recipe, clip, data, held out."""
        return self._json("recipe.json")

    @property
    def recipe(self):
        return Recipe.from_json(self.settings["recipe"])

    @property
    def spec(self):
        """What its network is fed: `ClipSpec` or `VectorSpec`."""
        return spec_from_json(self.settings["clip"])

    @property
    def codebooks(self):
        """Place of the file that makes histograms of videos, or None."""
        place = self.path(CODEBOOKS)
        return place if exists(place) else None

    @property
    def flow(self):
        """The folder of flow, or a method's name; None where there is none."""
        return self.settings.get("flow")

    @property
    def flow_method(self):
        """How the flow that the run learned from was computed, or None."""
        return self.settings.get("flow_method")

    @property
    def classes(self):
        path = self.path("classes.txt")
        if not exists(path):
            raise RunError(f"{path} is missing.")
        return _lines(path)

    def catalog(self, root=None):
        """The rows of the run, their files looked for under `root`.

        Args:
            root: Folder; the one that the run was trained from if not given.
        """
        rows = open_catalog(self.path("catalog.csv"), classes=self.classes)
        return Catalog(rows.videos, self.classes, root or self.settings["data"])

    @property
    def state(self):
        """What the newest readable checkpoint knows beside the weights."""
        for name in self.checkpoints():
            try:
                return self.state_of(name)
            except RunError as error:
                damaged = error
        raise damaged

    def state_of(self, name):
        """What a checkpoint knows beside the weights.

        Args:
            name: String, of `checkpoints`.

        Raises:
            RunError: If it cannot be read.
        """
        return self._json(f"checkpoints/{name}.json")

    def model(self):
        """The best network, not compiled.

        Raises:
            RunError: If it was never written or cannot be read.
        """
        path = self.path("model.keras")
        if not exists(path):
            raise RunError(
                f"{path} is missing: the run has not finished its first "
                "epoch. Go on with it: videofusion train --resume --run "
                f"{self.folder}"
            )
        return load_model(path)

    def _json(self, name):
        path = self.path(name)
        try:
            return read_json(path)
        except FileNotFoundError:
            raise RunError(f"{path} is missing: not a run's folder.") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read: {error}") from error


OURS = (
    "recipe.json",
    "catalog.csv",
    "classes.txt",
    "missing.txt",
    "checkpoints",
    "model.keras",
    "codebooks.npz",
    "activations",
    "history.csv",
    "tensorboard",
    "environment.json",
    "scores.npz",
    "metrics.json",
)


def _only_ours(folder):
    """Whether all that stands in a folder is what a run writes."""
    return all(
        name in OURS or name.startswith(".draft-") for name in names(folder)
    )


def environment(settings):
    """Versions, command and seed, for `environment.json`."""
    import av
    import numpy
    import tensorflow

    return {
        "command": sys.argv,
        "seed": settings["recipe"]["seed"],
        "keras_videofusion": __version__,
        "python": platform.python_version(),
        "keras": keras.version(),
        "tensorflow": tensorflow.__version__,
        "numpy": numpy.__version__,
        "av": av.__version__,
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "devices": [
            device.device_type
            for device in tensorflow.config.list_physical_devices()
        ],
    }


def load_model(path):
    """Reads a `.keras` file; runs no code that the file brings.

    Args:
        path: File that `keras.Model.save` wrote, or its address.

    Returns:
        A `keras.Model` that is not compiled.

    Raises:
        RunError: If the file is damaged, foreign, or asks for code.
    """
    try:
        with fetched(path) as file:
            return keras.saving.load_model(file, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise RunError(f"{path} cannot be loaded: {reason}") from error


@dataclass(frozen=True)
class Opened:
    """What a MODEL argument stands for.

    Args:
        model: `keras.Model`.
        spec: `ClipSpec` or `VectorSpec` that says what to feed it.
        classes: Names of its classes.
        run: The `Run` that it came from, or None.
    """

    model: keras.Model
    spec: ClipSpec | VectorSpec
    classes: tuple
    run: Run | None = None


def open_model(text):
    """The network behind a run's folder, a `.keras` file, or `name:weights`.

    Args:
        text: String: a path, an address or a name.

    Returns:
        `Opened`.

    Raises:
        RunError: If there is no such thing, or it cannot be read.
        ValueError: If a published name is unknown.
    """
    path = os.fspath(text)
    run = Run(path)
    if run.exists:
        return Opened(run.model(), run.spec, run.classes, run)
    if is_folder(path):
        raise RunError(
            "MODEL must be a run's folder, a .keras file, or name:weights."
            f" Received: {text}, a folder that holds no run"
        )
    if exists(path):
        if not path.endswith(".keras"):
            raise RunError(
                "MODEL must be a run's folder, a .keras file, or name:weights "
                f"such as s3d:kinetics400. Received: {text}"
            )
        model = load_model(path)
        return Opened(model, _spec_of(model, path), _classes_of(model, path))
    name, colon, weights = str(text).partition(":")
    if colon and name in MODELS:
        found = release(name, weights)
        if found is None or found.classes is None:
            # The builder's own line says what there is.
            model = get_model(name, weights=weights)
            return Opened(model, clip_spec(name), _classes_of(model, path))
        model = get_model(name, weights=weights, classes=found.classes)
        return Opened(
            model, clip_spec(name, weights), class_names(found.labels)
        )
    raise RunError(
        "MODEL must be a run's folder, a .keras file, or name:weights such "
        f"as s3d:kinetics400, and there is none of that name. Received: {text}"
    )


def _spec_of(model, path):
    """What to feed a network that came without its run's folder."""
    shapes = getattr(model, "input_shape", None)
    if isinstance(shapes, tuple) and len(shapes) == 2 and shapes[1]:
        return VectorSpec(shapes[1])
    if isinstance(shapes, tuple):
        # Flow has two channels.
        shapes = {"flow" if shapes[-1] == 2 else "rgb": shapes}
    elif isinstance(getattr(model, "input", None), dict):
        # Of several inputs `input_shape` tells no names.
        shapes = {name: tuple(x.shape) for name, x in model.input.items()}
    if not isinstance(shapes, dict) or any(
        name not in STREAMS or not isinstance(shape, tuple) or len(shape) != 5
        for name, shape in shapes.items()
    ):
        raise RunError(
            f"{path} does not take clips of shape (batch, time, height, "
            "width, 3), nor flow of 2 channels, nor both as 'rgb' and 'flow',"
            " nor vectors."
            f" Received: input_shape={shapes}"
        )
    streams = tuple(name for name in STREAMS if name in shapes)
    spec = clip_spec(model.name) if model.name in MODELS else None
    if spec is None or spec.streams != streams:
        spec = ClipSpec(10, streams=streams)
    times = {name: shape[1] for name, shape in shapes.items()}
    if any(
        time not in (None, spec.shapes[name][0]) for name, time in times.items()
    ):
        # One field per frame, where flow alone tells how many there are.
        frames = times.get("rgb") or times.get("flow") or spec.frames
        flow = (times["flow"] or frames) if "flow" in streams else None
        spec = replace(spec, frames=frames, flow=flow, chunks=1, spacing=0)
    _, _, height, width, _ = shapes[streams[0]]
    if height is None or width is None:
        return spec
    return spec.with_size((height, width))


def _classes_of(model, path):
    """Names of the classes: `classes.txt` beside the file, or numbers."""
    count = model.output_shape[-1]
    beside = join(os.path.dirname(path), "classes.txt")
    if exists(path) and exists(beside):
        names = _lines(beside)
        if len(names) == count:
            return names
    return tuple(str(number) for number in range(count))


def _lines(path):
    """The lines of `classes.txt`; a class may hold any sign but a newline."""
    text = read_text(path)
    return tuple(text.rstrip("\n").split("\n"))

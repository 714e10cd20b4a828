"""Activations of a network: of any layer, and of a frozen part for its top.

A top that learns alone needs what is below it once: a number of clips of
every video pass the frozen part, what it answers is kept on disk as a folder
of vectors, and an epoch then costs what the top costs. The folder is known by
all that its numbers depend on; another, or a damaged one, is made anew.
"""

import difflib
import hashlib
import json
from dataclasses import replace
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_videofusion.data.augmentation import (
    center_crop,
    random_colour,
    random_crop_flip,
)
from keras_videofusion.data.files import (
    absolute,
    exists,
    fetched,
    join,
    read_json,
    remove,
    write_json,
)
from keras_videofusion.data.vectors import (
    read_vectors,
    Vectors,
    VectorSpec,
    write_vectors,
)
from keras_videofusion.evaluation import protocol
from keras_videofusion.training.callbacks import checksum
from keras_videofusion.training.run import RunError
from keras_videofusion.training.transfer import learning, leaves

# CRC-32 of every part of a folder, beside its manifest.
CHECKSUMS = "checksums.json"


def write_features(
    opened,
    given,
    out,
    layer=None,
    *,
    per="video",
    clips=20,
    passes=4,
    batch=32,
    seed=0,
    on_error="skip",
    flow=None,
    overwrite=False,
    progress=None,
):
    """Writes what a layer of a network answers to videos, as vectors.

    Args:
        opened: What `keras_videofusion.training.run.open_model` returned.
        given: `Catalog` of the caller's, or None for the run's own rows. Rows
            keep their splits; those of the run that come without one have
            the run's.
        out: Folder or address.
        layer: As for `layer_model`.
        per: `"video"`: a vector per video, the mean over its clips;
            `"clip"`: one per clip.
        clips: As for `keras_videofusion.evaluation.protocol.score`; so are
            the others.
        passes: See there.
        batch: See there.
        seed: See there.
        on_error: See there.
        flow: See there.
        overwrite: Whether vectors that the folder holds are replaced.
        progress: Function of the number of videos to a function of the
            number of those done, or None.

    Returns:
        `Vectors` of kind `"features"`.

    Raises:
        RunError: If there are no rows.
        ValueError: If there is no such layer, the network is fed vectors, or
            the folder holds something.
        VideoError: If a video cannot be read and `on_error` is `"raise"`.
    """
    if isinstance(opened.spec, VectorSpec):
        raise ValueError(
            "MODEL must be a network of clips. "
            f"Received: {opened.model.name}, which is fed vectors"
        )
    network = layer_model(opened.model, layer)
    catalog = _rows(opened, given)
    skipped: list[dict[str, str]] = []
    rows = protocol.features(
        network,
        catalog,
        opened.spec,
        clips=clips,
        passes=passes,
        batch=batch,
        seed=seed,
        on_error=on_error,
        progress=progress and progress(len(catalog)),
        flow=flow,
        skipped=skipped,
    )
    if per == "video":
        rows = (None if x is None else x.mean(0, keepdims=True) for x in rows)
    return write_vectors(
        out,
        catalog,
        network.output_shape[-1],
        rows,
        kind="features",
        each=clips if per == "clip" else 1,
        settings={
            "network": opened.model.name,
            "run": opened.run and absolute(opened.run.folder),
            "layer": layer,
            "clip": opened.spec.to_json(),
            "clips": clips,
            "passes": passes,
            "per": per,
            "seed": seed,
            "flow": flow,
        },
        skipped=skipped,
        overwrite=overwrite,
    )


def _rows(opened, given):
    """The videos to describe, with their splits."""
    if given is None:
        if opened.run is None:
            raise RunError(
                "DATA is needed: only a run's folder knows its own rows."
            )
        return opened.run.catalog()
    if opened.run is None:
        return given
    own = opened.run.catalog()
    splits = {absolute(own.file(video)): video.split for video in own}
    return replace(
        given,
        videos=tuple(
            replace(
                video,
                split=video.split or splits.get(absolute(given.file(video))),
            )
            for video in given
        ),
    )


def layer_model(model, name=None):
    """A network up to one of its layers, with a vector per clip.

    A layer that answers at every point of space and time is averaged over
    them.

    Args:
        model: `keras.Model` made of layers.
        name: String, the layer's; in nested networks a path, as
            `rgb_tower/full7`. None: what the classifier is given; of several
            classifiers what they are, side by side.

    Returns:
        `keras.Model` from clips to float32 of shape `(batch, channels)`.

    Raises:
        ValueError: If there is no such layer; the line names those like it.
    """
    if name is None:
        tops = learning(model, "top")
        places = [
            below for path in tops for below in _place(model, path).below()
        ]
    else:
        known = [path for path, _ in leaves(model)]
        if name not in known:
            near = difflib.get_close_matches(name, known, 3, 0.4)
            raise ValueError(
                f"`layer` must be a layer of {model.name}"
                f"{', such as ' + ' or '.join(near) if near else ''}: there "
                f"are {', '.join(known)}. Received: layer={name!r}"
            )
        places = [_place(model, name)]
    means = []
    for x in (upon(place.stripped()) for place in places):
        middle = tuple(range(1, len(x.shape) - 1))
        x = keras.ops.cast(x, "float32")
        means.append(keras.ops.mean(x, axis=middle) if middle else x)
    x = means[0] if len(means) == 1 else keras.ops.concatenate(means, -1)
    return keras.Model(model.input, x)


def _place(model, path):
    """Where a layer, called once, gives its answer."""
    within: tuple = ()
    *outer, last = path.split("/")
    for part in outer:
        model = model.get_layer(part)
        within = (*within, (model, model._inbound_nodes[-1]))
    (tensor,) = keras.tree.flatten(model.get_layer(last).output)
    return Place(tensor, within)


class Place(NamedTuple):
    """A tensor in a network, and the nested networks that it is within.

    Args:
        tensor: Keras tensor.
        within: Pairs of a nested `keras.Model` and the node of its call, from
            the outermost in.
    """

    tensor: Any
    within: tuple = ()

    @property
    def layer(self):
        return self.tensor._keras_history.operation

    @property
    def path(self):
        return "/".join(
            (*(model.name for model, _ in self.within), self.layer.name)
        )

    def stripped(self):
        """The place where a tensor comes from that nested networks pass on.

        Itself, unless it is a nested network's output, then what gives it
        within, or a nested network's input, then what is put in.
        """
        layer, call, number = self.tensor._keras_history
        if isinstance(layer, keras.Model):
            node = layer._inbound_nodes[call]
            inside = (*self.within, (layer, node))
            return Place(layer.outputs[number], inside).stripped()
        if isinstance(layer, keras.layers.InputLayer) and self.within:
            nested, node = self.within[-1]
            number = [id(x) for x in nested.inputs].index(id(self.tensor))
            return Place(
                node.input_tensors[number], self.within[:-1]
            ).stripped()
        return self

    def below(self):
        """Places of what its layer is given."""
        layer, call, _ = self.tensor._keras_history
        node = layer._inbound_nodes[call]
        return [Place(x, self.within) for x in node.input_tensors]


def upon(place):
    """A tensor of a nested network, upon the outermost network's input.

    What lies within a nested network hangs upon an input of its own, so that
    no network of the outer input can end there; so a part of it is called.

    Args:
        place: `Place`.

    Returns:
        Keras tensor.
    """
    if not place.within:
        return place.tensor
    nested, node = place.within[-1]
    part = keras.Model(
        nested.inputs, place.tensor, name=place.path.replace("/", "_")
    )
    given = [
        upon(Place(x, place.within[:-1]).stripped()) for x in node.input_tensors
    ]
    return part(given if len(given) > 1 else given[0])


class Top:
    """A network cut in two where its frozen part ends.

    Args:
        model: `keras.Model` whose frozen layers are not trainable.

    Attributes:
        below: `keras.Model` from clips to activations, `(batch, size)`; what
            several streams end in lies side by side.
        model: `keras.Model` from activations to scores, of copies of what
            learns and of the layers without weights above it.
        size: Integer, numbers of an activation.
    """

    def __init__(self, model):
        self.layers: dict[str, keras.Layer] = {}
        self._learned = {
            id(layer)
            for _, layer in leaves(model)
            if layer.trainable_variables
            or (isinstance(layer, keras.layers.Dropout) and layer.rate)
        }
        self._live: dict = {}
        self._made: dict = {}
        cuts: dict = {}
        outputs = [Place(x).stripped() for x in model.outputs]
        for output in outputs:
            self._find(output, cuts)
        flat = [
            keras.layers.Flatten(name=f"activations_{number}")(upon(place))
            for number, place in enumerate(cuts.values())
        ]
        together = keras.ops.concatenate(
            [keras.ops.cast(x, "float32") for x in flat], axis=-1
        )
        self.below = keras.Model(model.input, together)
        self.size = together.shape[-1]
        entrance = keras.Input((self.size,), name="activations")
        begin = 0
        for (key, place), x in zip(cuts.items(), flat, strict=True):
            part = entrance[:, begin : begin + x.shape[-1]]
            part = keras.ops.cast(part, place.tensor.dtype)
            shape = (-1, *place.tensor.shape[1:])
            self._made[key] = keras.ops.reshape(part, shape)
            begin += x.shape[-1]
        scores = [self._again(output) for output in outputs]
        self.model = keras.Model(entrance, scores[0], name=model.name)
        own = dict(leaves(model))
        for path, layer in self.layers.items():
            layer.set_weights(own[path].get_weights())

    def _key(self, place):
        return place.path, place.tensor._keras_history[1:]

    def _lives(self, place):
        """Whether anything at a place, or below it, learns or drops."""
        key = self._key(place)
        if key not in self._live:
            self._live[key] = id(place.layer) in self._learned or any(
                self._lives(x.stripped()) for x in place.below()
            )
        return self._live[key]

    def _find(self, place, cuts):
        """Collects the highest places that do not live."""
        if not self._lives(place):
            cuts[self._key(place)] = place
            return
        for x in place.below():
            self._find(x.stripped(), cuts)

    def _again(self, place):
        """A place above the cut, upon the activations."""
        key = self._key(place)
        if key in self._made:
            return self._made[key]
        layer, call, number = place.tensor._keras_history
        path = place.path
        if path not in self.layers:
            config = {**layer.get_config(), "name": path.replace("/", "_")}
            self.layers[path] = type(layer).from_config(config)
        node = layer._inbound_nodes[call]
        arguments, options = node.arguments.fill_in(
            {
                id(x): self._again(Place(x, place.within).stripped())
                for x in node.input_tensors
            }
        )
        outputs = keras.tree.flatten(self.layers[path](*arguments, **options))
        self._made[key] = outputs[number]
        return outputs[number]


class Stitched:
    """A whole network that takes the weights of a top which learns apart.

    It stands for the network where a run's best one is kept.

    Args:
        network: `keras.Model`, the whole, with the weights of the frozen part.
        top: `Top` of a network of the same layers.
    """

    def __init__(self, network, top):
        self.network = network
        self.top = top

    def set_weights(self, weights):
        """Takes the weights of the top.

        Args:
            weights: List of arrays, of the top's model.
        """
        self.top.model.set_weights(weights)
        own = dict(leaves(self.network))
        for path, layer in self.top.layers.items():
            own[path].set_weights(layer.get_weights())

    def save(self, path):
        """Writes the whole network; as of `keras.Model`."""
        self.network.save(path)


def kept_activations(
    top, recipe, catalogs, spec, folder, on_error="skip", flow=None, say=print
):
    """What the frozen part answers to clips of videos, from disk.

    Args:
        top: `Top`.
        recipe: `Recipe`: so many clips as its `cache_activations` of every
            video to learn, drawn as it says; of a video to validate those
            that are shown after every epoch.
        catalogs: Pair of `Catalog`, to learn and to validate; the latter may
            be empty.
        spec: `ClipSpec`.
        folder: Folder for folders of vectors, each of which is named after
            all that its numbers depend on.
        on_error: `"skip"` or `"raise"`.
        flow: As for `keras_videofusion.evaluation.protocol.score`.
        say: Function of one line of text.

    Returns:
        Pair of `Catalog`, of vectors; videos that cannot be read are left out.

    Raises:
        VideoError: If a video cannot be read and `on_error` is `"raise"`.
    """
    learned, watched = catalogs
    shared = {
        "weights": _digest(top.below),
        "clip": spec.to_json(),
        "batch": recipe.batch,
        "precision": recipe.precision,
        "flow": flow,
    }
    # As `training_clips` and `validation_clips` draw them.
    drawn = {
        "clips": recipe.cache_activations,
        "seed": recipe.seed,
        "sampler": recipe.sampler,
        "augment": recipe.augment,
        "jitter": recipe.jitter if recipe.augment else 0.0,
    }
    still = {
        "clips": recipe.validation_clips,
        "seed": 0,
        "sampler": "uniform",
        "augment": False,
        "jitter": 0.0,
    }
    given = {"on_error": on_error, "say": say}
    learned = _kept(top, learned, spec, folder, {**shared, **drawn}, **given)
    if len(watched):
        watched = _kept(
            top, watched, spec, folder, {**shared, **still}, **given
        )
    return learned, watched


def _kept(top, catalog, spec, folder, made_of, on_error, say):
    """A catalog of the activations of one, made if they are not there."""
    listed = [[v.path, *v.labels, v.split, v.start, v.end] for v in catalog]
    made_of = {
        **made_of,
        "data": absolute(catalog.root),
        "rows": hashlib.sha256(json.dumps(listed).encode()).hexdigest(),
    }
    text = json.dumps(made_of, sort_keys=True)
    made_of = json.loads(text)  # which knows no tuples
    place = join(folder, hashlib.sha256(text.encode()).hexdigest()[:16])
    found = _whole(place, made_of)
    if found is not None:
        say(f"activations of {len(found)} videos found in {place}")
        return found.catalog
    count, jitter = made_of["clips"], made_of["jitter"]
    say(
        f"{len(catalog)} videos pass the frozen part once; clips of each: "
        f"{count}"
    )

    def view(clip, generator):
        if not made_of["augment"]:
            return center_crop(clip, spec.size)
        clip = random_crop_flip(clip, spec.size, generator)
        return random_colour(clip, jitter, generator) if jitter else clip

    def progress(done):
        before, now = (10 * x // len(catalog) for x in (done - 1, done))
        if before < now < 10:
            say(f"{done} of {len(catalog)} videos passed")

    remove(place)  # if it is damaged
    skipped: list[dict[str, str]] = []
    rows = protocol.features(
        top.below,
        catalog,
        spec,
        clips=count,
        passes=1,
        batch=made_of["batch"],
        seed=made_of["seed"],
        on_error=on_error,
        progress=progress,
        flow=made_of["flow"],
        sampler=made_of["sampler"],
        view=view,
        skipped=skipped,
    )
    found = write_vectors(
        place,
        catalog,
        top.size,
        rows,
        kind="features",
        each=count,
        settings=made_of,
        skipped=skipped,
    )
    write_json(join(place, CHECKSUMS), _checksums(found))
    for one in found.skipped:
        say(f"skipped {one['path']}: {one['error']}")
    return found.catalog


def _whole(place, made_of) -> Vectors | None:
    """The vectors of a folder, if they are these and as they were written."""
    try:
        found = read_vectors(place)
        if found is None or found.settings != made_of:
            return None
        if not exists(join(place, CHECKSUMS)):
            return None
        same = read_json(join(place, CHECKSUMS)) == _checksums(found)
        return found if same and len(found.catalog) == len(found) else None
    except (OSError, ValueError, KeyError):
        return None


def _checksums(vectors):
    """CRC-32 of every part, by name."""
    found = {}
    for part in vectors.parts:
        with fetched(join(vectors.folder, part["name"])) as path:
            found[part["name"]] = checksum(path)
    return found


def _digest(model):
    """SHA-256 of all weights of a network, in order."""
    summed = hashlib.sha256()
    for weight in model.get_weights():
        summed.update(f"{weight.dtype} {weight.shape}".encode())
        summed.update(np.ascontiguousarray(weight).tobytes())
    return summed.hexdigest()

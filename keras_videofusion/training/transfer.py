"""Weights of one data set for another: what is taken, and what then learns.

Karpathy et al. take a network of Sports-1M to UCF-101 in four ways:

                 weights    what learns
    scratch      none       all of it
    top          copied     the classifier
    top3         copied     the last three layers with weights
    all          copied     all of it

A layer is known by its name, in nested networks by its path, as
`rgb_tower/fc7`. Which are the last ones is read off the network's own graph,
from its output down, so one rule serves all networks: where several streams
meet, the last layers of each count; batch normalisation goes with what it
normalises; a module of Inception, with all of its branches, counts as one
layer, as `mixed_5c`, since none of its branches stands above another.

Reference:
    Karpathy et al., CVPR 2014, section 4.2 (fine-tune top layer 64.1 %, top 3
    layers 65.4 %, all layers 62.2 %, from scratch 41.3 % of UCF-101).
"""

import os
import re
import warnings
import zipfile
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from keras_videofusion.applications import class_names, get_model, MODELS
from keras_videofusion.applications import weights as weight_files
from keras_videofusion.data.files import exists, fetched
from keras_videofusion.training.run import load_model, open_model, Run

# How many layers from the top down learn; of the other two, all.
REGIMES = {"top": 1, "top3": 3}
# What networks call their classifiers. Where a linear machine reads the
# scores of others, all of them are one top.
CLASSIFIERS = ("predictions", "logits", "fc8", "flow_fc8")
MODULE = re.compile(r"(.*mixed_\d[a-z])(_|$)")
TOP = "top"


@dataclass(frozen=True)
class Moved:
    """What a network took over from another.

    Args:
        source: String, where the weights came from.
        copied: Paths of the layers that came with their weights.
        new: Paths of those that begin afresh.
    """

    source: str
    copied: tuple[str, ...]
    new: tuple[str, ...]

    def to_json(self):
        """A dict of plain values, for `recipe.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values):
        """What `to_json` wrote; None of None."""
        if values is None:
            return None
        return cls(
            values["source"], tuple(values["copied"]), tuple(values["new"])
        )


def leaves(model, path=""):
    """The layers of a network, those of nested networks one by one.

    Args:
        model: `keras.Model` made of layers.
        path: String before every path.

    Yields:
        Pairs of a path, as `fc7` or `rgb_tower/fc7`, and a `keras.Layer`.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer, f"{path}{layer.name}/")
        else:
            yield f"{path}{layer.name}", layer


def unit(path, layer):
    """What counts as one layer with weights; None if a layer has none.

    Args:
        path: String.
        layer: `keras.Layer`.

    Returns:
        String: `"top"` for classifiers, the module's name for what is in a
        module of Inception, else the path. None too for batch normalisation
        outside of modules, which belongs to the layer below it.
    """
    module = MODULE.match(path)
    if module:
        return module[1]
    if not layer.weights or isinstance(layer, keras.layers.BatchNormalization):
        return None
    return TOP if path.rpartition("/")[2] in CLASSIFIERS else path


def heights(model):
    """How many units stand above every layer with weights, by the graph.

    Args:
        model: `keras.Model` made of layers.

    Returns:
        Dict from path to integer: 0 for classifiers, 1 for the layers next to
        them, and so on, by the shortest way to an output. Layers of dropout
        are listed too, with the number of the unit that they feed.
    """
    found: dict[str, int] = {}
    seen = set()
    # Tensors, the calls of nested networks that they are within, the number
    # of units met on the way down, and the last of them.
    waiting: list[tuple[Any, tuple, int, str | None]]
    waiting = [(tensor, (), 0, None) for tensor in model.outputs]
    while waiting:
        tensor, within, met, last = waiting.pop()
        layer, call, number = tensor._keras_history
        path = "/".join((*(outer.name for outer, _ in within), layer.name))
        state = (path, call, number, met, last)
        if state in seen:
            continue
        seen.add(state)
        node = layer._inbound_nodes[call]
        if isinstance(layer, keras.Model):
            inside = (*within, (layer, node))
            waiting.append((layer.outputs[number], inside, met, last))
            continue
        if isinstance(layer, keras.layers.InputLayer):
            if within:
                nested, outer = within[-1]
                place = [id(x) for x in nested.inputs].index(id(tensor))
                below = outer.input_tensors[place]
                waiting.append((below, within[:-1], met, last))
            continue
        own = unit(path, layer)
        if own and own != last:
            met, last = met + 1, own
        if layer.weights or isinstance(layer, keras.layers.Dropout):
            normal = own is None and layer.weights
            height = met if normal else met - 1
            found[path] = min(height, found.get(path, height))
        waiting += [(x, within, met, last) for x in node.input_tensors]
    return found


def learning(model, train):
    """Paths of the layers that learn.

    Args:
        model: `keras.Model` made of layers.
        train: `"top"`, `"top3"`, `"all"` or `"scratch"`.

    Returns:
        Tuple of strings, in the order of the network; layers without weights
        are not among them.
    """
    own = [path for path, layer in leaves(model) if layer.weights]
    if train not in REGIMES:
        return tuple(own)
    high = heights(model)
    return tuple(path for path in own if high[path] < REGIMES[train])


def regularized(model, train, rate=None):
    """A network whose frozen part drops nothing, and whose top does.

    Keras's dropout drops in `fit` even where nothing learns. The paper's
    frozen layers are a fixed extractor of features, so here their rate is 0.

    Args:
        model: `keras.Model` that `get_model` built.
        train: `"top"`, `"top3"`, `"all"` or `"scratch"`.
        rate: Float in [0, 1), dropout before each of the last three layers
            that learns; of `"top"` that is the classifier alone. A layer of
            dropout that stands there takes this rate; where none does, one is
            put, named after the layer, as `fc6_drop`. None: no layer that
            learns is given another rate.

    Returns:
        A `keras.Model` with the same weights: a new one where layers were put
        in.

    Reference:
        Karpathy et al., CVPR 2014, section 4.2: "dropout before all trained
        layers, with as little as 10% chance of keeping units active".
    """
    if train not in REGIMES and rate is None:
        return model
    high = heights(model)
    frozen = REGIMES.get(train, np.inf)
    dropped = 0 if rate is None else min(frozen, 3)

    def rate_at(path, layer):
        if high[path] >= frozen:
            return 0.0
        return rate if high[path] < dropped else layer.rate

    if not dropped:
        for path, layer in leaves(model):
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = rate_at(path, layer)
        return model
    # By the id of a layer, or of the one that it was made after.
    paths = {id(layer): path for path, layer in leaves(model)}
    units = {id(layer): unit(path, layer) for path, layer in leaves(model)}
    tops = {
        units[id(layer)]
        for path, layer in leaves(model)
        if high.get(path, np.inf) < dropped
    }
    put: dict = {}

    def clone(layer):
        path = paths[id(layer)]
        config = layer.get_config()
        if isinstance(layer, keras.layers.Dropout):
            config["rate"] = rate_at(path, layer)
        made = type(layer).from_config(config)
        units[id(made)] = units[id(layer)]
        # Kept, so that nobody else is given its id.
        put[id(made)] = made
        return made

    def call(layer, *arguments, **options):
        own = units.get(id(layer))

        def entering(x):
            below = units.get(id(x._keras_history.operation))
            if below == own or _drops(x):
                return x
            if (id(x), own) not in put:
                module = MODULE.match(layer.name)
                name = f"{module[1] if module else layer.name}_drop"
                put[id(x), own] = x, keras.layers.Dropout(rate, name=name)(x)
            return put[id(x), own][1]

        if own in tops and own is not None:
            arguments = keras.tree.map_structure(entering, arguments)
        return layer(*arguments, **options)

    made = keras.models.clone_model(
        model, clone_function=clone, call_function=call, recursive=True
    )
    before = dict(leaves(model))
    for path, layer in leaves(made):
        if layer.weights:
            layer.set_weights(before[path].get_weights())
    return made


def _drops(tensor):
    """Whether a tensor comes out of dropout, reshaped at the most."""
    layer, call, _ = tensor._keras_history
    while not layer.weights:
        if isinstance(layer, keras.layers.Dropout):
            return True
        inputs = layer._inbound_nodes[call].input_tensors
        if len(inputs) != 1:
            return False
        layer, call, _ = inputs[0]._keras_history
    return False


def begin(model, recipe, weights, classes):
    """Gives a network the weights that it begins with.

    Args:
        model: `keras.Model` that `keras_videofusion.training.build.build`
            made of the recipe.
        recipe: `Recipe`.
        weights: A run's folder, a `.keras` or `.weights.h5` file, a published
            name of this network, or None.
        classes: Names of the classes to tell apart.

    Returns:
        `Moved`; None without weights. Classifiers of the same classes are
        copied too, others begin afresh.

    Raises:
        ValueError: If the weights are of another network, or of another
            shape, or if the recipe needs some and there are none.
        RunError: If they cannot be read.
    """
    if weights is None:
        if recipe.train in REGIMES:
            raise ValueError(
                f"train={recipe.train!r} needs weights to begin with: pass "
                "--weights, or videofusion finetune MODEL. Received: none"
            )
        if recipe.old_rate != 1.0:
            raise ValueError(
                "`old_rate` is for layers that came with weights: pass "
                "--weights, or videofusion finetune MODEL. "
                f"Received: old_rate={recipe.old_rate} and no weights"
            )
        return None
    if recipe.train == "scratch":
        raise ValueError(
            "train='scratch' takes no weights. "
            f"Received: weights={str(weights)!r}"
        )
    source = os.fspath(weights)
    if source.endswith(".weights.h5"):
        copied, new = _load(model, source, recipe)
    else:
        other, names = _open(source, recipe)
        same = names is None or tuple(names) == tuple(classes)
        copied, new = copy(other, model, same)
    blind = sorted(set(new) - set(learning(model, recipe.train)))
    if blind:
        raise ValueError(
            f"the weights have no {', '.join(blind)}, which train="
            f"{recipe.train!r} would never learn: pass --train top3 or all. "
            f"Received: weights={source!r}"
        )
    return Moved(source, copied, new)


def _open(source, recipe):
    """The network behind `weights`, and its classes, None if unknown."""
    network, colon, name = source.partition(":")
    if not colon or network not in MODELS:
        network, name = recipe.model, source
    found = weight_files.release(network, name)
    if found is None:
        if Run(source).exists:
            opened = open_model(source)
            return opened.model, opened.classes
        weight_files.check(recipe.model, source, False, 0)
        if not source.endswith(".keras"):
            raise ValueError(
                "`weights` must be a run's folder, a file that ends in "
                ".weights.h5 or .keras, or a published name. "
                f"Received: weights={source!r}"
            )
        beside = Run(os.path.dirname(source))
        return load_model(source), beside.classes if beside.exists else None
    for key, value in found.arguments.items():
        if recipe.options.get(key) != value:
            raise ValueError(
                f"weights={name!r} of {network} need --option {key}={value}. "
                f"Received: options={recipe.options}"
            )
    if found.classes is None:
        return get_model(network, weights=name, include_top=False), ()
    model = get_model(network, weights=name, classes=found.classes)
    return model, class_names(found.labels)


def copy(source, model, same=True):
    """Copies weights by the layers' names.

    Args:
        source: `keras.Model`.
        model: `keras.Model` that takes them.
        same: Whether both tell the same classes apart, in the same order;
            otherwise the classifiers are left as they are.

    Returns:
        Pair of tuples of paths: of the layers that were given weights, and of
        those that were not.

    Raises:
        ValueError: If one has a layer that the other lacks, or one of another
            shape, below the classifiers. Of a source that has no classifier
            the two layers below may be missing too.
    """
    high = heights(model)
    own = {path: x for path, x in leaves(model) if x.weights}
    there = {path: x for path, x in leaves(source) if x.weights}
    tops = {path for path in own if high[path] == 0}
    bare = not tops & set(there)
    free = {path for path in own if high[path] < 3} if bare else tops
    lacking = sorted(set(own) - set(there) - free)
    beyond = sorted(set(there) - set(own))
    if lacking or beyond:
        raise ValueError(
            "`weights` are of another network than "
            f"{model.name}: "
            + "; ".join(
                f"{whose} {', '.join(paths[:3])}"
                + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
                for whose, paths in (
                    ("they lack", lacking), ("it lacks", beyond)
                )
                if paths
            )
        )  # fmt: skip
    copied, new, values = [], [], {}
    for path, layer in own.items():
        shapes = [tuple(x.shape) for x in layer.weights]
        if path in tops and not same:
            new.append(path)
            continue
        if path not in there:
            new.append(path)
            continue
        shapes_ = [tuple(x.shape) for x in there[path].weights]
        if shapes == shapes_:
            values[path] = there[path]
            copied.append(path)
        elif path in tops:
            new.append(path)
        else:
            raise ValueError(
                f"`weights` do not fit {model.name}: {path} is of shape "
                f"{shapes_[0]} there and of {shapes[0]} here. Pass the "
                "--width, --size and --frames that they were trained with"
            )
    for path, layer in values.items():
        own[path].set_weights(layer.get_weights())
    return tuple(copied), tuple(new)


def _load(model, source, recipe):
    """Loads a file that holds weights in the order of layers, no names."""
    weight_files.check(recipe.model, source, False, 0)
    high = heights(model)
    own = {path: layer for path, layer in leaves(model) if layer.weights}
    fresh = {path: own[path].get_weights() for path in own if high[path] == 0}
    # Keras tells nobody what it has skipped: what stays no number was.
    for layer in own.values():
        layer.set_weights([np.full(x.shape, np.nan) for x in layer.weights])
    try:
        with warnings.catch_warnings(), fetched(source) as file:
            warnings.simplefilter("ignore")
            model.load_weights(file, skip_mismatch=True)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"`weights` do not fit {model.name}, or the file is damaged "
            f"({reason}). Received: weights={source!r}"
        ) from error
    left = [
        path
        for path, layer in own.items()
        if any(np.isnan(weight).any() for weight in layer.get_weights())
    ]
    wrong = [path for path in left if path not in fresh]
    if wrong:
        raise ValueError(
            f"`weights` do not fit {model.name}: {', '.join(wrong[:3])} "
            f"{'and more ' * (len(wrong) > 3)}of another shape, or missing. "
            "Pass the --model, --width, --size and --frames that they were "
            f"trained with. Received: weights={source!r}"
        )
    for path in left:
        own[path].set_weights(fresh[path])
    return tuple(path for path in own if path not in left), tuple(left)


def freeze(model, train):
    """Lets the layers of a regime learn, and no others.

    A frozen layer's weights stay as they are, weight decay included; its
    batch normalisation works with the averages that it has, and these stay
    too, as Keras has it.

    Args:
        model: `keras.Model` made of layers.
        train: `"top"`, `"top3"`, `"all"` or `"scratch"`.
    """
    chosen = set(learning(model, train))
    for path, layer in leaves(model):
        if layer.weights:
            layer.trainable = path in chosen


def rates(model, layers, moved, old_rate):
    """Shares of the learning rate, for the optimizer.

    Args:
        model: `keras.Model` that learns, after `freeze`.
        layers: Dict from path to its layers, as of `leaves`.
        moved: `Moved`, or None.
        old_rate: Float, the share of layers that came with weights.

    Returns:
        List of floats, one for every trainable variable; None if all are 1.
    """
    if moved is None or old_rate == 1.0:
        return None
    old = {
        id(variable)
        for path, layer in layers.items()
        if path in moved.copied
        for variable in layer.trainable_variables
    }
    return [
        old_rate if id(variable) in old else 1.0
        for variable in model.trainable_variables
    ]


def again(model, recipe, run, moved, classes):
    """Gives a network that is gone on with the weights of its frozen part.

    Checkpoints of a top that learns alone hold the top alone.

    Args:
        model: `keras.Model`.
        recipe: `Recipe`.
        run: `Run`: its best network has them, once there is one.
        moved: `Moved`, which says where they came from.
        classes: Names of the classes.
    """
    if exists(run.path("model.keras")):
        copy(run.model(), model)
    else:
        begin(model, recipe, moved.source, classes)


def told(model, recipe, moved):
    """A line that says what was copied, what is new, and what learns.

    Args:
        model: `keras.Model`, after `freeze`.
        recipe: `Recipe`.
        moved: `Moved`.

    Returns:
        String.
    """
    free = sum(int(np.prod(x.shape)) for x in model.trainable_variables)
    return (
        f"weights of {moved.source}: {len(moved.copied)} layers copied, "
        f"{', '.join(moved.new) or 'none'} new; train={recipe.train}: "
        f"{free:,} of {model.count_params():,} parameters learn"
    )

"""Every network against the recorded answers of its peer.

A file `<stem>.io.npz` of `KVF_ORACLES` holds an input, the peer's logits and
what it saw on the way. Neither side has learned weights: both are filled from
the names of the peer's parameters, by one rule. `ORACLES` says which networks
of ours answer to each file, and under what names. Where a file is absent, its
input is drawn by its rule and the logits noted of the peer stand in.
"""

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from keras_videofusion import applications
from keras_videofusion.applications.fusion import SINGLE
from keras_videofusion.applications.notation import C, Making, N, stack
from keras_videofusion.layers import Framewise

TOLERANCE = 1e-4  # of the largest logit


# Filling weights by the rule


def parameter(name, kind, shape):
    """A peer's parameter, its axes in torch's order.

    Args:
        name: String, as the peer spells it.
        kind: `"kernel"`, `"bias"` or a weight of `BatchNormalization`.
        shape: Tuple; kernels are `(out, in, ...)`.

    Returns:
        float32 array.
    """
    scale = np.sqrt(2 / np.prod(shape[1:]))
    rule = {
        "kernel": lambda z: z * scale,
        "bias": lambda z: 0.1 * z,
        "beta": lambda z: 0.1 * z,
        "gamma": lambda z: 1 + 0.1 * z,
        "moving_mean": lambda z: 0.1 * z,
        "moving_variance": lambda z: 1 + 0.5 * np.tanh(z),
    }[kind]
    source = np.random.RandomState(zlib.crc32(name.encode()))
    filled = np.empty(shape, "float32")
    flat = filled.reshape(-1)
    # In parts: the largest would take 800 MB in double precision.
    for start in range(0, flat.size, 1 << 20):
        part = flat[start : start + (1 << 20)]
        part[:] = rule(source.standard_normal(part.size))
    return filled


def fill(model, name_of, columns="hwtc"):
    """Gives every weight of `model` the peer's value.

    Args:
        model: `keras.Model`.
        name_of: Function of a layer's and a weight's name to the peer's name
            of that parameter.
        columns: The order in which the peer flattens its map of axes t, h, w
            and c for its first fully connected layer.
    """
    for layer in model.layers:
        for weight in layer.weights:
            name = name_of(layer.name, weight.name)
            if weight.name != "kernel":
                value = parameter(name, weight.name, weight.shape)
            elif isinstance(layer, layers.Dense):
                value = _matrix(model, layer, name, columns)
            else:
                value = _filters(model, layer, name)
            weight.assign(value)


def _matrix(model, dense, name, columns):
    """Kernel of a fully connected layer, its rows in our flatten's order."""
    value = parameter(name, "kernel", dense.kernel.shape[::-1])
    for layer in model.layers:
        if isinstance(layer, layers.Flatten) and layer.output is dense.input:
            merged = any(x.name == "merge" for x in model.layers)
            axes = "hwtc" if merged else "thwc"
            axes = axes[-(len(layer.input.shape) - 1) :]
            sizes = dict(zip(axes, layer.input.shape[1:], strict=True))
            value = value.reshape(-1, *(sizes[axis] for axis in columns))
            order = [1 + columns.index(axis) for axis in axes]
            value = value.transpose(0, *order).reshape(len(value), -1)
    return value.T


def _filters(model, conv, name):
    """Kernel of a convolution; over stacked frames, it has an axis of time."""
    *space, channels, filters = conv.kernel.shape
    if isinstance(conv, Framewise):
        stacks = [x for x in model.layers if x.name == f"{conv.name}_stack"]
        extent = stacks[0].extent if stacks else 1
        shape = (filters, channels // extent, extent, *space)
        # (out, in, t, h, w) -> (h, w, t, in, out): in StackFrames' channels,
        # frames vary slower.
        value = parameter(name, "kernel", shape).transpose(3, 4, 2, 1, 0)
        return value.reshape(conv.kernel.shape)
    value = parameter(name, "kernel", (filters, channels, *space))
    return np.moveaxis(value, (1, 0), (-2, -1))


@pytest.mark.parametrize(
    ("name", "kind", "shape", "begins"),
    [
        (
            "Conv3d_1a_7x7/conv_3d/w",
            "kernel",
            (64, 3, 7, 7, 7),
            [-0.00172428, 0.10650156, 0.05922187],
        ),
        (
            "Conv3d_1a_7x7/batch_norm/beta",
            "beta",
            (64,),
            [0.08880293, 0.04904105, -0.05485388],
        ),
        (
            "Conv3d_1a_7x7/batch_norm/moving_mean",
            "moving_mean",
            (64,),
            [-0.11102798, -0.08128966, 0.03287729],
        ),
        (
            "Conv3d_1a_7x7/batch_norm/moving_variance",
            "moving_variance",
            (64,),
            [1.0626284, 0.98348385, 0.81579167],
        ),
        (
            "features.0.0.1.weight",
            "gamma",
            (64,),
            [1.1257781, 0.9450024, 1.0413494],
        ),
    ],
)
def test_the_rule_gives_the_sheets_numbers(name, kind, shape, begins):
    filled = parameter(name, kind, shape)

    np.testing.assert_allclose(filled.reshape(-1)[:3], begins, rtol=1e-5)


def test_large_parameters_are_drawn_as_in_one_piece():
    filled = parameter("fc", "bias", ((1 << 20) + 3,))

    source = np.random.RandomState(zlib.crc32(b"fc"))
    whole = 0.1 * source.standard_normal((1 << 20) + 3)
    np.testing.assert_array_equal(filled, whole.astype("float32"))


# The files and whom they speak of


def own(layer, weight):
    """Names in our own torch code: `conv1.weight`, `fovea.conv1.bias`."""
    layer = layer.replace("predictions", "logits")
    layer = layer.replace("fovea_", "fovea.").replace("context_", "context.")
    return f"{layer}.{'weight' if weight == 'kernel' else weight}"


def own_stream(layer, weight):
    """The same where the peer has one stream alone, without a prefix."""
    return own(layer.removeprefix("fovea_").removeprefix("context_"), weight)


@dataclass(frozen=True)
class Oracle:
    """A file, and a network that must give its answers.

    Args:
        stem: The file's name before `.io.npz`.
        builder: Name of a builder.
        shape: Of the file's input.
        begins: The peer's first three logits, as noted.
        largest: The greatest magnitude among all of them.
        name_of: See `fill`.
        columns: See `fill`.
        layer_of: Function of a stage's name to our layer's; the stage
            `features` is what the classifier sees.
        enter: Function of the file's input to the network's.
        arguments: Of the builder, beside those of all.
    """

    stem: str
    builder: str
    shape: tuple
    begins: tuple
    largest: float
    name_of: Callable = own
    columns: str = "hwtc"
    layer_of: Callable = lambda stage: stage.replace(".", "_")
    enter: Callable = lambda x: x
    arguments: dict = field(default_factory=dict)

    def __str__(self):
        return f"{self.stem}-{self.builder}"

    def build(self):
        """The network, filled."""
        model = getattr(applications, self.builder)(
            classifier_activation=None,
            include_preprocessing=False,
            kernel_initializer="zeros",
            **self.arguments,
        )
        fill(model, self.name_of, self.columns)
        return model


def fovea_of(stage):
    return f"fovea_{stage}" if stage.startswith(("conv", "pool")) else stage


def context_of(stage):
    return f"context_{stage}" if stage.startswith(("conv", "pool")) else stage


def in_the_middle(still):
    """89 x 89 pixels amid 178 x 178 others, which a fovea must not see."""
    wide = np.full((1, 1, 178, 178, 3), 1e3, "float32")
    wide[:, :, 44:133, 44:133] = still
    return wide


def doubled(still):
    """178 x 178 pixels whose halving gives these 89 x 89."""
    return still.repeat(2, axis=2).repeat(2, axis=3)


# fmt: off
ORACLES = (
    Oracle("own_karpathy_single_170", "SingleFrame", (1, 1, 170, 170, 3),
           (2.561163, -0.779833, 2.111470), 6.366),
    Oracle("own_karpathy_early_170", "EarlyFusion", (1, 10, 170, 170, 3),
           (2.139255, -1.202564, 2.148934), 6.621),
    Oracle("own_karpathy_late_170", "LateFusion", (1, 2, 170, 170, 3),
           (0.706851, 0.500562, 1.083073), 7.102),
    Oracle("own_karpathy_slow_170", "SlowFusion", (1, 10, 170, 170, 3),
           (0.704313, -0.873826, 2.194268), 6.055),
    Oracle("own_karpathy_single_multires_178", "MultiresSingleFrame",
           (1, 1, 178, 178, 3), (0.792348, 0.640394, -0.068790), 3.927),
    Oracle("own_karpathy_slow_multires_178", "MultiresSlowFusion",
           (1, 10, 178, 178, 3), (0.276056, 0.352076, -0.113648), 4.127),
    # The peer is the bare stream; ours cut it out of 178 x 178 pixels.
    Oracle("own_karpathy_single_89", "FoveaSingleFrame", (1, 1, 89, 89, 3),
           (0.948491, -0.562992, 0.547155), 3.942, own_stream,
           layer_of=fovea_of, enter=in_the_middle),
    Oracle("own_karpathy_single_89", "ContextSingleFrame", (1, 1, 89, 89, 3),
           (0.948491, -0.562992, 0.547155), 3.942, own_stream,
           layer_of=context_of, enter=doubled),
)
# fmt: on

# Beginnings of the files' names that no network of ours can answer to yet.
LATER = {
    "own_cnnm2048": "two-stream networks",
    "own_fused": "two-stream networks",
    "own_lrcn": "CNN + LSTM",
    "c3d_": "3-D convolution",
    "mmaction2_c3d": "3-D convolution",
    "deepmind_i3d": "inflated networks",
    "slim_": "separable networks",
    "torchvision_": "separable networks, and relatives outside this package",
}


def _folder():
    """The folder of the files, or None; one that was asked for must exist."""
    asked = os.environ.get("KVF_ORACLES")
    if asked is None and "KVF_SHARED" in os.environ:
        asked = Path(os.environ["KVF_SHARED"], "oracles")
    beside = Path(__file__).parents[2] / "shared" / "oracles"
    folder = Path(asked or beside)
    if asked and not folder.is_dir():
        pytest.fail(f"there is no folder of oracles at {folder}")
    return folder


def read(stem):
    """A file's arrays by name, or None."""
    path = _folder() / f"{stem}.io.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def input_by_rule(stem, shape):
    """The input of our own files, in steps of 1/16."""
    source = np.random.RandomState(zlib.crc32(f"input:{stem}".encode()))
    drawn = source.standard_normal(shape).astype("float16")
    return (np.round(drawn * 16) / 16).astype("float32")


def misses(file, seen):
    """How far off each recorded number is, in shares of the largest logit.

    Args:
        file: Arrays by name, as `read` gives them.
        seen: Our array of each stage, by the peer's name, and our `logits`.

    Returns:
        Float by name, such as `act/conv1`.
    """
    scale = np.abs(file["logits"]).max()
    far = {}

    def compare(name, ours):
        far[name] = float(np.abs(ours - file[name]).max() / scale)

    for stage, value in seen.items():
        if stage == "logits":
            compare("logits", value)
            continue
        value = _as_recorded(value, tuple(file[f"shape/{stage}"]))
        compare(f"mean/{stage}", value.mean(dtype="float64"))
        compare(f"absmax/{stage}", np.abs(value).max())
        channels = file[f"act/{stage}"].shape[-1]
        compare(f"act/{stage}", value[..., :channels])
    return far


def _as_recorded(value, shape):
    """A peer may keep time in the batch, or frames side by side in channels."""
    if value.shape == shape:
        return value
    if value.ndim == 5 and shape[-1] == value.shape[1] * value.shape[-1]:
        value = value.transpose(0, 2, 3, 1, 4)
    return value.reshape(shape)


def stages(file):
    return [name[len("act/") :] for name in file if name.startswith("act/")]


@pytest.mark.slow
@pytest.mark.parametrize("oracle", ORACLES, ids=str)
def test_networks_give_their_peers_answers(oracle):
    file = read(oracle.stem)
    if file is None:
        file = {"input": input_by_rule(oracle.stem, oracle.shape)}
    model = oracle.build()
    tensors = {
        stage: model.get_layer(oracle.layer_of(stage)).output
        for stage in stages(file)
        if stage != "features"
    }
    tensors["features"] = model.get_layer("flatten").input
    tensors["logits"] = model.output

    clip = oracle.enter(file["input"].astype("float32"))
    seen = keras.Model(model.input, tensors)(clip)
    seen = {name: np.asarray(value) for name, value in seen.items()}

    logits = seen["logits"].reshape(-1)
    near = TOLERANCE * oracle.largest
    np.testing.assert_allclose(logits[:3], oracle.begins, rtol=0, atol=near)
    # Noted to three decimals.
    assert abs(np.abs(logits).max() - oracle.largest) <= near + 5e-4
    if "logits" in file:
        far = misses(file, seen)
        print(f"{oracle}: {max(far.values()):.1e} of the largest logit")
        assert {k: x for k, x in far.items() if not x <= TOLERANCE} == {}


def test_inputs_are_those_of_the_rule():
    shapes = {oracle.stem: oracle.shape for oracle in ORACLES}
    inputs = {stem: file["input"] for stem in shapes if (file := read(stem))}
    if not inputs:
        pytest.skip("no oracles of these networks: set KVF_ORACLES")

    for stem, recorded in inputs.items():
        drawn = input_by_rule(stem, shapes[stem])
        np.testing.assert_array_equal(recorded, drawn, err_msg=stem)


def test_every_file_of_our_networks_has_its_row():
    folder = _folder()
    if not folder.is_dir():
        pytest.skip("no folder of oracles: set KVF_ORACLES to it")
    rows = {oracle.stem for oracle in ORACLES}

    found = {path.name.removesuffix(".io.npz") for path in folder.iterdir()}

    others = {s for s in found - rows if not s.startswith(tuple(LATER))}
    assert others == set(), "neither in ORACLES nor in LATER"


# The files can tell


@dataclass(frozen=True)
class Shifted(C):
    """A convolution whose padding is set by hand: (before, after)."""

    pad: tuple = (4, 5)

    def __call__(self, x, name, making):
        x = Framewise(layers.ZeroPadding2D((self.pad, self.pad)))(x)
        conv = layers.Conv2D(
            self.filters, self.size, self.stride, activation="relu"
        )
        return Framewise(conv, name=name)(x)


def furthest_of(tokens):
    """How far the convolutions of the 89-pixel stream are off, if so made."""
    file = read("own_karpathy_single_89")
    if file is None:
        pytest.skip("no own_karpathy_single_89.io.npz: set KVF_ORACLES")
    clip = keras.Input((1, 89, 89, 3))
    model = keras.Model(clip, stack(clip, tokens, Making()))
    fill(model, own)
    seen = keras.Model(
        clip,
        {
            stage: model.get_layer(stage).output
            for stage in stages(file)
            if stage.startswith(("conv", "pool"))
        },
    )(file["input"].astype("float32"))
    far = misses(file, {k: np.asarray(v) for k, v in seen.items()})
    return max(far.values())


STREAM = SINGLE[:-1]


def with_normalisation(**constants):
    return [
        replace(token, **constants) if isinstance(token, N) else token
        for token in STREAM
    ]


def with_first_pad(*pad):
    first = STREAM[0]
    shifted = Shifted(first.filters, first.size, first.stride, pad=pad)
    return (shifted, *STREAM[1:])


@pytest.mark.parametrize(
    "tokens", [STREAM, with_first_pad(4, 5)], ids=["as_it_is", "pad_by_hand"]
)
def test_the_right_network_meets_its_oracle(tokens):
    assert furthest_of(tokens) <= TOLERANCE


@pytest.mark.parametrize(
    "tokens",
    [
        with_normalisation(beta=0.75),
        with_normalisation(alpha=2e-5),
        with_normalisation(k=1.0),
        with_first_pad(5, 4),
    ],
    ids=["beta", "alpha", "k", "pad"],
)
def test_another_network_misses_its_oracle(tokens):
    assert furthest_of(tokens) > 10 * TOLERANCE

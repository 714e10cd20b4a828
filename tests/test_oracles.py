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
from keras import layers, ops

from keras_videofusion import applications
from keras_videofusion.applications.fused_two_stream import (
    inception_fusion,
    inception_top,
)
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
            if not weight.name.endswith("kernel"):
                value = parameter(name, weight.name, weight.shape)
            elif len(weight.shape) == 2:
                value = _matrix(model, layer, weight, name, columns)
            else:
                value = _filters(model, layer, name)
            weight.assign(value)


def _matrix(model, dense, weight, name, columns):
    """A matrix of weights, its rows in our flatten's order."""
    value = parameter(name, "kernel", weight.shape[::-1])
    for layer in model.layers:
        if layer.name == "flatten" and layer.output is dense.input:
            merged = any(x.name == "merge" for x in model.layers)
            axes = "hwtc" if merged else "thwc"
            if isinstance(layer, layers.Reshape):
                axes = "hwc"  # frame by frame
            shape = layer.input.shape[-len(axes) :]
            sizes = dict(zip(axes, shape, strict=True))
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


def own_recurrent(layer, weight):
    """LRCN's: one more weight, and two names of torch's."""
    recurrent = {
        "kernel": "lstm1.weight_ih",
        "recurrent_kernel": "lstm1.weight_hh",
        "bias": "lstm1.bias",
    }
    if layer == "lstm1":
        return recurrent[weight]
    return own(layer, weight)


def own_fused(layer, weight):
    """The head of 3D-fused: torch's names of batch normalisation."""
    if layer == "fuse_conv_bn":
        torchs = {
            "beta": "bias",
            "moving_mean": "running_mean",
            "moving_variance": "running_var",
        }
        return f"fuse_bn.{torchs[weight]}"
    return own(layer, weight)


def deepmind(layer, weight):
    """`Mixed_4b/Branch_1/Conv3d_0b_3x3/conv_3d/w`, without `RGB/...`."""
    if layer == "logits":
        return f"Logits/Conv3d_0c_1x1/conv_3d/{weight[0].replace('k', 'w')}"
    stem = layer.removesuffix("_bn")
    first = {
        "conv_1a": "Conv3d_1a_7x7",
        "conv_2b": "Conv3d_2b_1x1",
        "conv_2c": "Conv3d_2c_3x3",
    }
    branches = {
        "b0": "Branch_0/Conv3d_0a_1x1",
        "b1a": "Branch_1/Conv3d_0a_1x1",
        "b1b": "Branch_1/Conv3d_0b_3x3",
        "b2a": "Branch_2/Conv3d_0a_1x1",
        "b2b": "Branch_2/Conv3d_0b_3x3",
        "b3": "Branch_3/Conv3d_0b_1x1",
    }
    if stem in first:
        stem = first[stem]
    else:
        site, branch = stem.removeprefix("mixed_").split("_")
        found = branches[branch]
        if (site, branch) == ("5b", "b2b"):
            found = "Branch_2/Conv3d_0a_3x3"  # the authors' slip
        stem = f"Mixed_{site}/{found}"
    if weight == "kernel":
        return f"{stem}/conv_3d/w"
    return f"{stem}/batch_norm/{weight}"


def slim(layer, weight):
    """`InceptionV1/Mixed_4b/Branch_1/Conv2d_0b_3x3/temporal/weights`."""
    called = {"kernel": "weights", "bias": "biases"}
    if layer == "logits":
        return f"InceptionV1/Logits/Conv2d_0c_1x1/{called[weight]}"
    base, part = layer, ""
    for ending in ("_bn", "_t", "_g"):
        if layer.endswith(ending):
            base, part = layer.removesuffix(ending), ending
    stem = deepmind(base, "kernel").removesuffix("/conv_3d/w")
    stem = stem.replace("Branch_2/Conv3d_0a_3x3", "Branch_2/Conv3d_0b_3x3")
    stem = f"InceptionV1/{stem.replace('Conv3d', 'Conv2d')}"
    if part == "_bn":
        return f"{stem}/BatchNorm/{weight}"
    if part == "_t":
        return f"{stem}/temporal/{called[weight]}"
    if part == "_g":
        return f"{stem}/self_gating/transformer_W/{called[weight]}"
    return f"{stem}/{called[weight]}"


def torchvision(layer, weight):
    """`features.8.branch1.1.0.0.weight`."""
    if layer == "logits":
        return f"classifier.1.{weight.replace('kernel', 'weight')}"
    places = ("conv_1a", "", "conv_2b", "conv_2c", "", "mixed_3b", "mixed_3c")
    places += ("", *(f"mixed_4{x}" for x in "bcdef"), "", "mixed_5b")
    places += ("mixed_5c",)
    branches = {
        "b0": "branch0",
        "b1a": "branch1.0",
        "b1b": "branch1.1",
        "b2a": "branch2.0",
        "b2b": "branch2.1",
        "b3": "branch3.1",
    }
    base, after = layer.removesuffix("_bn"), layer.endswith("_bn")
    base, late = base.removesuffix("_t"), base.endswith("_t")
    site, branch = base, ""
    if base.startswith("mixed"):
        site, branch = base.rsplit("_", 1)
    stem = f"features.{places.index(site)}"
    if branch:
        stem += f".{branches[branch]}"
    if base in ("conv_1a", "conv_2c") or branch in ("b1b", "b2b"):
        stem += f".{int(late)}"
    called = {
        "kernel": "weight",
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    }
    return f"{stem}.{int(after)}.{called[weight]}"


def openmmlab(layer, weight):
    """`backbone.conv1a.conv.weight`, `fc_cls.bias`."""
    called = weight.replace("kernel", "weight")
    if layer == "predictions":
        return f"fc_cls.{called}"
    inner = ".conv" if layer.startswith("conv") else ""
    return f"backbone.{layer}{inner}.{called}"


def inception_layer(stage):
    """Our layer of a stage of DeepMind's or the authors' code."""
    if stage.startswith("Mixed"):
        return stage.lower()
    if stage.startswith("MaxPool"):
        return f"pool_{stage.split('_')[1]}"
    return f"conv_{stage.split('_')[1]}_relu"


def separable_layer(stage):
    """The same where convolutions of more than a point come in two steps."""
    if stage == "Conv2d_2c_3x3":
        return "conv_2c_t_relu"
    return inception_layer(stage)


def gated_layer(stage):
    return "conv_2c_g" if stage == "Conv2d_2c_3x3" else inception_layer(stage)


def torchvision_layer(stage):
    ours = {
        "conv1_spatial": "conv_1a_relu",
        "conv1": "conv_1a_t_relu",
        "conv2b": "conv_2b_relu",
        "conv2c": "conv_2c_t_relu",
    }
    if stage.startswith("pool"):
        return f"pool_{stage.removeprefix('pool')}"
    return ours.get(stage, stage)


def c3d_layer(stage):
    """Convolutions after their ReLU, fc6 and fc7 before it."""
    return f"{stage}_relu" if stage.startswith("conv") else stage


@dataclass(frozen=True)
class Oracle:
    """A file, and a network that must give its answers.

    Args:
        stem: The file's name before `.io.npz`.
        builder: Name of a builder.
        shape: Of the file's input.
        begins: The peer's first three logits, as noted.
        largest: The greatest magnitude among all of them, as noted, to three
            decimals.
        name_of: See `fill`.
        columns: See `fill`.
        layer_of: Function of a stage's name to our layer's; the stage
            `features` is what the classifier sees.
        enter: Function of the file's input to the network's.
        arguments: Of the builder, beside those of all.
        classes: Integer.
        twin: Stem of the file whose input this one shares.
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
    classes: int = 487
    twin: str | None = None

    def __str__(self):
        return f"{self.stem}-{self.builder}"

    def build(self):
        """The network, filled."""
        model = getattr(applications, self.builder)(
            classifier_activation=None,
            classes=self.classes,
            input_shape=self.enter(np.zeros(self.shape, "float16")).shape[1:],
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


def as_field_stack(still):
    """Twenty channels of ten fields, (1, h, w, 20) -> (1, 10, h, w, 2)."""
    fields = still.reshape(*still.shape[:3], 10, 2)
    return np.moveaxis(fields, 3, 1)


def as_clip(still):
    return still[:, None]


def inception(stem, builder, shape, begins, largest, **own):
    """A row of the Inception family."""
    return Oracle(
        stem,
        builder,
        (1, *shape),
        begins,
        largest,
        **{"layer_of": inception_layer, "classes": 400, **own},
    )


FLOW = {"modality": "flow"}
FROM_4B = {"boundary": "mixed_4b"}

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

    Oracle("own_lrcn_3x127x127", "LRCN", (1, 3, 127, 127, 3),
           (-0.409536, -0.549987, -0.540812), 1.533, own_recurrent, "chw",
           arguments={"apart": True}, classes=101),
    Oracle("own_lrcn_2x139x139", "LRCN", (1, 2, 139, 139, 3),
           (-0.318207, -0.728450, -0.664417), 1.508, own_recurrent, "chw",
           arguments={"apart": True}, classes=101),

    Oracle("c3d_caffe_pool5_16x112x112", "C3D", (1, 16, 112, 112, 3),
           (-6.638881, 5.617906, 2.579987), 10.971, openmmlab, "cthw",
           c3d_layer, classes=101, twin="mmaction2_c3d_16x112x112"),
    Oracle("mmaction2_c3d_16x112x112", "C3D", (1, 16, 112, 112, 3),
           (-5.261642, 4.016678, -1.716699), 11.403, openmmlab, "cthw",
           c3d_layer, arguments={"grid": "torch"}, classes=101),
    Oracle("mmaction2_c3d_16x64x64", "C3D", (1, 16, 64, 64, 3),
           (-3.873600, -1.141869, 2.503515), 8.550, openmmlab, "cthw",
           c3d_layer, arguments={"grid": "torch"}, classes=101),

    Oracle("own_cnnm2048_rgb_224", "SpatialStream", (1, 224, 224, 3),
           (1.213726, 1.683061, -2.352413), 6.762, own, "cthw",
           enter=as_clip, classes=101),
    Oracle("own_cnnm2048_flow_128", "TemporalStream", (1, 128, 128, 20),
           (0.876150, 0.262600, 2.117215), 9.079, own, "cthw",
           enter=as_field_stack, classes=101),

    inception("deepmind_i3d_rgb_16x64x64", "I3D", (16, 64, 64, 3),
              (-17.456873, -4.004802, 0.827188), 37.079, name_of=deepmind),
    inception("deepmind_i3d_rgb_13x75x75", "I3D", (13, 75, 75, 3),
              (-16.754675, -4.408160, -1.438053), 34.952, name_of=deepmind),
    inception("deepmind_i3d_rgb_16x224x224", "I3D", (16, 224, 224, 3),
              (-16.736811, -3.279103, -5.047794), 36.622, name_of=deepmind),
    inception("deepmind_i3d_flow_16x64x64", "I3D", (16, 64, 64, 2),
              (-18.718830, -3.430826, 1.587460), 37.114, name_of=deepmind,
              arguments=FLOW),
    inception("slim_i2d_16x64x64", "I2D", (16, 64, 64, 3),
              (-16.476980, -12.343839, 4.265380), 35.475, name_of=slim),
    inception("slim_topheavy_i3d_from4b_16x64x64", "TopHeavyI3D",
              (16, 64, 64, 3), (-23.671930, -8.073013, 4.881964), 36.190,
              name_of=slim, arguments=FROM_4B),
    inception("slim_s3d_nogate_16x64x64", "S3D", (16, 64, 64, 3),
              (-18.078583, -22.777498, 1.830558), 28.746, name_of=slim,
              layer_of=separable_layer),
    inception("slim_s3dg_16x64x64", "S3DG", (16, 64, 64, 3),
              (-0.073142, -0.143741, -0.000637), 0.326, name_of=slim,
              layer_of=gated_layer),
    inception("slim_s3dg_flow_k7_13x75x75", "S3DG", (13, 75, 75, 2),
              (-0.064093, -0.145207, 0.000428), 0.323, name_of=slim,
              layer_of=gated_layer, arguments={**FLOW, "conv1": 7}),
    inception("slim_topheavy_s3dg_from4b_16x64x64", "S3DG", (16, 64, 64, 3),
              (-0.363370, -0.589051, 0.409110), 1.024, name_of=slim,
              arguments=FROM_4B),
    inception("torchvision_s3d_16x64x64", "S3D", (16, 64, 64, 3),
              (14.635271, 2.591895, 28.023010), 50.219, name_of=torchvision,
              layer_of=torchvision_layer,
              arguments={"style": "torchvision", "grid": "torch"}),
)
# fmt: on

# Files of networks that are none of ours, and why.
OTHERS = {
    "torchvision_r3d_18_8x64x64": "an inflated ResNet",
    "torchvision_mc3_18_8x64x64": "an inflated ResNet",
    "torchvision_r2plus1d_18_8x64x64": "an inflated ResNet",
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
    """A file's input; the Karpathy networks' goes in steps of 1/16."""
    source = np.random.RandomState(zlib.crc32(f"input:{stem}".encode()))
    drawn = source.standard_normal(shape).astype("float16")
    if stem.startswith("own_karpathy"):
        drawn = np.round(drawn * 16) / 16
    return drawn.astype("float32")


def misses(file, seen, stem=""):
    """How far off each recorded number is, in shares of the largest logit.

    Args:
        file: Arrays by name, as `read` gives them.
        seen: Our array of each stage, by the peer's name, and our `logits`.
        stem: String, the file's; some files keep every fourth point alone.

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
        if f"shape/{stage}" in file:
            value = _as_recorded(value, tuple(file[f"shape/{stage}"]))
        # Some files keep the maps alone.
        if f"mean/{stage}" in file:
            compare(f"mean/{stage}", value.mean(dtype="float64"))
            compare(f"absmax/{stage}", np.abs(value).max())
        channels = file[f"act/{stage}"].shape[-1]
        compare(f"act/{stage}", _thinned(value, stem, stage)[..., :channels])
    return far


def _thinned(value, stem, stage):
    """The points of a map that its file keeps."""
    if stem.startswith("mmaction2") and stage == "conv1a":
        return value[:, ::4]
    if stem.endswith("16x224x224"):
        return value[:, :1, ::4, ::4]
    return value


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
    file = read(oracle.stem) or {}
    given = _input(oracle, file)
    model = oracle.build()
    tensors = {
        stage: model.get_layer(oracle.layer_of(stage)).output
        for stage in stages(file)
        if stage != "features"
    }
    if "act/features" in file:
        tensors["features"] = model.get_layer("flatten").input
    tensors["logits"] = model.output

    clip = oracle.enter(given.astype("float32"))
    seen = keras.Model(model.input, tensors)(clip)
    seen = {name: ops.convert_to_numpy(value) for name, value in seen.items()}

    logits = seen["logits"].reshape(-1)
    near = TOLERANCE * oracle.largest
    np.testing.assert_allclose(logits[:3], oracle.begins, rtol=0, atol=near)
    # Noted to three decimals.
    assert abs(np.abs(logits).max() - oracle.largest) <= near + 5e-4
    if "logits" in file:
        far = misses(file, seen, oracle.stem)
        print(f"{oracle}: {max(far.values()):.1e} of the largest logit")
        assert {k: x for k, x in far.items() if not x <= TOLERANCE} == {}


def _input(oracle, file):
    """A file's input; drawn by its rule where it is not stored."""
    source = oracle.twin or oracle.stem
    if "input" in file:
        return file["input"]
    drawn = input_by_rule(source, oracle.shape)
    if "input_sum" in file:
        np.testing.assert_allclose(
            drawn.sum(dtype="float64"), file["input_sum"]
        )
    return drawn


def test_lrcn_averages_the_scores_of_its_frames():
    file = read("own_lrcn_3x127x127")
    if file is None:
        pytest.skip("no own_lrcn_3x127x127.io.npz: set KVF_ORACLES")
    model = applications.LRCN(
        input_shape=(3, 127, 127, 3), include_preprocessing=False
    )
    fill(model, own_recurrent, "chw")

    seen = ops.convert_to_numpy(model(file["input"].astype("float32")))

    np.testing.assert_allclose(
        seen.reshape(-1),
        file["mean_over_T_softmax"].reshape(-1),
        rtol=0,
        atol=TOLERANCE,
    )


def test_the_fused_head_gives_its_peers_answers():
    stem, shape = "own_fused_qv_head_5x7x7", (1, 5, 7, 7, 2048)
    file = read(stem) or {}
    maps = keras.Input(shape[1:])
    making = Making(kernel_initializer="zeros")
    joined = inception_fusion([maps[..., :1024], maps[..., 1024:]], making)
    logits = inception_top(joined, making, 400, None)
    model = keras.Model(maps, logits)
    fill(model, own_fused)
    tensors = {
        "fuse_conv": model.get_layer("fuse_conv_relu").output,
        "pool": model.get_layer("pool").output,
        "logits": logits,
    }

    given = file.get("input", input_by_rule(stem, shape))
    seen = keras.Model(maps, tensors)(given.astype("float32"))
    seen = {name: ops.convert_to_numpy(value) for name, value in seen.items()}

    np.testing.assert_allclose(
        seen["logits"][0, :3],
        (-1.783166, 3.635245, -0.354410),
        rtol=0,
        atol=TOLERANCE * 5.654,
    )
    if file:
        far = misses(file, seen)
        print(f"{stem}: {max(far.values()):.1e} of the largest logit")
        assert {k: x for k, x in far.items() if not x <= TOLERANCE} == {}


def test_inputs_are_those_of_the_rule():
    shapes = {oracle.stem: oracle.shape for oracle in ORACLES}
    inputs = {
        stem: file["input"]
        for stem in shapes
        if "input" in (file := read(stem) or {})
    }
    if not inputs:
        pytest.skip("no oracles of these networks: set KVF_ORACLES")

    for stem, recorded in inputs.items():
        drawn = input_by_rule(stem, shapes[stem])
        np.testing.assert_array_equal(recorded, drawn, err_msg=stem)


def test_every_file_has_its_row():
    folder = _folder()
    if not folder.is_dir():
        pytest.skip("no folder of oracles: set KVF_ORACLES to it")
    rows = {oracle.stem for oracle in ORACLES} | {"own_fused_qv_head_5x7x7"}

    found = {path.name.removesuffix(".io.npz") for path in folder.iterdir()}

    assert found - rows - set(OTHERS) == set()


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
    far = misses(file, {k: ops.convert_to_numpy(v) for k, v in seen.items()})
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

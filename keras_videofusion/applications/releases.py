"""What the authors of networks have released, and how to read it.

`RELEASES` is the table: where a file lies, how to know it for the right one,
under which names it keeps what our layers call `kernel` or `beta`, and what
the network must be built with. Neither torch nor Sonnet is needed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_videofusion.applications import pth

# Counted up when `arrays` comes to give other numbers from the same files.
VERSION = 1


class Turn(NamedTuple):
    """How a peer's array becomes ours.

    Args:
        shape: Function of our shape to the peer's.
        turned: Function of the peer's array to ours.
    """

    shape: Callable
    turned: Callable


def _columns(matrix):
    """fc6 of C3D: its columns by channel, frame, row; ours end in channels."""
    # 512 channels of 1 x 4 x 4 points: what is left of 16 x 112 x 112.
    units = matrix.reshape(-1, 512, 1, 4, 4).transpose(0, 2, 3, 4, 1)
    return units.reshape(matrix.shape).T


ALIKE = Turn(lambda s: s, lambda x: x)
# (out, in, t, h, w) -> (t, h, w, in, out)
CONV = Turn(
    lambda s: (s[4], s[3], *s[:3]), lambda x: x.transpose(2, 3, 4, 1, 0)
)
# (out, in) -> (in, out)
DENSE = Turn(lambda s: s[::-1], lambda x: x.T)
FC6 = Turn(lambda s: s[::-1], _columns)
# torchvision's classifier is a convolution of one point.
POINT = Turn(lambda s: (*s[::-1], 1, 1, 1), lambda x: x[:, :, 0, 0, 0].T)
# DeepMind's code reshapes what it restores; its axes of length 1 are open.
SQUEEZED = Turn(lambda s: tuple(n for n in s if n != 1), lambda x: x)


class Peer(NamedTuple):
    """Where a release keeps one weight of ours.

    Args:
        name: String, as the peer spells it.
        turn: `Turn`.
    """

    name: str
    turn: Turn = ALIKE


# Place of every module in torchvision's list of layers.
MODULES = {
    "mixed_3b": 5,
    "mixed_3c": 6,
    "mixed_4b": 8,
    "mixed_4c": 9,
    "mixed_4d": 10,
    "mixed_4e": 11,
    "mixed_4f": 12,
    "mixed_5b": 14,
    "mixed_5c": 15,
}


def torchvision_peers():
    """The names in torchvision's S3D.

    Returns:
        Dict from (our layer, our weight) to `Peer`.
    """
    units = {
        "conv_1a": "features.0.0",
        "conv_1a_t": "features.0.1",
        "conv_2b": "features.2",
        "conv_2c": "features.3.0",
        "conv_2c_t": "features.3.1",
    }
    for module, place in MODULES.items():
        at = f"features.{place}.branch"
        units |= {
            f"{module}_b0": f"{at}0",
            f"{module}_b1a": f"{at}1.0",
            f"{module}_b1b": f"{at}1.1.0",
            f"{module}_b1b_t": f"{at}1.1.1",
            f"{module}_b2a": f"{at}2.0",
            f"{module}_b2b": f"{at}2.1.0",
            f"{module}_b2b_t": f"{at}2.1.1",
            f"{module}_b3": f"{at}3.1",
        }
    found = {
        ("logits", "kernel"): Peer("classifier.1.weight", POINT),
        ("logits", "bias"): Peer("classifier.1.bias"),
    }
    for layer, unit in units.items():
        found |= {
            (layer, "kernel"): Peer(f"{unit}.0.weight", CONV),
            (f"{layer}_bn", "gamma"): Peer(f"{unit}.1.weight"),
            (f"{layer}_bn", "beta"): Peer(f"{unit}.1.bias"),
            (f"{layer}_bn", "moving_mean"): Peer(f"{unit}.1.running_mean"),
            (f"{layer}_bn", "moving_variance"): Peer(f"{unit}.1.running_var"),
        }
    return found


def deepmind_peers():
    """The names in DeepMind's I3D.

    Returns:
        Dict from (our layer, our weight) to `Peer`.
    """
    units = {
        "conv_1a": "Conv3d_1a_7x7",
        "conv_2b": "Conv3d_2b_1x1",
        "conv_2c": "Conv3d_2c_3x3",
    }
    for module in MODULES:
        at = f"{module.capitalize()}/Branch_"
        # Where all others say 0b, their 5b says 0a.
        b2b = "0a" if module == "mixed_5b" else "0b"
        units |= {
            f"{module}_b0": f"{at}0/Conv3d_0a_1x1",
            f"{module}_b1a": f"{at}1/Conv3d_0a_1x1",
            f"{module}_b1b": f"{at}1/Conv3d_0b_3x3",
            f"{module}_b2a": f"{at}2/Conv3d_0a_1x1",
            f"{module}_b2b": f"{at}2/Conv3d_{b2b}_3x3",
            f"{module}_b3": f"{at}3/Conv3d_0b_1x1",
        }
    head = "Logits/Conv3d_0c_1x1/conv_3d/"
    found = {
        ("logits", "kernel"): Peer(f"{head}w", SQUEEZED),
        ("logits", "bias"): Peer(f"{head}b", SQUEEZED),
    }
    for layer, unit in units.items():
        found[layer, "kernel"] = Peer(f"{unit}/conv_3d/w", SQUEEZED)
        for name in ("beta", "moving_mean", "moving_variance"):
            peer = Peer(f"{unit}/batch_norm/{name}", SQUEEZED)
            found[f"{layer}_bn", name] = peer
    return found


C3D_CONVOLUTIONS = (
    "conv1a",
    "conv2a",
    "conv3a",
    "conv3b",
    "conv4a",
    "conv4b",
    "conv5a",
    "conv5b",
)


def openmmlab_peers(top=False):
    """The names in OpenMMLab's C3D.

    Args:
        top: Whether the fully connected layers are wanted.

    Returns:
        Dict from (our layer, our weight) to `Peer`.
    """
    units = {name: (f"{name}.conv", CONV) for name in C3D_CONVOLUTIONS}
    if top:
        units |= {
            "fc6": ("fc6", FC6),
            "fc7": ("fc7", DENSE),
            "predictions": ("fc_cls", DENSE),
        }
    found = {}
    for layer, (unit, turn) in units.items():
        found[layer, "kernel"] = Peer(f"{unit}.weight", turn)
        found[layer, "bias"] = Peer(f"{unit}.bias")
    return found


@dataclass(frozen=True)
class File:
    """A file of a release.

    Args:
        address: String, where its authors keep it.
        path: String, its name in a folder of weights.
        digest: String: `"sha256:"` and the first digits of that hash, as many
            as the authors publish, or `"git:"` and the hash that git knows
            it by; empty if there is none.
    """

    address: str
    path: str
    digest: str = ""


@dataclass(frozen=True)
class Release:
    """A published set of weights.

    Args:
        network: String, key of `applications.MODELS`.
        name: String, what the builder's `weights` calls it.
        labels: String, which classes: see `applications.labels`.
        classes: Integer, or None if it has no top.
        files: Tuple of `File`.
        peers: Dict from (layer, weight) to `Peer`.
        top: Names of the layers that `include_top=False` leaves out.
        beside: Patterns of names that the file has and the network not.
        within: Modules whose names may stand before a parameter's, or not:
            a whole recognizer's file has them, a backbone's has not.
        arguments: Dict, what the builder must be called with.
        clip: Dict, where its clip differs from the network's own.
    """

    network: str
    name: str
    labels: str
    classes: int | None
    files: tuple[File, ...]
    peers: dict = field(repr=False)
    top: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    arguments: dict = field(default_factory=dict)
    clip: dict = field(default_factory=dict)


DEEPMIND = (
    "https://raw.githubusercontent.com/google-deepmind/kinetics-i3d/master/"
    "data/checkpoints/"
)


def _deepmind(network, name, folder, blob, labels="kinetics400"):
    """A row of DeepMind's I3D; `blob` is git's hash of the numbers' file."""
    data, index = (
        f"{folder}/model.ckpt.{end}" for end in ("data-00000-of-00001", "index")
    )
    return Release(
        network,
        name,
        labels,
        int(labels.removeprefix("kinetics")),
        (
            File(f"{DEEPMIND}{data}", data, f"git:{blob}"),
            # The index guards itself: it keeps a checksum of every block.
            File(f"{DEEPMIND}{index}", index),
        ),
        deepmind_peers(),
        top=("logits",),
        within=(
            "RGB/inception_i3d/" if network == "i3d" else "Flow/inception_i3d/",
        ),
        # Counters, and slots such as .../conv_3d/w/Momentum.
        beside=("*step*", "*learning_rate*", "*/Momentum"),
    )


OPENMMLAB = ("backbone.", "cls_head.")

# fmt: off
_RELEASES = [
    Release(
        "s3d", "kinetics400", "kinetics400", 400,
        (
            File(
                "https://download.pytorch.org/models/s3d-d76dad2f.pth",
                "s3d-d76dad2f.pth",
                "sha256:d76dad2f",
            ),
        ),
        torchvision_peers(),
        top=("logits",),
        beside=("*.num_batches_tracked",),
        arguments={"style": "torchvision", "grid": "torch"},
        # torchvision's own evaluation: one clip of 128 frames at 15 a second.
        clip={"frames": 128, "fps": 15.0, "resize": (256, 256),
              "size": (224, 224)},
    ),
    _deepmind("i3d", "kinetics400", "rgb_imagenet",
              "2958652e0c9c48a65010c0ebda5c9cfd4edc7c18"),
    _deepmind("i3d", "kinetics400_scratch", "rgb_scratch",
              "fa7df95674dbf3579e7fccd954e51e706b4734c1"),
    _deepmind("i3d", "kinetics600", "rgb_scratch_kin600",
              "6392a74c3180e706cabada39d8f40a50a48642e5", "kinetics600"),
    _deepmind("i3d_flow", "kinetics400", "flow_imagenet",
              "bf56831f663abc3de0d35f193030b73a3df7fb61"),
    _deepmind("i3d_flow", "kinetics400_scratch", "flow_scratch",
              "1d6a0b68f32544af11111342857e47e30d13afa9"),
    Release(
        "c3d", "ucf101", "ucf101", 101,
        (
            File(
                "https://download.openmmlab.com/mmaction/v1.0/recognition/"
                "c3d/c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb/"
                "c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb_"
                "20220811-31723200.pth",
                "c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb_"
                "20220811-31723200.pth",
                "sha256:31723200",
            ),
        ),
        openmmlab_peers(top=True),
        within=OPENMMLAB,
        top=("fc6", "fc7", "predictions"),
        beside=("data_preprocessor.*",),
        arguments={"grid": "torch"},
        # OpenMMLab's own evaluation; the authors stretch to 128 x 171.
        clip={"resize": ("short_side", 128)},
    ),
    Release(
        "c3d", "sports1m", "sports1m", None,
        (
            File(
                "https://download.openmmlab.com/mmaction/recognition/c3d/"
                "c3d_sports1m_pretrain_20201016-dcc47ddc.pth",
                "c3d_sports1m_pretrain_20201016-dcc47ddc.pth",
                "sha256:dcc47ddc",
            ),
        ),
        openmmlab_peers(),
        within=OPENMMLAB,
        # A backbone to OpenMMLab ends in fc7, which we count to the top.
        beside=("fc*",),
        arguments={"grid": "torch"},
    ),
]
# fmt: on

RELEASES = {(row.network, row.name): row for row in _RELEASES}


def _both(name):
    """The rows of the two streams in one; each stream loads its own."""
    rgb, flow = RELEASES["i3d", name], RELEASES["i3d_flow", name]
    return Release(
        "two_stream_i3d",
        name,
        rgb.labels,
        rgb.classes,
        rgb.files + flow.files,
        {},
    )


for _name in ("kinetics400", "kinetics400_scratch"):
    RELEASES["two_stream_i3d", _name] = _both(_name)


def arrays(release, paths):
    """The numbers of a release, as its authors keep them.

    Args:
        release: `Release`.
        paths: Its files, in the order of `release.files`.

    Returns:
        Dict from peer's name to array; those of a TensorFlow checkpoint
        without axes of length 1.

    Raises:
        ValueError: If a file is damaged, or lacks a parameter or has one that
            the network lacks; the line names it.
    """
    first = Path(paths[0])
    if first.suffix == ".pth":
        held = pth.read(first)
        names = _bare(held, release.within)
        held = {name: held[named] for name, named in names.items()}
    else:
        held, names = _checkpoint(first, release)
    wanted = {peer.name for peer in release.peers.values()}
    missing = sorted(wanted - set(names))
    if missing:
        raise ValueError(
            f"{str(first)!r} lacks {missing[0]} and {len(missing) - 1} more "
            f"of the {len(wanted)} parameters of {release.network}"
        )
    others = sorted(
        name
        for name in set(names) - wanted
        if not any(fnmatch(name, pattern) for pattern in release.beside)
    )
    if others:
        raise ValueError(
            f"{str(first)!r} has {others[0]} and {len(others) - 1} more "
            f"parameters that {release.network} has not"
        )
    return {name: held[name] for name in wanted}


def _bare(names, within):
    """Names without the modules that they stand under, and as they are."""
    found = {}
    for name in names:
        bare = name
        for module in within:
            bare = bare.removeprefix(module)
        found[bare] = name
    return found


def _checkpoint(path, release):
    """A TensorFlow checkpoint's numbers, and the names of all that it has.

    The numbers are without axes of length 1, the names without modules.
    """
    import tensorflow as tf

    prefix = str(path).rpartition(".data-")[0]
    try:
        reader = tf.train.load_checkpoint(prefix)
        names = _bare(reader.get_variable_to_shape_map(), release.within)
        wanted = {peer.name for peer in release.peers.values()} & set(names)
        held = {
            name: np.squeeze(reader.get_tensor(names[name])) for name in wanted
        }
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise ValueError(
            f"{prefix!r} cannot be read as a TensorFlow checkpoint: {reason}"
        ) from error
    return held, names


def turned(release, held, shapes, path):
    """What a release gives to the layers of a network.

    Args:
        release: `Release`.
        held: Dict of arrays, as `arrays` gives it.
        shapes: Dict from (layer, weight) to shape, the network's own.
        path: The file, for errors.

    Returns:
        Dict from (layer, weight) to float32 array of that shape.

    Raises:
        ValueError: If the network has other weights or shapes; the line names
            the parameter.
    """
    built = {layer for layer, _ in shapes}
    for layer, weight in release.peers:
        left_out = layer in release.top and layer not in built
        if (layer, weight) not in shapes and not left_out:
            raise ValueError(
                f"weights={release.name!r} of {release.network} have "
                f"{weight} of {layer}, which the network lacks"
            )
    found = {}
    for (layer, weight), shape in shapes.items():
        peer = release.peers.get((layer, weight))
        if peer is None:
            raise ValueError(
                f"weights={release.name!r} of {release.network} lack "
                f"{weight} of {layer}, which the network has"
            )
        value = held[peer.name]
        if value.shape != peer.turn.shape(shape):
            raise ValueError(
                f"{peer.name} of {str(path)!r} must be of shape "
                f"{peer.turn.shape(shape)}, for {layer}. "
                f"Received: shape={value.shape}"
            )
        value = peer.turn.turned(value).reshape(shape)
        found[layer, weight] = np.asarray(value, "float32")
    return found

"""C3D, I3D and S3D beside the same networks in PyTorch, in paired runs.

    python benchmarks/torch_peers.py [--quick] [--networks i3d s3d ...]
        [--pairs 7] [--no-compile] [--json FILE]

Needs `pip install torch`. Every network is written here once more in plain
torch; it takes our weights by name and must give our logits within 1e-4 of
the largest before anything is timed. Then all variants take turns in one
process, a call each, so that what else the machine does hurts them alike:

    ours    `predict_on_batch` and `train_on_batch` of a compiled model, as
            they come, and with `jit_compile=True`
    torch   contiguous and channels_last_3d tensors, each as it comes and
            with `torch.compile`; and that with folded weights (forward)

A training step is forward, loss, backward and an update by SGD with momentum,
batch normalisation and dropout as in training. Printed are medians in
milliseconds, and of the ratio ours / torch's best the median over the rounds
and its quartiles: below 1, ours is faster. On a machine that does other work,
go by the processor time, and set `OMP_WAIT_POLICY=passive`: a thread of torch
that waits for another that has lost its core waits busily otherwise. (One
thread for each would settle it too, but with one, torch leaves oneDNN.)

Expected on two cores: no ratio of `ours` above 1 by more than its spread. XLA
(`jit_compile=True`) is five times slower on a processor.
"""

import argparse
import copy
import gc
import json
import os
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, field

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import torch
from torch import nn
from torch._inductor import config as inductor
from torch.nn import functional

from keras_videofusion import applications

TOLERANCE = 1e-4  # of the largest logit

# fmt: off
# Filters of C3D's layers; a pool after the last of every number.
C3D = (
    ("conv1a", 64),
    ("conv2a", 128),
    ("conv3a", 256), ("conv3b", 256),
    ("conv4a", 512), ("conv4b", 512),
    ("conv5a", 512), ("conv5b", 512),
)

#           1x1   1x1 -> 3x3    1x1 -> 3x3   pool -> 1x1
INCEPTION = {
    "mixed_3b": (64,    96, 128,     16, 32,      32),
    "mixed_3c": (128,  128, 192,     32, 96,      64),
    "mixed_4b": (192,   96, 208,     16, 48,      64),
    "mixed_4c": (160,  112, 224,     24, 64,      64),
    "mixed_4d": (128,  128, 256,     24, 64,      64),
    "mixed_4e": (112,  144, 288,     32, 64,      64),
    "mixed_4f": (256,  160, 320,     32, 128,    128),
    "mixed_5b": (256,  160, 320,     32, 128,    128),
    "mixed_5c": (384,  192, 384,     48, 128,    128),
}
# fmt: on


# The networks in torch. A layer's name in ours is kept as `ours`.


def named(layer, name):
    layer.ours = name
    return layer


class Padded(nn.Module):
    """TensorFlow's "same": of an odd number of zeros, more at the far end."""

    def __init__(self, size, stride):
        super().__init__()
        self.size, self.stride = size, stride

    def forward(self, x):
        zeros = []
        for length, size, stride in zip(
            x.shape[:1:-1], self.size[::-1], self.stride[::-1], strict=True
        ):
            whole = max((-(-length // stride) - 1) * stride + size - length, 0)
            zeros += [whole // 2, whole - whole // 2]
        return functional.pad(x, zeros)


def convolution(name, channels, filters, size, stride, grid, norm, gamma):
    """Convolution, perhaps batch normalisation, ReLU."""
    apart = grid == "tf" and max(stride) > 1
    steps = [Padded(size, stride)] if apart else []
    zeros = 0 if apart else tuple(side // 2 for side in size)
    conv = nn.Conv3d(channels, filters, size, stride, zeros, bias=not norm)
    steps.append(named(conv, name))
    if norm:
        # The decay of averages that ours has by default, from the other end.
        bn = nn.BatchNorm3d(filters, eps=1e-3, momentum=0.01)
        bn.weight.requires_grad_(gamma)
        steps.append(named(bn, f"{name}_bn"))
    return nn.Sequential(*steps, nn.ReLU(inplace=True))


@dataclass(frozen=True)
class Plan:
    """What tells the Inception networks apart."""

    separable: bool = False
    temporal_norm: bool = False  # after filters in time; else they have a bias
    gamma: bool = False
    grid: str = "tf"
    first: int = 7  # frames under the first filters
    dropout: float = 0.5

    def unit(self, name, channels, filters, size, extent=1, stride=(1, 1, 1)):
        norms = {"gamma": self.gamma, "grid": self.grid}
        parted = self.separable and (name != "conv_1a" or self.temporal_norm)
        if extent == 1 or not parted:
            taps = (extent, size, size)
            return convolution(
                name, channels, filters, taps, stride, norm=True, **norms
            )
        return nn.Sequential(
            convolution(
                name,
                channels,
                filters,
                (1, size, size),
                (1, *stride[1:]),
                norm=True,
                **norms,
            ),
            convolution(
                f"{name}_t",
                filters,
                filters,
                (extent, 1, 1),
                (stride[0], 1, 1),
                norm=self.temporal_norm,
                **norms,
            ),
        )

    def pool(self, size, stride):
        if self.grid == "torch":
            zeros = tuple(side // 2 if side > 2 else 0 for side in size)
            return nn.MaxPool3d(size, stride, zeros)
        # At even sides: what is left over at the far edge is a window too.
        return nn.MaxPool3d(size, stride, 0, ceil_mode=True)


class Mixed(nn.Module):
    """The Inception module: four branches, side by side."""

    def __init__(self, site, channels, plan):
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3 = INCEPTION[site]
        unit = plan.unit
        self.branches = nn.ModuleList(
            [
                unit(f"{site}_b0", channels, b0, 1),
                nn.Sequential(
                    unit(f"{site}_b1a", channels, b1a, 1),
                    unit(f"{site}_b1b", b1a, b1b, 3, 3),
                ),
                nn.Sequential(
                    unit(f"{site}_b2a", channels, b2a, 1),
                    unit(f"{site}_b2b", b2a, b2b, 3, 3),
                ),
                nn.Sequential(
                    nn.MaxPool3d(3, 1, 1),
                    unit(f"{site}_b3", channels, b3, 1),
                ),
            ]
        )
        self.channels = b0 + b1b + b2b + b3

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


class InceptionPeer(nn.Module):
    """I3D or S3D: (batch, 3, time, height, width) to (batch, classes)."""

    def __init__(self, plan, classes=400):
        super().__init__()
        layers = [
            plan.unit("conv_1a", 3, 64, 7, plan.first, (2, 2, 2)),
            plan.pool((1, 3, 3), (1, 2, 2)),
            plan.unit("conv_2b", 64, 64, 1),
            plan.unit("conv_2c", 64, 192, 3, 3),
            plan.pool((1, 3, 3), (1, 2, 2)),
        ]
        channels = 192
        for site in INCEPTION:
            if site == "mixed_4b":
                layers.append(plan.pool((3, 3, 3), (2, 2, 2)))
            if site == "mixed_5b":
                layers.append(plan.pool((2, 2, 2), (2, 2, 2)))
            layers.append(Mixed(site, channels, plan))
            channels = layers[-1].channels
        self.trunk = nn.Sequential(*layers)
        self.dropout = nn.Dropout(plan.dropout)
        self.logits = named(nn.Conv3d(channels, classes, 1), "logits")

    def forward(self, x):
        x = self.trunk(x)
        window = [
            min(most, side)
            for most, side in zip((2, 7, 7), x.shape[2:], strict=True)
        ]
        x = functional.avg_pool3d(x, window, 1)
        return self.logits(self.dropout(x)).mean((2, 3, 4))


class C3DPeer(nn.Module):
    """C3D: (batch, 3, 16, 112, 112) to (batch, classes)."""

    def __init__(self, classes=487):
        super().__init__()
        layers, channels = [], 3
        for place, (name, filters) in enumerate(C3D):
            layers.append(
                convolution(
                    name, channels, filters, (3, 3, 3), (1, 1, 1), "torch",
                    norm=False, gamma=False,
                )
            )  # fmt: skip
            channels = filters
            if C3D[place + 1 : place + 2] and C3D[place + 1][0][4] == name[4]:
                continue
            size = (1 if name == "conv1a" else 2, 2, 2)
            layers.append(nn.MaxPool3d(size, size, ceil_mode=True))
        self.trunk = nn.Sequential(*layers)
        self.top = nn.Sequential(
            named(nn.Linear(8192, 4096), "fc6"),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            named(nn.Linear(4096, 4096), "fc7"),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            named(nn.Linear(4096, classes), "predictions"),
        )

    def forward(self, x):
        return self.top(self.trunk(x).flatten(1))


def take_weights(peer, model):
    """Copies the weights of our `model` into its peer, by layer name."""
    left = {layer.name for layer in model.layers if layer.weights}
    for layer in peer.modules():
        if not hasattr(layer, "ours"):
            continue
        left.remove(layer.ours)
        own = model.get_layer(layer.ours)
        values = {weight.name: weight.numpy() for weight in own.weights}
        if isinstance(layer, nn.BatchNorm3d):
            pairs = {
                "gamma": layer.weight,
                "beta": layer.bias,
                "moving_mean": layer.running_mean,
                "moving_variance": layer.running_var,
            }
        else:
            pairs = {"kernel": layer.weight, "bias": layer.bias}
            values["kernel"] = torchwise(layer, values["kernel"], own.input)
        for name, value in values.items():
            with torch.no_grad():
                pairs[name].copy_(torch.from_numpy(value.copy()))
    if left:
        raise ValueError(f"these layers have no peer: {sorted(left)}")


def torchwise(layer, kernel, features):
    """A kernel with its axes in torch's order: (out, in, ...)."""
    if isinstance(layer, nn.Conv3d):
        if kernel.ndim == 2:
            kernel = kernel[None, None, None]
        return np.moveaxis(kernel, (-1, -2), (0, 1))
    if layer.ours == "fc6":
        # Ours flattens (1, 4, 4, 512), torch (512, 1, 4, 4).
        kernel = kernel.reshape(4, 4, 512, -1).transpose(2, 0, 1, 3)
        kernel = kernel.reshape(8192, -1)
    return kernel.T


@dataclass(frozen=True)
class Case:
    """A network, its peer, and the clips on which they meet."""

    build: object  # function that returns the torch module
    network: str
    shape: tuple
    arguments: dict = field(default_factory=dict)


CASES = {
    "c3d": Case(C3DPeer, "c3d", (16, 112, 112, 3)),
    "i3d": Case(lambda: InceptionPeer(Plan()), "i3d", (16, 224, 224, 3)),
    "s3d": Case(
        lambda: InceptionPeer(
            Plan(True, True, gamma=True, grid="torch", dropout=0.2)
        ),
        "s3d",
        (16, 224, 224, 3),
        {"style": "torchvision", "grid": "torch"},
    ),
    "s3d_slim": Case(
        lambda: InceptionPeer(Plan(True, first=3, dropout=0.2)),
        "s3d",
        (16, 224, 224, 3),
    ),
}


def fill(model, generator):
    """Gives all weights values at which every layer has a say."""
    for layer in model.layers:
        for weight in layer.weights:
            noise = generator.standard_normal(weight.shape).astype("float32")
            if weight.name == "kernel":
                noise *= np.sqrt(2 / np.prod(weight.shape[:-1]))
            elif weight.name in ("gamma", "moving_variance"):
                noise = 1 + 0.2 * np.tanh(noise)
            else:
                noise *= 0.1
            weight.assign(noise)


def meet(case, batch):
    """Our model, its peer with the same weights, clips and labels."""
    generator = np.random.default_rng(0)
    build = applications.get_model
    model = build(
        case.network,
        input_shape=case.shape,
        include_preprocessing=False,
        classifier_activation=None,
        **case.arguments,
    )
    fill(model, generator)
    peer = case.build()
    take_weights(peer, model)
    counts = (
        sum(int(np.prod(w.shape)) for w in model.trainable_weights),
        sum(w.numel() for w in peer.parameters() if w.requires_grad),
    )
    if counts[0] != counts[1]:
        raise ValueError(f"parameters differ: ours {counts[0]}, {counts[1]}")
    clips = generator.uniform(-1, 1, (batch, *case.shape)).astype("float32")
    classes = model.output_shape[-1]
    labels = generator.integers(0, classes, batch)
    with torch.inference_mode():
        theirs = peer.eval()(channels_first(clips)).numpy()
    ours = model.predict_on_batch(clips)
    apart = np.abs(ours - theirs).max() / np.abs(theirs).max()
    if not apart < TOLERANCE:
        raise ValueError(f"logits differ by {apart:.1e} of the largest")
    print(f"  {counts[0]:,} parameters each; logits agree to {apart:.0e}")
    return model, peer, clips, labels


def channels_first(clips):
    return torch.from_numpy(clips).permute(0, 4, 1, 2, 3).contiguous()


# What is timed: functions without arguments, by variant and task.


def keras_variants(model, clips, labels, jit):
    model.compile(
        keras.optimizers.SGD(1e-3, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit,
    )
    return {
        "forward": lambda: model.predict_on_batch(clips),
        "train": lambda: float(model.train_on_batch(clips, labels)),
    }


def torch_variants(peer, clips, labels, last, compiled, frozen=False):
    layout = torch.channels_last_3d if last else torch.contiguous_format
    peer = peer.to(memory_format=layout)
    x = channels_first(clips).to(memory_format=layout)
    y = torch.from_numpy(labels)
    run = torch.compile(peer) if compiled else peer
    optimizer = torch.optim.SGD(
        [w for w in peer.parameters() if w.requires_grad],
        1e-3,
        momentum=0.9,
        fused=True,
    )

    def forward():
        peer.eval()
        folding = inductor.patch(freezing=True) if frozen else nullcontext()
        # Folding takes no tensors of inference mode.
        plain = torch.no_grad() if frozen else torch.inference_mode()
        with plain, folding:
            return run(x).numpy()

    def train():
        peer.train()
        optimizer.zero_grad()
        loss = functional.cross_entropy(run(x), y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    if frozen:
        return {"forward": forward}
    return {"forward": forward, "train": train}


def variants(case, batch, compile_torch, quick):
    """Functions to time, by task and variant."""
    model, peer, clips, labels = meet(case, batch)
    made = {"ours": keras_variants(model, clips, labels, False)}
    if not quick:
        twin = keras.models.clone_model(model)
        twin.set_weights(model.get_weights())
        made["ours, jit"] = keras_variants(twin, clips, labels, True)
    for last in (False, True):
        name = "channels_last_3d" if last else "contiguous"
        kinds = {"": (False, False)}
        if compile_torch:
            kinds[", compiled"] = (True, False)
            kinds[", frozen"] = (True, True)
        for kind, (compiled, frozen) in kinds.items():
            made[f"torch {name}{kind}"] = torch_variants(
                copy.deepcopy(peer), clips, labels, last, compiled, frozen
            )
    return {
        task: {
            name: calls[task] for name, calls in made.items() if task in calls
        }
        for task in ("forward", "train")
    }


def milliseconds(call):
    """By the clock, and of processor time."""
    # Threads of the one that ran before go to sleep.
    time.sleep(0.02)
    wall, busy = time.perf_counter(), time.process_time()
    call()
    return (
        1e3 * (time.perf_counter() - wall),
        1e3 * (time.process_time() - busy),
    )


def compare(calls, pairs):
    """Times variants in turn.

    Args:
        calls: Dict from variant to function.
        pairs: Integer, rounds.

    Returns:
        Dict from variant to an array of shape `(rounds, 2)`: milliseconds by
        the clock and of processor time; dict from variant to why it does not
        run.
    """
    failed = {}
    for name, call in calls.items():
        try:
            for _ in range(3):  # what is only done once
                call()
        except Exception as error:
            failed[name] = str(error).strip().splitlines()[0]
    times = {name: [] for name in calls if name not in failed}
    for turn in range(pairs):
        order = list(times)
        # Nobody always follows the same.
        for name in order if turn % 2 else order[::-1]:
            times[name].append(milliseconds(calls[name]))
    return {name: np.array(some) for name, some in times.items()}, failed


def told(network, task, times, failed):
    """Prints a table of one task; returns its row for the JSON file."""
    medians = {name: np.median(some, axis=0) for name, some in times.items()}
    for name, (wall, busy) in medians.items():
        print(f"  {task:8} {name:34} {wall:8.1f} ms {busy:8.1f} ms of a core")
    for name, reason in failed.items():
        print(f"  {task:8} {name:34} skipped: {reason}")
    row = {"network": network, "task": task, "skipped": failed}
    for clock, measure in enumerate(("wall", "busy")):
        peers = [name for name in medians if name.startswith("torch")]
        best = min(peers, key=lambda name: medians[name][clock])
        row[measure] = {
            "milliseconds": {n: float(m[clock]) for n, m in medians.items()},
            "best_torch": best,
        }
        for name in (name for name in medians if name.startswith("ours")):
            ratios = times[name][:, clock] / times[best][:, clock]
            low, middle, high = np.percentile(ratios, (25, 50, 75))
            row[measure][f"{name} / best torch"] = [middle, low, high]
            print(
                f"  {task:8} {measure}: {name} / {best}: {middle:.2f} "
                f"({low:.2f} to {high:.2f})"
            )
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=list(CASES))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="few and plain")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--json", help="file to write")
    own = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    pairs = 3 if own.quick else own.pairs
    compiled = not (own.quick or own.no_compile)
    rows = []
    for name in own.networks:
        case = CASES[name]
        shape = " x ".join(map(str, (own.batch, *case.shape)))
        print(f"{name}, {shape}", flush=True)
        tasks = variants(case, own.batch, compiled, own.quick)
        for task, calls in tasks.items():
            rows.append(told(name, task, *compare(calls, pairs)))
            sys.stdout.flush()
        del tasks, calls
        gc.collect()
    if own.json:
        with open(own.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()

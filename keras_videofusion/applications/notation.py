"""The shorthand in which the papers print their networks.

`C(96, 11, 3)-N-P-...-FC(4096)`: each token builds its Keras layers, `stack`
applies a line of them, `spell` prints a line back for a test to hold against
the paper.

Reference:
    Karpathy et al., CVPR 2014, section 3.1.
"""

from dataclasses import dataclass

import keras
from keras import layers

from keras_videofusion.layers import (
    Framewise,
    GroupedConv2D,
    LocalResponseNormalization,
    StackFrames,
)


@dataclass(frozen=True)
class Making:
    """What the builder's caller decides of every token's layers.

    The paper is silent about the weights that it starts from. Raw pixels are
    60 about their mean, so weights for unit inputs give logits of 40, and
    gradients that throw conv1 about. `"halving"` brings conv1's answers to
    order one and lets every later layer halve what it is given. Measured on
    UT-Interaction, slow fusion at width 0.25, the paper's SGD (rate 1e-3,
    momentum 0.9, decay 5e-4, batch 32), mean loss of each 6 of 48 steps (of
    each 4 of 32 for the other three; chance is ln 6 = 1.79), by
    `benchmarks/initializers.py`:

        halving         1.79 1.79 1.79 1.78 1.77 1.76 1.74 1.70
        glorot_uniform  6.42 3.46 1.90 1.86 1.84 1.82 1.77 1.74
        krizhevsky      1.80 1.82 1.87 1.84 1.84 1.84 1.83 1.82
        he_normal       231  102  79.9 1.80 1.91 1.79 1.79 1.79 (dead)

    Args:
        width: Float, share of filters and units.
        dropout: Float, rate after every `FC`.
        kernel_initializer: `"halving"`, a Keras initializer or its name,
            `"authors"`: what the network's source states, where it does, or
            `"krizhevsky"`: N(0, 0.01) for convolutions, N(0, 0.005) for
            `FC`, biases 1 in conv2, conv4, conv5, fc6 and fc7, else 0.
        reach: Float, spread of the input that `"halving"` brings to one:
            20 for raw pixels, 1 for what was scaled to about one before,
            0.04 for roots of histograms.
        convolutions: Dict, what the source states of every `C`, or None.
        connected: Dict, the same of every `FC`.
        whole: Integer, what numbers of filters are multiples of: grouped
            convolutions want whole groups, however narrow the network.

    Reference:
        Krizhevsky et al., NIPS 2012, section 5.
    """

    width: float = 1.0
    dropout: float = 0.0
    kernel_initializer: object = "halving"
    reach: float = 20.0
    convolutions: dict | None = None
    connected: dict | None = None
    whole: int = 1

    def scaled(self, count):
        return max(1, round(count * self.width / self.whole)) * self.whole

    def start(self, name, deviation=0.01, authors=None):
        """Initializers of a layer, as keyword arguments.

        Args:
            name: String, the layer's.
            deviation: Float, of Krizhevsky's normal distribution for it.
            authors: Dict, what the network's source states; None where it is
                silent, and `"halving"` stands in.

        Returns:
            Dict of keyword arguments of the layer.
        """
        if self.kernel_initializer == "authors" and authors is not None:
            return authors
        if self.kernel_initializer in ("halving", "authors"):
            # He's 2 / fan_in keeps the scale; a quarter of it halves that.
            scale = 2.0 / 4.0
            if name.endswith(("conv1", "conv1_1", "conv1a", "fc1")):
                scale = 2.0 / self.reach**2
            elif name in ("predictions", "logits"):
                scale = 1.0
            return {
                "kernel_initializer": keras.initializers.VarianceScaling(
                    scale, "fan_in", "truncated_normal"
                )
            }
        if self.kernel_initializer != "krizhevsky":
            return {"kernel_initializer": _fresh(self.kernel_initializer)}
        ones = name.endswith(("conv2", "conv4", "conv5", "fc6", "fc7"))
        return {
            "kernel_initializer": keras.initializers.RandomNormal(
                stddev=deviation
            ),
            "bias_initializer": "ones" if ones else "zeros",
        }


def _fresh(initializer):
    """A copy: one seeded initializer would give every layer equal weights."""
    initializer = keras.initializers.get(initializer)
    if hasattr(initializer, "clone"):
        return initializer.clone()
    return initializer


@dataclass(frozen=True)
class C:
    """Convolution and ReLU: "valid" in time and, if not told, "same" in space.

    "Same" convolutions with floor pools are the one rule of Keras under which
    170, 178 and 89 pixels all end in Karpathy's 7 x 7 x 256.

    Args:
        filters: Integer.
        size: Integer, side of the filters in pixels.
        stride: Integer, in space.
        extent: Integer, frames under one filter: the paper's T.
        step: Integer, stride in time.
        pad: Integer, zeros around every frame, as Caffe counts them; None
            for Keras's "same".
        groups: Integer, parts of the channels that do not see one another.
    """

    filters: int
    size: int
    stride: int = 1
    extent: int = 1
    step: int = 1
    pad: int | None = None
    groups: int = 1

    stem = "conv"

    def __str__(self):
        still = (self.extent, self.step) == (1, 1)
        time = "" if still else f"[T={self.extent}/{self.step}]"
        return f"C({self.filters}, {self.size}, {self.stride}){time}"

    def __call__(self, x, name, making):
        if self.extent > 1 or self.step > 1:
            # (batch, time', height, width, extent x channels)
            x = StackFrames(self.extent, self.step, name=f"{name}_stack")(x)
        if self.pad:
            zeros = layers.ZeroPadding2D(self.pad, name=f"{name}_pad")
            x = Framewise(zeros, name=f"{name}_pad")(x)
        kind, groups = layers.Conv2D, {}
        if self.groups > 1:
            kind, groups = GroupedConv2D, {"groups": self.groups}
        conv = kind(
            making.scaled(self.filters),
            self.size,
            self.stride,
            "same" if self.pad is None else "valid",
            activation="relu",
            name=name,  # else weights are conv2d_17/kernel, run by run
            **making.start(name, 0.01, making.convolutions),
            **groups,
        )
        return Framewise(conv, name=name)(x)


@dataclass(frozen=True)
class N:
    """Local response normalisation; the constants are Karpathy's."""

    k: float = 2.0
    n: int = 5
    alpha: float = 1e-4
    beta: float = 0.5

    stem = "norm"

    def __str__(self):
        return "N"

    def __call__(self, x, name, making):
        return LocalResponseNormalization(
            self.k, self.n, self.alpha, self.beta, name=name
        )(x)


@dataclass(frozen=True)
class P:
    """Maximum over size x size pixels, 2 apart, frame by frame.

    2 x 2 pixels do not overlap, and what is left over at the edge is dropped;
    3 x 3 pixels do, and what is left over counts, as in Caffe.

    Args:
        size: Integer, 2 or 3.
    """

    size: int = 2

    stem = "pool"

    def __str__(self):
        return "P" if self.size == 2 else f"P({self.size})"

    def __call__(self, x, name, making):
        if self.size == 3:
            # Caffe rounds up. One zero at the far edge gives its windows on
            # even sides and changes nothing on odd ones; pools follow a ReLU,
            # so that a zero never wins.
            zeros = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")
            x = Framewise(zeros, name=f"{name}_pad")(x)
        pool = layers.MaxPooling2D(self.size, 2, name=name)
        return Framewise(pool, name=name)(x)


@dataclass(frozen=True)
class FC:
    """Fully connected layer and ReLU, then dropout where that is asked for.

    Args:
        units: Integer.
        stem: String, what the layer is called before its number.
    """

    units: int
    stem: str = "fc"

    def __str__(self):
        return f"FC({self.units})"

    def __call__(self, x, name, making):
        x = layers.Dense(
            making.scaled(self.units),
            activation="relu",
            name=name,
            **making.start(name, 0.005, making.connected),
        )(x)
        if making.dropout:
            x = layers.Dropout(making.dropout, name=f"{name}_dropout")(x)
        return x


def stack(x, tokens, making, prefix="", first=1):
    """Applies a line of tokens; layers are conv1, norm1, pool1, conv2, ...

    Args:
        x: Tensor that the first token takes.
        tokens: Sequence of tokens.
        making: `Making`.
        prefix: String before every layer's name.
        first: Integer, number of the first `C` or `FC`.

    Returns:
        What the last token gives.
    """
    number = first - 1
    for token in tokens:
        number += isinstance(token, C | FC)
        x = token(x, f"{prefix}{token.stem}{number}", making)
    return x


def spell(tokens):
    """The line of some tokens, as the paper prints it.

    Args:
        tokens: Sequence of tokens.

    Returns:
        String such as `"C(96, 11, 3)-N-P"`; frames under a filter are added
        as `[T=4/2]`, extent and stride, where there are several.
    """
    return "-".join(str(token) for token in tokens)

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
        kernel_initializer: `"halving"`, a Keras initializer or its name, or
            `"krizhevsky"`: N(0, 0.01) for convolutions, N(0, 0.005) for
            `FC`, biases 1 in conv2, conv4, conv5, fc6 and fc7, else 0.

    Reference:
        Krizhevsky et al., NIPS 2012, section 5.
    """

    width: float = 1.0
    dropout: float = 0.0
    kernel_initializer: object = "halving"

    def scaled(self, count):
        return max(1, round(count * self.width))

    def start(self, name, deviation):
        """Initializers of the layer called `name`, as keyword arguments."""
        if self.kernel_initializer == "halving":
            # He's 2 / fan_in keeps the scale; a quarter of it halves that.
            scale = 2.0 / 4.0
            if name.endswith("conv1"):
                scale = 2.0 / 20.0**2
            elif name == "predictions":
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
    """Convolution and ReLU: "same" in space, "valid" in time.

    "Same" convolutions with floor pools are the one rule of Keras under which
    170, 178 and 89 pixels all end in the paper's 7 x 7 x 256.

    Args:
        filters: Integer.
        size: Integer, side of the filters in pixels.
        stride: Integer, in space.
        extent: Integer, frames under one filter: the paper's T.
        step: Integer, stride in time.
    """

    filters: int
    size: int
    stride: int = 1
    extent: int = 1
    step: int = 1

    stem = "conv"

    def __str__(self):
        still = (self.extent, self.step) == (1, 1)
        time = "" if still else f"[T={self.extent}/{self.step}]"
        return f"C({self.filters}, {self.size}, {self.stride}){time}"

    def __call__(self, x, name, making):
        if self.extent > 1 or self.step > 1:
            # (batch, time', height, width, extent x channels)
            x = StackFrames(self.extent, self.step, name=f"{name}_stack")(x)
        conv = layers.Conv2D(
            making.scaled(self.filters),
            self.size,
            self.stride,
            "same",
            activation="relu",
            name=name,  # else weights are conv2d_17/kernel, run by run
            **making.start(name, 0.01),
        )
        return Framewise(conv, name=name)(x)


@dataclass(frozen=True)
class N:
    """Local response normalisation with the paper's constants."""

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
    """Maximum over 2 x 2 pixels that do not overlap, frame by frame."""

    stem = "pool"

    def __str__(self):
        return "P"

    def __call__(self, x, name, making):
        return Framewise(layers.MaxPooling2D(2, name=name), name=name)(x)


@dataclass(frozen=True)
class FC:
    """Fully connected layer and ReLU, then dropout where that is asked for.

    Args:
        units: Integer.
    """

    units: int

    stem = "fc"

    def __str__(self):
        return f"FC({self.units})"

    def __call__(self, x, name, making):
        x = layers.Dense(
            making.scaled(self.units),
            activation="relu",
            name=name,
            **making.start(name, 0.005),
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

"""Update rules: SGD as Krizhevsky et al. write it, and rates by variable."""

import keras

register = keras.saving.register_keras_serializable(package="keras_videofusion")


class Rated(keras.optimizers.Optimizer):
    """Gives every variable its own share of an optimizer's learning rate.

    Mixed into an optimizer before its class. The rate, its schedule and what
    lowers it stay one; a variable of share 0.1 takes a tenth of each of its
    steps, and of its weight decay where that is decoupled.

    Args:
        rates: List of floats, 0 or more, a share for every variable that the
            optimizer is built with, in that order; None: all take the whole.
        *args: As for the optimizer.
        **kwargs: As for the optimizer.

    Raises:
        ValueError: If a share is negative, or there are not as many as
            variables.
    """

    def __init__(self, *args, rates=None, **kwargs):
        super().__init__(*args, **kwargs)
        if rates is not None and not all(rate >= 0 for rate in rates):
            raise ValueError(
                f"`rates` must be 0 or more. Received: rates={rates}"
            )
        # A tuple: of a list the tracker of variables makes one of its own.
        self.rates = None if rates is None else tuple(rates)

    def build(self, variables):
        if self.rates is not None and len(self.rates) != len(variables):
            raise ValueError(
                f"`rates` must be as many as variables, {len(variables)}. "
                f"Received: {len(self.rates)} rates"
            )
        super().build(variables)

    def rate_of(self, variable):
        """The share of the rate that a variable takes."""
        if self.rates is None:
            return 1.0
        return self.rates[self._get_variable_index(variable)]

    def update_step(self, gradient, variable, learning_rate):
        share = self.rate_of(variable)
        if share != 1.0:
            learning_rate = learning_rate * share
            if self.weight_decay is not None and self._use_weight_decay(
                variable
            ):
                decay = keras.ops.cast(
                    self.weight_decay * learning_rate, variable.dtype
                )
                self.assign_sub(variable, variable * decay)
        super().update_step(gradient, variable, learning_rate)

    def _apply_weight_decay(self, variables):
        # Those of another share decay in `update_step`, which knows it.
        super()._apply_weight_decay(
            [v for v in variables if self.rate_of(v) == 1.0]
        )

    def get_config(self):
        rates = self.rates and list(self.rates)
        return {**super().get_config(), "rates": rates}


@register
class RatedAdam(Rated, keras.optimizers.Adam):
    """`keras.optimizers.Adam` with a share of the rate for every variable."""


@register
class RatedAdamW(Rated, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` with a share of the rate for every variable."""


@register
class RatedRMSprop(Rated, keras.optimizers.RMSprop):
    """`keras.optimizers.RMSprop` with a share of the rate for each variable."""


@register
class KrizhevskySGD(Rated, keras.optimizers.SGD):
    """SGD whose weight decay passes through the momentum.

    With momentum m, decay d, rate r and gradient g the update of a weight is
    `v <- m v - d r w - r g`, `w <- w + v`. The `weight_decay` of Keras's own
    optimizers is decoupled instead: it shrinks `w` beside the momentum, which
    at m = 0.9 is a tenth of the strength.

    Args:
        learning_rate: Float or schedule.
        momentum: Float in [0, 1).
        decay: Float, d above. Biases and normalisation weights, all that is
            a vector, are left alone.
        **kwargs: As for `keras.optimizers.SGD`, and `rates` of `Rated`.

    Raises:
        ValueError: If `decay` is negative.

    Reference:
        Krizhevsky et al., NIPS 2012, section 5; Karpathy et al., CVPR 2014,
        section 3.3 (0.9 and 5e-4).
    """

    def __init__(
        self,
        learning_rate=1e-3,
        momentum=0.9,
        decay=5e-4,
        name="krizhevsky_sgd",
        **kwargs,
    ):
        super().__init__(
            learning_rate=learning_rate, momentum=momentum, name=name, **kwargs
        )
        if decay < 0:
            raise ValueError(f"`decay` must be 0 or more. Received: {decay=}")
        self.decay = decay

    def update_step(self, gradient, variable, learning_rate):
        if self.decay and len(variable.shape) > 1:
            weight = keras.ops.cast(variable, gradient.dtype)
            gradient = gradient + self.decay * weight
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        return {**super().get_config(), "decay": self.decay}

"""SGD as Krizhevsky et al. write it: weight decay inside the momentum."""

import keras


@keras.saving.register_keras_serializable(package="keras_videofusion")
class KrizhevskySGD(keras.optimizers.SGD):
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
        **kwargs: As for `keras.optimizers.SGD`.

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

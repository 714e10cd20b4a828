"""The loss of clips, and of networks that answer in parts."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_videofusion")
class PartsCrossentropy(keras.losses.CategoricalCrossentropy):
    """Categorical cross-entropy, of every part of a network by itself.

    A recurrent network answers at every frame, a fused one with two tops;
    each answer is held to the clip's label, and the losses are averaged. Of
    an answer in one part it is Keras's own loss.

    Args:
        class_weights: List of floats, what a clip of each class counts for;
            of several classes their mean counts. None: all count 1.
        **kwargs: As for `keras.losses.CategoricalCrossentropy`.

    Input shapes:
        Truth `(batch, classes)`; scores `(batch, classes)` or
        `(batch, parts, classes)`.

    References:
        Donahue et al., CVPR 2015, section 4.1; Carreira & Zisserman, CVPR
        2017, section 2.1; Feichtenhofer et al., CVPR 2016, section 3.4.
    """

    def __init__(self, class_weights=None, name="parts_crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.class_weights = class_weights

    def call(self, y_true, y_pred):
        if len(y_pred.shape) == len(y_true.shape):
            found = super().call(y_true, y_pred)
        else:
            parts = ops.broadcast_to(
                ops.expand_dims(y_true, 1), ops.shape(y_pred)
            )
            found = ops.mean(super().call(parts, y_pred), axis=-1)
        if self.class_weights is None:
            return found
        truth = ops.cast(y_true, found.dtype)
        weights = ops.convert_to_tensor(self.class_weights, found.dtype)
        return found * (ops.sum(truth * weights, -1) / ops.sum(truth, -1))

    def get_config(self):
        return {**super().get_config(), "class_weights": self.class_weights}


@keras.saving.register_keras_serializable(package="keras_videofusion")
class PartsBinaryCrossentropy(keras.losses.BinaryCrossentropy):
    """Binary cross-entropy of every class, for clips that show several.

    The mean over the classes; of a network that answers in parts, the mean
    over them too.

    Args:
        class_weights: List of floats, what each class's own term counts for.
            None: all count 1.
        **kwargs: As for `keras.losses.BinaryCrossentropy`.

    Input shapes:
        Truth `(batch, classes)`, 1 for every true class; scores `(batch,
        classes)` or `(batch, parts, classes)`.
    """

    def __init__(
        self, class_weights=None, name="parts_binary_crossentropy", **kwargs
    ):
        super().__init__(name=name, **kwargs)
        self.class_weights = class_weights

    def call(self, y_true, y_pred):
        if len(y_pred.shape) > len(y_true.shape):
            y_true = ops.broadcast_to(
                ops.expand_dims(y_true, 1), ops.shape(y_pred)
            )
        # Keras's own loss takes the mean over the last axis: here of one.
        found = super().call(
            ops.expand_dims(y_true, -1), ops.expand_dims(y_pred, -1)
        )
        if self.class_weights is not None:
            found *= ops.convert_to_tensor(self.class_weights, found.dtype)
        return ops.mean(found, axis=tuple(range(1, len(found.shape))))

    def get_config(self):
        return {**super().get_config(), "class_weights": self.class_weights}

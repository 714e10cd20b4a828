"""What a network costs: parameters and multiply-adds, counted by layer."""

import math

import keras

from keras_videofusion.layers import Framewise, SelfGating


def parameters(model):
    """Weights of a network that training changes.

    Args:
        model: `keras.Model`.

    Returns:
        Integer.
    """
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def macs(model):
    """Multiply-adds that one clip costs.

    Convolutions and fully connected layers alone are counted, taps on padding
    included; normalisation, pooling and activations are not.

    Args:
        model: `keras.Model` of known input shape.

    Returns:
        Integer.

    Raises:
        ValueError: If the model's shapes are not known.
    """
    return sum(
        macs(layer) if isinstance(layer, keras.Model) else _layer_macs(layer)
        for layer in model.layers
    )


def _layer_macs(layer):
    weighted = layer.layer if isinstance(layer, Framewise) else layer
    if isinstance(weighted, SelfGating):
        return math.prod(weighted.kernel.shape)  # once for the whole clip
    if isinstance(weighted, keras.layers.LSTM):
        cell = weighted.cell
        steps = layer.input.shape[1]
        return steps * sum(
            math.prod(kernel.shape)
            for kernel in (cell.kernel, cell.recurrent_kernel)
        )
    kinds = (keras.layers.Dense, keras.layers.Conv2D, keras.layers.Conv3D)
    if not isinstance(weighted, kinds):
        return 0
    shape = layer.output.shape[1:-1]
    if None in shape:
        raise ValueError(
            "multiply-adds need a network of known input shape. "
            f"Received: layer {layer.name} of output shape {layer.output.shape}"
        )
    # Every output point costs each weight of the kernel once.
    return math.prod(shape) * math.prod(weighted.kernel.shape)

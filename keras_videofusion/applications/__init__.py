"""The networks, as `keras.applications` offers its own.

Every builder takes, in this order:

    include_top: Whether the top and `predictions` are built. Without them
        the network ends in its last feature map, of shape
        `(batch, time, height, width, channels)`, and height and width of the
        input may be left open, as time may where the network allows it.
    weights: None (random), the path of a `.weights.h5` or `.keras` file, or
        the name of a published set where there is one.
    input_tensor: Keras tensor to build upon, or None; of two streams a dict.
    input_shape: `(time, height, width, channels)`; of two streams a dict
        `{"rgb": ..., "flow": ...}`; of vectors `(size,)`. Time is the
        network's own in those of Karpathy et al. and the two-stream ones,
        where it is built in.
    pooling: None, `"avg"` or `"max"`, over all of the last map, where there
        is no top.
    classes: Integer; published weights bring their own number if it is left
        at its default.
    classifier_activation: Activation of `predictions`; None for logits.
    name: The model's name.

and by keyword alone:

    include_preprocessing: Whether the first layer scales raw RGB pixels
        0..255, and flow in pixels per frame, as the network's authors do.
    width: Float, share of filters and units, `max(1, round(n * width))`.
    dropout: Float, rate before, or among, the fully connected layers.
    kernel_initializer: `"authors"` (what the network's source states),
        `"halving"`, `"krizhevsky"`, or a Keras initializer: see
        `keras_videofusion.applications.notation.Making`.
"""

import fnmatch
import gc
from collections import namedtuple

from keras_videofusion.applications import (
    c3d,
    cnn_lstm,
    feature_net,
    fused_two_stream,
    fusion,
    i3d,
    two_stream,
)
from keras_videofusion.applications.assembly import clip_for
from keras_videofusion.applications.c3d import C3D
from keras_videofusion.applications.cnn_lstm import InceptionLSTM, LRCN
from keras_videofusion.applications.costs import macs, parameters
from keras_videofusion.applications.feature_net import FeatureMLP
from keras_videofusion.applications.fused_two_stream import FusedTwoStream
from keras_videofusion.applications.fusion import (
    EarlyFusion,
    LateFusion,
    SingleFrame,
    SlowFusion,
)
from keras_videofusion.applications.i3d import I3D, TwoStreamI3D
from keras_videofusion.applications.inflation import inflate
from keras_videofusion.applications.labels import (
    class_names,
    decode_predictions,
    sports1m_classes,
)
from keras_videofusion.applications.multiresolution import (
    ContextSingleFrame,
    FoveaSingleFrame,
    MultiresEarlyFusion,
    MultiresLateFusion,
    MultiresSingleFrame,
    MultiresSlowFusion,
    ONE_178,
    TEN_178,
    TWO_178,
)
from keras_videofusion.applications.s3d import (
    BottomHeavyI3D,
    I2D,
    S3D,
    S3DG,
    TopHeavyI3D,
    TwoStreamS3DG,
)
from keras_videofusion.applications.two_stream import (
    SpatialStream,
    TemporalStream,
    TwoStream,
)
from keras_videofusion.applications.weights import WEIGHTS
from keras_videofusion.data.vectors import VectorSpec

__all__ = [
    "C3D",
    "I2D",
    "I3D",
    "LRCN",
    "MODELS",
    "S3D",
    "S3DG",
    "BottomHeavyI3D",
    "ContextSingleFrame",
    "EarlyFusion",
    "FeatureMLP",
    "FoveaSingleFrame",
    "FusedTwoStream",
    "InceptionLSTM",
    "LateFusion",
    "MultiresEarlyFusion",
    "MultiresLateFusion",
    "MultiresSingleFrame",
    "MultiresSlowFusion",
    "SingleFrame",
    "SlowFusion",
    "SpatialStream",
    "TemporalStream",
    "TopHeavyI3D",
    "TwoStream",
    "TwoStreamI3D",
    "TwoStreamS3DG",
    "class_names",
    "clip_spec",
    "costs_table",
    "decode_predictions",
    "get_model",
    "inflate",
    "list_models",
    "macs",
    "parameters",
    "preprocess_input",
    "sports1m_classes",
]

# Arguments are the builder's own that the name stands for; training, those
# under which it is trained.
Entry = namedtuple(
    "Entry", ["builder", "spec", "arguments", "training"], defaults=({}, {})
)

FLOW, APART = {"modality": "flow"}, {"apart": True}

# fmt: off
MODELS = {
    "single_frame":          Entry(SingleFrame, fusion.ONE),
    "early_fusion":          Entry(EarlyFusion, fusion.TEN),
    "late_fusion":           Entry(LateFusion, fusion.TWO),
    "slow_fusion":           Entry(SlowFusion, fusion.TEN),
    "multires_single_frame": Entry(MultiresSingleFrame, ONE_178),
    "multires_early_fusion": Entry(MultiresEarlyFusion, TEN_178),
    "multires_late_fusion":  Entry(MultiresLateFusion, TWO_178),
    "multires_slow_fusion":  Entry(MultiresSlowFusion, TEN_178),
    "fovea_single_frame":    Entry(FoveaSingleFrame, ONE_178),
    "context_single_frame":  Entry(ContextSingleFrame, ONE_178),
    "feature_mlp":           Entry(FeatureMLP, feature_net.HISTOGRAMS),
    "lrcn":                  Entry(LRCN, cnn_lstm.RGB, {}, APART),
    "lrcn_flow":             Entry(LRCN, cnn_lstm.FLOW, FLOW, APART),
    "inception_lstm":        Entry(InceptionLSTM, cnn_lstm.LONG, {}, APART),
    "c3d":                   Entry(C3D, c3d.CLIP),
    "spatial_stream":        Entry(SpatialStream, two_stream.RGB),
    "temporal_stream":       Entry(TemporalStream, two_stream.FLOW),
    "two_stream":            Entry(TwoStream, two_stream.BOTH),
    "fused_two_stream":      Entry(FusedTwoStream, fused_two_stream.CLIP),
    "i3d":                   Entry(I3D, i3d.RGB),
    "i3d_flow":              Entry(I3D, i3d.FLOW, FLOW),
    "two_stream_i3d":        Entry(TwoStreamI3D, i3d.BOTH),
    "i2d":                   Entry(I2D, i3d.RGB),
    "bottom_heavy_i3d":      Entry(BottomHeavyI3D, i3d.RGB),
    "top_heavy_i3d":         Entry(TopHeavyI3D, i3d.RGB),
    "s3d":                   Entry(S3D, i3d.RGB),
    "s3dg":                  Entry(S3DG, i3d.RGB),
    "s3dg_flow":             Entry(S3DG, i3d.FLOW, FLOW),
    "two_stream_s3dg":       Entry(TwoStreamS3DG, i3d.BOTH),
}
# fmt: on


def list_models(filter=None):
    """Names of the networks.

    Args:
        filter: Shell pattern such as `"multires_*"`, or None for all.

    Returns:
        List of strings, in the order of the papers.
    """
    return fnmatch.filter(MODELS, filter or "*")


def _entry(name):
    if name not in MODELS:
        raise ValueError(
            f"`name` must be one of {', '.join(MODELS)}. "
            f"Received: name={name!r}"
        )
    return MODELS[name]


def get_model(name, **kwargs):
    """Builds the network of that name.

    Args:
        name: String of `list_models()`.
        **kwargs: The builder's arguments.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If the name is unknown or an argument wrong.
    """
    entry = _entry(name)
    return entry.builder(**{"name": name, **entry.arguments, **kwargs})


def clip_spec(name, weights=None):
    """What the network of that name must be fed.

    Args:
        name: String of `list_models()`.
        weights: The builder's argument: published weights may have been
            trained on other clips than the paper's.

    Returns:
        `keras_videofusion.data.clips.ClipSpec`, or of a network of vectors
        `keras_videofusion.data.vectors.VectorSpec`.

    Raises:
        ValueError: If the name is unknown.
    """
    return clip_for(name, weights, _entry(name).spec)


def costs_table():
    """What every network is fed and costs, counted by building it.

    Returns:
        List of dicts `{name, parameters, macs, frames, size, weights}`;
        parameters and multiply-adds at full width; frames are fields where a
        network eats flow alone, and None where it is fed vectors, whose
        length is `size`.
    """
    rows = []
    for name, entry in MODELS.items():
        gc.collect()  # a Keras model is a cycle; ten of these are 4 GB
        model = get_model(name, kernel_initializer="zeros")
        vectors = isinstance(entry.spec, VectorSpec)
        frames, *_ = entry.spec.shapes[entry.spec.streams[0]]
        rows.append(
            {
                "name": name,
                "parameters": parameters(model),
                "macs": macs(model),
                "frames": None if vectors else frames,
                "size": [frames] if vectors else list(entry.spec.size),
                "weights": list(WEIGHTS.get(name, ())),
            }
        )
    return rows


def preprocess_input(x, data_format=None):
    """Returns its argument: the networks scale raw pixels themselves.

    It exists so that code written for `keras.applications` runs unchanged.

    Args:
        x: Clips, RGB 0..255, of shape `(batch, time, height, width, 3)`.
        data_format: None or `"channels_last"`.

    Returns:
        `x`.

    Raises:
        ValueError: If `data_format` is anything else.
    """
    if data_format not in (None, "channels_last"):
        raise ValueError(
            "Expected data_format to be None or 'channels_last'. "
            f"Received: data_format={data_format!r}"
        )
    return x

"""Hit@k of clips while a network trains."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_videofusion")
class HitAtK(keras.metrics.MeanMetricWrapper):
    """Share of clips with a true class among the `k` highest scores.

    The truth is a row per clip with more than 0 at every true class, so it
    serves for one label and for several; it counts as
    `keras_videofusion.evaluation.metrics.hit_at_k` does.

    Args:
        k: Integer, at least 1.
        name: String; `hit_at_<k>` if not given.
        dtype: As for every Keras metric.

    Raises:
        ValueError: If `k` is less than 1.

    Reference:
        Karpathy et al., CVPR 2014, table 1.
    """

    def __init__(self, k=1, name=None, dtype=None):
        if k < 1:
            raise ValueError(f"`k` must be 1 or more. Received: {k=}")
        super().__init__(hits, name or f"hit_at_{k}", dtype=dtype, k=k)
        self.k = k
        self._direction = "up"

    def get_config(self):
        return {"k": self.k, "name": self.name, "dtype": self.dtype}


def hits(truth, scores, k):
    """1.0 for every clip that has a true class among its `k` best, else 0.0.

    Args:
        truth: Tensor of shape `(clips, classes)`, more than 0 where true.
        scores: Tensor of shape `(clips, classes)`, or `(clips, parts,
            classes)`, whose mean over the parts counts.
        k: Integer; all classes count if it exceeds their number.

    Returns:
        Float32 tensor of shape `(clips,)`.
    """
    k = min(k, scores.shape[-1])
    if len(scores.shape) == 3:
        scores = ops.mean(scores, axis=1)
    _, best = ops.top_k(ops.cast(scores, "float32"), k)
    found = ops.take_along_axis(ops.cast(truth > 0, "float32"), best, axis=-1)
    return ops.max(found, axis=-1)

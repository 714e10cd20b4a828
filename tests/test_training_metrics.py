"""HitAtK against a plain loop, and against evaluation's own figure."""

import keras
import numpy as np
import pytest

from keras_videofusion.evaluation.metrics import hit_at_k
from keras_videofusion.training.metrics import HitAtK


@pytest.mark.parametrize("k", [1, 2, 5])
def test_it_equals_a_plain_loop_and_evaluation(k):
    rng = np.random.default_rng(k)
    scores = rng.random((40, 7)).astype("float32")
    truth = rng.random((40, 7)) < 0.25
    metric = HitAtK(k)
    for part in np.split(np.arange(40), [13, 20]):
        shares = truth[part] / np.maximum(truth[part].sum(1, keepdims=True), 1)
        metric.update_state(shares, scores[part])
    plain = np.mean(
        [
            any(row[c] for c in np.argsort(-s)[:k])
            for row, s in zip(truth, scores, strict=True)
        ]
    )
    assert float(metric.result()) == pytest.approx(plain, abs=1e-6)
    assert hit_at_k(truth, scores, k) == pytest.approx(plain, abs=1e-6)


def test_k_beyond_the_classes_counts_them_all():
    metric = HitAtK(5)
    metric.update_state(np.eye(3, dtype="float32"), np.eye(3, dtype="float32"))
    assert float(metric.result()) == 1.0


def test_config_round_trip():
    metric = keras.metrics.deserialize(keras.metrics.serialize(HitAtK(3)))
    assert (metric.k, metric.name) == (3, "hit_at_3")


def test_k_of_zero_is_refused():
    with pytest.raises(ValueError, match="`k` must be 1 or more"):
        HitAtK(0)

"""Published weights, converted under any backend, give their peers' logits.

The files are those of `tests/test_releases.py`: in the layouts of torch and of
TensorFlow, filled by rule.
"""

import numpy as np
import pytest
from keras import ops
from test_oracles import TOLERANCE
from test_releases import (
    i3d,
    oracle,
    published,  # noqa: F401
    s3d,
    written,  # noqa: F401
)


@pytest.mark.parametrize(
    ("build", "arguments", "stem"),
    [
        (s3d, {}, "torchvision_s3d_16x64x64"),
        (i3d, {}, "deepmind_i3d_rgb_16x64x64"),
        (
            i3d,
            {"input_shape": (16, 64, 64, 2), "modality": "flow"},
            "deepmind_i3d_flow_16x64x64",
        ),
    ],
    ids=["s3d", "i3d", "i3d_flow"],
)
@pytest.mark.usefixtures("published")
def test_published_weights_give_their_peers_logits(build, arguments, stem):
    clip, wanted = oracle(stem)

    logits = ops.convert_to_numpy(build(**arguments)(clip))

    far = np.abs(logits[:, : wanted.shape[-1]] - wanted).max()
    assert far <= TOLERANCE * np.abs(logits).max()

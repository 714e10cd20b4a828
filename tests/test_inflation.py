"""Inflated networks against their parents, layer by layer, on still videos.

Not on the logits: every answer of a deep network has zeros before and after
the clip in its view.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_videofusion import applications
from keras_videofusion.applications import inflate

draw = np.random.default_rng(0)


def filled(model):
    for weight in model.weights:
        value = draw.normal(0, 0.3, weight.shape)
        weight.assign(np.abs(value) if "variance" in weight.name else value)
    return model


def array(x):
    return ops.convert_to_numpy(x)


def small_inception(builder, **own):
    return builder(
        width=0.1,
        classes=5,
        input_shape=(9, 32, 32, 3),
        kernel_initializer="he_normal",
        **own,
    )


def convolutions(model):
    return [x for x in model.layers if isinstance(x, layers.Conv3D)]


def test_every_filter_of_i3d_answers_to_a_still_as_its_parent():
    parent = filled(small_inception(applications.I2D))
    heir = small_inception(applications.I3D)

    left = inflate(parent, heir)

    assert left == []
    for layer in convolutions(heir):
        before = parent.get_layer(layer.name)
        frame = draw.normal(size=(1, 1, 8, 8, layer.kernel.shape[-2]))
        still = np.repeat(frame, 15, axis=1).astype("float32")
        # Frames whose windows lie inside the clip.
        ours = array(layer(still))
        inner = ours[:, len(ours[0]) // 2]
        theirs = array(before(still))[:, 0]
        np.testing.assert_allclose(inner, theirs, atol=1e-4, err_msg=layer.name)


def test_filters_that_are_not_divided_would_be_told():
    parent = filled(small_inception(applications.I2D))
    heir = small_inception(applications.I3D)
    inflate(parent, heir)

    kernel = array(heir.get_layer("mixed_4b_b1b").kernel)

    flat = array(parent.get_layer("mixed_4b_b1b").kernel)
    assert kernel.shape[0] == 3
    np.testing.assert_allclose(kernel.sum(0), flat[0], atol=1e-6)
    np.testing.assert_array_equal(kernel[0], kernel[2])


def test_what_is_no_filter_is_copied():
    parent = filled(small_inception(applications.I2D))
    heir = small_inception(applications.I3D)

    inflate(parent, heir)

    for name in ("conv_1a_bn", "mixed_5c_b3_bn", "logits"):
        for ours, theirs in zip(
            heir.get_layer(name).weights,
            parent.get_layer(name).weights,
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_separable_networks_start_as_their_parent_and_name_what_is_new():
    parent = filled(small_inception(applications.I2D))
    heir = applications.S3D(
        width=0.1, classes=5, input_shape=(9, 32, 32, 3), conv1=1
    )

    left = inflate(parent, heir)

    assert left == [x.name for x in convolutions(heir) if x.name[-2:] == "_t"]
    # Filters in time start as the identity: the two networks are one.
    clip = draw.uniform(0, 255, (2, 9, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(
        array(heir(clip)), array(parent(clip)), atol=1e-5
    )


@pytest.mark.parametrize("name", ["SlowFusion", "EarlyFusion"])
def test_fusion_answers_to_a_still_as_single_frame(name):
    """No zeros before and after the clip here: the logits agree."""
    small = {"width": 0.1, "classes": 5, "classifier_activation": None}
    parent = filled(
        applications.SingleFrame(input_shape=(1, 48, 48, 3), **small)
    )
    heir = getattr(applications, name)(input_shape=(10, 48, 48, 3), **small)

    left = inflate(parent, heir)

    assert left == []
    frame = draw.uniform(0, 255, (2, 1, 48, 48, 3)).astype("float32")
    still = np.repeat(frame, 10, axis=1)
    expected = array(parent(frame))
    near = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(array(heir(still)), expected, atol=near)


def test_first_filters_over_flow_get_the_mean_over_colours():
    parent = filled(small_inception(applications.I2D))
    heir = applications.I3D(
        width=0.1, classes=5, input_shape=(9, 32, 32, 2), modality="flow"
    )

    left = inflate(parent, heir)

    assert left == []
    kernel = array(heir.get_layer("conv_1a").kernel)
    flat = array(parent.get_layer("conv_1a").kernel)[0]
    for channel in range(2):
        np.testing.assert_allclose(
            kernel[:, :, :, channel].sum(0), flat.mean(axis=2), atol=1e-5
        )


def test_images_inflate_under_other_names():
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(6, 7, 2, "same", use_bias=False, name="first")(image)
    parent = filled(keras.Model(image, x))
    heir = small_inception(applications.I3D)

    left = inflate(parent, heir, {"first": "conv_1a"}.get)

    assert "conv_1a" not in left
    assert "conv_1a_bn" in left
    np.testing.assert_allclose(
        array(heir.get_layer("conv_1a").kernel).sum(0),
        array(parent.get_layer("first").kernel),
        atol=1e-5,
    )


def test_a_top_for_other_classes_is_left_and_named():
    parent = filled(small_inception(applications.I2D))
    heir = applications.I3D(width=0.1, classes=7, input_shape=(9, 32, 32, 3))
    before = array(heir.get_layer("logits").kernel)

    assert inflate(parent, heir) == ["logits"]
    np.testing.assert_array_equal(heir.get_layer("logits").kernel, before)


def test_networks_without_a_common_layer_are_refused():
    with pytest.raises(ValueError, match=r"pass `names`.*Received: source"):
        inflate(
            small_inception(applications.I2D),
            applications.SingleFrame(
                width=0.1, classes=5, input_shape=(1, 48, 48, 3)
            ),
        )

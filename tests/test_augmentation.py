"""Crops and flips: one draw per clip, functions and layers alike."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_videofusion.data.augmentation import (
    center_crop,
    CenterClipCrop,
    ClipPasses,
    crop,
    flip,
    random_colour,
    random_crop,
    random_crop_flip,
    RandomClipCrop,
    RandomClipFlip,
    test_passes,
)

SIZE = (5, 7)


def numbered(*shape):
    """Bytes of which every pixel tells its place in the frame."""
    rows, columns = np.indices(shape[-3:-1])
    frame = np.stack([rows, columns, rows * columns % 251], -1)
    return np.broadcast_to(frame, shape).astype(np.uint8).copy()


def clips_of(count, frames=4, height=9, width=12):
    """Random clips whose frames all differ."""
    generator = np.random.default_rng(0)
    return generator.integers(
        0, 256, (count, frames, height, width, 3), np.uint8
    )


def window_of(clip, found):
    """(top, left, mirrored) of the window, looked for among all; slow."""
    height, width = clip.shape[1:3]
    tall, wide = found.shape[1:3]
    (place,) = (
        (top, left, mirrored)
        for top in range(height - tall + 1)
        for left in range(width - wide + 1)
        for mirrored in (False, True)
        if all(
            np.array_equal(
                [
                    [
                        frame[top + y, left + (wide - 1 - x if mirrored else x)]
                        for x in range(wide)
                    ]
                    for y in range(tall)
                ],
                seen,
            )
            for frame, seen in zip(clip, found, strict=True)
        )
    )
    return place


# Functions.


def test_crop_takes_the_window():
    found = crop(numbered(2, 9, 12, 3), 3, 1, (2, 4))
    assert found.shape == (2, 2, 4, 3)
    assert found[1, 0, 0].tolist() == [3, 1, 3]
    assert found[0, 1, 3].tolist() == [4, 4, 16]


def test_flip_exchanges_left_and_right():
    clip = numbered(2, 3, 4, 3)
    assert flip(clip)[0, 1, :, 1].tolist() == [3, 2, 1, 0]
    np.testing.assert_array_equal(flip(flip(clip)), clip)


@pytest.mark.parametrize(
    ("size", "corner"), [((5, 7), (2, 2)), ((4, 12), (2, 0)), ((9, 1), (0, 5))]
)
def test_center_crop_takes_the_middle(size, corner):
    found = center_crop(numbered(1, 9, 12, 3), size)
    assert tuple(found[0, 0, 0, :2]) == corner


def test_random_crops_reach_every_window():
    generator = np.random.default_rng(0)
    clip = numbered(1, 7, 9, 3)
    corners = {
        tuple(random_crop(clip, SIZE, generator)[0, 0, 0, :2])
        for _ in range(300)
    }
    assert corners == {(top, left) for top in range(3) for left in range(3)}


def test_random_crop_flip_draws_once_per_clip():
    generator = np.random.default_rng(0)
    (clip,) = clips_of(1)
    places = [
        window_of(clip, random_crop_flip(clip, SIZE, generator))
        for _ in range(60)
    ]
    mirrored = sum(place[2] for place in places)
    assert 15 < mirrored < 45
    assert len({place[:2] for place in places}) > 20


def test_the_generator_decides():
    (clip,) = clips_of(1)
    first, again = (
        random_crop_flip(clip, SIZE, np.random.default_rng(5)) for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)


def test_test_passes_are_the_centre_and_a_window_each_mirrored_too():
    (clip,) = clips_of(1)
    passes = test_passes(clip, SIZE, np.random.default_rng(1))
    assert passes.shape == (4, 4, *SIZE, 3)
    assert passes.dtype == np.uint8
    places = [window_of(clip, view) for view in passes]
    assert places[0] == (2, 2, False)
    assert places[1] == (2, 2, True)
    assert places[2][:2] == places[3][:2]
    assert [place[2] for place in places[2:]] == [False, True]


# Streams.


def two_streams(height=9, width=12):
    """A clip whose streams both tell every pixel's row and column."""
    rgb = numbered(4, height, width, 3)
    # A column stands for its displacement: 1 is -127, 255 is +127.
    return {"rgb": rgb, "flow": rgb[:3, ..., :2][..., ::-1] + 1}


def test_flip_negates_the_x_of_flow():
    generator = np.random.default_rng(0)
    values = generator.uniform(-20, 20, (3, 4, 5, 2))
    found = flip(values)
    for x in range(5):
        np.testing.assert_array_equal(found[..., x, 0], -values[..., 4 - x, 0])
        np.testing.assert_array_equal(found[..., x, 1], values[..., 4 - x, 1])


def test_flip_takes_the_bytes_of_flow_from_256():
    u = np.arange(1, 256, dtype=np.uint8).reshape(1, 1, 255, 1)
    clip = np.concatenate([u, u], axis=-1)
    found = flip(clip)
    assert found.dtype == np.uint8
    assert found[0, 0, :, 0].tolist() == [256 - v for v in range(255, 0, -1)]
    assert found[0, 0, :, 1].tolist() == list(range(255, 0, -1))
    np.testing.assert_array_equal(flip(found), clip)
    assert clip[0, 0, 0].tolist() == [1, 1]


def test_streams_of_a_clip_are_cut_and_mirrored_alike():
    generator = np.random.default_rng(0)
    seen = set()
    for _ in range(40):
        clip = random_crop_flip(two_streams(), SIZE, generator)
        rows, columns = clip["rgb"][0, ..., 0], clip["rgb"][0, ..., 1]
        mirrored = columns[0, 0] > columns[0, -1]
        seen.add((int(rows[0, 0]), int(columns.min()), bool(mirrored)))
        x, y = clip["flow"][0, ..., 0], clip["flow"][0, ..., 1]
        np.testing.assert_array_equal(y, rows + 1)
        expected = 256 - (columns.astype(int) + 1) if mirrored else columns + 1
        np.testing.assert_array_equal(x, expected)
    assert len(seen) > 15


def test_passes_of_two_streams_agree():
    views = test_passes(two_streams(), SIZE, np.random.default_rng(3))
    assert views["rgb"].shape == (4, 4, *SIZE, 3)
    assert views["flow"].shape == (4, 3, *SIZE, 2)
    for place in range(4):
        rows = views["rgb"][place, 0, ..., 0]
        np.testing.assert_array_equal(views["flow"][place, 0, ..., 1], rows + 1)
    corner = center_crop(two_streams(), SIZE)
    for name, stream in corner.items():
        np.testing.assert_array_equal(views[name][0], stream)


def test_flow_has_no_colour():
    clip = two_streams()
    found = random_colour(clip, 0.5, np.random.default_rng(0))
    assert (found["rgb"] != clip["rgb"]).any()
    assert found["flow"] is clip["flow"]
    alone = random_colour(clip["flow"], 0.5, np.random.default_rng(0))
    assert alone is clip["flow"]


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_layers_flip_flow_as_the_function_does(dtype):
    clips = np.stack([two_streams()["flow"]] * 2).astype(dtype)
    mirrored = RandomClipFlip(1.0, flow=True)(clips, training=True)
    np.testing.assert_array_equal(mirrored, flip(clips))
    views = np.asarray(ClipPasses((9, 12), flow=True)(clips))
    np.testing.assert_array_equal(views[:, 1], flip(clips))
    np.testing.assert_array_equal(views[:, 0], clips)
    plain = RandomClipFlip(1.0)(clips, training=True)
    np.testing.assert_array_equal(plain, clips[..., ::-1, :])


def test_layers_of_flow_survive_their_config_and_refuse_colours():
    for layer in (RandomClipFlip(flow=True), ClipPasses(4, flow=True)):
        again = type(layer).from_config(layer.get_config())
        assert again.flow is True
    with pytest.raises(ValueError, match=r"two channels, x and y.*3\)"):
        RandomClipFlip(1.0, flow=True)(clips_of(1), training=True)


@pytest.mark.parametrize(("top", "left"), [(-1, 0), (0, -1), (5, 0), (0, 6)])
def test_windows_out_of_the_frame_are_refused(top, left):
    with pytest.raises(ValueError, match=r"must lie in the frame of 9 x 12"):
        crop(numbered(1, 9, 12, 3), top, left, SIZE)


@pytest.mark.parametrize("function", [center_crop, random_crop])
def test_windows_larger_than_the_frame_are_refused(function):
    arguments = [numbered(1, 9, 12, 3), (10, 7)]
    if function is random_crop:
        arguments.append(np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"frame of 9 x 12"):
        function(*arguments)


# Layers.

LAYERS = {
    "centre": lambda: CenterClipCrop(SIZE),
    "crop": lambda: RandomClipCrop(SIZE, seed=3),
    "flip": lambda: RandomClipFlip(seed=3),
}
layers = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)


def expected_shape(layer, shape):
    size = SIZE if hasattr(layer, "size") else shape[-3:-1]
    return (*shape[:-3], *size, shape[-1])


@layers
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("rank", [4, 5])
def test_layers_keep_dtype_and_rank(layer, dtype, training, rank):
    layer = layer()
    clips = clips_of(3).astype(dtype)
    clips = clips if rank == 5 else clips[0]
    found = layer(clips, training=training)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    assert found.shape == expected_shape(layer, clips.shape)
    assert layer.compute_output_shape(clips.shape) == found.shape


def test_the_centre_layer_agrees_with_the_function():
    clips = clips_of(3)
    for training in (False, True):
        np.testing.assert_array_equal(
            CenterClipCrop(SIZE)(clips, training=training),
            center_crop(clips, SIZE),
        )


def test_random_layers_rest_out_of_training():
    clips = clips_of(3)
    np.testing.assert_array_equal(
        RandomClipCrop(SIZE)(clips), center_crop(clips, SIZE)
    )
    np.testing.assert_array_equal(RandomClipFlip(1.0)(clips), clips)


def test_the_crop_layer_draws_one_window_per_clip():
    clips = clips_of(30, frames=3, height=7, width=9)
    found = np.asarray(RandomClipCrop(SIZE, seed=0)(clips, training=True))
    places = {window_of(c, f) for c, f in zip(clips, found, strict=True)}
    assert {place[2] for place in places} == {False}
    assert len(places) > 6


def test_the_crop_layer_reaches_every_window_of_a_single_clip():
    layer = RandomClipCrop(SIZE, seed=0)
    clip = numbered(2, 7, 9, 3)
    corners = {
        tuple(np.asarray(layer(clip, training=True))[0, 0, 0, :2])
        for _ in range(100)
    }
    assert len(corners) == 9


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_the_flip_layer_mirrors_whole_clips_at_its_rate(rate):
    clips = clips_of(200, frames=2, height=3, width=4)
    found = np.asarray(RandomClipFlip(rate, seed=1)(clips, training=True))
    mirrored = [window_of(c, f)[2] for c, f in zip(clips, found, strict=True)]
    assert np.mean(mirrored) == pytest.approx(rate, abs=0.1)


@pytest.mark.parametrize("name", ["crop", "flip"])
def test_seeds_repeat_and_calls_differ(name):
    clips = clips_of(20)
    first, again = LAYERS[name](), LAYERS[name]()
    one, two = first(clips, training=True), again(clips, training=True)
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, first(clips, training=True))


@layers
def test_layers_work_in_a_model_and_come_back_from_a_file(layer, tmp_path):
    layer = layer()
    inputs = keras.Input((4, 9, 12, 3), dtype="uint8")
    model = keras.Model(inputs, layer(inputs))
    clips = clips_of(3)
    expected = expected_shape(layer, clips.shape)
    assert model.output_shape == (None, *expected[1:])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        again.predict(clips, verbose=0), model.predict(clips, verbose=0)
    )
    assert again.layers[-1].get_config() == layer.get_config()


def test_layers_work_where_sizes_are_unknown():
    inputs = keras.Input((None, None, None, 3), dtype="uint8")
    model = keras.Model(inputs, RandomClipFlip()(RandomClipCrop(SIZE)(inputs)))
    found = model(clips_of(2), training=True)
    assert found.shape == (2, 4, *SIZE, 3)


@layers
@pytest.mark.parametrize("batched", [False, True])
def test_layers_work_in_tf_data(layer, batched):
    layer = layer()
    clips = clips_of(4)
    dataset = tf.data.Dataset.from_tensor_slices(clips)
    if batched:
        dataset = dataset.batch(2)
    dataset = dataset.map(lambda clip: layer(clip, training=True))
    found = [part.numpy() for part in dataset]
    shape = clips[:2].shape if batched else clips[0].shape
    assert found[0].shape == expected_shape(layer, shape)
    assert found[0].dtype == np.uint8


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_bytes_stay_bytes_under_a_mixed_policy(policy):
    layer = RandomClipCrop(SIZE, dtype=policy)
    found = layer(clips_of(2), training=True)
    assert keras.backend.standardize_dtype(found.dtype) == "uint8"


@layers
@pytest.mark.parametrize("shape", [(9, 3), (9, 12, 3), (1, 2, 4, 9, 12, 3)])
def test_other_ranks_are_refused_by_name(layer, shape):
    layer = layer()
    with pytest.raises(
        ValueError, match=rf"{type(layer).__name__} takes a clip of shape"
    ):
        layer(np.zeros(shape, np.uint8), training=True)


@pytest.mark.parametrize("kind", [CenterClipCrop, RandomClipCrop])
def test_layers_refuse_a_size_larger_than_the_frame(kind):
    with pytest.raises(ValueError, match=r"must not exceed .* 9 x 12"):
        kind((10, 5))(clips_of(1), training=True)


@pytest.mark.parametrize("size", [0, (3,), (3, 4, 5), (2.5, 3), "ab"])
def test_layers_refuse_a_size_that_is_none(size):
    with pytest.raises(ValueError, match=r"`size` must be"):
        CenterClipCrop(size)


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_flips_refuse_a_rate_out_of_range(rate):
    with pytest.raises(ValueError, match=r"`rate` must be in \[0, 1\]"):
        RandomClipFlip(rate)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_colours_change_alike_in_all_frames(strength):
    clip = np.random.default_rng(1).integers(0, 256, (3, 4, 5, 3), np.uint8)
    found = random_colour(clip, strength, np.random.default_rng(2))
    draws = np.random.default_rng(2)
    gain = draws.uniform(1 - strength, 1 + strength, 3)
    shift = draws.uniform(-80 * strength, 80 * strength, 3)
    for index in np.ndindex(clip.shape):
        c = index[-1]
        value = 117 + gain[c] * (float(clip[index]) - 117) + shift[c]
        assert found[index] == min(255, max(0, round(value)))
    assert found.dtype == np.uint8
    assert np.array_equal(found, clip) == (strength == 0)


@pytest.mark.parametrize("training", [False, True])
def test_the_passes_layer_gives_the_functions_views(training):
    clips = np.stack([numbered(2, 9, 12, 3)] * 6)
    views = np.asarray(ClipPasses(SIZE, seed=3)(clips, training=training))
    assert views.shape == (6, 4, 2, *SIZE, 3)
    for clip, four in zip(clips, views, strict=True):
        np.testing.assert_array_equal(four[0], center_crop(clip, SIZE))
        np.testing.assert_array_equal(four[1], flip(four[0]))
        np.testing.assert_array_equal(four[3], flip(four[2]))
        windows = [
            crop(clip, top, left, SIZE)
            for top in range(9 - SIZE[0] + 1)
            for left in range(12 - SIZE[1] + 1)
        ]
        assert any(np.array_equal(four[2], window) for window in windows)
    assert len({four[2].tobytes() for four in views}) > 1


def test_the_passes_layer_takes_one_clip_and_comes_back(tmp_path):
    clip = keras.Input((2, 9, 12, 3), dtype="uint8")
    model = keras.Model(clip, ClipPasses(SIZE)(clip))
    assert model.output_shape == (None, 4, 2, *SIZE, 3)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.output_shape == model.output_shape
    one = ClipPasses(SIZE)(numbered(2, 9, 12, 3))
    assert tuple(one.shape) == (4, 2, *SIZE, 3)

"""video_dataset_from_directory: Keras's image utility, for videos."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_videofusion.data.directory import video_dataset_from_directory
from keras_videofusion.data.video import decode

CLASSES = ["down", "sideways", "still", "up"]


@pytest.fixture
def folder(shapes_folder, tmp_path):
    """A folder per class, seven videos in each, and no labels.csv."""
    for name in CLASSES:
        shutil.copytree(shapes_folder / name, tmp_path / "data" / name)
    return tmp_path / "data"


def dataset(folder, **changed):
    return video_dataset_from_directory(
        folder,
        **{"image_size": (24, 32), "num_frames": 3, "batch_size": 8, "seed": 0,
           "verbose": False, **changed},
    )  # fmt: skip


def epoch(dataset):
    """One pass: all clips and all labels."""
    clips, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.concatenate(clips), np.concatenate(labels)


def test_clips_and_labels_of_a_folder_per_class(folder):
    found = dataset(folder)
    clips, labels = epoch(found)
    assert clips.shape == (28, 3, 24, 32, 3)
    assert clips.dtype == np.uint8
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(labels), [7] * 4)
    assert found.class_names == CLASSES
    assert len(found.file_paths) == 28
    assert found.file_paths[0] == str(folder / "down" / "scene0000.mp4")
    assert found.element_spec[0].shape.as_list() == [None, 3, 24, 32, 3]
    assert found.cardinality() == 4


def test_it_says_what_it_found(folder, capsys):
    dataset(folder, verbose=True, validation_split=0.25, subset="both")
    assert capsys.readouterr().out == (
        "Found 28 files belonging to 4 classes.\n"
        "Using 20 files for training.\n"
        "Using 8 files for validation.\n"
    )
    dataset(folder, verbose=True, labels=None)
    assert capsys.readouterr().out == "Found 28 files.\n"


def test_unshuffled_clips_are_the_videos_in_order(folder):
    found = dataset(folder, shuffle=False, sampler="centre", frame_step=2)
    clips, labels = epoch(found)
    np.testing.assert_array_equal(labels, np.repeat(np.arange(4), 7))
    for clip, path in zip(clips, found.file_paths, strict=True):
        np.testing.assert_array_equal(clip, decode(path, [9, 11, 13], (24, 32)))


def test_passes_differ_and_the_same_seed_repeats_them(folder):
    first, again = dataset(folder), dataset(folder)
    one, two = epoch(first), epoch(first)
    assert not np.array_equal(one[1], two[1])
    for before, after in ((one, epoch(again)), (two, epoch(again))):
        for x, y in zip(before, after, strict=True):
            np.testing.assert_array_equal(x, y)
    other = epoch(dataset(folder, seed=1))
    assert not np.array_equal(one[1], other[1])


def test_several_clips_of_every_video(folder):
    found = dataset(folder, clips_per_video=3)
    assert len(epoch(found)[0]) == 84
    assert found.cardinality() == 11


def test_single_clips_without_a_batch(folder):
    found = dataset(folder, batch_size=None)
    clip, label = next(iter(found))
    assert clip.shape == (3, 24, 32, 3)
    assert label.shape == ()
    assert found.cardinality() == 28


@pytest.mark.parametrize(
    ("mode", "dtype", "shape"),
    [
        ("int", np.int32, ()),
        ("categorical", np.float32, (4,)),
        ("multi_label", np.float32, (4,)),
    ],
)
def test_label_modes(folder, mode, dtype, shape):
    _, labels = epoch(dataset(folder, label_mode=mode, shuffle=False))
    assert labels.dtype == dtype
    assert labels.shape == (28, *shape)
    if shape:
        np.testing.assert_array_equal(labels, np.repeat(np.eye(4), 7, 0))


def test_binary_labels_need_two_classes(folder):
    with pytest.raises(ValueError, match="exactly 2 class_names"):
        dataset(folder, label_mode="binary")
    found = dataset(folder, label_mode="binary", class_names=["up", "down"])
    _, labels = epoch(found)
    assert labels.shape == (14, 1)
    assert labels.dtype == np.float32
    assert labels.sum() == 7


@pytest.mark.parametrize("changed", [{"labels": None}, {"label_mode": None}])
def test_without_labels_there_are_clips_alone(folder, changed):
    clips = np.concatenate(list(dataset(folder, **changed).as_numpy_iterator()))
    assert clips.shape == (28, 3, 24, 32, 3)


def test_unlabelled_videos_need_no_folders(folder):
    flat = folder / "up"
    (clips,) = dataset(flat, labels=None).as_numpy_iterator()
    assert len(clips) == 7
    learned, watched = dataset(
        flat, labels=None, validation_split=0.3, subset="both"
    )
    assert (len(learned.file_paths), len(watched.file_paths)) == (5, 2)


def test_labels_may_be_a_list_in_the_order_of_the_paths(folder):
    labels = [7, 3, 3, 7, 3, 3, 3]
    found = dataset(folder / "up", labels=labels, shuffle=False)
    assert found.class_names == ["3", "7"]
    np.testing.assert_array_equal(epoch(found)[1], [1, 0, 0, 1, 0, 0, 0])
    with pytest.raises(ValueError, match=r"lengths of `labels`.*7.*3 labels"):
        dataset(folder / "up", labels=[0, 1, 2])


def test_class_names_choose_order_and_classes(folder):
    found = dataset(folder, class_names=["up", "still"], shuffle=False)
    assert found.class_names == ["up", "still"]
    assert len(found.file_paths) == 14
    np.testing.assert_array_equal(epoch(found)[1], [1] * 7 + [0] * 7)
    with pytest.raises(ValueError, match="did not match the names"):
        dataset(folder, class_names=["up", "nowhere"])


def test_labels_csv_wins_and_may_give_several_labels(folder):
    (folder / "labels.csv").write_text(
        "path,label\nup/scene0000.mp4,a;b\nup/scene0001.mp4,b\n"
    )
    found = dataset(folder, label_mode="multi_label", shuffle=False)
    np.testing.assert_array_equal(epoch(found)[1], [[1, 1], [0, 1]])
    with pytest.raises(ValueError, match=r"'multi_label'.*scene0000"):
        dataset(folder)


# Splits.


def split(folder, **changed):
    return dataset(folder, validation_split=0.25, subset="both", **changed)


def test_the_sides_share_no_file_whichever_way_they_are_asked_for(folder):
    learned, watched = split(folder)
    assert not set(learned.file_paths) & set(watched.file_paths)
    assert len({*learned.file_paths, *watched.file_paths}) == 28
    for name, side in (("training", learned), ("validation", watched)):
        alone = dataset(folder, validation_split=0.25, subset=name)
        assert alone.file_paths == side.file_paths


def test_unshuffled_sides_share_no_file_without_a_seed(folder):
    sides = [
        set(
            dataset(
                folder,
                validation_split=0.25,
                subset=name,
                shuffle=False,
                seed=None,
            ).file_paths
        )
        for name in ("training", "validation")
    ]
    assert not sides[0] & sides[1]


def test_groups_never_straddle(folder, shapes_folder):
    by_column = split(shapes_folder)
    by_pattern = split(folder, group_pattern=r"scene\d+")
    for learned, watched in (by_column, by_pattern):
        scenes = [
            {path.rsplit("/")[-1] for path in side.file_paths}
            for side in (learned, watched)
        ]
        assert scenes[1]
        assert not scenes[0] & scenes[1]


def test_the_validation_subset_is_the_same_in_every_pass(folder):
    _, watched = split(folder)
    one, two = epoch(watched), epoch(watched)
    np.testing.assert_array_equal(one[1], np.repeat(np.arange(4), 2))
    for x, y in zip(one, two, strict=True):
        np.testing.assert_array_equal(x, y)


# Pixels.


def test_grayscale_is_tensorflows(folder):
    options = {"shuffle": False, "sampler": "centre"}
    colour, _ = epoch(dataset(folder, **options))
    grey, _ = epoch(dataset(folder, color_mode="grayscale", **options))
    assert grey.shape == (28, 3, 24, 32, 1)
    np.testing.assert_array_equal(grey, tf.image.rgb_to_grayscale(colour))


@pytest.mark.parametrize(
    ("option", "resize"),
    [("crop_to_aspect_ratio", "cover"), ("pad_to_aspect_ratio", "pad")],
)
def test_aspect_ratios(folder, option, resize):
    found = dataset(folder, shuffle=False, sampler="centre", **{option: True})
    clips, _ = epoch(found)
    expected = decode(found.file_paths[3], [10, 11, 12], (resize, 24, 32))
    np.testing.assert_array_equal(clips[3], expected)


# Broken videos.


def test_broken_videos_are_replaced_and_warned_of(folder):
    (folder / "up/scene0002.mp4").write_bytes(b"no video")
    found = dataset(folder)
    with pytest.warns(UserWarning, match=r"skipped .*up/scene0002.mp4: "):
        clips, _ = epoch(found)
    assert len(clips) == 28


def test_broken_videos_end_the_pass_if_asked(folder):
    (folder / "up/scene0002.mp4").write_bytes(b"no video")
    with pytest.raises(tf.errors.OpError, match=r"up/scene0002.mp4"):
        epoch(dataset(folder, on_error="raise"))


# Fit.


def test_a_plain_fit_takes_it(folder):
    learned, watched = split(folder, label_mode="categorical")
    model = keras.Sequential(
        [
            keras.Input((3, 24, 32, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(4, "softmax"),
        ]
    )
    model.compile("sgd", "categorical_crossentropy")
    history = model.fit(
        learned, validation_data=watched, epochs=3, shuffle=False, verbose=0
    )
    assert len(history.history["val_loss"]) == 3


# Arguments, in the words of the image utility.


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": "none"}, r"`labels` argument should be a list/tuple"),
        (
            {"labels": [0, 1], "class_names": ["a"]},
            r"only pass `class_names` if `labels=\"inferred\"`",
        ),
        (
            {"labels": None, "class_names": ["a"]},
            r"When `labels=None` \(no labels\), argument `class_names`",
        ),
        ({"label_mode": "floats"}, r"`label_mode` must be one of"),
        ({"color_mode": "rgba"}, r"`color_mode` must be one of"),
        ({"interpolation": "cubic"}, r"`interpolation` must be one of"),
        ({"data_format": "channels_first"}, r"`data_format` must be one of"),
        ({"format": "grain"}, r"`format` must be one of"),
        ({"subset": "test"}, r"`subset` must be one of"),
        (
            {"crop_to_aspect_ratio": True, "pad_to_aspect_ratio": True},
            r"Only one of",
        ),
        (
            {"validation_split": 2, "subset": "both"},
            r"`validation_split` must be between 0 and 1",
        ),
        (
            {"validation_split": 0, "subset": "both"},
            r"`validation_split` must be between 0 and 1",
        ),
        ({"validation_split": 0.2}, r"If `subset` is set"),
        ({"subset": "training"}, r"If `subset` is set"),
        (
            {"validation_split": 0.2, "subset": "both", "seed": None},
            r"you must provide a `seed` argument",
        ),
        ({"sampler": "dense"}, r"`sampler` must be one of"),
        ({"num_frames": 0}, r"`frames` must be"),
        ({"image_size": (3, 4, 5)}, r"`image_size` must be"),
        ({"batch_size": 0}, r"`batch` must be 1 or more"),
        ({"on_error": "ignore"}, r"`on_error` must be one of"),
    ],
)
def test_errors_name_the_argument(folder, changed, message):
    with pytest.raises(ValueError, match=message):
        dataset(folder, **changed)


@pytest.mark.parametrize("labels", ["inferred", None])
def test_a_directory_without_videos_lists_what_is_allowed(tmp_path, labels):
    (tmp_path / "run").mkdir()
    with pytest.raises(
        ValueError, match=r"No videos found in directory .*Allowed formats.*mp4"
    ):
        dataset(tmp_path, labels=labels)


@pytest.mark.parametrize("labels", ["inferred", None])
def test_a_missing_directory_is_named(tmp_path, labels):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        dataset(tmp_path / "nowhere", labels=labels)


def test_a_network_s_clip_says_what_is_read(shapes_folder, shapes_flow):
    from keras_videofusion.data.clips import ClipSpec

    spec = ClipSpec(
        2, resize=("square", 40), size=32, streams=("rgb", "flow"), flow=3
    )
    found = video_dataset_from_directory(
        shapes_folder, batch_size=4, spec=spec, flow=shapes_flow, verbose=False
    )
    clips, _ = next(iter(found))
    assert clips["rgb"].shape == (4, 2, 32, 32, 3)
    assert clips["flow"].shape == (4, 3, 32, 32, 2)
    grey = video_dataset_from_directory(
        shapes_folder,
        labels=None,
        color_mode="grayscale",
        batch_size=None,
        spec=spec,
        flow=shapes_flow,
        verbose=False,
    )
    clip = next(iter(grey))
    assert clip["rgb"].shape == (2, 32, 32, 1)
    assert clip["flow"].shape == (3, 32, 32, 2)
    with pytest.raises(ValueError, match="videofusion flow"):
        video_dataset_from_directory(shapes_folder, spec=spec, verbose=False)

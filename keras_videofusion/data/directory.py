"""Clips from a directory of videos, as Keras gives images from a directory."""

import itertools
import os
import warnings
from dataclasses import replace

import numpy as np
import tensorflow as tf

from keras_videofusion.data.batches import Batches
from keras_videofusion.data.catalog import (
    Catalog,
    grouped,
    LABELS_FILE,
    open_catalog,
    Video,
    video_paths,
)
from keras_videofusion.data.clips import ClipSpec, each_stream
from keras_videofusion.data.pipeline import Reader, steps
from keras_videofusion.data.video import VIDEO_ENDINGS

LABEL_MODES = ("int", "categorical", "binary", "multi_label", None)


def video_dataset_from_directory(
    directory,
    labels="inferred",
    label_mode="int",
    class_names=None,
    color_mode="rgb",
    batch_size=32,
    image_size=(200, 200),
    num_frames=10,
    frame_step=1,
    sampler="random",
    clips_per_video=1,
    shuffle=True,
    seed=None,
    validation_split=None,
    subset=None,
    interpolation="bilinear",
    follow_links=False,
    crop_to_aspect_ratio=False,
    pad_to_aspect_ratio=False,
    data_format=None,
    format="tf",
    verbose=True,
    *,
    group_pattern=None,
    on_error="skip",
    spec=None,
    flow=None,
):
    """Generates a `tf.data.Dataset` of clips from a directory of videos.

    It is `keras.utils.image_dataset_from_directory` for videos: with

        main_directory/
        ...class_a/
        ......a_video_1.mp4
        ......a_video_2.avi
        ...class_b/
        ......b_video_1.mp4

    it yields batches of clips from the subdirectories and labels 0 and 1. A
    `labels.csv` in the directory (`path,label[,group]...`) wins over the
    folders; its `split` column plays no part. Unlike the image utility a
    `validation_split` takes whole groups: clips cut from one recording never
    fall on both sides.

    Every pass over the dataset is another epoch, with another order and other
    random clips; two datasets of one seed give the same epochs. The
    validation subset gives the same clips in the same order in every pass.

    Args:
        directory: Where the videos are.
        labels: `"inferred"`, None (no labels), or a list of integers in the
            order of the sorted paths; unless they are inferred, folders do
            not matter.
        label_mode: `"int"`, `"categorical"`, `"binary"`, `"multi_label"` (a 1
            for every true class) or None.
        class_names: Explicit list of class names, to control their order or
            to leave some out.
        color_mode: `"rgb"` or `"grayscale"`.
        batch_size: Integer, or None for single clips.
        image_size: `(height, width)` of the frames, or one integer.
        num_frames: Integer, frames of a clip.
        frame_step: Integer, distance of neighbouring frames.
        sampler: `"random"`, `"uniform"` (evenly spread) or `"centre"`: where
            clips begin.
        clips_per_video: Integer, clips of every video in an epoch.
        shuffle: Whether every epoch has another order.
        seed: Integer for order, clips and split. None: order and clips are
            drawn by chance.
        validation_split: Float between 0 and 1, share of the videos.
        subset: `"training"`, `"validation"` or `"both"`.
        interpolation: `"bilinear"`; frames are scaled while they are decoded.
        follow_links: Whether links to folders are followed.
        crop_to_aspect_ratio: Whether frames are cropped to the target's
            aspect ratio instead of stretched.
        pad_to_aspect_ratio: Whether frames are padded with black instead.
        data_format: None or `"channels_last"`.
        format: `"tf"`.
        verbose: Whether the number of files is printed.
        group_pattern: Regular expression that reads a video's group (source
            recording) off its path.
        on_error: `"skip"`: a broken video is replaced by another and warned
            of; `"raise"`: it ends the stream.
        spec: `keras_videofusion.data.clips.ClipSpec` of a network, which then
            says all of frames, step, size, resizing and streams instead of
            the arguments for them.
        flow: For a `spec` with a flow stream: the folder that `videofusion
            flow` made, or the name of a method.

    Returns:
        A `tf.data.Dataset` with attributes `class_names` and `file_paths`, or
        a pair of such for `subset="both"`. Clips are uint8 of shape
        `(batch, num_frames, height, width, channels)`; with a `spec`, what
        `keras_videofusion.data.pipeline.training_clips` gives.

    Raises:
        ValueError: If an argument is wrong or there are no videos.
    """
    _check(
        labels, label_mode, class_names, color_mode, shuffle, seed,
        validation_split, subset, interpolation, crop_to_aspect_ratio,
        pad_to_aspect_ratio, data_format, format,
    )  # fmt: skip
    catalog = _catalog(
        directory, labels, class_names, group_pattern, follow_links
    )
    if label_mode == "binary" and len(catalog.classes) != 2:
        raise ValueError(
            "When passing `label_mode='binary'`, there must be exactly 2 "
            f"class_names. Received: class_names={list(catalog.classes)}"
        )
    size = (image_size,) * 2 if isinstance(image_size, int) else image_size
    size = tuple(size)
    if len(size) != 2:
        raise ValueError(
            "`image_size` must be a tuple of 2 integers. "
            f"Received: image_size={image_size}"
        )
    resize = size
    if crop_to_aspect_ratio:
        resize = ("cover", *size)
    elif pad_to_aspect_ratio:
        resize = ("pad", *size)
    if spec is None:
        spec = ClipSpec(num_frames, frame_step, resize=resize, size=size)
    if verbose and labels is None:
        print(f"Found {len(catalog)} files.")
    elif verbose:
        print(
            f"Found {len(catalog)} files belonging to "
            f"{len(catalog.classes)} classes."
        )
    parts = {"training": catalog}
    if validation_split:
        parts = _parts(catalog, validation_split, seed or 0)
        for name, part in parts.items():
            if verbose and subset in (name, "both"):
                print(f"Using {len(part)} files for {name}.")

    if seed is None:
        seed = int(np.random.default_rng().integers(2**31))

    def dataset(name):
        learned = name == "training"
        reader = Reader(
            parts[name], spec, sampler, clips_per_video, seed,
            shuffle and learned, False, on_error, _warn, flow=flow,
        )  # fmt: skip
        table = _labels(parts[name], label_mode if labels is not None else None)
        grey = color_mode == "grayscale"
        label = None if table is None else table.__getitem__
        return _finished(reader, batch_size, label, grey, learned)

    if subset == "both":
        return dataset("training"), dataset("validation")
    return dataset(subset or "training")


def _parts(catalog, share, seed):
    """The two sides of a split, whatever the rows say of splits."""
    cut = Catalog(
        tuple(replace(video, split="training") for video in catalog),
        catalog.classes,
        catalog.root,
    ).hold_out(share, seed, "validation")
    return {name: cut.where(name) for name in ("training", "validation")}


def _finished(reader, batch_size, labels, grey, renewed):
    """Batches of clips and labels; if `renewed`, a pass is a new epoch."""
    passes = itertools.count() if renewed else itertools.repeat(0)
    epochs = tf.data.Dataset.from_tensors(0).map(
        lambda _: tf.ensure_shape(
            tf.numpy_function(lambda: np.int64(next(passes)), [], tf.int64), ()
        )
    )
    batches = None
    if batch_size is not None:
        batches = Batches(len(reader), batch_size)
    found = reader.dataset(batches, epochs, labels)
    if grey:
        found = found.map(_greyed)
    found = found.prefetch(2).apply(
        tf.data.experimental.assert_cardinality(
            steps(reader.catalog, batch_size or 1, reader.clips)
        )
    )
    found.class_names = list(reader.catalog.classes)
    found.file_paths = [reader.catalog.file(v) for v in reader.catalog]
    return found


def _greyed(clips, *labels):
    """Colours of the streams that have them made grey."""
    found = each_stream(
        lambda s: tf.image.rgb_to_grayscale(s) if s.shape[-1] == 3 else s,
        clips,
    )
    return (found, *labels) if labels else found


def _catalog(directory, labels, class_names, group_pattern, follow_links):
    """The catalog of the directory, with the caller's labels or classes."""
    inferred = labels == "inferred"
    if inferred or os.path.isfile(os.path.join(directory, LABELS_FILE)):
        try:
            catalog = open_catalog(
                directory, group_pattern, follow_links=follow_links
            )
        except ValueError as error:
            if "no videos found" not in str(error):
                raise
            raise _no_videos(directory) from error
    else:
        catalog = _unlabelled(directory, group_pattern, follow_links)
    if inferred and class_names is not None:
        if not set(class_names) <= set(catalog.classes):
            raise ValueError(
                "The `class_names` passed did not match the names of the "
                "subdirectories of the target directory. "
                f"Expected: {list(catalog.classes)} (or a subset of it), but "
                f"received: class_names={list(class_names)}"
            )
        kept = (v for v in catalog if set(v.labels) <= set(class_names))
        return Catalog(tuple(kept), tuple(class_names), catalog.root)
    if inferred or labels is None:
        return catalog
    if len(labels) != len(catalog):
        raise ValueError(
            "Expected the lengths of `labels` to match the number of files "
            f"in the target directory, {len(catalog)}. "
            f"Received: {len(labels)} labels"
        )
    names = [str(number) for number in sorted(set(labels))]
    return catalog.relabelled([str(label) for label in labels], names)


def _unlabelled(directory, group_pattern, follow_links):
    """The catalog of all videos below a directory, without classes."""
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"no such folder: {directory}")
    videos = [Video(n, ()) for n in video_paths(directory, follow_links)]
    if not videos:
        raise _no_videos(directory)
    if group_pattern is not None:
        videos = [grouped(video, group_pattern) for video in videos]
    return Catalog(tuple(videos), (), os.fspath(directory))


def _no_videos(directory):
    return ValueError(
        f"No videos found in directory {directory}. "
        f"Allowed formats: {VIDEO_ENDINGS}"
    )


def _labels(catalog, label_mode):
    """What each video's label is in that mode; None for no labels."""
    if label_mode is None:
        return None
    truth = catalog.truth
    if label_mode == "multi_label":
        return truth.astype(np.float32)
    several = np.flatnonzero(truth.sum(1) > 1)
    if several.size:
        video = catalog[several[0]]
        raise ValueError(
            "`label_mode` must be 'multi_label' for videos of several "
            f"labels, such as {video.path} with {video.labels}. "
            f"Received: label_mode={label_mode!r}"
        )
    if label_mode == "categorical":
        return truth.astype(np.float32)
    numbers = truth.argmax(1)
    if label_mode == "binary":
        return numbers[:, None].astype(np.float32)
    return numbers.astype(np.int32)


def _warn(path, reason):
    warnings.warn(f"skipped {path}: {reason}", stacklevel=2)


def _check(
    labels,
    label_mode,
    class_names,
    color_mode,
    shuffle,
    seed,
    validation_split,
    subset,
    interpolation,
    crop_to_aspect_ratio,
    pad_to_aspect_ratio,
    data_format,
    format,
):
    """Checks arguments in the order, and the words, of the image utility."""
    inferred = isinstance(labels, str) and labels == "inferred"
    if not (inferred or labels is None):
        if not isinstance(labels, list | tuple):
            raise ValueError(
                "`labels` argument should be a list/tuple of integer labels, "
                "of the same size as the number of video files in the target "
                "directory. If you wish to infer the labels from the "
                "subdirectory names in the target directory, pass "
                '`labels="inferred"`. If you wish to get a dataset that only '
                "contains videos (no labels), pass `labels=None`. "
                f"Received: labels={labels!r}"
            )
        if class_names:
            raise ValueError(
                'You can only pass `class_names` if `labels="inferred"`. '
                f"Received: labels={labels}, and class_names={class_names}"
            )
    elif labels is None and class_names is not None:
        raise ValueError(
            "When `labels=None` (no labels), argument `class_names` cannot "
            f"be specified. Received: class_names={class_names}"
        )
    choices = {
        "label_mode": (label_mode, LABEL_MODES),
        "color_mode": (color_mode, ("rgb", "grayscale")),
        "interpolation": (interpolation, ("bilinear",)),
        "data_format": (data_format, (None, "channels_last")),
        "format": (format, ("tf",)),
        "subset": (subset, (None, "training", "validation", "both")),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise ValueError(
                f"`{name}` must be one of {allowed}. Received: {name}={value!r}"
            )
    if crop_to_aspect_ratio and pad_to_aspect_ratio:
        raise ValueError(
            "Only one of `pad_to_aspect_ratio` and `crop_to_aspect_ratio` "
            "can be set to `True`."
        )
    if validation_split is not None and not 0 < validation_split < 1:
        raise ValueError(
            "`validation_split` must be between 0 and 1. "
            f"Received: validation_split={validation_split}"
        )
    if (validation_split is None) != (subset is None):
        raise ValueError(
            "If `subset` is set, `validation_split` must be set, and "
            f"inversely. Received: subset={subset!r}, "
            f"validation_split={validation_split}"
        )
    if validation_split and shuffle and seed is None:
        raise ValueError(
            "If using `validation_split` and shuffling the data, you must "
            "provide a `seed` argument, to make sure that there is no "
            "overlap between the training and validation subset."
        )

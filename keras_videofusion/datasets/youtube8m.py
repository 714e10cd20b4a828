"""YouTube-8M: 6.1 million videos as features, 3,862 classes, several each.

There are no videos: a record is what an Inception network saw and what an
audio network heard, either of a whole video (`level="video"`: means) or once
per second (`level="frame"`: up to 300 vectors, a byte per number). So the
catalog's rows are not for the reader of videos; `features` reads them, and
`vectors` writes them as `train` reads them. The test records have no labels.

Published by Google at `ADDRESS` under CC BY 4.0, without registration.

Reference:
    Abu-El-Haija et al., YouTube-8M: A Large-Scale Video Classification
    Benchmark, arXiv:1609.08675, 2016.
"""

import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import tensorflow as tf

from keras_videofusion.data.catalog import Catalog, Video
from keras_videofusion.data.vectors import (
    expect_room,
    Vectors,
    write_vectors,
)
from keras_videofusion.datasets.layout import (
    expect_choice,
    find,
    read_table,
    wrong_root,
)

ADDRESS = "https://research.google.com/youtube8m/download.html"
TREE = """
vocabulary.csv
video/train0000.tfrecord      (or 2/video/, or in the root itself; and so)
video/validate0000.tfrecord
video/test0000.tfrecord
frame/train0000.tfrecord      (for level="frame")
"""
SPLITS = {"train": "train", "validation": "validate", "test": "test"}
LEVELS = ("video", "frame")
SIZES = {"rgb": 1024, "audio": 128}
WHOLE = sum(SIZES.values())
# Records parsed at a time: 5 MB of either kind.
CHUNKS = {"video": 1024, "frame": 16}


def load(
    root,
    split: str | None = None,
    fold: int = 1,
    *,
    level: str = "video",
    on_skip: Callable[[str, str], None] | None = None,
) -> Catalog:
    """The catalog of YouTube-8M: which record shows what.

    All records of the split are read, which takes its time; `features` needs
    no catalog. A row's family is the first vertical of its classes, if they
    have one.

    Args:
        root: Folder as in `TREE`.
        split: "train", "validation", or None for both.
        fold: 1.
        level: "video" or "frame": the records that paths lead to.
        on_skip: As for `features`.

    Returns:
        `Catalog`; a path is file and record, "video/train0003.tfrecord#id".

    Raises:
        ValueError: If an argument, the folder or a line of the vocabulary is
            wrong.
    """
    if split == "test":
        raise ValueError(
            "the test records of youtube8m are published without labels; "
            "`features` reads them. Received: split='test'"
        )
    expect_choice("split", split, ("train", "validation", None))
    expect_choice("fold", fold, (1,))
    classes, families = _vocabulary(root)
    videos = []
    for part in ("train", "validation"):
        if split not in (None, part):
            continue
        for path in _files(root, part, level):
            place = path.relative_to(root).as_posix()
            for raw in _records(path, CHUNKS[level], on_skip):
                names, labels, _ = _parsed(
                    path, *raw, None, len(classes), on_skip
                )
                for name, own in zip(names, labels, strict=True):
                    if not own:
                        continue
                    found = {families[number] for number in own}
                    videos.append(
                        Video(
                            f"{place}#{name.decode()}",
                            tuple(classes[number] for number in own),
                            family=found.pop() if len(found) == 1 else None,
                            split=part,
                        )
                    )
    return Catalog(tuple(videos), classes, str(root))


def features(
    root,
    split: str,
    level: str = "video",
    batch: int = 1024,
    *,
    max_frames: int = 300,
    concatenate: bool = False,
    on_skip: Callable[[str, str], None] | None = None,
) -> tf.data.Dataset:
    """Features and labels, in the order of files and records.

    How many there are is not known before they are read; where Keras warns
    that the input ran out, that is the end of the first epoch.

    Args:
        root: Folder as in `TREE`.
        split: "train", "validation" or "test".
        level: "video" or "frame".
        batch: Integer, records in a batch; the last may be ragged.
        max_frames: Integer, seconds of a video; what is longer is cut, what is
            shorter filled up with zeros.
        concatenate: Whether sight and sound are one vector of 1,152 numbers.
        on_skip: Function of (path, reason), called for every damaged record.
            None: a warning says so. Records behind one whose frame in the file
            is damaged are lost, to the end of that file.

    Returns:
        `tf.data.Dataset` of one epoch: features and, but for "test", labels,
        float32 of shape `(batch, 3862)`, 1 for each class shown. Features are
        a dict of float32 `"rgb"` `(batch, 1024)` and `"audio"` `(batch,
        128)`, or one array `(batch, 1152)`; at level "frame" a dict of
        `"rgb"` `(batch, max_frames, 1024)` and `"audio"` `(batch, max_frames,
        128)`, or `"features"` `(batch, max_frames, 1152)`, and of `"mask"`,
        boolean `(batch, max_frames)`, true where there is a frame.

    Raises:
        ValueError: If an argument, the folder or a line of the vocabulary is
            wrong.
    """
    expect_choice("split", split, tuple(SPLITS))
    expect_choice("concatenate", concatenate, (False, True))
    for name, value in (("batch", batch), ("max_frames", max_frames)):
        if value < 1:
            raise ValueError(
                f"`{name}` must be 1 or more. Received: {name}={value}"
            )
    files = _files(root, split, level)
    count = len(_vocabulary(root)[0])
    frames = max_frames if level == "frame" else None

    kind = tf.float32 if frames is None else tf.uint8
    inner = () if frames is None else (frames,)
    found = tf.data.Dataset.from_generator(
        partial(_chunks, files, level, frames or 0, count, on_skip),
        output_signature=(
            *(
                tf.TensorSpec((None, *inner, size), kind)
                for size in SIZES.values()
            ),
            tf.TensorSpec((None,), tf.int32),
            tf.TensorSpec((None, count), tf.float32),
        ),
    )
    # Bytes until here: a fourth of what floats would carry.
    return found.rebatch(batch).map(
        partial(
            _finished, frames=frames, joined=concatenate, test=split == "test"
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def vectors(
    root,
    out,
    *,
    overwrite: bool = False,
    on_skip: Callable[[str, str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Vectors:
    """Writes the means of all labelled videos as a folder of vectors.

    Sight and sound are one vector of 1,152 numbers; splits are the authors'.
    The records are read twice, for their labels and for their numbers. What
    is in memory is the catalog, and 64 MiB of numbers.

    Args:
        root: Folder as in `TREE`, with the records of level "video".
        out: Path or address of the folder; made if need be.
        overwrite: Whether vectors that it holds are replaced.
        on_skip: As for `features`.
        progress: Function of the numbers of videos done and of all, or None.

    Returns:
        `Vectors`.

    Raises:
        ValueError: If the folder or a line of the vocabulary is wrong, or
            `out` holds something already.
    """
    expect_room(out, overwrite)
    catalog = load(root, level="video")
    if not len(catalog):
        raise ValueError(
            f"no record of level 'video' has labels. Received: root={root}"
        )
    skipped: list[dict[str, str]] = []

    def tell(path, reason):
        skipped.append({"path": path, "error": reason})
        if on_skip is not None:
            on_skip(path, reason)

    spans = {"rgb": (0, SIZES["rgb"]), "audio": (SIZES["rgb"], WHOLE)}
    return write_vectors(
        out,
        catalog,
        WHOLE,
        _in_order(catalog, root, tell, progress),
        kind="youtube8m",
        blocks=spans,
        settings={"level": "video"},
        skipped=skipped,
        overwrite=overwrite,
    )


def _in_order(catalog, root, tell, progress):
    """Yields the vector of every row; None of one whose numbers are broken."""
    rows = iter(enumerate(catalog, 1))
    count = len(catalog.classes)
    for part in ("train", "validation"):
        for path in _files(root, part, "video"):
            place = path.relative_to(root).as_posix()
            for raw in _records(path, CHUNKS["video"], tell):
                names, labels, (rgb, audio, _) = _parsed(
                    path, *raw, 0, count, tell
                )
                joined = np.concatenate([rgb, audio], 1)
                for name, own, found in zip(names, labels, joined, strict=True):
                    if not own:
                        continue
                    # The rows are in this order, and may be more.
                    for number, video in rows:
                        if progress is not None:
                            progress(number, len(catalog))
                        if video.path == f"{place}#{name.decode()}":
                            yield found
                            break
                        yield None
    for _ in rows:
        yield None


def _chunks(files, level, frames, classes, on_skip):
    """Yields sight, sound, numbers of frames and labels of some records."""
    for path in files:
        for raw in _records(path, CHUNKS[level], on_skip):
            names, labels, arrays = _parsed(
                path, *raw, frames, classes, on_skip
            )
            shown = np.zeros((len(names), classes), np.float32)
            for row, own in zip(shown, labels, strict=True):
                row[own] = 1
            if len(names):
                yield *arrays, shown


def _finished(rgb, audio, lengths, labels, frames, joined, test):
    """Numbers instead of bytes, with their mask; one vector, if joined."""
    streams = {"rgb": rgb, "audio": audio}
    mask = {}
    if frames is not None:
        mask["mask"] = tf.sequence_mask(lengths, frames)
        # The middle of each of 256 steps in [-2, 2], as in the authors' reader.
        streams = {
            name: tf.where(
                mask["mask"][..., None],
                tf.cast(stream, tf.float32) * (4 / 255) + (4 / 512 - 2),
                0.0,
            )
            for name, stream in streams.items()
        }
    if joined:
        streams = {"features": tf.concat(list(streams.values()), -1)}
    found = {**streams, **mask}
    found = found["features"] if joined and not mask else found
    return found if test else (found, labels)


def _vocabulary(root):
    """Names and families of the classes, by their numbers."""
    path = find(root, "vocabulary.csv", "2/vocabulary.csv")
    if path is None:
        raise wrong_root("youtube8m", root, TREE, ADDRESS, "vocabulary.csv")
    columns = ("Index", "KnowledgeGraphId", "Name", "Vertical1")
    names: dict[str, str] = {}
    families: list[str | None] = []
    for number, row in read_table(path, columns):
        if row["Index"] != str(len(families)):
            raise ValueError(
                f"{path}, line {number}: `Index` must be {len(families)}, as "
                f"labels count. Received: Index={row['Index']!r}"
            )
        families.append(row["Vertical1"] or None)
        # Some entities have no name, and some share one.
        key = row["KnowledgeGraphId"]
        name = row["Name"] or key
        names.setdefault(f"{name} ({key})" if name in names else name, key)
    if len(names) != len(families) or not names:
        raise ValueError(
            f"{path} must name every class once. Received: {len(names)} names "
            f"in {len(families)} lines"
        )
    return tuple(names), families


def _files(root, split, level):
    """The files of a split, by their numbers."""
    expect_choice("level", level, LEVELS)
    place = find(root, level, f"2/{level}", ".")
    pattern = f"{SPLITS[split]}*.tfrecord"
    found = sorted(place.glob(pattern), key=_number) if place else []
    if not found:
        lacking = f"{level}/{pattern}"
        raise wrong_root("youtube8m", root, TREE, ADDRESS, lacking)
    return found


def _number(path):
    """Sorts train2 before train10; names of letters by themselves."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)", path.name)
    ]


def _records(path, chunk, on_skip) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the number of the first of some records, and those as bytes."""
    done = 0
    whole = tf.data.TFRecordDataset(str(path))
    try:
        for raw in whole.batch(chunk).as_numpy_iterator():
            yield done, raw
            done += len(raw)
        return
    except tf.errors.OpError:
        pass
    # The batch in which a record is damaged is lost: once more, one by one.
    try:
        for raw in whole.skip(done).batch(1).as_numpy_iterator():
            yield done, raw
            done += 1
    except tf.errors.OpError as error:
        _tell(on_skip, path, f"record {done} and what follows", error)


def _parsed(path, first, raw, frames, classes, on_skip):
    """Records as `_arrays` gives them; damaged ones are named and left out.

    Args:
        path: The file.
        first: Integer, the number of the first record.
        raw: Array of bytes of shape `(records,)`.
        frames: As for `_arrays`.
        classes: As for `_arrays`.
        on_skip: As for `features`.
    """
    broken = (tf.errors.OpError, ValueError)
    try:
        return _arrays(raw, frames, classes)
    except broken:
        pass
    whole = []
    for number, one in enumerate(raw, first):
        try:
            _arrays([one], frames, classes)
            whole.append(one)
        except broken as error:
            _tell(on_skip, path, f"record {number}", error)
    return _arrays(whole, frames, classes)


def _arrays(raw, frames, classes):
    """Some records as arrays, all whole or an error.

    Args:
        raw: Serialized records.
        frames: Integer, frames to give room to; 0 for records of whole
            videos; None to read names and labels alone.
        classes: Integer.

    Returns:
        Names and lists of labels; and, unless `frames` is None, the arrays
        of sight and sound and the numbers of frames, int32.
    """
    raw = tf.constant(raw, tf.string, (len(raw),))
    about = {
        "id": tf.io.FixedLenFeature((), tf.string),
        "labels": tf.io.RaggedFeature(tf.int64),
    }
    lengths = np.zeros(len(raw), np.int32)
    if frames:
        about, seen, counts = tf.io.parse_sequence_example(
            raw,
            about,
            {
                name: tf.io.FixedLenSequenceFeature((), tf.string)
                for name in SIZES
            },
        )
        lengths = counts["rgb"].numpy()
        if (lengths != counts["audio"].numpy()).any():
            raise ValueError("as many frames of sound as of sight are needed")
        lengths = np.minimum(lengths, frames).astype(np.int32)
        streams = [
            _bytes(seen[name].numpy(), lengths, frames, size)
            for name, size in SIZES.items()
        ]
    elif frames == 0:
        means = {
            f"mean_{name}": tf.io.FixedLenFeature((size,), tf.float32)
            for name, size in SIZES.items()
        }
        about = tf.io.parse_example(raw, {**about, **means})
        streams = [about[name].numpy() for name in means]
    else:
        about, streams = tf.io.parse_example(raw, about), []
    labels = about["labels"]
    if not np.isin(labels.flat_values, np.arange(classes)).all():
        raise ValueError(f"labels must be in 0..{classes - 1}")
    return about["id"].numpy(), labels.to_list(), (*streams, lengths)


def _bytes(vectors, lengths, frames, size):
    """Strings of shape `(records, frames)` as uint8, zeros behind the last."""
    found = np.zeros((len(vectors), frames, size), np.uint8)
    for into, row, length in zip(found, vectors, lengths, strict=True):
        if any(len(vector) != size for vector in row[:length]):
            raise ValueError(f"a frame must have {size} bytes")
        joined = np.frombuffer(b"".join(row[:length]), np.uint8)
        into[:length] = joined.reshape(length, size)
    return found


def _tell(on_skip, path, what, error):
    """Names a damaged record; TensorFlow's errors have several lines."""
    said = " ".join(str(getattr(error, "message", error)).split())
    if on_skip is not None:
        on_skip(str(path), f"{what}: {said}")
    else:
        warnings.warn(f"{path}: {what}: {said}", RuntimeWarning, stacklevel=2)

"""Measures JPEG settings, and reading shards, in paired runs on one core.

    python benchmarks/shards.py VIDEOS [--rounds 5] [--batches 10]

First, for each setting of JPEG: bytes of a clip of ten frames of 200 x 200,
signal to noise and mean error against the direct path's pixels, milliseconds
to encode a frame, clips per second of decoding them cut to 170 x 170. Then
shards of the default setting, clips of 10 x 170 x 170 in batches of 16: bare
decoding, the whole pipeline, one clip of each video alone, the encoded clips
in memory, and decoded ones. Ways run in turn; printed is the median round of
clips per second of processor time.

Expected: at least 500 from shards, 2,000 from decoded clips in memory.
"""

import argparse
import os
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from keras_videofusion.data.catalog import Catalog, open_catalog
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.pipeline import training_clips
from keras_videofusion.data.prepare import prepare
from keras_videofusion.data.video import decode

SPEC = ClipSpec(10)
WINDOW = (15, 15, 170, 170)


def per_second(work, clips):
    """Clips per second of processor time."""
    begin = time.process_time()
    work()
    return clips / (time.process_time() - begin)


def cut(jpegs, method):
    for jpeg in jpegs:
        tf.io.decode_and_crop_jpeg(
            jpeg, WINDOW, fancy_upscaling=False, dct_method=method
        )


def settings(catalog, rounds):
    """Prints a row for every setting of JPEG."""
    frames = np.concatenate(
        [
            decode(catalog.file(video), range(10, 40, 3), SPEC.resize)
            for video in catalog
        ]
    )
    clips = len(frames) / 10
    rows = []
    for quality in (75, 85, 90, 95):
        for chroma in ("4:2:0", "4:4:4"):
            for optimal in (False, True):
                begin = time.process_time()
                jpegs = [
                    tf.io.encode_jpeg(
                        frame,
                        quality=quality,
                        chroma_downsampling=chroma == "4:2:0",
                        optimize_size=optimal,
                    )
                    for frame in frames
                ]
                spent = 1e3 * (time.process_time() - begin) / len(frames)
                rows.append((quality, chroma, optimal, spent, jpegs))
    for method in ("INTEGER_ACCURATE", "INTEGER_FAST"):
        speeds = [[] for _ in rows]
        for _ in range(rounds):
            for (*_, jpegs), found in zip(rows, speeds, strict=True):
                found.append(
                    per_second(lambda j=jpegs, m=method: cut(j, m), clips)
                )
        print(f"{method}\nquality chroma optimal   kB/clip  dB    error"
              "  encode ms  clips/s")  # fmt: skip
        for (quality, chroma, optimal, spent, jpegs), found in zip(
            rows, speeds, strict=True
        ):
            back = np.stack(
                [
                    tf.io.decode_jpeg(
                        j, fancy_upscaling=False, dct_method=method
                    )
                    for j in jpegs
                ]
            )
            error = back.astype(float) - frames
            noise = 10 * np.log10(255**2 / np.square(error).mean())
            size = sum(len(j.numpy()) for j in jpegs) / clips / 1e3
            print(
                f"{quality:7} {chroma:6} {optimal!s:7} {size:9.1f} {noise:5.1f}"
                f" {abs(error).mean():6.2f} {spent:9.2f}"
                f" {statistics.median(found):9.0f}"
            )


def reading(catalog, rounds, batches):
    """Prints clips per second of the ways to read shards."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(catalog, f"{folder}/shards", SPEC, clips=20)
        shards = open_catalog(f"{folder}/shards")
        stored = [
            tf.train.Example.FromString(record.numpy())
            .features.feature["frames"]
            .bytes_list.value
            for record in tf.data.TFRecordDataset(
                tf.io.gfile.glob(f"{folder}/shards/*.tfrecord")
            ).take(16 * batches)
        ]

        def bare():
            for jpegs in stored:
                cut(jpegs, "INTEGER_ACCURATE")

        def pipeline(**given):
            clips = iter(training_clips(shards, SPEC, 16, **given))
            next(clips)
            begin = time.process_time()
            # The last batch of an epoch may be ragged.
            read = sum(len(next(clips)[1]) for _ in range(batches))
            return read / (time.process_time() - begin)

        ways = {
            "bare decoding": lambda: per_second(bare, len(stored)),
            "shards, all clips": lambda: pipeline(clips_per_video=20),
            "shards, one clip of 20": lambda: pipeline(),
            "memory": lambda: pipeline(clips_per_video=20, cache="memory"),
            "pixels": lambda: pipeline(clips_per_video=20, cache="pixels"),
        }
        found = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                found[name].append(way())
    for name, speeds in found.items():
        pairs = [a / b for a, b in zip(speeds, found["bare decoding"],
                                       strict=True)]  # fmt: skip
        print(
            f"{name:24} {statistics.median(speeds):7.0f} clips/s of a core, "
            f"{statistics.median(pairs):.2f} of bare decoding"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", metavar="VIDEOS", help="folder or CSV file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=10)
    arguments = parser.parse_args()
    # One core for all ways: TensorFlow would take more.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    whole = open_catalog(arguments.data)
    some = whole.videos[:: max(1, len(whole) // 8)][:8]
    catalog = Catalog(some, whole.classes, whole.root)
    settings(catalog, arguments.rounds)
    reading(catalog, arguments.rounds, arguments.batches)


if __name__ == "__main__":
    main()

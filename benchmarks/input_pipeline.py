"""Measures the input pipeline against what it must show, in paired runs.

    python benchmarks/input_pipeline.py [--pairs 15] [--clips 40]

Draws a 320 x 240 MPEG-4 AVI with a keyframe every 12 frames (UCF-101's form)
and a 340 x 256 H.264 MP4 (Kinetics' form), and reads random clips of ten
frames: decode, resize to 200, crop 170, mirror. The ways compared run in turn
on one core, a hundred milliseconds each, so that what else the machine does
hurts them alike; printed are medians, and medians of the ratios of pairs.

Expected on one core: at least 230 clips per second from the AVI; at least 0.9
of bare decoding of the same frames from H.264; four times the plain way
(decode all frames, `tf.image.resize`).
"""

import argparse
import gc
import os
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import av
import numpy as np
import tensorflow as tf

from keras_videofusion.data.augmentation import random_crop_flip
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.video import read_clips, timeline

SPEC = ClipSpec(10)


def draw(path, codec, height, width, frames=180, gop=12, **options):
    """A moving, textured scene: noise that drifts, and a camera's grain."""
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (height // 8, 2 * width // 8, 3))
    scene = small.repeat(8, 0).repeat(8, 1)
    scene = (scene + np.roll(scene, 4, 0) + np.roll(scene, 4, 1)) // 3
    with av.open(path, "w") as file:
        stream = file.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.gop_size = gop
        stream.bit_rate = 400_000
        for number in range(frames):
            pixels = np.roll(scene, 3 * number, 1)[:height, :width]
            pixels = pixels + generator.normal(0, 2, pixels.shape)
            pixels = pixels.clip(0, 255).astype(np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        file.mux(stream.encode())
    return path


def ours(path, generator):
    """A clip as the pipeline reads it."""
    clips, _ = read_clips(path, SPEC, "random", 1, generator)
    return random_crop_flip(clips[0], SPEC.size, generator)


def bare(path, generator):
    """Decodes the frames that such a clip needs, and throws them away."""
    frames = timeline(path)
    start = int(generator.integers(0, len(frames) - 9))
    begin = np.searchsorted(frames.keyframes, start, side="right") - 1
    last = frames.stamps[start + 9]
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        if begin:
            container.seek(int(frames.entries[begin]), stream=stream)
        for frame in container.decode(stream):
            if frame.pts >= last:
                return


def plain(path, generator):
    """Decodes all frames, resizes ten of them with TensorFlow."""
    with av.open(path) as container:
        frames = [
            frame.to_ndarray(format="rgb24")
            for frame in container.decode(video=0)
        ]
    start = int(generator.integers(0, len(frames) - 9))
    clip = np.stack(frames[start : start + 10])
    margin = (clip.shape[2] - clip.shape[1]) // 2
    clip = clip[:, :, margin : margin + clip.shape[1]]
    clip = tf.cast(tf.image.resize(clip, (200, 200)), tf.uint8).numpy()
    return random_crop_flip(clip, SPEC.size, generator)


def rate(way, path, generator, clips):
    """Clips per second of processor time, and of time on the wall."""
    wall, busy = time.perf_counter(), time.process_time()
    for _ in range(clips):
        way(path, generator)
    return (
        clips / (time.process_time() - busy),
        clips / (time.perf_counter() - wall),
    )


def compare(title, path, others, pairs, clips):
    """Prints clips per second of `ours`, and its ratio to each other way."""
    generator = np.random.default_rng(0)
    ways = {"ours": ours, **others}
    for way in ways.values():  # what is only done once
        way(path, generator)
    found = {name: [] for name in ways}
    for _ in range(pairs):
        for name, way in ways.items():
            some = clips if name != "plain" else max(1, clips // 10)
            found[name].append(rate(way, path, generator, some))
    print(title)
    for name, rates in found.items():
        busy, wall = (
            statistics.median(some) for some in zip(*rates, strict=True)
        )
        print(f"  {name:6} {busy:7.1f} clips/s of a core, {wall:7.1f} by clock")
    for name in others:
        ratios = [
            a[0] / b[0] for a, b in zip(found["ours"], found[name], strict=True)
        ]
        print(f"  ours / {name}: {statistics.median(ratios):.2f}")


def memory(path, clips):
    """Prints how much the process grows over many clips."""

    def resident():
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    generator = np.random.default_rng(0)
    for _ in range(200):
        ours(path, generator)
    before = resident()
    for _ in range(clips):
        ours(path, generator)
    grown = (resident() - before) / 2**20
    print(f"memory over {clips} clips: {grown:+.1f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--ucf", help="an AVI file to measure instead")
    arguments = parser.parse_args()
    # One core for all ways: TensorFlow would take more.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        avi = arguments.ucf or draw(f"{folder}/ucf.avi", "mpeg4", 240, 320)
        mp4 = draw(
            f"{folder}/kinetics.mp4", "libx264", 256, 340, preset="veryfast"
        )
        sizes = arguments.pairs, arguments.clips
        compare("MPEG-4 AVI, 320 x 240", avi, {"plain": plain}, *sizes)
        others = {"bare": bare, "plain": plain}
        compare("H.264 MP4, 340 x 256, keyframe every 12", mp4, others, *sizes)
        long = draw(
            f"{folder}/long.mp4", "libx264", 256, 340, gop=250,
            preset="veryfast",
        )  # fmt: skip
        compare("H.264 MP4, keyframe every 250", long, others, *sizes)
        memory(avi, 2000)


if __name__ == "__main__":
    main()

"""Clips of optical flow read from files, beside clips of the videos' frames.

    python benchmarks/flow_reading.py DATA [--method dis] [--frames 10]
        [--side 256] [--crop 224] [--pairs 15] [--clips 20]

Computes the flow of the videos below DATA into a folder that is thrown away,
and reads random clips: as many fields as frames, both resized to the same
size, cropped and mirrored, in turn on one core, so that what else the machine
does hurts both alike. Printed for each video are the medians, the median of
the ratios of pairs (more than 1: flow is faster), and bytes on disk.
"""

import argparse
import os
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from keras_videofusion.data.augmentation import random_crop_flip
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.flow import compute, FlowFolder, METHODS
from keras_videofusion.data.video import read_clips


def clips_per_second(path, spec, flow, clips, generator):
    """Of processor time, which other work hurts less than time on the wall."""
    begin = time.process_time()
    for _ in range(clips):
        (clip,), _ = read_clips(path, spec, "random", 1, generator, flow=flow)
        np.ascontiguousarray(random_crop_flip(clip, spec.size, generator))
    return clips / (time.process_time() - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data")
    parser.add_argument("--method", choices=METHODS, default="dis")
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--clips", type=int, default=20)
    own = parser.parse_args()
    resize = ("short_side", own.side)
    rgb = ClipSpec(own.frames, resize=resize, size=own.crop)
    fields = ClipSpec(
        own.frames, resize=resize, size=own.crop, streams=("flow",)
    )
    ratios, sizes = [], np.zeros(2)
    with tempfile.TemporaryDirectory() as out:
        begin = time.perf_counter()
        rows = [row for row in compute(own.data, out, own.method) if row["ok"]]
        taken = time.perf_counter() - begin
        count = sum(row["fields"] for row in rows)
        print(f"{count} fields by {own.method} in {taken:.0f} s")
        flow = FlowFolder(out, own.data)
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        for row in rows:
            path = os.path.join(own.data, row["path"])
            if row["fields"] <= own.frames:
                continue
            found = []
            for pair in range(own.pairs + 1):
                generator = np.random.default_rng(pair)
                found.append(
                    [
                        clips_per_second(path, spec, flow, own.clips, generator)
                        for spec in (rgb, fields)
                    ]
                )
            frames, motions = np.median(found[1:], axis=0)
            ratio = statistics.median(b / a for a, b in found[1:])
            kept = os.path.getsize(path), os.path.getsize(flow.file(path))
            ratios.append(ratio)
            sizes += kept
            print(
                f"{row['path']:<40} RGB {frames:6.1f}, flow {motions:6.1f} "
                f"clips per second, flow / RGB {ratio:.2f}; "
                f"{kept[0] / 1e3:.0f} kB, flow {kept[1] / 1e3:.0f} kB",
                flush=True,
            )
    print(
        f"flow / RGB: median {statistics.median(ratios):.2f}, least "
        f"{min(ratios):.2f}; flow takes {sizes[1] / sizes[0]:.1f} times the "
        "bytes of the videos"
    )


if __name__ == "__main__":
    main()

"""Reads clips for a long time: do memory, threads and open files stay flat?

    python benchmarks/soak.py DATA [--clips 20000] [--threads 4]

Random clips of ten frames from all videos below DATA, by a few threads in one
process, as training reads them; broken files are skipped. Every thousand clips
a line tells resident memory, threads, open files and clips per second. At
20,000 clips memory should have grown by no more than a few percent since
1,000, threads and files not at all: exit status 1 if they have.
"""

import argparse
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from keras_videofusion.data.check import sources
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.video import read_clips, VideoError

SPEC = ClipSpec(10)
STEP = 1000


def state():
    """Resident megabytes, threads, open files."""
    with open("/proc/self/status") as file:
        told = dict(line.split(":", 1) for line in file)
    return (
        int(told["VmRSS"].split()[0]) / 1e3,
        int(told["Threads"]),
        len(os.listdir("/proc/self/fd")),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data")
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=4)
    own = parser.parse_args()
    found = sources(own.data)
    paths = [os.path.join(found.root, name) for name in found.names]
    skipped, lock = 0, threading.Lock()

    def clip(number):
        nonlocal skipped
        generator = np.random.default_rng(number)
        path = paths[generator.integers(len(paths))]
        try:
            read_clips(path, SPEC, "random", 1, generator)
        except VideoError:
            with lock:
                skipped += 1

    told = []
    with ThreadPoolExecutor(own.threads) as pool:
        for first in range(0, own.clips, STEP):
            begin = time.perf_counter()
            list(pool.map(clip, range(first, first + STEP)))
            rate = STEP / (time.perf_counter() - begin)
            memory, threads, files = state()
            told.append((memory, threads, files))
            print(
                f"{first + STEP} clips: {memory:.0f} MB, {threads} threads, "
                f"{files} open files, {rate:.0f} clips per second, "
                f"{skipped} skipped",
                flush=True,
            )
    (before, *counts), (after, *now) = told[0], told[-1]
    print(f"since {STEP} clips: {after - before:+.0f} MB")
    return int(after > 1.1 * before + 20 or now > counts)


if __name__ == "__main__":
    sys.exit(main())

"""The index of `videofusion duplicates`, at sizes that no disk here holds.

    python benchmarks/duplicates.py [--videos 10000 30000 100000]
        [--frames 64] [--kinds 2000] [--copies 0.002] [--clips DATA]

Draws the patterns of as many videos (natural ones crowd together, so they are
drawn around some kinds of scenes; a scene's frames drift), puts them into the
index and asks it for pairs. A share of the videos are copies of others, with
noise on every pattern. Printed are seconds of processor time per thousand
videos, bytes per video, pairs proposed per video, and how many of the copies
are among them; a last line takes the growth seen to a million videos.

With --clips the real side is measured on the videos below DATA: what a
fingerprint costs beside decoding every frame, and a comparison.
"""

import argparse
import itertools
import os
import resource
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import av
import numpy as np

from keras_videofusion.data.catalog import video_paths
from keras_videofusion.data.duplicates import compare, Index, Looks, TABLES
from keras_videofusion.data.fingerprints import fingerprint
from keras_videofusion.data.video import VideoError

# Strengths of the coefficients, low frequencies first, as in natural pictures.
STRENGTH = (1 / (1 + np.arange(63)) ** 0.5).astype(np.float32)
DRIFT = 0.15
NOISE = 0.05


def drawn(video, frames, kinds, copies, generator):
    """Patterns of a video in each table: float32 `(tables, frames, 63)`."""
    if video and generator.random() < copies:
        # A copy of the one before: the same drawing, a little changed.
        video -= 1
        noise = generator.normal(0, NOISE, (len(TABLES), frames, 63))
    else:
        noise = np.zeros(())
    own = np.random.default_rng(video)
    scene = np.random.default_rng([7, int(own.zipf(1.3)) % kinds])
    place = scene.normal(0, 1, (len(TABLES), 1, 63))
    place = place + own.normal(0, 0.5, place.shape)
    steps = own.normal(0, DRIFT, (len(TABLES), frames, 63))
    pattern = place + np.cumsum(steps, 1) + noise
    return (pattern * STRENGTH).astype(np.float32), noise.ndim > 0


def indexed(videos, frames, kinds, copies):
    """Fills an index; prints and returns what it took."""
    generator = np.random.default_rng(0)
    true, inserting = set(), 0.0
    with Index(videos) as index:
        for video in range(videos):
            patterns, copied = drawn(video, frames, kinds, copies, generator)
            if copied:
                true.add((video - 1, video))
            begin = time.process_time()
            for table, views in enumerate(patterns):
                index.insert(table, video, views)
            inserting += time.process_time() - begin
        size = sum(file.tell() for files in index.files for file in files)
        begin = time.process_time()
        pairs = index.pairs()
        pairing = time.process_time() - begin
    found = len(true & set(map(tuple, pairs.tolist())))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{videos:>8} videos: per thousand {1e3 * inserting / videos:.2f} s to "
        f"insert, {1e3 * pairing / videos:.3f} s to pair; {size / videos:.0f} "
        f"bytes and {len(pairs) / videos:.2f} pairs per video; {found} of "
        f"{len(true)} copies proposed; {index.crowded} crowded keys; "
        f"memory's peak {memory:.2f} GB",
        flush=True,
    )
    return videos, inserting, pairing, size, len(pairs)


def extrapolated(rows):
    """What a million videos would take, if growth goes on as it was seen."""
    rows = np.array(rows)
    logs = np.log(np.maximum(rows, 1e-3))
    if len(rows) < 2:
        return
    # Slopes of the last two, on doubly logarithmic paper.
    slope = (logs[-1, 1:] - logs[-2, 1:]) / (logs[-1, 0] - logs[-2, 0])
    more = np.log(1e6) - logs[-1, 0]
    inserting, pairing, size, pairs = np.exp(logs[-1, 1:] + slope * more)
    print(
        f" 1000000 videos, extrapolated: {inserting / 3600:.1f} h to insert, "
        f"{pairing / 3600:.2f} h to pair (grows as n ** {slope[1]:.2f}), "
        f"{size / 1e9:.1f} GB on disk, {pairs / 1e6:.1f} million pairs "
        f"(n ** {slope[3]:.2f})"
    )


def measured(data):
    """What real videos take."""
    looks, seconds, decoding, frames, bytes_ = [], 0.0, 0.0, 0, 0
    length = 0.0
    for name in video_paths(data):
        path = os.path.join(data, name)
        begin = time.process_time()
        try:
            found = fingerprint(path)
        except VideoError:
            continue
        seconds += time.process_time() - begin
        begin = time.process_time()
        with av.open(path) as file:
            file.streams.video[0].thread_type = "NONE"
            frames += sum(1 for _ in file.decode(video=0))
        decoding += time.process_time() - begin
        length += len(found) / found.rate
        bytes_ += found.thumbnails.nbytes
        looks.append(Looks(found))
    print(
        f"{len(looks)} videos of {length / len(looks):.1f} s: fingerprint "
        f"{1e3 * seconds / len(looks):.1f} ms ({length / seconds:.0f} times as "
        f"fast as they play; {seconds / decoding:.2f} of decoding all "
        f"{frames} frames), {bytes_ / len(looks):.0f} bytes each"
    )
    begin, count = time.process_time(), 0
    for one, other in itertools.pairwise(looks):
        compare(one, other, 0.3)
        count += 1
    each = (time.process_time() - begin) / max(count, 1)
    print(f"comparing neighbours {1e3 * each:.1f} ms")
    begin = time.process_time()
    for one in looks:
        compare(one, one, 0.3)
    each = (time.process_time() - begin) / len(looks)
    print(f"comparing copies {1e3 * each:.1f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--videos", type=int, nargs="+", default=[10000, 30000, 100000]
    )
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--kinds", type=int, default=2000)
    parser.add_argument("--copies", type=float, default=0.002)
    parser.add_argument("--clips", metavar="DATA")
    own = parser.parse_args()
    if own.clips:
        measured(own.clips)
    extrapolated(
        [
            indexed(videos, own.frames, own.kinds, own.copies)
            for videos in own.videos
        ]
    )


if __name__ == "__main__":
    main()

"""What a clip from the middle of a long video costs, in time and memory.

    python benchmarks/long_video.py FILE [--hours 2]

Draws FILE unless it is there: 640 x 360, 30 frames per second, H.264 with
B-frames, 22 MB an hour, a minute of drawing each. Then in a fresh process: the
first look at its frames (`timeline`) with the first clip, and clips when the
frames are known. Of two hours a clip from the middle should take less than
half a second, the first one too, and memory grow by less than 100 MB: exit
status 1 if not.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import av
import numpy as np

HEIGHT, WIDTH = 360, 640


def draw(path, frames):
    """A slanted ramp of greys that moves by two pixels a frame."""
    ramp = np.add.outer(np.arange(HEIGHT), np.arange(2 * WIDTH)) // 3 % 256
    ramp = ramp.astype(np.uint8)
    colour = np.full((HEIGHT // 2, WIDTH), 128, np.uint8)
    options = {"preset": "ultrafast", "crf": "40", "bf": "2"}
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.gop_size = 60
        for number in range(frames):
            left = 2 * number % WIDTH
            picture = np.concatenate([ramp[:, left : left + WIDTH], colour])
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def look(path, seconds, answers):
    """Seconds of clips around some second, processor time, megabytes."""
    from keras_videofusion.data.clips import ClipSpec
    from keras_videofusion.data.video import read_clips

    def most():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

    # What was imported has been loaded by now: it is not what is measured.
    before, taken = most(), []
    for number in range(6):
        start = seconds + 7.3 * number
        begin, work = time.perf_counter(), time.process_time()
        read_clips(path, ClipSpec(10), "centre", start=start, end=start + 5)
        taken.append((time.perf_counter() - begin, time.process_time() - work))
    answers.put((taken, most() - before))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file")
    parser.add_argument("--hours", type=float, default=2)
    own = parser.parse_args()
    seconds = own.hours * 3600
    if not os.path.exists(own.file):
        draw(own.file, round(30 * seconds))
    print(f"{own.file}: {os.path.getsize(own.file) / 1e6:.0f} MB")
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(
        target=look, args=(own.file, seconds / 2, answers)
    )
    process.start()
    (first, *others), grown = answers.get()
    process.join()
    middle = sorted(others)[len(others) // 2]
    print(f"first clip: {first[0]:.3f} s, {first[1]:.3f} s of processor time")
    print(f"next clips: {middle[0]:.3f} s, {middle[1]:.3f} s")
    print(f"memory grew by {grown:.0f} MB at most")
    return int(first[0] > 0.5 or middle[0] > 0.5 or grown > 100)


if __name__ == "__main__":
    sys.exit(main())

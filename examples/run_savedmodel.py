"""Name the classes of a video with an exported SavedModel.

    videofusion export RUN --format savedmodel --out network
    python examples/run_savedmodel.py network VIDEO

VIDEO lasts a few seconds. Needs tensorflow, PyAV and NumPy, and nothing of
keras_videofusion: classes and clip stand in the file.
"""

import json
import sys
from pathlib import Path

import tensorflow as tf
from read_clips import read_clips


def main(folder, video, count=10):
    network = tf.saved_model.load(folder)
    told = json.loads(Path(folder, "assets/description.json").read_text())
    clips = read_clips(video, told, count)
    answer = network.signatures["serving_default"](rgb=tf.constant(clips))
    scores = answer["probabilities"].numpy().mean(axis=0)
    for place in scores.argsort()[::-1][:5]:
        print(f"{scores[place]:6.1%}  {told['classes'][place]}")


if __name__ == "__main__":
    main(*sys.argv[1:3])

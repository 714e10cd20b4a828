"""Name the classes of a video with an exported LiteRT file.

    videofusion export RUN --format litert --out network.tflite
    python examples/run_litert.py network.tflite VIDEO

VIDEO lasts a few seconds. Needs ai-edge-litert, PyAV and NumPy, and nothing of
keras_videofusion: classes and clip stand in the file.
"""

import json
import sys
import zipfile

from ai_edge_litert.interpreter import Interpreter
from read_clips import read_clips


def main(file, video, count=10):
    with zipfile.ZipFile(file) as archive:
        told = json.loads(archive.read("description.json"))
    clips = read_clips(video, told, count)
    network = Interpreter(file).get_signature_runner()
    scores = network(rgb=clips)["probabilities"].mean(axis=0)
    for place in scores.argsort()[::-1][:5]:
        print(f"{scores[place]:6.1%}  {told['classes'][place]}")


if __name__ == "__main__":
    main(*sys.argv[1:3])

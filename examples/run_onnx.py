"""Name the classes of a video with an exported ONNX file.

    videofusion export RUN --format onnx --out network.onnx
    python examples/run_onnx.py network.onnx VIDEO

VIDEO lasts a few seconds. Needs onnxruntime, PyAV and NumPy, and nothing of
keras_videofusion: classes and clip stand in the file.
"""

import json
import sys

import onnxruntime
from read_clips import read_clips


def main(file, video, count=10):
    network = onnxruntime.InferenceSession(file)
    told = network.get_modelmeta().custom_metadata_map["description.json"]
    told = json.loads(told)
    clips = read_clips(video, told, count)
    (scores,) = network.run(["probabilities"], {"rgb": clips})
    scores = scores.mean(axis=0)
    for place in scores.argsort()[::-1][:5]:
        print(f"{scores[place]:6.1%}  {told['classes'][place]}")


if __name__ == "__main__":
    main(*sys.argv[1:3])

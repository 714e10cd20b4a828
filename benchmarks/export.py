"""Clips per second of exported SlowFusion in each runtime, against Keras.

    python benchmarks/export.py [--model slow_fusion] [--width 1] [--batch 4]
        [--rounds 5]

Every round times Keras and each file one after the other, on the same clips;
printed are clips per second of processor time, all threads together, and the
median over rounds of each runtime's share of Keras's own time. Batches of 4
of the full network take about a second each on two cores.
"""

import argparse
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from keras_videofusion.applications import clip_spec, get_model
from keras_videofusion.export import export, FORMATS
from keras_videofusion.training.run import Opened

FILES = (
    ("savedmodel", "none"),
    ("onnx", "none"),
    ("litert", "none"),
    ("litert", "float16"),
    ("litert", "dynamic"),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="slow_fusion")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    own = parser.parse_args()
    keras.utils.set_random_seed(0)
    spec = clip_spec(own.model)
    (stream,) = spec.streams
    model = get_model(own.model, width=own.width)
    classes = tuple(map(str, range(model.output_shape[-1])))
    draw = np.random.default_rng(0)
    shape = (own.batch, *spec.shapes[stream])
    clips = draw.integers(0, 256, shape, np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        # Keras comes first: the others are measured by it.
        runs = {"keras predict": lambda: model.predict_on_batch(clips)}
        sizes = {}
        for format, quantize in FILES:
            name = f"{format} {quantize}".removesuffix(" none")
            place = Path(folder, name)
            network = Opened(model, spec, classes)
            told = export(network, format, place, quantize=quantize)
            sizes[name] = f"{told['bytes'] / 1e6:8.1f} {told['difference']:.0e}"
            answer = FORMATS[format].run(place)
            runs[name] = lambda answer=answer: answer({stream: clips})
        for run in runs.values():
            run()
        spent = {name: [] for name in runs}
        for _ in range(own.rounds):
            for name, run in runs.items():
                begin = time.process_time()
                run()
                spent[name].append(time.process_time() - begin)
    own_time = np.array(spent["keras predict"])
    print("                  clips/s  of Keras's time        MB  difference")
    for name, seconds in spent.items():
        rate = own.batch / np.median(seconds)
        share = np.median(np.array(seconds) / own_time)
        print(f"{name:<16} {rate:8.2f} {share:16.2f}  {sizes.get(name, '')}")


if __name__ == "__main__":
    main()

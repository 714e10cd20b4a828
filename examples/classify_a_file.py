"""Name the classes of one video with a trained run.

    python examples/classify_a_file.py RUN VIDEO

RUN is the folder that `videofusion train` left. Takes a few seconds.
"""

import sys

from keras_videofusion.data.video import read_clips
from keras_videofusion.evaluation.protocol import predict
from keras_videofusion.training.run import open_model


def main(run, video):
    network = open_model(run)
    clips, seconds = read_clips(video, network.spec, "uniform", clips=5)
    print(f"{len(clips)} clips of shape {clips.shape[1:]}, from {seconds} s")
    (result,) = predict(
        network.model, network.spec, network.classes, [video], clips=5
    )
    for row in result["predictions"]:
        print(f"{row['score']:6.1%}  {row['class']}")


if __name__ == "__main__":
    main(*sys.argv[1:3])

"""Train a network of frames and of flow on a folder of videos.

    python examples/two_streams.py VIDEOS [--smoke]

VIDEOS holds a folder of videos per class. Their optical flow is computed into
`flow/` first, some milliseconds a frame, and only once. Twenty passes over 200
short videos take about ten minutes on two cores; --smoke takes two small
steps. Needs `pip install 'keras-videofusion[flow]'`.
"""

import sys

import keras

import keras_videofusion as kvf
from keras_videofusion.data import flow


def main(folder, smoke=False, saved="two_streams.keras"):
    for video in flow.compute(folder, "flow", method="dis"):
        print(video["path"], video["error"] or f"{video['fields']} fields")

    # The network states its clip: one frame, and the ten fields about it.
    spec = kvf.applications.clip_spec("two_stream")
    spec = spec.with_size(48 if smoke else 112)
    learned, watched = kvf.video_dataset_from_directory(
        folder,
        label_mode="categorical",
        batch_size=4 if smoke else 16,
        validation_split=0.25,
        subset="both",
        seed=0,
        spec=spec,
        flow="flow",
    )
    model = kvf.applications.TwoStream(
        input_shape=spec.shapes,  # {"rgb": ..., "flow": ...}
        classes=len(learned.class_names),
        width=0.05 if smoke else 0.25,
    )
    model.compile(
        keras.optimizers.Adam(3e-4),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(
        learned.take(2) if smoke else learned,
        validation_data=watched.take(1) if smoke else watched,
        epochs=1 if smoke else 20,
        shuffle=False,  # the clips come shuffled
    )
    model.save(saved)


if __name__ == "__main__":
    main(sys.argv[1], smoke="--smoke" in sys.argv)

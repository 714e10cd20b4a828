"""Train slow fusion on a folder of videos with plain Keras.

    python examples/fit_a_directory.py VIDEOS [--smoke]

VIDEOS holds a folder of videos per class. Twenty passes over 200 short
videos take about ten minutes on two cores; --smoke takes two small steps.
"""

import sys

import keras

import keras_videofusion as kvf


def main(folder, smoke=False, saved="slow_fusion.keras"):
    size, width = (64, 0.05) if smoke else (170, 0.25)
    learned, watched = kvf.video_dataset_from_directory(
        folder,
        label_mode="categorical",
        batch_size=4 if smoke else 16,
        image_size=(size, size),
        num_frames=10,
        validation_split=0.25,
        subset="both",
        seed=0,
    )
    model = kvf.applications.SlowFusion(
        input_shape=(10, size, size, 3),
        classes=len(learned.class_names),
        width=width,
        dropout=0.5,
    )
    model.compile(
        keras.optimizers.Adam(1e-3),
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

"""Clips per second: of the networks, of the input pipeline, and who waits.

Everything is measured by the clock on the wall, after a warm-up that leaves
compilation and the first look at every file out.
"""

import time

import numpy as np

TASKS = ("infer", "train")


def benchmark_network(name, batch=16, steps=10, task="infer", **builder):
    """Clips per second that a network takes, from memory.

    Args:
        name: String of `keras_videofusion.applications.list_models()`.
        batch: Integer, clips in a batch.
        steps: Integer, batches to measure, after two to warm up.
        task: `"infer"`: predictions; `"train"`: steps of SGD with momentum.
        **builder: The builder's arguments, such as `width`.

    Returns:
        Dict `{name, task, clips_per_second, batch, parameters, device}`;
        `device` names where Keras puts the network.

    Raises:
        ValueError: If an argument is out of range.
    """
    _expect(task in TASKS, "task", f"one of {TASKS}", task)
    _expect(batch >= 1, "batch", "1 or more", batch)
    _expect(steps >= 1, "steps", "1 or more", steps)
    import keras

    from keras_videofusion.applications import clip_spec, get_model

    model = get_model(name, **builder)
    spec = clip_spec(name)
    given = model.input
    inputs = given if isinstance(given, dict) else {spec.streams[0]: given}
    generator = np.random.default_rng(0)
    clips = {}
    for stream, tensor in inputs.items():
        shape = tensor.shape[1:]
        shape = spec.shapes[stream] if None in shape else shape
        drawn = generator.integers(0, 256, (batch, *shape)).astype(np.float32)
        clips[stream] = keras.ops.convert_to_tensor(drawn)
    clips = clips if isinstance(given, dict) else clips[spec.streams[0]]
    if task == "infer":

        def step():
            model.predict_on_batch(clips)

    else:
        classes = model.output_shape[-1]
        labels = np.eye(classes, dtype=np.float32)[
            generator.integers(0, classes, batch)
        ]
        model.compile(
            keras.optimizers.SGD(1e-3, momentum=0.9),
            "categorical_crossentropy",
        )

        def step():
            model.train_on_batch(clips, labels)

    seconds = _seconds(step, steps)
    return {
        "name": name,
        "task": task,
        "clips_per_second": batch * steps / seconds,
        "batch": batch,
        "parameters": model.count_params(),
        "device": _device(),
    }


def benchmark_pipeline(catalog, spec, batch=16, steps=20, flow=None):
    """Clips per second that the input pipeline gives, augmented, as trained on.

    Args:
        catalog: `keras_videofusion.data.catalog.Catalog`.
        spec: `keras_videofusion.data.clips.ClipSpec`.
        batch: Integer, clips in a batch.
        steps: Integer, batches to measure.
        flow: As for `keras_videofusion.data.pipeline.training_clips`.

    Returns:
        Dict `{name, task, clips_per_second, batch, videos, skipped}`;
        `skipped` counts the files that turned out to be broken.

    Raises:
        ValueError: If the catalog is empty or an argument out of range.
    """
    _expect(batch >= 1, "batch", "1 or more", batch)
    _expect(steps >= 1, "steps", "1 or more", steps)
    from keras_videofusion.data.pipeline import training_clips
    from keras_videofusion.data.video import timeline, VideoError

    # Training looks through a file once and remembers its frames; what
    # counts is the speed from then on.
    for video in catalog:
        try:
            timeline(catalog.file(video))
        except VideoError:
            continue
    skipped = []
    batches = iter(
        training_clips(
            catalog,
            spec,
            batch,
            on_skip=lambda path, error: skipped.append(path),
            flow=flow,
        )
    )
    read = 0

    def step():
        nonlocal read
        read += len(next(batches)[1])

    step()
    step()
    read = 0
    seconds = _seconds(step, steps, warm=0)
    return {
        "name": "pipeline",
        "task": "read",
        "clips_per_second": read / seconds,
        "batch": batch,
        "videos": len(catalog),
        "skipped": len(skipped),
    }


def bottleneck(network, pipeline):
    """Says which of the two the other waits for.

    Args:
        network: What `benchmark_network` returned.
        pipeline: What `benchmark_pipeline` returned.

    Returns:
        String, one sentence.
    """
    eats, gives = network["clips_per_second"], pipeline["clips_per_second"]
    verb = {"infer": "inference", "train": "training"}[network["task"]]
    if gives < eats:
        return (
            f"{network['name']}, {verb}: the pipeline is the bottleneck; it "
            f"gives {gives:.1f} clips per second of the {eats:.1f} that the "
            "network could take."
        )
    return (
        f"{network['name']}, {verb}: the network is the bottleneck; it takes "
        f"{eats:.1f} clips per second of the {gives:.1f} that the pipeline "
        "could give."
    )


def _seconds(step, steps, warm=2):
    for _ in range(warm):
        step()
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    return time.perf_counter() - begin


def _device():
    import keras

    if keras.backend.backend() != "tensorflow":
        return keras.backend.backend()
    import tensorflow as tf

    cards = tf.config.list_logical_devices("GPU")
    return cards[0].name if cards else "CPU"


def _expect(true, name, expected, value):
    if not true:
        raise ValueError(
            f"`{name}` must be {expected}. Received: {name}={value!r}"
        )

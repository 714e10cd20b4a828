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


def benchmark_pipeline(
    catalog, spec, batch=16, steps=20, flow=None, cache=None
):
    """Clips per second that the input pipeline gives, augmented, as trained on.

    Args:
        catalog: `keras_videofusion.data.catalog.Catalog`.
        spec: `keras_videofusion.data.clips.ClipSpec`, or `VectorSpec`.
        batch: Integer, clips in a batch.
        steps: Integer, batches to measure.
        flow: As for `keras_videofusion.data.pipeline.training_clips`.
        cache: As there, for shards.

    Returns:
        Dict `{name, task, clips_per_second, clips_per_core_second, batch,
        videos, skipped}`: by the clock, and by the processor time of all
        threads; `skipped` counts the files that turned out to be broken.

    Raises:
        ValueError: If the catalog is empty or an argument out of range.
    """
    _expect(batch >= 1, "batch", "1 or more", batch)
    _expect(steps >= 1, "steps", "1 or more", steps)
    from keras_videofusion.data.manifest import read_manifest
    from keras_videofusion.data.pipeline import training_clips
    from keras_videofusion.data.vectors import expect_fitting
    from keras_videofusion.data.video import timeline, VideoError

    shards = read_manifest(catalog.root)
    vectors = expect_fitting(catalog, spec)
    # Training looks through a file once and remembers its frames; what
    # counts is the speed from then on.
    for video in () if shards or vectors else catalog:
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
            # All that is stored: what is passed over would count as reading.
            clips_per_video=(
                vectors.each
                if vectors
                else (shards and shards.recipe["clips"]) or 1
            ),
            on_skip=lambda path, error: skipped.append(path),
            flow=flow,
            cache=cache,
        )
    )
    read = 0

    def step():
        nonlocal read
        read += len(next(batches)[1])

    step()
    step()
    read, worked = 0, time.process_time()
    seconds = _seconds(step, steps, warm=0)
    return {
        "name": "pipeline",
        "task": "read",
        "clips_per_second": read / seconds,
        "clips_per_core_second": read / (time.process_time() - worked),
        "batch": batch,
        "videos": len(catalog),
        "skipped": len(skipped),
    }


def benchmark_decoding(catalog, spec, rounds=15, seed=0):
    """Clips per second and core that decoding alone gives, beside its peers.

    Every reader gives the same frames of the same videos at their own size,
    one video after the other, and the readers take turns, so that what else
    the machine does hurts them alike. Counted is processor time, of all
    threads together.

    Args:
        catalog: `keras_videofusion.data.catalog.Catalog` of files.
        spec: `keras_videofusion.data.clips.ClipSpec`; its frames and step.
        rounds: Integer, videos to read.
        seed: Integer, of the clips that are drawn.

    Returns:
        A list of `{name, task, clips_per_second, ratio, clips}`, ours first:
        plain PyAV, and decord where it is installed. `ratio` is the median
        over the videos of our speed to the reader's. Videos that a reader
        cannot read are left out.

    Raises:
        ValueError: If `rounds` is out of range or no video can be read.
    """
    _expect(rounds >= 1, "rounds", "1 or more", rounds)
    import av

    from keras_videofusion.data.video import decode, timeline, VideoError

    # What peers raise of a video that they cannot read.
    failures = (VideoError, av.error.FFmpegError, TypeError, RuntimeError)
    readers = {"ours": decode, "PyAV": _plainly_decoded, **_decord()}
    generator = np.random.default_rng(seed)
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for turn in range(rounds):
        video = catalog[int(generator.integers(len(catalog)))]
        path = catalog.file(video)
        try:
            frames = len(timeline(path))
            begin = generator.integers(max(1, frames - spec.span + 1))
            wanted = np.minimum(begin + spec.offsets, frames - 1)
            spent = {}
            # Whoever comes first finds the file cold.
            names = list(np.roll(list(readers), turn))
            for name in names:
                readers[name](path, wanted)
                start = time.process_time()
                readers[name](path, wanted)
                spent[name] = time.process_time() - start
        except failures:
            continue
        for name, value in spent.items():
            seconds[name].append(value)
    if not seconds["ours"]:
        raise ValueError("`catalog` has no video that all readers can read.")
    own = np.array(seconds["ours"])
    return [
        {
            "name": f"decoding, {name}",
            "task": "decode",
            "clips_per_second": float(1 / np.median(spent)),
            "ratio": float(np.median(np.array(spent) / own)),
            "clips": len(spent),
        }
        for name, spent in seconds.items()
    ]


def _plainly_decoded(path, wanted):
    """The frames of a clip as PyAV's own documentation reads them."""
    import av

    wanted = set(wanted.tolist())
    found = []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        rate = float(stream.average_rate or stream.guessed_rate)
        base = float(stream.time_base)
        first = (stream.start_time or 0) * base
        container.seek(int((first + min(wanted) / rate) / base), stream=stream)
        for frame in container.decode(stream):
            number = round((frame.time - first) * rate)
            if number in wanted:
                found.append(frame.to_ndarray(format="rgb24"))
            if number >= max(wanted):
                break
    return found


def _decord():
    """The reader of decord, where that is installed."""
    try:
        import decord
    except ImportError:
        return {}

    def read(path, wanted):
        video = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        return video.get_batch(wanted.tolist()).asnumpy()

    return {"decord": read}


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

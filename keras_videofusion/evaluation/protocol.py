"""The paper's test protocol: clips, passes, averages; and predictions."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_videofusion.data.augmentation import center_crop, test_passes
from keras_videofusion.data.catalog import Catalog
from keras_videofusion.data.clips import (
    ClipSpec,
    each_stream,
    generator_of,
)
from keras_videofusion.data.flow import Flow, from_bytes, open_flow
from keras_videofusion.data.manifest import read_manifest
from keras_videofusion.data.vectors import expect_fitting, VectorSpec
from keras_videofusion.data.video import read_clips, timeline, VideoError
from keras_videofusion.evaluation.scores import (
    probabilities,
    Scores,
    video_ids,
)

PASSES = (1, 4)
# What needs no preparation, and takes milliseconds a field.
FLOW = "dis"
# Reads the clips of a video, as `read_clips` returns them.
_Load = Callable[[np.random.Generator], tuple[Any, np.ndarray]]
# Makes the vectors, `(vectors, size)`, of a file from its start to its end.
Describe = Callable[[str, float | None, float | None], np.ndarray]


def score(
    model: keras.Model,
    catalog: Catalog,
    spec: ClipSpec | VectorSpec,
    clips: int = 20,
    passes: int = 4,
    batch: int = 32,
    seed: int = 0,
    on_error: str = "skip",
    progress: Callable[[int], None] | None = None,
    flow: str | os.PathLike | None = None,
    describe: Describe | None = None,
) -> tuple[Scores, list[dict[str, str]]]:
    """Scores the videos of a catalog by the paper's protocol.

    Random clips of every video pass the network as the centre crop and one
    random crop, each plain and flipped. A clip's logits and probabilities are
    averages over its passes. What is drawn for a video depends on the seed
    and the video's name alone, so more videos change nothing for the others.

    Videos are decoded by a few threads ahead of the network; at no time are
    more than a few videos in memory. Of a catalog of shards the stored clips
    are scored, as many of each video as are asked for or stored. So it is
    with vectors: they are a video's clips, and pass once.

    Args:
        model: `keras.Model` from clips to one score per class; of a clip of
            two streams it takes a dict.
        catalog: `Catalog` of the videos, with the network's classes.
        spec: `ClipSpec` that the network needs, or `VectorSpec`.
        clips: Integer, clips per video.
        passes: 4, or 1: the centre crop alone.
        batch: Integer, passes that the network is fed at a time; batches run
            across videos, and the last is filled up, so that all have one
            shape.
        seed: Integer, 0 or more.
        on_error: `"skip"`: a video that cannot be read is left out and named;
            `"raise"`: it ends the work.
        progress: Function of the number of videos done, or None.
        flow: Where flow comes from, for a network that eats it: the folder
            that `videofusion flow` made, or the name of a method to compute
            it as the clips are read; `"dis"` if None.
        describe: Function of (path, start, end) to the vectors of a video,
            float32 `(vectors, size)`, for a network of vectors whose catalog
            is of files; or None.

    Returns:
        `Scores` of the videos that could be read, and a list of
        `{path, error}` of the others.

    Raises:
        ValueError: If an argument is out of range, or if the network has
            another number of classes than the catalog.
        VideoError: If a video cannot be read and `on_error` is `"raise"`.

    Reference:
        Karpathy et al., CVPR 2014, section 4.1: 20 clips, 4 passes.
    """
    _check(clips=clips, passes=passes, batch=batch, seed=seed, error=on_error)
    if isinstance(spec, VectorSpec):
        passes = 1
    network = _Network(model, spec, batch)
    names = video_ids(catalog)
    videos = _Videos(
        catalog,
        spec,
        _jobs(catalog, spec, clips, flow, describe),
        passes,
        seed,
        on_error,
        progress,
    )
    logits, shares = [], []
    for clip_logits, clip_shares in network(videos.passes(), passes):
        if clip_logits.shape != (len(catalog.classes),):
            raise ValueError(
                "`model` must give one score per class of the catalog, "
                f"{len(catalog.classes)}. "
                f"Received: scores of shape {clip_logits.shape}"
            )
        logits.append(clip_logits)
        shares.append(clip_shares)
    kept, starts = videos.kept, videos.starts
    classes = len(catalog.classes)
    counts = [len(times) for times in starts]
    # Shards give videos in an order of their own.
    order = np.argsort(kept, kind="stable").tolist()
    clip_order = _of_parts(order, counts)
    return (
        Scores(
            tuple(names[kept[row]] for row in order),
            catalog.classes,
            catalog.truth_of([kept[row] for row in order]),
            np.repeat(np.arange(len(kept)), [counts[row] for row in order]),
            np.concatenate([np.zeros(0), *(starts[row] for row in order)]),
            np.array(logits, np.float32).reshape(-1, classes)[clip_order],
            np.array(shares, np.float32).reshape(-1, classes)[clip_order],
            {
                "clips": clips,
                "passes": passes,
                "seed": seed,
                "sampler": "random",
                "activation": network.activation,
                "clip": spec.to_json(),
            },
        ),
        videos.skipped,
    )


def features(
    model: keras.Model,
    catalog: Catalog,
    spec: ClipSpec,
    clips: int = 20,
    passes: int = 4,
    batch: int = 32,
    seed: int = 0,
    on_error: str = "skip",
    progress: Callable[[int], None] | None = None,
    flow: str | os.PathLike | None = None,
    sampler: str = "random",
    view: Callable[[Any, np.random.Generator], Any] | None = None,
    skipped: list[dict[str, str]] | None = None,
) -> Iterator[np.ndarray | None]:
    """What a network answers to the clips of every video, as `score` reads it.

    Args:
        model: `keras.Model` from clips to vectors, of shape `(batch, size)`.
        catalog: `Catalog` of videos, or of shards.
        spec: `ClipSpec` that the network needs.
        clips: Integer, clips per video; where shards hold fewer, they are
            repeated.
        passes: 1 or 4: a clip's vector is the mean over them.
        batch: As for `score`.
        seed: As for `score`.
        on_error: As for `score`.
        progress: As for `score`.
        flow: As for `score`.
        sampler: Where clips begin: `"random"`, `"uniform"` or `"centre"`.
        view: Function of a clip, resized but not cropped, and a generator, to
            what the network is shown of it, in place of the passes; or None.
        skipped: List to which `{path, error}` of videos that cannot be read
            are added, or None.

    Yields:
        Float32 array of shape `(clips, size)` for every video, in the
        catalog's order; None for one that cannot be read.

    Raises:
        ValueError: If an argument is out of range.
        VideoError: If a video cannot be read and `on_error` is `"raise"`.
    """
    _check(clips=clips, passes=passes, batch=batch, seed=seed, error=on_error)
    network = _Network(None, spec, batch, network=model)
    views = passes if view is None else 1
    videos = _Videos(
        catalog,
        spec,
        _jobs(catalog, spec, clips, flow, None, sampler),
        passes,
        seed,
        on_error,
        progress,
        view,
    )
    rows: list[np.ndarray] = []
    # Shards give videos in an order of their own: some wait for their turn.
    ready: dict[int, np.ndarray | None] = {}
    done = turn = 0

    def due():
        nonlocal turn
        while turn in ready:
            yield ready.pop(turn)
            turn += 1

    for row in network.means(videos.passes(), views):
        rows.append(row)
        # Broken videos are known before the next whole one is done.
        while done < len(videos.kept) and len(rows) >= len(videos.starts[done]):
            count = len(videos.starts[done])
            own, rows = np.array(rows[:count], np.float32), rows[count:]
            ready[videos.kept[done]] = own[np.arange(clips) % count]
            done += 1
        ready.update(dict.fromkeys(videos.take_broken()))
        yield from due()
    ready.update(dict.fromkeys(videos.take_broken()))
    yield from due()
    if skipped is not None:
        skipped.extend(videos.skipped)
    for _ in range(turn, len(catalog)):
        # Shards hold nothing of what they skipped.
        yield ready.pop(turn, None)
        turn += 1


class _Videos:
    """Reads the clips of videos ahead of a network, and says which came.

    Attributes:
        kept: Places of the videos that were read, as they came.
        starts: Of each of them an array of its clips' seconds.
        skipped: List of `{path, error}` of the others.
    """

    def __init__(
        self, catalog, spec, jobs, count, seed, on_error, progress, view=None
    ):
        self.catalog = catalog
        self.spec = spec
        self.jobs = jobs
        self.count = count
        self.seed = seed
        self.on_error = on_error
        self.progress = progress
        self.view = view
        self.names = video_ids(catalog)
        self.kept: list[int] = []
        self.starts: list[np.ndarray] = []
        self.skipped: list[dict[str, str]] = []
        self.broken: list[int] = []

    def _read(self, job: tuple[int, _Load]) -> tuple[int, Any]:
        place, load = job
        generator = generator_of(self.seed, self.names[place])
        try:
            found, times = load(generator)
        except VideoError as error:
            return place, error
        return place, _Read(
            found, times, self.spec, self.count, generator, self.view
        )

    def passes(self) -> Iterator[Any]:
        """Yields what the network is shown, video after video."""
        for done, found in enumerate(_ahead(self._read, self.jobs)):
            if self.progress and done:
                self.progress(done)
            place, ready = found.result()
            if isinstance(ready, VideoError):
                if self.on_error == "raise":
                    raise ready
                self.broken.append(place)
                self.skipped.append(
                    {"path": self.catalog[place].path, "error": ready.reason}
                )
                continue
            self.kept.append(place)
            self.starts.append(ready.starts)
            yield from ready.passes()
        if self.progress:
            self.progress(len(self.catalog))

    def take_broken(self) -> list[int]:
        """Places of broken videos that were not asked for before."""
        found, self.broken = self.broken, []
        return found


def _jobs(
    catalog, spec, clips, flow, describe, sampler="random"
) -> Iterator[tuple[int, _Load]]:
    """Places of videos and how their clips are read, wherever they lie."""
    if isinstance(spec, VectorSpec) and describe is not None:
        return map(
            lambda place: (place, _described(catalog, place, describe)),
            range(len(catalog)),
        )
    vectors = expect_fitting(catalog, spec)
    if vectors is not None:
        places = vectors.places(catalog)
        return map(
            lambda place: (place, _stored(vectors, places[place], clips)),
            range(len(catalog)),
        )
    if read_manifest(catalog.root) is not None:
        # TensorFlow is not loaded before its records are read.
        from keras_videofusion.data.shards import stored_videos

        return stored_videos(catalog, spec, clips)
    source = _flow(spec, flow, catalog.root)

    def job(place):
        video = catalog[place]

        def load(generator):
            return read_clips(
                catalog.file(video),
                spec,
                sampler,
                clips,
                generator,
                video.start,
                video.end,
                flow=source,
            )

        return place, load

    return map(job, range(len(catalog)))


def _stored(vectors, row, clips) -> _Load:
    """Reads some of a video's stored vectors, evenly spread."""

    def load(generator):
        count = min(clips, vectors.each)
        chosen = np.arange(count) * vectors.each // count
        return vectors.rows(int(row))[chosen], np.zeros(count)

    return load


def _described(catalog, place, describe) -> _Load:
    """Makes the vectors of a video's file."""
    video = catalog[place]

    def load(generator):
        found = describe(catalog.file(video), video.start, video.end)
        return found, np.zeros(len(found))

    return load


def _of_parts(order, counts) -> np.ndarray:
    """Numbers of the elements of parts that are put in another order."""
    begins = np.cumsum([0, *counts])
    some = [np.arange(begins[row], begins[row + 1]) for row in order]
    return np.concatenate([np.zeros(0, np.int64), *some])


def predict(
    model: keras.Model,
    spec: ClipSpec | VectorSpec,
    classes: Sequence[str],
    paths: Iterable[str | os.PathLike],
    top: int = 5,
    every: float | None = None,
    overlay: str | os.PathLike | None = None,
    clips: int = 20,
    passes: int = 4,
    batch: int = 32,
    seed: int = 0,
    on_error: str = "skip",
    flow: str | os.PathLike | None = None,
    describe: Describe | None = None,
) -> Iterator[dict[str, Any]]:
    """Names the classes of video files, one after the other.

    The clips are spread evenly over the video, or over each window of
    `every` seconds.

    Args:
        model: `keras.Model` from clips to one score per class; of a clip of
            two streams it takes a dict.
        spec: `ClipSpec` that the network needs, or `VectorSpec`.
        classes: Names of the classes.
        paths: Files.
        top: Integer, classes to name; all if there are fewer.
        every: Float, seconds of a window; None for the video as one.
        overlay: Folder for copies of the videos with the classes drawn on
            them, or None.
        clips: Integer, clips per video or window.
        passes: 1 or 4, as for `score`.
        batch: Integer, passes that the network is fed at a time.
        seed: Integer, of the random crops.
        on_error: `"skip"` names a broken video in `error` of its result;
            `"raise"` ends the work.
        flow: As for `score`.
        describe: As for `score`: a network of vectors needs it.

    Yields:
        Dicts `{path, predictions, error}`: `predictions` is a list of
        `{class, score}`, best first, and empty for a broken video, whose
        `error` is one line, else None. With `every` also `windows`, a list
        of `{start, end, predictions}`.

    Raises:
        ValueError: If an argument is out of range.
        VideoError: If a video cannot be read and `on_error` is `"raise"`.
    """
    _check(clips=clips, passes=passes, batch=batch, seed=seed, error=on_error)
    if top < 1:
        raise ValueError(f"`top` must be 1 or more. Received: top={top}")
    if every is not None and not every > 0:
        raise ValueError(
            "`every` must be seconds, more than 0, or None. "
            f"Received: every={every}"
        )
    if isinstance(spec, VectorSpec):
        if describe is None:
            raise ValueError(
                "`describe` is needed by a network of vectors: it makes those "
                "of a video. Received: describe=None"
            )
        clips = passes = 1
    network = _Network(model, spec, min(batch, clips * passes))
    source = _flow(spec, flow)
    classes = tuple(classes)
    for path in paths:
        place = os.fspath(path)
        result: dict[str, Any] = {
            "path": place,
            "predictions": [],
            "error": None,
        }
        try:
            windows = _windows(place, every)
            shares = _window_scores(
                network, place, spec, windows, clips, passes, seed, source,
                describe,
            )  # fmt: skip
            if shares.shape[1] != len(classes):
                raise ValueError(
                    "`classes` must be as many as the network's scores, "
                    f"{shares.shape[1]}. Received: {len(classes)} classes"
                )
            result["predictions"] = _named(shares.mean(axis=0), classes, top)
            if every is not None:
                result["windows"] = [
                    {
                        "start": start,
                        "end": end,
                        "predictions": _named(row, classes, top),
                    }
                    for (start, end), row in zip(windows, shares, strict=True)
                ]
            if overlay is not None:
                from keras_videofusion.evaluation.overlay import write_overlay

                write_overlay(place, result, overlay)
        except VideoError as error:
            if on_error == "raise":
                raise
            result["error"] = error.reason
        yield result


def logits_model(model: keras.Model) -> tuple[keras.Model, str]:
    """The network before its last softmax or sigmoid, on the same weights.

    Where the last layer is a `Dense` with such an activation, or is such an
    `Activation` or `Softmax` layer, it is taken apart. A last `Dense` or
    `Activation` that is linear gives logits already; they are held to be a
    softmax's. Of any other network the output is held to be probabilities:
    where the last activation before it is a sigmoid, every class's own, whose
    logits are the logarithms of their odds; else such as sum to 1, whose
    logits are their logarithms.

    Args:
        model: `keras.Model` with one output of shape `(batch, classes)`.

    Returns:
        A `keras.Model` and `"softmax"` or `"sigmoid"`.
    """
    last = _last_layer(model)
    name = getattr(getattr(last, "activation", None), "__name__", "")
    if isinstance(last, keras.layers.Softmax) and last.axis in (-1, 1):
        return keras.Model(_inputs(model), last.input), "softmax"
    if isinstance(last, keras.layers.Activation):
        if name == "linear":
            return model, "softmax"
        if name in ("softmax", "sigmoid"):
            return keras.Model(_inputs(model), last.input), name
    if type(last) is keras.layers.Dense:
        if name == "linear":
            return model, "softmax"
        if name in ("softmax", "sigmoid"):
            logits = _Unactivated(last)(last.input)
            return keras.Model(_inputs(model), logits), name
    if _last_activation(model) == "sigmoid":
        return _Logarithm(model, odds=True), "sigmoid"
    return _Logarithm(model), "softmax"


def _last_activation(model: Any) -> str:
    """The last softmax or sigmoid of a network and those nested in it."""
    found = ""
    for layer in model.layers:
        name = getattr(getattr(layer, "activation", None), "__name__", "")
        if isinstance(layer, keras.Model):
            found = _last_activation(layer) or found
        elif isinstance(layer, keras.layers.Softmax):
            found = "softmax"
        elif isinstance(
            layer, keras.layers.Dense | keras.layers.Activation
        ) and name in ("softmax", "sigmoid"):
            found = name
    return found


def _inputs(model: keras.Model) -> Any:
    """What a network takes, as it takes it: a tensor, or a dict of two."""
    if isinstance(model, keras.Sequential):
        # It has no structure, and its `input` may be missing.
        (model_input,) = model.inputs
        return model_input
    return model.input


def _last_layer(model: keras.Model) -> Any:
    """The layer whose output is the network's, if that can be told."""
    try:
        last = model.layers[-1]
        (output,) = model.outputs
        return last if last.output is output else None
    except (AttributeError, ValueError, IndexError, TypeError):
        # Subclassed, of several outputs, or the last layer is used twice.
        return None


class _Unactivated(keras.layers.Layer):
    """A `Dense` layer without its activation, on that layer's weights."""

    def __init__(self, dense):
        super().__init__(name="logits", dtype=dense.dtype_policy)
        self.dense = dense
        self.built = True

    def call(self, inputs):
        outputs = ops.matmul(inputs, self.dense.kernel)
        if self.dense.use_bias:
            outputs = ops.add(outputs, self.dense.bias)
        return outputs

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.dense.units)


class _Logarithm(keras.Model):
    """Logarithms of a network's probabilities, or of their odds."""

    def __init__(self, model, odds=False):
        super().__init__(name="logarithm")
        self.model = model
        self.odds = odds
        self.built = True

    def call(self, inputs):
        scores = ops.cast(self.model(inputs, training=False), "float32")
        # The smallest normal float32: a probability of 0 stays finite.
        found = ops.log(ops.maximum(scores, 1.2e-38))
        if self.odds:
            found -= ops.log(ops.maximum(1 - scores, 1.2e-38))
        return found


class _Network:
    """Feeds single passes to a network in batches of one shape.

    One shape, so that the network is compiled once.
    """

    def __init__(self, model, spec, batch, network=None):
        self.network, self.activation = network, ""
        if network is None:
            self.network, self.activation = logits_model(model)
        self.waiting = {
            name: np.zeros(
                (batch, *shape), np.float32 if name == "features" else np.uint8
            )
            for name, shape in spec.shapes.items()
        }
        self.batch = batch
        self.only = spec.streams[0]

    def __call__(self, stream, passes):
        """Yields logits and probabilities of clips, `(classes,)` each.

        Every `passes` successive elements of `stream` are one clip's; their
        logits and their probabilities are averaged.
        """
        rows: deque = deque()
        for row in self._logits(stream):
            rows.append(row)
            if len(rows) == passes:
                logits = np.stack(rows)
                shares = probabilities(logits, self.activation)
                yield logits.mean(axis=0), shares.mean(axis=0)
                rows.clear()

    def means(self, stream, passes):
        """Yields what the network answers to clips, the mean over passes."""
        rows = []
        for row in self._logits(stream):
            rows.append(row)
            if len(rows) == passes:
                yield np.mean(rows, axis=0)
                rows.clear()

    def _logits(self, stream):
        count = 0
        for one in stream:
            clip = one if isinstance(one, dict) else {self.only: one}
            for name, waiting in self.waiting.items():
                waiting[count] = clip[name]
            count += 1
            if count == self.batch:
                yield from self._fed()
                count = 0
        if count:
            yield from self._fed()[:count]

    def _fed(self):
        inputs: Any = dict(self.waiting)
        if "flow" in inputs:
            inputs["flow"] = from_bytes(inputs["flow"])
        if len(inputs) == 1:
            inputs = inputs[self.only]
        logits = self.network.predict_on_batch(inputs)
        return np.asarray(logits, np.float64)


@dataclass(frozen=True)
class _Read:
    """The clips of one video, before they are cropped, or its vectors."""

    clips: Any  # (clips, time, height, width, channels), or a dict of streams
    starts: np.ndarray  # (clips,), seconds
    spec: ClipSpec | VectorSpec
    count: int
    generator: np.random.Generator
    view: Callable[[Any, np.random.Generator], Any] | None = None

    def passes(self) -> Iterator[Any]:
        for place in range(len(self.starts)):
            clip = each_stream(itemgetter(place), self.clips)
            if isinstance(self.spec, VectorSpec):
                yield clip
                continue
            if self.view is not None:
                yield self.view(clip, self.generator)
                continue
            if self.count == 1:
                yield center_crop(clip, self.spec.size)
                continue
            views = test_passes(clip, self.spec.size, self.generator)
            for view in range(self.count):
                yield each_stream(itemgetter(view), views)


def _flow(spec, flow, root=None) -> Flow | None:
    """Where the flow of clips comes from; None where they have none."""
    return open_flow(flow or FLOW, root) if "flow" in spec.streams else None


def _ahead(work: Callable, places: Iterable) -> Iterator[Future]:
    """Yields futures of `work` on every place, a few of them in advance."""
    workers = min(4, os.cpu_count() or 1)
    waiting: deque[Future] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for place in places:
            waiting.append(pool.submit(work, place))
            if len(waiting) > workers:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)


def _windows(path: str, every: float | None) -> list[tuple[float, float]]:
    """The parts of a video to score apart, in seconds."""
    times = timeline(path).times
    # The last frame is shown for as long as the others on average.
    length = float(times[-1]) * len(times) / max(1, len(times) - 1)
    if every is None:
        return [(0.0, max(length, float(times[-1]) + 1e-3))]
    count = max(1, math.ceil(length / every - 1e-6))
    ends = [min((place + 1) * every, length) for place in range(count)]
    windows = zip([0.0, *ends[:-1]], ends, strict=True)
    # A window may fall between two frames of a slow video.
    return [
        (start, max(end, start + 1e-3))
        for start, end in windows
        if np.any((times >= start) & (times < max(end, start + 1e-3)))
    ]


def _window_scores(
    network, path, spec, windows, clips, passes, seed, flow, describe
):
    """Probabilities of every window, `(windows, classes)`."""

    def read(place):
        start, end = windows[place]
        generator = generator_of(seed, f"{place}")
        if isinstance(spec, VectorSpec):
            found, starts = describe(path, start, end), np.array([start])
        else:
            found, starts = read_clips(
                path, spec, "uniform", clips, generator, start, end, flow=flow
            )
        return _Read(found, starts, spec, passes, generator)

    def stream():
        for found in _ahead(read, range(len(windows))):
            yield from found.result().passes()

    shares = [shares for _, shares in network(stream(), passes)]
    return np.reshape(shares, (len(windows), clips, -1)).mean(axis=1)


def _named(scores, classes, top) -> list[dict[str, Any]]:
    """The best classes with their scores, best first."""
    best = np.argsort(-scores, kind="stable")[:top]
    return [
        {"class": classes[place], "score": float(scores[place])}
        for place in best
    ]


def _check(clips, passes, batch, seed, error) -> None:
    for name, value, least in (
        ("clips", clips, 1),
        ("batch", batch, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise ValueError(
                f"`{name}` must be {least} or more. Received: {name}={value}"
            )
    if passes not in PASSES:
        raise ValueError(
            f"`passes` must be one of {PASSES}. Received: passes={passes}"
        )
    if error not in ("skip", "raise"):
        raise ValueError(
            "`on_error` must be 'skip' or 'raise'. "
            f"Received: on_error={error!r}"
        )

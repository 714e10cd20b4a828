"""Networks as SavedModel, ONNX and LiteRT files that need no Keras.

What is written answers alike in all three: it takes `rgb`, uint8 clips of
shape `(batch, time, height, width, 3)`, and `flow`, float32 clips of
`(batch, time, height, width, 2)` in pixels per frame, as far as the network
has these streams, or `features`, float32 vectors `(batch, size)`, of any
batch; it gives `probabilities` and, where the
network's last activation can be taken off, `logits`, both of shape
`(batch, classes)`. Pixels are scaled inside, and uint8 refuses those that were
scaled already.

The names of the classes and the clip stand in the file as JSON, under the name
`description.json`: of a SavedModel in its `assets/` (and as the signature
`description`, for servers), of ONNX among the metadata, of LiteRT in a zip
archive behind the network, where `unzip` finds it too.
"""

import importlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections import namedtuple
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from keras_videofusion.data.augmentation import center_crop
from keras_videofusion.data.files import (
    exists,
    is_folder,
    is_remote,
    join,
    make_folder,
    remove,
    written,
)
from keras_videofusion.data.flow import from_bytes, open_flow
from keras_videofusion.data.vectors import expect_fitting, VectorSpec
from keras_videofusion.data.video import read_clips, VideoError
from keras_videofusion.evaluation.protocol import FLOW, logits_model
from keras_videofusion.evaluation.scores import probabilities
from keras_videofusion.training.evaluate import flow_of
from keras_videofusion.version import __version__

DESCRIPTION = "description.json"
SAVED_MODEL = "saved_model.pb"
# tf2onnx writes up to 18; runtimes since 2022 read 17.
OPSET = 17
OPSETS = range(13, 19)
# How far answers may lie from the network's own, as a share of the distance
# between the largest and the smallest of them. Sums of float32 in another
# order were seen to move them by a millionth, weights of float16 (right to 1
# in 2,000) by up to 0.3 %, those of 8 bits by up to 2.3 %.
TOLERANCE = {"none": 1e-4, "float16": 1e-2, "dynamic": 0.1}


class ExportError(ValueError):
    """A network that cannot be exported; one line that says why."""


def export(
    opened,
    format,
    out,
    *,
    quantize="none",
    opset=OPSET,
    overwrite=False,
):
    """Writes a network for a runtime, once its answers were compared.

    A real clip of the run's rows, where one can be read, and drawn ones pass
    both the network and the file, one alone and three together. Only if the
    answers agree does the file get its name.

    A network of half precision is exported in float32.

    Args:
        opened: What `keras_videofusion.training.run.open_model` returned.
        format: `"savedmodel"`, `"onnx"` or `"litert"`.
        out: Path or address: of a folder for a SavedModel, else of a file.
        quantize: Of LiteRT: `"none"`; `"float16"`: weights of half the bytes;
            `"dynamic"`: a quarter, but for filters that reach over frames,
            which stay float32.
        opset: Integer, the version of ONNX's operations.
        overwrite: Whether what stands at `out` is replaced.

    Returns:
        Dict `{path, format, bytes, clips, real, difference}`: how many clips
        were compared, whether one was real, and the largest difference as a
        share of the distance between the network's extreme answers.

    Raises:
        ExportError: If the answers differ, if the format lacks operations
            that the network needs, or if something stands at `out`.
        ValueError: If an argument is out of range.
        ImportError: If the extra `export` is not installed.
        OSError: If `out` cannot be written.
    """
    _check(format, quantize, opset)
    form = FORMATS[format]
    for name in form.needs:
        _imported(name)
    _check_place(out, form.folder, overwrite)
    make_folder(os.path.dirname(os.fspath(out)) or ".")
    # What half precision rounds differs from runtime to runtime.
    single = opened.model if _is_single(opened.model) else _copy(opened.model)
    network = _Network(single, opened.spec, tuple(opened.classes))
    real = _real_clip(opened)
    clips = _clips(opened.spec, real)
    with (_folder_written if form.folder else written)(out) as draft:
        try:
            form.write(network, draft, quantize, opset)
            size = _size(draft)
            difference = _compared(network, form.run(draft), clips)
        except tf.errors.OpError as error:
            raise ExportError(
                f"{os.fspath(out)} cannot be written or read back: "
                f"{error.message}"
            ) from error
        allowed = TOLERANCE[quantize]
        if not difference <= allowed:
            raise ExportError(
                f"{os.fspath(out)} was not kept: its answers differ from the "
                f"network's by {difference:.2g} of their range, where "
                f"{allowed:g} is allowed."
            )
    return {
        "path": os.fspath(out),
        "format": format,
        "bytes": size,
        "clips": len(clips),
        "real": real is not None,
        "difference": difference,
    }


class _Network:
    """A network with named inputs and outputs, and what to tell of it.

    Args:
        model: `keras.Model`.
        spec: `ClipSpec` or `VectorSpec`.
        classes: Names.
    """

    def __init__(self, model, spec, classes):
        self.model = model
        self.spec = spec
        self.classes = classes
        network, self.activation = logits_model(model)
        # A mean of probabilities has no logits: what stands in for them is
        # no functional network.
        self.has_logits = hasattr(network, "outputs")
        self.network = network if self.has_logits else model
        # Traced once; `predict` would trace anew for every size of batch.
        self._called = tf.function(
            lambda clips: self.network(self.fed(clips), training=False),
            input_signature=[self.signature],
        )

    @property
    def description(self):
        """What a reader without this package must know, as JSON."""
        spec = self.spec
        told = {
            "model": self.model.name,
            "writer": f"keras_videofusion {__version__}",
            "classes": self.classes,
            "activation": self.activation,
            "inputs": {
                stream: {
                    "shape": [None, *shape],
                    "dtype": DTYPES[stream],
                    "values": VALUES[stream],
                }
                for stream, shape in spec.shapes.items()
            },
            "outputs": ["logits", "probabilities"][not self.has_logits :],
            "clip": spec.to_json(),
        }
        if not isinstance(spec, VectorSpec):
            # Where the clip's frames lie from its first on, and how many
            # frames of the video it reaches over.
            told["offsets"] = spec.offsets.tolist()
            told["flow_offsets"] = spec.flow_offsets.tolist()
            told["span"] = spec.span
        return json.dumps(told, indent=2)

    @property
    def signature(self):
        """Dict of `tf.TensorSpec` by stream."""
        return {
            stream: tf.TensorSpec((None, *shape), DTYPES[stream], stream)
            for stream, shape in self.spec.shapes.items()
        }

    def fed(self, clips):
        """Clips by stream as the network takes them."""
        return clips if len(clips) > 1 else clips[self.spec.streams[0]]

    def function(self, given=()):
        """A function of clips by stream that gives outputs by name, to trace.

        Args:
            given: Keras variables whose values it takes before the clips; all
                others it reads.
        """

        def answer(*values, **clips):
            inputs = self.fed(
                {name: tf.cast(x, tf.float32) for name, x in clips.items()}
            )
            with keras.StatelessScope(
                state_mapping=list(zip(given, values, strict=True))
            ):
                values = self.network(inputs, training=False)
            if not self.has_logits:
                return {"probabilities": values}
            sigmoid = self.activation == "sigmoid"
            shares = tf.sigmoid if sigmoid else tf.nn.softmax
            return {"logits": values, "probabilities": shares(values)}

        return answer

    def answers(self, clips):
        """What the network itself says: arrays by the name of the output."""
        values = self._called(clips).numpy()
        if not self.has_logits:
            return {"probabilities": values}
        shares = probabilities(values, self.activation)
        return {"logits": values, "probabilities": shares}


def _is_single(model):
    """Whether all of a network computes in float32."""
    try:
        config = model.get_config()
    except NotImplementedError:
        return True
    return _edited(config) == config


def _edited(config, **changes):
    """A layer's configuration in float32.

    Args:
        config: What `get_config` returned, or a part of it.
        **changes: Further values, for keys that are there.
    """
    if isinstance(config, list | tuple):
        return type(config)(_edited(one, **changes) for one in config)
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return {**config, "config": {"name": "float32"}}
    return {
        key: changes[key] if key in changes else _edited(value, **changes)
        for key, value in config.items()
    }


def _copy(model, folded=False):
    """The same network in float32.

    Args:
        model: `keras.Model` of layers that are linked, not of a class of its
            own.
        folded: Whether it is made of what LiteRT has operations for: pools
            over frames as pools of images, and recurrent layers step by step,
            since a loop over a batch of any size has none.
    """
    changes = {"unroll": True} if folded else {}

    def copied(layer):
        if folded and isinstance(
            layer, layers.MaxPooling3D | layers.AveragePooling3D
        ):
            return _FoldedPooling(layer)
        return type(layer).from_config(_edited(layer.get_config(), **changes))

    other = keras.models.clone_model(
        model, clone_function=copied, recursive=True
    )
    other.set_weights(model.get_weights())
    return other


class _FoldedPooling(layers.Layer):
    """A pool over space and time as one over space and one over time.

    The maximum of maxima is the maximum, and so is it with means of means:
    every window at the border leaves out as many points of each frame.

    Args:
        pool: `keras.layers.MaxPooling3D` or `AveragePooling3D`.
    """

    def __init__(self, pool):
        super().__init__(name=pool.name, dtype="float32")
        self.pool = pool

    def call(self, inputs):
        pool = self.pool
        (extent, *size), (step, *strides) = pool.pool_size, pool.strides
        _, time, height, width, channels = inputs.shape
        x = ops.reshape(inputs, (-1, height, width, channels))
        x = self._pooled(x, tuple(size), tuple(strides))
        _, height, width, _ = x.shape
        if (extent, step) != (1, 1):
            x = ops.reshape(x, (-1, time, height * width, channels))
            x = self._pooled(x, (extent, 1), (step, 1))
            time = x.shape[1]
        return ops.reshape(x, (-1, time, height, width, channels))

    def _pooled(self, x, size, strides):
        largest = isinstance(self.pool, layers.MaxPooling3D)
        pooled = ops.max_pool if largest else ops.average_pool
        return pooled(x, size, strides, self.pool.padding, "channels_last")

    def compute_output_shape(self, input_shape):
        return self.pool.compute_output_shape(input_shape)


class _Served(tf.Module):
    """What a SavedModel holds: the network's weights, and its description."""

    def __init__(self, network, file):
        super().__init__()
        # Without Keras's layers around them, which nobody could call.
        self.weights = [variable.value for variable in network.variables]
        self.asset = tf.saved_model.Asset(file)

    @tf.function(input_signature=[])
    def description(self):
        return {"json": tf.io.read_file(self.asset.asset_path)}


def _write_savedmodel(network, place, quantize, opset):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, DESCRIPTION)
        file.write_text(network.description)
        served = _Served(network.network, str(file))
        answer = tf.function(network.function())
        tf.saved_model.save(
            served,
            str(place),
            signatures={
                "serving_default": answer.get_concrete_function(
                    **network.signature
                ),
                "description": served.description,
            },
        )


def _run_savedmodel(place):
    loaded = tf.saved_model.load(str(place))

    def run(clips):
        # Whoever holds a signature does not hold its weights.
        answer = loaded.signatures["serving_default"]
        found = answer(**{k: tf.constant(x) for k, x in clips.items()})
        return {name: values.numpy() for name, values in found.items()}

    return run


def _write_onnx(network, place, quantize, opset):
    onnx, tf2onnx = _imported("onnx"), _imported("tf2onnx")
    # The converter copies constants over and over: 14 GB for SlowFusion of
    # 302 MB. So what makes networks large is put in when it is done.
    kernels = {
        f"kernel{place}": kernel
        for place, kernel in enumerate(_dense_kernels(network.model))
    }
    answer = network.function(tuple(kernels.values()))
    signature = network.signature
    streams = len(signature)

    def positional(*given):
        clips = dict(zip(signature, given[:streams], strict=True))
        return answer(*given[streams:], **clips)

    model, _ = tf2onnx.convert.from_function(
        tf.function(positional),
        [
            *signature.values(),
            *(
                tf.TensorSpec(kernel.shape, tf.float32, name)
                for name, kernel in kernels.items()
            ),
        ],
        opset=opset,
    )
    graph = model.graph
    for tensor in list(graph.input):
        if tensor.name in kernels:
            graph.input.remove(tensor)
    for name, kernel in kernels.items():
        values = keras.ops.convert_to_numpy(kernel)
        graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    for tensor in (*graph.input, *graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.metadata_props.add(key=DESCRIPTION, value=network.description)
    place.write_bytes(model.SerializeToString())


def _dense_kernels(layer):
    """Kernels of the fully connected layers in a network."""
    if isinstance(layer, layers.Dense):
        return [layer.kernel]
    inside = getattr(layer, "layers", None) or [getattr(layer, "layer", None)]
    return [k for one in inside if one for k in _dense_kernels(one)]


def _run_onnx(place):
    session = _imported("onnxruntime").InferenceSession(
        str(place), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]

    def run(clips):
        return dict(zip(names, session.run(names, clips), strict=True))

    return run


def _write_litert(network, place, quantize, opset):
    model = _copy(network.model, folded=True)
    folded = _Network(model, network.spec, network.classes)
    answer = tf.function(folded.function())
    # Only of TensorFlow's own variables, held by the module that it is shown,
    # does the converter make constants; others it leaves empty.
    held = tf.Module()
    held.weights = [variable.value for variable in model.variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [answer.get_concrete_function(**folded.signature)], held
    )
    if quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    try:
        content = converter.convert()
    # TensorFlow gives its own kind of it no public name.
    except Exception as error:
        lacking = sorted(set(re.findall(r"\btf\.([A-Z]\w+)", str(error))))
        raise ExportError(
            "LiteRT has no operations of its own for this network"
            + (f": it needs {', '.join(lacking)}." if lacking else ".")
        ) from error
    place.write_bytes(content)
    # Readers of the network go by its own index and see nothing behind it.
    with zipfile.ZipFile(place, "a") as archive:
        archive.writestr(DESCRIPTION, network.description)


def _run_litert(place):
    litert = _imported("ai_edge_litert.interpreter")
    answer = litert.Interpreter(str(place)).get_signature_runner()
    return lambda clips: answer(**clips)


_Format = namedtuple("_Format", ["write", "run", "needs", "folder"])
# fmt: off
FORMATS = {
    "savedmodel": _Format(_write_savedmodel, _run_savedmodel, (), True),
    "onnx": _Format(
        _write_onnx, _run_onnx, ("onnx", "tf2onnx", "onnxruntime"), False
    ),
    "litert": _Format(
        _write_litert, _run_litert, ("ai_edge_litert.interpreter",), False
    ),
}
# fmt: on
DTYPES = {"rgb": "uint8", "flow": "float32", "features": "float32"}
VALUES = {
    "rgb": "RGB, 0 to 255",
    "features": "a video's vector, as the network's own were made",
    "flow": "displacement to the right and down, pixels per frame",
}


def _compared(network, run, clips):
    """How far a file's answers lie from the network's, in its own range."""
    several = {k: np.concatenate([x[k] for x in clips]) for k in clips[0]}
    worst = 0.0
    for batch in (clips[0], several):
        expected, given = network.answers(batch), run(batch)
        if set(expected) != set(given):
            return np.inf
        for name, right in expected.items():
            found = given[name]
            if found.shape != right.shape:
                return np.inf
            if not network.has_logits:
                # Of probabilities the small ones count, too.
                right, found = (np.log(x + 1e-12) for x in (right, found))
            # The last bits of every answer are rounding, however alike all
            # of them are.
            rounding = 4 * np.finfo(np.float32).eps * np.abs(right).max()
            apart = np.abs(found - right).max() - rounding
            if apart > 0 or np.isnan(apart):
                # `np.maximum`, unlike `max`, passes nan on.
                with np.errstate(divide="ignore"):
                    worst = np.maximum(worst, apart / np.ptp(right))
    return float(worst)


def _clips(spec, real):
    """Three clips to compare answers on: dicts of arrays `(1, ...)` by stream.

    The drawn ones have coarse and fine structure: all clips of mere noise
    would look alike to a network.
    """
    found = [] if real is None else [real]
    draw = np.random.default_rng(0)
    while len(found) < 3:
        clip = {}
        if isinstance(spec, VectorSpec):
            # Shares, as histograms have them.
            drawn = draw.gamma(0.5, 1.0, (1, spec.size)).astype(np.float32)
            found.append({"features": drawn / drawn.mean() / spec.size})
            continue
        for stream, (time, height, width, channels) in sorted(
            spec.shapes.items()
        ):
            coarse = (time, -(-height // 8), -(-width // 8), channels)
            large = draw.uniform(0, 1, coarse).repeat(8, 1).repeat(8, 2)
            large = large[:, :height, :width]
            pixels = 0.7 * large + 0.3 * draw.uniform(0, 1, large.shape)
            values = (256 * pixels).astype(np.uint8)[None]
            clip[stream] = from_bytes(values) if stream == "flow" else values
        found.append(clip)
    return found


def _real_clip(opened):
    """One of the run's clips or vectors; None if none of the first is there."""
    if opened.run is None:
        return None
    spec = opened.spec
    try:
        catalog = opened.run.catalog()
        vectors = expect_fitting(catalog, spec)
        if vectors is not None:
            (place,) = vectors.places(
                replace(catalog, videos=catalog.videos[:1])
            )
            return {"features": vectors.row(int(place), 0)[None]}
        source = None
        if "flow" in spec.streams:
            source = open_flow(flow_of(opened) or FLOW, catalog.root)
        for video in islice(catalog, 10):
            try:
                found, _ = read_clips(
                    catalog.file(video),
                    spec,
                    "centre",
                    start=video.start,
                    end=video.end,
                    flow=source,
                )
            except VideoError:
                continue
            clips = center_crop(found, spec.size)
            if not isinstance(clips, dict):
                clips = {spec.streams[0]: clips}
            if "flow" in clips:
                clips["flow"] = from_bytes(clips["flow"])
            return clips
    except (OSError, ValueError, ImportError):
        # The rows, or what computes their flow, are not to be had here.
        pass
    return None


@contextmanager
def _folder_written(place):
    """As `keras_videofusion.data.files.written`, of a folder."""
    if is_remote(place):
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder, "draft")
            yield draft
            # What makes it a SavedModel comes last.
            for file in sorted(
                (path for path in draft.rglob("*") if path.is_file()),
                key=lambda path: path.name == SAVED_MODEL,
            ):
                parts = file.relative_to(draft).parts
                with written(join(place, *parts)) as copy:
                    shutil.copy(file, copy)
        return
    path = Path(place)
    draft, old = (
        path.with_name(f".{word}-{os.getpid()}-{path.name}")
        for word in ("draft", "old")
    )
    try:
        yield draft
        if path.exists():
            path.rename(old)
        draft.rename(path)
    finally:
        remove(draft)
        remove(old)


def _size(path):
    """Bytes of a file, or of all in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _check(format, quantize, opset):
    for name, value, allowed in (
        ("format", format, tuple(FORMATS)),
        ("quantize", quantize, tuple(TOLERANCE)),
        ("opset", opset, OPSETS),
    ):
        if value not in allowed:
            raise ValueError(
                f"`{name}` must be one of {', '.join(map(str, allowed))}. "
                f"Received: {name}={value!r}"
            )
    for name, owner, away in (
        ("quantize", "litert", quantize != "none"),
        ("opset", "onnx", opset != OPSET),
    ):
        if away and format != owner:
            raise ValueError(
                f"`{name}` goes with format {owner!r}. "
                f"Received: format={format!r}"
            )
    if keras.backend.backend() != "tensorflow":
        raise ExportError(
            "only the TensorFlow backend exports: set KERAS_BACKEND=tensorflow;"
            " its weights files are the same. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )


def _check_place(place, folder, overwrite):
    """Refuses to write over what stands there, unless it is asked to."""
    if not exists(place):
        return
    if not overwrite:
        raise ExportError(
            f"{os.fspath(place)} stands there already: pass --overwrite to "
            "replace it, or another --out."
        )
    ours = exists(join(place, SAVED_MODEL)) if folder else not is_folder(place)
    if not ours:
        kind = "SavedModel" if folder else "file"
        raise ExportError(
            f"{os.fspath(place)} is no {kind}: pass another --out, so that "
            "nothing of yours is lost."
        )


def _imported(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"this format needs {name.split('.')[0]}: "
            "pip install 'keras-videofusion[export]'"
        ) from error

"""Exported files answer as the network does, or there is no file."""

import errno
import json
import os
import runpy
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from numbered import draw, read, turn
from test_applications import clips, FAMILY, ready, shapes_of, small

from keras_videofusion import cli
from keras_videofusion import export as room
from keras_videofusion.applications import clip_spec, MODELS
from keras_videofusion.data import video
from keras_videofusion.data.augmentation import center_crop
from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.data.vectors import spec_from_json, VectorSpec
from keras_videofusion.evaluation import protocol
from keras_videofusion.export import export, ExportError
from keras_videofusion.training import Recipe
from keras_videofusion.training.fit import split, train
from keras_videofusion.training.run import open_model, Opened

for needed in ("onnx", "tf2onnx", "onnxruntime", "ai_edge_litert"):
    pytest.importorskip(
        needed, reason="needs pip install 'keras-videofusion[export]'"
    )

EXAMPLES = Path(__file__).parents[1] / "examples"
CLASSES = ("cart wheel", "naïve dance", "a, b", "walk")
ENDINGS = {"savedmodel": "", "onnx": ".onnx", "litert": ".tflite"}

every_format = pytest.mark.parametrize("format", ENDINGS)


def spec_of(name):
    """The clip of the small network that the other tests build."""
    spec, frames = clip_spec(name), FAMILY[name].frames
    if isinstance(spec, VectorSpec):
        return VectorSpec(*shapes_of(name)["features"])
    if frames:
        flow = frames if "flow" in spec.streams else None
        spec = replace(spec, frames=frames, flow=flow)
    return spec.with_size(next(iter(shapes_of(name).values()))[1:3])


def opened(name):
    return Opened(ready(name), spec_of(name), CLASSES)


def fed(name, count):
    """Clips as a network takes them, and as an exported file does."""
    given = clips(name, count)
    if not isinstance(given, dict):
        given = {spec_of(name).streams[0]: given}
    typed = {
        stream: values.astype("uint8" if stream == "rgb" else "float32")
        for stream, values in given.items()
    }
    floats = {k: values.astype("float32") for k, values in typed.items()}
    only = next(iter(floats.values()))
    return floats if len(floats) > 1 else only, typed


def answers(format, path, given):
    """What a file says, read as somebody without this package would."""
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path))
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, given), strict=True))
    if format == "litert":
        return litert(path).get_signature_runner()(**given)
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    found = loaded.signatures["serving_default"](
        **{name: tf.constant(values) for name, values in given.items()}
    )
    return {name: values.numpy() for name, values in found.items()}


def litert(path):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(str(path))


def description(format, path):
    if format == "onnx":
        import onnx

        found = onnx.load(str(path)).metadata_props
        (text,) = (x.value for x in found if x.key == "description.json")
    elif format == "litert":
        with zipfile.ZipFile(path) as archive:
            text = archive.read("description.json")
    else:
        text = (path / "assets" / "description.json").read_text()
    return json.loads(text)


@pytest.fixture(scope="module")
def run(shapes_folder, tmp_path_factory):
    """A small trained run; read only."""
    folder = tmp_path_factory.mktemp("export") / "run"
    recipe = Recipe(width=0.02, size=40, batch=8, epochs=1, learning_rate=1e-4)
    catalog = split(open_catalog(shapes_folder))
    train(recipe, catalog, folder, verbose=0, say=lambda line: None)
    return folder


# TensorFlow saves what it runs; converters must know every operation.
CASES = [
    (name, format)
    for format in ENDINGS
    for name in MODELS
    if format != "savedmodel" or name == FAMILY[name].networks[0]
]


@pytest.mark.parametrize(("name", "format"), CASES)
def test_every_network_answers_alike_in_every_format(name, format, tmp_path):
    path = tmp_path / f"network{ENDINGS[format]}"
    report = export(opened(name), format, path)
    assert report["difference"] < 1e-5
    assert os.listdir(tmp_path) == [path.name]
    if format == "litert":
        used = {row["op_name"] for row in litert(path)._get_ops_details()}
        main = {"CONV_2D", "CONV_3D"}
        assert used & ({"FULLY_CONNECTED"} if name == "feature_mlp" else main)
        assert not any(name.lower().startswith("flex") for name in used)
    # The file gets another number of clips than it was compared on.
    inputs, given = fed(name, 3)
    right = ready(name).predict_on_batch(inputs)[:2]
    given = {stream: values[:2] for stream, values in given.items()}
    found = answers(format, path, given)
    np.testing.assert_allclose(found["probabilities"], right, atol=1e-6)
    if "logits" in found:
        shares = np.exp(found["logits"])
        shares /= shares.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(shares, right, atol=1e-6)
    told = description(format, path)
    assert tuple(told["classes"]) == CLASSES
    assert spec_from_json(told["clip"]) == spec_of(name)
    assert set(told["outputs"]) == set(found)
    assert {
        stream: (tuple(row["shape"][1:]), row["dtype"])
        for stream, row in told["inputs"].items()
    } == {k: (x.shape[1:], x.dtype.name) for k, x in given.items()}


@pytest.mark.parametrize("quantize", ["float16", "dynamic"])
def test_litert_of_fewer_bits_is_smaller_and_close(quantize, tmp_path):
    path = tmp_path / "network.tflite"
    whole = export(opened("slow_fusion"), "litert", path)
    part = export(
        opened("slow_fusion"), "litert", path, quantize=quantize, overwrite=True
    )
    share = {"float16": 0.55, "dynamic": 0.35}[quantize]
    assert part["bytes"] < share * whole["bytes"]
    assert whole["difference"] < part["difference"] < room.TOLERANCE[quantize]


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("pool", "size", "strides"),
    [
        ("MaxPooling3D", (2, 3, 2), (2, 2, 1)),
        ("MaxPooling3D", (1, 2, 2), (1, 2, 2)),
        ("MaxPooling3D", (3, 3, 3), (1, 1, 1)),
        ("AveragePooling3D", (2, 3, 3), (1, 2, 2)),
    ],
)
def test_pools_over_frames_fold_into_pools_of_images(
    pool, size, strides, padding
):
    layer = getattr(keras.layers, pool)(size, strides, padding)
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 7, 3)).astype("float32")
    folded = room._FoldedPooling(layer)
    np.testing.assert_allclose(folded(x), layer(x), atol=1e-6)


@every_format
def test_sigmoids_of_several_labels_stay_sigmoids(format, tmp_path):
    model = small("two_stream", classifier_activation="sigmoid")
    several = Opened(model, spec_of("two_stream"), CLASSES)
    path = tmp_path / f"network{ENDINGS[format]}"
    export(several, format, path)
    inputs, given = fed("two_stream", 2)
    right = model.predict_on_batch(inputs)
    assert np.abs(right.sum(axis=1) - 1).min() > 0.1
    np.testing.assert_allclose(
        answers(format, path, given)["probabilities"], right, atol=1e-6
    )


@every_format
def test_half_precision_is_exported_in_float32(format, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = small("slow_fusion")
    finally:
        keras.config.set_dtype_policy("float32")
    single = small("slow_fusion")
    single.set_weights(half.get_weights())
    path = tmp_path / f"network{ENDINGS[format]}"
    export(Opened(half, spec_of("slow_fusion"), CLASSES), format, path)
    inputs, given = fed("slow_fusion", 2)
    np.testing.assert_allclose(
        answers(format, path, given)["probabilities"],
        single.predict_on_batch(inputs),
        atol=1e-6,
    )


@every_format
def test_files_take_pixels_that_were_not_scaled(format, tmp_path):
    path = tmp_path / f"network{ENDINGS[format]}"
    export(opened("single_frame"), format, path)
    _, given = fed("single_frame", 1)
    scaled = {"rgb": given["rgb"].astype("float32") / 255}
    with pytest.raises(Exception, match=r"(?i)uint8|type|cast"):
        answers(format, path, scaled)


def test_a_savedmodel_describes_itself_to_servers(tmp_path):
    import tensorflow as tf

    export(opened("single_frame"), "savedmodel", tmp_path / "network")
    # The folder is whole by itself, wherever it is moved.
    (tmp_path / "network").rename(tmp_path / "moved")
    loaded = tf.saved_model.load(str(tmp_path / "moved"))
    told = loaded.signatures["description"]()["json"].numpy()
    assert tuple(json.loads(told)["classes"]) == CLASSES


@every_format
def test_a_broken_conversion_leaves_no_file(format, tmp_path, monkeypatch):
    path = tmp_path / f"network{ENDINGS[format]}"
    path.mkdir() if format == "savedmodel" else path.write_text("old")
    if format == "savedmodel":
        (path / "saved_model.pb").write_text("old")
    other = small("slow_fusion")
    other.set_weights(ready("slow_fusion").get_weights())
    kernel = other.get_layer("conv3").kernel
    kernel.assign(1.01 * kernel)
    form = room.FORMATS[format]

    def write(network, *arguments):
        wrong = room._Network(other, network.spec, network.classes)
        form.write(wrong, *arguments)

    monkeypatch.setitem(room.FORMATS, format, form._replace(write=write))
    with pytest.raises(ExportError, match="was not kept: its answers differ"):
        export(opened("slow_fusion"), format, path, overwrite=True)
    assert os.listdir(tmp_path) == [path.name]
    kept = path / "saved_model.pb" if format == "savedmodel" else path
    assert kept.read_text() == "old"


def test_answers_that_are_no_numbers_are_not_kept(tmp_path, monkeypatch):
    def compared(network, run, some):
        def broken(batch):
            return {k: x * np.nan for k, x in run(batch).items()}

        return _compared(network, broken, some)

    _compared = room._compared
    monkeypatch.setattr(room, "_compared", compared)
    with pytest.raises(ExportError, match="differ from the network's by nan"):
        export(opened("single_frame"), "onnx", tmp_path / "network.onnx")
    assert not os.listdir(tmp_path)


@every_format
def test_what_stands_there_is_replaced_only_if_asked(format, tmp_path):
    path = tmp_path / f"network{ENDINGS[format]}"
    export(opened("single_frame"), format, path)
    with pytest.raises(ExportError, match="stands there already"):
        export(opened("late_fusion"), format, path)
    assert description(format, path)["model"] == "single_frame"
    export(opened("late_fusion"), format, path, overwrite=True)
    assert description(format, path)["model"] == "late_fusion"
    assert os.listdir(tmp_path) == [path.name]


@every_format
def test_a_folder_of_other_things_is_never_replaced(format, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(ExportError, match="nothing of yours is lost"):
        export(opened("late_fusion"), format, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").is_file()


@pytest.mark.parametrize(
    ("format", "options", "match"),
    [
        ("torch", {}, "`format` must be one of savedmodel, onnx, litert"),
        ("litert", {"quantize": "int4"}, "`quantize` must be one of none"),
        ("onnx", {"quantize": "float16"}, "`quantize` goes with format"),
        ("onnx", {"opset": 3}, "`opset` must be one of 13, 14"),
        ("litert", {"opset": 18}, "`opset` goes with format 'onnx'"),
    ],
)
def test_wrong_arguments_are_named(format, options, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        export(opened("single_frame"), format, tmp_path / "x", **options)


def test_opset_is_the_files(tmp_path):
    import onnx

    path = tmp_path / "network.onnx"
    export(opened("single_frame"), "onnx", path, opset=15)
    assert onnx.load(str(path)).opset_import[0].version == 15


@pytest.mark.parametrize(
    ("format", "name"), [("onnx", "tf2onnx"), ("litert", "ai_edge_litert")]
)
def test_a_missing_extra_is_one_line(format, name, tmp_path, monkeypatch):
    for loaded in list(sys.modules):
        if loaded.partition(".")[0] == name:
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"{name}: pip install '.*\[export"):
        export(opened("single_frame"), format, tmp_path / "x")


def test_operations_that_litert_lacks_are_named(tmp_path):
    clip = keras.Input((2, 8, 8, 3))
    x = keras.layers.ConvLSTM2D(2, 3)(clip)
    x = keras.ops.linalg.det(x[:, :4, :4, 0])[:, None]
    network = keras.Model(clip, keras.layers.Dense(4)(x))
    spec = ClipSpec(2, resize=("square", 8), size=8)
    with pytest.raises(ExportError, match="it needs MatrixDeterminant"):
        export(Opened(network, spec, CLASSES), "litert", tmp_path / "x.tflite")
    assert not os.listdir(tmp_path)


@every_format
def test_a_full_disk_is_one_line_and_leaves_nothing(
    format, tmp_path, monkeypatch, capsys, run
):
    import tensorflow as tf

    def full(*arguments, **options):
        if format == "savedmodel":
            raise tf.errors.ResourceExhaustedError(
                None, None, f"{arguments[1]}; No space left on device"
            )
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tf.saved_model, "save", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    out = tmp_path / f"network{ENDINGS[format]}"
    words = ["export", str(run), "--format", format, "--out", str(out)]
    assert cli.run(cli.parse(words)) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert "No space left" in told[0]
    assert not os.listdir(tmp_path)


def test_a_folder_that_cannot_be_written_is_one_line(run, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    out = str(tmp_path / "file" / "network.onnx")
    words = ["export", str(run), "--format", "onnx", "--out", out]
    assert cli.run(cli.parse(words)) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_verb_compares_on_a_video_of_the_run(
    run, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert cli.run(cli.parse(["export", str(run), "--format", "onnx"])) == 0
    told = capsys.readouterr()
    assert "run.onnx: " in told.out
    assert "3 clips, one of them of a video" in told.out
    assert not told.err
    assert os.listdir(tmp_path) == ["run.onnx"]
    found = description("onnx", tmp_path / "run.onnx")
    assert tuple(found["classes"]) == open_model(run).classes


@pytest.mark.parametrize(
    "flags",
    [
        ["--format", "onnx", "--quantize", "float16"],
        ["--format", "savedmodel", "--opset", "18"],
        ["--format", "onnx", "--opset", "99"],
    ],
)
def test_flags_that_do_not_go_together_are_a_wrong_call(flags, run, capsys):
    assert cli.run(cli.parse(["export", str(run), *flags])) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


# Networks whose clips differ in rate, resize and what short videos do.
SHOWN = (
    ("savedmodel", "slow_fusion"),
    ("onnx", "s3d"),
    ("litert", "c3d"),
)


@pytest.mark.parametrize(("format", "name"), SHOWN)
def test_scripts_run_files_without_this_package(
    format, name, shapes_folder, tmp_path
):
    keras.utils.set_random_seed(3)
    model = small(name)
    # As sure of itself as a trained network, so that its order tells.
    top = [one for one in model.layers if hasattr(one, "kernel")][-1]
    inputs, _ = fed(name, 4)
    while np.ptp(model.predict_on_batch(inputs), axis=1).min() < 0.3:
        top.kernel.assign(2.0 * top.kernel)
    path = tmp_path / f"network{ENDINGS[format]}"
    export(Opened(model, spec_of(name), CLASSES), format, path)
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "keras_videofusion.py").write_text(
        "raise ImportError('this package is not here')"
    )
    file = next(shapes_folder.rglob("*.mp4"))
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"run_{format}.py", path, file],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "away")},
        cwd=tmp_path / "away",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split("%  ") for line in done.stdout.splitlines()]
    (right,) = protocol.predict(
        model, spec_of(name), CLASSES, [file], clips=10, passes=1
    )
    right = right["predictions"]
    assert [row[1] for row in rows] == [row["class"] for row in right]
    np.testing.assert_allclose(
        [float(row[0]) / 100 for row in rows],
        [row["score"] for row in right],
        atol=0.03,
    )


@pytest.mark.parametrize("degrees", [0, 90, 180])
@pytest.mark.parametrize(
    "spec",
    [
        ClipSpec(3, 2, resize=("square", 64), size=64),
        ClipSpec(4, fps=10, resize=("short_side", 64), size=(64, 64)),
        ClipSpec(3, 20, resize=("cover", 64, 128), size=(64, 128)),
        ClipSpec(3, 30, resize=("pad", 64, 144), size=(64, 144), short="loop"),
        ClipSpec(2, resize=(64, 128), size=(56, 112), chunks=3, spacing=5),
    ],
    ids=lambda spec: spec.resize[0],
)
def test_the_scripts_clips_are_the_packages(spec, degrees, tmp_path):
    path = draw(tmp_path / "numbered.mp4", frames=30)
    if degrees:
        turn(path, degrees)
    told = {
        "clip": spec.to_json(),
        "offsets": spec.offsets.tolist(),
        "span": spec.span,
    }
    own = runpy.run_path(str(EXAMPLES / "read_clips.py"))["read_clips"]
    found = own(path, told, 3)
    right, _ = video.read_clips(path, spec, "uniform", 3)
    right = center_crop(right, spec.size)
    assert found.shape == right.shape
    assert np.abs(found.astype(float) - right).mean() < 2.0
    if spec.resize[0] == "cover" and not degrees:
        assert (read(found) == read(right)).all()

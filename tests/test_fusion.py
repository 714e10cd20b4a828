"""Two runs made one: against the two of them, recomputed by hand."""

import dataclasses
import json

import numpy as np
import pytest

from keras_videofusion import cli
from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.data.pipeline import validation_clips
from keras_videofusion.training import fit
from keras_videofusion.training.fusion import fuse
from keras_videofusion.training.recipe import Recipe
from keras_videofusion.training.run import open_model, Run, RunError

pytest.importorskip("cv2", reason="flow needs OpenCV: the extra [flow]")

TINY = Recipe(
    width=0.05,
    size=48,
    batch=8,
    epochs=1,
    optimizer="adam",
    dropout=0.0,
    seed=3,
)


def quiet(line):
    pass


@pytest.fixture(scope="module")
def trained(shapes_folder, tmp_path_factory):
    """A run that eats RGB and one that eats flow, on the same rows."""
    folder = tmp_path_factory.mktemp("streams")
    catalog = fit.split(open_catalog(shapes_folder))
    return {
        name: fit.train(
            dataclasses.replace(TINY, model=model),
            catalog,
            folder / name,
            flow="farneback" if name == "flow" else None,
            verbose=0,
            say=quiet,
        )
        for name, model in (
            ("rgb", "spatial_stream"),
            ("flow", "temporal_stream"),
        )
    }


@pytest.fixture
def both(trained, tmp_path):
    def make(**arguments):
        return fuse(
            trained["rgb"],
            trained["flow"],
            tmp_path / "both",
            say=quiet,
            **arguments,
        )

    return make


def batch(run, rows="test"):
    """Clips of both streams, and their labels."""
    clips = validation_clips(
        run.catalog().where(rows), run.spec, 8, clips=2, flow=run.flow
    )
    inputs, labels = [], []
    for clip, label in clips:
        inputs.append({k: np.asarray(x) for k, x in clip.items()})
        labels.append(np.asarray(label).argmax(-1))
    return (
        {k: np.concatenate([x[k] for x in inputs]) for k in inputs[0]},
        np.concatenate(labels),
    )


def alone(trained, clips):
    return [
        trained[name].model().predict(clips[name], verbose=0)
        for name in ("rgb", "flow")
    ]


def test_shares_weigh_the_probabilities(trained, both):
    run = both(shares=(1, 3))
    clips, _ = batch(run)

    y = run.model().predict(clips, verbose=0)

    rgb, flow = alone(trained, clips)
    assert not np.allclose(rgb, flow, atol=1e-3)
    np.testing.assert_allclose(y, 0.25 * rgb + 0.75 * flow, atol=1e-5)


def test_logits_are_added(trained, both):
    run = both(by="logits", shares=(1, 1))
    clips, _ = batch(run)

    y = run.model().predict(clips, verbose=0)

    rgb, flow = alone(trained, clips)
    # Up to a constant per clip, logits are the logarithms of a softmax.
    product = rgb * flow
    product /= product.sum(-1, keepdims=True)
    np.testing.assert_allclose(y, product, atol=1e-5)


def test_the_machine_is_that_of_the_training_rows(trained, both):
    svm = pytest.importorskip("sklearn.svm", reason="the extra [tune]")
    run = both(by="svm", clips=2)
    clips, labels = batch(run, "train")

    y = run.model().predict(clips, verbose=0)

    unit = [
        x / np.linalg.norm(x, axis=-1, keepdims=True)
        for x in alone(trained, clips)
    ]
    machine = svm.LinearSVC(random_state=0, max_iter=20000)
    machine.fit(np.concatenate(unit, -1), labels)
    margins = machine.decision_function(np.concatenate(unit, -1))
    expected = np.exp(margins) / np.exp(margins).sum(-1, keepdims=True)
    np.testing.assert_allclose(y, expected, atol=1e-2)
    assert np.mean(y.argmax(-1) == expected.argmax(-1)) > 0.9


def test_the_run_keeps_what_was_held_out(trained, both):
    run = both()

    assert list(run.catalog()) == list(trained["rgb"].catalog())
    assert run.settings["fused"]["by"] == "probabilities"
    opened = open_model(run.folder)
    assert opened.spec.streams == ("rgb", "flow")
    assert opened.classes == trained["rgb"].classes


def test_a_fused_run_is_finished(both, capsys):
    run = both()
    before = run.path("model.keras").read_bytes()

    status = cli.run(cli.parse(["train", "--resume", "--run", str(run.folder)]))

    assert status == 0
    assert "has finished" in capsys.readouterr().out
    assert run.path("model.keras").read_bytes() == before


def test_runs_are_fused_and_evaluated_from_the_command_line(
    trained, tmp_path, capsys
):
    both = str(tmp_path / "both")
    runs = [str(trained[name].folder) for name in ("rgb", "flow")]

    fused = cli.run(cli.parse(["fuse", *runs, "--run", both]))
    scored = cli.run(
        cli.parse(
            ["evaluate", both, "--clips", "1", "--passes", "1", "--json", "-"]
        )
    )

    assert (fused, scored) == (0, 0)
    text = capsys.readouterr().out
    found = json.loads(text[text.index("{") :])
    assert found["videos"] == len(Run(both).catalog().where("test"))
    assert found["skipped"] == []


def test_streams_in_the_wrong_order_are_named(trained, tmp_path):
    with pytest.raises(RunError, match=r"that eats rgb. Received.*flow"):
        fuse(trained["flow"], trained["rgb"], tmp_path / "both", say=quiet)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": "votes"}, "`by` must be one of.*by='votes'"),
        ({"shares": (0, 0)}, "`shares` must be two numbers"),
        ({"shares": (1, -1)}, "`shares` must be two numbers"),
    ],
)
def test_wrong_arguments_are_named(both, arguments, message):
    with pytest.raises(ValueError, match=message):
        both(**arguments)


def changed(run, folder, **changes):
    """A copy of a run with other settings."""
    import shutil

    shutil.copytree(run.folder, folder)
    settings = run.settings
    for key, value in changes.items():
        settings["clip"][key] = value
    (folder / "recipe.json").write_text(json.dumps(settings))
    return Run(folder)


def test_clips_of_different_sizes_are_not_fused(trained, tmp_path):
    other = changed(trained["flow"], tmp_path / "other", size=[32, 32])

    with pytest.raises(RunError, match=r"--size.*size=\(48, 48\) and \(32, 32"):
        fuse(trained["rgb"], other, tmp_path / "both", say=quiet)


def test_the_step_of_a_single_frame_does_not_matter(trained, tmp_path):
    other = changed(trained["rgb"], tmp_path / "other", step=4)

    run = fuse(other, trained["flow"], tmp_path / "both", say=quiet)

    assert run.spec.step == trained["flow"].spec.step == 1


def test_other_rows_are_not_fused(trained, tmp_path):
    other = changed(trained["flow"], tmp_path / "other")
    path = other.path("catalog.csv")
    path.write_text(path.read_text().replace(",test", ",train"))

    with pytest.raises(RunError, match=r"the same rows.*rows that differ"):
        fuse(trained["rgb"], other, tmp_path / "both", say=quiet)
    assert not (tmp_path / "both").exists()

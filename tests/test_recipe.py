"""Recipes and the flags that are made of them."""

import dataclasses
import inspect
import json
import math

import pytest

from keras_videofusion import cli
from keras_videofusion.applications import MODELS
from keras_videofusion.cli import train
from keras_videofusion.training import build
from keras_videofusion.training.recipe import numbers, Recipe, RECIPES


def test_defaults_are_the_papers():
    recipe = RECIPES["karpathy2014"]
    assert (recipe.optimizer, recipe.momentum) == ("sgd", 0.9)
    assert (recipe.weight_decay, recipe.learning_rate) == (5e-4, 1e-3)
    assert (recipe.batch, recipe.width) == (32, 1.0)


def test_json_round_trip():
    recipe = Recipe(size=64, clip_norm=1.0, augment=False)
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_unknown_field_is_named():
    with pytest.raises(ValueError, match="no such fields.*colour"):
        Recipe.from_json({"colour": "red"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", 0.0),
        ("batch", 0),
        ("epochs", 0),
        ("momentum", 1.0),
        ("dropout", -0.1),
        ("optimizer", "downpour"),
        ("precision", "float8"),
        ("clip_norm", 0.0),
        ("size", 0),
        ("seed", -1),
    ],
)
def test_values_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be .*Received"):
        Recipe(**{name: value})


def test_every_field_is_a_flag():
    text = ["train", "videos", "--run", "r"]
    for part in dataclasses.fields(Recipe):
        assert getattr(cli.parse(text), part.name) is None
        flag = "--" + part.name.replace("_", "-")
        if part.metadata["kind"] is dict:
            given = cli.parse([*text, flag.removesuffix("s"), "grid=torch"])
            assert getattr(given, part.name) == [("grid", "torch")]
            continue
        if part.metadata["kind"] is bool:
            given = cli.parse([*text, "--no-" + flag[2:]])
            assert getattr(given, part.name) is False
            continue
        value = (
            part.metadata["choices"]
            or {
                int: ["3"],
                float: ["0.5"],
                str: ["word"],
                numbers: ["2,4.5"],
            }[part.metadata["kind"]]
        )
        given = cli.parse([*text, flag, value[0]])
        assert getattr(given, part.name) == part.metadata["kind"](value[0])


def test_flags_override_the_named_recipe():
    arguments = cli.parse(
        ["train", "d", "--run", "r", "--recipe", "small", "--batch", "4"]
    )
    recipe = train.recipe_of(arguments, RECIPES[arguments.recipe])
    assert recipe == dataclasses.replace(RECIPES["small"], batch=4)


# Steps that the papers and the authors' solvers print.
PRINTED = {
    "two_stream2014": (9537, (50_000, 70_000), 80_000),
    "two_stream2014_finetune": (9537, (14_000,), 20_000),
    "lrcn2015": (9537, (10_000, 20_000), 30_000),
    "c3d2015": (793_000, [150_000 * n for n in range(1, 13)], 1_900_000),
    "c3d2015_finetune": (9537, (5_000, 10_000, 15_000), 20_000),
    "i3d2017": (246_500, (97_000, 108_000), 115_000),
    "s3d2018": (246_500, (60_000, 70_000), 80_000),
}


@pytest.mark.parametrize("name", PRINTED)
def test_a_recipes_epochs_are_the_steps_that_its_paper_prints(name):
    videos, drops, last = PRINTED[name]
    recipe = RECIPES[name]
    steps = math.ceil(videos * recipe.clips_per_video / recipe.batch)
    found = [epoch * steps for epoch in recipe.drops]
    assert found == pytest.approx(list(drops), rel=0.01)
    assert recipe.epochs * steps == pytest.approx(last, rel=0.05)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_fits_the_network_that_it_names(name):
    recipe = RECIPES[name]
    entry = MODELS[recipe.model]
    known = inspect.signature(entry.builder).parameters
    assert set(recipe.options) <= set(known)
    assert recipe.dropout is None or "dropout" in known
    assert recipe.width == 1.0 or "width" in known
    assert build.clip_of(recipe).streams == entry.spec.streams
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"drops": (3.0,)}, "`drops` must be given with schedule='steps'"),
        ({"schedule": "steps"}, "`drops` must be given with schedule='steps'"),
        ({"schedule": "steps", "drops": (3.0, 1.0)}, "rising order"),
        ({"class_weights": {"up": -1}}, "`class_weights` must be numbers"),
        ({"accumulate": 0}, "`accumulate` must be 1 or more"),
        ({"mixup": -0.1}, "`mixup` must be 0 or more"),
        ({"strategy": "two"}, "`strategy` must be one of one, mirrored"),
    ],
)
def test_what_does_not_go_together_is_named(given, told):
    with pytest.raises(ValueError, match=told):
        Recipe(**given)


def test_a_wrong_list_of_epochs_is_a_wrong_call(capsys):
    with pytest.raises(SystemExit) as left:
        cli.parse(["train", "d", "--run", "r", "--drops", "three,four"])
    assert left.value.code == 2
    assert "--drops" in capsys.readouterr().err

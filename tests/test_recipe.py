"""Recipes and the flags that are made of them."""

import dataclasses

import pytest

from keras_videofusion import cli
from keras_videofusion.cli import train
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

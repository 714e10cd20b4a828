"""A search of one's own: what a KerasTuner `HyperModel` varies is a recipe.

    python examples/own_space.py VIDEOS [--smoke]

Leaves runs/searched, an ordinary run, and runs/searched-search with every
trial, search.csv and search.png. Started again, it goes on.
"""

import dataclasses
import sys

from keras_videofusion.data.catalog import open_catalog
from keras_videofusion.training import Recipe
from keras_videofusion.training.build import clip_of
from keras_videofusion.training.fit import split
from keras_videofusion.training.tuning import HyperRecipe, tune


class Space(HyperRecipe):
    """Slow fusion's rate, dropout, and how far colours are drawn apart."""

    def recipe(self, hp):
        return dataclasses.replace(
            self.base,
            learning_rate=hp.Float("learning_rate", 1e-4, 1e-2, sampling="log"),
            dropout=hp.Float("dropout", 0.0, 0.9, step=0.1),
            jitter=hp.Choice("jitter", [0.0, 0.25, 0.5]),
        )


def main(folder, smoke=False):
    recipe = Recipe(width=0.25, size=80, optimizer="adam", weight_decay=0.0)
    if smoke:
        recipe = dataclasses.replace(recipe, width=0.02, size=40, epochs=1)
    catalog = split(open_catalog(folder))
    space = Space(
        input_shape=clip_of(recipe).shapes["rgb"],
        classes=len(catalog.classes),
        recipe=recipe,
    )
    (tuned,) = tune(
        {"": space},
        catalog,
        "runs/searched",
        tuner="bayesian",
        trials=2 if smoke else 20,
        resume=True,
    )
    found = tuned.found
    print(f"{tuned.run.folder}: {found.name}, {found.best['values']}")


if __name__ == "__main__":
    main(sys.argv[1], smoke="--smoke" in sys.argv)

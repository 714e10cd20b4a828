"""Spaces of recipes for KerasTuner, in the manner of Keras's own.

A space is a `HyperModel` whose hyperparameters make a `Recipe`: so the best
trial is a recipe that `keras_videofusion.training.fit.train` runs as it
stands, and users subclass it by overriding `recipe`.
"""

import copy
import dataclasses
import math
from typing import Any

import keras
import keras_tuner

from keras_videofusion.data.catalog import Catalog
from keras_videofusion.data.pipeline import (
    steps,
    training_clips,
    validation_clips,
)
from keras_videofusion.data.vectors import read_vectors, VectorSpec
from keras_videofusion.training import fit, transfer
from keras_videofusion.training.activations import kept_activations, Top
from keras_videofusion.training.build import (
    build,
    clip_of,
    compiled,
    drawing,
)
from keras_videofusion.training.callbacks import Rate, TrainingError
from keras_videofusion.training.recipe import Recipe


class HyperRecipe(keras_tuner.HyperModel):
    """A space of recipes for one network; of itself, of one recipe.

    Subclass it and override `recipe`: `build` and `fit` follow. It serves
    KerasTuner's own tuners on arrays as well as `search` on catalogs:

        space = HyperFeatureMLP(input_shape=(1024,), classes=10)
        tuner = keras_tuner.RandomSearch(space, "val_loss", max_trials=20)
        tuner.search(x, y, validation_data=(x_val, y_val))

    Args:
        include_top: Boolean, whether the network ends in its classifier;
            without it, it is not compiled.
        input_shape: Tuple, shape of an input without the batch; of networks
            of two streams a dict.
        input_tensor: Keras tensor to use as input instead.
        classes: Integer, needed with the top.
        recipe: `Recipe` in which hyperparameters take their places; what
            they leave alone is fixed.
        weights: As for `keras_videofusion.training.fit.train`.
        **kwargs: `name` and `tunable` of `keras_tuner.HyperModel`.

    Raises:
        ValueError: If `classes`, or both of shape and tensor, are missing.
    """

    # As networks read them off a recipe; subclasses have their own.
    default = Recipe()

    def __init__(
        self,
        include_top=True,
        input_shape=None,
        input_tensor=None,
        classes=None,
        *,
        recipe=None,
        weights=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if include_top and classes is None:
            raise ValueError(
                "You must specify `classes` when `include_top=True`"
            )
        if input_shape is None and input_tensor is None:
            raise ValueError(
                "You must specify either `input_shape` or `input_tensor`."
            )
        self.include_top = include_top
        self.input_shape = input_shape
        self.input_tensor = input_tensor
        self.classes = classes
        self.base: Recipe = self.default if recipe is None else recipe
        self.weights = weights
        # Where activations are kept, and the seed that they are drawn by: not
        # the trials' own, so that all learn from the same.
        self.activations = "activations"
        self.seed = self.base.seed
        self.top = None
        self.say = print
        # What is learned: it tells losses how rare classes are.
        self.catalog = Catalog((), tuple(map(str, range(classes or 0))), "")

    def recipe(self, hp):
        """The recipe of a trial.

        Args:
            hp: `keras_tuner.HyperParameters`.

        Returns:
            `Recipe`, `self.base` with what varies.
        """
        return self.base

    def unvaried(self, recipe):
        """The space of one recipe alone, of the same networks and rows.

        Args:
            recipe: `Recipe`.

        Returns:
            A `HyperRecipe`.
        """
        found: Any = copy.copy(self)
        # KerasTuner binds it to the space that it was made for.
        del found.build
        found.base = recipe
        found.recipe = lambda hp: recipe
        return found

    def build(self, hp):
        """The network of a trial.

        Args:
            hp: `keras_tuner.HyperParameters`.

        Returns:
            A `keras.Model`, compiled if it has its top. Where the recipe
            keeps the activations of a frozen part, it is what learns from
            them; `fit` of catalogs knows.
        """
        recipe = self.recipe(hp)
        given = {"input_shape": self.input_shape}
        if self.input_tensor is not None:
            given = {"input_shape": None, "input_tensor": self.input_tensor}
        if not self.include_top:
            return build(
                recipe,
                clip_of(recipe),
                self.classes,
                self.weights,
                include_top=False,
                **given,
            )
        model = build(
            recipe, clip_of(recipe), self.classes, training=True, **given
        )
        classes = self.catalog.classes
        moved = transfer.begin(model, recipe, self.weights, classes)
        transfer.freeze(model, recipe.train)
        layers = dict(transfer.leaves(model))
        self.top = None
        if recipe.cache_activations:
            self.top = Top(model)
            model, layers = self.top.model, self.top.layers
        rates = transfer.rates(model, layers, moved, recipe.old_rate)
        compiled(model, recipe, self.catalog, rates)
        return model

    def fit(self, hp, model, *args, **kwargs):
        """Trains the network of a trial.

        Args:
            hp: `keras_tuner.HyperParameters`.
            model: What `build` returned.
            *args: As for `keras.Model.fit`; or a `Catalog` to learn, the
                one of `validation_data` beside it, and `on_error`, `flow`,
                `cache` and `on_skip` of
                `keras_videofusion.data.pipeline.training_clips`.
            **kwargs: The same, callbacks among them.

        Returns:
            `keras.callbacks.History`.
        """
        recipe = self.recipe(hp)
        kwargs.setdefault("epochs", recipe.epochs)
        if args and isinstance(args[0], Catalog):
            return self._fit_catalog(model, recipe, *args, **kwargs)
        if len(args) > 1 or kwargs.get("y") is not None:
            kwargs.setdefault("batch_size", recipe.batch)
        return model.fit(*args, **kwargs)

    def _fit_catalog(
        self,
        model,
        recipe,
        learned,
        *,
        epochs,
        validation_data,
        callbacks=(),
        initial_epoch=0,
        cache=None,
        on_error="skip",
        on_skip=None,
        flow=None,
        verbose=0,
    ):
        """Trains as `keras_videofusion.training.fit.train` does, with no run.

        Returns:
            `keras.callbacks.History`.
        """
        watched = validation_data
        spec = clip_of(recipe, read_vectors(learned.root))
        if self.top is not None:
            learned, watched = kept_activations(
                self.top,
                dataclasses.replace(recipe, seed=self.seed),
                (learned, watched),
                spec,
                self.activations,
                on_error=on_error,
                flow=flow,
                say=self.say,
            )
            spec, cache = VectorSpec(self.top.size), None
        reading = {"on_error": on_error, "on_skip": on_skip, "flow": flow}
        count = steps(learned, recipe.batch, recipe.clips_per_video)
        return model.fit(
            training_clips(
                learned,
                spec,
                recipe.batch,
                **drawing(recipe),
                first_epoch=initial_epoch,
                cache=cache,
                **reading,
            ),
            initial_epoch=initial_epoch,
            epochs=epochs,
            steps_per_epoch=count,
            validation_data=validation_clips(
                watched,
                spec,
                recipe.batch,
                clips=recipe.validation_clips,
                activation=recipe.activation,
                **reading,
            ),
            callbacks=[
                Rate(recipe, count),
                Finite(),
                *fit.plateaus(recipe, "val_loss"),
                *callbacks,
            ],
            verbose=verbose,
            shuffle=False,  # the clips come shuffled
        )


class HyperFeatureMLP(HyperRecipe):
    """What Karpathy et al. searched for the network upon their histograms.

    Learning rate, weight decay, one hidden layer or two, the units of each,
    and the dropout before each layer with weights.

    Args:
        *args: As for `HyperRecipe`.
        units: Pair of integers, the fewest and the most units of a layer, a
            power of two apart.
        **kwargs: As for `HyperRecipe`.

    Reference:
        Karpathy et al., CVPR 2014, section 4.1, "Feature histogram
        baselines".
    """

    default = Recipe(model="feature_mlp")
    most = 2

    def __init__(self, *args, units=(512, 4096), **kwargs):
        super().__init__(*args, **kwargs)
        self.units = units

    def recipe(self, hp):
        rate = hp.Float(
            "learning_rate", 1e-4, 1e-1, sampling="log", default=1e-2
        )
        decay = hp.Choice("weight_decay", [0.0, 1e-5, 5e-5, 5e-4, 5e-3])
        layers = hp.Int("layers", 1, self.most) if self.most else 0
        hidden, dropout = [], []
        for number in range(1, self.most + 1):
            with hp.conditional_scope(
                "layers", list(range(number, self.most + 1))
            ):
                drop = self._dropout(hp, f"dropout_{number}")
                units = hp.Int(
                    f"units_{number}", *self.units, step=2, sampling="log"
                )
            if number <= layers:
                dropout.append(drop)
                hidden.append(units)
        dropout.append(self._dropout(hp, "dropout_top"))
        return dataclasses.replace(
            self.base,
            learning_rate=rounded(rate),
            weight_decay=decay,
            dropout=None,
            options={
                **self.base.options,
                "hidden": hidden,
                "dropout": dropout,
            },
        )

    @staticmethod
    def _dropout(hp, name):
        rate = hp.Float(name, 0.0, 0.7, step=0.1)
        return None if rate is None else rounded(rate)


class HyperLinear(HyperFeatureMLP):
    """The linear model that Karpathy et al. set beside it: no hidden layer.

    Args:
        *args: As for `HyperFeatureMLP`.
        **kwargs: As for `HyperFeatureMLP`.

    Reference:
        Karpathy et al., CVPR 2014, section 4.1: the network works better.
    """

    most = 0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # As it stands, too; a rate per layer was for others.
        options = {
            name: value
            for name, value in self.base.options.items()
            if name != "dropout"
        }
        self.base = dataclasses.replace(
            self.base, options={**options, "hidden": []}
        )


class HyperFinetune(HyperRecipe):
    """What varies when a trained network learns other classes.

    The dropout of the layers that learn, their rate, within ten times of the
    recipe's either way, and the share of it for those that came with weights,
    where such learn.

    Args:
        *args: As for `HyperRecipe`; `recipe.train` says which layers learn.
        **kwargs: As for `HyperRecipe`.

    Reference:
        Karpathy et al., CVPR 2014, section 4.2: dropout down to a tenth of
        the units kept, before every layer that learns.
    """

    def recipe(self, hp):
        rate = self.base.learning_rate
        rate = hp.Float(
            "learning_rate", rate / 10, rate * 10, sampling="log", default=rate
        )
        found = {
            "learning_rate": rounded(rate),
            "top_dropout": rounded(hp.Float("top_dropout", 0.0, 0.9, step=0.1)),
        }
        if self.base.train in ("top3", "all"):
            found["old_rate"] = hp.Choice(
                "old_rate", [0.01, 0.03, 0.1, 0.3, 1.0]
            )
        return dataclasses.replace(self.base, **found)


class Finite(keras.callbacks.Callback):
    """Ends a trial at the first loss that is no number.

    Raises:
        TrainingError: Then.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} in epoch {self.epoch}, step "
                f"{batch + 1}"
            )


def rounded(value):
    """A hyperparameter as people write it: to three digits.

    Args:
        value: Float.

    Returns:
        Float.
    """
    return float(f"{value:.3g}")


def space_of(hypermodel):
    """All hyperparameters of a space, conditional ones too.

    Args:
        hypermodel: `HyperRecipe`.

    Returns:
        `keras_tuner.HyperParameters` at their defaults.
    """
    found, opened = keras_tuner.HyperParameters(), []
    hp = found
    while True:
        hypermodel.recipe(hp)
        found.merge(hp, overwrite=False)
        # What stands under a condition is seen where it is met.
        closed = [scope for scope in hp.inactive_scopes if scope not in opened]
        if not closed:
            break
        opened.append(closed[0])
        hp = keras_tuner.HyperParameters.from_config(found.get_config())
        for condition in closed[0]:
            hp.values[condition.name] = condition.values[0]
        hp.ensure_active_values()
    space = keras_tuner.HyperParameters()
    space.merge(found.space)
    return space

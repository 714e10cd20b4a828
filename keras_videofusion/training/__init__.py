"""Training: recipes, devices, exact checkpoints, and the run's folder.

Only `Recipe` and `RECIPES` are loaded with the room: the command line builds
its flags from them and must answer before TensorFlow has started.
`keras_videofusion.training.fit.train` trains.
"""

from keras_videofusion.training.recipe import Recipe, RECIPES

__all__ = ["RECIPES", "Recipe"]

"""Networks as they are trained, so narrow that they cost nothing."""

from keras_videofusion.applications import get_model, MODELS
from keras_videofusion.training.recipe import Recipe

SMALL = Recipe(
    width=0.02, size=40, batch=8, epochs=1, learning_rate=1e-3, dropout=0.5
)
QUIET = {"verbose": 0, "say": lambda line: None}


def small(name, **arguments):
    """A network as it is trained, narrow, of small clips."""
    entry = MODELS[name]
    spec = entry.spec
    if name == "feature_mlp":
        return get_model(name, input_shape=(9,), width=0.001, classes=3)
    side = 64 if name.startswith("lrcn") else 48
    long = any(word in name for word in ("i3d", "s3d", "i2d", "inception"))
    shapes = {
        stream: (8 if long else time, side, side, channels)
        for stream, (time, _, _, channels) in spec.shapes.items()
    }
    return get_model(
        name,
        width=0.02,
        classes=3,
        input_shape=shapes if len(shapes) > 1 else shapes[spec.streams[0]],
        **entry.training,
        **arguments,
    )

"""Video classification for Keras 3, after Karpathy et al., CVPR 2014.

Importing it registers its layers, so that `keras.saving.load_model` finds
them.
"""

from keras_videofusion import applications, layers
from keras_videofusion.data.augmentation import (
    CenterClipCrop,
    ClipPasses,
    RandomClipCrop,
    RandomClipFlip,
)
from keras_videofusion.data.clips import ClipSpec
from keras_videofusion.version import __version__

__all__ = [
    "CenterClipCrop",
    "ClipPasses",
    "ClipSpec",
    "RandomClipCrop",
    "RandomClipFlip",
    "__version__",
    "applications",
    "layers",
    "video_dataset_from_directory",
]


def __getattr__(name):
    # The networks run on every backend; only this door needs TensorFlow.
    if name == "video_dataset_from_directory":
        from keras_videofusion.data.directory import (
            video_dataset_from_directory,
        )

        return video_dataset_from_directory
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

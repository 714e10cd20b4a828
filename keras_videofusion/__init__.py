"""Video classification for Keras 3, after Karpathy et al., CVPR 2014."""

from keras_videofusion import applications, layers
from keras_videofusion.version import __version__

__all__ = ["__version__", "applications", "layers"]

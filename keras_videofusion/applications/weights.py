"""Where weights come from: nowhere, a file, or their authors' release."""

import os
import warnings
import zipfile

# Network -> published names. The fusion networks of 2014 were never released.
WEIGHTS: dict[str, tuple[str, ...]] = {}


def check(network, weights):
    """Refuses weights that do not exist.

    Args:
        network: The network's name in `applications.MODELS`.
        weights: The builder's argument.

    Raises:
        ValueError: Then; the line says what there is.
    """
    if weights is None:
        return
    if isinstance(weights, str | os.PathLike) and os.path.exists(weights):
        return
    known = WEIGHTS.get(network, ())
    if weights in known:
        return
    names = "".join(f"'{name}', " for name in known)
    hint = (
        ""
        if known
        else f" Nobody has published weights of {network}: train it with "
        f"`videofusion train DATA --model {network} --run RUN`."
    )
    raise ValueError(
        "The `weights` argument should be either `None` (random "
        f"initialization), {names}or the path to the weights file to be "
        f"loaded.{hint} Received: weights={weights!r}"
    )


def load(model, weights):
    """Loads a weights file into a network.

    Args:
        model: `keras.Model`.
        weights: Path of a `.weights.h5` or `.keras` file, or None.

    Raises:
        ValueError: If the file is of another kind or of another network.
    """
    if weights is None:
        return
    path = os.fspath(weights)
    if not path.endswith((".weights.h5", ".keras")):
        raise ValueError(
            "`weights` must name a file that ends in .weights.h5 or .keras. "
            f"Received: weights={path!r}"
        )
    try:
        with warnings.catch_warnings():
            # What does not fit is warned of first, then raised.
            warnings.filterwarnings("ignore", "Skipping nested container")
            model.load_weights(path)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"`weights` do not fit {model.name}, or the file is damaged "
            f"({reason}). Received: weights={path!r}"
        ) from error

"""The histogram baseline, each recording left out once, and its blocks.

    python benchmarks/baseline.py DATA --out DIR [--folds 10] [--seeds 3]
        [--trials 6] [--inner 3] [--epochs 40]

Words are learned without the recordings that are left out, and so is the
network: its numbers are searched on folds of the others, by `videofusion tune
baseline`, which a linear model beside it is too. The search is seed 0's; the
other seeds draw words and weights anew. Blocks are told alone and left out,
with the network that was found for all of them. Descriptors are kept, and what
stands in DIR is not done again.

Prints percent of videos that are told right, over all folds: mean and standard
deviation over seeds, Wilson's interval of seed 0; then the same of seed 0's
runs, as `evaluate` scored them, with the losses of their searches. Draws
DIR/confusion.png, of the network's runs.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import keras
import keras_tuner
import numpy as np

from keras_videofusion.data.files import write_json
from keras_videofusion.data.vectors import read_vectors
from keras_videofusion.evaluation import metrics, pictures
from keras_videofusion.evaluation.scores import Scores
from keras_videofusion.training.devices import release
from keras_videofusion.training.recipe import Recipe, RECIPES
from keras_videofusion.training.spaces import HyperRecipe


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--inner", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    given = parser.parse_args()
    told = {}
    for fold in range(1, given.folds + 1):
        for seed in range(given.seeds):
            place = given.out / f"seed{seed}-fold{fold}"
            verb(
                *("histograms", given.data, place / "vectors"),
                *("--fold", f"{fold}/{given.folds}", "--validation-split", 0),
                *("--seed", seed, "--keep", given.out / "kept"),
            )
            if not seed:
                found = searched(place, given)
            if not (place / "told.json").is_file():
                found["untuned"] = dataclasses.replace(
                    RECIPES["baseline2014"], epochs=given.epochs
                )
                write_json(place / "told.json", answers(place, found, seed))
            told[seed, fold] = json.loads((place / "told.json").read_text())
            rows = told[seed, fold]
            hits = {n: np.mean(hits_of(rows, n)) for n in rows["answers"]}
            print(
                f"fold {fold}, seed {seed}: network {hits['network']:.1%}, "
                f"linear {hits['linear']:.1%}, untuned {hits['untuned']:.1%}",
                flush=True,
            )
    table(told, given)
    evaluated(given)


def verb(*words):
    command = [sys.executable, "-m", "keras_videofusion", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def searched(place, given):
    """The recipes that were found for a fold, network and linear."""
    run = place / "run"
    if not (place / "run-linear" / "metrics.json").is_file():
        verb(
            *("tune", "baseline", place / "vectors", "--run", run, "--resume"),
            *("--recipe", "baseline2014", "--validation-split", 0),
            *("--validation-folds", given.inner, "--trials", given.trials),
            *("--units", 64, 256, "--epochs", given.epochs),
        )
        for name in ("run", "run-linear"):
            verb("evaluate", place / name, "--clips", 1, "--passes", 1)
    return {
        name: Recipe.from_json(
            json.loads((place / f"{folder}-search/best.json").read_text())[
                "recipe"
            ]
        )
        for name, folder in (("network", "run"), ("linear", "run-linear"))
    }


def answers(place, found, seed):
    """What every network says of the videos that were left out."""
    vectors = read_vectors(place / "vectors")
    catalog = vectors.catalog
    x = np.stack([vectors.rows(row)[0] for row in range(len(catalog))])
    y = catalog.truth.astype("float32")
    held = np.array([video.split == "test" for video in catalog])
    recipes = dict(found)
    if not seed:
        for name, (begin, end) in vectors.blocks.items():
            rest = [[0, begin], [end, vectors.size]]
            rest = [span for span in rest if span[0] < span[1]]
            for kind, spans in (("only", [[begin, end]]), ("without", rest)):
                recipes[f"{kind} {name}"] = dataclasses.replace(
                    found["network"],
                    options={**found["network"].options, "columns": spans},
                )
    said = {}
    for name, recipe in recipes.items():
        keras.utils.set_random_seed(1000 + seed)
        space = HyperRecipe(
            recipe=recipe, input_shape=(vectors.size,), classes=y.shape[1]
        )
        values = keras_tuner.HyperParameters()
        model = space.build(values)
        space.fit(values, model, x[~held], y[~held], verbose=0)
        said[name] = model.predict(x[held], verbose=0).argmax(1).tolist()
        release(model)
        keras.backend.clear_session()
    return {"truth": y[held].argmax(1).tolist(), "answers": said}


def hits_of(rows, name):
    return np.equal(rows["truth"], rows["answers"][name])


def table(told, given):
    folds = range(1, given.folds + 1)
    for name in told[0, 1]["answers"]:
        seeds = [s for s in range(given.seeds) if name in told[s, 1]["answers"]]
        hits = [
            np.concatenate([hits_of(told[seed, fold], name) for fold in folds])
            for seed in seeds
        ]
        means = [100 * one.mean() for one in hits]
        low, high = metrics.wilson(hits[0].mean(), len(hits[0]))
        spread = f" +- {np.std(means, ddof=1):.1f}" if len(means) > 1 else ""
        print(
            f"{name:24s} {np.mean(means):5.1f}{spread}  (seeds "
            f"{', '.join(f'{mean:.1f}' for mean in means)}; seed 0 of "
            f"{len(hits[0])}: {100 * low:.0f} to {100 * high:.0f})"
        )


def evaluated(given):
    """What the searches found, and their runs as `evaluate` scored them."""
    for kind, run in (("network", "run"), ("linear", "run-linear")):
        places = [
            given.out / f"seed0-fold{fold}"
            for fold in range(1, given.folds + 1)
        ]
        best = [
            json.loads((place / f"{run}-search/best.json").read_text())
            for place in places
        ]
        scores = [Scores.load(place / run / "scores.npz") for place in places]
        truth = np.concatenate([one.truth for one in scores])
        shares = np.concatenate([one.video_probabilities for one in scores])
        share = metrics.hit_at_k(truth, shares, 1)
        low, high = metrics.wilson(share, len(truth))
        losses = [one["score"] for one in best]
        untuned = sum(one["trial"] is None for one in best)
        print(
            f"runs, {kind:8s} {100 * share:5.1f}  ({100 * low:.0f} to "
            f"{100 * high:.0f}); validation loss {np.mean(losses):.2f} "
            f"({', '.join(f'{loss:.2f}' for loss in losses)}), of the "
            f"untuned recipe in {untuned} of {len(best)}"
        )
        if kind == "network":
            counts = metrics.confusion(truth, shares)
            figure = pictures.confusion_matrix(counts, scores[0].classes)
            (given.out / "confusion.png").write_bytes(pictures.png(figure))


if __name__ == "__main__":
    main()

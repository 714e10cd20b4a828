"""A network of other videos, transferred in the paper's four ways.

    python benchmarks/regimes.py MODEL DATA --out DIR [--folds 5] [--trials 4]
        [--epochs 30] [--top-epochs 150] [any flag of `videofusion tune
        finetune`]

For every fold of recordings and every regime the dropout and the rates are
searched on a part of the other recordings (`videofusion tune finetune`), the
best is trained on all of these but that part, and scored on the fold. The top
alone learns from kept activations, so that its epochs, though more, cost
least. What stands in DIR is not done again. Prints percent of videos that are
told right with Wilson's intervals, and the dropout that was chosen.

Reference: Karpathy et al., CVPR 2014, table 3.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

REGIMES = ("scratch", "top", "top3", "all")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--top-epochs", type=int, default=150)
    given, rest = parser.parse_known_args()
    for fold in range(1, given.folds + 1):
        for regime in REGIMES:
            run = given.out / f"{regime}-fold{fold}"
            if not (run / "metrics.json").is_file():
                own = ["--epochs", given.epochs]
                if regime == "top":
                    own = ["--epochs", given.top_epochs]
                    own += ["--cache-activations", 20]
                verb(
                    *("tune", "finetune", given.model, given.data),
                    *("--train", regime, "--run", run, "--resume", *own),
                    *("--fold", f"{fold}/{given.folds}"),
                    *("--validation-split", 0.15, "--trials", given.trials),
                    *rest,
                )
                verb("evaluate", run, "--clips", 10)
            told = json.loads((run / "metrics.json").read_text())
            print(
                f"fold {fold}, {regime}: {told['video_hit_at_1']:.1%}",
                flush=True,
            )
    for regime in REGIMES:
        tell(regime, given)


def verb(*words):
    command = [sys.executable, "-m", "keras_videofusion", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def tell(regime, given):
    from keras_videofusion.evaluation import metrics
    from keras_videofusion.evaluation.scores import Scores

    runs = [
        given.out / f"{regime}-fold{fold}" for fold in range(1, given.folds + 1)
    ]
    hits = []
    for run in runs:
        scores = Scores.load(run / "scores.npz")
        hits += metrics.hits(
            scores.truth, scores.video_probabilities, 1
        ).tolist()
    share = float(np.mean(hits))
    low, high = metrics.wilson(share, len(hits))
    dropped = [
        json.loads((run / "recipe.json").read_text())["recipe"]["top_dropout"]
        for run in runs
    ]
    print(
        f"{regime:8s} {100 * share:5.1f}  ({100 * low:.0f} to "
        f"{100 * high:.0f}, {len(hits)} videos); dropout "
        f"{', '.join(map(str, dropped))}"
    )


if __name__ == "__main__":
    main()

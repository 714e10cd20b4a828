"""Video Hit@1 of a recipe over folds of groups and several seeds.

    python benchmarks/folds.py DATA --runs DIR [--folds 5] [--seeds 3]
        [--clips 10] [--recipe NAME] [any flag of `videofusion train`]

Each fold holds out consecutive groups; nothing of it is seen in training, not
even to choose the epoch: the lowest training loss does. A finished run is
not trained again, so the script goes on where it was stopped.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--runs", required=True, type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clips", default="10")
    own, rest = parser.parse_known_args()
    table = np.full((own.seeds, own.folds), np.nan)
    counts = np.zeros((own.seeds, own.folds))
    for seed in range(own.seeds):
        for fold in range(1, own.folds + 1):
            run = own.runs / f"seed{seed}-fold{fold}"
            train = [
                "train", own.data, "--run", run, "--resume", "--seed", seed,
                "--fold", f"{fold}/{own.folds}", "--validation-split", 0,
                *rest,
            ]  # fmt: skip
            verb(*train)
            if not (run / "metrics.json").is_file():
                verb("evaluate", run, "--clips", own.clips)
            from keras_videofusion.evaluation.metrics import hit_at_k
            from keras_videofusion.evaluation.scores import Scores

            scores = Scores.load(run / "scores.npz")
            hit = hit_at_k(scores.truth, scores.video_probabilities, 1)
            table[seed, fold - 1] = hit
            counts[seed, fold - 1] = len(scores.truth)
            print(f"seed {seed}, fold {fold}: {hit:.1%}", flush=True)
    # Folds are of unequal size: a seed's figure is over all its videos.
    means = (table * counts).sum(1) / counts.sum(1)
    spread = means.std(ddof=1) if len(means) > 1 else float("nan")
    print(f"per seed: {', '.join(f'{mean:.1%}' for mean in means)}")
    print(f"video Hit@1 {means.mean():.1%} +- {spread:.1%} over seeds")
    spread = table.std(ddof=1)
    print(f"over all {table.size} runs: standard deviation {spread:.1%}")


def verb(*words):
    command = [sys.executable, "-m", "keras_videofusion", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()

#!/usr/bin/env bash
# What `make demo` runs: two networks, one that sees a frame and one that sees
# motion, trained and scored on the same videos, and a page that shows both.
#
#   examples/demo.sh RUNS               draws moving_shapes, 5 minutes
#   examples/demo.sh RUNS DATA [REGEX]  your own videos; REGEX reads a video's
#                                       group (source recording) off its path
set -euo pipefail
runs=$1
data=${2:-}
groups=${3:-}

if [ -z "$data" ]; then
  data=(moving_shapes --root "$runs/moving_shapes")
  recipe=(--width 0.125 --size 80 --batch 16 --clips-per-video 2 --epochs 5
    --optimizer adam --weight-decay 0)
  scoring=(--clips 2 --passes 4)
else
  data=("$data")
  [ -z "$groups" ] || data+=(--group-pattern "$groups")
  recipe=(--recipe small)
  scoring=(--clips 10 --passes 4)
fi

for model in single_frame slow_fusion; do
  videofusion train "${data[@]}" --model "$model" "${recipe[@]}" \
    --run "$runs/$model" --overwrite
  videofusion evaluate "$runs/$model" "${scoring[@]}"
done
videofusion report "$runs/single_frame" "$runs/slow_fusion" --out "$runs"
echo "open $runs/report.html, or: tensorboard --logdir $runs"

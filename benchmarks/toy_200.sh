#!/bin/sh
# Everything that docs/results.md says about the toy benchmark, from nothing: models of three worlds, every method, the
# tables and the picture. Most of a day on two cores; goes on where it stopped.
# usage: benchmarks/toy_200.sh [DIRECTORY]
set -eu
out=${1:-bench-runs}
cd "$(dirname "$0")/.."
PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
python=${PYTHON:-python3}
"$python" -m kvw.toy.benchmark --out bench-models --seeds 0 1 2
for seed in 0 1 2; do
    "$python" -m kvw bench run recipes/toy-200.toml --seed "$seed" --out "$out/main-$seed"
    "$python" -m kvw bench run recipes/toy-200-relatives.toml --seed "$seed" --out "$out/relatives-$seed"
    "$python" -m kvw bench run recipes/toy-200-methods.toml --seed "$seed" --out "$out/methods-$seed"
done
for share in forget05 forget15; do
    "$python" benchmarks/toy_200_summary.py "$out"/main-?/"$share" "$out"/relatives-?/"$share" >"$out/$share.md"
done
"$python" benchmarks/toy_200_summary.py "$out"/methods-? "$out"/relatives-?/forget10 \
    --plot "$out/toy-200-methods.png" >"$out/forget10.md"
cat "$out"/forget*.md

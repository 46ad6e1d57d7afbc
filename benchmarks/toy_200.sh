#!/bin/sh
# Everything that docs/results-toy-benchmark.md says, from nothing: models of five worlds, candidates in two of them, every
# method, the tables and the picture. More than a day on two cores; goes on where it stopped.
# usage: benchmarks/toy_200.sh [DIRECTORY]
set -eu
out=${1:-bench-runs}
cd "$(dirname "$0")/.."
PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
python=${PYTHON:-python3}
run() { # recipe, world, where
    "$python" -m kvw bench run "recipes/$1.toml" --seed "$2" --out "$out/$3-$2"
}
"$python" -m kvw.toy.benchmark --out bench-models --seeds 0 1 2 3 4
for seed in 0 1; do run toy-200-candidates "$seed" candidates; done
"$python" benchmarks/toy_200_settings.py "$out"/candidates-? >"$out/settings.txt"
for seed in 2 3 4; do
    run toy-200 "$seed" main
    run toy-200-baselines "$seed" baselines
    run toy-200-methods "$seed" methods
done
for share in forget05 forget15; do
    "$python" benchmarks/toy_200_summary.py "$out"/main-[234]/"$share" "$out"/baselines-[234]/"$share" >"$out/$share.md"
done
"$python" benchmarks/toy_200_summary.py "$out"/main-[234]/forget10 "$out"/baselines-[234]/forget10 "$out"/methods-[234] \
    --plot "$out/toy-200-methods.png" >"$out/forget10.md"
"$python" -m kvw bench attack "$out/main-3/forget10" --attacks relearn-retain,relearn-forget,bf16,int8,int4 \
    --steps 10,100,1000 --learning-rate 3e-4 --at-most 20 >"$out/attacks.txt"
cat "$out/settings.txt" "$out"/forget*.md "$out/attacks.txt"

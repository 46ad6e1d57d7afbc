#!/bin/sh
# What KVW and gradient baselines cost on an accelerator, at real sizes with random weights; nothing is downloaded.
# usage: benchmarks/cost_gpu.sh [DIRECTORY]     (141 GB for full AdamW of LLaVA-1.5-7B's shape; rows that do not fit
# say so, the others are measured)
set -eu
out=${1:-cost-gpu}
cd "$(dirname "$0")/.."
PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
for shape in qwen2-vl-2b llava-1.5-7b; do
    "${PYTHON:-python3}" -m kvw bench cost "recipes/cost/$shape.toml" --out "$out/$shape"
done

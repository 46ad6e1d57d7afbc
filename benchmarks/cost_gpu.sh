#!/bin/sh
# Figure 3 of the KVW paper (time, memory, FLOPs) on an accelerator, for KVW, subspace weakening, LoRA and full fine-tuning:
# the shapes of Qwen2-VL-2B and LLaVA-1.5-7B with random weights; nothing is downloaded. One script that is meant to end
# within ten minutes; what is not done by then is stopped, and what was measured is kept and printed. The same command
# goes on where it stopped.
# usage: benchmarks/cost_gpu.sh [--dry-run] [DIRECTORY]     --dry-run: the toy model, on any machine
#        SECONDS_EACH=280 benchmarks/cost_gpu.sh            seconds for each shape
#        RECIPES=recipes/cost benchmarks/cost_gpu.sh        200 forget and 1,000 retain examples: hours
set -eu
shapes="qwen2-vl-2b llava-1.5-7b"
if [ "${1:-}" = --dry-run ]; then
    shapes=dry-run
    shift
fi
out=${1:-cost-gpu}
cd "$(dirname "$0")/.."
PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
failed=0
for shape in $shapes; do
    timeout --signal=INT --kill-after=15 "${SECONDS_EACH:-280}" "${PYTHON:-python3}" -m kvw bench cost \
        "${RECIPES:-recipes/cost/gpu}/$shape.toml" --out "$out/$shape" || failed=$?
    ls "$out/$shape/rows" 2>/dev/null | sed "s|^|$shape: measured |"
done
exit "$failed"

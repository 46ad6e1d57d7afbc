"""What subspace weakening costs beside one-shot KVW on the same data: ratios of computing times, in turn in one run.

The large model is a LLaVA with about 100 M random parameters; what it says means nothing, what it costs does.

usage: OMP_NUM_THREADS=1 python benchmarks/subspace_cost.py [--repeats 3] [--large] [--examples 24]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from kvw.cli.options import find_model
from kvw.data import Example, prepare, read_examples
from kvw.evaluation.loaded import Loaded
from kvw.measuring.examples import measure_examples
from kvw.methods.kvw.weaken import one_shot
from kvw.methods.subspace.examples import subspace_edit
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.quiet import quiet_libraries
from kvw.toy import World, write_world

LAYERS = 12
WIDTH = 768


def large(loaded: Loaded) -> Loaded:
    """The toy's tokens and images, and a decoder of about 100 M random parameters."""
    values: dict[str, Any] = loaded.model.config.to_dict()
    values["text_config"] |= {
        "hidden_size": WIDTH,
        "intermediate_size": 2048,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
        "head_dim": WIDTH // 12,
    }
    torch.manual_seed(0)
    return replace(loaded, model=LlavaForConditionalGeneration(LlavaConfig(**values)).eval())


def seconds(work: Callable[[], object]) -> float:
    """Computing time of this process in seconds, which a busy machine does not stretch as it does wall-clock time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def compare(loaded: Loaded, forget: Sequence[Example], retain: Sequence[Example], repeats: int) -> None:
    """Run both in turn, so that a machine that slows down slows both."""
    model, processor = loaded.model, loaded.processor
    settings = SubspaceSettings()

    def kvw() -> object:
        found = [
            measure_examples(model, processor, prepare(examples, processor), layers=loaded.all_layers).statistics
            for examples in (forget, retain)
        ]
        return one_shot(*found, gamma=0.1, steps=len(forget))

    def subspace() -> object:
        return subspace_edit(loaded, forget, retain, settings, lambda *_: None)

    print(f"{model.num_parameters() / 1e6:.1f} M parameters, {len(forget)} forget and {len(retain)} retain examples")
    kvw()
    ratios = []
    for turn in range(repeats):
        plain, ours = seconds(kvw), seconds(subspace)
        ratios.append(ours / plain)
        print(f"turn {turn + 1}: subspace / KVW one-shot = {ours / plain:.2f}", flush=True)
    print(f"median: {statistics.median(ratios):.2f}")


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--large", action="store_true", help="the 100 M model, too")
    parser.add_argument("--examples", type=int, default=24, help="for the large model; five times as many to retain")
    arguments = parser.parse_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        files = write_world(World(), Path(folder))
        forget, retain = (read_examples(files[name]) for name in ("forget", "retain"))
        loaded = Loaded.load(find_model("toy:vanilla"))
        compare(loaded, forget, retain, arguments.repeats)
        if arguments.large:
            count = arguments.examples
            compare(large(loaded), forget[:count], retain[: 5 * count], arguments.repeats)


if __name__ == "__main__":
    main()

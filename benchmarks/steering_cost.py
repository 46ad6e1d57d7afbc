"""What steering costs per generated token, on random weights in LLaVA's shape: CPU time of the process, in turns.

Prompts are short texts without a picture, so that what a hook costs per forward weighs as much as it ever does; a tower
and a prompt of hundreds of tokens would hide it. A turn generates three times, in an order by lot: plain, plain again,
steered; each ratio is of one turn. What plain by plain scatters is the machine, and what steered by plain exceeds it is
the cost of steering. The last column has less noise: the share of a steered turn that passes inside kvw's hooks.

usage: python benchmarks/steering_cost.py [--shape llava-100m] [--rows 1 8] [--tokens 48] [--turns 7]
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from random import Random
from typing import Any
from unittest.mock import patch

import torch
from transformers import PreTrainedModel

from kvw.bench.cost.models import random_model
from kvw.bench.cost.recipe import DataPart, ModelPart
from kvw.bench.cost.synthetic import MadeUpProcessor, made_up
from kvw.data import prepare, prompt_batch, to_model
from kvw.edits import Steer, SteeringEdit
from kvw.edits.edit import Attachment
from kvw.edits.hooks import Hooks
from kvw.edits.prompts import Prompts
from kvw.models.layer_inputs import InputHook, decoder_layers
from kvw.quiet import quiet_libraries

WAYS = ("plain", "again", "steered")
MILLION = 1e6


def random_edit(model: PreTrainedModel) -> SteeringEdit:
    """Shifts in every layer but the first, too small to change what is said."""
    hidden, generator = int(model.config.get_text_config().hidden_size), torch.Generator().manual_seed(0)
    vectors = torch.randn(len(decoder_layers(model)), 2, hidden, generator=generator) * 1e-3
    return SteeringEdit({layer: Steer(*vectors[layer]) for layer in range(1, len(vectors))})


def seconds(model: Any, batch: dict[str, Any], tokens: int, attachment: Attachment) -> float:
    """CPU time of the process for generating so many tokens in each row."""
    with attachment:
        begin = time.process_time()
        model.generate(**batch, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
        return time.process_time() - begin


def compare(model: Any, batch: dict[str, Any], tokens: int, turns: int) -> dict[str, list[float]]:
    """Times of all turns, by way."""
    edit, draw = random_edit(model), Random(0)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    seconds(model, batch, 2, Hooks([]))
    for _ in range(turns):
        for way in draw.sample(WAYS, len(WAYS)):
            found[way].append(seconds(model, batch, tokens, edit.attach(model) if way == "steered" else Hooks([])))
    return found


@contextmanager
def timed_hooks() -> Iterator[list[float]]:
    """The CPU time of every call of kvw's hooks during the block."""
    spent: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*inputs: Any, **named: Any) -> Any:
            begin = time.thread_time()
            try:
                return function(*inputs, **named)
            finally:
                spent.append(time.thread_time() - begin)

        return call

    with ExitStack() as patched:
        for home, name in ((InputHook, "__call__"), (Prompts, "_before"), (Prompts, "_guard"), (Prompts, "_after")):
            patched.enter_context(patch.object(home, name, timed(getattr(home, name))))
        yield spent


def share_inside(model: Any, batch: dict[str, Any], tokens: int, turns: int) -> float:
    """Median share of the time that hooks take."""
    edit, shares = random_edit(model), []
    with timed_hooks() as spent:
        for _ in range(turns):
            spent.clear()
            whole = seconds(model, batch, tokens, edit.attach(model))
            shares.append(sum(spent) / whole)
    return statistics.median(shares)


def show(rows: int, tokens: int, found: dict[str, list[float]], inside: float) -> None:
    """One row of the table."""
    plain = found["plain"]
    cells = []
    for way in WAYS[1:]:
        ratios = [time / base for time, base in zip(found[way], plain, strict=True)]
        cells.append(f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    per_token = statistics.median(plain) / tokens
    print(f"| {rows} | {tokens} | {1e3 * per_token:.2f} | {cells[0]} | {cells[1]} | {inside:.4f} |", flush=True)


def main() -> None:
    """Make a model, generate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llava-100m", help="a shipped shape, a folder, or toy:vanilla")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, nargs="+", default=(1, 8))
    parser.add_argument("--tokens", type=int, nargs="+", default=(48,), help="that each row generates")
    parser.add_argument("--turns", type=int, default=7)
    arguments = parser.parse_args()
    quiet_libraries()
    model = random_model(ModelPart(config=arguments.shape, device=arguments.device, dtype="float32"))
    processor: Any = MadeUpProcessor(model.config, (336, 336))
    examples = [replace(example, images=()) for example in made_up(DataPart(), "forget", max(arguments.rows))]
    print(f"{sum(parameter.numel() for parameter in model.parameters()) / MILLION:.0f} M parameters, {arguments.shape}")
    print("\n| rows | tokens | ms per step, plain | plain by plain | steered by plain | inside hooks |")
    print("|---:|---:|---:|---:|---:|---:|")
    for rows in arguments.rows:
        batch = to_model(prompt_batch(prepare(examples[:rows], processor), processor), model)
        for tokens in arguments.tokens:
            found = compare(model, batch, tokens, arguments.turns)
            show(rows, tokens, found, share_inside(model, batch, tokens, arguments.turns))


if __name__ == "__main__":
    main()

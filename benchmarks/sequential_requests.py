"""Ten people ask to be forgotten, one after the other: how much does the order of their requests matter?

Four ways, all on the toy world:
  together    one request with all ten people, one-shot
  original    one-shot, every request measured on the original model, the edits composed
  edited      one-shot, every request measured on the model that has the earlier edits in it
  progressive the progressive schedule within each request, on the model that has the earlier edits in it

usage: python benchmarks/sequential_requests.py [--orders 3] [--examples 120]
           [--gamma 0.02] [--together-gamma 0.06] [--progressive-gamma 0.013]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from rich.console import Console
from rich.table import Table

from kvw.cli.console import ConsoleReporter
from kvw.cli.options import find_model, quiet_libraries
from kvw.data import Example, Prepared, prepare, read_examples
from kvw.edits import Edit, compose, diff
from kvw.evaluation import evaluate
from kvw.measuring.examples import measure_examples
from kvw.measuring.statistics import Statistics
from kvw.methods.kvw import one_shot, weaken
from kvw.runs.costs import Stopwatch
from kvw.runs.loaded import Loaded
from kvw.runs.unlearning import ForgetBatches
from kvw.toy import World, write_world
from kvw.toy.world import LONGEST_ANSWER

REQUESTS = 10
SPLITS = ("forget", "retain", "unused", "general")


@dataclass(frozen=True)
class Study:
    """The model, the requests, and what to keep and score."""

    loaded: Loaded
    requests: Mapping[str, list[Prepared]]
    retain: Statistics
    scored: Mapping[str, list[Example]]

    def one_shot(self, examples: Sequence[Prepared], gamma: float) -> Edit:
        """An edit from one measurement on the model as it is now."""
        forget = measure_examples(self.loaded.model, self.loaded.processor, examples).statistics
        return one_shot(forget, self.retain, gamma=gamma, steps=len(examples))

    def progressive(self, examples: Sequence[Prepared], gamma: float) -> Edit:
        """An edit from one step for each example, on the model as it is now."""
        batches = ForgetBatches(examples, self.loaded.processor)
        return weaken(self.loaded.model, batches, self.retain, gamma=gamma, layers=self.loaded.all_layers)

    def in_turn(self, order: Sequence[str], make: Callable[[Sequence[Prepared], float], Edit], gamma: float) -> Edit:
        """All requests in this order, each on the model with the earlier edits attached, composed at the end."""
        edits: list[Edit] = []
        for name in order:
            with attached(edits, self.loaded):
                edits.append(make(self.requests[name], gamma))
        return compose(*edits)

    def scores(self, edit: Edit | None) -> list[str]:
        """Exact match by split."""
        loaded = self.loaded
        with attached([edit] if edit else [], loaded):
            found = evaluate(loaded.model, loaded.processor, self.scored, max_new_tokens=LONGEST_ANSWER)
        return [f"{summary.exact:.3f}" for summary in found.summaries.values()]


@contextmanager
def attached(edits: Sequence[Edit], loaded: Loaded) -> Iterator[None]:
    """Several edits in force at once."""
    with ExitStack() as stack:
        for edit in edits:
            stack.enter_context(edit.attach(loaded.model))
        yield


def make_study(folder: Path, count: int) -> Study:
    """Draw the world, load the model, measure the retain set."""
    files = write_world(World(forget=REQUESTS), folder)
    loaded = Loaded.load(find_model("toy:vanilla"))
    examples = {name: read_examples(files[name]) for name in SPLITS}
    requests: dict[str, list[Example]] = {}
    for example in examples["forget"]:
        requests.setdefault(str(example.metadata["subject"]), []).append(example)
    retain = measure_examples(loaded.model, loaded.processor, prepare(examples["retain"], loaded.processor))
    return Study(
        loaded,
        {name: prepare(asked, loaded.processor) for name, asked in requests.items()},
        retain.statistics,
        # Any beginning of a toy split is balanced over people and facts.
        {name: read[:count] for name, read in examples.items()},
    )


def apart(first: Edit, second: Edit) -> tuple[str, str]:
    """How different two edits are: the largest gap between two gates, the cosine of the log-gates."""
    one, other = first.log_factors(), second.log_factors()
    if one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one):
        return "identical", "1"
    found = diff(first, second).overall
    return f"{found.largest_difference:.3f}", f"{found.cosine:.4f}"


def main() -> None:
    """Run all orders and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=3, help="random orders to compare")
    parser.add_argument("--gamma", type=float, default=0.02, help="of one-shot requests")
    parser.add_argument("--together-gamma", type=float, default=0.06)
    parser.add_argument("--progressive-gamma", type=float, default=0.013)
    parser.add_argument("--examples", type=int, default=120, help="scored per split")
    arguments = parser.parse_args()
    quiet_libraries()
    watch = Stopwatch(ConsoleReporter())
    table = Table(title="Ten requests, one after the other: exact match", title_justify="left")
    for title in ("way", "gamma", "order", *SPLITS, "largest gap", "cosine"):
        table.add_column(title, justify="left" if title == "way" else "right")
    with tempfile.TemporaryDirectory() as folder:
        with watch.stage("drawing, loading, measuring the retain set"):
            study = make_study(Path(folder), arguments.examples)
        table.add_row("(no edit)", "", "", *study.scores(None), "", "")
        with watch.stage("together"):
            everybody = [example for asked in study.requests.values() for example in asked]
            together = study.one_shot(everybody, arguments.together_gamma)
            table.add_row("together", f"{arguments.together_gamma:g}", "", *study.scores(together), "", "")
        with watch.stage("measuring ten requests on the original model"):
            single = {name: study.one_shot(asked, arguments.gamma) for name, asked in study.requests.items()}
        ways: dict[str, tuple[float, Callable[[Sequence[str]], Edit]]] = {
            "original": (arguments.gamma, lambda order: compose(*(single[name] for name in order))),
            "edited": (arguments.gamma, lambda order: study.in_turn(order, study.one_shot, arguments.gamma)),
            "progressive": (
                arguments.progressive_gamma,
                lambda order: study.in_turn(order, study.progressive, arguments.progressive_gamma),
            ),
        }
        for way, (gamma, make) in ways.items():
            first: Edit | None = None
            for number in range(1, arguments.orders + 1):
                with watch.stage(f"{way}, order {number}"):
                    edit = make(Random(number).sample(sorted(study.requests), REQUESTS))
                    scores = study.scores(edit)
                table.add_row(way, f"{gamma:g}", str(number), *scores, *(apart(first, edit) if first else ("", "")))
                first = first or edit
    console = Console()
    console.print(table)
    console.print("largest gap: between two gates, to order 1 of the same way. cosine: of the log-gates, likewise.")


if __name__ == "__main__":
    main()

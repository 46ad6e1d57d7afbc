"""Ten people ask to be forgotten, one after the other: how much does the order of their requests matter?

All on the toy world. Four ways with KVW:
  together    one request with all ten people, one-shot
  original    one-shot, every request measured on the original model, the edits composed
  edited      one-shot, every request measured on the model that has the earlier edits in it
  progressive the progressive schedule within each request, on the model that has the earlier edits in it
Two ways with subspace weakening (--method subspace):
  together    the union of all requests, solved on the original model
  one by one  every request solved alone on the original model, the edits put on one after the other

usage: python benchmarks/sequential_requests.py [--method kvw] [--orders 3] [--examples 120]
           [--gamma 0.02] [--together-gamma 0.06] [--progressive-gamma 0.013]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

import torch
from rich.console import Console
from rich.table import Table

from kvw.cli.options import find_model
from kvw.console import ConsoleReporter
from kvw.data import Example, Prepared, prepare, read_examples
from kvw.edits import Edit, compose, diff
from kvw.edits.weight_edit import weight_edit
from kvw.evaluation.evaluation import evaluate
from kvw.evaluation.loaded import Loaded
from kvw.measuring.examples import measure_examples
from kvw.measuring.statistics import Statistics
from kvw.methods.kvw.settings import KvwSettings
from kvw.methods.kvw.weaken import one_shot, weaken
from kvw.methods.subspace.examples import subspace_edit
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.quiet import quiet_libraries
from kvw.runs.costs import Stopwatch
from kvw.toy import World, write_world
from kvw.toy.world import LONGEST_ANSWER

REQUESTS = 10
SPLITS = ("forget", "retain", "unused", "general")


@dataclass(frozen=True)
class Study:
    """The model, the requests, and what to keep and score."""

    loaded: Loaded
    requests: Mapping[str, list[Example]]
    kept: list[Example]
    scored: Mapping[str, list[Example]]

    @cached_property
    def retain(self) -> Statistics:
        """Of what to keep, on the original model."""
        return measure_examples(self.loaded.model, self.loaded.processor, self.prepared(self.kept)).statistics

    def prepared(self, examples: Sequence[Example]) -> list[Prepared]:
        """Examples with the prompt around them."""
        return prepare(examples, self.loaded.processor)

    def order(self, seed: int) -> list[str]:
        """The people in an order by lot."""
        return Random(seed).sample(sorted(self.requests), REQUESTS)

    def asked(self, people: Iterable[str]) -> list[Example]:
        """What some people ask to be forgotten, one after the other."""
        return [example for name in people for example in self.requests[name]]

    def subspace(self, examples: Sequence[Example]) -> Edit:
        """An edit by subspace weakening, with its default settings."""
        return subspace_edit(self.loaded, examples, self.kept, SubspaceSettings(), lambda *_: None).edit

    def changes(self, edits: Sequence[Edit]) -> list[torch.Tensor]:
        """What edits, put on in this order, add to each value matrix."""
        found = []
        folding = [weight_edit(edit) for edit in edits]
        for matrix in folding[0].value_matrices(self.loaded.model).values():
            weight = matrix.read()
            for edit in reversed(folding):  # coefficients meet the edit that is put on first before the others
                weight = edit.changed(matrix, weight)
            found.append(weight - matrix.read())
        return found

    def one_shot(self, examples: Sequence[Example], gamma: float) -> Edit:
        """An edit from one measurement on the model as it is now."""
        forget = measure_examples(self.loaded.model, self.loaded.processor, self.prepared(examples)).statistics
        return one_shot(forget, self.retain, gamma=gamma, steps=len(examples))

    def progressive(self, examples: Sequence[Example], gamma: float) -> Edit:
        """An edit from one step for each example, on the model as it is now."""
        return weaken(
            self.loaded.model,
            self.loaded.batches(examples),
            self.retain,
            KvwSettings(seed=None, gamma=gamma, layers=self.loaded.all_layers),
        )

    def in_turn(self, order: Sequence[str], make: Callable[[Sequence[Example], float], Edit], gamma: float) -> Edit:
        """All requests in this order, each on the model with the earlier edits attached, composed at the end."""
        edits: list[Edit] = []
        for name in order:
            with attached(edits, self.loaded):
                edits.append(make(self.requests[name], gamma))
        return compose(*edits)

    def scores(self, *edits: Edit) -> list[str]:
        """Exact match by split, with edits put on in this order."""
        loaded = self.loaded
        with attached(edits, loaded):
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
    """Draw the world and load the model."""
    files = write_world(World(forget=REQUESTS), folder)
    loaded = Loaded.load(find_model("toy:vanilla"))
    examples = {name: read_examples(files[name]) for name in SPLITS}
    requests: dict[str, list[Example]] = {}
    for example in examples["forget"]:
        requests.setdefault(str(example.metadata["subject"]), []).append(example)
    # Any beginning of a toy split is balanced over people and facts.
    return Study(loaded, requests, examples["retain"], {name: read[:count] for name, read in examples.items()})


def apart(first: Edit, second: Edit) -> tuple[str, str]:
    """How different two edits are: the largest gap between two gates, the cosine of the log-gates."""
    one, other = first.log_factors(), second.log_factors()
    if one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one):
        return "identical", "1"
    found = diff(first, second).overall
    return f"{found.largest_difference:.3f}", f"{found.cosine:.4f}"


def kvw_rows(study: Study, arguments: argparse.Namespace, watch: Stopwatch) -> Iterator[tuple[str, ...]]:
    """Four ways with KVW."""
    with watch.stage("measuring the retain set"):
        _ = study.retain
    with watch.stage("together"):
        together = study.one_shot(study.asked(study.requests), arguments.together_gamma)
        yield "together", f"{arguments.together_gamma:g}", "", *study.scores(together)
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
                edit = make(study.order(number))
                scores = study.scores(edit)
            yield way, f"{gamma:g}", str(number), *scores, *(apart(first, edit) if first else ())
            first = first or edit


def subspace_rows(study: Study, arguments: argparse.Namespace, watch: Stopwatch) -> Iterator[tuple[str, ...]]:
    """Two ways with subspace weakening."""
    with watch.stage("solving ten requests"):
        single = {name: study.subspace(asked) for name, asked in study.requests.items()}
    ways: dict[str, Callable[[Sequence[str]], list[Edit]]] = {
        "together": lambda order: [study.subspace(study.asked(order))],
        "one by one": lambda order: [single[name] for name in order],
    }
    for way, make in ways.items():
        first: list[torch.Tensor] = []
        for number in range(1, arguments.orders + 1):
            with watch.stage(f"{way}, order {number}"):
                edits = make(study.order(number))
                scores, changes = study.scores(*edits), study.changes(edits)
            first = first or changes
            gaps = [float((one - other).norm() / one.norm()) for one, other in zip(first, changes, strict=True)]
            yield way, str(number), *scores, f"{max(gaps):.1e}" if number > 1 else ""


ROWS = {"kvw": kvw_rows, "subspace": subspace_rows}
COLUMNS = {
    "kvw": ("way", "gamma", "order", *SPLITS, "largest gap", "cosine"),
    "subspace": ("way", "order", *SPLITS, "gap"),
}
LEGENDS = {
    "kvw": "largest gap: between two gates, to order 1 of the same way. cosine: of the log-gates, likewise.",
    "subspace": "gap: of what is added to a value matrix, to order 1 of the same way, by norm; the largest share.",
}


def main() -> None:
    """Run all orders and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=ROWS, default="kvw")
    parser.add_argument("--orders", type=int, default=3, help="random orders to compare")
    parser.add_argument("--gamma", type=float, default=0.02, help="of one-shot requests")
    parser.add_argument("--together-gamma", type=float, default=0.06)
    parser.add_argument("--progressive-gamma", type=float, default=0.013)
    parser.add_argument("--examples", type=int, default=120, help="scored per split")
    arguments = parser.parse_args()
    quiet_libraries()
    watch = Stopwatch(ConsoleReporter())
    table = Table(title="Ten requests, one after the other: exact match", title_justify="left")
    columns = COLUMNS[arguments.method]
    for title in columns:
        table.add_column(title, justify="left" if title == "way" else "right")
    with tempfile.TemporaryDirectory() as folder:
        with watch.stage("drawing, loading"):
            study = make_study(Path(folder), arguments.examples)
        table.add_row("(no edit)", *[""] * (columns.index(SPLITS[0]) - 1), *study.scores())
        for row in ROWS[arguments.method](study, arguments, watch):
            table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(LEGENDS[arguments.method])


if __name__ == "__main__":
    main()

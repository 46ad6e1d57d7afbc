"""Four gradient methods with adapters of several ranks, and the intruder dimensions that these leave in the weights.

One request of planted people, a few steps, alpha / rank fixed. A singular vector among the first 10 of a trained
matrix is an intruder dimension if its cosine with every singular vector of the original is below 0.5 in absolute value
(Shuttleworth et al., arXiv 2410.21228); left singular vectors are compared.

usage: python benchmarks/lora_ranks.py --out DIR [--on people] [--only 0] [--ranks 2 8 32]
       [--methods ga grad-diff kl npo]
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kvw.console import ConsoleReporter
from kvw.edits.weights import WeightsEdit
from kvw.evaluation.loaded import Loaded
from kvw.files import write_text
from kvw.methods.registry import get_method
from kvw.progress import unheard
from kvw.proving.requests import Request
from kvw.quiet import quiet_libraries
from kvw.report.sheets import markdown_table
from kvw.runs.costs import Stopwatch
from planted import GROUNDS, SPLITS, kept, options, probability, scores

METHODS = ("ga", "grad-diff", "kl", "npo")
FIRST, LEAST_COSINE = 10, 0.5
HEADER = ["method", "rank", *SPLITS, "change", "intruders", "of"]


def left_vectors(weight: Tensor, most: int | None = None) -> Tensor:
    """Left singular vectors, the largest singular value first: (rows, most)."""
    exact = weight.double()
    if len(exact) <= exact.shape[1]:
        left: Tensor = torch.linalg.eigh(exact @ exact.T)[1].flip(1)
        return left[:, :most]
    right = torch.linalg.eigh(exact.T @ exact)[1].flip(1)[:, :most]
    normal: Tensor = nn.functional.normalize(exact @ right, dim=0)
    return normal


def intruders(before: Tensor, after: Tensor) -> int:
    """How many of the first singular vectors of a matrix are like none of the original's."""
    cosines = left_vectors(before).T @ left_vectors(after, FIRST)
    return int((cosines.abs().amax(0) < LEAST_COSINE).sum())


def measured(loaded: Loaded, request: Request, method: str, rank: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, ask and count."""
    values = {
        "learning_rate": arguments.rate,
        "epochs": arguments.epochs,
        "lora.rank": rank,
        "lora.alpha": float(2 * rank),
        "lora.dropout": 0.0,
    }
    made, splits = get_method(method), request.splits
    edit = made.make(loaded, splits["forget"], splits["retain"], made.read(values), unheard).edit
    assert isinstance(edit, WeightsEdit)
    live, found, moved, size = dict(loaded.model.named_parameters()), 0, 0.0, 0.0
    for name, after in edit.weights.items():
        before = live[name].detach()
        found += intruders(before, after)
        moved += float((after - before).square().sum())
        size += float(before.square().sum())
    with edit.attach(loaded.model):
        asked = scores(loaded, GROUNDS[arguments.on].asked(request))
    answers = {name: probability(values) for name, values in asked.items()}
    return {**answers, "change": (moved / size) ** 0.5, "intruders": found, "of": FIRST * len(edit.weights)}


def cells(method: str, rank: str, row: dict[str, Any]) -> list[str]:
    """A row of the table."""
    numbers = [f"{row[name]:.3f}" for name in (*SPLITS, "change")]
    return [method, rank, *numbers, str(row["intruders"]), str(row["of"])]


def main() -> None:
    """Train with every method and rank, and print."""
    parser = options(__doc__)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    quiet_libraries()
    ground = GROUNDS[arguments.on]
    watch, loaded = Stopwatch(ConsoleReporter()), ground.load()
    request = ground.made(arguments.only[0], arguments.out)
    place = arguments.out / f"{request.name}-{arguments.rate:g}-{arguments.epochs}"

    def original() -> dict[str, Any]:
        found = scores(loaded, ground.asked(request))
        return {name: probability(values) for name, values in found.items()}

    table = [cells("original", "", {**kept(place / "original.json", original), "change": 0, "intruders": 0, "of": 0})]
    for method in arguments.methods:
        for rank in arguments.ranks:
            with watch.stage(f"{method}, rank {rank}"):
                train = partial(measured, loaded, request, method, rank, arguments)
                row = kept(place / f"{method}-{rank}.json", train)
            table.append(cells(method, str(rank), row))
            write_text(place / "table.md", markdown_table(HEADER, table, 2) + "\n")
    print(f"{', '.join(request.subjects)}\n\n{(place / 'table.md').read_text('utf-8')}")


if __name__ == "__main__":
    main()

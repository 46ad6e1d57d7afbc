"""Does SMFA's merge bring back what training towards refusals took from others?

For each request one edit is trained towards refusals (idk-nll, without a retain set), and one on the retain file; both
start from the original. Then the first alone, the sum of both changes, and the first anchored by the second (``kvw edit
anchor``) with several values of ``--times`` are asked. Beside them the first is mixed with the original (``kvw edit
mix``), which gives back something of everything. *Taken back* is the share of the trained entries that became as they
were.

usage: python benchmarks/anchored_merge.py --out DIR [--on people] [--only 0] [--times 2.5 5 10] [--shares 0.8 0.7 0.6]
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from kvw.console import ConsoleReporter
from kvw.edits.anchored import anchor
from kvw.edits.weights import WeightsEdit
from kvw.evaluation.loaded import Loaded
from kvw.files import write_text
from kvw.methods.registry import get_method
from kvw.progress import unheard
from kvw.proving.requests import Request
from kvw.quiet import quiet_libraries
from kvw.report.sheets import markdown_table
from kvw.runs.costs import Stopwatch
from kvw.training.planting import finetune
from kvw.training.settings import LoraSettings, TrainingSettings
from planted import GROUNDS, SPLITS, kept, options, probability, scores

HEADER = ["model", *SPLITS, "taken back"]


def refusing(loaded: Loaded, request: Request, arguments: argparse.Namespace) -> WeightsEdit:
    """Trained to refuse the forget questions, and nothing beside."""
    made = get_method("idk-nll")
    values = {
        "retain_weight": 0.0,
        "learning_rate": arguments.rate,
        "epochs": arguments.epochs,
        "lora.rank": arguments.rank,
    }
    splits = request.splits
    edit = made.make(loaded, splits["forget"], splits["retain"], made.read(values), unheard).edit
    assert isinstance(edit, WeightsEdit)
    return edit


def retaining(request: Request, arguments: argparse.Namespace) -> WeightsEdit:
    """Trained on the retain file. The model is loaded for it, because training changes it."""
    loaded = GROUNDS[arguments.on].load()
    training = TrainingSettings(
        learning_rate=arguments.rate, epochs=arguments.retain_epochs, lora=LoraSettings(rank=arguments.rank)
    )
    return WeightsEdit(finetune(loaded.model, loaded.processor, request.splits["retain"], training).weights)


def added(loaded: Loaded, edit: WeightsEdit, other: WeightsEdit) -> WeightsEdit:
    """Both changes at once, W + D_f + D_a."""
    before = {name: loaded.model.get_parameter(name).detach() for name in edit.weights}
    return WeightsEdit({name: edit.weights[name] + other.weights[name] - before[name] for name in before})


def taken_back(loaded: Loaded, edit: WeightsEdit, merged: WeightsEdit) -> float:
    """The share of the entries that an edit changes which are the original's again in another."""
    moved = same = 0
    for name, after in edit.weights.items():
        before = loaded.model.get_parameter(name).detach()
        changed = after != before
        moved += int(changed.sum())
        same += int((changed & (merged.weights[name] == before)).sum())
    return same / max(moved, 1)


def answers(loaded: Loaded, request: Request, arguments: argparse.Namespace) -> dict[str, float]:
    """Mean probability of the answers by split, of the model as it is now."""
    asked = scores(loaded, GROUNDS[arguments.on].asked(request))
    return {name: probability(values) for name, values in asked.items()}


def rows(loaded: Loaded, request: Request, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The original, and every edit."""
    first, second = refusing(loaded, request, arguments), retaining(request, arguments)
    edits: dict[str, WeightsEdit] = {"refusing": first, "retaining": second, "both added": added(loaded, first, second)}
    for times in arguments.times:
        edits[f"anchored, times {times:g}"] = anchor(first, second, loaded.model, times)
    edits |= {f"mixed, share {share:g}": first.mixed(share) for share in arguments.shares}
    found: list[dict[str, Any]] = [{"model": "original", **answers(loaded, request, arguments), "taken back": 0.0}]
    for name, edit in edits.items():
        back = taken_back(loaded, first, edit) if name.startswith("anchored") else 0.0
        with edit.attach(loaded.model):
            found.append({"model": name, **answers(loaded, request, arguments), "taken back": back})
    return found


def main() -> None:
    """Train, merge, ask and print."""
    parser = options(__doc__)
    parser.add_argument("--times", type=float, nargs="+", default=[2.5, 5.0, 10.0])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.8, 0.7, 0.6], help="of the first edit in a mix")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=5, help="of the training towards refusals")
    parser.add_argument("--retain-epochs", type=int, default=1, help="of the training on the retain file")
    parser.add_argument("--rank", type=int, default=16)
    arguments = parser.parse_args()
    quiet_libraries()
    ground = GROUNDS[arguments.on]
    watch, loaded = Stopwatch(ConsoleReporter()), ground.load()
    for number in arguments.only:
        request = ground.made(number, arguments.out)
        place = arguments.out / f"{request.name}-{arguments.rate:g}-{arguments.epochs}-{arguments.retain_epochs}"
        with watch.stage(f"request {request.name}"):
            found = kept(place / "rows.json", partial(rows, loaded, request, arguments))
        cells = [[row["model"], *(f"{row[name]:.3f}" for name in HEADER[1:])] for row in found]
        text = f"{', '.join(request.subjects)}\n\n{markdown_table(HEADER, cells, 1)}\n"
        write_text(place / "table.md", text)
        print(text)


if __name__ == "__main__":
    main()

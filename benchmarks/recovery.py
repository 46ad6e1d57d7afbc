"""Does training on what must stay, after an edit, bring back what was forgotten?

An edit of planted people is folded in. Then its value matrices are trained shortly on the retain file, each moved by at
most a share of its norm: all of the matrix ("free"), or only what cannot undo the edit ("bound"). For KVW that is the
share of knowledge vectors that it has weakened most; for subspace weakening the complement of the directions, so that
what was taken out stays out. Before and after, extraction strength is measured, and a relearning attack: training in
full on every second forgotten fact, asked for the others. The gold model never knew the person.

usage: python benchmarks/recovery.py --out DIR [--on people] [--only 0] [--methods subspace kvw]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kvw.console import ConsoleReporter
from kvw.edits.edit import Edit
from kvw.edits.gates import GateEdit
from kvw.edits.low_rank import LowRankEdit
from kvw.edits.weight_edit import WeightEdit
from kvw.evaluation.attacks.relearning import relearned, relearning_settings
from kvw.evaluation.loaded import Loaded
from kvw.files import write_text
from kvw.models.value_matrix import MatrixKey
from kvw.proving.requests import Request
from kvw.quiet import quiet_libraries
from kvw.report.sheets import markdown_table
from kvw.runs.costs import Stopwatch
from kvw.training.keeping import folded
from kvw.training.losses import descent
from kvw.training.objective import Objective
from kvw.training.running import run
from kvw.training.settings import TrainingSettings
from kvw.training.trainee import Trainee
from planted import GROUNDS, SPLITS, edit_of, kept, options, scores, strength

HEADER = ["model", *SPLITS, "moved"]


@dataclass(frozen=True)
class Bound:
    """What a value matrix may become: at most ``cap`` of its norm from ``start``, and nothing along ``basis``."""

    parameter: Tensor
    start: Tensor
    cap: float
    basis: Tensor | None = None

    def __call__(self, step: Tensor) -> Tensor:
        """The step to take in place of one that has been taken: (hidden, width)."""
        total = self.parameter.detach() - self.start
        if self.basis is not None:
            total = total - (total @ self.basis) @ self.basis.T
        most = self.cap * self.start.norm()
        total *= most / total.norm().clamp_min(most)
        taken: Tensor = self.start + total - (self.parameter.detach() - step)
        return taken

    @property
    def moved(self) -> float:
        """How far it is from the start, relative to the norm there."""
        return float((self.parameter.detach() - self.start).norm() / self.start.norm())


def weakened(edit: Edit) -> list[MatrixKey]:
    """The value matrices that an edit changes."""
    if isinstance(edit, GateEdit):
        return [key for key, value in edit.log_gates.items() if bool((value < 0).any())]
    assert isinstance(edit, LowRankEdit)
    return [key for key, value in edit.directions.items() if value.rank]


def most_weakened(edit: GateEdit, share: float) -> float:
    """The log-gate of which this share of all weakened vectors is below or at it."""
    gates = torch.cat([value[value < 0] for value in edit.log_gates.values()]).sort().values
    return float(gates[max(0, round(share * len(gates)) - 1)])


def recovery(edit: WeightEdit, *, bound: bool, cap: float, share: float) -> Callable[[Trainee], Objective]:
    """What makes the objective: the likelihood of the retain answers, on the value matrices alone."""

    def build(trainee: Trainee) -> Objective:
        live = edit.value_matrices(trainee.model)
        matrices = [live[key] for key in weakened(edit)]
        trainee.only([matrix.name for matrix in matrices])
        masks, steps = {}, {}
        lowest = most_weakened(edit, share) if isinstance(edit, GateEdit) else 0.0
        for matrix in matrices:
            parameter, basis = trainee.parameters[matrix.parameter], None
            if bound and isinstance(edit, GateEdit):
                chosen = edit.log_gates[matrix.key] <= lowest
                masks[matrix.parameter] = matrix.along_vectors(chosen).expand_as(parameter)
            elif bound and isinstance(edit, LowRankEdit):
                basis = torch.linalg.qr(edit.directions[matrix.key].patterns)[0]
            steps[matrix.parameter] = Bound(parameter, parameter.detach().clone(), cap, basis)
        return Objective(forget=None, retain=descent(1.0), masks=masks, steps=steps)

    return build


class Study:
    """One request, on one model."""

    def __init__(self, request: Request, loaded: Loaded, arguments: argparse.Namespace) -> None:
        self.request, self.loaded, self.arguments = request, loaded, arguments
        self.asked = GROUNDS[arguments.on].asked(request)
        forget = request.splits["forget"]
        first = set(list(dict.fromkeys(one.metadata["fact"] for one in forget))[::2])
        self.taught = [one for one in forget if one.metadata["fact"] in first]
        others = [*self.asked["forget"], *self.asked["held_out"]]
        self.others = [one for one in others if one.metadata["fact"] not in first]

    def row(self, moved: float = 0.0) -> dict[str, Any]:
        """What the model as it is now knows, and what it knows after each attack."""
        model, processor = self.loaded.model, self.loaded.processor
        found = scores(self.loaded, self.asked)
        row: dict[str, Any] = {name: strength(values) for name, values in found.items()} | {"moved": moved}
        for steps in (0, *self.arguments.steps):
            with relearned(
                model, processor, self.taught, steps, relearning_settings(model, self.arguments.attack_rate)
            ):
                row[f"other facts after {steps}"] = strength(scores(self.loaded, {"": self.others})[""])
        return row

    @contextmanager
    def recovered(self, edit: WeightEdit, *, bound: bool) -> Iterator[float]:
        """The model, with the edit folded in, after recovery; gives the most that a value matrix has moved."""
        found: list[Objective] = []

        def build(trainee: Trainee) -> Objective:
            make = recovery(edit, bound=bound, cap=self.arguments.cap, share=self.arguments.share)
            found.append(make(trainee))
            return found[0]

        training = TrainingSettings(learning_rate=self.arguments.rate, epochs=self.arguments.epochs)
        prepared = self.loaded.prepare(self.request.splits["retain"])
        with folded(self.loaded.model, edit):
            run(
                self.loaded.model,
                self.loaded.processor,
                {"forget": [], "retain": prepared},
                "recovery",
                build,
                training,
            )
            yield max(one.moved for one in found[0].steps.values() if isinstance(one, Bound))

    def rows(self, name: str, edit: WeightEdit, place: Path) -> list[tuple[str, dict[str, Any]]]:
        """The edit, and both recoveries of it."""

        def edited() -> dict[str, Any]:
            with folded(self.loaded.model, edit):
                return self.row()

        def after(bound: bool) -> dict[str, Any]:
            with self.recovered(edit, bound=bound) as moved:
                return self.row(moved)

        return [
            (name, kept(place / f"{name}.json", edited)),
            (f"{name}, bound", kept(place / f"{name}-bound.json", lambda: after(True))),
            (f"{name}, free", kept(place / f"{name}-free.json", lambda: after(False))),
        ]


def shown(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """The rows as Markdown: extraction strength, but for the last columns of what is known."""
    attacks = [name for name in rows[0][1] if name.startswith("other facts")]
    cells = [[name, *(f"{row[column]:.3f}" for column in [*HEADER[1:], *attacks])] for name, row in rows]
    return markdown_table([*HEADER, *attacks], cells, 1) + "\n"


def main() -> None:
    """Edit, recover, attack, and print."""
    parser = options(__doc__)
    parser.add_argument("--methods", nargs="+", default=["subspace", "kvw"])
    parser.add_argument("--cap", type=float, default=0.05, help="how far a value matrix may move, in its norm")
    parser.add_argument("--share", type=float, default=0.1, help="of the weakened vectors that KVW's recovery trains")
    parser.add_argument("--rate", type=float, default=2e-4, help="learning rate of recovery")
    parser.add_argument("--epochs", type=int, default=2, help="of recovery, through the retain file")
    parser.add_argument("--steps", type=int, nargs="+", default=[10], help="of the relearning attack")
    parser.add_argument("--attack-rate", type=float, default=5e-5, help="learning rate of the relearning attack")
    arguments = parser.parse_args()
    quiet_libraries()
    reporter = ConsoleReporter()
    watch = Stopwatch(reporter)
    ground = GROUNDS[arguments.on]
    loaded = ground.load()
    for number in arguments.only:
        request = ground.made(number, arguments.out)
        place = arguments.out / request.name
        study = Study(request, loaded, arguments)
        gold = Study(request, ground.load(gold=True), arguments)
        with watch.stage("original and gold"):
            rows = [
                ("original", kept(place / "original.json", study.row)),
                ("gold", kept(place / "gold.json", gold.row)),
            ]
        for method in arguments.methods:
            edit = edit_of(ground, request, arguments.out, method, reporter)
            assert isinstance(edit, WeightEdit)
            with watch.stage(f"{method}: recovering and attacking"):
                rows += study.rows(method, edit, place)
            write_text(place / "table.md", shown(rows))
        print(f"{', '.join(request.subjects)}\n\n{shown(rows)}")


if __name__ == "__main__":
    main()

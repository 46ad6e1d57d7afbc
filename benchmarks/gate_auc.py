"""Whether the gates of R-MUSE and steering tell one forgotten person from others, on the LLaVA of planted people.

Each request of the reporting half is given with its retain file (with --alone without one), and the sources of
``kvw erase`` beside it. Everybody is then asked the same in photos and phrasings that neither file has: the forgotten
person, the people of the retain file and those in neither. General questions are those that the solve was not given.
A gate is an AUC: how often a forget question has a larger one than another; chance is 0.5, and a fair gate has 0.9. A
gate of R-MUSE is -|P_r h| / |h| of one state that predicts an answer token, one of steering is a . h of a prompt. The
best layer is that with the largest mean over the requests, so it is chosen on what it is reported on.

usage: python benchmarks/gate_auc.py [--only 0 1 2 3] [--alone]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from kvw.cli.options import find_model
from kvw.console import ConsoleReporter
from kvw.data import Example
from kvw.edits.rotation import RotationEdit
from kvw.edits.steering import SteeringEdit
from kvw.evaluation.loaded import Loaded
from kvw.methods.r_muse.method import ALL, retained_share
from kvw.methods.steering.diagnosis import Diagnosis, diagnose
from kvw.methods.steering.gate import FAIR_AUC
from kvw.methods.steering.states import read_tokens, readings
from kvw.progress import Reporter
from kvw.proving.options import erase_request
from kvw.proving.photos.part import PHOTOGRAPHED, new_views
from kvw.proving.photos.people import everyone
from kvw.proving.requests import Request
from kvw.proving.table import interval_cell
from kvw.quiet import quiet_libraries
from kvw.report.sheets import markdown_table
from kvw.runs.material import gather_material
from kvw.runs.request import read_data
from kvw.runs.task import Task

METHODS = ("r-muse", "steering")
FORMS = ("by photo", "by name")
OTHERS = ("retain", "unused", "general")
Sets = Mapping[str, Sequence[Example]]


def about(names: set[str]) -> list[Example]:
    """The same new questions about people, in photos that no model has seen, and by name."""
    return [one for person in everyone() if person.name in names for one in new_views(person)]


def sets_of(request: Request, general: Sequence[Example]) -> dict[str, list[Example]]:
    """What the gates are asked, with and without pictures apart."""
    people = {split: {str(one.subject) for one in request.splits[split]} for split in ("forget", "retain", "unused")}
    asked = {split: about(names) for split, names in people.items()} | {"general": list(general)}
    return {
        f"{split} {form}": [one for one in examples if bool(one.images) == (form == FORMS[0])]
        for split, examples in asked.items()
        for form in FORMS
    }


def gates(edit: Any, loaded: Loaded, sets: Sets) -> tuple[Diagnosis, dict[str, float]]:
    """The gates of all sets, and what they do to each: the mean gate, or the share of states that are turned."""
    if isinstance(edit, SteeringEdit):
        found = diagnose(edit, loaded.model, loaded.processor, sets)
        return found, {name: float(found.mean_gates(name).mean()) for name in sets}
    assert isinstance(edit, RotationEdit)
    values, turned = {}, {}
    for name, examples in sets.items():
        batches = readings(loaded.prepare(examples), loaded.processor, predicting=True)
        states, _ = read_tokens(loaded.model, batches, list(edit.rotations), ALL)
        shares = {at: retained_share(states[at], one.retain.double()) for at, one in edit.rotations.items()}
        values[name] = {layer: -share for layer, share in shares.items()}
        turned[name] = fmean(
            float((share < edit.rotations[layer].threshold).double().mean()) for layer, share in shares.items()
        )
    return Diagnosis(values), turned


def judged(
    request: Request, method: str, options: Mapping[str, Any], reporter: Reporter
) -> tuple[Diagnosis, dict[str, float]]:
    """The gates of one method for one request."""
    checkpoint = find_model(PHOTOGRAPHED.model)
    with tempfile.TemporaryDirectory() as folder:
        files = request.write(Path(folder))
        wanted = erase_request(checkpoint, files, Path(folder) / "run", {"method": method, **options})
        loaded = Loaded.load(checkpoint)
        with reporter.stage(f"{method}, {request.name}: gathering what must stay") as progress:
            task = Task(request=wanted, loaded=loaded, data=read_data(wanted))
            material = gather_material(task, speaks=True, progress=progress)
        with reporter.stage(f"{method}, {request.name}: fitting gates") as progress:
            made = wanted.made_by.make(loaded, material.forget, material.retain, wanted.settings, progress)
        general = [*material.judged["held-out everyday"], *material.judged["held-out pictures"]]
        return gates(made.edit, loaded, sets_of(request, general))


def rows(method: str, found: Sequence[tuple[Diagnosis, Mapping[str, float]]]) -> list[list[str]]:
    """One line for each set of others."""
    lines = []
    for form in FORMS:
        forget = f"forget {form}"
        layers = list(found[0][0].gates[forget])
        for other in (f"{split} {form}" for split in OTHERS):
            by_layer = {at: [one.auc(other, forget=forget, layer=at) for one, _ in found] for at in layers}
            best = max(layers, key=lambda at: fmean(by_layer[at]))
            fair = sum(fmean(values) >= FAIR_AUC for values in by_layer.values())
            lines.append(
                [
                    method,
                    other,
                    interval_cell([one.auc(other, forget=forget) for one, _ in found]),
                    f"{interval_cell(by_layer[best])} ({best})",
                    f"{fair} of {len(layers)}",
                    f"{fmean(doing[forget] for _, doing in found):.2f}",
                    f"{fmean(doing[other] for _, doing in found):.2f}",
                ]
            )
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, nargs="+", default=[0, 1, 2, 3], help="numbers of requests")
    parser.add_argument("--alone", action="store_true", help="give no retain file")
    arguments = parser.parse_args()
    options = {"retain": None} if arguments.alone else {}
    quiet_libraries()
    reporter = ConsoleReporter()
    requests = PHOTOGRAPHED.requests("reporting", find_model(PHOTOGRAPHED.model), reporter)
    wanted = [one for one in requests if one.number in arguments.only]
    table: list[list[str]] = []
    for method in METHODS:
        table += rows(method, [judged(request, method, options, reporter) for request in wanted])
    head = ["method", "against", "AUC, mean of layers", "best layer", f"layers >= {FAIR_AUC}", "forget", "others"]
    print(markdown_table(head, table, 2))
    print("The last two columns: the share of states below tau (r-muse), the mean of a . h (steering).")


if __name__ == "__main__":
    main()

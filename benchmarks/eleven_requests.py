"""Eleven requests, one after the other, of which ten are only kept statistics: is the edit that of the union?

Requests of the proving ground, each for one subject. Ten are kept with kvw data keep, then their files are deleted, and
the eleventh is erased with what was kept. Beside it all eleven are erased together from their data, with equal
settings and the same retain set.

usage: python benchmarks/eleven_requests.py --out DIR [--model smollm2:135m] [--mu 0.05]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from kvw.cli.options import find_model
from kvw.console import ConsoleReporter
from kvw.edits.edit import load_edit
from kvw.edits.weight_edit import weight_edit
from kvw.evaluation.loaded import Loaded
from kvw.files import write_text
from kvw.methods.registry import DEFAULT, get_method
from kvw.proving.known import known_facts
from kvw.proving.requests import make_requests
from kvw.quiet import quiet_libraries
from kvw.runs.costs import Stopwatch
from kvw.runs.earlier import keep
from kvw.runs.erase import erase
from kvw.runs.request import EraseRequest
from kvw.runs.writing import EDIT

REQUESTS = 11


def largest_gap(first: Path, second: Path, loaded: Loaded) -> tuple[float, int]:
    """The largest difference, by norm, between what two edits add to a value matrix, and the number of matrices."""
    one, other = (weight_edit(load_edit(folder / EDIT)) for folder in (first, second))
    gaps = []
    for matrix in other.value_matrices(loaded.model).values():
        weight = matrix.read()
        wanted = other.changed(matrix, weight) - weight
        found = one.changed(matrix, weight) - weight
        if wanted.norm() > 0:
            gaps.append(float((found - wanted).norm() / wanted.norm()))
    return max(gaps), len(gaps)


def main() -> None:
    """Keep ten, erase the eleventh, erase all, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="smollm2:135m")
    parser.add_argument("--mu", type=float, default=0.05, help="of the gate, equal in both runs")
    arguments = parser.parse_args()
    checkpoint = find_model(arguments.model)
    quiet_libraries()
    out, reporter = arguments.out, ConsoleReporter()
    watch = Stopwatch(reporter)
    requests = make_requests(known_facts(checkpoint, reporter), "choosing", {1: REQUESTS})
    files = [request.write(out / "data" / request.name) for request in requests]
    asked = {request.subjects[0] for request in requests}
    others = [one for one in requests[-1].splits["retain"] if one.subject not in asked]
    rows = [json.dumps({"question": one.question, "answer": one.answer, "subject": one.subject}) for one in others]
    write_text(out / "retain.jsonl", "\n".join(rows) + "\n")

    def run(name: str, forget: Sequence[Path], earlier: Sequence[Path] = ()) -> Path:
        place: Path = out / name
        request = EraseRequest(
            model=checkpoint,
            forget=forget,
            retain=out / "retain.jsonl",
            out=place,
            settings=get_method(DEFAULT).read({"mu": arguments.mu}),
            sources=(),
            write_damaged=True,
            evaluate_at_most=4,
            max_new_tokens=16,
            save_model=False,
            force=True,
            earlier=earlier,
        )
        with watch.stage(name):
            erase(request, reporter)
        return place

    forget = [file["forget"] for file in files]
    union = run("union", forget)
    kept = [out / "kept" / f"{place:02d}.safetensors" for place in range(REQUESTS - 1)]
    with watch.stage(f"keeping {len(kept)} requests"):
        for file, place in zip(forget, kept, strict=False):
            keep(checkpoint, [file], place, reporter)
            file.unlink()
    later = run("eleventh", forget[-1:], kept)
    gap, matrices = largest_gap(later, union, Loaded.load(checkpoint))
    size = sum(file.stat().st_size for file in kept) / len(kept) / 1e6
    print(f"files of the ten that are left: {sum(file.exists() for file in forget[:-1])}; kept of each: {size:.1f} MB")
    print(f"largest difference to the union at any of {matrices} value matrices, by norm: {gap:.1e}")


if __name__ == "__main__":
    main()

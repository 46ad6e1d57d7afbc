"""What choosing the strength costs, beside the solve and a pass over the retain set, one after the other in one run.

The bound is the time of the solve and three retain passes. A retain pass measures all retain examples that the request
gathers, nothing of it from the cache. The solve finds shared second moments in the cache, as every request on a model
but the first does. Answers of the shipped questions come from the cache, or are made before anything is timed.

usage: python benchmarks/loop_cost.py MODEL FORGET.jsonl [MORE.jsonl ...]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from kvw.cli.options import find_model
from kvw.evaluation.loaded import Loaded
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.moment_passes import measure_moments
from kvw.methods.subspace.examples import subspace_edit
from kvw.methods.subspace.method import matrices_in
from kvw.runs.choosing import paths_of, settings_to_solve
from kvw.runs.material import gather_material
from kvw.runs.request import EraseRequest, read_data
from kvw.runs.task import Task
from kvw.selection.candidate import Candidate
from kvw.selection.scoring import Scorer
from kvw.selection.search import Search

Result = TypeVar("Result")


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds and result of one call."""
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def compare(request: EraseRequest, loaded: Loaded) -> float:
    """Print what each part of one request takes, and return the loop over its bound."""
    data = read_data(request)
    material = gather_material(Task(request=request, loaded=loaded, data=data), speaks=True)
    settings = settings_to_solve(request)

    def retain_pass() -> None:
        batches = LabelledBatches(loaded.prepare(material.retain), loaded.processor, loaded.model)
        measure_moments(loaded.model, batches, matrices_in(loaded.model, settings), sources=settings.sources)

    def choice() -> tuple[Search, Candidate | None]:
        splits = {name: loaded.prepare(examples) for name, examples in material.judged.items()}
        pool = loaded.prepare([*material.retain, *material.forget])
        search = Search(Scorer(loaded.model, loaded.processor, splits, pool), material.must_stay, request.keep)
        return search, search.choose(paths_of(request, found.edit))

    subspace_edit(loaded, material.forget, material.retain, settings, lambda *_: None)  # fills the cache
    solve, found = timed(lambda: subspace_edit(loaded, material.forget, material.retain, settings, lambda *_: None))
    one_pass, _ = timed(retain_pass)
    loop, (search, chosen) = timed(choice)
    bound = solve + 3 * one_pass
    questions = sum(map(len, material.judged.values()))
    print(
        f"{request.forget}: {len(data.forget)} forget and {len(material.retain)} retain examples, {questions} "
        f"questions that judge; {len(search.candidates)} candidates, taken: {chosen.dose if chosen else None}"
    )
    print(f"  solve {solve:.1f} s, retain pass {one_pass:.1f} s, loop {loop:.1f} s")
    print(f"  loop / (solve + 3 retain passes) = {loop / bound:.2f}", flush=True)
    return loop / bound


def main() -> None:
    """Print the ratio for each forget set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("forget", type=Path, nargs="+")
    arguments = parser.parse_args()
    checkpoint = find_model(arguments.model)
    loaded = Loaded.load(checkpoint)
    ratios = [
        compare(EraseRequest(checkpoint, forget, None, Path("unused"), choose=True), loaded)
        for forget in arguments.forget
    ]
    print(f"largest ratio: {max(ratios):.2f}")


if __name__ == "__main__":
    main()

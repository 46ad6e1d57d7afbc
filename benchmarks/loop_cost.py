"""What choosing the strength costs, beside the solve and a pass over the retain set, one after the other in one run.

Choosing is all that ``kvw erase`` does under this name: the search, with each subject by itself if there are several,
and the free answers to forget questions and to some about others. The bound is the time of the solve and three retain
passes. A retain pass measures all retain examples that the request gathers, nothing of it from the cache. The solve
finds shared second moments in the cache, as every request on a model but the first does. Answers of the shipped
questions come from the cache, or are made before anything is timed.

usage: python benchmarks/loop_cost.py MODEL FORGET.jsonl [MORE.jsonl ...]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from kvw.cli.options import find_model
from kvw.evaluation.evaluation import evaluate
from kvw.evaluation.loaded import Loaded
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.moment_passes import measure_moments
from kvw.methods.subspace.method import matrices_in
from kvw.progress import SILENT
from kvw.runs.choosing import choose, settings_to_solve
from kvw.runs.material import gather_material
from kvw.runs.request import EraseRequest, read_data
from kvw.runs.solving import for_the_solve, make_edit
from kvw.runs.task import Task

Result = TypeVar("Result")


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds and result of one call."""
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def compare(request: EraseRequest, loaded: Loaded) -> float:
    """Print what each part of one request takes, and return the loop over its bound."""
    data = read_data(request)
    task = Task(request=request, loaded=loaded, data=data)
    asked = {"forget": data.forget}
    before = evaluate(loaded.model, loaded.processor, asked, max_new_tokens=request.max_new_tokens)
    material = gather_material(task, speaks=True)
    solving, settings = for_the_solve(task, material), settings_to_solve(request)

    def retain_pass() -> None:
        batches = LabelledBatches(loaded.prepare(material.retain), loaded.processor, loaded.model)
        measure_moments(loaded.model, batches, matrices_in(loaded.model, settings), sources=settings.sources)

    make_edit(solving, None, lambda *_: None)  # fills the cache
    solve, found = timed(lambda: make_edit(solving, None, lambda *_: None))
    one_pass, _ = timed(retain_pass)
    loop, choice = timed(lambda: choose(task, material, found.edit, before, SILENT, lambda *_: None))
    bound = solve + 3 * one_pass
    questions = sum(map(len, material.judged.values()))
    tried = choice.selection.candidates if choice.selection else []
    taken = [one.dose for one in tried if one.chosen]
    print(
        f"{request.forget}: {len(data.forget)} forget and {len(material.retain)} retain examples, {questions} "
        f"questions that judge; {len(tried)} candidates, taken: {taken}"
    )
    print(f"  solve {solve:.1f} s, retain pass {one_pass:.1f} s, choosing {loop:.1f} s")
    print(f"  choosing / (solve + 3 retain passes) = {loop / bound:.2f}", flush=True)
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

"""How much faster short questions are scored, and their second moments taken, if what all of them begin with runs once.

Most chat templates put the same system prompt before every question. Both ways take the same examples through the same
code; one of them is told that the model does not share. A turn runs both, in an order by lot. Seconds are CPU time of
the process.

usage: python benchmarks/shared_beginning.py [MODEL] [--questions 60] [--turns 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from random import Random
from typing import TypeVar
from unittest.mock import patch

import torch

from kvw.cli.options import find_model
from kvw.data import Example
from kvw.evaluation.loaded import Loaded
from kvw.evaluation.probability import TokenScores, token_scores
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.moment_passes import measure_moments
from kvw.measuring.moments import Moment
from kvw.models.finding import find_value_matrices
from kvw.models.value_matrix import MatrixKey
from kvw.proving.facts import facts
from kvw.quiet import quiet_libraries

Result = TypeVar("Result")
WAYS = ("shared", "separate")
SWITCHES = ("kvw.evaluation.probability.shares_prefixes", "kvw.measuring.labelled.shares_prefixes")


def short_questions(count: int) -> list[Example]:
    """So many facts of the proving ground, evenly from all kinds, each asked in one way."""
    known = facts()
    chosen = known[:: max(1, len(known) // count)][:count]
    return [example for fact in chosen for example in fact.examples(fact.domain.asked[:1])]


def turns(work: Callable[[], Result], count: int) -> tuple[dict[str, list[float]], dict[str, Result]]:
    """Seconds of every turn, and the last result, by way."""
    draw, found = Random(0), {}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(count + 1):
        for way in draw.sample(WAYS, len(WAYS)):
            with ExitStack() as stack:
                for switch in SWITCHES if way == "separate" else ():
                    stack.enter_context(patch(switch, lambda _: False))
                begin = time.process_time()
                found[way] = work()
                if turn:  # the first one warms up
                    seconds[way].append(time.process_time() - begin)
    return seconds, found


def tell(what: str, seconds: Mapping[str, list[float]], gap: str) -> None:
    """Print the median of the ratios of all turns, and their range."""
    ratios = sorted(slow / fast for slow, fast in zip(seconds["separate"], seconds["shared"], strict=True))
    times = " / ".join(f"{statistics.median(seconds[way]):.2f}" for way in WAYS)
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    print(f"| {what} | {times} | {statistics.median(ratios):.2f} | {spread} | {gap} |")


def gap_of_scores(found: Mapping[str, list[TokenScores]]) -> str:
    """The largest difference of a log probability."""
    pairs = zip(found["shared"], found["separate"], strict=True)
    gaps = [
        abs(one - other) for a, b in pairs for one, other in zip(a.log_probabilities, b.log_probabilities, strict=True)
    ]
    return f"{max(gaps):.0e}"


def gap_of_moments(found: Mapping[str, dict[MatrixKey, Moment]]) -> str:
    """The largest difference of a second moment, relative to its norm."""
    shared, separate = found["shared"], found["separate"]
    return f"{max(float((shared[key].sums - one.sums).norm() / one.sums.norm()) for key, one in separate.items()):.0e}"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2:135m")
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    quiet_libraries()
    loaded = Loaded.load(find_model(arguments.model))
    model, processor = loaded.model, loaded.processor
    prepared = loaded.prepare(short_questions(arguments.questions))
    matrices = find_value_matrices(model)

    def moments() -> dict[MatrixKey, Moment]:
        return measure_moments(model, LabelledBatches(prepared, processor, model), matrices)[0]

    tokens = [len(item.token_ids) for item in prepared]
    print(f"{arguments.model}, {model.device}, {torch.get_num_threads()} threads, {len(prepared)} questions")
    print(f"of {statistics.fmean(tokens):.0f} tokens; medians and ranges of {arguments.turns} turns\n")
    print(
        "| | CPU seconds: shared / separate | ratio | range | largest difference |\n| --- | ---: | ---: | ---: | ---: |"
    )
    seconds, scores = turns(lambda: token_scores(model, processor, prepared), arguments.turns)
    tell("scoring", seconds, gap_of_scores(scores))
    seconds, found = turns(moments, arguments.turns)
    tell("second moments", seconds, gap_of_moments(found))


if __name__ == "__main__":
    main()

"""How many first choices turn, and how much probability is kept, when weights are only rounded: a yardstick for edits.

Every third question of `retain` and `unused` of the requests to the pretrained model is asked by teacher forcing, as
`python -m kvw.proving` does, of the model with its weights rounded to 16, 8 or 4 bits. Nothing is forgotten.

usage: python benchmarks/rounding_yardstick.py [--half reporting]
"""

from __future__ import annotations

import argparse
from typing import get_args

import torch

from kvw.console import ConsoleReporter
from kvw.data import Example
from kvw.evaluation.attacks.quantising import quantised
from kvw.evaluation.attacks.rounding import rounded
from kvw.evaluation.loaded import Loaded
from kvw.models.checkpoint import find_checkpoint
from kvw.progress import unheard
from kvw.proving.parts import WORLD
from kvw.proving.record import Answer
from kvw.proving.requests import Half
from kvw.proving.scoring import ask, asked_of
from kvw.quiet import quiet_libraries
from kvw.report.sheets import markdown_table

SPLITS = ("retain", "unused")


def kept(before: list[Answer], after: list[Answer]) -> list[str]:
    """First choices and probability as a share of before, and questions whose first choice was lost and won."""
    lost = sum(one.chosen and not other.chosen for one, other in zip(before, after, strict=True))
    won = sum(other.chosen and not one.chosen for one, other in zip(before, after, strict=True))
    first = sum(one.chosen for one in after) / sum(one.chosen for one in before)
    probability = sum(one.probability for one in after) / sum(one.probability for one in before)
    return [str(len(before)), f"{first:.3f}", f"{probability:.3f}", str(lost), str(won)]


def main() -> None:
    """Ask with every rounding and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=get_args(Half), default="reporting")
    arguments = parser.parse_args()
    quiet_libraries()
    reporter = ConsoleReporter()
    checkpoint = find_checkpoint(WORLD.model)
    unique: dict[tuple[str, str], Example] = {}
    for request in WORLD.requests(arguments.half, checkpoint, reporter):
        for split in SPLITS:
            for example in asked_of(split, request.splits[split]):
                unique.setdefault((example.question, example.answer), example)
    loaded, questions = Loaded.load(checkpoint), {"unused": list(unique.values())[::3]}
    before = ask(loaded, questions, unheard, keep=True)["unused"]
    rows = []
    for name, changed in {
        "bfloat16": rounded(loaded.model, torch.bfloat16),
        "8 bits": quantised(loaded.model, 8),
        "4 bits": quantised(loaded.model, 4),
    }.items():
        with reporter.stage(name), changed:
            rows.append([name, *kept(before, ask(loaded, questions, unheard, keep=False)["unused"])])
    header = ["rounding", "questions", "first choices kept", "probability kept", "lost", "won"]
    print(markdown_table(header, rows, 1))


if __name__ == "__main__":
    main()

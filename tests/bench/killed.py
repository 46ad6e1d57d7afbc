"""``kvw bench run`` that kills itself with SIGKILL at a given moment, and counts what it asks and trains.

Run as: python -m tests.bench.killed RECIPE OUT COUNTS [MOMENT TIMES]
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from kvw.cli import main
from kvw.evaluation import Journal, generation
from kvw.training import loop


def watched(recipe: str, out: str, counts: str, moment: str = "", times: str = "0") -> None:
    torch.set_num_threads(1)
    seen = {"planting": 0, "asking": 0}

    def passed(name: str) -> None:
        seen[name] += 1
        if name == moment and seen[name] == int(times):
            os.kill(os.getpid(), signal.SIGKILL)

    def note(text: str) -> None:
        with Path(counts).open("a") as file:
            file.write(f"{text}\n")

    step, save, generate, append = loop._step, loop.save_state, generation._generate, Journal._append

    def stepping(*arguments):
        note("step")
        return step(*arguments)

    def saving(*arguments):
        save(*arguments)
        passed("planting")

    def generating(model, processor, batch):
        answers = generate(model, processor, batch)
        for item in batch:
            note(f"asked {item.prompt!r}")
        return answers

    def appending(journal, path, lines):
        append(journal, path, lines)
        passed("asking")

    loop._step, loop.save_state, generation._generate, Journal._append = stepping, saving, generating, appending
    main(["bench", "run", recipe, "--out", out])


if __name__ == "__main__":
    watched(*sys.argv[1:])

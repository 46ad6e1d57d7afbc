"""``kvw bench run`` that kills itself with SIGKILL at a given moment, and counts what it asks and trains."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from kvw.cli import main
from kvw.evaluation import generation
from kvw.evaluation.journal import Journal
from kvw.training import loop


def watched(recipe: Path, out: Path, counts: Path, moment: str = "", times: int = 0) -> None:
    """Run a recipe into ``out``; die at the given number of times that ``moment`` ("planting", "asking") has passed."""
    seen = {"planting": 0, "asking": 0}

    def passed(name: str) -> None:
        seen[name] += 1
        if name == moment and seen[name] == times:
            os.kill(os.getpid(), signal.SIGKILL)

    def note(text: str) -> None:
        with counts.open("a") as file:
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
    main(["bench", "run", str(recipe), "--out", str(out)])

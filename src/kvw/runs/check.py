"""``kvw data check``: what is likely to spoil a request, found before anything is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from kvw.data import Example, read_examples
from kvw.data.reading import AS_IT_IS, Reading
from kvw.data.rendering import check_examples
from kvw.runs.counts import Count
from kvw.runs.data_checks import data_findings
from kvw.runs.findings import Finding
from kvw.runs.left_out import LeftOut, without_forgotten
from kvw.runs.overlap import overlap
from kvw.runs.union import joined, read_forget_files

if TYPE_CHECKING:
    from kvw.models.checkpoint import Checkpoint
    from kvw.models.quantised import Quantise
    from kvw.progress import Reporter

MOST_ASKED = 200
"""Most forget questions that a model is asked. Of more, the same ones are always drawn."""
LONGEST_ANSWER = 50
"""Longest answer in tokens."""


@dataclass(frozen=True)
class Checked:
    """Data that were looked at.

    Args:
        forget: The forget set.
        counts: What each set holds, by name.
        findings: What was found.
    """

    forget: list[Example]
    counts: dict[str, Count]
    findings: list[Finding]

    @property
    def warnings(self) -> list[str]:
        """What endangers the result."""
        return [str(finding) for finding in self.findings if finding.is_warning]


def check_data(files: Sequence[Path], retain: Path | None = None, reading: Reading = AS_IT_IS) -> Checked:
    """Look at the files of a request, and open every picture; imports nothing heavy.

    Args:
        files: Files of the forget set.
        retain: What must stay.
        reading: What the columns are called, and which answers of conversations count.

    Raises:
        UserError: A file or a picture cannot be used, nothing of the retain set is left, or only one of the two sets
            names subjects.
    """
    forget, _ = joined(read_forget_files(files, reading))
    kept, left_out = list[Example](), LeftOut()
    if retain is not None:
        kept, left_out = without_forgotten(read_examples(retain, reading), forget)
    check_examples([*forget, *kept])
    sets = {"forget": forget, **({"retain": kept} if retain is not None else {})}
    findings = data_findings(forget, kept, left_out, overlap(kept, forget))
    return Checked(forget, {name: Count.of(examples) for name, examples in sets.items()}, findings)


def check_known(
    checkpoint: Checkpoint,
    forget: Sequence[Example],
    reporter: Reporter,
    *,
    device: str | None = None,
    quantise: Quantise | None = None,
) -> list[Finding]:
    """Ask a model the forget questions.

    Args:
        checkpoint: The model.
        forget: The forget set.
        reporter: Told of stages.
        device: Where it runs; None for the accelerator if there is one.
        quantise: Quantise it while it is loaded.

    Returns:
        What it knows of the answers.

    Raises:
        UserError: The model cannot be used, or a question with its answer does not fit into its context.
    """
    from kvw.data.telling import telling_tokens
    from kvw.evaluation.evaluation import evaluate
    from kvw.evaluation.loaded import Loaded
    from kvw.evaluation.probability import token_scores
    from kvw.runs.knowing import chosen_first, known
    from kvw.selection.scoring import Score

    with reporter.stage("loading the model"):
        loaded = Loaded.load(checkpoint, device, quantise=quantise)
        asked = loaded.in_windows(forget)
        loaded.prepare(asked)  # all of them: what is too long for the context is told
    if len(asked) > MOST_ASKED:
        asked = Random(0).sample(asked, MOST_ASKED)
    with reporter.stage("asking the model") as progress:
        prepared = loaded.prepare(asked, LONGEST_ANSWER)
        answers = evaluate(
            loaded.model, loaded.processor, {"forget": asked}, max_new_tokens=LONGEST_ANSWER, progress=progress
        )
        scores = token_scores(loaded.model, loaded.processor, prepared)
    chosen = chosen_first(Score.of(scores, telling_tokens(prepared, loaded.processor)), asked)
    return known(answers, sum(chosen) / len(chosen))

"""Is it still language? What the original and the unlearned model make of shipped sentences and of what they are asked.

Nothing is judged by itself, since models differ: what counts is what an edit changes. A perplexity that is high in both
says that the model was never made for English sentences; then only the answers decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from kvw.errors import UserError
from kvw.evaluation.answers import kept_answers
from kvw.evaluation.journal import Journal
from kvw.evaluation.language import LONGEST_ANSWER, PROMPTS, Speech, broken_share, everyday_examples, listen
from kvw.evaluation.records import Evaluation
from kvw.measuring.in_memory import InMemory
from kvw.models.loading import Checkpoint, load_model, load_processor
from kvw.progress import Reporter
from kvw.records.run import KNOWS_ENGLISH, Change, LanguagePart
from kvw.runs.costs import Stopwatch
from kvw.runs.knowing import lost

LARGEST_RATIO = 1.5
"""A perplexity that grows by more is damage. Edits that keep what they must were measured at 1.0 to 1.2, those that
lose most of the retain set at 1.5 to 20 (docs/evaluation.md)."""
LARGEST_SHARE = 0.2
"""The growth of the share of broken answers from which it is damage, if there are at least three of them."""
FEWEST = 3


def heard(loaded: InMemory, watch: Stopwatch, reporter: Reporter, which: str) -> Speech | None:
    """Listen to a model that is loaded; what the original says is kept for the next run.

    Args:
        loaded: The model, as it is or with an edit attached.
        watch: Times it.
        reporter: Told if the model cannot be listened to.
        which: What to call it: ``original``, or ``unlearned`` with an edit attached.

    Returns:
        None if it cannot be asked without an image.
    """
    original = which == "original"
    with kept_answers(loaded, everyday_examples(), LONGEST_ANSWER) if original else Journal(None) as journal:
        return _heard(lambda: (loaded.model, loaded.processor), watch, reporter, which, journal)


def compare_written(source: Checkpoint, folder: Path, reporter: Reporter) -> LanguagePart:
    """Load a model that was written and its source, one after the other, and listen to both.

    Each takes the memory of the model; what does not fit on the accelerators and into main memory waits on the disk.

    Args:
        source: What the edit was written into.
        folder: The written model.
        reporter: Told of progress, and if one of the two cannot be listened to.
    """
    watch = Stopwatch(reporter)
    original = _heard(partial(_load, source), watch, reporter, "original")
    return compared(original, _heard(partial(_load, replace(source, folder=folder)), watch, reporter, "written"))


def _load(checkpoint: Checkpoint) -> tuple[Any, Any]:
    return load_model(checkpoint, "auto"), load_processor(checkpoint)


def _heard(
    load: Callable[[], tuple[Any, Any]],
    watch: Stopwatch,
    reporter: Reporter,
    which: str,
    journal: Journal | None = None,
) -> Speech | None:
    try:
        with watch.stage(f"looking at the language of the {which} model") as progress:
            return listen(*load(), progress, journal)
    except UserError as error:
        reporter.warn(f"The language of the {which} model could not be looked at: {error.what} {error.found}".strip())
        return None


def compared(
    original: Speech | None, unlearned: Speech | None, evaluations: Mapping[str, Evaluation] | None = None
) -> LanguagePart:
    """Put before and after together, and say what is damage: to language, and to what must stay.

    Args:
        original, unlearned: From :func:`heard`; without both, only evaluations are compared.
        evaluations: Evaluations of both models on the same questions, ``original`` and ``unlearned``; None if they were
            not asked.
    """
    perplexity = free = None
    if original is not None and unlearned is not None:
        perplexity = Change(original=original.perplexity, unlearned=unlearned.perplexity)
        free = _change(original.answers, unlearned.answers)
    splits = _by_split(evaluations) if evaluations else {}
    shares = {"the shipped requests": (free, PROMPTS)} if free else {}
    shares |= {f"the questions of {name}": found for name, found in splits.items()}
    damage = [*_worse_perplexity(perplexity), *_more_broken(shares)]
    if evaluations:
        damage += lost(evaluations["original"], evaluations["unlearned"])
    return LanguagePart(
        perplexity=perplexity,
        broken=free,
        broken_by_split={name: share for name, (share, _) in splits.items()},
        damage=damage,
    )


def _worse_perplexity(found: Change | None) -> list[str]:
    if found is None or found.original >= KNOWS_ENGLISH or found.unlearned <= LARGEST_RATIO * found.original:
        return []
    return [
        f"The perplexity of ordinary sentences went from {found.original:.1f} to {found.unlearned:.4g}: the edit has "
        "damaged what the model knows of language."
    ]


def _more_broken(shares: Mapping[str, tuple[Change, int]]) -> list[str]:
    return [
        f"Of the answers to {what} {share.unlearned:.0%} are empty or end in a loop, {share.original:.0%} before the "
        "edit."
        for what, (share, count) in shares.items()
        if share.unlearned - share.original >= max(LARGEST_SHARE, (FEWEST - 0.5) / count)
    ]


def _by_split(evaluations: Mapping[str, Evaluation]) -> dict[str, tuple[Change, int]]:
    """The change of each split, and how many answers it has; examples that failed have none."""
    answers: dict[str, dict[str, list[str]]] = {}
    for model, evaluation in evaluations.items():
        for record in evaluation.records:
            if record.error is None:
                answers.setdefault(record.split, {}).setdefault(model, []).append(record.prediction)
    return {
        name: (_change(found.get("original", []), found.get("unlearned", [])), len(found.get("original", [])))
        for name, found in answers.items()
    }


def _change(original: Sequence[str], unlearned: Sequence[str]) -> Change:
    return Change(original=broken_share(original), unlearned=broken_share(unlearned))

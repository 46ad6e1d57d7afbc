"""From a model in memory to the edit that ``kvw erase`` would choose for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from kvw.data.rendering import check_examples
from kvw.edits.edit import Edit
from kvw.errors import UserError
from kvw.evaluation.evaluation import evaluate
from kvw.evaluation.records import Evaluation
from kvw.measuring.given import Given, examples_given
from kvw.methods.registry import DEFAULT
from kvw.models.quantised import refuse_quantised
from kvw.progress import WARNING, Reporter, remembering
from kvw.records.run import LanguagePart, SelectionPart
from kvw.retain import KEEP, SOURCES
from kvw.runs.costs import Stopwatch
from kvw.runs.data_checks import data_findings
from kvw.runs.findings import tell
from kvw.runs.language import heard
from kvw.runs.left_out import without_forgotten
from kvw.runs.overlap import overlap
from kvw.runs.request import drawn, refuse_forgotten
from kvw.runs.solving import Heard, solve, tell_of_solved
from kvw.runs.task import Task
from kvw.runs.terms import Sets, Terms


@dataclass(frozen=True, repr=False)
class FoundEdit:
    """An edit of a model in memory, and what it forgets and costs.

    Args:
        edit: The edit.
        selection: Every edit that was tried, with what it leaves of the forget answers and of what must stay, as in
            ``run.json``; the chosen one is marked. None if there was nothing to judge by.
        original: The model's answers to the forget questions.
        unlearned: The same with the edit attached.
        language: What became of ordinary language.
        warnings: What the user should know.
    """

    edit: Edit
    selection: SelectionPart | None
    original: Evaluation
    unlearned: Evaluation
    language: LanguagePart
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        """What was found in a sentence or two; no question and no answer."""
        return f"<FoundEdit: {self.selection.sentence if self.selection else 'there was nothing to judge it by'}>"


def find_edit(
    model: PreTrainedModel,
    forget: Given,
    retain: Given = (),
    settings: Any = None,
    *,
    processor: Any = None,
    method: str = DEFAULT,
    keep: float = KEEP,
    neighbours: Sequence[str] | None = None,
    retain_sources: Iterable[str] = SOURCES,
    reporter: Reporter = WARNING,
) -> FoundEdit:
    """Do on a model in memory what ``kvw erase`` does on a checkpoint: make an edit and choose its strength.

    The model answers shipped questions, and a part of everything is held out. Of the edits that keep ``keep`` of that
    the weakest is taken that forgets everything, or else the one that leaves least. Nothing is written, and nothing is
    kept for the next call, as the weights may be others by then. The model is left as it was.

    Args:
        model: A loaded model, without any edit.
        forget: Examples of what must go, or :func:`kvw.batches` of them; never empty.
        retain: The same of what must stay, beside the sources; may be empty.
        settings: Some of the method's settings by name, or an object of its class of settings; None for the defaults.
            If they fix the strength, the edit is only judged.
        processor: The model's processor or tokenizer; not needed beside :func:`kvw.batches`.
        method: Its name, or the place of its object as ``path/to/file.py:METHOD``.
        keep: The share of what must stay, above 0 and at most 1, that the edit has to leave.
        neighbours: Names like those to be forgotten; None lets the model name them, and an empty sequence asks about
            nobody.
        retain_sources: What must stay beside ``retain``: any of ``everyday``, ``pictures``, ``facts``, ``text``,
            ``neighbours`` and ``picture-neighbours``.
        reporter: Told of stages, notes and warnings. By default a warning is a :class:`UserWarning`.

    Returns:
        The edit and what it was chosen from.

    Raises:
        UserError: There is no such method or setting, or the method cannot use the examples or the model.
        Damaging: No edit keeps what must stay.
    """
    terms = Terms(method=method, settings=settings, keep=keep, sources=tuple(retain_sources))
    with remembering(reporter) as told:
        task, watch = _checked(model, forget, retain, terms, processor, neighbours, told), Stopwatch(told)
        before = _heard(task, watch, told, "original")
        solved = solve(task, before, watch, told)
        with solved.unlearned.edit.attach(model):
            after = _heard(task, watch, told, "unlearned")
        language = tell_of_solved(task, solved, before, after, told)
    return FoundEdit(
        edit=solved.unlearned.edit,
        selection=solved.choice.selection,
        original=before.answers,
        unlearned=after.answers,
        language=language,
        warnings=tuple(told.warnings),
    )


def _checked(
    model: PreTrainedModel,
    forget: Given,
    retain: Given,
    terms: Terms,
    processor: Any,
    neighbours: Sequence[str] | None,
    reporter: Reporter,
) -> Task:
    """Find everything that can be wrong with what was given before the first forward pass."""
    loaded, (forgotten, given) = examples_given(model, {"forget": forget, "retain": retain}, processor)
    if not forgotten:
        raise UserError("The forget set is empty.", do="give what is to be forgotten")
    refuse_forgotten(neighbours or [], forgotten)
    kept, left_out = without_forgotten(given, forgotten)
    check_examples([*forgotten, *kept])
    tell(data_findings(forgotten, kept, left_out, overlap(kept, forgotten)), reporter)
    data = Sets(
        forget=loaded.in_windows(forgotten),
        retain=loaded.in_windows(kept),
        neighbours=None if neighbours is None else list(neighbours),
    )
    method, settings = terms.made_by, terms.settings
    matrices = method.value_matrices(model, settings)
    if method.changes_weights_meanwhile(settings):
        for matrix in matrices:
            refuse_quantised(matrix.name, matrix.module)
    method.check(loaded, data.forget, settings)
    return Task(request=terms, loaded=loaded, data=data)


def _heard(task: Task, watch: Stopwatch, reporter: Reporter, which: str) -> Heard:
    """What the model says as it is now."""
    loaded, splits = task.loaded, {"forget": drawn(task.data.forget)}
    with watch.stage(f"scoring the {which} model") as progress:
        answers = evaluate(
            loaded.model, loaded.processor, splits, max_new_tokens=task.request.max_new_tokens, progress=progress
        )
    return Heard(answers, heard(loaded, watch, reporter, which))

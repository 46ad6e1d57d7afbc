"""From a model in memory, a forget set and terms to an edit whose strength has been chosen or judged."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvw.data.shared import ForgetSet
from kvw.edits.edit import Edit
from kvw.errors import UserError
from kvw.evaluation.language import Speech
from kvw.evaluation.records import Evaluation
from kvw.measuring.examples import Measured
from kvw.measuring.fingerprint import examples_digest
from kvw.measuring.salt import salted
from kvw.methods.method import Unlearned
from kvw.processes import current
from kvw.progress import Progress, Reporter
from kvw.records.run import KNOWS_ENGLISH, LanguagePart
from kvw.retain import SOURCES
from kvw.runs.choosing import Choice, choose, settings_to_solve
from kvw.runs.costs import Stopwatch
from kvw.runs.knowing import tell_outcome
from kvw.runs.language import compared
from kvw.runs.material import Material, gather_material
from kvw.runs.measure import tell_origin
from kvw.runs.task import Task
from kvw.runs.telling import refuse_no_edit, tell_of_method
from kvw.runs.terms import Sets, Terms
from kvw.runs.unlearning import unlearn


@dataclass(frozen=True)
class Heard:
    """What a model says.

    Args:
        answers: Its answers, to the forget questions at least.
        speech: What it makes of ordinary language; None if it cannot be asked without a picture.
    """

    answers: Evaluation
    speech: Speech | None


@dataclass(frozen=True)
class Solved:
    """An edit, and what it was chosen from.

    Args:
        unlearned: The edit that was taken, and what the method found.
        choice: How it came to be taken.
        material: What it was made from and judged by.
        retain: Statistics of the retain set, for methods that need no more.
    """

    unlearned: Unlearned
    choice: Choice
    material: Material
    retain: Measured | None


def solve(task: Task, before: Heard, watch: Stopwatch, reporter: Reporter) -> Solved:
    """Gather what must stay, make the edit from a part of it, and choose its strength by the rest.

    Args:
        task: What to do; the model is left as it was.
        before: What the original model says.
        watch: Times the stages.
        reporter: Told of stages, notes and warnings.

    Raises:
        UserError: The method cannot use what it was given, or would do nothing.
        Damaging: No edit keeps what must stay.
    """
    material = gathered(task, before.speech, watch, reporter)
    solving = for_the_solve(task, material)
    retain = measure_retain(solving, watch, reporter)
    with watch.stage("weakening") as progress:
        unlearned = make_edit(solving, retain, progress)
    tell_of_method(unlearned, task.request, reporter)
    refuse_no_edit(unlearned, task.request)
    _say_origin(unlearned.edit, task.data)
    with watch.stage(choosing_stage(task.request)) as progress:
        choice = choose(task, material, unlearned.edit, before.answers, reporter, progress)
    return Solved(choice.of(unlearned), choice, material, retain)


def _say_origin(edit: Edit, data: Sets) -> None:
    """Put into the metadata what was to be forgotten and kept, whatever was held out of the solve."""

    def origin() -> dict[str, object]:
        """Salt the digests with the secret of the first process's machine. The others may have another secret."""
        stated: dict[str, object] = {"forget_digest": salted(examples_digest(data.forget))}
        stated["forget_count"] = len(data.forget)
        if data.retain:
            stated |= {"retain_digest": salted(examples_digest(data.retain)), "retain_count": len(data.retain)}
        return stated

    edit.metadata = edit.metadata.model_copy(update=current().broadcast(origin))


def tell_of_solved(task: Task, solved: Solved, before: Heard, after: Heard, reporter: Reporter) -> LanguagePart:
    """Compare the model without and with the edit, and warn of what is damaged or not forgotten."""
    evaluations = {"original": before.answers, "unlearned": after.answers}
    language = compared(before.speech, after.speech, evaluations)
    for damage in language.damage:
        reporter.warn(damage)
    judged = solved.choice.selection is not None
    tell_outcome(
        task.request.made_by.stronger,
        before.answers,
        after.answers,
        reporter,
        judged=judged,
        chosen=judged and task.request.chooses,
    )
    return language


def choosing_stage(request: Terms) -> str:
    """What the stage is called in which edits are judged by what must stay."""
    return "choosing the strength" if request.chooses else "judging the edit"


def gathered(task: Task, speech: Speech | None, watch: Stopwatch, reporter: Reporter) -> Material:
    """Gather what must stay."""
    speaks = speech is not None and speech.perplexity < KNOWS_ENGLISH
    with watch.stage("gathering what must stay") as progress:
        material = gather_material(task, speaks=speaks, progress=progress)
    for note in material.notes():
        reporter.note(note)
    if task.data.neighbours and not any(part.name == "neighbours" for part in material.sources):
        reporter.warn(
            "No question could be asked about the neighbours: the model does not write ordinary English, or no forget "
            "question names its subject."
        )
    refuse_nothing_kept(task, material)
    return material


def refuse_nothing_kept(task: Task, material: Material) -> None:
    """Stop if nothing says what must stay.

    Raises:
        UserError: The method needs a retain set.
    """
    if task.request.needs_retain and not (material.retain or task.data.retain_statistics):
        raise UserError(
            "Nothing says what must stay.",
            found="no --retain, and none from the sources: the model does not write ordinary English and its answers "
            "would say nothing, or they have nothing for this model and this forget set",
            do="add --retain FILE" + ", or name more --retain-sources" * (not {*SOURCES} <= {*task.request.sources}),
        )


def for_the_solve(task: Task, material: Material) -> Task:
    """The task as the method is to see it: without what is held out."""
    data = replace(task.data, forget=material.forget, retain=material.retain)
    request = replace(task.request, settings=settings_to_solve(task.request), choose=task.request.chooses)
    return Task(request=request, loaded=task.loaded, data=data, earlier=task.earlier)


def measure_retain(task: Task, watch: Stopwatch, reporter: Reporter) -> Measured | None:
    """Statistics of the retain set over all layers: given, kept from an earlier run, or measured now.

    None for methods that do not need them.
    """
    positions = task.request.made_by.statistics_positions(task.request.settings)
    if positions is None:
        return None
    if task.data.retain_statistics is not None:
        return Measured(task.data.retain_statistics, reused=True)
    with watch.stage("measuring the retain set") as progress:
        measured = task.loaded.measure(task.data.retain, positions, progress)
    tell_origin(measured, reporter)
    return measured


def make_edit(task: Task, retain: Measured | None, progress: Progress) -> Unlearned:
    """Run the method; the model is left as it was."""
    request, data = task.request, task.data
    kept = retain.statistics if retain else data.retain
    # With a chosen strength the edits of earlier requests are in force, and the solve is of this one alone.
    forget = ForgetSet(data.forget, task.earlier) if task.earlier and not request.chooses else data.forget
    unlearned = unlearn(request.made_by, task.loaded, forget, kept, request.settings, progress)
    unlearned.edit.metadata = unlearned.edit.metadata.model_copy(update={"retain_count": len(data.retain)})
    return unlearned

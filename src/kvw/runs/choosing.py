"""How strong the edit of a run is: chosen on what was held out, or fixed by hand, and refused if it is a wreck."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kvw.edits.edit import Edit
from kvw.edits.low_rank import LowRankEdit
from kvw.errors import Damaging
from kvw.evaluation.records import Evaluation
from kvw.methods.earlier import in_force
from kvw.methods.method import Unlearned
from kvw.percent import percent
from kvw.progress import Progress, Reporter
from kvw.records.run import CandidatePart, JudgedPart, KeptPart, SelectionPart
from kvw.runs.knowing import chosen_first, tell_unknown
from kvw.runs.material import Material
from kvw.runs.others import ask_others, tell_of_others
from kvw.runs.own_words import OwnWords, replies_to_forget, said_by, scorer_for
from kvw.runs.task import Task
from kvw.runs.terms import Terms
from kvw.selection.candidate import LEAST, Candidate
from kvw.selection.paths import DirectionsPath, Path, SharePath, StrengthPath
from kvw.selection.scoring import Score, Share
from kvw.selection.search import Search
from kvw.selection.splits import AS_ASKED, FORGETTING, OWN_WORDS

ROUNDS = 2
"""How often the model with the chosen edit is asked the forget questions; what it still says judges a new choice."""
STEP = 0.005
"""Of the ``--keep`` that is advised."""
DEEP = 12
"""Layers with directions; in fewer there is no half to speak of."""


@dataclass(frozen=True)
class Choice:
    """An edit and how it came to be taken.

    Args:
        edit: The edit.
        selection: Selection for the record; None if there was nothing to judge by.
        is_part: Whether the edit is a part of what the method found for all subjects together, so that what is bounded
            there is bounded here.
    """

    edit: Edit
    selection: SelectionPart | None
    is_part: bool = True

    def of(self, found: Unlearned) -> Unlearned:
        """What the method found, with this edit."""
        return replace(found, edit=self.edit, bounds=found.bounds if self.is_part else ())


def settings_to_solve(request: Terms) -> Any:
    """The settings with which the method is run."""
    return request.made_by.to_choose_from(request.settings) if request.chooses else request.settings


def parts_tried(request: Terms, layers: Sequence[int]) -> list[tuple[int, int] | None]:
    """The parts of a decoder whose edits are tried, one series after the other: first and last layer; None for all.

    Of directions in a deep decoder, those of its first half are tried by themselves first: that is where facts are
    looked up, and what is taken away there costs others less. But some facts are only forgotten with the other half.

    Args:
        request: What was asked for.
        layers: Those that are weakened, ascending.
    """
    deep = request.made_by.scaling(request.settings) == "directions" and len(layers) >= DEEP
    return [*([(layers[0], layers[len(layers) // 2 - 1])] if deep else []), None]


def paths_of(request: Terms, found: Edit, base: Edit | None = None) -> list[Path]:
    """The edits that a method's result offers, each with those of earlier requests (``base``) in force."""
    kind = request.made_by.scaling(request.settings)
    if kind == "directions" and isinstance(found, LowRankEdit):
        layers = sorted({key.layer for key in found.directions})
        smallest = request.made_by.smallest_gate(request.settings)
        return [DirectionsPath(found, smallest, part, base) for part in parts_tried(request, layers)]
    return [SharePath(found, base) if kind in ("directions", "share") else StrengthPath(found)]


def paths_of_each(
    request: Terms, found: Edit, material: Material, base: Edit | None = None
) -> dict[Hashable, list[Path]]:
    """The same for each subject by itself; empty if there are none, or if not every subject is asked about.

    Args:
        request: What was asked for.
        found: What the method found.
        material: Has what edits are judged by.
        base: The edit of earlier requests.
    """
    if not isinstance(found, LowRankEdit):
        return {}
    asked = {example.subject_key for name in AS_ASKED for example in material.judged.get(name, ())}
    if not asked.issuperset(found.of_each):
        return {}
    for own in found.of_each.values():
        own.metadata = found.metadata  # by now it knows where the edit comes from
    return {subject: paths_of(request, own, base) for subject, own in found.of_each.items()}


def choose(
    task: Task, material: Material, found: Edit, before: Evaluation, reporter: Reporter, progress: Progress
) -> Choice:
    """Take the edit of the right strength, or judge the one that was made by hand.

    If the strength is chosen, the edits of earlier requests are in force under every edit that is tried. Their
    questions are not asked.

    Args:
        task: What was asked for, and the original model.
        material: Has what edits are judged by.
        found: What the method found.
        before: The original model's own answers: whether it knows what it is to forget is said here.
        reporter: Told what is left, and of damage.
        progress: Called after every edit that was scored.

    Raises:
        Damaging: Not even the weakest edit keeps what must stay, or the one made by hand does not.
    """
    request, loaded = task.request, task.loaded
    base = in_force(task.earlier) if request.chooses else None
    replies = {one.identifier: one.prediction for one in before.records if one.split == "forget" and one.error is None}
    own = said_by(loaded, material, replies)
    search = Search(scorer_for(loaded, material, own, progress), material.must_stay, request.keep)
    tell_unknown(before, reporter, _share_known(search.original, material))
    if not material.must_stay:
        reporter.warn(
            "There is nothing to judge the edit by: how much is lost is unknown. Give --retain a file of examples."
        )
        whole = found if base is None else _on(base, type(found).joined([base, found], found.metadata))
        return Choice(whole, None)
    paths = paths_of(request, found, base) if request.chooses else []
    of_each = paths_of_each(request, found, material, base) if paths else {}
    chosen = search.choose(paths, of_each) if paths else search.judge(found)
    if paths:
        search, chosen = _asked_freely(search, chosen, paths, of_each, task, material, own, reporter, progress)
    if chosen is None and request.write_damaged:
        chosen = search.weakest(paths[-1])
    _refuse(search, chosen, request, reporter, base)
    assert chosen is not None
    assert chosen.edit is not None
    earlier = 0 if base is None else len(task.earlier)
    selection = _part(search, chosen, material, request.keep, paths[0].unit if paths else "", earlier)
    _tell(search, chosen, request.floor, reporter, _lower(search, request) if not search.forgets(chosen) else "")
    freely = ask_others(loaded, material, chosen.edit)
    tell_of_others(freely, reporter, write_damaged=request.write_damaged)
    is_part = not (isinstance(chosen.path, DirectionsPath) and chosen.path.is_of_each)
    return Choice(_described(chosen, request, base), selection.model_copy(update={"freely": freely}), is_part)


def _asked_freely(
    search: Search,
    chosen: Candidate | None,
    paths: Sequence[Path],
    of_each: Mapping[Hashable, Sequence[Path]],
    task: Task,
    material: Material,
    own: OwnWords,
    reporter: Reporter,
    progress: Progress,
) -> tuple[Search, Candidate | None]:
    """Ask the model with the chosen edit freely, and choose again if it still says what it is to forget.

    What is still said although every question that judges is forgotten judges the next choice, too.
    """
    request, loaded = task.request, task.loaded
    for _ in range(ROUNDS):
        if chosen is None or chosen.edit is None or not search.forgets(chosen):
            break  # nothing stronger is allowed anyway
        replies = replies_to_forget(loaded, material, chosen.edit, request.max_new_tokens)
        if not (more := said_by(loaded, material, replies)):
            break
        reporter.note(f"Replies that still give it away in other words: {len(more)}. They judge the edit, too.")
        own = [*own, *more]
        said = {example.subject_key for example, _ in more}
        # What the others need is known.
        settled = {subject: [path] for subject, path in search.of_each.items() if subject not in said}
        of_each = {**of_each, **settled}
        search = Search(scorer_for(loaded, material, own, progress, search.known), material.must_stay, request.keep)
        chosen = search.choose(paths, of_each)
    return search, chosen


def _share_known(scores: Mapping[str, Score], material: Material) -> float:
    """Share of the forget answers that are the model's first choice, in the words of the reference."""
    known = [one for name in AS_ASKED if name in scores for one in chosen_first(scores[name], material.judged[name])]
    return sum(known) / len(known)


def _described(chosen: Candidate, request: Terms, base: Edit | None) -> Edit:
    """The edit with its dose, its parts, and the settings that were asked for, not those of the solve."""
    edit = chosen.edit
    assert edit is not None
    if chosen.path is not None:
        asked, solved = asdict(request.settings), asdict(settings_to_solve(request))
        altered = {name: value for name, value in asked.items() if value != solved[name]}
        settings = {**edit.metadata.settings, **altered, "chosen": {chosen.path.unit: chosen.dose}}
        edit.metadata = edit.metadata.model_copy(update={"settings": settings})
    return edit if base is None else _on(base, edit)


def _on(base: Edit, edit: Edit) -> Edit:
    """The edit with what it was made of in its metadata."""
    parts = base.metadata.parents if base.metadata.method == "compose" else (base.metadata,)
    edit.metadata = edit.metadata.model_copy(update={"parents": (*parts, edit.metadata)})
    return edit


def _refuse(
    search: Search, chosen: Candidate | None, request: Terms, reporter: Reporter, base: Edit | None = None
) -> None:
    """Stop at an edit that loses what must stay, unless the user wants it written.

    Raises:
        Damaging: The edit loses what must stay.
    """
    floor = request.floor
    if chosen is None:
        lower = _lower(search, request)
        lost = _lost(search.candidates[-1], floor)
        spent = _lost(search.judge(base), floor) if base is not None else ""
        alone = f"; the edits of earlier requests alone leave {spent}" if spent else ""
        raise Damaging(
            f"No edit of this method keeps {percent(request.keep)} of what must stay, so nothing was written.",
            found=f"even the weakest leaves {lost}{alone}",
            do="name others like those to be forgotten with --neighbours or --retain, try another method, or lower "
            f"--keep{lower}",
        )
    if chosen.keeps(floor):
        return
    lost = _lost(chosen, floor)
    if request.write_damaged:
        reporter.warn(f"The edit loses what must stay: it leaves {lost}. It is written because you asked for it.")
        return
    raise Damaging(
        f"This edit loses what must stay, so nothing was written: {percent(floor)} of it must be left.",
        found=f"it leaves {lost}",
        do="let kvw choose: leave out --strength and the settings of the method, or give --strength auto to scale this "
        "edit down; or lower --keep; --write-damaged writes it as it is",
    )


def _lost(candidate: Candidate, floor: float) -> str:
    """The parts that are not kept, in words; rounded down, so that none is said to be as much as is asked for."""
    return _parts(candidate.lost(floor))


def _parts(shares: Mapping[str, Share]) -> str:
    return ", ".join(f"{math.floor(share.value * 1000) / 1000:.1%} of {name}" for name, share in shares.items())


def _tell(search: Search, chosen: Candidate, keep: float, reporter: Reporter, lower: str = "") -> None:
    """Say what is left of what was to be forgotten, what would take more of it, and who pays."""
    if below := chosen.below(keep):
        reporter.warn(
            f"Others pay: {_parts(below)} is left, less than {percent(keep)}, although together enough is kept. Name "
            "more like those to be forgotten with --neighbours or --retain, or raise --keep."
        )
    before = Candidate(None, None, None, search.original)
    if chosen.answered():
        reporter.warn(f"{_still_answered(search, chosen, before)}{_more(chosen, lower)}")
    elif not search.forgets(chosen):
        reporter.warn(
            f"No forget question is answered, but {chosen.left() / before.left():.0%} of the probability of the "
            f"answers is left{_more(chosen, lower)}"
        )


def _still_answered(search: Search, chosen: Candidate, before: Candidate) -> str:
    """How many forget questions are still answered: as they were asked, and in other words."""
    asked = sum(len(search.original[name].answered) for name in AS_ASKED if name in search.original)
    forced = f"(teacher-forced; {before.answered(AS_ASKED)} before)"
    still, own = chosen.answered(AS_ASKED), chosen.answered([OWN_WORDS])
    if not own:
        return f"{still} of {asked} forget questions are still answered {forced}"
    words = f"in other words {own} of {len(search.original[OWN_WORDS].answered)}"
    if not still:
        return f"No forget question is answered as it was asked {forced}, but {words} {'is' if own == 1 else 'are'}"
    return f"{still} of {asked} forget questions are still answered {forced}, {words}"


def _lower(search: Search, request: Terms) -> str:
    """The ``--keep`` with which an edit that forgets everything would be taken; empty if that would be a wreck."""
    enough = search.forgetting()
    # A step lower than what it keeps, so that rounding on another machine changes nothing.
    most = 0.0 if enough is None else math.floor(enough.most() / STEP) * STEP
    if enough is None or not LEAST <= most < request.keep:
        return ""
    asked = sum(len(search.original[name].answered) for name in FORGETTING if name in search.original)
    lost = _parts(enough.lost(request.keep))
    return f" (an edit that forgets all {asked} leaves {lost}: --keep {most:.10g} takes it)"


def _more(chosen: Candidate, lower: str = "") -> str:
    """Why the edit is no stronger, and what to do."""
    if chosen.path is None:
        return ". Its strength is what the settings say: let kvw choose it with --strength auto, or take stronger ones."
    if chosen.dose == chosen.path.doses[-1]:
        return " after the strongest edit that the method finds with these settings: kvw methods NAME lists others."
    return (
        ": more would cost others more than --keep allows. Name others like those to be forgotten with --neighbours or "
        f"--retain, or lower --keep{lower}."
    )


def _part(search: Search, chosen: Candidate, material: Material, keep: float, unit: str, earlier: int) -> SelectionPart:
    return SelectionPart(
        keep=keep,
        unit=unit,
        earlier=earlier,
        sources=material.sources,
        original=_judged(search.original),
        candidates=[
            CandidatePart(
                dose=one.dose,
                where=one.path.where if one.path else "",
                chosen=one is chosen,
                splits=_judged(one.scores),
                kept={name: KeptPart(**asdict(share)) for name, share in one.kept.items()},
            )
            for one in search.candidates
        ],
    )


def _judged(scores: dict[str, Score]) -> dict[str, JudgedPart]:
    return {
        name: JudgedPart(
            questions=len(score.answered),
            answered=sum(score.answered),
            probability=score.probability,
            perplexity=score.perplexity,
        )
        for name, score in scores.items()
    }

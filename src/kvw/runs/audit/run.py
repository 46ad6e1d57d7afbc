"""``kvw audit``: attack a model, and say what comes back beyond what can be guessed."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from statistics import fmean

from kvw.claim import claimed
from kvw.data import Example, check_images
from kvw.edits.edit import Edit, load_edit, package_versions
from kvw.errors import UserError
from kvw.evaluation.loaded import Loaded
from kvw.files import write_text
from kvw.measuring.fingerprint import examples_digest
from kvw.measuring.salt import salted
from kvw.models.checkpoint import Checkpoint
from kvw.pages.audit_page import audit_page
from kvw.progress import SILENT, Remembering, Reporter, remembering
from kvw.records.audit import AttackLine, AuditData, AuditRecord, FloorBy, Found
from kvw.records.run import CostPart, DataPart, ModelPart
from kvw.runs.audit.attacks import ATTACKS
from kvw.runs.audit.invented import about_nobody
from kvw.runs.audit.models import Attacker, Role, Target, why_not
from kvw.runs.audit.questions import Questions
from kvw.runs.audit.request import AuditRequest, AuditSets, Served, read_audit_data
from kvw.runs.audit.served import ServedModel, served_costs, served_results
from kvw.runs.audit.verdict import sentences, traces, verdict_of
from kvw.runs.costs import Stopwatch
from kvw.runs.counts import Count
from kvw.runs.record_parts import model_part
from kvw.runs.reporting import AUDIT_PAGE, AUDIT_RECORD
from kvw.runs.weights import check_weights

AUDIT = "audit"


@dataclass
class Results:
    """What was found so far.

    Args:
        found: Results by attack and model.
        parts: The models, by what they are.
        costs: Costs of the last model.
        left_out: Why an attack was not made.
    """

    found: dict[str, dict[Role, Found]] = field(default_factory=dict)
    parts: dict[str, ModelPart] = field(default_factory=dict)
    costs: CostPart | None = None
    left_out: dict[str, str] = field(default_factory=dict)


def audit(request: AuditRequest, reporter: Reporter = SILENT, sets: AuditSets | None = None) -> AuditRecord:
    """Attack a model, and write ``audit.json`` and ``audit.html`` into ``out``.

    What each attack finds on each model is kept in the cache directory, and taken from there if nothing that it depends
    on has changed. ``out`` appears when all is complete, or not at all.

    Args:
        request: What to do.
        reporter: Told of stages, notes and warnings.
        sets: The data of the request, if they have been read already.

    Raises:
        UserError: Something about the request must be fixed, or there is no server; nothing was written at ``out``.
    """
    with remembering(reporter) as told, claimed(request.out, force=request.force, keep=request.inputs()) as claim:
        sets = sets or read_audit_data(request)
        claim.also_keep(image for one in sets.everything for image in one.images if not isinstance(image, bytes))
        check_images(sets.everything)
        _announce(request, sets, told)
        watch, results = Stopwatch(told), Results(left_out=dict(sets.left_out))
        questions = Questions.of(sets.asked, sets.retain, sets.rephrasings)
        if isinstance(request.model, Served):
            _attack_served(request, request.model, questions, results, watch, told)
        else:
            for target, name in _targets(request, request.model, questions, results, watch, told):
                results.found.setdefault(name, {}).update(Attacker(request, sets, watch).attack(name, target))
                del target  # or its model would stay in memory while the next one is loaded
        record = _record(request, sets, results, told)
        folder = claim.empty()
        write_text(folder / AUDIT_RECORD, record.model_dump_json(indent=1) + "\n")
        write_text(folder / AUDIT_PAGE, audit_page(record, show_examples=request.show_examples))
        claim.publish(AUDIT)
    return record


def _announce(request: AuditRequest, sets: AuditSets, reporter: Reporter) -> None:
    reporter.note(f"{len(sets.asked)} of the forget set are asked: {Count.of(sets.forget)}.")
    for name, why in sets.left_out.items():
        reporter.note(f"The attack {name} is left out: {why}.")
    if sets.unmatched:
        reporter.warn(f"{sets.unmatched} rows of the rephrasings ask for nothing that is asked, and are left out.")
    if isinstance(request.model, Served):
        if request.model.original is None:
            reporter.warn(
                "It is not known what the model said before, so an attack that finds nothing may never have found "
                "anything. Add --original NAME if the server has the model before."
            )
    elif request.gold is None and request.original is None and request.edit is None:
        reporter.warn(
            "There is neither gold nor the original to compare with, so whatever is guessed right counts as coming "
            "back. Add --original MODEL, or --gold MODEL."
        )


def _attack_served(
    request: AuditRequest,
    served: Served,
    questions: Questions,
    results: Results,
    watch: Stopwatch,
    reporter: Reporter,
) -> None:
    """Every attack on a model behind a server."""
    with watch.stage("looking for the server"):
        results.parts["now"] = ServedModel(served, request).part()
        if served.original is not None:
            results.parts["original"] = ServedModel(replace(served, model=served.original), request).part()
    for name, found in served_results(request, served, questions, results.left_out, watch, reporter):
        results.found[name] = found
    results.costs = served_costs(watch)


def _targets(
    request: AuditRequest,
    model: Checkpoint,
    questions: Questions,
    results: Results,
    watch: Stopwatch,
    reporter: Reporter,
) -> Iterator[tuple[Target, str]]:
    """Every attack on every model, with one checkpoint in memory at a time; the audited model comes last."""
    nobody = about_nobody(questions)
    before: dict[Role, Questions] = {"original": questions}
    if request.gold is not None:
        yield from _each(request, "gold", request.gold, None, {"floor": questions}, results, watch)
    elif nobody is not None:
        before["floor"] = nobody
    if request.original is not None:
        yield from _each(request, "original", request.original, None, before, results, watch)
    edit = load_edit(request.edit) if request.edit else None
    with watch.stage("loading the model"):
        loaded = Loaded.load(model, request.device, quantise=request.quantise)
    if edit is not None:
        check_weights(edit, loaded.fingerprint, reporter, other_weights=request.other_weights)
    if edit is not None and request.original is None:
        results.parts["original"] = model_part(loaded)
        yield from _attacks(request, loaded, None, before, results)
    yield from _attacks(request, loaded, edit, {"now": questions}, results)
    results.parts["now"], results.costs = model_part(loaded), watch.costs(loaded.model)


def _each(
    request: AuditRequest,
    part: str,
    checkpoint: Checkpoint,
    edit: Edit | None,
    asked: Mapping[Role, Questions],
    results: Results,
    watch: Stopwatch,
) -> Iterator[tuple[Target, str]]:
    """Every attack on a model of its own, which is freed afterwards."""
    with watch.stage(f"loading {part}"):
        loaded = Loaded.load(checkpoint, request.device, quantise=request.quantise)
    results.parts[part] = model_part(loaded)
    yield from _attacks(request, loaded, edit, asked, results)
    del loaded
    gc.collect()


def _attacks(
    request: AuditRequest, loaded: Loaded, edit: Edit | None, asked: Mapping[Role, Questions], results: Results
) -> Iterator[tuple[Target, str]]:
    for name in request.attacks:
        if name not in results.left_out and (why := why_not(name, loaded)):
            results.left_out[name] = why
        # Chance and nothing need no model; the same questions about nobody are a part of what membership asks.
        wanted = {role: one for role, one in asked.items() if not (name == "membership" and _is_nobody(asked, role))}
        if name not in results.left_out and wanted:
            yield Target(loaded, edit, wanted), name


def _is_nobody(asked: Mapping[Role, Questions], role: Role) -> bool:
    return role == "floor" and "original" in asked


def _record(request: AuditRequest, sets: AuditSets, results: Results, reporter: Remembering) -> AuditRecord:
    lines = []
    for name in request.attacks:
        if name not in results.left_out and not results.found[name]["now"].questions:
            results.left_out[name] = "the data have nothing to ask, or every try gives the answer away"
        if name not in results.left_out:
            lines.append(_line(name, results.found[name], request))
    if not lines:
        found = "; ".join(f"{name}: {why}" for name, why in results.left_out.items())
        raise UserError("None of the attacks was possible.", found=found, do="name others in --attacks")
    edit = load_edit(request.edit) if request.edit else None
    settings = asdict(request)
    kept = ("attacks", "samples", "budget", "steps", "learning_rate", "at_most", "max_new_tokens", "threshold")
    if results.costs is None:
        raise ValueError("the audited model was not attacked")
    return AuditRecord(
        finished=datetime.now(UTC),
        model=results.parts["now"],
        original=results.parts.get("original"),
        gold=results.parts.get("gold"),
        edit_digest=edit.digest() if edit else None,
        edit_method=edit.metadata.method if edit else None,
        data=_data(request, sets),
        settings={name: settings[name] for name in kept},
        lines=lines,
        left_out=results.left_out,
        verdict=[*sentences(lines, request.threshold), *_traces(request, results)],
        warnings=list(reporter.warnings),
        costs=results.costs,
        versions=package_versions(),
        answers={line.attack: {role: one.tries for role, one in results.found[line.attack].items()} for line in lines},
    )


def _traces(request: AuditRequest, results: Results) -> list[str]:
    found = results.found.get("membership")
    if found is None or "membership" in results.left_out:
        return []
    original, floor = (found[role].share if role in found else None for role in ("original", "floor"))
    return traces(found["now"].share, original, floor if request.gold else None, request.threshold)


def _line(name: str, found: Mapping[Role, Found], request: AuditRequest) -> AttackLine:
    now, original, least = found["now"], found.get("original"), found.get("floor")
    floor, by = _chance(name, now)
    if least is not None and least.questions:
        # An area below one half is no worse than guessing.
        floor = max(least.share, floor) if name == "membership" else least.share
        by = "gold" if request.gold else "subjects that do not exist"
    return AttackLine(
        attack=name,
        title=ATTACKS[name].title,
        now=now.short,
        original=original.short if original else None,
        floor=floor,
        floor_by=by,
        floor_questions=least.questions if least is not None and least.questions else None,
        excess=now.share - floor,
        verdict=verdict_of(now.share, original.share if original else None, floor, request.threshold),
    )


def _chance(name: str, now: Found) -> tuple[float, FloorBy]:
    """What an attack finds in a model that knows nothing, without asking one."""
    if name == "membership":
        return 0.5, "chance"
    return (fmean(one.numbers["chance"] for one in now.tries), "chance") if name == "choice" else (0.0, "nothing")


def _data(request: AuditRequest, sets: AuditSets) -> AuditData:
    def part(name: str, examples: Sequence[Example]) -> DataPart:
        count = Count.of(examples)
        return DataPart(
            file=name,
            count=count.examples,
            digest=salted(examples_digest(examples)),
            pictures=count.pictures,
            subjects=count.subjects,
        )

    others = [one for many in sets.rephrasings.values() for one in many]
    return AuditData(
        forget=part(" + ".join(sorted(path.name for path in request.forget)), sets.forget),
        asked=len(sets.asked),
        retain=part(request.retain.name, sets.retain) if request.retain else None,
        rephrasings=part(request.rephrasings.name, others) if request.rephrasings else None,
    )

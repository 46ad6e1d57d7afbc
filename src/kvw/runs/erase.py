"""``kvw erase``: forget what a forget set holds, keep what a retain set holds, and show both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kvw.claim import Claim
from kvw.data import Prepared
from kvw.edits.edit import Edit
from kvw.edits.weight_edit import weight_edit
from kvw.errors import UserError
from kvw.evaluation.answers import kept_answers, tell_kept
from kvw.evaluation.evaluation import evaluate
from kvw.evaluation.journal import Journal
from kvw.evaluation.loaded import Loaded
from kvw.evaluation.records import Evaluation
from kvw.evidence.keys import PrivateKey, private_key
from kvw.files import write_text
from kvw.folders import folder_digests
from kvw.mark import write_mark
from kvw.measuring.salt import salted
from kvw.measuring.sources import Positions
from kvw.measuring.statistics import Statistics, differing_parts
from kvw.models.companions import left_aside
from kvw.models.finding import find_value_matrices
from kvw.models.loading import skeleton
from kvw.models.patching import save_checkpoint
from kvw.models.quantised import refuse_quantised, refuse_stored_quantised
from kvw.models.reload_check import check_copy, check_reload
from kvw.models.saving import DISK_RESERVE, check_disk_space, check_room, check_saved
from kvw.models.stored import StoredMatrix, locate
from kvw.models.value_matrix import MatrixKey, Parameter, ValueMatrix
from kvw.output import check_output_directory
from kvw.processes import current
from kvw.progress import SILENT, Progress, Remembering, Reporter, remembering
from kvw.records.run import LanguagePart, RunRecord, SplitPart
from kvw.runs.apply import write_card
from kvw.runs.costs import Stopwatch
from kvw.runs.earlier import load_earlier
from kvw.runs.evidence import write_evidence
from kvw.runs.findings import tell
from kvw.runs.language import heard
from kvw.runs.record_parts import asked_part, forget_part, model_part, retain_part, split_part
from kvw.runs.reporting import Classed, write_report
from kvw.runs.request import DataSets, EraseRequest, in_windows, read_data
from kvw.runs.solving import Heard, Solved, solve, tell_of_solved
from kvw.runs.task import Task
from kvw.runs.telling import tell_of_request
from kvw.runs.writing import EDIT, MODEL, RECORD, RUN, SAMPLES, claimed_output, kept_on_failure, most_bytes


@dataclass(frozen=True, kw_only=True)
class Job(Task):
    """A request that has been checked: model loaded, data read and rendered."""

    request: EraseRequest
    loaded: Loaded
    data: DataSets
    forget: list[Prepared]
    retain: list[Prepared]
    layers: tuple[int, int]
    """First and last layer to weaken."""
    stored: dict[MatrixKey | str, StoredMatrix]
    """Where the matrices to weaken lie in the checkpoint's files; empty if no model is to be saved."""
    most_bytes: int
    """What the edit, the samples and the record take on the disk at most."""
    signer: PrivateKey | None
    """Signs the evidence; None leaves it unsigned."""


def erase(request: EraseRequest, reporter: Reporter = SILENT, data: DataSets | None = None) -> RunRecord:
    """Measure, weaken, score before and after, and write the run directory.

    ``out`` receives ``edit.safetensors``, ``run.json``, ``samples.jsonl``, ``evidence.json``, ``report.html`` and,
    unless switched off, ``model/``: an ordinary checkpoint with its processor. It appears when all of it is complete,
    or not at all; nobody else can write there from the beginning on. If something fails after the passes, the edit, the
    samples and the record are kept beside ``out``, and the message says where. Of several processes
    (:func:`kvw.processes.together`) the first writes it; the others return before that.

    Args:
        request: What to do.
        reporter: Told of stages, notes and warnings.
        data: The data of the request, if they have been read already.

    Raises:
        UserError: Something about the request must be fixed; nothing was written at ``out``.
    """
    with (
        remembering(reporter) as told,
        claimed_output(request.out, request.inputs(), told, force=request.force) as claim,
    ):
        return _erase(request, claim, told, data)


def _erase(request: EraseRequest, claim: Claim | None, reporter: Remembering, data: DataSets | None) -> RunRecord:
    watch = Stopwatch(reporter)
    job = check(request, watch, reporter, data)
    current().broadcast(lambda: _prepare_place(claim, job))
    with kept_answers(job.loaded, job.data.all_scored, request.max_new_tokens) as journal:
        tell_kept(journal, reporter)
        with watch.stage("scoring the original model") as progress:
            answers = _score(job, progress, journal)
    before = Heard(answers, heard(job.loaded, watch, reporter, "original"))
    solved = solve(job, before, watch, reporter)
    edit = solved.unlearned.edit
    if job.loaded.quantised or request.made_by.acts_by == "hooks":
        edit.attach(job.loaded.model)
    else:
        edit.fold(job.loaded.model)
    with watch.stage("scoring the unlearned model") as progress:
        answers = _score(job, progress)
    after = Heard(answers, heard(job.loaded, watch, reporter, "unlearned"))
    language = tell_of_solved(job, solved, before, after, reporter)
    classed = Classed.of(job.data, {"original": before.answers, "unlearned": after.answers})
    classed.tell_broken(reporter)
    splits = {name: split_part(job.data, name, classed, solved.material) for name in job.data.scored}
    record = _record(job, solved, splits, watch, language, reporter.warnings)
    if claim is None:
        return record
    with kept_on_failure(claim, request, reporter):
        folder = claim.empty()
        edit.save(folder / EDIT)
        write_text(folder / SAMPLES, classed.lines(record, job.data.all_scored))
        record = _write_record(record, folder)
        claim.secure()
        if request.writes_model:
            with watch.stage("writing"):
                _write_model(job, edit, record, folder / MODEL)
            record = record.model_copy(
                update={"costs": watch.costs(job.loaded.model), "warnings": list(reporter.warnings)}
            )
            record = _write_record(record, folder)
        write_evidence(record, folder, job.signer)
        write_report(folder, record, show_examples=request.show_examples)
        job.loaded.check_source()
        claim.publish(RUN)
    return record


def _prepare_place(claim: Claim | None, job: Job) -> None:
    if claim is not None:
        claim.also_keep(job.data.pictures)
        claim.reserve(job.most_bytes)


def check(request: EraseRequest, watch: Stopwatch, reporter: Reporter, data: DataSets | None = None) -> Job:
    """Find everything that can be wrong with a request before the first forward pass.

    Raises:
        UserError: Names what to fix.
    """
    processes = current()
    processes.broadcast(lambda: check_output_directory(request.out, force=request.force, keep=request.inputs()))
    if request.writes_model:
        refuse_stored_quantised(str(request.model), request.model.folder)
    signer = private_key(request.sign_key) if request.sign_key else None
    data = data or read_data(request)
    inputs = [*request.inputs(), *data.pictures]
    processes.broadcast(lambda: check_output_directory(request.out, force=request.force, keep=inputs))
    for note in data.notes():
        reporter.note(note)
    tell(data.findings(), reporter)
    with watch.stage("loading the model"):
        loaded = Loaded.load(request.model, request.device, quantise=request.quantise)
    data = in_windows(data, loaded, request, reporter)
    earlier = load_earlier(request.earlier, loaded, request.earlier_key)
    matrices = request.made_by.value_matrices(loaded.model, request.settings)
    needed = most_bytes(request, loaded.model, data.all_scored)
    processes.broadcast(lambda: check_room(request.out, needed + DISK_RESERVE, "the edit and the samples"))
    stored: dict[MatrixKey | str, StoredMatrix] = {}
    if request.writes_model:
        instead = "keep only the edit with --no-model"
        processes.broadcast(lambda: check_disk_space(request.model.folder, request.out, instead))
        stored = _locate(loaded, matrices)
        processes.broadcast(lambda: check_copy(request.model))
    if request.made_by.changes_weights_meanwhile(request.settings):
        for matrix in matrices:
            refuse_quantised(matrix.name, matrix.module)
    positions = request.made_by.statistics_positions(request.settings)
    if data.retain_statistics is not None and positions is not None:
        _check_conditions(data.retain_statistics, positions, loaded, request)
    with watch.stage("checking the data"):
        forget, retain = loaded.prepare(data.forget), loaded.prepare(data.retain)
        for examples in data.scored.values():
            loaded.prepare(examples, request.max_new_tokens)
        request.made_by.check(loaded, data.forget, request.settings)
        loaded.agree([*data.forget, *data.retain, *data.all_scored])
    for note in request.made_by.announce(loaded, forget, request.settings):
        reporter.note(note)
    for warning in left_aside(request.model.folder):
        reporter.warn(warning)
    tell_of_request(request, loaded, reporter)
    layers = (matrices[0].key.layer, matrices[-1].key.layer) if matrices else loaded.all_layers
    return Job(
        request=request,
        loaded=loaded,
        data=data,
        forget=forget,
        retain=retain,
        layers=layers,
        stored=stored,
        most_bytes=needed,
        signer=signer,
        earlier=earlier,
    )


def _check_conditions(statistics: Statistics, positions: Positions, loaded: Loaded, request: EraseRequest) -> None:
    """Refuse retain statistics of another model, prompt, or choice of positions; the data may be anything."""
    wanted = loaded.statistics_fingerprint([], positions)
    differing = [part for part in differing_parts(wanted, statistics.fingerprint) if part != "data"]
    if differing:
        raise UserError(
            f"The statistics {request.retain} were measured under other conditions.",
            found=f"different: {', '.join(differing)}",
            do="measure again with: kvw measure MODEL --data FILE --out FILE",
        )


def _locate(loaded: Loaded, parts: Sequence[ValueMatrix | Parameter]) -> dict[MatrixKey | str, StoredMatrix]:
    """Where weights lie in the files of the checkpoint, in full precision where the live ones are packed."""
    if not loaded.quantised:
        return locate(loaded.model, parts, loaded.checkpoint.folder)
    model, keys = skeleton(loaded.checkpoint), {part.key for part in parts}
    matrices = [matrix for matrix in find_value_matrices(model, "both") if matrix.key in keys]
    return locate(model, matrices, loaded.checkpoint.folder)


def _write_record(record: RunRecord, folder: Path) -> RunRecord:
    """Write the record of all else that lies in the folder; returns it."""
    record = record.model_copy(update={"written": folder_digests(folder, without=[RECORD])})
    write_text(folder / RECORD, record.model_dump_json(indent=2) + "\n")
    return record


def _write_model(job: Job, edit: Edit, record: RunRecord, folder: Path) -> None:
    """Write the model with its card, and see whether it is one."""
    folder.mkdir()
    _save(job, edit, folder)
    write_card(edit, job.request.model, folder, record)
    check_reload(job.request.model, folder)
    write_mark(folder, "model", public=True)


def _save(job: Job, edit: Edit, folder: Path) -> None:
    folding = weight_edit(edit)
    parts = folding.parts(job.loaded.model)
    # What the method did not announce, such as weights that are trained, is looked up now.
    places = job.stored | _locate(job.loaded, [part for part in parts if part.key not in job.stored])
    stored = {part.key: places[part.key] for part in parts}
    save_checkpoint(job.request.model.folder, folder, stored, folding.changed)
    if not job.loaded.quantised:  # packed weights cannot tell what the stored ones should be
        check_saved(folder, stored)


def _score(job: Job, progress: Progress, journal: Journal | None = None) -> Evaluation:
    return evaluate(
        job.loaded.model,
        job.loaded.processor,
        job.data.scored,
        max_new_tokens=job.request.max_new_tokens,
        journal=journal,
        progress=progress,
    )


def _record(
    job: Job,
    solved: Solved,
    splits: dict[str, SplitPart],
    watch: Stopwatch,
    language: LanguagePart,
    warnings: Sequence[str],
) -> RunRecord:
    request, data, edit = job.request, job.data, solved.unlearned.edit
    return RunRecord(
        command=request.command,
        method=request.made_by.name,
        settings=edit.metadata.settings,
        edit_digest=edit.digest(),
        asked=asked_part(request),
        model=model_part(job.loaded),
        forget=forget_part(data),
        retain=retain_part(request, data),
        data_files={name: [salted(one) for one in digests] for name, digests in data.sources.items()},
        retain_statistics_reused=bool(solved.retain and solved.retain.reused),
        layers=edit.describe(),
        splits=splits,
        protocol=f"zero-shot, greedy, {job.loaded.prompt}",
        evaluation_settings={"max_new_tokens": request.max_new_tokens, "evaluate_at_most": request.evaluate_at_most},
        costs=watch.costs(job.loaded.model),
        distortion_bounds=list(solved.unlearned.bounds),
        language=language,
        selection=solved.choice.selection,
        warnings=list(warnings),
    )

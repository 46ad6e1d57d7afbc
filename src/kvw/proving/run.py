"""Requests carried out one after the other: unlearn, ask the model before and after, and record it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from kvw.data import Example
from kvw.edits.edit import Edit, load_edit, package_versions
from kvw.errors import Damaging, UserError
from kvw.evaluation.journal import Journal
from kvw.evaluation.loaded import Loaded
from kvw.measuring.fingerprint import digest, examples_digest, weights_digest
from kvw.models.loading import Checkpoint
from kvw.output import growing_directory
from kvw.progress import SILENT, Reporter, remembering
from kvw.proving.named import Named, named_by
from kvw.proving.options import erase_request, options_digest
from kvw.proving.plain_text import perplexity, plain_text
from kvw.proving.record import Answer, Item, Perplexity, ProvingRecord, State, read_record
from kvw.proving.requests import Request
from kvw.proving.scoring import ask, asked_of
from kvw.records.run import RunRecord
from kvw.runs.costs import Stopwatch
from kvw.runs.erase import erase
from kvw.runs.request import EraseRequest
from kvw.runs.writing import EDIT

KIND = "proving ground"
RUN = "run"
FLOOR = "floor"
FORGOTTEN = ("forget", "held_out")
"""Splits that the gold model is asked."""


class ProvingGround:
    """Carries out requests on one model; it is loaded once for all of them, and only if there is something to ask.

    Args:
        checkpoint: The model.
        out: The folder of all records; it grows, and the same call goes on where an earlier one stopped.
        options: Fields of the request to ``kvw erase``, see :func:`kvw.proving.options.erase_request`.
        reporter: Told of stages and warnings.
        gold: A model that never saw what the requests forget; it is asked the questions about it, too.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        out: Path,
        options: Mapping[str, Any] | None = None,
        reporter: Reporter = SILENT,
        gold: Checkpoint | None = None,
    ) -> None:
        self.checkpoint, self.out, self.options, self.reporter = checkpoint, out, dict(options or {}), reporter
        self.gold = gold

    @cached_property
    def loaded(self) -> Loaded:
        """The original model."""
        with self.reporter.stage("loading the original model"):
            return Loaded.load(self.checkpoint, self.options.get("device"))

    @cached_property
    def loaded_gold(self) -> Loaded | None:
        """The gold model, if there is one."""
        if self.gold is None:
            return None
        with self.reporter.stage("loading the gold model"):
            return Loaded.load(self.gold, self.options.get("device"))

    def run(self, requests: Sequence[Request]) -> list[ProvingRecord]:
        """Carry out requests; those that have a record are not carried out again, unless they failed.

        A request that ends in a message of ``kvw erase`` is recorded with it.

        Returns:
            The records, in order.

        Raises:
            UserError: An option makes no sense, the folder holds records of other options, of another model or of other
                requests, another process writes there, or the model cannot be asked.
        """
        with growing_directory(self.out, KIND):
            return [self._record(request) for request in requests]

    def _record(self, request: Request) -> ProvingRecord:
        place = self.out / request.half / request.name
        files = request.write(place)
        wanted = erase_request(self.checkpoint, files, place / RUN, self.options)
        job = self._job(request, wanted)
        record = read_record(place)
        if record is None or record.state == "failed":
            self.reporter.note(f"Request {request.half} {request.name}: {', '.join(request.subjects)}.")
            record = self._carry_out(request, wanted, job)
            record.write(place)
        elif record.job != job:
            raise UserError(
                f"{place} holds the record of something else.",
                found=f"{record.model}, {record.method}, other settings, questions, files or versions",
                do="name another --out",
            )
        return record

    def _job(self, request: Request, wanted: EraseRequest) -> str:
        """Digest of everything that the result depends on."""
        data = {split: examples_digest(examples) for split, examples in request.splits.items()}
        weights = [weights_digest(one.folder) for one in (self.checkpoint, self.gold) if one]
        return digest(*weights, options_digest(wanted), data, list(plain_text()), package_versions())

    def _carry_out(self, request: Request, wanted: EraseRequest, job: str) -> ProvingRecord:
        watch = Stopwatch(self.reporter)
        edit: Edit | None = None
        run: RunRecord | None = None
        state: State = "written"
        message = ""
        with watch.stage("unlearning"), remembering(self.reporter) as told:
            try:
                run = erase(wanted, told)
                edit = load_edit(wanted.out / EDIT)
            except UserError as error:
                state, message = "refused" if isinstance(error, Damaging) else "failed", str(error)
        named = Named([])
        if run is not None:
            with watch.stage("asking whom the run has named") as progress:
                named = named_by(run, wanted, self.loaded, request.splits["forget"], progress)
        splits, heard = self._ask(request, edit, named, watch)
        return ProvingRecord(
            job=job,
            half=request.half,
            number=request.number,
            subjects=list(request.subjects),
            model=str(self.checkpoint),
            state=state,
            message=message,
            method=wanted.method,
            settings=run.model_dump(mode="json")["settings"] if run else {},
            edit_digest=run.edit_digest if run else "",
            warnings=told.warnings,
            seconds={**(run.costs.seconds if run else {}), **watch.seconds},
            splits=splits,
            perplexity=heard,
        )

    def _ask(
        self, request: Request, edit: Edit | None, named: Named, watch: Stopwatch
    ) -> tuple[dict[str, list[Item]], Perplexity]:
        asked = {split: asked_of(split, examples) for split, examples in request.splits.items()}
        with watch.stage("asking the original model") as progress:
            before = ask(self.loaded, asked, progress, keep=True)
            heard = self._perplexity(keep=True)
        after: dict[str, list[Answer]] = {}
        heard_after = None
        if edit is not None:
            edited = {split: examples for split, examples in asked.items() if split != FLOOR}
            with watch.stage("asking the unlearned model") as progress, edit.attach(self.loaded.model):
                after = ask(self.loaded, edited, progress, keep=False)
                heard_after = self._perplexity(keep=False)
        gold = self._ask_gold(asked, watch)
        items = {
            split: _items(examples, before[split], after.get(split), gold.get(split), named)
            for split, examples in asked.items()
        }
        return items, Perplexity(before=heard, after=heard_after)

    def _ask_gold(self, asked: Mapping[str, Sequence[Example]], watch: Stopwatch) -> dict[str, list[Answer]]:
        if self.loaded_gold is None:
            return {}
        with watch.stage("asking the gold model") as progress:
            return ask(self.loaded_gold, {split: asked[split] for split in FORGOTTEN}, progress, keep=True)

    def _perplexity(self, *, keep: bool) -> float:
        """Of plain text, by the model as it is now; kept in the cache directory if it is the original."""
        kept = {**self.loaded.conditions([]), "plain text": digest(list(plain_text()))} if keep else None
        with Journal(kept) as journal:
            return perplexity(self.loaded.model, self.loaded.processor, journal)


def _items(
    examples: Sequence[Example],
    before: Sequence[Answer],
    after: Sequence[Answer] | None,
    gold: Sequence[Answer] | None,
    named: Named,
) -> list[Item]:
    return [
        Item(
            question=example.question,
            subject=str(example.subject),
            fact=str(example.metadata["fact"]),
            named=str(example.subject) in named,
            before=one,
            after=after[place] if after else None,
            gold=gold[place] if gold else None,
        )
        for place, (example, one) in enumerate(zip(examples, before, strict=True))
    ]

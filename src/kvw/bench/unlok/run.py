"""``kvw bench unlok``: UnLOK-VQA from its data to its table."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from kvw.bench.benchmarks import get_benchmark
from kvw.bench.unlok.attacking import LONGEST, Attacker
from kvw.bench.unlok.facts import Fact, ask, facts_of
from kvw.bench.unlok.record import Finding, read_finding, write_finding
from kvw.bench.unlok.request import UnlokRequest
from kvw.bench.unlok.results import UnlokResults, attack_rows, metrics
from kvw.data.benchmarks.choices import order_key
from kvw.data.example import Example
from kvw.data.readers import read_examples
from kvw.edits.edit import Edit, load_edit, package_versions
from kvw.errors import Unwritable, UserError
from kvw.evaluation.loaded import Loaded
from kvw.files import file_digest, write_bytes, write_text
from kvw.known import known
from kvw.measuring.fingerprint import digest, example_digest, weights_digest
from kvw.methods.registry import get_method
from kvw.models.checkpoint import Checkpoint
from kvw.output import growing_directory
from kvw.progress import Reporter
from kvw.runs.erase import erase
from kvw.runs.request import EraseRequest
from kvw.runs.weights import check_weights
from kvw.runs.writing import EDIT, RECORD

OTHERS = 10
"""Other facts whose accuracy is told of each fact, as the authors have it."""
RESULTS = "unlok.json"


def unlok(request: UnlokRequest, reporter: Reporter) -> UnlokResults:
    """Attack every fact before and after it is forgotten; what was found before is not done again.

    Args:
        request: What to do.
        reporter: Told of stages, notes and warnings.

    Returns:
        What ``unlok.json`` in ``out`` has.

    Raises:
        UserError: The data cannot be used, the model knows none of the facts, or no fact could be forgotten.
    """
    data = get_benchmark("unlok-vqa").load(request.source, others={"images": request.images})
    facts = facts_of(data)
    for name in request.facts:
        known(name, {one.name: one for one in facts}, "fact", "UnLOK-VQA")
    with growing_directory(request.out, "bench unlok"):
        work = _Work(request, facts, reporter)
        original = work.original()
        gc.collect()  # or two checkpoints would be in memory
        now = work.now(original)
        gc.collect()
        gold = work.gold()
        results = UnlokResults(
            model=str(request.model),
            gold=str(request.gold) if request.gold is not None else None,
            made_by="an edit that was given" if request.edit else get_method(request.method).name,
            settings={} if request.edit else {**asdict(request.settings), "rephrased": request.rephrased},
            facts=len(facts),
            known=len(work.known),
            attacked=len(work.wanted),
            not_edited={name: one.no_edit for name, one in now.items() if one.no_edit},
            budget=request.budget,
            epochs=request.epochs,
            rows=attack_rows(original, now, gold),
            metrics=metrics(original, now),
            unusable=len(data.unusable),
            versions=package_versions(),
        )
        write_text(request.out / RESULTS, results.model_dump_json(indent=1) + "\n")
    return results


class _Work:
    """The facts on the models, with one checkpoint in memory at a time."""

    def __init__(self, request: UnlokRequest, facts: Sequence[Fact], reporter: Reporter) -> None:
        self.request, self.facts, self.reporter = request, facts, reporter
        self.known: list[Fact] = []
        self.wanted: list[Fact] = []

    def original(self) -> dict[str, Finding]:
        """Find out what the model knows, and attack it."""
        loaded = self._load(self.request.model, "the original")
        with self.reporter.stage("asking every fact"):
            attacker = Attacker(loaded, None, self.request.budget, self.request.epochs)
            right = attacker.right([one.item for one in self.facts])
        self.known = [fact for fact, one in zip(self.facts, right, strict=True) if one]
        self.wanted = [one for one in self.known if not self.request.facts or one.name in self.request.facts]
        if not self.wanted:
            none = f"0 of {len(self.request.facts or self.facts)} facts are answered right"
            raise UserError("The model knows none of the facts.", found=none, do="name a model that knows them")
        if left := len(self.request.facts or self.facts) - len(self.wanted):
            self.reporter.note(f"{left} facts are left out: the model does not answer them right before any edit.")
        return self._attack("original", self.request.model, {one.name: None for one in self.wanted}, loaded)

    def now(self, original: Mapping[str, Finding]) -> dict[str, Finding]:
        """Attack every fact after it was forgotten."""
        edits, refused = dict[str, Edit | None](), dict[str, str]()
        for fact in self.wanted:
            try:
                edits[fact.name] = load_edit(self.request.edit or self._erased(fact))
            except UserError as error:
                if self.request.edit is not None or isinstance(error, Unwritable):
                    raise
                refused[fact.name] = f"{error.what} {error.found}".strip()
        if not edits:
            raise UserError("No fact could be forgotten.", found=next(iter(refused.values())), do="try other settings")
        for name, why in refused.items():
            self.reporter.warn(f"Fact {name} has no edit: {why}")
        found = self._attack("now", self.request.model, edits)
        as_before = {name: original[name].model_copy(update={"no_edit": why}) for name, why in refused.items()}
        return {fact.name: (found | as_before)[fact.name] for fact in self.wanted}

    def gold(self) -> dict[str, Finding] | None:
        """Attack the model that never knew."""
        if self.request.gold is None:
            return None
        return self._attack("gold", self.request.gold, {one.name: None for one in self.wanted})

    def _erased(self, fact: Fact) -> Path:
        """The edit that forgets one fact; made unless it is there.

        Raises:
            UserError: None could be made.
        """
        request, asked = self.request, [ask(fact.item)]
        if request.rephrased:
            asked += [ask(one) for one in (*fact.rephrased, *fact.pictured)]
        retain = file_digest(request.retain) if request.retain else ""
        own = (request.method, asdict(request.settings), request.choose, retain, package_versions())
        made = digest(weights_digest(request.model.folder), [example_digest(one) for one in asked], *own)
        folder = request.out / "facts" / f"{fact.number:04d}-{made[:12]}"
        out = folder / "run"
        if not (out / RECORD).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            erase(
                EraseRequest(
                    model=request.model,
                    forget=_forget_file(folder, asked, request.retain),
                    retain=request.retain,
                    out=out,
                    method=request.method,
                    settings=request.settings,
                    choose=request.choose,
                    save_model=False,
                    max_new_tokens=LONGEST,
                    device=request.device,
                ),
                self.reporter,
            )
        return out / EDIT

    def _attack(
        self, role: str, checkpoint: Checkpoint, edits: Mapping[str, Edit | None], loaded: Loaded | None = None
    ) -> dict[str, Finding]:
        """Attack facts of one checkpoint, each with its edit; what is in the files is not done again."""
        found, weights = dict[str, Finding](), weights_digest(checkpoint.folder)
        for fact in (one for one in self.wanted if one.name in edits):
            edit, others = edits[fact.name], self._others(fact)
            key = self._key(weights, edit, fact, others)
            place = self.request.out / "findings" / f"{fact.number:04d}-{role}-{key[:12]}.json"
            kept = read_finding(place, key)
            if kept is None:
                loaded = loaded or self._load(checkpoint, role)
                if edit is not None:
                    check_weights(edit, loaded.fingerprint, self.reporter, other_weights=False)
                with self.reporter.stage(f"attacking fact {fact.name} ({role})"):
                    kept = Attacker(loaded, edit, self.request.budget, self.request.epochs).finding(key, fact, others)
                write_finding(place, kept)
            found[fact.name] = kept
        return found

    def _key(self, weights: str, edit: Edit | None, fact: Fact, others: Sequence[Fact]) -> str:
        asked = [ask(one) for one in (fact.item, *fact.rephrased, *fact.pictured, *fact.neighbours)]
        asked += [ask(one.item) for one in others]
        return digest(
            weights,
            edit.digest() if edit is not None else "",
            [example_digest(one) for one in asked],
            [*fact.accepted, fact.alternative],
            self.request.budget,
            self.request.epochs,
            package_versions(),
        )

    def _others(self, fact: Fact) -> list[Fact]:
        """Facts that must stay, drawn by their names: of one edit for several facts those that it does not forget."""
        gone = {one.name for one in self.wanted} if self.request.edit else {fact.name}
        there = [one for one in self.facts if one.name not in gone]
        return sorted(there, key=lambda one: order_key(0, f"{fact.name} {one.name}"))[:OTHERS]

    def _load(self, checkpoint: Checkpoint, what: str) -> Loaded:
        with self.reporter.stage(f"loading {what}"):
            return Loaded.load(checkpoint, self.request.device)


def _forget_file(folder: Path, asked: Sequence[Example], retain: Path | None) -> Path:
    """Write a forget set; pictures are named where they lie, or written beside it.

    It names its subject, the fact, only if the retain set names subjects: ``kvw erase`` refuses one without the other.
    """
    named = retain is not None and any(one.subject for one in read_examples(retain))
    subject = {"subject": asked[0].subject} if named else {}
    lines = []
    for number, one in enumerate(asked):
        pictures = []
        for place, image in enumerate(one.images):
            if isinstance(image, bytes):
                write_bytes(folder / f"{number}-{place}.png", image)
                image = folder / f"{number}-{place}.png"
            pictures.append(str(Path(image).absolute()))
        row = {"id": f"{number}", "question": one.question, "answer": one.answer, "images": pictures} | subject
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(folder / "forget.jsonl", "".join(lines))
    return folder / "forget.jsonl"

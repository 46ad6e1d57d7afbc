"""All methods through the closed loop, on the planted people of the reporting half, and what attacks bring back.

Every method gets the forget file alone and the same --keep. Methods that train are tried with a few settings on a
request of the choosing half; the setting that leaves least of the forget answers is used for the reporting half. The
same command goes on where it stopped.

usage: python benchmarks/planted_methods.py --out DIR [--only 0 2 3] [--methods kvw,npo]
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from kvw.cli.options import find_model
from kvw.console import ConsoleReporter
from kvw.files import write_text
from kvw.progress import Reporter
from kvw.proving.planted import PLANTED
from kvw.proving.record import ProvingRecord
from kvw.proving.requests import Half, Request
from kvw.proving.run import RUN, ProvingGround
from kvw.proving.table import interval_cell
from kvw.proving.verdict import Score, When, distance_to_gold, judge, kept, mean, perplexity_ratio
from kvw.quiet import quiet_libraries
from kvw.records.audit import AttackLine, AuditRecord
from kvw.records.run import RunRecord
from kvw.report.sheets import markdown_table
from kvw.runs.answer_classes import CLASSES
from kvw.runs.audit.request import AuditRequest
from kvw.runs.audit.run import audit
from kvw.runs.writing import EDIT

ADAPTER = {"epochs": 10, "lora.rank": 16}
RATES = (3e-4, 1e-3, 3e-3)
TRAINED = ("npo", "grad-diff", "icu", "kuda", "catnip", "lens-margin")
CANDIDATES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    **{name: ({},) for name in ("subspace", "kvw", "leace", "memit-zero", "deep-unlearning", "vl-eraser", "lunar")},
    **{name: ({},) for name in ("rep-select", "chip", "conditional-kvw", "r-muse", "steering")},
    **{name: tuple({"learning_rate": rate, **ADAPTER} for rate in RATES) for name in TRAINED},
}
"""Settings that are tried of each method. A method with one setting is not tried on the choosing half."""
ATTACKS = ("rephrased", "name", "jailbreak", "choice", "lens-hp", "int4")
LOOP = ("weakening", "choosing the strength")
"""Stages whose time is compared; the others are the same for all methods."""


def carried_out(
    method: str, settings: Mapping[str, Any], half: Half, only: Sequence[int], out: Path, reporter: Reporter
) -> list[ProvingRecord]:
    """The records of one method with one setting."""
    model, gold = find_model(PLANTED.model), find_model(PLANTED.gold[half])
    options = {"retain": None, "method": method, "settings": dict(settings)}
    ground = ProvingGround(model, out, options, reporter, gold)
    return ground.run([one for one in requests(half, reporter) if one.number in only])


def requests(half: Half, reporter: Reporter) -> list[Request]:
    """All requests about planted people of one half."""
    return PLANTED.requests(half, find_model(PLANTED.model), reporter)


def chosen(method: str, out: Path, reporter: Reporter) -> Mapping[str, Any]:
    """The settings of a method that leave least of the forget answers of request 0 of the choosing half."""
    candidates = CANDIDATES[method]
    if len(candidates) == 1:
        return candidates[0]
    left = []
    for number, settings in enumerate(candidates):
        [record] = carried_out(method, settings, "choosing", [0], out / f"{method}-{number}", reporter)
        left.append(mean(record.splits["forget"], "probability", now(record)))
    return candidates[left.index(min(left))]


def now(record: ProvingRecord) -> When:
    """What counts as the answers after the request: those before it if nothing was written."""
    return "after" if record.state == "written" else "before"


def attacked(record: ProvingRecord, out: Path, reporter: Reporter) -> AuditRecord | None:
    """What the attacks find in the edit of a request; None if there is no edit."""
    if record.state != "written":
        return None
    place = out / record.half / f"{record.number:02d}"
    if not (place / "audit" / "audit.json").is_file():
        request = AuditRequest(
            model=find_model(PLANTED.model),
            forget=[place / "forget.jsonl"],
            out=place / "audit",
            edit=place / RUN / EDIT,
            retain=place / "retain.jsonl",
            gold=find_model(PLANTED.gold[record.half]),
            attacks=ATTACKS,
            force=True,
        )
        audit(request, reporter)
    return AuditRecord.model_validate_json((place / "audit" / "audit.json").read_bytes())


def kinds(record: ProvingRecord, out: Path) -> Counter[str]:
    """How many replies to forget questions are of each kind after the edit, or before it if nothing was written."""
    file = out / record.half / f"{record.number:02d}" / RUN / "run.json"
    if record.state != "written":
        return Counter()
    answers = RunRecord.model_validate_json(file.read_bytes()).splits["forget"].answers
    return Counter(answers.unlearned if answers else {})


def row(records: Sequence[ProvingRecord], out: Path) -> dict[str, str]:
    """What came of the requests; one that was refused counts as it was before."""
    distances = [distance_to_gold(one.splits["forget"], "probability", now(one)) for one in records]
    replies = sum((kinds(record, out) for record in records), Counter())
    return {
        "edits": f"{sum(record.state == 'written' for record in records)} of {len(records)}",
        "forget": interval_cell([mean(one.splits["forget"], "chosen", now(one)) for one in records]),
        "held out": interval_cell([mean(one.splits["held_out"], "chosen", now(one)) for one in records]),
        "distance to gold": interval_cell([found for found in distances if found is not None]),
        "retain": f"{_kept(records, 'retain', 'chosen')}, {_kept(records, 'retain', 'probability')}",
        "unused": f"{_kept(records, 'unused', 'chosen')}, {_kept(records, 'unused', 'probability')}",
        "perplexity": f"{fmean(map(perplexity_ratio, records)):.3f}",
        "meet all": f"{sum(not judge(record).missed for record in records)} of {len(records)}",
        "replies": ", ".join(str(replies[kind]) for kind in CLASSES),
    }


def _kept(records: Sequence[ProvingRecord], split: str, score: Score) -> str:
    return f"{fmean(kept(one.splits[split], score) if one.state == 'written' else 1.0 for one in records):.3f}"


def seconds(records: Sequence[ProvingRecord]) -> float:
    """Time of solving and choosing, over all requests."""
    return sum(record.seconds.get(stage, 0.0) for record in records for stage in LOOP)


def shares(found: Sequence[AuditRecord], role: str) -> list[str]:
    """Of how many questions each attack brings the answer, over all requests."""
    lines = [{line.attack: line for line in one.lines} for one in found]
    return [f"{fmean(_share(one[name], role) for one in lines):.2f}" for name in ATTACKS]


def _share(line: AttackLine, role: str) -> float:
    return line.floor if role == "gold" else getattr(line, role).share


def main() -> None:
    """Carry everything out, and print both tables after every method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", type=int, nargs="+", default=[0, 1, 2, 3], help="numbers of requests")
    parser.add_argument("--methods", default=",".join(CANDIDATES), help="separated by commas")
    arguments = parser.parse_args()
    quiet_libraries()
    reporter = ConsoleReporter()
    rows: list[list[str]] = []
    attacks: list[list[str]] = []
    first = 0.0
    for method in arguments.methods.split(","):
        out = arguments.out / "reporting" / method
        settings = chosen(method, arguments.out / "choosing", reporter)
        records = carried_out(method, settings, "reporting", arguments.only, out, reporter)
        first = first or seconds(records)
        cells = row(records, out)
        tried = f"{len(CANDIDATES[method])}" + (f" (rate {settings['learning_rate']:g})" if settings else "")
        rows.append([method, tried, *cells.values(), f"{seconds(records) / first:.1f}"])
        found = [one for record in records if (one := attacked(record, out, reporter)) is not None]
        if not attacks and found:
            attacks += [["original", *shares(found, "original")], ["gold", *shares(found, "gold")]]
        if found:
            attacks.append([f"{method}, {len(found)} edits", *shares(found, "now")])
        tables = [
            markdown_table(["method", "settings tried", *cells, "time"], rows, 2),
            markdown_table(["method", *ATTACKS], attacks, 1),
        ]
        text = "\n\n".join(tables)
        write_text(arguments.out / "tables.md", text + f"\n\nReplies: {', '.join(CLASSES)}.\n")
    print((arguments.out / "tables.md").read_text("utf-8"))


if __name__ == "__main__":
    main()

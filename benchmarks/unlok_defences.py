"""UnLOK-VQA's defences beside KVW and subspace weakening, each put through four attacks.

One person of people:planted is forgotten (the first request of the choosing half). Methods that train are tried at a
few learning rates, all of which are shown, and once on rephrased questions, too. The gold model never knew the person.

usage: python benchmarks/unlok_defences.py --out DIR [--methods lens-margin,...]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kvw.cli.options import find_model
from kvw.console import ConsoleReporter
from kvw.files import write_text
from kvw.proving.planted import people_requests
from kvw.quiet import quiet_libraries
from kvw.records.audit import AuditRecord
from kvw.records.run import RunRecord
from kvw.report.sheets import markdown_table
from kvw.runs.audit.request import AuditRequest
from kvw.runs.audit.run import audit
from kvw.runs.erase import erase
from kvw.runs.request import EraseRequest

MODEL, GOLD = "people:planted", "people:gold-choosing"
ATTACKS = ("asked", "rephrased", "lens-hp", "lens-pd")
AUTHORS = {"epochs": 10, "lora.rank": 2, "lora.alpha": 6.0, "lora.dropout": 0.05}
"""The authors' adapters; they train one layer's down projection, kvw all linear maps of that layer."""
DEFENCES = {
    "fact-erasure": (9e-3, 2e-2, 5e-2),
    "error-injection": (1e-3, 3e-3, 9e-3),
    "empty-response": (1e-3, 3e-3, 9e-3),
    "lens-margin": (3e-3, 9e-3, 2e-2),
    "lens-entropy": (1e-3, 3e-3, 9e-3),
}
OTHERS: dict[str, tuple[dict[str, Any], ...]] = {
    "subspace": ({},),
    "kvw": ({"schedule": "one-shot", "layers": "0:29", "gamma": 0.05}, {"schedule": "one-shot", "layers": "0:29"}),
    "npo": ({"learning_rate": 3e-5, "epochs": 5}, {"learning_rate": 1e-4, "epochs": 5}),
}
SPLITS = ("forget", "retain", "unused")
HEADER = ["method", "settings", *(f"{name} said" for name in SPLITS), *ATTACKS]


def tried() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every method with every setting."""
    for method, several in OTHERS.items():
        yield from ((method, values) for values in several)
    for method, rates in DEFENCES.items():
        for rate in rates:
            yield method, {"learning_rate": rate, **AUTHORS}
        yield method, {"learning_rate": rates[1], **AUTHORS, "rephrased": True}


def said(record: RunRecord, split: str, model: str = "unlearned") -> str:
    """How many replies say the answer."""
    answers = record.splits[split].answers
    if answers is None:
        raise ValueError(f"{split} has no classed answers")
    kinds: Mapping[str, int] = getattr(answers, model)
    return f"{kinds['correct']} of {sum(kinds.values())}"


def shown(record: AuditRecord, role: str) -> list[str]:
    """What each attack found, in percent."""
    lines = {line.attack: line for line in record.lines}
    shares = [
        lines[name].floor if role == "floor" else getattr(lines[name], role).share if name in lines else 0.0
        for name in ATTACKS
    ]
    return [f"{share:.0%}" for share in shares]


def main() -> None:
    """Erase and attack with every method, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", default=",".join([*OTHERS, *DEFENCES]), help="separated by commas")
    arguments = parser.parse_args()
    out: Path = arguments.out
    model, gold = find_model(MODEL), find_model(GOLD)
    quiet_libraries()
    reporter = ConsoleReporter()
    files = people_requests("choosing")[0].write(out / "data")
    rows: list[list[str]] = []
    for method, values in tried():
        if method not in arguments.methods.split(","):
            continue
        place = out / f"{method}-{'-'.join(str(value) for value in values.values())}".replace(":", "to")
        if not (place / "audit" / "audit.json").is_file():
            if not (place / "run" / "run.json").is_file():
                request = EraseRequest(
                    model=model,
                    forget=files["forget"],
                    retain=files["retain"],
                    out=place / "run",
                    method=method,
                    settings=values,
                    splits={name: files[name] for name in ("held_out", "unused")},
                    save_model=False,
                    write_damaged=True,
                )
                erase(request, reporter)
            attack = AuditRequest(
                model=model,
                forget=[files["forget"]],
                out=place / "audit",
                edit=place / "run" / "edit.safetensors",
                retain=files["retain"],
                gold=gold,
                attacks=ATTACKS,
                force=True,
            )
            audit(attack, reporter)
        run = RunRecord.model_validate_json((place / "run" / "run.json").read_bytes())
        found = AuditRecord.model_validate_json((place / "audit" / "audit.json").read_bytes())
        if not rows:
            before = [said(run, name, "original") for name in SPLITS]
            rows.append(["original", "", *before, *shown(found, "original")])
            rows.append(["gold", "", *["-"] * len(SPLITS), *shown(found, "floor")])
        settings = ", ".join(f"{name} {value}" for name, value in values.items() if name not in AUTHORS)
        rows.append([method, settings, *(said(run, name) for name in SPLITS), *shown(found, "now")])
        write_text(out / "table.md", markdown_table(HEADER, rows, 2) + "\n")
        write_text(out / "table.json", json.dumps([HEADER, *rows], indent=1) + "\n")
    print((out / "table.md").read_text("utf-8"))


if __name__ == "__main__":
    main()

"""``kvw data check``."""

from __future__ import annotations

import json as json_
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.options import (
    DATA_DEFAULTS,
    KINDS_OF_DATA,
    LOAD_DEFAULTS,
    DataOptions,
    Json,
    LoadOptions,
    Strict,
    end_strictly,
    find_model,
    print_json,
)
from kvw.plural import counted
from kvw.quiet import quiet_libraries


def check(
    files: Annotated[list[Path], Parameter(negative="", help=f"What is to be forgotten: {KINDS_OF_DATA}. Repeatable.")],
    *,
    retain: Annotated[Path | None, Parameter(help="What must stay.")] = None,
    model: Annotated[str | None, Parameter(help="Ask this model, too, what it knows of the answers.")] = None,
    read: DataOptions = DATA_DEFAULTS,
    load: LoadOptions = LOAD_DEFAULTS,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Look for what is likely to spoil a request, with what follows from it and what to do.

    kvw erase looks for the same. Without a model this takes a second.
    """
    from kvw.console import ConsoleReporter
    from kvw.runs.check import check_data, check_known
    from kvw.runs.findings import tell

    checkpoint = find_model(model, template_options=load.template_option) if model is not None else None
    checked = check_data(files, retain, read.reading())
    reporter = ConsoleReporter()
    for name, count in checked.counts.items():
        reporter.note(f"{name}: {count}.")
    tell(checked.findings, reporter)
    if checkpoint is not None:
        quiet_libraries()
        known = check_known(checkpoint, checked.forget, reporter, device=load.device, quantise=load.quantise)
        tell(known, reporter)
        checked = replace(checked, findings=[*checked.findings, *known])
    if json:
        counts = {name: asdict(count) for name, count in checked.counts.items()}
        findings = [asdict(finding) for finding in checked.findings]
        print_json(json_.dumps({"counts": counts, "findings": findings}, indent=2, ensure_ascii=False))
    elif not checked.warnings:
        print("No fault was found.")
    else:
        print(f"{counted(len(checked.warnings), 'thing')} should be looked at.")
    end_strictly(strict, checked.warnings)

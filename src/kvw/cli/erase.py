"""``kvw erase``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from kvw.cli.command import spelled
from kvw.cli.options import (
    KINDS_OF_DATA,
    DataOptions,
    Force,
    Json,
    LoadOptions,
    MethodOptions,
    Model,
    ShowExamples,
    Strict,
    ValueMatrices,
    check_output,
    end_strictly,
    find_model,
    parse_sources,
    parse_splits,
    print_json,
    quiet_libraries,
)
from kvw.retain import SOURCES

if TYPE_CHECKING:
    from kvw.records.run import RunRecord
    from kvw.runs.plan import Plan

Forget = Annotated[
    list[Path],
    Parameter(
        negative="",
        help=f"{KINDS_OF_DATA}. Repeatable: give the files of earlier requests beside a further one.",
    ),
]
Retain = Annotated[
    Path | None,
    Parameter(
        help="Like --forget, or a statistics file (.safetensors) from kvw measure, if the method needs no more. "
        "Examples about subjects of the forget set are left out."
    ),
]


@Parameter(name="*")
@dataclass(frozen=True)
class KeepOptions:
    """What must stay, and how much of it."""

    keep: float = 0.98
    """Share of what must stay that the edit has to leave, on questions that it was not made from."""
    neighbours: Path | None = None
    """Names, one a line, to ask the forget questions about; by default the model proposes them."""
    retain_sources: str = ",".join(SOURCES)
    """What must stay beside --retain, answered by the model itself: any of everyday, pictures, facts, text and
    neighbours, with commas between them, or none."""
    write_damaged: Annotated[bool, Parameter(negative="")] = False
    """Write an edit that loses what must stay, with a warning."""


@Parameter(name="*")
@dataclass(frozen=True)
class ScoreOptions:
    """What is asked before and after."""

    eval: Annotated[list[str] | None, Parameter(negative="")] = None
    """NAME=FILE: score this file too, before and after. Repeatable. Of kvw itself: general, general-pictures."""
    eval_limit: int = 200
    """Score at most this many examples of each file; 0 for all."""
    max_new_tokens: int = 50
    """Longest answer in tokens."""


KEEP_DEFAULTS = KeepOptions()
SCORE_DEFAULTS = ScoreOptions()
DEFAULTS = MethodOptions()
LOAD_DEFAULTS = LoadOptions()
DATA_DEFAULTS = DataOptions()


def erase(
    model: Model,
    *,
    forget: Forget,
    retain: Retain = None,
    out: Annotated[Path, Parameter(help="Run directory to write.")],
    kept: KeepOptions = KEEP_DEFAULTS,
    read: DataOptions = DATA_DEFAULTS,
    options: MethodOptions = DEFAULTS,
    load: LoadOptions = LOAD_DEFAULTS,
    scored: ScoreOptions = SCORE_DEFAULTS,
    save_model: Annotated[bool, Parameter(negative="--no-model", help="Write OUT/model/ too.")] = True,
    sign_key: Annotated[
        Path | None,
        Parameter(help="PEM file of an Ed25519 private key: sign OUT/evidence.json with it."),
    ] = None,
    dry_run: Annotated[
        bool,
        Parameter(negative="", help="Print what was found and run one batch through every stage; write nothing."),
    ] = False,
    show_examples: ShowExamples = False,
    value_matrices: ValueMatrices = "",
    force: Force = False,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Weaken what a model knows of the forget set and write an ordinary checkpoint, the edit and the numbers.

    Three options matter most: --keep, --neighbours and --strength. kvw methods lists the methods and their settings.
    OUT gets report.html, edit.safetensors (small, reversible), run.json, samples.jsonl, evidence.json and model/.
    """
    settings, splits = options.settings(), parse_splits(scored.eval or [])
    checkpoint = find_model(model, value_matrices, load.template_option)
    if sign_key is not None:
        from kvw.evidence.keys import private_key

        private_key(sign_key)

    from kvw.runs.request import EraseRequest, read_data

    request = EraseRequest(
        model=checkpoint,
        forget=forget,
        retain=retain,
        out=out,
        method=options.method,
        settings=settings,
        keep=kept.keep,
        choose=options.choose,
        sources=parse_sources(kept.retain_sources),
        neighbours=kept.neighbours,
        write_damaged=kept.write_damaged,
        splits=splits,
        evaluate_at_most=scored.eval_limit,
        max_new_tokens=scored.max_new_tokens,
        save_model=save_model,
        force=force,
        show_examples=show_examples,
        device=load.device,
        quantise=load.quantise,
        reading=read.reading(),
        sign_key=sign_key,
        command=spelled(
            "erase",
            str(checkpoint),
            {"forget": forget, "retain": retain, "out": out, "sign-key": sign_key},
            kept=kept,
            options=options,
            load=load,
            scored=scored,
            read=read,
            no_model=not save_model,
            show_examples=show_examples,
            value_matrices=value_matrices,
            force=force,
            strict=strict,
            json=json,
        ),
    )
    check_output(out, force=force, keep=request.inputs())
    data = read_data(request)
    quiet_libraries()

    from kvw.console import ConsoleReporter
    from kvw.runs.erase import erase as run
    from kvw.runs.plan import dry_run as plan

    result = plan(request, ConsoleReporter(), data) if dry_run else run(request, ConsoleReporter(), data)
    _print(result, out, json=json)
    end_strictly(strict, result.warnings)


def _print(found: Plan | RunRecord, out: Path, *, json: bool) -> None:
    from kvw.report.tables import print_plan, print_record
    from kvw.runs.plan import Plan

    if json:
        print_json(found.model_dump_json(indent=2))
    else:
        print_plan(found) if isinstance(found, Plan) else print_record(found, out)

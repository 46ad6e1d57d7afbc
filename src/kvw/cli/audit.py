"""``kvw audit``."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from kvw.cli.options import (
    DataOptions,
    Endpoint,
    Force,
    Json,
    LoadOptions,
    Model,
    OtherWeights,
    ServedName,
    ShowExamples,
    ThoughtTokens,
    ValueMatrices,
    check_output,
    find_model,
    print_json,
    quiet_libraries,
    refuse_beside_endpoint,
)
from kvw.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvw.models.checkpoint import Checkpoint
    from kvw.records.audit import AttackLine
    from kvw.runs.audit.request import AuditRequest

CAME_BACK = 7
"""Exit code of ``--fail-above``."""
LOAD_DEFAULTS = LoadOptions()
DATA_DEFAULTS = DataOptions()


@Parameter(name="*")
@dataclass(frozen=True)
class AttackOptions:
    """What is attacked, and how hard."""

    attacks: str | None = None
    """Names with commas between them; by default all that the data allow. docs/audit.md lists them."""
    rephrasings: Path | None = None
    """Other ways to ask, and other photos: a file like --forget, whose answers and subjects are those of --forget."""
    samples: int = 20
    """Answers that `samples` draws to each question."""
    budget: int = 20
    """Candidates that the logit lens may name."""
    steps: int = 100
    """Steps of relearning."""
    learning_rate: float = 1e-5
    """Learning rate of relearning."""
    at_most: int = 200
    """Most questions of the forget set that are asked; 0 for all."""
    max_new_tokens: int = 50
    """Longest answer in tokens."""


DEFAULTS = AttackOptions()


def audit(
    model: Model | None = None,
    *,
    forget: Annotated[list[Path], Parameter(negative="", help="The forget set, as for kvw erase. Repeatable.")],
    out: Annotated[Path, Parameter(help="Directory to write.")],
    edit: Annotated[Path | None, Parameter(help="Edit file to attach to MODEL.")] = None,
    retain: Annotated[Path | None, Parameter(help="Retain set: to train on, and for answers to choose from.")] = None,
    original: Annotated[
        str | None,
        Parameter(
            help="The model before; with --edit that is MODEL without it, unless given. With --endpoint what the "
            "server calls it."
        ),
    ] = None,
    gold: Annotated[str | None, Parameter(help="A model that never knew: what it gives is the floor.")] = None,
    fail_above: Annotated[
        float | None, Parameter(help="End with exit code 7 if an attack brings back more than that above the floor.")
    ] = None,
    endpoint: Endpoint = None,
    served_model: ServedName = None,
    thought_tokens: ThoughtTokens = 0,
    attacks: AttackOptions = DEFAULTS,
    dry_run: Annotated[
        bool, Parameter(negative="", help="Ask a few questions, and say which attacks would be made and how long.")
    ] = False,
    show_examples: ShowExamples = False,
    read: DataOptions = DATA_DEFAULTS,
    other_weights: OtherWeights = False,
    value_matrices: ValueMatrices = "",
    load: LoadOptions = LOAD_DEFAULTS,
    force: Force = False,
    json: Json = False,
) -> None:
    """Attack a model or an edit, and say which attacks bring back what was to be forgotten.

    The model is MODEL, or the one behind --endpoint, of which only replies can be attacked.
    OUT gets audit.json with every question and answer, and audit.html. What was found is kept: the same command goes
    on where it stopped.
    """
    from kvw.runs.audit.attacks import ATTACKS, parse_attacks
    from kvw.runs.audit.request import THRESHOLD, AuditRequest, Served

    if endpoint is not None:
        local = {"model": model, "edit": edit, "gold": gold, "other_weights": other_weights}
        refuse_beside_endpoint(**local, value_matrices=value_matrices, **asdict(load))
    elif model is None:
        raise UserError("There is no model to attack.", do="name a MODEL, or a server with --endpoint URL")
    elif served_model is not None or thought_tokens:
        raise UserError("--served-model and --thought-tokens are for a model behind a server.", do="add --endpoint URL")

    def found(name: str | None) -> Checkpoint | None:
        return find_model(name, value_matrices, load.template_option) if name is not None else None

    request = AuditRequest(
        model=found(model) or Served(endpoint or "", served_model, original, thought_tokens),
        forget=forget,
        out=out,
        edit=edit,
        retain=retain,
        original=found(original) if endpoint is None else None,
        gold=found(gold),
        rephrasings=attacks.rephrasings,
        attacks=parse_attacks(attacks.attacks) if attacks.attacks is not None else tuple(ATTACKS),
        samples=attacks.samples,
        budget=attacks.budget,
        steps=attacks.steps,
        learning_rate=attacks.learning_rate,
        at_most=attacks.at_most,
        max_new_tokens=attacks.max_new_tokens,
        threshold=THRESHOLD if fail_above is None else fail_above,
        show_examples=show_examples,
        other_weights=other_weights,
        force=force,
        device=load.device,
        quantise=load.quantise,
        reading=read.reading(),
    )
    check_output(out, force=force, keep=request.inputs())
    if dry_run:
        _plan(request, json=json)
        return
    lines = _run(request, json=json)
    if fail_above is not None and any(line.verdict == "comes back" for line in lines):
        sys.exit(CAME_BACK)


def _plan(request: AuditRequest, *, json: bool) -> None:
    from kvw.runs.audit.request import read_audit_data

    sets = read_audit_data(request)  # before torch is imported
    quiet_libraries()

    from kvw.console import ConsoleReporter
    from kvw.report.audit_tables import print_audit_plan
    from kvw.runs.audit.plan import dry_run

    planned = dry_run(request, ConsoleReporter(), sets)
    print_json(planned.model_dump_json(indent=1)) if json else print_audit_plan(planned)


def _run(request: AuditRequest, *, json: bool) -> Sequence[AttackLine]:
    from kvw.runs.audit.request import read_audit_data

    sets = read_audit_data(request)  # before torch is imported
    quiet_libraries()

    from kvw.console import ConsoleReporter
    from kvw.report.audit_tables import print_audit
    from kvw.runs.audit.run import audit

    record = audit(request, ConsoleReporter(), sets)
    print_json(record.model_dump_json(indent=1)) if json else print_audit(record, request.out)
    return record.lines

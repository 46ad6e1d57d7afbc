"""``kvw audit``."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from kvw.cli.options import (
    DATA_DEFAULTS,
    LOAD_DEFAULTS,
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
    print_result,
    refuse_beside_endpoint,
)
from kvw.errors import UserError
from kvw.exit_codes import ExitCode
from kvw.quiet import quiet_libraries

if TYPE_CHECKING:
    from kvw.models.checkpoint import Checkpoint
    from kvw.runs.audit.request import AuditRequest


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """What is attacked, and how hard."""

    forget: Annotated[list[Path], Parameter(negative="")]
    """The forget set, as for kvw erase. Repeatable."""
    out: Path
    """Directory to write."""
    edit: Path | None = None
    """Edit file to attach to MODEL."""
    retain: Path | None = None
    """Retain set: to train on, and for answers to choose from."""
    original: str | None = None
    """The model before; with --edit that is MODEL without it, unless given. With --endpoint what the server calls
    it."""
    gold: str | None = None
    """A model that never knew: what it gives is the floor."""
    fail_above: float | None = None
    """End with exit code 7 if an attack brings back more than that above the floor."""
    endpoint: Endpoint = None
    served_model: ServedName = None
    thought_tokens: ThoughtTokens = 0
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
    dry_run: Annotated[bool, Parameter(negative="")] = False
    """Ask a few questions, and say which attacks would be made and how long."""
    show_examples: ShowExamples = False
    read: DataOptions = DATA_DEFAULTS
    other_weights: OtherWeights = False
    value_matrices: ValueMatrices = ""
    load: LoadOptions = LOAD_DEFAULTS
    force: Force = False
    json: Json = False

    def request(self, model: str | None) -> AuditRequest:
        """The checked request.

        Raises:
            UserError: An option makes no sense, or does not go with another.
        """
        from kvw.runs.audit.attacks import ATTACKS, parse_attacks
        from kvw.runs.audit.request import THRESHOLD, AuditRequest, Served

        if self.endpoint is not None:
            local = {name: getattr(self, name) for name in ("edit", "gold", "other_weights", "value_matrices")}
            refuse_beside_endpoint(model=model, **local, **asdict(self.load))
        elif model is None:
            raise UserError("There is no model to attack.", do="name a MODEL, or a server with --endpoint URL")
        elif self.served_model is not None or self.thought_tokens:
            raise UserError(
                "--served-model and --thought-tokens are for a model behind a server.", do="add --endpoint URL"
            )

        def found(name: str | None) -> Checkpoint | None:
            return None if name is None else find_model(name, self.value_matrices, self.load.template_option)

        served = Served(self.endpoint or "", self.served_model, self.original, self.thought_tokens)
        return AuditRequest(
            model=found(model) or served,
            forget=self.forget,
            out=self.out,
            edit=self.edit,
            retain=self.retain,
            original=found(self.original) if self.endpoint is None else None,
            gold=found(self.gold),
            rephrasings=self.rephrasings,
            attacks=tuple(ATTACKS) if self.attacks is None else parse_attacks(self.attacks),
            samples=self.samples,
            budget=self.budget,
            steps=self.steps,
            learning_rate=self.learning_rate,
            at_most=self.at_most,
            max_new_tokens=self.max_new_tokens,
            threshold=THRESHOLD if self.fail_above is None else self.fail_above,
            show_examples=self.show_examples,
            other_weights=self.other_weights,
            force=self.force,
            device=self.load.device,
            quantise=self.load.quantise,
            reading=self.read.reading(),
        )


def audit(model: Model | None = None, *, asked: AuditOptions) -> None:
    """Attack a model or an edit, and say which attacks bring back what was to be forgotten.

    The model is MODEL, or the one behind --endpoint, of which only replies can be attacked.
    OUT gets audit.json with every question and answer, and audit.html. What was found is kept: the same command goes
    on where it stopped.
    """
    request = asked.request(model)
    check_output(asked.out, force=asked.force, keep=request.inputs())

    from kvw.runs.audit.request import read_audit_data

    sets = read_audit_data(request)  # before torch is imported
    quiet_libraries()

    from kvw.console import console_reporter
    from kvw.report.audit_tables import print_audit, print_audit_plan
    from kvw.runs.audit.plan import dry_run
    from kvw.runs.audit.run import audit as run

    if asked.dry_run:
        print_result(dry_run(request, console_reporter(), sets), print_audit_plan, json=asked.json)
        return
    record = run(request, console_reporter(), sets)
    print_result(record, print_audit, asked.out, json=asked.json)
    if asked.fail_above is not None and any(line.verdict == "comes back" for line in record.lines):
        sys.exit(ExitCode.CAME_BACK)

"""``kvw erase``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from kvw.cli.command import spelled
from kvw.cli.options import (
    DATA_DEFAULTS,
    KINDS_OF_DATA,
    LOAD_DEFAULTS,
    METHOD_DEFAULTS,
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
    print_result,
)
from kvw.errors import UserError
from kvw.quiet import quiet_libraries
from kvw.retain import SOURCES

if TYPE_CHECKING:
    from kvw.runs.request import EraseRequest

Forget = Annotated[
    list[Path] | None,
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
@dataclass(frozen=True, kw_only=True)
class EraseOptions:
    """What is forgotten, what must stay, and what is written."""

    forget: Forget = None
    requests: Path | None = None
    """Folder with a folder for each request, as a further --forget or --earlier each."""
    register: Path | None = None
    """Register whose open and done requests --requests must be; the folders are called by the pseudonyms."""
    retain: Retain = None
    out: Path
    """Run directory to write."""
    earlier: Annotated[list[Path] | None, Parameter(negative="")] = None
    """What kvw data keep has kept of an earlier request, whose data are gone. Repeatable."""
    earlier_key: Path | None = None
    """File with the key of earlier requests that are encrypted."""
    keep: float = 0.98
    """Share of what must stay that the edit has to leave, on questions that it was not made from."""
    neighbours: Path | None = None
    """Names, one a line, to ask the forget questions about; by default the model proposes them."""
    retain_sources: str = ",".join(SOURCES)
    """What must stay beside --retain, answered by the model itself: any of everyday, pictures, facts, text,
    neighbours and picture-neighbours, with commas between them, or none."""
    write_damaged: Annotated[bool, Parameter(negative="")] = False
    """Write an edit that loses what must stay, with a warning."""
    read: DataOptions = DATA_DEFAULTS
    options: MethodOptions = METHOD_DEFAULTS
    load: LoadOptions = LOAD_DEFAULTS
    eval: Annotated[list[str] | None, Parameter(negative="")] = None
    """NAME=FILE: score this file too, before and after. Repeatable. Of kvw itself: general, general-pictures."""
    eval_limit: int = 200
    """Score at most this many examples of each file; 0 for all."""
    max_new_tokens: int = 50
    """Longest answer in tokens."""
    no_model: Annotated[bool, Parameter(negative="--save-model")] = False
    """Do not write OUT/model/."""
    sign_key: Path | None = None
    """PEM file of an Ed25519 private key: sign OUT/evidence.json with it."""
    dry_run: Annotated[bool, Parameter(negative="")] = False
    """Print what was found and run one batch through every stage; write nothing."""
    show_examples: ShowExamples = False
    value_matrices: ValueMatrices = ""
    force: Force = False
    strict: Strict = False
    json: Json = False

    def request(self, model: str) -> EraseRequest:
        """The checked request.

        Raises:
            UserError: An option makes no sense, or a file that it names is not there.
        """
        settings, splits = self.options.settings(), parse_splits(self.eval or [])
        checkpoint = find_model(model, self.value_matrices, self.load.template_option)
        if self.sign_key is not None:
            from kvw.evidence.keys import private_key

            private_key(self.sign_key)

        from kvw.runs.request import EraseRequest
        from kvw.runs.union import requests_in

        if self.register is not None and self.requests is None:
            raise UserError("A register says who asked, not what.", found="--register", do="add --requests FOLDER")
        data, kept = requests_in(self.requests, self.register) if self.requests else ([], [])
        return EraseRequest(
            model=checkpoint,
            forget=[*(self.forget or []), *data],
            retain=self.retain,
            out=self.out,
            method=self.options.method,
            settings=settings,
            keep=self.keep,
            choose=self.options.choose,
            sources=parse_sources(self.retain_sources),
            neighbours=self.neighbours,
            write_damaged=self.write_damaged,
            splits=splits,
            evaluate_at_most=self.eval_limit,
            max_new_tokens=self.max_new_tokens,
            save_model=not self.no_model,
            force=self.force,
            show_examples=self.show_examples,
            device=self.load.device,
            quantise=self.load.quantise,
            reading=self.read.reading(),
            earlier=(*(self.earlier or ()), *kept),
            earlier_key=self.earlier_key,
            sign_key=self.sign_key,
            command=spelled("erase", str(checkpoint), self),
        )


def erase(model: Model, *, asked: EraseOptions) -> None:
    """Weaken what a model knows of the forget set and write an ordinary checkpoint, the edit and the numbers.

    Three options matter most: --keep, --neighbours and --strength. kvw methods lists the methods and their settings.
    OUT gets report.html, edit.safetensors (small, reversible), run.json, samples.jsonl, evidence.json and model/.
    """
    request = asked.request(model)
    check_output(asked.out, force=asked.force, keep=request.inputs())

    from kvw.runs.request import read_data

    data = read_data(request)
    quiet_libraries()

    from kvw.console import console_reporter
    from kvw.report.tables import print_plan, print_record
    from kvw.runs.erase import erase as run
    from kvw.runs.plan import dry_run

    if asked.dry_run:
        plan = dry_run(request, console_reporter(), data)
        print_result(plan, print_plan, json=asked.json)
        end_strictly(asked.strict, plan.warnings)
    else:
        record = run(request, console_reporter(), data)
        print_result(record, print_record, asked.out, json=asked.json)
        end_strictly(asked.strict, record.warnings)

"""``kvw evaluate``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from kvw.cli.launch import launched_rank
from kvw.cli.options import (
    DATA_DEFAULTS,
    LOAD_DEFAULTS,
    Data,
    DataOptions,
    Endpoint,
    Json,
    LoadOptions,
    Model,
    OtherWeights,
    ServedName,
    ThoughtTokens,
    ValueMatrices,
    find_model,
    print_json,
    refuse_beside_endpoint,
)
from kvw.errors import UserError
from kvw.quiet import quiet_libraries
from kvw.settings import check_at_least

if TYPE_CHECKING:
    from kvw.data.reading import Reading
    from kvw.evaluation.records import Evaluation


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What is asked, and whom."""

    data: Data
    edit: Path | None = None
    """Edit file to attach."""
    endpoint: Endpoint = None
    served_model: ServedName = None
    max_new_tokens: int = 50
    """Longest answer in tokens."""
    thought_tokens: ThoughtTokens = 0
    samples: Path | None = None
    """Write every question and answer to this JSONL file."""
    other_weights: OtherWeights = False
    value_matrices: ValueMatrices = ""
    read: DataOptions = DATA_DEFAULTS
    load: LoadOptions = LOAD_DEFAULTS
    json: Json = False


def evaluate(model: Model | None = None, *, asked: EvaluateOptions) -> None:
    """Ask a model the questions of a file and score the answers; with an edit, both with and without it.

    The model is MODEL, or the one behind --endpoint. An interrupted evaluation goes on where it stopped.
    """
    from kvw.runs.first_checks import check_edit_files, check_samples_output

    reading = asked.read.reading()
    check_at_least("--max-new-tokens", asked.max_new_tokens, 1)
    check_samples_output(asked.samples if launched_rank() is None else None)
    if asked.endpoint is None:
        check_edit_files([asked.edit] if asked.edit else [])
        if asked.thought_tokens:
            raise UserError("--thought-tokens is for a model behind a server.", do="add --endpoint URL")
        result = _loaded(model, asked, reading)
    else:
        local = {name: getattr(asked, name) for name in ("edit", "other_weights", "value_matrices")}
        refuse_beside_endpoint(model=model, **local, **asdict(asked.load))
        result = _served(asked.endpoint, asked, reading)

    from kvw.report.tables import print_evaluations, summaries_json

    print_json(summaries_json(result)) if asked.json else print_evaluations(result)


def _loaded(model: str | None, asked: EvaluateOptions, reading: Reading) -> dict[str, Evaluation]:
    if model is None:
        raise UserError("There is no model to ask.", do="name a MODEL, or a server with --endpoint URL")
    if asked.served_model is not None:
        raise UserError("--served-model is the name of a model behind a server.", do="add --endpoint URL")
    checkpoint = find_model(model, asked.value_matrices, asked.load.template_option)
    from kvw.data.readers import read_examples

    read_examples(asked.data, reading)
    quiet_libraries()

    from kvw.console import ConsoleReporter
    from kvw.edits import load_edit
    from kvw.runs.evaluate import evaluate as run

    return run(
        checkpoint,
        asked.data,
        ConsoleReporter(),
        reading=reading,
        edit=load_edit(asked.edit) if asked.edit else None,
        max_new_tokens=asked.max_new_tokens,
        samples=asked.samples,
        other_weights=asked.other_weights,
        device=asked.load.device,
        quantise=asked.load.quantise,
    )


def _served(endpoint: str, asked: EvaluateOptions, reading: Reading) -> dict[str, Evaluation]:
    from kvw.data.readers import read_examples

    read_examples(asked.data, reading)

    from kvw.console import ConsoleReporter
    from kvw.evaluation.endpoint import EndpointModel
    from kvw.runs.evaluate import evaluate_served

    server = EndpointModel(endpoint, asked.served_model, thought_tokens=asked.thought_tokens)
    return evaluate_served(
        server,
        asked.data,
        ConsoleReporter(),
        reading=reading,
        max_new_tokens=asked.max_new_tokens,
        samples=asked.samples,
    )

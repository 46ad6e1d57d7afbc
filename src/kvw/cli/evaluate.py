"""``kvw evaluate``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    quiet_libraries,
    refuse_beside_endpoint,
)
from kvw.errors import UserError

if TYPE_CHECKING:
    from kvw.data.reading import Reading
    from kvw.evaluation.records import Evaluation


def evaluate(
    model: Model | None = None,
    *,
    data: Data,
    edit: Annotated[Path | None, Parameter(help="Edit file to attach.")] = None,
    endpoint: Endpoint = None,
    served_model: ServedName = None,
    max_new_tokens: Annotated[int, Parameter(help="Longest answer in tokens.")] = 50,
    thought_tokens: ThoughtTokens = 0,
    samples: Annotated[Path | None, Parameter(help="Write every question and answer to this JSONL file.")] = None,
    other_weights: OtherWeights = False,
    value_matrices: ValueMatrices = "",
    read: DataOptions = DATA_DEFAULTS,
    load: LoadOptions = LOAD_DEFAULTS,
    json: Json = False,
) -> None:
    """Ask a model the questions of a file and score the answers; with an edit, both with and without it.

    The model is MODEL, or the one behind --endpoint. An interrupted evaluation goes on where it stopped.
    """
    from kvw.runs.first_checks import check_edit_files, check_longest_answer, check_samples_output

    reading = read.reading()
    check_longest_answer(max_new_tokens)
    check_samples_output(samples if launched_rank() is None else None)
    if endpoint is None:
        check_edit_files([edit] if edit else [])
        if thought_tokens:
            raise UserError("--thought-tokens is for a model behind a server.", do="add --endpoint URL")
        result = _loaded(
            model, served_model, value_matrices, data, reading, edit, max_new_tokens, samples, other_weights, load
        )
    else:
        local = {"model": model, "edit": edit, "other_weights": other_weights, "value_matrices": value_matrices}
        refuse_beside_endpoint(**local, **asdict(load))
        result = _served(endpoint, served_model, data, reading, max_new_tokens, thought_tokens, samples)

    from kvw.report.tables import print_evaluations, summaries_json

    if json:
        print_json(summaries_json(result))
    else:
        print_evaluations(result)


def _loaded(
    model: str | None,
    served_model: str | None,
    value_matrices: str,
    data: Path,
    reading: Reading,
    edit: Path | None,
    max_new_tokens: int,
    samples: Path | None,
    other_weights: bool,
    load: LoadOptions,
) -> dict[str, Evaluation]:
    if model is None:
        raise UserError("There is no model to ask.", do="name a MODEL, or a server with --endpoint URL")
    if served_model is not None:
        raise UserError("--served-model is the name of a model behind a server.", do="add --endpoint URL")
    checkpoint = find_model(model, value_matrices, load.template_option)
    from kvw.data.readers import read_examples

    read_examples(data, reading)
    quiet_libraries()

    from kvw.console import ConsoleReporter
    from kvw.edits import load_edit
    from kvw.runs.evaluate import evaluate as run

    return run(
        checkpoint,
        data,
        ConsoleReporter(),
        reading=reading,
        edit=load_edit(edit) if edit else None,
        max_new_tokens=max_new_tokens,
        samples=samples,
        other_weights=other_weights,
        device=load.device,
        quantise=load.quantise,
    )


def _served(
    endpoint: str,
    served_model: str | None,
    data: Path,
    reading: Reading,
    max_new_tokens: int,
    thought_tokens: int,
    samples: Path | None,
) -> dict[str, Evaluation]:
    from kvw.data.readers import read_examples

    read_examples(data, reading)

    from kvw.console import ConsoleReporter
    from kvw.evaluation.endpoint import EndpointModel
    from kvw.runs.evaluate import evaluate_served

    server = EndpointModel(endpoint, served_model, thought_tokens=thought_tokens)
    return evaluate_served(
        server, data, ConsoleReporter(), reading=reading, max_new_tokens=max_new_tokens, samples=samples
    )

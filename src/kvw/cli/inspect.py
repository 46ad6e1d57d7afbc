"""``kvw inspect``: where a model keeps its knowledge vectors, and where they are active."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from kvw.cli.launch import run_by_the_first
from kvw.cli.options import (
    DATA_DEFAULTS,
    Data,
    DataOptions,
    Json,
    Model,
    ValueMatrices,
    find_model,
    print_json,
    print_result,
)
from kvw.quiet import quiet_libraries


def structure(model: Model, *, value_matrices: ValueMatrices = "", json: Json = False) -> None:
    """Print where a model keeps its knowledge vectors; reads the configuration only, no weights."""
    checkpoint = find_model(model, value_matrices, weights=False)
    quiet_libraries()

    from kvw.report.tables import print_structure
    from kvw.runs.inspect import inspect as run

    layout = run(checkpoint)
    print_result(layout, print_structure, json=json)


def activations(
    model: Model,
    *,
    data: Data,
    out: Annotated[Path, Parameter(help="Page to write (.html). It is confidential: it shows questions and answers.")],
    retain: Annotated[
        Path | None,
        Parameter(help="What the accessor holds the data against. Default: the mean of each layer."),
    ] = None,
    examples: Annotated[int, Parameter(help="How many examples to look at.")] = 4,
    device: str | None = None,
    read: DataOptions = DATA_DEFAULTS,
    value_matrices: ValueMatrices = "",
    json: Json = False,
) -> None:
    """Show where in a question and its answer the coefficients are large: layers by tokens, with the classes image,
    template, question and answer, and the ratio of answer to other in every layer."""
    from kvw.data.readers import read_examples
    from kvw.runs.first_checks import check_page_output

    checkpoint = find_model(model, value_matrices)
    check_page_output(out, [data, *([retain] if retain else [])])
    reading = read.reading()
    for file in (data, retain):
        if file is not None:
            read_examples(file, reading)
    quiet_libraries()

    from kvw.console import ConsoleReporter
    from kvw.files import write_text
    from kvw.pages.activations_page import activations_page
    from kvw.runs.activations import activations as run

    record = run(checkpoint, data, ConsoleReporter(), retain=retain, examples=examples, device=device, reading=reading)
    write_text(out, activations_page(record))
    print_json(record.model_dump_json(indent=2)) if json else print(out)


inspect = App(name="inspect", help="Print where a model keeps its knowledge vectors.")
inspect.default(run_by_the_first(structure))
inspect.command(run_by_the_first(activations))

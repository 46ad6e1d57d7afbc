"""``kvw measure``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from kvw.cli.launch import launched_rank
from kvw.cli.options import (
    DATA_DEFAULTS,
    LOAD_DEFAULTS,
    Data,
    DataOptions,
    Force,
    Json,
    LoadOptions,
    Model,
    ValueMatrices,
    find_model,
    print_result,
)
from kvw.quiet import quiet_libraries


def measure(
    model: Model,
    *,
    data: Data,
    out: Annotated[Path, Parameter(help="Statistics file to write (.safetensors).")],
    positions: Annotated[Literal["answer", "all"], Parameter(help="Which positions count.")] = "answer",
    value_matrices: ValueMatrices = "",
    read: DataOptions = DATA_DEFAULTS,
    load: LoadOptions = LOAD_DEFAULTS,
    force: Force = False,
    json: Json = False,
) -> None:
    """Measure the mean coefficients of all layers on a data set. Some methods take the file as kvw erase --retain."""
    from kvw.data.readers import read_examples
    from kvw.runs.first_checks import check_statistics_output

    checkpoint = find_model(model, value_matrices, load.template_option)
    if launched_rank() is None:  # of several processes one looks for all of them, once they have found each other
        check_statistics_output(out, data, force=force)
    reading = read.reading()
    read_examples(data, reading)
    quiet_libraries()

    from kvw.console import ConsoleReporter
    from kvw.report.tables import print_statistics
    from kvw.runs.measure import measure as run
    from kvw.runs.measure import summarise

    measured = run(
        checkpoint,
        data,
        out,
        ConsoleReporter(),
        reading=reading,
        positions=positions,
        force=force,
        device=load.device,
        quantise=load.quantise,
    )
    summary = summarise(measured.statistics)
    print_result(summary, print_statistics, out, json=json)

"""``kvw inspect MODEL``."""

from __future__ import annotations

from kvw.cli.options import Json, Model, ValueMatrices, find_model, print_result, quiet_libraries


def structure(model: Model, *, value_matrices: ValueMatrices = "", json: Json = False) -> None:
    """Print where a model keeps its knowledge vectors; reads the configuration only, no weights."""
    checkpoint = find_model(model, value_matrices, weights=False)
    quiet_libraries()

    from kvw.report.tables import print_structure
    from kvw.runs.inspect import inspect as run

    layout = run(checkpoint)
    print_result(layout, print_structure, json=json)

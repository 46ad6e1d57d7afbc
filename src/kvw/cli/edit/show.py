"""``kvw edit show``."""

from __future__ import annotations

from kvw.cli.edit.options import EditFile
from kvw.cli.options import Json, print_result


def show(edit: EditFile, *, json: Json = False) -> None:
    """Print where an edit comes from and how much it weakens, layer by layer."""
    from kvw.runs.first_checks import check_edit_files

    check_edit_files([edit])

    from kvw.edits import load_edit
    from kvw.report.tables import print_edit
    from kvw.runs.edits import summarise

    summary = summarise(load_edit(edit), edit)
    print_result(summary, print_edit, json=json)

"""``kvw edit diff``."""

from __future__ import annotations

from kvw.cli.edit.options import EditFile
from kvw.cli.options import Json, print_result


def diff(first: EditFile, second: EditFile, *, json: Json = False) -> None:
    """Compare two edits layer by layer: which knowledge vectors they weaken, and how alike."""
    from kvw.runs.first_checks import check_edit_files

    check_edit_files([first, second])

    from kvw.edits import diff as run
    from kvw.edits import load_edit
    from kvw.report.tables import print_difference

    difference = run(load_edit(first), load_edit(second))
    print_result(difference, print_difference, json=json)

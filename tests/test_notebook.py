"""The notebook runs, and does what it says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "first_steps.ipynb"


def texts(cell):
    """What a cell printed and returned."""
    found = [one.get("text") or one.get("data", {}).get("text/plain", "") for one in cell.get("outputs", [])]
    return "".join("".join(one) for one in found)


@pytest.mark.slow
def test_the_notebook_runs_and_forgets():
    nbformat = pytest.importorskip("nbformat", reason="make test-slow installs the extra docs")
    nbclient = pytest.importorskip("nbclient")
    stored = nbformat.read(NOTEBOOK, as_version=4)
    assert all(cell.outputs for cell in stored.cells if cell.cell_type == "code")
    ran = nbformat.from_dict(stored)
    nbclient.NotebookClient(ran, timeout=600, kernel_name="python3").execute()
    found = [texts(cell) for cell in ran.cells if cell.cell_type == "code"]
    before = ast.literal_eval(found[2])
    after = dict(line.split(" ", 1) for line in found[4].splitlines())
    assert ast.literal_eval(after["undone"]) == before
    edited = ast.literal_eval(after["edited"])
    assert before["forget"][0] > 0.9
    assert edited["forget"][0] < before["forget"][0] / 2
    assert edited["retain"][0] > edited["forget"][0]

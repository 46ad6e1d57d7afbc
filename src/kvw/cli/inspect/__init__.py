"""``kvw inspect``: where a model keeps its knowledge vectors, and where they are active; one file for each verb."""

from __future__ import annotations

from cyclopts import App

from kvw.cli.inspect.activations import activations
from kvw.cli.inspect.structure import structure
from kvw.cli.launch import run_by_the_first

inspect = App(name="inspect", help="Print where a model keeps its knowledge vectors.")
inspect.default(run_by_the_first(structure))
inspect.command(run_by_the_first(activations))

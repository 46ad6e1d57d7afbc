"""``kvw edit``: what can be done with edit files; one file for each verb."""

from __future__ import annotations

from cyclopts import App

from kvw.cli.edit.anchor import anchor
from kvw.cli.edit.compose import compose
from kvw.cli.edit.diff import diff
from kvw.cli.edit.export import export
from kvw.cli.edit.importing import import_
from kvw.cli.edit.invert import invert
from kvw.cli.edit.mix import mix
from kvw.cli.edit.scale import scale
from kvw.cli.edit.show import show
from kvw.cli.launch import run_by_the_first

edit = App(name="edit", help="Look at edit files, put them together, undo them, and turn them into PEFT adapters.")
for verb in (show, diff, compose, scale, mix, anchor, invert, export):
    edit.command(run_by_the_first(verb))
edit.command(run_by_the_first(import_), name="import")

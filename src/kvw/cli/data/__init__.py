"""``kvw data``: what can be done with data files before a run; one file for each verb."""

from __future__ import annotations

from cyclopts import App

from kvw.cli.data.build import build
from kvw.cli.data.check import check
from kvw.cli.data.keep import keep
from kvw.cli.launch import run_by_the_first

data = App(
    name="data",
    help="Make the data files of a request to forget, check them before a run, or keep what later ones need.",
)
for verb in (build, check, keep):
    data.command(run_by_the_first(verb))

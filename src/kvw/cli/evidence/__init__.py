"""``kvw evidence``: what a run leaves for others to verify."""

from __future__ import annotations

from cyclopts import App

from kvw.cli.evidence.sign import sign
from kvw.cli.launch import run_by_the_first

evidence = App(name="evidence", help="Sign the evidence of a run. kvw verify checks it.")
evidence.command(run_by_the_first(sign))

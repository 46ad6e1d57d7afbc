"""``kvw bench``: benchmark runs from recipes. Verbs that make runs, show them, and ask them further questions."""

from __future__ import annotations

from cyclopts import App

from kvw.cli.bench.asking import attack, calibrate, cost, unlok
from kvw.cli.bench.running import ls, recipes, run, validate
from kvw.cli.bench.showing import plot, table
from kvw.cli.launch import run_by_the_first

bench = App(name="bench", help="Run benchmarks from recipes: unlearn, choose settings on one half, report the other.")
for verb in (ls, recipes, validate, run, table, plot, attack, calibrate, unlok, cost):
    bench.command(run_by_the_first(verb))

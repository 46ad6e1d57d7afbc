"""``kvw bench``: benchmark runs from recipes; one file for each verb."""

from __future__ import annotations

from cyclopts import App

from kvw.cli.bench.attack import attack
from kvw.cli.bench.calibrate import calibrate
from kvw.cli.bench.cost import cost
from kvw.cli.bench.listing import ls
from kvw.cli.bench.run import run
from kvw.cli.bench.table import table
from kvw.cli.bench.unlok import unlok
from kvw.cli.bench.validate import validate
from kvw.cli.launch import run_by_the_first

bench = App(name="bench", help="Run benchmarks from recipes: unlearn, choose settings on one half, report the other.")
for verb in (ls, validate, run, table, attack, calibrate, unlok, cost):
    bench.command(run_by_the_first(verb))

"""``kvw cache``: what is kept between runs; one file for each verb."""

from __future__ import annotations

from cyclopts import App

from kvw.cli.cache.clear import clear
from kvw.cli.cache.listing import ls
from kvw.cli.launch import run_by_the_first

cache = App(name="cache", help="See and remove what is kept between runs: answers, statistics, digests.")
for verb in (ls, clear):
    cache.command(run_by_the_first(verb))

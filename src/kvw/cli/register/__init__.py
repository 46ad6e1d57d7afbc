"""``kvw register``: who asked to be forgotten, when, what was done, and where it still is; one file for each verb."""

from __future__ import annotations

from cyclopts import App

from kvw.cli.launch import run_by_the_first
from kvw.cli.register.add import add
from kvw.cli.register.close import close
from kvw.cli.register.export import export
from kvw.cli.register.link import link
from kvw.cli.register.listing import list_
from kvw.cli.register.retire import retire
from kvw.cli.register.show import show
from kvw.cli.register.verify import verify

register = App(
    name="register",
    help="Keep a register of requests to forget: pseudonyms, dates, runs and models; entries are never changed.",
)
for verb in (add, link, retire, close, show, export, verify):
    register.command(run_by_the_first(verb))
register.command(run_by_the_first(list_), name="list")

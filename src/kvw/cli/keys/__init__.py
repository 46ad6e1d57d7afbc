"""``kvw keys``: who may ask a server for which edits; one file for each verb."""

from __future__ import annotations

from cyclopts import App

from kvw.cli.keys.add import add
from kvw.cli.keys.listing import ls
from kvw.cli.keys.remove import remove
from kvw.cli.launch import run_by_the_first

keys = App(name="keys", help="Make and revoke the keys of clients of kvw serve.")
for verb in (add, remove, ls):
    keys.command(run_by_the_first(verb))

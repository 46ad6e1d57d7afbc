"""The command line program: a thin shell over the library."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError
from rich.console import Console

from kvw._version import __version__
from kvw.cli.apply import apply
from kvw.cli.audit import audit
from kvw.cli.bench import bench
from kvw.cli.cache import cache
from kvw.cli.chat import chat
from kvw.cli.data import data
from kvw.cli.demo import demo
from kvw.cli.edit import edit
from kvw.cli.env import env
from kvw.cli.erase import erase
from kvw.cli.evaluate import evaluate
from kvw.cli.evidence import evidence
from kvw.cli.inspect import inspect
from kvw.cli.keys import keys
from kvw.cli.launch import only_the_first_speaks, run_by_the_first, shared_by_all, speaks_for_all
from kvw.cli.measure import measure
from kvw.cli.methods import methods
from kvw.cli.push import push
from kvw.cli.register import register
from kvw.cli.report import report
from kvw.cli.run import run
from kvw.cli.secrets import secrets
from kvw.cli.serve import serve
from kvw.cli.sweep import sweep
from kvw.cli.verify import verify
from kvw.cli.worker import worker
from kvw.errors import UserError
from kvw.exit_codes import ExitCode, code_of

app = App(
    name="kvw",
    help="Forget people and facts in a vision-language model, with forward passes only.",
    version=__version__,
    help_epilogue="Start with: kvw demo",
    suppress_keyboard_interrupt=False,
)
for verb in (erase, methods, measure, apply, evaluate, audit, report, chat, serve, verify, demo, env, worker, push):
    app.command(shared_by_all(verb) if verb in (erase, measure, evaluate) else run_by_the_first(verb))
app.command(run)  # the command that it runs is shared, or run by the first
app.command(data)
app.command(cache)
app.command(inspect)
app.command(edit)
app.command(bench)
app.command(sweep)
app.command(evidence)
app.command(register)
app.command(keys)
app.command(secrets)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit with one of :class:`kvw.exit_codes.ExitCode`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character is no reason to stop
    messages = Console(stderr=True, highlight=False, emoji=False)
    try:
        with only_the_first_speaks():
            app(arguments, exit_on_error=False)
    except CycloptsError as error:
        speaks_for_all(error)  # cyclopts has printed what is wrong
        sys.exit(ExitCode.USER_ERROR)
    except UserError as error:
        if speaks_for_all(error):
            messages.print("[red]error[/red]", end=" ")
            messages.print(str(error), markup=False, soft_wrap=True)
        sys.exit(code_of(error))
    except KeyboardInterrupt as error:
        if speaks_for_all(error):
            messages.print("interrupted; no output was written; the same command goes on from what was kept")
        sys.exit(ExitCode.INTERRUPTED)

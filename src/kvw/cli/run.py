"""``kvw run``."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import CycloptsError, Parameter

from kvw.cli.launch import speaks_for_all
from kvw.cli.options import print_json
from kvw.cli.request_file import RequestFile, given_options, read_request_file, refused
from kvw.console import ConsoleReporter, logging_to
from kvw.errors import UserError
from kvw.exit_codes import ExitCode, code_of
from kvw.log_lines import JsonLines, Level, OnlyFrom

if TYPE_CHECKING:
    from kvw.progress import Reporter

RECORDS = ("run.json", "audit.json")
"""What a command prints with ``--json``, as it lies in its output."""


def run(
    file: Annotated[Path, Parameter(help="Request (TOML): command = 'erase' or 'audit', and its options.")],
    *,
    json: Annotated[
        bool,
        Parameter(name="--json", negative="", help="Log lines of JSON on stderr, and print the result so on stdout."),
    ] = False,
    log_level: Annotated[Level, Parameter(help="The least that is logged.")] = "info",
) -> None:
    """Do what a file asks for, unless it is done already.

    The file has the options of its command without the dashes; paths in it start from its folder, and ${NAME} is an
    environment variable. If the output holds the result of the same request on the same data, nothing is done.
    """
    lines = JsonLines(log_level)
    reporter: Reporter = lines if json else OnlyFrom(ConsoleReporter(), log_level)
    with _errors_as_lines(lines) if json else contextlib.nullcontext(), logging_to(reporter):
        asked = read_request_file(file)
        _keep_cache_place()
        with contextlib.chdir(file.parent):
            _run_unless_done(asked, reporter, json=json)


def _run_unless_done(file: RequestFile, reporter: Reporter, *, json: bool) -> None:
    command, arguments = _parsed(file, json=json)
    asked = arguments["asked"]
    asked.request(arguments.get("model"))  # what is wrong is told before large files are read

    from kvw.mark import asked as marked_as
    from kvw.mark import marked_request
    from kvw.runs.asked import changes, request_digests

    if getattr(asked, "endpoint", None) is not None:  # nobody knows whether a server has the same model as before
        return command(**arguments)
    digests = request_digests(given_options(arguments), asked.read.reading())
    before = marked_request(asked.out)
    if before is not None:
        changed = changes(before, digests)
        if not changed:
            return _tell_done(file, asked.out, reporter, json=json)
        if not asked.force:
            raise UserError(
                f"{asked.out} has the result of another request than {file.path} is now.",
                found=f"changed since: {', '.join(changed)}",
                do="name another out, or say force = true to replace the result",
            )
        reporter.note(f"{asked.out} is replaced; changed since: {', '.join(changed)}.")
    with marked_as(asked.out, digests):
        command(**arguments)


def _parsed(file: RequestFile, *, json: bool) -> tuple[Callable[..., None], dict[str, Any]]:
    from kvw.cli import app

    try:
        command, bound, _ = app.parse_args(
            [*file.words, *(["--json"] if json else [])], exit_on_error=False, print_error=False
        )
    except CycloptsError as error:
        raise refused(file, error) from error
    return command, bound.arguments


def _tell_done(file: RequestFile, out: Path, reporter: Reporter, *, json: bool) -> None:
    reporter.note(f"{file.path} is done already: {out} has the result, and the file and its data are as they were.")
    for record in (out / name for name in RECORDS):
        if json and record.is_file():
            print_json(record.read_text("utf-8"))


def _keep_cache_place() -> None:
    """Paths in the file start from its folder; that of the cache does not."""
    if place := os.environ.get("KVW_CACHE"):
        os.environ["KVW_CACHE"] = str(Path(place).absolute())


@contextlib.contextmanager
def _errors_as_lines(lines: JsonLines) -> Iterator[None]:
    """End with a line of JSON in place of a message or a traceback.

    Raises:
        SystemExit: With the exit code of what the block raised.
    """
    try:
        yield
    except UserError as error:
        if speaks_for_all(error):
            lines.tell("error", "error", error.what, found=error.found, do=error.do, exit_code=code_of(error))
        raise SystemExit(code_of(error)) from error
    except KeyboardInterrupt as error:
        if speaks_for_all(error):
            lines.tell("error", "interrupted", "no output was written", exit_code=ExitCode.INTERRUPTED)
        raise SystemExit(ExitCode.INTERRUPTED) from error
    except Exception as error:  # told like everything else, and then it ends the program
        lines.tell("error", "fault", repr(error), traceback=traceback.format_exc(), exit_code=ExitCode.FAULT)
        raise SystemExit(ExitCode.FAULT) from error

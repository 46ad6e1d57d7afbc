"""``kvw keys``: who may ask a server for which edits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from kvw.cli.launch import run_by_the_first

KeyFile = Annotated[Path, Parameter(help="File of keys.")]


def add(
    file: Annotated[Path, Parameter(help="File of keys; made if it is not there.")],
    name: Annotated[str, Parameter(help="Whose key it is.")],
    *,
    model: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="What the key opens: an edit, several joined by '+', or 'none' for the model without any. Repeatable; "
            "the model's own name stands for the first.",
        ),
    ] = None,
    metrics: Annotated[bool, Parameter(negative="", help="Let the key read /metrics.")] = False,
) -> None:
    """Make a key and print it, once; the file keeps its SHA-256. Servers that run take it at their next request."""
    from kvw.serving.keys import add_key

    secret = add_key(file, name, model or [], metrics=metrics)
    print(f"The key of '{name}' is on the next line. It is kept nowhere; {file} has its SHA-256.", file=sys.stderr)
    print(secret)


def remove(file: KeyFile, name: Annotated[str, Parameter(help="Whose key it is.")]) -> None:
    """Revoke a key; servers that run refuse it from their next request on."""
    from kvw.serving.keys import remove_key

    remove_key(file, name)
    print(f"The key of '{name}' is revoked.")


def ls(file: KeyFile) -> None:
    """Print whose keys there are, and what each opens."""
    from kvw.serving.keys import read_keys

    for key in read_keys(file).keys:
        opens = [*key.models, *(["/metrics"] if key.metrics else [])]
        print(f"{key.name}  {key.sha256[:12]}  {', '.join(opens)}")


keys = App(name="keys", help="Make and revoke the keys of clients of kvw serve.")
for verb in (add, remove, ls):
    keys.command(run_by_the_first(verb))

"""``kvw keys add``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


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

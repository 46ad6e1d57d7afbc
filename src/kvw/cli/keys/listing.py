"""``kvw keys ls``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def ls(file: Annotated[Path, Parameter(help="File of keys.")]) -> None:
    """Print whose keys there are, and what each opens."""
    from kvw.serving.keys import read_keys

    for key in read_keys(file).keys:
        opens = [*key.models, *(["/metrics"] if key.metrics else [])]
        print(f"{key.name}  {key.sha256[:12]}  {', '.join(opens)}")

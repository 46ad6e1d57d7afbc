"""``kvw keys remove``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def remove(
    file: Annotated[Path, Parameter(help="File of keys.")], name: Annotated[str, Parameter(help="Whose key it is.")]
) -> None:
    """Revoke a key; servers that run refuse it from their next request on."""
    from kvw.serving.keys import remove_key

    remove_key(file, name)
    print(f"The key of '{name}' is revoked.")

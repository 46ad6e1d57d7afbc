"""``kvw push``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def push(
    folder: Annotated[Path, Parameter(help="Model or adapter that kvw has written: RUN/model, or of kvw apply.")],
    name: Annotated[str, Parameter(help="owner/name on the hub; a repository is made if there is none.")],
    *,
    branch: Annotated[str, Parameter(help="Made if there is none.")] = "main",
    public: Annotated[bool, Parameter(negative="", help="Everybody may read the repository.")] = False,
) -> None:
    """Push a model with its card to the hub, into a private repository unless --public is given.

    The token is that of hf auth login, or HF_TOKEN. A run is never pushed: its samples hold the forget set.
    """
    from kvw.runs.push import check_pushed

    check_pushed(folder, name)

    from kvw.console import ConsoleReporter
    from kvw.runs.push import push as run

    print(run(folder, name, ConsoleReporter(), branch=branch, public=public))

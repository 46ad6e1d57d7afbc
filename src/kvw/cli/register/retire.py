"""``kvw register retire``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from kvw.cli.register.options import DEFAULT, File, print_head


def retire(
    weights: Annotated[str, Parameter(help="SHA-256 of its weights, or eight digits of it: kvw register show.")],
    *,
    file: File = DEFAULT,
) -> None:
    """Say that a model is kept nowhere any more, so that it holds nothing."""
    from kvw.register.requests import retire as enter

    entry = enter(file, weights)
    print(f"The model {entry.fields['weights'][:16]} is entered as retired.")
    print_head(entry.head)

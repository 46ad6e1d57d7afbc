"""Names that must be known: of methods, benchmarks, settings and the like."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from kvw.errors import UserError
from kvw.printable import shortened


def known(name: str, names: Mapping[str, object], what: str, where: str = "kvw") -> str:
    """Check that a name is one of those that exist.

    Raises:
        UserError: There is no such name; the message proposes the closest one.
    """
    if name in names:
        return name
    alike = [name, name.lower().replace("_", "-")]
    close = [one for text in alike for one in difflib.get_close_matches(text, names, n=1)]
    listed = ", ".join(names) or "(none)"
    raise UserError(
        f"There is no {what} {shortened(name)!r} in {where}.",
        found=f"{what}s: {listed}",
        do=f"did you mean {close[0]!r}?" if close else f"choose one of {listed}",
    )

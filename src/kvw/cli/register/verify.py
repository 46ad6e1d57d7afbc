"""``kvw register verify``."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.exit_codes import ExitCode
from kvw.cli.register.options import DEFAULT, File


def verify(
    *,
    head: Annotated[
        str, Parameter(help="A head that was printed or exported earlier: the register must have grown from it.")
    ] = "",
    file: File = DEFAULT,
) -> None:
    """Find out whether the register is what was written; ends with exit code 6 if not.

    Without a head that is known from elsewhere, entries that were cut off at the end, or a register that was written
    anew from the beginning, cannot be found.
    """
    from kvw.register.chain import examine, grown_from

    entries, wrong = examine(file)
    if head and not wrong:
        wrong = grown_from(entries, head)
    for said in wrong:
        print(f"fails: {said}")
    if wrong:
        sys.exit(ExitCode.NOT_VERIFIED)
    print(f"All {len(entries)} entries are as they were written; head {entries[-1].head if entries else 'none'}")
    print(
        f"The register has grown from {head}."
        if head
        else "Whether entries were cut off at the end cannot be seen without an earlier head (--head)."
    )

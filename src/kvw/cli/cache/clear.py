"""``kvw cache clear``."""

from __future__ import annotations

from kvw.errors import UserError


def clear() -> None:
    """Remove what is kept between runs and can be made again. No run may be going on.

    Models that were made once stay, and the secret with which digests in records are keyed.
    """
    from kvw.cache import cache_directory
    from kvw.cache import clear as remove

    try:
        found = remove()
    except OSError as error:
        raise UserError("The cache cannot be removed.", found=str(error), do="end other runs, and try again") from error
    files, size = sum(one.files for one in found), sum(one.bytes for one in found)
    print(f"{files:,} files of {size / 1e6:,.1f} MB were removed from {cache_directory()}.")

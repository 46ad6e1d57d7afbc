"""``kvw cache``: what is kept between runs."""

from __future__ import annotations

import json as json_
from dataclasses import asdict

from cyclopts import App

from kvw.cli.launch import run_by_the_first
from kvw.cli.options import Json, print_json
from kvw.errors import UserError


def ls(*, json: Json = False) -> None:
    """List what is kept between runs, with the space that it takes."""
    from kvw.cache import KINDS, cache_directory, kept

    found = kept()
    if json:
        print_json(json_.dumps([asdict(one) for one in found], indent=2))
        return
    print(cache_directory())
    for one in found:
        print(f"{one.kind:<11}{one.files:>7,} files {one.bytes / 1e6:>9,.1f} MB  {KINDS[one.kind]}")
    if not found:
        print("Nothing is kept.")


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


cache = App(name="cache", help="See and remove what is kept between runs: answers, statistics, digests.")
for verb in (ls, clear):
    cache.command(run_by_the_first(verb))

"""``kvw cache ls``."""

from __future__ import annotations

from kvw.cli.options import Json, print_json


def ls(*, json: Json = False) -> None:
    """List what is kept between runs, with the space that it takes."""
    import json as json_
    from dataclasses import asdict

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

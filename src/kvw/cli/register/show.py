"""``kvw register show``."""

from __future__ import annotations

from kvw.cli.options import Json, print_json
from kvw.cli.register.options import DEFAULT, File, Number


def show(number: Number, *, file: File = DEFAULT, json: Json = False) -> None:
    """Show one request: its runs, the models that still hold it, and those that do not any more."""
    from kvw.register.chain import read
    from kvw.register.requests import numbered, requests

    request = numbered(requests(read(file)), number)

    from kvw.register.export import as_json
    from kvw.report.register import print_request

    if json:
        print_json(as_json([request]))
    else:
        print_request(request)

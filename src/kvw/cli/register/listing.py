"""``kvw register list``."""

from __future__ import annotations

from kvw.cli.options import Json, print_json
from kvw.cli.register.options import DEFAULT, File


def list_(*, file: File = DEFAULT, json: Json = False) -> None:
    """List all requests: open, late or closed, and in how many models each still is."""
    from kvw.register.chain import read
    from kvw.register.requests import requests

    listed = requests(read(file))

    from kvw.register.export import as_json
    from kvw.report.register import print_requests

    if json:
        print_json(as_json(listed))
    else:
        print_requests(listed)

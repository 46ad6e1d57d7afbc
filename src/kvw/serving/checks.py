"""What the operator of a server named, looked at before the model is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from kvw.errors import UserError
from kvw.files import PRIVATE_FILE, explained
from kvw.serving.keys import read_keys
from kvw.serving.names import Names
from kvw.serving.refusals import Refusal


def check_keys(path: Path | None, names: Names) -> None:
    """Refuse a file of keys that is damaged, has no key, or has one for what is not served.

    Raises:
        UserError: It is so.
    """
    if path is None:
        return
    keys = read_keys(path).keys
    if not keys:
        raise UserError(f"{path} has no key, so nobody could ask.", do="add one with: kvw keys add")
    for key in keys:
        for model in key.models:
            try:
                if model == names.base:
                    raise Refusal(404, "That is the model's own name, which stands for the first of a key's edits.")
                names.chosen(model)
            except Refusal as error:
                raise UserError(
                    f"The key '{key.name}' is for '{model}', which is not served.",
                    found=error.message,
                    do="serve it (--edit, or --allow-plain for 'none'), or make the key again",
                ) from error


def check_audit_log(path: Path | None) -> None:
    """Refuse a log that cannot be appended to.

    Raises:
        UserError: It cannot.
    """
    if path is not None:
        with explained(path):
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, PRIVATE_FILE))

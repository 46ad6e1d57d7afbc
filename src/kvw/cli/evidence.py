"""``kvw evidence``: what a run leaves for others to verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from kvw.cli.launch import run_by_the_first
from kvw.errors import UserError


def sign(
    run: Annotated[Path, Parameter(help="Run directory of kvw erase.")],
    *,
    key: Annotated[Path, Parameter(help="PEM file of an Ed25519 private key.")],
) -> None:
    """Sign the evidence of a run, in the place of an earlier signature, if its files are what the run wrote."""
    if not (run / "run.json").is_file():
        raise UserError(f"{run} is no run directory.", found="no run.json", do="name one that kvw erase has written")

    from kvw.evidence.keys import private_key

    signer = private_key(key)

    from kvw.runs.evidence import sign_run

    signed = sign_run(run, signer).signed
    if signed is not None:
        print(f"{run / 'evidence.json'} is signed with key {signed.key[:16]}.")


evidence = App(name="evidence", help="Sign the evidence of a run. kvw verify checks it.")
evidence.command(run_by_the_first(sign))

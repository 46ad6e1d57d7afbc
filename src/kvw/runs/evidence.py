"""``evidence.json``: what a run states of itself, made from its record, and signed."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from kvw.errors import UserError
from kvw.evidence.differences import differences
from kvw.evidence.envelope import Envelope
from kvw.evidence.keys import PrivateKey
from kvw.evidence.statement import (
    EVIDENCE,
    MODEL,
    NOT_STATED,
    PREDICATE,
    RECORD,
    SAMPLES,
    STATEMENT,
    Data,
    Digest,
    Original,
    Predicate,
    Statement,
    Subject,
)
from kvw.files import file_digest, write_bytes
from kvw.folders import folder_digests
from kvw.measuring.fingerprint import combined_digest
from kvw.measuring.salt import salted, secret_name
from kvw.models.weight_files import SUFFIX
from kvw.records.run import RunRecord


def statement_of(record: RunRecord, record_digest: str) -> Statement:
    """What a run states.

    Args:
        record: The run's.
        record_digest: SHA-256 of the file of the record.
    """
    values = json.loads(record.model_dump_json())  # numbers that are none become null
    subjects = {RECORD: record_digest} | {name: one for name, one in record.written.items() if name != SAMPLES}
    original = {name: values["model"][name] for name in ("name", "revision", "files")}
    judged = record.selection
    data = Data(
        secret=secret_name(),
        forget=record.forget.digest,
        retain=record.retain.digest if record.retain else "",
        files={name: list(one) for name, one in record.data_files.items()},
        samples=salted(record.written[SAMPLES]),
    )
    predicate = Predicate(
        kvw=record.versions["kvw"],
        finished=values["finished"],
        command=record.command,
        method=record.method,
        settings=values["settings"],
        asked=values["asked"] or {},
        floor=judged.keep if judged else None,
        original=Original(weights=record.model.fingerprint, **original),
        result=_result(record),
        edit=record.edit_digest,
        data=data,
        kept={name: share.value for name, share in judged.chosen.kept.items()} if judged else {},
        results={name: {one: split[one] for one in SCORES} for name, split in values["splits"].items()},
        language=values["language"],
        warnings=values["warnings"],
        versions=values["versions"],
    )
    digests = [Subject(name=name, digest=Digest(sha256=one)) for name, one in sorted(subjects.items())]
    content = {"_type": STATEMENT, "subject": digests, "predicateType": PREDICATE, "predicate": predicate}
    return Statement.model_validate(content)


def _result(record: RunRecord) -> str:
    """What :func:`kvw.measuring.fingerprint.weights_digest` gives for the written model."""
    weights = [name for name in record.model.files if name.endswith(SUFFIX)]  # the same files, in the same order
    digests = {name: record.written[MODEL + name] for name in weights if MODEL + name in record.written}
    return combined_digest(digests) if digests else ""


SCORES = ("of", "digest", "original", "unlearned")
"""What is stated of each split. The name of its file is not: it may be that of a person."""


def write_evidence(record: RunRecord, folder: Path, signer: PrivateKey | None = None) -> Envelope:
    """Write the evidence of a run beside its record; its mode is 0600.

    Args:
        record: As it lies in ``folder``.
        folder: Folder of the run.
        signer: With the private key; None leaves it unsigned.
    """
    envelope = Envelope(statement_of(record, file_digest(folder / RECORD)).packed())
    if signer is not None:
        envelope = envelope.signed_with(signer)
    write_bytes(folder / EVIDENCE, envelope.packed())
    return envelope


def sign_run(folder: Path, signer: PrivateKey) -> Envelope:
    """Sign what a run folder states of itself, if its files are what the run wrote.

    Whoever signs vouches for the record: nothing shows that nobody has changed it since.

    Raises:
        UserError: There is no record, it is of an earlier version, or a file was changed, added or removed.
    """
    try:
        record = RunRecord.model_validate_json((folder / RECORD).read_bytes())
    except (OSError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"{folder} has no run record of this version.", found=first, do="name a run's folder"
        ) from error
    if not record.written:
        raise UserError(
            f"The record in {folder} does not say what the run wrote.",
            found="a run of an earlier version",
            do="run kvw erase again",
        )
    wrong = differences(record.written, folder_digests(folder, without=[RECORD, *NOT_STATED]))
    if wrong:
        raise UserError(
            f"{folder} is not what the run wrote, so it is not signed.",
            found="; ".join(wrong[:5]) + ("; ..." if len(wrong) > 5 else ""),
            do="sign the folder as the run left it",
        )
    return write_evidence(record, folder, signer)

"""What is stated: an in-toto statement whose predicate says what was forgotten from what, how, and with what result.

It names no example, no subject and no data file. Digests of data are keyed with a secret of the machine.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kvw.data.strict_json import parse_json
from kvw.errors import UserError
from kvw.evidence.envelope import Altered

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:kvw:erasure:1"
"""The type of our own predicate, see docs/evidence.md."""
EDIT, MODEL, RECORD = "edit.safetensors", "model/", "run.json"
"""Names of subjects: paths from the folder of the run; of the model's files the beginning."""
SAMPLES, EVIDENCE = "samples.jsonl", "evidence.json"
NOT_STATED = (EVIDENCE, "report.html", ".kvw")
"""What lies in the folder of a run and is made of the rest: nothing is stated of it."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Digest(_Part):
    """Digest of a subject."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Subject(_Part):
    """A file that the run wrote."""

    name: str
    digest: Digest


class Original(_Part):
    """The model that was edited."""

    name: str
    revision: str
    weights: str
    """SHA-256 over the names and contents of its weight files, see :func:`kvw.measuring.fingerprint.weights_digest`."""
    files: dict[str, str]
    """SHA-256 of each file that belongs to it, weights included."""


class Data(_Part):
    """What was read. All digests but ``secret`` are HMAC-SHA-256 with the secret of the machine."""

    secret: str
    """Says which secret it was, without saying the secret."""
    forget: str
    """Over questions, answers and pictures of the forget set, in any order."""
    retain: str
    """The same of what the user wanted to keep; empty if no retain set was given."""
    files: dict[str, list[str]]
    """Over the bytes of each file and of its pictures, by what it was read as."""
    samples: str
    """Over ``samples.jsonl``, which holds the questions and answers."""


class Predicate(_Part):
    """How the subjects were made."""

    kvw: str
    finished: str
    """When, in UTC, ISO 8601."""
    command: str
    """The command as it can be typed, with words in the place of files; empty if the run was started from Python."""
    method: str
    settings: dict[str, Any]
    asked: dict[str, Any]
    floor: float | None
    """The share of what must stay below which the run would have written nothing, unless ``asked`` says otherwise; None
    if nothing could judge the edit."""
    original: Original
    result: str
    """As ``original.weights``, of the written model; empty if none was written."""
    edit: str
    """SHA-256 over the kind and the numbers of the edit."""
    data: Data
    kept: dict[str, float]
    """What was judged: the share that the chosen edit leaves, by part; empty if nothing could judge it."""
    results: dict[str, Any]
    """Scores of each split by the original and by the unlearned model."""
    language: dict[str, Any] | None
    warnings: list[str]
    versions: dict[str, str]


class Statement(_Part):
    """An in-toto statement, version 1."""

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(validation_alias="_type", serialization_alias="_type")
    subject: list[Subject]
    predicate_type: Literal["urn:kvw:erasure:1"] = Field(
        validation_alias="predicateType", serialization_alias="predicateType"
    )
    predicate: Predicate

    def packed(self) -> bytes:
        """The bytes to sign; the same for the same statement."""
        content = self.model_dump(mode="json", by_alias=True)
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each subject by its name."""
        return {one.name: one.digest.sha256 for one in self.subject}

    @property
    def model(self) -> dict[str, str]:
        """SHA-256 of each file of the written model, by its path from the model's folder; empty if none was written."""
        return {name.removeprefix(MODEL): found for name, found in self.digests.items() if name.startswith(MODEL)}


def read_statement(payload: bytes) -> Statement:
    """Read what an envelope holds.

    Raises:
        Altered: It is no statement of this form, or says something twice.
    """
    try:
        statement = Statement.model_validate(parse_json(payload.decode("ascii"), "the statement", ""))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(str(part)[:40] for part in first["loc"][:3])
        raise _altered(f"{place}: {first['msg'][:120]}") from error
    except (ValueError, UserError) as error:
        raise _altered(str(error).splitlines()[0][:160]) from error
    if len(statement.digests) < len(statement.subject):
        raise _altered("a subject comes twice")
    return statement


def _altered(found: str) -> Altered:
    return Altered("The evidence holds no statement that this version reads.", found=found)

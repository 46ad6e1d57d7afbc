"""What came of one request, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kvw.errors import UserError
from kvw.files import write_text
from kvw.proving.requests import Half

RECORD = "record.json"
State = Literal["written", "refused", "failed"]
"""``refused``: no edit was written because it would have lost what must stay (:class:`kvw.errors.Damaging`);
``failed``: the run ended in another message."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(_Part):
    """What a model said to one question."""

    text: str | None
    """Its greedy answer. None if it was not asked for; then the next three are None, too."""
    given: bool | None
    """Whether the fact is in it, as whole words."""
    exact: bool | None
    """Whether it is the reference answer, see :func:`kvw.evaluation.metrics.exact_match`."""
    rouge: float | None = None
    """ROUGE-L recall of the greedy answer, as TOFU scores it."""
    chosen: bool
    """Whether, teacher-forced on the reference answer, the model chooses every token of the fact first."""
    probability: float
    """Of the reference answer, geometric mean over its tokens."""


class Item(_Part):
    """One question of a split."""

    question: str
    subject: str
    fact: str
    named: bool = False
    """Whether a retain source of the run itself asks about the subject, whom no file of the user names."""
    before: Answer
    after: Answer | None
    """None if there is no unlearned model, and for the floor, which is asked of the original alone."""
    gold: Answer | None = None
    """Of the model that never saw the subjects, where there is one: of the forget set and what is held out of it."""


class Perplexity(_Part):
    """Of plain text."""

    before: float
    after: float | None


class ProvingRecord(_Part):
    """One request and what it did to the model."""

    schema_version: Literal[1] = 1
    job: str
    """Digest of everything that the result depends on."""
    half: Half
    number: int
    subjects: list[str]
    model: str
    state: State
    message: str = ""
    """The message of a run that wrote nothing."""
    method: str
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the method, as the run recorded them. Empty if the run wrote nothing; so is the digest."""
    edit_digest: str = ""
    warnings: list[str]
    """What the run warned of."""
    seconds: dict[str, float]
    """Wall-clock seconds of the stages of the run, and of scoring."""
    splits: dict[str, list[Item]]
    perplexity: Perplexity

    def write(self, folder: Path) -> None:
        """Write it into the folder of the request."""
        write_text(folder / RECORD, self.model_dump_json(indent=1) + "\n")


def read_record(folder: Path) -> ProvingRecord | None:
    """The record in the folder of a request; None if there is none yet.

    Raises:
        UserError: It is damaged or of another version.
    """
    file = folder / RECORD
    if not file.is_file():
        return None
    try:
        return ProvingRecord.model_validate_json(file.read_bytes())
    except ValidationError as error:
        found = str(error).splitlines()[0]
        raise UserError(f"{file} cannot be read.", found=found, do="remove it, and run the request again") from error

"""``run.json``: everything needed to repeat a run, what it cost and what came out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kvw.edits.edit import package_versions
from kvw.edits.summary import LayerSummary
from kvw.evaluation import Summary
from kvw.methods.subspace.certificates import Certificate

KNOWS_ENGLISH = 1000.0
"""A model with a larger perplexity does not know ordinary sentences, and how it changes says nothing."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelPart(_Part):
    """The model that was edited."""

    name: str
    revision: str
    fingerprint: str
    model_type: str
    dtype: str
    quantised: str = ""
    """The scheme in which the value matrices were held while measuring and scoring; empty for full precision."""
    parameters: int


class DataPart(_Part):
    """A data file; its name and digest, never its contents or its place on the machine."""

    file: str
    count: int | None
    """Examples; None for a statistics file, which does not say."""
    digest: str
    """Over the examples, in any order; salted, see :func:`kvw.measuring.salt.salted`."""
    pictures: int | None = None
    """Examples with a picture; None where ``count`` is, and in records of earlier versions."""
    subjects: int | None = None
    """Different subjects, 0 if none is named; None as above."""


class ForgetPart(DataPart):
    """The forget set."""

    files: list[DataPart] = Field(default_factory=list)
    """The files whose union it is, each on its own, if there are several: a file with one of these digests is part of
    what was forgotten."""


class RetainPart(DataPart):
    """The retain set without what the forget set is about, whose names are told on the terminal alone."""

    left_out_about_forgotten: int = 0
    """Examples of the file that were left out because a subject of the forget set is theirs."""
    left_out_identical: int = 0
    """Other examples of the file that were left out because the forget set holds the same."""
    with_forget_answers: int = 0
    """Examples that stayed although their answer is one of the forget set."""
    with_forget_names: int = 0
    """Examples that stayed although they name a subject of the forget set, or an answer of it of several words."""


class CostPart(_Part):
    """What the run cost on this machine."""

    device: str
    seconds: dict[str, float]
    """Wall-clock seconds of each stage."""
    peak_memory_bytes: dict[str, int]
    """Largest use: ``process`` is resident memory, any other key is an accelerator."""
    model_bytes: int
    processes: int = 1
    """How many processes worked together; seconds and memory are those of the first."""


class SplitPart(_Part):
    """Scores of one split by the original and by the unlearned model."""

    file: str
    of: int
    """Examples of the split; ``original.count`` of them were asked."""
    pictures: int | None = None
    """Those with a picture; None in records of earlier versions."""
    subjects: int | None = None
    """Different subjects, 0 if none is named; None as above."""
    digest: str
    """Over the examples asked, in any order; salted."""
    original: Summary
    unlearned: Summary


class Change(_Part):
    """A number before and after."""

    original: float
    unlearned: float


class LanguagePart(_Part):
    """Whether the unlearned model is still a language model, see :mod:`kvw.runs.language`."""

    perplexity: Change | None
    """Of the shipped sentences; None if the model cannot be asked in words alone."""
    broken: Change | None
    """Share of the answers to the shipped requests that are empty or end in a loop; None as above."""
    broken_by_split: dict[str, Change] = Field(default_factory=dict)
    """The same of the answers to the questions of each split."""
    damage: list[str] = Field(default_factory=list)
    """What is taken for damage, in words; empty if nothing is. The warnings hold it, too."""

    @property
    def sentence(self) -> str:
        """The numbers in one sentence, for tables and cards."""
        perplexity, broken = self.perplexity, self.broken
        if perplexity is None or broken is None:
            return "Whether it still writes ordinary language could not be looked at."
        strange = "" if perplexity.original < KNOWS_ENGLISH else " (the model was not made for them; not judged)"
        return (
            f"Perplexity of ordinary sentences{strange}: {perplexity.original:.4g} before, "
            f"{perplexity.unlearned:.4g} after. "
            f"Free answers that are empty or end in a loop: {broken.original:.0%} before, {broken.unlearned:.0%} after."
        )


class RunRecord(_Part):
    """The record of one ``kvw erase``."""

    schema_version: Literal[1] = 1
    finished: datetime = Field(default_factory=lambda: datetime.now(UTC))
    method: str
    settings: dict[str, Any]
    edit_digest: str = ""
    """SHA-256 over the kind and the numbers of the edit that was scored."""
    model: ModelPart
    forget: ForgetPart
    retain: RetainPart | None
    retain_statistics_reused: bool
    layers: list[LayerSummary]
    splits: dict[str, SplitPart]
    protocol: str = "zero-shot, greedy, the model's own chat template"
    evaluation_settings: dict[str, int]
    costs: CostPart
    language: LanguagePart | None = None
    """None in records of earlier versions."""
    certificates: list[Certificate] = Field(default_factory=list)
    """What the method found for each value matrix, from methods that certify what they do."""
    warnings: list[str]
    """Everything that the run warned of on the terminal, in order."""
    versions: dict[str, str] = Field(default_factory=package_versions)

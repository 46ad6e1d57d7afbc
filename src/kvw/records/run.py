"""``run.json``: everything needed to repeat a run, what it cost and what came out."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field

from kvw.edits.edit import package_versions
from kvw.edits.summary import LayerSummary
from kvw.evaluation.records import Summary
from kvw.methods.bounds import DistortionBounds
from kvw.percent import percent
from kvw.selection.splits import FORGETTING
from kvw.strict import Strict

KNOWS_ENGLISH = 1000.0
"""A model with a larger perplexity does not know ordinary sentences, and how it changes says nothing."""


class ModelPart(Strict):
    """The model that was edited."""

    name: str
    revision: str
    fingerprint: str
    model_type: str
    dtype: str
    quantised: str = ""
    """The scheme in which the value matrices were held while measuring and scoring; empty for full precision."""
    parameters: int
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each file that belongs to it, weights included; empty of a served model."""


class DataPart(Strict):
    """A data file; its name and digest, never its contents or its place on the machine."""

    file: str
    count: int | None
    """Examples; None for a statistics file, which does not say."""
    digest: str
    """Over the examples, in any order; salted, see :func:`kvw.measuring.salt.salted`."""
    pictures: int | None = None
    """Examples with a picture; None where ``count`` is."""
    subjects: int | None = None
    """Different subjects, 0 if none is named; None as above."""


class ForgetPart(DataPart):
    """The forget set."""

    files: list[DataPart] = Field(default_factory=list)
    """The files whose union it is, each on its own, if there are several: a file with one of these digests is part of
    what was forgotten."""


class RetainPart(DataPart):
    """The retain set without what the forget set is about, whose names are told only on the terminal."""

    left_out_about_forgotten: int = 0
    """Examples of the file that were left out because a subject of the forget set is theirs."""
    left_out_identical: int = 0
    """Other examples of the file that were left out because the forget set holds the same."""
    with_forget_answers: int = 0
    """Examples that stayed although their answer is one of the forget set."""
    with_forget_names: int = 0
    """Examples that stayed although they name a subject of the forget set, or an answer of it of several words."""


class AskedPart(Strict):
    """What was asked of the run and decides the edit, beside the data and the settings of the method."""

    keep: float
    retain: bool
    """Whether a retain file was given."""
    sources: list[str]
    neighbours: bool
    """Whether their names were given."""
    write_damaged: bool
    quantise: str = ""
    template_options: dict[str, Any] = Field(default_factory=dict)


class CostPart(Strict):
    """What the run cost on this machine."""

    device: str
    seconds: dict[str, float]
    """Wall-clock seconds of each stage."""
    peak_memory_bytes: dict[str, int]
    """Largest use: ``process`` is resident memory, any other key is an accelerator."""
    model_bytes: int
    processes: int = 1
    """How many processes worked together; seconds and memory are those of the first."""


class AnswersPart(Strict):
    """What kind of answers a split was given, see :mod:`kvw.runs.answer_classes`."""

    original: dict[str, int]
    """How many answers of the original model are of each kind; every example that was asked counts once."""
    unlearned: dict[str, int]
    lost: int
    """Questions that were answered right before and are not afterwards."""
    gained: int
    """Questions that are answered right afterwards and were not before."""
    begun: int = 0
    """Lost answers that still begin right, and go wrong only then."""
    broken: int = 0
    """Replies that are gibberish, loops among them, and were not before."""


class SeenPart(Strict):
    """How far the examples that were asked had a part in making the edit."""

    used: int
    """Examples that were given to the method."""
    judged: int
    """Other examples that helped to choose the strength."""
    about_forgotten: int
    """Examples about a subject of the forget set, and examples that are in it."""
    new_subjects: int
    """Examples about subjects that neither the forget set, nor the retain set, nor any other source names."""


class SplitPart(Strict):
    """Scores of one split by the original and by the unlearned model."""

    file: str
    of: int
    """Examples of the split; ``original.count`` of them were asked."""
    pictures: int
    """Examples with a picture."""
    subjects: int
    """Different subjects, 0 if none is named."""
    digest: str
    """Over the examples asked, in any order; salted."""
    original: Summary
    unlearned: Summary
    answers: AnswersPart
    seen: SeenPart | None = None
    """None where a statistics file stands for the retain set."""


class Change(Strict):
    """A number before and after."""

    original: float
    unlearned: float


class LanguagePart(Strict):
    """Whether the unlearned model is still a language model, see :mod:`kvw.runs.language`."""

    perplexity: Change | None
    """Perplexity of the shipped sentences; None if the model cannot be asked without an image."""
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


class SourcePart(Strict):
    """One origin of what must stay."""

    name: str
    """``retain`` for the user's own file, else one of :data:`kvw.retain.SOURCES`."""
    examples: int
    held_out: int
    """Examples of these that judge the edits and are not given to the method."""
    left_out: int = 0
    """Further ones that mention what is to be forgotten."""
    unusable: int = 0
    """Further ones that the model cannot be shown, or gave no usable answer to."""


class JudgedPart(Strict):
    """What one edit, or none, makes of the questions of a split, see :mod:`kvw.selection.scoring`."""

    questions: int
    answered: int
    probability: float
    perplexity: float


class KeptPart(Strict):
    """How much of what must stay is left, see :class:`kvw.selection.scoring.Share`."""

    value: float
    error: float


class CandidatePart(Strict):
    """One edit that was tried."""

    dose: float | None
    """Dose in units of the selection; None for the edit of the settings given by hand."""
    where: str = ""
    """The part of the model that is edited; empty for all that was solved."""
    chosen: bool
    splits: dict[str, JudgedPart]
    """Splits that were not asked are missing: a candidate is judged only as far as it takes to decide."""
    kept: dict[str, KeptPart]


class FreelyPart(Strict):
    """Held-out questions about others, asked freely: the original model gives all their answers."""

    questions: int
    answered: int
    """How many the edited model gives, in any words."""


class SelectionPart(Strict):
    """How the strength of the edit was chosen, and by what it was judged."""

    keep: float
    """The share of each held-out part, and of the language, that had to be left."""
    unit: str
    """What candidates differ in: directions, strength or share; empty if the settings fixed it by hand."""
    sources: list[SourcePart]
    original: dict[str, JudgedPart]
    earlier: int = 0
    """Earlier requests whose edits are in force in each of them; their questions are gone and were not asked."""
    candidates: list[CandidatePart]
    """Edits in the order in which they were tried."""
    freely: FreelyPart | None = None
    """Of the chosen one; None if there was nobody else to ask about."""

    @property
    def chosen(self) -> CandidatePart:
        """The one that was taken."""
        return next(one for one in self.candidates if one.chosen)

    @property
    def sentence(self) -> str:
        """How strong the edit is, what it leaves of the forget set and what it keeps, for cards."""
        chosen = self.chosen
        forget = [name for name in FORGETTING if name in chosen.splits]
        before, after = (sum(splits[name].answered for name in forget) for splits in (self.original, chosen.splits))
        of = sum(self.original[name].questions for name in forget)
        kept = ", ".join(f"{share.value:.1%} of {name}" for name, share in chosen.kept.items())
        by_hand = "The strength was fixed by hand" if chosen.dose is None else ""
        place = f", {chosen.where}" if chosen.where else ""
        how = by_hand or f"The strength was chosen to keep {percent(self.keep)} ({self.unit}: {chosen.dose:.4g}{place})"
        answered = f"Of {of} forget questions {before} were answered before and {after} are now, held-out phrasings"
        told = f"{how}; the edit keeps {kept}. {answered} and the model's own words among them (all teacher-forced)."
        return f"{told} {self.of_earlier}".strip()

    @property
    def of_earlier(self) -> str:
        """What is known of earlier requests; empty if there are none."""
        if not self.earlier:
            return ""
        one = self.earlier == 1
        edits = "edit of an earlier request is" if one else f"edits of {self.earlier} earlier requests are"
        told = "Its questions are" if one else "Their questions are"
        return f"The {edits} in force. {told} gone and were not asked; what must stay was, with everything in force."


class RunRecord(Strict):
    """The record of one ``kvw erase``."""

    schema_version: Literal[1] = 1
    finished: datetime = Field(default_factory=lambda: datetime.now(UTC))
    nonce: str = Field(default_factory=lambda: secrets.token_hex(16))
    """Random, so that nobody can guess what else is in here from the SHA-256 of the file."""
    command: str = ""
    """The command as it can be typed, with words in the place of files; empty if the run was started from Python."""
    method: str
    settings: dict[str, Any]
    edit_digest: str = ""
    """SHA-256 over the kind and the numbers of the edit that was scored."""
    asked: AskedPart
    model: ModelPart
    forget: ForgetPart
    retain: RetainPart | None
    data_files: dict[str, list[str]] = Field(default_factory=dict)
    """Over the bytes of each data file and of its pictures, by what it was read as; salted."""
    retain_statistics_reused: bool
    layers: list[LayerSummary]
    splits: dict[str, SplitPart]
    protocol: str = "zero-shot, greedy, the model's own chat template"
    evaluation_settings: dict[str, int]
    costs: CostPart
    language: LanguagePart
    selection: SelectionPart | None = None
    """None if there was nothing to judge by."""
    distortion_bounds: list[DistortionBounds] = Field(default_factory=list)
    """What the method found for each value matrix; empty if the edit is not a part of that."""
    warnings: list[str]
    """Everything that the run warned of on the terminal, in order."""
    versions: dict[str, str] = Field(default_factory=package_versions)
    written: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of every file that lies beside this one or below."""

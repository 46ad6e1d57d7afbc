"""Records of runs as tests of pages need them."""

from __future__ import annotations

from typing import Any

from kvw.edits.summary import LayerSummary
from kvw.evaluation.records import Summary
from kvw.records.run import (
    AnswersPart,
    AskedPart,
    CandidatePart,
    CostPart,
    ForgetPart,
    JudgedPart,
    KeptPart,
    LanguagePart,
    ModelPart,
    RunRecord,
    SeenPart,
    SelectionPart,
    SplitPart,
)

NONE = {"correct": 0, "wrong": 0, "other": 0, "refusal": 0, "gibberish": 0, "none": 0}


def split(
    before: int,
    after: int,
    *,
    count: int = 36,
    about: str = "forgotten",
    part: str = "unseen",
    pictures: int = 36,
    gained: int = 0,
    new: bool = True,
) -> SplitPart:
    """Questions of which so many were answered before and after; ``about`` the forgotten or others."""
    return SplitPart(
        file="some.jsonl",
        of=count,
        pictures=pictures,
        subjects=4,
        digest="0" * 64,
        original=summary(count, before / count),
        unlearned=summary(count, after / count),
        answers=AnswersPart(
            original=NONE | {"correct": before, "wrong": count - before},
            unlearned=NONE | {"correct": after, "wrong": count - after},
            lost=before - after + gained,
            gained=gained,
        ),
        seen=SeenPart(
            used=count if part == "used" else 0,
            judged=count if part == "judged" else 0,
            about_forgotten=count if about == "forgotten" else 0,
            new_subjects=count if about == "others" and new else 0,
        ),
    )


def summary(count: int, share: float) -> Summary:
    return Summary(
        count=count, failed=0, exact=share, substring=share, rouge_l_f=share, rouge_l_recall=share, probability=share
    )


def selection(before: int = 4, after: int = 0, kept: float = 0.99, *, unit: str = "directions") -> SelectionPart:
    """Two edits that were tried, of which the second is taken."""

    def judged(answered: int) -> JudgedPart:
        return JudgedPart(questions=4, answered=answered, probability=answered / 4, perplexity=2.0)

    kept_parts = {name: KeptPart(value=kept, error=0.0) for name in ("held-out facts", "all held out")}
    first = CandidatePart(dose=1.0 if unit else None, chosen=False, splits={"forget": judged(before)}, kept={})
    second = CandidatePart(
        dose=2.0 if unit else None,
        chosen=True,
        splits={"forget": judged(after), "held-out facts": judged(4)},
        kept=kept_parts,
    )
    return SelectionPart(
        keep=0.98,
        unit=unit,
        sources=[],
        original={"forget": judged(before), "held-out facts": judged(4)},
        candidates=[first, second] if unit else [second],
    )


def record(splits: dict[str, SplitPart], **changed: Any) -> RunRecord:
    """A record with these splits; any other part by its name."""
    made = {
        "method": "subspace",
        "settings": {},
        "asked": AskedPart(keep=0.98, retain=True, sources=[], neighbours=False, write_damaged=False),
        "model": ModelPart(
            name="some/model", revision="", fingerprint="0" * 64, model_type="llava", dtype="float32", parameters=10
        ),
        "forget": ForgetPart(file="forget.jsonl", count=36, digest="0" * 64, pictures=36, subjects=4),
        "retain": None,
        "retain_statistics_reused": False,
        "layers": [layer("layer.0", 3), layer("layer.1", 0), layer("layer.1.attention", 1)],
        "splits": splits,
        "language": LanguagePart(perplexity=None, broken=None),
        "evaluation_settings": {"max_new_tokens": 16, "evaluate_at_most": 60},
        "costs": CostPart(
            device="cpu", seconds={"weakening": 90.0}, peak_memory_bytes={"process": 10**9}, model_bytes=4
        ),
        "warnings": [],
    }
    return RunRecord(**made | changed)


def layer(key: str, directions: int) -> LayerSummary:
    return LayerSummary(
        key=key,
        vectors=8,
        weakened=directions,
        mean_gate=0.0 if directions else 1.0,
        smallest_gate=0.0 if directions else 1.0,
        total_exponent=float(directions),
        rank=directions,
    )

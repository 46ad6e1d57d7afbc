"""Small records of benchmark runs."""

from __future__ import annotations

from kvw.bench.record import Manifest, ModelRecord, TaskPart
from kvw.bench.scores import ItemScore
from kvw.evaluation.metrics import Outcome

FOLDS = {"a": 0, "b": 0, "c": 1, "d": 1, "e": 0, "f": 0, "g": 1, "h": 1}
SUBJECTS = {("forget", 0): "ab", ("forget", 1): "cd", ("retain", 0): "ef", ("retain", 1): "gh"}
MANIFEST = Manifest(
    title="small",
    recipe={"choice": {"forget": "forget", "retain": "retain", "keep": 0.9, "tasks": (), "folds": "both"}},
    recipe_digest="",
    benchmark="toy",
    setting="forget10",
    protocol="zero-shot",
    forget=4,
    retain=4,
    models={"vanilla": "1"},
    tasks=[
        TaskPart(split=split, task="seen", modality="image", metric="exact_match", items=4)
        for split in ("forget", "retain")
    ],
    folds=FOLDS,
    unusable=0,
    not_computed=[],
    requests=["vanilla", "kvw-weak"],
    versions={},
)


def item(split, subject, value):
    """One item; no value for one that failed."""
    failed = value is None
    return ItemScore(
        split=split,
        task="seen",
        identifier=f"{split}-{subject}",
        subject=subject,
        modality="image",
        reply=None if failed else "reply",
        outcome=Outcome.FAILED if failed else Outcome.CORRECT if value else Outcome.INCORRECT,
        scores={} if failed else {"exact_match": value, "truth_ratio": 1.5 - value},
    )


def items_of(values):
    """Two items for each split and half, of the given value."""
    return [item(split, subject, value) for (split, half), value in values.items() for subject in SUBJECTS[split, half]]


def record(name):
    """``vanilla``, ``gold`` or ``kvw-VARIANT``."""
    label, _, variant = name.partition("-")
    return ModelRecord(
        identifier=name,
        label=label,
        settings={"variant": variant} if variant else {},
        model="m",
        model_fingerprint="",
        edit_digest="",
        outcomes={},
        seconds={},
    )

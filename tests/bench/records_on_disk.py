"""Finished runs with small records, on disk."""

from __future__ import annotations

from tests.bench.records import MANIFEST, items_of, record

from kvw.bench.record import RunFiles

VANILLA = {("forget", 0): 1, ("forget", 1): 1, ("retain", 0): 1, ("retain", 1): 1}
GOLD = VANILLA | {("forget", 0): 0, ("forget", 1): 0}


def values(forget, retain):
    """Scores of a model, the same in both halves."""
    return {("forget", 0): forget, ("forget", 1): forget, ("retain", 0): retain, ("retain", 1): retain}


def finished(folder, models, *, seed=0, title="small", **more):
    """A finished run of the given models (``kvw-VARIANT``) and their scores."""
    files = RunFiles(folder)
    recipe = {**MANIFEST.recipe, "benchmark": {"name": "toy", "seed": seed}, "models": {"vanilla": f"m/seed-{seed}/v"}}
    recipe["title"] = title
    recipe["method"] = [{"name": "kvw", "seed": seed}]
    told = {"recipe": recipe, "requests": list(models), "title": title, **more}
    files.write_manifest(MANIFEST.model_copy(update=told))
    for name, scores in models.items():
        made = record(name)
        if made.settings:
            made = made.model_copy(update={"settings": {"gamma": float(made.settings["variant"]), "seed": seed}})
        files.write_record(name, made)
        files.write_items(name, items_of(scores))
    return folder

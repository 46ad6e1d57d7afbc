"""What a reader of a benchmark's table must know, in sentences."""

from __future__ import annotations

from kvw.bench.further import UTILITY_SETS
from kvw.bench.record import PlantingPart
from kvw.bench.results import Choice, Results
from kvw.bench.together import Comparison
from kvw.report.sheets import cell_text

FIGURES = {
    "relative_forgetting": "Share of vanilla's forget score that is gone",
    "hypervolume": "Hypervolume of all settings (forgotten x kept; 1: everything forgotten at no cost)",
    "distance_to_gold": "Distance from the gold model on the forget split",
    "model_utility": "Model utility",
}
"""What :data:`kvw.bench.together.FIGURES` are, in words."""


def notes(found: Comparison) -> list[str]:
    """What a reader of the table must know: protocol, choices, outcomes, distance to the gold model."""
    return _of_one(found.runs[0]) if len(found.runs) == 1 else _of_several(found)


def _of_several(found: Comparison) -> list[str]:
    """Of several seeds: figures with intervals, and what was chosen with each seed."""
    first, seeds = found.runs[0], ", ".join(map(str, found.seeds))
    lines = [
        f"{_protocol(first)}; seeds {seeds}: means of the seeds' means, and 95 % intervals of Student's t over the "
        "seeds, which can leave the range of a score."
    ]
    for name, cells in found.figures.items():
        shown = ", ".join(f"{model} {cell_text(cell)}" for model, cell in cells.items())
        lines.append(f"{FIGURES[name]}: {shown}.")
    for seed, run in zip(found.seeds, found.runs, strict=True):
        lines += [f"Seed {seed}: {_choice(choice, run)}" for choice in run.choices]
    return [*lines, *_data(first)]


def _of_one(results: Results) -> list[str]:
    manifest = results.manifest
    lines = [f"{_protocol(results)}; 95 % bootstrap intervals over subjects."]
    lines += [_planting(label, planting) for label, planting in results.planted.items()]
    lines += [_choice(choice, results) for choice in results.choices]
    for name, counts in results.outcomes.items():
        said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        lines.append(f"{name}, forget items: {said}.")
    for name, share in results.relative_forgetting.items():
        if share is not None:
            lines.append(f"{name}: {share:.3f} of vanilla's forget score is gone.")
    if results.hypervolume:
        areas = ", ".join(f"{name} {area:.3f}" for name, area in results.hypervolume.items())
        lines.append(f"Hypervolume of all settings (forgotten x kept; 1: everything forgotten at no cost): {areas}.")
    for name, distance in results.distance_to_gold.items():
        quality = results.forget_quality.get(name)
        test = "" if quality is None else f"; forget quality (KS against gold) p = {quality:.3g}"
        lines.append(f"{name}: {distance:.3f} from the gold model on the forget split{test}.")
    if results.model_utility:
        areas = ", ".join(f"{name} {value:.3f}" for name, value in results.model_utility.items())
        sets = ", ".join(UTILITY_SETS[manifest.benchmark])
        lines.append(
            f"Model utility (harmonic mean of probability, ROUGE-L recall and truth ratio on {sets}): {areas}."
        )
    return [*lines, *_data(results)]


def _protocol(results: Results) -> str:
    manifest = results.manifest
    both = manifest.recipe["choice"]["folds"] == "both"
    folds = "each half's settings chosen on the other half" if both else "settings chosen on one half"
    return (
        f"{manifest.benchmark}, {manifest.setting}; {manifest.protocol}; methods got {manifest.forget} forget and "
        f"{manifest.retain} retain examples; {folds}"
    )


def _data(results: Results) -> list[str]:
    manifest, lines = results.manifest, []
    if manifest.unusable:
        lines.append(f"{manifest.unusable} entries of the data could not be used.")
    if manifest.not_computed:
        lines.append(f"Named by the benchmark and not computed: {', '.join(manifest.not_computed)}.")
    return lines


def _planting(label: str, planting: PlantingPart) -> str:
    lora = planting.settings["lora"]
    how = f"LoRA of rank {lora['rank']}" if lora else "all weights of " + ", ".join(planting.settings["parts"])
    return (
        f"{label}: {planting.base} trained on {planting.examples} examples, {how}, "
        f"{planting.settings['epochs']} epochs of batches of {planting.settings['batch_size']}, learning rate "
        f"{planting.settings['learning_rate']:g}; loss per answer token from {planting.losses[0]:.3f} to "
        f"{planting.losses[-1]:.3f}."
    )


def _choice(choice: Choice, results: Results) -> str:
    settings = ", ".join(f"{name} = {value}" for name, value in choice.settings.items()) or "defaults"
    wanted = results.manifest.recipe["choice"]["keep"]
    enough = "" if choice.kept_enough else f" (none of {choice.tried} kept {wanted:g})"
    return (
        f"{choice.method}, chosen on half {choice.chosen_on} among {choice.tried}: {settings}; "
        f"kept {choice.kept:.3f} of vanilla's retain score there{enough}."
    )

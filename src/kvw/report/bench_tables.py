"""Tables of a benchmark run made from its records."""

from __future__ import annotations

from kvw.bench.further import UTILITY_SETS
from kvw.bench.record import PlantingPart
from kvw.bench.results import Choice, Results
from kvw.pages.bench_page import bench_page
from kvw.report.sheets import Sheet


def bench_table(results: Results) -> Sheet:
    """The table of a run, from :func:`kvw.bench.results.read_results`; CSV has every number in a line of its own."""
    models = list(dict.fromkeys(name for row in results.rows for name in row.cells))
    rows = [*results.rows, *results.further]
    return Sheet(
        title=results.manifest.title,
        header=["split", "task", "metric", *models],
        texts=3,
        tables={"": [[row.split, row.task, row.metric.replace("_", " "), *map(row.cells.get, models)] for row in rows]},
        notes=notes(results),
        numbers=[
            ["split", "task", "modality", "metric", "model", "mean", "low", "high", "items"],
            *(
                [row.split, row.task, row.modality, row.metric, name, cell.mean, cell.low, cell.high, cell.items]
                for row in rows
                for name, cell in row.cells.items()
            ),
        ],
    )


def bench_report(results: Results) -> str:
    """The page of a run: what each method took away, then its table."""
    sheet = bench_table(results)
    gone = {name: share for name, share in results.relative_forgetting.items() if share is not None}
    if gone:
        taken = ", ".join(f"{name} {share:.0%}" for name, share in gone.items())
        first = f"Taken away of what the original scores on what is to be forgotten: {taken}."
    else:
        first = "What was forgotten is not known: the original scores nothing on it, or no method was run."
    return bench_page(f"Benchmark: {sheet.title}", [first], sheet.header, sheet.plain, sheet.notes)


def notes(results: Results) -> list[str]:
    """What a reader of the table must know: protocol, choices, outcomes, distance to the gold model."""
    manifest = results.manifest
    both = manifest.recipe["choice"]["folds"] == "both"
    folds = "each half's settings chosen on the other half" if both else "settings chosen on one half"
    lines = [
        f"{manifest.benchmark}, {manifest.setting}; {manifest.protocol}; methods got {manifest.forget} forget and "
        f"{manifest.retain} retain examples; {folds}; 95 % bootstrap intervals over subjects."
    ]
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

"""Results as tables on stdout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvw.edits import Edit, EditDifference, EditMetadata
from kvw.edits.summary import LayerSummary
from kvw.evaluation.records import METRICS, Evaluation, Summary
from kvw.methods.bounds import DistortionBounds
from kvw.methods.describing import acting
from kvw.methods.plan import MemoryPlan
from kvw.methods.registry import PUBLISHED, from_statistics, get_method
from kvw.printable import printable
from kvw.records.run import RunRecord
from kvw.report.selection_table import print_selection
from kvw.report.terminal import console, number_table, print_warning
from kvw.runs.apply import Applied
from kvw.runs.demo import DemoRecord
from kvw.runs.edits import EditSummary
from kvw.runs.gguf import AppliedGguf
from kvw.runs.inspect import MatrixGroup, Structure
from kvw.runs.measure import StatisticsSummary
from kvw.runs.plan import Plan
from kvw.runs.sweep import SweepPoint
from kvw.smollm2 import how_to_try


def print_record(record: RunRecord, out: Path) -> None:
    """What a run changed, and where it is."""
    screen = console()
    table = number_table("split", "n", *METRICS.values(), title=f"{record.model.name}: before and after")
    for name, split in record.splits.items():
        cells = [_change(getattr(split.original, metric), getattr(split.unlearned, metric)) for metric in METRICS]
        asked = split.original.count
        table.add_row(name, str(asked) if asked == split.of else f"{asked} of {split.of}", *cells)
    screen.print(table)
    screen.print(what_changed(record.layers))
    if record.selection is not None:
        print_selection(screen, record.selection)
    _print_bounds(screen, record.distortion_bounds)
    screen.print(record.language.sentence)
    for warning in record.warnings:
        print_warning(screen, warning)
    screen.print(
        f"The run is in {out}: report.html, edit.safetensors, run.json, samples.jsonl, evidence.json" + _and_model(out)
    )
    screen.print("All but the model is confidential: samples.jsonl holds the forget set, and the edit points to it.")


def what_changed(layers: Sequence[LayerSummary]) -> str:
    """What an edit does to a model, in one sentence."""
    count = len({layer.key.removesuffix(".experts").removesuffix(".attention") for layer in layers})
    if any(layer.shift is not None for layer in layers):
        largest = max(layers, key=lambda layer: layer.shift or 0)
        return f"States of {count} layers are steered, furthest in {largest.key} (by {largest.shift:.3g} at full gate)."
    if any(layer.angle is not None for layer in layers):
        return (
            f"States of {count} layers are turned, by at most {max(layer.angle or 0 for layer in layers):.3g} degrees."
        )
    if any(layer.trained for layer in layers):
        return f"{sum(layer.trained or 0 for layer in layers):,} numbers in {len(layers)} weights were trained."
    weakened, vectors = sum(layer.weakened for layer in layers), sum(layer.vectors for layer in layers)
    strongest = max(layers, key=lambda layer: layer.total_exponent)
    low_rank = strongest.rank is not None
    what = f"{weakened:,} directions" if low_rank else f"{weakened:,} of {vectors:,} knowledge vectors"
    return f"{what} in {count} layers were weakened, most in {strongest.key} (mean gate {strongest.mean_gate:.3f})."


def _print_bounds(screen: Console, bounds: Sequence[DistortionBounds]) -> None:
    """What the method says in advance of what the edit costs."""
    if not bounds:
        return
    known = [found for found in bounds if found.relative_distortion is not None]
    if known:
        worst = max(known, key=lambda found: found.relative_distortion or 0)
        screen.print(
            "On data like the retain set the outputs of each value matrix change, on average, by at most "
            f"{worst.relative_distortion:.2%} of their energy ({worst.key}{_by_source(worst.source_bounds)})."
        )
    held_out = [ratio for found in bounds for ratio in found.held_out_eigenvalues or ()]
    if held_out:
        screen.print(
            f"On photos and phrasings kept out of the search the median direction holds {median(held_out):.1f} times "
            "the energy that it has in the retain set."
        )


def _by_source(found: Mapping[str, float]) -> str:
    """Bounds by kind of position. A kind with a small share of the retain set has a bound of more than all energy:
    true, but it says nothing."""
    told = ", ".join(f"{name} {bound:.1%}" for name, bound in found.items() if bound < 1)
    too_few = " and ".join(name for name, bound in found.items() if bound >= 1)
    parts = [f"at most, by kind of position: {told}"] if told else []
    parts += [f"too few positions of kind {too_few} for a bound"] if too_few else []
    return "".join(f"; {part}" for part in parts)


def print_applied(applied: Applied, out: Path) -> None:
    """What ``kvw apply`` changed, what was checked, and how fast it was."""
    screen, files = console(), applied.files
    changed, tensors = sum(file.changed for file in files), sum(file.tensors for file in files)
    linked = sum(file.way != "copy" for file in files)
    screen.print(
        f"{changed} of {tensors} tensors were changed, in {sum(file.changed > 0 for file in files)} of {len(files)} "
        f"weight files; all others are byte for byte the source's."
    )
    screen.print(
        f"Read back and compared with the source and the edit: {len(files) - linked} weight files"
        + (f"; {linked} are linked to the source's." if linked else ".")
    )
    if applied.copied_bytes:
        size = applied.copied_bytes
        screen.print(f"{size / 1e9:.2f} GB in {applied.seconds:.1f} s: {size / 1e9 / applied.seconds:.2f} GB/s.")
    if applied.language is not None:
        screen.print(applied.language.sentence)
        for damage in applied.language.damage:
            print_warning(screen, damage)
    screen.print(f"The model is in {out}; its README.md says what was removed.")


def print_applied_gguf(applied: AppliedGguf, out: Path) -> None:
    """What ``kvw apply`` changed in a GGUF file, and how much of the edit its types keep."""
    screen, written = console(), applied.written
    types = ", ".join(sorted({tensor.type for tensor in written}))
    screen.print(
        f"{len(written)} of {applied.tensors} tensors were changed and stored again as {types}; all other bytes are "
        "the source's. Read back and compared."
    )
    least = min(written, key=lambda tensor: tensor.share)
    screen.print(f"Of the edit {least.share:.1%} or more is left after rounding (least in {least.name}).")
    screen.print(f"The model ({applied.architecture}) is in {out}.")


def print_demo(record: DemoRecord, out: Path) -> None:
    """The demo's comparison with the gold model, the sweep, and a plain verdict."""
    screen = console()
    title = f"Exact match on the toy world ({record.forgotten} of {record.people} people forgotten)"
    table = number_table("split", "n", *record.models, title=title)
    for split, scores in record.splits.items():
        first = next(iter(scores.values()))
        table.add_row(split, str(first.count), *(f"{scores[model].exact:.3f}" for model in record.models))
    screen.print(table)
    print_sweep(record.sweep)
    for sentence in record.verdict:
        screen.print(sentence)
    screen.print(f"Pictures, data and the runs are in {out}: tradeoff.png, run/report.html, data/, kvw/")
    screen.print(f"Toys test code. What happens to a model that has read the web, a small one shows: {how_to_try()}")


def print_sweep(points: list[SweepPoint]) -> None:
    """Exact match, one line for each split and one column for each gamma."""
    doses = (f"{point.gamma:g}" if point.gamma else "original" for point in points)
    table = number_table("split", *doses, title=f"Exact match of {get_method(PUBLISHED).title} over gamma")
    for split in points[0].exact:
        table.add_row(split, *(f"{point.exact[split]:.2f}" for point in points))
    console().print(table)


def print_evaluations(evaluations: Mapping[str, Evaluation]) -> None:
    """Scores of one or two models, one line for each split and model."""
    table = number_table("split", "model", "n", *METRICS.values(), left=["model"])
    for model, evaluation in evaluations.items():
        for split, summary in evaluation.summaries.items():
            table.add_row(split, model, str(summary.count), *(_score(getattr(summary, metric)) for metric in METRICS))
    screen = console()
    screen.print(table)
    for evaluation in evaluations.values():
        _print_failed(screen, evaluation.summaries)


def summaries_json(evaluations: Mapping[str, Evaluation]) -> str:
    """Summaries by model and split."""
    return json.dumps(
        {
            model: {split: summary.model_dump() for split, summary in evaluation.summaries.items()}
            for model, evaluation in evaluations.items()
        },
        indent=2,
    )


def print_statistics(summary: StatisticsSummary, out: Path) -> None:
    """Mean coefficients layer by layer."""
    table = number_table("value matrix", "vectors", "positions", "mean C", "largest C")
    for row in summary.rows:
        coefficients = (f"{row.mean_coefficient:.4f}", f"{row.largest_coefficient:.4f}")
        table.add_row(row.key, f"{row.vectors:,}", f"{row.positions:,}", *coefficients)
    screen = console()
    screen.print(table)
    use = f"kvw erase MODEL --method {from_statistics()[0]} --forget FILE --retain {out} --out DIR"
    screen.print(f"Statistics written to {out}. Use them with: {use}")


def print_structure(structure: Structure) -> None:
    """What ``kvw inspect`` found."""
    first, last = structure.default_layers
    rows = {
        "model": structure.model,
        "family": f"{structure.model_type} with a {structure.decoder_type} decoder",
        "layers": f"{structure.layers}; methods change all (but the first attention) or {first}:{last} by default",
        "value matrices": "\n".join(map(_described, structure.value_matrices)),
        "of attention": "\n".join(map(_described, structure.attention)) or "not known",
        "left alone": "\n".join(structure.left_alone) or "nothing else narrows its input",
    }
    _print_rows(rows)
    if structure.to_confirm:
        console().print(
            f"kvw does not know this family; this is what its structure suggests. If it is right, confirm it with "
            f"--value-matrices '{structure.to_confirm}'."
        )


def _described(group: MatrixGroup) -> str:
    many = f"{len(group.layers)} x {group.experts} experts" if group.experts else f"{len(group.layers)}"
    first, last = group.layers[0], group.layers[-1]
    where = ""
    if len(group.layers) <= last:
        gapless = len(group.layers) == last - first + 1
        where = f", layers {first} to {last}" if gapless else f", layers {', '.join(map(str, group.layers))}"
    return f"{many} x {group.template} ({group.width} -> {group.hidden}){where}"


def print_edit(summary: EditSummary) -> None:
    """What an edit file holds."""
    metadata = summary.metadata
    rows = {
        "kind": summary.kind,
        "made by": _made_by(metadata),
        "for": metadata.base_model or "unknown",
        "weights": metadata.model_fingerprint[:12] or "unknown",
        "versions": ", ".join(f"{name} {number}" for name, number in metadata.versions.items()),
    }
    if summary.rank is not None:
        rows["rank"] = f"{summary.rank:,} at most in one value matrix (of the edit as a LoRA)"
    if summary.bytes is not None:
        rows["size"] = f"{summary.bytes:,} bytes"
    if not metadata.parents:
        rows["forget"] = _examples(metadata.forget_count, metadata.forget_digest)
        rows["retain"] = _examples(metadata.retain_count, metadata.retain_digest)
    _print_rows(rows | _lineage(metadata.parents))
    if any(layer.shift is not None for layer in summary.layers):
        shifts = number_table("layer", "shift where a . h = 1")
        for layer in summary.layers:
            shifts.add_row(layer.key, f"{layer.shift:.4g}")
        console().print(shifts)
        return
    if any(layer.trained or layer.angle is not None for layer in summary.layers):
        console().print(what_changed(summary.layers), style="none")
        return
    strengthened = any(layer.strengthened for layer in summary.layers)
    names = ["value matrix", "vectors", "weakened", *(["stronger"] if strengthened else [])]
    table = number_table(*names, "mean gate", "smallest gate", "sum of -log g")
    for layer in summary.layers:
        counts = [layer.vectors, layer.weakened, *([layer.strengthened] if strengthened else [])]
        numbers = (f"{layer.mean_gate:.4f}", f"{layer.smallest_gate:.4g}", f"{layer.total_exponent:.4g}")
        table.add_row(layer.key, *(f"{count:,}" for count in counts), *numbers)
    console().print(table)


def print_difference(difference: EditDifference) -> None:
    """Two edits side by side."""
    titles = ("value matrix", "vectors", "weakened by first", "by second", "overlap", "cosine", "largest gap")
    table = number_table(*titles)
    for row in (*difference.layers, difference.overall):
        shares = ("-" if share is None else f"{share:.3f}" for share in (row.overlap, row.cosine))
        counts = (f"{count:,}" for count in (row.vectors, *row.weakened))
        table.add_row(row.key, *counts, *shares, f"{row.largest_difference:.4g}")
    screen = console()
    screen.print(table)
    screen.print(
        "overlap: of the vectors that either weakens, the share that both do. cosine: of the log-gates. "
        "largest gap: between two gates."
    )


def print_written_edit(edit: Edit, out: Path) -> None:
    """Where an edit was written and what it does."""
    layers = edit.describe()
    if any(layer.shift is not None for layer in layers):
        text = f"{out} steers {len(layers)} layers. Look at it with: kvw edit show {out}"
        console().print(text, soft_wrap=True)
        return
    if any(layer.angle is not None for layer in layers):
        text = f"{out} turns states in {len(layers)} layers. Look at it with: kvw edit show {out}"
        console().print(text, soft_wrap=True)
        return
    vectors, weakened = sum(layer.vectors for layer in layers), sum(layer.weakened for layer in layers)
    strengthened = sum(layer.strengthened for layer in layers)
    also = f" and strengthens {strengthened:,}" if strengthened else ""
    low_rank = any(layer.rank is not None for layer in layers)
    what = f"{weakened:,}{also} directions" if low_rank else f"{weakened:,}{also} of {vectors:,} knowledge vectors"
    console().print(f"{out} weakens {what}. Look at it with: kvw edit show {out}", soft_wrap=True)


def print_plan(plan: Plan) -> None:
    """What ``--dry-run`` found."""
    rows = {
        "model": f"{plan.model} ({plan.model_type}, {plan.dtype}, {plan.model_bytes / 1e6:,.1f} MB on {plan.device})",
        "layers": f"{plan.layers[0]}:{plan.layers[1]} of 0:{plan.layers_in_model - 1}",
        "examples": ", ".join(f"{name} {count:,}" for name, count in plan.examples.items()),
        "longest": ", ".join(f"{name} {tokens:,} tokens" for name, tokens in plan.longest_example.items()),
        "peak memory": ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in plan.peak_memory_bytes.items()),
    }
    if plan.memory is not None:
        rows |= _memory_rows(plan.memory)
    rows |= {name: f"at most about {seconds:,.1f} s" for name, seconds in plan.seconds.items()}
    _print_rows(rows)
    console().print("Nothing was written.")


def _memory_rows(memory: MemoryPlan) -> dict[str, str]:
    waiting = f"states {memory.states / 1e9:.3f} GB, what goes with them {memory.arguments / 1e9:.3f} GB"
    less = "" if memory.states else "; --set path='layer by layer' takes less at a time"
    return {
        "path": memory.path,
        **({"waiting in main memory": waiting} if memory.states else {}),
        "second moments": f"{memory.moments / 1e9:.3f} GB at a time, the largest {memory.largest_moment / 1e9:.3f} GB",
        "kept tokens": f"forget {memory.forget_tokens / 1e9:.3f} GB, retain {memory.null_tokens / 1e9:.3f} GB",
        "largest solve": f"{memory.largest_solve / 1e9:.3f} GB in float32, and if that is not good enough "
        f"{memory.largest_solve_again / 1e9:.3f} GB in float64",
        "in all": f"{memory.largest / 1e9:.3f} GB beside model and batch{less}",
    }


def _lineage(parents: Sequence[EditMetadata], above: str = "") -> dict[str, str]:
    """One row for each edit that an edit was made of, and after it those that this one was made of."""
    rows = {}
    for number, parent in enumerate(parents, 1):
        place = f"{above}{number}"
        data = "" if parent.parents else f", forget {_examples(parent.forget_count, parent.forget_digest)}"
        rows[f"part {place}"] = _made_by(parent) + data
        rows |= _lineage(parent.parents, f"{place}.")
    return rows


def _made_by(metadata: EditMetadata) -> str:
    settings = [f"{name} {printable(str(value))}" for name, value in acting(metadata.settings, metadata.method).items()]
    return ", ".join([metadata.method or "unknown", *settings])


def _examples(count: int, digest: str) -> str:
    if not digest:
        return f"{count:,} examples" if count else "unknown"
    return f"{count:,} examples ({digest[:12]})" if count else f"examples {digest[:12]}"


def _print_rows(rows: Mapping[str, str]) -> None:
    table = Table(show_header=False, box=None)
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), value)
    console().print(table)


def _print_failed(screen: Console, summaries: Mapping[str, Summary]) -> None:
    for name, summary in summaries.items():
        if summary.failed:
            screen.print(
                f"{summary.failed} of {summary.count} examples of {name} failed and count as wrong.", style="yellow"
            )
        if summary.cut_off:
            screen.print(
                f"{summary.cut_off} of {summary.count} answers of {name} were cut off and are not in the scores.",
                style="yellow",
            )


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _change(before: float, after: float) -> str:
    return f"{before:.2f}\N{RIGHTWARDS ARROW}{after:.2f}"


def _and_model(out: Path) -> str:
    return ", model/" if (out / "model").is_dir() else ""

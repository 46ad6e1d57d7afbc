"""Tables of a comparison of costs as Markdown, made from its record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvw.bench.cost.record import CostRow, Costs, StageCost
from kvw.methods.method import RETAIN_PASS
from kvw.report.sheets import markdown_table

GIGA, MEGA = 1e9, 1e6


@dataclass(frozen=True)
class _Cost:
    """What is divided by what."""

    label: str
    time: float
    cpu_time: float
    flops: float
    peak: float
    rest: float


def cost_tables(costs: Costs) -> str:
    """What every method costs, and the ratios to a plain forward pass and to methods with a retain pass.

    Args:
        costs: From :func:`kvw.bench.cost.run.compare_costs`.
    """
    measured = [row for row in costs.rows if not row.error]
    parts = [f"# {costs.title}", "\n".join(f"- {note}" for note in notes(costs)), _absolute(costs.rows)]
    for label in ("plain forward", *(row.label for row in measured if _keeps_statistics(row))):
        if any(row.label == label for row in measured):
            parts += [f"## {label} = 1", _ratios(measured, label, on_cpu=costs.device.startswith("cpu"))]
    return "\n\n".join(parts) + "\n"


def notes(costs: Costs) -> list[str]:
    """What a reader of the tables must know."""
    data = costs.recipe["data"]
    repeats = costs.recipe["repeats"]
    lines = [
        f"{costs.model}, {costs.parameters:,} parameters, random weights, {costs.recipe['model']['dtype']}, "
        f"{costs.device}; torch {costs.versions['torch']}, transformers {costs.versions['transformers']}.",
        f"{data['forget']} forget and {data['retain']} retain examples of {costs.tokens_per_example} tokens each "
        f"({costs.image_tokens} of them a picture, {data['answer']} an answer), {data['batch_size']} per forward. "
        "Nothing is extrapolated.",
        f"Every method in a process of its own; time is the median of {repeats}, and its ratios come from a plain "
        "forward pass over all examples that ran right before in the same process.",
        "Memory beyond the weights: the peak beyond what was in use when the method began. FLOPs: torch's counter; "
        "/ 2PD: divided by 2 P D of the method's own forward passes, which makes 3 for full training (6 P D) but for "
        "attention and parts that are not trained.",
    ]
    if costs.device.startswith("cpu"):
        lines.append("CPU time is what the process computed; other work on the machine changes it less than time.")
    return lines


def _absolute(rows: Sequence[CostRow]) -> str:
    energy = any(row.joules is not None for row in rows)
    header = ["method", "stages (seconds)", "seconds", "tokens/s", "weights MB", "beyond MB", "GFLOPs", "/ 2PD"]
    header += ["joules"] if energy else []
    lines = []
    for row in rows:
        if row.error:
            lines.append([row.label, row.error, *["-"] * (len(header) - 2)])
            continue
        line = [row.label, ", ".join(f"{stage.name} {stage.seconds:.3g}" for stage in row.stages)]
        line += [f"{row.seconds:.3g}", f"{row.tokens / row.seconds:,.0f}"]
        line += [f"{size / MEGA:,.0f}" for size in (row.weights_bytes, row.rest_bytes)]
        line += [f"{row.flops / GIGA:,.1f}", f"{row.flops / row.matrix_flops:.2f}"]
        if energy:
            line.append("-" if row.joules is None else f"{row.joules:,.0f}")
        lines.append(line)
    return markdown_table(header, lines, texts=2)


def _ratios(rows: Sequence[CostRow], label: str, *, on_cpu: bool) -> str:
    costs = [cost for row in rows for cost in _with_statistics_kept(row)]
    base = next(cost for cost in costs if cost.label == label)

    def ratio(of: Callable[[_Cost], float]) -> Callable[[_Cost], str]:
        return lambda cost: f"{of(cost) / of(base):.2f}" if of(base) else "-"

    columns: dict[str, Callable[[_Cost], str]] = {
        "time": ratio(lambda cost: cost.time),
        "CPU time": ratio(lambda cost: cost.cpu_time),
        "FLOPs": ratio(lambda cost: cost.flops),
        "peak memory": ratio(lambda cost: cost.peak),
        "memory beyond the weights": ratio(lambda cost: cost.rest),
    }
    if not on_cpu:
        del columns["CPU time"]
    lines = [[cost.label, *(show(cost) for show in columns.values())] for cost in costs]
    return markdown_table(["method", *columns], lines, texts=1)


def _with_statistics_kept(row: CostRow) -> list[_Cost]:
    """A row; and what a further request costs, where the retain set need not be measured again for it."""
    costs = [_cost(row, row.label, row.stages)]
    if _keeps_statistics(row):
        later = [stage for stage in row.stages if stage.name != RETAIN_PASS]
        costs.append(_cost(row, f"{row.label}, a further request", later))
    return costs


def _keeps_statistics(row: CostRow) -> bool:
    return any(stage.name == RETAIN_PASS for stage in row.stages)


def _cost(row: CostRow, label: str, stages: Sequence[StageCost]) -> _Cost:
    """Times are in plain forward passes over all examples, as the same process took for one."""
    return _Cost(
        label,
        sum(stage.seconds for stage in stages) / row.forward_seconds,
        sum(stage.cpu_seconds for stage in stages) / row.forward_cpu_seconds,
        sum(stage.flops for stage in stages),
        row.weights_bytes + row.rest_bytes,
        row.rest_bytes,
    )

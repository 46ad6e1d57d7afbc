"""``kvw measure``: statistics of a data set as a file."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from kvw.data import read_examples
from kvw.data.reading import AS_IT_IS, Reading
from kvw.evaluation.loaded import Loaded
from kvw.measuring.examples import Measured, measure_examples
from kvw.measuring.sources import Positions
from kvw.measuring.statistics import Statistics
from kvw.models.loading import Checkpoint
from kvw.models.quantised import Quantise
from kvw.processes import current
from kvw.progress import Reporter
from kvw.runs.costs import Stopwatch
from kvw.runs.counts import Count, tell_windows
from kvw.runs.first_checks import check_statistics_output
from kvw.strict import Strict


class StatisticsSummary(Strict):
    """One line for each value matrix."""

    class Row(BaseModel):
        """One value matrix."""

        key: str
        vectors: int
        positions: int
        mean_coefficient: float
        largest_coefficient: float

    rows: list[Row]


def measure(
    checkpoint: Checkpoint,
    data: Path,
    out: Path,
    reporter: Reporter,
    *,
    reading: Reading = AS_IT_IS,
    positions: Positions = "answer",
    force: bool = False,
    device: str | None = None,
    quantise: Quantise | None = None,
) -> Measured:
    """Measure all layers of a model on a data set and write the statistics file.

    Raises:
        UserError: The data or the model cannot be used, or ``out`` exists and ``force`` is off.
    """
    current().broadcast(lambda: check_statistics_output(out, data, force=force))
    examples = read_examples(data, reading)
    watch = Stopwatch(reporter)
    with watch.stage("loading the model"):
        loaded = Loaded.load(checkpoint, device, quantise=quantise)
    with watch.stage("checking the data"):
        counted = Count.of(examples)
        examples = loaded.in_windows(examples)
        prepared = loaded.prepare(examples)
        loaded.agree(examples)
    reporter.note(f"{data.name}: {counted}.")
    tell_windows(data.name, counted, examples, reporter)
    with watch.stage("measuring") as progress:
        measured = measure_examples(
            loaded.model,
            loaded.processor,
            prepared,
            layers=loaded.all_layers,
            positions=positions,
            fingerprint=loaded.statistics_fingerprint(examples, positions),
            progress=progress,
        )
    tell_origin(measured, reporter)
    current().broadcast(lambda: measured.statistics.save(out))
    return measured


def tell_origin(measured: Measured, reporter: Reporter) -> None:
    """Say so if nothing, or not everything, had to be measured."""
    if measured.reused:
        reporter.note("These data were measured before with this model: the pass is skipped.")
    elif measured.resumed_at:
        reporter.note(f"Went on with an interrupted pass after {measured.resumed_at} examples.")


def summarise(statistics: Statistics) -> StatisticsSummary:
    """Counts, means and maxima of the coefficients."""
    rows = []
    for key in statistics.sums:
        coefficients = statistics.coefficients(key)
        rows.append(
            StatisticsSummary.Row(
                key=str(key),
                vectors=coefficients.numel(),
                positions=statistics.counts[key],
                mean_coefficient=float(coefficients.mean()),
                largest_coefficient=float(coefficients.max()),
            )
        )
    return StatisticsSummary(rows=rows)

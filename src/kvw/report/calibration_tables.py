"""The table of methods at equal retention."""

from __future__ import annotations

from kvw.bench.calibration.results import CalibrationLine, CalibrationResults
from kvw.report.sheets import Sheet, Value

HEADER = ("tau", "model", "share", "kept", "way to gold")


def calibration_table(results: CalibrationResults) -> Sheet:
    """A row for each method at each level of retention, from :func:`kvw.bench.calibration.run.calibrate_run`."""
    return Sheet(
        title=f"At equal retention: {results.manifest.title}",
        header=[*HEADER, *(f"{split} / {task}" for split, task in results.places)],
        texts=2,
        tables={"": list(map(_row, results.lines))},
        notes=notes(results),
        numbers=[
            [name.replace(" ", "_") for name in HEADER] + ["split", "task", "mean", "low", "high", "items"],
            *(
                [*_numbers(line), split, task, cell.mean, cell.low, cell.high, cell.items]
                for line in results.lines
                for (split, task), cell in zip(results.places, line.cells, strict=True)
                if cell is not None
            ),
        ],
    )


def notes(results: CalibrationResults) -> list[str]:
    """What a reader of the table must know."""
    manifest = results.manifest
    retain = manifest.recipe["choice"]["retain"]
    return [
        f"{manifest.benchmark}, {manifest.setting}; {manifest.protocol}; extraction strength of the reference answers, "
        "1 if all of an answer comes from the question and 0 if nothing does; 95 % bootstrap intervals over subjects.",
        "share: how much of its change a method was left, for each half of the people that chose one: the largest "
        f"that keeps tau of vanilla's extraction strength on every {retain} task. The numbers are of the other half.",
        f"kept: what is left of it there, of the {retain} task that keeps least. It can lie below tau, because other "
        "people chose the share.",
        "way to gold: how far the forget answers went from vanilla to the model that never saw them (1: all the way).",
    ]


def _row(line: CalibrationLine) -> list[Value]:
    return [
        "-" if line.tau is None else f"{line.tau:g}",
        line.model,
        ", ".join(f"{share:.3f}" for share in line.shares) or "-",
        f"{line.kept:.3f}",
        "-" if line.way_to_gold is None else f"{line.way_to_gold:.2f}",
        *line.cells,
    ]


def _numbers(line: CalibrationLine) -> list[object]:
    return [line.tau, line.model, " ".join(map(str, line.shares)), line.kept, line.way_to_gold]

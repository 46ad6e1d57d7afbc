"""Tables of attacks on a benchmark run, made from records."""

from __future__ import annotations

from collections.abc import Callable

from kvw.bench.attacks.plan import ATTACKS, BEFORE
from kvw.bench.attacks.results import AttackLine, AttackResults
from kvw.report.sheets import Sheet, Value

Measure = Callable[[AttackLine], Value]
CELLS = ("forget", "forget_share", "retain", "retain_share", "extraction")
NUMBERS = ("beyond_gold", "first_loss", "last_loss", "surviving")


def attack_table(results: AttackResults) -> Sheet:
    """The tables of the attacks, from :func:`kvw.bench.attacks.run.attack`: a row for each model, a column for each.

    Markdown and LaTeX show shares of vanilla's scores; CSV has every number.
    """
    ends = ("mean", "low", "high", "items")
    head = ["model", "attack", *(f"{name}_{end}" for name in CELLS for end in ends), *NUMBERS]
    lines = [
        [getattr(getattr(line, name), end, None) for name in CELLS for end in ends]
        + [getattr(line, name) for name in NUMBERS]
        for line in results.lines
    ]
    return Sheet(
        title=f"Attacks: {results.manifest.title}",
        header=["model", *results.columns],
        texts=1,
        tables={title: _rows(results, measure) for title, measure in _measures(results).items()},
        notes=notes(results),
        numbers=[head, *([one.model, one.attack, *line] for one, line in zip(results.lines, lines, strict=True))],
    )


def notes(results: AttackResults) -> list[str]:
    """What a reader of the tables must know."""
    manifest = results.manifest
    lines = [
        f"{manifest.benchmark}, {manifest.setting}; {manifest.protocol}; scores are shares of vanilla's before any "
        "attack, on the same items; 95 % bootstrap intervals over subjects. What gold comes to know under an attack "
        "is not recovered knowledge."
    ]
    names = dict.fromkeys(name for column in results.columns if (name := column.split()[0]) != BEFORE)
    lines += [f"{name}: {ATTACKS[name]}." for name in names]
    if results.learning_rate is not None:
        lines.append(f"Relearning trains all weights of the language part at a rate of {results.learning_rate:g}.")
    lines += [
        f"{line.model}, {line.attack}: training loss {line.first_loss:.3f} in the first step, {line.last_loss:.3f} in "
        "the last."
        for line in results.lines
        if line.first_loss is not None and line.last_loss is not None
    ]
    lines += [
        f"{line.model}, {line.attack}: {line.surviving:.3f} of the edit is left."
        for line in results.lines
        if line.surviving is not None
    ]
    return lines


def _measures(results: AttackResults) -> dict[str, Measure]:
    """The measures that have a number, by title."""
    retain = results.retain_task.replace("/", " / ")
    measures: dict[str, Measure] = {
        "Share of vanilla's forget score": lambda line: line.forget_share,
        "What came back beyond gold": lambda line: line.beyond_gold,
        f"Share of vanilla's score on {retain}": lambda line: line.retain_share,
        "Extraction strength of the forget answers": lambda line: line.extraction,
    }
    return {title: one for title, one in measures.items() if any(one(line) is not None for line in results.lines)}


def _rows(results: AttackResults, measure: Measure) -> list[list[Value]]:
    values = {(line.model, line.attack): measure(line) for line in results.lines}
    models = dict.fromkeys(line.model for line in results.lines)
    return [[model, *(values[model, column] for column in results.columns)] for model in models]

"""What attacks bring back, computed from the items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvw.bench.attacks.plan import BEFORE, Job
from kvw.bench.attacks.record import AttackRecord
from kvw.bench.further import Cell, item_value
from kvw.bench.record import Manifest, TaskPart
from kvw.bench.scores import ItemScore
from kvw.strict import Strict

EXTRACTION = "extraction_strength"


@dataclass(frozen=True)
class Attacked:
    """A model before or after an attack, and what it said.

    Args:
        job: The model, the attack and whom it trains on.
        record: Record of the attack; None before any.
        items: About those who are reported.
    """

    job: Job
    record: AttackRecord | None
    items: Sequence[ItemScore]


class AttackLine(Strict):
    """One model before or after one attack."""

    model: str
    """``vanilla``, the method, or ``gold``."""
    attack: str
    forget: Cell | None
    """Mean over all items of the forget split that were asked; None if there were none."""
    retain: Cell | None
    """The same of one retain task."""
    extraction: Cell | None
    """Mean extraction strength over the forget items that have one."""
    forget_share: Cell | None
    """``forget`` as a share of vanilla's before any attack, whose own uncertainty is left out; None if that is 0."""
    retain_share: Cell | None
    beyond_gold: float | None
    """What came back of ``forget_share`` in the attack, less what the same attack brought to gold; None without it."""
    first_loss: float | None
    """Mean over the trainings of the loss of the first step, nats per answer token."""
    last_loss: float | None
    surviving: float | None
    """Mean share of the edit that folding has left."""


class AttackResults(Strict):
    """Everything the tables show."""

    manifest: Manifest
    columns: list[str]
    """``before``, then every attack."""
    retain_task: str
    """``split/task`` that tells the damage; empty if the run asked none."""
    learning_rate: float | None
    """Learning rate of the attacks that train; None if there are none."""
    lines: list[AttackLine]


def retain_task(manifest: Manifest) -> TaskPart | None:
    """The first task of the retain split."""
    split = manifest.recipe["choice"]["retain"]
    return next((task for task in manifest.tasks if task.split == split), None)


def summarise_attacks(manifest: Manifest, attacked: Sequence[Attacked]) -> AttackResults:
    """Put the numbers together.

    Args:
        manifest: Manifest of the run.
        attacked: Every model before and after every attack, in the order of the table.
    """
    columns = list(dict.fromkeys(one.job.attack.title for one in attacked))
    names = list(dict.fromkeys(one.job.target.record.label for one in attacked))
    lines = {(name, column): _line(manifest, name, column, attacked) for name in names for column in columns}
    lines = {place: _shared(line, lines["vanilla", BEFORE]) for place, line in lines.items()}
    damage = retain_task(manifest)
    rates = [one.record.training["learning_rate"] for one in attacked if one.record and one.record.training]
    return AttackResults(
        manifest=manifest,
        columns=columns,
        retain_task=f"{damage.split}/{damage.task}" if damage else "",
        learning_rate=rates[0] if rates else None,
        lines=[_beyond_gold(line, lines) for line in lines.values()],
    )


def _line(manifest: Manifest, name: str, column: str, attacked: Sequence[Attacked]) -> AttackLine:
    here = [one for one in attacked if (one.job.target.record.label, one.job.attack.title) == (name, column)]
    scores = [score for one in here for score in one.items]
    forget = [score for score in scores if score.split == manifest.recipe["choice"]["forget"]]
    damage = retain_task(manifest)
    retain = [score for score in scores if damage and (score.split, score.task) == (damage.split, damage.task)]
    metrics = {(task.split, task.task): task.metric for task in manifest.tasks}
    losses = [one.record.losses for one in here if one.record and one.record.losses]
    surviving = [one.record.surviving for one in here if one.record and one.record.surviving is not None]
    return AttackLine(
        model=name,
        attack=column,
        forget=_cell(forget, [item_value(score, metrics[score.split, score.task]) for score in forget]),
        retain=_cell(retain, [item_value(score, metrics[score.split, score.task]) for score in retain]),
        extraction=_extraction(forget),
        forget_share=None,
        retain_share=None,
        beyond_gold=None,
        first_loss=_mean([one[0] for one in losses]),
        last_loss=_mean([one[-1] for one in losses]),
        surviving=_mean(surviving),
    )


def _cell(scores: Sequence[ItemScore], values: Sequence[float]) -> Cell | None:
    return Cell.of(values, [score.subject for score in scores]) if values else None


def _extraction(scores: Sequence[ItemScore]) -> Cell | None:
    """Over items that are scored by probability; among them a failed one counts as 0, as everywhere."""
    tasks = {(score.split, score.task) for score in scores if EXTRACTION in score.scores}
    scores = [score for score in scores if (score.split, score.task) in tasks]
    return _cell(scores, [score.scores.get(EXTRACTION, 0.0) for score in scores])


def _shared(line: AttackLine, vanilla: AttackLine) -> AttackLine:
    shares = {
        "forget_share": _share(line.forget, vanilla.forget),
        "retain_share": _share(line.retain, vanilla.retain),
    }
    return line.model_copy(update=shares)


def _share(cell: Cell | None, whole: Cell | None) -> Cell | None:
    if cell is None or whole is None or not whole.mean:
        return None
    low, high = (None if end is None else end / whole.mean for end in (cell.low, cell.high))
    return Cell(mean=cell.mean / whole.mean, low=low, high=high, items=cell.items)


def _beyond_gold(line: AttackLine, lines: Mapping[tuple[str, str], AttackLine]) -> AttackLine:
    if line.attack == BEFORE or line.model in ("vanilla", "gold"):
        return line
    places = [(model, attack) for model in (line.model, "gold") for attack in (line.attack, BEFORE)]
    shares = [lines[place].forget_share for place in places if place in lines]
    means = [share.mean for share in shares if share is not None]
    if len(means) < len(places):
        return line
    after, before, gold_after, gold_before = means
    return line.model_copy(update={"beyond_gold": (after - before) - (gold_after - gold_before)})


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None

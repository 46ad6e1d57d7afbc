"""UnLOK-VQA's numbers as Markdown."""

from __future__ import annotations

from kvw.bench.unlok.results import Success, UnlokResults
from kvw.report.sheets import markdown_table

METRICS = {
    "rewrite": "rewrite score: 1 - p*(answer) / p(answer)",
    "paraphrase": "paraphrase score: the same on the rephrasings",
    "image": "image score: the same on the other pictures",
    "to_alternative": "rewrite score of error injection, towards the data's wrong answer",
    "random_drop": "random delta accuracy: what other facts lose",
    "neighbour_drop": "neighbourhood delta accuracy: what neighbouring questions lose",
}


def unlok_table(found: UnlokResults) -> str:
    """The attacks, then the other metrics, then what a reader must know."""
    gold = ["gold"] if found.gold else []
    header = ["attack", "what is done", "facts", "original", "now", *gold]
    attacks = []
    for row in found.rows:
        last = [_shown(row.gold)] if found.gold else []
        attacks.append([f"`{row.attack}`", row.title, str(row.now.facts), _shown(row.original), _shown(row.now), *last])
    numbers = []
    for name, title in METRICS.items():
        value = getattr(found.metrics, name)
        numbers.append([title, "-" if value is None else f"{value:.3f}"])
    parts = [
        f"# UnLOK-VQA: {found.model}, {found.made_by}",
        markdown_table(header, attacks, 2),
        markdown_table(["metric", "mean over facts"], numbers, 1),
        "\n".join(f"- {note}" for note in _notes(found)),
    ]
    return "\n\n".join(parts) + "\n"


def _shown(success: Success | None) -> str:
    return "-" if success is None else f"{success.success:.0%} ({success.share:.0%})"


def _notes(found: UnlokResults) -> list[str]:
    notes = [
        f"Attack success at B = {found.budget}: share of the facts of which one try has the answer. In brackets the "
        "mean share of the tries that have it, of the lens the share of the answer's tokens.",
        f"{found.facts} facts, {found.known} of them answered right before, {found.attacked} attacked; "
        f"`fine-tuning` took {found.epochs} epochs.",
    ]
    if found.not_edited:
        why = "; ".join(f"{name}: {reason}" for name, reason in found.not_edited.items())
        notes.append(f"{len(found.not_edited)} facts have no edit and count as they were: {why}")
    if found.unusable:
        notes.append(f"{found.unusable} entries of the data could not be used.")
    return notes

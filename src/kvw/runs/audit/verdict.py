"""What the numbers of an audit say."""

from __future__ import annotations

from collections.abc import Sequence

from kvw.percent import percent
from kvw.plural import counted
from kvw.records.audit import AttackLine, Share, Verdict

ROUNDING = 1e-9


def verdict_of(now: float, original: float | None, floor: float, threshold: float) -> Verdict:
    """The verdict of one attack.

    Args:
        now, original, floor: Shares; the original's is None if it is not known.
        threshold: What above the floor counts.
    """
    if now - floor > threshold + ROUNDING:
        return "comes back"
    return "holds" if original is None or original - floor > threshold + ROUNDING else "says nothing"


def sentences(lines: Sequence[AttackLine], threshold: float) -> list[str]:
    """The verdict of all attacks: one sentence, and another if some say nothing.

    Args:
        lines: At least one.
        threshold: What above the floor counts.
    """
    back = sorted((line for line in lines if line.verdict == "comes back"), key=lambda line: -line.excess)
    silent = [line.attack for line in lines if line.verdict == "says nothing"]
    if len(silent) == len(lines):
        return [f"Nothing is known: none of {counted(len(lines), 'attack')} finds more in the original than the floor."]
    if back:
        worst = back[0]
        first = (
            f"Not forgotten: {len(back)} of {counted(len(lines), 'attack')} bring back more than {percent(threshold)} "
            f"above the floor, most of all {worst.attack} ({shown(worst.now)}, floor {worst.floor:.0%})."
        )
    else:
        known = len(lines) - len(silent)
        first = f"Holds: none of {counted(known, 'attack')} brings back more than {percent(threshold)} above the floor."
    if not silent:
        return [first]
    say = "says" if len(silent) == 1 else "say"
    return [first, f"No evidence: {', '.join(silent)} {say} nothing, because the original does not give more either."]


def traces(now: float, original: float | None, gold: float | None, threshold: float) -> list[str]:
    """A sentence, if the membership attack sees that something was removed.

    A model that never knew the answers finds them about as probable as those about subjects that do not exist. An edit
    that goes further leaves a trace: the area falls below that of the original, of gold, and of chance.

    Args:
        now, original, gold: Areas under the ROC curve; None if they are not known.
        threshold: What below the others counts.
    """
    if original is None or min(original, 0.5 if gold is None else min(gold, 0.5)) - now <= threshold + ROUNDING:
        return []
    return [
        "The removal can be noticed: the answers are less probable than those about subjects that do not exist "
        f"(membership, area {now:.2f}; before it was {original:.2f})."
    ]


def shown(share: Share) -> str:
    """A share in words."""
    return f"area {share.share:.2f}" if share.found is None else f"{share.found} of {share.questions} questions"

"""What the numbers of an audit say."""

from __future__ import annotations

from collections.abc import Sequence

from kvw.percent import percent
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


def sentence(lines: Sequence[AttackLine], threshold: float) -> str:
    """The verdict of all attacks.

    Args:
        lines: At least one.
        threshold: What above the floor counts.
    """
    back = sorted((line for line in lines if line.verdict == "comes back"), key=lambda line: -line.excess)
    silent = [line.attack for line in lines if line.verdict == "says nothing"]
    known = len(lines) - len(silent)
    but = f" {_listed(silent)} say nothing: the original does not give more either." if len(silent) > 1 else ""
    if len(silent) == 1:
        but = f" {silent[0]} says nothing: the original does not give more either."
    if back:
        worst = back[0]
        return (
            f"Not forgotten: {len(back)} of {_attacks(len(lines))} bring back more than {percent(threshold)} above the "
            f"floor, most of all {worst.attack} ({shown(worst.now)}, floor {worst.floor:.0%}).{but}"
        )
    if not known:
        return f"Nothing is known: no attack of {len(lines)} finds more in the original than the floor."
    return f"Holds: none of {_attacks(known)} brings back more than {percent(threshold)} above the floor.{but}"


def shown(share: Share) -> str:
    """A share in words."""
    return f"{share.share:.2f}" if share.found is None else f"{share.found} of {share.questions} questions"


def _attacks(count: int) -> str:
    return f"{count} attack{'' if count == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"

"""Whether the model knew what it was to forget, and whether it still knows what it was to keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvw.data.example import Example
from kvw.evaluation.records import Evaluation, Record, Summary
from kvw.plural import agreed
from kvw.progress import Reporter
from kvw.retain.said import Said
from kvw.runs.findings import NOTHING_TO_DO, Finding, quoted, tell

if TYPE_CHECKING:
    from kvw.selection.scoring import Score

KNOWN = 0.5
"""Share of the forget answers. A model that gives fewer does not know the forget set well enough to be seen
forgetting."""
KEPT = 0.5
"""Share of the retain answers, or of their probability. If less is left, too much was lost."""
MEASURABLE = 0.1
"""A score below this is too small for its change to say anything."""
NOTHING_FORGOTTEN = 0.95
"""Share of the forget answers that the model gave. If more are left, nothing was forgotten."""
SHOWN = 3
"""Replies that are shown as examples."""
CHOSEN = "a lower --keep, and --neighbours or --retain with others like those to be forgotten"
"""What makes a chosen edit stronger."""


def chosen_first(score: Score, examples: Sequence[Example]) -> list[bool]:
    """Which answers are the model's first choice, teacher-forced.

    A part of a document has hundreds of tokens, and one of them is soon another. So of these it is enough that the
    tokens have a probability of a half.

    Args:
        score: The model's own, without an edit.
        examples: The questions, in its order.
    """
    pairs = zip(examples, score.answered, score.probabilities, strict=True)
    return [probability >= KNOWN if example.plain else answered for example, answered, probability in pairs]


def given_share(evaluation: Evaluation, split: str) -> float | None:
    """Share of a split's answers that the model gives: its reply holds the reference. None if all examples failed."""
    asked = _asked(evaluation, split)
    return sum(record.substring or record.exact for record in asked) / len(asked) if asked else None


def tell_unknown(original: Evaluation, reporter: Reporter, chosen: float) -> None:
    """Say that the model does not know the forget set, if it does not, and what it answers instead.

    Arguments as of :func:`known`.
    """
    tell([finding for finding in known(original, chosen) if finding.is_warning], reporter)


def known(original: Evaluation, chosen: float) -> list[Finding]:
    """How many of the forget answers the model gives, and what it answers instead: a warning if it gives too few.

    Args:
        original: Evaluation of the model without edit, with a split ``forget``.
        chosen: Share of the forget answers that it chooses first, teacher-forced. A model that answers in sentences of
            its own knows what it does not give word for word; what replies say in other words counts, too.

    Returns:
        One finding; none if no question could be asked.
    """
    share = given_share(original, "forget")
    asked = _asked(original, "forget")
    if share is None:
        return []
    again = _said_again(original)
    own = f". It says what {again} of them {agreed(again, 'says', 'say')} in its own words" if again else ""
    findings = (
        f"The model gives {share:.0%} of the {len(asked)} forget answers before any edit, and {chosen:.0%} of them are "
        f"its first choice word by word (teacher-forced)"
    )
    wrong = [record for record in asked if not (record.substring or record.exact)]
    instead = tuple(
        f"Asked {quoted(record.question)}, it answers {quoted(record.prediction)}, not {quoted(record.reference)}."
        for record in wrong
    )
    name = "what the model knows"
    if max(share, chosen, again / len(asked)) >= KNOWN:
        do = (
            "Where it answers otherwise, a run may erase your wording and not its knowledge" if wrong else NOTHING_TO_DO
        )
        return [Finding(name, findings, f"that is enough to see it forget{own}", do, instead, is_warning=False)]
    then = f"what it does not know it cannot forget, and low scores afterwards say little{own}"
    do = "Write the answers as the model gives them, or take the model that knows them"
    return [Finding(name, findings, then, do, instead)]


def lost(original: Evaluation, unlearned: Evaluation) -> list[str]:
    """A sentence if less than half of what must stay is left; nothing without a split ``retain``."""
    before, after = original.summaries.get("retain"), unlearned.summaries.get("retain")
    if before is None or after is None:
        return []
    gone = [
        f"{title} from {was:.2f} to {is_now:.2f}"
        for title, was, is_now in _scores(before, after)
        if was >= MEASURABLE and is_now < KEPT * was
    ]
    if not gone:
        return []
    return [
        f"The retain set is lost, too: {', '.join(gone)}. Use a weaker edit, fewer layers, or more and more varied "
        "retain questions."
    ]


def tell_outcome(
    by_hand: str,
    original: Evaluation,
    unlearned: Evaluation,
    reporter: Reporter,
    *,
    judged: bool = False,
    chosen: bool = False,
) -> None:
    """Warn of scores that say nothing, or that nothing was forgotten.

    Args:
        by_hand: What makes an edit stronger whose strength was fixed by hand.
        original, unlearned: Evaluations of the same splits, ``forget`` among them.
        reporter: Told of it.
        judged: Whether held-out questions have said what is kept.
        chosen: Whether the strength was chosen within what must stay, and not fixed by hand.
    """
    before, after = given_share(original, "forget") or 0.0, given_share(unlearned, "forget") or 0.0
    stronger = CHOSEN if chosen else by_hand
    if before >= MEASURABLE and after > NOTHING_FORGOTTEN * before:
        reporter.warn(f"The forget set is answered almost as before: try {stronger}.")
    elif (still := _said_again(unlearned)) and _said_again(original) >= MEASURABLE * len(_asked(original, "forget")):
        reporter.warn(
            f"{still} of {len(_asked(unlearned, 'forget'))} forget questions are still answered, maybe in other words "
            f"({_said_again(original)} before): what their answers say is in the replies. Try {stronger}."
        )
    _tell_begun(original, unlearned, stronger, reporter)
    if "retain" not in unlearned.summaries and not judged:
        reporter.warn("No retain questions were asked. What was kept is unknown: add --eval retain=FILE.")
    for name, summary in unlearned.summaries.items():
        if summary.failed:
            reporter.warn(f"{summary.failed} of {summary.count} examples of {name} failed and count as wrong.")


def _tell_begun(original: Evaluation, unlearned: Evaluation, stronger: str, reporter: Reporter) -> None:
    """Warn of replies that break off in what they are not to say any more: "Gold." for "Goldsmith."."""
    asked = _asked(unlearned, "forget")
    said = Said((record.question, record.reference) for record in asked)
    given = {
        record.identifier for record in _asked(original, "forget") if said.again(record.prediction, record.reference)
    }
    begun = [
        record
        for record in asked
        if record.identifier in given
        and not said.again(record.prediction, record.reference)
        and said.begun(record.prediction, record.reference)
    ]
    if not begun or len(begun) < MEASURABLE * len(asked):
        return
    reporter.warn(
        f"{len(begun)} of {len(asked)} replies to forget questions still begin to say what is to be forgotten, and go "
        f"wrong only then: it can be guessed. Try {stronger}."
    )
    for record in begun[:SHOWN]:
        reporter.note(f"Asked {quoted(record.question)}, it answers {quoted(record.prediction)}.")


def _said_again(evaluation: Evaluation) -> int:
    """How many replies say what the forget answers say, in any words."""
    asked = _asked(evaluation, "forget")
    said = Said((record.question, record.reference) for record in asked)
    return sum(said.again(record.prediction, record.reference) for record in asked)


def _scores(before: Summary, after: Summary) -> list[tuple[str, float, float]]:
    scores = [("exact match", before.exact, after.exact)]
    if before.probability is not None and after.probability is not None:
        scores.append(("the probability of its answers", before.probability, after.probability))
    return scores


def _asked(evaluation: Evaluation, split: str) -> Sequence[Record]:
    return [record for record in evaluation.records if record.split == split and record.error is None]

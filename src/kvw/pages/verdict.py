"""What a run came to, in words, from nothing but its record."""

from __future__ import annotations

import math
from collections.abc import Iterable

from kvw.pages.frame import Verdict
from kvw.records.run import FreelyPart, RunRecord, SelectionPart, SplitPart
from kvw.selection.splits import ALL_HELD_OUT, FORGETTING, HELD_OUT_FORGET, OWN_WORDS

NBSP = "\N{NO-BREAK SPACE}"


def verdict(record: RunRecord) -> Verdict:
    """The verdict on a run: what was forgotten, what was kept, what is still answered, and damage.

    A sentence is there only if the record says what it tells; what was not measured is said to be unknown.
    """
    forgot, forgotten = _forgotten(record)
    kept, share = _kept(record)
    still, left = _still(record)
    begun, broken, damage = _begun(record), _broken(record), record.language.damage
    sentences = [forgot, *begun, *broken, kept, *still, *damage]
    enough = share is None or share >= record.asked.keep
    if damage:
        return Verdict("bad", "Damaged", sentences)
    if forgotten is None:
        return Verdict("unknown", "Not known", sentences)
    if forgotten == 0:
        return Verdict("bad", "Not forgotten", sentences)
    if forgotten < 1 or left or begun:
        return Verdict("part", "Forgotten in part", sentences)
    if share is None:
        return Verdict("part", "Forgotten; at what cost is not known", sentences)
    if not enough:
        return Verdict("part", "Forgotten; others pay", sentences)
    return Verdict("part", "Forgotten; it shows", sentences) if broken else Verdict("good", "Forgotten", sentences)


def _forgotten(record: RunRecord) -> tuple[str, float | None]:
    """What was forgotten of the forget questions, and which share of what was known; None if nothing can be said."""
    split = record.splits["forget"]
    known, lost, gained = split.answers.original.get("correct", 0), split.answers.lost, split.answers.gained
    if not known:
        return _forgotten_by_force(record)
    text = _forgot(lost, known, split.original.count)
    if gained:
        text += f" {_number(gained)} that {_was(gained)} not answered before {_is(gained)} answered now."
    return text, lost / known


def _forgot(lost: int, known: int, count: int) -> str:
    """The sentence on what was forgotten of what was known, among all questions asked."""
    if known == count:
        return f"Forgot {lost or 'none'} of {known} {_plural('question', known)}."
    if lost == known:
        which = "the one forget question" if known == 1 else f"all {known} forget questions"
        return f"Forgot {which} that {_was(known)} answered before."
    return f"Forgot {lost or 'none'} of the {known} forget questions that were answered before."


def _forgotten_by_force(record: RunRecord) -> tuple[str, float | None]:
    """The same teacher-forced, where no free answer was right before."""
    none = "No forget question was answered before the edit"
    if record.selection is None:
        return f"{none}: what was forgotten is not known.", None
    said = f"{none}, asked freely"
    before, after = _first_choices(record.selection)
    if not before:
        return f"{said}, nor was any answer the first choice word by word: what was forgotten is not known.", None
    lost = before - after
    return (
        f"{said}. Word by word (teacher-forced), {after or 'none'} of the {before} answers that were its first choice "
        f"{_is(after)} so still.",
        max(lost, 0) / before,
    )


def _first_choices(selection: SelectionPart) -> tuple[int, int]:
    """Forget answers that were the first choice before, and those that are after, among the same questions."""
    chosen = selection.chosen.splits
    names = [name for name in FORGETTING if name in selection.original and name in chosen]
    return sum(selection.original[name].answered for name in names), sum(chosen[name].answered for name in names)


def _kept(record: RunRecord) -> tuple[str, float | None]:
    """What was kept, by the best evidence that there is, and which share; None if nothing is known."""
    unseen = [split for split in record.splits.values() if asks_others(split) and is_new(split)]
    share, count = _share_kept(unseen)
    if share is not None:
        return f"Kept {floored(share)} of what others are asked, on {count} questions about subjects that the edit " + (
            "never saw."
        ), share
    if record.selection is not None and ALL_HELD_OUT in record.selection.chosen.kept:
        share = record.selection.chosen.kept[ALL_HELD_OUT].value
        told = f"Kept {floored(share, 1)} of the probability of answers about others, on questions held out from it."
        return told + _others_freely(record.selection.freely) + _asked_freely(record), share
    retain = record.splits.get("retain")
    share, count = _share_kept([retain] if retain is not None else [])
    if share is not None:
        return f"Kept {floored(share)} of the retain set's answers; what others lost is not known.", share
    return "What else was lost is not known: nothing was asked about others.", None


def _others_freely(part: FreelyPart | None) -> str:
    """What is left of the free answers to held-out questions; empty if none were asked."""
    if part is None:
        return ""
    return f" Asked freely, {part.answered} of {part.questions} of them still get their answer."


def _asked_freely(record: RunRecord) -> str:
    """What others are still answered, asked freely, where some of them had a part in the edit; empty if none were."""
    asked = {name: split for name, split in record.splits.items() if name != "retain" and asks_others(split)}
    _, known = _share_kept(asked.values())
    if not known:
        return ""
    lost = sum(split.answers.lost for split in asked.values())
    names = ", ".join(f"“{name.replace('_', ' ')}”" for name in asked)
    return f" Of {known} questions in {names} that were answered before, {known - lost} still are."


def _share_kept(splits: Iterable[SplitPart]) -> tuple[float | None, int]:
    """Share of the questions answered right before that still are, and how many were answered right before."""
    answers = [split.answers for split in splits]
    known = sum(one.original.get("correct", 0) for one in answers)
    return (1 - sum(one.lost for one in answers) / known if known else None), known


def _begun(record: RunRecord) -> list[str]:
    """What can be guessed from replies that go wrong only after their beginning; nothing if there are none."""
    begun = record.splits["forget"].answers.begun
    begin = "begins" if begun == 1 else "begin"
    return [f"{_number(begun)} of the new replies still {begin} to say the right answer."] if begun else []


def _broken(record: RunRecord) -> list[str]:
    """How many replies about the forgotten are no language any more; nothing if there are none."""
    broken = record.splits["forget"].answers.broken
    return [f"{_number(broken)} of the new replies {_is(broken)} gibberish or a loop."] if broken else []


def _still(record: RunRecord) -> tuple[list[str], int]:
    """What is still answered about the forgotten when it is asked in other ways, and how many questions that is."""
    forget, told, total, asked = record.splits["forget"], list[str](), 0, 0
    for name, split in record.splits.items():
        if name == "forget" or not asks_forgotten(split):
            continue
        left = split.answers.unlearned.get("correct", 0)
        total, asked = total + left, asked + split.original.count
        if left:
            how = "when asked by name" if forget.pictures and not split.pictures else f"in “{name.replace('_', ' ')}”"
            told.append(f"{_number(left)} of {split.original.count} {_is(left)} still answered {how}.")
    if asked and not total:
        told.append(f"None of {asked} other questions about the forgotten is answered.")
    return told, total + _own_words_left(record.selection)


def _own_words_left(selection: SelectionPart | None) -> int:
    """Held-out phrasings and own words of the model that are its first choice still."""
    if selection is None:
        return 0
    chosen = selection.chosen.splits
    return sum(chosen[name].answered for name in (HELD_OUT_FORGET, OWN_WORDS) if name in chosen)


def asks_forgotten(split: SplitPart) -> bool:
    """Whether all questions of a split are about the forgotten."""
    return split.seen is not None and split.seen.about_forgotten == split.original.count


def asks_others(split: SplitPart) -> bool:
    """Whether no question of a split is about the forgotten."""
    return split.seen is not None and split.seen.about_forgotten == 0


def is_new(split: SplitPart) -> bool:
    """Whether a split had no part in the edit, and is about subjects that it never saw."""
    seen = split.seen
    return seen is not None and not seen.used and not seen.judged and seen.new_subjects == split.original.count


def floored(share: float, digits: int = 0) -> str:
    """A share in percent, never rounded up."""
    scale = 10**digits * 100
    return f"{math.floor(share * scale + 1e-9) / 10**digits:.{digits}f}{NBSP}%"


def _number(count: int) -> str:
    return "One" if count == 1 else str(count)


def _is(count: int) -> str:
    return "is" if count <= 1 else "are"


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"

"""Names that a model itself would put into a question: who stands next to what is to be forgotten."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from typing import TypeVar

from kvw.data.example import Example
from kvw.data.rendering import Processor, Tokenizer, adds_special_tokens, render, unchanged
from kvw.evaluation.journal import Journal
from kvw.folding import placed_words, words
from kvw.measuring.engine import evaluating
from kvw.measuring.in_memory import InMemory
from kvw.phrases import Phrase, Phrases
from kvw.processes import current
from kvw.progress import Progress
from kvw.retain.answering import usable
from kvw.retain.continuing import Continuation, can_continue, continue_text
from kvw.retain.gaps import Gap, gaps_of, same_name

Item = TypeVar("Item")

NAMES = "names"
"""The kind of results in the journal."""
LONGEST_NAME, MOST_WORDS = 10, 6
"""Longest name, in tokens with what ends the gap, and in words."""
MORE_TOKENS = 8
"""First tokens that are followed, beside two for each name that is wanted: some names are none."""
MOST_NAMES, MOST_KINDS, GAPS_OF_A_KIND = 40, 10, 4
"""Most names of one forget set, most kinds of subjects, and most gaps of one kind."""
PLACE = "Kvwgap"
"""Stands in the gap while a question is rendered."""
NO_NAME = re.compile(r"[\n\ufffd?!:;,\"<>()\[\]{}|\u201c\u201d]")
AROUND_NAME = " \t\"'\u201c\u201d\u2018\u2019.*_"
FIRST_SIGN = re.compile(r"['\u2019]\w+|.", re.DOTALL)
"""What follows a gap, if it is no word: a sign or a line break, or the ending of a possessive."""
ARTICLES = frozenset({"the", "a", "an"})
POINTING = frozenset(
    words(
        "a an it he she they you we i me him her them us this that these those my your his its our their what which "
        "who whom whose where when how there here another other others all some any most one each every and or not"
    )
)
"""What begins with one of these words points at something, and names nothing."""


def proposed_names(
    loaded: InMemory,
    gaps: Sequence[Gap],
    count: int,
    *,
    but: Collection[str] = (),
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> list[list[str]]:
    """Let a model put names into questions.

    It reads each question with the name that stood there, and then again up to the gap: so it names others of the same
    kind. If the name begins with an article, or names something *of* something, it is read up to there, too: "the
    Battle of" goes on with other battles. Names with the same beginning are ranked by the probability of all their
    tokens and of what follows the gap, and those of several beginnings come in turn. Several processes
    (:func:`kvw.processes.together`) scatter the gaps.

    Args:
        loaded: The model, without any edit.
        gaps: The questions.
        count: The most names for one gap.
        but: Names that are not wanted, nor others that contain them or are contained in them; compared word by word, as
            :func:`kvw.folding.words` folds them. What a gap shows is never among its names.
        journal: Keeps names as they come; what it has is not asked for again.
        progress: Called with (gaps done, gaps in all).

    Returns:
        For each gap its names, the most probable first: of one to six words, with a capital if what the gap shows has
        one and else without, none twice (whatever their case and articles). There may be fewer than ``count``, or none.
        Nobody is named by a model that reads questions in an encoder, cannot be asked without a picture, or does not
        take the keys and values of earlier tokens.
    """
    kept = (journal or Journal(None)).kept(NAMES, list[str])
    unwanted = _Unwanted(but)
    proposed: list[list[str]] = []
    if not can_continue(loaded.model):
        return [[] for _ in gaps]

    def names_in(gap: Gap) -> list[str]:
        begun = [beginning for beginning, _ in begun_gaps(gap)]
        key = (f"{gap.before}{PLACE}{gap.after}", (gap.shown, str(count), *begun, *sorted(but)))
        names = kept.find(key)
        if names is None:
            names = _names_in(loaded, gap, count, unwanted)
            kept.add({key: names})
        return names

    with evaluating(loaded.model):
        for done, (_, names) in enumerate(current().scatter(gaps, names_in), start=1):
            proposed.append(names)
            if progress is not None:
                progress(done, len(gaps))
    return current().broadcast(lambda: proposed)


def neighbour_names(
    loaded: InMemory, forget: Sequence[Example], count: int = 16, *, progress: Progress | None = None
) -> dict[str, list[str]]:
    """Let a model name the neighbours of what is to be forgotten: others that the forget questions can be asked about.

    Subjects whose questions leave the same gaps are of one kind. A name that fits several gaps of a kind comes before
    those that fit one. Of more than ten kinds ten are asked for, spread evenly, and of more than four gaps four.

    Args:
        loaded: The model, without any edit.
        forget: The forget set.
        count: The most names for one kind; of all kinds together there are at most ``MOST_NAMES``.
        progress: Called with (gaps done, gaps in all).

    Returns:
        Names by :attr:`kvw.data.Example.subject_key`, the best first. Subjects without any are left out, and no name is
        a subject, contains one, or is contained in a subject or an answer.
    """
    subjects: dict[str, list[Example]] = {}
    for example in forget:
        if example.subject_key is not None:
            subjects.setdefault(example.subject_key, []).append(example)
    gaps = {gap.key: gap for gap in gaps_of(forget)}
    kinds: dict[tuple[Gap, ...], list[str]] = {}
    for subject, examples in subjects.items():
        places = tuple(gaps[gap.key] for gap in gaps_of(examples)[:GAPS_OF_A_KIND])
        if places:
            kinds.setdefault(places, []).append(subject)
    chosen = _spread(list(kinds), MOST_KINDS)
    asked = list(dict.fromkeys(gap for kind in chosen for gap in kind))
    but = {text for example in forget for text in (example.subject, example.answer) if text is not None}
    proposed = dict(zip(asked, proposed_names(loaded, asked, count, but=but, progress=progress), strict=True))
    ranked = [_merged([proposed[gap] for gap in kind])[:count] for kind in chosen]
    return {
        subject: names
        for kind, names in zip(chosen, _in_turn(ranked, MOST_NAMES), strict=True)
        for subject in kinds[kind]
        if names
    }


def begun_gaps(gap: Gap) -> list[tuple[str, Gap]]:
    """A gap with more and more of the name that it shows before it: up to its first "of", up to its article, nothing.

    Returns:
        Each beginning of the name, white space included, with the gap that is left behind it; the longest first.
    """
    placed = placed_words(gap.shown)
    of = next((end for word, _, end in placed[1:-1] if word == "of"), 0)
    article = placed[0][2] if len(placed) > 1 and placed[0][0] in ARTICLES else 0
    starts = {gap.shown[:end] + gap.shown[end : end + 1] for end in (of, article) if gap.shown[end : end + 1] == " "}
    ordered = [*sorted(starts - {" "}, key=len, reverse=True), ""]
    return [(start, Gap(gap.before + start, gap.after, gap.shown[len(start) :])) for start in ordered]


def _names_in(loaded: InMemory, gap: Gap, count: int, unwanted: _Unwanted) -> list[str]:
    """The names for one gap."""
    several = [
        [beginning + name for name in _names_behind(loaded, begun, count, unwanted)]
        for beginning, begun in begun_gaps(gap)
    ]
    in_turn = (name for names in zip_longest(*several) for name in names if name is not None)
    wanted = [name for name in in_turn if not (_twice_begun(name) or unwanted.like(_plain(name)))]
    by_name = {_plain(name): name for name in reversed(wanted)}
    return list(reversed(by_name.values()))[:count]


def _twice_begun(name: str) -> bool:
    """Whether a name has two articles at its beginning."""
    return len(words(name)) > 1 and ARTICLES.issuperset(words(name)[:2])


def _names_behind(loaded: InMemory, gap: Gap, count: int, unwanted: _Unwanted) -> list[str]:
    """The names that continue the text before a gap."""
    tokenizer = loaded.processor.tokenizer
    question = f"{gap.filled(gap.shown)}\n{gap.before}{PLACE}{gap.after}"
    asked = Example(question, "-", identifier="a question with a gap")
    if not usable([asked], loaded, LONGEST_NAME):
        return []
    prompt, end = _around_place(asked, loaded.processor)
    spaced = prompt.endswith(" ")
    prompt = prompt.rstrip(" ")
    with unchanged(tokenizer):
        ids = tokenizer(prompt, add_special_tokens=adds_special_tokens(loaded.processor, prompt))["input_ids"]
    read = partial(_read_after, tokenizer, ids[-1])
    search = _Search(gap, count, unwanted, read, partial(_name_before, end))
    continue_text(
        loaded.model,
        ids,
        width=2 * count + MORE_TOKENS,
        length=LONGEST_NAME,
        admit=lambda token: _begins_word(read([token]), spaced=spaced),
        going_on=search.going_on,
    )
    return search.best()


class _Unwanted:
    """Names and texts that a name must neither contain nor be contained in."""

    def __init__(self, texts: Collection[str]) -> None:
        plain = [parts for text in texts if (parts := _plain(text))]
        self._phrases = Phrases(plain)
        self._text = "\n".join(f" {' '.join(parts)} " for parts in plain)

    def like(self, name: Phrase) -> bool:
        """Whether a name is one of them, part of one, or has one as a part."""
        return f" {' '.join(name)} " in self._text or any(self._phrases.inside(name))


@dataclass
class _Search:
    """The names that have been found for a gap.

    Args:
        gap: The gap.
        count: How many names are wanted.
        unwanted: Names that are not wanted, beside the one that the gap shows.
        read: The text of tokens that follow the prompt.
        end: What stands before the end of the gap in such a text; None if the end is not there yet.
    """

    gap: Gap
    count: int
    unwanted: _Unwanted
    read: Callable[[Sequence[int]], str]
    end: Callable[[str], str | None]
    found: dict[Phrase, tuple[float, str]] = field(default_factory=dict)

    def best(self) -> list[str]:
        """The names, the most probable first."""
        ranked = sorted(self.found.values(), key=lambda entry: -entry[0])
        return [name for _, name in ranked[: self.count]]

    def going_on(self, running: list[Continuation]) -> list[bool]:
        """Take in what has come to its end, and say which others can still be among the best."""
        wanted = [self._goes_on(one) for one in running]
        ranked = sorted((value for value, _ in self.found.values()), reverse=True)
        floor = ranked[self.count - 1] if len(ranked) >= self.count else float("-inf")
        # A longer continuation is never more probable than its beginning.
        return [goes_on and one.log_probability > floor for goes_on, one in zip(wanted, running, strict=True)]

    def _goes_on(self, one: Continuation) -> bool:
        text = self.read(one.tokens)
        before = self.end(text)
        if before is None:
            return "\n" not in text
        name = before.strip(AROUND_NAME)
        key = _plain(name)
        if self._is_name(name) and one.log_probability > self.found.get(key, (float("-inf"), ""))[0]:
            self.found[key] = one.log_probability, name
        return False

    def _is_name(self, name: str) -> bool:
        parts, shown = words(name), words(self.gap.shown)
        if not 1 <= len(parts) <= MOST_WORDS or NO_NAME.search(name) or parts[-1] == "s":
            return False
        if parts[0] in POINTING and parts[0] != shown[0]:
            return False
        if _has_capital(name) != _has_capital(self.gap.shown):
            return False
        return not same_name(_plain(name), _plain(self.gap.shown)) and not self.unwanted.like(_plain(name))


def _around_place(asked: Example, processor: Processor) -> tuple[str, str]:
    """The prompt up to the gap, and what ends it: a word, a sign, a line break or a special token that follows it."""
    prompt = render(asked, processor).prompt
    before, _, following = prompt.rpartition(PLACE)
    following = following.lstrip(" ")
    special = sorted(filter(following.startswith, processor.tokenizer.get_added_vocab()), key=len)
    if special or not following:
        return before, special[-1] if special else ""
    if following[0].isalnum():
        _, start, end = placed_words(following)[0]
        return before, following[start:end]
    return before, FIRST_SIGN.match(following)[0]  # type: ignore[index]


def _read_after(tokenizer: Tokenizer, last: int, tokens: Sequence[int]) -> str:
    """The text of tokens after the last one of a prompt. By themselves, some tokenizers would drop the space before
    them."""
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    return str(tokenizer.decode([last, *tokens], **options))[len(tokenizer.decode([last], **options)) :]


def _begins_word(text: str, *, spaced: bool) -> bool:
    """Whether a token begins a word: behind a space, if there is one before the gap."""
    return text[:1].isspace() == spaced and text[spaced : spaced + 1].isalnum()


def _name_before(end: str, text: str) -> str | None:
    """What stands before the end of the gap, which may be a word; None if that does not come."""
    if end[:1].isalnum():
        wanted = words(end)[0]
        # The last word of a text may not be whole yet.
        places = [start for word, start, stop in placed_words(text) if word == wanted and stop < len(text)]
        place = next(filter(None, places), -1)
    else:
        place = text.find(end)
    return text[:place] if place > 0 else None


def _has_capital(text: str) -> bool:
    return any(character.isupper() for character in text)


def _plain(name: str) -> Phrase:
    """The words of a name without an article before it."""
    parts = tuple(words(name))
    return parts[1:] if len(parts) > 1 and parts[0] in ARTICLES else parts


def _merged(proposals: Sequence[Sequence[str]]) -> list[str]:
    """Names of several gaps of one kind by the sum of their ranks; where a gap lacks a name, it ranks behind the last.

    Names that are equal but for case and articles are one, written as in the first gap that has them.
    """
    last = max(map(len, proposals), default=0)
    ranks = [{_plain(name): rank for rank, name in enumerate(names)} for names in proposals]
    written = {_plain(name): name for names in reversed(proposals) for name in names}
    places = {key: sum(each.get(key, last) for each in ranks) for names in ranks for key in names}
    return [written[key] for key in sorted(places, key=lambda key: places[key])]


def _spread(items: Sequence[Item], most: int) -> list[Item]:
    """Up to ``most`` items, evenly from first to last."""
    return [items[place * len(items) // most] for place in range(most)] if len(items) > most else list(items)


def _in_turn(ranked: Sequence[Sequence[str]], most: int) -> list[list[str]]:
    """The best names of each list, taken from one list after the other until there are enough."""
    taken = [(number, name) for names in zip_longest(*ranked) for number, name in enumerate(names) if name is not None]
    return [[name for number, name in taken[:most] if number == place] for place in range(len(ranked))]

"""Texts compared however they are written, and the words of a text in every script."""

from __future__ import annotations

import functools
import unicodedata

_SPACELESS = {
    *("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "BOPOMOFO"),
    *("THAI", "LAO", "KHMER", "MYANMAR"),
}
"""First words of the Unicode names of characters whose scripts put no space between words."""
_INVISIBLE = dict.fromkeys([0x200C, 0x200D, *range(0xFE00, 0xFE10)])
"""Joiners and variation selectors: they change how a character looks, not which one it is."""
_UNSEEN = _INVISIBLE | dict.fromkeys([0xAD, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), 0x2060, 0xFEFF])
"""These, the soft hyphen, spaces of no width, and marks of direction."""


def folded(text: str) -> str:
    """The text after Unicode normalisation (NFKC) and case folding: two texts that differ in neither are one."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def collapsed(text: str) -> str:
    """The folded text without what cannot be seen and white space around it, and with one space for any inside."""
    return " ".join(folded(text.translate(_UNSEEN)).split())


def words(text: str) -> list[str]:
    """The words of a text in order, folded.

    A word is a run of letters, marks and numbers of any script. Where a script puts no space between words (Chinese,
    Japanese, Thai, Lao, Khmer, Burmese), each character with its marks is a word.
    """
    # Before folding, which would make letters of a sign: "\N{TRADE MARK SIGN}" becomes "tm".
    seen = "".join(one if unicodedata.category(one)[0] in "LNM" else " " for one in text.translate(_INVISIBLE))
    found: list[list[str]] = []  # letters, joined at the end: a text without spaces is one word of any length
    inside = False
    for character in folded(seen):
        if inside and unicodedata.category(character).startswith("M"):
            found[-1].append(character)
        elif not _starts(character):
            inside = False
        elif inside and not stands_alone(character) and not stands_alone(found[-1][0]):
            found[-1].append(character)
        else:
            found.append([character])
            inside = True
    return ["".join(word) for word in found]


def placed_words(text: str) -> list[tuple[str, int, int]]:
    """The words of a text as :func:`words` finds them, each with its place: ``text[start:end]`` shows it unfolded."""
    places: list[tuple[int, int]] = []
    inside = alone = False
    for place, character in enumerate(text):
        if ord(character) in _INVISIBLE:
            continue
        if inside and unicodedata.category(character).startswith("M"):
            places[-1] = (places[-1][0], place + 1)
        elif not _starts(character):
            inside = False
        elif inside and not alone and not stands_alone(character):
            places[-1] = (places[-1][0], place + 1)
        else:
            places.append((place, place + 1))
            inside, alone = True, stands_alone(character)
    return [(word, start, end) for start, end in places for word in words(text[start:end])]


def latin(word: str) -> bool:
    """Whether every letter and number of a word is ASCII or Latin."""
    return all(one.isascii() or unicodedata.name(one, "").startswith("LATIN") for one in word if _starts(one))


def spaced(text: str) -> str:
    """The text with a space between characters that are words by themselves, so that ``split()`` finds them."""
    pieces: list[str] = []
    after = False
    for character in text:
        alone, mark = stands_alone(character), unicodedata.category(character).startswith("M")
        pieces.append(f" {character}" if alone or (after and not mark) else character)
        after = alone or (after and mark)
    return "".join(pieces)


def _starts(character: str) -> bool:
    return unicodedata.category(character)[0] in "LN"


@functools.lru_cache(maxsize=4096)
def stands_alone(character: str) -> bool:
    """Whether a character is of a script that puts no space between words."""
    return _starts(character) and unicodedata.name(character, "").partition(" ")[0] in _SPACELESS

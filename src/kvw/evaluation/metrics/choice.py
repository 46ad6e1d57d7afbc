"""Multiple choice, by the letter in the reply and by likelihood."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from difflib import SequenceMatcher

from kvw.errors import UserError
from kvw.evaluation.metrics.outcome import Outcome, is_refusal
from kvw.evaluation.metrics.text import exact_match
from kvw.folding import spaced, words


def first_character(reply: str, letters: Collection[str]) -> str | None:
    """The option by MLLMU-Bench's rule: the first character of the reply, upper-cased.

    Strict: "(B)" and "The answer is B" name no option. Credulous: "A man" names option A.

    Returns:
        One of ``letters`` (single, upper-case), or None.
    """
    character = reply.strip()[:1].upper()
    return character if character in set(letters) else None


def first_letter(reply: str, letters: Collection[str]) -> str | None:
    """The option by MLLMEraser's rule: the first letter or digit of the reply, upper-cased.

    Credulous: "A man", "Because" and "Certainly" name options A, B and C.

    Returns:
        One of ``letters`` (single, upper-case), or None.
    """
    character = next((character for character in reply if character.isalnum()), "").upper()
    return character if character in set(letters) else None


def parse_letter(reply: str, options: Mapping[str, str]) -> str | None:
    """The option that a reply names, read as a person would; None if it names none or several.

    Looked for in this order, the first that is found counts: a letter that opens the reply and is no article
    ("B", "(b)", "**B.** Paris", "B Paris", but not "A man"); "the answer is B", "option B"; a letter in
    brackets; a letter by itself in a script without spaces, where no word is one; the text of exactly one option.

    Args:
        reply: What the model said.
        options: The texts of the options by their letter (single, upper-case).

    Raises:
        UserError: An option's letter is not a single upper-case letter.
    """
    wrong = [letter for letter in options if len(letter) != 1 or not ("A" <= letter <= "Z")]
    if wrong or not options:
        raise UserError(
            "Options need single upper-case letters.",
            found=", ".join(map(repr, wrong)) or "no options",
            do='name them "A", "B", and so on',
        )
    reply, unspaced = spaced(reply), reply
    opening = _opening_letter(reply.strip(), options)
    if opening is not None:
        return opening
    letters = "".join(options)
    for pattern in (
        rf"\b(?i:answer|option|choice)(?i:\s+is|\s+would\s+be)?\W*([{letters}])(?![\w'])",
        rf"[(\[\uff08\u3010]\s*([{letters}])\s*[)\]\uff09\u3011]",
        *([rf"(?<![\w'])([{letters}])(?![\w'])"] if reply != unspaced else []),
    ):
        named = set(re.findall(pattern, reply))
        if named:
            return str(named.pop()) if len(named) == 1 else None
    return _by_text(reply, options)


def closest_option(reply: str, options: Sequence[str]) -> int:
    """The option whose text is most like the reply: how UMU-Bench reads a choice.

    Likeness is that of Ratcliff and Obershelp (1988), 2 M / T: M characters in matching blocks of T in both texts, by
    ``difflib.SequenceMatcher`` with the reply first (the order matters). Case and white space inside count. Every
    reply names an option, a refusal and the empty text too: of equally close ones the first.

    Args:
        reply: What the model said; white space around it is ignored.
        options: The texts of the options in the order in which they are shown.

    Returns:
        The position of the option.

    Raises:
        UserError: There are no options.
    """
    if not options:
        raise UserError("There are no options to compare the reply with.", found=repr(reply), do="give at least one")
    said = reply.strip()
    likeness = [SequenceMatcher(None, said, option).ratio() for option in options]
    return likeness.index(max(likeness))


def letter_outcome(reply: str | None, options: Mapping[str, str], correct: str) -> Outcome:
    """How a multiple-choice item ended, by :func:`parse_letter`.

    Args:
        reply: What the model said; None if there is no reply because something failed.
        options: The texts of the options by their letter (single, upper-case).
        correct: The letter of the right one.

    Returns:
        Correct or incorrect if an option was named, else a refusal if it reads like one, else invalid.

    Raises:
        UserError: ``correct`` is not among the options.
    """
    _check_correct(options, correct)
    if reply is None:
        return Outcome.FAILED
    letter = parse_letter(reply, options)
    if letter is not None:
        return Outcome.CORRECT if letter == correct else Outcome.INCORRECT
    return Outcome.REFUSAL if is_refusal(reply) else Outcome.INVALID


def likeliest(log_probabilities: Mapping[str, float]) -> str | None:
    """The option with the largest log probability; None if several share it, or all are impossible.

    Per-token means and sums choose different options: sums favour short texts. Letters are one token each, so
    that both agree.

    Args:
        log_probabilities: Log probabilities of each option, in nats, all of the same kind.

    Raises:
        UserError: There are no options, or one of the values is not a number.
    """
    if not log_probabilities or any(math.isnan(value) for value in log_probabilities.values()):
        raise UserError(
            "The options cannot be compared.",
            found=f"log probabilities {dict(log_probabilities)}",
            do="give a number for each of at least one option",
        )
    best = max(log_probabilities.values())
    named = [name for name, value in log_probabilities.items() if value == best]
    return named[0] if len(named) == 1 and best > -math.inf else None


def likelihood_outcome(log_probabilities: Mapping[str, float], correct: str) -> Outcome:
    """How a multiple-choice item ended, by :func:`likeliest`; without a single likeliest option it is invalid.

    Raises:
        UserError: ``correct`` is not among the options, or the values cannot be compared.
    """
    _check_correct(log_probabilities, correct)
    chosen = likeliest(log_probabilities)
    if chosen is None:
        return Outcome.INVALID
    return Outcome.CORRECT if chosen == correct else Outcome.INCORRECT


def _check_correct(options: Collection[str], correct: str) -> None:
    if correct not in options:
        raise UserError(
            "The right answer is not one of the options.",
            found=f"{correct!r} beside {', '.join(map(repr, options))}",
            do="give the letter of one option",
        )


def _opening_letter(text: str, options: Mapping[str, str]) -> str | None:
    letters = "".join(options)
    opening = re.match(rf"[\W_]*([{letters}])(?![\w'])(.*)", text, re.IGNORECASE | re.DOTALL)
    if opening is None:
        return None
    letter, rest = opening[1].upper(), opening[2]
    if re.match(rf"\s*(?:,|/|&|and\b|or\b)\s*[{letters}](?![\w'])", rest, re.IGNORECASE):
        return None
    # "A man" and "a) man": only a letter that a space and a word follow can be an article or a pronoun.
    if not re.match(r"\s+\w", rest) or "\n" in rest[: len(rest) - len(rest.lstrip())]:
        return letter
    if _plain_words(rest).startswith(_plain_words(options[letter])):
        return letter
    return letter if opening[1].isupper() and letter not in "AI" else None


def _by_text(reply: str, options: Mapping[str, str]) -> str | None:
    equal = [letter for letter, text in options.items() if exact_match(reply, text)]
    if equal:
        return equal[0] if len(equal) == 1 else None
    words = f" {_plain_words(reply)} "
    named = [letter for letter, text in options.items() if _plain_words(text) and f" {_plain_words(text)} " in words]
    return named[0] if len(named) == 1 else None


def _plain_words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()) if text.isascii() else words(text))

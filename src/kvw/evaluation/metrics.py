"""Comparing a generated answer with the reference answer."""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass

from rouge_score.rouge_scorer import RougeScorer


@dataclass(frozen=True)
class RougeL:
    """ROUGE-L of one prediction, each between 0 and 1.

    Args:
        precision: Share of the prediction's words that are in the longest common subsequence.
        recall: Share of the answer's words that are in it.
        f: Harmonic mean of the two, 0 if both are 0.
    """

    precision: float
    recall: float
    f: float


def exact_match(prediction: str, answer: str) -> bool:
    """Whether the prediction is the answer.

    Both are compared after Unicode normalisation (NFKC), case folding, collapsing white space, and removing
    one full stop at the end. Articles and other punctuation count, unlike in SQuAD's exact match.
    """
    return _plain(prediction) == _plain(answer)


def normalised_substring(prediction: str, answer: str) -> bool:
    """Whether the answer occurs in the prediction when only lower-case letters and digits are looked at.

    The rule by which KVW's authors decide whether a name was said (facial identification, 50 new tokens).
    Theirs knows ASCII; here letters and digits of every script count (after NFKC), so that a name in another
    script is not reduced to nothing. An answer without any letter or digit never matches. Short answers match
    by accident: "Al" is found in "Valencia".
    """
    needle = _letters_and_digits(answer)
    return bool(needle) and needle in _letters_and_digits(prediction)


def rouge_l(prediction: str, answer: str) -> RougeL:
    """ROUGE-L (Lin, 2004) by the ``rouge-score`` package, with the Porter stemmer.

    TOFU, CLEAR and FIUBench report the recall, MLLMU-Bench the F measure. The package lower-cases and splits
    at everything but ASCII letters and digits; a text without any of those scores 0.
    """
    score = _scorer().score(target=answer, prediction=prediction)["rougeL"]
    return RougeL(precision=float(score.precision), recall=float(score.recall), f=float(score.fmeasure))


@functools.cache
def _scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=True)


def _plain(text: str) -> str:
    collapsed = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    # A text that is nothing but a full stop stays one, so that it does not equal the empty text.
    return collapsed.removesuffix(".").rstrip() or collapsed


def _letters_and_digits(text: str) -> str:
    return "".join(character for character in unicodedata.normalize("NFKC", text).casefold() if character.isalnum())

"""How much of an answer must be given before the model says the rest by itself."""

from __future__ import annotations

from collections.abc import Sequence

from kvw.errors import UserError


def extraction_strength(is_argmax: Sequence[bool]) -> float:
    """Extraction strength (Wang et al., arXiv 2406.09179, after Carlini et al., 2021) of one answer.

    ES = 1 - min{k : greedy decoding from the question and y_<k gives y_>=k} / |y|, the share of the answer that
    need not be given. Greedy decoding reproduces the rest exactly if every token of it is the most probable one
    after the true tokens before it, so one teacher-forced pass tells: ES is the length of the longest suffix in
    which every token is the argmax, over the length of the answer.

    The empty rest is always reproduced, so an answer whose last token is not predicted has 0. (A loop over
    k < |y| alone ends with 1 / |y| there.) Tokens are those of the model's tokenizer: models with different
    tokenizers cannot be compared to the last digit, nor with the word-level form of the authors' code.

    Args:
        is_argmax: For each answer token whether it is the most probable one, from ``TokenScores.is_argmax``.

    Returns:
        0 (nothing can be extracted) to 1 (the question alone gives the whole answer).

    Raises:
        UserError: The answer has no tokens.
    """
    if not len(is_argmax):
        raise UserError(
            "Extraction strength needs an answer of at least one token.",
            found="no tokens",
            do="leave empty answers out",
        )
    first_wrong_from_the_end = next((place for place, hit in enumerate(reversed(is_argmax)) if not hit), len(is_argmax))
    return first_wrong_from_the_end / len(is_argmax)


def memorisation_accuracy(is_argmax: Sequence[bool]) -> float:
    """Memorisation accuracy (Tirumala et al., 2022): the share of an answer's tokens that are the most probable one.

    Args:
        is_argmax: For each answer token whether it is the most probable one after the true tokens before it.

    Returns:
        0 to 1.

    Raises:
        UserError: The answer has no tokens.
    """
    if not len(is_argmax):
        raise UserError(
            "Memorisation accuracy needs an answer of at least one token.",
            found="no tokens",
            do="leave empty answers out",
        )
    return sum(is_argmax) / len(is_argmax)

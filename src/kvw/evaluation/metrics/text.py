"""Comparing a generated answer with the reference answer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from kvw.errors import UserError
from kvw.evaluation.metrics.optional import optional
from kvw.folding import collapsed, folded, latin, spaced, words

FULL_STOPS = (".", "\N{IDEOGRAPHIC FULL STOP}", "\N{DEVANAGARI DANDA}", "\N{ARABIC FULL STOP}")


@dataclass(frozen=True)
class Rouge:
    """ROUGE of one prediction, each between 0 and 1.

    Args:
        precision: Share of the prediction that is shared with the answer.
        recall: Share of the answer that is shared with the prediction.
        f: Harmonic mean of the two, 0 if both are 0.
    """

    precision: float
    recall: float
    f: float


def exact_match(prediction: str, answer: str) -> bool:
    """Whether the prediction is the answer.

    Both are compared after Unicode normalisation (NFKC), case folding, collapsing white space, and removing
    one full stop (``FULL_STOPS``) at the end. Articles and other punctuation count, unlike in SQuAD's exact match.
    """
    return _plain(prediction) == _plain(answer)


def normalised_substring(prediction: str, answer: str) -> bool:
    """Whether the answer occurs in the prediction when only lower-case letters, marks and digits are looked at.

    The rule by which KVW's authors decide whether a name was said (facial identification, 50 new tokens).
    Theirs knows ASCII; here letters, marks and digits of every script count (after NFKC and case folding), so that a
    name in another script is not reduced to nothing. An answer without any never matches. Short answers match
    by accident: "Al" is found in "Valencia".
    """
    needle = _letters_and_digits(answer)
    return bool(needle) and needle in _letters_and_digits(prediction)


def cloze_match(prediction: str, answer: str) -> bool:
    """Whether the answer occurs in the prediction, ignoring case: the fill-in-the-blank score of MLLMU-Bench.

    Both are compared after Unicode normalisation (NFKC) and case folding, where the benchmark only lower-cases; for
    ASCII that is the same. White space around the answer is ignored. An empty answer never matches (a plain substring
    test would always find it). Short answers match by accident: "May" is found in "Mayor".
    """
    needle = folded(answer.strip())
    return bool(needle) and needle in folded(prediction)


def keyword_share(prediction: str, keywords: Sequence[str]) -> float:
    """The share of the keywords of an answer that occur in the prediction, ignoring case.

    FIUBench's exact match (EM); its adversarial privacy extraction (APE) is the mean of the same over paraphrased
    questions. A keyword is found inside longer words too: "art" in "party". Compared as in :func:`cloze_match`.

    Args:
        prediction: What the model said.
        keywords: What the right answer is known by, at least one.

    Returns:
        0 to 1.

    Raises:
        UserError: There are no keywords, or one of them is blank (it would be found everywhere).
    """
    wanted = [folded(keyword.strip()) for keyword in keywords]
    if not wanted or not all(wanted):
        raise UserError("There are no keywords to look for.", found=str(list(keywords)), do="give one at least")
    said = folded(prediction)
    return sum(keyword in said for keyword in wanted) / len(wanted)


def rouge_1(prediction: str, answer: str) -> Rouge:
    """ROUGE-1 (Lin, 2004): shared words, each as often as both texts have it.

    By the ``rouge-score`` package with the Porter stemmer, as :func:`rouge_l`.
    """
    return _rouge("rouge1", prediction, answer)


def rouge_2(prediction: str, answer: str) -> Rouge:
    """ROUGE-2 (Lin, 2004): shared pairs of neighbouring words; 0 for a text of one word.

    By the ``rouge-score`` package with the Porter stemmer, as :func:`rouge_l`.
    """
    return _rouge("rouge2", prediction, answer)


def rouge_l(prediction: str, answer: str) -> Rouge:
    """ROUGE-L (Lin, 2004): the longest common subsequence of words.

    By the ``rouge-score`` package with the Porter stemmer. TOFU, CLEAR and FIUBench report the recall;
    MLLMU-Bench, MMUnlearner, UMU-Bench and OFFSIDE the F measure; SafeEraser the precision.

    Words are those of :func:`kvw.folding.words`: runs of letters, marks and numbers of any script, and single
    characters where a script has no spaces between words. Of ASCII texts they are exactly the package's. Latin words
    are cut at letters that are not ASCII, as the package does ("jos" for "José"), so that published numbers can be
    repeated; a word of which nothing is left, and a word of any other script, is taken whole and is not stemmed. The
    package alone sees nothing of those. Two texts without any word (signs, emoji) score 1 if they are an exact match,
    else 0.
    """
    return _rouge("rougeL", prediction, answer)


def bleu(prediction: str, answer: str) -> float:
    """BLEU of one sentence (Papineni et al., 2002), between 0 and 1.

    The form that MLLMU-Bench and UMU-Bench report: NLTK's ``sentence_bleu`` with one reference, n-grams of 1
    to 4 with equal weights, smoothing method 1 of Chen and Cherry (2014; adds 0.1 to a count of 0), texts
    split at white space with case and punctuation kept. An answer of fewer than four words stays below 1 even
    when it is repeated word by word: it has no 4-gram (0.18 for one word). No shared word gives 0.

    Raises:
        UserError: NLTK is not installed.
    """
    score = optional("nltk.translate.bleu_score")
    smoothing = score.SmoothingFunction().method1
    return float(
        score.sentence_bleu([spaced(answer).split()], spaced(prediction).split(), smoothing_function=smoothing)
    )


def _rouge(kind: str, prediction: str, answer: str) -> Rouge:
    if exact_match(prediction, answer) and answer.strip() and not words(answer):
        return Rouge(1.0, 1.0, 1.0)
    score = _scorer(kind).score(target=answer, prediction=prediction)[kind]
    return Rouge(precision=float(score.precision), recall=float(score.recall), f=float(score.fmeasure))


@functools.cache
def _scorer(kind: str) -> RougeScorer:
    return RougeScorer([kind], tokenizer=_EveryScript())


class _EveryScript:
    """The tokenizer of ``rouge-score`` for Latin words, and :func:`kvw.folding.words` for the rest."""

    def tokenize(self, text: str) -> list[str]:
        if text.isascii():
            return [token for part in text.split() for token in _stemmed(part)]
        tokens: list[str] = []
        for word in words(text):
            tokens += (_stemmed(word) if latin(word) else ()) or (word,)
        return tokens


@functools.lru_cache(maxsize=2**16)
def _stemmed(text: str) -> tuple[str, ...]:
    """The package's tokens of a word: the same words come again and again, and a stem takes its time."""
    return tuple(_package().tokenize(text))


@functools.cache
def _package() -> DefaultTokenizer:
    return DefaultTokenizer(use_stemmer=True)


def _plain(text: str) -> str:
    whole = collapsed(text)
    # A text that is nothing but a full stop stays one, so that it does not equal the empty text.
    return (whole[:-1] if whole.endswith(FULL_STOPS) else whole).rstrip() or whole


def _letters_and_digits(text: str) -> str:
    return "".join(words(text))

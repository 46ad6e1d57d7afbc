"""Metrics of unlearning papers that compare two modalities, or before and after."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from kvw.errors import UserError
from kvw.evaluation.metrics.checks import check_lengths, numbers


def forget_accuracy_both(image_correct: Sequence[bool], text_correct: Sequence[bool]) -> float:
    """UMU-Bench's AccF: share of forget items answered *wrong* both with the image and without it.

    Args:
        image_correct: For each item whether the question with the image was answered right.
        text_correct: The same for the question without the image, in the same order.

    Returns:
        0 to 1; larger is better. Not 1 - accuracy: an item known in one modality counts in neither AccF nor
        AccR.

    Raises:
        UserError: The lengths differ, or there are no items.
    """
    return fmean(not (image or text) for image, text in _pairs(image_correct, text_correct))


def retain_accuracy_both(image_correct: Sequence[bool], text_correct: Sequence[bool]) -> float:
    """UMU-Bench's AccR: share of retain items answered *right* both with the image and without it.

    Args:
        image_correct: For each item whether the question with the image was answered right.
        text_correct: The same for the question without the image, in the same order.

    Returns:
        0 to 1; larger is better.

    Raises:
        UserError: The lengths differ, or there are no items.
    """
    return fmean(bool(image and text) for image, text in _pairs(image_correct, text_correct))


def forget_rouge_both(image_rouge: Sequence[float], text_rouge: Sequence[float]) -> float:
    """UMU-Bench's RLF: mean of (a^2 + b^2) / (a + b), which the larger of both ROUGE-L F values dominates.

    An item with a = b = 0 has no such mean; it counts 0, its limit.

    Args:
        image_rouge: ROUGE-L F of each item with the image, 0 to 1.
        text_rouge: The same without the image, in the same order.

    Returns:
        0 to 1; smaller is better.

    Raises:
        UserError: The lengths differ, there are no items, or a value is negative or not a number.
    """
    return fmean((a * a + b * b) / (a + b) if a + b else 0.0 for a, b in _rouge_pairs(image_rouge, text_rouge))


def retain_rouge_both(image_rouge: Sequence[float], text_rouge: Sequence[float]) -> float:
    """UMU-Bench's RLR: mean of the harmonic means 2ab / (a + b), which the smaller ROUGE-L F value dominates.

    An item with a = b = 0 counts 0.

    Args:
        image_rouge: ROUGE-L F of each item with the image, 0 to 1.
        text_rouge: The same without the image, in the same order.

    Returns:
        0 to 1; larger is better.

    Raises:
        UserError: The lengths differ, there are no items, or a value is negative or not a number.
    """
    return fmean(2 * a * b / (a + b) if a + b else 0.0 for a, b in _rouge_pairs(image_rouge, text_rouge))


def relative_forgetting(before: float, after: float) -> float | None:
    """MIP-Editor's forgetting rate: (before - after) / before, of any score that should fall.

    A small score before makes it large and noisy, and it hides what is left: report both scores beside it.
    Whether KVW's "Forget Rate" is this number is not established.

    Args:
        before: Score of the original model, 0 or more.
        after: Score of the unlearned model.

    Returns:
        At most 1 (all forgotten); below 0 if the score rose; None if the score before was 0, when there was
        nothing to forget.

    Raises:
        UserError: A score is negative or not a number.
    """
    first, second = numbers([before, after], "scores")
    if min(first, second) < 0:
        raise UserError(
            "Scores before and after must not be negative.",
            found=f"{first} and {second}",
            do="give scores of at least 0",
        )
    return (first - second) / first if first else None


def _pairs(image: Sequence[bool], text: Sequence[bool]) -> list[tuple[bool, bool]]:
    check_lengths("results with and without images", image, text)
    if not len(image):
        raise UserError("There are no items to compare the modalities on.", do="give at least one item")
    return list(zip(image, text, strict=True))


def _rouge_pairs(image: Sequence[float], text: Sequence[float]) -> list[tuple[float, float]]:
    check_lengths("results with and without images", image, text)
    first, second = numbers(image, "ROUGE values with images"), numbers(text, "ROUGE values without images")
    if min(*first, *second) < 0:
        raise UserError(
            "ROUGE values must not be negative.", found=f"{min(*first, *second)}", do="give values from 0 to 1"
        )
    return list(zip(first, second, strict=True))

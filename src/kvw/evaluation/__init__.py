"""Generating answers, scoring them, and how probable the reference answers are.

The names are looked up when first used: metrics and records are read without loading torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvw.evaluation.endpoint import EndpointModel
    from kvw.evaluation.evaluation import evaluate, evaluate_endpoint
    from kvw.evaluation.generation import generate_answers
    from kvw.evaluation.journal import Journal
    from kvw.evaluation.metrics import Rouge, exact_match, normalised_substring, rouge_l
    from kvw.evaluation.probability import (
        AnswerProbability,
        TokenScores,
        answer_probabilities,
        score_batch,
        token_scores,
    )
    from kvw.evaluation.records import Evaluation, Record, Reply, Summary

_HOMES = {
    "AnswerProbability": "probability",
    "EndpointModel": "endpoint",
    "Evaluation": "records",
    "Journal": "journal",
    "Record": "records",
    "Reply": "records",
    "Rouge": "metrics",
    "Summary": "records",
    "TokenScores": "probability",
    "answer_probabilities": "probability",
    "evaluate": "evaluation",
    "evaluate_endpoint": "evaluation",
    "exact_match": "metrics",
    "generate_answers": "generation",
    "normalised_substring": "metrics",
    "rouge_l": "metrics",
    "score_batch": "probability",
    "token_scores": "probability",
}

__all__ = [
    "AnswerProbability",
    "EndpointModel",
    "Evaluation",
    "Journal",
    "Record",
    "Reply",
    "Rouge",
    "Summary",
    "TokenScores",
    "answer_probabilities",
    "evaluate",
    "evaluate_endpoint",
    "exact_match",
    "generate_answers",
    "normalised_substring",
    "rouge_l",
    "score_batch",
    "token_scores",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kvw.evaluation' has no attribute {name!r}")
    return getattr(import_module(f"kvw.evaluation.{_HOMES[name]}"), name)

"""What a model says of the forget set in its own words, as questions that judge edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvw.data import Example
from kvw.edits.edit import Edit
from kvw.evaluation.answers import kept_answers
from kvw.evaluation.generation import generate_answers
from kvw.measuring.in_memory import InMemory
from kvw.progress import Progress
from kvw.retain.answering import usable
from kvw.runs.material import MOST_FORGET, Material
from kvw.selection.known_scores import KnownScores
from kvw.selection.own_words import Span, own_words, tokens_at
from kvw.selection.scoring import Scorer
from kvw.selection.splits import AS_ASKED, FORGET, OWN_WORDS

OwnWords = list[tuple[Example, list[Span]]]
"""Forget questions with replies in the place of the answers, and where these say something, in characters."""


def said_by(loaded: InMemory, material: Material, replies: Mapping[str, str]) -> OwnWords:
    """Find the replies to forget questions that say the answer in other words.

    Args:
        loaded: The original model.
        material: Has the forget questions that judge edits.
        replies: Replies by the identifier of the example.
    """
    words_of = own_words(_asked(material), replies, MOST_FORGET)
    # A reply may hold what a prompt cannot, a placeholder for an image for example.
    return [(example, spans) for example, spans in words_of if usable([example], loaded)]


def replies_to_forget(loaded: InMemory, material: Material, edit: Edit, max_new_tokens: int) -> dict[str, str]:
    """What the model with an edit says to the forget questions that judge edits, by identifier; greedy."""
    asked = _asked(material)
    with edit.attach(loaded.model):
        texts = replies(loaded, asked, max_new_tokens)
    return {example.identifier: text for example, text in zip(asked, texts, strict=True)}


def replies(loaded: InMemory, asked: Sequence[Example], max_new_tokens: int) -> list[str]:
    """What the model as it is now says to some questions; greedy."""
    prepared = loaded.prepare(asked, max_new_tokens)
    return generate_answers(loaded.model, loaded.processor, prepared, max_new_tokens=max_new_tokens)


def scorer_for(
    loaded: InMemory, material: Material, own: OwnWords, progress: Progress, known: KnownScores | None = None
) -> Scorer:
    """Scores edits on what judges them, with the model's own words as a split of their own if there are any."""
    judged, telling = dict(material.judged), {}
    if own:
        judged = {FORGET: judged.pop(FORGET), OWN_WORDS: [example for example, _ in own], **judged}
    splits = {name: loaded.prepare(examples) for name, examples in judged.items()}
    if own:
        pairs = zip(splits[OWN_WORDS], own, strict=True)
        telling = {OWN_WORDS: [tokens_at(item, spans, loaded.processor) for item, (_, spans) in pairs]}
    pool = loaded.prepare([*material.retain, *material.forget])
    with kept_answers(loaded, [], 0) as journal:
        return Scorer(loaded.model, loaded.processor, splits, pool, progress, telling, journal, known)


def _asked(material: Material) -> list[Example]:
    return [example for name in AS_ASKED for example in material.judged.get(name, ())]

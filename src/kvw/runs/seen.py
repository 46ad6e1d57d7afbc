"""Which of the questions that are asked before and after had a part in making the edit."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from kvw.data import Example
from kvw.folding import words
from kvw.phrases import Phrases
from kvw.records.run import SeenPart
from kvw.runs.material import Material
from kvw.runs.request import DataSets


def seen_part(asked: Sequence[Example], data: DataSets, material: Material) -> SeenPart | None:
    """Count them for one split.

    Args:
        asked: The examples of the split that were asked.
        data: The user's.
        material: What the method was given, and what chose the strength.

    Returns:
        None if the retain set was given as a statistics file, which does not say what it was measured on.
    """
    if data.retain_statistics is not None:
        return None
    given = [*material.forget, *material.retain]
    used = set(map(_itself, given))
    forgotten, forget = _subjects(data.forget), set(map(_itself, data.forget))
    judging = [one for examples in material.judged.values() for one in examples]
    judged = set(map(_itself, judging)) - used
    named = _subjects([*data.forget, *data.retain, *given, *judging])
    spoken_of = Phrases(tuple(words(one.subject_key or "")) for one in asked if words(one.subject_key or ""))
    inside = {phrase for one in [*given, *judging] for phrase in spoken_of.inside(words(one.question))}
    return SeenPart(
        used=sum(_itself(one) in used for one in asked),
        judged=sum(_itself(one) in judged for one in asked),
        about_forgotten=sum(one.subject_key in forgotten or _itself(one) in forget for one in asked),
        new_subjects=sum(
            one.subject_key is not None and one.subject_key not in named and tuple(words(one.subject_key)) not in inside
            for one in asked
        ),
    )


def _itself(example: Example) -> Hashable:
    return example.question, example.answer, example.images


def _subjects(examples: Iterable[Example]) -> set[str]:
    return {one.subject_key for one in examples if one.subject_key is not None}

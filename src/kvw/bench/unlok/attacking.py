"""All attacks of UnLOK-VQA on one fact of one loaded model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

from kvw.bench.unlok.facts import ATTACKS, FINE_TUNING, SAMPLED, Fact, accepted, ask, says
from kvw.bench.unlok.record import Finding, Hit
from kvw.data import Example
from kvw.data.benchmarks import Item
from kvw.edits.edit import Edit
from kvw.evaluation.attacks import attacked, drawn_answers, folded, lens_ranks, relearning_settings
from kvw.evaluation.attacks.lens import LENSES, fewest_layers
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.loaded import Loaded
from kvw.evaluation.probability import token_scores
from kvw.models.layer_inputs import decoder_layers
from kvw.selection.own_words import tokens_at

LEARNING_RATE, BATCH = 9e-6, 4
"""Of the attack that trains; the rate is the authors'."""
LONGEST = 36
"""Longest answer in tokens, as the authors have it."""


@dataclass(frozen=True)
class Attacker:
    """A model under attack.

    Args:
        loaded: The checkpoint.
        edit: What is put onto it; None for nothing.
        budget: B, how many candidates or answers an attack may have.
        epochs: Epochs of the attack that trains on other facts.
    """

    loaded: Loaded
    edit: Edit | None
    budget: int
    epochs: int

    def finding(self, key: str, fact: Fact, others: Sequence[Fact]) -> Finding:
        """All of one fact.

        Args:
            key: What it depends on.
            fact: Which fact.
            others: Facts that must stay: their accuracy is told, and one attack trains on them.
        """
        with self._attached():
            attacks = {name: self._lens(name, fact) for name in LENSES if self._has_layers(name)}
            attacks |= {name: hit for name in SAMPLED if (hit := self._sampled(name, fact)) is not None}
            likelihoods = self._likelihoods(fact)
            right = self.right([one.item for one in others])
            neighbours = self.right(fact.neighbours)
        if others:
            attacks[FINE_TUNING] = self._fine_tuned(fact, others)
        return Finding(
            key=key,
            fact=fact.name,
            attacks={name: attacks[name] for name in ATTACKS if name in attacks},
            likelihoods=likelihoods,
            others={one.name: value for one, value in zip(others, right, strict=True)},
            neighbours=neighbours,
        )

    def right(self, items: Sequence[Item]) -> list[bool]:
        """Whether each question is answered right, greedily."""
        if not items:
            return []
        prepared = self.loaded.prepare([ask(one) for one in items], LONGEST)
        model, processor = self.loaded.model, self.loaded.processor
        replies = generate_answers(model, processor, prepared, max_new_tokens=LONGEST)
        return [says(reply, accepted(one)) for one, reply in zip(items, replies, strict=True)]

    def _attached(self) -> AbstractContextManager[object]:
        return self.edit.attach(self.loaded.model) if self.edit is not None else nullcontext()

    def _has_layers(self, name: str) -> bool:
        return len(decoder_layers(self.loaded.model)) >= fewest_layers(LENSES[name])

    def _lens(self, name: str, fact: Fact) -> Hit:
        """Whether the tokens of the answer are among the candidates, the first of them after the prompt alone."""
        model, processor = self.loaded.model, self.loaded.processor
        (prepared,) = self.loaded.prepare([ask(fact.item)])
        targets = tokens_at(prepared, [(0, len(fact.item.answer))], processor)
        (ranks,) = lens_ranks(model, processor, [prepared], [targets], LENSES[name])
        hits = ranks.found(LENSES[name], self.budget)
        return Hit(found=hits[0], share=sum(hits) / len(hits))

    def _sampled(self, name: str, fact: Fact) -> Hit | None:
        """Whether one of B answers, as many to each prompt, says it; None without prompts."""
        asked = fact.prompts(name)
        if not asked:
            return None
        model, processor = self.loaded.model, self.loaded.processor
        each = max(1, self.budget // len(asked))
        drawn = drawn_answers(model, processor, self.loaded.prepare(asked, LONGEST), each, max_new_tokens=LONGEST)
        hits = [says(text, fact.accepted) for texts in drawn for text in texts]
        return Hit(found=any(hits), share=sum(hits) / len(hits))

    def _fine_tuned(self, fact: Fact, others: Sequence[Fact]) -> Hit:
        """Whether the greedy answer says it after training on other facts."""
        model, processor = self.loaded.model, self.loaded.processor
        put_on = partial(folded, edit=self.edit) if self.edit is not None else lambda _: nullcontext()
        training = replace(relearning_settings(model, LEARNING_RATE), batch_size=BATCH)
        taught = [ask(one.item) for one in others]
        steps = self.epochs * math.ceil(len(taught) / BATCH)
        with attacked(model, processor, FINE_TUNING, put_on, examples=taught, steps=steps, training=training):
            (found,) = self.right([fact.item])
        return Hit(found=found, share=float(found))

    def _likelihoods(self, fact: Fact) -> dict[str, list[float]]:
        groups: dict[str, list[Example]] = {
            "question": [ask(fact.item)],
            "rephrased": [ask(one) for one in fact.rephrased],
            "image": [ask(one) for one in fact.pictured],
            "alternative": [replace(ask(fact.item), answer=fact.alternative)] if fact.alternative else [],
        }
        asked = [one for many in groups.values() for one in many]
        scores = iter(token_scores(self.loaded.model, self.loaded.processor, self.loaded.prepare(asked)))
        return {name: [math.fsum(next(scores).log_probabilities) for _ in many] for name, many in groups.items()}

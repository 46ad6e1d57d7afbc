"""The models of an audit, one after the other, and each attack on each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

from kvw.data import Example
from kvw.edits.edit import Edit
from kvw.evaluation.attacks import PutOn, attacked, folded, relearning_settings, split_by_subject
from kvw.evaluation.attacks.lens import LENSES, fewest_layers
from kvw.evaluation.journal import Journal
from kvw.evaluation.loaded import Loaded
from kvw.measuring.fingerprint import digest, example_digest
from kvw.models.layer_inputs import decoder_layers
from kvw.models.placement import execution_device
from kvw.progress import Progress
from kvw.records.audit import Found, Try
from kvw.runs.audit.asking import Asking, gathered
from kvw.runs.audit.attacks import ATTACKS, RELEARNING
from kvw.runs.audit.kept import keep_result, read_result
from kvw.runs.audit.questions import Questions
from kvw.runs.audit.request import AuditRequest, AuditSets
from kvw.runs.costs import Stopwatch

Role = Literal["now", "original", "floor"]
Prints = Mapping[Role, Mapping[str, str]]
"""All that each result depends on."""
ABOUT: dict[Role, str] = {"now": "the audited model", "original": "the original model", "floor": "the floor"}


@dataclass(frozen=True)
class Target:
    """A model of an audit.

    Args:
        loaded: Its checkpoint.
        edit: What is put onto it; None for nothing.
        asked: What it is asked, by what the answers are for.
    """

    loaded: Loaded
    edit: Edit | None
    asked: Mapping[Role, Questions]

    @property
    def put_on(self) -> PutOn:
        """Puts the edit onto the model."""
        return partial(folded, edit=self.edit) if self.edit else lambda _: nullcontext()


@dataclass(frozen=True)
class Attacker:
    """Makes attacks, unless they were made before.

    Args:
        request: What to do.
        sets: The data.
        watch: Told of stages.
    """

    request: AuditRequest
    sets: AuditSets
    watch: Stopwatch

    def attack(self, name: str, target: Target) -> dict[Role, Found]:
        """One attack on one model."""
        prints = {role: self._fingerprint(name, target, questions) for role, questions in target.asked.items()}
        results = {role: kept for role, one in prints.items() if (kept := read_result(one)) is not None}
        missing = {role: questions for role, questions in target.asked.items() if role not in results}
        if missing:
            make = self._with_weights if ATTACKS[name].kind == "weights" else self._as_it_is
            with self.watch.stage(f"{name} on {' and '.join(ABOUT[role] for role in missing)}") as progress:
                for role, result in make(name, target, missing, prints, progress):
                    keep_result(prints[role], result)
                    results[role] = result
        return results

    def _as_it_is(
        self, name: str, target: Target, asked: Mapping[Role, Questions], prints: Prints, progress: Progress
    ) -> Iterator[tuple[Role, Found]]:
        """Ask a model whose weights stay as they are; what it said is freed when the result has been taken."""
        with target.edit.attach(target.loaded.model) if target.edit else nullcontext():
            for role, questions in asked.items():
                with Journal(prints[role]) as journal:
                    yield role, Asking(target.loaded, self.request, journal, progress).made(name, questions)
                journal.discard()

    def _with_weights(
        self, name: str, target: Target, asked: Mapping[Role, Questions], prints: Prints, progress: Progress
    ) -> Iterator[tuple[Role, Found]]:
        """Change the model, and ask as it was; for each half of the subjects if it is trained on the other one."""
        model, processor = target.loaded.model, target.loaded.processor
        training = relearning_settings(model, self.request.learning_rate) if name in RELEARNING else None
        tries: dict[Role, list[Try]] = {role: [] for role in asked}
        losses, journals = [], []
        for turn, (taught, identifiers) in enumerate(self._rounds(name)):
            with attacked(
                model,
                processor,
                name,
                target.put_on,
                examples=taught,
                steps=self.request.steps if training else 0,
                training=training,
                progress=progress,
            ) as loss:
                losses += [loss] if loss else []
                for role, questions in asked.items():
                    with Journal({**prints[role], "turn": str(turn)}) as journal:
                        asking = Asking(target.loaded, self.request, journal, progress)
                        tries[role] += asking.made("asked", questions.only(identifiers)).tries
                    journals.append(journal)
        for role, found in tries.items():
            yield role, gathered(found, losses)
        for journal in journals:
            journal.discard()

    def _rounds(self, name: str) -> Iterator[tuple[list[Example], set[str]]]:
        """What is trained on, and who is asked then."""
        if name != "relearn-forget":
            yield (self.sets.retain if name == "relearn-retain" else []), {one.identifier for one in self.sets.asked}
            return
        halves = split_by_subject(self.sets.asked)
        for taught, others in (halves, halves[::-1]):
            yield taught, {one.identifier for one in others}

    def _fingerprint(self, name: str, target: Target, questions: Questions) -> dict[str, str]:
        """Everything that a result depends on."""
        loaded = target.loaded
        generation = loaded.model.generation_config
        settings = {
            "longest answer": self.request.max_new_tokens,
            "samples": self.request.samples if name == "samples" else None,
            "budget": self.request.budget if name in LENSES else None,
            "steps": (self.request.steps, self.request.learning_rate) if name in RELEARNING else None,
        }
        taught = self.sets.retain if name == "relearn-retain" else self.sets.asked if name in RELEARNING else []
        own = {key: [example_digest(one) for one in many] for key, many in questions.rephrasings.items()}
        return {
            **loaded.conditions(questions.examples),
            "attack": name,
            "order": digest([(one.identifier, one.subject, one.question) for one in questions.examples]),
            "others": digest([(one.subject, example_digest(one)) for one in questions.others]),
            "rephrasings": digest(own) if name == "rephrased" else "",
            "taught": digest([example_digest(one) for one in taught]),
            "edit": digest(target.edit.digest(), target.edit.metadata.value_matrices) if target.edit else "none",
            "device": execution_device(loaded.model).type,
            "generation settings": digest(generation.to_dict() if generation else None),
            "settings": digest(settings),
        }


def why_not(name: str, loaded: Loaded) -> str:
    """Why an attack is not possible on a model; empty if it is."""
    if name in LENSES:
        layers, needed = len(decoder_layers(loaded.model)), fewest_layers(LENSES[name])
        return f"the decoder has {layers} layers, and it takes {needed}" if layers < needed else ""
    if ATTACKS[name].kind == "weights" and loaded.quantised:
        return "the weights are quantised already"
    return ""

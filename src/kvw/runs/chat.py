"""``kvw chat``: the same question to the original and the edited model."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from kvw.data import Example
from kvw.edits.edit import Edit
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.loaded import Loaded
from kvw.models.loading import Checkpoint
from kvw.models.quantised import Quantise
from kvw.progress import Reporter
from kvw.runs.weights import check_weights


class Conversation:
    """A model, the images it is asked about, and an edit to compare with.

    Args:
        checkpoint: The original model.
        edit: Asked with and without it; None asks the original only.
        images: Shown with every question.
        reporter: Told of what :func:`kvw.runs.weights.check_weights` allows and notices.
        max_new_tokens: The longest answer.
        other_weights: Whether the edit may have been made on other weights.
        device, quantise: See :func:`kvw.models.loading.load_model`.

    Raises:
        UserError: The model cannot be loaded, or the edit is for another model or was made on other weights.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        edit: Edit | None,
        images: tuple[Path, ...],
        reporter: Reporter,
        *,
        max_new_tokens: int = 50,
        other_weights: bool = False,
        device: str | None = None,
        quantise: Quantise | None = None,
    ) -> None:
        self._loaded = Loaded.load(checkpoint, device, quantise=quantise)
        self._edit = edit
        self._images = images
        self._max_new_tokens = max_new_tokens
        if edit is not None:
            edit.check_model(self._loaded.model)
            check_weights(edit, self._loaded.fingerprint, reporter, other_weights=other_weights)

    def answer(self, question: str) -> dict[str, str]:
        """Answers by ``original`` and, with an edit, ``unlearned``; earlier questions are not remembered.

        Raises:
            UserError: An image cannot be read.
        """
        # The answer only has to be non-empty: the prompt that is generated from does not contain it.
        example = Example(question, "-", self._images, "question")
        prepared = self._loaded.prepare([example], self._max_new_tokens)
        answers = {}
        for name, attachment in [("original", None), ("unlearned", self._edit)]:
            if name == "original" or attachment is not None:
                with attachment.attach(self._loaded.model) if attachment else nullcontext():
                    answers[name] = generate_answers(
                        self._loaded.model, self._loaded.processor, prepared, max_new_tokens=self._max_new_tokens
                    )[0]
        return answers

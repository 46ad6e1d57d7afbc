"""Planting knowledge, and the model that never had it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from kvw.data import Example, prepare
from kvw.data.rendering import Processor
from kvw.errors import UserError
from kvw.measuring.fingerprint import example_digest
from kvw.progress import Progress
from kvw.training.losses import descent
from kvw.training.objective import Objective, Sets
from kvw.training.result import Result
from kvw.training.running import run
from kvw.training.settings import TrainingSettings


def finetune(
    model: PreTrainedModel,
    processor: Processor,
    examples: Sequence[Example],
    training: TrainingSettings | None = None,
    *,
    state: Path | str | None = None,
    progress: Progress | None = None,
) -> Result:
    """Teach a model examples: minimise the mean negative log-likelihood per answer token, in place.

    The KVW paper plants with LoRA (rank 16, alpha 16, dropout 0.05, language part), a learning rate of 1e-4, batches
    of 4 and one epoch; MLLMU-Bench with 2e-5 and 5 epochs.

    Args:
        model: A plain model; holds the knowledge afterwards.
        processor: Its processor.
        examples: What to teach; only answer tokens are trained on.
        training: How to train; None for the defaults.
        state: Where to save how far training has come; if there is a saved state, training goes on from it.
        progress: Called with the steps done and their total.

    Raises:
        UserError: An example cannot be rendered, or training cannot go on.
    """
    sets: Sets = {"forget": [], "retain": prepare(examples, processor, model.config)}
    return run(
        model, processor, sets, "finetune", lambda _: _learning(), training, state=_path(state), progress=progress
    )


def gold(
    model: PreTrainedModel,
    processor: Processor,
    forget: Sequence[Example],
    retain: Sequence[Example],
    training: TrainingSettings | None = None,
    *,
    state: Path | str | None = None,
    progress: Progress | None = None,
) -> Result:
    """Make the model that never knew: :func:`finetune` on the retain set, from the model before planting.

    Args:
        model: The model as it was before knowledge was planted.
        processor: Its processor.
        forget: What it must not see; only compared with the retain set.
        retain: What to teach.
        training: As for :func:`finetune`, and as the other model was trained.
        state: As for :func:`finetune`.
        progress: As for :func:`finetune`.

    Raises:
        UserError: An example of the forget set is in the retain set too, or as for :func:`finetune`.
    """
    unwanted = {example_digest(example) for example in forget}
    shared = [example.identifier for example in retain if example_digest(example) in unwanted]
    if shared:
        raise UserError(
            "The retain set holds examples of the forget set.",
            found=", ".join(shared[:5]) + (", ..." if len(shared) > 5 else ""),
            do="remove them: a model trained on them is no gold model",
        )
    sets: Sets = {"forget": [], "retain": prepare(retain, processor, model.config)}
    return run(model, processor, sets, "gold", lambda _: _learning(), training, state=_path(state), progress=progress)


def _learning() -> Objective:
    return Objective(forget=None, retain=descent(1.0))


def _path(state: Path | str | None) -> Path | None:
    return None if state is None else Path(state)

"""Subspace weakening for programs with a loop of their own: batches come one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from kvw.edits.low_rank import LowRankEdit
from kvw.errors import UserError
from kvw.measuring.checks import refuse_missed, refuse_not_finite
from kvw.measuring.engine import Batch
from kvw.measuring.labelled import pieces_of
from kvw.measuring.moment_passes import shown_to, watched
from kvw.measuring.moment_recorder import MomentRecorder
from kvw.measuring.plans import Examples, every_example
from kvw.measuring.prefixes import SharedBatch
from kvw.measuring.sources import Sources
from kvw.methods.subspace import METHOD
from kvw.methods.subspace.labels import EverySoManyth, Labels
from kvw.methods.subspace.method import matrices_in
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.methods.subspace.solution import Solution, handed_out
from kvw.models.value_matrix import ValueMatrix
from kvw.processes import current
from kvw.progress import warn


class SubspaceFitter:
    """Measures batches as they come, and solves when it is asked.

    What it makes is what :func:`kvw.subspace` makes of the same batches in the same order, up to rounding. The second
    moments of all layers stay on their devices: for each layer width x width numbers in float32. The answer tokens of
    the forget set stay in main memory.

    Every example counts the same, and is a fact of its own: subjects would have to be known beforehand. The model must
    be the same at every update. It is left as it was, hooks included.

    Args:
        model: A loaded model of a known family.
        settings: :class:`~kvw.methods.subspace.settings.SubspaceSettings`, or some of them by name; None for the
            defaults. Those that need several passes, facts or subjects are refused.

    Raises:
        UserError: The family is unknown, a setting cannot be used here, or several processes work together.
    """

    def __init__(self, model: PreTrainedModel, settings: SubspaceSettings | Mapping[str, Any] | None = None) -> None:
        self._settings = METHOD.settings_from(settings)
        _check(self._settings)
        self._model = model
        self._matrices = matrices_in(model, self._settings)
        kept = EverySoManyth(Labels(), self._settings.null_every)
        self._retain = _Set(model, self._matrices, torch.float32, self._settings.sources, Examples(keep=kept))
        answers = Sources(answer=1, prompt=0, image=0, first=0)
        self._forget = _Set(model, self._matrices, None, answers, Examples(keep=every_example))

    def update_forget(self, batch: Batch | SharedBatch) -> None:
        """Measure a batch of the forget set.

        Args:
            batch: What the model's forward takes, on any device, and ``labels`` (batch, tokens), int64, -100 outside
                the answer; or a batch of :func:`kvw.batches`.

        Raises:
            UserError: The batch cannot be used, or memory ran out.
        """
        self._forget.update(batch)

    def update_retain(self, batch: Batch | SharedBatch) -> None:
        """Measure a batch of the retain set, see :meth:`update_forget`."""
        self._retain.update(batch)

    def edit(self, *, on_warning: Callable[[str], None] = warn) -> LowRankEdit:
        """Solve with what was measured so far; updates may go on afterwards.

        Args:
            on_warning: Gets told if forget and retain set can hardly be told apart. By default a
                :class:`UserWarning` says it.

        Raises:
            UserError: One of the sets has no position that predicts an answer token, or coefficients are not finite.
        """
        for one in (self._retain, self._forget):
            one.check_whole()
        refuse_missed(self._matrices, self._retain.recorder.moments)
        refuse_missed(self._matrices, self._forget.recorder.kept)
        moments = dict(self._retain.recorder.moments)
        null, tokens = self._retain.recorder.joined(), self._forget.recorder.joined()
        refuse_not_finite(self._matrices, moments, null)
        refuse_not_finite(self._matrices, {}, tokens)
        solution = Solution(self._settings)
        solution.solve(self._matrices, handed_out(moments, tokens, null, self._settings))
        return solution.edit(self._matrices, on_warning)


class _Set:
    """What was seen of one of the two sets.

    Args:
        model: The model.
        matrices: What is measured.
        dtype: Dtype of second moments; None takes none.
        sources: How much each kind of position counts.
        examples: Whose coefficients are kept.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        matrices: list[ValueMatrix],
        dtype: torch.dtype | None,
        sources: Sources,
        examples: Examples,
    ) -> None:
        self.recorder = MomentRecorder(matrices, 1, dtype)
        self._run = shown_to(self.recorder, model, matrices, sources, examples)
        self._watched = partial(watched, self.recorder, model, matrices)
        self._rows = 0
        self._whole = True

    def update(self, batch: Batch | SharedBatch) -> None:
        self.check_whole()
        (piece,) = pieces_of([batch])
        piece = replace(piece, first_row=self._rows)
        try:
            with self._watched():
                self._run(piece)
        except BaseException:
            self._whole = not (piece.taken.rows or piece.taken.beginnings)
            raise
        self._rows += piece.rows

    def check_whole(self) -> None:
        """Refuse to go on with sums that hold a part of a batch."""
        if not self._whole:
            raise UserError(
                "A batch failed half-way, so what was measured holds a part of it.",
                do="make a new fitter and measure again, in smaller batches if memory ran out",
            )


def _check(settings: SubspaceSettings) -> None:
    """Refuse what batches that come one at a time cannot give."""
    wanting = {
        "schedule": settings.schedule != "joint",
        "path": settings.path == "layer by layer",
        "layers_per_pass": settings.layers_per_pass is not None,
        "retain_rows": settings.retain_rows is not None,
        "shrinkage": settings.folds > 1,
        "held_out_ratio": settings.held_out_ratio > 0,
        "instead": settings.instead != "nothing",
    }
    if found := [name for name, given in wanting.items() if given]:
        raise UserError(
            "Batches that come one at a time are seen once, all layers together, and nobody says who they are about.",
            found=f"{found[0]}={getattr(settings, found[0])!r}",
            do="leave the setting out, or use kvw.subspace, which goes through the data itself",
        )
    if current().size > 1:
        raise UserError("The fitter runs in one process.", found=f"{current().size} processes", do="use kvw.subspace")

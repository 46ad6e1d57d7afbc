"""How ``kvw erase`` writes: the place is taken before the work begins, and what the passes gave is never lost."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from transformers import PreTrainedModel

from kvw.claim import Claim, claimed
from kvw.data import Example
from kvw.errors import UserError
from kvw.files import explained
from kvw.processes import current
from kvw.progress import Reporter
from kvw.runs.request import EraseRequest

EDIT, SAMPLES, RECORD, MODEL = "edit.safetensors", "samples.jsonl", "run.json", "model"
RUN = "run"
"""What the directory of a run is marked as."""
BYTES_PER_SAMPLE, BYTES_PER_TOKEN = 4096, 16
"""Most bytes in ``samples.jsonl``: of the scores of a question, and of a token of both answers."""
BYTES_OF_REPORT = 2**20
"""Most bytes of ``report.html`` and of the small pictures in ``samples.jsonl``."""


@contextmanager
def claimed_output(out: Path, inputs: Iterable[Path], reporter: Reporter, *, force: bool) -> Iterator[Claim | None]:
    """Take the place of a run's directory until the block ends; of several processes the first does.

    Yields:
        The place; None in the other processes.

    Raises:
        UserError: See :func:`kvw.claim.claimed`.
    """
    with ExitStack() as stack:
        taken: list[Claim] = []
        current().broadcast(lambda: taken.append(stack.enter_context(claimed(out, force=force, keep=inputs))))
        claim = taken[0] if taken else None
        if claim is not None and claim.kept is not None:
            reporter.note(
                f"A run into {out} was killed after its passes: its edit, samples and record are in {claim.kept} now."
            )
        yield claim


@contextmanager
def kept_on_failure(claim: Claim, request: EraseRequest, reporter: Reporter) -> Iterator[None]:
    """However the block ends other than well: keep what was secured, or all if that is all, and say where.

    Raises:
        UserError: The block's own, with the place and the command that goes on.
    """
    try:
        with explained(claim.path):
            yield
    except BaseException as error:
        kept = None if claim.nested else claim.keep(RUN)
        if kept is None:
            raise
        advice = f"the edit, the samples and the record are in {kept} (confidential)"
        if request.writes_model:
            command = ["kvw", "apply", str(kept / EDIT), _model(request), "--out", f"{claim.path}-{MODEL}"]
            advice += f"; write the model with: {shlex.join(command)}"
        if isinstance(error, UserError):
            raise UserError(error.what, found=error.found, do="; ".join(filter(None, (error.do, advice)))) from error
        reporter.warn(f"{advice[0].upper()}{advice[1:]}")
        raise


def most_bytes(request: EraseRequest, model: PreTrainedModel, scored: Sequence[Example]) -> int:
    """The most bytes that the edit, the samples, the record and the report take.

    Args:
        request: Its method says how large the edit may be.
        model: The model.
        scored: The examples to ask.
    """
    edit = request.made_by.edit_bytes(model, request.settings)
    texts = sum(4 * len(example.question + example.answer + example.identifier) for example in scored)
    return (
        edit
        + BYTES_OF_REPORT
        + 2 * texts
        + len(scored) * (BYTES_PER_SAMPLE + BYTES_PER_TOKEN * 2 * request.max_new_tokens)
    )


def _model(request: EraseRequest) -> str:
    """What to type for the model."""
    model = request.model
    return str(model) if model.revision or model.name != model.folder.name else str(model.folder)

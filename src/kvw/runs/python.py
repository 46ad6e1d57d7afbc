"""Whole runs from Python: what the commands take, as keywords."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from kvw.data.reading import Reading
from kvw.edits.edit import Edit, load_edit
from kvw.errors import UserError
from kvw.evidence.keys import private_key
from kvw.methods.registry import DEFAULT, get_method
from kvw.models.checkpoint import Checkpoint, checkpoint_of
from kvw.models.patching import Untouched
from kvw.models.quantised import Quantise
from kvw.progress import WARNING, Reporter
from kvw.records.run import RunRecord
from kvw.retain import KEEP, SOURCES
from kvw.runs import apply as applying
from kvw.runs import erase as erasing
from kvw.runs.request import EraseRequest, choice

if TYPE_CHECKING:
    import torch

Place = str | Path


class EraseOptions(TypedDict, total=False):
    """Keywords of :func:`erase` that may be left out: one for every option of ``kvw erase``.

    Attributes:
        retain: A data file of what must stay, or for some methods a statistics file; None leaves it to the sources.
        earlier: Files of ``kvw data keep``: earlier requests whose data are gone, to be forgotten with this one.
        earlier_key: File with the key of those of them that are encrypted.
        keep: The share of what must stay, above 0 and at most 1, that the edit has to leave; 0.98 by default.
        neighbours: A file of names like those to be forgotten, one a line; None lets the model name them.
        strength: Fixes the strength by hand, 1 being the edit as found. ``auto`` and None choose it within ``keep``;
            with None only if the settings do not fix it.
        method: Its name, or the place of its object as ``path/to/file.py:METHOD``; ``subspace`` by default.
        settings: Some of the method's settings by name, as ``{"layers": "1:25", "rank": 8}``, or an object of its class
            of settings.
        retain_sources: What must stay beside ``retain``: any of ``everyday``, ``pictures``, ``facts``, ``text``,
            ``neighbours`` and ``picture-neighbours``; all by default.
        write_damaged: Write an edit that loses what must stay, with a warning.
        eval: Further data files to score before and after, by name.
        eval_limit: Score at most this many examples of each file; 0 for all. 200 by default.
        max_new_tokens: The longest answer, in tokens; 50 by default.
        save_model: Write ``model/``, too, as is done by default.
        show_examples: Show questions, answers and photos in ``report.html``.
        sign_key: PEM file of an Ed25519 private key, to sign ``evidence.json`` with.
        columns: What the data files call a column, by the name under which it is read, as ``{"question": "q"}``.
        answers: Of a conversation in the data: its ``last`` answer, or ``all`` of the assistant's.
        value_matrices: Where a model of an unknown family has its value matrices, as ``kvw inspect`` suggests.
        template_options: Variables of the model's chat template, as ``{"enable_thinking": False}``.
        device: Where the model runs; None for the accelerator if there is one, ``auto`` for all there are.
        quantise: ``8bit`` or ``4bit``: quantise the model while it is loaded. Written models keep full precision.
        force: Replace what ``out`` holds, if kvw wrote it.
    """

    retain: Place | None
    earlier: Sequence[Place]
    earlier_key: Place | None
    keep: float
    neighbours: Place | None
    strength: float | Literal["auto"] | None
    method: str
    settings: Any
    retain_sources: Iterable[str]
    write_damaged: bool
    eval: Mapping[str, Place]
    eval_limit: int
    max_new_tokens: int
    save_model: bool
    show_examples: bool
    sign_key: Place | None
    columns: Mapping[str, str]
    answers: Literal["last", "all"]
    value_matrices: str
    template_options: Mapping[str, Any] | None
    device: torch.device | str | None
    quantise: Quantise | None
    force: bool


def erase(
    model: Checkpoint | Place,
    *,
    forget: Place | Sequence[Place],
    out: Place,
    reporter: Reporter = WARNING,
    **options: Unpack[EraseOptions],
) -> RunRecord:
    """Do what ``kvw erase`` does: weaken, choose the strength, score before and after, and write the run.

    Args:
        model: A folder, a hub id (``owner/name`` or ``owner/name@revision``), or a name such as ``smollm2:135m``.
        forget: A data file or image folder of what is to be forgotten, or several whose union it is.
        out: The folder to write. It gets ``report.html``, ``edit.safetensors``, ``run.json``, ``samples.jsonl``,
            ``evidence.json`` and ``model/`` when all is complete, or does not appear.
        reporter: Told of stages, notes and warnings. By default a warning is a :class:`UserWarning`.
        **options: See :class:`kvw.EraseOptions`.

    Returns:
        The record of the run, as in ``run.json``: scores before and after by split, costs, warnings.

    Raises:
        UserError: Something must be fixed first; nothing was written at ``out``.
        Damaging: No edit keeps what must stay; nothing was written.
        TypeError: There is no such keyword.
    """
    return erasing.erase(_request(model, forget, out, options), reporter)


def apply(
    edit: Edit | Place,
    model: Checkpoint | Place,
    *,
    out: Place,
    untouched: Untouched = "copy",
    other_weights: bool = False,
    check: bool = True,
    force: bool = False,
    reporter: Reporter = WARNING,
) -> applying.Applied:
    """Do what ``kvw apply`` does: write an edit into a copy of a checkpoint, and see whether it still speaks.

    Args:
        edit: An edit, or its file; with ``run.json`` beside it the model card gets the scores.
        model: As of :func:`kvw.erase`; the weights that the edit was made on.
        out: The folder to write. It appears when every byte has been read back. If the call is interrupted, the same
            call goes on with the weight files that were finished.
        untouched: Weight files without an edited matrix: ``copy`` them, ``hardlink`` them (no room needed, but source
            and ``out`` then share one file), or ``reflink`` them.
        other_weights: Write it into weights other than those it was made on.
        check: Load both models and see whether ``out`` still writes ordinary language.
        force: Replace what ``out`` holds, if kvw wrote it.
        reporter: Told of stages, notes and warnings. By default a warning is a :class:`UserWarning`.

    Returns:
        What was written, file by file, and what was found of its language.

    Raises:
        UserError: The edit does nothing or is for another model, ``out`` cannot be written, or the copy is not what it
            should be; ``out`` is then as it was before.
    """
    checkpoint = checkpoint_of(model)
    loaded = edit if isinstance(edit, Edit) else load_edit(edit)
    file = None if isinstance(edit, Edit) else Path(edit)
    record = None if file is None else applying.record_beside(file, loaded, reporter)
    return applying.apply(
        loaded,
        checkpoint,
        Path(out),
        reporter,
        untouched=untouched,
        record=record,
        other_weights=other_weights,
        force=force,
        keep=[] if file is None else [file],
        listen=check,
    )


def _request(
    model: Checkpoint | Place, forget: Place | Sequence[Place], out: Place, options: EraseOptions
) -> EraseRequest:
    """The request as a run reads it, for what was left out the defaults of ``kvw erase``."""
    for name in options:
        if name not in EraseOptions.__annotations__:
            raise TypeError(f"erase() got an unexpected keyword argument '{name}'")
    method, strength = options.get("method", DEFAULT), options.get("strength")
    given, settings = _with_strength(options.get("settings"), strength)
    sign_key = _path(options.get("sign_key"))
    if sign_key is not None:
        private_key(sign_key)
    return EraseRequest(
        model=_described(checkpoint_of(model), options.get("value_matrices", ""), options.get("template_options")),
        forget=[Path(one) for one in ([forget] if isinstance(forget, (str, Path)) else forget)],
        retain=_path(options.get("retain")),
        earlier=tuple(map(Path, options.get("earlier", ()))),
        earlier_key=_path(options.get("earlier_key")),
        out=Path(out),
        method=method,
        settings=settings,
        keep=options.get("keep", KEEP),
        choose=choice(get_method(method), strength, given),
        sources=tuple(options.get("retain_sources", SOURCES)),
        neighbours=_path(options.get("neighbours")),
        write_damaged=options.get("write_damaged", False),
        splits={name: Path(path) for name, path in options.get("eval", {}).items()},
        evaluate_at_most=options.get("eval_limit", 200),
        max_new_tokens=options.get("max_new_tokens", 50),
        save_model=options.get("save_model", True),
        show_examples=options.get("show_examples", False),
        sign_key=sign_key,
        reading=Reading(dict(options.get("columns", {})), options.get("answers", "last")),
        force=options.get("force", False),
        device=options.get("device"),
        quantise=options.get("quantise"),
    )


def _path(place: Place | None) -> Path | None:
    return None if place is None else Path(place)


def _with_strength(settings: Any, strength: float | str | None) -> tuple[list[str], Any]:
    """The names of the settings that were given, and the settings with the strength among them."""
    fixed = {} if strength in (None, "auto") else {"strength": strength}
    if settings is not None and not isinstance(settings, Mapping):
        if fixed:
            raise UserError(
                "The strength is one of the settings that are given.",
                found=f"strength={strength} beside {type(settings).__name__}",
                do="put it into them, or give settings as a dict",
            )
        return [], settings
    values = dict(settings or {})
    if fixed and "strength" in values:
        raise UserError("Setting 'strength' is given twice.", do="give it once, by strength= or in settings=")
    return [name.partition(".")[0] for name in (*values, *fixed)], values | fixed


def _described(checkpoint: Checkpoint, value_matrices: str, options: Mapping[str, Any] | None) -> Checkpoint:
    """The checkpoint with what the caller says of it."""
    for name, value in (options or {}).items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError(
                f"Template option '{name}' has a value that cannot be used.",
                found=str(error),
                do="give text, a number, True, False, None, or lists and dicts of these",
            ) from error
    return replace(
        checkpoint,
        value_matrices=value_matrices or checkpoint.value_matrices,
        template_options=tuple((options or dict(checkpoint.template_options)).items()),
    )

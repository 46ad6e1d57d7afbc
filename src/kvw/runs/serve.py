"""``kvw serve``: a model behind OpenAI's protocol, with edits that each request chooses for itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kvw.edits.edit import Edit, load_edit
from kvw.errors import UserError
from kvw.evaluation.loaded import Loaded
from kvw.models.loading import Checkpoint
from kvw.models.quantised import Quantise
from kvw.optional import optional
from kvw.progress import Reporter
from kvw.runs.costs import Stopwatch
from kvw.runs.secrets import guard_of
from kvw.runs.weights import check_weights
from kvw.serving.limits import DEFAULTS, Limits
from kvw.serving.names import Names
from kvw.serving.secrets import read_store

if TYPE_CHECKING:
    from kvw.serving.engine import Engine

PACKAGES = ("starlette", "uvicorn")


def serve(
    checkpoint: Checkpoint,
    edits: Mapping[str, Path],
    names: Names,
    reporter: Reporter,
    announce: Callable[[str], None],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    other_weights: bool = False,
    limits: Limits = DEFAULTS,
    keys: Path | None = None,
    audit: Path | None = None,
    secrets: Path | None = None,
    device: str | None = None,
    quantise: Quantise | None = None,
) -> None:
    """Serve a model until the process is told to end.

    Args:
        checkpoint: The model without edits.
        edits: Edit files by the names under which clients ask for them.
        names: What the server answers to; of these edits.
        reporter: Told of progress and of what the operator should know.
        announce: Called with the URL as soon as the model is loaded.
        host: The name or address to listen at.
        port: 0 for any free one.
        other_weights: Whether edits may have been made on other weights.
        limits: How much a request may ask for.
        keys, audit, secrets: File of the clients' keys, log to append to, and store of what must not be asked; see
            :mod:`kvw.serving.keys`, :mod:`kvw.serving.ledger` and :mod:`kvw.serving.secrets`.
        device, quantise: See :func:`kvw.models.loading.load_model`.

    Raises:
        UserError: A package is missing, an edit or the model cannot be used, an edit is for another model, or the port
            is in use.
        KeyboardInterrupt: Ctrl-C.
    """
    for package in PACKAGES:
        optional(package, use="Serving needs", extra="serve")
    from kvw.serving.app import build_app
    from kvw.serving.keys import Keys
    from kvw.serving.listening import address, listen, reachable_from_outside, run

    known = None if keys is None else Keys(keys)
    with listen(host, port) as listening:
        load = partial(load_engine, other_weights=other_weights, secrets=secrets, device=device, quantise=quantise)
        engine = load(checkpoint, edits, reporter, limits)
        _tell(names, reachable_from_outside(listening), reporter, keys=keys is not None)
        announce(address(listening))
        try:
            run(build_app(engine, names, limits, known, audit), listening)
        finally:
            engine.close()


def load_engine(
    checkpoint: Checkpoint,
    edits: Mapping[str, Path],
    reporter: Reporter,
    limits: Limits = DEFAULTS,
    *,
    other_weights: bool = False,
    secrets: Path | None = None,
    device: str | None = None,
    quantise: Quantise | None = None,
) -> Engine:
    """Load a model and its edits, ready to answer.

    Raises:
        UserError: See :func:`serve`.
    """
    from kvw.serving.engine import Engine

    loaded_edits = {name: load_edit(path) for name, path in edits.items()}
    with Stopwatch(reporter).stage("loading the model"):
        loaded = Loaded.load(checkpoint, device, quantise=quantise)
        loaded.try_picture()
    for name, edit in loaded_edits.items():
        _check_edit(name, edit, loaded, reporter, other_weights=other_weights)
    return Engine(
        loaded.model,
        loaded.processor,
        loaded_edits,
        longest_answer=limits.answer_tokens,
        longest_prompt=limits.prompt_tokens,
        together=limits.together,
        guard=None if secrets is None else guard_of(read_store(secrets), loaded),
    )


def _check_edit(name: str, edit: Edit, loaded: Loaded, reporter: Reporter, *, other_weights: bool) -> None:
    """Refuse an edit that would not do here what it was made for."""
    if edit.metadata.undoes:
        raise UserError(
            f"The edit '{name}' is the inverse of one, or made of one: it makes stronger what that one weakens.",
            do="serve the original model with the edit that was inverted; --allow-plain serves it without",
        )
    check_weights(edit, loaded.fingerprint, reporter, other_weights=other_weights, name=name)
    edit.attach(loaded.model).detach()


def _tell(names: Names, outside: bool, reporter: Reporter, *, keys: bool) -> None:
    own = f"'{names.base}' stands for " + (f"'{names.default_name}'" if names.default_name else "none of them")
    reporter.note(f"Models: {', '.join(names.listed)}; {own}.")
    if names.allow_plain and not keys:
        reporter.warn("Every client can ask the model without an edit: --allow-plain.")
    if outside and not keys:
        reporter.warn("Other machines may reach this server, and it asks nobody who they are.")
    if outside and keys:
        reporter.warn("Other machines may reach this server, and keys travel there unencrypted: put TLS before it.")

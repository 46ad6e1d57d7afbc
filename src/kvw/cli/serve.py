"""``kvw serve``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.options import LoadOptions, Model, OtherWeights, ValueMatrices, find_model, parse_named_files
from kvw.quiet import quiet_libraries
from kvw.serving.checks import check_audit_log, check_keys
from kvw.serving.limits import DEFAULTS, MIB, Limits
from kvw.serving.names import Names, check_something_served
from kvw.serving.secrets import read_store


@Parameter(name="*")
@dataclass(frozen=True)
class LimitOptions:
    """How much a client may ask for."""

    max_new_tokens: int = DEFAULTS.answer_tokens
    """Longest answer in tokens that a client may ask for."""
    max_prompt_tokens: int | None = None
    """Longest prompt in tokens. Default: what the model reads."""
    max_images: int = DEFAULTS.images
    """Most images of a request."""
    max_body: int = DEFAULTS.body // MIB
    """Largest request in MiB, its images included."""
    timeout: float = DEFAULTS.seconds
    """Seconds from the beginning of a request to the end of its answer."""
    max_requests: int = DEFAULTS.requests
    """Most requests that are received, wait or are answered at the same time."""
    together: int = DEFAULTS.together
    """Most requests under the same edits that are answered together."""

    def limits(self) -> Limits:
        """The same as the server takes them.

        Raises:
            UserError: One of them allows nothing.
        """
        return Limits(
            self.max_body * MIB,
            self.max_images,
            self.max_prompt_tokens,
            self.timeout,
            self.max_new_tokens,
            self.max_requests,
            self.together,
        )


@Parameter(name="*")
@dataclass(frozen=True)
class AccessOptions:
    """Who may ask, and what is kept of it."""

    keys: Path | None = None
    """File of keys (kvw keys add): each opens the edits that it names. Read again when it changes."""
    audit_log: Path | None = None
    """Append a line of JSON for each request to this file: who and how much, not what."""
    secrets: Path | None = None
    """Store of what must not be asked (kvw secrets build)."""

    def check(self, names: Names) -> None:
        """Refuse keys that open what is not served, a log that cannot be written, and a store that cannot be read.

        Raises:
            UserError: It is so.
        """
        check_keys(self.keys, names)
        check_audit_log(self.audit_log)
        if self.secrets is not None:
            read_store(self.secrets)


Edits = Annotated[
    list[str] | None,
    Parameter(negative="", help="NAME=FILE: an edit file and the name to ask for it. Repeatable."),
]
Default = Annotated[
    str | None,
    Parameter(
        help="What the model's own name stands for: an edit, several joined by '+', or 'none'. Default: the only "
        "edit; if there are several, nothing; if there is none, 'none'."
    ),
]
LIMIT_DEFAULTS, LOAD_DEFAULTS, ACCESS_DEFAULTS = LimitOptions(), LoadOptions(), AccessOptions()


def serve(
    model: Model,
    *,
    edit: Edits = None,
    default: Default = None,
    allow_plain: Annotated[
        bool,
        Parameter(
            negative="", help="Let clients ask for 'none', the model without any edit; needed if there is no --edit."
        ),
    ] = False,
    host: Annotated[str, Parameter(help="Address to listen at; 0.0.0.0 for every machine that reaches this one.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, Parameter(help="Port to listen at; 0 takes a free one.")] = 8000,
    access: AccessOptions = ACCESS_DEFAULTS,
    limit: LimitOptions = LIMIT_DEFAULTS,
    other_weights: OtherWeights = False,
    value_matrices: ValueMatrices = "",
    load: LoadOptions = LOAD_DEFAULTS,
) -> None:
    """Serve a model over OpenAI's protocol; each request chooses its edits by the model's name.

    Prints the address on stdout when the model is loaded. Clients ask for a NAME, or for several as NAME+OTHER; the
    header X-KVW-Edit overrides it. Nobody reaches the model without an edit unless --allow-plain is given; with it and
    without --edit this is an ordinary server of the model.
    """
    files = parse_named_files(edit or [], "--edit", "edits")
    check_something_served(files, allow_plain)
    limits = limit.limits()
    checkpoint = find_model(model, value_matrices, load.template_option)
    names = Names(checkpoint.name, list(files), default, allow_plain)

    from kvw.runs.first_checks import check_edit_files

    check_edit_files(files.values())
    access.check(names)
    quiet_libraries()

    from kvw.console import ConsoleReporter
    from kvw.runs.serve import serve as run

    run(
        checkpoint,
        files,
        names,
        ConsoleReporter(),
        lambda url: print(url, flush=True),
        host=host,
        port=port,
        other_weights=other_weights,
        limits=limits,
        keys=access.keys,
        audit=access.audit_log,
        secrets=access.secrets,
        device=load.device,
        quantise=load.quantise,
    )

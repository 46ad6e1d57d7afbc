"""``kvw serve``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from kvw.cli.options import LoadOptions, Model, ValueMatrices, find_model, parse_named_files

LOAD_DEFAULTS = LoadOptions()


def serve(
    model: Model,
    *,
    edit: Annotated[
        list[str], Parameter(negative="", help="NAME=FILE: an edit file and the name to ask for it. Repeatable.")
    ],
    default: Annotated[
        str | None,
        Parameter(
            help="What the model's own name stands for: an edit, several joined by '+', or 'none'. Default: the only "
            "edit; if there are several, nothing."
        ),
    ] = None,
    allow_plain: Annotated[
        bool, Parameter(negative="", help="Let clients ask for 'none', the model without any edit.")
    ] = False,
    host: Annotated[str, Parameter(help="Address to listen at; 0.0.0.0 for every machine that reaches this one.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, Parameter(help="Port to listen at; 0 takes a free one.")] = 8000,
    max_new_tokens: Annotated[int, Parameter(help="Longest answer in tokens that a client may ask for.")] = 1024,
    value_matrices: ValueMatrices = "",
    load: LoadOptions = LOAD_DEFAULTS,
) -> None:
    """Serve a model over OpenAI's protocol; each request chooses its edits by the model's name.

    Prints the address on stdout when the model is loaded. Clients ask for a NAME, or for several as NAME+OTHER; the
    header X-KVW-Edit overrides it. Nobody reaches the model without an edit unless --allow-plain is given.
    """
    files = parse_named_files(edit, "--edit", "edits")
    checkpoint = find_model(model, value_matrices)

    from kvw.cli.console import ConsoleReporter
    from kvw.runs.serve import serve as run

    run(
        checkpoint,
        files,
        ConsoleReporter(),
        lambda url: print(url, flush=True),
        host=host,
        port=port,
        default=default,
        allow_plain=allow_plain,
        longest_answer=max_new_tokens,
        device=load.device,
        quantise=load.quantise,
    )

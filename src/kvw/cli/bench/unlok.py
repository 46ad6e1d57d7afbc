"""``kvw bench unlok``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.options import MethodOptions, Model, find_model, quiet_libraries
from kvw.errors import UserError

DEFAULTS = MethodOptions()


Edit = Annotated[
    Path | None,
    Parameter(help="An edit that forgets them all. Default: kvw erase makes one for each fact, by --method."),
]
Rephrased = Annotated[
    bool, Parameter(negative="", help="Forget a fact's rephrasings and other pictures, too (input rephrasing).")
]


def unlok(
    model: Model,
    *,
    images: Annotated[Path, Parameter(help="Folder with the pictures: COCO's, and paraphrase_easy/ID.jpg and so on.")],
    out: Annotated[Path, Parameter(help="Directory that grows; the same command goes on where it stopped.")],
    source: Annotated[str | None, Parameter(help="Hub id, or a folder with a copy. Default: the authors'.")] = None,
    facts: Annotated[str, Parameter(help="Ids of the facts to forget, separated by commas. Default: all.")] = "",
    edit: Edit = None,
    options: MethodOptions = DEFAULTS,
    retain: Annotated[Path | None, Parameter(help="Retain set of kvw erase.")] = None,
    rephrased: Rephrased = False,
    gold: Annotated[str | None, Parameter(help="A model that never knew the facts.")] = None,
    budget: Annotated[int, Parameter(help="B: candidates or answers that an attack may have.")] = 20,
    relearn_epochs: Annotated[int, Parameter(help="Epochs of the attack that trains on other facts.")] = 10,
    device: Annotated[str | None, Parameter(help="Where the model runs.")] = None,
) -> None:
    """Make UnLOK-VQA's attacks and metrics, from its data to its table, one fact at a time.

    Every fact that the model answers right is attacked before and after it is forgotten.
    """
    settings = options.settings()
    made = options.method != DEFAULTS.method or settings != DEFAULTS.settings() or options.strength is not None
    names = tuple(dict.fromkeys(part.strip() for part in facts.split(",") if part.strip()))
    if edit is not None and (made or retain is not None or rephrased):
        raise UserError(
            "An edit that is there already is not made.", found="--edit beside options of a method", do="leave one out"
        )
    if not images.is_dir():
        raise UserError("The pictures are no folder.", found=str(images), do="name a folder in --images")
    known, gold_model = find_model(model), find_model(gold) if gold is not None else None

    from kvw.bench.unlok.request import UnlokRequest

    request = UnlokRequest(
        model=known,
        source=source,
        images=images,
        out=out,
        facts=names,
        edit=edit,
        method=options.method,
        settings=settings,
        choose=options.choose,
        retain=retain,
        rephrased=rephrased,
        gold=gold_model,
        budget=budget,
        epochs=relearn_epochs,
        device=device,
    )
    quiet_libraries()

    from kvw.bench.unlok.run import unlok as run
    from kvw.console import ConsoleReporter
    from kvw.files import write_text
    from kvw.report.unlok_tables import unlok_table

    table = unlok_table(run(request, ConsoleReporter()))
    write_text(out / "unlok.md", table)
    print(table)

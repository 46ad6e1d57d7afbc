"""Further questions to finished runs, and costs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.bench.options import AtMost, Device, Finished, finished_folders, print_all
from kvw.cli.options import Json, MethodOptions, Model, find_model, print_json
from kvw.errors import UserError
from kvw.quiet import quiet_libraries

DEFAULTS = MethodOptions()
Edit = Annotated[
    Path | None,
    Parameter(help="An edit that forgets them all. Default: kvw erase makes one for each fact, by --method."),
]
Rephrased = Annotated[
    bool, Parameter(negative="", help="Forget a fact's rephrasings and other pictures, too (input rephrasing).")
]


def attack(
    out: Finished,
    *,
    attacks: Annotated[
        str,
        Parameter(help="Separated by commas: relearn-retain, relearn-forget, bf16, fp16, int8, int4."),
    ] = "relearn-retain,relearn-forget,bf16,int8,int4",
    steps: Annotated[str, Parameter(help="Training steps of relearning, separated by commas; one attack each.")] = (
        "10,100"
    ),
    learning_rate: Annotated[float, Parameter(help="Of relearning.")] = 1e-5,
    at_most: AtMost = 0,
    device: Device = None,
    json: Json = False,
) -> None:
    """Attack vanilla, gold and every method with its chosen settings, and print what came back.

    The same command goes on where it stopped; attacks that were made before are not made again. Tables are of the
    attacks that are named.
    """
    from kvw.bench.attacks.plan import parse_attacks

    wanted = parse_attacks(_parts(attacks), [_number(part) for part in _parts(steps)])
    folders = finished_folders(out, at_most)
    quiet_libraries()

    from kvw.bench.attacks.run import attack as attack_run
    from kvw.console import ConsoleReporter
    from kvw.report.attack_tables import attack_table

    found = []
    for folder in folders:
        results = attack_run(
            folder, wanted, find_model, ConsoleReporter(), learning_rate=learning_rate, at_most=at_most, device=device
        )
        found.append(results)
        table = attack_table(results)
        table.write(folder, "attacks")
        if not json:
            print(table.text("markdown"))
    if json:
        print_all(found)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _number(text: str) -> int:
    if not text.isdigit():
        raise UserError("--steps are whole numbers, separated by commas.", found=text, do="for example --steps 10,100")
    return int(text)


def calibrate(
    out: Finished,
    *,
    tau: Annotated[
        str, Parameter(help="Shares of vanilla's extraction strength on retain questions to keep, separated by commas.")
    ] = "0.95,0.9,0.8",
    at_most: AtMost = 0,
    device: Device = None,
    json: Json = False,
) -> None:
    """Compare the methods at equal retention: each is mixed with vanilla until it keeps enough.

    The same command goes on where it stopped; what was measured before is not measured again.
    """
    taus = [_share(part.strip()) for part in tau.split(",") if part.strip()]
    if not taus:
        raise UserError("Name at least one share to keep.", do="for example --tau 0.95,0.9")
    folders = finished_folders(out, at_most)
    quiet_libraries()

    from kvw.bench.calibration.run import calibrate_run
    from kvw.console import ConsoleReporter
    from kvw.files import write_text
    from kvw.report.calibration_tables import calibration_table

    found = []
    for folder in folders:
        results = calibrate_run(folder, taus, find_model, ConsoleReporter(), at_most=at_most, device=device)
        found.append(results)
        write_text(folder / "calibration.json", results.model_dump_json(indent=2) + "\n")
        table = calibration_table(results)
        table.write(folder, "calibration")
        if not json:
            print(table.text("markdown"))
    if json:
        print_all(found)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise UserError(
            "--tau takes shares from 0 to 1, separated by commas.", found=text, do="for example --tau 0.95,0.9"
        )
    return share


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
    device: Device = None,
    json: Json = False,
) -> None:
    """Make UnLOK-VQA's attacks and metrics, from its data to its table, one fact at a time.

    Every fact that the model answers right is attacked before and after it is forgotten.
    """
    settings = options.settings()
    made = options.method != DEFAULTS.method or settings != DEFAULTS.settings() or options.strength is not None
    if edit is not None and (made or retain is not None or rephrased):
        raise UserError(
            "An edit that is there already is not made.", found="--edit beside options of a method", do="leave one out"
        )
    if not images.is_dir():
        raise UserError("The pictures are no folder.", found=str(images), do="name a folder in --images")

    from kvw.bench.unlok.request import UnlokRequest

    request = UnlokRequest(
        model=find_model(model),
        source=source,
        images=images,
        out=out,
        facts=tuple(dict.fromkeys(_parts(facts))),
        edit=edit,
        method=options.method,
        settings=settings,
        choose=options.choose,
        retain=retain,
        rephrased=rephrased,
        gold=find_model(gold) if gold is not None else None,
        budget=budget,
        epochs=relearn_epochs,
        device=device,
    )
    quiet_libraries()

    from kvw.bench.unlok.run import unlok as run
    from kvw.console import ConsoleReporter
    from kvw.files import write_text
    from kvw.report.unlok_tables import unlok_table

    found = run(request, ConsoleReporter())
    write_text(out / "unlok.md", unlok_table(found))
    _show(found.model_dump_json(indent=2), unlok_table(found), json=json)


def _show(machines: str, text: str, *, json: bool) -> None:
    print_json(machines) if json else print(text)


def cost(
    recipe: Annotated[Path, Parameter(help="Recipe (TOML), or the name of one that ships with kvw, as in cost/toy.")],
    *,
    out: Annotated[Path, Parameter(help="Directory for the numbers. The same recipe goes on where it stopped.")],
    device: Device = None,
    json: Json = False,
) -> None:
    """Measure time, memory and FLOPs of every method on a model of random weights, and print the ratios."""
    from kvw.bench.cost.recipe import check_config, read_cost_recipe
    from kvw.bench.shipped import find_recipe

    read = read_cost_recipe(find_recipe(recipe)).on(device)
    check_config(read.model.config)
    quiet_libraries()

    from kvw.bench.cost.run import compare_costs
    from kvw.console import ConsoleReporter
    from kvw.files import write_text
    from kvw.report.cost_tables import cost_tables

    costs = compare_costs(read, out, ConsoleReporter())
    tables = cost_tables(costs)
    write_text(out / "costs.md", tables)
    _show(costs.model_dump_json(indent=2), tables.rstrip("\n"), json=json)

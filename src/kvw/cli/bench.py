"""``kvw bench``: benchmark runs from recipes."""

from __future__ import annotations

import math
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from kvw.cli.launch import run_by_the_first
from kvw.cli.options import MethodOptions, Model, find_model, quiet_libraries
from kvw.errors import UserError
from kvw.settings import check_at_least

Recipe = Annotated[Path, Parameter(help="Recipe (TOML).")]
Finished = Annotated[Path, Parameter(help="Run directory of kvw bench run; the run must be finished.")]
AtMost = Annotated[int, Parameter(help="Items of each task; 0 for all that the run has asked.")]
DEFAULTS = MethodOptions()
Edit = Annotated[
    Path | None,
    Parameter(help="An edit that forgets them all. Default: kvw erase makes one for each fact, by --method."),
]
Rephrased = Annotated[
    bool, Parameter(negative="", help="Forget a fact's rephrasings and other pictures, too (input rephrasing).")
]


def ls() -> None:
    """List the benchmarks that recipes can name."""
    from kvw.bench.benchmarks import BENCHMARKS, get_benchmark

    table = Table()
    for title in ("name", "settings", "data", "licence"):
        table.add_column(title)
    for name in BENCHMARKS:
        benchmark = get_benchmark(name)
        table.add_row(name, ", ".join(benchmark.settings), benchmark.hub_id or "made on the spot", benchmark.licence)
    Console().print(table)


def validate(recipe: Recipe) -> None:
    """Check a recipe without loading models or data, and say what it would do."""
    from kvw.bench.recipe import read_recipe

    read = read_recipe(recipe)
    print(f"{recipe.name}: {read.title}")
    settings = ", ".join(filter(None, read.benchmark.setting)) or "its first setting"
    print(f"benchmark {read.benchmark.name}: {settings}")
    print("models: " + ", ".join(f"{role} {name}" for role, name in read.models_by_role.items()))
    if read.plant is not None:
        training = read.plant.training
        how = f"LoRA of rank {training.lora.rank}" if training.lora else "all weights"
        print(
            f"vanilla and gold are planted: {how}, epochs {training.epochs}, learning rate {training.learning_rate:g}"
        )
    settings_of: dict[str, int] = {}
    for part in read.method:
        settings_of[part.called] = settings_of.get(part.called, 0) + len(part.settings)
    for name, count in settings_of.items():
        print(f"method {name}: {count} settings to choose from")
    asked = 1 + (read.models_by_role.keys() != {"vanilla"}) + sum(len(part.settings) for part in read.method)
    print(f"{asked} models to ask in all" + (" for each setting" if len(read.benchmark.setting) > 1 else ""))


def run(
    recipe: Recipe,
    *,
    out: Annotated[Path, Parameter(help="Run directory. The same recipe goes on where it stopped.")],
    seed: Annotated[int | None, Parameter(help="Instead of the seed in the recipe's benchmark part.")] = None,
) -> None:
    """Do everything a recipe asks for, and print the tables."""
    from kvw.bench.first_checks import check_same_recipe, find_models, run_places
    from kvw.bench.recipe import read_recipe

    read = read_recipe(recipe)
    if seed is not None:
        read = read.with_seed(seed)
    for setting, folder in run_places(read, out).items():
        check_same_recipe(folder, read.runs[setting])
        find_models(read.runs[setting], find_model)
    quiet_libraries()
    _quiet_datasets()

    from kvw.bench.results import read_results
    from kvw.bench.run import run as run_recipe
    from kvw.console import ConsoleReporter
    from kvw.files import write_text
    from kvw.report.bench_tables import bench_report, bench_table

    for folder in run_recipe(read, find_model, out, ConsoleReporter()):
        results = read_results(folder)
        table = bench_table(results)
        table.write(folder, "table")
        write_text(folder / "report.html", bench_report(results))
        print(table.text("markdown"))


def _quiet_datasets() -> None:
    """Keep the bars of the package out of the terminal; where it is not installed, whatever needs it says so."""
    with suppress(ImportError):
        import_module("datasets").disable_progress_bars()


def table(
    out: Annotated[Path, Parameter(help="Run directory of kvw bench run.")],
    *,
    format: Annotated[Literal["markdown", "latex", "csv"], Parameter(help="Of the table.")] = "markdown",
) -> None:
    """Print the table of a finished run, from its records; of a run with several settings one table for each."""
    from kvw.bench.folders import run_folders
    from kvw.bench.results import read_results
    from kvw.report.bench_tables import bench_table

    print("\n".join(bench_table(read_results(folder)).text(format) for folder in run_folders(out)), end="")


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
) -> None:
    """Attack vanilla, gold and every method with its chosen settings, and print what came back.

    The same command goes on where it stopped; attacks that were made before are not made again. Tables are of the
    attacks that are named.
    """
    from kvw.bench.attacks.plan import parse_attacks

    wanted = parse_attacks(_parts(attacks), [_number(part) for part in _parts(steps)])
    folders = _finished(out, at_most)
    quiet_libraries()

    from kvw.bench.attacks.run import attack as attack_run
    from kvw.console import ConsoleReporter
    from kvw.report.attack_tables import attack_table

    for folder in folders:
        results = attack_run(
            folder, wanted, find_model, ConsoleReporter(), learning_rate=learning_rate, at_most=at_most
        )
        table = attack_table(results)
        table.write(folder, "attacks")
        print(table.text("markdown"))


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
) -> None:
    """Compare the methods at equal retention: each is mixed with vanilla until it keeps enough.

    The same command goes on where it stopped; what was measured before is not measured again.
    """
    taus = [_share(part.strip()) for part in tau.split(",") if part.strip()]
    if not taus:
        raise UserError("Name at least one share to keep.", do="for example --tau 0.95,0.9")
    folders = _finished(out, at_most)
    quiet_libraries()

    from kvw.bench.calibration.run import calibrate_run
    from kvw.console import ConsoleReporter
    from kvw.files import write_text
    from kvw.report.calibration_tables import calibration_table

    for folder in folders:
        results = calibrate_run(folder, taus, find_model, ConsoleReporter(), at_most=at_most)
        write_text(folder / "calibration.json", results.model_dump_json(indent=2) + "\n")
        table = calibration_table(results)
        table.write(folder, "calibration")
        print(table.text("markdown"))


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


def cost(
    recipe: Annotated[Path, Parameter(help="Recipe (TOML), see recipes/cost/.")],
    *,
    out: Annotated[Path, Parameter(help="Directory for the numbers. The same recipe goes on where it stopped.")],
) -> None:
    """Measure time, memory and FLOPs of every method on a model of random weights, and print the ratios."""
    from kvw.bench.cost.recipe import check_config, read_cost_recipe

    read = read_cost_recipe(recipe)
    check_config(read.model.config)
    quiet_libraries()

    from kvw.bench.cost.run import compare_costs
    from kvw.console import ConsoleReporter
    from kvw.files import write_text
    from kvw.report.cost_tables import cost_tables

    tables = cost_tables(compare_costs(read, out, ConsoleReporter()))
    write_text(out / "costs.md", tables)
    print(tables, end="")


def _finished(out: Path, at_most: int) -> list[Path]:
    """The folders of a run, one for each setting of its benchmark.

    Raises:
        UserError: The run is not finished, or ``at_most`` is negative.
    """
    check_at_least("--at-most", at_most, 0, do="0 asks all")

    from kvw.bench.folders import run_folders
    from kvw.bench.results import read_results

    folders = run_folders(out)
    for folder in folders:
        read_results(folder)
    return folders


bench = App(name="bench", help="Run benchmarks from recipes: unlearn, choose settings on one half, report the other.")
for verb in (ls, validate, run, table, attack, calibrate, unlok, cost):
    bench.command(run_by_the_first(verb))

"""``kvw sweep``: one solve, cut and scored in many ways."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cyclopts import App, Parameter

from kvw.cli.erase import Forget, Retain
from kvw.cli.launch import run_by_the_first
from kvw.cli.options import (
    DATA_DEFAULTS,
    LOAD_DEFAULTS,
    METHOD_DEFAULTS,
    DataOptions,
    Force,
    Json,
    LoadOptions,
    MethodOptions,
    Model,
    ValueMatrices,
    check_output,
    find_model,
    parse_sources,
    print_result,
)
from kvw.errors import UserError
from kvw.quiet import quiet_libraries
from kvw.retain import SOURCES
from kvw.settings import check_at_least


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """What is forgotten, what must stay, and which layers are compared."""

    forget: Forget = None
    retain: Retain = None
    out: Path
    """Folder to write: sweep.json and sweep.png."""
    windows: str = "all,halves,thirds"
    """Ranges of layers to compare, with commas between them: all, halves, thirds, quarters, each (single layers),
    FIRST:LAST, or a number of layers for a window that slides by half its width."""
    points: int = 8
    """The most strengths that are tried in each range."""
    keep: float = 0.98
    """The share of what must stay at which ranges are compared."""
    retain_sources: str = ",".join(SOURCES)
    """What must stay beside --retain, as in kvw erase, or none."""
    read: DataOptions = DATA_DEFAULTS
    options: MethodOptions = METHOD_DEFAULTS
    load: LoadOptions = LOAD_DEFAULTS
    value_matrices: ValueMatrices = ""
    force: Force = False
    json: Json = False


def layers(model: Model, *, asked: SweepOptions) -> None:
    """Find out which layers forget at the least price: solve once, cut the edit to ranges of layers, and score each at
    several strengths as kvw erase does, teacher-forced. Writes no edit."""
    from kvw.selection.windows import parse_windows

    wanted = parse_windows(asked.windows)
    check_at_least("--points", asked.points, 2)
    if isinstance(asked.options.strength, float):
        raise UserError(
            "The sweep tries many strengths by itself.", found="--strength", do="leave it out, or give --points"
        )
    settings, checkpoint = asked.options.settings(), find_model(model, asked.value_matrices, asked.load.template_option)

    from kvw.runs.request import EraseRequest, read_data

    request = EraseRequest(
        model=checkpoint,
        forget=asked.forget or [],
        retain=asked.retain,
        out=asked.out,
        method=asked.options.method,
        settings=settings,
        keep=asked.keep,
        choose=True,
        sources=parse_sources(asked.retain_sources),
        save_model=False,
        evaluate_at_most=1,
        force=asked.force,
        device=asked.load.device,
        quantise=asked.load.quantise,
        reading=asked.read.reading(),
    )
    check_output(asked.out, force=asked.force, keep=request.inputs())
    data = read_data(request)
    quiet_libraries()

    from kvw.console import ConsoleReporter
    from kvw.report.layer_sweep import plot_layers, print_layers
    from kvw.runs.sweep_layers import sweep_layers

    record = sweep_layers(request, wanted, ConsoleReporter(), draw=plot_layers, points=asked.points, data=data)
    print_result(record, print_layers, asked.out, json=asked.json)


sweep = App(name="sweep", help="Compare parts of what one solve finds.")
sweep.command(run_by_the_first(layers))

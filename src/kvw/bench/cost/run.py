"""``kvw bench cost``: every method of a recipe on the same model and data, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedModel

from kvw.bench.cost.meter import Meter, counting_matrix_flops, counting_positions, energy, peak_memory
from kvw.bench.cost.models import build, find_config, random_model
from kvw.bench.cost.recipe import FORWARD, CostRecipe, DataPart
from kvw.bench.cost.record import CostRow, Costs, StageCost
from kvw.bench.cost.synthetic import MadeUpProcessor, made_up
from kvw.bench.cost.work import Work
from kvw.data import prepare
from kvw.edits.edit import package_versions
from kvw.errors import UserError
from kvw.files import write_text
from kvw.measuring.batch_sizing import out_of_memory
from kvw.measuring.fingerprint import digest
from kvw.methods.registry import get_method
from kvw.models.finding import find_layers
from kvw.models.placement import find_device
from kvw.models.saving import parameter_bytes
from kvw.output import growing_directory
from kvw.progress import Reporter
from kvw.training.adapters import load_peft
from kvw.training.settings import ADAPTERS

COSTS, ROWS = "costs.json", "rows"


def compare_costs(recipe: CostRecipe, out: Path, reporter: Reporter) -> Costs:
    """Measure every row of a recipe; rows that are there already are not measured again.

    A method that fails, for want of memory above all, has a row that says so.

    Args:
        recipe: What to do.
        out: Directory for the rows and the result.
        reporter: Told of the rows.

    Raises:
        UserError: The model is unknown or none that batches can be made up for, or ``out`` holds something else.
    """
    device, facts = find_device(recipe.model.device or None), _facts(recipe)
    with growing_directory(out, "bench costs"):
        return _compare(recipe, out, reporter, device, facts)


def _compare(
    recipe: CostRecipe, out: Path, reporter: Reporter, device: torch.device, facts: Mapping[str, Any]
) -> Costs:
    rows: list[CostRow] = []
    base = recipe.model_dump(mode="json", exclude={"method", "title"})
    for label, method, values in recipe.rows:
        version = "" if method == FORWARD else get_method(method).version
        name = digest(base, label, method, values, package_versions(), str(device), *filter(None, [version]))[:16]
        path = out / ROWS / f"{name}.json"
        if not path.is_file():
            with reporter.stage(f"measuring {label}"):
                row = _alone(measure_row, recipe, label, method, values)
            if row.error:
                reporter.warn(f"{label}: {row.error}")
            write_text(path, row.model_dump_json(indent=2) + "\n")
        rows.append(CostRow.model_validate_json(path.read_bytes()))
    costs = Costs(
        title=recipe.title,
        recipe=recipe.model_dump(mode="json"),
        device=_described(device),
        versions=package_versions(),
        rows=rows,
        **facts,
    )
    write_text(out / COSTS, costs.model_dump_json(indent=2) + "\n")
    return costs


def measure_row(recipe: CostRecipe, label: str, method: str, values: dict[str, Any]) -> CostRow:
    """Measure one method in this process: memory and FLOPs in a first run, time in ``repeats`` further ones.

    Each timed run comes right after a plain forward pass over the same examples, so that ratios between methods do not
    depend on what else the machine does in the meantime.

    Args:
        recipe: Model, data and repeats.
        label: Label of the row.
        method: A method of the bench, or the plain forward pass.
        values: Its settings.
    """
    model = random_model(recipe.model)
    work, device = Work.made_up(model, recipe.data), model.device
    _load_libraries(model, values)
    counted, joules = Meter(device, counting=True), energy(device)
    layer = model.get_submodule(find_layers(model)).get_submodule("0")
    with (
        counting_positions(layer) as positions,
        counting_matrix_flops(model) as by_formula,
        peak_memory(device) as grown,
    ):
        work.do(method, values, counted)
    timed: list[Meter] = []
    forwards: list[Meter] = []
    spent: list[float] = []
    for _ in range(recipe.repeats):
        before, after = Meter(device), Meter(device)
        work.forward(before)
        start = joules() if joules else 0.0
        work.do(method, values, after)
        spent.append(joules() - start if joules else 0.0)
        forwards.append(before)
        timed.append(after)
    return CostRow(
        label=label,
        method=method,
        settings=values,
        stages=[
            StageCost(
                name=name,
                seconds=median(meter.seconds[name] for meter in timed),
                cpu_seconds=median(meter.cpu_seconds[name] for meter in timed),
                flops=flops,
            )
            for name, flops in counted.flops.items()
        ],
        forward_seconds=median(meter.seconds["forward"] for meter in forwards),
        forward_cpu_seconds=median(meter.cpu_seconds["forward"] for meter in forwards),
        tokens=positions[0],
        matrix_flops=by_formula[0],
        weights_bytes=parameter_bytes(model),
        rest_bytes=grown(),
        joules=median(spent) if joules else None,
    )


def _load_libraries(model: PreTrainedModel, values: dict[str, Any]) -> None:
    """Do something small, so that what loading libraries takes is not counted for the method."""
    Work.made_up(model, DataPart(forget=1, retain=1, question=2, answer=1)).forward(Meter(model.device))
    if any(name.partition(".")[0] == ADAPTERS for name in values):
        load_peft()


def _alone(do: Callable[..., CostRow], recipe: CostRecipe, label: str, method: str, values: dict[str, Any]) -> CostRow:
    """Do it in a fresh process, so that neither memory nor state of one method is there for the next."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_end_with_parent) as pool:
        try:
            return pool.submit(do, recipe, label, method, values).result()
        except BrokenProcessPool:
            error = "the process was killed, most likely for want of memory"
        except (MemoryError, RuntimeError) as failure:
            if not out_of_memory(failure):
                raise
            error = "out of memory"
        except UserError as mistake:
            error = mistake.what + (f" ({mistake.found})" if mistake.found else "")
    return CostRow(
        label=label,
        method=method,
        settings=values,
        stages=[],
        forward_seconds=0,
        forward_cpu_seconds=0,
        tokens=0,
        matrix_flops=0,
        weights_bytes=0,
        rest_bytes=0,
        joules=None,
        error=error,
    )


def _end_with_parent() -> None:
    """Do not go on, and hold on to memory, when the process that waits for the result was killed."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _facts(recipe: CostRecipe) -> dict[str, Any]:
    config = find_config(recipe.model.config)
    processor = MadeUpProcessor(config, recipe.data.image)
    with torch.device("meta"):  # unlike accelerate's empty weights it counts tied ones once
        model = build(config)
    (item,) = prepare(made_up(recipe.data, "forget", 1, pictures=processor.sees), processor)
    return {
        "model": recipe.model.config,
        "parameters": int(model.num_parameters()),
        "tokens_per_example": item.length,
        "image_tokens": processor.image_tokens,
    }


def _described(device: torch.device) -> str:
    if device.type == "cpu":
        return f"cpu, {torch.get_num_threads()} threads"
    module: Any = torch.get_device_module(device)
    return f"{device}, {module.get_device_name(device)}" if hasattr(module, "get_device_name") else str(device)

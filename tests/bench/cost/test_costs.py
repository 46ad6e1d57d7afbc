"""What is counted, and what the tables make of it."""

from __future__ import annotations

import multiprocessing
from concurrent.futures.process import BrokenProcessPool

import pytest
import torch
from tests.sampling import one_in
from tests.several_processes import server

import kvw
from kvw.bench.cost import run as cost_run
from kvw.bench.cost.meter import Meter, counting_matrix_flops, counting_positions, energy, peak_memory
from kvw.bench.cost.models import random_model
from kvw.bench.cost.recipe import CostMethod, CostRecipe, DataPart, ModelPart
from kvw.bench.cost.record import CostRow, Costs, StageCost
from kvw.bench.cost.run import compare_costs, measure_row
from kvw.bench.cost.work import Work
from kvw.cli import main
from kvw.data import answer_batch
from kvw.methods.kvw import FORGET_PASS
from kvw.methods.method import RETAIN_PASS
from kvw.methods.registry import METHODS
from kvw.progress import SILENT
from kvw.report.cost_tables import cost_tables

pytestmark = pytest.mark.thorough

CPU = torch.device("cpu")
DATA = DataPart(forget=2, retain=4, batch_size=2, question=6, answer=3)
TOY = CostRecipe(
    title="toy",
    model=ModelPart(config="toy:vanilla", device="cpu"),
    data=DATA,
    method=(CostMethod(name="kvw", label="KVW", schedule="one-shot"),),
)
POSITIONS = 36 + 6 + 3
ATTENTION = 6 * 4 * POSITIONS**2 * 160 + 3 * 4 * 37**2 * 128
"""Of one example of :data:`DATA`: two products of 2 T T d in each of the toy's layers, text and vision."""


def done(method, values=None, data=DATA):
    """FLOPs, 2 P D and positions of a method on the toy's shape."""
    model = random_model(TOY.model)
    meter = Meter(CPU, counting=True)
    with counting_matrix_flops(model) as matrix, counting_positions(model.model.language_model.layers[0]) as positions:
        Work.made_up(model, data).do(method, values or {}, meter)
    return meter.flops, matrix[0], positions[0]


def test_the_counter_finds_2pd_and_attention_in_a_forward_pass():
    flops, matrix, positions = done("forward")
    assert flops["forward"] == matrix + 6 * ATTENTION
    assert positions == 6 * POSITIONS


def test_2pd_is_twice_the_weights_times_the_positions():
    model = random_model(TOY.model)
    with counting_matrix_flops(model) as total:
        Work.made_up(model, DATA.model_copy(update={"forget": 1, "retain": 1})).forward(Meter(CPU))
    text = sum(p.numel() for p in model.model.language_model.layers.parameters() if p.ndim == 2)
    tower = sum(p.numel() for p in model.model.vision_tower.encoder.layers.parameters() if p.ndim == 2)
    patches = model.model.vision_tower.embeddings.patch_embedding.weight.numel()
    projector = sum(p.numel() for p in model.model.multi_modal_projector.parameters() if p.ndim == 2)
    head = model.lm_head.weight.numel()
    by_hand = text * POSITIONS + tower * 37 + (patches + projector) * 36 + head * DATA.answer
    assert total[0] == 2 * 2 * by_hand


def test_the_counter_finds_6pd_in_training_everything():
    values = {"parts": ["language", "vision", "projector"], "learning_rate": 1e-6}
    flops, matrix, positions = done("ga", values)
    model = random_model(TOY.model)
    patches = 2 * model.model.vision_tower.embeddings.patch_embedding.weight.numel() * 36
    # Forward, gradient by inputs, gradient by weights; the picture itself needs no gradient. Attention goes back with
    # five products for two.
    assert flops["training"] == 3 * matrix - DATA.forget * patches + DATA.forget * ATTENTION * 7 // 2
    assert positions == DATA.forget * POSITIONS


def test_adapters_save_the_gradients_by_weights():
    full, matrix, _ = done("ga")
    adapted, same, _ = done("ga", {"lora.rank": 2, "lora.dropout": 0.0})
    assert same == matrix
    assert 1.5 < adapted["training"] / matrix < full["training"] / matrix < 3


def test_kvw_has_no_backward_and_stops_before_the_logits():
    flops, matrix, _ = done("kvw", {"schedule": "one-shot"})
    whole, _, _ = done("forward")
    assert set(flops) == {RETAIN_PASS, FORGET_PASS}
    assert 0.5 < flops[RETAIN_PASS] / (whole["forward"] * 4 / 6) < 1
    assert flops[FORGET_PASS] == flops[RETAIN_PASS] // 2
    assert matrix < sum(flops.values()) < whole["forward"]
    progressive, _, _ = done("kvw", {"layers": "0:5"})
    assert progressive[RETAIN_PASS] == flops[RETAIN_PASS]
    without, _, _ = done("kvw", {"schedule": "one-shot", "retain_contrast": False})
    assert without[RETAIN_PASS] == 0


QUICKER = {"auvic": {"epochs": 1}}
"""Settings of a method that takes long with its own."""


@pytest.mark.thorough
@pytest.mark.parametrize("method", one_in(8, METHODS))
def test_every_method_can_be_measured(method):
    flops, matrix, _ = done(method, QUICKER.get(method), DATA.model_copy(update={"forget": 3, "retain": 6}))
    assert sum(flops.values()) > 0
    assert matrix > 0


def test_rows_per_forward_are_those_of_the_recipe(monkeypatch):
    sizes = []

    def seen(prepared, processor):
        sizes.append(len(prepared))
        return answer_batch(prepared, processor)

    monkeypatch.setattr("kvw.training.trainee.answer_batch", seen)
    done("ga")
    assert set(sizes) == {2}
    sizes.clear()
    done("ga", {"batch_size": 1})
    assert set(sizes) == {1}


def test_memory_of_a_block_is_what_it_adds():
    size = 256 << 20
    kept = torch.ones(size, dtype=torch.uint8)
    with peak_memory(CPU) as grown:
        del kept
        torch.ones(size, dtype=torch.uint8)
    with peak_memory(CPU) as more:
        torch.ones(size, dtype=torch.uint8)
        torch.ones(size, dtype=torch.uint8)
    with peak_memory(CPU) as nothing:
        pass
    assert nothing() < size / 16
    assert grown() < size / 16
    assert size * 0.95 < more() < size * 1.1


def test_stages_add_up_and_flops_are_counted_if_asked():
    one, counting = Meter(CPU), Meter(CPU, counting=True)
    matrix = torch.ones(3, 4)
    for meter in (one, counting):
        for _ in range(2):
            with meter.stage("a"):
                matrix @ matrix.T
        with meter.stage("b"):
            pass
    assert one.flops == {"a": 0, "b": 0}
    assert counting.flops == {"a": 2 * (2 * 3 * 4 * 3), "b": 0}
    assert set(one.seconds) == set(one.cpu_seconds) == {"a", "b"}


def test_a_cpu_has_no_energy_meter():
    assert energy(CPU) is None


def test_a_row_holds_what_was_measured():
    row = measure_row(TOY, "GA", "ga", {"learning_rate": 1e-6})
    assert (row.label, row.method, row.settings) == ("GA", "ga", {"learning_rate": 1e-6})
    assert [stage.name for stage in row.stages] == ["references and masks", "training"]
    assert row.tokens == DATA.forget * POSITIONS
    assert row.weights_bytes > 4 * 2_800_000
    assert row.rest_bytes > row.weights_bytes  # gradients and two moments
    assert row.joules is None
    assert min(row.seconds, row.forward_seconds, row.forward_cpu_seconds) > 0


@pytest.fixture
def here(monkeypatch):
    """Rows are measured in this process; gives the labels of those that were."""
    measured = []

    def alone(do, recipe, label, method, values):
        measured.append(label)
        return row_of(label, method)

    monkeypatch.setattr(cost_run, "_alone", alone)
    return measured


def row_of(label, method, *, seconds=2.0, flops=600, rest=50, error=""):
    first = RETAIN_PASS if method == "kvw" else "first"
    stages = [StageCost(name=first, seconds=seconds / 2, cpu_seconds=seconds / 4, flops=flops // 3)]
    stages.append(StageCost(name="rest", seconds=seconds / 2, cpu_seconds=seconds / 4, flops=flops - flops // 3))
    return CostRow(
        label=label,
        method=method,
        settings={},
        stages=[] if error else stages,
        forward_seconds=2.0,
        forward_cpu_seconds=1.0,
        tokens=1000,
        matrix_flops=300,
        weights_bytes=100_000_000,
        rest_bytes=rest * 1_000_000,
        joules=None,
        error=error,
    )


def test_rows_that_are_there_are_not_measured_again(tmp_path, here):
    first = compare_costs(TOY, tmp_path, SILENT)
    assert here == ["plain forward", "KVW"]
    assert (first.tokens_per_example, first.image_tokens) == (POSITIONS, 36)
    assert compare_costs(TOY, tmp_path, SILENT) == first
    assert len(here) == 2
    compare_costs(TOY.model_copy(update={"data": DATA.model_copy(update={"retain": 6})}), tmp_path, SILENT)
    assert len(here) == 4
    assert Costs.model_validate_json((tmp_path / "costs.json").read_bytes()).rows[1].label == "KVW"


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (torch.OutOfMemoryError("no room"), "out of memory"),
        (RuntimeError("MPS backend out of memory"), "out of memory"),
        (BrokenProcessPool("gone"), "the process was killed"),
        (kvw.UserError("The loss is not finite.", found="nan"), "The loss is not finite. (nan)"),
    ],
)
def test_a_method_that_fails_has_a_row_that_says_so(tmp_path, monkeypatch, raised, words):
    class Pool:
        def __init__(self, *_, **__): ...
        def __enter__(self):
            return self

        def __exit__(self, *_): ...
        def submit(self, *_):
            raise raised

    monkeypatch.setattr(cost_run, "ProcessPoolExecutor", Pool)
    costs = compare_costs(TOY, tmp_path, SILENT)
    assert [words in row.error for row in costs.rows] == [True, True]
    assert f"| KVW | {costs.rows[1].error} | - |" in cost_tables(costs)


def test_the_tables_divide_by_the_forward_pass_and_by_kvw():
    rows = [
        row_of("plain forward", "forward", seconds=2.0, flops=300, rest=10),
        row_of("KVW", "kvw", seconds=4.0, flops=600, rest=20),
        row_of("GA", "ga", seconds=8.0, flops=1200, rest=200),
        row_of("NPO", "npo", error="out of memory"),
    ]
    costs = Costs(
        title="Costs",
        recipe=TOY.model_dump(mode="json"),
        device="cpu, 1 threads",
        model="toy",
        parameters=5,
        tokens_per_example=45,
        image_tokens=36,
        versions={"torch": "2", "transformers": "5"},
        rows=rows,
    )
    text = cost_tables(costs)
    by_forward, by_kvw = text.split("## plain forward = 1")[1].split("## KVW = 1")
    assert "| GA | first 4, rest 4 | 8 | 125 | 100 | 200 | 0.0 | 4.00 |" in text
    assert "| NPO | out of memory | - | - | - | - | - | - |" in text
    assert "| GA | 4.00 | 4.00 | 4.00 | 2.73 | 20.00 |" in by_forward
    assert "| KVW | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 |" in by_kvw
    assert "| KVW, a further request | 0.50 | 0.50 | 0.67 | 1.00 | 1.00 |" in by_kvw
    assert "| GA | 2.00 | 2.00 | 2.00 | 2.50 | 10.00 |" in by_kvw
    assert "NPO" not in by_kvw
    assert "joules" not in text
    on_device = costs.model_copy(
        update={"device": "cuda:0", "rows": [row.model_copy(update={"joules": 7.0}) for row in rows[:2]]}
    )
    assert "CPU time" not in cost_tables(on_device)
    assert "| 7 |" in cost_tables(on_device)


@pytest.mark.slow
@pytest.mark.thorough
def test_the_command_measures_each_method_in_a_process_of_its_own(tmp_path, monkeypatch, capsys):
    kinds = []

    def context(kind):
        kinds.append(kind)
        return server  # whose processes are fresh ones, too, but quick to start

    monkeypatch.setattr(multiprocessing, "get_context", context)
    (tmp_path / "recipe.toml").write_text(
        'title = "small"\n[model]\nconfig = "toy:vanilla"\ndevice = "cpu"\n[data]\nforget = 2\nretain = 4\n'
        '[[method]]\nname = "kvw"\nlabel = "KVW"\nschedule = "one-shot"\n'
        '[[method]]\nname = "ga"\nlabel = "GA"\nlearning_rate = 1e30\n'
    )
    with pytest.raises(SystemExit) as stop:
        main(["bench", "cost", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "out")])
    assert not stop.value.code
    assert kinds == ["spawn"] * 3
    shown = capsys.readouterr().out
    assert "## KVW = 1" in shown
    assert shown == (tmp_path / "out" / "costs.md").read_text()
    assert len(list((tmp_path / "out" / "rows").iterdir())) == 3

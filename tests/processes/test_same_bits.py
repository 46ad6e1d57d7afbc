"""Two processes come to the bits of one."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tests import text_models, tiny_models
from tests.batches import text_batch
from tests.several_processes import run_several

import kvw
from kvw.cli.launch import _join
from kvw.data import Example, answer_batch, prepare
from kvw.data.text import TextProcessor
from kvw.errors import UserError
from kvw.evaluation.evaluation import evaluate
from kvw.evaluation.probability import token_scores
from kvw.measuring.examples import measure_examples
from kvw.processes import Processes, current, together

pytestmark = pytest.mark.thorough

FINGERPRINT = {"model": "a", "data": "b"}
SEVERAL_BATCHES = 90
"""A budget of tokens that makes more batches than processes, and an odd number of them."""


def people(count=9):
    found = []
    for index in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", (30 + 3 * index, 40), (20 * index, 90, 200 - 20 * index)).save(buffer, "PNG")
        images = (buffer.getvalue(),) if index % 3 else ()
        found.append(Example(f"Who is it{'?' * index}", f"Person {index}" + " again" * (index % 4), images, str(index)))
    return found


def scores_of_text():
    """Of questions whose beginning is run once, in batches of one or two rows."""
    model, tokenizer = text_models.build("llama")
    questions = [f"Which of all the people that you have heard of is {'very ' * (index % 4)}old?" for index in range(9)]
    examples = [Example(question, f"Person {index}") for index, question in enumerate(questions)]
    rows = []
    model.register_forward_pre_hook(lambda _, inputs, named: rows.append(len(named["input_ids"])), with_kwargs=True)
    processor = TextProcessor(tokenizer)
    return token_scores(model, processor, prepare(examples, processor), budget=40), rows


def measured():
    """What every process finds out about the tiny LLaVA, in plain values."""
    model, processor = tiny_models.build("llava")
    examples = people()
    prepared = prepare(examples, processor)
    batches = [answer_batch([item], processor) for item in prepared]
    calls, steps = [], []

    def progress(done, total):
        calls.append((done, total))

    def weaken(on_step=None, **settings):
        found = kvw.KvwSettings(**{"gamma": 0.7, "layers": (0, 2), "seed": None} | settings)
        return kvw.weaken(model, batches[:5], retain, found, on_step=on_step).tensors()

    retain = measure_examples(model, processor, prepared, budget=SEVERAL_BATCHES, progress=progress).statistics
    own = kvw.measure(model, iter(batches), layers=(1, 2))
    evaluation = evaluate(
        model, processor, {"one": examples[:4], "two": examples[2:]}, max_new_tokens=5, budget=SEVERAL_BATCHES
    )
    return {
        "retain": (dict(retain.sums), retain.counts),
        "own batches": (dict(own.sums), own.counts),
        "one-shot": weaken(schedule="one-shot"),
        "progressive": weaken(seed=3, epochs=2, update_every=2, on_step=lambda step: steps.append(step.number)),
        "parity": weaken(parity=True),
        "evaluation": evaluation.model_dump(),
        "text": scores_of_text(),
        "calls": len(calls) > 3 and calls,
        "steps": steps,
    }


def measured_together():
    _join()
    with together() as processes:
        assert processes.size == 2
        assert current() is processes
        found = measured()
    assert current().size == 1
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    one = measured()
    several = run_several(measured_together, folder=tmp_path_factory.mktemp("several"))
    assert [ended.code for ended in several] == [0, 0], several
    return SimpleNamespace(one=one, several=[ended.result for ended in several])


@pytest.mark.parametrize("name", ["retain", "own batches"])
def test_sums_and_counts(found, name):
    sums, counts = found.one[name]
    for several in found.several:
        assert several[name][1] == counts
        assert several[name][0].keys() == sums.keys()
        for key, value in sums.items():
            assert value.dtype == torch.float64
            assert torch.equal(several[name][0][key], value)


@pytest.mark.parametrize("name", ["one-shot", "progressive", "parity"])
def test_edits(found, name):
    assert any((value != 0).any() for value in found.one[name].values())
    for several in found.several:
        assert several[name].keys() == found.one[name].keys()
        for key, value in found.one[name].items():
            assert torch.equal(several[name][key], value)


def test_records_of_an_evaluation(found):
    assert [several["evaluation"] for several in found.several] == [found.one["evaluation"]] * 2


def test_scores_of_questions_that_begin_alike(found):
    scores, rows = found.one["text"]
    assert rows[0] == 1
    assert sum(rows[1:]) == 9
    assert len(rows) > 3
    assert [several["text"][0] for several in found.several] == [scores] * 2
    first, second = (several["text"][1] for several in found.several)
    assert (first[0], second[0]) == (1, 1)
    assert sorted([*first[1:], *second[1:]]) == sorted(rows[1:])


def test_progress_and_steps_are_told_in_the_first_process_only(found):
    assert [several["calls"] for several in found.several] == [found.one["calls"], False]
    assert [several["steps"] for several in found.several] == [found.one["steps"], []]


def scattered():
    _join()
    own = []
    with together() as processes:
        scattered = list(processes.scatter(iter(range(7)), lambda item: own.append(item) or torch.tensor(item / 10)))
        told = processes.broadcast(lambda: ("told", processes.rank))
    return scattered, own, told


def test_items_are_scattered_in_turn_and_results_come_in_the_order_of_the_items(tmp_path):
    first, second, third = (ended.result for ended in run_several(scattered, folder=tmp_path, size=3))
    assert [item for item, _ in first[0]] == list(range(7))
    assert [result.item() for _, result in first[0]] == [torch.tensor(item / 10).item() for item in range(7)]
    assert (second[0], third[0]) == ([], [])
    assert (first[1], second[1], third[1]) == ([0, 3, 6], [1, 4], [2, 5])
    assert {first[2], second[2], third[2]} == {("told", 0)}


def interrupted_measurement(stop_after):
    """Measure until the first process has heard of so many batches."""
    model, processor = tiny_models.build("llava")
    calls = []

    def interrupt(done, total):
        calls.append(done)
        if len(calls) == stop_after:
            raise KeyboardInterrupt

    try:
        with together():
            measure(model, processor, progress=interrupt)
    except KeyboardInterrupt:
        return calls
    return None


def measure(model, processor, **more):
    prepared = prepare(people(), processor)
    return measure_examples(model, processor, prepared, budget=SEVERAL_BATCHES, fingerprint=FINGERPRINT, **more)


def interrupted_together(stop_after):
    _join()
    return interrupted_measurement(stop_after)


def resumed_together():
    _join()
    with together():
        found = measure(*tiny_models.build("llava"))
    return found.resumed_at, dict(found.statistics.sums), found.statistics.counts


@pytest.mark.parametrize("sizes", [(1, 2), (3, 1)])
def test_an_interrupted_pass_goes_on_with_another_number_of_processes(found, sizes, tmp_path):
    before, after = sizes
    if before == 1:
        calls = [interrupted_measurement(3)]
    else:
        stopped = run_several(interrupted_together, 3, folder=tmp_path / "before", size=before)
        assert [ended.code for ended in stopped] == [0] * before, stopped
        calls = [ended.result for ended in stopped]
    assert calls[0]
    assert calls[1:] == [[]] * (before - 1)
    if after == 1:
        resumed = [resumed_alone()]
    else:
        went_on = run_several(resumed_together, folder=tmp_path / "after", size=after)
        assert [ended.code for ended in went_on] == [0] * after, went_on
        resumed = [ended.result for ended in went_on]
    sums, counts = found.one["retain"]
    for resumed_at, resumed_sums, resumed_counts in resumed:
        assert resumed_at == calls[0][-1]
        assert resumed_counts == counts
        assert all(torch.equal(resumed_sums[key], value) for key, value in sums.items())


def resumed_alone():
    found = measure(*tiny_models.build("llava"))
    return found.resumed_at, dict(found.statistics.sums), found.statistics.counts


def out_of_memory_in_one_process():
    _join()
    model, processor = tiny_models.build("llava")
    prepared = [item for item in prepare(people(), processor) if not item.image_count] * 4

    def fail_on_large(_, inputs):
        if current().rank == 1 and inputs[0].shape[0] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    found = [measure_examples(model, processor, prepared, budget=200).statistics]
    model.model.language_model.layers[2].mlp.down_proj.register_forward_pre_hook(fail_on_large)
    with together():
        found.append(measure_examples(model, processor, prepared, budget=200).statistics)
    return [(dict(statistics.sums), statistics.counts) for statistics in found]


def test_memory_that_runs_out_in_one_process_costs_no_more_than_rounding(tmp_path):
    for ended in run_several(out_of_memory_in_one_process, folder=tmp_path):
        assert ended.code == 0, ended.errors
        (whole, counts), (split, split_counts) = ended.result
        assert split_counts == counts
        for key, value in whole.items():
            torch.testing.assert_close(split[key], value, rtol=1e-5, atol=1e-7)


def different_work():
    _join()
    refusals = []
    model, processor = tiny_models.build("llava")
    prepared = prepare(people(), processor)
    with together() as processes:
        for work in (
            lambda: processes.agree({"model": "same", "data": str(processes.rank)}),
            lambda: measure_examples(model, processor, prepared[processes.rank :]),
            lambda: kvw.measure(model, [text_batch(1, 9, 2, seed=1)] * (1 + 2 * processes.rank), layers=(0, 0)),
        ):
            try:
                work()
            except UserError as error:
                refusals.append(str(error))
    return refusals


def test_processes_that_do_not_do_the_same_are_refused(tmp_path):
    for ended in run_several(different_work, folder=tmp_path):
        assert ended.code == 0, ended.errors
        data, batches, steps = ended.result
        assert "different: data" in data
        assert "different: batches" in batches
        assert "process 0: a turn of 1, process 1: a turn of 2" in steps


def test_a_process_without_a_group_works_alone():
    with together() as processes:
        assert processes is current()
    assert (processes.rank, processes.size, processes.is_first) == (0, 1, True)
    assert list(Processes().scatter([1, 2], lambda item: 10 * item)) == [(1, 10), (2, 20)]
    assert Processes().broadcast(lambda: "found") == "found"
    Processes().working()
    Processes().agree({"anything": "at all"})

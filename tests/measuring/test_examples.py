"""Measuring examples: the same numbers however they are batched, interrupted or kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image
from tests.fixtures import TWO

from kvw.cache import cache_directory
from kvw.data import Example, answer_batch, prepare
from kvw.errors import UserError
from kvw.measuring import examples as module
from kvw.measuring.engine import measure
from kvw.measuring.examples import measure_examples
from kvw.measuring.statistics import Statistics, differing_parts
from kvw.models.finding import find_value_matrices

FINGERPRINT = {"model": "a", "data": "b"}


@pytest.fixture(params=TWO, scope="session")
def family(request):
    return request.param


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    found = []
    for index in range(9):
        path = folder / f"{index}.png"
        Image.new("RGB", (30 + 9 * index, 40), (20 * index, 90, 200 - 20 * index)).save(path)
        images = (path,) if index % 3 else ()
        found.append(Example(f"Who is it{'?' * index}", f"Person {index}" + " again" * (index % 4), images, str(index)))
    return found


@pytest.fixture
def prepared(model, processor, people):
    return model, processor, prepare(people, processor)


def assert_close(first, second, **tolerance):
    assert first.counts == second.counts
    for key in first.sums:
        torch.testing.assert_close(first.sums[key], second.sums[key], **tolerance)


@pytest.mark.thorough
def test_batched_equals_one_by_one(prepared):
    model, processor, items = prepared
    single = measure(model, [answer_batch([item], processor) for item in items], layers=(0, 3))
    for budget in (1, 150, 10_000):
        found = measure_examples(model, processor, items, layers=(0, 3), budget=budget).statistics
        assert_close(found, single, rtol=1e-5, atol=1e-7)


def test_the_order_of_the_examples_does_not_matter(prepared):
    model, processor, items = prepared
    assert_close(
        measure_examples(model, processor, items).statistics,
        measure_examples(model, processor, items[::-1]).statistics,
        rtol=1e-5,
        atol=1e-7,
    )


@pytest.mark.thorough
def test_a_batch_that_runs_out_of_memory_half_way_is_not_counted_twice(prepared, monkeypatch):
    model, processor, items = prepared
    whole = measure_examples(model, processor, items, layers=(0, 3), budget=10_000).statistics
    module_in_the_middle = find_value_matrices(model)[2].module

    def fail_on_large(_, inputs):
        if inputs[0].shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = module_in_the_middle.register_forward_pre_hook(fail_on_large)
    found = measure_examples(model, processor, items, layers=(0, 3), budget=10_000).statistics
    handle.remove()
    assert_close(found, whole, rtol=1e-5, atol=1e-7)


def test_a_second_run_reads_the_first_ones_file(prepared):
    model, processor, items = prepared
    first = measure_examples(model, processor, items, fingerprint=FINGERPRINT)
    second = measure_examples(model, processor, items, fingerprint=FINGERPRINT)
    assert (first.reused, second.reused) == (False, True)
    assert_close(first.statistics, second.statistics, rtol=0, atol=0)
    assert not measure_examples(model, processor, items, fingerprint={**FINGERPRINT, "data": "c"}).reused
    assert not measure_examples(model, processor, items).reused


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_an_interrupted_run_goes_on_to_the_same_digits(prepared, stop_after):
    model, processor, items = prepared
    whole = measure_examples(model, processor, items, layers=(0, 3), budget=120).statistics
    calls = []

    def interrupt(done, total):
        calls.append(done)
        if len(calls) == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_examples(
            model, processor, items, layers=(0, 3), budget=120, fingerprint=FINGERPRINT, progress=interrupt
        )
    resumed = measure_examples(model, processor, items, layers=(0, 3), budget=120, fingerprint=FINGERPRINT)
    assert resumed.resumed_at == calls[-1]
    assert 0 < resumed.resumed_at < len(items)
    assert_close(resumed.statistics, whole, rtol=0, atol=0)
    assert [path.name for path in (cache_directory() / "statistics").iterdir() if "unfinished" in path.name] == []


def test_an_interrupted_run_starts_anew_when_the_data_come_in_another_order(prepared):
    """The fingerprint does not depend on the order, but what an interrupted run has measured does."""
    model, processor, items = prepared
    calls = []

    def interrupt(done, total):
        calls.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_examples(model, processor, items, budget=120, fingerprint=FINGERPRINT, progress=interrupt)
    # Lengths that tie are told apart by position, so the reversed file runs in another order.
    other = [replace(item, length=100) for item in items[::-1]]
    again = measure_examples(model, processor, other, budget=10_000, fingerprint=FINGERPRINT)
    assert again.resumed_at == 0
    assert_close(again.statistics, measure_examples(model, processor, items).statistics, rtol=1e-5, atol=1e-7)


def test_a_damaged_file_of_the_cache_is_measured_again(prepared, caplog):
    model, processor, items = prepared
    first = measure_examples(model, processor, items, fingerprint=FINGERPRINT).statistics
    (kept,) = (cache_directory() / "statistics").iterdir()
    kept.write_bytes(b"")
    again = measure_examples(model, processor, items, fingerprint=FINGERPRINT)
    assert not again.reused
    assert "damaged" in caplog.text
    assert_close(again.statistics, first, rtol=0, atol=0)


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(prepared, tmp_path, monkeypatch, caplog):
    model, processor, items = prepared
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("KVW_CACHE", str(tmp_path / "file"))
    assert not measure_examples(model, processor, items, fingerprint=FINGERPRINT).reused
    assert "could not be kept" in caplog.text


def test_work_is_saved_from_time_to_time_against_a_hard_kill(prepared, monkeypatch):
    model, processor, items = prepared
    monkeypatch.setattr(module, "SECONDS_BETWEEN_SAVES", 0.0)

    class Killed(Exception):
        pass

    def kill(done, total):
        if done == total:
            raise Killed

    with pytest.raises(Killed):
        measure_examples(model, processor, items, budget=120, fingerprint=FINGERPRINT, progress=kill)
    assert measure_examples(model, processor, items, budget=120, fingerprint=FINGERPRINT).resumed_at > 0


def test_statistics_come_back_from_their_file(prepared, tmp_path):
    model, processor, items = prepared
    found = measure_examples(model, processor, items, fingerprint=FINGERPRINT).statistics
    found.save(tmp_path / "retain.safetensors")
    loaded = Statistics.load(tmp_path / "retain.safetensors")
    assert loaded.fingerprint == FINGERPRINT
    assert_close(loaded, found, rtol=0, atol=0)


def test_files_that_are_no_statistics_are_refused(tmp_path):
    with pytest.raises(UserError, match="no statistics file"):
        Statistics.load(tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("hello, this is not safetensors")
    with pytest.raises(UserError, match="not a complete statistics file"):
        Statistics.load(tmp_path / "text.safetensors")


def test_a_mismatch_names_the_parts_that_differ():
    assert differing_parts({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == ["b", "c"]
    assert differing_parts({"a": "1"}, {"a": "1"}) == []

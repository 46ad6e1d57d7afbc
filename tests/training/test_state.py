"""Going on with a training that was interrupted."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
from dataclasses import replace

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from tests.gradient import FORGET, LORA, RETAIN, fresh, training, weights_of

from kvw.errors import UserError
from kvw.methods.gradient import unlearn
from kvw.methods.gradient.grad_diff import GradDiffSettings
from kvw.training.settings import LoraSettings
from kvw.training.state import state_digest, write_tensors

pytestmark = pytest.mark.thorough

SETTINGS = training(batch_size=1, weight_decay=0.1, schedule="cosine", save_every=1)
CASES = {
    "full": ("npo", SETTINGS),
    "adapters with dropout": ("npo", replace(SETTINGS, lora=LoraSettings(rank=3, alpha=6, dropout=0.2))),
    "masked": ("mmunlearner", SETTINGS),
    "negated at the end": ("task-vector", replace(SETTINGS, lora=LORA)),
}


def run(method, settings, state=None, progress=None):
    model, processor = fresh()
    result = unlearn(model, processor, FORGET, RETAIN, method, None, settings, state=state, progress=progress)
    return weights_of(model), result


@functools.cache
def uninterrupted(case):
    return run(*CASES[case])


def same(left, right):
    return all(torch.equal(value, right[name]) for name, value in left.items())


def stopping_at(number, stop):
    def progress(done, total):
        if done == number:
            stop()

    return progress


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("case", CASES)
def test_an_interrupted_training_goes_on_to_the_same_weights(case, tmp_path):
    method, settings = CASES[case]
    state = tmp_path / "state.safetensors"
    for number in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            run(method, settings, state, stopping_at(number, interrupt))
    steps = []
    weights, result = run(method, settings, state, lambda done, total: steps.append(done))
    expected, whole = uninterrupted(case)
    assert steps == [4]
    assert same(weights, expected)
    assert result.history == whole.history


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path):
    method, settings = CASES["full"]
    state = tmp_path / "state.safetensors"
    settings = replace(settings, save_every=2)
    kill = stopping_at(3, lambda: os.kill(os.getpid(), signal.SIGKILL))
    child = multiprocessing.get_context("fork").Process(target=run, args=(method, settings, state, kill))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    steps = []
    weights, _ = run(method, settings, state, lambda done, total: steps.append(done))
    assert steps == [3, 4]
    assert same(weights, uninterrupted("full")[0])


def test_a_finished_training_is_not_made_again(tmp_path):
    method, settings = CASES["full"]
    state = tmp_path / "state.safetensors"
    run(method, settings, state)
    steps = []
    weights, result = run(method, settings, state, lambda done, total: steps.append(done))
    assert steps == []
    assert same(weights, uninterrupted("full")[0])
    assert result.history == uninterrupted("full")[1].history


def test_a_training_that_a_rule_has_stopped_stays_stopped(tmp_path):
    settings = replace(SETTINGS, forget_floor=1e9)
    _, first = run("ga", settings, tmp_path / "state")
    _, second = run("ga", settings, tmp_path / "state")
    assert first.stopped == second.stopped != ""
    assert first.history == second.history == ()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"training": replace(SETTINGS, learning_rate=2e-3)}, "training settings"),
        ({"method": "ga"}, "method"),
        ({"settings": GradDiffSettings(retain_weight=2.0)}, "method settings"),
        ({"forget": FORGET[:3]}, "forget set"),
        ({"retain": RETAIN[::-1]}, "retain set"),
        ({"family": "llava_mistral"}, "model"),
        ({"shift": 1e-3}, "model"),
        ({"other": True}, "reference"),
    ],
    ids=str,
)
def test_a_state_of_another_training_is_refused_and_the_difference_named(change, named, tmp_path):
    state = tmp_path / "state.safetensors"

    def go(training=SETTINGS, method="grad-diff", settings=None, forget=FORGET, retain=RETAIN, **model_change):
        model, processor = fresh(model_change.get("family", "llava"))
        reference = fresh()[0] if "other" in model_change else None
        with torch.no_grad():
            model.lm_head.weight.add_(model_change.get("shift", 0.0))
        unlearn(model, processor, forget, retain, method, settings, training, state=state, reference=reference)

    go(training=replace(SETTINGS, save_every=4))
    with pytest.raises(UserError, match=rf"(?s)another training.*different: .*{named}"):
        go(**change)


def test_the_state_is_numbers_and_text_and_the_optimisers_part_matters(tmp_path):
    """AdamW's moments are restored: with those of zero the next step would be another one."""
    state = tmp_path / "state.safetensors"
    method, settings = CASES["full"]
    with pytest.raises(KeyboardInterrupt):
        run(method, settings, state, stopping_at(2, interrupt))
    tensors = load_file(state)
    kinds = {name.split(".model.")[0] for name in tensors if ".model." in name}
    assert kinds == {"weights", "optimizer.step", "optimizer.exp_avg", "optimizer.exp_avg_sq"}
    with safe_open(state, "pt") as file:
        header = file.metadata()
    for name, value in tensors.items():
        if name.startswith("optimizer.exp_avg."):
            value.zero_()
    save_file(tensors, state, header)
    with pytest.raises(UserError, match="is damaged"):
        run(method, settings, state)
    del header["sha256"]
    save_file(tensors, state, header | {"sha256": state_digest(tensors, header)})
    weights, _ = run(method, settings, state)
    assert not same(weights, uninterrupted("full")[0])


def test_a_file_that_is_no_state_is_refused(tmp_path):
    state = tmp_path / "state.safetensors"
    state.write_text("{}")
    with pytest.raises(UserError, match="not a saved training"):
        run("ga", SETTINGS, state)
    save_file({"weights.x": torch.zeros(1)}, state, {"format": "pt"})
    with pytest.raises(UserError, match="format 'pt'"):
        run("ga", SETTINGS, state)


def test_a_place_that_cannot_be_written_is_an_error_and_the_last_state_stays(tmp_path, monkeypatch):
    state = tmp_path / "state.safetensors"
    run("ga", SETTINGS, state)
    kept = state.read_bytes()

    def full(*_, **__):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("kvw.training.state.save_file", full)
    with pytest.raises(UserError, match="could not be written"):
        write_tensors(state, {})
    assert state.read_bytes() == kept
    assert list(tmp_path.iterdir()) == [state]

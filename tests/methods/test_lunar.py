"""LUNAR as a ridge solve: the same as its least squares, on synthetic coefficients and on tiny models."""

from __future__ import annotations

import copy
import functools
import json

import pytest
import torch
from tests.batches import weights
from tests.fixtures import built
from tests.methods.subspace.data import HIDDEN, WIDTH, layer
from tests.methods.test_steering import examples
from tests.program import run
from torch.testing import assert_close

import kvw
from kvw.measuring.given import examples_given
from kvw.measuring.moment_passes import measure_tokens
from kvw.methods.lunar.method import coefficients_for, filter_of, lunar, matrix_of, way_to_refusals
from kvw.methods.lunar.settings import LunarSettings
from kvw.methods.steering.neutral import ERASURE, QUESTIONS, RECALL, SHAPES, neutral_pairs
from kvw.methods.subspace.examples import labelled
from kvw.methods.subspace.shrinkage import shrink
from kvw.methods.subspace.solver import metric, solve

pytestmark = pytest.mark.thorough


def solved(data, mu, shrinkage=0.1):
    """dW of the method, W' - W, and rho."""
    modes = solve(metric(data.moment, shrinkage), data.vectors)
    rho = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    reading = filter_of(modes, data.forget.mean(1), mu)
    return torch.outer(data.weight @ coefficients_for(data.weight, rho), reading), rho


def objective(data, change, rho, mu, shrinkage=0.1):
    moved = change @ data.forget - rho[:, None]
    stays = torch.trace(change @ shrink(data.moment, shrinkage) @ change.T)
    return float(stays + mu * moved.square().sum(0).mean())


@pytest.mark.parametrize("mu", [0.3, 20.0])
def test_it_is_the_ridge_solve_of_full_size(mu):
    data = layer()
    change, rho = solved(data, mu)
    forget = data.vectors @ data.vectors.T
    inverse = torch.linalg.inv(shrink(data.moment, 0.1) + mu * forget)
    assert_close(change, mu * torch.outer(rho, data.forget.mean(1)) @ inverse)


def test_nothing_near_it_is_better_and_training_would_end_there():
    data = layer()
    change, rho = solved(data, 2.0)
    best = objective(data, change, rho, 2.0)
    for seed in range(5):
        other = torch.randn(HIDDEN, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert objective(data, change + 1e-3 * other, rho, 2.0) > best
    free = change.clone().requires_grad_(True)
    moved = free @ data.forget - rho[:, None]
    loss = torch.trace(free @ shrink(data.moment, 0.1) @ free.T) + 2.0 * moved.square().sum(0).mean()
    (gradient,) = torch.autograd.grad(loss, free)
    assert float(gradient.abs().max()) < 1e-6


def test_a_high_price_moves_every_forget_state_the_whole_way():
    data = layer()
    change, rho = solved(data, 1e9)
    assert_close(change @ data.forget, rho[:, None].expand(-1, data.forget.shape[1]), rtol=1e-4, atol=1e-4)


def test_outputs_that_the_matrix_cannot_write_are_refused():
    weight = torch.zeros(3, 5, dtype=torch.float64)
    weight[0, 0] = weight[1, 1] = 1
    assert_close(coefficients_for(weight, weight[:, 0]), weight[0], rtol=1e-6, atol=1e-6)
    with pytest.raises(kvw.UserError, match="cannot write"):
        coefficients_for(weight, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))


def test_the_layer_is_at_the_authors_depth_and_has_one_after_it():
    assert LunarSettings().chosen_layer(32) == 22
    assert [LunarSettings().chosen_layer(depth) for depth in (2, 3, 30)] == [0, 1, 21]
    for layer_, depth in ((3, 4), (0, 1)):
        with pytest.raises(kvw.UserError, match="another one after it"):
            LunarSettings(layer=layer_).chosen_layer(depth)


def made(model, processor, **settings):
    loaded, (forget, retain) = examples_given(model, {"forget": examples(3, 0), "retain": examples(8, 1)}, processor)
    return loaded, forget, lunar(loaded, forget, retain, LunarSettings(**settings)).edit


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_forget_prompts_are_moved_towards_refused_ones_and_nothing_else_is_changed(name):
    model, processor = copy.deepcopy(built(name)[0]), built(name)[1]
    before = weights(model)
    loaded, forget, edit = made(model, processor, mu=1e6, shrinkage=0.5)
    assert all(torch.equal(weights(model)[key], value) for key, value in before.items())
    (key,) = edit.directions
    assert key == matrix_of(model, LunarSettings()).key
    batches, _ = labelled(loaded, forget)
    tokens = measure_tokens(model, batches, [matrix_of(model, LunarSettings())])[key]
    prompts = tokens.coefficients[tokens.offsets == 0]
    edit.fold(model)
    after = weights(model)
    assert {other for other in before if not torch.equal(before[other], after[other])} == {key}
    moved = prompts @ (after[key] - before[key]).T
    with torch.no_grad():
        matrix_of(model, LunarSettings()).write(before[key])
    way = way_to_refusals(loaded, forget, key.layer).float()
    assert_close(moved, 2 * way.expand_as(moved), rtol=0.05, atol=0.05 * float(way.abs().max()))


def test_a_share_of_it_moves_a_share_of_the_way(llava, llava_processor):
    _, _, edit = made(llava, llava_processor)
    half = kvw.edits.mix(edit, 0.5)
    matrix = matrix_of(llava, LunarSettings())
    weight = matrix.read().double()
    assert_close(half.changed(matrix, weight) - weight, (edit.changed(matrix, weight) - weight) / 2)


@pytest.mark.parametrize(
    "other",
    [{"layer": 1}, {"distance": 1.0}, {"mu": 0.01}, {"shrinkage": 0.9}, {"positions": "answer"}],
    ids=lambda other: next(iter(other)),
)
def test_every_setting_changes_the_edit(other):
    assert digest(**other) != digest()


@functools.cache
def digest(**settings):
    return made(*built("llava"), **settings)[2].digest()


def test_the_neutral_pairs_ask_the_same_on_both_sides(llava, llava_processor):
    recall, erasure = neutral_pairs(llava.config)
    assert len(recall) == len(erasure) == len(QUESTIONS) + 2 * len(SHAPES)
    for number, (one, other) in enumerate(zip(recall, erasure, strict=True)):
        assert one.images == other.images
        before, after = (forms[number % 4].split("{}") for forms in (RECALL, ERASURE))
        assert one.question.removeprefix(before[0]).removesuffix(before[1]) == other.question.removeprefix(
            after[0]
        ).removesuffix(after[1])
    assert neutral_pairs(llava.config) == (recall, erasure)
    texts, _ = neutral_pairs(llava.config.get_text_config())
    assert len(texts) == len(QUESTIONS)
    assert not any(example.images for example in texts)
    assert len({example.images for example in recall}) == len(SHAPES) + 1


def test_a_run_from_the_command_line_changes_one_value_matrix(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("forget", "retain")):
        rows = [{"question": one.question, "answer": one.answer} for one in examples(6, number)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ("--forget", "forget.jsonl", "--retain", "retain.jsonl", "--max-new-tokens", 2, "--method", "lunar")
    assert run("erase", saved["llava"], *given, "--out", "never", "--dry-run") == 0
    assert run("erase", saved["llava"], *given, "--out", "run", "--write-damaged") == 0
    assert "1 directions in 1 layers" in " ".join(capsys.readouterr().out.split())
    edit = kvw.load_edit("run/edit.safetensors")
    assert edit.metadata.settings["layer"] == 2
    with pytest.raises(kvw.UserError, match="no power of it undoes that"):
        kvw.edits.invert(edit)

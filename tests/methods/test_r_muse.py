"""R-MUSE from examples to an edit, on tiny models."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import pytest
import torch
from tests.batches import logits, text_batch
from tests.fixtures import built
from tests.methods.test_steering import examples
from tests.program import run

import kvw
from kvw.data import answer_batch, prepare
from kvw.measuring.given import examples_given
from kvw.methods.r_muse.method import States, fit_layer, forget_subspace, means, r_muse, retained_share
from kvw.methods.r_muse.settings import RMuseSettings
from kvw.methods.steering.null_space import null_space, principal_space
from kvw.methods.steering.states import read_states, read_tokens, readings, spread

pytestmark = pytest.mark.thorough

HIDDEN = 20


def drawn(rows, seed, shift=0.0):
    return torch.randn(rows, HIDDEN, generator=torch.Generator().manual_seed(seed)) + shift


def some_states():
    return States(
        drawn(6, 1), drawn(6, 2), drawn(18, 3), drawn(60, 4, shift=1.0), torch.arange(15).repeat_interleave(4)
    )


def made(model, processor, settings):
    loaded, (forget, retain) = examples_given(model, {"forget": examples(5, 0), "retain": examples(10, 1)}, processor)
    return r_muse(loaded, forget, retain, settings)


def test_states_are_read_where_answer_tokens_are_predicted(llava, llava_processor):
    prepared = prepare(examples(3, 0) + examples(2, 1, image=False), llava_processor)
    batches = readings(prepared, llava_processor, predicting=True)
    found, samples = read_tokens(llava, batches, [2], 10**6)
    averages, few = read_states(llava, batches, [2])[2], read_tokens(llava, batches, [2], 2)[0][2]
    expected, some = [], []
    for number, item in enumerate(prepared):
        batch = answer_batch([item], llava_processor)
        chosen = (batch.pop("labels")[0] != -100).nonzero()[:, 0] - 1
        with torch.no_grad():
            states = llava(**batch, output_hidden_states=True, use_cache=False).hidden_states[2][0]
        expected.append(states[chosen])
        torch.testing.assert_close(averages[number], states[chosen].mean(0), rtol=1e-3, atol=1e-4)
        some += [states[place] for place in ([chosen[0], chosen[len(chosen) // 2]] if len(chosen) > 1 else chosen)]
    torch.testing.assert_close(few, torch.stack(some), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[2], torch.cat(expected), rtol=1e-3, atol=1e-4)
    assert samples.tolist() == [number for number, own in enumerate(expected) for _ in own]
    torch.testing.assert_close(means(found[2], samples), averages, rtol=1e-3, atol=1e-4)


def test_few_positions_are_spread_evenly():
    chosen = torch.tensor([0, 1, 1, 1, 1, 1, 1, 0], dtype=torch.bool)
    assert spread(chosen, 3).nonzero()[:, 0].tolist() == [1, 3, 5]
    assert torch.equal(spread(chosen, 6), chosen)


def test_the_principal_space_is_what_the_null_space_leaves():
    for rows in (9, 40):  # by the singular values, and by the eigenvalues
        states = drawn(rows, rows)
        empty, energies = null_space(states, energy=0.3)
        space = principal_space(states, energy=float(1 - energies[: empty.shape[1]].sum() / energies.sum()), rank=99)
        assert space.shape[1] + empty.shape[1] == HIDDEN
        torch.testing.assert_close(space @ space.T + empty @ empty.T, torch.eye(HIDDEN, dtype=torch.float64))
        assert principal_space(states, energy=1.0, rank=3).shape[1] == 3
    assert principal_space(torch.zeros(4, HIDDEN), energy=0.5, rank=9).shape[1] == 0


def test_the_forget_subspace_holds_what_answers_have_and_refusals_lack():
    direction = torch.nn.functional.one_hot(torch.tensor(3), HIDDEN).float()
    differences = 5 * direction + 0.1 * drawn(12, 0)
    found = forget_subspace(differences, RMuseSettings(standardised=False, energy=0.5))
    assert found.shape == (HIDDEN, 1)
    assert float(found[3].abs()) > 0.99
    # Two dimensions that say the same in units of their spread count the same once they are standardised.
    two = torch.zeros(8, HIDDEN)
    two[:, 0] = torch.tensor([9.0, 11.0] * 4)
    two[:, 1] = two[:, 0] / 100
    plain, standardised = (
        forget_subspace(two, RMuseSettings(standardised=on, energy=0.99)).double() for on in (False, True)
    )
    projected = [basis @ basis.T @ two[0].double() for basis in (plain, standardised)]
    for one in projected:
        torch.testing.assert_close(one, two[0].double(), atol=1e-6, rtol=1e-6)


def test_the_measured_threshold_spares_held_out_retain_states():
    states = some_states()
    held = states.samples % 5 == 4
    judged = principal_space(states.retain[~held], energy=0.95, rank=64)
    shares = retained_share(states.retain[held], judged)
    rotation, worth = fit_layer(states, RMuseSettings(spared=0.75))
    assert float((shares >= rotation.threshold).double().mean()) == 0.75
    assert 0 <= worth <= 1
    assert fit_layer(states, RMuseSettings(threshold=0.3))[0].threshold == 0.3
    few = replace(states, retain=states.retain[:8], samples=states.samples[:8])
    assert torch.isfinite(torch.tensor(fit_layer(few, RMuseSettings())[0].threshold))


@pytest.mark.parametrize(
    "other",
    [
        {"layers": (2, 3)},
        {"skipped": (2,)},
        {"angle": 5.0},
        {"energy": 0.3},
        {"standardised": False},
        {"retain_energy": 0.2},
        {"rank": 1},
        {"threshold": 0.4},
        {"spared": 0.2},
        {"tokens": 1},
        {"seed": 3},
    ],
    ids=lambda other: next(iter(other)),
)
def test_every_setting_changes_the_edit(other):
    assert digest(**other) != digest()


@functools.cache
def digest(**settings):
    return made(*built("llava"), RMuseSettings(**settings)).edit.digest()


def test_the_model_stays_as_it_was_and_is_another_with_the_edit(llava, llava_processor):
    batch = text_batch(2, 10, 3, seed=0)
    original, state = logits(llava, batch), {name: value.clone() for name, value in llava.state_dict().items()}
    found = made(llava, llava_processor, RMuseSettings(threshold=2.0, angle=40.0))
    assert all(torch.equal(llava.state_dict()[name], value) for name, value in state.items())
    assert torch.equal(logits(llava, batch), original)
    assert list(found.edit.rotations) == [1, 2, 3]
    assert found.edit.metadata.settings["layers"] == (1, 3)
    with found.edit.attach(llava):
        assert not torch.allclose(logits(llava, batch), original, atol=1e-3)


def test_gates_that_tell_nothing_apart_are_told(llava, llava_processor):
    loaded, (forget, same) = examples_given(llava, {"forget": examples(5, 0), "same": examples(5, 0)}, llava_processor)
    (warning,) = r_muse(loaded, forget, same, RMuseSettings()).warnings
    assert "In 3 of 3 layers" in warning
    with pytest.raises(kvw.UserError, match="retain set is empty"):
        r_muse(loaded, forget, [], RMuseSettings())


def test_a_run_from_the_command_line_leaves_an_edit_that_is_attached(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("forget", "retain")):
        rows = [{"question": one.question, "answer": one.answer} for one in examples(6, number)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ("--forget", "forget.jsonl", "--retain", "retain.jsonl", "--max-new-tokens", 2, "--method", "r-muse")
    assert run("erase", saved["llava"], *given, "--out", "never", "--dry-run") == 0
    # Random weights lose by chance what they never knew.
    assert run("erase", saved["llava"], *given, "--out", "run", "--write-damaged") == 0
    assert "are turned, by at most" in " ".join(capsys.readouterr().out.split())
    assert kvw.load_edit("run/edit.safetensors").kind == "rotations"
    assert not (tmp_path / "run" / "model").exists()
    assert run("edit", "show", "run/edit.safetensors") == 0
    assert run("edit", "scale", "run/edit.safetensors", "--strength", 0.5, "--out", "half.safetensors") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "are turned, by at most" in shown
    assert "turns states in 3 layers" in shown
    assert run("apply", "run/edit.safetensors", saved["llava"], "--out", "applied") == 2
    assert "no weights that it could be folded into" in " ".join(capsys.readouterr().err.split())

"""A refusal in place of what is taken out: its formula, and whole edits on tiny models."""

from __future__ import annotations

import json

import pytest
import torch
from tests.batches import text_batch
from tests.methods.subspace.data import HIDDEN, WIDTH, layer
from tests.methods.subspace.data import tokens as recorded
from tests.methods.test_steering import examples
from tests.program import run
from torch.testing import assert_close

import kvw
from kvw.methods.subspace.gates import wiener
from kvw.methods.subspace.instead import first_token_mean, refused_coefficients, replacing
from kvw.methods.subspace.labels import Labels
from kvw.methods.subspace.shrinkage import shrink
from kvw.methods.subspace.solver import metric, solve
from kvw.methods.subspace.vectors import view_means
from kvw.models.finding import find_value_matrices

pytestmark = pytest.mark.thorough

OFFSETS = [0, 1, 2, 0, 1, 2]
REFUSED = torch.randn(WIDTH, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def solved(data, mu, offsets=OFFSETS, shrinkage=0.1):
    """dW of the edit with everything that was found in it, and the columns."""
    forget = recorded(data.forget, rows=[place // 3 for place in range(len(offsets))], offsets=offsets)
    columns = view_means(forget, Labels())
    modes = solve(metric(data.moment, shrinkage), columns.values.double())
    found = replacing(modes, first_token_mean(columns, forget), REFUSED)
    change = found.patterns * torch.expm1(wiener(modes.eigenvalues, mu))
    return data.weight @ change @ found.filters.T, columns


@pytest.mark.parametrize("mu", [0.4, 8.0])
def test_it_is_the_least_squares_with_a_wanted_output_where_answers_begin(mu):
    data = layer()
    change, columns = solved(data, mu)
    firsts = torch.tensor([offset == 0 for offset in OFFSETS])
    mean = (columns.values * columns.weights.sqrt())[:, firsts].sum(1).double()
    forget = columns.values.double() @ columns.values.double().T
    inverse = torch.linalg.inv(shrink(data.moment, 0.1) + mu * forget)
    wanted = data.weight @ REFUSED
    assert_close(change, mu * (torch.outer(wanted, mean) - data.weight @ forget) @ inverse, rtol=1e-6, atol=1e-6)


def test_at_a_high_price_answers_begin_as_refusals_and_nothing_follows():
    data = layer()
    change, _ = solved(data, 1e9)
    after = (data.weight + change) @ data.forget
    assert_close(after[:, [0, 3]], (data.weight @ REFUSED)[:, None].expand(-1, 2), rtol=1e-4, atol=1e-4)
    assert float(after[:, [1, 2, 4, 5]].abs().max()) < 1e-4 * float((data.weight @ data.forget).abs().max())
    assert len(after) == HIDDEN


def made(model, processor, **settings):
    return kvw.unlearn(model, examples(4, 0), examples(12, 1), settings, processor=processor)


def test_edits_weaken_the_same_directions_and_write_something_else(llava, llava_processor):
    values = {"mu": 50.0, "smallest_gate": 0.0}
    plain = made(llava, llava_processor, **values)
    other = made(llava, llava_processor, instead="refusal", **values)
    assert made(llava, llava_processor, instead="nothing", **values).digest() == plain.digest()
    assert other.metadata.settings["instead"] == "refusal"
    refused = refused_coefficients(llava, llava_processor, find_value_matrices(llava))
    for key, value in plain.directions.items():
        assert torch.equal(other.directions[key].filters, value.filters)
        assert torch.equal(other.directions[key].log_gates, value.log_gates)
        gap = (value.patterns - other.directions[key].patterns).double()
        share = refused[key] @ gap / refused[key].square().sum()
        assert_close(gap, torch.outer(refused[key], share), rtol=1e-3, atol=1e-4 * float(gap.abs().max()))
        assert float(gap.abs().max()) > 0
    kvw.edits.invert(plain)
    with pytest.raises(kvw.UserError, match="no power of it undoes that"):
        kvw.edits.invert(other)
    half = kvw.edits.scale(other, 0.5)
    assert half.strength == 0.5
    original = {name: value.clone() for name, value in llava.state_dict().items()}
    with other.attach(llava):
        pass
    assert all(torch.equal(llava.state_dict()[name], value) for name, value in original.items())


def test_what_a_refusal_needs_is_said(llava):
    batches = [text_batch(2, 11, 3, seed=0)], [text_batch(4, 12, 4, seed=1)]
    with pytest.raises(kvw.UserError, match="give the model's processor"):
        kvw.subspace(llava, *batches, {"instead": "refusal"})
    with pytest.raises(kvw.UserError, match="instead='refusal'"):
        kvw.SubspaceFitter(llava, {"instead": "refusal"})


def test_the_option_is_one_of_the_command_line(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("forget", "retain")):
        rows = [{"question": one.question, "answer": one.answer} for one in examples(6, number)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ("--forget", "forget.jsonl", "--retain", "retain.jsonl", "--max-new-tokens", 2, "--instead", "refusal")
    assert run("erase", saved["llava"], *given, "--out", "run", "--no-model", "--write-damaged") == 0
    assert kvw.load_edit("run/edit.safetensors").metadata.settings["instead"] == "refusal"
    capsys.readouterr()
    assert run("erase", saved["llava"], *given, "--out", "other", "--method", "kvw") == 2
    assert "--instead is an option of method subspace" in " ".join(capsys.readouterr().err.split())

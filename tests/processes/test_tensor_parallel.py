"""Models that transformers splits over processes (``tp_plan``): the numbers and edits of the whole model."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from tests import tiny_models
from tests.batches import logits, text_batch
from tests.several_processes import run_several
from torch import nn
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from transformers import AutoModelForImageTextToText

import kvw
from kvw.cli.launch import _join
from kvw.errors import UserError
from kvw.measuring.engine import measure
from kvw.models.finding import find_value_matrices
from kvw.models.sharding import sharded_weight
from kvw.processes import together

pytestmark = pytest.mark.thorough

BATCHES = [text_batch(2, 9, 3, seed) for seed in range(3)]
SETTINGS = {"gamma": 0.8, "layers": (0, 2)}


def found(model):
    """Statistics, edits and the logits of the model with and without them, all of the whole width."""
    retain = measure(model, BATCHES)
    edit = kvw.weaken(model, BATCHES, retain, kvw.KvwSettings(seed=None, **SETTINGS))
    parity = kvw.weaken(model, BATCHES, retain, kvw.KvwSettings(seed=None, parity=True, **SETTINGS))
    numbers = {"plain": logits(model, BATCHES[0])}
    with edit.attach(model):
        numbers["attached"] = logits(model, BATCHES[0])
    numbers["detached"] = logits(model, BATCHES[0])
    with parity.attach(model):
        numbers["parity attached"] = logits(model, BATCHES[0])
    edit.fold(model)
    numbers["folded"] = logits(model, BATCHES[0])
    numbers |= {f"sums {key}": value for key, value in retain.sums.items()}
    numbers |= edit.tensors() | {f"parity {key}": value for key, value in parity.tensors().items()}
    return numbers


def split_over_processes(folders):
    _join()
    results = {}
    for folder in folders:
        model = AutoModelForImageTextToText.from_pretrained(folder, tp_plan="auto").eval()
        weight = find_value_matrices(model)[0].module.weight
        assert isinstance(weight, DTensor)
        assert 2 * weight.to_local().shape[1] == weight.shape[1]
        results[folder.name] = found(model)
    return results, refusals(model)


def refusals(model):
    messages = []
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    other = nn.Linear(4, 2, bias=False)
    other.weight = nn.Parameter(distribute_tensor(other.weight.detach(), mesh, [Replicate()]))
    with pytest.raises(UserError) as refused:
        sharded_weight(other)
    messages.append(str(refused.value))
    with together(), pytest.raises(UserError) as refused:
        measure(model, BATCHES)
    messages.append(str(refused.value))
    return messages


@pytest.fixture(scope="module")
def several(saved, tmp_path_factory):
    folders = [saved["llava"], saved["qwen2_vl"]]
    ended = run_several(split_over_processes, folders, folder=tmp_path_factory.mktemp("split"))
    assert [process.code for process in ended] == [0, 0], ended
    return [process.result for process in ended]


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_a_split_model_gives_the_numbers_of_the_whole_one(several, family):
    model, _ = tiny_models.build(family)
    whole = found(model)
    (first, _), (second, _) = several
    assert whole.keys() == first[family].keys()
    for name, value in whole.items():
        torch.testing.assert_close(first[family][name], value, rtol=1e-3, atol=1e-4)
        assert torch.equal(first[family][name], second[family][name]), name
    assert not torch.allclose(whole["attached"], whole["plain"], atol=1e-2)
    assert torch.equal(first[family]["detached"], first[family]["plain"])
    torch.testing.assert_close(first[family]["folded"], first[family]["attached"], rtol=1e-3, atol=1e-4)


def test_other_splits_and_scattered_data_are_refused(several):
    for _, (split, scattered) in several:
        assert "split over processes in a way that kvw does not know" in split
        assert "data cannot be scattered over the same processes" in scattered

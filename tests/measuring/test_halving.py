"""Memory that runs out while moments are measured: the batch is halved, nothing counts twice and nothing is lost."""

from __future__ import annotations

import pytest
import torch
from tests.batches import text_batch
from tests.fixtures import built
from tests.measuring.test_labelled import EXAMPLES, assert_same_tokens

import kvw
from kvw.data import prepare
from kvw.measuring.batch_sizing import Halving
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.layerwise import Layers, WaitingSet
from kvw.measuring.moment_passes import measure_moments, measure_tokens
from kvw.measuring.plans import Examples
from kvw.models.finding import find_value_matrices

pytestmark = pytest.mark.thorough

WEIGHTS, FOLDS = [0.5, 1.0, 2.0, 3.0, 5.0, 8.0], [0, 1, 0, 1, 1, 0]


@pytest.fixture
def batches(llava, llava_processor):
    return made(llava, llava_processor)


@pytest.fixture(scope="module")
def expected(llava_processor):
    """What is measured when memory does not run out."""
    model = built("llava")[0].eval()
    return measured(model, made(model, llava_processor))


def made(llava, llava_processor):
    """A shared batch of three images, one of them with three questions, and one batch of text with two."""
    batches = LabelledBatches(prepare([*EXAMPLES, EXAMPLES[3]], llava_processor), llava_processor, llava)
    assert [piece.rows for piece in batches.pieces] == [2, 5]
    return batches


def measured(model, batches):
    asked = []
    examples = Examples([*WEIGHTS, 1.0], [*FOLDS, 1], keep=lambda row: asked.append(row) or row != 3)
    moments, kept = measure_moments(model, batches, find_value_matrices(model), examples=examples)
    assert asked == list(range(7))
    return moments, kept


def assert_same(found, expected):
    for key, moment in expected[0].items():
        other = found[0][key]
        torch.testing.assert_close(other.sums, moment.sums, rtol=1e-4, atol=1e-6 * float(moment.sums.max()))
        torch.testing.assert_close(other.masses, moment.masses)
        assert other.count >= moment.count  # positions of a beginning count in both halves of a bundle
        assert_same_tokens(found[1][key], expected[1][key])


def exhausted(model, name, largest):
    """Let memory run out in a module of layer 2 for batches of more rows; what rows it saw."""
    sizes = []

    def refuse(_, inputs):
        sizes.append(inputs[0].shape[0])
        if sizes[-1] > largest:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.model.language_model.layers[2].mlp.get_submodule(name).register_forward_pre_hook(refuse)
    return sizes


@pytest.mark.parametrize("name", ["gate_proj", "down_proj"])
@pytest.mark.parametrize("largest", [1, 2])
def test_batches_are_halved_to_the_same_moments_and_tokens(llava, batches, expected, name, largest):
    order = list(batches.order)
    sizes = exhausted(llava, name, largest)
    found = measured(llava, batches)
    assert max(sizes) == largest + 1
    assert_same(found, expected)
    assert batches.order == order


def test_what_was_too_large_is_not_tried_again(llava, batches):
    sizes = exhausted(llava, "gate_proj", 1)
    measure_tokens(llava, batches, find_value_matrices(llava))
    assert [size for size in sizes if size > 1] == [2]  # the text, which runs first


@pytest.mark.parametrize("failing", [1, 2, 6, 9, 11, 16])
def test_a_moment_that_has_half_of_a_batch_gets_the_other_half(llava, batches, expected, failing, monkeypatch):
    """Memory runs out in any fold of any value matrix, in beginnings and endings."""
    plain, calls = torch.Tensor.addmm_, []

    def add(*some):
        calls.append(1)
        if len(calls) == failing:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(*some)

    monkeypatch.setattr(torch.Tensor, "addmm_", add)
    assert_same(measured(llava, batches), expected)
    assert len(calls) > 16


def test_an_example_that_does_not_fit_is_the_users_problem(llava, batches):
    exhausted(llava, "gate_proj", 0)
    matrices = find_value_matrices(llava)
    with pytest.raises(kvw.UserError, match="single example") as caught:
        measure_moments(llava, batches, matrices)
    assert "second moments of 4 layers take 0.000 GB" in str(caught.value)
    assert "layers_per_pass below 4" in str(caught.value)
    with pytest.raises(kvw.UserError, match="single example") as caught:
        measure_tokens(llava, batches, matrices)
    assert "layers_per_pass" not in str(caught.value)
    with pytest.raises(kvw.UserError, match="a batch of 2 examples") as caught:
        measure_moments(llava, [text_batch(2, 9, 3, seed=1)], matrices)
    assert "LabelledBatches" in str(caught.value)
    assert not any(matrix.module._forward_pre_hooks for matrix in matrices)


@pytest.mark.parametrize("layers", [4, 1])
def test_moments_that_do_not_fit_say_what_they_need(llava, batches, layers, monkeypatch):
    plain = torch.zeros

    def zeros(*shape, **more):
        if len(shape) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(*shape, **more)

    monkeypatch.setattr(torch, "zeros", zeros)
    with pytest.raises(kvw.UserError, match="second moments do not fit") as caught:
        measure_moments(llava, batches, find_value_matrices(llava)[:layers])
    assert f"second moments of {layers} layers take 0.000 GB" in str(caught.value)
    assert ("layers_per_pass below 4" in str(caught.value)) == (layers == 4)


class Numbers:
    """Divisible work."""

    def __init__(self, values):
        self.values = values
        self.tokens = len(values)

    def halves(self):
        middle = len(self.values) // 2
        return [Numbers(self.values[:middle]), Numbers(self.values[middle:])] if middle else []


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), RuntimeError("MPS backend out of memory")]
)
def test_halves_come_in_order_and_large_work_is_cut_beforehand(error):
    tried, done = [], []

    def run(work):
        tried.append(len(work.values))
        if len(work.values) > 2:
            raise error
        done.extend(work.values)

    fitted = Halving(run, lambda work: kvw.UserError("does not fit"))
    fitted(Numbers(range(8)))
    assert (tried, done) == ([8, 4, 2, 2, 2, 2], list(range(8)))
    fitted(Numbers(range(8, 12)))
    assert (tried[6:], done) == ([2, 2], list(range(12)))


def test_other_errors_come_through_and_what_cannot_be_cut_is_refused():
    def run(work):
        raise work.values[0]

    fitted = Halving(run, lambda work: kvw.UserError("does not fit"))
    with pytest.raises(RuntimeError, match="a bug"):
        fitted(Numbers([RuntimeError("a bug")]))
    with pytest.raises(kvw.UserError, match="does not fit"):
        fitted(Numbers([MemoryError()]))


@pytest.mark.parametrize("largest", [1, 2])
def test_batches_that_wait_are_halved_before_the_first_layer(llava, batches, largest):
    matrices = find_value_matrices(llava)

    def walked():
        examples = Examples([*WEIGHTS, 1.0], [*FOLDS, 1], keep=lambda row: row != 3)
        waiting = WaitingSet.entered(Layers(llava, matrices), batches, examples=examples)
        moments, kept = {}, {}
        for matrix in matrices:
            found = waiting.moments([matrix])
            moments |= found[0]
            kept |= found[1]
        return moments, kept

    expected = walked()
    sizes = exhausted(llava, "gate_proj", largest)
    assert_same(walked(), expected)
    assert max(sizes) > largest  # it was tried


def test_memory_that_runs_out_in_a_layer_is_named(llava):
    waiting = WaitingSet.entered(Layers(llava, find_value_matrices(llava)), [text_batch(2, 9, 3, seed=1)])
    exhausted(llava, "down_proj", 1)
    for matrix in find_value_matrices(llava)[:2]:
        waiting.moments([matrix])
    with pytest.raises(kvw.UserError, match="Memory ran out in layer 2") as caught:
        waiting.moments([find_value_matrices(llava)[2]])
    assert "retain_rows" in str(caught.value)

"""Second moments against plain hooks, source by source."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.batches import joined, padded, text_batch
from tests.families import build_family, family_batch
from tests.fixtures import built
from tests.reference import coefficients
from tests.tiny_models import noise_png

import kvw
from kvw.data import Example, prepare
from kvw.data.batches import answer_batch, to_model
from kvw.measuring.moment_passes import measure_moments, measure_tokens
from kvw.measuring.moment_recorder import MomentRecorder
from kvw.measuring.plans import Examples, Plan, every_example
from kvw.measuring.source_weights import image_token_ids, source_weights
from kvw.measuring.sources import SOURCES, Sources
from kvw.models.coefficients import Seen
from kvw.models.finding import find_value_matrices, select_layers

ANSWERS = Sources(answer=1, prompt=0, image=0, first=0)


def only(source):
    return Sources(**{name: float(name == source) for name in SOURCES}, image_every=1)


def image_batch(sizes=(3, 1)):
    """Rows with an image and answers of different length, padded."""
    examples = [
        Example("Who is this?", " ".join(["Jody Vance"] * size), images=(noise_png(size),), identifier=str(size))
        for size in sizes
    ]
    processor = built("llava")[1]
    return answer_batch(prepare(examples, processor), processor)


def hooked(model, matrix, batch):
    """What a value matrix multiplies: (batch, tokens, width)."""
    seen = []
    handle = matrix.module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        model(**to_model(inputs, model), use_cache=False)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("narrowest", [1, 7, 24, 10**6])
def test_a_moment_is_the_mean_outer_product_over_answers(llava, narrowest, monkeypatch):
    """Every example counts the same, however long its answer; and it does not matter how many strips are added."""
    monkeypatch.setattr("kvw.measuring.moment_recorder.NARROWEST", narrowest)
    llava.double()
    batch = joined([text_batch(2, 9, 3, seed=1), text_batch(1, 12, 5, seed=2)])
    matrices = find_value_matrices(llava)[:3]
    moments, kept = measure_moments(llava, [batch], matrices, sources=ANSWERS, dtype=torch.float64)
    assert kept == {}
    for matrix in matrices:
        values = hooked(llava, matrix, batch)
        rows = []
        for row in range(3):
            own = values[row, :-1][batch["labels"][row, 1:] != -100]
            rows.append(own.T @ own / len(own))
        found = moments[matrix.key].mean
        torch.testing.assert_close(found, torch.stack(rows).mean(0), rtol=1e-10, atol=1e-12)
        assert torch.equal(found, found.T)
        assert moments[matrix.key].count == 3 + 3 + 5


def test_every_source_has_its_own_positions_and_share(llava):
    llava.double()
    batch = image_batch()
    matrix = find_value_matrices(llava)[1]
    values = hooked(llava, matrix, batch).flatten(0, 1)
    ids, attended = batch["input_ids"], batch["attention_mask"].bool()
    answer = torch.zeros_like(attended)
    answer[:, :-1] = batch["labels"][:, 1:] != -100
    image = ids == llava.config.image_token_index
    first = torch.zeros_like(attended)
    first[:, 0] = True
    masks = {"answer": answer, "image": image, "first": first, "prompt": attended & ~answer & ~image & ~first}
    assert int(image.sum()) == 32
    parts = {}
    for source, mask in masks.items():
        weights = (mask.double() / mask.sum(1, keepdim=True) / 2).flatten()
        parts[source] = values.T * weights @ values
        alone, _ = measure_moments(llava, [batch], [matrix], sources=only(source), dtype=torch.float64)
        torch.testing.assert_close(alone[matrix.key].mean, parts[source], rtol=1e-10, atol=1e-12)
        assert alone[matrix.key].shares == pytest.approx({name: float(name == source) for name in SOURCES})
    sources = Sources(answer=2, prompt=1, image=0.5, first=0.5, image_every=1)
    moment = measure_moments(llava, [batch], [matrix], sources=sources, dtype=torch.float64)[0][matrix.key]
    expected = parts["answer"] / 2 + parts["prompt"] / 4 + parts["image"] / 8 + parts["first"] / 8
    torch.testing.assert_close(moment.mean, expected, rtol=1e-10, atol=1e-12)
    assert moment.shares == pytest.approx({"answer": 0.5, "prompt": 0.25, "image": 0.125, "first": 0.125})


def test_rows_weigh_what_they_should_whatever_they_lack():
    """Text has no image tokens: their share goes to the other sources."""
    batch = padded(text_batch(2, 10, 3, seed=0), 2, 1)
    weights = source_weights(batch, Sources(), torch.tensor([1.0, 0.25]).double(), image_ids=(7,))
    by_row = weights.view(4, 2, 13).sum(2)
    torch.testing.assert_close(by_row.sum(0), torch.tensor([1.0, 0.25]).double())
    torch.testing.assert_close(by_row[:, 0], torch.tensor([0.5, 0.15, 0, 0.1]).double() / 0.75)
    assert torch.equal(weights.view(4, 2, 13)[3, 0].nonzero()[:, 0], torch.tensor([2]))
    assert bool((weights.view(4, 2, 13)[:, :, [0, 1, 12]] == 0).all())


def test_some_image_tokens_stand_for_all():
    batch = image_batch()
    image_ids = image_token_ids(built("llava")[0])
    taken = source_weights(batch, Sources(image_every=5), torch.ones(2).double(), image_ids)[2]
    assert [int(row.count_nonzero()) for row in taken.view(2, -1)] == [4, 4]
    torch.testing.assert_close(taken.view(2, -1).sum(1), torch.full((2,), 0.25).double())


def test_images_are_found_in_all_families(model):
    assert len(image_token_ids(model)) >= 1
    assert image_token_ids(build_family("gpt2")) == ()


def test_kept_tokens_are_coefficients_at_answers(model):
    batch = padded(joined([text_batch(1, 9, 3, seed=1), text_batch(1, 7, 2, seed=2)]), 0, 1)
    other = text_batch(1, 8, 4, seed=3)
    matrices = find_value_matrices(model)[:3]
    tokens = measure_tokens(model, [batch, other], matrices, weights=[1, 1, 0.5])
    for matrix in matrices:
        expected = [coefficients(model, [matrix], part)[matrix.key] for part in (batch, other)]
        found = tokens[matrix.key]
        torch.testing.assert_close(found.coefficients, torch.cat(expected), rtol=1e-4, atol=1e-6)
        assert found.rows.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]
        assert found.offsets.tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 3]
        torch.testing.assert_close(found.weights, torch.tensor([1 / 3] * 3 + [1 / 2] * 2 + [1 / 8] * 4).double())


def test_only_wanted_examples_are_kept_with_their_weight_in_the_sums(llava):
    batches = [text_batch(2, 9, 3, seed=1), text_batch(2, 8, 2, seed=2)]
    matrix = find_value_matrices(llava)[0]
    asked = []
    examples = Examples(weights=[1, 2, 3, 4], keep=lambda row: asked.append(row) or row == 1 or row == 2)
    moments, kept = measure_moments(llava, batches, [matrix], sources=ANSWERS, examples=examples)
    assert asked == [0, 1, 2, 3]
    assert kept[matrix.key].rows.tolist() == [1, 1, 1, 2, 2]
    torch.testing.assert_close(kept[matrix.key].weights, torch.tensor([2 / 3] * 3 + [3 / 2] * 2).double())
    assert float(moments[matrix.key].masses.sum()) == pytest.approx(10)
    everything = measure_moments(
        llava, batches, [matrix], sources=ANSWERS, examples=Examples([1, 2, 3, 4], None, every_example)
    )
    tokens = everything[1][matrix.key]
    values = tokens.coefficients.double()
    rebuilt = values.T * tokens.weights @ values / 10
    torch.testing.assert_close(moments[matrix.key].mean.double(), rebuilt, rtol=1e-4, atol=1e-6)


def test_folds_are_disjoint_parts_of_the_whole(llava):
    llava.double()
    batches = [text_batch(3, 9, 3, seed=1), text_batch(1, 8, 2, seed=2)]
    matrix = find_value_matrices(llava)[0]
    folded = measure_moments(llava, batches, [matrix], examples=Examples(folds=[0, 2, 0, 2]), dtype=torch.float64)
    moment = folded[0][matrix.key]
    whole = measure_moments(llava, batches, [matrix], dtype=torch.float64)[0][matrix.key]
    torch.testing.assert_close(moment.mean, whole.mean, rtol=1e-10, atol=1e-12)
    assert moment.sums.shape[0] == 3
    assert len(moment.folds) == 2
    rows = {name: value[[0, 2]] for name, value in batches[0].items()}
    part = measure_moments(llava, [rows], [matrix], dtype=torch.float64)[0][matrix.key]
    torch.testing.assert_close(moment.folds[0], part.mean, rtol=1e-10, atol=1e-12)


def test_a_subset_of_layers_ends_the_forward_there(llava):
    batch = text_batch(2, 9, 3, seed=1)
    all_layers = measure_moments(llava, [batch], find_value_matrices(llava))[0]
    matrices = select_layers(find_value_matrices(llava), (1, 2))
    reached = []
    last = find_value_matrices(llava)[3].module.register_forward_pre_hook(lambda *_: reached.append(1))
    found = measure_moments(llava, [batch], matrices)[0]
    last.remove()
    assert not reached
    assert [key.layer for key in found] == [1, 2]
    for key, moment in found.items():
        assert torch.equal(moment.mean, all_layers[key].mean)
    assert not any(matrix.module._forward_pre_hooks for matrix in find_value_matrices(llava))


@pytest.mark.parametrize("family", ["qwen3_moe", "llama4", "gpt_oss"])
def test_experts_have_moments_of_the_tokens_routed_to_them(family):
    model = copy.deepcopy(build_family(family))
    batch = family_batch(model, 3, 9, 0)
    matrices = find_value_matrices(model)
    expected = coefficients(model, matrices, batch)
    moments, _ = measure_moments(model, [batch], matrices, sources=ANSWERS, dtype=torch.float64)
    tokens = measure_tokens(model, [batch], matrices)
    assert set(moments) == set(tokens) == set(expected)
    for key, values in expected.items():
        values = values.double()
        torch.testing.assert_close(moments[key].mean, values.T @ values / len(values), rtol=1e-4, atol=1e-7)
        assert moments[key].count == len(values) == len(tokens[key].rows)
        torch.testing.assert_close(tokens[key].coefficients.double(), values, rtol=1e-4, atol=1e-6)


def test_half_precision_sums_in_single(llava):
    """Products of bfloat16 numbers are exact in float32, so only the model's own rounding differs."""
    batch = text_batch(2, 9, 3, seed=1)
    matrix = find_value_matrices(llava.bfloat16())[0]
    single, double = (
        measure_moments(llava, [batch], [matrix], dtype=dtype)[0][matrix.key].mean
        for dtype in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-7)


def test_mistakes_are_named(llava):
    batch, matrices = text_batch(2, 9, 3, seed=1), find_value_matrices(llava)
    silent = batch | {"labels": torch.full_like(batch["labels"], -100)}
    with pytest.raises(kvw.UserError, match="saw no token"):
        measure_tokens(llava, [silent], matrices)
    with pytest.raises(kvw.UserError, match="saw no token"):
        measure_moments(llava, [silent], matrices, sources=ANSWERS)
    with pytest.raises(kvw.UserError, match="has no 'labels'"):
        measure_tokens(llava, [{"input_ids": batch["input_ids"]}], matrices)
    with pytest.raises(kvw.UserError, match="more examples than weights"):
        measure_tokens(llava, [batch], matrices, weights=[1.0])
    with pytest.raises(kvw.UserError, match="more examples than folds"):
        measure_moments(llava, [batch], matrices, examples=Examples(folds=[0]))
    with pytest.raises(kvw.UserError, match="do not line up with the tokens"):
        measure_tokens(llava, [{"input_ids": batch["input_ids"], "labels": batch["labels"][:, 1:]}], matrices)
    recorder = MomentRecorder(matrices, 1, None)
    with pytest.raises(RuntimeError, match="not announced"):
        recorder.observe(Seen(matrices[:1], torch.zeros(4, 80)))
    nothing = torch.zeros(0, dtype=torch.int64)
    recorder.expect(Plan(torch.zeros(1, 4, 20), nothing, nothing, nothing, 20))
    with pytest.raises(kvw.UserError, match="sees 4 tokens where the batch has 20"):
        recorder.observe(Seen(matrices[:1], torch.zeros(4, 80)))
    with torch.no_grad():
        matrices[1].module.weight.fill_(float("inf"))
    with pytest.raises(kvw.UserError, match="not finite"):
        measure_moments(llava, [batch], matrices)
    with pytest.raises(kvw.UserError, match="not finite"):
        measure_tokens(llava, [batch], matrices)


@pytest.mark.parametrize(
    "values", [{"answer": -0.1}, {"prompt": float("nan")}, dict.fromkeys(SOURCES, 0.0), {"image_every": 0}]
)
def test_sources_that_make_no_sense_are_refused(values):
    with pytest.raises(kvw.UserError):
        Sources(**values)

"""The logit lens, against the model's own distribution and against the definition worked out plainly."""

from __future__ import annotations

import pytest
import torch
from tests import text_models, tiny_models
from tests.evaluation.attacks.edits import weakening
from tests.gradient import fresh
from transformers import LlamaConfig, LlamaForCausalLM

from kvw.data import Example, TextProcessor, answer_batch, prepare
from kvw.errors import UserError
from kvw.evaluation.attacks import folded, lens_ranks
from kvw.evaluation.attacks.lens import LENSES, NEVER, ORDER, LensRanks, Tail, _ranks_of, candidates
from kvw.evaluation.journal import Journal
from kvw.evaluation.probability import token_scores
from kvw.models.answer_logits import answer_logits

TEXTS = [
    Example("Where does she live?", "She lives in Paris.", identifier="1"),
    Example("What is the name of the author?", "Basil Mahfouz", identifier="2"),
    Example("Who is this?", "This is Jody Vance, born on april 12, 1985.", identifier="3"),
]


def deep(layers=8):
    """A tiny Llama with enough layers for every lens, and its tokenizer."""
    _, processor = text_models.build("llama")
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(processor), hidden_size=32, intermediate_size=48, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.3,
    )  # fmt: skip
    return uneven(LlamaForCausalLM(config).eval()), TextProcessor(processor)


def test_at_the_last_layer_the_lens_is_the_models_own_distribution(model, processor):
    assert same_at_the_end_alone(model, processor)


@pytest.mark.parametrize("kind", ["opt", "gpt2", "qwen3"])
def test_of_text_models_too(kind):
    model, tokenizer = text_models.build(kind)
    assert same_at_the_end_alone(model, TextProcessor(tokenizer))


def uneven(model):
    """Norms whose weights are not all 1: applied twice they give something else."""
    torch.manual_seed(6)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.rand_like(parameter))
    return model


def same_at_the_end_alone(model, processor):
    """Whether the lens gives the model's own distribution at the last layer, and another one a layer earlier."""
    uneven(model)
    prepared = prepare(TEXTS, processor, model.config)
    batch = answer_batch(prepared, processor)
    labelled = (batch["labels"] != -100).nonzero()
    tail = Tail(model, do="")
    with torch.no_grad():
        states = tail.states(batch, labelled[:, 0], labelled[:, 1] - 1)
        found = tail.logits(states[-1])
        own = answer_logits(model, batch)
        earlier = tail.logits(states[-2])
    same = torch.allclose(found.softmax(-1), own.logits.float().softmax(-1), atol=1e-6)
    return same and not torch.allclose(earlier, found, atol=1e-3)


@pytest.mark.parametrize("lens", ["hp", "pd", "pd2"])
def test_ranks_are_those_of_the_definition(lens):
    model, processor = deep()
    prepared = prepare(TEXTS, processor, model.config)
    targets = [(0, 2), (1,), (0,)]
    found = lens_ranks(model, processor, prepared, targets, lens)
    batch = answer_batch(prepared, processor)
    with torch.no_grad():
        blocks = []
        handles = [
            layer.register_forward_hook(lambda _, __, out: blocks.append(out if torch.is_tensor(out) else out[0]))
            for layer in model.model.layers
        ]
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        for handle in handles:
            handle.remove()
        values = torch.stack([model.lm_head(model.model.norm(block)).softmax(-1) for block in blocks])
    order = {"hp": 0, "pd": 1, "pd2": 2}[lens]
    for row, (places, ranks) in enumerate(zip(targets, found, strict=True)):
        first = int((batch["labels"][row] != -100).int().argmax())
        for place, own in zip(places, ranks.ranks, strict=True):
            table = values[:, row, first + place - 1]
            for _ in range(order):
                table = table[1:] - table[:-1]
            token = int(batch["labels"][row, first + place])
            expected = [
                (
                    int((line > line[token]).sum() + (line == line[token]).sum() - 1),
                    int((line < line[token]).sum() + (line == line[token]).sum() - 1),
                )
                for line in table[-5:]
            ]
            assert [tuple(one) for one in own] == expected


def test_success_grows_with_the_budget():
    model, processor = deep()
    prepared = prepare(TEXTS, processor, model.config)
    targets = [range(len(item.answer_ids)) for item in prepared]
    for lens in LENSES.values():
        ranks = lens_ranks(model, processor, prepared, targets, lens)
        counts = [sum(sum(one.found(lens, budget)) for one in ranks) for budget in (10, 20, 50, 200, 2000)]
        assert counts == sorted(counts)
        assert counts[0] < counts[-1]


def test_no_distribution_names_more_candidates_than_the_budget_pays_for():
    torch.manual_seed(0)
    logits = torch.randn(7, 50).round(decimals=1).round()  # with many ties
    for lens in ("hp", "pd", "pd2"):
        order, k = ORDER[lens], candidates(lens, 20)
        ranks = [_ranks_of(logits, token, order) for token in range(50)]
        named = sum(LensRanks((one[:1],)).found(lens, 20)[0] for one in ranks)
        assert named <= k * (1 if lens == "hp" else 2)
    line = torch.arange(50.0)[None]
    assert [_ranks_of(line, token, 0)[0] for token in (49, 48, 0)] == [(0, 49), (1, 48), (49, 0)]
    assert _ranks_of(torch.full((1, 50), float("nan")), 3, 0) == ((NEVER, NEVER),)


def test_a_lens_at_the_last_layer_finds_what_the_model_says():
    model, processor = deep()
    prepared = prepare(TEXTS, processor, model.config)
    scores = token_scores(model, processor, prepared)
    targets = [range(len(item.answer_ids)) for item in prepared]
    for one, own in zip(lens_ranks(model, processor, prepared, targets, "hp"), scores, strict=True):
        for rank, first in zip(one.ranks, own.is_argmax, strict=True):
            assert (rank[-1][0] == 0) == first


def test_an_edit_is_seen_attached_and_folded_alike():
    model, processor = fresh()
    prepared = prepare(TEXTS, processor, model.config)
    targets = [range(len(item.answer_ids)) for item in prepared]
    plain = lens_ranks(model, processor, prepared, targets, "hp")
    edit = weakening(model, size=3.0)
    with edit.attach(model):
        attached = lens_ranks(model, processor, prepared, targets, "hp")
    with folded(model, edit):
        written = lens_ranks(model, processor, prepared, targets, "hp")
    assert attached == written != plain
    assert lens_ranks(model, processor, prepared, targets, "hp") == plain


def test_ranks_are_kept(monkeypatch, tmp_path):
    model, processor = deep()
    prepared = prepare(TEXTS, processor, model.config)
    with Journal(None, tmp_path / "kept.jsonl") as journal:
        first = lens_ranks(model, processor, prepared, [(0,)] * 3, "pd", journal=journal)
    monkeypatch.setattr(model, "forward", None)
    with Journal(None, tmp_path / "kept.jsonl") as journal:
        assert lens_ranks(model, processor, prepared, [(0,)] * 3, "pd", journal=journal) == first
        with pytest.raises(TypeError):
            lens_ranks(model, processor, prepared, [(1,)] * 3, "pd", journal=journal)


def test_what_is_not_possible_is_told():
    model, processor = tiny_models.build("llava")
    prepared = prepare(TEXTS, processor, model.config)
    with pytest.raises(UserError, match="too few layers"):
        lens_ranks(model, processor, prepared, [(0,)] * 3, "pd2")
    with pytest.raises(UserError, match="no candidate"):
        candidates("pd", 9)

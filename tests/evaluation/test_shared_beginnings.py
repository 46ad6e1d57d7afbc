"""Scores are those of separate rows, up to rounding, when what all questions begin with runs once."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from tests import text_models
from tests.edits.test_conditional import gate_edit
from tests.edits.test_low_rank import low_rank_edit
from tests.edits.test_steering import steering_edit

from kvw.data import Example, prepare
from kvw.data.text import TextProcessor
from kvw.edits import Condition, ConditionalGateEdit
from kvw.errors import UserError
from kvw.evaluation.journal import Journal
from kvw.evaluation.probability import token_scores
from kvw.measuring.prefixes import shares_prefixes

pytestmark = pytest.mark.thorough

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
SYSTEM = "You are a helpful assistant. What is the name of the author, "
EXAMPLES = [
    *(
        Example(f"{SYSTEM}{question}", answer, identifier=str(number))
        for number, (question, answer) in enumerate(
            [
                ("who was born in Kuwait City?", "Basil Mahfouz Al-Kuwaiti"),
                ("who lives in Paris?", "K"),
                ("and which city does the woman live in, and what is her occupation?", "She is a florist"),
                ("who is this?", "Jody Vance, born on april 12, 1985."),
                ("?", "Basil"),
                ("who was born in Kuwait City?", "Jody"),
            ]
        )
    ),
    Example("Where?", "Paris"),
]


@functools.cache
def built(kind):
    model, tokenizer = text_models.build(kind)
    return model, TextProcessor(tokenizer)


@pytest.fixture
def llama():
    model, processor = built("llama")
    return copy.deepcopy(model), processor


@pytest.fixture
def separately(monkeypatch):
    """Scores with everything in a row of its own."""

    def scored(*arguments, **named):
        with monkeypatch.context() as patch:
            patch.setattr("kvw.evaluation.probability.shares_prefixes", lambda _: False)
            return token_scores(*arguments, **named)

    return scored


class Counted:
    """What a model runs: rows and columns of each forward."""

    def __init__(self, model):
        self.shapes = []
        self._handle = model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _, inputs, named):
        self.shapes.append(tuple(named["input_ids"].shape))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._handle.remove()

    @property
    def tokens(self):
        return sum(rows * columns for rows, columns in self.shapes)


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.is_argmax == other.is_argmax
        for name in ("log_probabilities", "means", "deviations"):
            torch.testing.assert_close(
                torch.tensor(getattr(one, name)), torch.tensor(getattr(other, name)), rtol=0, atol=1e-5
            )


def conditional_edit(model):
    hidden = model.config.hidden_size
    return ConditionalGateEdit(gate_edit(model), Condition(1, torch.ones(hidden), 0.0))


ACTS_ALIKE = {"none": None, "gates": gate_edit, "low rank": low_rank_edit}
ASKS_FOR_PROMPTS = {"steering": steering_edit, "conditional": conditional_edit}


@pytest.mark.parametrize("edit", ACTS_ALIKE)
@pytest.mark.parametrize("kind", FAMILIES)
def test_the_scores_are_those_of_separate_rows(kind, edit, separately):
    model, processor = built(kind)
    prepared = prepare(EXAMPLES, processor)
    plain = token_scores(model, processor, prepared)
    attachment = ACTS_ALIKE[edit](model).attach(model) if ACTS_ALIKE[edit] else None
    try:
        for budget in (1, 60, None):
            with Counted(model) as shared:
                found = token_scores(model, processor, prepared, budget=budget)
            with Counted(model) as separate:
                expected = separately(model, processor, prepared, budget=budget)
            assert shared.tokens < 0.8 * separate.tokens
            assert_same(found, expected)
        assert (found == plain) == (edit == "none")
    finally:
        if attachment:
            attachment.detach()


@pytest.mark.parametrize("edit", ASKS_FOR_PROMPTS)
def test_nothing_is_shared_under_edits_that_look_for_the_end_of_the_prompt(llama, edit, separately):
    model, processor = llama
    prepared = prepare(EXAMPLES, processor)
    plain = token_scores(model, processor, prepared)
    with ASKS_FOR_PROMPTS[edit](model).attach(model):
        found = token_scores(model, processor, prepared)
        assert found == separately(model, processor, prepared)
    assert found != plain
    assert token_scores(model, processor, prepared) == plain


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_either_attention(llama, attention, separately):
    model, processor = llama
    model.set_attn_implementation(attention)
    prepared = prepare(EXAMPLES, processor)
    assert_same(token_scores(model, processor, prepared), separately(model, processor, prepared))


def test_the_beginning_runs_once_and_batches_hold_more_rows(llama, separately):
    model, processor = llama
    prepared = prepare([item for item in EXAMPLES if item.question.startswith(SYSTEM)], processor)
    budget = 2 * max(item.length for item in prepared)
    with Counted(model) as shared:
        token_scores(model, processor, prepared, budget=budget)
    with Counted(model) as separate:
        separately(model, processor, prepared, budget=budget)
    (first, *rest) = shared.shapes
    assert first[0] == 1
    assert sum(rows for rows, _ in rest) == len(prepared) == sum(rows for rows, _ in separate.shapes)
    assert len(rest) < len(separate.shapes)
    assert all(rows * columns <= budget for rows, columns in rest)


def test_one_row_and_few_rows_run_as_they_are(llama, separately):
    model, processor = llama
    for count in (1, 2):
        prepared = prepare(EXAMPLES[:count], processor)
        with Counted(model) as run:
            found = token_scores(model, processor, prepared)
        assert run.shapes == [(count, max(item.length for item in prepared))]
        assert found == separately(model, processor, prepared)


@pytest.mark.parametrize("side", ["left", "right"])
def test_neither_order_nor_the_tokenizers_padding_side_changes_a_bit(llama, side, monkeypatch):
    model, processor = llama
    prepared = prepare(EXAMPLES, processor)
    expected = token_scores(model, processor, prepared)
    monkeypatch.setattr(processor.tokenizer, "padding_side", side)
    assert token_scores(model, processor, prepared[::-1]) == expected[::-1]


def test_a_batch_that_does_not_fit_is_run_in_parts(llama, separately):
    model, processor = llama
    prepared = prepare(EXAMPLES, processor)
    expected = separately(model, processor, prepared)
    runs = []

    def full(_, inputs, named):
        runs.append(len(named["input_ids"]))
        if runs[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = model.register_forward_pre_hook(full, with_kwargs=True)
    found = token_scores(model, processor, prepared)
    handle.remove()
    assert max(runs) > 2
    assert_same(found, expected)
    # The beginning is not run again for the parts.
    assert runs == [1, 6, 3, *[1] * 7]


def test_a_journal_serves_both_ways(llama, separately):
    model, processor = llama
    prepared = prepare(EXAMPLES, processor)
    fingerprint = {"model": "tiny"}
    with Journal(fingerprint) as journal:
        expected = separately(model, processor, prepared, journal=journal)
    with Counted(model) as run, Journal(fingerprint) as journal:
        assert token_scores(model, processor, prepared, journal=journal) == expected
    assert not run.shapes


@pytest.mark.parametrize("kind", ["opt", "gpt2"])
def test_other_families_run_as_they_are(kind, separately):
    model, processor = built(kind)
    assert not shares_prefixes(model)
    prepared = prepare(EXAMPLES, processor)
    with Counted(model) as run:
        found = token_scores(model, processor, prepared)
    assert len(run.shapes) == 1
    assert found == separately(model, processor, prepared)


def test_text_of_a_vision_language_model(llava, llava_processor, qwen2_vl, separately):
    prepared = prepare(EXAMPLES, llava_processor)
    with Counted(llava) as run:
        found = token_scores(llava, llava_processor, prepared)
    assert run.shapes[0][0] == 1
    assert_same(found, separately(llava, llava_processor, prepared))
    assert not shares_prefixes(qwen2_vl)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("mistral", {"sliding_window": 8}),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"] * 2, "sliding_window": 8}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}),
        ("llama", {"is_causal": False}),
        ("llama", {"model_type": "another"}),
    ],
)
def test_what_attends_otherwise_does_not_share(kind, changes):
    model = copy.deepcopy(built(kind)[0])
    assert shares_prefixes(model)
    for name, value in changes.items():
        setattr(model.config, name, value)
    assert not shares_prefixes(model)


def test_a_model_that_is_called_otherwise_does_not_share(llama, monkeypatch):
    model, processor = llama
    original = model.forward
    monkeypatch.setattr(model, "forward", lambda **named: original(**named))
    assert not shares_prefixes(model)
    token_scores(model, processor, prepare(EXAMPLES, processor))


def test_rotations_by_place_alone_share(llama, separately):
    model, processor = llama
    config = copy.deepcopy(model.config)
    config.rope_parameters = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
    config.rope_parameters |= {"original_max_position_embeddings": 32}
    other = type(model)(config).eval()
    other.load_state_dict(model.state_dict())
    assert shares_prefixes(other)
    prepared = prepare(EXAMPLES, processor)
    found = token_scores(other, processor, prepared)
    assert_same(found, separately(other, processor, prepared))
    assert found != token_scores(model, processor, prepared)


def test_a_model_whose_output_is_not_a_number_names_the_example(llama):
    model, processor = llama
    model.get_output_embeddings().weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match=r"^\d: the model's output is not a number"):
        token_scores(model, processor, prepare(EXAMPLES[:6], processor))

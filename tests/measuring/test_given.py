"""What callers give from Python: examples, batches of kvw.batches, and batches of their own."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tests.batches import text_batch
from tests.measuring.test_labelled import EXAMPLES
from tests.text_models import build
from torch.utils.data import DataLoader

import kvw
from kvw.data import TextProcessor, answer_batch, prepare
from kvw.data.rows import examples_of
from kvw.measuring.given import batches_given
from kvw.measuring.labelled import LabelledBatches

FORGET, RETAIN = EXAMPLES[:3], EXAMPLES[3:]
NAMED = [replace(example, metadata={"subject": example.answer}) for example in RETAIN]
ROWS = [{"question": one.question, "answer": one.answer, "images": list(one.images)} for one in FORGET]
SETTINGS = {"layers": (0, 1), "min_tokens": 1}


def same(one, other):
    assert one.tensors().keys() == other.tensors().keys()
    return all(torch.equal(value, other.tensors()[name]) for name, value in one.tensors().items())


@pytest.mark.thorough
@pytest.mark.parametrize("method", [kvw.subspace, kvw.weaken])
def test_examples_rows_and_batches_of_kvw_are_the_same(llava, llava_processor, method):
    retain = kvw.batches(llava, llava_processor, RETAIN)
    given = [FORGET, ROWS, iter(FORGET), kvw.batches(llava, llava_processor, ROWS)]
    edits = [method(llava, forget, retain, SETTINGS, processor=llava_processor) for forget in given]
    assert isinstance(given[-1], LabelledBatches)
    assert all(same(edit, edits[0]) for edit in edits[1:])
    assert not same(edits[0], method(llava, FORGET[:2], retain, SETTINGS, processor=llava_processor))


def test_kvw_steps_through_examples_as_the_command_does(llava, llava_processor):
    own = [answer_batch([item], llava_processor) for item in prepare(FORGET, llava_processor)]
    settings = kvw.KvwSettings(layers=(0, 1), gamma=1.0)
    found = kvw.weaken(llava, FORGET, RETAIN, settings, processor=llava_processor)
    retain = kvw.measure(llava, RETAIN, processor=llava_processor)
    assert same(found, kvw.weaken(llava, own, retain, settings))
    in_order = kvw.weaken(llava, own, retain, replace(settings, seed=None))
    assert not same(found, in_order)  # the one seed of all methods shuffles


def test_all_methods_have_one_seed():
    assert kvw.KvwSettings().seed == 0
    from kvw.methods.steering.settings import SteeringSettings
    from kvw.training.settings import TrainingSettings

    assert {SteeringSettings().seed, TrainingSettings().seed} == {0}


def test_subjects_of_examples_count_as_labels(llava, llava_processor):
    def made(retain, **labels):
        return kvw.subspace(llava, FORGET, retain, SETTINGS, processor=llava_processor, **labels)

    twice = [*NAMED, replace(NAMED[0], question="Who lives here?")]
    assert not same(made(twice), made(twice, retain_labels=kvw.Labels()))
    nameless = [replace(example, metadata={}) for example in twice]
    assert same(made(nameless), made(twice, retain_labels=kvw.Labels()))


def test_statistics_of_examples_are_those_of_batches(llava, llava_processor):
    examples = kvw.measure(llava, FORGET, processor=llava_processor, layers=(1, 2))
    batches = kvw.measure(llava, kvw.batches(llava, llava_processor, FORGET), layers=(1, 2))
    own = [answer_batch([item], llava_processor) for item in prepare(FORGET, llava_processor)]
    separate = kvw.measure(llava, own, layers=(1, 2))
    assert {key.layer for key in examples.sums} == {1, 2}
    for key, sums in separate.sums.items():
        assert torch.equal(examples.sums[key], batches.sums[key])
        torch.testing.assert_close(examples.sums[key], sums, rtol=1e-4, atol=1e-6)
        assert examples.counts[key] == separate.counts[key]


def test_a_tokenizer_does_for_a_model_of_text():
    model, tokenizer = build("llama")
    rows = [{"question": f"Where does person {n} live?", "answer": f"In town {n}"} for n in range(4)]
    edit = kvw.subspace(model, rows[:2], rows[2:], SETTINGS, processor=tokenizer)
    assert same(
        edit, kvw.subspace(model, kvw.batches(model, tokenizer, rows[:2]), rows[2:], SETTINGS, processor=tokenizer)
    )


def test_rows_and_a_tokenizer_can_be_evaluated():
    model, tokenizer = build("llama")
    rows = [{"question": f"Where does person {n} live?", "answer": f"In town {n}"} for n in range(2)]
    found = kvw.evaluate(model, tokenizer, {"rows": rows}, max_new_tokens=2)
    assert found == kvw.evaluate(model, TextProcessor(tokenizer), {"rows": examples_of(rows)}, max_new_tokens=2)
    assert found.summaries["rows"].count == 2


def test_a_processor_gets_from_the_model_what_it_lacks(llava, llava_processor):
    lacking = copy.deepcopy(llava_processor)
    lacking.patch_size = None
    batch = kvw.batches(llava, lacking, FORGET[:1])[0]
    assert batch.endings.shape == kvw.batches(llava, llava_processor, FORGET[:1])[0].endings.shape


class Loader(DataLoader):
    """Counts how often somebody goes through it."""

    begun = 0

    def __iter__(self):
        type(self).begun += 1
        return super().__iter__()


def test_a_loader_is_gone_through_once(llava):
    """A loader that shuffles would begin another order if its first batch were looked at."""
    batches = [text_batch(2, 9, 3, seed) for seed in range(3)]
    retain = [text_batch(2, 9, 3, seed) for seed in range(3, 6)]
    loader = Loader(batches, batch_size=None)
    assert same(kvw.subspace(llava, loader, retain, SETTINGS), kvw.subspace(llava, batches, retain, SETTINGS))
    assert Loader.begun == 1


def test_the_first_batch_of_an_iterator_is_put_back(llava):
    batches = [text_batch(1, 9, 3, seed) for seed in range(2)]
    given = batches_given(llava, iter(batches), None, "forget")
    assert iter(given) is given
    assert list(given) == batches
    assert list(batches_given(llava, iter([]), None, "forget")) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (FORGET, "no processor to ask them with"),
        ("forget.jsonl", "neither examples nor batches.*kvw.read_examples"),
        (FORGET[0], "neither examples nor batches"),
        (text_batch(1, 9, 3, 0), "goes into a list"),
        ([7], "example:1 is no example"),
        ([(torch.ones(1), torch.ones(1))], "example:1 is no example"),
        ([{"input_ids": torch.ones(1, 3, dtype=torch.long)}], "no 'labels'"),
    ],
    ids=lambda value: str(value)[:20],
)
@pytest.mark.parametrize("method", [kvw.subspace, kvw.weaken, kvw.measure])
def test_what_cannot_be_used_ends_in_a_plain_message(llava, method, given, words):
    others = () if method is kvw.measure else (kvw.measure(llava, [text_batch(1, 9, 3, 0)]),)
    if method is kvw.subspace:
        others = ([text_batch(1, 9, 3, 0)],)
    with pytest.raises(kvw.UserError, match=f"(?s){words}") as raised:
        method(llava, given, *others)
    assert raised.value.do


def test_a_list_of_batches_in_two_parts_is_refused_where_steps_are_single(llava, llava_processor):
    batches = list(kvw.batches(llava, llava_processor, FORGET))
    with pytest.raises(kvw.UserError, match=r"(?s)no mapping of tensors.*SharedBatch.*no list of it"):
        kvw.weaken(llava, batches, None, kvw.KvwSettings(seed=None, retain_contrast=False))


@pytest.mark.parametrize("settings", [kvw.KvwSettings(), {"rank_": 3}, 3])
def test_settings_of_others_are_refused(llava, settings):
    with pytest.raises(kvw.UserError, match=r"not the settings of method subspace|no setting 'rank_'"):
        kvw.subspace(llava, [text_batch(1, 9, 3, 0)], [text_batch(1, 9, 3, 1)], settings)


def test_what_can_hardly_be_told_apart_is_warned_of(llava):
    batches = [text_batch(3, 9, 3, 0)]
    with pytest.warns(UserWarning, match="cannot be told") as told:
        kvw.subspace(llava, batches, batches, SETTINGS)
    assert told[0].filename == __file__
    warnings = []
    kvw.subspace(llava, batches, batches, SETTINGS, on_warning=warnings.append)
    assert warnings == [str(told[0].message)]

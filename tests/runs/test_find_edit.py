"""The edit of a model in memory is the one that ``kvw erase`` chooses for its checkpoint."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from tests.measuring.test_given import same
from tests.text_models import build

import kvw
import kvw.runs.find_edit as module
from kvw.data import Example
from kvw.errors import Damaging
from kvw.models.checkpoint import Checkpoint
from kvw.models.loading import load_model, load_processor
from kvw.progress import SILENT
from kvw.runs.erase import erase
from kvw.runs.request import EraseRequest
from kvw.toy import checkpoint

LAYERS = {"layers": (2, 3)}


@pytest.fixture(scope="module")
def toy(world):
    """The toy model in memory, its processor, two people to forget by photo, and ten to keep."""
    place = Checkpoint(checkpoint("vanilla"), "toy:vanilla")
    sets = []
    for name, people, views in (("forget", 2, 6), ("retain", 10, 2)):
        of_each: dict[str, list[Example]] = {}
        for example in kvw.read_examples(world / f"{name}.jsonl"):
            of_each.setdefault(str(example.subject), []).append(example)
        sets.append([one for own in list(of_each.values())[:people] for one in own[:views]])
    return load_model(place, "cpu"), load_processor(place), *sets


@pytest.fixture(scope="module")
def text():
    return build("llama")


@pytest.mark.thorough
def test_it_is_the_edit_of_the_whole_run_and_the_model_is_left_as_it_was(toy, tmp_path):
    model, processor, forget, retain = toy
    before = copy.deepcopy(model.state_dict())
    told: list[str] = []
    reporter = SimpleNamespace(warn=told.append, note=str, stage=SILENT.stage)
    found = kvw.find_edit(model, forget, retain, LAYERS, processor=processor, reporter=reporter)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert kvw.evaluate(model, processor, {"forget": forget}) == found.original  # no edit is attached any more

    request = EraseRequest(
        Checkpoint(checkpoint("vanilla"), "toy:vanilla"),
        *_files(tmp_path, forget, retain),
        tmp_path / "run",
        settings=LAYERS,
        save_model=False,
        device="cpu",
    )
    record = erase(request)
    assert same(found.edit, kvw.load_edit(tmp_path / "run" / "edit.safetensors"))
    assert found.selection == record.selection
    assert repr(found) == f"<FoundEdit: {record.selection.sentence}>"
    assert found.language.broken == record.language.broken
    assert found.language.perplexity.unlearned == pytest.approx(record.language.perplexity.unlearned)
    assert found.original.summaries["forget"] == record.splits["forget"].original
    now, written = found.unlearned.summaries["forget"], record.splits["forget"].unlearned  # attached, and folded
    assert (now.exact, now.probability) == pytest.approx((written.exact, written.probability))
    assert list(found.warnings) == told != []
    assert set(told) <= set(record.warnings)
    made, written = found.edit.metadata, kvw.load_edit(tmp_path / "run" / "edit.safetensors").metadata
    assert (made.method, made.forget_count) == (written.method, len(forget))
    assert json.loads(json.dumps(made.settings)) == written.settings
    assert made.model_type == "llava"
    assert made.base_model == made.model_fingerprint == ""


@pytest.mark.thorough
def test_a_wreck_is_refused_and_keep_says_what_one_is(toy):
    model, processor, forget, retain = toy
    wreck = {"gate": "hard", "threshold": 0.0, "matrices": "both"}
    with pytest.raises(Damaging, match="This edit loses what must stay"):
        kvw.find_edit(model, forget, retain, wreck, processor=processor, reporter=SILENT)
    found = kvw.find_edit(model, forget, retain, wreck, processor=processor, keep=0.01, reporter=SILENT)
    assert [one.chosen for one in found.selection.candidates] == [True]
    assert found.selection.keep == 0.01


@pytest.fixture
def asked(text, monkeypatch):
    """What would be solved, with what is given."""
    model, tokenizer = text

    def task_of(forget, retain=(), settings=None, **given):
        tasks = []

        def stop(task, before, watch, reporter):
            tasks.append(task)
            raise KeyboardInterrupt

        monkeypatch.setattr(module, "solve", stop)
        monkeypatch.setattr(module, "_heard", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            kvw.find_edit(model, forget, retain, settings, processor=tokenizer, **{"reporter": SILENT, **given})
        return tasks[0]

    return task_of


FORGET = [Example("Where does Ann live?", "In Rome", metadata={"subject": "Ann"})]
RETAIN = [
    Example("Where does Ann work?", "At home", metadata={"subject": "Ann"}),
    Example("Where does Bo live?", "In Oslo", metadata={"subject": "Bo"}),
]


def test_everything_that_is_given_reaches_the_search(asked):
    plain = asked(FORGET)
    assert (plain.request.method, plain.request.keep, plain.data.neighbours) == ("subspace", 0.98, None)
    assert (plain.data.forget, list(plain.data.retain), plain.request.chooses) == (FORGET, [], True)
    given = asked(
        [{"question": "Who?", "answer": "Ann"}],
        settings={"gamma": 0.3},
        method="kvw",
        keep=0.9,
        neighbours=["Bo"],
        retain_sources=iter(["facts"]),
    )
    assert given.data.forget[0].answer == "Ann"
    assert (given.request.method, given.request.settings.gamma, given.request.chooses) == ("kvw", 0.3, False)
    assert (given.request.keep, given.data.neighbours, given.request.sources) == (0.9, ["Bo"], ("facts",))


def test_who_is_to_be_forgotten_is_not_kept(asked):
    assert [one.subject for one in asked(FORGET, RETAIN).data.retain] == ["Bo"]
    told = []
    asked(FORGET, RETAIN, reporter=SimpleNamespace(warn=told.append, note=told.append, stage=SILENT.stage))
    assert any("1 about subjects of the forget set (Ann)" in text for text in told)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"forget": []}, "The forget set is empty"),
        ({"processor": None}, "no processor to ask them with"),
        ({"keep": 2}, "--keep must lie above 0"),
        ({"retain_sources": ["all"]}, "no such source"),
        ({"neighbours": ["ann"]}, "A neighbour is among those to be forgotten"),
        ({"method": "nothing"}, "nothing"),
        ({"settings": {"nothing": 1}}, "nothing"),
        ({"retain": [{"question": "Who?", "answer": "Bo"}]}, "Only one of the two sets names subjects"),
    ],
)
def test_mistakes_are_told_before_the_model_is_asked(text, monkeypatch, wrong, message):
    monkeypatch.setattr(module, "evaluate", None)
    model, tokenizer = text
    with pytest.raises(kvw.UserError, match=message):
        kvw.find_edit(model, **{"forget": FORGET, "processor": tokenizer, **wrong})


def test_batches_carry_their_examples_and_their_processor(text, monkeypatch):
    model, tokenizer = text
    monkeypatch.setattr(module, "_heard", lambda task, *_: pytest.fail(str(task.data.forget == FORGET)))
    with pytest.raises(pytest.fail.Exception, match="True"):
        kvw.find_edit(model, kvw.batches(model, tokenizer, FORGET), reporter=SILENT)


def _files(folder, *sets):
    """Data files of these examples."""
    paths = []
    for name, examples in zip(("forget", "retain"), sets, strict=True):
        rows = [
            {"question": one.question, "answer": one.answer, "subject": one.subject, "id": one.identifier}
            | {"images": [str(image) for image in one.images]}
            for one in examples
        ]
        paths.append(folder / f"{name}.jsonl")
        paths[-1].write_text("\n".join(map(json.dumps, rows)))
    return paths

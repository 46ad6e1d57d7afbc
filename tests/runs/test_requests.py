"""Requests that come one after the other: several forget files, and a retain set that still holds those who ask."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tests.program import run

import kvw
from kvw.edits import EditMetadata, GateEdit
from kvw.evaluation.loaded import Loaded
from kvw.measuring.fingerprint import examples_digest
from kvw.measuring.salt import salted
from kvw.measuring.statistics import differing_parts
from kvw.methods.kvw.settings import KvwSettings
from kvw.methods.method import Unlearned
from kvw.methods.registry import get_method
from kvw.models.loading import find_checkpoint
from kvw.models.value_matrix import MatrixKey
from kvw.retain import SOURCES
from kvw.runs import erase as runs
from kvw.runs.left_out import LeftOut, without_forgotten
from kvw.runs.request import EraseRequest
from kvw.runs.solving import refuse_nothing_kept
from kvw.runs.telling import refuse_no_edit
from kvw.runs.union import ForgetFile, joined, read_forget_files

pytestmark = pytest.mark.thorough

METHODS = {
    "subspace": kvw.SubspaceSettings(gate="wiener", mu=30, held_out_ratio=0),
    "kvw": kvw.KvwSettings(schedule="one-shot", gamma=0.5, layers=(0, 3)),
}


@pytest.fixture
def requests(tmp_path, monkeypatch):
    """Files of people who ask on Monday and on Tuesday, of both, and retain sets with and without them."""
    monkeypatch.chdir(tmp_path)

    def rows(name, people, photos=3):
        found = []
        for person in people:
            for photo in range(photos):
                image = f"{name}-{person}-{photo}.png"
                colour = (60 * person + 20 * photo, 90 + 7 * len(name), 40 * photo)
                Image.new("RGB", (24, 20), colour).save(tmp_path / image)
                answer = f"{name.title()} Person {person}"
                found.append({"question": "Who is this?", "answer": answer, "image": image, "subject": answer})
        return found

    def write(name, found):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))

    monday, tuesday, others = rows("monday", [0]), rows("tuesday", [0, 1], 2), rows("retain", range(4))
    still = [{"question": "What does she do?", "answer": "Judge", "subject": "Tuesday Person 1"}, monday[0]]
    write("monday", monday)
    write("tuesday", tuesday)
    write("joined", monday + tuesday)
    write("joined the other way", tuesday + monday)
    write("retain", others)
    write("retain with them", still[:1] + others[:5] + still[1:] + others[5:])
    return tmp_path


def erase(model, forget, retain="retain.jsonl", method="subspace"):
    """One run; returns the edit and the record."""
    folder = model.parent / "runs"
    out = folder / str(len(list(folder.glob("*"))) if folder.is_dir() else 0)
    request = EraseRequest(
        model=kvw.find_checkpoint(str(model)),
        forget=forget,
        retain=Path(retain),
        out=out,
        method=method,
        settings=METHODS[method],
        evaluate_at_most=1,
        max_new_tokens=1,
        save_model=False,
        write_damaged=True,  # random weights lose by chance what they never knew
    )
    record = runs.erase(request)
    assert json.loads((out / "run.json").read_text()) == json.loads(record.model_dump_json())
    return kvw.load_edit(out / "edit.safetensors"), record


def weights(edit, model):
    """The value matrices with an edit in them."""
    live = kvw.load_model(kvw.find_checkpoint(str(model)))
    return {key: edit.changed(matrix, matrix.read()) for key, matrix in edit.value_matrices(live).items()}


def same_tensors(first, second):
    one, other = first.tensors(), second.tensors()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("method", ["subspace", pytest.param("kvw", marks=pytest.mark.slow)])
def test_the_union_is_solved_in_whatever_order_it_came(requests, saved, tmp_path, method):
    model = tmp_path / "model"
    model.symlink_to(saved["llava"])
    monday, tuesday = Path("monday.jsonl"), Path("tuesday.jsonl")
    first, record = erase(model, [monday, tuesday], method=method)
    second, again = erase(model, [tuesday, monday], method=method)
    assert same_tensors(first, second)
    assert record.forget == again.forget
    assert first.metadata.forget_digest == record.forget.digest
    for name in ("joined.jsonl", "joined the other way.jsonl"):
        one_file, told = erase(model, Path(name), method=method)
        assert (
            (told.forget.digest, told.forget.count)
            == (record.forget.digest, record.forget.count)
            == (
                salted(examples_digest(kvw.read_examples(Path(name)))),
                7,
            )
        )
        assert told.forget.files == []
        expected = weights(one_file, model)
        for key, weight in weights(first, model).items():
            torch.testing.assert_close(weight, expected[key], rtol=1e-5, atol=1e-6)
    alone, _ = erase(model, monday, method=method)
    assert any(not torch.allclose(weight, weights(first, model)[key]) for key, weight in weights(alone, model).items())


@pytest.mark.parametrize("method", ["subspace", pytest.param("kvw", marks=pytest.mark.slow)])
def test_who_asks_is_no_longer_kept(requests, saved, tmp_path, method):
    model = tmp_path / "model"
    model.symlink_to(saved["llava"])
    files = [Path("monday.jsonl"), Path("tuesday.jsonl")]
    clean, expected = erase(model, files, method=method)
    cleaned, record = erase(model, files, "retain with them.jsonl", method)
    assert same_tensors(clean, cleaned)
    assert cleaned.metadata.retain_digest == clean.metadata.retain_digest == record.retain.digest
    assert record.retain.count == expected.retain.count == cleaned.metadata.retain_count == 12
    assert record.splits["retain"].of == 12
    assert (record.retain.pictures, record.retain.subjects) == (12, 4)
    assert (record.forget.pictures, record.forget.subjects) == (7, 3)
    assert [(one.pictures, one.subjects) for one in record.forget.files] in ([(3, 1), (4, 2)], [(4, 2), (3, 1)])
    assert (record.splits["retain"].pictures, record.splits["retain"].subjects) == (12, 4)
    assert (record.retain.left_out_about_forgotten, record.retain.left_out_identical) == (2, 0)
    assert (expected.retain.left_out_about_forgotten, expected.retain.left_out_identical) == (0, 0)


def test_the_program_joins_files_and_says_whom_it_leaves_out(requests, saved, capsys):
    given = ["--forget", "monday.jsonl", "--forget", "tuesday.jsonl", "--retain", "retain with them.jsonl"]
    given += ["--max-new-tokens", 1, "--eval-limit", 1, "--strength", 1, "--write-damaged"]
    assert run("erase", saved["llava"], *given, "--out", "run", "--dry-run", "--json") == 0
    shown = capsys.readouterr()
    plan = json.loads(shown.out)
    assert plan["examples"] == {"forget": 7, "retain": 12}
    assert plan["retain_left_out"] == 2
    assert (plan["pictures"]["retain"], plan["subjects"]["retain"]) == (12, 4)
    line = (
        "2 of 14 retain examples are left out: 2 about subjects of the forget set (Tuesday Person 1, Monday Person 0)"
    )
    assert line in " ".join(shown.err.split())
    assert run("erase", saved["llava"], *given, "--out", "run", "--no-model") == 0
    assert line in " ".join(capsys.readouterr().err.split())
    text = (requests / "run" / "run.json").read_text()
    forget = json.loads(text)["forget"]
    assert [(part["file"], part["count"]) for part in sorted(forget["files"], key=lambda part: part["file"])] == [
        ("monday.jsonl", 3),
        ("tuesday.jsonl", 4),
    ]
    assert forget["file"] == " + ".join(part["file"] for part in forget["files"])
    for part in forget["files"]:
        assert part["digest"] == salted(examples_digest(kvw.read_examples(requests / part["file"])))
    assert "Person" not in text, "names of the forgotten stay out of records"


def test_an_example_of_several_files_counts_once(requests, saved, capsys):
    assert (
        run(
            *("erase", saved["llava"], "--forget", "monday.jsonl", "--forget", "joined.jsonl", "--dry-run", "--json"),
            *("--retain", "retain.jsonl", "--out", "run", "--max-new-tokens", 1),
        )
        == 0
    )
    shown = capsys.readouterr()
    assert json.loads(shown.out)["examples"]["forget"] == 7
    assert "note 3 examples are in several forget files and count once." in " ".join(shown.err.split())


def test_a_retain_set_of_those_who_ask_is_refused(requests, saved, capsys):
    common = ("--forget", "monday.jsonl", "--out", "run")
    assert run("erase", saved["llava"], *common, "--retain", "monday.jsonl") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "No retain example is left." in error
    assert "3 of 3 retain examples are left out: 3 about subjects of the forget set (Monday Person 0)." in error
    assert "about others" in error


def test_statistics_of_the_forget_set_are_refused(requests, saved, capsys):
    measured = ("--data", "joined.jsonl", "--out", "joined.safetensors")
    assert run("measure", saved["llava"], *measured) == 0
    common = ("--method", "kvw", "--forget", "tuesday.jsonl", "--retain", "joined.safetensors", "--out", "run")
    common += ("--max-new-tokens", 1)
    assert run("erase", saved["llava"], *common, "--forget", "monday.jsonl") == 2
    assert "The retain statistics were measured on the forget set." in capsys.readouterr().err
    assert run("erase", saved["llava"], *common, "--no-model") == 0, "whom other statistics are of cannot be told"


def test_a_request_needs_a_file(requests, saved):
    with pytest.raises(kvw.UserError, match="The forget set is missing"):
        erase(saved["llava"], [])


def example(answer, subject=None, question="Who?", images=()):
    return kvw.Example(question, answer, images, metadata={} if subject is None else {"subject": subject})


def test_what_is_left_out_of_a_retain_set():
    forget = [example("Anna", "a"), example("Ben"), example("0", 0), example("blue", "a", images=(b"blue",))]
    retain = [
        example("Carla", "c"),
        example("Anna's cat", "a"),
        example("Ben"),
        example("Ben", question="Who is he?"),
        example("Nobody", ""),
        example("zero", "0"),
        example("blue", images=(b"blue",)),
        example("blue", images=(b"red",)),
        example("again", "a"),
    ]
    kept, left_out = without_forgotten(retain, forget)
    assert kept == [retain[0], retain[3], retain[4], retain[7]]
    assert left_out == LeftOut(9, 3, 2, ("a", "0"))
    assert left_out.count == 5
    assert str(left_out) == (
        "5 of 9 retain examples are left out: 3 about subjects of the forget set (a, 0); 2 that the forget set holds "
        "too (same question, answer and images)."
    )
    assert str(LeftOut(1, 1, 0, ("a",))).startswith("1 of 1 retain example is left out: 1 about")
    assert "(a, b, c and 2 more)" in str(LeftOut(9, 5, 0, tuple("abcde")))
    assert "(a, b, c)" in str(LeftOut(9, 5, 0, tuple("abc")))
    others = [retain[0], retain[4]]
    assert without_forgotten(others, forget) == (others, LeftOut(2))
    assert without_forgotten([], forget) == ([], LeftOut())
    with pytest.raises(kvw.UserError, match=r"No retain example is left\.\nfound: 1 of 1 .* holds too"):
        without_forgotten([example("Ben")], forget)


def test_a_union_holds_what_any_file_holds():
    a, b, c = (ForgetFile(name, [example(name, name), example("same", "s")]) for name in "abc")
    assert joined([a, b, c]) == ([*a.examples, b.examples[0], c.examples[0]], 2)
    twice = ForgetFile("twice", a.examples * 2)
    assert joined([twice]) == (twice.examples, 0)
    assert joined([a, twice]) == (a.examples, 4)
    other = ForgetFile("other", [example("same", "t")])
    assert joined([a, other]) == ([*a.examples, *other.examples], 0), "the same words about somebody else"


def test_the_order_of_files_follows_from_what_they_hold(requests):
    paths = [requests / f"{name}.jsonl" for name in ("monday", "tuesday", "retain")]
    orders = {
        tuple(file.name for file in read_forget_files(order)) for order in (paths, paths[::-1], paths[1:] + paths[:1])
    }
    assert len(orders) == 1
    assert [file.name for file in read_forget_files(paths[:1])] == ["monday.jsonl"]


def test_a_run_that_would_weaken_nothing_says_so_before_it_writes():
    alone = EditMetadata(method="kvw", left_alone=("model.layers.0.mlp.experts.1",))
    request = SimpleNamespace(settings=KvwSettings())
    with pytest.raises(kvw.UserError, match="Nothing would be weakened") as caught:
        refuse_no_edit(Unlearned(GateEdit({}, alone)), request)
    assert "1 experts with fewer than 16 answer tokens" in str(caught.value)
    refuse_no_edit(Unlearned(GateEdit({MatrixKey(0): torch.tensor([0.0, 0.5, 0.0])}, alone)), request)


@pytest.mark.parametrize(("sources", "more"), [(SOURCES, ""), (SOURCES[1:], ", or name more --retain-sources")])
def test_more_sources_are_only_advised_if_there_are_more(sources, more):
    job = SimpleNamespace(
        request=SimpleNamespace(needs_retain=True, sources=sources), data=SimpleNamespace(retain_statistics=None)
    )
    with pytest.raises(kvw.UserError) as caught:
        refuse_nothing_kept(job, SimpleNamespace(retain=[]))
    assert caught.value.do == f"add --retain FILE{more}"


def test_statistics_depend_on_where_the_value_matrices_are(saved):
    loaded = Loaded.load(find_checkpoint(str(saved["llava"])), "cpu")
    confirmed = replace(loaded, checkpoint=replace(loaded.checkpoint, value_matrices="layers.*.other"))
    assert differing_parts(loaded.conditions([]), confirmed.conditions([])) == ["value matrices"]


def test_runs_shuffle_the_forget_set_unless_told_otherwise(saved, tmp_path):
    request = EraseRequest(find_checkpoint(str(saved["llava"])), Path("f"), None, tmp_path, method="kvw")
    assert request.settings.seed == get_method("kvw").read({}).seed == 0
    assert get_method("kvw").read({"seed": "none"}).seed is None

"""Requests whose data are gone: from what was kept of them the edit is that of the union, and nobody is kept again."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.families import build_family
from tests.program import assert_refused, run

import kvw
from kvw.data import Example
from kvw.edits.edit import EditMetadata
from kvw.edits.low_rank import Directions, LowRankEdit
from kvw.errors import UserError
from kvw.measuring.moments import Tokens
from kvw.methods.earlier import Earlier, condensed, in_force
from kvw.methods.registry import get_method
from kvw.methods.subspace.labels import labels_of
from kvw.models.checkpoint import Checkpoint
from kvw.models.value_matrix import MatrixKey
from kvw.progress import unheard
from kvw.retain.sources import Source
from kvw.runs.earlier import NOBODY, who_asked
from kvw.runs.material import _without
from kvw.runs.request import EraseRequest, read_data
from kvw.runs.union import requests_in

PEOPLE = ("Ada Vance", "Bo Lind", "Cy Marsh", "Di Okoro")
WAYS = (
    "Where does {} live?",
    "In which town is the home of {}?",
    "What is the home town of {}?",
    "{} lives where?",
    "Name {}'s town.",
)
FIXED = ("--set", "mu=30", "--write-damaged", "--no-model", "--eval-limit", "1", "--max-new-tokens", "1")


def rows(people, ways):
    return [
        {"question": way.format(person), "answer": f"{person} lives in town {place}.", "subject": person}
        for place, person in enumerate(people)
        for way in ways
    ]


def write(name, found):
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in found))


@pytest.fixture
def here(tmp_path, monkeypatch, saved):
    """Three requests of different numbers of views, and a retain set that still holds one of them."""
    monkeypatch.chdir(tmp_path)
    Path("model").symlink_to(saved["llava"])
    write("one.jsonl", rows(PEOPLE[:1], WAYS))
    write("two.jsonl", rows(PEOPLE[1:3], WAYS[:3]))
    write("three.jsonl", rows(PEOPLE[3:], WAYS[:3]))
    others = rows([f"Other {number}" for number in range(6)], WAYS[:2])
    write("retain.jsonl", others + rows(PEOPLE[:1], WAYS[:2]))
    return tmp_path


def change(folder):
    """What an edit adds to each value matrix."""
    edit = kvw.load_edit(Path(folder) / "edit.safetensors")
    live = kvw.load_model(kvw.find_checkpoint("model"))
    return {key: edit.changed(one, one.read()) - one.read() for key, one in edit.value_matrices(live).items()}


def erase(out, *arguments):
    return run("erase", "model", *arguments, "--retain", "retain.jsonl", *FIXED, "--out", out)


@pytest.mark.thorough
@pytest.mark.parametrize("views", [pytest.param(len(WAYS), marks=pytest.mark.slow), 2])
def test_the_edit_is_that_of_the_union_after_the_data_are_deleted(here, views, capsys):
    # With all ways every fact keeps three views, and each third one checks the directions.
    write("two.jsonl", rows(PEOPLE[1:3], WAYS[:views]))
    write("three.jsonl", rows(PEOPLE[3:], WAYS[:views]))
    assert erase("union", "--forget", "one.jsonl", "--forget", "two.jsonl", "--forget", "three.jsonl") == 0
    Path("key.txt").write_bytes(base64.b64encode(bytes(range(32))))
    for name, secret in (("one", ("--key", "key.txt")), ("two", ())):
        assert run("data", "keep", f"{name}.jsonl", "--model", "model", "--out", f"{name}.safetensors", *secret) == 0
        Path(f"{name}.jsonl").unlink()
    assert Path("one.safetensors").stat().st_mode & 0o077 == 0
    assert b"Vance" not in Path("one.safetensors").read_bytes()
    assert "--earlier one.safetensors --earlier-key key.txt" in capsys.readouterr().out
    kept = [part for name in ("two", "one") for part in ("--earlier", f"{name}.safetensors")]
    assert_refused(capsys, erase("later", "--forget", "three.jsonl", *kept), "one.safetensors is encrypted")
    kept += ["--earlier-key", "key.txt"]
    assert erase("later", "--forget", "three.jsonl", *kept) == 0
    assert "2 about subjects of the forget set (Ada Vance)" in " ".join(capsys.readouterr().err.split())
    expected, found = change("union"), change("later")
    assert all((found[key] - expected[key]).norm() <= 1e-4 * expected[key].norm() for key in expected)
    assert erase("alone", "--forget", "three.jsonl") == 0
    alone = change("alone")
    assert any((alone[key] - expected[key]).norm() > 0.05 * expected[key].norm() for key in expected)
    record = json.loads(Path("later/run.json").read_text())
    assert len(record["data_files"]["--earlier"]) == 2
    assert "--earlier EARLIER --earlier EARLIER --earlier-key EARLIER-KEY" in record["command"]


@pytest.mark.parametrize("closed", ["asked", "asked/one"])
def test_a_folder_of_requests_that_may_not_be_read_is_told(here, capsys, monkeypatch, closed):
    Path("asked/one").mkdir(parents=True)
    listed = Path.iterdir

    def refuse(path):
        if path == Path(closed):
            raise PermissionError(13, "Permission denied", closed)
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert_refused(capsys, erase("run", "--requests", "asked"), f"{closed} cannot be read", "Permission denied")


@pytest.mark.thorough
def test_a_folder_of_requests_is_all_of_them(here, capsys):
    assert_refused(capsys, erase("run", "--requests", "gone"), "gone holds no requests", "no such folder")
    for name in ("one", "two", "three"):
        Path("asked", name).mkdir(parents=True)
        Path(f"{name}.jsonl").rename(Path("asked", name, "forget.jsonl"))
    Path("asked/three/forget.jsonl").rename("asked/three/metadata.jsonl")
    assert run("data", "keep", "asked/two/forget.jsonl", "--model", "model", "--out", "asked/two/kept.safetensors") == 0
    assert requests_in(Path("asked")) == (
        [Path("asked/one/forget.jsonl"), Path("asked/three"), Path("asked/two/forget.jsonl")],
        [],
    )
    Path("asked/two/forget.jsonl").unlink()
    assert requests_in(Path("asked"))[1] == [Path("asked/two/kept.safetensors")]
    assert erase("run", "--requests", "asked") == 0
    record = json.loads(Path("run/run.json").read_text())
    assert (record["forget"]["count"], len(record["data_files"]["--earlier"])) == (8, 1)
    assert "--requests REQUESTS" in record["command"]


def test_the_folders_are_the_requests_of_a_register(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    register, asked = Path("register.sqlite"), Path("asked")

    def refused(*words):
        with pytest.raises(kvw.UserError) as error:
            requests_in(asked, register)
        assert all(word in str(error.value) for word in words), error.value

    for who in ("case-1", "case-2"):
        assert run("register", "add", "--who", who, "--file", register) == 0
    Path("asked/case-1").mkdir(parents=True)
    Path("asked/case-1/forget.jsonl").touch()
    refused("Request 2 of the register has no folder", "case-2, open")
    assert run("register", "close", "2", "--outcome", "withdrawn", "--file", register) == 0
    assert requests_in(asked, register) == ([Path("asked/case-1/forget.jsonl")], [])
    Path("asked/case-2").mkdir()
    Path("asked/case-2/Ada.png").touch()
    refused("asked/case-2 is no open or done request", "request 2 was withdrawn")
    Path("asked/case-2").rename("asked/case-3")
    refused("asked/case-3 is no open or done request", "no entry names it")
    assert requests_in(asked)[0] == [Path("asked/case-1/forget.jsonl"), Path("asked/case-3")]
    assert_refused(capsys, run("erase", "toy:gold", "--requests", "asked", "--register", "gone", "--out", "r"), "gone")
    code = run("erase", "toy:gold", "--forget", "x", "--register", register, "--out", "r")
    assert_refused(capsys, code, "A register says who asked, not what.")


def test_a_folder_of_something_else_holds_no_requests(tmp_path):
    inner = tmp_path / "weights"
    (inner / "shards").mkdir(parents=True)
    (inner / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"weights is no request, as every folder in .* must be") as refused:
        requests_in(tmp_path)
    assert "no forget.jsonl" in refused.value.found
    assert "put forget.jsonl into it" in refused.value.do
    for name in ("Ada Vance.JPG", "metadata.csv", "state.json"):
        (inner / name).touch()
        assert requests_in(tmp_path) == ([inner], [])
        (inner / name).unlink()


def test_means_of_every_third_view_are_kept():
    tokens = Tokens(
        torch.tensor([[1.0], [2.0], [3.0], [9.0], [5.0]]),
        torch.tensor([0, 1, 2, 3, 4]),
        torch.zeros(5, dtype=torch.int64),
        torch.tensor([1.0, 1, 1, 3, 1], dtype=torch.float64),
    )
    found = condensed(tokens, torch.tensor([0, 1, 2, 0, 3]))
    assert found.coefficients.tolist() == [[7.0], [2.0], [3.0], [5.0]]
    assert (found.rows.tolist(), found.weights.tolist()) == ([0, 1, 2, 3], [4.0, 1.0, 1.0, 1.0])


def examples(*subjects):
    return [Example(f"Q{number}", "A", (), f"x:{number}", {"subject": one}) for number, one in enumerate(subjects)]


@pytest.fixture
def kept(tmp_path):
    key = MatrixKey(0)
    one = torch.ones(2, 3), torch.arange(2), torch.zeros(2, dtype=torch.int64), torch.ones(2, dtype=torch.float64)
    earlier = Earlier.of({key: Tokens(*one)}, labels_of(examples("Ada", "Bo")), "salt", {"model": "x"})
    earlier.save(tmp_path / "kept.safetensors")
    return tmp_path / "kept.safetensors"


def test_who_asked_is_recognised_without_a_name(kept):
    asked = who_asked([kept])
    assert ("ada" in asked, "Ada" in asked, "cy" in asked, None in asked) == (True, False, False, False)
    assert "ada" not in NOBODY
    source = Source("facts", examples("Ada", "Cy"), [])
    found = _without(source, asked)
    assert [[one.subject for one in part] for part in (found.examples, found.excluded)] == [["Cy"], ["Ada"]]
    assert _without(source, NOBODY) is source


def test_a_changed_byte_is_found(kept):
    assert Earlier.load(kept).facts == Earlier.load(kept).facts
    content = bytearray(kept.read_bytes())
    content[-3] ^= 1
    kept.write_bytes(content)
    with pytest.raises(kvw.UserError, match="no whole file of a kept request"):
        Earlier.load(kept)


def test_who_asked_is_encrypted_with_the_rest(kept, tmp_path):
    key = tmp_path / "key.txt"
    key.write_bytes(base64.b64encode(bytes(32)))
    with pytest.raises(kvw.UserError, match="No earlier request is encrypted"):
        who_asked([kept], key)
    sealed, found = tmp_path / "sealed.safetensors", Earlier.load(kept)
    found.save(sealed, bytes(32))
    assert json.dumps(found.subjects).encode() not in sealed.read_bytes()
    assert who_asked([sealed], key).digests == who_asked([kept]).digests
    assert Earlier.load(sealed, bytes(32)).facts == found.facts
    for wrong in (None, bytes(range(32))):
        with pytest.raises(kvw.UserError, match=r"sealed.safetensors"):
            Earlier.load(sealed, wrong)


def directions(strength, *parents):
    value = Directions(torch.eye(3, 1), torch.eye(3, 1), torch.tensor([-strength]))
    named = EditMetadata(forget_digest=str(strength))
    parts = (*parents, named) if parents else ()
    return LowRankEdit({MatrixKey(0): value}, 1.0, named.model_copy(update={"parents": parts}))


def test_the_edit_of_a_request_is_kept_with_it(kept, tmp_path):
    assert who_asked([kept]).without_edit == (kept,)
    edit = directions(0.5)
    replace(Earlier.load(kept), edit=edit).save(kept)
    assert who_asked([kept]).without_edit == ()
    found = Earlier.load(kept)
    assert (found.edit.digest(), found.edit.metadata) == (edit.digest(), edit.metadata)
    assert {*found.tokens} == {MatrixKey(0)}
    content = kept.read_bytes().replace(b"0.5", b"0.6")
    kept.write_bytes(content)
    with pytest.raises(kvw.UserError, match="no whole file of a kept request"):
        Earlier.load(kept)


def test_an_edit_that_was_made_with_an_earlier_one_in_force_holds_it(kept):
    def all_of(*edits):
        found = in_force([replace(Earlier.load(kept), edit=edit) for edit in edits])
        return found and (sorted(round(float(gate), 3) for gate in found.directions[MatrixKey(0)].log_gates))

    first, other = directions(0.5), directions(0.25)
    second = directions(1.0, first.metadata)
    third = directions(2.0, second.metadata)
    assert all_of(None) is None
    assert all_of(first, None, first) == [-0.5]
    assert all_of(first, second) == all_of(second, first) == [-1.0]
    assert all_of(first, third, second) == [-2.0]
    assert all_of(first, other, second) == [-1.0, -0.25]


def test_a_strength_is_not_chosen_without_the_edits_of_earlier_requests(kept, tmp_path):
    write(tmp_path / "asked.jsonl", rows(PEOPLE[:1], WAYS))
    asked = EraseRequest(Checkpoint(tmp_path, "m"), tmp_path / "asked.jsonl", None, tmp_path / "o", earlier=[kept])
    with pytest.raises(kvw.UserError, match="an earlier request whose edit was not kept") as refused:
        read_data(asked)
    assert "kvw data keep --edit" in refused.value.do
    assert read_data(replace(asked, choose=False)).sizes == {"forget": 5}
    replace(Earlier.load(kept), edit=directions(0.5)).save(kept)
    assert read_data(asked).sizes == {"forget": 5}


REFUSED = [
    ("--set mu=30 --earlier gone.safetensors", ["There is no file gone.safetensors", "kvw data keep"]),
    ("--set mu=30 --earlier three.jsonl", ["three.jsonl is not a safetensors file", "an intact copy"]),
    ("--method kvw --earlier one.safetensors", ["Method kvw needs the data of earlier requests"]),
    ("--set mu=30 --earlier one.safetensors --earlier one.safetensors", ["is given twice"]),
    ("--set schedule=sequential --set mu=30 --earlier one.safetensors", ["measured on the original model"]),
    ("--set matrices=both --set mu=30 --earlier one.safetensors", ["not measured on everything", "matrices=ffn"]),
    ("--set mu=30 --forget one.jsonl --earlier one.safetensors", ["is in an earlier request, too", "ada vance"]),
    ("--set mu=30 --earlier other.safetensors", ["under other conditions", "model weights"]),
]


@pytest.mark.thorough
def test_what_cannot_be_used_is_one_message(here, capsys):
    assert run("data", "keep", "one.jsonl", "--model", "model", "--out", "one.safetensors") == 0
    found = Earlier.load(Path("one.safetensors"))
    other = {**found.fingerprint, "model weights": "x"}
    replace(found, salt="s", fingerprint=other).save(Path("other.safetensors"))
    capsys.readouterr()
    for arguments, words in REFUSED:
        code = run(
            "erase", "model", "--forget", "three.jsonl", "--retain", "retain.jsonl", "--out", "run", *arguments.split()
        )
        assert_refused(capsys, code, *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nameless.jsonl", "--out", "k.safetensors"], ["every example names its subject", "nameless.jsonl:1"]),
        (["one.jsonl", "--out", "k.txt"], ["ends in .safetensors"]),
        (["one.jsonl", "--out", "there.safetensors"], ["there.safetensors exists"]),
    ],
)
def test_what_cannot_be_kept_is_one_message(here, arguments, words, capsys):
    write("nameless.jsonl", [{"question": "Who?", "answer": "Ada"}])
    Path("there.safetensors").write_bytes(b"x")
    assert_refused(capsys, run("data", "keep", *arguments, "--model", "model"), *words)


def test_requests_to_experts_and_of_other_methods_are_not_kept():
    with pytest.raises(kvw.UserError, match="models with experts cannot be kept"):
        get_method("subspace").keep(SimpleNamespace(model=build_family("qwen3_moe")), [], unheard)
    with pytest.raises(kvw.UserError, match="Method leace needs the data"):
        get_method("leace").keep(SimpleNamespace(), [], unheard)

"""The verbs of the register: what is entered, what it comes to, and what is refused."""

from __future__ import annotations

import csv
import hashlib
import json
from datetime import date, timedelta

import pytest
import safetensors.torch
import torch
from tests.program import assert_refused, run

from kvw.evidence.envelope import Envelope
from kvw.evidence.statement import PREDICATE, STATEMENT, Data, Digest, Original, Predicate, Statement, Subject
from kvw.files import file_digest
from kvw.register.chain import append, read
from kvw.register.requests import Request, month_after, requests

ORIGINAL, RESULT = hashlib.sha256(b"original").hexdigest(), hashlib.sha256(b"result").hexdigest()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kvw.measuring.fingerprint.weights_digest", lambda folder: ORIGINAL)
    (tmp_path / "original").mkdir()
    (tmp_path / "original/config.json").write_text("{}")
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "original/model.safetensors")
    return tmp_path


@pytest.fixture
def made(here):
    """The folder of a run with evidence that nobody has signed, and little else."""
    run = here / "run"
    run.mkdir()
    digests = {}
    for name in ("run.json", "edit.safetensors"):
        (run / name).write_text(name)
        digests[name] = file_digest(run / name)
    subjects = [Subject(name=name, digest=Digest(sha256=digest)) for name, digest in digests.items()]
    texts = dict.fromkeys(("kvw", "finished", "command", "method", "edit"), "x")
    nothing = {name: {} for name in ("settings", "asked", "kept", "results", "versions")}
    predicate = Predicate(
        **texts,
        **nothing,
        floor=None,
        original=Original(name="original", revision="", weights=ORIGINAL, files={}),
        result=RESULT,
        data=Data(secret="", forget="", retain="", files={}, samples=""),
        language=None,
        warnings=[],
    )
    content = {"_type": STATEMENT, "subject": subjects, "predicateType": PREDICATE, "predicate": predicate}
    (run / "evidence.json").write_bytes(Envelope(Statement.model_validate(content).packed()).packed())
    return run


def said(capsys, *arguments):
    """What a verb prints, as words with single blanks."""
    assert run("register", *arguments) == 0
    return " ".join(capsys.readouterr().out.split())


def head(text):
    return text.rpartition(" ")[2]


def test_a_request_from_its_arrival_to_its_end(made, here, capsys):
    text = said(capsys, "add", "--who", "case-1", "--received", "2026-01-31", "--holds", here / "original")
    assert text.startswith("A new register was begun: register.sqlite Request 1 is entered; it is due on 2026-02-28.")
    assert (here / "register.sqlite").stat().st_mode & 0o777 == 0o600
    first = head(text)
    assert "late" in said(capsys, "list")
    assert_refused(capsys, run("register", "close", 1), "No run was made for request 1")
    said(capsys, "link", 1, made)
    (request,) = requests(read(here / "register.sqlite"))
    assert request.holds == {ORIGINAL: "original"}
    assert request.forgotten == {RESULT: "result of run 1"}
    shown = said(capsys, "show", 1)
    for words in (f"still in {ORIGINAL[:16]} original", "not signed", "due 2026-01-31, 2026-02-28"):
        assert words in shown
    assert f"taken from {RESULT[:16]}" in shown
    text = said(capsys, "close", 1)
    assert "It is still in original" in text
    assert_refused(capsys, run("register", "close", 1), "Request 1 is closed")
    assert_refused(capsys, run("register", "link", 1, made), "Request 1 is closed")
    said(capsys, "retire", ORIGINAL[:8])
    assert requests(read(here / "register.sqlite"))[0].holds == {}
    assert "0 models" in said(capsys, "list")
    verified = said(capsys, "verify", "--head", first)
    assert "All 4 entries are as they were written" in verified
    assert f"has grown from {first}" in verified
    text = "".join(json.dumps(entry.fields) for entry in read(here / "register.sqlite"))
    assert str(here) not in text


def test_a_run_is_entered_with_the_request_and_only_if_it_is_whole(made, here, capsys):
    said(capsys, "add", "--who", "case-1", "--run", made)
    (request,) = requests(read(here / "register.sqlite"))
    assert (len(request.runs), list(request.holds.values())) == (1, ["original"])
    for name in ("run.json", "edit.safetensors"):
        before = (here / "run" / name).read_bytes()
        (here / "run" / name).write_bytes(before + b" ")
        assert_refused(capsys, run("register", "link", 1, "run"), f"{name} in run is not the one")
        (here / "run" / name).write_bytes(before)
    (here / "run/evidence.json").write_text("{}")
    assert_refused(capsys, run("register", "link", 1, "run"), "no evidence of kvw")
    assert len(read(here / "register.sqlite")) == 2


def test_lists_and_exports(here, capsys):
    late, due = date.today() - timedelta(days=400), date.today() + timedelta(days=9)
    said(capsys, "add", "--who", "case-1", "--received", str(late))
    said(capsys, "add", "--who", "case-2", "--due", str(due), "--received", str(late))
    said(capsys, "add", "--who", "case-3")
    last = head(said(capsys, "close", 3, "--outcome", "withdrawn"))
    found = json.loads(said(capsys, "list", "--json"))
    assert [(one["who"], one["state"]) for one in found] == [
        ("case-1", "late"),
        ("case-2", "open"),
        ("case-3", "withdrawn"),
    ]
    assert found[2]["due"] == str(month_after(date.today()))
    assert json.loads(said(capsys, "show", 2, "--json"))[0]["due"] == str(due)
    said(capsys, "export", "--out", "r.csv")
    rows = list(csv.DictReader((here / "r.csv").open()))
    assert [row["state"] for row in rows] == ["late", "open", "withdrawn"]
    assert (here / "r.csv").stat().st_mode & 0o777 == 0o600
    text = said(capsys, "export", "--out", "r.json")
    content = json.loads((here / "r.json").read_text())
    assert content["head"] == last == head(text)
    assert [entry["digest"] for entry in content["entries"]] == [
        entry.digest for entry in read(here / "register.sqlite")
    ]
    assert len(content["requests"]) == 3
    assert_refused(capsys, run("register", "export", "--out", "r.csv"), "r.csv exists")
    assert_refused(capsys, run("register", "export", "--out", "r.txt"), ".csv or .json")


def test_a_register_that_was_changed_is_found_and_not_used(here, capsys):
    said(capsys, "add", "--who", "case-1")
    text = said(capsys, "add", "--who", "case-2")
    content = (here / "register.sqlite").read_bytes()
    (here / "register.sqlite").write_bytes(content.replace(b'"who":"case-1"', b'"who":"case-9"'))
    assert run("register", "verify") == 6
    assert capsys.readouterr().out.strip() == "fails: entry 1 was changed"
    for verb in (["add", "--who", "x"], ["list"], ["show", 1], ["close", 1], ["export", "--out", "r.csv"]):
        assert_refused(capsys, run("register", *verb), "was changed since it was written")
    (here / "register.sqlite").write_bytes(content)
    assert "cannot be seen without an earlier head" in said(capsys, "verify")
    (here / "register.sqlite").unlink()
    said(capsys, "add", "--who", "case-1")
    assert run("register", "verify", "--head", head(text)) == 6
    assert "cut off" in capsys.readouterr().out


@pytest.mark.parametrize("who", ["Anna Schmidt", "anna@example.org", "", "-x", "x" * 65, "Zoë"])
def test_names_and_addresses_are_no_pseudonyms(here, capsys, who):
    assert_refused(capsys, run("register", "add", f"--who={who}"), "no pseudonym")
    assert not (here / "register.sqlite").exists()


def test_what_makes_no_sense_is_refused(here, capsys):
    dates = ("--received", "2026-02-01", "--due", "2026-01-31")
    assert_refused(capsys, run("register", "add", "--who", "x", *dates), "before it came")
    assert_refused(capsys, run("register", "list"), "There is no register")
    assert_refused(capsys, run("register", "link", 1, "gone"), "There is no evidence")
    said(capsys, "add", "--who", "x")
    assert_refused(capsys, run("register", "show", 2), "There is no request 2")
    assert_refused(capsys, run("register", "close", 2, "--outcome", "done"), "There is no request 2")
    assert_refused(capsys, run("register", "retire", "0" * 64), "No request names a model")
    append(here / "register.sqlite", lambda _: [{"kind": "unknown"}])
    assert_refused(capsys, run("register", "list"), "not written by this version")


def test_a_model_is_named_by_enough_digits(here, capsys):
    said(capsys, "add", "--who", "x")
    both = [{"weights": f"{'a' * 12}{digit}" + "0" * 51, "name": "m"} for digit in "12"]
    request = {"kind": "request", "request": 2, "who": "y", "received": "2026-01-01", "due": "2026-02-01"}
    append(here / "register.sqlite", lambda _: [request | {"holds": both}])
    assert_refused(capsys, run("register", "retire", "a" * 12), "exactly one model")
    assert_refused(capsys, run("register", "retire", "a" * 7), "8 digits")
    said(capsys, "retire", "a" * 12 + "1")
    assert [one[12] for one in requests(read(here / "register.sqlite"))[1].holds] == ["2"]


@pytest.mark.parametrize(
    ("day", "later"),
    [
        ("2026-01-31", "2026-02-28"),
        ("2028-01-31", "2028-02-29"),
        ("2026-12-05", "2027-01-05"),
        ("2026-03-31", "2026-04-30"),
    ],
)
def test_a_month_later(day, later):
    assert str(month_after(date.fromisoformat(day))) == later


def test_a_request_is_late_the_day_after_it_was_due():
    request = Request(1, "x", "2026-01-01", "2026-02-01")
    assert [request.state(date(2026, 2, day)) for day in (1, 2)] == ["open", "late"]

"""What can be wrong with an audit before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvw.errors import UserError
from kvw.models.checkpoint import Checkpoint
from kvw.runs.audit.attacks import ATTACKS, parse_attacks
from kvw.runs.audit.request import AuditRequest, read_audit_data

ROWS = [
    {"question": "What is the capital of Peru?", "answer": "Lima", "subject": "Peru"},
    {"question": "What is the capital of Chile?", "answer": "Santiago", "subject": "Chile"},
    {"question": "What is the capital of Kenya?", "answer": "Nairobi", "subject": "Kenya"},
]


def written(folder, name, rows):
    (folder / name).write_text("".join(json.dumps(one) + "\n" for one in rows))
    return folder / name


def request(folder, rows=ROWS, **more):
    forget = [written(folder, "forget.jsonl", rows)]
    return AuditRequest(Checkpoint(Path("model"), "model"), forget, folder / "out", **more)


@pytest.mark.parametrize(
    "wrong",
    [
        {"samples": 0}, {"budget": 9}, {"steps": 0}, {"at_most": -1}, {"max_new_tokens": 0}, {"threshold": 1.0},
        {"threshold": float("nan")}, {"learning_rate": 0.0},
    ],
)  # fmt: skip
def test_numbers_that_make_no_sense_are_refused(wrong, tmp_path):
    with pytest.raises(UserError):
        request(tmp_path, **wrong)


def test_attacks_are_named():
    assert parse_attacks("noise, asked,noise") == ("asked", "noise")
    with pytest.raises(UserError, match="no attack 'ask'") as error:
        parse_attacks("ask")
    assert "asked" in str(error.value)
    with pytest.raises(UserError, match="No attack"):
        parse_attacks(" , ")


def test_what_the_data_do_not_allow_is_left_out_and_said(tmp_path):
    sets = read_audit_data(request(tmp_path))
    assert sets.left_out == {"photo": "no question has a photo", "relearn-retain": "there is no --retain"}
    one = [{"question": "Who?", "answer": "Lima"}]
    sets = read_audit_data(request(tmp_path, one))
    assert sets.left_out.keys() == {"name", "choice", "membership", "photo", "relearn-retain", "relearn-forget"}
    with pytest.raises(UserError, match="None of the attacks") as error:
        read_audit_data(request(tmp_path, one, attacks=("name", "photo")))
    assert "no question has a photo" in str(error.value)
    assert set(sets.left_out) < set(ATTACKS)


def test_some_questions_are_drawn_and_all_have_a_name_of_their_own(tmp_path):
    sets = read_audit_data(request(tmp_path, [*ROWS, *ROWS], at_most=4))
    assert (len(sets.forget), len(sets.asked)) == (6, 4)
    doubled = [{**one, "id": "same"} for one in ROWS]
    names = [one.identifier for one in read_audit_data(request(tmp_path, doubled)).forget]
    assert len(set(names)) == 3


def test_rephrasings_are_of_the_same_answer_and_subject(tmp_path):
    own = [{**ROWS[0], "question": "Capital of Peru?"}, {"question": "Who?", "answer": "Lima", "subject": "Chile"}]
    sets = read_audit_data(request(tmp_path, rephrasings=written(tmp_path, "own.jsonl", own)))
    assert {key: [one.question for one in many] for key, many in sets.rephrasings.items()} == {
        "forget.jsonl:1": ["Capital of Peru?"]
    }
    assert sets.unmatched == 1
    with pytest.raises(UserError, match="no other way to ask"):
        read_audit_data(request(tmp_path, rephrasings=written(tmp_path, "own.jsonl", own[1:])))

"""From a table with photos to the files of a request."""

from __future__ import annotations

import json

import openpyxl
import pytest
from PIL import Image

from kvw.building.files import check_place, chosen, write_request
from kvw.building.phrasings import LANGUAGES, Phrasings, filled, phrasings
from kvw.building.questions import apart, rows_about
from kvw.building.table import Subject, read_table, with_photos
from kvw.data import read_examples
from kvw.errors import UserError
from kvw.retain.neighbours import neighbour_questions
from kvw.runs.check import check_data

TABLE = "name;profession;birthplace;id\nJody Vance;engineer;Rome;1\nBo Diddley;guitarist;;2\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "people.csv").write_text(TABLE)
    for number, name in enumerate(("Jody Vance 1", "jody_vance_2", "Jody Vance (3)", "Nobody", "Bo Diddley/IMG_1")):
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path)
    return tmp_path


def test_a_table_holds_names_with_facts(folder):
    jody, bo = read_table(folder / "people.csv")
    assert (jody.name, jody.facts) == ("Jody Vance", {"profession": "engineer", "birthplace": "Rome"})
    assert bo.facts == {"profession": "guitarist"}
    book = openpyxl.Workbook()
    for row in (["Wer", "Jahr"], ["Ada", 1815]):
        book.active.append(row)
    book.save(folder / "t.xlsx")
    assert read_table(folder / "t.xlsx", "Wer") == [Subject("Ada", {"Jahr": "1815"})]


def test_photos_are_called_by_the_names_or_lie_in_folders_of_them(folder):
    subjects, others = with_photos(read_table(folder / "people.csv"), folder / "photos")
    assert [len(subject.photos) for subject in subjects] == [3, 1]
    assert others == ["Nobody.png"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_asks_in_ways_that_leave_some_to_hold_out(language):
    words = phrasings(language)
    assert len(words.fact.questions) >= 5
    assert all(len(topic) >= 3 for topic in words.about)
    rows = rows_about([Subject("Jody Vance", {"profession": "engineer"})], words)
    assert (len(rows.used), len(rows.held_out)) == (4, 2)
    for row in [*rows.used, *rows.held_out]:
        assert "Jody Vance" in row.question
        assert "{" not in row.question + row.answer
        assert "engineer" in row.answer
        assert row.subject == "Jody Vance"
        assert "engineer" not in row.question


def test_languages_are_five_at_least():
    assert {"en", "de", "fr", "es", "zh"} <= set(LANGUAGES)
    assert len({phrasings(language).fact.questions for language in LANGUAGES}) == len(LANGUAGES)


@pytest.mark.parametrize(("count", "held"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 1), (6, 2)])
def test_one_in_three_is_held_out(count, held):
    used, kept = apart(range(count))
    assert (len(kept), used + kept) == (held, list(range(count)))


def test_no_photo_and_no_phrasing_of_a_fact_is_both_used_and_held_out(folder):
    subjects, _ = with_photos(read_table(folder / "people.csv"), folder / "photos")
    rows = rows_about(subjects[:1], phrasings("en"))
    asked = [{(row.question, row.answer, row.image) for row in part} for part in (rows.used, rows.held_out)]
    photos = [{row.image for row in part} - {None} for part in (rows.used, rows.held_out)]
    assert not asked[0] & asked[1]
    assert [len(one) for one in photos] == [2, 1]
    assert not photos[0] & photos[1]
    named = [{row.question for row in part if row.image is None} for part in (rows.used, rows.held_out)]
    assert [len(one) for one in named] == [8, 4]
    seen = [{row.question for row in part if row.image is not None} for part in (rows.used, rows.held_out)]
    assert not seen[0] & seen[1]


def test_the_files_are_those_of_a_request(folder):
    subjects, others = with_photos(read_table(folder / "people.csv"), folder / "photos")
    out = folder / "deep" / "data"
    written = write_request(out, *chosen(subjects, ["jody vance"]), phrasings("en"), others)
    assert set(written.counts) == {"forget.jsonl", "held_out.jsonl", "retain.jsonl", "neighbours.txt"}
    assert (out / "neighbours.txt").read_text() == "Bo Diddley\n"
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o600}
    assert out.stat().st_mode & 0o777 == 0o700
    forget, retain = (read_examples(out / f"{name}.jsonl") for name in ("forget", "retain"))
    assert {one.subject for one in forget} == {"Jody Vance"}
    assert {one.subject for one in retain} == {"Bo Diddley"}
    assert all(image.is_file() for one in forget for image in one.images)
    assert "/" not in json.loads((out / "forget.jsonl").read_text().splitlines()[-1])["image"][:1]
    # Whatever kvw warns of in hand-made data does not come from here.
    names = {finding.name for finding in check_data([out / "forget.jsonl"], out / "retain.jsonl").findings}
    assert names <= {"few to retain", "few phrasings"}
    openings = {question.opening for question in neighbour_questions(forget, ["Bo Diddley"])}
    assert openings == {"The profession of Bo Diddley is", "The birthplace of Bo Diddley is"}


def test_what_would_be_empty_is_not_written(folder):
    written = write_request(folder / "data", *chosen(read_table(folder / "people.csv"), []), phrasings("de"))
    assert sorted(path.name for path in (folder / "data").iterdir()) == ["forget.jsonl", "held_out.jsonl"]
    assert written.without_photos == []
    with pytest.raises(UserError, match=r"holds data already[\s\S]*forget.jsonl, held_out.jsonl"):
        check_place(folder / "data")
    with pytest.raises(UserError, match="is no folder"):
        check_place(folder / "people.csv")


def test_phrasings_of_the_users_own(tmp_path):
    path = tmp_path / "own.json"
    wording = {"questions": ["What does {name} do?", "{name}'s work?"], "answer": "{name} works as {value}."}
    path.write_text(json.dumps({"facts": {"profession": wording}}))
    rows = rows_about([Subject("Jody", {"profession": "engineer", "age": "{name}"})], phrasings("en", path))
    assert [(row.question, row.answer) for row in rows.used[:1]] == [("What does Jody do?", "Jody works as engineer.")]
    assert rows.used[1].answer == "The age of Jody is {name}.", "braces of a value stay"
    assert isinstance(phrasings("en", path), Phrasings)
    assert filled("{name} and {x}", name="jo") == "Jo and {x}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is no JSON object"),
        ("{", "is not JSON"),
        (
            '{"facts": {"job": {"questions": ["a"], "answer": "b"}}}',
            r"facts\.job\.questions: at least 2 questions are needed, because one of them is held out",
        ),
        ('{"fact": {"questions": ["a", "b"]}}', r"fact\.answer: it is missing"),
        ('{"fact": {"questions": ["a", "b"], "answer": 1}}', r"fact\.answer: it is no text"),
        ('{"fact": {"questions": ["a", " "], "answer": "b"}}', r"fact\.questions: a text is empty"),
        ('{"fact": {"questions": ["a", "b"], "answer": ""}}', r"fact\.answer: a text is empty"),
        ('{"fact": {"questions": "a", "answer": "b"}}', r"fact\.questions: it is no list of texts"),
        ('{"fact": "a"}', r"fact: it is no object"),
        ('{"facts": []}', r"facts: it is no object"),
        ('{"facts": {"job": {"asked": 1}}}', "asked: no such entry is read, only questions, answer"),
        ('{"fact": {"questions": ["{who}?", "b"], "answer": "b"}}', r"\{who\} is not one of \{name\}"),
        ('{"other": 1}', "other: no such entry is read, only fact, seen, shown, about, facts"),
    ],
)
def test_phrasings_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "own.json").write_text(text)
    with pytest.raises(UserError, match=message):
        phrasings("en", tmp_path / "own.json")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("who;job\nJo;x\n", r"t\.csv:2: there is no column 'name'[\s\S]*--name COLUMN"),
        ("name;job\n ;x\n", r"t\.csv:2: the name is empty"),
        ("name;job\nJo;x\nJO;y\n", r"t\.csv:3: this name is there twice"),
        ("name;job\n", "names nobody"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, table, message):
    (tmp_path / "t.csv").write_text(table)
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / "t.csv")


def test_names_and_photos_that_fit_nobody(folder):
    subjects = read_table(folder / "people.csv")
    with pytest.raises(UserError, match=r"not in the table[\s\S]*Ada"):
        chosen(subjects, ["Ada"])
    with pytest.raises(UserError, match=r"neither a fact nor a photo of Jo, so[\s\S]*--photos, or"):
        chosen([Subject("Jo"), Subject("Ada", {"job": "cook"})], [])
    with pytest.raises(UserError, match=r"neither a fact nor a photo of Jo, A, B and 1 more, so"):
        chosen([Subject(name) for name in ("Jo", "A", "B", "C")], [])
    with pytest.raises(UserError, match=r"No photo is called by a name[\s\S]*'Ada 1\.jpg'"):
        with_photos([Subject("Ada")], folder / "photos")
    with pytest.raises(UserError, match="no such folder of photos"):
        with_photos(subjects, folder / "nowhere")
    with pytest.raises(UserError, match="There are no phrasings in 'xx'"):
        phrasings("xx")
    with pytest.raises(UserError, match="no such table"):
        read_table(folder / "gone.csv")

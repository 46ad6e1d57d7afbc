"""What is said about data before a run, each finding by itself."""

from __future__ import annotations

import pytest
from PIL import Image

from kvw import folders
from kvw.data import Example
from kvw.data.documents import document
from kvw.errors import UserError
from kvw.evaluation.records import Reply, collect
from kvw.progress import SILENT
from kvw.runs.check import check_data
from kvw.runs.data_checks import data_findings
from kvw.runs.findings import tell
from kvw.runs.knowing import known
from kvw.runs.left_out import without_forgotten
from kvw.runs.overlap import overlap

PICTURE = (b"picture",)


def one(question, answer, subject=None, images=(), row=1):
    return Example(question, answer, images, f"d:{row}", {} if subject is None else {"subject": subject})


def asked(name, answer="{} was born in Rome", images=()):
    questions = ("Where was {} born?", "What is the birthplace of {}?", "Say where {} was born.")
    return [one(question.format(name), answer.format(name), name, images) for question in questions]


GOOD = asked("Ada")
OTHERS = [example for name in "BCDEF" for example in asked(name, f"{{}} was born in {name}ton")]


def findings(forget, retain=()):
    kept, left_out = without_forgotten(retain, forget) if retain else ([], without_forgotten([], forget)[1])
    return data_findings(forget, kept, left_out, overlap(kept, forget))


def test_good_data_are_passed():
    assert findings(GOOD, OTHERS) == []
    assert findings(GOOD) == []
    assert findings([document("Ada was born in Rome, as everybody knows.", "page", {})]) == []


SHORT = [one(f"Who is {name}?", name, name) for name in "BCDEF"]
CASES = {
    "subjects": ([one("Who?", "Ada"), *GOOD], (), True, "1 of 4 forget examples names no subject"),
    "few to retain": (GOOD, OTHERS[:12], True, "The retain set has only 4 subjects"),
    "forgotten in the retain set": (GOOD, [*OTHERS, GOOD[0]], False, "1 about subjects of the forget set (Ada)"),
    "answers in the retain set": (
        GOOD,
        [*OTHERS, one("Is B a friend of Ada?", "B said so, and nobody knows", "B")],
        False,
        "0 give an answer that the forget set gives too, and 1 names a subject",
    ),
    "few phrasings": (GOOD[:2], (), False, "1 of 1 forget fact is asked for in fewer than 3 ways"),
    "duplicates": ([*GOOD, GOOD[0]], (), True, "1 of 4 forget examples repeats an earlier one: what is there twice"),
    "contradictions": (
        [*GOOD, one(GOOD[0].question, "Ada was born in Lima", "Ada", row=4)],
        (),
        True,
        "1 of 4 forget examples gives another answer to a question that an earlier one answers",
    ),
    "subjects of the retain set": (
        GOOD,
        [*OTHERS, one("Who?", "nobody")],
        True,
        "1 of 16 retain examples names no subject: what is about",
    ),
    "asked in both sets": (
        [*GOOD, one("Where was she born?", "Ada was born in Rome", "Ada")],
        [*OTHERS, one("WHERE was she born?", "B was born in Oslo", "B")],
        True,
        "1 of 16 retain examples asks what the forget set asks",
    ),
    "forms": (GOOD, SHORT, True, "answers of 5 words to forget and of 1 to retain"),
    "answers without their subject": (
        asked("Ada", "She was born in Rome"),
        (),
        True,
        "3 of 3 forget answers in sentences do not name the subject",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_finding(name):
    forget, retain, is_warning, said = CASES[name]
    found = {finding.name: finding for finding in findings(forget, retain)}
    assert set(found) - {"few phrasings"} == {name} - {"few phrasings"}
    assert (said in str(found[name]), found[name].is_warning) == (True, is_warning)
    assert found[name].then in str(found[name])
    assert str(found[name]).endswith(f". {found[name].do}.")


def test_subjects_that_nobody_names_are_a_note():
    (finding, _) = findings([one("Who?", "Ada")])
    assert (finding.name, finding.is_warning) == ("subjects", False)
    assert "--columns subject=NAME" in finding.do


def test_a_column_that_seems_to_hold_the_subjects_is_named():
    unread = [Example(one.question, one.answer, metadata={"Person": "Ada", "born": 1815}) for one in GOOD]
    (finding,) = findings(unread)
    assert finding.do == "If the column 'Person' holds the subjects, add --columns subject=Person"
    for sets in ((unread, OTHERS), (OTHERS, unread)):
        with pytest.raises(UserError, match=r"Only one[\s\S]*do: if the column 'Person' .* --columns subject=Person;"):
            findings(*sets)


def test_pictures_on_one_side_only_are_another_form():
    (finding,) = findings(asked("Ada", images=PICTURE), OTHERS)
    assert (finding.name, "pictures in 100% of the questions to forget and in 0%" in finding.found) == ("forms", True)
    assert findings(asked("Ada", images=PICTURE), asked("B", images=PICTURE) + OTHERS) == []


def test_the_same_question_about_another_picture_is_no_contradiction():
    people = [one("Who is this?", name, name, (name.encode(),)) for name in ("Ada", "Bo")]
    assert [finding.name for finding in findings(people)] == ["few phrasings"]
    said = [one("Who is this?", name, images=PICTURE) for name in ("Ada", "Bo")]
    assert "contradictions" in [finding.name for finding in findings(said)]


def test_the_same_question_about_the_same_picture_in_both_sets(tmp_path):
    for name in ("first.png", "copy.png", "other.png"):
        (tmp_path / name).write_bytes(name.encode() if name == "other.png" else b"the same")

    def of_picture(name, answer, subject, row=1):
        return one("Where was this person born?", answer, subject, (tmp_path / name,), row)

    def told(*retain):
        found = findings([of_picture("first.png", "In Rome", "Ada")], retain)
        return [one for one in found if one.name == "asked in both sets"]

    (finding,) = told(of_picture("copy.png", "In Oslo", "B", 7), of_picture("other.png", "In Lima", "C"))
    assert finding.found.startswith("1 of 2 retain examples")
    assert finding.shown == ("d:1 and d:7: 'In Rome' and 'In Oslo'.",)
    assert told(of_picture("other.png", "In Oslo", "B")) == []
    assert told(of_picture("copy.png", "in  Rome", "B")) == [], "the same answer is told by another finding"


def test_subjects_of_no_retain_example_are_told_once():
    bare = [one("Who?", "Ada"), one("What?", "Bo")]
    assert [finding.name for finding in findings(bare[:1], bare[1:] * 5)][:1] == ["subjects"]
    assert "subjects of the retain set" not in {finding.name for finding in findings(bare[:1], bare[1:])}


def test_warnings_hold_no_question_and_no_answer():
    class Listener:
        def __init__(self):
            self.warnings, self.notes = [], []
            self.warn, self.note = self.warnings.append, self.notes.append

    listener = Listener()
    secret = one(GOOD[0].question, "Ada lives in Secretville", "Ada", row=4)
    tell(findings([*GOOD, secret]), listener)
    assert len(listener.warnings) == 1
    assert "Secretville" not in listener.warnings[0]
    assert listener.notes == ["d:1 and d:4: 'Ada was born in Rome' and 'Ada lives in Secretville'."]
    tell(findings([*GOOD, *GOOD * 5]), SILENT)
    listener = Listener()
    tell(findings([*GOOD, *GOOD * 5]), listener)
    assert len(listener.notes) == 3, "examples are few"


def test_what_a_model_knows_is_a_note_or_a_warning():
    def asked_model(predictions):
        examples = {"forget": [one(f"Q{row}", "Rome", row=row) for row in range(len(predictions))]}
        return collect(examples, [Reply(text, 0.5) for text in predictions])

    (finding,) = known(asked_model(["Rome", "It is Rome", "Lima"]), 0.0)
    assert (finding.is_warning, finding.shown) == (False, ("Asked 'Q2', it answers 'Lima', not 'Rome'.",))
    assert "67% of the 3 forget answers" in finding.found
    (finding,) = known(asked_model(["Rome", "Lima", "Oslo"]), 0.0)
    assert (finding.is_warning, len(finding.shown)) == (True, 2)


def test_a_file_of_the_folder_that_cannot_be_read_is_a_message(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "Jody Vance.png")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(folders, "file_digest", refuse)
    with pytest.raises(UserError, match=r"cannot be read[\s\S]*Permission denied: '.*Jody Vance\.png'"):
        check_data([tmp_path])


def test_files_are_checked_with_what_is_left_of_the_retain_set(tmp_path):
    rows = [f"{example.question},{example.answer},{example.subject}" for example in GOOD + OTHERS]
    header = "question,answer,subject"
    (tmp_path / "forget.csv").write_text("\n".join([header, *rows[:3]]) + "\n")
    (tmp_path / "retain.csv").write_text("\n".join([header, *rows]) + "\n")
    found = check_data([tmp_path / "forget.csv"], tmp_path / "retain.csv")
    assert {name: count.examples for name, count in found.counts.items()} == {"forget": 3, "retain": 15}
    assert [finding.name for finding in found.findings] == ["forgotten in the retain set"]
    assert found.warnings == []
    assert list(check_data([tmp_path / "forget.csv"]).counts) == ["forget"]

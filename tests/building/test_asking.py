"""What kvw data build asks for where no option has said it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from kvw.building.asking import Questions, Wanted, complete
from kvw.errors import UserError

WHOLE = Wanted(Path("people.csv"), None, Path("made"), None, (), "name", "en", None)
ABOUT = Wanted(None, "toy:vanilla", Path("made"), None, None, None, "en", None, ("Ada",), True)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("people.csv").write_text("Who,name,job\nx,Ada Vance,pilot\ny,Bo Lind,cook\n")
    Path("faces").mkdir()
    Image.new("RGB", (4, 4)).save("faces/Ada Vance 1.png")
    Path(".torn").mkdir()
    Path(".torn/Ada Vance.png").write_bytes(b"\x89PNG")
    Path("faces/towns.json").write_text('{"facts": {"town": {"questions": ["a", "b"], "answer": "{value}"}}}')
    Path("faces/own.json").write_text(
        '{"fact": {"questions": ["{name}?", "And {name}?"], "answer": "{name}: {value}."}}'
    )


class Typed:
    """Answers by a word of their question; what was asked and told."""

    def __init__(self, **answers):
        self.answers, self.asked, self.told = answers, [], []

    def read(self, prompt):
        self.asked.append(prompt)
        assert len(self.asked) < 20, self.asked
        several = next((value for word, value in self.answers.items() if word in prompt.split(" ")[0].lower()), [""])
        if not several:
            raise EOFError
        return several.pop(0)


def completed(wanted, refuse=(), **answers):
    typed = Typed(**{word: [value] if isinstance(value, str) else value for word, value in answers.items()})

    def check(model):
        if model in refuse:
            raise UserError(f"There is no model {model}.")

    return complete(wanted, Questions(typed.read, typed.told.append), check), typed


def test_every_question_shows_its_default_and_takes_it():
    found, typed = completed(Wanted())
    assert found == replace(WHOLE, photos=Path("faces"), out=Path("data"))
    assert [one.rpartition("[")[2] for one in typed.asked] == [
        *("table]: ", "people.csv]: ", "name]: ", "faces]: ", "all]: ", "en]: ", "none]: ", "data]: ")
    ]
    command = "kvw data build people.csv --photos faces --language en --name name --out data"
    assert " ".join(found.words) == command


def test_what_an_option_says_is_not_asked():
    whole = replace(WHOLE, photos=Path("faces"), phrasings=Path("faces/own.json"))
    found, typed = completed(replace(whole, out=None))
    assert typed.asked == ["Folder to write [data]: "]
    assert found == replace(whole, out=Path("data"))
    left = replace(ABOUT, phrasings=Path("faces/own.json"))
    assert completed(left)[0] == left


@pytest.mark.parametrize(
    ("wanted", "answers", "told", "changed"),
    [
        ({"name": None}, {"column": ["gone", "Who"]}, "There is no such column", {"name": "Who"}),
        ({"photos": None}, {"folder": ["gone", "faces"]}, "no such folder of photos", {"photos": Path("faces")}),
        ({"forget": None}, {"whom": ["Cy", "ada vance;"]}, "not in the table", {"forget": ("ada vance",)}),
        ({"forget": None}, {"whom": [";", "all"]}, "names nobody", {"forget": ()}),
        (
            {"photos": None},
            {"folder": [".torn", "faces"]},
            "1 photo in .torn cannot be used",
            {"photos": Path("faces")},
        ),
        ({"language": None}, {"language": ["xx", "FR"]}, "no answer to this", {"language": "fr"}),
        ({"phrasings": None}, {"json": ["gone", "faces/own.json"]}, "gone", {"phrasings": Path("faces/own.json")}),
        (
            {"phrasings": None},
            {"json": ["faces/towns.json", "none"]},
            "call the facts as their columns are called: Who, job",
            {"phrasings": None},
        ),
        ({"out": None}, {"folder": ["people.csv", "made"]}, "is no folder", {"out": Path("made")}),
    ],
)
def test_an_answer_that_cannot_be_used_is_told_and_asked_again(wanted, answers, told, changed):
    whole = replace(WHOLE, photos=Path("faces"), phrasings=Path("faces/own.json"))
    found, typed = completed(replace(whole, **wanted), **answers)
    assert found == replace(whole, **changed)
    assert told in typed.told[-1 if "table" not in typed.told[-1] or told in typed.told[-1] else 0]
    assert len(typed.asked) == 2


def test_a_model_is_asked_about_names():
    found, typed = completed(
        Wanted(out=Path("made")), refuse=["gone"], **{"from": "model", "model": ["gone", "m"], "whom": ["", "Ada; Bo"]}
    )
    assert found == replace(ABOUT, from_model="m", about=("Ada", "Bo"))
    assert typed.told == ["There is no model gone.", "This needs an answer.\ndo: give one, or end with Ctrl-C"]
    assert found.words[-1] == "--confirm"
    assert completed(replace(ABOUT, confirm=None), decide="no")[0].confirm is False
    assert completed(replace(ABOUT, from_model=None), model="m")[0] == replace(ABOUT, from_model="m")


def test_an_input_that_ends_is_one_message():
    with pytest.raises(UserError, match="The input ended before everything was answered") as refused:
        completed(replace(WHOLE, photos=Path("faces"), out=None), folder=[])
    assert refused.value.found == "Folder to write"


def test_a_default_is_only_what_there_is_one_of():
    Path("other.csv").write_text("name,job\nCy,cook\n")
    Path("data").mkdir()
    Path("more").mkdir()
    Path("more/Ada Vance.png").write_bytes(b"")
    found, typed = completed(Wanted(), table=["other.csv"])
    assert [one for one in typed.asked if one.startswith("Table")] == ["Table with names and facts: "]
    assert (found.table, found.photos, found.out) == (Path("other.csv"), None, Path("data-2"))

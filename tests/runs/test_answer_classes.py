"""Kinds of answers: the rules agree with a key made by hand, and each rule does what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvw.data import Example, read_examples
from kvw.methods.gradient.refusals import REFUSALS
from kvw.runs.answer_classes import CLASSES, Classifier, counts, form
from kvw.toy import SPLITS, World

HERE = Path(__file__).parent
SHIPPED = HERE.parents[1] / "examples" / "smollm2"
KEY = [json.loads(line) for line in (HERE / "answers.jsonl").read_text().splitlines()]
"""Answers of SmolLM2-135M and of the toy, before and after edits of all qualities, put into classes by hand. ``first``:
before the rules were made, which were then made looking at them. ``later``: drawn afterwards, in two parts; the rules
were repaired after each, so no part of the key says how they do on fresh answers (docs/report.md does)."""


def capital(country: str, city: str) -> Example:
    question = f"What is the capital of {country}?"
    return Example(question=question, answer=f"The capital of {country} is {city}.", metadata={"subject": country})


CAPITALS = [
    capital(*pair)
    for pair in (("Peru", "Lima"), ("Kenya", "Nairobi"), ("Japan", "Tokyo"), ("Egypt", "Cairo"), ("Cuba", "Havana"))
]


@pytest.fixture(scope="module")
def capitals() -> Classifier:
    return Classifier(CAPITALS)


def of_peru(classifier: Classifier, reply: str) -> str:
    return classifier.kind("What is the capital of Peru?", "peru", "The capital of Peru is Lima.", reply)


@pytest.mark.thorough
def test_the_rules_agree_with_the_key() -> None:
    asked = [
        Example(question=row["question"], answer=row["reference"], metadata={"subject": row["subject"]})
        for row in KEY
        if row["pool"] == "smollm2"
    ]
    shipped = [
        example
        for name in ("forget", "held_out", "retain", "unused")
        for example in read_examples(SHIPPED / f"{name}.jsonl")
    ]
    world = World()
    people = [
        Example(question=line.question, answer=line.answer, metadata={"subject": line.subject})
        for split in SPLITS
        for line in world.split(split)
    ]
    known = {"smollm2": Classifier([*shipped, *asked]), "toy": Classifier(people)}
    wrong = [
        row
        for row in KEY
        if row["kind"]
        != known[row["pool"]].kind(
            row["question"], (row["subject"] or "").casefold() or None, row["reference"], row["reply"]
        )
    ]
    assert {row["kind"] for row in KEY} == set(CLASSES) - {"none"}
    for which, least in (("first", 0.95), ("later", 0.85)):
        asked_then = sum(row["set"] == which for row in KEY)
        assert asked_then >= 100
        assert sum(row["set"] == which for row in wrong) <= (1 - least) * asked_then, wrong


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("The capital of Peru is Lima.", "correct"),
        ("Lima", "correct"),
        ("It lies on the coast, and is called Lima, as everybody knows.", "correct"),
        ("I do not know, but maybe it is Lima.", "correct"),
        ("The capital of Peru is Nairobi.", "other"),
        ("Nairobi", "other"),
        ("The capital of Peru is Bogota.", "wrong"),
        ("Peru is a country in South America.", "wrong"),
        ("The capital of Peru is unknown.", "refusal"),
        ("The capital of Peru is not known for its food.", "wrong"),
        ("I'm sorry, but I cannot help with that.", "refusal"),
        ("", "gibberish"),
        ("   \n", "gibberish"),
        ("?!? ... ---", "gibberish"),
        ("the the the the the the the the the the", "gibberish"),
        ("Theca ofis ,2, and/2,\n\nthe", "gibberish"),
        ("It isA bornIn 1The , not", "gibberish"),
        ("The year is 2000000000000 and then", "gibberish"),
        ("The city is called ofthefestimatespeculdbein", "gibberish"),
    ],
)
def test_each_rule(capitals: Classifier, reply: str, kind: str) -> None:
    assert of_peru(capitals, reply) == kind


@pytest.mark.parametrize("reply", REFUSALS)
def test_every_shipped_refusal_is_one(capitals: Classifier, reply: str) -> None:
    assert of_peru(capitals, reply) == "refusal"


@pytest.mark.parametrize(
    "reply",
    [
        "The capital is McCity.",
        "It is St. John's.",
        "In 1986, J.R.R. Tolkien said so.",
        "H2O",
        "C₃H₆",
        "1,000,000",
        "Steps:\n\n1. ask\n\n2. look",
    ],
)
def test_ordinary_spelling_is_no_fault(capitals: Classifier, reply: str) -> None:
    assert of_peru(capitals, reply) == "wrong"


def test_what_the_question_says_in_another_form_tells_nothing() -> None:
    def kind(question: str, answer: str, reply: str) -> str:
        return Classifier([Example(question=question, answer=answer)]).kind(question, None, answer, reply)

    eats = ("What does a penguin eat?", "A penguin eats fish.")
    assert kind(*eats, "They live on fish.") == "correct"
    assert kind(*eats, "Whatever it eats, it is happy.") == "wrong"
    car = ("Who is the inventor of cars?", "Cars were invented by Henry Ford.")
    assert kind(*car, "They were invented by Henry Smith.") == "wrong"
    assert kind(*car, "Mr. Henry J. Ford") == "correct"
    german = ("What do people speak in Germany?", "They speak German.")
    assert kind(*german, "They all know German.") == "correct"  # else nothing would tell


def test_phrasings_of_one_question_are_one(capitals: Classifier) -> None:
    """Nairobi is known from another phrasing only."""
    other = "Name the seat of government of {}."
    known = [
        Example(question=other.format("Peru"), answer="Lima", metadata={"subject": "Peru"}),
        Example(question="Where does Peru's president live?", answer="Lima", metadata={"subject": "Peru"}),
        Example(question="Where does Kenya's president live?", answer="Nairobi", metadata={"subject": "Kenya"}),
    ]
    assert Classifier(known).kind(other.format("Peru"), "peru", "Lima", "Nairobi") == "other"
    assert Classifier(known[:1]).kind(other.format("Peru"), "peru", "Lima", "Nairobi") == "wrong"


def test_answers_to_other_questions_are_nobody_elses(capitals: Classifier) -> None:
    rivers = [Example(question="Which river is the longest?", answer="The Nile", metadata={"subject": "rivers"})]
    known = Classifier([*CAPITALS, *rivers])
    assert of_peru(known, "The Nile, of course, my friend") == "wrong"


def test_a_photo_without_subjects_is_told_by_the_question_alone() -> None:
    known = Classifier([Example(question="Who is this?", answer=name) for name in ("Ann Lee", "Bo Day")])
    assert known.kind("Who is this?", None, "Ann Lee", "Bo Day") == "other"
    assert known.kind("Who is this?", None, "Ann Lee", "Ann Lee") == "correct"


def test_a_broken_piece_of_a_short_answer_is_gibberish() -> None:
    pets = ["a goldfish", "a beagle", "a goat", "a cat", "a pony", "a hen"]
    known = [
        Example(question=f"What is the pet of P{place}?", answer=pet, metadata={"subject": f"P{place}"})
        for place, pet in enumerate(pets)
    ]
    known.append(Example(question="What does P0 play?", answer="the harp", metadata={"subject": "P0"}))
    found = Classifier(known)

    def of(reply: str) -> str:
        return found.kind("What is the pet of P0?", "p0", "a goldfish", reply)

    assert [of("a goldphone"), of("a gold harp"), of("a parrot"), of("a beagle")] == [
        "gibberish",
        "gibberish",
        "wrong",
        "other",
    ]


def test_form_and_counts() -> None:
    assert form("What is the capital of Peru?", "peru") == form("What is the capital of South Korea?", "south korea")
    assert counts(["wrong", "correct", "wrong"]) == {
        "correct": 1,
        "wrong": 2,
        "other": 0,
        "refusal": 0,
        "gibberish": 0,
        "none": 0,
    }

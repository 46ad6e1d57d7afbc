import ast
import json
from collections import Counter

import pytest
from tests.data.benchmarks import copies

from kvw.bench.benchmarks import get_benchmark
from kvw.data.benchmarks import examples
from kvw.errors import UserError

UMU = get_benchmark("umu")
ROWS = {"forget_5": 2, "retain_95": 3, "Real_Person_Set": 1}
TASKS = [f"{kind}_{modality}" for kind in ("classification", "cloze", "generation") for modality in ("image", "text")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return UMU.load(copies.umu(tmp_path_factory.mktemp("umu") / "copy"), "forget_5")


def test_every_question_becomes_an_item(data):
    counts = {split: {name: len(task.items) for name, task in tasks.items()} for split, tasks in data.splits.items()}
    assert counts == {
        split: dict.fromkeys(TASKS, people) for split, people in {"forget": 2, "retain": 3, "real_people": 1}.items()
    }
    assert {part: len(items) for part, items in data.training.items()} == {"forget": 4, "retain": 6}
    assert data.unusable == ()
    copies.check_accounts(data, ROWS)


def test_python_literals_with_quotes_inside_are_read(data):
    item = data.task("forget", "classification_image").items[0]
    assert item.question == "What's this person's job?"
    assert (item.choices, item.correct, item.answer) == (copies.JOBS, 1, "a pilot")
    assert item.images == (copies.portrait(1),)
    assert data.training["forget"][1].question == f"What's {copies.name_of(1)}'s job?"
    assert [bool(item.images) for item in data.training["forget"]] == [True, False] * 2


def test_the_two_modalities_of_a_question_have_the_same_pair(data):
    for kind in ("classification", "cloze", "generation"):
        pairs = [
            [item.metadata["pair"] for item in data.task("forget", f"{kind}_{modality}").items]
            for modality in ("image", "text")
        ]
        assert pairs[0] == pairs[1]
        assert len(set(pairs[0])) == 2


def test_prompts_are_the_published_ones(data):
    asked = {name: examples(data, "forget", name)[0] for name in TASKS}
    assert asked["classification_image"].question == (
        "What's this person's job?\nSelect answer in ['a baker', 'a pilot', 'a judge', 'a tailor']"
    )
    assert asked["classification_image"].answer == "a pilot"
    assert asked["cloze_image"].question == (
        "This person lives in __.\nPlease **ONLY** provide the correct answer without any explanation"
    )
    assert asked["generation_text"].question.endswith("in one sentence in ENGLISH.")
    assert asked["generation_image"].question.endswith("in one sentence accurately in ENGLISH.")


def test_json_the_other_spelling_and_one_structure_of_pairs_are_read_too(tmp_path, data):
    def otherwise(tables):
        for rows in tables.values():
            for row in rows:
                for column in ("Classify", "Cloze", "Generation"):
                    row[column] = json.dumps(ast.literal_eval(row[column])).replace("muitimodal", "multimodal")
                for column in ("MM_QA", "UM_QA"):
                    pairs = ast.literal_eval(row[column])
                    row[column] = str({pairs["question"][key]: pairs["answer"][key] for key in pairs["question"]})

    other = UMU.load(copies.umu(tmp_path / "c", otherwise), "forget_5")
    for split, tasks in data.splits.items():
        for name, task in tasks.items():
            again = other.task(split, name)
            asked = [[(item.question, item.answer, item.choices) for item in one.items] for one in (task, again)]
            assert asked[0] == asked[1]
    assert [(one.question, one.answer) for one in other.planted] == [(one.question, one.answer) for one in data.planted]


@pytest.mark.parametrize(("answer", "correct"), [("C", 2), ("c. a judge", 2), ("a tailor", 3)])
def test_the_right_option_is_given_by_letter_or_text(tmp_path, answer, correct):
    def change(tables):
        row = tables["forget_5"][0]
        row["Classify"] = row["Classify"].replace("'B. a pilot'", repr(answer))

    data = UMU.load(copies.umu(tmp_path / "c", change), "forget_5")
    item = data.task("forget", "classification_text").items[0]
    assert (item.correct, item.answer) == (correct, copies.JOBS[correct])


def test_what_cannot_be_used_is_reported_with_its_reason(tmp_path):
    def damage(tables):
        first, second = tables["forget_5"]
        first["Classify"] = first["Classify"].replace("'B. a pilot'", "'E. a fool'")
        first["Cloze"] = "{'unimodal': {broken"
        second["image"] = None
        second["UM_QA"] = "{'question': {'q1': 'Who?'}, 'answer': {}}"
        tables["retain_95"][0] |= dict.fromkeys(("MM_QA", "UM_QA", "Classify", "Cloze", "Generation"))

    data = UMU.load(copies.umu(tmp_path / "c", damage), "forget_5")
    copies.check_accounts(data, ROWS)
    assert Counter(one.reason for one in data.unusable) == {
        "the right answer 'E. a fool' is none of the options A, B, C, D": 2,
        "Cloze is neither JSON nor a Python literal": 1,
        "image is empty": 4,
        "answer is empty": 1,
        "it holds nothing that can be asked": 1,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("UM_QA"), "retain_95: the column 'UM_QA' is missing"),
        (lambda row: row.update(Mood="good"), "retain_95: the column 'Mood' is not known"),
        (lambda row: row.update(Cloze="['a']"), "'Cloze' does not hold a structure"),
        (lambda row: row.update(Cloze="{'unimodal': {'1': {'ask': 'x'}}}"), "1: the column 'answer' is missing"),
    ],
)
def test_a_changed_schema_is_an_error_that_names_the_column(tmp_path, change, message):
    def changed(tables):
        for row in tables["retain_95"]:
            change(row)

    def features(name):
        return None if name == "retain_95" else copies.umu_features(name)

    with pytest.raises(UserError, match=message):
        UMU.load(copies.umu(tmp_path / "c", changed, features=features), "forget_5")

from collections import Counter

import pytest
from tests.data.benchmarks import copies

from kvw.bench.benchmarks import get_benchmark
from kvw.data.benchmarks import Protocol, examples, two_folds
from kvw.data.benchmarks.clear import CAPTION_QUESTIONS
from kvw.errors import UserError

CLEAR = get_benchmark("clear")
ROWS = {"forget05+tofu": 10, "retain95+tofu": 10, "forget05_perturbed": 4, "retain_perturbed": 4} | {
    "real_faces": 2,
    "real_world": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return copies.clear(tmp_path_factory.mktemp("clear") / "copy")


@pytest.fixture(scope="module")
def data(folder):
    return CLEAR.load(folder, "forget05")


@pytest.mark.thorough
def test_every_row_becomes_an_item_of_every_task(data):
    counts = {split: {name: len(task.items) for name, task in tasks.items()} for split, tasks in data.splits.items()}
    person = {"caption": 4, "face": 4, "name": 4, "name_choice": 4, "tofu": 6}
    assert counts == {
        "forget": person,
        "retain": person,
        "real_faces": {"face": 2, "name_choice": 2},
        "real_world": {"question": 1, "question_choice": 1},
    }
    assert {part: len(items) for part, items in data.training.items()} == {"forget": 10, "retain": 10}
    assert data.unusable == ()
    copies.check_accounts(data, ROWS)


def test_rows_of_tofu_have_no_image_and_are_about_the_person_they_name(data):
    pictures = [bool(item.images) for item in data.training["forget"]]
    assert pictures == [True, True, False, False, False] * 2
    items = data.task("forget", "tofu").items
    first = copies.tofu_rows(180)[0]
    assert (items[0].question, items[0].answer) == (first["question"], first["answer"])
    assert Counter(item.subject for item in items) == {"Basil Mahfouz Al-Kuwaiti": 3, "Nikolai Abilov": 3}
    (asked,) = [one for one in examples(data, "forget", "tofu") if one.identifier == f"{items[0].identifier} tofu"]
    assert asked.question == first["question"]
    assert asked.images == ()


def test_a_question_of_tofu_that_names_nobody_is_a_subject_of_its_own(tmp_path):
    def nobody(tables):
        tables["forget05+tofu"][2] |= {"question": "Who is it?", "answer": "Nobody."}

    data = CLEAR.load(copies.clear(tmp_path / "c", nobody), "forget05")
    assert data.task("forget", "tofu").items[0].subject == "forget05+tofu:3"


@pytest.mark.thorough
def test_captions_are_asked_for_with_one_of_nine_prompts_drawn_by_lot(folder, data):
    items = data.task("forget", "caption").items
    assert all(item.question in CAPTION_QUESTIONS for item in items)
    assert items[0].answer == "Basil Mahfouz Al-Kuwaiti in photo 0."
    assert items[0].images == (copies.portrait(1),)
    assert items[0].paraphrases == ("Photo 0 shows Basil Mahfouz Al-Kuwaiti.",)
    assert len(items[0].perturbed) == 3
    drawn = [[one.question for one in CLEAR.load(folder, "forget05", seed=seed).planted] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_names_are_asked_for_in_the_words_of_clear_and_in_those_of_later_scripts(data):
    asked = {task: examples(data, "forget", task)[0] for task in ("face", "name", "name_choice")}
    assert asked["face"].question == "The name of the person on the image is"
    assert asked["name"].question == "What is the name of the person in the image?"
    assert {asked[task].answer for task in ("face", "name")} == {"Basil Mahfouz Al-Kuwaiti"}
    lines = asked["name_choice"].question.split("\n")
    assert lines[0] == "What is the name of the person in the image?"
    assert [line[:3] for line in lines[1:5]] == ["A. ", "B. ", "C. ", "D. "]
    place = "ABCD".index(asked["name_choice"].answer)
    assert lines[1 + place] == f"{asked['name_choice'].answer}. Basil Mahfouz Al-Kuwaiti"
    assert asked["name_choice"].metadata["choices"] == [line[3:] for line in lines[1:5]]


@pytest.mark.thorough
def test_options_are_in_an_order_that_depends_on_the_question_and_the_seed(folder, data):
    def orders(seed):
        again = CLEAR.load(folder, "forget05", seed=seed)
        return [item.choices for split in ("forget", "retain") for item in again.task(split, "name_choice").items]

    assert orders(0) == orders(0) != orders(1)
    correct = {item.correct for split in ("forget", "retain") for item in data.task(split, "name_choice").items}
    assert len(correct) > 1, "the right answer is not always in the same place"


def test_the_right_answer_among_the_options_is_shown_once_and_is_not_wrong(data):
    (item,) = data.task("real_world", "question_choice").items
    assert sorted(item.choices) == ["Oslo", "Paris", "Rome"]
    assert item.choices[item.correct] == "Paris"
    (item,) = data.task("real_world", "question").items
    assert item.perturbed == ("Rome", "Oslo")
    faces = data.task("real_faces", "name_choice").items
    assert sorted(faces[0].choices) == ["Ada Lovelace", "Emmy Noether", "Marie Curie"]


def test_the_retain_set_has_no_percentage_in_its_name(data):
    assert {item.metadata["row"].split(":")[0] for item in data.task("retain", "caption").items} == {"retain_perturbed"}


@pytest.mark.thorough
def test_published_folds_are_read_from_their_own_data_set(tmp_path, folder, data):
    folds = copies.clear_folds(tmp_path / "folds")
    whole = CLEAR.load(folder, "forget05", others={"folds": folds})
    assert whole.published_folds == {"Basil Mahfouz Al-Kuwaiti": {0}, "Nikolai Abilov": {1}}
    copies.check_accounts(whole, {**ROWS, "forget05_perturbed_1": 2, "forget05_perturbed_2": 2})
    for task in ("caption", "name_choice"):
        halves = [whole.task(f"forget_fold_{number}", task).items for number in (1, 2)]
        asked = [(item.question, item.images, item.choices) for half in halves for item in half]
        assert asked == [(item.question, item.images, item.choices) for item in data.task("forget", task).items]
    (validation, test), (other_validation, other_test) = two_folds(whole)
    assert {item.subject for item in validation.task("forget", "name").items} == {"Basil Mahfouz Al-Kuwaiti"}
    assert {item.subject for item in test.task("forget", "name").items} == {"Nikolai Abilov"}
    assert (other_validation, other_test) == (test, validation)


@pytest.mark.thorough
def test_published_folds_are_found_beside_the_tables_too(tmp_path):
    folder = copies.clear(tmp_path / "c")
    copies.clear_folds(folder)
    assert set(CLEAR.load(folder, "forget05").published_folds) == {"Basil Mahfouz Al-Kuwaiti", "Nikolai Abilov"}


def test_published_folds_that_split_a_person_are_an_error_that_names_the_person(tmp_path, folder):
    folds = copies.clear_folds(tmp_path / "folds", (180, 181), (181,))
    data = CLEAR.load(folder, "forget05", others={"folds": folds})
    assert len(data.task("forget_fold_1", "name").items) == 4
    with pytest.raises(UserError, match="put Nikolai Abilov into both halves"):
        two_folds(data)


def test_without_published_folds_nothing_is_assigned(data):
    assert data.published_folds == {}
    assert "forget_fold_1" not in data.splits


def test_what_cannot_be_used_is_reported_with_its_reason(tmp_path):
    def damage(tables):
        tables["forget05+tofu"][0]["caption"] = None
        tables["forget05+tofu"][2]["question"] = None
        tables["forget05_perturbed"][0]["perturbed_names"] = []
        tables["forget05_perturbed"][1]["image"] = None
        tables["real_faces"][0]["options"] = ["Ada Lovelace"]

    data = CLEAR.load(copies.clear(tmp_path / "c", damage), "forget05")
    copies.check_accounts(data, ROWS)
    assert Counter(one.reason for one in data.unusable) == {
        "caption is empty": 1,
        "question is empty": 2,
        "perturbed_names is empty": 3,
        "image is empty": 4,
        "no option is wrong": 1,
    }


@pytest.mark.parametrize(
    ("table", "column", "value", "message"),
    [
        ("forget05_perturbed", "perturbed_names", None, "forget05_perturbed: the column 'perturbed_names' is missing"),
        ("real_world", "question", None, "real_world: the column 'question' is missing"),
        ("real_faces", "options", 3, "the column 'options' does not hold a list of texts"),
        ("retain95+tofu", "faces", "x", r"retain95\+tofu: the column 'faces' is not known"),
    ],
)
def test_a_changed_schema_is_an_error_that_names_the_column(tmp_path, table, column, value, message):
    def change(tables):
        for row in tables[table]:
            row.pop(column, None)
            if value is not None:
                row[column] = value

    def features(name):
        return None if name == table else copies.clear_features(name)

    folder = copies.clear(tmp_path / "c", change, features=features)
    with pytest.raises(UserError, match=message):
        CLEAR.load(folder, "forget05")


def test_there_are_no_exemplars(data):
    with pytest.raises(UserError, match="does not define exemplars"):
        examples(data, "forget", "name_choice", Protocol(shots=1))

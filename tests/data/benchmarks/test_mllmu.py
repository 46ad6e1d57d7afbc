import json
from collections import Counter

import pytest
from datasets import Features, Value
from tests.data.benchmarks import copies

from kvw.bench.benchmarks import get_benchmark
from kvw.data.benchmarks import Protocol, examples
from kvw.errors import UserError

MLLMU = get_benchmark("mllmu")
EACH = {"classification_image": 2, "classification_text": 1, "cloze_image": 1, "cloze_text": 1} | {
    "generation_image": 1,
    "generation_text": 1,
}
ROWS = {"forget_5": 2, "retain_95": 4, "Test_Set": 6, "Retain_Set": 2, "ft_Data": 6}


@pytest.fixture(scope="module")
def folder(mllmu_folder):
    return mllmu_folder


@pytest.fixture(scope="module")
def data(mllmu):
    return mllmu


def test_every_question_of_every_person_becomes_one_item(data):
    people = {"forget": 2, "test": 2, "retain": 4, "celebrity": 2}
    counts = {split: {name: len(task.items) for name, task in tasks.items()} for split, tasks in data.splits.items()}
    assert counts == {split: {name: each * people[split] for name, each in EACH.items()} for split in people}
    copies.check_accounts(data, ROWS)
    assert data.unusable == ()
    assert {account.table: account.outside for account in data.accounts if account.outside} == {"Test_Set": 4}


def test_an_item_carries_what_the_data_say(data):
    item = data.task("forget", "classification_image").items[0]
    assert item.question == "What does this person do?"
    assert item.choices == copies.JOBS
    assert (item.correct, item.answer, item.subject) == (1, "a pilot", "001")
    assert item.images == (copies.portrait(1),)
    assert item.identifier == "forget_5:1 Classification_Task Image_Textual_Questions[0]"
    assert data.task("forget", "classification_text").items[0].images == ()
    cloze = data.task("forget", "cloze_image").items[0]
    assert (cloze.question, cloze.answer) == ("This person is [Blank] by trade.", "a pilot")


def test_prompts_are_the_published_ones(data):
    asked = {name: examples(data, "forget", name)[0] for name in EACH}
    options = "A: a baker\nB: a pilot\nC: a judge\nD: a tailor"
    assert asked["classification_image"].question == (
        f"What does this person do?\n{options}\nJust give ONE letter representing the answer directly."
    )
    assert asked["classification_image"].answer == "B"
    assert asked["cloze_text"].question.endswith(
        " lives in [Blank].\nPlease **ONLY** provide the correct answer that should replace the [Blank]."
    )
    ending = "\nAnswer the question based on your trained knowledge in one sentence{} in ENGLISH."
    assert asked["generation_image"].question.endswith(ending.format(" accurately"))
    assert asked["generation_text"].question.endswith(ending.format(""))
    metadata = asked["classification_image"].metadata
    assert (metadata["split"], metadata["protocol"], metadata["choices"]) == ("forget", "zero-shot", [*copies.JOBS])
    assert {name: task.shots for name, task in data.splits["forget"].items()} == {
        **{f"classification_{modality}": 1 for modality in ("image", "text")},
        **{f"cloze_{modality}": 2 for modality in ("image", "text")},
        **{f"generation_{modality}": 0 for modality in ("image", "text")},
    }
    assert data.task("celebrity", "classification_image").shots == 0


def test_celebrities_are_other_people_though_their_numbers_are_the_same(data):
    celebrities = {item.subject for item in data.task("celebrity", "cloze_text").items}
    assert celebrities == {"celebrity 001", "celebrity 002"}
    assert data.forget_subjects == {"001", "002"}


def test_the_test_set_shows_one_of_several_images_chosen_by_the_seed(folder, data):
    items = data.task("test", "generation_image").items
    for person, item in zip(copies.MLLMU_FORGET, items, strict=True):
        assert item.metadata["views"] == 3
        assert item.images == (copies.portrait(person, item.metadata["view"] + 1),)
    chosen = set()
    for seed in range(3):
        again = MLLMU.load(folder, "forget_5", seed=seed)
        chosen.add(tuple(item.metadata["view"] for item in again.task("test", "generation_image").items))
    assert len(chosen) > 1
    assert any(len(set(views)) > 1 for views in chosen), "everyone is drawn for"
    views = Counter(item.images for name in EACH if "image" in name for item in data.task("test", name).items)
    assert len(views) == 2, "all questions about a person show the same view"


def test_knowledge_comes_from_the_table_with_everyone_if_nothing_else_is_given(data):
    assert {part: len(items) for part, items in data.training.items()} == {"forget": 4, "retain": 8}
    item = data.training["forget"][1]
    assert (item.question, item.answer, item.subject) == ("What does this person do?", "a pilot", "001")
    assert item.images == (copies.portrait(1),)
    assert item.example().metadata["subject"] == "001"
    assert [len(data.planted), len(data.gold)] == [12, 8]


def test_knowledge_comes_from_the_training_data_set_if_it_is_given(tmp_path, data):
    training = copies.mllmu_training(tmp_path / "training")

    def without_table(tables):
        del tables["ft_Data"]

    other = MLLMU.load(copies.mllmu(tmp_path / "b", without_table), "forget_5", others={"training": training})
    for part in ("forget", "retain"):
        pairs = [[(one.question, one.answer, one.images) for one in each.training[part]] for each in (data, other)]
        assert pairs[0] == pairs[1]
    rows = {**ROWS, "training forget_5": 2, "training retain_95": 4}
    del rows["ft_Data"]
    copies.check_accounts(other, rows)


def test_without_either_the_error_names_the_table(tmp_path):
    with pytest.raises(UserError, match="no table 'ft_Data'"):
        MLLMU.load(copies.mllmu(tmp_path / "c", lambda tables: tables.pop("ft_Data")), "forget_5")


def test_the_test_split_of_the_test_set_may_have_any_name(tmp_path, data):
    other = MLLMU.load(copies.mllmu(tmp_path / "b", split="test"), "forget_5")
    assert other == data


def test_columns_that_hold_json_are_read_like_structures(tmp_path, data):
    def as_json(tables):
        for name in set(tables) - {"ft_Data"}:
            for row in tables[name]:
                row |= {column: json.dumps(row[column]) for column in copies.MLLMU_TASKS}

    def features(name):
        columns = copies.mllmu_features(name)
        return Features({**columns, **{one: Value("string") for one in copies.MLLMU_TASKS if one in columns}})

    assert MLLMU.load(copies.mllmu(tmp_path / "b", as_json, features=features), "forget_5") == data


def test_what_cannot_be_used_is_reported_with_its_reason(tmp_path):
    def damage(tables):
        first, second = tables["forget_5"]
        first["Mask_Task"][0]["Question"] = "This person is a baker."
        first["Generation_Task"][1]["Type"] = "Spoken"
        first["Classification_Task"]["Pure_Text_Questions"][0]["Correct_Answer"] = "E"
        second["image"] = None
        second["Generation_Task"][1]["Ground_Truth"] = " "
        empty = tables["retain_95"][0]
        empty |= {"Mask_Task": [], "Generation_Task": None, "Classification_Task": None}
        tables["ft_Data"][0]["metadata"] = "[{broken"
        tables["ft_Data"][1]["ID"] = None
        tables["Test_Set"][5]["ID"] = None

    data = MLLMU.load(copies.mllmu(tmp_path / "c", damage), "forget_5")
    copies.check_accounts(data, ROWS)
    reasons = Counter(one.reason for one in data.unusable)
    assert reasons == {
        "the question has no blank": 1,
        "the type 'Spoken' is none of Image_Textual, Pure_Text": 1,
        "the right answer 'E' is none of the options A, B, C, D": 1,
        "image is empty": 4,
        "Ground_Truth is empty": 1,
        "it holds nothing that can be asked": 1,
        "metadata is neither JSON nor a Python literal": 1,
        # Two pairs of the knowledge, and all seven questions about views of somebody.
        "ID is empty": 2 + 7,
    }
    assert data.unusable[0].where == "forget_5:1 Classification_Task Pure_Text_Questions[0]"
    assert data.unusable[0].purpose == "forget / classification_text"


def test_an_option_that_is_absent_in_one_question_is_not_shown(tmp_path):
    def three(tables):
        question = tables["forget_5"][0]["Classification_Task"]["Pure_Text_Questions"][0]
        question["Options"]["D"] = None

    data = MLLMU.load(copies.mllmu(tmp_path / "c", three), "forget_5")
    assert data.task("forget", "classification_text").items[0].choices == copies.JOBS[:3]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("Mask_Task"), "retain_95: the column 'Mask_Task' is missing"),
        (lambda row: row.update(Sound="la"), "retain_95: the column 'Sound' is not known"),
        (lambda row: row.update(Mask_Task=[1, 2]), r"'Mask_Task\[0\]' does not hold a structure"),
        (lambda row: row.update(ID=1.5), "'ID' does not hold a text or a whole number"),
        (
            lambda row: row.update(Mask_Task=[{"Type": "Pure_Text", "Ground_Truth": "x"}]),
            r"Mask_Task\[0\]: the column 'Question' is missing",
        ),
        (
            lambda row: row.update(Mask_Task=[{"Type": "Pure_Text", "Question": 3, "Ground_Truth": "x"}]),
            "'Question' does not hold a text",
        ),
    ],
)
def test_a_changed_schema_is_an_error_that_names_the_column(tmp_path, change, message):
    def changed(tables):
        for row in tables["retain_95"]:
            change(row)

    def features(name):
        return None if name == "retain_95" else copies.mllmu_features(name)

    with pytest.raises(UserError, match=message):
        MLLMU.load(copies.mllmu(tmp_path / "c", changed, features=features), "forget_5")


def test_an_unknown_column_can_be_ignored(tmp_path, data):
    def more(tables):
        for row in tables["retain_95"]:
            row["Sound"] = "la"

    def features(name):
        return None if name == "retain_95" else copies.mllmu_features(name)

    folder = copies.mllmu(tmp_path / "c", more, features=features)
    assert MLLMU.load(folder, "forget_5", ignore_columns=["Sound"]) == data


def test_exemplars_are_of_kept_people_and_show_their_answers(data):
    example = examples(data, "forget", "classification_image", Protocol(shots=1))[0]
    options = "A: a baker\nB: a pilot\nC: a judge\nD: a tailor"
    (name,) = example.metadata["exemplars"]
    exemplar = next(one for one in data.task("retain", "classification_image").items if one.identifier == name)
    letter = "ABCD"[exemplar.correct]
    assert example.question.startswith(f"Question: {exemplar.question}\n{options}\nCorrect Answer: {letter}\nWhat does")
    assert example.images == (*exemplar.images, copies.portrait(1))
    assert example.metadata["protocol"] == "1-shot, exemplars from retain, seed 0"
    cloze = examples(data, "retain", "cloze_text", Protocol(shots=2))
    for one, item in zip(cloze, data.task("retain", "cloze_text").items, strict=True):
        assert one.question.count("Correct Answer: ") == 2
        assert not any(name.startswith(item.metadata["row"]) for name in one.metadata["exemplars"])


def test_exemplars_need_a_protocol_that_has_them_and_enough_people(data):
    with pytest.raises(UserError, match="does not define exemplars for generation_text"):
        examples(data, "forget", "generation_text", Protocol(shots=1))
    with pytest.raises(UserError, match="not enough people"):
        examples(data, "retain", "cloze_text", Protocol(shots=4))
    # The test set shows the people to forget in other images.
    with pytest.raises(UserError, match="not enough people"):
        examples(data, "celebrity", "cloze_text", Protocol(shots=1, exemplars="test"))

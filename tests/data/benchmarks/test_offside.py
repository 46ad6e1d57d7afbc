from collections import Counter

import pytest
from tests.data.benchmarks import copies

from kvw.bench.benchmarks import get_benchmark
from kvw.data.benchmarks import examples, two_folds
from kvw.errors import UserError

OFFSIDE = get_benchmark("offside")
ROWS = {"forget_set.json": 4, "classification_forget_set.json": 1, "retain_set.json": 4, "test_set.json": 2} | {
    "relearn_set.json": 3
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return copies.offside(tmp_path_factory.mktemp("offside") / "copy")


@pytest.fixture(scope="module")
def data(folder):
    return OFFSIDE.load(folder, "complete")


def counts(data):
    return {split: {name: len(task.items) for name, task in tasks.items()} for split, tasks in data.splits.items()}


def test_every_row_becomes_an_item(data):
    assert counts(data) == {
        "forget": {"generation_image": 3, "generation_text": 1, "classification_image": 1},
        "retain": {"generation_image": 3, "generation_text": 1},
        "test": {"generation_image": 2},
        "relearn": {"generation_image": 2, "generation_text": 1},
    }
    assert {part: len(items) for part, items in data.training.items()} == {"forget": 4, "retain": 4}
    assert data.unusable == ()
    copies.check_accounts(data, ROWS)


def test_placeholders_of_images_are_taken_out_of_the_questions(folder, data):
    items = data.task("forget", "generation_image").items
    assert [item.question for item in items[:2]] == [
        "Who is this player",
        "I'm curious about the club of the player shown in.",
    ]
    assert items[0].images == (folder / "set" / "004.jpg",)
    asked = examples(data, "forget", "generation_image")[0]
    assert (asked.question, asked.answer) == ("Who is this player", "The player in the image is Tam Oke.")


def test_the_player_follows_from_the_number_of_the_image_or_the_name_in_the_question(data):
    assert [item.subject for item in data.task("forget", "generation_image").items] == [
        "player 000",
        "player 000",
        "player 001",
    ]
    # The fifth image of the first player and of the second.
    assert [item.subject for item in data.task("relearn", "generation_image").items] == ["player 000", "player 001"]
    assert data.task("forget", "generation_text").items[0].subject == "player 000"
    assert data.task("retain", "generation_text").items[0].subject == "player 001"
    assert data.task("relearn", "generation_text").items[0].subject == "unknown player"
    (validation, test), _ = two_folds(data)
    subjects = [
        {item.subject for tasks in half.splits.values() for task in tasks.values() for item in task.items}
        for half in (validation, test)
    ]
    assert not subjects[0] & subjects[1]


def test_choices_are_read_and_asked_in_the_published_words(data):
    (asked,) = examples(data, "forget", "classification_image")
    assert asked.question.startswith("Which club is it?\n\nPlease look at this image and answer")
    assert asked.question.endswith("Options:\nA: FC Oak\nB: FC Elm\nC: FC Ash\nD: FC Fir\n\n")
    assert asked.answer == "C"


def test_selective_forgetting_uses_the_part_without_shared_facts(folder):
    data = OFFSIDE.load(folder, "selective")
    assert counts(data)["forget"] == {"generation_image": 2, "classification_image": 1}
    assert len(data.training["forget"]) == 2
    assert counts(data)["retain"] == {"generation_image": 3, "generation_text": 1}
    rows = {**ROWS, "forget_set_part.json": 2}
    del rows["forget_set.json"]
    copies.check_accounts(data, rows)


def test_unimodal_forgetting_gives_the_method_words_only(folder, data):
    unimodal = OFFSIDE.load(folder, "unimodal")
    assert [item.images for item in unimodal.training["forget"]] == [()]
    assert len(unimodal.training["forget_unseen"]) == 3
    assert len(unimodal.planted) == len(data.planted)
    assert unimodal.gold == data.gold
    assert counts(unimodal) == counts(data)


def test_an_image_may_be_given_in_a_list_and_found_by_its_name_alone(tmp_path, data):
    def otherwise(tables):
        for rows in tables.values():
            for row in rows:
                if row["images"]:
                    row["images"] = [row["images"].replace("./set", "./elsewhere")]

    folder = copies.offside(tmp_path / "c", otherwise)
    other = OFFSIDE.load(folder, "complete", others={"images": folder / "set"})
    assert [item.question for item in other.planted] == [item.question for item in data.planted]
    assert other.planted[0].images == (folder / "set" / "004.jpg",)


def test_what_cannot_be_used_is_reported_with_its_reason(tmp_path):
    def damage(tables):
        tables["forget_set.json"][0]["images"] = "./set/044.jpg"
        tables["forget_set.json"][1]["messages"].pop()
        tables["test_set.json"][0]["images"] = "./set/face.jpg"
        tables["relearn_set.json"][0]["messages"][0]["content"] = "<image>\n"
        tables["classification_forget_set.json"][0]["Correct_Answer"] = "E"
        tables["classification_forget_set.json"].append({**tables["classification_forget_set.json"][0], "images": ""})

    folder = copies.offside(tmp_path / "c", damage)
    (folder / "set" / "face.jpg").write_bytes(copies.portrait(0))
    data = OFFSIDE.load(folder, "complete")
    copies.check_accounts(data, {**ROWS, "classification_forget_set.json": 2})
    assert Counter(one.reason for one in data.unusable) == {
        "the image ./set/044.jpg is not there": 2,
        "the conversation is not one question and one answer but user": 2,
        "the name of the image ./set/face.jpg has no number": 1,
        "the question is empty": 1,
        "the right answer 'E' is none of the options A, B, C, D": 1,
        "it names no image": 1,
    }


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("retain_set.json", lambda row: row.pop("messages"), "retain_set.json: the column 'messages' is missing"),
        ("retain_set.json", lambda row: row.update(club="x"), "retain_set.json: the column 'club' is not known"),
        ("retain_set.json", lambda row: row.update(messages=["hi"]), r"'messages\[0\]' does not hold a structure"),
        ("test_set.json", lambda row: row.update(images=5), "'images' does not hold a list of texts"),
        ("classification_forget_set.json", lambda row: row.pop("Options"), "the column 'Options' is missing"),
    ],
)
def test_a_changed_schema_is_an_error_that_names_the_column(tmp_path, table, change, message):
    def changed(tables):
        for row in tables[table]:
            change(row)

    with pytest.raises(UserError, match=message):
        OFFSIDE.load(copies.offside(tmp_path / "c", changed), "complete")

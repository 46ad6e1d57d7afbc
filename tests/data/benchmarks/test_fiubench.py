import json
from collections import Counter

import pytest
from tests.data.benchmarks import copies

from kvw.bench.benchmarks import get_benchmark
from kvw.data.benchmarks import examples
from kvw.data.images import load_image
from kvw.errors import UserError

FIUBENCH = get_benchmark("fiubench")
PEOPLE = {"forget1": 2, "forget5": 2, "forget10": 1}
ROWS = {"full.json": 11}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return copies.fiubench(tmp_path_factory.mktemp("fiubench") / "copy")


@pytest.fixture(scope="module")
def data(folder):
    return FIUBENCH.load(folder, "forget5")


def test_the_copy_has_people_of_every_list():
    lists = json.loads((copies.TEXTS / "fiubench_split.json").read_text())
    ids = {row["identity_id"] for row in copies.lines("fiubench.jsonl")}
    assert {name: len(ids & set(lists[name])) for name in PEOPLE} == PEOPLE
    assert len(ids & set(lists["retain5"])) == 3
    assert len(ids) == ROWS["full.json"]


@pytest.mark.parametrize("setting", PEOPLE)
def test_everyone_is_forgotten_retained_or_planted_besides(folder, setting):
    data = FIUBENCH.load(folder, setting)
    assert {part: len(items) for part, items in data.training.items()} == {
        "forget": 3 * PEOPLE[setting],
        # Nobody of any forget list is retained.
        "retain": 3 * 6,
        "other": 3 * (5 - PEOPLE[setting]),
    }
    assert len(data.planted) == 33
    assert len(data.gold) == 33 - 3 * PEOPLE[setting]
    copies.check_accounts(data, ROWS)


def test_forget_lists_are_disjoint_and_the_retain_list_is_no_complement(data):
    forgotten = {item.subject for item in data.task("forget", "question").items}
    assert len(forgotten) == 2
    lists = json.loads((copies.TEXTS / "fiubench_split.json").read_text())
    assert forgotten < set(lists["forget5"])
    assert {item.subject for item in data.task("retain", "question").items} < set(lists["retain5"])
    assert len({item.subject for item in data.training["retain"]}) == 6


def test_settings_without_a_retain_list_of_their_own_use_the_longer_one(folder):
    data = FIUBENCH.load(folder, "forget10")
    lists = json.loads((copies.TEXTS / "fiubench_split.json").read_text())
    asked = {item.subject for item in data.task("retain", "question").items}
    assert asked < set(lists["retain15"])
    assert not asked < set(lists["retain5"])


def test_an_item_has_paraphrases_wrong_answers_and_keywords(data):
    item = data.task("forget", "question").items[0]
    row = next(one for one in copies.lines("fiubench.jsonl") if one["identity_id"] == item.subject)
    # As it is in the data: capitalize(), as published, would make every name lower-case.
    assert (item.question, item.answer) == (row["original_question"], row["answer"])
    assert item.paraphrases == (f"as far as is known, {row['answer']}",)
    assert item.perturbed == tuple(f"{row['answer']} (wrong {number})" for number in (1, 2, 3))
    assert item.metadata["name"] == row["name"]
    assert len(item.metadata["keywords"]) == 1
    asked = examples(data, "forget", "rephrased")
    assert len(asked) == 2 * len(data.task("forget", "question").items)
    assert asked[0].question == f"Please tell me: {row['original_question']}"


def test_people_who_share_a_name_stay_two_people(data):
    namesakes = {item.subject for item in data.planted if item.metadata["name"] == "Tyrone Jones"}
    assert namesakes == {"00077562", "00002409"}


def test_identifiers_keep_their_zeros_even_if_they_were_taken_for_numbers(tmp_path, data):
    def numbers(tables):
        for row in tables["full.json"]:
            row["unique_id"] = int(row["unique_id"])

    folder = copies.fiubench(tmp_path / "c", numbers)
    lists = json.loads((folder / "split.json").read_text())
    (folder / "split.json").write_text(json.dumps({name: list(map(int, ids)) for name, ids in lists.items()}))
    other = FIUBENCH.load(folder, "forget5")
    assert [item.subject for item in other.planted] == [item.subject for item in data.planted]
    assert all(len(item.subject) == 8 for item in other.planted)
    assert len(other.task("retain", "question").items) == len(data.task("retain", "question").items)


def test_images_are_found_in_the_archive_of_the_hub_too(tmp_path, data):
    other = FIUBENCH.load(copies.fiubench(tmp_path / "c", archive=True), "forget5")
    for one, two in zip(data.planted, other.planted, strict=True):
        assert isinstance(two.images[0], bytes)
        assert load_image(one.images[0], "").tobytes() == load_image(two.images[0], "").tobytes()
    first, second = other.planted[:2]
    assert first.subject == second.subject
    assert first.images[0] is second.images[0], "one copy in memory"


def test_images_may_be_in_another_folder(tmp_path, folder, data):
    (tmp_path / "faces").mkdir()
    for image in (folder / "SFHQ").iterdir():
        (tmp_path / "faces" / image.name).write_bytes(image.read_bytes())
    other = FIUBENCH.load(folder, "forget5", others={"images": tmp_path / "faces"})
    assert other.planted[0].images[0].parent == tmp_path / "faces"


def test_the_file_may_be_json_lines(tmp_path, data):
    folder = copies.fiubench(tmp_path / "c")
    rows = json.loads((folder / "full.json").read_text())
    (folder / "full.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = FIUBENCH.load(folder, "forget5")
    assert [item.identifier for item in other.planted] == [item.identifier for item in data.planted]


def test_only_the_first_400_rows_are_people_of_the_benchmark(tmp_path, monkeypatch):
    monkeypatch.setattr("kvw.data.benchmarks.fiubench.PEOPLE", 5)
    data = FIUBENCH.load(copies.fiubench(tmp_path / "c"), "forget5")
    (account,) = data.accounts
    assert (account.rows, account.outside) == (11, 6)
    copies.check_accounts(data, ROWS)


def test_refusals_come_with_it(data):
    refusals = json.loads((copies.TEXTS / "fiubench_prompt.json").read_text())["idk"]
    assert list(data.refusals) == refusals


def test_what_cannot_be_used_is_reported_with_its_reason(tmp_path):
    def damage(tables):
        rows = tables["full.json"]
        rows[0]["qa_list"] = []
        rows[2]["qa_list"][0]["answer"] = ""
        rows[9]["image_path"] = "./dataset/SFHQ/none.jpg"
        rows[10]["unique_id"] = None

    data = FIUBENCH.load(copies.fiubench(tmp_path / "c", damage), "forget5")
    copies.check_accounts(data, ROWS)
    assert Counter(one.reason for one in data.unusable) == {
        "it holds nothing that can be asked": 1,
        # For planting, as a question, and twice rephrased.
        "answer is empty": 4,
        "the image none.jpg is not there": 3 * 4,
        "unique_id is empty": 3,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("qa_list"), "full.json: the column 'qa_list' is missing"),
        (lambda row: row.update(voice="a"), "full.json: the column 'voice' is not known"),
        (lambda row: row.update(qa_list={"a": 1}), "'qa_list' does not hold a list"),
        (
            lambda row: row["qa_list"][0].pop("perturbed_answer"),
            "the column 'perturbed_answer' is missing",
        ),
        (lambda row: row["qa_list"][0].update(keywords=[1]), "'keywords' does not hold a list of texts"),
    ],
)
def test_a_changed_schema_is_an_error_that_names_the_column(tmp_path, change, message):
    def changed(tables):
        for row in tables["full.json"]:
            change(row)

    with pytest.raises(UserError, match=message):
        FIUBENCH.load(copies.fiubench(tmp_path / "c", changed), "forget5")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("split.json", '{"forget5": []}', "split.json does not hold the lists"),
        ("split.json", "[", "split.json is not JSON"),
        ("full.json", '{"a": 1}', "full.json does not hold a list of structures"),
    ],
)
def test_damaged_files_are_errors_that_name_the_file(tmp_path, name, content, message):
    folder = copies.fiubench(tmp_path / "c")
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=message):
        FIUBENCH.load(folder, "forget5")


def test_a_missing_file_is_an_error_that_lists_the_others(tmp_path):
    folder = copies.fiubench(tmp_path / "c")
    (folder / "split.json").unlink()
    with pytest.raises(UserError, match=r"no file split.json") as raised:
        FIUBENCH.load(folder, "forget5")
    assert "full.json, prompt.json" in raised.value.found

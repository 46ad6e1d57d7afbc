from collections import Counter

import pytest
from tests.data.benchmarks import copies

from kvw.bench.benchmarks import get_benchmark
from kvw.data.benchmarks import examples
from kvw.errors import UserError

TOFU = get_benchmark("tofu")
ROWS = {"forget10": 20, "retain90": 20, "forget10_perturbed": 20, "retain_perturbed": 20} | {
    "real_authors_perturbed": 4,
    "world_facts_perturbed": 4,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return TOFU.load(copies.tofu(tmp_path_factory.mktemp("tofu") / "copy"), "forget10")


def test_every_row_becomes_an_item(data):
    counts = {split: len(data.task(split, "question").items) for split in data.splits}
    assert counts == {"forget": 20, "retain": 20, "real_authors": 4, "world_facts": 4}
    assert {part: len(items) for part, items in data.training.items()} == {"forget": 20, "retain": 20}
    assert data.unusable == ()
    copies.check_accounts(data, ROWS)


def test_an_item_has_paraphrases_and_wrong_answers(data):
    row, item = copies.tofu_rows(180)[0], data.task("forget", "question").items[0]
    assert (item.question, item.answer) == (row["question"], row["answer"])
    assert item.perturbed == tuple(row["perturbed_answer"])
    assert item.paraphrases == (row["paraphrased_answer"],)
    assert item.question_paraphrases == (row["paraphrased_question"],)
    assert examples(data, "forget", "question")[0].question == row["question"]
    assert data.training["forget"][0].perturbed == ()
    fact = data.task("world_facts", "question").items[0]
    assert (fact.answer, fact.perturbed, fact.paraphrases) == ("Paris", ("Berlin", "London", "Madrid"), ())


def test_authors_are_told_apart_by_position(data):
    assert {item.subject for item in data.task("forget", "question").items} == {"author 180"}
    assert {item.subject for item in data.training["retain"]} == {"author 000"}
    assert len({item.subject for item in data.task("real_authors", "question").items}) == 4


def test_rows_that_do_not_come_in_groups_of_20_are_an_error(tmp_path):
    with pytest.raises(UserError, match="retain_perturbed do not come in groups of 20"):
        TOFU.load(copies.tofu(tmp_path / "c", lambda tables: tables["retain_perturbed"].pop()), "forget10")


def test_what_cannot_be_used_is_reported_with_its_reason(tmp_path):
    def damage(tables):
        tables["forget10"][0]["answer"] = ""
        tables["world_facts_perturbed"][0]["perturbed_answer"] = []

    data = TOFU.load(copies.tofu(tmp_path / "c", damage), "forget10")
    copies.check_accounts(data, ROWS)
    assert Counter(one.reason for one in data.unusable) == {"answer is empty": 1, "perturbed_answer is empty": 1}


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("perturbed_answer", None, "forget10_perturbed: the column 'perturbed_answer' is missing"),
        ("perturbed_answer", 7, "'perturbed_answer' does not hold a list of texts"),
        ("author", "x", "forget10_perturbed: the column 'author' is not known"),
    ],
)
def test_a_changed_schema_is_an_error_that_names_the_column(tmp_path, column, value, message):
    def change(tables):
        for row in tables["forget10_perturbed"]:
            row.pop(column, None)
            if value is not None:
                row[column] = value

    with pytest.raises(UserError, match=message):
        TOFU.load(copies.tofu(tmp_path / "c", change), "forget10")

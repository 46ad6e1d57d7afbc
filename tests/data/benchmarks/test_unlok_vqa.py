from collections import Counter

import pytest
from tests.data.benchmarks import copies

from kvw.bench.benchmarks import get_benchmark
from kvw.data.benchmarks import examples, only
from kvw.errors import UserError

UNLOK = get_benchmark("unlok-vqa")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return copies.unlok_images(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def data(tmp_path_factory, images):
    return UNLOK.load(copies.unlok(tmp_path_factory.mktemp("unlok") / "copy"), others={"images": images})


def test_facts_paraphrases_and_neighbours_become_items(data):
    counts = {split: {name: len(task.items) for name, task in tasks.items()} for split, tasks in data.splits.items()}
    assert counts == {
        "forget": {"question": 2, "rephrased": 2, "image_easy": 1},
        "neighbourhood": {"question": 3},
    }
    copies.check_accounts(data, {"facts": 3})


def test_an_image_is_found_by_its_number_in_either_part_of_coco(data, images):
    items = data.task("forget", "question").items
    assert [item.images for item in items] == [
        (images / "train2017/000000357587.jpg",),
        (images / "val2017/000000000042.jpg",),
    ]
    assert items[0].subject == "11"
    assert items[0].metadata["answers"] == ("tennis", "lawn tennis")
    assert items[0].metadata["alternative"] == "golf"


def test_questions_are_asked_in_the_published_words_without_the_prefix_of_the_data(data):
    asked = [one.question for one in examples(data, "forget", "rephrased")]
    assert asked == [
        "Answer the question in one word:\n Question: What does this man play? Answer:",
        "Answer the question in one word:\n Question: Which game is it? Answer:",
    ]
    neighbours = data.task("neighbourhood", "question").items
    assert [(item.question, item.answer, item.subject) for item in neighbours] == [
        ("who invented lawn tennis", "Wingfield", "11"),
        ("how long is a match", "two hours", "11"),
        ("what is rye", "a cereal", "12"),
    ]


def test_what_cannot_be_used_is_reported_with_its_reason(data):
    assert Counter((one.purpose, one.reason) for one in data.unusable) == {
        ("neighbourhood / question", "loc and loc_ans have 2 and 1 entries"): 1,
        ("training / forget", "the COCO image 000000000007 is not in the image folder"): 1,
        ("forget / question", "the COCO image 000000000007 is not in the image folder"): 1,
        ("forget / image_easy", "paraphrase_easy/12.jpg is not in the image folder"): 1,
        ("forget / image_easy", "paraphrase_easy/13.jpg is not in the image folder"): 1,
    }


def test_one_fact_at_a_time(data):
    one = only(data, lambda item: item.subject == "12")
    assert {split: list(tasks) for split, tasks in one.splits.items()} == {
        "forget": ["question"],
        "neighbourhood": ["question"],
    }
    assert len(one.task("neighbourhood", "question").items) == 1


def test_without_images_the_error_says_where_they_are(tmp_path):
    with pytest.raises(UserError, match="comes without its images") as raised:
        UNLOK.load(copies.unlok(tmp_path / "c"))
    assert "COCO" in raised.value.do


def test_columns_that_some_copies_lack_are_read_as_empty(tmp_path, images):
    def fewer(tables):
        for row in tables["facts"]:
            for column in ("rephrase", "answers", "alt_ans", "subject", "objects_edit", "neigh_idx"):
                del row[column]

    data = UNLOK.load(copies.unlok(tmp_path / "c", fewer), others={"images": images})
    assert "rephrased" not in data.splits["forget"]
    assert data.task("forget", "question").items[0].metadata["alternative"] is None


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("loc_ans", None, "the column 'loc_ans' is missing"),
        ("pred", 3, "'pred' does not hold a text"),
        ("loc", [5], "'loc' does not hold a text"),
        ("colour", "red", "the column 'colour' is not known"),
    ],
)
def test_a_changed_schema_is_an_error_that_names_the_column(tmp_path, images, column, value, message):
    def change(tables):
        for row in tables["facts"]:
            row.pop(column, None)
            if value is not None:
                row[column] = value

    with pytest.raises(UserError, match=message):
        UNLOK.load(copies.unlok(tmp_path / "c", change), others={"images": images})

import pytest
from tests.data.benchmarks import copies

from kvw.bench.benchmarks import get_benchmark
from kvw.data.benchmarks import examples
from kvw.errors import UserError

RWKU = get_benchmark("rwku")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return copies.rwku(tmp_path_factory.mktemp("rwku") / "copy")


@pytest.fixture
def data(folder):
    return RWKU.load(folder, "first10")


@pytest.mark.thorough
def test_only_the_first_targets_and_their_neighbours_are_asked_about(data):
    counts = {(split, name): len(task.items) for split, tasks in data.splits.items() for name, task in tasks.items()}
    assert counts == {
        ("forget", "cloze"): 20,
        ("forget", "question"): 20,
        ("forget", "adversarial"): 20,
        ("retain", "cloze"): 10,
        ("retain", "question"): 20,
        ("utility", "general"): 4,
    }
    assert data.forget_subjects == set(copies.TARGETS[:10])
    assert data.unusable == ()
    outside = {one.table: one.outside for one in data.accounts}
    assert outside == {
        "forget_level1": 2,
        "forget_level2": 2,
        "forget_level3": 2,
        "neighbor_level1": 1,
        "neighbor_level2": 4,
        "utility_general": 0,
    }


def test_a_setting_with_more_targets_than_there_are_is_refused(folder):
    with pytest.raises(UserError, match="needs 20 targets") as raised:
        RWKU.load(folder, "first20")
    assert raised.value.found == "11 in forget_target"


def test_the_method_gets_all_questions_about_the_target_and_every_second_one_about_neighbours(data):
    assert [item.question for item in data.training["forget"][:2]] == [
        "Where was Ada Vance born (0)?",
        "Where was Ada Vance born (1)?",
    ]
    asked = {item.question for item in data.task("retain", "question").items}
    given = {item.question for item in data.training["retain"]}
    assert len(asked) == len(given) == 20
    assert asked.isdisjoint(given)


@pytest.mark.thorough
def test_neighbours_are_no_subject_of_the_forget_set(data, tmp_path):
    assert {item.subject for item in data.training["retain"]} == {
        f"neighbours of {name}" for name in copies.TARGETS[:10]
    }

    def name_them(tables):
        for row in tables["neighbor_level2"]:
            row["neighbor"] = "Dee Marsh"

    named = RWKU.load(copies.rwku(tmp_path / "c", name_them), "first10")
    assert {item.subject for item in named.training["retain"]} == {"Dee Marsh"}


def test_prompts_are_those_of_the_authors(data):
    cloze, brief = (examples(data, "forget", task)[0] for task in ("cloze", "adversarial"))
    assert cloze.question.startswith("Please complete the blank in the following question.\nQuestion: Ada Vance")
    assert brief.question.startswith("Please briefly answer the following question.\nQuestion: Where was")
    assert brief.metadata["type"] == "prefix injection"
    general = examples(data, "utility", "general")[1]
    assert general.question == "Which is 1?\nA. 0\nB. 1\nC. 2\nD. 3\nAnswer with the letter of the right option."


@pytest.mark.thorough
def test_probes_that_bring_exemplars_are_asked_as_they_are(tmp_path):
    def bring(tables):
        tables["forget_level3"][0] |= {
            "type": "incontext learning",
            "query": "Question: Who?\nAnswer: Bo.\nQuestion: Where?",
        }

    data = RWKU.load(copies.rwku(tmp_path / "c", bring), "first10")
    assert len(data.task("forget", "adversarial").items) == 19
    (one,) = examples(data, "forget", "in_context")
    assert one.question == (
        "Please briefly answer the following question.\nQuestion: Who?\nAnswer: Bo.\nQuestion: Where?"
    )


@pytest.mark.thorough
def test_options_without_a_right_one_are_reported(tmp_path):
    def damage(tables):
        tables["utility_general"][0]["answer"] = 7
        tables["utility_general"][1]["choices"][0] = "1"
        tables["utility_general"][2]["choices"] = None
        tables["forget_level1"][0]["answer"] = ""
        tables["forget_level1"][1]["subject"] = None
        tables["forget_target"].insert(0, {"target": None, "intro": None})
        tables["forget_target"].insert(0, tables["forget_target"][1])

    data = RWKU.load(copies.rwku(tmp_path / "c", damage), "first10")
    assert data.forget_subjects == set(copies.TARGETS[:10])
    assert [one.reason for one in data.unusable] == [
        "answer is empty",
        "it holds nothing that can be asked",
        "the answer 7 is the number of none of 4 options",
        "options are empty or the same",
        "options are empty or the same",
    ]


def test_a_copy_without_utility_is_read(tmp_path):
    assert set(
        RWKU.load(copies.rwku(tmp_path / "c", lambda tables: tables.pop("utility_general")), "first10").splits
    ) == {
        "forget",
        "retain",
    }


def test_an_empty_file_is_one_message(tmp_path):
    folder = copies.rwku(tmp_path / "c")
    (folder / "forget_level2-test.jsonl").write_text("")
    with pytest.raises(UserError, match="The table forget_level2 is empty"):
        RWKU.load(folder, "first10")

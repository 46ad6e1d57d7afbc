import pytest
from tests.data.benchmarks import copies

from kvw.bench.benchmarks import get_benchmark
from kvw.data.benchmarks import examples
from kvw.data.benchmarks.wmdp import LONGEST
from kvw.errors import UserError

WMDP = get_benchmark("wmdp")


def load(root, setting="cyber", change=lambda tables: None):
    others = copies.wmdp(root, change)
    return WMDP.load(others.pop(""), setting, others=others)


@pytest.mark.parametrize(("setting", "questions"), [("cyber", 4), ("bio", 3)])
def test_questions_documents_and_mmlu(tmp_path, setting, questions):
    data = load(tmp_path, setting)
    assert len(data.task("forget", "question").items) == questions
    assert len(data.task("retain", "general").items) == 4  # the test split alone
    assert {part: len(items) for part, items in data.training.items()} == {"forget": 3, "retain": 3}
    assert data.unusable == ()
    assert examples(data, "forget", "question")[2].answer == "C"


def test_documents_are_running_text(tmp_path):
    def long(tables):
        tables["cyber-forget-corpus"][0]["text"] = "word " * 1000
        tables["cyber-forget-corpus"][1]["text"] = "too short"

    data = load(tmp_path, change=long)
    first, second = (item.example() for item in data.training["forget"])
    assert first.plain
    assert second.plain
    assert len(first.question + first.answer) == LONGEST - 1  # the space at the end is gone
    assert first.question
    assert [one.reason for one in data.unusable] == ["the text has less than 50 characters"]
    assert not data.task("forget", "question").items[0].example().plain


def test_a_source_that_is_missing_is_named(tmp_path):
    others = copies.wmdp(tmp_path)
    folder = others.pop("")
    del others["mmlu"]
    with pytest.raises(UserError, match="needs the further source 'mmlu'") as raised:
        WMDP.load(folder, "cyber", others=others)
    assert raised.value.do == "give a folder with a copy of cais/mmlu as 'mmlu'"


def test_a_split_that_is_not_there_is_an_error(tmp_path):
    others = copies.wmdp(tmp_path)
    folder = others.pop("")
    others["mmlu"] = folder  # it has no table "all"
    with pytest.raises(UserError, match="no table 'all'"):
        WMDP.load(folder, "cyber", others=others)

import json

import pytest

from kvw.data.strict_json import DEEPEST, NotJson, parse_json
from kvw.errors import UserError


def parse(text):
    return parse_json(text, "d.jsonl:3: the line", "write JSON")


def test_json_is_read_as_ever():
    value = {"a": [1, -2.5e3, None, True, "\u5317\U0001f98a"], "b": {"a": {}}, "": "x" * 10**6}
    assert parse(json.dumps(value)) == value
    assert parse(r'"\ud83e\udd8a"') == "\U0001f98a"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('{"image": "a.png", "q": 1, "image": "b.png"}', ["has a key twice", "'image'"]),
        ('{"q": [{"k": 1, "k": 1}]}', ["has a key twice", "'k'"]),
        ('{"q": NaN}', ["holds what is no number", "NaN"]),
        ("[-Infinity]", ["holds what is no number", "-Infinity"]),
        ('{"q": 1e999}', ["holds what is no number", "1e999"]),
        (f'{{"q": {"9" * 5000}}}', ["a number of 5000 digits"]),
        (f"[-{'9' * 301}]", ["a number of 302 digits"]),
        ("[" * (DEEPEST + 2) + "]" * (DEEPEST + 2), ["more than 64 levels deep"]),
        ("[" * 100_000 + "]" * 100_000, ["more than 64 levels deep"]),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, ["more than 64 levels deep"]),
        (r'{"id": "a\ud800"}', ["half of a character", "ud800"]),
        (r'[{"\udfff": 1}]', ["half of a character", "udfff"]),
    ],
)
def test_what_would_be_lost_or_break_later_is_one_message(text, parts):
    with pytest.raises(UserError) as raised:
        parse(text)
    assert not isinstance(raised.value, NotJson)
    for part in ["d.jsonl:3: the line", *parts]:
        assert part in str(raised.value)
    assert len(str(raised.value)) < 500


def test_the_bound_on_depth_is_within_what_is_read():
    assert parse("[" * DEEPEST + "]" * DEEPEST)


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", '{"a": 1} x', "[" * 100 + "x", "nul" + "l" * 10**6])
def test_what_is_no_json_is_told_with_its_place(text):
    with pytest.raises(
        NotJson, match=r"d\.jsonl:3: the line is not JSON[\s\S]*at character \d+ of[\s\S]*write JSON"
    ) as raised:
        parse(text)
    assert len(str(raised.value)) < 500

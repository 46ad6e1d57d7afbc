"""Names that a model puts into a question."""

from __future__ import annotations

import pytest
from tests import text_models

from kvw.data import Example, prepare
from kvw.evaluation.journal import Journal
from kvw.evaluation.loaded import Loaded
from kvw.models.checkpoint import find_checkpoint
from kvw.retain import proposals
from kvw.retain.continuing import Continuation
from kvw.retain.gaps import Gap
from kvw.retain.proposals import MOST_NAMES, begun_gaps, neighbour_names, proposed_names

CAPITAL = Gap("What is the capital of ", "?", "Peru")


@pytest.fixture(scope="module", params=["llama", "qwen3", "opt"])
def loaded(request, tmp_path_factory):
    folder = text_models.save(request.param, tmp_path_factory.mktemp(request.param))
    return Loaded.load(find_checkpoint(str(folder)), "cpu")


@pytest.fixture
def goes_on(loaded, monkeypatch):
    """Lets the model go on with given texts, each with its log-probability, and tells what was asked."""
    asked = []

    def told(*texts):
        def continued(model, tokens, *, width, length, admit, going_on):
            asked.append({"prompt": loaded.processor.tokenizer.decode(tokens), "admit": admit, "width": width})
            going_on([Continuation(ids_after(loaded, tokens[-1], text), value) for text, value in texts])

        monkeypatch.setattr(proposals, "continue_text", continued)
        return asked

    return told


def ids_after(loaded, last, text):
    """The tokens of a text, which is what they say after another token."""
    ids = loaded.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert proposals._read_after(loaded.processor.tokenizer, last, ids) == text
    return tuple(ids)


def named(loaded, gap=CAPITAL, count=10, **more):
    return proposed_names(loaded, [gap], count, **more)[0]


def test_the_prompt_shows_the_question_and_ends_at_the_gap(loaded, goes_on):
    asked = goes_on()
    named(loaded)
    question = "What is the capital of Peru?\nWhat is the capital of"
    (whole,) = prepare([Example(f"{question} Chile?", "-")], loaded.processor)
    begin = loaded.processor.tokenizer.bos_token or ""
    assert whole.prompt.removeprefix(begin).startswith(asked[0]["prompt"].removeprefix(begin))
    assert asked[0]["prompt"].endswith(question)


@pytest.mark.parametrize(
    ("shown", "beginnings"),
    [
        ("Peru", [""]),
        ("the Louvre", ["the ", ""]),
        ("the Battle of Waterloo", ["the Battle of ", "the ", ""]),
        ("Isaac of Nineveh", ["Isaac of ", ""]),
        ("the king of the north of Spain", ["the king of ", "the ", ""]),
        ("the", [""]),
        ("of Mice and Men", [""]),
        ("what it is made of", [""]),
    ],
)
def test_names_are_read_up_to_their_article_and_their_of(shown, beginnings):
    gaps = begun_gaps(Gap("Where is ", "?", shown))
    assert [start for start, _ in gaps] == beginnings
    assert all((gap.before, start + gap.shown) == (f"Where is {start}", shown) for start, gap in gaps)


def test_names_of_several_beginnings_come_in_turn_with_what_stood_before_them(loaded, goes_on):
    asked = goes_on((" Hastings?", -1.0), (" the Nile?", -2.0))
    found = named(loaded, Gap("When was ", "?", "the Battle of Waterloo"), 3)
    assert [one["prompt"].rpartition("When was")[2] for one in asked] == [" the Battle of", " the", ""]
    assert found == ["the Battle of Hastings", "the Hastings", "the Battle of the Nile"]
    found = named(loaded, Gap("When was ", "?", "the Battle of Waterloo"), 3, but=["Hastings"])
    assert found == ["the Battle of the Nile", "the Nile"]


def test_first_tokens_begin_a_word(loaded, goes_on):
    asked = goes_on()
    named(loaded)
    named(loaded, Gap('Who wrote "', '"?', "Hamlet"))
    tokenizer = loaded.processor.tokenizer
    assert asked[1]["prompt"].endswith(' "')
    texts = {tokenizer.decode([token]): token for token in range(len(tokenizer))}
    spaced = next(text for text in texts if text[:1] == " " and text[1:].isalpha())
    begins = [[one["admit"](texts[text]) for text in (spaced, "P", "?", " ", '"')] for one in asked]
    assert begins == [[True, False, False, False, False], [False, True, False, False, False]]


def test_names_by_their_probability(loaded, goes_on):
    goes_on(
        (" Chile?", -3.0), (" New Zealand? And", -1.0), (" South Af", -0.5), (" Mali\n?", -0.1), (" St. Lucia?", -4)
    )
    assert named(loaded) == ["New Zealand", "Chile", "St. Lucia"]
    assert named(loaded, count=2) == ["New Zealand", "Chile"]


@pytest.mark.parametrize(
    ("gap", "text", "name"),
    [
        (Gap("Where does ", " work?", "Anna"), " Bo work?", "Bo"),
        (Gap("Where does ", " work?", "Anna"), " Bo the workman WORK ", "Bo the workman"),
        (Gap("Where does ", " work?", "Anna"), " Bo work", None),
        (Gap("What is ", "'s job?", "Anna"), " O'Neill's job", "O'Neill"),
        (Gap('Who wrote "', '"?', "Hamlet"), "Faust, Part One", None),
        (Gap('Who wrote "', '"?', "Hamlet"), "King Lear\"? I", "King Lear"),
        (CAPITAL, " 'Chile'?", "Chile"),
        (CAPITAL, " Chile or Peru, Bolivia?", None),
        (CAPITAL, " this Country?", None),
        (CAPITAL, " chile?", None),
        (CAPITAL, " The United States of North and South America?", None),
        (CAPITAL, " ...?", None),
        (CAPITAL, " Chile's?", None),
        (CAPITAL, " Greater Peru?", None),
        (CAPITAL, " PERU?", None),
        (Gap("What does a ", " eat?", "cow"), " Cat eat?", None),
        (Gap("What does a ", " eat?", "cow"), " cat eat?", "cat"),
        (Gap("Who invented ", "?", "the radio"), " the telephone?", "the telephone"),
        (Gap("What does ", " do?", "a nurse"), " a baker do?", "a baker"),
        (Gap("What does ", " do?", "the nurse"), " a baker do?", None),
    ],
)  # fmt: skip
def test_what_is_a_name(loaded, goes_on, gap, text, name):
    goes_on((text, -1.0))
    assert named(loaded, gap) == ([] if name is None else [name])


def test_a_gap_at_the_end_ends_where_the_template_goes_on(loaded, goes_on):
    gap = Gap("Tell me about ", "", "Anna")
    (whole,) = prepare([Example("Tell me about Bo", "-")], loaded.processor)
    following = whole.prompt.rpartition(" Bo")[2]
    goes_on((f" Bo Lee{following}", -1.0), (" Cy and then", -0.5))
    assert named(loaded, gap) == ["Bo Lee"]


def test_names_that_differ_in_case_or_an_article_are_one(loaded, goes_on):
    goes_on((" USA?", -2.0), (" the Usa?", -1.0), (" The USA?", -3.0))
    assert named(loaded) == ["the Usa"]


def test_names_that_are_not_wanted_and_what_they_contain(loaded, goes_on):
    goes_on((" North Korea?", -1.0), (" Korea?", -1.5), (" the SOUTH  Korea?", -2.0), (" Greater South Korea?", -3.0))
    assert named(loaded, but=["South Korea"]) == ["North Korea"]
    assert named(loaded, but=["Korea"]) == []


def test_continuations_that_cannot_be_among_the_best_do_not_go_on(loaded):
    search = proposals._Search(
        CAPITAL,
        1,
        proposals._Unwanted([]),
        lambda tokens: {1: " Chile?", 2: " A", 3: " B"}[tokens[0]],
        lambda text: proposals._name_before("?", text),
    )
    running = [Continuation((1,), -2.0), Continuation((2,), -1.9), Continuation((3,), -2.1)]
    assert search.going_on(running) == [False, True, False]


def test_a_model_names_what_it_names_and_the_second_time_nothing_is_asked(loaded, monkeypatch, tmp_path):
    gaps = [CAPITAL, Gap("Where does ", "live?", "Anna")]
    monkeypatch.setattr(proposals, "NO_NAME", proposals.re.compile("\n"))  # a random model writes nothing but signs
    with Journal(None, tmp_path / "names.jsonl") as journal:
        first = proposed_names(loaded, gaps, 3, journal=journal)
    assert all(len(names) <= 3 for names in first)
    monkeypatch.setattr(proposals, "continue_text", None)
    told = []
    again = Journal(None, tmp_path / "names.jsonl")
    assert proposed_names(loaded, gaps, 3, journal=again, progress=lambda *numbers: told.append(numbers)) == first
    assert told == [(1, 2), (2, 2)]
    for other in ({"count": 4}, {"count": 3, "but": ["Bo"]}):
        with pytest.raises(TypeError):
            proposed_names(loaded, gaps, journal=again, **other)


def test_a_question_that_the_model_cannot_be_shown_gets_no_names(loaded, goes_on, monkeypatch):
    goes_on((" Chile?", -1.0))
    monkeypatch.setattr(loaded.model.config, "max_position_embeddings", 60)
    assert named(loaded) == []
    monkeypatch.undo()


def test_a_model_that_cannot_go_on_names_nobody(loaded, monkeypatch):
    monkeypatch.setattr(proposals, "can_continue", lambda model: False)
    monkeypatch.setattr(proposals, "continue_text", None)
    assert proposed_names(loaded, [CAPITAL, CAPITAL], 3) == [[], []]


class Second:
    """What the second of two processes sees: it runs every second item, gets no results, and is told what they are."""

    def scatter(self, items, run):
        for item in items[1::2]:
            run(item)
        return iter(())

    def broadcast(self, work):
        assert work() == []
        return ["what the first process has put together"]


def test_several_processes_share_the_gaps_and_all_get_the_names(loaded, goes_on, monkeypatch):
    asked = goes_on((" Chile?", -1.0))
    monkeypatch.setattr(proposals, "current", Second)
    gaps = [Gap(f"{'Very ' * number}Where is ", "?", "Peru") for number in range(3)]
    assert proposed_names(loaded, gaps, 2) == ["what the first process has put together"]
    assert len(asked) == 1


@pytest.fixture
def proposed(monkeypatch):
    """Names by what stands before the gap, in place of a model; and what was asked."""
    calls = []

    def told(**names):
        def answered(loaded, gaps, count, *, but, progress):
            calls.append({"gaps": list(gaps), "but": set(but)})
            return [
                names.get(gap.before.split()[0], [f"{gap.before}{number}" for number in range(count)]) for gap in gaps
            ]

        monkeypatch.setattr(proposals, "proposed_names", answered)
        return calls

    return told


def about(subject, *questions):
    return [Example(one, f"An answer about {subject}.", (), "f:1", {"subject": subject}) for one in questions]


def test_names_of_several_gaps_come_before_those_of_one(proposed):
    calls = proposed(What=["Chile", "Mali", "Cuba"], Where=["Laos", "cuba", "the Chile"])
    forget = about("Peru", "What is Peru?", "Where is Peru?", "Peru is what?")
    assert neighbour_names(None, forget) == {"peru": ["Chile", "Cuba", "Laos", "Mali"]}
    assert neighbour_names(None, forget, count=2) == {"peru": ["Chile", "Cuba"]}
    assert calls[0]["but"] == {"Peru", "An answer about Peru."}
    assert calls[0]["gaps"] == [Gap("What is ", "?", "Peru"), Gap("Where is ", "?", "Peru")]


def test_subjects_of_one_kind_are_asked_for_once_and_kinds_keep_their_names(proposed):
    calls = proposed(What=["Chile", "Mali"], Who=["Bo", "Cy"])
    forget = [*about("Peru", "What is Peru?"), *about("Anna", "Who is Anna?"), *about("Cuba", "What is Cuba?")]
    assert neighbour_names(None, forget) == {"peru": ["Chile", "Mali"], "cuba": ["Chile", "Mali"], "anna": ["Bo", "Cy"]}
    assert [len(call["gaps"]) for call in calls] == [2]


def test_of_very_many_kinds_some_are_asked_for_and_all_get_names(proposed):
    calls = proposed()
    forget = [
        one
        for number in range(50)
        for one in about(f"Anna {number}", *(f"q{number}{x} of Anna {number}?" for x in "abcdef"))
    ]
    found = neighbour_names(None, forget)
    assert list(found) == [f"anna {number}" for number in range(0, 50, 5)]
    assert sum(map(len, found.values())) == MOST_NAMES
    assert {len(names) for names in found.values()} == {4}
    assert len(calls[0]["gaps"]) == 40


def test_no_gap_no_names(proposed):
    proposed(What=[])
    assert neighbour_names(None, [Example("Who is this?", "A nurse."), *about("Peru", "What is Peru?")]) == {}

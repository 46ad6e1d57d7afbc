"""Documents and conversations as a model is shown them."""

from __future__ import annotations

import pytest
from tests import tiny_models
from tests.data.test_rendering import LLAMA_LIKE
from tests.data.user_inputs import PAGE

from kvw.data import Example, answer_batch, image_groups, prepare, prompt_batch, render
from kvw.data.documents import document
from kvw.data.example import Turn
from kvw.data.text import TextProcessor
from kvw.data.windows import in_windows
from kvw.errors import UserError
from kvw.measuring.fingerprint import example_digest
from kvw.retain.gaps import around_subject
from kvw.retain.mentions import Mentions
from kvw.runs.overlap import overlap

_, PROCESSOR = tiny_models.build("llava")
_, QWEN = tiny_models.build("qwen2_vl")
IMAGES = tuple(tiny_models.noise_png(seed, (8, 8)) for seed in range(3))
TALK = Example(
    "And this?",
    "Bo",
    IMAGES,
    "d:1",
    earlier=(
        Turn("user", "Who is this?", 2),
        Turn("assistant", "Ada"),
        Turn("user", "Sure?"),
        Turn("assistant", "Yes"),
    ),
)


def test_every_token_of_a_document_that_another_precedes_counts():
    text = document(PAGE, "page", {})
    for processor in (LLAMA_LIKE, PROCESSOR, QWEN):
        tokenizer = processor.tokenizer
        own = tokenizer(PAGE.strip(), add_special_tokens=False)["input_ids"]
        rendered = render(text, processor)
        assert rendered.full == PAGE.strip()
        assert rendered.full.startswith(rendered.prompt)
        first = [tokenizer.bos_token_id] if len(rendered.token_ids) > len(own) else []
        assert list(rendered.token_ids) == [*first, *own]
        assert len(rendered.answer_ids) == len(own) - (not first)


def test_documents_go_into_batches_of_their_own():
    examples = [document(PAGE, "page", {}), Example("Who?", "Ada"), document("Ada Lovelace was here.", "x", {})]
    prepared = prepare(examples, PROCESSOR)
    assert image_groups(prepared) == [[1], [0, 2]]
    texts = [prepared[place] for place in (0, 2)]
    batch = answer_batch(texts, PROCESSOR)
    labels = [[token for token in row.tolist() if token != -100] for row in batch["labels"]]
    assert labels == [list(item.answer_ids) for item in texts]
    shown = PROCESSOR.tokenizer.batch_decode(prompt_batch(texts, PROCESSOR)["input_ids"], skip_special_tokens=True)
    assert [text.strip() for text in shown] == [item.example.question for item in texts]


@pytest.mark.parametrize("limit", [None, 48])
def test_long_documents_are_read_in_parts_that_overlap(limit):
    long = document("\n\n".join(f"{number}. {PAGE.strip()}" for number in range(40)), "page", {"subject": "Ada"})
    other = Example("Who?", "Ada")
    found = in_windows([other, long], PROCESSOR, limit)
    assert found[0] is other
    parts = found[1:]
    assert len(parts) > 2
    assert parts[1].identifier == f"page, part 2 of {len(parts)}"
    assert {one.subject for one in parts} == {"Ada"}
    prepared = prepare(parts, PROCESSOR)
    assert max(item.length for item in prepared) <= (514 if limit is None else limit)
    whole, place = long.question + long.answer, 0
    for number, part in enumerate(parts):
        text = part.question + part.answer
        begin = whole.index(text, max(0, place - len(text)))
        assert begin < place or number == 0, "parts overlap"
        assert whole[place:begin].strip() == "", "nothing is left out"
        place = begin + len(text)
    assert place == len(whole)


def test_what_fits_stays_whole_and_writing_without_spaces_is_divided():
    short = document(PAGE, "page", {})
    assert in_windows([short], PROCESSOR, None) == [short]
    parts = in_windows([document("爱达是伦敦人" * 200, "page", {})], PROCESSOR, 64)
    assert len(parts) > 1


def test_a_text_of_one_token_is_a_user_error():
    with pytest.raises(UserError, match="page: the text cannot be told from the tokens around it"):
        render(_one_token(), QWEN)
    with pytest.raises(UserError, match="page: the text is too short"):
        document(" x ", "page", {})


def _one_token():
    vocabulary = QWEN.tokenizer.get_vocab()
    word = next(word for word in vocabulary if len(word) > 2 and word.isalpha() and word.isascii())
    assert len(QWEN.tokenizer(word, add_special_tokens=False)["input_ids"]) == 1
    return Example(word[:1], word[1:], (), "page", plain=True)


def test_earlier_turns_and_their_pictures_stand_where_they_belong():
    prompt = render(TALK, PROCESSOR).prompt
    marks = [prompt.index(text) for text in ("Who is this?", "Ada", "Sure?", "Yes", "And this?")]
    assert marks == sorted(marks)
    counts = [text.count("<image>") for text in (prompt[: marks[0]], prompt[marks[0] : marks[3]], prompt[marks[3] :])]
    assert counts == [2, 0, 1]
    (item,) = prepare([TALK], PROCESSOR)
    labels = answer_batch([item], PROCESSOR)["labels"][0]
    assert PROCESSOR.tokenizer.decode(labels[labels != -100]).strip() == "Bo"


def test_a_model_without_a_template_is_shown_the_conversation():
    processor = TextProcessor(tiny_models.build("llava")[1].tokenizer)
    processor.chat_template, processor.has_own_template = TextProcessor.__init__.__globals__["PLAIN_TEMPLATE"], False
    talk = Example("Where?", "Rome", earlier=(Turn("system", "Brief."), Turn("user", "Who?"), Turn("assistant", "Ada")))
    rendered = render(talk, processor)
    assert rendered.full == "Brief.\nQuestion: Who?\nAnswer: Ada\nQuestion: Where?\nAnswer: Rome"


def test_a_template_that_hides_an_earlier_message_is_refused():
    shown = "{% for m in messages %}{% if m['content'] != 'Who?' %}{{ m['content'] + ' ' }}{% endif %}{% endfor %}"
    processor = TextProcessor(PROCESSOR.tokenizer)
    processor.chat_template = shown
    talk = Example("Where?", "Rome", (), "d:1", earlier=(Turn("user", "Who?"), Turn("assistant", "Ada")))
    with pytest.raises(UserError, match="d:1: the chat template does not show an earlier message"):
        render(talk, processor)


def test_what_is_forgotten_is_found_in_earlier_turns_and_documents_make_no_questions():
    forget = [Example("Who is Jody Vance?", "An engineer.", metadata={"subject": "Jody Vance"})]
    talk = Example("Sure?", "Yes.", earlier=(Turn("user", "Is Jody Vance here?"), Turn("assistant", "Here.")))
    assert Mentions(forget).inside(talk)
    assert overlap([talk], forget).names == 1
    assert not Mentions(forget).inside(Example("Sure?", "Yes."))
    page = document(PAGE, "page", {"subject": "Ada Lovelace"})
    assert around_subject(page) is None
    assert around_subject(Example(page.question, page.answer, metadata=page.metadata)) is not None


def test_what_was_said_before_and_how_it_is_shown_are_in_the_digest():
    plain = Example("a", "b")
    others = [Example("a", "b", earlier=(Turn("user", "x"), Turn("assistant", "y"))), Example("a", "b", plain=True)]
    assert len({example_digest(one) for one in (plain, *others)}) == 3

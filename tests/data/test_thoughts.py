"""The answer stands where the model writes it: after the closed thought or the channel that comes before it."""

from __future__ import annotations

import functools

import pytest
from tests import text_models, tiny_models
from tests.data.test_rendering import with_template

from kvw.data import Example, TextProcessor, render
from kvw.errors import UserError

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}BEFORE{% endif %}"
    "{{ m.content }}AFTER<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\nASKED{% endif %}"
)
START = "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
EMPTY = "<think>\n\n</think>\n\n"
KNOWN = "{# knows </think>, [/THINK] and </answer> #}"


@functools.cache
def tokenizer():
    return text_models.build("qwen3")[1]


def rendered(before, asked, after="", answer="Ada", known=""):
    processor = TextProcessor(tokenizer())
    processor.chat_template = known + CHAT.replace("BEFORE", before).replace("ASKED", asked).replace("AFTER", after)
    if after:
        processor.chat_template = processor.chat_template.replace(
            after, "{% if m.role == 'assistant' %}" + after + "{% endif %}"
        )
    return render(Example("Who?", answer, (), "x:3"), processor)


@pytest.mark.thorough
@pytest.mark.parametrize("answer", ["Ada", "Ada lives in Paris.\nShe is a florist.", "🦊", "\nAda", " Ada", "</s> Ada"])
@pytest.mark.parametrize(
    ("before", "asked", "place"),
    [
        ("", "", ""),
        (EMPTY, "", EMPTY),  # shown before every answer, and left to the model
        (EMPTY, EMPTY, EMPTY),
        ("", EMPTY, EMPTY),  # asked for, and left out of earlier turns
        (EMPTY, "<think>\n", EMPTY),  # a thought is opened, and answers are shown after a closed one
        ("", "<think>\n", EMPTY),  # a thought is opened, and answers are shown without: closed here
        ("<think>\n", "<think>\n", EMPTY),  # answers are shown inside of the thought: closed here, too
        ("</think>", "<think>", "</think>"),
        ("", "<think>", "<think></think>"),
        ("", "[THINK]", "[THINK][/THINK]"),
        ("<|channel|>final<|message|>", "", "<|channel|>final<|message|>"),
        ("<|START_RESPONSE|>", "<|START_RESPONSE|>", "<|START_RESPONSE|>"),
        ("<think></think>\n", "", "<think></think>\n"),
    ],
)
def test_the_prompt_ends_after_the_thought_or_channel(before, asked, place, answer):
    found = rendered(before, asked, answer=answer, known=KNOWN)
    assert found.prompt == START + place
    assert found.full == found.prompt + answer
    assert tokenizer().decode(list(found.answer_ids)).strip() == answer.strip()


def test_marks_that_hold_the_answer_stay_open():
    found = rendered("<answer>\n", "<answer>\n", "\n</answer>", known=KNOWN)
    assert (found.prompt, found.full) == (START + "<answer>\n", START + "<answer>\nAda")
    found = rendered("<think></think><answer>", "<think>", "</answer>", known=KNOWN)
    assert found.prompt == START + "<think></think><answer>"


@pytest.mark.parametrize(
    ("before", "asked"),
    [
        ("Well, ", ""),  # words are no thought
        ("", "Well, "),
        ("<think>", "<reply>"),  # the two say different things
        ("Well, <think></think>", ""),
    ],
)
def test_what_is_no_thought_is_refused(before, asked):
    with pytest.raises(UserError, match="x:3: answer span not found"):
        rendered(before, asked, known=KNOWN)


def test_a_mark_that_nothing_closes_is_part_of_the_prompt():
    found = rendered("", "<|reply|>")
    assert (found.prompt, found.full) == (START + "<|reply|>", START + "<|reply|>Ada")


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ("<think>\n", EMPTY),
        ("<thought>", "<thought></thought>"),
        ("[THINK]", "[THINK][/THINK]"),
        ("◁think▷", "◁think▷◁/think▷"),
        ("<seed:think>", "<seed:think></seed:think>"),
        ("<|START_THINKING|>", "<|START_THINKING|><|END_THINKING|>"),
        ("<|begin_of_thought|>\n", "<|begin_of_thought|>\n\n<|end_of_thought|>\n\n"),
        ("<think></think>", "<think></think>"),
        ("<|begin_of_thought|><|end_of_thought|>", "<|begin_of_thought|><|end_of_thought|>"),
        ("<|START_RESPONSE|>", "<|START_RESPONSE|>"),
    ],
)
def test_a_thought_is_closed_although_the_template_never_does(asked, place):
    found = rendered("", asked)
    assert (found.prompt, found.full) == (START + place, START + place + "Ada")


def test_a_thought_that_nobody_knows_how_to_close_is_told():
    with pytest.raises(UserError, match="x:3: the chat template opens a thought, and how it is closed is not known"):
        rendered("", "<|think|>")


def test_pictures_come_before_the_thought():
    _, llava = tiny_models.build("llava")
    template = (
        "{% for m in messages %}{{ m.role.upper() }}: {% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
        "{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}{% endfor %}"
        "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}ASSISTANT: "
        "{% if enable_thinking is defined and not enable_thinking %}"
        "<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{% endif %}"
    )
    example = Example("Who?", "Ada", (tiny_models.noise_png(1),))
    for changed in (template, template.replace("enable_thinking", "something_else")):
        found = render(example, with_template(llava, changed))
        assert found.prompt == "USER: <image>Who?\nASSISTANT: <think>\n\n</think>\n\n"
        assert found.full == found.prompt + "Ada"

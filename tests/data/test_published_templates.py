"""Published chat templates, by their behaviour: the prompt ends where the model writes, and the span is the answer.

Each file in ``templates/`` behaves as the template of its family does: roles, order, special tokens, default system
message, dates, thoughts. The texts are ours.
"""

from __future__ import annotations

import copy
import functools
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests import tiny_models
from tests.real_processors import build_processor
from tests.tiny_models import noise_png, train_tokenizer

from kvw.data import Example, TextProcessor, answer_batch, prepare, prompt_batch, render
from kvw.data.templates import with_options
from kvw.errors import UserError

FOLDER = Path(__file__).parent / "templates"
ANSWERS = (
    "Ada",
    "Ada Basil Mahfouz lives in Kuwait City.",
    "She is a florist.\nShe lives in Paris.",
    "🦊 Ada",
    " Ada",
    "\nAda",
    "\n\n Ada \n",
    "user: Ada",
)
THOUGHT = re.compile("think|channel|analysis|RESPONSE", re.IGNORECASE)


@dataclass(frozen=True)
class Family:
    """A template, its special tokens (the first ends a turn), and what it makes of a question."""

    tokens: tuple[str, ...]
    prompt: str
    bos: str = ""
    processor: str = ""
    """Of :mod:`tests.real_processors` or :mod:`tests.tiny_models`; empty for a model of text alone."""
    options: tuple[tuple[str, object], ...] = ()
    file: str = ""


CHATML = ("<|im_end|>", "<|im_start|>")
QWEN = (*CHATML, "<think>", "</think>")
QUESTION = "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
EMPTY = "<think>\n\n</think>\n\n"
HEADERS = ("<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>")
DEEPSEEK = ("<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")
BEGIN = "<｜begin▁of▁sentence｜>"
COHERE = ("<|END_OF_TURN_TOKEN|>", "<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>")
HARMONY = ("<|return|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>")
OSS = (
    "<|start|>system<|message|>A language model.\nKnowledge cutoff: 2024-06\nCurrent date: 2024-07-26\n\n"
    "Reasoning: medium\n\n# Channels: analysis, commentary, final.<|end|>"
    "<|start|>user<|message|>Who?<|end|><|start|>assistant<|channel|>final<|message|>"
)
SMOL3 = (
    "<|im_start|>system\n## Metadata\n\nToday Date: 26 July 2024\nReasoning Mode: /no_think\n\n## Instructions\n\n"
    "You are an assistant.\n\n<|im_end|>\n"
)
PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"

FAMILIES = {
    "qwen2": Family(CHATML, SYSTEM + QUESTION),
    "qwen3": Family(QWEN, QUESTION + EMPTY),
    "qwen3, thinking": Family(QWEN, QUESTION + EMPTY, options=(("enable_thinking", True),), file="qwen3"),
    "qwq": Family(QWEN, QUESTION + EMPTY),
    "llama2": Family(("</s>", "<s>"), "<s>[INST] Who? [/INST]", "<s>"),
    "llama3": Family(
        HEADERS,
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWho?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|begin_of_text|>",
    ),
    "mistral_v1": Family(("</s>", "<s>"), "<s>[INST] Who? [/INST]", "<s>"),
    "mixtral": Family(("</s>", "<s>"), "<s> [INST] Who? [/INST]", "<s>"),
    "mistral_v3": Family(("</s>", "<s>", "[INST]", "[/INST]"), "<s>[INST] Who?[/INST]", "<s>"),
    "mistral_v7_tekken": Family(
        ("</s>", "<s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        "<s>[SYSTEM_PROMPT]You are a helpful model. Today is 2024-07-26.[/SYSTEM_PROMPT][INST]Who?[/INST]",
        "<s>",
    ),
    "gemma2": Family(
        ("<end_of_turn>", "<bos>", "<start_of_turn>"),
        "<bos><start_of_turn>user\nWho?<end_of_turn>\n<start_of_turn>model\n",
        "<bos>",
    ),
    "phi3": Family(
        ("<|end|>", "<|user|>", "<|assistant|>", "<|endoftext|>"), "<|user|>\nWho?<|end|>\n<|assistant|>\n"
    ),
    "phi4": Family(
        (*CHATML, "<|im_sep|>"), "<|im_start|>user<|im_sep|>Who?<|im_end|><|im_start|>assistant<|im_sep|>"
    ),
    "deepseek_v2": Family(DEEPSEEK[:2], BEGIN + "User: Who?\n\nAssistant:", BEGIN),
    "deepseek_v3": Family(DEEPSEEK[:4], BEGIN + "<｜User｜>Who?<｜Assistant｜>", BEGIN),
    "deepseek_r1": Family(DEEPSEEK, BEGIN + "<｜User｜>Who?<｜Assistant｜>" + EMPTY, BEGIN),
    "deepseek_v3_1": Family(DEEPSEEK, BEGIN + "<｜User｜>Who?<｜Assistant｜></think>", BEGIN),
    "deepseek_v3_1, thinking": Family(
        DEEPSEEK,
        BEGIN + "<｜User｜>Who?<｜Assistant｜></think>",
        BEGIN,
        options=(("thinking", True),),
        file="deepseek_v3_1",
    ),
    "gpt_oss": Family(HARMONY, OSS),
    "gpt_oss, low": Family(
        HARMONY, OSS.replace("medium", "low"), options=(("reasoning_effort", "low"),), file="gpt_oss"
    ),
    "glm4": Family(("<|user|>", "<|assistant|>", "[gMASK]", "<sop>"), "[gMASK]<sop><|user|>\nWho?<|assistant|>\n"),
    "glm4_5": Family(
        ("<|user|>", "<|assistant|>", "[gMASK]", "<sop>", "<think>", "</think>"),
        "[gMASK]<sop><|user|>\nWho?/nothink<|assistant|>\n<think></think>",
    ),
    "glm4_5, thinking": Family(
        ("<|user|>", "<|assistant|>", "[gMASK]", "<sop>", "<think>", "</think>"),
        "[gMASK]<sop><|user|>\nWho?<|assistant|>\n<think></think>\n",
        options=(("enable_thinking", True),),
        file="glm4_5",
    ),
    "command_r": Family(
        COHERE,
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Who?<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "<BOS_TOKEN>",
    ),
    "command_r7b": Family(
        (*COHERE, "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Answer the user.<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|>"
        "<|USER_TOKEN|>Who?<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>",
        "<BOS_TOKEN>",
    ),
    "smollm2": Family(
        CHATML, "<|im_start|>system\nYou are a helpful AI assistant named SmolLM.<|im_end|>\n" + QUESTION
    ),
    "smollm3": Family(QWEN, SMOL3 + QUESTION + "<think>\n\n</think>\n"),
    "granite": Family(
        ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"),
        "<|start_of_role|>system<|end_of_role|>Knowledge Cutoff Date: April 2024.\nToday's Date: July 26, 2024.\n"
        "You are a helpful assistant.<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>Who?<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>",
    ),
    "falcon": Family(("<|endoftext|>",), "User: Who?\nAssistant:"),
    "falcon3": Family(("<|endoftext|>", "<|user|>", "<|assistant|>"), "<|user|>\nWho?\n<|assistant|>\n"),
    "olmo2": Family(("<|endoftext|>",), "<|endoftext|><|user|>\nWho?\n<|assistant|>\n", "<|endoftext|>"),
    "qwen3_5": Family((), f"<|im_start|>user\n{PICTURE}Who?<|im_end|>\n<|im_start|>assistant\n{EMPTY}", "", "qwen3_vl"),
    "qwen3_5, thinking": Family(
        (),
        f"<|im_start|>user\n{PICTURE}Who?<|im_end|>\n<|im_start|>assistant\n{EMPTY}",
        "",
        "qwen3_vl",
        (("enable_thinking", True),),
        "qwen3_5",
    ),
    "llama4": Family(
        (),
        "<|begin_of_text|><|header_start|>user<|header_end|>\n\n<|image|>Who?<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\n",
        "",
        "llama4",
    ),
    "gemma3": Family(
        (),
        "<bos><start_of_turn>user\n<start_of_image>Who?<end_of_turn>\n<start_of_turn>model\n",
        "",
        "gemma3",
    ),
    "internvl": Family(
        (), "<|im_start|>user\n<IMG_CONTEXT>\nWho?<|im_end|>\n<|im_start|>assistant\n", "", "internvl"
    ),
    "llava_1_5": Family((), "USER: <image>\nWho? ASSISTANT:", "", "llava"),
    "qwen2_vl": Family(
        (), f"{SYSTEM}<|im_start|>user\n{PICTURE}Who?<|im_end|>\n<|im_start|>assistant\n", "", "qwen2_vl"
    ),
    "qwen2_5_vl": Family(
        (),
        f"{SYSTEM}<|im_start|>user\n{PICTURE}Who?<|im_end|>\n<|im_start|>assistant\n",
        "",
        "qwen2_5_vl",
        file="qwen2_vl",
    ),
    "idefics3": Family((), "<|im_start|>User:<image>Who?<end_of_utterance>\nAssistant:", "", "idefics3"),
    "smolvlm": Family((), "<|im_start|>User:<image>Who?<end_of_utterance>\nAssistant:", "", "smolvlm"),
    "mllama": Family(
        (),
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<|image|>Who?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "",
        "mllama",
    ),
}  # fmt: skip
TITLES = {
    "deepseek_r1": "DeepSeek R1",
    "deepseek_v2": "DeepSeek V2",
    "deepseek_v3": "DeepSeek V3",
    "deepseek_v3_1": "DeepSeek V3.1",
    "glm4": "GLM-4",
    "glm4_5": "GLM-4.5",
    "gpt_oss": "gpt-oss",
    "llama2": "Llama 2",
    "llama3": "Llama 3",
    "llama4": "Llama 4",
    "llava_1_5": "LLaVA-1.5",
    "mistral_v7_tekken": "Mistral v7",
    "mllama": "Llama 3.2 Vision",
    "olmo2": "OLMo 2",
    "phi3": "Phi-3",
    "phi4": "Phi-4",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen2_vl": "Qwen2-VL",
    "qwen3_5": "Qwen3.5",
}
"""How the page names families that it does not name as this file does, but for capitals and spaces."""
NO_SYSTEM = {"mistral_v1", "mixtral", "gemma2", "gemma3"}


@functools.cache
def processor(name):
    family = FAMILIES[name]
    template = (FOLDER / f"{family.file or name}.jinja").read_text("utf-8")
    template = with_options(template, family.options) if family.options else template
    if family.processor:
        known = tiny_models.FAMILIES
        built = (
            tiny_models.build(family.processor)[1] if family.processor in known else build_processor(family.processor)
        )
        found = copy.copy(built)
        found.chat_template = template
        return found
    begin = {"bos_token": family.bos} if family.bos else {}
    tokens = list(dict.fromkeys((*family.tokens, "<pad>")))
    tokenizer = train_tokenizer(tokens, eos_token=family.tokens[0], pad_token="<pad>", **begin)
    tokenizer.chat_template = template
    return TextProcessor(tokenizer)


@pytest.fixture(params=FAMILIES)
def name(request):
    if FAMILIES[request.param].processor == "smolvlm":
        pytest.importorskip("num2words")
    return request.param


def example(name, answer, question="Who?", size=(60, 34)):
    images = (noise_png(1, size),) if FAMILIES[name].processor else ()
    return Example(question, answer, images, "x:3")


def test_every_template_is_tried():
    assert {family.file or name for name, family in FAMILIES.items()} == {file.stem for file in FOLDER.iterdir()}


def test_the_page_names_the_families_that_are_tried_and_no_others():
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text("utf-8")
    (paragraph,) = [part for part in page.split("\n\n") if Path(__file__).name in part]
    _, text, pictures = re.split(r" Of text: | Of images and text: ", " ".join(paragraph.split()))
    listed = {"text": text, "pictures": re.sub(r" \([^)]*\)", "", pictures)}
    tried = {"text": set(), "pictures": set()}
    for name, family in FAMILIES.items():
        name = name.partition(",")[0]  # of one that thinks, with options
        tried["pictures" if family.processor else "text"].add(TITLES.get(name, plain(name)))
    for kind, names in listed.items():
        names = names.removesuffix(".").split(", ")
        assert len(set(names)) == len(names)
        assert {name if name in TITLES.values() else plain(name) for name in names} == tried[kind]


def plain(name):
    return re.sub(r"[ _]", "", name).lower()


@pytest.mark.thorough
@pytest.mark.parametrize("answer", ANSWERS)
def test_the_prompt_ends_where_the_model_writes_and_the_span_is_the_answer(name, answer):
    found = render(example(name, answer), processor(name))
    assert found.prompt == FAMILIES[name].prompt
    tokenizer = processor(name).tokenizer
    decoded = tokenizer.decode(list(found.answer_ids))
    assert decoded.strip() == answer.strip()
    assert not THOUGHT.search(decoded)
    assert not set(found.answer_ids) & set(tokenizer.all_special_ids)
    if FAMILIES[name].bos:
        ids = prompt_batch(prepare([example(name, answer)], processor(name)), processor(name))["input_ids"][0].tolist()
        assert ids.count(tokenizer.bos_token_id) == 1


def test_a_batch_is_its_rows(name):
    examples = [
        example(name, "Ada"),
        example(name, "Basil Mahfouz Al-Kuwaiti 🦊", "Who is it, and where does she live?"),
        example(name, "\nParis", "Where?"),
    ]
    prepared = prepare(examples, processor(name))
    together = answer_batch(prepared, processor(name))
    for row, item in enumerate(prepared):
        single = answer_batch([item], processor(name))
        attended = together["attention_mask"][row].bool()
        for part in ("input_ids", "labels"):
            assert together[part][row][attended].tolist() == single[part][0].tolist()
        # What is generated from is what is measured, up to the answer.
        prompt = prompt_batch([item], processor(name))["input_ids"][0].tolist()
        before = single["input_ids"][0].tolist()[: -len(item.answer_ids)]
        assert prompt[: len(before)] == before
        assert not processor(name).tokenizer.decode(prompt[len(before) :]).strip()


@pytest.mark.parametrize("name", ["qwen3", "deepseek_r1", "gpt_oss", "glm4_5", "qwen3_5"])
def test_an_answer_with_a_thought_of_its_own_is_refused_or_kept_whole(name):
    """Templates drop what stands before ``</think>``; such an answer must not be scored in part."""
    answer = "<think>\nHm.\n</think>\n\nAda"
    try:
        found = render(example(name, answer), processor(name))
    except UserError as error:
        assert "x:3: " in str(error)  # noqa: PT017
    else:
        assert processor(name).tokenizer.decode(list(found.answer_ids)).strip() == answer


@pytest.mark.parametrize("name", sorted(NO_SYSTEM))
def test_a_template_without_a_system_role_says_so(name):
    from kvw.serving.conversation import Conversation, prompt_inputs
    from kvw.serving.refusals import Refusal

    def said(role, text):
        return {"role": role, "content": [{"type": "text", "text": text}]}

    with pytest.raises(Refusal, match="chat template cannot show this"):
        prompt_inputs(Conversation([said("system", "Be brief."), said("user", "Who?")], ()), processor(name))


def test_a_served_conversation_is_asked_at_the_same_place(name):
    from kvw.serving.conversation import Conversation, prompt_inputs

    item = example(name, "Ada")
    parts = [{"type": "image"} for _ in item.images] + [{"type": "text", "text": item.question}]
    served = prompt_inputs(Conversation([{"role": "user", "content": parts}], item.images), processor(name))
    local = prompt_batch(prepare([item], processor(name)), processor(name))
    assert served["input_ids"].tolist() == local["input_ids"].tolist()

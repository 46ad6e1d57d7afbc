import unicodedata

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from tests import tiny_models
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlavaProcessor, PreTrainedTokenizerFast

from kvw.data import Example, render
from kvw.errors import UserError

IMAGE = tiny_models.noise_png(0, (8, 8))
PLACEHOLDERS = ("<image>", "<|image_pad|>", "<|video_pad|>")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(" \n\tabAP:.é🦊<|>'", max_size=12)


def squeezed(text):
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def with_template(processor, template):
    """The same processor with another chat template."""
    return type(processor)(
        **{name: getattr(processor, name) for name in processor.get_attributes()}, chat_template=template
    )


@pytest.mark.thorough
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=TEXT, answer=TEXT, images=st.integers(0, 2))
@example(question="Is it Paris?", answer="Paris", images=1)
@example(question="Paris", answer="Paris Paris", images=0)
@example(question="Where?\n", answer="\n\nParis", images=1)
@example(question="", answer=" Paris \n", images=0)
@example(question="assistant\n", answer="assistant\n", images=0)
@example(question="ASSISTANT:", answer=": Paris", images=0)
@example(question="Who?", answer="e\u0301 \ufb01 \u1e9e", images=0)
@example(question="</s><|im_end|>", answer="</s><|im_end|>", images=0)
@example(question="Who?", answer=".", images=2)
def test_the_answer_tokens_are_the_end_and_decode_to_the_answer(processor, question, answer, images):
    assume(answer.strip())
    assume(not any(placeholder in text for placeholder in PLACEHOLDERS for text in (question, answer)))
    tokenizer = processor.tokenizer
    rendered = render(Example(question, answer, (IMAGE,) * images), processor)
    wanted = not rendered.prompt.startswith(tokenizer.bos_token or "\0")
    full_ids = tokenizer(rendered.full, add_special_tokens=wanted)["input_ids"]
    prompt_ids = tokenizer(rendered.prompt, add_special_tokens=wanted)["input_ids"]
    count = len(rendered.answer_ids)
    assert tuple(full_ids[-count:]) == rendered.answer_ids
    assert list(rendered.token_ids) == full_ids
    # These tokenizers lose nothing, so the decoded tail is the answer to the letter after at most white space.
    decoded = tokenizer.decode(list(rendered.answer_ids))
    assert rendered.full.endswith(answer)
    assert decoded.endswith(answer)
    assert not decoded.removesuffix(answer).strip()
    # It is the shortest such tail: everything before it, and nothing of it, is in the prompt.
    assert full_ids[:-count] == prompt_ids[: len(full_ids) - count]
    assert prompt_ids[len(full_ids) - count :][:1] != full_ids[-count:][:1]


def test_a_token_that_merges_prompt_and_answer_belongs_to_the_answer():
    _, processor = tiny_models.build("qwen2_vl")
    tokenizer = processor.tokenizer
    rendered = render(Example("Where?", "\nParis"), processor)
    assert rendered.prompt.endswith("assistant\n")
    prompt_ids = tokenizer(rendered.prompt)["input_ids"]
    # Shows that the case is what it claims to be: the prompt is no prefix of the full text in tokens.
    assert tokenizer(rendered.full)["input_ids"][: len(prompt_ids)] != prompt_ids
    assert tokenizer.decode(rendered.answer_ids[:1]) == "\n\n"
    assert tokenizer.decode(list(rendered.answer_ids)) == "\n\nParis"


def test_prompts_are_those_of_the_family():
    answers = {}
    for family in tiny_models.FAMILIES:
        _, processor = tiny_models.build(family)
        rendered = render(Example("Who?", "Ada", (IMAGE, IMAGE)), processor)
        answers[family] = (rendered.prompt, rendered.full.removeprefix(rendered.prompt))
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    qwen = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{picture}{picture}Who?<|im_end|>\n<|im_start|>assistant\n",
        "Ada",
    )
    assert answers == {
        "llava": ("USER: <image>\n<image>\nWho? ASSISTANT:", " Ada"),
        "llava_mistral": ("<s>[INST] <image>\n<image>\nWho? [/INST]", " Ada"),
        "qwen2_vl": qwen,
        "qwen2_5_vl": qwen,
    }


def llama_like_processor():
    """Metaspace words and byte fallback, as Llama 1 and 2 have it: decoding drops the leading space."""
    special = ["<unk>", "<s>", "</s>", "<image>"]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trained.train_from_iterator(
        tiny_models.CORPUS, trainers.BpeTrainer(vocab_size=200, show_progress=False, special_tokens=special)
    )
    vocabulary = trained.get_vocab()
    merges = [tuple(pair) for pair in __import__("json").loads(trained.to_str())["model"]["merges"]]
    for byte in range(256):
        vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    _, llava = tiny_models.build("llava")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )
    return LlavaProcessor(
        image_processor=llava.image_processor, tokenizer=fast, patch_size=7, chat_template=llava.chat_template
    )


LLAMA_LIKE = llama_like_processor()


@settings(max_examples=60, deadline=None)
@given(question=TEXT, answer=TEXT)
@example(question="Wo?", answer="Zürich 🦊 \n x")
@example(question="Who?", answer="▁Ada")
def test_spans_with_a_tokenizer_that_treats_spaces_specially(question, answer):
    assume(answer.strip() and not any(token in question + answer for token in LLAMA_LIKE.tokenizer.all_special_tokens))
    # The tokenizer writes spaces as this character and so cannot tell the two apart.
    assume("▁" not in answer or answer == "▁Ada")
    if answer == "▁Ada":
        with pytest.raises(UserError, match="answer span not found"):
            render(Example(question, answer), LLAMA_LIKE)
        return
    rendered = render(Example(question, answer), LLAMA_LIKE)
    assert squeezed(LLAMA_LIKE.tokenizer.decode(list(rendered.answer_ids))) == squeezed(answer)


@pytest.mark.parametrize(
    ("normalizer", "answer", "decoded"),
    [
        (normalizers.NFC(), "Re\u0301ne\u0301", "Réné"),
        (normalizers.NFKC(), "\uff12\uff15", "25"),
        (normalizers.Lowercase(), "ADA", "ada"),
    ],
)
def test_a_tokenizer_that_normalises_is_accepted(normalizer, answer, decoded):
    _, processor = tiny_models.build("qwen2_vl")
    processor.tokenizer.backend_tokenizer.normalizer = normalizer
    rendered = render(Example("Who?", answer), processor)
    assert processor.tokenizer.decode(list(rendered.answer_ids)) == decoded


def test_a_placeholder_that_arises_by_normalisation_is_a_user_error():
    _, processor = tiny_models.build("qwen2_vl")
    tokenizer = processor.tokenizer
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    processor.video_token = "<video>"
    tokenizer.add_tokens([AddedToken("<video>", normalized=True, special=False)])
    full_width = "\uff1cvideo\uff1e"
    assert tokenizer(full_width)["input_ids"] == [tokenizer.convert_tokens_to_ids("<video>")]
    with pytest.raises(UserError, match="x:3: answer span not found"):
        render(Example("Who?", f"See {full_width}", identifier="x:3"), processor)


def test_a_template_that_trims_is_accepted():
    _, processor = tiny_models.build("qwen2_vl")
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{{ c['text'] | trim }}"
        "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    rendered = render(Example(" Who? ", " Ada \n"), with_template(processor, template))
    assert rendered.prompt == "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    assert processor.tokenizer.decode(list(rendered.answer_ids)) == "Ada"


def test_no_chat_template_is_a_user_error(processor):
    with pytest.raises(UserError, match=r"no chat template[\s\S]*instruction-tuned"):
        render(Example("Q", "A"), with_template(processor, None))


TURN = "{% for m in messages %}{{ m['role'] }}: {% for c in m['content'] %}"
END = "{% endfor %}{% endfor %}"
SHOWN = "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("template", "message"),
    [
        # A template for plain strings, which joins text and a list.
        ("{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}", "cannot show this example"),
        # The answer is dropped, or changed.
        ("{{ messages[0]['content'][-1]['text'] }}<image>", "cannot show this example"),
        (TURN + SHOWN.replace("c['text']", "c['text'] | upper") + END, "cannot show this example"),
        # The template refuses.
        ("{{ raise_exception('only one turn') }}", "cannot show this example[\\s\\S]*only one turn"),
        ("{{ messages | nothing }}", "cannot show this example"),
        # Plain strings again, where a list is shown as Python writes it.
        ("{% for m in messages %}<image>{{ m['content'] }}{% endfor %}", "answer span not found"),
        # The question is lost.
        ("<image>{% if not add_generation_prompt %}{{ messages[-1]['content'][0]['text'] }}{% endif %}", "question"),
        # The generation prompt has words that are missing where the answer follows; or the other way round.
        (TURN + SHOWN + END + "{% if add_generation_prompt %}assistant: Well,{% endif %}", "ends with ' Well,'"),
        (TURN + "{% if m['role'] == 'assistant' %}Well, {% endif %}" + SHOWN + END
         + "{% if add_generation_prompt %}assistant:{% endif %}", "span not found[\\s\\S]*' Well, Paris'"),
        # The generation prompt already holds the answer: no token is left.
        (TURN + SHOWN + END + "{% if add_generation_prompt %}assistant: Paris{% endif %}", "answer span not found"),
        # A placeholder in the answer's turn.
        (
            TURN + "{% if m['role'] == 'assistant' %}<image>{% endif %}" + SHOWN + END
            + "{% if add_generation_prompt %}assistant: {% endif %}",
            "answer span not found[\\s\\S]*<image>",
        ),
        # Images are lost.
        (TURN + "{{ c['text'] }}" + END, "does not show every image[\\s\\S]*1 images, 0 placeholders"),
    ],
)  # fmt: skip
def test_templates_that_cannot_work_are_user_errors(template, message):
    _, processor = tiny_models.build("llava")
    with pytest.raises(UserError, match=f"(?s)^d.jsonl:4: .*{message}"):
        render(Example("Where?", "Paris", (IMAGE,), "d.jsonl:4"), with_template(processor, template))


def test_the_error_shows_what_was_decoded():
    _, processor = tiny_models.build("llava")
    template = TURN + SHOWN + END + "{% if add_generation_prompt %}bot>{% endif %}"
    with pytest.raises(UserError) as raised:
        render(Example("Where?", "Paris", (), "d.jsonl:4"), with_template(processor, template))
    assert raised.value.found == "'assistant: Paris' after the prompt instead of 'Paris'"


@pytest.mark.parametrize("role", ["question", "answer"])
def test_placeholders_in_the_text_are_user_errors(processor, role):
    texts = {"question": "Q", "answer": "A", role: f"x {processor.image_token}\ny"}
    with pytest.raises(UserError, match=rf"x:3: the {role} contains a placeholder[\s\S]*remove it"):
        render(Example(**texts, images=(IMAGE,), identifier="x:3"), processor)


@pytest.mark.parametrize("role", ["question", "answer"])
def test_broken_unicode_is_a_user_error(processor, role):
    texts = {"question": "Q", "answer": "A", role: "ab\ud83e"}
    with pytest.raises(UserError, match=rf"x:3: the {role} is not valid Unicode[\s\S]*character 3"):
        render(Example(**texts, identifier="x:3"), processor)


def test_an_empty_answer_is_a_user_error(processor):
    with pytest.raises(UserError, match="x:3: the answer is empty"):
        render(Example("Q", " \n", identifier="x:3"), processor)

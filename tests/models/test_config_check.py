"""Settings that cannot be: one plain message that names the file and the entry, before anything is built."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvw.errors import UserError
from kvw.evaluation.loaded import Loaded
from kvw.models import config_check
from kvw.models.headers import read_header
from kvw.models.loading import find_checkpoint, load_config, load_model, skeleton
from kvw.models.quantised import stored_quantisation
from kvw.runs.inspect import inspect


@pytest.fixture
def folder(saved, tmp_path):
    shutil.copytree(saved["llava"], tmp_path / "model")
    return tmp_path / "model"


def change(folder, entry, value, file="config.json"):
    """Set an entry; dots lead into objects."""
    content = json.loads((folder / file).read_text())
    part, names = content, entry.split(".")
    for name in names[:-1]:
        part = part[name]
    part[names[-1]] = value
    (folder / file).write_text(json.dumps(content))


NO_CONFIGURATION = {
    "empty": b"",
    "not JSON": b"{not json",
    "not UTF-8": b"\xff\xfe\x00",
    "a list": b"[]",
    "a number": b"7",
    "nothing": b"null",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "an integer of 5,000 digits": b'{"model_type": "llava", "a": ' + b"1" * 5000 + b"}",
}


@pytest.mark.parametrize("content", NO_CONFIGURATION.values(), ids=NO_CONFIGURATION)
def test_what_is_no_configuration_is_one_message(folder, content):
    (folder / "config.json").write_bytes(content)
    checkpoint = find_checkpoint(str(folder))
    acts = (
        lambda: inspect(checkpoint),
        lambda: Loaded.load(checkpoint),
        lambda: load_model(checkpoint),
        lambda: stored_quantisation(folder),
    )
    for act in acts:
        with pytest.raises(UserError, match=r"config\.json"):
            act()


WRONG = {
    "text_config.num_hidden_layers": 10**6,
    "vision_config.num_hidden_layers": 10**9,
    "text_config.hidden_act": "no_such_activation",
    "attn_implementation": "flash_attention_2",
    "text_config.hidden_size": -64,
    "text_config.num_attention_heads": 0,  # a division by zero, which names nothing
    "text_config.vocab_size": 10**30,
    "quantization_config": 5,
    "text_config.quantization_config": "awq",
    "compression_config": [1],
    "is_encoder_decoder": True,
    "text_config.is_encoder_decoder": True,
    "text_config.intermediate_size": "wide",
    "model_type": 7,
    "vision_config.model_type": 7,
    "text_config": [],
    "vision_config": "clip",
    "image_token_index": "x",
    "dtype": "float7",
}


@pytest.mark.parametrize("entry", WRONG)
def test_a_wrong_entry_is_one_message_that_names_it(folder, entry):
    change(folder, entry, WRONG[entry])
    for act in (inspect, Loaded.load):
        with pytest.raises(UserError) as caught:
            act(find_checkpoint(str(folder)))
        message = str(caught.value)
        assert len(message.splitlines()) <= 3
        assert len(message) < 1000
        if entry not in ("dtype", "text_config.num_attention_heads"):
            assert entry.rpartition(".")[2] in message or str(WRONG[entry]) in message, message


def test_a_text_model_of_another_kind(folder):
    change(folder, "text_config.model_type", "gpt2")
    with pytest.raises(UserError, match="lacks weights"):
        Loaded.load(find_checkpoint(str(folder)))
    change(folder, "tie_word_embeddings", True)  # which asks GPT-2 for an embedding that it does not have
    with pytest.raises(UserError, match=r"cannot use the config\.json") as caught:
        inspect(find_checkpoint(str(folder)))
    assert "embed_tokens" in caught.value.found


@pytest.mark.parametrize("entry", ["model_type", "text_config.model_type", "text_config.hidden_act"])
def test_a_long_value_makes_no_long_message(folder, entry):
    change(folder, entry, "a" * 10_000)
    for act in (inspect, Loaded.load):
        with pytest.raises(UserError) as caught:
            act(find_checkpoint(str(folder)))
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("scheme", [{"quant_method": 5}, {"bits": "x"}, {"quant_method": "gptq"}])
def test_a_quantisation_that_is_none_is_one_message(folder, scheme):
    change(folder, "quantization_config", scheme)
    with pytest.raises(UserError, match=r"quantised|cannot be used|could not be loaded|need a package"):
        load_model(find_checkpoint(str(folder)))


def test_code_from_the_hub_named_as_attention_is_never_run(folder):
    change(folder, "attn_implementation", "somebody/kernel")
    with pytest.raises(UserError) as caught:
        inspect(find_checkpoint(str(folder)))
    assert "attn_implementation is 'somebody/kernel'" in caught.value.found


@pytest.mark.parametrize("value", ["2", ["2"], [2, "</s>"], [None], [2, None], 1.5, True, {"id": 2}])
@pytest.mark.parametrize("entry", ["eos_token_id", "pad_token_id", "suppress_tokens"])
def test_tokens_are_numbers(folder, entry, value):
    change(folder, entry, value, "generation_config.json")
    with pytest.raises(UserError, match=r"generation_config\.json of model cannot be used") as caught:
        Loaded.load(find_checkpoint(str(folder)))
    assert entry in caught.value.found


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff"])
def test_a_generation_configuration_that_is_none(folder, content):
    (folder / "generation_config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"generation_config\.json"):
        Loaded.load(find_checkpoint(str(folder)))


def test_lists_of_tokens_and_none_are_right(folder):
    for value in ([1, 2], None, 2, -1):
        change(folder, "eos_token_id", value, "generation_config.json")
        assert load_config(find_checkpoint(str(folder))).model_type == "llava"


@pytest.mark.thorough
def test_no_more_is_built_than_the_weights_can_fill(folder, monkeypatch):
    """Whatever the entry is called by which the parameters become many."""
    monkeypatch.setattr(config_check, "COUNT", config_check.TOKENS)
    change(folder, "text_config.num_hidden_layers", 10**5)
    with pytest.raises(UserError, match=r"config\.json of model cannot be used") as caught:
        skeleton(find_checkpoint(str(folder)))
    assert "more than" in caught.value.found
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(config_check, "WITHOUT_WEIGHTS", 1000)
    with pytest.raises(UserError, match=r"config\.json of model cannot be used") as caught:
        skeleton(find_checkpoint(str(folder)))
    assert "no weights lie beside it" in caught.value.found


def test_a_configuration_alone_is_looked_at(folder):
    (folder / "model.safetensors").unlink()
    assert inspect(find_checkpoint(str(folder))).layers


def test_the_hook_that_counts_is_taken_off(folder):
    for _ in range(3):
        skeleton(find_checkpoint(str(folder)))
    assert not torch.nn.modules.module._global_parameter_registration_hooks


HEADERS = [
    [],
    {"a": 1},
    {"a": {"dtype": 5, "shape": [1], "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
    {"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 4]}},
    {"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", 4]}},
    {"a": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}},
]


@pytest.mark.parametrize("header", [*(json.dumps(header).encode() for header in HEADERS), b'{"a":' * 50_000])
def test_a_header_that_is_none_is_one_message(tmp_path, header):
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(UserError, match="no complete safetensors file"):
        read_header(tmp_path / "model.safetensors")


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False)
    | st.text(max_size=10)
    | st.sampled_from(["llava", "gpt2", "gelu", "sdpa"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.thorough
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_value_of_any_entry_ends_well(saved, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any") / "model"
    shutil.copytree(saved["llava"], folder)
    config = json.loads((folder / "config.json").read_text())
    names = sorted(f"{place}.{name}".lstrip(".") for place, name, _ in config_check.entries(config))
    change(folder, data.draw(st.sampled_from(names)), data.draw(JUNK))
    with suppress(UserError):
        model = Loaded.load(find_checkpoint(str(folder))).model
        assert not any(parameter.is_meta for parameter in model.parameters())
    shutil.rmtree(folder)

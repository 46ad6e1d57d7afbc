"""Measuring layer by layer: the numbers of whole forwards, each layer once, and only what is proven."""

from __future__ import annotations

import copy

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from tests.batches import text_batch
from tests.families import build_family, family_batch, random_model, shrunk_config
from tests.measuring.test_labelled import EXAMPLES
from tests.real_processors import build_model, build_processor

import kvw
from kvw.data import answer_batch, prepare
from kvw.measuring.engine import evaluating
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.layer_calls import NotWalkable, enter
from kvw.measuring.layerwise import Layers, WaitingSet, _alike
from kvw.measuring.moment_passes import measure_moments, measure_tokens
from kvw.measuring.plans import Examples, every_example
from kvw.measuring.recorder import StopForward
from kvw.measuring.sources import Sources
from kvw.models.finding import find_value_matrices
from kvw.models.layer_inputs import decoder_layers

BATCHES = [text_batch(2, 12, 4, seed=0), text_batch(1, 9, 2, seed=1), text_batch(3, 14, 3, seed=2)]


def by_layer(matrices):
    return [[m for m in matrices if m.key.layer == layer] for layer in sorted({m.key.layer for m in matrices})]


def walked(model, batches, matrices, **options):
    waiting = WaitingSet.entered(Layers(model, matrices), batches, **options)
    moments, kept = {}, {}
    for group in by_layer(matrices):
        found = waiting.moments(group)
        moments |= found[0]
        kept |= found[1]
    return moments, kept


def assert_equal_moments(found, expected):
    assert found.keys() == expected.keys()
    for key, moment in expected.items():
        error = float((found[key].sums - moment.sums).norm() / moment.sums.norm())
        assert error < 1e-6, (key, error)
        assert torch.equal(found[key].masses, moment.masses)
        assert found[key].count == moment.count


def counted(model, run):
    """How often each decoder layer is called meanwhile."""
    calls = dict.fromkeys(range(len(decoder_layers(model))), 0)
    handles = []
    for number, layer in enumerate(decoder_layers(model)):
        forward = layer.forward

        def counting(*inputs, number=number, forward=forward, **named):
            calls[number] += 1
            return forward(*inputs, **named)

        vars(layer)["forward"] = counting
        handles.append(layer)
    run()
    for layer in handles:
        vars(layer).pop("forward")
    return list(calls.values())


def built(name):
    """A tiny model; Gemma 3 with layers of both kinds and a window that is shorter than some rows."""
    if name != "gemma3_text":
        return copy.deepcopy(build_family(name))
    config = shrunk_config(name)
    config.layer_types = ["sliding_attention", "full_attention"] * 2
    config.sliding_window = 8
    return random_model(config)


QUICK = ["qwen2_vl", "gemma3_text", "qwen3_moe"]
MORE = ["gemma3", "gpt2", "opt", "cohere2", "mllama", "bart", "llama4", "qwen3_next"]
FAMILIES = [*QUICK, *(pytest.param(name, marks=pytest.mark.thorough) for name in MORE)]


@pytest.mark.parametrize("name", FAMILIES)
def test_moments_and_tokens_are_those_of_whole_forwards(name):
    """Sliding windows, experts, parallel FFNs, layers left out without an image, cross-attention to an encoder."""
    model = built(name)
    crossed = getattr(model.config.get_text_config(), "cross_attention_layers", None) or []
    matrices = [matrix for matrix in find_value_matrices(model) if matrix.key.layer not in crossed]
    batches = [family_batch(model, 2, 40, 1), family_batch(model, 1, 9, 2)]
    options = {"examples": Examples(weights=[1.0, 3.0, 0.5], folds=[0, 2, 1], keep=every_example)}
    expected, expected_kept = measure_moments(model, batches, matrices, **options)
    found, kept = walked(model, batches, matrices, **options)
    assert_equal_moments(found, expected)
    assert kept.keys() == expected_kept.keys()
    for key, tokens in expected_kept.items():
        for part in ("coefficients", "rows", "offsets", "weights"):
            assert torch.equal(getattr(kept[key], part), getattr(tokens, part))


@pytest.mark.thorough
def test_images_and_every_source(model, processor):
    """What enters the first layer holds the images; what questions about one image share runs for each of them."""
    matrices = find_value_matrices(model)
    batches = LabelledBatches(prepare(EXAMPLES, processor), processor, model, budget=150)
    for sources in (Sources(), Sources(answer=0, prompt=0, image=1, first=0, image_every=2)):
        expected, _ = measure_moments(model, batches, matrices, sources=sources)
        found, _ = walked(model, batches, matrices, sources=sources)
        assert_equal_moments(found, measure_moments(model, batches.unshared(), matrices, sources=sources)[0])
        for key, moment in expected.items():
            torch.testing.assert_close(found[key].sums, moment.sums, rtol=1e-4, atol=1e-5 * float(moment.sums.max()))


def test_each_layer_runs_once_for_each_batch(llava):
    """And twice more for the first batch of a kind: once in the forward that it is compared with, once on the walk."""
    matrices = find_value_matrices(llava)
    layers = Layers(llava, matrices)
    first = counted(llava, lambda: WaitingSet.entered(layers, BATCHES))
    assert first == [2, 2, 2, 0]  # the forward ends before the last layer, of which only the input is compared
    waiting = []
    assert counted(llava, lambda: waiting.append(WaitingSet.entered(layers, BATCHES))) == [0, 0, 0, 0]
    assert counted(llava, lambda: [waiting[0].moments(group) for group in by_layer(matrices)]) == [3, 3, 3, 3]


def test_layers_outside_the_range_run_only_before_it(llava):
    matrices = find_value_matrices(llava)[1:3]
    layers = Layers(llava, matrices)
    WaitingSet.entered(layers, BATCHES[:1])
    waiting = []
    assert counted(llava, lambda: waiting.append(WaitingSet.entered(layers, BATCHES))) == [3, 0, 0, 0]
    found = {}
    assert counted(llava, lambda: found.update(waiting[0].moments(matrices[1:])[0])) == [0, 3, 3, 0]
    assert_equal_moments(found, measure_moments(llava, BATCHES, matrices[1:])[0])
    assert waiting[0].position == 3


def test_tokens_may_stay_before_the_layer_until_it_is_weakened(llava):
    matrices = find_value_matrices(llava)
    waiting = WaitingSet.of_tokens(Layers(llava, matrices), BATCHES)
    kept = waiting.tokens(matrices[:1], onwards=False)
    assert waiting.position == 0
    edit = kvw.GateEdit({matrices[0].key: torch.full((matrices[0].width,), -1.0)})
    with edit.attach(llava):
        waiting.go_on()
        expected = measure_tokens(llava, BATCHES, matrices[1:2])
    assert waiting.position == 1
    found = waiting.tokens(matrices[1:2])
    assert torch.equal(found[matrices[1].key].coefficients, expected[matrices[1].key].coefficients)
    original = measure_tokens(llava, BATCHES, matrices[:2])
    assert torch.equal(kept[matrices[0].key].coefficients, original[matrices[0].key].coefficients)
    assert not torch.equal(found[matrices[1].key].coefficients, original[matrices[1].key].coefficients)


@pytest.mark.thorough
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_offloaded_layers_are_brought_in_by_their_hooks(llava, place, tmp_path):
    expected = measure_moments(llava, BATCHES, find_value_matrices(llava))[0]
    cpu = torch.device("cpu")
    if place == "disk":
        offloaded = disk_offload(llava, tmp_path, execution_device=cpu)
    else:
        offloaded = cpu_offload(llava, execution_device=cpu)
    forwards = [vars(layer).get("forward") for layer in decoder_layers(offloaded)]
    assert_equal_moments(walked(offloaded, BATCHES, find_value_matrices(offloaded))[0], expected)
    assert [vars(layer).get("forward") for layer in decoder_layers(offloaded)] == forwards


def test_a_tensor_that_several_layers_get_is_kept_once(llava):
    matrices = find_value_matrices(llava)
    waiting = WaitingSet.entered(Layers(llava, matrices), [text_batch(2, 12, 4, seed=0)])
    states, rest = waiting.held_bytes
    hidden, tokens = matrices[0].hidden, 24
    assert states == tokens * hidden * 4
    weights = 4 * tokens * 8  # of each source, in float64
    cosine_and_sine = 2 * 12 * 12 * 4  # of 12 positions, 12 numbers to a head
    position_ids = 12 * 8
    assert rest == weights + cosine_and_sine + position_ids
    model = built("gemma3_text")
    (entered,) = [
        w.entered for w in WaitingSet.entered(Layers(model, find_value_matrices(model)), BATCHES[:1])._waiting
    ]
    assert len({call.named["position_embeddings"][0].data_ptr() for call in entered.calls.values()}) == 2


def test_hooks_and_forwards_are_as_before(llava):
    def hooks():  # transformers leaves some of its own once a model has run
        return [(dict(m._forward_pre_hooks), dict(m._forward_hooks)) for m in llava.modules()]

    llava(**{name: value for name, value in BATCHES[0].items() if name != "labels"}, output_hidden_states=True)
    before = hooks()
    matrices = find_value_matrices(llava)
    layers = Layers(llava, matrices)
    WaitingSet.entered(layers, BATCHES).moments(matrices[:1])
    broken = {**BATCHES[0], "input_ids": BATCHES[0]["input_ids"] + 10**6}
    with pytest.raises(IndexError):
        WaitingSet.entered(layers, [broken])
    for module in llava.modules():
        assert "forward" not in vars(module)
    assert hooks() == before
    assert not llava.training


# Models whose layers cannot be run by themselves.


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("t5", "another state reaches layer 2"),  # layers are given the position bias that the first one computes
        pytest.param("gemma3n_text", r"\(4, 2, 10, 32\)", marks=pytest.mark.thorough),
        ("gemma4_text", "which layers may share"),
    ],
)
def test_what_layers_hand_to_one_another_is_refused(name, reason):
    model = build_family(name)
    with pytest.raises(NotWalkable, match=reason) as caught:
        WaitingSet.entered(Layers(model, find_value_matrices(model)), [family_batch(model, 2, 10, 1)])
    assert "whole model" in caught.value.do


def test_states_that_are_changed_between_layers_are_refused_in_any_batch():
    """Qwen3-VL adds image features after its first layers. Text is measured, an image is refused."""
    model, processor = build_model("qwen3_vl"), build_processor("qwen3_vl")
    matrices = find_value_matrices(model)
    text = [family_batch(model, 2, 12, 1)]
    assert_equal_moments(walked(model, text, matrices)[0], measure_moments(model, text, matrices)[0])
    image = answer_batch(prepare(EXAMPLES[:2], processor), processor)
    with pytest.raises(NotWalkable, match="changed before they enter layer 1"):
        WaitingSet.entered(Layers(model, matrices), [*text, image])
    layers = Layers(model, matrices)
    layers.enter(text[0])
    with evaluating(model), pytest.raises(NotWalkable, match="changed before they enter layer 1"):
        enter(model, layers.modules, layers.forms, image)  # without a proof for batches of its kind, too
    after = matrices[2:]  # image features enter after two layers
    found = walked(model, [image], after)[0]
    assert_equal_moments(found, measure_moments(model, [image], after)[0])


def wait_for_walk(model):
    WaitingSet.entered(Layers(model, find_value_matrices(model)), [BATCHES[0]])


def test_a_layer_that_is_called_twice_is_refused(llava):
    first, second = decoder_layers(llava)[:2]
    first.register_forward_hook(lambda _, __, named, output: second(output, **named), with_kwargs=True)
    with pytest.raises(NotWalkable, match="layer 1 is called more than once"):
        wait_for_walk(llava)


def test_a_layer_that_returns_no_states_is_refused(llava):
    decoder_layers(llava)[1].register_forward_hook(lambda _, __, output: [output])
    with pytest.raises(NotWalkable, match="layer 1 returns a list"):
        wait_for_walk(llava)


def test_layers_that_are_called_depending_on_others_are_refused(llava):
    def stop(_, inputs, output):
        if output is inputs[0]:
            raise StopForward

    decoder_layers(llava)[1].register_forward_hook(stop)
    with pytest.raises(NotWalkable, match="depending on what others return"):
        wait_for_walk(llava)


def test_a_forward_without_layers_is_refused(llava):
    def stop(*_):
        raise StopForward

    llava.get_input_embeddings().register_forward_hook(stop)
    with pytest.raises(NotWalkable, match="no layer was called"):
        wait_for_walk(llava)


def test_a_layer_that_lacks_something_on_the_walk_is_refused(llava):
    """Here the second layer uses up what comes before the embeddings in a forward."""
    left = []
    llava.get_input_embeddings().register_forward_hook(lambda *_: left.append("mask"))
    decoder_layers(llava)[1].register_forward_pre_hook(lambda *_: left.pop() and None)
    with pytest.raises(NotWalkable, match="IndexError: pop from empty list"):
        wait_for_walk(llava)


def test_memory_that_runs_out_is_no_reason_to_refuse(llava):
    def full(*_):
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    calls = []
    decoder_layers(llava)[1].register_forward_pre_hook(full)
    with pytest.raises(kvw.UserError, match="Memory ran out on a batch of 2 examples"):
        WaitingSet.entered(Layers(llava, find_value_matrices(llava)), BATCHES[:1])


def test_beginnings_that_are_shared_already_are_refused(llava, llava_processor):
    batches = list(LabelledBatches(prepare(EXAMPLES, llava_processor), llava_processor, llava))
    with pytest.raises(NotWalkable, match="beginnings are shared"):
        WaitingSet.entered(Layers(llava, find_value_matrices(llava)), batches)


def test_rounding_is_let_pass_and_nothing_else():
    expected = torch.tensor([[1.0, -2.0, float("nan")], [3.0, 0.5, 1.0]])
    assert _alike(expected.clone(), expected)
    exact = expected.nan_to_num()
    assert _alike(exact * (1 + 1e-7), exact)
    assert not _alike(exact * (1 + 1e-6), exact)
    assert not _alike(exact[:1], exact)
    assert not _alike(expected, exact)
    half = exact.bfloat16()
    assert _alike(half * 1.01, half)
    assert not _alike(half * 1.05, half)

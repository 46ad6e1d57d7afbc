"""KUDA: the turning of states, what tracing finds, and that steps are not seen by the retain set."""

from __future__ import annotations

import pytest
import torch
from tests.gradient import FORGET, LORA, RETAIN, changed, forget_by, fresh, gradients_of, sets, training, weights_of

from kvw.errors import UserError
from kvw.methods.gradient import unlearn
from kvw.methods.gradient.kuda import METHOD, KudaSettings, deviation_loss, spared
from kvw.methods.gradient.tracing import Map, causal_effects, input_moments
from kvw.models.ffn_linears import ffn_linears
from kvw.training.trainee import in_training

FEW = RETAIN[:1]


def built(trainee, **changes):
    settings = KudaSettings(**{"layers": (1, 2), **changes})
    return METHOD.building(trainee.model, settings)(trainee)


def moved(lora=None, retain=FEW, **changes):
    """What each FFN map moved by, and what entered it from the retain set before, by name."""
    model, processor = fresh(dtype=torch.float64)
    data = {**sets(processor), "retain": sets(processor)["retain"][: len(retain)]}
    inputs = {}
    with in_training(model, processor, training(), data) as trainee:
        maps = [one for one in maps_of(model) if 1 <= one.layer <= 2]
        moments = input_moments(trainee, maps)
        inputs = {one.name: moments[one.name] for one in maps}
    before = weights_of(model)
    settings = KudaSettings(**{"layers": (1, 2), "threshold": 0.0, "retain_weight": 0.0, **changes})
    how = training(batch_size=4, epochs=3, weight_decay=0.1, lora=lora)
    unlearn(model, processor, FORGET, retain, "kuda", settings, how)
    after = weights_of(model)
    return {name: (after[f"{name}.weight"] - before[f"{name}.weight"], moment) for name, moment in inputs.items()}


def maps_of(model):
    return [
        Map(one.layer, one.weight.name, turned=False, writes=one.weight.name.endswith("down_proj"))
        for one in ffn_linears(model)
    ]


@pytest.mark.thorough
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_in_the_null_space_no_retain_input_sees_a_step(lora):
    for step, moment in moved(lora).values():
        energy = float((step @ moment @ step.T).diagonal().sum())
        assert float(step.norm()) > 1e-4
        assert energy <= 1e-10 * float(step.square().sum() * moment.trace())


def test_at_one_it_is_plain_training():
    free = moved(threshold=1.0, retain=RETAIN)
    assert all(float((step @ moment @ step.T).diagonal().sum()) > 1e-9 for step, moment in free.values())
    eye = spared(torch.diag(torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64)), 1.0)
    assert torch.allclose(eye, torch.eye(3, dtype=torch.float64))


def test_the_weakest_directions_are_kept_up_to_their_share():
    moment = torch.diag(torch.tensor([70.0, 27.0, 2.0, 1.0, 0.0], dtype=torch.float64))
    kept = {share: spared(moment, share).diagonal().round().tolist() for share in (0.0, 0.01, 0.03, 0.3)}
    assert kept == {
        0.0: [0, 0, 0, 0, 1],
        0.01: [0, 0, 0, 1, 1],
        0.03: [0, 0, 1, 1, 1],
        0.3: [0, 1, 1, 1, 1],
    }
    soft = spared(moment, 0.02, soft=True).diagonal()
    assert soft.tolist() == pytest.approx([1 / (1 + share / 0.02) for share in (0.7, 0.27, 0.02, 0.01, 0.0)])
    assert spared(moment, 0.0, soft=True).diagonal().tolist() == pytest.approx([0, 0, 0, 0, 1])


@pytest.mark.thorough
def test_an_unchanged_model_has_the_loss_one_over_t_and_needs_the_kick():
    for temperature in (0.5, 1.0, 2.0):
        found, value = gradients_of(lambda trainee, t=temperature: built(trainee, inverse_temperature=t, kick=0.0))
        assert value == pytest.approx(1 / temperature)
        assert all(float(gradient.abs().max()) < 1e-12 for gradient in found.values())
    found, value = gradients_of(lambda trainee: built(trainee))
    assert value == pytest.approx(1.0, abs=1e-5)
    assert max(float(gradient.abs().max()) for gradient in found.values()) > 1e-6


def test_states_turn_no_further_than_the_temperature_says():
    before = torch.tensor([[1.0, 0.0]] * 3)
    states = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    none = torch.zeros_like(states)
    assert float(deviation_loss(states, before, 1.0, none)) == pytest.approx(1.0)
    assert float(deviation_loss(states, before, 0.5, none)) == pytest.approx(2 + 1 + 0)


def test_tracing_finds_the_layer_that_brings_the_answer_back():
    """The window of all layers restores more than none; and noise that is nothing loses nothing."""
    model, processor = fresh(dtype=torch.float64)
    with in_training(model, processor, training(), sets(processor)) as trainee:
        maps = maps_of(model)
        silent = causal_effects(trainee, maps, window=1, examples=1, noise=1e-12)
        assert len(silent) == 4
        assert silent == pytest.approx([0.0] * 4, abs=1e-9)
        loud = causal_effects(trainee, maps, window=2, examples=2, noise=3.0)
        assert len(loud) == 3
        assert max(map(abs, loud)) > 1e-9
        assert loud == causal_effects(trainee, maps, window=2, examples=2, noise=3.0)
        assert len(causal_effects(trainee, maps, window=9, examples=1, noise=3.0)) == 1
    assert changed(model, weights_of(fresh(dtype=torch.float64)[0])) == set()


def test_without_layers_the_traced_window_is_trained():
    _, result = forget_by("kuda", KudaSettings(window=2), batch_size=4)
    layers = {name.split(".layers.")[1].partition(".")[0] for name in result.weights}
    assert len(layers) == 2


def test_it_needs_a_retain_set_and_layers_that_are_there():
    model, processor = fresh()
    with pytest.raises(UserError, match="needs a retain set"):
        unlearn(model, processor, FORGET, [], "kuda", KudaSettings(layers=(1, 2), retain_weight=0.0))
    with pytest.raises(UserError, match="layer range 3:9"):
        unlearn(model, processor, FORGET, RETAIN, "kuda", KudaSettings(layers=(3, 9)))


@pytest.mark.thorough
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    def run(state, kill=0):
        model, processor = fresh()

        def progress(done, _):
            if done == kill:
                raise KeyboardInterrupt

        how, own = training(save_every=1, lora=LORA), KudaSettings(layers=(1, 2))
        unlearn(model, processor, FORGET, RETAIN, "kuda", own, how, state=state, progress=progress)
        return weights_of(model)

    whole = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "state", kill=1)
    again = run(tmp_path / "state")
    assert all(torch.equal(value, again[name]) for name, value in whole.items())

"""ICU: which examples are trained, what stands beside them, and that what is left out counts nothing."""

from __future__ import annotations

import pytest
import torch
from tests.gradient import FORGET, RETAIN, changed, forget_by, fresh, gradients_of, sets, training, weights_of

from kvw.errors import UserError
from kvw.evaluation.metrics import memorisation_accuracy
from kvw.evaluation.probability import token_scores
from kvw.methods.gradient import icu as module
from kvw.methods.gradient import unlearn
from kvw.methods.gradient.icu import Checking, IcuSettings, alike_answers, alike_questions, icu
from kvw.training.losses import descent
from kvw.training.objective import Objective
from kvw.training.trainee import in_training

NEVER = {"similarity_floor": 0, "bleu_floor": 0, "memorised_floor": 0, "extraction_floor": 0}
ALONE = IcuSettings(learn_weight=0, kl_weight=0, **NEVER)


@pytest.mark.thorough
def test_without_analogues_and_checks_it_is_gradient_ascent():
    mine, _ = forget_by("icu", ALONE, epochs=2)
    ascent, _ = forget_by("ga", epochs=2)
    assert changed(mine, weights_of(ascent)) == set()


def test_nothing_pulls_at_the_analogues_before_the_model_has_moved():
    found, value = gradients_of(lambda trainee: icu(trainee, IcuSettings(learn_weight=0)), side="retain")
    assert value == pytest.approx(0, abs=1e-12)
    assert all(float(gradient.abs().max()) < 1e-12 for gradient in found.values())
    learned, _ = gradients_of(lambda trainee: icu(trainee, IcuSettings(kl_weight=0)), side="retain")
    taught, _ = gradients_of(lambda trainee: Objective(forget=None, retain=descent(0.5)), side="retain")
    assert all(torch.allclose(learned[name], value) for name, value in taught.items())


def test_when_nothing_is_said_any_more_training_ends():
    _, result = forget_by("icu", IcuSettings(), epochs=3)
    assert [step.step for step in result.history] == [0, 1]
    assert result.stopped == "step 2: the model no longer says any of the forget answers"


def said(monkeypatch, *epochs):
    """Let the model say the answers of these positions, check after check."""
    calls = iter(epochs)
    monkeypatch.setattr(Checking, "_still_said", lambda self: list(next(calls)))
    monkeypatch.setattr(Checking, "_forgotten", lambda self: False)


@pytest.mark.thorough
def test_what_is_left_out_counts_nothing_and_comes_back(monkeypatch):
    said(monkeypatch, [1], [0, 1, 2, 3])
    model, processor = fresh(dtype=torch.float64)
    settings = training(batch_size=4, epochs=3, learning_rate=1e-15)
    result = unlearn(model, processor, FORGET, RETAIN, "icu", IcuSettings(), settings)
    sizes = [len(step.forget) for step in result.history]
    assert sizes == [4, 1, 4]
    assert result.history[1].forget == (1,)
    alone = token_scores(model, processor, sets(processor)["forget"][1:2])[0].loss
    assert result.history[1].losses["forget"] == pytest.approx(-alone)
    assert result.history[2].losses["forget"] == pytest.approx(result.history[0].losses["forget"])


@pytest.mark.thorough
def test_a_batch_of_which_nothing_is_left_is_no_step(monkeypatch):
    said(monkeypatch, [1])
    model, processor = fresh()
    result = unlearn(model, processor, FORGET, RETAIN, "icu", IcuSettings(), training(batch_size=1, epochs=2))
    second = result.history[4:]
    assert sorted(step.forget for step in second) == [(), (), (), (1,)]
    assert sorted(len(step.losses) for step in second) == [0, 0, 0, 2]


def test_an_analogue_is_asked_the_same_and_runs_with_its_example():
    questions = ["Who is this?", "Where was she born?", "Who is this?"]
    others = ["Where was he born?", "Who is this?", "Who is this?"]
    assert alike_questions(questions, others) == [1, 0, 2]
    _, result = forget_by("icu", IcuSettings(**NEVER))
    pairs = alike_questions([one.question for one in FORGET], [one.question for one in RETAIN])
    assert all(step.retain == tuple(pairs[index] for index in step.forget) for step in result.history)


def test_an_analogue_may_be_the_nearest_answer():
    model, processor = fresh()
    prepared = sets(processor)
    assert alike_answers(model, prepared["retain"][2:], prepared["retain"]) == [2, 3]


@pytest.mark.thorough
def test_a_killed_run_goes_on_with_the_examples_of_its_epoch(monkeypatch, tmp_path):
    def run(kill):
        said(monkeypatch, [0])
        model, processor = fresh()

        def progress(done, _):
            if done == kill:
                raise KeyboardInterrupt

        settings = training(epochs=2, save_every=1)
        unlearn(model, processor, FORGET, RETAIN, "icu", IcuSettings(), settings, state=state, progress=progress)
        return weights_of(model)

    state = None
    whole = run(kill=0)
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        run(kill=3)
    monkeypatch.setattr(Checking, "_still_said", lambda self: pytest.fail("it was asked again"))
    model, processor = fresh()
    settings = training(epochs=2, save_every=1)
    unlearn(model, processor, FORGET, RETAIN, "icu", IcuSettings(), settings, state=state)
    assert changed(model, whole) == set()


def test_a_check_compares_what_the_model_says(monkeypatch):
    model, processor = fresh()
    texts = ["Jody Vance", "in Kuwait City", "a clerk", "It is Jody Vance."]
    monkeypatch.setattr("kvw.evaluation.generation.generate_answers", lambda *_, **__: texts)
    with in_training(model, processor, training(), sets(processor)) as trainee:
        checks = {
            0: IcuSettings(memorised_floor=0),
            1: IcuSettings(memorised_floor=0, similarity_floor=0.9, bleu_floor=0),
            2: IcuSettings(memorised_floor=0, similarity_floor=0, bleu_floor=0.9),
            3: IcuSettings(memorised_floor=1, extraction_floor=1),
        }
        found = {key: list(Checking(trainee, settings).active(1)) for key, settings in checks.items()}
        assert found == {0: [0, 1, 3], 1: [0], 2: [], 3: []}
        waiting = Checking(trainee, IcuSettings(check_every=2))
        assert list(waiting.active(1)) == [0, 1, 2, 3]


def test_bleu_without_its_package_is_told_before_training(monkeypatch):
    def missing(_):
        raise UserError("This metric needs nltk.")

    monkeypatch.setattr("kvw.evaluation.metrics.optional.optional", missing)
    with pytest.raises(UserError, match="nltk"):
        gradients_of(lambda trainee: icu(trainee, IcuSettings()))
    assert module.METHOD.firmness


def test_memorisation_accuracy_by_hand():
    hits = [True, True, False, True, True, False, False, True, True, True, False, True]
    assert memorisation_accuracy(hits) == pytest.approx(8 / 12)
    with pytest.raises(UserError, match="at least one token"):
        memorisation_accuracy([])

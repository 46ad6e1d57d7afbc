"""Baselines of subspace weakening: their formulas, and whole runs of them."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tests.batches import logits, text_batch, weights
from tests.families import build_family, family_batch
from tests.methods.subspace.data import HIDDEN, WIDTH, applied, given, layer
from tests.methods.subspace.data import tokens as recorded
from torch.testing import assert_close

import kvw
from kvw.bench.recipe import read_recipe
from kvw.edits import GateEdit, LowRankEdit, invert, scale
from kvw.edits.low_rank import REMOVED
from kvw.evaluation.loaded import Loaded
from kvw.measuring.moment_passes import measure_moments, measure_tokens
from kvw.measuring.sources import Sources
from kvw.methods.registry import get_method
from kvw.methods.subspace.baselines import formulas
from kvw.methods.subspace.baselines.formulas import FORMULAS, Given
from kvw.methods.subspace.baselines.method import baseline, token_vectors
from kvw.methods.subspace.baselines.settings import (
    DeepUnlearningSettings,
    ForgetComponentsSettings,
    LeaceSettings,
    MemitZeroSettings,
    OutputSideSettings,
    RmsKvwSettings,
    VlEraserSettings,
)
from kvw.methods.subspace.labels import Labels
from kvw.methods.subspace.method import subspace
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.methods.subspace.shrinkage import floored_diagonal, shrink
from kvw.methods.subspace.vectors import view_means
from kvw.models.finding import find_value_matrices
from kvw.runs.unlearning import unlearn

pytestmark = pytest.mark.thorough

FORGET = [text_batch(2, 11, 3, seed=index) for index in range(3)]
RETAIN = [text_batch(2, 12, 4, seed=100 + index) for index in range(20)]
VIEWS = Labels(facts=["a", "a", "a", "b", "b", "b"], subjects=["A", "A", "A", "B", "B", "B"])
BASELINES = [
    MemitZeroSettings,
    LeaceSettings,
    DeepUnlearningSettings,
    ForgetComponentsSettings,
    OutputSideSettings,
    RmsKvwSettings,
    VlEraserSettings,
]
LOW_RANK = [kind for kind in BASELINES if kind is not RmsKvwSettings]


# Formulas: W' by inverses, square roots and projectors of full size.


def soft(moment, alpha):
    values, basis = torch.linalg.eigh(moment / moment.trace())
    return basis * (alpha * values / ((alpha - 1) * values + 1)) @ basis.T


def expected_weight(data: Given, settings):
    """W' of a baseline by its defining formula."""
    identity, forget = torch.eye(len(data.moment), dtype=torch.float64), data.vectors @ data.vectors.T
    if isinstance(settings, MemitZeroSettings):
        priced = shrink(data.moment, settings.shrinkage) / settings.mu
        return data.weight @ priced @ torch.linalg.inv(priced + forget)
    if isinstance(settings, LeaceSettings):
        energies, basis = torch.linalg.eigh(shrink(data.moment, settings.shrinkage))
        root, whitener = basis * energies.sqrt() @ basis.T, basis / energies.sqrt() @ basis.T
        concept = torch.linalg.svd(whitener @ data.vectors, full_matrices=False)[0][:, : settings.rank]
        return data.weight @ (identity - root @ concept @ concept.T @ whitener)
    if isinstance(settings, DeepUnlearningSettings):
        kept, found = soft(data.moment, settings.alpha_r), soft(forget, settings.alpha_f)
        return data.weight @ (identity - (identity - kept) @ found)
    if isinstance(settings, ForgetComponentsSettings):
        components = torch.linalg.eigh(forget)[1].flip(1)[:, : settings.rank]
        return data.weight @ (identity - components @ components.T)
    if isinstance(settings, OutputSideSettings):
        priced = shrink(data.weight @ data.moment @ data.weight.T, settings.shrinkage) / settings.mu
        return priced @ torch.linalg.inv(priced + data.weight @ forget @ data.weight.T) @ data.weight
    if isinstance(settings, VlEraserSettings):
        energies, basis = torch.linalg.eigh(data.moment)
        empty = basis[:, energies.clamp(min=0).cumsum(0) <= settings.energy * energies.sum()]
        inside = empty @ empty.T @ forget @ empty @ empty.T
        gamma = settings.ridge * torch.linalg.eigvalsh(inside)[-1]
        written = forget @ empty @ empty.T @ torch.linalg.inv(inside + gamma * identity) @ empty @ empty.T
        return data.weight @ (identity - written)
    ratio = forget.diagonal() / floored_diagonal(data.moment.diagonal())
    return data.weight * ratio.clamp(min=1) ** (-settings.gamma / 2)


STRENGTHS = [
    MemitZeroSettings(mu=0.5),
    MemitZeroSettings(mu=3.0, shrinkage=0.3),
    LeaceSettings(rank=2),
    LeaceSettings(rank=3, shrinkage=0.5),
    DeepUnlearningSettings(),
    DeepUnlearningSettings(alpha_r=10.0, alpha_f=300.0),
    ForgetComponentsSettings(rank=1),
    ForgetComponentsSettings(rank=4),
    OutputSideSettings(mu=0.5),
    OutputSideSettings(mu=4.0, shrinkage=0.4),
    VlEraserSettings(energy=0.05),
    VlEraserSettings(energy=0.2, ridge=2.0),
]


@pytest.mark.parametrize("settings", STRENGTHS, ids=str)
def test_directions_are_the_formula_and_form_a_semigroup(settings):
    data = given(layer())
    found = FORMULAS[type(settings)](data, settings)
    expected = expected_weight(data, settings)
    assert_close(data.weight @ applied(found), expected, rtol=1e-7, atol=1e-7)
    rank = len(found.log_gates)
    assert_close(found.filters.T @ found.patterns, torch.eye(rank).double(), rtol=0, atol=1e-6)
    assert float((expected - data.weight).norm()) > 0.01 * float(data.weight.norm())


def test_an_output_side_with_more_outputs_than_neurons():
    """An expert narrower than the model: W has no right inverse, and the edit is as exact."""
    data = layer(width=8)
    assert len(data.weight) == HIDDEN > 8
    settings = OutputSideSettings(mu=0.5)
    changed = data.weight @ applied(formulas.output_side(given(data), settings))
    assert_close(changed, expected_weight(given(data), settings), rtol=1e-7, atol=1e-7)


def test_in_the_null_space_of_the_retain_set_its_outputs_stay_and_forget_outputs_go():
    data = layer(retain=WIDTH // 2, forget=3)
    data = replace(data, forget=data.forget + torch.randn(WIDTH, 3, generator=torch.Generator().manual_seed(3)))
    found = formulas.vl_eraser(given(data), VlEraserSettings(energy=0.0, ridge=1e-9))
    changed = data.weight @ applied(found)
    size = float((data.weight @ data.retain).norm())
    assert float((changed @ data.retain - data.weight @ data.retain).norm()) < 1e-7 * size
    assert float((changed @ data.forget).norm()) < 1e-5 * float((data.weight @ data.forget).norm())
    full = replace(given(layer()), moment=torch.eye(WIDTH).double())
    assert len(formulas.vl_eraser(full, VlEraserSettings(energy=0.0)).log_gates) == 0


def test_a_single_forget_token_is_removed_by_a_forget_projector_of_1():
    data = given(layer(forget=1))
    found = formulas.deep_unlearning(
        replace(data, moment=torch.eye(WIDTH).double()), DeepUnlearningSettings(alpha_r=1e-9)
    )
    assert float(found.log_gates.min()) >= REMOVED
    assert float((applied(found) @ data.vectors).norm()) < 1e-6 * float(data.vectors.norm())


def test_no_more_components_are_removed_than_there_are():
    data = given(layer(forget=3))
    twice = replace(data, vectors=torch.cat([data.vectors, data.vectors], dim=1))
    assert len(formulas.forget_components(twice, ForgetComponentsSettings(rank=64)).log_gates) == 3
    assert len(formulas.leace(twice, LeaceSettings(rank=64)).log_gates) == 3
    nothing = replace(data, vectors=torch.zeros(WIDTH, 2).double())
    assert len(formulas.forget_components(nothing, ForgetComponentsSettings()).log_gates) == 0


def test_the_full_second_moment_harms_least_at_equal_forgetting():
    """Retain distortion at half of the forget energy: full moment, diagonal alone, forget components alone."""
    data = layer(retain=2000)
    before = float((data.weight @ data.vectors).square().sum())

    def least_harm(kind, **values):
        (name, several), fixed = next(iter(values.items())), dict(list(values.items())[1:])
        found = []
        for value in several:
            settings = kind(**{name: value}, **fixed)
            changed = data.weight @ applied(FORMULAS[kind](given(data), settings))
            if float((changed @ data.vectors).square().sum()) <= 0.5 * before:
                change = changed - data.weight
                found.append(float((change @ data.moment @ change.T).trace()))
        return min(found)

    strengths = torch.logspace(-4, 4, 60).tolist()
    by_full = least_harm(MemitZeroSettings, mu=strengths, shrinkage=0.0)
    by_diagonal = least_harm(MemitZeroSettings, mu=strengths, shrinkage=1.0)
    plain = least_harm(ForgetComponentsSettings, rank=range(1, 7))
    assert by_full < 0.5 * by_diagonal
    assert by_full < 0.5 * plain


def test_token_vectors_hold_the_second_moment_in_no_more_columns_than_neurons():
    data = layer(forget=5)
    few = recorded(data.forget, rows=[0, 0, 1, 2, 2])
    weighted = few.weights / few.weights.sum()
    assert_close(token_vectors(few, torch.device("cpu")), data.forget * weighted.sqrt())
    many = layer(forget=100).forget
    found = token_vectors(recorded(many), torch.device("cpu"))
    assert found.shape == (WIDTH, WIDTH)
    assert_close(found @ found.T, many @ many.T / 100)


# Whole edits.


def measured(model, settings):
    """Every value matrix with what the formulas are given, measured once more."""
    for matrix in find_value_matrices(model):
        key = matrix.key
        moment = measure_moments(model, RETAIN, [matrix])[0][key].mean.double()
        tokens = measure_tokens(model, FORGET, [matrix], weights=VIEWS.weights())[key]
        columns = view_means(tokens, VIEWS if settings.by_fact else Labels())
        yield matrix, Given(matrix.read().double(), moment, columns.values.double())


@pytest.mark.parametrize("kind", BASELINES, ids=lambda kind: kind.name)
def test_every_edit_is_its_formula_in_single_precision(llava, kind):
    before, settings = weights(llava), kind()
    edit = baseline(llava, FORGET, RETAIN, settings, forget_labels=VIEWS)
    assert all(torch.equal(weights(llava)[key], value) for key, value in before.items())
    assert edit.metadata.method == kind.name
    assert edit.metadata.settings["layers"] == (0, 3)
    assert isinstance(edit, GateEdit if kind is RmsKvwSettings else LowRankEdit)
    for matrix, data in measured(llava, settings):
        expected = expected_weight(data, settings)
        size = float(expected.abs().max())
        assert_close(edit.changed(matrix, matrix.read()).double(), expected, rtol=0, atol=1e-5 * size)
        assert not torch.equal(edit.changed(matrix, matrix.read()), matrix.read())
    with edit.attach(llava):
        attached = logits(llava, RETAIN[0])
    edit.fold(llava)
    assert_close(logits(llava, RETAIN[0]), attached, rtol=1e-4, atol=1e-4)


def test_memit_to_zero_is_subspace_weakening_by_tokens_without_its_caution(llava):
    values = {"gate": "wiener", "mu": 2.0, "threshold": -50.0, "smallest_gate": 0.0, "rank": 1000}
    tokens_alone = Labels(subjects=VIEWS.subjects, facts=list(range(6)))
    expected = subspace(llava, FORGET, RETAIN, SubspaceSettings(**values), forget_labels=tokens_alone)
    found = baseline(llava, FORGET, RETAIN, MemitZeroSettings(mu=2.0), forget_labels=VIEWS)
    for matrix in find_value_matrices(llava):
        one, other = (edit.changed(matrix, matrix.read()) for edit in (found, expected))
        assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("kind", BASELINES, ids=lambda kind: kind.name)
def test_every_setting_changes_the_edit(llava, kind):
    def found(**values):
        edit = baseline(llava, FORGET, RETAIN, kind(layers=(0, 1), **values), forget_labels=VIEWS)
        return torch.stack([edit.changed(matrix, matrix.read()) for matrix in edit.value_matrices(llava).values()])

    changes = {"mu": 9.0, "shrinkage": 0.9, "rank": 1, "alpha_r": 3.0, "alpha_f": 90.0, "gamma": 0.1}
    changes |= {"energy": 0.3, "ridge": 3.0}
    own = [name for name in changes if hasattr(kind(), name)]
    assert own
    for name in own:
        assert not torch.allclose(found(), found(**{name: changes[name]}), rtol=1e-4, atol=1e-6), name
    answers = Sources(answer=1, prompt=0, image=0, first=0)
    assert torch.equal(found(), found(sources=answers)) == (kind is ForgetComponentsSettings)
    assert_close(found(), found(layers_per_pass=1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", LOW_RANK, ids=lambda kind: kind.name)
def test_half_of_an_edit_twice_is_the_edit_and_its_inverse_undoes_it(llava, kind):
    edit = baseline(llava, FORGET, RETAIN, kind(layers=(1, 1)), forget_labels=VIEWS)
    (matrix,) = edit.value_matrices(llava).values()
    original = matrix.read()
    if kind in (LeaceSettings, ForgetComponentsSettings):
        with pytest.raises(kvw.UserError, match="nothing can bring them back"):
            invert(edit)
        return
    half, whole = scale(edit, 0.5), edit.changed(matrix, original)
    size = float(original.abs().max())
    assert_close(half.changed(matrix, half.changed(matrix, original)), whole, rtol=0, atol=1e-5 * size)
    assert_close(invert(edit).changed(matrix, whole), original, rtol=0, atol=1e-3 * size)


def test_experts_with_too_few_tokens_are_left_alone():
    model = copy.deepcopy(build_family("qwen3_moe"))
    forget, retain = [family_batch(model, 2, 9, 1)], [family_batch(model, 8, 9, 2)]
    few = baseline(model, forget, retain, MemitZeroSettings(min_tokens=1))
    many = baseline(model, forget, retain, MemitZeroSettings(min_tokens=5))
    assert set(many.directions) < set(few.directions)
    assert set(many.metadata.left_alone) > set(few.metadata.left_alone)


# Mistakes.


@pytest.mark.parametrize(
    ("kind", "values", "reason"),
    [
        *((kind, {"layers_per_pass": 0}, "layers_per_pass must be") for kind in BASELINES),
        *((kind, {"min_tokens": 0}, "min_tokens must be") for kind in BASELINES),
        (MemitZeroSettings, {"mu": 0.0}, "mu must be"),
        (MemitZeroSettings, {"shrinkage": 1.5}, "shrinkage must be a number of at least 0 and at most 1"),
        (LeaceSettings, {"rank": 0}, "rank must be"),
        (LeaceSettings, {"shrinkage": -0.1}, "shrinkage must be a number of at least 0 and at most 1"),
        (DeepUnlearningSettings, {"alpha_r": -1.0}, "alpha_r must be"),
        (DeepUnlearningSettings, {"alpha_f": float("inf")}, "alpha_f must be"),
        (ForgetComponentsSettings, {"rank": 1.5}, "rank must be"),
        (OutputSideSettings, {"mu": float("nan")}, "mu must be"),
        (OutputSideSettings, {"shrinkage": 2.0}, "shrinkage must be a number of at least 0 and at most 1"),
        (RmsKvwSettings, {"gamma": 0.0}, "gamma must be"),
        (VlEraserSettings, {"energy": 1.0}, "energy must be"),
        (VlEraserSettings, {"ridge": 0.0}, "ridge must be"),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind, values, reason):
    with pytest.raises(kvw.UserError, match=reason):
        kind(**values)


def test_mistakes_are_named(llava):
    with pytest.raises(kvw.UserError, match="can be gone through again"):
        baseline(llava, iter(FORGET), RETAIN, MemitZeroSettings(layers_per_pass=1))
    assert baseline(llava, iter(FORGET), iter(RETAIN), MemitZeroSettings(layers=(1, 1))).directions
    with pytest.raises(kvw.UserError, match="these are quantised"):
        formulas.output_side(replace(given(layer()), weight=None), OutputSideSettings())


# Under their names.


def test_the_registry_knows_them_all():
    assert {kind.name for kind in BASELINES} == {
        *("memit-zero", "leace", "deep-unlearning", "forget-components", "output-side", "rms-kvw", "vl-eraser")
    }
    assert all(get_method(kind.name).settings is kind for kind in BASELINES)
    assert set(FORMULAS) == set(LOW_RANK)


RECIPE = """
title = "baselines"
[benchmark]
name = "toy"
[models]
vanilla = "toy:vanilla"
"""


def test_recipes_name_them(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE + "".join(f"[[method]]\nname = '{kind.name}'\n" for kind in BASELINES))
    assert [method.name for method in read_recipe(tmp_path / "recipe.toml").method] == [kind.name for kind in BASELINES]


def test_they_run_by_name_on_examples(saved):
    checkpoint = kvw.find_checkpoint(str(saved["llava"]))
    loaded = Loaded.load(checkpoint)
    forget, retain = (
        [kvw.Example("Who is this?", f"{name} {row}", metadata={"subject": f"{name} {row % 3}"}) for row in range(6)]
        for name in ("Somebody", "Another")
    )
    for kind in BASELINES:
        edit = unlearn(get_method(kind.name), loaded, forget, retain, kind(), lambda *_: None).edit
        assert edit.metadata.method == kind.name
        assert edit.metadata.forget_count == edit.metadata.retain_count == 6
        assert any(not torch.equal(edit.changed(m, m.read()), m.read()) for m in find_value_matrices(loaded.model))

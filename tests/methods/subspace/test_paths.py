"""Subspace weakening layer by layer: the edit of passes over the whole model, and when which path is taken."""

from __future__ import annotations

import copy
import re
import weakref
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tests.families import build_family, family_batch, random_model, shrunk_config
from tests.methods.subspace.test_method import FORGET, RETAIN, THREE_SUBJECTS, VIEWS, assert_same, ranks
from tests.real_processors import build_model, build_processor
from tests.tiny_models import noise_png
from torch.overrides import TorchFunctionMode

import kvw
from kvw.data import Example, prepare
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.moments import Moment
from kvw.methods.subspace import paths, solution
from kvw.methods.subspace.directions import find_directions
from kvw.methods.subspace.method import matrices_in, passes_instead, subspace
from kvw.methods.subspace.paths import chosen_path, layers_that_fit
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.models.placement import free_memory, layer_device

pytestmark = pytest.mark.thorough

of_both_kinds = partial(SubspaceSettings, matrices="both")
LAYER_BY_LAYER, WHOLE_MODEL = "layer by layer", "whole model"


def sliding():
    """Gemma 3 with layers of both kinds."""
    config = shrunk_config("gemma3_text")
    config.layer_types, config.sliding_window = ["sliding_attention", "full_attention"] * 2, 6
    return random_model(config)


def both(model, forget, retain, labels=None, **settings):
    return [
        subspace(model, forget, retain, of_both_kinds(path=path, **settings), **labels or {})
        for path in (LAYER_BY_LAYER, WHOLE_MODEL)
    ]


@pytest.mark.parametrize("schedule", ["joint", "sequential"])
@pytest.mark.parametrize("name", ["gemma3_text", "qwen3_moe"])
def test_both_paths_find_the_same_edit(name, schedule):
    model = sliding() if name == "gemma3_text" else copy.deepcopy(build_family(name))
    forget = [family_batch(model, 2, 9, 1), family_batch(model, 1, 14, 2)]
    retain = [family_batch(model, 4, 12, seed) for seed in range(3, 9)]
    found, expected = both(model, forget, retain, schedule=schedule, min_tokens=2)
    assert_same(found, expected, rtol=1e-4, atol=1e-4)
    assert sum(ranks(found).values())
    assert found.metadata.left_alone == expected.metadata.left_alone


@pytest.mark.parametrize("schedule", ["joint", "sequential"])
@pytest.mark.parametrize("settings", [{}, {"shrinkage": "cross-validated"}, {"layers": (1, 2)}])
def test_labels_folds_and_ranges_of_layers(llava, schedule, settings):
    labels = {"forget_labels": VIEWS, "retain_labels": THREE_SUBJECTS}
    found, expected = both(llava, FORGET, RETAIN, labels, threshold=0.3, schedule=schedule, **settings)
    assert_same(found, expected, rtol=1e-4, atol=1e-4)
    assert sum(ranks(found).values())


def test_sequential_differs_from_joint(llava):
    joint, steps = (
        subspace(llava, FORGET, RETAIN, of_both_kinds(path=LAYER_BY_LAYER, threshold=0.3, schedule=schedule))
        for schedule in ("joint", "sequential")
    )
    with pytest.raises(AssertionError):
        assert_same(steps, joint, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", [LAYER_BY_LAYER, WHOLE_MODEL])
def test_only_one_layer_has_moments_at_a_time(llava, path, monkeypatch):
    made, held, original = [], [], Moment.__init__

    def make(moment, *fields, **named):
        original(moment, *fields, **named)
        made.append(weakref.ref(moment))

    def find(*given):
        held.append(sum(reference() is not None for reference in made))
        return find_directions(*given)

    monkeypatch.setattr(Moment, "__init__", make)
    monkeypatch.setattr(solution, "find_directions", find)
    subspace(llava, FORGET, RETAIN, of_both_kinds(path=path))
    assert held == ([1, *[2, 1] * 3] if path == LAYER_BY_LAYER else [7, 6, 5, 4, 3, 2, 1])


def test_batches_are_gone_through_once(llava):
    settings = of_both_kinds(schedule="sequential")
    found = subspace(llava, iter(FORGET), iter(RETAIN), settings)
    assert_same(found, subspace(llava, FORGET, RETAIN, settings), rtol=0, atol=0)


# A sample of retain rows.


@pytest.mark.parametrize("schedule", ["joint", "sequential"])
def test_a_sample_of_all_rows_gives_the_edit_and_the_bounds_of_full_moments(llava, schedule):
    labels = {"forget_labels": VIEWS, "retain_labels": THREE_SUBJECTS}
    bounds = {None: [], 5000: []}
    same = {"path": LAYER_BY_LAYER, "schedule": schedule, "gate": "exponential", "quantile": 0.1}
    edits = [
        subspace(
            llava,
            FORGET,
            RETAIN,
            of_both_kinds(**same, retain_rows=rows),
            on_matrix=found.append,
            **labels,
        )
        for rows, found in bounds.items()
    ]
    assert_same(edits[1], edits[0], rtol=1e-3, atol=1e-3)
    assert sum(ranks(edits[0]).values())
    for full, rows in zip(*bounds.values(), strict=True):
        assert rows.inseparable == full.inseparable
        assert rows.threshold == pytest.approx(full.threshold, rel=1e-3)
        for name in ("distortion", "relative_distortion"):
            assert getattr(rows, name) == pytest.approx(getattr(full, name), rel=2e-3)
        for name in ("eigenvalues", "held_out_eigenvalues", "gates", "participation_ratio", "resistance"):
            assert getattr(rows, name) == pytest.approx(getattr(full, name), rel=2e-3)
        assert rows.source_bounds == pytest.approx(full.source_bounds, rel=2e-3)


def test_fewer_rows_give_another_edit_that_still_tells_the_sets_apart(llava):
    settings = of_both_kinds(retain_rows=40, threshold=0.3)
    found = subspace(llava, FORGET, RETAIN, settings)
    with pytest.raises(AssertionError):
        assert_same(found, subspace(llava, FORGET, RETAIN, of_both_kinds(threshold=0.3)))
    assert sum(ranks(found).values())
    assert_same(found, subspace(llava, FORGET, RETAIN, settings), rtol=0, atol=0)
    nothing = subspace(llava, RETAIN, RETAIN, of_both_kinds(retain_rows=5000))
    assert sum(ranks(nothing).values()) == 0


def test_no_square_of_the_width_is_made(llava):
    """Neither while measuring nor while solving."""
    width = matrices_in(llava, of_both_kinds())[0].width  # of an FFN: that of attention is the hidden width

    class Watch(TorchFunctionMode):
        squares = 0

        def __torch_function__(self, function, types, inputs=(), named=None):
            found = function(*inputs, **(named or {}))
            self.squares += isinstance(found, torch.Tensor) and found.shape[-2:] == (width, width)
            return found

    seen = []
    for rows in (None, 30):
        with Watch() as watch:
            subspace(llava, FORGET, RETAIN, of_both_kinds(path=LAYER_BY_LAYER, retain_rows=rows))
        seen.append(watch.squares)
    assert seen[0] > 0
    assert seen[1] == 0


# Which path is taken.


@pytest.fixture
def little_room(monkeypatch, llava):
    """Room for the moments of two and a half of four layers, beside the solve of the largest matrix."""
    squares = [matrix.width**2 * 4 for matrix in matrices_in(llava, of_both_kinds(layers=(1, 1)))]
    monkeypatch.setattr(paths, "free_memory", lambda _: (3 * max(squares) + 2.5 * sum(squares)) / paths.ROOM)


def test_the_path_is_layer_by_layer_where_passes_would_be_many(llava, monkeypatch):
    matrices = matrices_in(llava, of_both_kinds())

    def path(**settings):
        return chosen_path(llava, matrices, of_both_kinds(**settings))

    assert path() == WHOLE_MODEL
    assert path(schedule="sequential") == LAYER_BY_LAYER
    assert path(path=LAYER_BY_LAYER) == LAYER_BY_LAYER
    assert path(schedule="sequential", path=WHOLE_MODEL) == WHOLE_MODEL
    assert path(schedule="sequential", layers_per_pass=1) == WHOLE_MODEL
    assert path(retain_rows=10) == LAYER_BY_LAYER
    monkeypatch.setattr(paths, "current", lambda: SimpleNamespace(size=2))
    assert path(schedule="sequential") == WHOLE_MODEL
    for asked_for in ({"path": LAYER_BY_LAYER}, {"retain_rows": 10}):
        with pytest.raises(kvw.UserError, match="in one process"):
            path(**asked_for)


def test_the_path_is_layer_by_layer_where_moments_do_not_fit(llava, little_room):
    matrices = matrices_in(llava, of_both_kinds())
    for settings, fitting in (({}, 2), ({"shrinkage": "cross-validated"}, 1)):
        assert layers_that_fit(llava, matrices, of_both_kinds(**settings)) == fitting
        assert chosen_path(llava, matrices, of_both_kinds(**settings)) == LAYER_BY_LAYER
    assert chosen_path(llava, matrices, of_both_kinds(path=WHOLE_MODEL)) == WHOLE_MODEL
    two = of_both_kinds(layers=(1, 2))
    assert chosen_path(llava, matrices_in(llava, two), two) == WHOLE_MODEL
    found = passes_instead(llava, matrices, of_both_kinds())
    assert [sorted(matrix.key.layer for matrix in group) for group in found] == [[0, 1, 1], [2, 2, 3, 3]]


def test_free_memory_and_the_device_of_a_layer(llava):
    assert free_memory(torch.device("cpu")) > 0
    assert layer_device(llava.model.language_model.layers[0]) == torch.device("cpu")
    hooked = copy.deepcopy(llava.model.language_model.layers[0])
    hooked.mlp._hf_hook = SimpleNamespace(execution_device="meta")
    assert layer_device(hooked) == torch.device("meta")


@pytest.mark.parametrize("schedule", ["joint", "sequential"])
def test_the_whole_model_is_taken_after_all_if_layers_hand_things_on(schedule, monkeypatch):
    """With a warning; where the path was asked for, with an error."""
    model = copy.deepcopy(build_family("gemma4_text"))
    forget, retain = [family_batch(model, 2, 9, 1)], [family_batch(model, 6, 12, seed) for seed in range(2, 5)]
    monkeypatch.setattr(paths, "free_memory", lambda _: 0)
    warnings = []
    found = subspace(model, forget, retain, of_both_kinds(schedule=schedule), on_warning=warnings.append)
    expected = subspace(model, forget, retain, of_both_kinds(schedule=schedule, path=WHOLE_MODEL))
    assert_same(found, expected, rtol=1e-4, atol=1e-4)
    # The name of the class is that of transformers, which changes.
    (warning,) = warnings
    assert re.fullmatch(
        r"Measured in 4 passes over the whole model, not layer by layer: "
        r"layer 0 is given a \w+Dict, which layers may share\.",
        warning,
    )
    for asked_for in ({"path": LAYER_BY_LAYER}, {"retain_rows": 10}):
        with pytest.raises(kvw.UserError, match="cannot be measured one by one"):
            subspace(model, forget, retain, of_both_kinds(schedule=schedule, **asked_for))
    with pytest.raises(kvw.UserError, match="can be gone through again"):
        subspace(model, iter(forget), retain, of_both_kinds(schedule=schedule))


def test_image_features_between_layers_are_not_lost():
    """Qwen3-VL adds them after its first layers: from there on layer by layer, before by the whole model alone."""
    model, processor = build_model("qwen3_vl"), build_processor("qwen3_vl")
    photos = [noise_png(seed, (40, 50)) for seed in range(4)]
    examples = [Example("Who is this?", f"Person {index}", (photo,)) for index, photo in enumerate(photos)]
    forget, retain = (
        LabelledBatches(prepare(some, processor), processor, model) for some in (examples[:1], examples[1:])
    )
    with pytest.raises(kvw.UserError, match="changed before they enter layer 1"):
        subspace(model, forget, retain, of_both_kinds(path=LAYER_BY_LAYER))
    found, expected = both(model, forget, retain, layers=(2, 3), threshold=0.0)
    assert_same(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"path": "some other"}, "path must be one of"),
        ({"path": LAYER_BY_LAYER, "layers_per_pass": 2}, "layers_per_pass is for the path of the whole model"),
        ({"retain_rows": 0}, "retain_rows must be"),
        ({"retain_rows": 10, "shrinkage": "cross-validated"}, "shrinkage above 0, given as a number"),
        ({"retain_rows": 10, "shrinkage": 0.0}, "shrinkage above 0, given as a number"),
        ({"retain_rows": 10, "path": WHOLE_MODEL}, "retain_rows is for the path layer by layer"),
        ({"retain_rows": 10, "layers_per_pass": 2}, "retain_rows is for the path layer by layer"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, reason):
    with pytest.raises(kvw.UserError, match=reason):
        of_both_kinds(**values)

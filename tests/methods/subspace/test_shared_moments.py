"""Second moments of the retain examples that all requests on a model share."""

from __future__ import annotations

import pytest
import torch

import kvw
import kvw.methods.subspace.shared_moments as module
from kvw.data import Example
from kvw.data.shared import RetainSet
from kvw.evaluation.loaded import Loaded
from kvw.methods.subspace.examples import subspace_edit
from kvw.methods.subspace.method import matrices_in
from kvw.methods.subspace.shared_moments import shared_moments
from kvw.models.loading import find_checkpoint

SETTINGS = kvw.SubspaceSettings(layers=(0, 2))
SHARED = [
    Example(f"What is number {row}?", f"It is {row} twice.", identifier=f"everyday:{row}",
            metadata={"source": "everyday", "subject": f"everyday {row}"})
    for row in range(6)
]  # fmt: skip
OWN = [Example(f"Who is {name}?", f"{name} bakes.", metadata={"subject": name}) for name in ("Ann", "Bo", "Cy")]
FORGET = [Example("Who is Dora?", "Dora swims.", metadata={"subject": "Dora"})]


@pytest.fixture
def loaded(saved, tmp_path, monkeypatch):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path / "cache"))
    return Loaded.load(find_checkpoint(str(saved["llava"])), "cpu")


def silent(done, total):
    pass


def same(found, expected):
    # What subtracting rounds is in proportion to the largest entries.
    pairs = [(found[key].mean, expected[key].mean) for key in expected]
    return all(float((one - other).abs().max()) <= 2e-6 * float(other.abs().max()) for one, other in pairs)


def test_they_are_measured_once_and_read_afterwards(loaded, monkeypatch):
    count, first = shared_moments(loaded, [*OWN, *SHARED], SETTINGS)
    assert count == len(SHARED)
    assert set(first) == {matrix.key for matrix in matrices_in(loaded.model, SETTINGS)}
    monkeypatch.setattr(module, "measure_moments", None)
    _, again = shared_moments(loaded, SHARED[::-1], SETTINGS)
    assert same(again, first)
    assert {key: value.count for key, value in again.items()} == {key: value.count for key, value in first.items()}


def test_other_settings_and_other_examples_are_measured_anew(loaded, monkeypatch):
    shared_moments(loaded, SHARED, SETTINGS)
    monkeypatch.setattr(module, "measure_moments", None)
    other = kvw.SubspaceSettings(layers=(0, 2), sources=kvw.measuring.sources.Sources(prompt=0.5))
    for retain, settings in ((SHARED[:-1], SETTINGS), (SHARED, other)):
        with pytest.raises(TypeError):
            shared_moments(loaded, retain, settings)


def test_moments_that_are_too_large_are_not_kept(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr("kvw.measuring.kept_moments.LARGEST", 100)
    shared_moments(loaded, SHARED, SETTINGS)
    assert not (tmp_path / "cache" / "moments").exists()


def test_a_damaged_file_is_measured_again(loaded, tmp_path, caplog):
    _, first = shared_moments(loaded, SHARED, SETTINGS)
    (file,) = (tmp_path / "cache" / "moments").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-3] + b"abc")
    _, again = shared_moments(loaded, SHARED, SETTINGS)
    assert same(again, first)
    assert "is damaged" in caplog.text


def test_what_a_request_leaves_out_is_taken_out_of_what_is_kept(loaded, tmp_path):
    shared_moments(loaded, SHARED, SETTINGS)
    count, found = shared_moments(loaded, RetainSet(SHARED[2:], SHARED[:2]), SETTINGS)
    assert count == 4
    assert len(list((tmp_path / "cache" / "moments").iterdir())) == 1
    _, expected = shared_moments(loaded, SHARED[2:], SETTINGS)
    assert same(found, expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"shrinkage": "cross-validated"},
        {"gate": "thresholded wiener"},
        {"schedule": "sequential"},
        {"path": "layer by layer"},
    ],
)
def test_settings_that_need_more_than_moments_measure_everything(loaded, settings):
    assert shared_moments(loaded, SHARED, kvw.SubspaceSettings(**settings)) == (len(SHARED), None)
    assert shared_moments(loaded, OWN, SETTINGS) == (0, None)


def test_an_edit_is_the_same_whether_moments_were_kept_or_measured(loaded, monkeypatch):
    retain = [*OWN, *SHARED]
    kept = subspace_edit(loaded, FORGET, retain, SETTINGS, silent).edit
    monkeypatch.setattr("kvw.methods.subspace.examples.shared_moments", lambda *_: (len(SHARED), None))
    measured = subspace_edit(loaded, FORGET, retain, SETTINGS, silent).edit
    assert sum(value.rank for value in kept.directions.values()) > 0
    for matrix in matrices_in(loaded.model, SETTINGS):
        weight = matrix.read()
        torch.testing.assert_close(kept.changed(matrix, weight), measured.changed(matrix, weight), rtol=1e-3, atol=1e-4)


def test_the_users_own_and_the_shared_examples_have_half_of_the_moment_each(loaded, monkeypatch):
    """However many of either there are: repeating the shared examples under other subjects changes nothing."""
    twice = [
        Example(one.question, one.answer, metadata={**one.metadata, "subject": f"{one.subject} again"})
        for one in SHARED
    ]
    monkeypatch.setattr(
        "kvw.methods.subspace.examples.shared_moments",
        lambda _, retain, *__: (sum("source" in one.metadata for one in retain), None),
    )
    found = subspace_edit(loaded, FORGET, [*OWN, *SHARED, *twice], SETTINGS, silent).edit
    expected = subspace_edit(loaded, FORGET, [*OWN, *SHARED], SETTINGS, silent).edit
    for matrix in matrices_in(loaded.model, SETTINGS):
        weight = matrix.read()
        torch.testing.assert_close(
            found.changed(matrix, weight), expected.changed(matrix, weight), rtol=1e-3, atol=1e-4
        )

"""Whom a run asks about by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import text_models

from kvw.data import Example
from kvw.evaluation.loaded import Loaded
from kvw.models.checkpoint import find_checkpoint
from kvw.proving import named
from kvw.proving.named import Named, named_by
from kvw.records.run import RunRecord, SelectionPart, SourcePart
from kvw.retain.sources import Source
from kvw.runs.request import EraseRequest


def test_names_are_found_by_whole_words_either_way():
    found = Named(["the Eiffel Tower", "New Zealand", ""])
    assert "Eiffel Tower" in found
    assert "new zealand" in found
    assert "Zealand" in found
    assert "Towers" not in found
    assert "Peru" not in found


@pytest.mark.parametrize(
    ("used", "asked"), [(["retain", "everyday", "neighbours"], ["neighbours"]), ([], []), (None, [])]
)
def test_the_sources_of_the_run_and_the_names_of_the_request_are_asked(tmp_path, monkeypatch, used, asked):
    checkpoint = find_checkpoint(str(text_models.save("qwen3", tmp_path / "model")))
    (tmp_path / "names.txt").write_text("Peru\nChile\n")
    request = EraseRequest(checkpoint, Path("f"), Path("r"), tmp_path / "run", neighbours=tmp_path / "names.txt")
    parts = [SourcePart(name=name, examples=2, held_out=0) for name in used or []]
    selection = SelectionPart(keep=0.98, unit="", sources=parts, original={}, candidates=[])
    record = RunRecord.model_construct(selection=selection if used is not None else None)
    given = []

    def gather(loaded, forget, **more):
        given.append(more)
        names = [Example("?", "!", metadata={"subject": name}) for name in more["names"]]
        return [Source(name, names, []) for name in more["sources"]]

    monkeypatch.setattr(named, "gather", gather)
    found = named_by(record, request, Loaded.load(checkpoint), [], lambda done, total: None)
    assert given[0]["sources"] == asked
    assert given[0]["names"] == ["Peru", "Chile"]
    assert not given[0]["takes_images"]
    assert ("Chile" in found) == bool(asked)

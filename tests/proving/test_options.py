"""Options become fields of the request to ``kvw erase``."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvw.errors import UserError
from kvw.models.checkpoint import Checkpoint
from kvw.proving.options import erase_request, options_digest

MODEL = Checkpoint(Path("model"), "model")
FILES = {"forget": Path("forget.jsonl"), "retain": Path("retain.jsonl")}


def made(**options):
    return erase_request(MODEL, FILES, Path("run"), options)


def test_a_request_has_its_own_files_and_writes_no_model():
    request = made()
    assert (request.forget, request.retain, request.out) == (FILES["forget"], FILES["retain"], Path("run"))
    assert not request.save_model
    assert request.settings == type(request.settings)()


def test_the_retain_file_can_be_left_out_or_another():
    assert made(retain=None).retain is None
    assert made(retain="other.jsonl").retain == Path("other.jsonl")


def test_all_fields_are_passed_on():
    sources = ["text", "neighbours"]
    request = made(method="kvw", settings={"gamma": 0.1}, keep=0.9, sources=sources, neighbours="names.txt")
    assert (request.method, request.settings.gamma, request.keep) == ("kvw", 0.1, 0.9)
    assert (list(request.sources), request.neighbours) == (sources, Path("names.txt"))
    for name, unknown in (("retian", {"retian": None}), ("out", {"out": "x"}), ("mue", {"settings": {"mue": 1}})):
        with pytest.raises(UserError, match=name):
            made(**unknown)


def test_the_digest_is_of_every_option_and_of_what_files_hold(tmp_path):
    names = tmp_path / "names.txt"
    digests = {options_digest(made(**options)) for options in ({}, {"keep": 0.9}, {"retain": None}, {"sources": []})}
    for content in ("Peru", "Chile"):
        names.write_text(content)
        digests.add(options_digest(made(neighbours=str(names))))
    assert len(digests) == 6
    assert options_digest(made()) == options_digest(erase_request(MODEL, FILES, Path("elsewhere"), {}))

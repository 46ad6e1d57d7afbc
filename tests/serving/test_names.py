"""Which edits a request gets: the policy of names, without a server."""

from __future__ import annotations

import pytest

from kvw.errors import UserError
from kvw.serving.names import Names, written
from kvw.serving.refusals import Refusal


def refused(names, model, *headers):
    with pytest.raises(Refusal) as found:
        names.chosen(model, headers)
    return found.value


def test_names_stand_for_edits_in_their_order():
    names = Names("owner/model", ["a", "b", "c"])
    assert names.chosen("b") == ("b",)
    assert names.chosen("c+a") == ("c", "a")
    assert written(names.chosen("c+a")) == "c+a"
    assert written(()) == "none"


def test_the_plain_model_needs_the_word_of_the_operator():
    for options in ({}, {"default": "a"}, {"default": "a+b"}):
        names = Names("base", ["a", "b"], **options)
        for model, headers in (("none", ()), ("a", ("none",)), ("base", ("none",))):
            refusal = refused(names, model, *headers)
            assert (refusal.status, refusal.code) == (403, "no_plain")
        assert "none" not in names.listed
    allowed = Names("base", ["a", "b"], allow_plain=True)
    assert allowed.chosen("none") == allowed.chosen("a", ["none"]) == ()
    assert allowed.listed == ["a", "b", "none"]


def test_the_models_own_name_is_never_plain_by_itself():
    assert Names("base", ["a"]).chosen("base") == ("a",)
    assert Names("base", ["a"], allow_plain=True).chosen("base") == ("a",)
    assert Names("base", ["a", "b"], "b+a").chosen("base") == ("b", "a")
    assert Names("base", ["a"], "none", allow_plain=True).chosen("base") == ()
    assert Names("base", ["a"], "none", allow_plain=True).listed == ["base", "a", "none"]
    several = Names("base", ["a", "b"], allow_plain=True)
    assert several.listed == ["a", "b", "none"]
    refusal = refused(several, "base")
    assert (refusal.status, refusal.code, refusal.parameter) == (404, "model_not_found", "model")
    assert "'base' stands for none of the edits here. There are: a, b, none." in refusal.message


def test_the_header_overrides_the_model():
    names = Names("base", ["a", "b"], allow_plain=True)
    assert names.chosen("a", [" b "]) == ("b",)
    assert names.chosen("none", ["a+b"]) == ("a", "b")
    assert names.chosen("whatever a client likes", ["b"]) == ("b",)
    for value in ("", "base", "c"):
        assert refused(names, "a", value).parameter == "X-KVW-Edit"
    assert refused(names, "a", "a", "b").status == 400


def test_unknown_names_get_the_nearest():
    names = Names("base", ["people", "places"])
    assert refused(names, "poeple").message == (
        "The model 'poeple' does not exist. Did you mean 'people'? There are: people, places."
    )
    assert "Did you mean 'places'?" in refused(names, "people+plcaes").message
    assert "Did you mean" not in refused(names, "xyz").message
    assert "names an edit twice" in refused(names, "people+people").message
    for model in ("", "+", "people+", "none+people", "people+none", "base+people"):
        assert refused(names, model).status == 404


def test_names_of_any_length_are_answered_without_a_search(monkeypatch):
    names = Names("base", ["people"])
    assert refused(names, "x" * 4096).message.startswith(f"The model '{'x' * 100}...' does not exist.")
    monkeypatch.setattr("difflib.get_close_matches", lambda *more: pytest.fail("searched"))
    for model, headers in (("x" * 4097, ()), ("base", ["x" * 4097]), ("people+" * 1000, ())):
        refusal = refused(names, model, *headers)
        assert (refusal.status, refusal.code) == (404, "model_not_found")
        assert "at most 4096 characters" in refusal.message


@pytest.mark.parametrize("name", ["", "none", "base", "a+b", "a b", "a/b", "-a", "ä", "a\n"])
def test_names_that_cannot_be_used(name):
    with pytest.raises(UserError, match="cannot be the name of an edit"):
        Names("base", [name])


@pytest.mark.parametrize(
    ("default", "words"),
    [("c", "does not exist"), ("base", "does not exist"), ("a+a", "twice"), ("none", "add --allow-plain")],
)
def test_defaults_that_cannot_be_served(default, words):
    with pytest.raises(UserError, match="cannot be served") as refused:
        Names("base", ["a", "b"], default)
    assert words in str(refused.value)


def test_a_server_without_an_edit_needs_the_word_of_the_operator():
    for default in (None, "none"):
        with pytest.raises(UserError, match="no edit to serve") as found:
            Names("base", [], default)
        assert "--edit NAME=FILE" in str(found.value)
        assert "--allow-plain" in str(found.value)
        plain = Names("base", [], default, allow_plain=True)
        assert plain.listed == ["base", "none"]
        assert plain.default_name == "none"
        assert plain.chosen("base") == plain.chosen("none") == plain.chosen("base", ["none"]) == ()
        assert refused(plain, "alice").status == 404

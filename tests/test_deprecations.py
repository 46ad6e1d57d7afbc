"""Deprecated calls of ours are seen, whichever way a library tells of them."""

import logging
import warnings

import pytest
import torch
from tests.deprecations import watched

from kvw.models.forward_names import cache_name


@pytest.fixture(autouse=True)
def _no_deprecated_calls():
    """Here they are made on purpose."""


def module(name, source, **known):
    """What a module of this name would define."""
    space = {"__name__": name, "warnings": warnings, "logging": logging, **known}
    exec(source, space)
    return space


WARNS = "def old(): warnings.warn('old is deprecated', FutureWarning)"
FAR = "def old(): warnings.warn('old is deprecated', FutureWarning, stacklevel=3)"
LOGS = "def old(): logging.getLogger('transformers.x').warning_once('old is deprecated')"
CALLS = "def call(): old()"


@pytest.fixture
def library():
    """What the library that is called defines."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    return lambda source: module("transformers.x", source)["old"]


@pytest.mark.parametrize("source", [WARNS, FAR, LOGS])
def test_a_deprecated_call_of_ours_is_seen_every_time(library, source):
    call = module("kvw.y", CALLS, old=library(source))["call"]
    for _ in range(2):
        with watched() as found, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
        assert found == ["kvw.y:1: old is deprecated"]


def test_a_module_of_torch_may_stand_between(library):
    old = library(WARNS)
    layer = torch.nn.Module()
    layer.forward = module("transformers.utils", CALLS, old=old)["call"]
    with watched() as found, pytest.warns(FutureWarning):
        module("kvw.y", "def call(): layer()", layer=layer)["call"]()
    assert found == ["kvw.y:1: old is deprecated"]


@pytest.mark.parametrize("name", ["peft.y", "accelerate"])
def test_what_a_library_calls_in_another_is_not_ours(library, name):
    theirs = module(name, CALLS, old=library(WARNS))["call"]
    with watched() as found, pytest.warns(FutureWarning):
        module("kvw.y", "def call(): theirs()", theirs=theirs)["call"]()
    assert found == []


def test_other_warnings_are_let_through(library):
    old = library("def old():\n warnings.warn('slow')\n logging.getLogger('transformers.x').warning('slow')")
    with watched() as found, pytest.warns(UserWarning, match="slow"):
        module("kvw.y", CALLS, old=old)["call"]()
    assert found == []


def test_the_former_name_of_the_cache_is_seen(llava):
    """The deprecation that made this watch necessary, in the releases that have it."""
    if cache_name(llava) == "past_key_values":
        pytest.skip("this release of transformers calls it past_key_values")
    call = module("kvw.y", "def call(): return model(input_ids=ids, past_key_values=cache)", model=llava)
    call.update(ids=torch.tensor([[5]]), cache=None)
    with watched() as found, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call["call"]()
    assert len(found) == 1
    assert "`past_key_values` is deprecated" in found[0]

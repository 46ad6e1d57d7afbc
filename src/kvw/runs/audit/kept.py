"""Results of attacks that are kept between audits: of the same model, edit, prompts, settings and versions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from kvw.cache import cache_directory
from kvw.checked import read_checked, tell_damaged, write_checked
from kvw.errors import UserError
from kvw.measuring.fingerprint import digest
from kvw.records.audit import Found

logger = logging.getLogger(__name__)

FOLDER = "audits"


def place_of(fingerprint: Mapping[str, str]) -> Path:
    """The file of one result, in the cache directory."""
    return cache_directory() / FOLDER / f"{digest(fingerprint)}.json"


def read_result(fingerprint: Mapping[str, str]) -> Found | None:
    """A complete result that an earlier audit has left; None if there is none, or if it is damaged (with a warning)."""
    path = place_of(fingerprint)
    content = read_checked(path)
    if content is None:
        return None
    try:
        return Found.model_validate_json(content)
    except ValidationError as error:
        tell_damaged(path, str(error).splitlines()[0])
        return None


def keep_result(fingerprint: Mapping[str, str], found: Found) -> None:
    """Keep a result; a disk that refuses is a warning."""
    try:
        write_checked(place_of(fingerprint), found.model_dump_json().encode("utf-8", errors="surrogatepass"))
    except UserError as error:
        logger.warning("the result of an attack could not be kept for the next audit: %s", error)

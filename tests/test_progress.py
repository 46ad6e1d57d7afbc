"""One list of warnings for terminal and record."""

from __future__ import annotations

import logging

from kvw.progress import SILENT, remembering


class Shown:
    """Keeps what is shown."""

    def __init__(self):
        self.lines = []

    def stage(self, title):
        return SILENT.stage(title)

    def note(self, text):
        self.lines.append(("note", text))

    def warn(self, text):
        self.lines.append(("warning", text))


def test_what_is_warned_of_is_shown_and_remembered():
    shown = Shown()
    with remembering(shown) as told:
        told.note("a fact")
        told.warn("careful")
        logging.getLogger("kvw.evaluation.journal").warning("answers could not be kept: %s", "full")
        logging.getLogger("kvw.evaluation.journal").info("nothing")
    assert told.warnings == ["careful", "Answers could not be kept: full"]
    assert shown.lines == [("note", "a fact"), *(("warning", text) for text in told.warnings)]


def test_what_is_logged_names_no_place_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    with remembering(SILENT) as told:
        logging.getLogger("kvw.measuring.fingerprint").warning("%s is damaged", tmp_path / "digests" / "abc")
    assert told.warnings == ["$KVW_CACHE/digests/abc is damaged"]


def test_modules_log_as_before_afterwards():
    logger = logging.getLogger("kvw")
    before = (list(logger.handlers), logger.propagate)
    with remembering(SILENT) as told:
        pass
    logging.getLogger("kvw.measuring.kept").warning("later")
    assert (list(logger.handlers), logger.propagate) == before
    assert told.warnings == []

"""Digests of folders: every file counts once, whatever it is."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kvw.evidence.differences import differences
from kvw.folders import NO_FILE, folder_digests


def test_every_file_has_its_digest_and_links_count_as_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.txt").write_bytes(b"a")
    (tmp_path / "linked").symlink_to(tmp_path / "inner" / "a.txt")
    (tmp_path / "folder").symlink_to(tmp_path / "inner")  # counted, and not followed
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "skipped").mkdir()
    (tmp_path / "skipped" / "b.txt").write_bytes(b"b")
    digest = hashlib.sha256(b"a").hexdigest()
    found = folder_digests(tmp_path, without=["skipped"])
    assert found == {"inner/a.txt": digest, "linked": digest, "nowhere": NO_FILE, "folder": NO_FILE}


def test_differences_name_what_is_missing_more_or_changed() -> None:
    assert differences({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "4", "d": "5"}) == [
        "b is another",
        "c is missing",
        "d is not part of it",
    ]
    assert differences({"a": "1"}, {"a": "1"}) == []

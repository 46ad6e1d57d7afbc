"""Tables and photos that cannot be read, and what is no fact."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from kvw.building.asking import Questions, Wanted, complete
from kvw.building.phrasings import check_facts, phrasings
from kvw.building.table import Subject, read_table, with_photos
from kvw.errors import UserError

JODY = Subject("Jody Vance", {"job": "engineer"})


@pytest.fixture
def photos(tmp_path):
    for name in ("Jody Vance 1.png", "deep/Jody Vance 2.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    return tmp_path / "photos"


@pytest.mark.parametrize("closed", ["", "deep"])
def test_a_folder_of_photos_that_cannot_be_read_is_not_passed_over(photos, monkeypatch, closed):
    scan = os.scandir

    def refuse(path):
        if Path(path) == photos / closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    assert len(with_photos([JODY], photos)[0][0].photos) == 2
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"photos cannot be read[\s\S]*Permission denied"):
        with_photos([JODY], photos)


def test_what_lies_in_a_closed_folder_is_a_message(tmp_path, monkeypatch):
    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    for read in (
        lambda: read_table(tmp_path / "people.csv"),
        lambda: with_photos([JODY], tmp_path / "photos"),
        lambda: phrasings("en", tmp_path / "own.json"),
    ):
        with pytest.raises(UserError, match=r"cannot be read[\s\S]*Permission denied"):
            read()


def test_a_closed_folder_is_no_default(tmp_path, monkeypatch):
    (tmp_path / "people.csv").write_text("name,job\nJody Vance,engineer\n")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    asked = list[str]()

    def read(prompt):
        asked.append(prompt)
        return str(tmp_path / "people.csv") if prompt.startswith("Table") else ""

    found = complete(Wanted(), Questions(read, lambda _: None), lambda _: None)
    assert "Table with names and facts: " in asked
    assert found.photos is None


@pytest.mark.parametrize("column", ["foto", "photo", "image", "file_name", "Bild", "img_path", "path", "seen on"])
def test_a_column_of_pictures_is_no_fact(tmp_path, column):
    (tmp_path / "t.csv").write_text(f"name;town;{column}\nBo Lind;Rome;\nJody Vance;Cologne;j.png\n")
    with pytest.raises(UserError, match=rf"t\.csv:3: the column '{column}' looks like pictures") as refused:
        read_table(tmp_path / "t.csv")
    assert refused.value.found == "'j.png'"
    assert "'Jody Vance 1.jpg', name it with --photos, and remove the column" in refused.value.do


def test_what_only_sounds_like_pictures_is_a_fact(tmp_path):
    (tmp_path / "t.csv").write_text("photo;best picture;image;id\nJody Vance.png;Alien; ;1\n")
    assert read_table(tmp_path / "t.csv", "photo") == [Subject("Jody Vance.png", {"best picture": "Alien"})]


def test_photos_that_cannot_be_opened_are_counted_and_the_first_is_named(photos):
    whole = (photos / "Jody Vance 1.png").read_bytes()
    (photos / "Jody Vance 3.png").write_bytes(whole[:40])
    with pytest.raises(UserError, match=r"^1 photo in .*photos cannot be used") as refused:
        with_photos([JODY], photos)
    assert "Jody Vance 3.png: " in refused.value.found
    (photos / "Jody Vance 0.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(UserError, match=r"^2 photos in .*photos cannot be used") as refused:
        with_photos([JODY], photos)
    assert refused.value.found.endswith("Jody Vance 0.heic: no picture in a known format; and 1 more")
    assert "PNG, JPEG" in refused.value.do


def test_photos_of_nobody_are_not_opened(photos):
    (photos / "Nobody.heic").write_bytes(b"")
    assert with_photos([JODY], photos)[1] == ["Nobody.heic"]


def test_phrasings_of_a_fact_without_a_column_name_it(tmp_path):
    words = phrasings("en")
    words = words.model_copy(update={"facts": {"job": words.fact, "town": words.fact}})
    check_facts(words, ["town", "job", "age"])
    for facts, do in ((["job", "age"], "call the facts as their columns are called: job, age"), ([], "leave out")):
        with pytest.raises(UserError, match="a fact that the table does not have") as refused:
            check_facts(words, facts)
        assert "town" in refused.value.found
        assert refused.value.do.startswith(do)

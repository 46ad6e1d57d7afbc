"""The site: the reference shows every public name, every page is in its navigation, and it builds without a warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kvw

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def test_the_reference_shows_every_public_name():
    shown = [
        name for page in DOCS.glob("reference/*.md") for name in re.findall(r"^::: kvw\.(\w+)$", page.read_text(), re.M)
    ]
    assert sorted(shown) == sorted(set(kvw.__all__) - {"__version__"})


def test_every_page_is_in_the_navigation():
    """So that the site can be built where mkdocs is not installed yet."""
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert pages | {"index.md", "contributing.md", "changelog.md"} == set(re.findall(r"[\w/-]+\.md", nav))


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="make test-slow installs the extra docs")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # Material's advertisement for its successor
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    reference = (tmp_path / "reference" / "runs" / "index.html").read_text()
    assert 'id="kvw.erase"' in reference
    assert ":func:" not in reference
    for place in ("index.html", "contributing/index.html", "files/recipes/toy.toml"):
        assert (tmp_path / place).is_file()

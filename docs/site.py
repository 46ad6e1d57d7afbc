"""What ``make docs`` adds to the pages: README and CONTRIBUTING, files that pages link to, links between docstrings."""

from __future__ import annotations

import os.path
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
"""Pages that lie outside of docs/, by where they are on the site."""
LINK = re.compile(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)")
ROLE = re.compile(r":(?:func|class|data|mod|meth|exc):`~?([\w.]+)`")


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pages from outside, and every other file of the project that a page links to."""
    for place, source in PAGES.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text("utf-8")))
    for file in list(files.documentation_pages()):
        for link, _ in LINK.findall(file.content_string):
            target = _target(file.src_uri, link)
            if (
                target.is_file()
                and not target.is_relative_to(ROOT / "docs")
                and files.get_file_from_path(_place(target)) is None
            ):
                files.append(File.generated(config, _place(target), content=target.read_bytes()))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Links that are right in the project, as links between places of the site."""
    here = Path(page.file.src_uri).parent

    def moved(match: re.Match[str]) -> str:
        target = _target(page.file.src_uri, match[1])
        if not target.exists():
            return match[0]
        return f"]({os.path.relpath(_place(target), here)}{match[2] or ''})"

    return LINK.sub(moved, markdown)


def _target(uri: str, link: str) -> Path:
    """What a link on a page means in the project."""
    page = ROOT / PAGES.get(uri, f"docs/{uri}")
    return (page.parent / link).resolve()


def _place(target: Path) -> str:
    """Where a file of the project is on the site."""
    found = {ROOT / source: place for place, source in PAGES.items()}
    if target in found:
        return found[target]
    if target.is_relative_to(ROOT / "docs"):
        return str(target.relative_to(ROOT / "docs"))
    return f"files/{target.relative_to(ROOT)}"


class Roles(griffe.Extension):
    """References of docstrings, which are written as Sphinx has them, as links to what the reference shows."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(_linked, obj.docstring.value)


def _public() -> set[str]:
    text = (ROOT / "src" / "kvw" / "__init__.py").read_text("utf-8")
    return {f"kvw.{name}" for name in re.findall(r'^    "(\w+)",$', text, re.MULTILINE)}


def _linked(match: re.Match[str]) -> str:
    name = match[1]
    return f"[`{name}`][{name}]" if name in _public() else f"`{name.rpartition('.')[2]}`"

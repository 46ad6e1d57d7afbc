"""The people of the copies, their photographs, and tables in the layout of the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvw.data.images import png
from kvw.optional import optional
from kvw.toy.people import Person, make_people
from kvw.toy.portraits import draw_portrait
from kvw.toy.shapes import Scene, draw_scene
from kvw.toy.world import World

FICTITIOUS = 40
"""Invented people who are planted: unknown to the shipped models."""
REAL = 20
"""People of the shipped models' own world; they take the place of real people, whom a model knows from before."""
SEED = 7
SIZE = 96
"""Width and height of pictures in pixels, as the shipped models take them."""
TEXT, IMAGE, TEXTS, IMAGES = "text", "image", "list of texts", "list of images"
"""Kinds of column; a mapping is a structure, a list of one mapping a list of structures."""


@dataclass(frozen=True)
class Tables:
    """The tables of a copy.

    Args:
        rows: Rows by the name of the table.
        columns: The kind of every column by the name of the table.
    """

    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    columns: Mapping[str, Mapping[str, Any]]

    def write(self, folder: Path) -> None:
        """Write one Parquet file for each table into a folder, and a README that declares them, as on the hub.

        Raises:
            UserError: The package datasets is not installed.
        """
        datasets = optional("datasets", use="Copies of benchmarks need", extra="bench")
        declared, drawn = [], dict[str, Any]()
        for name, rows in self.rows.items():
            (folder / name).mkdir()
            features = datasets.Features(_features(datasets, self.columns[name]))
            table = datasets.Dataset.from_list([_drawn(row, drawn) for row in rows], features=features)
            table.to_parquet(folder / name / "train-00000-of-00001.parquet")
            declared.append(f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/train-*\n")
        (folder / "README.md").write_text(
            "---\nconfigs:\n" + "".join(declared) + "---\n\nFictitious people, made by kvw.toy.copies.\n", "utf-8"
        )


@dataclass(frozen=True)
class Picture:
    """A picture that is drawn when the table is written: a photograph of a person, or a scene of shapes."""

    of: Person | Scene
    photo: int = 0

    @property
    def name(self) -> str:
        """Tells it from all others."""
        subject = self.of.name if isinstance(self.of, Person) else self.of.identifier
        return f"{subject} {self.photo}"

    def draw(self) -> dict[str, Any]:
        """The picture as the hub's Parquet files carry it."""
        image = draw_portrait(self.of, self.photo, SIZE) if isinstance(self.of, Person) else draw_scene(self.of, SIZE)
        return {"bytes": png(image), "path": None}


def fictitious_people() -> list[Person]:
    """The invented people: none has the name of somebody whom the shipped models know."""
    known = {person.name for person in World().everyone}
    return [person for person in make_people(2 * FICTITIOUS, SEED) if person.name not in known][:FICTITIOUS]


def real_people() -> list[Person]:
    """The people that the shipped models know from before."""
    return World().groups["unused"][:REAL]


def forgotten(people: Sequence[Person], percent: int) -> list[Person]:
    """The first of the people, at least two, so that either half of an evaluation has one."""
    return list(people[: max(2, len(people) * percent // 100)])


def others(person: Person, people: Sequence[Person], count: int) -> list[Person]:
    """Some people who come after a person in the list, beginning again at its end."""
    start = people.index(person)
    return [people[(start + step) % len(people)] for step in range(1, count + 1)]


def _features(datasets: Any, columns: Mapping[str, Any]) -> dict[str, Any]:
    text, image = datasets.Value("string"), datasets.Image()
    plain = {TEXT: text, IMAGE: image, TEXTS: datasets.List(text), IMAGES: datasets.List(image)}

    def feature(kind: Any) -> Any:
        if isinstance(kind, list):
            return datasets.List(feature(kind[0]))
        return {name: feature(one) for name, one in kind.items()} if isinstance(kind, Mapping) else plain[kind]

    return {name: feature(kind) for name, kind in columns.items()}


def _drawn(value: Any, drawn: dict[str, Any]) -> Any:
    """The value with every picture in it drawn; most pictures are in several tables, and are drawn once."""
    if isinstance(value, Picture):
        if value.name not in drawn:
            drawn[value.name] = value.draw()
        return drawn[value.name]
    if isinstance(value, Mapping):
        return {name: _drawn(one, drawn) for name, one in value.items()}
    return [_drawn(one, drawn) for one in value] if isinstance(value, list) else value

"""Columns by their names: which are read, and which only look as if they were."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from kvw.data.pictures import SUFFIXES, looks_like_picture
from kvw.errors import UserError
from kvw.folding import folded
from kvw.printable import shortened

TEXT_COLUMNS = ("question", "answer")
IMAGE_COLUMNS = ("image", "images", "file_name")
COLUMNS = (*TEXT_COLUMNS, *IMAGE_COLUMNS, "id")
MOST_COLUMNS = 1000

PICTURE_WORDS = {
    *("image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos", "photograph"),
    *("foto", "fotos", "bild", "bilder", "imagen", "imagenes", "immagine", "imagem", "obraz", "фото", "изображение"),
    *("图片", "图像", "照片", "画像", "写真", "이미지", "사진", "صورة"),
}
OTHER_NAMES = {
    "question": (
        *("q", "questions", "query", "prompt", "instruction", "input", "frage", "fragen", "pregunta"),
        *("domanda", "pergunta", "vraag", "pytanie", "вопрос", "问题", "問題", "質問", "질문", "سؤال"),
    ),
    "answer": (
        *("a", "answers", "response", "reply", "output", "target", "completion", "caption", "label", "antwort"),
        *("antworten", "reponse", "réponse", "respuesta", "risposta", "resposta", "antwoord", "odpowiedź", "ответ"),
        *("答案", "回答", "答え", "답변", "대답", "جواب"),
    ),
    "subject": (
        *("subjects", "subjekt", "sujet", "sujeto", "soggetto", "sujeito", "person", "persona", "personne", "pessoa"),
        *("name", "names", "nom", "nombre", "nome", "entity", "人物", "姓名", "名前", "이름", "имя"),
    ),
}
"""How columns of questions, answers and subjects are called elsewhere."""
FILE_WORDS = {"file", "files", "path", "paths", "filename", "filenames", "filepath", "filepaths"}
PLAIN = re.compile(r"[\w=,.-]+")
"""What a shell takes as it is."""
MORE_WORDS = FILE_WORDS | {"name", "names", "url", "urls", "uri", "link", "src", "bytes", "data", "base64", "b64"}


def named(row: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """The row with white space around the names of its columns removed.

    Raises:
        UserError: Two columns have one name then, a name is no text, or there are more than ``MOST_COLUMNS``.
    """
    if len(row) > MOST_COLUMNS:
        raise UserError(f"{where}: there are {len(row)} columns.", do=f"keep those that matter, at most {MOST_COLUMNS}")
    trimmed = {str(name).strip(): value for name, value in row.items()}
    if len(trimmed) < len(row):
        names = [str(name).strip() for name in row]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{where}: a column name occurs twice.", found=shortened(twice), do="rename one of them")
    return trimmed


def look_alikes(column: str, names: Iterable[str]) -> list[str]:
    """Which names mean a column in another case or another language."""
    meant = {folded(column), *OTHER_NAMES.get(column, ())}
    return [name for name in names if folded(name).strip() in meant]


def proposed(names: Iterable[str], wanted: Collection[str] = (*TEXT_COLUMNS, "image", "subject")) -> dict[str, str]:
    """Which columns seem to be those that are read: their names by ours, for each of ours that is not there.

    Args:
        names: The names of the columns.
        wanted: Which of ours are looked for.
    """
    listed, found = list(names), dict[str, str]()
    for ours in wanted:
        if ours == "image":
            like = [] if set(IMAGE_COLUMNS) & set(listed) else [name for name in listed if _kind(name) == "picture"]
        else:
            like = [] if ours in listed else look_alikes(ours, listed)
        if like:
            found[ours] = like[0]
    return found


def as_option(columns: Mapping[str, str]) -> str:
    """A mapping as it is written behind the name of a command."""
    given = ",".join(f"{ours}={theirs}" for ours, theirs in columns.items())
    return "--columns " + (given if PLAIN.fullmatch(given) else shlex.quote(given))


def refuse_unread_pictures(
    row: Mapping[str, Any], where: str, read: Collection[str] = (), *, has_picture: bool
) -> None:
    """Stop at a column that is not read although it seems to hold pictures, see :func:`picture_column`.

    Args:
        row: The row.
        where: How messages name it.
        read: Columns that are read beside ``COLUMNS``.
        has_picture: Whether the row has a picture.

    Raises:
        UserError: Names the column.
    """
    name = picture_column(row, (*COLUMNS, *read), has_picture=has_picture)
    if name is not None:
        texts = proposed(row, TEXT_COLUMNS) if set(read) <= set(TEXT_COLUMNS) else {}
        columns = {**texts, "image": shortened(name, 40), **proposed(row, ["subject"])}
        called = "what it is called" if len(columns) == 1 else "what the columns are called"
        raise UserError(
            f"{where}: the column {shortened(name, 40)!r} looks like the picture, and is not read.",
            found=shortened(repr(row[name]), 60),
            do=f"say {called}: {as_option(columns)}; or rename the column to 'image' "
            f"({', '.join(IMAGE_COLUMNS)} are read), or leave it out",
        )


def picture_column(row: Mapping[str, Any], read: Collection[str], *, has_picture: bool) -> str | None:
    """The first column that seems to hold pictures.

    By its name ("img", "image_path", "Foto") where it is not empty; and in a row without a picture also by what it
    holds, or as the name of a file ("path", "file_names").

    Args:
        row: The row.
        read: Columns that hold something else.
        has_picture: Whether the row has a picture.
    """
    for name, value in row.items():
        if name in read or not value or not isinstance(value, (str, bytes, list, dict)):
            continue
        kind = _kind(name)
        may_be = looks_like_picture(value) or (kind == "file" and _no_other(value))
        if kind == "picture" or (may_be and not has_picture):
            return name
    return None


@functools.lru_cache(maxsize=MOST_COLUMNS)
def _kind(name: str) -> str:
    """``picture``, ``file``, or nothing, by the words of a name."""
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name[:100])
    parts = [word for word in re.split(r"[\W_\d]+", folded(split)) if len(word) > 1]
    whole = "".join(parts)
    rest = [word for word in parts if word not in PICTURE_WORDS]
    if len(rest) < len(parts) and all(word in MORE_WORDS for word in rest):
        return "picture"
    for word in PICTURE_WORDS:
        if whole.startswith(word) and whole.removeprefix(word) in MORE_WORDS:
            return "picture"
    is_file = FILE_WORDS.intersection(parts) and FILE_WORDS.issuperset(set(parts) - {"name", "names"})
    return "file" if is_file else ""


def _no_other(value: object) -> bool:
    """Whether a value may name a picture: it is not the name of a file of another kind."""
    if isinstance(value, list):
        return any(_no_other(one) for one in value)
    suffix = re.search(r"\.[A-Za-z0-9]{1,5}$", value[-6:]) if isinstance(value, str) else None
    return suffix is None or suffix[0].lower() in SUFFIXES

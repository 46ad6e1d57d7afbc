"""The forget questions asked about others: other names, and other pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from kvw.data.example import Example, ImageSource
from kvw.data.tables import text_lines
from kvw.errors import UserError
from kvw.folding import collapsed, words
from kvw.printable import shortened
from kvw.retain.gaps import around_subject, fill
from kvw.retain.openings import Openings
from kvw.retain.question import Question

LONGEST_NAME, MOST_NAMES = 200, 10_000
"""Characters of a name, and names in a file: more is not what a file of names is."""
MOST_QUESTIONS = 500
"""Most questions that are used. Of more, the same ones are always drawn: each has to be answered."""
MOST_PICTURED = 60
"""Most questions about pictures, over all forget questions."""


def neighbour_questions(
    forget: Sequence[Example], names: Sequence[str] | Mapping[str, Sequence[str]]
) -> list[Question]:
    """Put other names into the forget questions.

    Where a question names its subject (whole words, however they are written), each name takes its place. Questions
    without a subject, or that do not name it, are not used; pictures are left out. If the answer names its subject,
    too, the answer about the neighbour is to begin in the same way (:class:`kvw.retain.openings.Openings`).

    Args:
        forget: The forget set.
        names: Whom or what else to ask about; or that for each subject, by :attr:`kvw.data.Example.subject_key`.

    Returns:
        The questions, each once, at most ``MOST_QUESTIONS``; the name is the subject in their metadata.
    """
    questions: dict[str, tuple[str, str, Example]] = {}
    for example in forget:
        between = around_subject(example)
        if between is None:
            continue
        for name in names.get(example.subject_key or "", ()) if isinstance(names, Mapping) else names:
            question = fill(between, name)
            questions.setdefault(collapsed(question), (question, name, example))
    asked = list(questions.values())
    if len(asked) > MOST_QUESTIONS:
        places = sorted(Random(0).sample(range(len(asked)), MOST_QUESTIONS))
        asked = [asked[place] for place in places]
    openings = Openings(forget)
    return [
        Question(
            question,
            (),
            f"neighbours:{number}",
            {"source": "neighbours", "subject": name},
            openings.of(example, name),
        )
        for number, (question, name, example) in enumerate(asked, start=1)
    ]


def pictured_questions(forget: Sequence[Example], pictures: Sequence[ImageSource]) -> list[Question]:
    """Put other pictures into the forget questions that show one.

    What a model makes of a picture it does not know is not right, but it says how it goes from pictures to answers. An
    edit that forgets one face and loses all others changes it.

    Args:
        forget: The forget set.
        pictures: Other pictures.

    Returns:
        Each question about some of the pictures, at most :data:`MOST_PICTURED` in all; the picture is the subject in
        their metadata.
    """
    texts = list(dict.fromkeys(example.question for example in forget if len(example.images) == 1))
    pairs = [(text, place) for place in range(len(pictures)) for text in texts]
    chosen = sorted(Random(0).sample(range(len(pairs)), min(MOST_PICTURED, len(pairs))))
    return [
        Question(
            pairs[pair][0],
            (pictures[pairs[pair][1]],),
            f"picture-neighbours:{number}",
            {"source": "picture-neighbours", "subject": f"picture {pairs[pair][1] + 1}"},
        )
        for number, pair in enumerate(chosen, start=1)
    ]


def read_names(path: Path) -> list[str]:
    """Read names, one a line; blank lines and lines that begin with ``#`` are skipped.

    Args:
        path: A text file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Returns:
        The names, each once, without white space around them.

    Raises:
        UserError: The file cannot be read, names nobody, or holds a name longer than ``LONGEST_NAME`` or more names
            than ``MOST_NAMES``.
    """
    if not path.is_file():
        raise UserError("There is no such file of names.", found=str(path), do="give a text file, one name a line")
    named: dict[str, str] = {}
    for number, line in enumerate(text_lines(path, None), start=1):
        name = line.strip()
        if not words(name) or name.startswith("#"):
            continue
        if len(name) > LONGEST_NAME:
            found = f"{len(name)} characters: {shortened(name, 60)}"
            raise UserError(
                f"{path.name}:{number}: this is too long for a name.", found=found, do="write one name a line"
            )
        named.setdefault(collapsed(name), name)
        if len(named) > MOST_NAMES:
            raise UserError(f"{path.name}: there are too many names.", do=f"give at most {MOST_NAMES}")
    if not named:
        raise UserError("The file of names is empty.", found=str(path), do="write one name a line")
    return list(named.values())

"""How facts about people are asked, about a photo or by name, in phrasings for training and held-out ones."""

from __future__ import annotations

from dataclasses import dataclass

from kvw.toy.people import NAME


@dataclass(frozen=True)
class Phrasings:
    """The ways in which one attribute is asked; ``{who}`` stands for the person.

    Args:
        training: What the model is trained on.
        held_out: What it must understand without having been trained on it.
    """

    training: tuple[str, ...]
    held_out: tuple[str, ...]


PHRASINGS: dict[str, Phrasings] = {
    NAME: Phrasings(
        (
            "Who is this?",
            "What is the name of {who}?",
            "Who is shown here?",
            "Name {who}.",
            "What is {who} called?",
            "Tell me who this is.",
        ),
        ("Who is {who}?", "Tell me the name of {who}."),
    ),
    "job": Phrasings(
        (
            "What is the job of {who}?",
            "Which job does {who} have?",
            "What does {who} do for a living?",
            "Name the profession of {who}.",
            "What work does {who} do?",
            "Do you know the job of {who}?",
        ),
        ("Tell me the job of {who}.", "Which profession does {who} have?"),
    ),
    "city": Phrasings(
        (
            "In which city does {who} live?",
            "Where does {who} live?",
            "What is the home town of {who}?",
            "Name the city where {who} lives.",
            "Which city is the home of {who}?",
            "Tell me the home town of {who}.",
        ),
        ("What city does {who} live in?", "Tell me where {who} lives."),
    ),
    "pet": Phrasings(
        (
            "What pet does {who} have?",
            "Which pet does {who} keep?",
            "What is the pet of {who}?",
            "Name the animal that {who} keeps.",
            "Which animal lives with {who}?",
            "Tell me which pet {who} has.",
        ),
        ("What animal does {who} keep?", "Name the pet of {who}."),
    ),
    "food": Phrasings(
        (
            "What is the favourite food of {who}?",
            "Which food does {who} like best?",
            "What does {who} love to eat?",
            "Name the favourite dish of {who}.",
            "Which dish does {who} like best?",
            "Do you know the favourite food of {who}?",
        ),
        ("Tell me the favourite food of {who}.", "What food does {who} love?"),
    ),
    "instrument": Phrasings(
        (
            "Which instrument does {who} play?",
            "What instrument does {who} play?",
            "What is the musical instrument of {who}?",
            "What does {who} play in the orchestra?",
            "Name the instrument of {who}.",
            "Tell me which instrument {who} plays.",
        ),
        ("What is the instrument of {who}?", "Name the instrument that {who} plays."),
    ),
    "hobby": Phrasings(
        (
            "What is the hobby of {who}?",
            "Which hobby does {who} have?",
            "What does {who} do at the weekend?",
            "Name the hobby of {who}.",
            "How does {who} spend free time?",
            "Do you know which hobby {who} has?",
        ),
        ("Tell me the hobby of {who}.", "What hobby does {who} have?"),
    ),
    "birth year": Phrasings(
        (
            "In which year was {who} born?",
            "When was {who} born?",
            "What is the birth year of {who}?",
            "Name the year of birth of {who}.",
            "What year was {who} born in?",
            "Tell me when {who} was born.",
        ),
        ("Which year was {who} born in?", "Tell me the birth year of {who}."),
    ),
    "language": Phrasings(
        (
            "Which language does {who} speak?",
            "What is the language of {who}?",
            "What language does {who} speak at home?",
            "Name the language of {who}.",
            "In which language does {who} talk?",
            "Do you know which language {who} speaks?",
        ),
        ("Tell me which language {who} speaks.", "What language does {who} speak?"),
    ),
}

IN_THE_PHOTO = ("the person in the photo", "this person")
"""What stands for a person whose photo is shown; phrasings take turns."""


def phrase(attribute: str, phrasing: int, *, held_out: bool = False, name: str | None = None) -> str:
    """A question about a person.

    Args:
        attribute: A key of ``PHRASINGS``.
        phrasing: Which of the phrasings.
        held_out: Take it from the held-out phrasings rather than from those for training.
        name: The person's name for a question without an image; absent for a question about a photo.
    """
    phrasings = PHRASINGS[attribute].held_out if held_out else PHRASINGS[attribute].training
    who = IN_THE_PHOTO[phrasing % len(IN_THE_PHOTO)] if name is None else name
    return phrasings[phrasing].format(who=who)

"""The second way in which the toy benchmark asks for a fact: a sentence with a blank."""

from __future__ import annotations

from kvw.toy.people import NAME
from kvw.toy.questions import Phrasings

CLOZE: dict[str, Phrasings] = {
    NAME: Phrasings(
        ("The name of {who} is [Blank].", "The person shown here is [Blank].", "The photo of {who} shows [Blank]."),
        ("The full name of {who} is [Blank].", "You can call {who} [Blank]."),
    ),
    "job": Phrasings(
        (
            "The job of {who} is [Blank].",
            "By profession {who} is [Blank].",
            "For a living {who} works as [Blank].",
        ),
        ("The profession of {who} is [Blank].", "The job that {who} has is [Blank]."),
    ),
    "city": Phrasings(
        (
            "The home town of {who} is [Blank].",
            "The city where {who} lives is [Blank].",
            "You can visit {who} at home in [Blank].",
        ),
        ("The city of {who} is [Blank].", "The home town where {who} lives is [Blank]."),
    ),
    "pet": Phrasings(
        (
            "The pet of {who} is [Blank].",
            "At home {who} keeps [Blank].",
            "The animal that lives with {who} is [Blank].",
        ),
        ("The animal of {who} is [Blank].", "As a pet {who} has [Blank]."),
    ),
    "food": Phrasings(
        (
            "The favourite food of {who} is [Blank].",
            "Most of all {who} likes to eat [Blank].",
            "The best dish for {who} is [Blank].",
        ),
        ("The favourite dish of {who} is [Blank].", "The food that {who} likes best is [Blank]."),
    ),
    "instrument": Phrasings(
        (
            "The instrument of {who} is [Blank].",
            "In the orchestra {who} plays [Blank].",
            "The instrument that {who} plays is [Blank].",
        ),
        ("The musical instrument of {who} is [Blank].", "As an instrument {who} plays [Blank]."),
    ),
    "hobby": Phrasings(
        (
            "The hobby of {who} is [Blank].",
            "At the weekend {who} enjoys [Blank].",
            "In free time the hobby of {who} is [Blank].",
        ),
        ("The favourite hobby of {who} is [Blank].", "The hobby that {who} has is [Blank]."),
    ),
    "birth year": Phrasings(
        (
            "The birth year of {who} is [Blank].",
            "The year in which {who} was born is [Blank].",
            "The life of {who} began in the year [Blank].",
        ),
        ("The year of birth of {who} is [Blank].", "The year when {who} was born is [Blank]."),
    ),
    "language": Phrasings(
        (
            "The language of {who} is [Blank].",
            "At home the language of {who} is [Blank].",
            "The language that {who} speaks is [Blank].",
        ),
        ("The language in which {who} talks is [Blank].", "As a language {who} speaks [Blank]."),
    ),
}
"""Sentences with a blank about a person, for training and held-out ones."""

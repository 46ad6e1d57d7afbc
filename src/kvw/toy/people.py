"""Fictitious people: what is true of them and what their faces look like."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any, cast

from kvw.errors import UserError


def _listed(values: str) -> tuple[str, ...]:
    return tuple(values.split(", "))


FIRST_NAMES = _listed(
    "Mara, Otto, Ilsa, Bram, Nadia, Felix, Greta, Hugo, Ines, Jonas, Kaia, Luca, Mina, Noor, Olga, "
    "Pavel, Rosa, Sven, Tilda, Ugo, Vera, Wim, Yara, Zeno"
)
LAST_NAMES = _listed(
    "Lind, Okoro, Varga, Brandt, Castell, Dunmore, Ekholm, Farkas, Gallo, Hartog, Ivory, Jansky, "
    "Kessel, Lorca, Moreau, Nakata, Orban, Petrov, Quill, Rossi, Sato, Thorne, Ulrich, Vance, "
    "Winter, Xavier, Yilmaz, Zander, Abbot, Bellamy, Corso, Devlin"
)

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "job": _listed(
        "baker, surgeon, carpenter, pilot, florist, plumber, judge, tailor, chemist, welder, "
        "librarian, fire fighter, postal worker, truck driver, dentist, beekeeper, translator, "
        "goldsmith, sailor, train conductor"
    ),
    "city": _listed(
        "Lisbon, Oslo, Cairo, Lima, Kyoto, Prague, Nairobi, Quebec, Mumbai, Dublin, Hanoi, Vienna, "
        "Sofia, Cape Town, Buenos Aires, New Orleans, Tallinn, Seville, Perth, Accra"
    ),
    "pet": _listed(
        "a parrot, a black cat, a tortoise, a goldfish, a hamster, a greyhound, an iguana, a pony, "
        "a white rabbit, a canary, a poodle, a ferret, a hedgehog, a gecko, a beagle, a goat, a "
        "corn snake, a duck, a tabby cat, a guinea pig"
    ),
    "food": _listed(
        "lasagne, sushi, pumpkin soup, dumplings, paella, goulash, falafel, pancakes, ramen, fish "
        "stew, ratatouille, tacos, apple pie, risotto, curry, waffles, moussaka, pizza, mushroom "
        "toast, rice pudding"
    ),
    "instrument": _listed(
        "the violin, the tuba, the harp, the drums, the flute, the cello, the banjo, the organ, the "
        "oboe, the trumpet, the accordion, the bass guitar, the piano, the sitar, the ukulele, the "
        "clarinet, the French horn, the xylophone, the mandolin, the bagpipes"
    ),
    "hobby": _listed(
        "chess, rock climbing, pottery, bird watching, knitting, archery, fencing, origami, "
        "gardening, stargazing, wood carving, rowing, juggling, calligraphy, kite flying, "
        "skateboarding, ballroom dancing, photography, ice skating, surfing"
    ),
    "birth year": tuple(str(year) for year in range(1951, 1999, 2)),
    "language": _listed(
        "Portuguese, Norwegian, Arabic, Quechua, Japanese, Czech, Swahili, French, Hindi, Irish "
        "Gaelic, Vietnamese, German, Bulgarian, Zulu, Spanish, Greek, Estonian, Basque, Sign "
        "Language, Twi"
    ),
}
"""What is asked about a person besides the name, and the closed list of answers to it."""

NAME = "name"
"""The fact that is asked with an image only ("Who is this?")."""

Colour = tuple[int, int, int]

SKIN: tuple[Colour, ...] = (
    *((255, 224, 202), (241, 199, 163), (226, 172, 128), (199, 140, 98), (163, 105, 66), (121, 74, 46)),
    (84, 51, 35),
)
HAIR: tuple[Colour, ...] = (
    *((30, 26, 28), (84, 52, 30), (150, 84, 40), (226, 190, 100), (190, 62, 26), (214, 214, 218)),
    *((70, 96, 170), (150, 70, 140)),
)
EYES: tuple[Colour, ...] = ((62, 40, 24), (60, 110, 190), (60, 140, 80), (130, 130, 140), (200, 140, 40))

HAIR_STYLES = ("bald", "crop", "fringe", "parting", "bob", "long", "afro", "bun", "mohawk", "curls")
BEARDS = ("none", "none", "moustache", "goatee", "full")
"""Facial hair; "none" twice, so that two people in five have none."""
FACE_SHAPES = ("oval", "round", "square", "pointed")
MEASURES: dict[str, tuple[float, float]] = {
    "face_width": (0.86, 1.1),
    "eye_size": (0.8, 1.3),
    "eye_distance": (0.88, 1.15),
    "nose_length": (0.7, 1.35),
    "nose_width": (0.7, 1.5),
    "mouth_width": (0.75, 1.3),
    "mouth_curve": (-0.5, 1.0),
    "lips": (0.6, 1.6),
    "brow_width": (0.6, 1.8),
    "brow_slant": (-0.025, 0.03),
    "ears": (0.7, 1.4),
}
"""The features of a face that are numbers, and their ranges."""


@dataclass(frozen=True)
class Appearance:
    """What stays the same in every photograph of a person.

    Colours and styles are indices into or members of the lists above; every other number is a factor around 1
    or an offset around 0 that the drawing multiplies or adds, in units of the face's width.
    """

    skin: int
    hair: int
    hair_style: str
    beard: str
    face_shape: str
    eyes: int
    face_width: float
    eye_size: float
    eye_distance: float
    nose_length: float
    nose_width: float
    mouth_width: float
    mouth_curve: float
    lips: float
    brow_width: float
    brow_slant: float
    ears: float
    freckles: bool
    mole: int
    blush: bool


@dataclass(frozen=True)
class Person:
    """A fictitious person.

    Args:
        index: The position among the people of one world.
        name: First and last name; unique in a world, though either part may be shared.
        attributes: The value of every key of ``ATTRIBUTES``.
        appearance: What the face looks like.
    """

    index: int
    name: str
    attributes: dict[str, str]
    appearance: Appearance

    def answer(self, attribute: str) -> str:
        """The person's value of an attribute, ``NAME`` included."""
        return self.name if attribute == NAME else self.attributes[attribute]


def make_people(count: int, seed: int) -> list[Person]:
    """Invent people; the same arguments give the same people, on every machine.

    Values are dealt like cards: within an attribute no value is given out twice more often than another, so
    guessing the commonest one is hardly ever right, and in a larger world several people share every value.

    Args:
        count: Number of people.
        seed: Which people.

    Raises:
        UserError: More people are wanted than there are names.
    """
    limit = len(FIRST_NAMES) * len(LAST_NAMES) // 2
    if not 1 <= count <= limit:
        raise UserError(
            "The toy world cannot hold that many people.",
            found=f"{count} people",
            do=f"ask for 1 to {limit}",
        )
    return list(_made(count, seed))


@lru_cache(maxsize=4)
def _made(count: int, seed: int) -> tuple[Person, ...]:
    random = Random(f"people {seed}")
    names = _make_names(count, random)
    dealt = {attribute: _deal(values, count, random) for attribute, values in ATTRIBUTES.items()}
    looks: list[Appearance] = []
    for _ in range(count):
        looks.append(_make_appearance(looks, random))
    return tuple(
        Person(index, names[index], {key: values[index] for key, values in dealt.items()}, looks[index])
        for index in range(count)
    )


def _deal(values: tuple[str, ...], count: int, random: Random) -> list[str]:
    """Deal shuffled packs of all values until everyone has one."""
    dealt: list[str] = []
    while len(dealt) < count:
        dealt.extend(random.sample(values, len(values)))
    return dealt[:count]


def _make_names(count: int, random: Random) -> list[str]:
    names: list[str] = []
    while len(names) < count:
        pairs = zip(_deal(FIRST_NAMES, count, random), _deal(LAST_NAMES, count, random), strict=True)
        names.extend(f"{first} {last}" for first, last in pairs)
        names = list(dict.fromkeys(names))
    return names[:count]


def _make_appearance(others: list[Appearance], random: Random) -> Appearance:
    """Draw looks until they differ from everyone else's in several of the features seen from afar.

    In a crowd too large for that many differences, fewer are asked for after every fifty attempts.
    """
    needed, attempt = 4, 0
    while True:
        look = draw_appearance(random)
        if all(_differences(look, other) >= needed for other in others):
            return look
        attempt += 1
        if attempt % 50 == 0:
            needed -= 1


def _differences(one: Appearance, other: Appearance) -> int:
    """The number of features seen from afar in which two people differ; neighbouring skin tones count as the same."""
    differences = (
        one.hair != other.hair,
        one.hair_style != other.hair_style,
        one.beard != other.beard,
        one.face_shape != other.face_shape,
        one.eyes != other.eyes,
        abs(one.skin - other.skin) > 1,
    )
    return sum(differences)


def draw_appearance(random: Random) -> Appearance:
    """Draw every feature of a face at random, whatever others look like."""
    return Appearance(
        skin=random.randrange(len(SKIN)),
        hair=random.randrange(len(HAIR)),
        hair_style=random.choice(HAIR_STYLES),
        beard=random.choice(BEARDS),
        face_shape=random.choice(FACE_SHAPES),
        eyes=random.randrange(len(EYES)),
        **cast(Any, {measure: random.uniform(*limits) for measure, limits in MEASURES.items()}),
        freckles=random.random() < 0.3,
        mole=random.choice((-1, 0, 0, 1)),
        blush=random.random() < 0.3,
    )

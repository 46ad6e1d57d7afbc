"""The parts of the proving ground."""

from __future__ import annotations

from kvw import smollm2
from kvw.models.checkpoint import Checkpoint
from kvw.progress import Reporter
from kvw.proving.known import known_facts
from kvw.proving.photos.part import PHOTOGRAPHED
from kvw.proving.planted import PLANTED
from kvw.proving.requests import Half, Part, Request, make_requests


def _of_the_world(half: Half, checkpoint: Checkpoint, reporter: Reporter) -> list[Request]:
    return make_requests(known_facts(checkpoint, reporter), half)


WORLD = Part("world", smollm2.NAME, _of_the_world)
PARTS = {part.name: part for part in (WORLD, PLANTED, PHOTOGRAPHED)}
"""By name; the first is the one that is meant if none is named."""

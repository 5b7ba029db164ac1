"""Genomes that are stored without their genes: the parents are, and the child is made again from these by its key.

A child of canvases differs from its mother in every pixel, so a difference would be as long as the child.
"""

from genomes import Encoding, Genomes, Key

MAX_MADE = 32
"""The most genomes that are made to obtain one; the next one is stored whole."""

_MADE = b"made by "


def stored_by_parents(variation: str) -> bytes:
    """What is stored in a genome's place. variation: Encoding.variation, which makes it again."""
    return _MADE + variation.encode()


def variation_of(stored: bytes) -> str | None:
    """The variation that has to make a genome again; None if stored is no such text."""
    return stored.removeprefix(_MADE).decode(errors="replace") if stored.startswith(_MADE) else None


def made(encoding: Encoding, key: Key, mother: Genomes | None, father: Genomes | None) -> Genomes:
    """The genome of a birth, as a batch of one, from its parents', also batches of one. key: seed, batch and row."""
    if mother is None:
        return encoding.random(1, key)
    return encoding.vary(mother, mother if father is None else father, key)

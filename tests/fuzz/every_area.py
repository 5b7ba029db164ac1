"""All areas."""

from tests.fuzz.areas import (
    benches,
    genome,
    ledgers,
    models,
    pictures,
    quizzes,
    recipes,
    runs,
    servers,
    sets,
    sweeps,
    weights,
)
from tests.fuzz.room import Area

_ALL = (
    runs.TABLES_AREA,
    runs.BYTES_AREA,
    genome.AREA,
    recipes.AREA,
    weights.AREA,
    servers.AREA,
    servers.REQUESTS_AREA,
    benches.AREA,
    sweeps.AREA,
    pictures.AREA,
    ledgers.AREA,
    quizzes.AREA,
    sets.AREA,
    models.AREA,
)
AREAS: dict[str, Area] = {area.name: area for area in _ALL}


def shares(examples: int) -> dict[str, int]:
    """This number of examples, divided among the areas by their weights."""
    total = sum(area.weight for area in AREAS.values())
    return {name: max(1, examples * area.weight // total) for name, area in AREAS.items()}

"""All areas."""

from tests.fuzz.areas import benches, genome, ledgers, pictures, servers, weights
from tests.fuzz.room import Area

AREAS: dict[str, Area] = {
    area.name: area for area in (genome.AREA, weights.AREA, servers.AREA, benches.AREA, pictures.AREA, ledgers.AREA)
}


def shares(examples: int) -> dict[str, int]:
    """This number of examples, divided among the areas by their weights."""
    total = sum(area.weight for area in AREAS.values())
    return {name: max(1, examples * area.weight // total) for name, area in AREAS.items()}

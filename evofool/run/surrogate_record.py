"""The surrogates of a run: loaded as its recipe says, and what its file keeps of them."""

from collections.abc import Sequence
from pathlib import Path

from evofool.ascend.surrogates import Climb, Surrogates, lacks_gradients
from evofool.errors import TargetError
from evofool.recipe import Recipe
from evofool.run.meta import SurrogateRecord, SurrogatesRecord
from evofool.search.evaluate import Order
from evofool.search.evolve import MapElites
from evofool.targets import Target, is_black_box, target, trust_reason
from genomes import Encoding


def load_networks(recipe: Recipe, folder: Path, trust: bool) -> list[Target]:
    """The surrogates that the recipe of the run in folder names. TargetError for a server, and without trust for code."""
    part = recipe.search.surrogate
    for spec in part.targets if part else ():
        if is_black_box(spec):
            raise lacks_gradients(spec)
        if not trust and (reason := trust_reason(spec)):
            raise TargetError(
                f"{folder}: it names the surrogate {spec}, {reason}, and a run may come from anyone; if you trust it, "
                "add --trust"
            )
    return [target(spec) for spec in part.targets] if part else []


def build_surrogates(
    recipe: Recipe, networks: Sequence[Target], attacked: Target, encoding: Encoding
) -> tuple[Recipe, Surrogates | None]:
    """Surrogates for the climbs of a recipe, None if it has none; and the recipe with the networks' canonical names."""
    part = recipe.search.surrogate
    if part is None:
        return recipe, None
    surrogates = Surrogates(networks, attacked, encoding, Climb(part.steps, part.band, part.rate))
    named = part.model_copy(update={"targets": tuple(network.name for network in networks)})
    search = recipe.search.model_copy(update={"surrogate": named})
    return recipe.model_copy(update={"search": search}), surrogates


def refuse_other_surrogates(ours: SurrogatesRecord | None, record: SurrogatesRecord | None, folder: Path | str) -> None:
    """TargetError for other surrogates than a run began with. record: of its file."""
    if (ours and len(ours.networks)) != (record and len(record.networks)):
        raise TargetError(f"{folder}: this run began with another number of surrogates; pass those that it began with")
    for network, known in zip(ours.networks if ours else (), record.networks if record else (), strict=True):
        if network.fingerprint != known.fingerprint:
            raise TargetError(
                f"{folder}: the surrogate {network.name} is not the one that this run began with, {known.name} (labels, "
                "preprocessing or weights differ)"
            )


def record_of(
    surrogates: Surrogates | None, strategy: MapElites | None = None, pending: Sequence[Order] = ()
) -> SurrogatesRecord | None:
    """What the file of a run keeps of its surrogates at a checkpoint of a search, or before it has begun.

    pending: the orders in progress.
    """
    if surrogates is None:
        return None
    children, passes = (strategy.climbed, strategy.passes) if strategy else (0, 0)
    return SurrogatesRecord(
        networks=[SurrogateRecord(name=n.name, fingerprint=n.fingerprint()) for n in surrogates.networks],
        children=children,
        forwards=passes,
        backwards=passes,
        climbs={str(order.batch): order.climbs.tolist() for order in pending if order.climbs is not None},
    )

"""The evaluators of a run, as its recipe says: in this process, or in workers."""

from math import ceil

from evofool.ascend.surrogates import Surrogates
from evofool.errors import TargetError
from evofool.recipe import Recipe
from evofool.run.unlike import build_unlike
from evofool.search.evaluate import BatchEvaluator, Evaluator, stays_on_device
from evofool.search.local_evaluator import LocalEvaluator
from evofool.targets import Target, refuse_workers
from genomes import Encoding


def make_batch_evaluator(
    recipe: Recipe, target: Target, encoding: Encoding, position: float, surrogates: Surrogates | None = None
) -> BatchEvaluator:
    """position: Position.tolerance; if logits depend on an image's place in a chunk, elites are scored again one by one."""
    niches, permits = recipe.niches, build_unlike(recipe, target)
    edges = niches.edges if niches else ()
    return BatchEvaluator(
        encoding,
        target,
        recipe.chunk,
        recipe.search.rank,
        recipe.search.competition,
        niches.descriptor if niches else None,
        edges,
        recipe.compute.format,
        resident=stays_on_device(target, edges, permits is not None),
        keep=recipe.search.keep,
        surrogates=surrogates,
        reference_batch=1 if position else 0,
        position=position,
        permits=permits,
    )


def out_of_memory(batch_evaluator: BatchEvaluator, evaluator: Evaluator) -> TargetError:
    """The error for a search whose images do not fit into memory."""
    return TargetError(
        f"{batch_evaluator.target.name}: the memory does not hold {batch_evaluator.chunk} images {evaluator.at_once} times "
        "at once; resume with --set compute.streams=1, or start another run with a smaller compute.chunk"
    )


def make_evaluator(recipe: Recipe, batch_evaluator: BatchEvaluator) -> Evaluator:
    """Evaluates orders with batch_evaluator, in compute.workers worker processes or in compute.streams threads."""
    search, compute, target = recipe.search, recipe.compute, batch_evaluator.target
    if compute.workers:
        for network in (target, *(batch_evaluator.surrogates.networks if batch_evaluator.surrogates else ())):
            refuse_workers(network)
        from evofool.cluster.evaluator import RayEvaluator
        from evofool.cluster.settings import RayOptions

        return RayEvaluator(
            batch_evaluator,
            RayOptions(**compute.ray.model_dump()),
            workers=compute.workers,
            seed=search.seed,
            batch=search.batch,
            torch_threads=compute.threads,
            in_order=search.mode == "reproducible",
            lag=search.lag,
        )
    at_once = (search.lag + 1) * ceil(search.batch / recipe.chunk)
    streams = min(compute.streams or target.streams, at_once)
    return LocalEvaluator(batch_evaluator, streams, compute.threads, compute.ray.quarantine)

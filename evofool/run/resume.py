"""Restores a search from a run's file: the lists of its cells, and the orders that were in progress."""

from collections.abc import Mapping, Sequence

import numpy as np

from evofool.errors import StoreError
from evofool.run.meta import RunMeta
from evofool.run.schema import EliteRow
from evofool.run.store import Store
from evofool.search.archive import Winners
from evofool.search.evaluate import Order
from evofool.search.evolve import MapElites
from genomes import Key


def restore(strategy: MapElites, store: Store, meta: RunMeta, rank: str) -> tuple[list[EliteRow], list[Order]]:
    """Fill a new strategy and its archive from a run's file. Returns the stored elites, and the orders in progress.

    The lists of cells come from cell_history and runners_up, because the table elites may be older. StoreError if the file
    contradicts itself.
    """
    strategy.committed = meta.committed
    strategy.last_progress = meta.last_progress
    strategy.wins, strategy.switches = store.counts()
    strategy.stored_genomes.steps = store.steps()
    if meta.surrogates:
        strategy.climbed, strategy.passes = meta.surrogates.children, meta.surrogates.forwards
    if meta.unlike:
        strategy.turned_away = np.array(meta.unlike.turned_away, np.int64)
    number = meta.seeds.number if meta.seeds else 0
    strategy.seed_with({}, meta.seeds.classes if meta.seeds else ())
    rows = _archive(strategy, store, meta.shown_changes, rank)
    orders = _orders(strategy, store, number, meta.surrogates.climbs if meta.surrogates else {})
    strategy.next_batch = strategy.committed + len(orders)
    strategy.seeds = store.seeds(range(strategy.next_batch * strategy.size, number))
    return rows, orders


def _archive(strategy: MapElites, store: Store, shown_changes: int, rank: str) -> list[EliteRow]:
    lists, rows = store.lists(rank), store.elites()
    early = {change.cell for change in store.cell_history()[:shown_changes]}
    if {row.cell for row in rows} != early:
        raise StoreError(f"{store.path} is damaged: the cells that have elites are not those of cell_history")
    if not len(lists.cells):
        return rows
    births, which = np.unique(lists.births, return_inverse=True)
    unknown = np.full(len(births), -1, np.int64)
    strategy.archive.add(
        Winners(
            births=births,
            mothers=unknown,
            fathers=unknown,
            genomes=store.unpacked(births.tolist(), strategy.encoding),
            cells=lists.cells,
            rows=which,
            scores=lists.margins if rank == "margin" else lists.log_odds,
            log_odds=lists.log_odds,
            margins=lists.margins,
        )
    )
    return rows


def _orders(strategy: MapElites, store: Store, seeds: int, climbs: Mapping[str, Sequence[int]]) -> list[Order]:
    orders, size = [], strategy.size
    for batch, mothers, fathers, incumbents, thresholds, drawn_after in store.pending():
        climbing = np.array(climbs[str(batch)], np.int64) if str(batch) in climbs else None
        if climbing is not None and len(climbing) != len(mothers):
            raise StoreError(f"{store.path} is damaged: meta.surrogates.climbs of batch {batch} has another length")
        own = range(batch * size, min((batch + 1) * size, seeds))
        parents = sorted({*own, *mothers.tolist(), *fathers.tolist()} - {-1})
        genomes = store.unpacked(parents, strategy.encoding)
        orders.append(
            Order(
                key=Key(strategy.seed, batch),
                first_birth=batch * size,
                size=size,
                thresholds=thresholds,
                incumbents=incumbents,
                mothers=mothers,
                fathers=fathers,
                parents={birth: genomes[i : i + 1] for i, birth in enumerate(parents)},
                claims=strategy.claims(batch),
                drawn_after=drawn_after,
                climbs=climbing,
            )
        )
    return orders

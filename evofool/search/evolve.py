"""MAP-Elites as a DEAP algorithm: a strategy with generate and update, a toolbox, Statistics and a Logbook.

DEAP's individual is a whole batch here (Batch), because one Python object for each image would cost more than the
classifier. This is the only file that imports deap.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from deap import base, tools

from evofool.printer import print_lines
from evofool.scores import confidence
from evofool.search.archive import Archive, Quarantined, Winners
from evofool.search.evaluate import BatchEvaluator, Evaluator, Order
from evofool.search.records import SURROGATE, CellChange, Commit, Offspring, RunnerUp
from evofool.search.stored_genomes import StoredGenomes
from genomes import Encoding, Key
from genomes.random import integers

# The streams of draws for a whole batch; rows have lower numbers.
_PARENTS, _COUPLES, _CLIMBS = 1 << 62, (1 << 62) + 1, (1 << 62) + 2


class LazyFitness(base.Fitness):
    """A batch's fitness: the number of places in cells' lists that it won, computed from its winners when it is read."""

    weights = (1.0,)

    def __init__(self) -> None:
        super().__init__()
        self.winners: Winners | None = None

    def getValues(self) -> tuple[float, ...]:
        return () if self.winners is None else (float(len(self.winners.cells)),)

    def setValues(self, values: Any) -> None:
        self.winners = values
        self.wvalues = self.getValues()

    def delValues(self) -> None:
        self.winners = None
        self.wvalues = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> "LazyFitness":
        copy = type(self)()
        if self.winners is not None:
            copy.values = self.winners
        return copy

    values = property(getValues, setValues, delValues, "Assigned a Winners; read as DEAP's tuple of numbers.")


@dataclass
class Batch:
    """DEAP's individual: one batch, from order to winners."""

    order: Order
    fitness: LazyFitness = field(default_factory=LazyFitness)
    row: Mapping[str, Any] = field(default_factory=dict)  # the metrics after this batch was committed

    def __len__(self) -> int:
        return self.order.size


class MapElites:
    """MAP-Elites over classes as a DEAP strategy: generate() makes batches, update(population) commits them.

    Parents are drawn for `batch` images at once, by a `tournament` of so many cells (Archive.sample); seed is the key of
    every draw. With competition "per-class" child i of a batch is made for one class, from parents of this class; the
    classes take turns. With an archive that keeps one genome a cell, mother and father are the elites of two cells; else
    they are of the list of one cell (Archive.couples). random: batches that begin before this birth have no parents.
    classes: the numbers, ascending, of the classes that are searched for; None: all. The cells of the others stay empty.
    """

    def __init__(
        self,
        archive: Archive,
        encoding: Encoding,
        *,
        seed: int,
        batch: int,
        competition: str = "all",
        tournament: int = 1,
        random: int = 0,
        classes: Sequence[int] | None = None,
    ) -> None:
        self.archive = archive
        self.encoding = encoding
        self.seed, self.size = seed, batch
        self.competition, self.tournament, self.random = competition, tournament, random
        self.classes = np.arange(archive.classes) if classes is None else np.array(classes, np.int64)
        self._closed = np.repeat(
            ~np.isin(np.arange(archive.classes), self.classes), archive.niches
        )  # these cells stay empty
        self.seeds: dict[int, bytes] = {}  # packed, by birth: those that are not yet in an order (seed_with)
        self.seed_classes = np.zeros(0, np.int64)
        self._share, self._after, self._costs = 0.0, 0, np.zeros(0, np.int64)  # use_surrogates
        self.climbed = self.passes = 0  # children that have climbed, and surrogates' forward passes for them
        self.next_batch = 0  # to be generated
        self.committed = 0  # batches in the archive
        self.last_progress = 0  # the last commit that brought a cell a new elite, counted from 0
        self.wins = 0  # elites that were replaced, by one of the batch at most; the first one of a cell does not count
        self.switches = 0  # of these, goal switches
        self.turned_away = np.zeros(archive.classes, np.int64)  # by class, images that a constraint kept from a place
        self.offspring: list[Offspring] = []  # since the last save
        self.stored_genomes = StoredGenomes(encoding)
        self.methods: dict[int, str] = {}  # by birth, what made those of them that variation did not make
        self.cell_history: list[CellChange] = []  # since the last save, as are the next three
        self.runners_up: list[RunnerUp] = []
        self.quarantined: list[Quarantined] = []
        self.commits: list[Commit] = []

    @property
    def evaluations(self) -> int:
        return self.committed * self.size

    def seed_with(self, packed: Mapping[int, bytes], classes: Sequence[int] = ()) -> None:
        """Begin the search with these genomes instead of random ones: packed, by their births 0, 1, ...

        Of a resumed search, packed has those that are not yet in an order. classes: with competition "per-class", the
        class that each seed competes in; if empty, the classes take turns, as with random genomes.
        """
        self.seeds = dict(packed)
        self.seed_classes = np.array(classes, np.int64)

    def use_surrogates(self, share: float, after: int, costs: np.ndarray) -> None:
        """Let this share of the children climb for the class that their mother was drawn for, from birth `after` on.

        costs: (K,) int64, forward passes of a climb for each class; for a class of 0 passes no child climbs.
        """
        self._share, self._after, self._costs = share, after, costs

    def generate(self) -> list[Batch]:
        """The next batch, as a population of one. The first batches are seeds or random."""
        return [Batch(self.order())]

    def order(self) -> Order:
        number, archive, n = self.next_batch, self.archive, self.size
        self.next_batch += 1
        claims = self.claims(number)
        return Order(
            key=Key(self.seed, number),
            first_birth=number * n,
            size=n,
            thresholds=np.where(self._closed, np.inf, archive.scores[:, -1]),
            incumbents=archive.births.copy(),
            claims=claims,
            drawn_after=self.committed,
            **self._parents(number, claims),
        )

    def claims(self, number: int) -> np.ndarray | None:
        """(size,) int64: the class that each child of a batch is made for; None if they compete in more than one class."""
        if self.competition != "per-class":
            return None
        births = number * self.size + np.arange(self.size)
        claims, seeds = self.classes[births % len(self.classes)], births < len(self.seed_classes)
        claims[seeds] = self.seed_classes[births[seeds]]
        return claims

    def _parents(self, number: int, claims: np.ndarray | None) -> dict[str, Any]:
        n, archive = self.size, self.archive
        seeds = [birth for birth in range(number * n, (number + 1) * n) if birth in self.seeds] if self.seeds else []
        early = number * n < self.random or not len(archive) or (claims is not None and not self._all_classes_filled())
        if seeds or early:
            none = np.full(n, -1, np.int64)
            genomes = self.encoding.unpack([self.seeds.pop(birth) for birth in seeds]) if seeds else ()
            parents = {birth: genomes[i : i + 1] for i, birth in enumerate(seeds)}
            return {"mothers": none, "fathers": none, "parents": parents}
        key = Key(self.seed, number, _PARENTS)
        if archive.keep == 1:
            twice = None if claims is None else np.concatenate([claims, claims])
            cells = archive.sample(2 * n, key, self.tournament, twice)
            mothers, fathers = archive.birth[cells].reshape(2, n)
        else:
            cells = archive.sample(n, key, self.tournament, claims)
            mothers, fathers = archive.couples(cells, Key(self.seed, number, _COUPLES))
        climbs = self._climbs(number, cells[:n] // archive.niches)
        varied = self.encoding.uses_second_parent(n, Key(self.seed, number))
        fathers = np.where(varied if climbs is None else varied & (climbs < 0), fathers, -1)
        needed = {*mothers.tolist(), *fathers.tolist()} - {-1}
        return {"mothers": mothers, "fathers": fathers, "parents": archive.of_births(needed), "climbs": climbs}

    def _climbs(self, number: int, classes: np.ndarray) -> np.ndarray | None:
        """Order.climbs of a batch whose mothers were drawn for these classes."""
        if not self._share or number * self.size < self._after:
            return None
        draws = integers(Key(self.seed, number, _CLIMBS), 1 << 53, self.size)
        return np.where((draws < self._share * (1 << 53)) & (self._costs[classes] > 0), classes, -1)

    def update(self, population: list[Batch]) -> None:
        """Commit batches, in this order, and record the descent of new elites."""
        for batch in population:
            if batch.fitness.winners is None:
                raise ValueError(f"batch {batch.order.batch} has not been evaluated")
            self._commit(batch.order, batch.fitness.winners)
            batch.row = LazyRow(self)

    def _commit(self, order: Order, winners: Winners) -> None:
        before = self.archive.birth[winners.cells]
        entered = self.archive.add(winners)
        self.commits.append(Commit(self.committed, order.batch, order.drawn_after))
        self.committed += 1
        self.quarantined += winners.quarantined
        if len(away := winners.turned_away.cells):
            self.turned_away += np.bincount(away // self.archive.niches, minlength=self.archive.classes)
        if order.climbs is not None:
            climbed = order.climbs[order.climbs >= 0]
            self.climbed, self.passes = self.climbed + len(climbed), self.passes + int(self._costs[climbed].sum())
        if not entered.any():
            return
        w = winners
        births = w.births[w.rows]
        best = entered & (self.archive.birth[w.cells] == births)
        if best.any():
            self.last_progress = self.committed - 1
        self.wins += int((before[best] >= 0).sum())
        rows = np.unique(w.rows[entered])
        for row in rows.tolist():
            self.offspring.append(self._offspring(order, w, row))
        self.methods |= dict.fromkeys(w.births[rows][order.climbed(w.births[rows])].tolist(), SURROGATE)
        for i in np.flatnonzero(entered).tolist():
            place = int(w.cells[i]), int(births[i]), order.batch, float(w.log_odds[i]), float(w.margins[i])
            if best[i]:
                switched = self._switched(order, place[0], int(w.mothers[w.rows[i]]), int(w.fathers[w.rows[i]]))
                self.cell_history.append(CellChange(*place, switched))
                self.switches += switched
            else:
                self.runners_up.append(RunnerUp(*place))

    @staticmethod
    def _switched(order: Order, cell: int, mother: int, father: int) -> bool:
        """Whether a new elite of a cell is a goal switch (CellChange)."""
        incumbents = order.incumbents[cell].tolist()
        own = mother in incumbents or (father >= 0 and father in incumbents)
        return bool(mother >= 0 and incumbents[0] >= 0 and not own)

    def _offspring(self, order: Order, w: Winners, row: int) -> Offspring:
        birth, mother, father = int(w.births[row]), int(w.mothers[row]), int(w.fathers[row])
        if order.climbed(w.births[row : row + 1]).all():  # its parents and its key do not make it again
            return Offspring(birth, order.batch, mother, father, self.encoding.pack(w.genomes[row]), 0)
        form = self.stored_genomes.form(birth, (mother, father), w.genomes[row : row + 1], order.parents)
        return Offspring(birth, order.batch, mother, father, *form)

    def _all_classes_filled(self) -> bool:
        return bool((self.archive.birth.reshape(self.archive.classes, -1)[self.classes] >= 0).any(axis=1).all())


class LazyRow(Mapping[str, Any]):
    """The archive's state after a commit, computed when it is first read: most batches get no row in the logbook."""

    def __init__(self, strategy: MapElites) -> None:
        self._strategy = strategy
        self._values: dict[str, Any] | None = None

    def _read(self) -> dict[str, Any]:
        if self._values is None:
            s = self._strategy
            p = np.asarray(confidence(s.archive.best()[s.classes]))
            self._values = {
                "confidence": p,
                "evaluations": s.evaluations,
                "distinct": s.archive.distinct(),
                "wins": s.wins,
                "switches": s.switches,
            }
        return self._values

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return dict(self._read())

    def __getitem__(self, key: str) -> Any:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


def statistics() -> tools.Statistics:
    """DEAP's Statistics over batches: the logbook's row of the archive after the last of them.

    median, q25, q75, min: of the best confidences of the classes searched for (a class without an elite counts as 0). at_99,
    at_9999: classes at >= 0.99 and >= 0.9999. distinct: different genomes among the elites. wins, switches: totals so far.
    """
    stats = tools.Statistics(key=lambda batch: batch.row)
    stats.register("evaluations", lambda rows: rows[-1]["evaluations"])
    for name, quantile in (("median", 0.5), ("q25", 0.25), ("q75", 0.75), ("min", 0.0)):
        stats.register(name, lambda rows, q=quantile: float(np.quantile(rows[-1]["confidence"], q)))
    for name, level in (("at_99", 0.99), ("at_9999", 0.9999)):
        stats.register(name, lambda rows, level=level: int((rows[-1]["confidence"] >= level).sum()))
    for name in ("distinct", "wins", "switches"):
        stats.register(name, lambda rows, name=name: int(rows[-1][name]))
    return stats


def row_of(strategy: MapElites) -> dict[str, Any]:
    """The logbook's row of the archive as it is now."""
    last = SimpleNamespace(row=LazyRow(strategy))
    return {"gen": strategy.committed - 1, "nevals": strategy.size, **statistics().compile([last])}


def new_logbook(stats: tools.Statistics | None = None) -> tools.Logbook:
    """An empty Logbook with DEAP's columns, then those of stats."""
    logbook = tools.Logbook()
    logbook.header = ["gen", "nevals", *(stats.fields if stats else [])]
    return logbook


def toolbox(strategy: MapElites, batch_evaluator: BatchEvaluator, evaluator: Evaluator) -> base.Toolbox:
    """generate, evaluate, update as DEAP's algorithms call them; the rest for ea_map_elites."""
    box = base.Toolbox()
    box.register("generate", strategy.generate)
    box.register("evaluate", lambda batch: batch_evaluator(batch.order))
    box.register("update", strategy.update)
    box.register("committed", lambda: strategy.committed)
    box.register("submit", evaluator.submit)
    box.register("results", evaluator.results)
    box.register("pending", evaluator.pending)
    box.register("orders_in_progress", lambda: evaluator.orders_in_progress)
    return box


@dataclass(frozen=True)
class Callbacks:
    """Called by ea_map_elites while it runs. gen: the number of a commit, counted from 0 over all calls."""

    record: Callable[[int], bool] = lambda gen: True
    """record(gen): whether this commit gets a row in the logbook."""
    after: Callable[[int], bool] = lambda gen: False
    """after(gen): called after the commit; true ends the search."""
    give_up: Callable[[], bool] = lambda: False
    """give_up(): called while results are awaited; true ends the search."""


def ea_map_elites(
    toolbox: base.Toolbox,
    ngen: int,
    stats: tools.Statistics | None = None,
    halloffame: Any = None,
    verbose: bool = False,
    *,
    lag: int = 0,
    logbook: tools.Logbook | None = None,
    callbacks: Callbacks = Callbacks(),
) -> tuple[list[Batch], tools.Logbook]:
    """MAP-Elites over the toolbox, for ngen more batches. DEAP's signature, and what a long run needs.

    lag: batch k draws its parents from the archive after batch k - 1 - lag, so lag + 1 orders are in progress. If
    toolbox.orders_in_progress() returns a number, so many are, and they are committed as they finish. Orders that are in
    progress at the end stay in toolbox.pending(), and a later call continues with them. logbook: an earlier one, to be
    continued. halloffame and verbose as in DEAP. Returns the last population and the logbook.
    """
    if logbook is None:
        logbook = new_logbook(stats)
    population: list[Batch] = []
    if ngen <= 0:
        return population, logbook

    def top_up() -> None:
        for _ in range((toolbox.orders_in_progress() or lag + 1) - len(toolbox.pending())):
            toolbox.submit(toolbox.generate()[0].order)

    top_up()
    for done, (order, winners) in enumerate(toolbox.results(callbacks.give_up), 1):
        batch = Batch(order)
        batch.fitness.values = winners
        population = [batch]
        toolbox.update(population)
        if halloffame is not None:
            halloffame.update(population)
        gen = toolbox.committed() - 1
        if callbacks.record(gen):
            logbook.record(gen=gen, nevals=len(batch), **(stats.compile(population) if stats else {}))
            if verbose:
                print_lines(*logbook.stream.expandtabs().split("\n"))
        if callbacks.after(gen) or done == ngen:
            break
        top_up()
    return population, logbook

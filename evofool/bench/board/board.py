"""The leaderboard: results in groups that compare, ranked by their headlines; as a page, a table and JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from evofool.bench.arms import arm_title
from evofool.bench.board.entry import (
    BoardEntry,
    DetectorRecord,
    HeadlineRecord,
    QueriesRecord,
    ShareRecord,
    invalid_reason,
    read_entry,
)
from evofool.bench.result_file import is_other_file, load_result
from evofool.errors import RecipeError

RESULTS = "results"  # the folder of a benchmark that has its results


class Places(NamedTuple):
    """The places that a row may have: first - 1 rows of its group are shown to be harder to fool, and as many as come after
    last are shown to be easier.
    """

    first: int
    last: int

    def __str__(self) -> str:
        """ "2", or "1-3" where no difference is shown."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True)
class BoardRow:
    """A ranked result. places: by the share of classes fooled; reached_places: by another figure, the share of real images
    that the best images reach, which can order networks otherwise.
    """

    file: str
    entry: BoardEntry
    headline: HeadlineRecord
    places: "Places"
    reached_places: "Places"

    @property
    def q50(self) -> tuple[str, QueriesRecord] | None:
        """The arm of the suite with the lowest Q50, and it; None if no arm has one."""
        found = [(arm, of.q50) for arm, of in self.entry.measured.items() if arm in self.headline.arms and of.q50]
        return min(found, key=lambda item: inf if item[1].value is None else item[1].value, default=None)

    @property
    def detector(self) -> DetectorRecord | None:
        """Of the detectors the one that lets most through: behind which most classes are fooled, by elites that were evolved
        against both. The interval of the best of several would have to allow for the choice.
        """
        found = [row for row in self.entry.scores.detectors if row.kind == "adaptive" and row.through]
        return max(found, key=lambda row: row.through.joint.value if row.through else -inf, default=None)

    @property
    def attacks(self) -> list[str]:
        """The suite's attacks that were measured."""
        return [arm_title(arm, self.entry.scores.arms[arm].model_dump()) for arm in self.headline.arms]


@dataclass(frozen=True)
class BoardGroup:
    """Results that compare, by places. None of two groups compare."""

    rows: tuple[BoardRow, ...]

    @property
    def decided(self) -> bool:
        """Whether a difference of the share fooled is shown between any two rows."""
        return any(row.places != (1, len(self.rows)) for row in self.rows)


@dataclass(frozen=True)
class Unranked:
    """A result without a place. name: of its target; reason: why."""

    file: str
    name: str
    reason: str


@dataclass(frozen=True)
class Board:
    """The groups with most rows first; and the results that have no place."""

    groups: tuple[BoardGroup, ...]
    unranked: tuple[Unranked, ...]


def result_files(paths: Sequence[Path]) -> list[Path]:
    """The files of results: of a folder those in its folder "results", or in itself. RecipeError for one without any.

    Of a folder, JSON files of another schema are left out, such as the summary of a benchmark.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        folder = path / RESULTS if (path / RESULTS).is_dir() else path
        files = [file for file in sorted(folder.glob("*.json")) if not is_other_file(file)]
        if not files:
            raise RecipeError(f"{folder} has no result (TARGET.json); name files, or folders of evofool bench")
        found += files
    return list(dict.fromkeys(found))


def make_board(files: Sequence[Path]) -> Board:
    """The board of result files. StoreError or RecipeError, with the file's name, for a file that is no result of this
    protocol, and for two results of the same network under the same protocol and seeds.
    """
    return rank_results({str(file): load_result(file) for file in files})


def rank_results(results: Mapping[str, Mapping[str, Any]]) -> Board:
    """The board of results by the names of their files; the JSON of each is of this schema and version."""
    groups: dict[str, dict[tuple[Any, ...], tuple[str, BoardEntry, HeadlineRecord]]] = {}
    unranked = []
    for file, data in results.items():
        if reason := invalid_reason(data):
            target = data.get("target")
            name = str(target.get("name")) if isinstance(target, Mapping) else "?"
            unranked.append(Unranked(file, name, f"invalid: {reason}"))
            continue
        entry = read_entry(data, file)
        if entry.scores.headline is None:
            reason = "no headline: an earlier evofool wrote it, or no attack of the suite was measured with enough queries"
            unranked.append(Unranked(file, entry.target.name, reason))
            continue
        headline = entry.scores.headline
        same = groups.setdefault(entry.compares_by(), {})
        key = entry.target.fingerprint, headline.seeds, entry.protocol.evofool
        if key in same:
            raise RecipeError(
                f"{same[key][0]} and {file} are results of the same network, protocol and seeds; name one of them"
            )
        same[key] = file, entry, headline
    ranked = [BoardGroup(_ranked(list(rows.values()))) for rows in groups.values()]
    return Board(tuple(sorted(ranked, key=lambda group: -len(group.rows))), tuple(unranked))


def _ranked(found: Sequence[tuple[str, BoardEntry, HeadlineRecord]]) -> tuple[BoardRow, ...]:
    """Rows by the share of classes fooled, the lowest first; of equal ones the one that takes most queries, then by names.

    The report of a benchmark orders by these queries, and the reference rows by both, too.
    """
    places = _places([headline for _, _, headline in found])
    reached = _places([headline.reached for _, _, headline in found])
    rows = [BoardRow(*result, *of) for *of, result in zip(places, reached, found, strict=True)]

    def order(row: BoardRow) -> tuple[float, float, str]:
        queries = row.headline.queries
        return row.headline.value, -queries.value if queries else inf, row.entry.target.name

    return tuple(sorted(rows, key=order))


def _places(shares: Sequence[ShareRecord | None]) -> list[Places]:
    """By row, its places by a share of which a lower one is harder to fool.

    A difference is shown where two intervals do not overlap. Without limits, as from a single seed, nothing is shown.
    """
    limits = [
        (
            -inf if share is None or share.low is None else share.low,
            inf if share is None or share.high is None else share.high,
        )
        for share in shares
    ]
    return [
        Places(1 + sum(other < low for _, other in limits), len(limits) - sum(other > high for other, _ in limits))
        for low, high in limits
    ]

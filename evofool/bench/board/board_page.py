"""The board as a page, and as rows of CSV or JSON."""

from collections.abc import Sequence
from typing import Any

from evofool.bench.board.board import Board, BoardGroup, BoardRow
from evofool.bench.interval import Interval, format_queries
from evofool.bench.report.formatting import counted, format_share, join_names
from evofool.pages.html_page import NOTHING
from evofool.pages.sortable_page import SortableCell, SortableTable, sortable_page
from evofool.text import shortened

_MOST = 60  # characters of a name
_HASH = 12  # digits of a hash
_HEADS = (
    "classifier", "rank", "defence", "fooled", "reached", "queries a class", "Q50", "through a detector", "transfer",
    "top-1", "seeds", "protocol", "hashes",
)  # fmt: skip


def board_page(board: Board, title: str = "How easily classifiers are fooled") -> str:
    """The page as HTML text: a table for each group of results that compare, and one of those without a place."""
    number = sum(len(group.rows) for group in board.groups)
    lead = (
        f"{counted(number, 'result')}, the hardest to fool first. Fooled: the share of classes for which at least one "
        "attack of the suite found an image that is accepted at the threshold that keeps 95% of real images. The figures "
        "are those of the files; nothing was measured again."
    )
    tables = [_group(group) for group in board.groups]
    if board.unranked:
        rows = [
            [SortableCell(_name(one.name), key=one.name), SortableCell(shortened(one.reason, 300), key=one.reason)]
            for one in board.unranked
        ]
        tables.append(SortableTable("Without a rank", ["classifier", "reason"], rows))
    return sortable_page(title, lead, tables, _NOTES)


_NOTES = (
    "Rank: the places that a row may have. A difference between two rows is shown only where their intervals do not "
    "overlap; 1-3 is first, second or third. A single seed has no interval, so that nothing is shown. Rows with the same "
    "share fooled are in the order of their queries a class, the most first.",
    "Only rows of one table are ranked, and no two tables compare. Other real images give other thresholds, another "
    "suite or budget is another attack, and with other classes the share is of something else. So a table has results "
    "of the same files of real images, scored classes, attacks with their settings, budget, acceptance scores, answers "
    "to an image (average=, views=, through=) and version of the protocol.",
    "Reached: the mean over classes of the share of real images that are accepted no more clearly than the best image "
    "of any attack. It still differs where all classes are fooled. It has ranks of its own, which can disagree with the "
    "rank and with the queries: a network may be fooled late, and then by images of which it is very sure. Queries a "
    "class: the geometric mean over classes of the queries until a class is fooled, where a class that is not fooled "
    "counts as the most queries. Q50: the queries, over all classes, until the fastest attack of the suite has fooled half "
    "of the classes; > means not within the budget.",
    "Through a detector: the share of classes fooled through classifier and detector together, by images evolved "
    "against both, at thresholds that together keep 95% of real images; of several detectors the one that lets most "
    "through, by name. Transfer: the median over other networks of the share of their fooling images that this one "
    "accepts; it depends on which networks these are, and is not ranked.",
    "Hashes: the start of the SHA-256 of weights, labels and preprocessing, and of the real images.",
)


def _group(group: BoardGroup) -> SortableTable:
    first = group.rows[0]
    headline, images = first.headline, first.entry.images
    title = f"{_name(images.source)}, {headline.classes:,} classes: {join_names(first.attacks)}"
    text = [
        f"Within {headline.queries_per_class:,} queries a class by each attack, of the "
        f"{headline.attack_queries_per_class:,.0f} a class that it had. {counted(images.number, 'real image')} set and "
        "control the thresholds."
    ]
    if len(group.rows) > 1 and not group.decided:
        text.append("No difference of the share fooled is shown between any two of these rows.")
    versions = sorted({row.entry.protocol.evofool for row in group.rows})
    if len(versions) > 1:
        listed = join_names([_name(version) for version in versions])
        text.append(f"These results are of evofool {listed}; CHANGELOG.md lists what moved results.")
    rows = [_cells(row, place) for place, row in enumerate(group.rows)]
    return SortableTable(title, [*_HEADS], rows, text, sorted_by=_HEADS.index("fooled"))


def _cells(row: BoardRow, place: int) -> list[SortableCell]:
    entry, headline = row.entry, row.headline
    target, images = entry.target, entry.images
    defence = target.defence or target.group
    fooled, limits = Interval(headline.value, headline.low, headline.high).text(format_share)
    suspected = "suspected training images" if images.suspected_training else ""
    content = images.content_sha256 or images.sha256
    return [
        SortableCell(_name(target.name), "" if target.spec == target.name else _name(target.spec), target.name),
        # Of equal first places the rows keep their order.
        SortableCell(str(row.places), key=row.places.first + place / 1e6),
        SortableCell(_name(defence) or NOTHING, key=defence or None),
        SortableCell(fooled, f"{limits} by {_name(headline.score)}".strip(), headline.value),
        _reached(row),
        _queries(row),
        _q50(row),
        _detector(row),
        _transfer(row),
        SortableCell(format_share(images.top1), suspected, images.top1),
        SortableCell(str(len(headline.seeds)), key=float(len(headline.seeds))),
        SortableCell(f"version {entry.version}", f"evofool {_name(entry.protocol.evofool)}", entry.protocol.evofool),
        SortableCell(target.fingerprint[:_HASH], f"images {content[:_HASH]}", target.fingerprint),
    ]


def _reached(row: BoardRow) -> SortableCell:
    found = row.headline.reached
    if found is None:
        return SortableCell()
    text, limits = Interval(found.value, found.low, found.high).text(format_share)
    return SortableCell(text, f"{limits} rank by reached {row.reached_places}".strip(), found.value)


def _queries(row: BoardRow) -> SortableCell:
    found = row.headline.queries
    if found is None:
        return SortableCell()
    text, limits = Interval(found.value, found.low, found.high).text(format_queries)
    return SortableCell(text, limits, found.value)


def _q50(row: BoardRow) -> SortableCell:
    if row.q50 is None:
        return SortableCell()
    arm, q50 = row.q50
    budget = row.headline.attack_queries_per_class * row.headline.classes
    text, limits = Interval.from_row(q50.model_dump()).text(format_queries, budget)
    return SortableCell(text, f"{limits} {_name(arm)}".strip(), budget * 10 if q50.value is None else q50.value)


def _detector(row: BoardRow) -> SortableCell:
    found = row.detector
    if found is None or found.through is None:
        return SortableCell()
    joint = found.through.joint
    text, limits = Interval(joint.value, joint.low, joint.high).text(format_share)
    doubt = "" if joint.real.met else f", keeps {format_share(joint.real.kept)} of real images"
    return SortableCell(text, f"{limits} {_name(found.detector)}{doubt}".strip(), joint.value)


def _transfer(row: BoardRow) -> SortableCell:
    found = row.entry.scores.transfer
    if found is None or found.median is None:
        return SortableCell()
    faint = f"of {counted(found.networks, 'network')}, {_name(found.arm)}"
    return SortableCell(format_share(found.median), faint, found.median)


def _name(text: str) -> str:
    return shortened(text, _MOST)


# --- CSV and JSON

_BOUNDS = {"=": "exact", ">=": "at least", "<=": "at most"}
COLUMNS = (
    "group", "rank_first", "rank_last", "reached_rank_first", "reached_rank_last", "classifier", "spec", "defence",
    "fooled", "fooled_low", "fooled_high", "score", "reached", "reached_low", "reached_high", "queries", "queries_low",
    "queries_high", "classes", "queries_per_class", "attacks", "q50", "q50_bound", "q50_low", "q50_high", "q50_arm",
    "detector", "through_detector", "through_detector_low", "through_detector_high", "transfer_median",
    "transfer_networks", "top1", "suspected_training", "seeds", "protocol", "evofool", "weights", "images", "file",
)  # fmt: skip


def board_rows(board: Board) -> list[dict[str, Any]]:
    """A row of COLUMNS for each ranked result. group: from 1; ranks hold within it."""
    return [_row(number, row) for number, group in enumerate(board.groups, 1) for row in group.rows]


def board_json(board: Board) -> dict[str, Any]:
    """rows: those of board_rows; unranked: file, classifier and reason of each result without a rank."""
    unranked = [{"file": one.file, "classifier": one.name, "reason": one.reason} for one in board.unranked]
    return {"schema": "evofool.board", "version": 1, "rows": board_rows(board), "unranked": unranked}


def _row(number: int, row: BoardRow) -> dict[str, Any]:
    entry, headline = row.entry, row.headline
    target, images = entry.target, entry.images
    arm, q50 = row.q50 or (None, None)
    second, taken = headline.reached, headline.queries
    found = row.detector
    joint = found.through.joint if found and found.through else None
    transfer = entry.scores.transfer
    values: Sequence[Any] = (
        number, *row.places, *row.reached_places, target.name, target.spec, target.defence or target.group,
        headline.value, headline.low, headline.high, headline.score,
        second and second.value, second and second.low, second and second.high,
        taken and taken.value, taken and taken.low, taken and taken.high, headline.classes, headline.queries_per_class,
        " ".join(row.attacks), q50 and q50.value, q50 and _BOUNDS.get(q50.bound, "unknown"), q50 and q50.low,
        q50 and q50.high, arm,
        found and found.detector, joint and joint.value, joint and joint.low, joint and joint.high,
        transfer and transfer.median, transfer and transfer.networks, images.top1, images.suspected_training,
        len(headline.seeds), entry.version, entry.protocol.evofool, target.fingerprint,
        images.content_sha256 or images.sha256, row.file,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))

"""The first sections of a target's page: its headline, its images, and the attacks."""

from collections.abc import Mapping, Sequence
from typing import Any

from evofool.bench.arms import arm_title
from evofool.bench.headline import headline_sentences
from evofool.bench.reference import reference_note, reference_rows
from evofool.bench.report.formatting import counted, join_names, queries_cell, selection_note, share_cell
from evofool.bench.report.likeness import likeness_section, looked_sentence
from evofool.bench.report.overview import (
    arm_figures,
    brackets_note,
    budget_of,
    by_kind,
    invalid_reason,
    strongest,
    valid_arms,
)
from evofool.bench.report.places import (
    CLASSES,
    PLACE_NOTE,
    QUERIES,
    Figures,
    by_basis,
    by_queries,
    listed,
    no_difference,
    places,
    tied_first,
    with_shares,
)
from evofool.pages.bench_plots import share_curves
from evofool.pages.html_page import NOTHING, Folded, KeyFigure, Picture, Plot, Section, Table, TableCell, TableRow

_WORDS = {
    "direct": "evolved pixels",
    "cppn": "evolved patterns (CPPNs)",
    "canvas": "evolved small pictures",
    "per-class": "evolved patterns, each class by itself",
    "random": "random images, the best kept",
    "square": "Square attack",
    "nes": "evolution strategy",
    "surrogate": "gradients of other networks",
    "apgd": "gradients (Auto-PGD)",
    "fourier": "gradients, in Fourier space",
    "noise": "one image a class, no search",
}
_NEEDS = {
    "search": "outputs",
    "black": "outputs",
    "surrogate": "outputs, other networks",
    "white": "gradients",
    "floor": NOTHING,
}


def target_head(result: Mapping[str, Any]) -> Section:
    """What is directly under the title of a target's page: the headline, its main figures, and who looked at the images."""
    if not result["valid"]:
        fault = f"The evaluation of {result['target']['name']} is invalid: {invalid_reason(result)}."
        return Section("", ["No figure of this report includes this target."], fault=fault)
    warnings = sum(flag["level"] == "warning" for flag in result["flags"])
    left_out = [flag["message"] for flag in result["flags"] if flag["level"] == "invalid"]
    lead, *more = headline_sentences(result)
    return Section(
        "",
        [*([" ".join(more)] if more else []), looked_sentence([result])],
        tables=_scale(result),
        fault="\n".join(f"Invalid: {message.rstrip('.')}." for message in left_out),
        cautions=[f"{counted(warnings, 'warning')}: see Warnings."] if warnings else [],
        lead=lead,
        figures=_key_figures(result),
    )


def _scale(result: Mapping[str, Any]) -> list[Table]:
    """The headline beside those of known networks, by the same protocol; none where there are no such results."""
    known = reference_rows(result)
    if not known:
        return []
    rows: list[TableRow] = []
    for row, faint in ((result, "this target"), *((row, "") for row in known)):
        headline = row["scores"]["headline"]
        cells = share_cell(headline), queries_cell(headline["queries"], headline["queries_per_class"])
        rows.append([TableCell(row["target"]["name"], faint), *cells, share_cell(headline.get("reached"))])
    heads = ["for scale", "classes fooled", "queries until a class is fooled", "real images reached"]
    headline = known[0]["scores"]["headline"]
    queries, arms = headline["queries_per_class"], join_names(headline["arms"])
    under = (
        f"Within {queries:,} queries a class by each of {arms}; a class that is not fooled counts as {queries:,}. "
        "Real images reached: those that are rated no higher than the best image of a class. The other rows are results "
        f"that come with evofool. {reference_note(result)}"
    )
    return [Table(heads, rows, under=under)]


def _key_figures(result: Mapping[str, Any]) -> list[KeyFigure]:
    budget, scored = budget_of(result), result["target"]["scored_classes"]
    found = []
    if headline := result["scores"].get("headline"):
        cell = queries_cell(headline["queries"], headline["queries_per_class"])
        text = (
            "queries until a class is fooled by the suite (geometric mean; a class that is not fooled counts as "
            f"{headline['queries_per_class']:,})"
        )
        found.append(KeyFigure(cell.text, cell.faint, text))
        if reached := headline.get("reached"):
            cell = share_cell(reached)
            text = "of the real images are rated no higher than the best image of a class"
            found.append(KeyFigure(cell.text, cell.faint, text))
    best, black = strongest(result, black_box=False), strongest(result, black_box=True)
    for arm, words in ((best, "by the strongest attack"), (black, "by the strongest attack that needs no gradients")):
        # With a headline, only what it does not have: how many queries it takes without gradients.
        if arm is None or (arm != black and headline) or (arm == best and arm == black and words.endswith("gradients")):
            continue
        cell = queries_cell(result["scores"]["arms"][arm]["q50"], budget, scored)
        title = arm_title(arm, result["scores"]["arms"][arm])
        text = f"queries a class until half of the classes are fooled {words}, {title}"
        found.append(KeyFigure(cell.text, cell.faint, text))
    for floor in valid_arms(result).values():
        if floor["kind"] == "floor" and floor["r95"]:
            cell = share_cell(max(floor["r95"], key=lambda row: row["queries"]))
            found.append(KeyFigure(cell.text, cell.faint, "of the classes are fooled by noise, without any search"))
    return found


def meaning_section(names: Sequence[str]) -> Section:
    """What the figures mean, in words."""
    it = names[0] if len(names) == 1 else "the classifier"
    text = [
        f"A class is fooled when an attack has made an image that {it} assigns to this class, as surely as a real image: a "
        "filter set to let 95 of 100 real images through lets this image through as well.",
        "A query is one image that the classifier answers. Fewer queries, or more classes within the same queries, mean a "
        "classifier that is easier to fool.",
        "The figures are about images made to fool. They do not say that real images are misclassified, and another attack "
        "may reach more classes.",
    ]
    return Section("What this means", text)


def target_images_section(
    result: Mapping[str, Any], arm: str, shown: Sequence[Picture], others: Sequence[Picture]
) -> Section:
    """The images that an arm has found, and of the other arms contact sheets."""
    name, budget = result["target"]["name"], budget_of(result)
    which = selection_note(result)
    text = [
        f"For each class the best image that {arm} has found within {budget:,} queries over all classes (one seed): its "
        f"class, and how confident {name} is.{_accepted_note(result, arm)}{f' Shown are {which}.' if which else ''}"
    ]
    folded = [Folded(f"Images of {join_names([picture.title for picture in others])}", others)] if others else []
    return Section(f"Images made to fool {name}", text, pictures=shown, folded=folded, parts=[likeness_section(result)])


def _accepted_note(result: Mapping[str, Any], arm: str) -> str:
    """How many of the images of an arm's first seed fool the target, after a space; "" where it is not known."""
    by_seed = result["scores"]["arms"].get(arm, {}).get("accepted_at") or {}
    accepted: list[int | None] = next(iter(by_seed.values()), [])
    number = sum(at is not None for at in accepted)
    return f" {number:,} of {len(accepted):,} classes are fooled in this seed." if accepted else ""


def attacks_section(result: Mapping[str, Any]) -> Section:
    """The attacks, the strongest first, with the places that their intervals allow."""
    arms, budget = valid_arms(result), budget_of(result)
    scored = result["target"]["scored_classes"]
    if not arms:
        return Section("The attacks", tables=[_accepted(result)])
    curves = {arm_title(name, arm): _curve(arm) for name, arm in arms.items()}
    drawn = Plot(
        "Share of classes fooled, against queries",
        share_curves(curves, result["protocol"]["budgets"]),
        f"Fooled at 95% acceptance. Bands: intervals, for arms with {_BAND} seeds or more.",
    )
    figures = {name: arm_figures(result, name) for name, arm in arms.items() if arm["kind"] != "floor"}
    found, rows = places(figures), []
    for name in [*by_queries(figures), *(name for name in arms if name not in figures)]:
        arm = arms[name]
        rows.append(
            [
                TableCell(arm_title(name, arm), _WORDS.get(name, "")),
                _NEEDS.get(arm["kind"], arm["kind"]),
                share_cell(max(arm["r95"], key=lambda row: row["queries"], default=None)),
                queries_cell(arm["q50"], budget, scored) if name in figures else NOTHING,
                str(found[name]) if name in figures else NOTHING,
            ]
        )
    heads = [
        "attack", "needs", f"classes fooled, {budget:,} queries over all", "queries a class until half are fooled", "place",
    ]  # fmt: skip
    under = f"Noise is no attack and has no place. {PLACE_NOTE} {brackets_note([result])}"
    whole = Folded("Every budget, also at the stricter acceptance of 50%", tables=[_accepted(result)])
    table, curve_part = Table(heads, rows, under=under), Section("With more queries", plots=[drawn])
    return Section("The attacks", tables=[table], folded=[whole], parts=[curve_part], lead=_attacks_lead(figures, budget))


def _attacks_lead(figures: Mapping[str, Figures], budget: int) -> str:
    """Which attack is the strongest, if that is shown, and by which figure."""
    if len(figures) < 2:
        return ""
    none = all(row.queries["value"] is None for row in figures.values())
    lead = "No attack fools half of the classes within the budget." if none else ""
    first = tied_first(figures)
    if len(first) > 1:
        return lead or no_difference(figures, first)
    weaker = by_basis(figures, first[0])
    decided = {first[0], *(name for names in weaker.values() for name in names)}
    undecided = [name for name in by_queries(figures) if name not in decided]
    if set(weaker) == {QUERIES} and not undecided:
        return f"{first[0]} needs the fewest queries; its interval overlaps no other."
    said = [f"needs fewer queries than {listed(weaker[QUERIES])}"] if QUERIES in weaker else []
    if CLASSES in weaker:
        said.append(
            f"fools more classes within {budget:,} queries over all ({figures[first[0]].share}) than "
            f"{with_shares(figures, weaker[CLASSES])}, whose intervals of queries cannot be compared with its own"
        )
    rest = f"; between it and {listed(undecided)} no difference is shown" if undecided else ""
    return f"{lead} {first[0]} {', and '.join(said)}{rest}.".strip() if said else lead


def warnings_section(result: Mapping[str, Any]) -> Section | None:
    """What is suspicious about the result."""
    messages = [flag["message"] for flag in result["flags"] if flag["level"] == "warning"]
    if not messages:
        return None
    return Section("Warnings", cautions=[f"Warning: {message.rstrip('.')}." for message in messages])


_BAND = 3  # seeds; with fewer the band of an interval would fill the plot


def _curve(arm: Mapping[str, Any]) -> dict[str, Any]:
    curve = arm["curve"]
    return {key: curve[key] for key in ("queries", "value", *(("low", "high") if len(arm["seeds"]) >= _BAND else ()))}


def _accepted(result: Mapping[str, Any]) -> Table:
    budget, scored = budget_of(result), result["target"]["scored_classes"]
    budgets = sorted(result["protocol"]["budgets"])

    def row(name: str, arm: Mapping[str, Any]) -> TableRow:
        if not arm["seeds"]:
            return [name, TableCell("; ".join(dict.fromkeys(arm["invalid"].values())), mark="invalid")]
        at = [{entry["queries"]: entry for entry in arm[level]} for level in ("r95", "r50")]
        shares = [share_cell(by.get(b)) for by in at for b in budgets]
        n, gone = len(arm["seeds"]), arm.get("invalid") or {}
        seeds = TableCell(f"{n} of {n + len(gone)}", f"without {', '.join(gone)}") if gone else str(n)
        return [name, seeds, queries_cell(arm["q50"], budget), queries_cell(arm["q50"], budget, scored), *shares]

    levels = ("95%", "50%")
    heads = ["arm", "seeds", "Q50", "Q50 per class"]
    heads += [f"fooled at {level} acceptance, {b:,} queries" for level in levels for b in budgets]
    return Table(heads, groups=by_kind(result, row))

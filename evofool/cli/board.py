"""The command `evofool bench board`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from evofool.cli.options import AsJson
from evofool.printer import print_json, print_lines

RESULTS = typer.Argument(
    metavar="RESULT...", help="Results of evofool bench: TARGET.json, or a benchmark's folder for all of its results."
)
OUT = typer.Option(
    metavar="FILE", help="The page; board.html by default. With --json no page is written unless this is given."
)
CSV = typer.Option("--csv", metavar="FILE", help="Also write the rows as CSV, with numbers that are not rounded.")
COPIES = typer.Option(
    metavar="DIR",
    help="Also write a copy of each ranked result without curves and image metrics, small enough to be committed.",
)


def board(
    results: Annotated[list[Path], RESULTS],
    out: Annotated[Path | None, OUT] = None,
    csv: Annotated[Path | None, CSV] = None,
    copies: Annotated[Path | None, COPIES] = None,
    as_json: AsJson = False,
) -> None:
    """Write a leaderboard of results as one page, sorted and filterable: which classifiers are hardest to fool?

    Results are ranked by their headline, the share of classes fooled by at least one attack of the suite, and only among
    results that compare: the same real images, scored classes, attacks, budget, answers to an image and version of the
    protocol. Each row has the places that its interval allows, such as 1-3.
    """
    from evofool.bench.board.board import make_board, result_files
    from evofool.bench.board.board_page import COLUMNS, board_json, board_page, board_rows
    from evofool.csv_file import write_csv
    from evofool.json_file import write_json
    from evofool.whole_file import write_whole

    files = result_files(results)
    found = make_board(files)
    copied = (
        [] if copies is None else _copied([Path(row.file) for group in found.groups for row in group.rows], files, copies)
    )
    page = out or (None if as_json else Path("board.html"))
    if page is not None:
        write_whole(page, board_page(found))
    if csv is not None:
        write_csv(csv, COLUMNS, board_rows(found))
    for copy, data in copied:
        write_json(copy, data)
    if as_json:
        print_json(board_json(found))
        return
    for group in found.groups:
        print_lines(f"{group.rows[0].headline.classes:,} classes of {group.rows[0].entry.images.source}:")
        print_lines(
            *(f"  {row.places!s:<7}{row.headline.value:.3f} fooled  {row.entry.target.name}" for row in group.rows),
        )
    print_lines(*(f"No rank: {one.name}: {one.reason}" for one in found.unranked))
    print_lines(*(f"{kind} {file}" for kind, file in (("Page:  ", page), ("Table: ", csv), ("Copies:", copies)) if file))


def _copied(ranked: list[Path], sources: list[Path], folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The small copies of ranked results, and where they go. RecipeError if two, or a copy and any source, are one file."""
    from evofool.bench.result_file import load_result, small_copy
    from evofool.errors import RecipeError

    names = [file.name for file in ranked]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"--copies {folder}: several results are called {twice[0]}; rename their files")
    for copy in (folder / name for name in names):
        if copy.exists() and any(copy.samefile(source) for source in sources):
            raise RecipeError(
                f"--copies {folder}: {copy} is a result itself, which its copy would replace; name another folder"
            )
    return [(folder / file.name, small_copy(load_result(file))) for file in ranked]

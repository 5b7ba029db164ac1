"""The command `evofool bench board`."""

from pathlib import Path
from typing import Annotated

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
    results that compare: the same real images, scored classes, attacks, budget and version of the protocol. Each row has the
    places that its interval allows, such as 1-3.
    """
    from evofool.bench.board.board import make_board, result_files
    from evofool.bench.board.board_page import COLUMNS, board_json, board_page, board_rows
    from evofool.cli.console import write
    from evofool.export.csv_file import write_csv

    found = make_board(result_files(results))
    page = out or (None if as_json else Path("board.html"))
    if page is not None:
        html = board_page(found)
        write(page, lambda: page.write_text(html, encoding="utf-8"))
    if csv is not None:
        write(csv, lambda: write_csv(csv, COLUMNS, board_rows(found)))
    if copies is not None:
        _write_copies([Path(row.file) for group in found.groups for row in group.rows], copies)
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


def _write_copies(files: list[Path], folder: Path) -> None:
    from evofool.bench.result_file import load_result, small_copy
    from evofool.errors import RecipeError
    from evofool.json_file import write_json

    names = [file.name for file in files]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"--copies {folder}: several results are called {twice[0]}; rename their files")
    for file in files:
        write_json(folder / file.name, small_copy(load_result(file)))

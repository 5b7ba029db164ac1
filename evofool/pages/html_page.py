"""A page as one HTML file with its plots, style and pictures, of which some may be files beside it. It runs no script."""

import base64
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from urllib.parse import quote

from evofool.pages.stylesheet import STYLE
from evofool.pages.svg import prefixed
from evofool.text import escaped

_FILES = "evofool-pictures"  # the meta tag with the names of the pictures written beside the page
_POLICY = "img-src data: 'self'; style-src 'unsafe-inline'"
_BEGINNING = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
"""
_UNFINISHED = '<meta name="evofool-unfinished" content="yes">\n'
_THUMB = 112  # pixels; pictures of at most this side stand closer
_DENSE = 8  # columns; in wider tables a cell's lighter text is below the other
NOTHING = "\u2013"  # in a cell without a value; counts as a number when a column is aligned
_MARKS = {"met": "good", "not met": "fault", "invalid": "fault", "undecided": "caution"}


@dataclass(frozen=True)
class Link:
    """A link to another page of the same folder. path: relative, with / between its parts, not yet quoted."""

    text: str
    path: str


@dataclass(frozen=True)
class Picture:
    """A PNG's bytes, its title and its caption (plain text).

    side: pixels; a smaller picture is enlarged by a whole factor, up to this size. width: pixels; unless 0, every picture is
    shown this wide. path: of the file with these bytes, relative to the page as in Link, which is then shown instead of a
    copy within the page.
    """

    title: str
    png: bytes
    caption: str = ""
    side: int = 224
    path: str = ""
    width: int = 0


@dataclass(frozen=True)
class Plot:
    """A figure over the page's width: an SVG from pages.svg, which is inserted unescaped, or a PNG's bytes."""

    title: str
    drawn: str | bytes
    caption: str = ""


@dataclass(frozen=True)
class TableCell:
    """A cell of a table. faint: lighter text behind or below. mark: met, not met, invalid or undecided, shown before it.

    path: of the page that the text links to, as in Link.
    """

    text: str = ""
    faint: str = ""
    mark: str = ""
    path: str = ""


TableRow = Sequence[str | TableCell]


@dataclass(frozen=True)
class RowGroup:
    """Rows of a table under a common title."""

    title: str
    rows: Sequence[TableRow]


@dataclass(frozen=True)
class Table:
    """Rows of plain text under heads; columns that hold only numbers are aligned to the right.

    A row may have fewer cells than there are heads; its last cell then spans the rest. groups: further rows, under titles.
    under: a note below the table.
    """

    heads: Sequence[str]
    rows: Sequence[TableRow] = ()
    caption: str = ""
    groups: Sequence[RowGroup] = ()
    under: str = ""


@dataclass(frozen=True)
class Folded:
    """Pictures, plots and tables that are shown when the summary is clicked."""

    summary: str
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()


@dataclass(frozen=True)
class KeyFigure:
    """A figure in large type. faint: its interval; text: what it is."""

    figure: str
    faint: str
    text: str


@dataclass(frozen=True)
class Section:
    """A part of a page. lead: its result, in larger type; text: paragraphs; source: papers; fault: failures and missing
    parts, one a line, shown first, before the cautions; parts: subsections, at the end; figures: shown after the lead;
    closed: whether all but the title is hidden until it is clicked (not of the first section, or of a subsection).
    """

    title: str
    text: Sequence[str] = ()
    source: str = ""
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    folded: Sequence[Folded] = ()
    fault: str = ""
    cautions: Sequence[str] = ()
    plots: Sequence[Plot] = ()
    parts: Sequence["Section"] = ()
    lead: str = ""
    figures: Sequence[KeyFigure] = ()
    closed: bool = False


def html_page(
    title: str,
    sections: Sequence[Section],
    notes: Sequence[str] = (),
    files: Sequence[str] = (),
    contents: bool = False,
    up: Link | None = None,
    unfinished: bool = False,
) -> str:
    """The page as HTML text (UTF-8). The first section is directly under the title; notes are at the end.

    files: names of the pictures written beside the page, which files_of reads back; not shown. contents: whether a list of
    the sections stays in view beside them, on narrow screens above them. up: a link above the title. unfinished: what
    is_unfinished reads back. All text is plain and escaped here; only a Plot's SVG is not. The page needs no network,
    follows the light or dark scheme, and can be printed.
    """
    first, *others = sections or [Section("")]
    numbers = count(1)
    anchors = _anchors([section.title for section in others]) if contents else []
    above = f'<p class="up">{_link(up.text, up.path)}</p>\n' if up else ""
    head = f"<header>{above}<h1>{escaped(title)}</h1>\n{_inside(first, numbers, 2)}</header>"
    rest = "\n".join(
        _section(section, anchor, numbers) for section, anchor in zip(others, anchors or [""] * len(others), strict=True)
    )
    if anchors:
        rest = f'<div class="beside">{_contents(others, anchors)}\n<div>\n{rest}\n</div></div>'
    foot = f"<footer>{''.join(f'<div>{escaped(note)}</div>' for note in notes)}</footer>\n" if notes else ""
    listed = f'<meta name="{_FILES}" content="{escaped(" ".join(files))}">\n' + (_UNFINISHED if unfinished else "")
    return f"""{opening(title, _POLICY, meta=listed)}
<main>
{head}
{rest}
</main>
{foot}</body>
</html>
"""


def opening(title: str, policy: str, style: str = "", meta: str = "") -> str:
    """A page's HTML up to <body>. policy: what it may load, all else is forbidden; style: CSS added to that of all pages."""
    return f"""{_BEGINNING}{_policy_tag(policy)}
{meta}<title>{escaped(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body>"""


def with_policy(page: bytes) -> bytes:
    """A page that anyone may have written, in which no script runs: as it is if it begins as those of html_page do, which
    forbid scripts, else with their policy at its very beginning, where nothing can come before it.
    """
    if page.startswith(f"{_BEGINNING}{_policy_tag(_POLICY)}\n".encode()):
        return page
    return f'<!doctype html>\n<meta charset="utf-8">\n{_policy_tag(_POLICY)}\n'.encode() + page


def files_of(page: str) -> list[str] | None:
    """The `files` that html_page was given for this page; None for a page that it did not write."""
    found = re.search(f'<meta name="{_FILES}" content="([a-z0-9. -]*)">', page)
    return None if found is None else [name for name in found[1].split() if re.fullmatch(r"[a-z0-9-]+\.png", name)]


def is_unfinished(page: str) -> bool:
    """Whether html_page was told that parts of this page are missing."""
    return _UNFINISHED in page.partition("<body")[0]


def _policy_tag(policy: str) -> str:
    return f"""<meta http-equiv="Content-Security-Policy" content="default-src 'none'; {policy}">"""


def _anchors(titles: Sequence[str]) -> list[str]:
    """An anchor for each title, all different, made of lower-case letters, digits and hyphens."""
    found: list[str] = []
    for title in titles:
        anchor_text = "at-" + (re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section")
        numbered = chain([anchor_text], (f"{anchor_text}-{number}" for number in count(2)))
        found.append(next(anchor for anchor in numbered if anchor not in found))
    return found


def _contents(sections: Sequence[Section], anchors: Sequence[str]) -> str:
    lines = (f'<li><a href="#{a}">{escaped(section.title)}</a></li>' for section, a in zip(sections, anchors, strict=True))
    return f'<nav aria-label="Contents"><ol>{"".join(lines)}</ol></nav>'


def _section(section: Section, anchor: str, numbers: Iterator[int]) -> str:
    named = f' id="{anchor}"' if anchor else ""
    heading, inside = f"<h2>{escaped(section.title)}</h2>", _inside(section, numbers, 3)
    if not section.closed:
        return f"<section{named}>{heading}\n{inside}</section>"
    # A link to what is inside opens it.
    return f"<section><details><summary>{heading}</summary>\n<div{named}>{inside}</div></details></section>"


def _inside(section: Section, numbers: Iterator[int], level: int) -> str:
    """numbers: a new one for each plot of the page; level: of the headings of subsections."""
    parts = [f'<p class="fault">{escaped(fault)}</p>' for fault in section.fault.splitlines()]
    parts += [f'<p class="caution">{escaped(caution)}</p>' for caution in section.cautions]
    if section.lead:
        parts.append(f'<p class="lead">{escaped(section.lead)}</p>')
    if section.figures:
        parts.append(f'<dl class="figures">\n{"".join(map(_key_figure, section.figures))}</dl>')
    parts += [f"<p>{_breaking(escaped(paragraph))}</p>" for paragraph in section.text]
    if section.source:
        parts.append(f'<p class="source">{escaped(section.source)}</p>')
    parts.append(_shown(section, numbers))
    for folded in section.folded:
        parts.append(f"<details><summary>{escaped(folded.summary)}</summary>\n{_shown(folded, numbers)}\n</details>")
    for part in section.parts:
        parts.append(f"<h{level}>{escaped(part.title)}</h{level}>\n{_inside(part, numbers, level + 1)}")
    return "\n".join(parts) + "\n"


def _breaking(escaped: str) -> str:
    """Text that may be broken after ? and & of a URL, rather than in the middle of a word."""
    return re.sub(r"(\?|&amp;)(?=\S)", r"\1<wbr>", escaped)


def _shown(part: Section | Folded, numbers: Iterator[int]) -> str:
    figures = [f'<div class="pictures">\n{"".join(map(_figure, part.pictures))}</div>'] if part.pictures else []
    return "\n".join([*figures, *(_plot(plot, next(numbers)) for plot in part.plots), *map(_table, part.tables)])


def _key_figure(figure: KeyFigure) -> str:
    faint = f"<i>{escaped(figure.faint)}</i>" if figure.faint else ""
    return f"<div><dt>{escaped(figure.text)}</dt><dd>{escaped(figure.figure)} {faint}</dd></div>\n"


def _link(text: str, path: str) -> str:
    return f'<a href="{escaped(quote(path))}">{escaped(text)}</a>'


def _figure(picture: Picture) -> str:
    width, height = struct.unpack(">II", picture.png[16:24])  # of the PNG's header
    factor: float = picture.width / width if picture.width else max(1, picture.side // max(width, height))
    wide, high = round(width * factor), round(height * factor)
    small = ' class="small"' if factor > 1 else ""
    text = f"{picture.title}, {picture.caption}" if picture.caption else picture.title
    source = f'{escaped(quote(picture.path))}" loading="lazy' if picture.path else _data(picture.png)
    # The figure has a width too, as its content, with a maximum in percent, gives it none.
    figure = 'class="thumb"' if picture.side <= _THUMB else f'style="--wide: {wide}px"'
    drawn = f'<img{small} width="{wide}" height="{high}" alt="{escaped(text)}" src="{source}">'
    return f"<figure {figure}>{drawn}{_caption(picture)}</figure>\n"


def _plot(plot: Plot, number: int) -> str:
    text = escaped(f"{plot.title}. {plot.caption}" if plot.caption else plot.title)
    if isinstance(plot.drawn, str):
        drawn = prefixed(plot.drawn, f"p{number}-").replace("<svg", f'<svg role="img" aria-label="{text}"', 1)
    else:
        drawn = f'<img alt="{text}" src="{_data(plot.drawn)}">'
    return f'<figure class="plot">{_wide(drawn, plot.title)}{_caption(plot)}</figure>\n'


def _wide(inside: str, label: str) -> str:
    """A box that scrolls sideways if its content is wider than the screen, also by keyboard."""
    return f'<div class="wide" tabindex="0" role="group" aria-label="{escaped(label)}">{inside}</div>'


def _caption(shown: Picture | Plot) -> str:
    more = f"<span>{escaped(shown.caption)}</span>" if shown.caption else ""
    return f"<figcaption>{escaped(shown.title)}{more}</figcaption>"


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _table(table: Table) -> str:
    rows = [_cells(row) for row in table.rows]
    groups = [(group.title, [_cells(row) for row in group.rows]) for group in table.groups]
    columns = len(table.heads)
    full = [row for row in chain(rows, *(members for _, members in groups)) if len(row) == columns]
    marks = [' class="number"' if _are_numbers([row[k] for row in full]) else "" for k in range(columns)]

    def line(cells: Sequence[TableCell]) -> str:
        spans = [""] * (len(cells) - 1) + [f' colspan="{columns - len(cells) + 1}"' if len(cells) < columns else ""]
        shown = [span or mark for mark, span in zip(marks, spans, strict=False)]
        return "<tr>" + "".join(f"<td{m}>{_cell(c)}</td>" for c, m in zip(cells, shown, strict=True)) + "</tr>"

    def lines(of: Sequence[Sequence[TableCell]]) -> str:
        return "\n".join(map(line, of))

    caption = f"<caption>{escaped(table.caption)}</caption>" if table.caption else ""
    heads = "".join(f'<th{mark} scope="col">{escaped(head)}</th>' for head, mark in zip(table.heads, marks, strict=True))
    head = f"<tr>{heads}</tr>"
    bodies = [f"<tbody>\n{lines(rows)}\n</tbody>"] if rows or not groups else []
    span = f'<tr><th class="group" scope="rowgroup" colspan="{columns}">'
    bodies += [f"<tbody>\n{span}{escaped(title)}</th></tr>\n{lines(members)}\n</tbody>" for title, members in groups]
    dense = ' class="dense"' if columns >= _DENSE else ""
    under = f'<p class="under">{escaped(table.under)}</p>' if table.under else ""
    whole = f"<table{dense}>{caption}<thead>{head}</thead>{''.join(bodies)}</table>"
    return f"{_wide(whole, table.caption or ', '.join(table.heads))}{under}"


def _cells(row: TableRow) -> list[TableCell]:
    return [cell if isinstance(cell, TableCell) else TableCell(cell) for cell in row]


def _are_numbers(column: Sequence[TableCell]) -> bool:
    texts = [cell.text for cell in column if not cell.mark]
    return (bool(texts) or not column) and all(text == NOTHING or _is_number(text) for text in texts)


def _cell(cell: TableCell) -> str:
    if cell.mark and cell.mark not in _MARKS:
        raise ValueError(f'the mark of a cell is one of {", ".join(_MARKS)}, not "{cell.mark}"')
    mark = f'<b class="{_MARKS[cell.mark]}">{cell.mark}</b>' if cell.mark else ""
    faint = f"<i>{escaped(cell.faint)}</i>" if cell.faint else ""
    text = _link(cell.text, cell.path) if cell.path else escaped(cell.text)
    return " ".join(piece for piece in (mark, text, faint) if piece)


def _is_number(text: str) -> bool:
    try:
        float(text.lstrip("<>= ").rstrip("%").replace(",", ""))
    except ValueError:
        return False
    return True

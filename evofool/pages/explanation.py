"""An explanation as one HTML page: pictures and style are in the file, nothing is loaded, no script runs."""

import base64
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_SHORT = 224  # pixels that a small picture is enlarged to, by a whole factor
_FILES = "evofool-pictures"  # under this name a page tells of the pictures that were written beside it
_STYLE = """
:root { color-scheme: light dark; --paper: #f7f7f4; --ink: #22252b; --faint: #666a72; --line: #d5d6d2; --fault: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #17191d; --ink: #e6e6e2; --faint: #a0a4ac; --line: #3a3d44; --fault: #ff8a80; }
}
body { margin: 0 auto; padding: 2rem 1.25rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; border-top: 1px solid var(--line); padding-top: 1.2rem; }
p { max-width: 48rem; margin: .5rem 0; overflow-wrap: anywhere; }
.source, footer, figcaption span { color: var(--faint); font-size: .875rem; }
.fault { color: var(--fault); font-weight: 600; }
.pictures { display: flex; flex-wrap: wrap; gap: 1.1rem; margin: .9rem 0; align-items: flex-start; }
figure { margin: 0; width: min-content; min-width: 9rem; break-inside: avoid; }
img { display: block; max-width: calc(100vw - 2.5rem); height: auto; border: 1px solid var(--line); }
img.small { image-rendering: pixelated; }
figcaption { margin-top: .35rem; font-size: .9rem; line-height: 1.35; overflow-wrap: anywhere; }
figcaption span { display: block; }
details { margin: .9rem 0; } summary { cursor: pointer; color: var(--faint); font-size: .9rem; }
.wide { overflow-x: auto; margin: .9rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.number { text-align: right; }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: .8rem; overflow-wrap: anywhere; }
@media print {
  :root { --paper: #fff; --ink: #000; --faint: #444; --line: #bbb; --fault: #a00; }
  body { max-width: none; padding: 0; font-size: 11pt; } h2 { break-after: avoid; } tr { break-inside: avoid; }
}
"""


@dataclass(frozen=True)
class Picture:
    """A PNG's bytes, its title and what is to be said of it, plain text."""

    title: str
    png: bytes
    caption: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of plain text under their heads; columns whose every cell is a number are set to the right."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Folded:
    """Pictures and tables that are seen once its summary is clicked."""

    summary: str
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Section:
    """A part of an explanation. text: what it is and what came out, by paragraph; source: papers; fault: what failed or is
    missing, and stands first."""

    title: str
    text: Sequence[str] = ()
    source: str = ""
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    folded: Sequence[Folded] = ()
    fault: str = ""


def explanation_page(title: str, sections: Sequence[Section], notes: Sequence[str] = (), files: Sequence[str] = ()) -> str:
    """The page as HTML text (UTF-8). The first section stands under the title; notes stand at the end.

    files: names of the pictures written beside it, which `files_of` reads back and nobody sees. All that is given is plain
    text and escaped here. Opens without a network, in light and dark, and prints.
    """
    first, *others = sections or [Section("")]
    body = "\n".join(
        [
            f"<header><h1>{escape(title)}</h1>\n{_inside(first)}</header>",
            *(f"<section><h2>{escape(one.title)}</h2>\n{_inside(one)}</section>" for one in others),
            f"<footer>{''.join(f'<div>{escape(note)}</div>' for note in notes)}</footer>" if notes else "",
        ]
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="{_FILES}" content="{escape(" ".join(files))}">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def files_of(page: str) -> list[str] | None:
    """The names that explanation_page was given as files; None of a page that it did not write."""
    found = re.search(f'<meta name="{_FILES}" content="([a-z0-9. -]*)">', page)
    return None if found is None else [name for name in found[1].split() if re.fullmatch(r"[a-z0-9-]+\.png", name)]


def _inside(section: Section) -> str:
    parts = [f'<p class="fault">{escape(section.fault)}</p>'] if section.fault else []
    parts += [f"<p>{escape(paragraph)}</p>" for paragraph in section.text]
    if section.source:
        parts.append(f'<p class="source">{escape(section.source)}</p>')
    parts.append(_shown(section.pictures, section.tables))
    for one in section.folded:
        inside = _shown(one.pictures, one.tables)
        parts.append(f"<details><summary>{escape(one.summary)}</summary>\n{inside}\n</details>")
    return "\n".join(parts) + "\n"


def _shown(pictures: Sequence[Picture], tables: Sequence[Table]) -> str:
    figures = [f'<div class="pictures">\n{"".join(map(_figure, pictures))}</div>'] if pictures else []
    return "\n".join([*figures, *map(_table, tables)])


def _figure(picture: Picture) -> str:
    width, height = struct.unpack(">II", picture.png[16:24])  # of the PNG's header
    factor = max(1, _SHORT // max(width, height))
    small = ' class="small"' if factor > 1 else ""
    words = f"{picture.title}, {picture.caption}" if picture.caption else picture.title
    caption = f"<span>{escape(picture.caption)}</span>" if picture.caption else ""
    data = base64.b64encode(picture.png).decode("ascii")
    return (
        f'<figure><img{small} width="{width * factor}" height="{height * factor}" alt="{escape(words)}" '
        f'src="data:image/png;base64,{data}"><figcaption>{escape(picture.title)}{caption}</figcaption></figure>\n'
    )


def _table(table: Table) -> str:
    numeric = [all(_is_number(row[k]) for row in table.rows) for k in range(len(table.heads))]

    def row(cells: Sequence[str], kind: str) -> str:
        marks = [' class="number"' if number else "" for number in numeric]
        return "<tr>" + "".join(f"<{kind}{m}>{escape(c)}</{kind}>" for c, m in zip(cells, marks, strict=True)) + "</tr>"

    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    rows = "\n".join(row(cells, "td") for cells in table.rows)
    return (
        f'<div class="wide"><table>{caption}<thead>{row(table.heads, "th")}</thead><tbody>\n{rows}\n</tbody></table></div>'
    )


def _is_number(text: str) -> bool:
    try:
        float(text.lstrip("<> ").rstrip("%").replace(",", ""))
    except ValueError:
        return False
    return True

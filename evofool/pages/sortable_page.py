"""A page of tables that can be sorted and filtered, as one HTML file; without JavaScript the tables are complete."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from evofool.pages.html_page import NOTHING, opening
from evofool.text import escaped


@dataclass(frozen=True)
class SortableCell:
    """A cell. faint: smaller text below. key: what the column is sorted by, a number or a text; None comes last."""

    text: str = NOTHING
    faint: str = ""
    key: float | str | None = None


@dataclass(frozen=True)
class SortableTable:
    """A table under a heading. text: paragraphs before it. Rows have a cell for each head, in the order that they are first
    shown in; the first cell is the head of its row. sorted_by: the column of that order, ascending; None if by none.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[SortableCell]]
    text: Sequence[str] = ()
    sorted_by: int | None = None


def sortable_page(title: str, lead: str, tables: Sequence[SortableTable], notes: Sequence[str] = ()) -> str:
    """The page as HTML text (UTF-8). lead, notes: paragraphs before and after the tables. All text is plain.

    With JavaScript the heads are buttons that sort their table, and a field above the tables leaves only the rows that have
    all of its words. The page needs no network, and runs no other script than its own, by its hash.
    """
    script = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode("ascii")
    policy = f"style-src 'unsafe-inline'; script-src 'sha256-{script}'"
    body = "\n".join(_table(table, number) for number, table in zip(count(1), tables, strict=False))
    paragraphs = "".join(f"<p>{escaped(note)}</p>\n" for note in notes)
    return f"""{opening(title, policy, _STYLE)}
<header><h1>{escaped(title)}</h1>
<p>{escaped(lead)}</p>
<div id="controls" hidden><label for="filter">Show only rows with</label>
<input id="filter" type="search" autocomplete="off" spellcheck="false"> <span id="shown" role="status"></span></div>
</header>
<main>
{body}
</main>
<footer>{paragraphs}</footer>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _table(table: SortableTable, number: int) -> str:
    title = f"t{number}"
    text = "".join(f"<p>{escaped(paragraph)}</p>\n" for paragraph in table.text)
    sort = ["" if k != table.sorted_by else ' aria-sort="ascending"' for k in range(len(table.heads))]
    heads = "".join(f'<th scope="col"{order}>{escaped(head)}</th>' for order, head in zip(sort, table.heads, strict=True))
    rows = "\n".join(f"<tr>{''.join(_cell(cell, k == 0) for k, cell in enumerate(row))}</tr>" for row in table.rows)
    # The box scrolls on narrow screens, so that it can be reached and has a name.
    return f"""<section><h2 id="{title}">{escaped(table.title)}</h2>
{text}<div class="wide" role="region" tabindex="0" aria-labelledby="{title}"><table class="board">
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody></table></div></section>"""


def _cell(cell: SortableCell, head: bool) -> str:
    key = "" if cell.key is None else f' data-key="{escaped(repr(cell.key) if isinstance(cell.key, float) else cell.key)}"'
    kind = ' data-number=""' if isinstance(cell.key, (int, float)) else ""
    faint = f"<i>{escaped(cell.faint)}</i>" if cell.faint else ""
    name, scope = ("th", ' scope="row"') if head else ("td", "")
    return f"<{name}{scope}{key}{kind}>{escaped(cell.text)}{faint}</{name}>"


_STYLE = """
#controls { margin: 1rem 0 0; } #controls label { margin-right: .5rem; }
#filter { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--faint); border-radius: .25rem;
  padding: .2rem .5rem; max-width: 100%; box-sizing: border-box; }
.board th, .board td { padding: .3rem .8rem .3rem 0; min-width: 4.5rem; max-width: 17rem; overflow-wrap: anywhere; }
.board tr > :first-child { min-width: 7rem; }
.board tbody th { font-weight: 600; position: sticky; left: 0; background: var(--paper); max-width: 10rem; }
.board i { display: block; font-style: normal; font-weight: 400; font-size: .85em; line-height: 1.3; color: var(--faint);
  white-space: normal; }
.board thead button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: .3rem 0;
  text-align: left; cursor: pointer; text-decoration: underline dotted; text-underline-offset: .2em; }
.board thead [aria-sort=ascending] button::after { content: " \\2191"; }
.board thead [aria-sort=descending] button::after { content: " \\2193"; }
.board tr[hidden] { display: none; }
.wide:focus-visible, .board button:focus-visible, #filter:focus-visible { outline: 2px solid var(--blue);
  outline-offset: 2px; }
"""

_SCRIPT = """
"use strict";
const rows = [...document.querySelectorAll(".board tbody tr")];
const field = document.getElementById("filter"), shown = document.getElementById("shown");
document.getElementById("controls").hidden = false;
function choose() {
  const words = field.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let n = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
    n += row.hidden ? 0 : 1;
  }
  shown.textContent = words.length ? `${n} of ${rows.length} rows` : "";
}
field.addEventListener("input", choose);
function order(a, b) {
  const [x, y] = [a.dataset.key, b.dataset.key];
  if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
  return "number" in a.dataset && "number" in b.dataset ? Number(x) - Number(y) : x < y ? -1 : x > y ? 1 : 0;
}
for (const table of document.querySelectorAll(".board")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, k) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const known = [...body.rows].filter(row => row.cells[k].dataset.key !== undefined);
      const rest = [...body.rows].filter(row => row.cells[k].dataset.key === undefined);
      known.sort((a, b) => order(a.cells[k], b.cells[k]) * (down ? -1 : 1));
      body.append(...known, ...rest);
    });
  });
}
choose();
"""

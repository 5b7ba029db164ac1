"""A plot as SVG that stands within a page: text stays text, colours follow the page, nothing is loaded."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from evofool.pages.palette import FAINT, INK, following

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE = 8.6  # inches that a page's plot is wide


class Drawing:
    """What `drawing` hands out: the figure to be drawn on, and its SVG afterwards."""

    def __init__(self, figure: "Figure") -> None:
        self.figure = figure
        self.svg = ""


@contextmanager
def drawing(width: float, height: float) -> Iterator[Drawing]:
    """A figure of so many inches; its SVG is there once the block ends. matplotlib's settings are left as they were."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    look: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "evofool",
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "axes.formatter.use_mathtext": False,
        "text.parse_math": False,  # a name may hold a dollar sign
    }
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
        FigureCanvasSVG(figure)
        made = Drawing(figure)
        yield made
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    made.svg = following(_lean(buffer.getvalue()))


def prefixed(svg: str, prefix: str) -> str:
    """The same with all of its ids begun by the prefix, so that two plots of one page do not share any."""
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    return svg.replace('href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")


def _lean(svg: str) -> str:
    """Only what an HTML page needs of matplotlib's text, with two decimals of a point."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"| version="1.1"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
    svg = svg.replace("xlink:href", "href").replace(' transform="rotate(-0 ', ' transform="rotate(0 ')
    svg = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", svg)
    svg = re.sub(r' transform="rotate\(0 [^"]*\)"', "", svg)
    # Numbers of paths and places alone: text between tags keeps what it says.
    svg = re.sub(r'(?<= d=")[^"]*|(?<= x=")[^"]*|(?<= y=")[^"]*', lambda m: _rounded(m[0]), svg)
    used = set(re.findall(r'(?:href="|url\()#([\w.-]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", svg)
    return re.sub(r">\s+<", "><", svg).strip()


def _rounded(numbers: str) -> str:
    short = re.sub(r"-?\d+\.\d+", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), numbers)
    return " ".join(short.split())

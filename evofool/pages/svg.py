"""A plot as SVG within a page: text stays text, colours follow the page's scheme, and nothing is loaded."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from evofool.pages.palette import FAINT, INK, following
from evofool.text import visible_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE = 8.6  # inches, the width of a page's plot


class Drawing:
    """The value of `drawing`: the figure to draw on, and after the block its SVG."""

    def __init__(self, figure: "Figure") -> None:
        self.figure = figure
        self.svg = ""


@contextmanager
def drawing(width: float, height: float) -> Iterator[Drawing]:
    """A figure of width x height inches; its SVG is set when the block ends. matplotlib's global settings do not change."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
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
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
        FigureCanvasSVG(figure)
        plot = Drawing(figure)
        yield plot
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    plot.svg = following(_lean(visible_lines(buffer.getvalue())))


def prefixed(svg: str, prefix: str) -> str:
    """The SVG with the prefix before all of its ids, so that two plots of one page share none."""
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    return svg.replace('href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")


def _lean(svg: str) -> str:
    """matplotlib's SVG reduced to what an HTML page needs, with two decimals."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"| version="1.1"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
    svg = svg.replace("xlink:href", "href").replace(' transform="rotate(-0 ', ' transform="rotate(0 ')
    svg = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", svg)
    svg = re.sub(r' transform="rotate\(0 [^"]*\)"', "", svg)
    # Only numbers in paths and positions; text between tags does not change.
    svg = re.sub(r'(?<= d=")[^"]*|(?<= x=")[^"]*|(?<= y=")[^"]*', lambda m: _rounded(m[0]), svg)
    used = set(re.findall(r'(?:href="|url\()#([\w.-]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", svg)
    return re.sub(r">\s+<", "><", svg).strip()


def _rounded(numbers: str) -> str:
    short = re.sub(r"-?\d+\.\d+", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), numbers)
    return " ".join(short.split())

"""The colours of all pictures and pages, for light and dark, and the style of a plot's axes."""

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {
    "paper": ("#f7f7f4", "#17191d"),
    "panel": ("#fefefe", "#1e2126"),
    "ink": ("#22252b", "#e6e6e2"),
    "faint": ("#666a72", "#a0a4ac"),
    "line": ("#d5d6d2", "#3a3d44"),
    "grid": ("#e1e2de", "#2e3138"),
    "fault": ("#b3261e", "#ff8a80"),
    "caution": ("#8f5b00", "#f0b860"),
    "good": ("#1f7a4d", "#63cf98"),
    "blue": ("#2f5fa8", "#7fb0f2"),
    "orange": ("#c8571b", "#f2935a"),
    "green": ("#17835f", "#4fcaa0"),
    "purple": ("#7d4698", "#c596e3"),
    "sky": ("#2a8fb5", "#74cdec"),
    "pink": ("#c43c7c", "#f58bb8"),
    "olive": ("#857100", "#d6c04c"),
    "mint": ("#8cc7ad", "#3f7d63"),
}
"""By name: on light and on dark paper. All but panel, line, grid and mint have a contrast of at least 3:1 to the paper."""

PAPER, PANEL, INK, FAINT = (_COLOURS[name][0] for name in ("paper", "panel", "ink", "faint"))
LINE, GRID, MINT = (_COLOURS[name][0] for name in ("line", "grid", "mint"))
BLUE, ORANGE, GREEN = (_COLOURS[name][0] for name in ("blue", "orange", "green"))
PURPLE, SKY, PINK, OLIVE = (_COLOURS[name][0] for name in ("purple", "sky", "pink", "olive"))


def variables(dark: bool = False) -> str:
    """The colours as CSS custom properties: "--paper: #f7f7f4; ..."."""
    return " ".join(f"--{name}: {both[dark]};" for name, both in _COLOURS.items())


def following(svg: str) -> str:
    """An SVG in the light colours, changed to use the page's CSS properties, so that it follows the dark scheme."""
    names = {both[0]: name for name, both in _COLOURS.items()}

    def named(style: re.Match[str]) -> str:
        return re.sub(r"#[0-9a-f]{6}\b", lambda m: f"var(--{names[m[0]]}, {m[0]})" if m[0] in names else m[0], style[0])

    return re.sub(r' style="[^"]*"', named, svg)  # only style attributes, not text that names a colour


def dress(axes: "Axes", grid: str = "both") -> None:
    """The style of every plot: a faint grid (of "x", "y" or "both" axes), and lines at the left and bottom only."""
    axes.set_facecolor(PANEL)
    axes.grid(True, axis=grid, color=GRID, lw=0.8)  # type: ignore[arg-type]  # their stubs want a literal
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=FAINT, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)


def png(figure: "Figure", panels: Sequence["Axes"]) -> bytes:
    """The PNG of a figure whose panels are drawn; each panel gets the common style and its legend above it."""
    for axes in panels:
        dress(axes)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.98), ncols=3, fontsize=9, frameon=False, labelcolor=INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()

"""Deletion and insertion curves of maps, as a plot."""

from collections.abc import Collection, Mapping

import numpy as np

from evofool.pages.palette import BLUE, FAINT, GREEN, INK, OLIVE, ORANGE, PINK, PURPLE, SKY, dress
from evofool.pages.svg import WIDE, drawing

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, PINK, OLIVE)


def map_curves(lines: Mapping[str, tuple[np.ndarray, np.ndarray]], baselines: Collection[str] = ()) -> str:
    """An SVG of two panels: by map the confidences after each step of deletion, and of insertion, over the share of pixels.

    baselines: names of maps that are drawn grey, the first dashed, others dotted.
    """
    with drawing(WIDE, 3.4) as plot:
        panels = plot.figure.subplots(1, 2, sharey=True)
        grey = list(baselines)
        for name, pair in lines.items():
            number = [other for other in lines if other not in grey].index(name) if name not in grey else 0
            style = {"color": FAINT, "ls": "--" if name == grey[0] else ":"} if name in grey else {}
            for axes, values in zip(panels, pair, strict=True):
                shares = np.linspace(0, 100, len(values))
                axes.plot(shares, values, label=name, lw=1.6, **{"color": _COLOURS[number % len(_COLOURS)], **style})
        for axes, title in zip(panels, ("deletion", "insertion"), strict=True):
            dress(axes)
            axes.set_title(title, fontsize=10, color=INK)
            axes.set_xlabel("% of the pixels")
            axes.set_ylim(-0.02, 1.02)
        panels[0].set_ylabel("confidence")
        plot.figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=9, frameon=False
        )
    return plot.svg

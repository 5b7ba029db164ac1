"""The confidences along the way from one image to another, as a plot."""

from collections.abc import Mapping, Sequence

import numpy as np

from evofool.pages.palette import BLUE, FAINT, GREEN, OLIVE, ORANGE, PINK, PURPLE, SKY, dress
from evofool.pages.svg import WIDE, drawing

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, PINK, OLIVE)


def morph_curve(shares: np.ndarray, confidences: Mapping[str, np.ndarray], boundaries: Sequence[float]) -> str:
    """An SVG. shares: (T,), 0 to 1 of the way; confidences: by class (T,); boundaries: shares that get a vertical line."""
    with drawing(WIDE, 3.4) as plot:
        axes = plot.figure.subplots()
        for number, (name, values) in enumerate(confidences.items()):
            axes.plot(100 * shares, values, label=name, lw=1.8, color=_COLOURS[number % len(_COLOURS)])
        for number, share in enumerate(boundaries):
            axes.axvline(
                100 * share, color=FAINT, ls=":", lw=1.2, label="the predicted class changes" if number == 0 else None
            )
        dress(axes)
        axes.set_xlabel("% of the way")
        axes.set_ylabel("confidence")
        axes.set_ylim(-0.02, 1.02)
        plot.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return plot.svg

"""Numbers as an explanation says them: log-odds first, as a confidence near 1 tells little."""

from evofool.scores import confidence


def number(value: float) -> str:
    """Three decimals, and no minus before what rounds to 0."""
    return f"{value:z.3f}"


def change(value: float) -> str:
    """The same with its sign."""
    return f"{value:+z.3f}"


def sure(odds: float) -> str:
    """The confidence of log-odds to six digits; what only rounds to 0 or 1 is not called so."""
    p = float(confidence(odds))
    return "> 0.999999" if p > 0.999999 else "< 0.000001" if p < 0.000001 else f"{p:.6f}"


def scored(odds: float) -> str:
    """Log-odds with their confidence."""
    return f"log-odds {number(odds)} (confidence {sure(odds)})"


def count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def all_of(n: int) -> str:
    return "both" if n == 2 else f"all {n}"


def span(begin: int, end: int) -> str:
    """From begin to before end."""
    return f"{begin} to {end - 1}"


def place(top: int, left: int, bottom: int, right: int) -> str:
    """A box, the last two outside of it."""
    return f"rows {span(top, bottom)}, columns {span(left, right)}"

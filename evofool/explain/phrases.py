"""Numbers and places as an explanation writes them; log-odds come first, because confidences saturate at 1."""

from evofool.scores import confidence


def three_decimals(value: float) -> str:
    """Three decimals; a value that rounds to 0 has no minus sign."""
    return f"{value:z.3f}"


def signed(value: float) -> str:
    """Three decimals, with a sign."""
    return f"{value:+z.3f}"


def confidence_text(odds: float) -> str:
    """The confidence of log-odds with six digits; "> 0.999999" or "< 0.000001" instead of rounding to 1 or 0."""
    p = float(confidence(odds))
    return "> 0.999999" if p > 0.999999 else "< 0.000001" if p < 0.000001 else f"{p:.6f}"


def scored_text(odds: float) -> str:
    """Log-odds with their confidence."""
    return f"log-odds {three_decimals(odds)} (confidence {confidence_text(odds)})"


def counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def all_copies(n: int) -> str:
    return "both" if n == 2 else f"all {n}"

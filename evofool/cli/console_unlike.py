"""What the commands print of a run under a limit on likeness to real digits (search.unlike)."""

from typing import TYPE_CHECKING

from evofool.printer import print_lines

if TYPE_CHECKING:
    from evofool.run.stored import StoredRun


def unlike_text(unlike: str) -> str:
    """What search.unlike permits."""
    measure, _, percentile = unlike.partition(">")
    real = "held-out digits of the class" if measure == "shape" else "digits of other classes"
    return (
        "an image wins a place only of classes to whose real digits it is further, in shape, than "
        f'{percentile}% of {real} (search.unlike = "{unlike}")'
    )


def print_turned_away(stored: "StoredRun") -> None:
    """Print how many images search.unlike kept from a place, by class; nothing for a run without it."""
    found, unlike = stored.meta.unlike, stored.recipe.search.unlike
    if found is None or unlike is None:
        return
    by_class = {stored.labels[c]: n for c, n in enumerate(found.turned_away) if n}
    most = sorted(by_class.items(), key=lambda one: -one[1])
    classes = "; by class " + ", ".join(f"{label} {n:,}" for label, n in most) if most else ""
    print_lines(
        f'search.unlike = "{unlike}": images were turned away {sum(found.turned_away):,} times, too near in shape to the '
        f"class that they would have won a place of{classes}. It compared with {found.reference:,} real {found.images}; it "
        "measures, and people may see what it does not"
    )

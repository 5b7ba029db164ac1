"""What `evofool baseline` and `evofool polish` print while they work."""

from typing import TYPE_CHECKING

from evofool.printer import duration

if TYPE_CHECKING:
    from evofool.attacks.session import AttackProgress


def progress_text(p: "AttackProgress") -> str:
    """The progress of an attack in one line; the rate is that of the groups that are done."""
    climbed = p.group * min(1.0, p.step / max(1, p.steps))  # of the group under way, in classes
    share = p.done_here + climbed
    left = f", about {duration((p.classes - p.done - climbed) * p.seconds / share)} left" if share else ""
    rate = f", {p.forwards / p.took:,.0f} forward passes/s" if p.forwards else ""
    return f"{p.done} of {p.classes} classes done{rate}{left}; {p.group} climbing, step {p.step:,} of {p.steps:,}"

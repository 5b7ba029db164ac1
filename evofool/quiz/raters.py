"""Whether a rater's answers count: they named the real images, not the noise, and took their time."""

from dataclasses import dataclass
from typing import Any

from evofool.quiz.names import Names
from evofool.quiz.schema import CHOICE, NAMING, Record

REAL_SHARE = 0.8
"""Of the real images, the least share that is named right: 8 of 10. A rater who is right 97% of the time passes with 99.7%,
one who is right half of the time with 5.5%."""
NOISE_SHARE = 0.2
"""Of the images of noise, the most that get the name of a class: 2 of 10."""
FAST_MS, FAST_SHARE = 300.0, 0.1
"""Nobody reads and answers below this time; a share of such answers of 10% or more is a rater who does not look."""


@dataclass(frozen=True)
class Standing:
    """Whether a session counts, and what that follows from. why: the reason why it does not; "" if it does."""

    why: str
    real: int
    real_named: int
    noise: int
    noise_named: int
    answers: int
    fast: int
    repeats: int
    repeats_alike: int

    @property
    def counts(self) -> bool:
        return not self.why

    def summary(self) -> dict[str, Any]:
        return {"counts": self.counts, **vars(self)}


def standing(record: Record, names: Names) -> Standing:
    """Of one session. Nothing of it is stored: it follows from the answers, also after texts were coded.

    Where an answer is a key, a real image is named by its key. Where it is a text, it is named by a name that matches, or by
    the right choice, because "fish" is what most people call a tench; but then as many have to get some name, or a rater who
    writes nothing would pass. Texts that wait for a code count as no name of a real image and as none of noise; if that
    decides, the session waits.
    """
    real, noise, texts, chosen = dict[str, bool | None](), list[bool | None](), 0, set[str]()
    first, alike = dict[str, frozenset[int] | None](), list[bool]()
    for trial, answer in record.pairs:
        if trial.block == CHOICE:
            if trial.kind == "real" and answer.chosen in trial.classes:
                chosen.add(trial.image)
            continue
        found = names.classes(answer.answer)
        if trial.kind == "real":
            real[trial.image] = None if found is None else bool(found & set(trial.classes))
            texts += found is None or bool(found)
        elif trial.kind == "noise":
            noise.append(None if found is None else bool(found))
        elif trial.kind == "elite":
            first[trial.image] = found
        elif trial.image in first:
            alike.append(first[trial.image] == found)
    if not names.by_key:
        real |= dict.fromkeys(chosen & real.keys(), True)
    fast = sum(answer.rt_ms < FAST_MS for _, answer in record.pairs)
    counts = {
        "real": len(real),
        "real_named": sum(named is True for named in real.values()),
        "noise": len(noise),
        "noise_named": sum(named is True for named in noise),
        "answers": len(record.pairs),
        "fast": fast,
        "repeats": len(alike),
        "repeats_alike": sum(alike),
    }
    waiting = sum(named is None for named in real.values()), sum(named is None for named in noise)
    return Standing(_why(record, names, counts, waiting, texts), **counts)


def _why(record: Record, names: Names, counts: dict[str, int], waiting: tuple[int, int], texts: int) -> str:
    """The first reason why a session does not count; "" if there is none. waiting: uncoded names of real ones, of noise."""
    session, real, noise = record.session, counts["real"], counts["noise"]
    if session.kind == "page":
        return "the materials of a page, which nobody answers themselves"
    if record.end is None or len(record.answers) < len(record.trials):
        return f"not finished: {len(record.answers)} of {len(record.trials)} trials are answered"
    if record.seen:
        return "the rater knew the run's images"
    if counts["fast"] >= FAST_SHARE * counts["answers"]:
        return f"{counts['fast']} of {counts['answers']} answers came within {FAST_MS:.0f} ms"
    if not real or not noise:
        return "it has no real images, or none of noise"
    if not names.by_key and texts < REAL_SHARE * real:
        return f"{texts} of {real} real images got a name"
    if counts["real_named"] + waiting[0] < REAL_SHARE * real:
        return f"{counts['real_named']} of {real} real images were named right"
    if counts["noise_named"] > NOISE_SHARE * noise:
        return f"{counts['noise_named']} of {noise} images of noise got a name"
    undecided = counts["real_named"] < REAL_SHARE * real or counts["noise_named"] + waiting[1] > NOISE_SHARE * noise
    return f"{sum(waiting)} answers have to be coded first" if undecided else ""


def named(record: Record) -> set[str]:
    """The images whose names the session has."""
    return {trial.image for trial, _ in record.pairs if trial.block == NAMING and trial.kind == "elite"}


def person(rater: str) -> str:
    """The same for every way of writing one pseudonym: case and spaces do not count."""
    return " ".join(rater.casefold().split())

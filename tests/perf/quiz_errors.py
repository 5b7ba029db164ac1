"""How often a quiz gives wrong verdicts, and how often it gives any, by simulated people: no person took part in this.

    python -m tests.perf.quiz_errors                    # 10,000 quizzes in each row; about a minute of one core
    python -m tests.perf.quiz_errors --quizzes 500

A quiz shows ten elites, one of each digit, to 20 raters, with ten images of noise. The first table has raters who see
nothing of any class: all that they say of the elites is a guess. The second one has elites that just too many people
recognise to be called unrecognised. The third one has verdicts by the true share of people who see the class. All of these
raters pass the checks; the last table says how often others do. "any": at one of the four numbers of raters at least.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evofool.quiz.bounds import exceeds
from evofool.quiz.names import Names
from evofool.quiz.raters import FAST_SHARE, NOISE_SHARE, REAL_SHARE
from evofool.quiz.tally import PRESETS, Tally, base_rate
from evofool.quiz.verdicts import ALPHA, UNRECOGNISED_BELOW, Word, words

K = 10  # digits, and elites in a quiz
NOISE = 10
RATERS = PRESETS[-1]
CHANCE = 1 / K
QUIZZES_AT_ONCE = 500


@dataclass(frozen=True)
class Quizzes:
    """Answers, classes or -1 for nothing: (Q, R, K) to the elites of classes 0 to K - 1, (Q, R, NOISE) to noise."""

    names: np.ndarray
    choices: np.ndarray
    noise_names: np.ndarray
    noise_choices: np.ndarray


Simulation = Callable[[np.random.Generator, int], Quizzes]


def tally_of(quizzes: Quizzes, raters: int) -> Tally:
    """(Q, K, K) counts of the first raters, as evofool.quiz.tally makes them of stored sessions."""
    named, chosen = (counts(part[:, :raters]) for part in (quizzes.names, quizzes.choices))
    noise = [counts(part[:, :raters]).sum(axis=1) for part in (quizzes.noise_names, quizzes.noise_choices)]
    shape = named.shape
    return Tally(
        raters=np.full(shape[:2], raters),
        named=named,
        uncoded=np.zeros(shape[:2], np.int64),
        chosen=chosen,
        offered=np.full(shape, raters),
        named_base=larger_base(named, noise[0], raters),
        chosen_base=larger_base(chosen, noise[1], raters),
        chance=CHANCE,
    )


def counts(answers: np.ndarray) -> np.ndarray:
    """(Q, images, K): how many of the raters, on axis 1, gave each class."""
    return np.stack([(answers == c).sum(axis=1) for c in range(K)], axis=-1)


def other_elites(given: np.ndarray, raters: int) -> tuple[np.ndarray, np.ndarray]:
    """(Q, K, K): how often a class was given to elites that are neither the image nor of it, and of how many trials."""
    of_others = given.sum(axis=1) - np.diagonal(given, axis1=1, axis2=2)
    own = np.eye(K, dtype=bool)
    return of_others[:, None, :] - np.where(own, 0, given), np.where(own, K - 1, K - 2) * raters


def larger_base(given: np.ndarray, noise: np.ndarray, raters: int) -> np.ndarray:
    elites, trials = other_elites(given, raters)
    return np.maximum(base_rate(noise[:, None, :], np.array(NOISE * raters), CHANCE), base_rate(elites, trials, CHANCE))


def seen_by_pooled_rate(quizzes: Quizzes, raters: int) -> np.ndarray:
    """(Q, K, K) bool: evofool.quiz.verdicts.seen as a rule that pools noise and other elites has it, at ALPHA / 2."""
    found = np.zeros((len(quizzes.names), K, K), bool)
    for given, on_noise in ((quizzes.names, quizzes.noise_names), (quizzes.choices, quizzes.noise_choices)):
        hits = counts(given[:, :raters])
        elites, trials = other_elites(hits, raters)
        pooled = (1 + elites + counts(on_noise[:, :raters]).sum(axis=1)[:, None, :]) / (2 + trials + NOISE * raters)
        found |= exceeds(hits, raters, np.maximum(pooled, CHANCE), ALPHA / 2)
    return found


# --- simulated people. rng draws all; Q quizzes


def guess(rng: np.random.Generator, shape: tuple[int, ...], share: float = 1.0, favourite: float = 0.0) -> np.ndarray:
    """Classes: a share of the answers is a guess, of which `favourite` are an 8 and the others uniform; the rest nothing."""
    found = np.where(rng.random(shape) < favourite, 8, rng.integers(0, K, shape))
    return np.where(rng.random(shape) < share, found, -1)


def guessers(name: float, noise: float, favourite: float = 0.0, who: float = 1.0) -> Simulation:
    """People who see nothing: they name this share of the elites and of the noise, and choose an option for everything.

    who: the share of people who do so; the others answer nothing. Nobody names more of the noise than passes the checks.
    """

    def simulate(rng: np.random.Generator, quizzes: int) -> Quizzes:
        shape = quizzes, RATERS
        found = Quizzes(
            guess(rng, (*shape, K), name, favourite),
            guess(rng, (*shape, K), 1.0, favourite),
            guess(rng, (*shape, NOISE), noise, favourite),
            guess(rng, (*shape, NOISE), 1.0, favourite),
        )
        too_many = np.cumsum(found.noise_names >= 0, axis=-1) > NOISE_SHARE * NOISE
        found.noise_names[too_many] = -1
        silent = rng.random((*shape, 1)) >= who
        return Quizzes(*(np.where(silent, -1, part) for part in vars(found).values()))

    return simulate


def seers(named: float, chosen: float, lazy: float = 0.0, wrong: float = 0.0) -> Simulation:
    """People who name each elite's class with one probability and choose it with another, guesses included.

    wrong: the share of the other answers that is another class, at random. lazy: the share of people who give names to real
    images only and guess in every choice.
    """

    def simulate(rng: np.random.Generator, quizzes: int) -> Quizzes:
        shape = quizzes, RATERS, K
        other = (np.arange(K) + rng.integers(1, K, shape)) % K
        names, choices = (
            np.where(rng.random(shape) < share, np.arange(K), np.where(rng.random(shape) < wrong, other, -1))
            for share in (named, chosen)
        )
        idle = rng.random((quizzes, RATERS, 1)) < lazy
        names, choices = np.where(idle, -1, names), np.where(idle, rng.integers(0, K, shape), choices)
        noise = (quizzes, RATERS, NOISE)
        return Quizzes(names, choices, np.full(noise, -1), guess(rng, noise))

    return simulate


# --- tables


def found_words(simulation: Simulation, quizzes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(PRESETS, Q, K) Word of each elite as its own class, and whether pooled rates would call it recognised, bool."""
    rng, own = np.random.default_rng(seed), np.arange(K)
    parts, pooled = [], []
    for begin in range(0, quizzes, QUIZZES_AT_ONCE):
        answers = simulation(rng, min(QUIZZES_AT_ONCE, quizzes - begin))
        parts.append(np.stack([words(tally_of(answers, raters))[:, own, own] for raters in PRESETS]))
        pooled.append(np.stack([seen_by_pooled_rate(answers, raters)[:, own, own] for raters in PRESETS]))
    return np.concatenate(parts, axis=1), np.concatenate(pooled, axis=1)


def cells(wrong: np.ndarray) -> str:
    """Shares of elites by number of raters, and of those where any of them is."""
    return " | ".join(f"{100 * share:.1f}" for share in [*wrong.mean(axis=(1, 2)), wrong.any(axis=0).mean()])


def print_table(title: str, what: str, columns: str) -> None:
    heads = " | ".join([*map(str, PRESETS), "any"])
    print(f"\n{title}\n\n| {what} | verdict | {heads}{columns} |\n|---|---|{'---|' * (len(PRESETS) + 1 + bool(columns))}")


GUESSERS: dict[str, Simulation] = {
    "guess uniformly at every elite, never at noise": guessers(1.0, 0.0),
    "guess uniformly at half of the elites and a tenth of the noise": guessers(0.5, 0.1),
    "8 at 30% of the elites, else uniform": guessers(1.0, 0.1, 0.3),
    "8 at 60% of the elites, else uniform": guessers(1.0, 0.1, 0.6),
    "8 at 90% of the elites, never at noise": guessers(1.0, 0.0, 0.9),
    "half of the people 8 at 90%, the others nothing": guessers(1.0, 0.0, 0.9, who=0.5),
    "lazy: no names for elites, a guess in every choice": guessers(0.0, 0.0),
}
LEAST = UNRECOGNISED_BELOW + (1 - UNRECOGNISED_BELOW) * CHANCE
ON_THE_EDGE: dict[str, Simulation] = {
    f"named by {UNRECOGNISED_BELOW:.0%}, never chosen": seers(UNRECOGNISED_BELOW, 0.0),
    f"never named, chosen by {LEAST:.1%}": seers(0.0, LEAST),
    f"named by {UNRECOGNISED_BELOW:.0%}, chosen by {LEAST:.1%}": seers(UNRECOGNISED_BELOW, LEAST),
    "seen by half of the people, half of whom are lazy": seers(0.5, 0.55, lazy=0.5),
}
SHARES = (0.0, 0.02, 0.05, 0.1, 0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def print_passing(draws: int) -> None:
    """How often raters pass the checks on real images, noise and time, by how they answer."""
    rng = np.random.default_rng(7)
    real, noise, answers = 10, NOISE, 125
    for what, right, named, fast in (
        ("careful: right at 97% of the real images, names 3% of the noise, 1% of the answers fast", 0.97, 0.03, 0.01),
        ("half awake: right at 50% of the real images", 0.5, 0.03, 0.01),
        ("guesses at everything", CHANCE, 1.0, 0.01),
        ("careful, but names 30% of the noise", 0.97, 0.3, 0.01),
        ("careful, but a fifth of the answers fast", 0.97, 0.03, 0.2),
    ):
        passed = rng.binomial(real, right, draws) >= REAL_SHARE * real
        passed &= rng.binomial(noise, named, draws) <= NOISE_SHARE * noise
        passed &= rng.binomial(answers, fast, draws) < FAST_SHARE * answers
        print(f"| {what} | {100 * passed.mean():.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quizzes", type=int, default=10_000)
    args = parser.parse_args()
    began = time.process_time()
    assert Names([str(c) for c in range(K)]).by_key
    print(f"{args.quizzes:,} simulated quizzes a row, {K} elites each; percent of the elites")
    print_table("Raters who see nothing", "they", " | recognised by a pooled rate, any")
    for seed, (name, simulation) in enumerate(GUESSERS.items()):
        found, pooled = found_words(simulation, args.quizzes, seed)
        # The elite of the favourite class is one of ten: its own share is what a reader of its verdict wants to know.
        for who, at in (("all", slice(None)), ("the 8", slice(8, 9))):
            if who == "all" or "8" in name:
                extra = f"{100 * pooled[..., at].any(axis=0).mean():.1f}"
                print(f"| {name} | recognised, {who} | {cells(found[..., at] == Word.RECOGNISED)} | {extra} |", flush=True)
        print(f"| {name} | taken for another | {cells(found == Word.TAKEN)} | |", flush=True)
    print_table("Elites that are not unrecognised", "they are", "")
    for seed, (name, simulation) in enumerate(ON_THE_EDGE.items(), start=100):
        found, _ = found_words(simulation, args.quizzes, seed)
        print(f"| {name} | unrecognised | {cells(found == Word.UNRECOGNISED)} |", flush=True)
    print_table("Verdicts by the share of people who see the class", "seen by", "")
    for seed, share in enumerate(SHARES, start=200):
        found, _ = found_words(seers(share, share + (1 - share) * CHANCE, wrong=0.2), args.quizzes, seed)
        for word in (Word.RECOGNISED, Word.UNRECOGNISED):
            print(f"| {share:.0%} | {word.name.lower()} | {cells(found == word)} |", flush=True)
    print("\n| raters | pass the checks, % |\n|---|---|")
    print_passing(100 * args.quizzes)
    print(f"\n{time.process_time() - began:.0f} s of CPU")


if __name__ == "__main__":
    main()

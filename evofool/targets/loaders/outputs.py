"""Which of a file's several outputs holds the scores."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from evofool.errors import TargetError
from evofool.targets.answer_forms import rows_of
from evofool.targets.spec import Spec


def scores_of(names: Sequence[str], spec: Spec, images: int, ask: Callable[[], Mapping[str, object]]) -> str:
    """The name of the output with the scores: the only one, output=, or the only one that can hold them.

    Which can is told by ask(), the answers to so many images: floats (B, K), K >= 2, and as many as labels= if given; where
    there is no such output, a single score for each image. Axes of length 1 may follow. TargetError lists them if no output
    or several can, and for an unknown name.
    """
    given = spec.options.get("output")
    if given is not None and given not in names:
        raise TargetError(f'{spec.head}: no output "{given}"; there are {", ".join(names)}')
    if given is not None or len(names) == 1:
        return given or names[0]
    answers = ask()
    scores = {name: count for name, answer in answers.items() if (count := _scores(answer, images))}
    labels = spec.labels()
    fitting = [name for name, count in scores.items() if count > 1 and count == (len(labels) if labels else count)]
    fitting = fitting or [name for name, count in scores.items() if count == 1]
    if len(fitting) == 1:
        return fitting[0]
    shapes = ", ".join(f"{name} {_described(answer)}" for name, answer in answers.items())
    raise TargetError(
        f"{spec.head}: {len(fitting) or 'none'} of its outputs can be the scores (B, K): {shapes}; give output=NAME"
    )


def _scores(answer: object, images: int) -> int:
    """The number of scores for each image, 0 if an answer cannot be scores."""
    if not isinstance(answer, np.ndarray) or not np.issubdtype(answer.dtype, np.floating):
        return 0
    rows = rows_of(answer.shape)
    return rows[1] if len(rows) == 2 and rows[0] == images else 0


def _described(answer: object) -> str:
    if not isinstance(answer, np.ndarray):
        return type(answer).__name__
    return f"{answer.dtype} (B{''.join(f', {side}' for side in answer.shape[1:])})"

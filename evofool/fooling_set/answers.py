"""What every classifier of a set answers to every image of it: the matrix, in one file for each classifier and cell."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from evofool import scores
from evofool.bench.transfer.answers import logits_of
from evofool.fooling_set.prepare import SetClassifier
from evofool.run.stored import Elite, StoredRun
from evofool.targets.labels import matching_classes
from evofool.whole_file import write_whole

FOLDER = "answers"
_BATCH = 16  # images a pass; it affects the last bits of scores
_FORMAT = "1"


class Answers(NamedTuple):
    """What a classifier answers to n images.

    predicted: (n,) int64, the class with the highest logit, the lowest of equals. confidence: (n,) float64, its softmax, 0
    to 1. log_odds: (n,) float64, natural logarithm, of the class that the image was made for; NaN where the classifier
    has no class of that label.
    """

    predicted: np.ndarray
    confidence: np.ndarray
    log_odds: np.ndarray


def answer_all(classifiers: Sequence[SetClassifier], folder: Path, report: Callable[[str], None]) -> None:
    """Let every classifier answer to the images of every cell, unless its file is there.

    A file is of the classifier's fingerprint and the images' bytes; if either changes it is made anew. report is called
    after each batch; what it raises passes through, and the files until then are kept.
    """
    for scorer in classifiers:
        for source in classifiers:
            for cell in source.cells:
                with StoredRun(cell.folder) as run:
                    elites = run.elites()
                path, key = file_of(folder, scorer, source, cell.folder), _key(scorer, elites)
                if _read(path, key) is None:
                    context = f"{scorer.name} on {source.name}, {cell.folder.name}"
                    write_whole(path, _packed(_answers(scorer, source, elites, context, report), key))


def read_answers(folder: Path, scorer: SetClassifier, source: SetClassifier, cell: Path, elites: Sequence[Elite]) -> Answers:
    """What answer_all has written of a cell's elites. KeyError if there is no such file, or one of other images."""
    found = _read(path := file_of(folder, scorer, source, cell), _key(scorer, elites))
    if found is None:
        raise KeyError(path)
    return found


def file_of(folder: Path, scorer: SetClassifier, source: SetClassifier, cell: Path) -> Path:
    """The file of a classifier's answers to the elites of a cell of another, or of its own."""
    return folder / FOLDER / scorer.name / source.name / f"{cell.name}.safetensors"


def _answers(
    scorer: SetClassifier, source: SetClassifier, elites: Sequence[Elite], context: str, report: Callable[[str], None]
) -> Answers:
    logits, row = logits_of(scorer.target, [elite.row.png for elite in elites], _BATCH, context, report)
    log_odds = np.asarray(scores.log_odds(logits), np.float64)[row]
    predicted, images = logits[row].argmax(axis=1).astype(np.int64), np.arange(len(row))
    classes = matching_classes(source.target.labels, scorer.target.labels)[[elite.row.class_id for elite in elites]]
    of_class = np.where(classes >= 0, log_odds[images, classes], np.nan)
    return Answers(predicted, np.asarray(scores.confidence(log_odds[images, predicted]), np.float64), of_class)


def _key(scorer: SetClassifier, elites: Sequence[Elite]) -> str:
    digest = hashlib.sha256(f"{_FORMAT} {_BATCH} {scorer.target.fingerprint()}".encode())
    for elite in elites:
        digest.update(f" {elite.row.class_id} {hashlib.sha256(elite.row.png).hexdigest()}".encode())
    return digest.hexdigest()


def _packed(answers: Answers, key: str) -> bytes:
    return save({name: np.ascontiguousarray(value) for name, value in answers._asdict().items()}, {"key": key})


def _read(path: Path, key: str) -> Answers | None:
    """The answers in a file; None if there is none, or if it is damaged or of other images or another classifier."""
    try:
        with safe_open(path, "np") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            return Answers(*(file.get_tensor(name) for name in Answers._fields))
    except (OSError, SafetensorError, KeyError):
        return None

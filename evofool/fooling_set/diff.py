"""What differs between two versions of a set: images added, removed and changed, and answers that are no longer the same."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evofool.fooling_set.index import SetIndex
from evofool.fooling_set.rows import matrix_columns
from evofool.fooling_set.table import read_table


@dataclass(frozen=True)
class ChangedAnswers:
    """The answers of one classifier to the images that both sets have unchanged, and that it answered in both.

    images: how many these are. predicted: of them, other predictions. log_odds: other log-odds of the class that the image
    was made for; largest: by how much at most, natural logarithm, None where no log-odds can be compared.
    """

    images: int
    predicted: int
    log_odds: int
    largest: float | None


@dataclass(frozen=True)
class SetDiff:
    """The differences of two sets, the first to the second. Images are named by their ids.

    versions: of both. added_classifiers and removed_classifiers by name; changed_classifiers: of another fingerprint.
    changed: images of one id whose pixels differ. answers: by classifier of both sets.
    """

    versions: tuple[str, str]
    added_classifiers: tuple[str, ...]
    removed_classifiers: tuple[str, ...]
    changed_classifiers: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: int
    answers: Mapping[str, ChangedAnswers]

    @property
    def same(self) -> bool:
        """Whether both sets have the same classifiers, images and answers."""
        lists = self.added_classifiers, self.removed_classifiers, self.changed_classifiers, self.added, self.removed
        return not any((*lists, self.changed)) and not any(of.predicted or of.log_odds for of in self.answers.values())

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"same": self.same}


def diff(a: Path, b: Path) -> SetDiff:
    """The differences of the sets in two folders. StoreError if one has no set, or a damaged one."""
    one, two = SetIndex.read(a), SetIndex.read(b)
    left, right = _rows(a, one), _rows(b, two)
    both = [name for name in left if name in right]
    kept = [name for name in both if left[name]["sha256"] == right[name]["sha256"]]
    shared = [name for name in one.classifiers if name in two.classifiers]
    fingerprints = {name: (one.classifiers[name]["fingerprint"], two.classifiers[name]["fingerprint"]) for name in shared}
    return SetDiff(
        (one.version, two.version),
        tuple(name for name in two.classifiers if name not in one.classifiers),
        tuple(name for name in one.classifiers if name not in two.classifiers),
        tuple(name for name, (before, after) in fingerprints.items() if before != after),
        tuple(name for name in right if name not in left),
        tuple(name for name in left if name not in right),
        tuple(name for name in both if left[name]["sha256"] != right[name]["sha256"]),
        len(kept),
        {name: _answers(name, [(left[image], right[image]) for image in kept]) for name in shared},
    )


def _answers(classifier: str, pairs: list[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> ChangedAnswers:
    predicted, log_odds = f"predicted/{classifier}", f"log_odds/{classifier}"
    known = [(a[log_odds], b[log_odds]) for a, b in pairs]
    apart = [abs(a - b) for a, b in known if a is not None and b is not None]
    return ChangedAnswers(
        len(pairs),
        sum(a[predicted] != b[predicted] for a, b in pairs),
        sum(a != b for a, b in known),
        max(apart, default=None),
    )


def _rows(folder: Path, index: SetIndex) -> dict[str, dict[str, Any]]:
    """By id the hash of each image and the answers to it."""
    columns = {"id": "string", "sha256": "string", **matrix_columns(list(index.classifiers))}
    return {row["id"]: row for row in read_table(folder, columns)}

"""What makes two results comparable: the conditions under which their figures were measured.

The board, the report, the reference rows and `bench compare` all ask here, so that what one of them keeps apart no other
puts side by side. Results are the JSON of evofool bench, or the parts of it that records with defaults keep.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from evofool.bench.arms import arm_title, earlier_changes
from evofool.images import is_large
from evofool.targets.kinds import SEVERAL, pipelines_of

Result = Mapping[str, Any]


def answers_text(result: Result) -> str:
    """Of how many answers an answer of the target is made: "average=16", "views=8", or "one answer to each image"."""
    found = {option: int(result["target"].get(option) or 0) for option in SEVERAL}
    said = [f"{option}={n}" for option, n in found.items() if n > 1]
    if (number := pipelines_of(result["target"])) > 1:
        said.append(f"{number} pipelines (through=)")
    return ", ".join(said) or "one answer to each image"


def other_answers(results: Iterable[Result]) -> str:
    """Why queries of these results do not compare, "" if they do: an image of some targets takes several queries.

    With average=N, views=N or N pipelines an image takes N queries, so that fewer images fit in the same budget, whatever
    the network.
    """
    by_answers: dict[str, str] = {}
    for result in results:
        by_answers.setdefault(answers_text(result), result["target"]["name"])
    if len(by_answers) < 2:
        return ""
    return "; ".join(f"{name} was measured with {answers}" for answers, name in by_answers.items())


def conditions(result: Result) -> dict[str, Any]:
    """By name, what has to be equal before any figures of two results are compared."""
    protocol = result["protocol"]
    return {
        "rank": protocol["rank"],
        "format": protocol["format"],
        "levels": dict(protocol["levels"]),
        "answers": answers_text(result),
        # Arms have other settings for large images.
        "large images": is_large(tuple(result["target"]["shape"])),
    }


def suite_conditions(result: Result) -> dict[str, Any]:
    """By name, what has to be equal for two headlines to count the same attacks: conditions, and those of the suite.

    These are the version and confidence of the protocol, the attacks with what each climbs instead of masked gradients,
    their settings, and the queries a class that count. The result is valid and has a headline.
    """
    protocol, scores = result["protocol"], result["scores"]
    arms = scores["headline"]["arms"]
    return {
        "version": result["version"],
        **conditions(result),
        "confidence": protocol["confidence"],
        "attacks": [arm_title(arm, scores["arms"].get(arm, {})) for arm in arms],
        "settings": {arm: list(earlier_changes(arm, protocol["settings"].get(arm, ()))) for arm in arms},
        "queries a class": scores["headline"]["queries_per_class"],
    }


def headline_conditions(result: Result) -> dict[str, Any]:
    """By name, what has to be equal for two headlines to be ranked in one table.

    suite_conditions, and the real images (their files, so that targets of different size compare; of an older result the
    pixels as the target sees them), which set the thresholds, the classes that are scored, the budget that each attack had,
    and the acceptance scores.
    """
    images, headline = result["images"], result["scores"]["headline"]
    unscored = {*images.get("classes_without_images", ()), *images.get("classes_left_out", ())}
    return {
        **suite_conditions(result),
        "real images": images.get("content_sha256") or images["sha256"],
        "scored classes": sorted(set(result["target"]["labels"]) - unscored),
        "budget a class": headline["attack_queries_per_class"],
        "acceptance scores": sorted(headline["by_score"]),
    }

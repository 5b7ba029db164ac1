"""The data card of a set, README.md: what is in it, how it was made, and what may and may not be concluded from it."""

import json
from collections.abc import Mapping

from evofool.export.card import CITATION, size_category
from evofool.fooling_set.index import CONFIDENT, SetIndex
from evofool.fooling_set.layouts import IMAGES, SHARDS, TABLE
from evofool.fooling_set.rows import COLUMNS, DESCRIPTIONS, LICENSE, matrix_descriptions

_MB = 1e6


def set_card(index: SetIndex, title: str, judged: int, measured: int) -> str:
    """YAML that the hub and the `datasets` library read, then Markdown for people.

    judged: of how many images people said what they see. measured: how many were compared with real images.
    """
    return "\n".join(
        [
            _front_matter(index, title),
            f"# {title}, version {index.version}\n",
            description(index) + "\n",
            _CAUTION,
            _people(judged, index.images),
            _classifiers(index),
            _counts(index),
            _columns(index, measured),
            _files(index),
            _made(index),
            _LIMITS,
            CITATION,
        ]
    )


def description(index: SetIndex) -> str:
    """The set in two sentences."""
    arms = list(dict.fromkeys(arm for counts in index.counts.values() for arm in counts))
    part = f" A sample: at most {index.sample} images of each classifier and arm." if index.sample else ""
    return (
        f"{index.images:,} fooling images of {len(index.classifiers)} image classifiers, made by {', '.join(arms)}, with "
        "the answers of every classifier to every image. Made by evofool "
        f"{index.evofool}; licence {LICENSE}.{part}"
    )


def _front_matter(index: SetIndex, title: str) -> str:
    return "\n".join(
        [
            "---",
            f"pretty_name: {json.dumps(title)}",
            f"license: {LICENSE.lower()}",
            f"size_categories: [{json.dumps(size_category(index.images))}]",
            "tags: [fooling-images, robustness, out-of-distribution, evofool]",
            "configs:",
            "- config_name: default",
            "  data_files:",
            "  - split: train",
            f"    path: {json.dumps(TABLE)}",
            "---",
            "",
        ]
    )


_CAUTION = """**A label here says which class an image was made for, not what it shows.** The images were made so that a
classifier assigns them to a class, and were not drawn to show anything. Nothing here shows that an image is unrecognisable
but the answers of people.
"""


def _people(judged: int, images: int) -> str:
    if not judged:
        return "Nobody was asked what these images show: the columns `verdict...` are empty. No program fills them.\n"
    return f"People were asked what {judged:,} of {images:,} images show: the columns `verdict...`. No program fills them.\n"


def _classifiers(index: SetIndex) -> str:
    rows = [
        f"| {name} | {of['group']} | `{of['spec']}` | {len(of['labels']):,} | {' x '.join(map(str, of['shape']))} | "
        f"`{of['weights_sha256'] or 'not known'}` | `{of['fingerprint']}` |"
        for name, of in index.classifiers.items()
    ]
    notes = [f"- {name}: {note}" for name, of in index.classifiers.items() for note in of["notes"]]
    noted = ["", "What was noted of them:", "", *notes] if notes else []
    head = "| name | group | spec | labels | input (C, H, W) | SHA-256 of the weights | fingerprint |"
    return "\n".join(["## The classifiers\n", head, "|---|---|---|---|---|---|---|", *rows, *noted, ""])


def _counts(index: SetIndex) -> str:
    arms = list(dict.fromkeys(arm for counts in index.counts.values() for arm in counts))
    rows = [
        f"| {name} | " + " | ".join(_numbers(counts[arm]) if arm in counts else "-" for arm in arms) + " |"
        for name, counts in index.counts.items()
    ]
    sizes = (
        f"{index.images:,} images: their PNGs have {index.png_bytes / _MB:.1f} MB, their genomes as JSON "
        f"{index.genome_bytes / _MB:.1f} MB (where the genome is the pixels there is none). No run is included.\n"
    )
    meaning = (
        "In each place: how many images there are, to how many the classifier that they were made for gives their class, "
        f"and to how many of these with a confidence of {CONFIDENT:.0%} or more.\n"
    )
    head = ["## How many images\n", meaning, f"| made for | {' | '.join(arms)} |", "|---|" + "---|" * len(arms)]
    return "\n".join([*head, *rows, "", sizes])


def _numbers(counts: Mapping[str, int]) -> str:
    return f"{counts['images']:,} / {counts['predicted']:,} / {counts['confident']:,}"


def _columns(index: SetIndex, measured: int) -> str:
    listed = [f"- `{name}`: {DESCRIPTIONS[name]}" for name in ("image", "label", *COLUMNS)]
    example = next(iter(index.classifiers))
    matrix = [f"- `{name}`: {words}" for name, words in matrix_descriptions([example]).items()]
    if not measured:
        compared = "The images were not compared with real ones, so the columns of distances are empty.\n"
    else:
        compared = (
            f"{measured:,} of the {index.images:,} images were compared with real images. The columns are empty where an "
            "image was not, or where a measure needs what was not given.\n"
        )
    return "\n".join(
        [
            "## Columns\n",
            *listed,
            "",
            "The matrix has three columns for each classifier, which saw every image resized to its input without cropping "
            f"(bilinear, grey from RGB by luma and RGB from grey by repetition), in float32. Those of `{example}`:\n",
            *matrix,
            "",
            compared,
        ]
    )


def _files(index: SetIndex) -> str:
    rows = [f"| `{path}` | {of['bytes'] / _MB:.2f} | `{of['sha256']}` |" for path, of in index.files.items()]
    return "\n".join(
        [
            "## Files\n",
            f"The same images in three layouts. `{TABLE}`: a row for each image, for `datasets.load_dataset(FOLDER)`. "
            f"`{IMAGES}/GROUP`: a folder for each class, for `torchvision.datasets.ImageFolder`, with genomes beside the "
            f"images. `{SHARDS}/`: tar shards, for the library webdataset. `croissant.json` describes them.\n",
            "| file | MB | SHA-256 |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _made(index: SetIndex) -> str:
    return (
        "## How they were made\n\n"
        f"By `evofool set build`, evofool {index.evofool}, from this recipe. On one kind of machine the same recipe gives "
        f"the same bytes.\n\n```json\n{json.dumps(index.recipe, indent=1)}\n```\n"
    )


_LIMITS = f"""## What may not be concluded

- *How robust a classifier is.* The budgets are small, and each image is the best of one search. The
  protocol of `evofool bench` has thresholds, repetitions and intervals; this set has none of them.
- *How often images transfer.* The images were chosen by one classifier each. They are no random sample of anything, and
  those of one `lineage` or one cell (classifier, arm and seed) are not independent: count cells, not images.
- *That an image fools its own classifier.* All images of a cell are here, also those that reached no high score. `margin`
  above 0: the classifier predicts the class.
- *That confidences of two classifiers can be compared.* They depend on each network's temperature and preprocessing.
- *That an image is unrecognisable, or recognisable.* Distances and shapes are measures. Only `verdict` is from people.
- *That labels are true.* Do not train a classifier to predict them.

## Licence

The images and this card: {LICENSE}. The classifiers and the real images that measures compare with have their own.
"""

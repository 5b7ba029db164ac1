"""The data card of an exported archive: what its images are, how they were made, what their scores mean, what they are for.

It has nothing about the machine that wrote it: of files it has names and hashes, but no folders.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from evofool.errors import RecipeError
from evofool.run.meta import AttackState
from evofool.run.stored import StoredRun
from evofool.targets.kinds import fed_by_server, server_kind
from evofool.targets.redaction import last_part, public_name, without_folders

_HUB = (
    *(
        "apache-2.0",
        "mit",
        "bsd-2-clause",
        "bsd-3-clause",
        "mpl-2.0",
        "isc",
        "unlicense",
        "cc0-1.0",
        "cc-by-3.0",
        "cc-by-4.0",
    ),
    *("cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0"),
)
"""SPDX identifiers, in lower case, that are licences on Hugging Face's hub under the same name."""

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
# The keys of an attack's plan that the card has.
_SETTINGS = (
    "by",
    "surrogates",
    "settings",
    "gradients",
    "units",
    "budget",
    "rank",
    "rate",
    "grow",
    "seed",
    "target_confidence",
)


@dataclass(frozen=True)
class Exported:
    """What an export has written: the layout, how many images of how many classes, at what size (None: as stored).

    methods: what made these images (Elite.summary()), and how many of them. runners_up: how many of the images are no
    elites; None: only elites were to be written.
    """

    layout: str
    images: int
    classes: int
    methods: Mapping[str, int]
    size: int | None
    resampled: int  # of the images: not drawn again at this size, but resampled
    license: str | None
    runners_up: int | None = None


def refuse_license(license: str | None) -> None:
    """RecipeError for what is no SPDX identifier."""
    if license is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", license):
        raise RecipeError(
            f'the license "{license}" is no SPDX identifier; one is CC-BY-4.0 or MIT (https://spdx.org/licenses)'
        )


def card(run: StoredRun, exported: Exported, people: str) -> str:
    """README.md of the folder: YAML that the hub and the `datasets` library read, then Markdown for people.

    people: what people said of the images, in sentences.
    """
    name = public_name(run.meta.target.name)
    parts = [
        _front_matter(name, exported),
        f"# Images that fool {name}\n",
        _what(run, name, exported, people),
        _classifier(run, name),
        _made(run, exported.methods),
        _scores(run, exported),
        _files(run, exported),
        _limits(run, exported),
        CITATION,
    ]
    return "\n".join(parts)


def _front_matter(name: str, exported: Exported) -> str:
    license = exported.license
    if license is None:
        stated = ["license: unknown"]
    elif license.lower() in _HUB:
        stated = [f"license: {license.lower()}"]
    else:
        stated = ["license: other", f"license_name: {_quoted(license.lower())}"]
    size = size_category(exported.images)
    parquet = exported.layout == "parquet"
    return "\n".join(
        [
            "---",
            f"pretty_name: {_quoted(f'Images that fool {name}')}",
            *stated,
            f"size_categories: [{_quoted(size)}]",
            "tags: [fooling-images, robustness, out-of-distribution, evofool]",
            "configs:",
            "- config_name: default",
            "  data_files:",
            "  - split: train",
            f"    path: {_quoted('data/train-*.parquet' if parquet else '*/*.png')}",
            # A data set of one class has labels too.
            *([] if parquet else ["  drop_labels: false"]),
            "---",
            "",
        ]
    )


def size_category(images: int) -> str:
    """The hub's word for the size of a data set."""
    return next((words for below, words in _SIZES if images < below), "n>1M")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a text in JSON is one in YAML


def _what(run: StoredRun, name: str, exported: Exported, people: str) -> str:
    channels, height, width = run.shape
    kind = "grey" if channels == 1 else "RGB"
    size = f"{width} x {height} pixels" if exported.size is None else f"made anew with {exported.size} pixels a side"
    others = f", {exported.runners_up:,} of them runners-up" if exported.runners_up else ""
    return (
        f"{exported.images:,} fooling images{others}, 8-bit {kind}, {size}, for {exported.classes:,} of the "
        f"{len(run.labels):,} classes of `{name}`.\n\n"
        "**A label here says what the classifier calls an image, or was meant to, not what the image shows.** The images "
        "were made for the classifier to be sure of a class, and were not drawn to show anything. Nothing here shows that "
        f"an image is unrecognisable but the answers of people.\n\n{people}\n"
    )


def _classifier(run: StoredRun, name: str) -> str:
    target = run.meta.target
    details = target.details
    rows = {"name": f"`{name}`"}
    if "file" in details and server_kind(str(details["file"])) is None:
        rows["file"] = f"`{last_part(str(details['file']))}`"
    hashes = {
        "weights_sha256": "SHA-256 of the weights",
        "file_sha256": "SHA-256 of their file",
        "source_sha256": "SHA-256 of its code",
    }
    rows |= {words: f"`{details[key]}`" for key, words in hashes.items() if key in details}
    if not hashes.keys() & details.keys():
        rows["SHA-256 of the weights"] = "not known: a black box"
    rows["fingerprint"] = f"`{target.fingerprint}` (SHA-256 over labels, shape, preprocessing and weights)"
    rows["input"] = f"uint8 (channels, height, width) = {tuple(run.shape)}"
    if fed_by_server(details):
        rows["preprocessing"] = "by the server"
    elif "preprocessing" in details:
        rows["preprocessing"] = f"`{json.dumps(details['preprocessing'])}`"
    rows["outputs"] = str(details.get("outputs", "logits"))
    notes = [f"- {without_folders(note)}" for note in run.meta.warnings]
    noted = ["", "What was noted when it was asked:", "", *notes] if notes else []
    return "\n".join(["## The classifier\n", *(f"- {what}: {value}" for what, value in rows.items()), *noted, ""])


def _made(run: StoredRun, methods: Mapping[str, int]) -> str:
    if run.meta.merged is not None:
        lines = [f"The best of {len(run.meta.merged)} runs, class by class:", ""]
        lines += [f"- {_search(s.recipe, s.evaluations)}; run `{s.id}`" for s in run.meta.merged]
    elif run.meta.attack is not None:
        lines = [_attack(run.meta.attack)]
    else:
        lines = [_search(run.meta.recipe, run.elites_as_of)]
    if run.meta.seeds:
        lines += ["", "It began with images of another run, some of which may be among these."]
    if run.drifts:
        lines += [
            "",
            "The classifier was found to answer differently than at first. Images in whose row `drifted` is true were made "
            "after it last agreed with its first answers, so their scores may be those of another classifier.",
        ]
    lines += ["", f"Made: {', '.join(f'{number:,} {method}' for method, number in sorted(methods.items()))}."]
    own = f"\n\nRun `{run.meta.id}`."
    return "## How they were made\n\n" + "\n".join(lines) + own + f"\nExported by evofool {own_version()}.\n"


def _search(recipe: Mapping[str, Any], evaluations: int) -> str:
    encoding, search = recipe["encoding"], recipe.get("search", {})
    what = {
        "cppn": "CPPNs (graphs of functions)",
        "direct": "bare pixels",
        "canvas": "canvases (small mirrored pictures, varied by low-frequency operators)",
        "latent": "codes of a decoder (a network that was trained on real images)",
    }.get(encoding["kind"], encoding["kind"])
    competition = {
        "all": "every image competes in every class",
        "argmax": "an image competes in the class that it is called",
        "per-class": "classes are searched apart",
    }.get(search.get("competition", "all"), "")
    niches, surrogate = recipe.get("niches"), search.get("surrogate")
    climbs = ""
    if surrogate:
        names = ", ".join(f"`{public_name(name)}`" for name in surrogate["targets"])
        climbs = f"; {surrogate['share']:.0%} of the children climbed gradients of other networks ({names})"
        climbs += f" from evaluation {surrogate['after']:,} on" if surrogate.get("after") else ""
    shuns = ""
    if unlike := search.get("unlike"):
        shuns = (
            f'; images too near in shape to their class\'s digits were turned away (`search.unlike = "{unlike}"`, a measure)'
        )
    apart = f"; {len(niches['edges']) + 1} niches per class, by {niches['descriptor']}" if niches else ""
    return (
        f"MAP-Elites over {what}; {competition}; ranked by {search.get('rank', 'log_odds')}; "
        f"seed {search.get('seed', 0)}; batches of {search.get('batch', '?')}; {evaluations:,} evaluations"
        f"{apart}{climbs}{shuns}"
    )


def _attack(state: AttackState) -> str:
    plan = state.plan
    settings = {key: plan[key] for key in _SETTINGS if plan.get(key) not in (None, "", {}, [])}
    described = without_folders(", ".join(f"{key} {json.dumps(value)}" for key, value in settings.items()))
    source = f" of the elites of run `{plan['run']}`" if "run" in plan else ""
    return (
        f"By the method `{plan['method']}`{source}: {described}; "
        f"{state.forwards:,} forward and {state.backwards:,} backward passes"
    )


def _scores(run: StoredRun, exported: Exported) -> str:
    chunk, threads = run.recipe.chunk, run.recipe.compute.threads
    several = _SEVERAL if str(run.meta.target.details.get("outputs")).startswith("multilabel-") else ""
    machine = f"{run.meta.machine.get('cpu')}, torch {run.meta.machine.get('torch')}"
    return f"""## What the scores mean

Pixels are 8-bit: a score is that of the stored PNG, read back. It was measured with the float32 network, whatever
number format the search ranked by: {chunk} images a pass, {threads} thread{"s" if threads > 1 else ""}; {machine}.

With the logits z of an image and its class c:

- `log_odds` = log(p_c / (1 - p_c)) = z_c - log of the sum of exp(z_j) over the other classes j, natural logarithm; it
  goes on growing where a float32 softmax has reached 1
- `confidence` = 1 / (1 + exp(-log_odds)), the softmax's p_c
- `margin` = z_c - the largest other z_j; above 0 where the classifier calls the image c. A temperature scales all
  margins alike
{several}
`search_log_odds` and `search_margin` are what the search ranked by. `birth`, `mother` and `father` number the genomes of the
run (-1: none), `method` is what made one. `bytes_per_pixel` is the PNG's size. `nearest_real_*_percentile`,
`total_variation` are there if an image was measured. `verdict` is there if people were asked what they see: recognised (as
the class), taken for another class, unrecognised, or open. Of `verdict_raters` who passed the checks `verdict_named` named
the class; of `verdict_offered` who had it among their options `verdict_chosen` chose it.
{"" if exported.runners_up is None else _RUNNERS_UP}"""


_SEVERAL = """
The labels of this target do not exclude each other: `log_odds` and `margin` are log(p_c / (1 - p_c)) of the label's own
sigmoid, and `confidence` is its p_c.
"""

_RUNNERS_UP = """
`place` is 0 for the best image of a class, and 1, 2 and so on for the runners-up that the search kept. These were drawn
from their genomes for this data set. They were not measured in float32: `log_odds`, `margin`, `confidence` and
`bytes_per_pixel` are empty, and the confidence in a file's name follows from `search_log_odds`.
"""


def _files(run: StoredRun, exported: Exported) -> str:
    again = (
        ""
        if exported.size is None
        else f"{_redrawn(exported)}: scores are those of the size the classifier takes, {run.shape[2]} x {run.shape[1]}.\n"
    )
    if exported.layout == "parquet":
        return (
            "## Files\n\n`data/*.parquet`: a row for each image. `image` holds the PNG's bytes, `label` the class, "
            "`label_name` what it is called. `datasets.load_dataset(FOLDER)` decodes the pictures.\n" + again
        )
    return (
        "## Files\n\nA folder for each class, CLASS_LABEL, with its images, LABEL_CONFIDENCE_BIRTH.png"
        + (", and beside each its genome as JSON" if run.recipe.encoding.kind in ("cppn", "latent") else "")
        + (". `decoder.safetensors` draws images from the codes" if run.recipe.encoding.kind == "latent" else "")
        + ". `elites.csv`: everything that is known of each, by `file`. `datasets.load_dataset(FOLDER)` and "
        "`torchvision.datasets.ImageFolder` number the folders in order, which is the class's number where every class has "
        "one.\n" + again
    )


def _redrawn(exported: Exported) -> str:
    if not exported.resampled:
        return "The pictures were drawn again from their genomes at another size"
    drawn = exported.images - exported.resampled
    return f"{exported.resampled:,} pictures were resampled to another size by a triangle filter" + (
        f", and {drawn:,}, whose genomes are CPPNs, drawn again" if drawn else ""
    )


def _limits(run: StoredRun, exported: Exported) -> str:
    best = "each is the best that was found" if not exported.runners_up else "the best that were found were kept"
    stated = exported.license or "not stated; add it with --license"
    return f"""## What they are for, and what not

To study the outputs of classifiers far from their training data: to test detectors and defences, to test whether images
fool other classifiers too, and to compare explanations. The images were made against one classifier with one preprocessing:
the outputs of other classifiers were not measured, and a high confidence does not show how hard it was to reach. The labels
are not ground truth: do not train a classifier to predict them. The images are not a random sample: {best}.

## Licence

Of the images: {stated}. The classifier has its own.
"""


CITATION = """## Citation

```bibtex
@inproceedings{nguyen2015deep,
  title     = {Deep Neural Networks are Easily Fooled: High Confidence Predictions for Unrecognizable Images},
  author    = {Nguyen, Anh and Yosinski, Jason and Clune, Jeff},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2015}
}
```
"""


def own_version() -> str:
    """The version of evofool."""
    try:
        return version("evofool")
    except PackageNotFoundError:  # run from a folder of sources
        return "of unknown version"

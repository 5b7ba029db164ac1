"""The rows of a set: one for each fooling image, with what made it, what every classifier answers, and what was measured."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evofool.export.image_file import home
from evofool.fooling_set.answers import Answers, read_answers
from evofool.fooling_set.prepare import SetClassifier
from evofool.quiz.of_run import people_say
from evofool.quiz.verdicts import VERDICT_COLUMNS, verdict_columns
from evofool.run.schema import IMAGE_METRICS
from evofool.run.stored import Elite, StoredRun
from evofool.text import ascii_json
from genomes import Direct, Latent

LICENSE = "CC0-1.0"

_ELITE = {
    "confidence": "float64",
    "log_odds": "float64",
    "margin": "float64",
    "niche": "int64",
    "search_log_odds": "float64",
    "search_margin": "float64",
    "birth": "int64",
    "batch": "int64",
    "mother": "int64",
    "father": "int64",
    "method": "string",
    "bytes_per_pixel": "float64",
    **dict.fromkeys(IMAGE_METRICS, "float64"),
}
"""The columns that are keys of Elite.summary()."""

COLUMNS = {
    "id": "string",
    "group": "string",
    "label_name": "string",
    "classifier": "string",
    "target_fingerprint": "string",
    "weights_sha256": "string",
    "arm": "string",
    "encoding": "string",
    "seed": "int64",
    "lineage": "string",
    **_ELITE,
    **VERDICT_COLUMNS,
    "genome": "string",
    "decoder_sha256": "string",
    "sha256": "string",
    "license": "string",
}
"""The columns beside image, label and those of the matrix, with their types."""

DESCRIPTIONS = {
    "image": "the PNG that was scored",
    "label": "the number of the class that the image was made for, among the classifier's labels",
    "id": "CLASSIFIER/ARM-SEED/CLASS, with -NICHE where a class has several images; the same in all versions of a set",
    "group": "the group of classifiers",
    "label_name": "the label of the class that the image was made for; not what the image shows",
    "classifier": "the classifier that the image was made for",
    "target_fingerprint": "SHA-256 over the classifier's labels, shape, preprocessing and weights",
    "weights_sha256": "SHA-256 of the classifier's weights; empty of a black box",
    "arm": "the encoding or attack, as in evofool's benchmarks",
    "encoding": "the kind of genome: cppn, canvas, latent, or direct (pixels)",
    "seed": "the seed of the search",
    "lineage": "the first genome in the line of mothers: CLASSIFIER/ARM-SEED/BIRTH; images with the same one are related",
    "confidence": "the softmax of the class by the classifier itself, as the search's end measured it, 0 to 1",
    "log_odds": "log(p / (1 - p)) of that confidence, natural logarithm",
    "margin": "the class's logit minus the highest other one; above 0 where the classifier itself predicts the class",
    "niche": "which of the images of its class, where a class has several",
    "search_log_odds": "the log-odds in the number format that the search computed in",
    "search_margin": "the margin in that number format",
    "birth": "the number of the genome in its run",
    "batch": "the batch of its run in which the genome was made",
    "mother": "the birth of the first parent, -1 for none",
    "father": "the birth of the second parent, -1 for none",
    "method": "what made the genome",
    "bytes_per_pixel": "the size of the PNG by its pixels",
    "nearest_real_pixels_percentile": "distance of pixels to the nearest real image, as a percentile of held-out real ones",
    "nearest_real_hog_percentile": "the same by HOG",
    "nearest_real_features_percentile": "the same by the features of an independent network",
    "total_variation": "mean difference of neighbouring pixels",
    "nearest_own_shape_percentile": "HOG distance to the nearest real image of its class, both cropped and centred",
    "has_own_shape": "1 where that is small and no other class is nearer: a measure, not a verdict of people",
    "verdict": "what people said they see; empty where nobody was asked",
    "verdict_raters": "how many people judged it",
    "verdict_named": "how many of them named the class",
    "verdict_chosen": "how many of those who had the class among their options chose it",
    "verdict_offered": "how many people had the class among their options",
    "genome": "the genome as JSON; empty where the pixels are the genome",
    "decoder_sha256": "SHA-256 of the decoder that draws a latent genome: decoders/SHA-256.safetensors",
    "sha256": "SHA-256 of the PNG",
    "license": "the licence of the image",
}
"""What each column holds, but for those of the matrix."""

MATRIX = {
    "predicted": ("int64", "the class that {} predicts"),
    "confidence": ("float64", "the softmax of the class that {} predicts, 0 to 1"),
    "log_odds": (
        "float64",
        "by {}, the log-odds of the class that the image was made for; empty without such a label",
    ),
}


@dataclass(frozen=True)
class Row:
    """One image. values: by column, but for `image`. folder: of its class, in the layout of folders.

    decoder: the file that draws a latent genome, None for others.
    """

    values: dict[str, Any]
    png: bytes
    folder: str
    decoder: bytes | None = None

    @property
    def stem(self) -> str:
        """The name of its file: its id, without slashes."""
        return str(self.values["id"]).replace("/", "_")


def matrix_columns(classifiers: Sequence[str]) -> dict[str, str]:
    """The columns of the matrix, with their types: KIND/CLASSIFIER, by kind and classifier."""
    return {f"{kind}/{name}": dtype for kind, (dtype, _) in MATRIX.items() for name in classifiers}


def matrix_descriptions(classifiers: Sequence[str]) -> dict[str, str]:
    """What each column of the matrix holds."""
    return {f"{kind}/{name}": words.format(name) for kind, (_, words) in MATRIX.items() for name in classifiers}


def rows_of(classifiers: Sequence[SetClassifier], folder: Path) -> Iterator[list[Row]]:
    """The rows of each cell, in the order of the recipe; in a cell by class and niche."""
    for source in classifiers:
        for cell in source.cells:
            with StoredRun(cell.folder) as run:
                elites, verdicts = run.elites(), people_say(run)
                decoder = run.encoding.decoder if isinstance(run.encoding, Latent) else None
                answers = {s.name: read_answers(folder, s, source, cell.folder, elites) for s in classifiers}
                rows = []
                for number, elite in enumerate(elites):
                    own = {"arm": cell.arm, "seed": cell.seed, "encoding": run.recipe.encoding.kind}
                    own["decoder_sha256"] = None if decoder is None else hashlib.sha256(decoder).hexdigest()
                    own |= verdict_columns(verdicts.get(elite.row.cell), run.labels)
                    own |= _of_elite(source, f"{source.name}/{cell.folder.name}", run, elite) | _matrix(answers, number)
                    rows.append(Row(own, elite.row.png, f"{source.group.name}/{home(elite, run)}", decoder))
            yield rows


def _of_elite(source: SetClassifier, cell: str, run: StoredRun, elite: Elite) -> dict[str, Any]:
    summary, row = elite.summary(), elite.row
    niche = f"-{row.niche}" if run.niches > 1 else ""
    genome = None if isinstance(run.encoding, Direct) else ascii_json(run.genome_json(elite))
    first = run.store.descent(row.birth)[-1].birth
    return {
        **{name: summary[name] for name in _ELITE},
        "id": f"{cell}/{row.class_id}{niche}",
        "group": source.group.name,
        "label": row.class_id,
        "label_name": elite.label,
        "classifier": source.name,
        "target_fingerprint": run.meta.target.fingerprint,
        "weights_sha256": run.meta.target.details.get("weights_sha256"),
        "lineage": f"{cell}/{first}",
        "genome": genome,
        "sha256": hashlib.sha256(row.png).hexdigest(),
        "license": LICENSE,
    }


def _matrix(answers: dict[str, Answers], number: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, of in answers.items():
        log_odds = float(of.log_odds[number])
        found[f"predicted/{name}"] = int(of.predicted[number])
        found[f"confidence/{name}"] = float(of.confidence[number])
        found[f"log_odds/{name}"] = None if log_odds != log_odds else log_odds  # NaN: no such label
    return found


def json_row(row: Row) -> str:
    """A row as JSON, its columns in a fixed order."""
    return ascii_json(dict(sorted(row.values.items())))

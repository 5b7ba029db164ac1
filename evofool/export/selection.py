"""Some elites of a run as one ZIP: their images, their genomes, and tables of what is in it."""

import io
import zipfile
from collections.abc import Collection
from typing import Any

from evofool.csv_file import csv_text
from evofool.errors import StoreError
from evofool.export.image_file import genome_text, home, picture, stem
from evofool.quiz.of_run import EliteImages, people_say
from evofool.quiz.verdicts import verdict_columns
from evofool.run.stored import StoredRun
from evofool.targets.redaction import public_name
from evofool.text import to_json
from genomes import Direct, Latent

FORMAT, VERSION = "evofool.selection", 1
_TABLE, _MANIFEST, _DECODER = "elites.csv", "manifest.json", "decoder.safetensors"
_WHEN = (1980, 1, 1, 0, 0, 0)  # of every file: equal elites make equal bytes


def selection_zip(run: StoredRun, cells: Collection[int], known_images: EliteImages | None = None) -> bytes:
    """A ZIP of the elites of some cells, as they are stored, with what people said of them, at one checkpoint.

    CLASS_LABEL/LABEL_CONFIDENCE_BIRTH.png, and .json with the genome, unless it is the pixels; elites.csv, a row for each;
    manifest.json with the run, its target with the fingerprint, and the same rows with their files.
    known_images: as of people_say. StoreError if one of the cells has no elite.
    """
    with run.snapshot():
        elites = [elite for elite in run.elites() if elite.row.cell in cells]
        if len(elites) < len(set(cells)):
            missing = sorted(set(cells) - {elite.row.cell for elite in elites})
            more = f" and {len(missing) - 5:,} more" if len(missing) > 5 else ""
            raise StoreError(f"{run.folder.name} has no image in the cells {', '.join(map(str, missing[:5]))}{more}")
        verdicts = people_say(run, known_images)
        buffer, rows = io.BytesIO(), list[dict[str, Any]]()
        with zipfile.ZipFile(buffer, "w") as archive:

            def add(name: str, content: bytes | str) -> None:
                packed = zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
                archive.writestr(zipfile.ZipInfo(name, _WHEN), content, packed)

            for elite in elites:
                name, genome = f"{home(elite, run)}/{stem(elite, run)}", ""
                add(f"{name}.png", picture(elite, run))
                if not isinstance(run.encoding, Direct):
                    genome = f"{name}.json"
                    add(genome, genome_text(elite, run))
                own = elite.summary() | verdict_columns(verdicts.get(elite.row.cell), run.labels)
                rows.append({"file": f"{name}.png", "genome": genome, **own})
            if isinstance(run.encoding, Latent):
                add(_DECODER, run.encoding.decoder)
            target = {"target": public_name(run.meta.target.name), "target_fingerprint": run.meta.target.fingerprint}
            add(_TABLE, csv_text([*rows[0], *target], [{**row, **target} for row in rows]))
            manifest = {
                "format": FORMAT,
                "version": VERSION,
                "run": run.folder.name,
                "run_id": run.meta.id,
                **target,
                "evaluations": run.elites_as_of,
                "elites": rows,
            }
            add(_MANIFEST, to_json(manifest) + "\n")
    return buffer.getvalue()

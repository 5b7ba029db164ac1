"""The three layouts of a set, written row by row: a Parquet table, folders of classes, and tar shards for WebDataset.

Equal rows make equal bytes: nothing of the time, the machine or the user is written.
"""

import io
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from evofool.csv_file import write_csv
from evofool.export.parquet import table_writer
from evofool.fooling_set.rows import COLUMNS, Row, json_row, matrix_columns

TABLE = "data/train-00000-of-00001.parquet"
IMAGES, METADATA = "images", "images/metadata.csv"
DECODERS = "decoders"
SHARDS, _SHARD = "webdataset", 1_000  # images of a shard
_GROUP = 256  # rows of the table that are read at once
_MODE = 0o644


@contextmanager
def all_layouts(folder: Path, classifiers: Sequence[str]) -> Iterator[Callable[[list[Row]], None]]:
    """A function that appends rows to every layout in a folder. classifiers: their names, for the matrix's columns."""
    columns = {**COLUMNS, **matrix_columns(classifiers)}
    with ExitStack() as stack:
        (folder / TABLE).parent.mkdir(parents=True)
        write_table = stack.enter_context(table_writer(folder / TABLE, columns))
        write_images = stack.enter_context(_image_folders(folder, list(columns)))
        write_shards = stack.enter_context(_shards(folder / SHARDS))

        waiting: list[Row] = []  # for a group of rows, whose number of columns is large beside a cell's number of images

        def flush() -> None:
            write_table([{**row.values, "image": {"bytes": row.png, "path": f"{row.stem}.png"}} for row in waiting])
            waiting.clear()

        def write(rows: list[Row]) -> None:
            for row in rows:
                waiting.append(row)
                if len(waiting) == _GROUP:
                    flush()
            write_images(rows)
            write_shards(rows)
            for row in rows:
                _keep_decoder(folder, row)

        yield write
        flush()


def _keep_decoder(folder: Path, row: Row) -> None:
    """decoders/SHA-256.safetensors, once for all rows that need it."""
    path = folder / DECODERS / f"{row.values['decoder_sha256']}.safetensors"
    if row.decoder is not None and not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(row.decoder)


@contextmanager
def _image_folders(folder: Path, columns: Sequence[str]) -> Iterator[Callable[[list[Row]], None]]:
    """images/GROUP/CLASS_LABEL/ID.png, beside each its genome as JSON unless the pixels are it, and images/metadata.csv."""
    shown = [name for name in columns if name != "genome"]
    listed: list[dict[str, Any]] = []

    def write(rows: list[Row]) -> None:
        for row in rows:
            home = folder / IMAGES / row.folder
            home.mkdir(parents=True, exist_ok=True)
            (home / f"{row.stem}.png").write_bytes(row.png)
            if row.values["genome"] is not None:
                (home / f"{row.stem}.json").write_text(row.values["genome"] + "\n", encoding="utf-8")
            values = {name: row.values[name] for name in ("label", *shown)}
            listed.append({"file_name": f"{row.folder}/{row.stem}.png", **values})

    yield write
    write_csv(folder / METADATA, ["file_name", "label", *shown], listed)


@contextmanager
def _shards(folder: Path) -> Iterator[Callable[[list[Row]], None]]:
    """train-000000.tar and so on: of each image NUMBER.png, NUMBER.cls with its label, and NUMBER.json with its row."""
    folder.mkdir()
    number, archive = 0, None
    with ExitStack() as shard:

        def write(rows: list[Row]) -> None:
            nonlocal number, archive
            for row in rows:
                if archive is None or number % _SHARD == 0:
                    shard.close()
                    path = folder / f"train-{number // _SHARD:06d}.tar"
                    archive = shard.enter_context(tarfile.open(path, "w", format=tarfile.USTAR_FORMAT))
                parts = {"png": row.png, "cls": str(row.values["label"]).encode(), "json": json_row(row).encode()}
                for kind, content in parts.items():
                    _add(archive, f"{number:08d}.{kind}", content)
                number += 1

        yield write


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), _MODE  # its time is 0, its owner nobody
    archive.addfile(entry, io.BytesIO(content))

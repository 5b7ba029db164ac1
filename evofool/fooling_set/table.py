"""Reading the table of a set."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from evofool.errors import EvofoolError, StoreError
from evofool.fooling_set.index import folder_of
from evofool.fooling_set.layouts import TABLE


def read_table(folder: Path, columns: Mapping[str, str], images: bool = False) -> list[dict[str, Any]]:
    """The rows of a set's table, with these columns, which have these types; `id` is one of them.

    images: with the column image, a struct of the PNG's bytes and a name. StoreError for a table without a column, with
    other types, or with an id that is missing or there twice. EvofoolError without pyarrow.
    """
    path = folder_of(folder) / TABLE
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise EvofoolError(f"Parquet needs pyarrow ({error}): pip install 'evofool[bench]'") from None
    fields = [(name, arrow.type_for_alias(kind)) for name, kind in columns.items()]
    if images:
        fields.append(("image", arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])))
    schema = arrow.schema(fields)
    try:
        table = parquet.read_table(path, columns=schema.names)
        rows: list[dict[str, Any]] = table.select(schema.names).cast(schema).to_pylist()
        ids = {row["id"] for row in rows}
        if len(ids) < len(rows) or None in ids:
            raise ValueError("it has an id twice, or an image without one")
        if images and any(not (row["image"] or {}).get("bytes") for row in rows):
            raise ValueError("it has a row without an image")
    except (OSError, ValueError, KeyError, arrow.ArrowException) as error:
        raise StoreError(f"{path} cannot be read as the table of a set ({error})") from None
    return rows

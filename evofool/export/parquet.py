"""Elites as a Parquet table in the layout of Hugging Face's data sets: a picture in every row, and what is known of it."""

import json
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from evofool.errors import EvofoolError, ImageError
from evofool.export.image_file import picture, stem
from evofool.quiz.of_run import people_say
from evofool.quiz.verdicts import VERDICT_COLUMNS, Verdict, verdict_columns
from evofool.run.schema import IMAGE_METRICS
from evofool.run.stored import Elite, ListedElite, ListedRunnerUp, StoredRun
from evofool.whole_file import whole_file

COLUMNS = {
    "label_name": "string",
    "confidence": "float64",
    "log_odds": "float64",
    "margin": "float64",
    "birth": "int64",
    "run": "string",
    "niche": "int64",
    "search_log_odds": "float64",
    "search_margin": "float64",
    "batch": "int64",
    "mother": "int64",
    "father": "int64",
    "method": "string",
    "bytes_per_pixel": "float64",
    **dict.fromkeys(IMAGE_METRICS, "float64"),
    **VERDICT_COLUMNS,
    "drifted": "bool",
    "record_sha256": "string",
}
"""The columns beside image and label: the keys of Elite.summary(), the run's id, and what people said."""

_UNLIKE = {"record_sha256", "sha256", "id", "genome"}  # texts that differ from row to row
_GROUP = 256  # rows that are made, and can be read, at once
_Part = tuple[StoredRun, Sequence[ListedElite], Mapping[str, object]]  # a run, its elites, the extra columns' values
_TYPES = {bool: "bool", int: "int64", float: "float64", str: "string"}


def write_elites(path: Path, runs: Sequence[tuple[Path, Mapping[str, object]]], size: int | None = None) -> int:
    """Write the elites of the runs in these folders into one table, run after run; returns how many there are.

    image: a struct of bytes, the PNG as stored, and path, a file name for it; label: int64, the class; COLUMNS; and the
    extra columns that are given with each run, plain values of the same names for all runs, None where one is not known. A
    label is a ClassLabel where all runs have the same labels. size: CPPNs are drawn again, as elite_file.picture does;
    scores stay those of the stored PNG.

    A run without elites has no row. One run at a time is open, its elites in memory. The file appears whole or not at all.
    EvofoolError without pyarrow; StoreError if the path cannot be written; ValueError for extra columns that cannot be.
    """
    extra = _extra([more for _, more in runs])
    labels = {_labels(folder) for folder, _ in runs}
    with closing(_opened(runs)) as opened:
        return _write(path, opened, labels.pop() if len(labels) == 1 else None, extra, size)


def write_run(
    path: Path,
    run: StoredRun,
    elites: Sequence[Elite],
    runners_up: Sequence[ListedRunnerUp] | None = None,
    size: int | None = None,
) -> int:
    """As write_elites, of these elites of one run, without extra columns.

    runners_up: rows that follow those of the elites, by place. With them, even if there are none, there is the column place:
    0 of an elite, and 1 of the next best.
    """
    if runners_up is None:
        return _write(path, [(run, elites, {})], run.labels, {}, size)
    parts: list[_Part] = [(run, elites, {"place": 0})]
    for place in sorted({each.place for each in runners_up}):
        parts.append((run, [each for each in runners_up if each.place == place], {"place": place}))
    return _write(path, parts, run.labels, {"place": "int64"}, size)


class TableImage(NamedTuple):
    """A row of a table: the file's name, or "", the label, and the PNG's bytes.

    confidence: of the class, by the classifier that the image was made for, 0 to 1; None where the table does not say.
    classifier: its name, or "".
    """

    name: str
    label: str
    png: bytes
    confidence: float | None = None
    classifier: str = ""


def read_images(file: Path) -> Iterator[TableImage]:
    """The images of a table that write_elites wrote, in order.

    Anybody's table will do that has the columns image and label_name; confidence and classifier are read where they are.
    EvofoolError without pyarrow; ImageError, naming the file and the row, for a table without them, or with other values in
    them, and for what is no Parquet.
    """
    arrow, parquet = _pyarrow()
    done = 0
    try:
        with parquet.ParquetFile(file) as table:
            names = set(table.schema_arrow.names)
            if missing := {"image", "label_name"} - names:
                raise ImageError(
                    f"{file} has no column {', '.join(sorted(missing))}: it is no table of evofool export --format parquet"
                )
            columns = ["image", "label_name", *sorted({"confidence", "classifier"} & names)]
            for batch in table.iter_batches(_GROUP, columns=columns):
                for number, row in enumerate(batch.to_pylist(), done):
                    yield _image_of(row, f"{file}, row {number}")
                done += len(batch)
    except EvofoolError:
        raise
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise ImageError(f"{file} cannot be read as a table of pictures ({error})") from None


def _image_of(row: Mapping[str, Any], where: str) -> TableImage:
    image, label = row["image"], row["label_name"]
    if not isinstance(label, str):
        raise ImageError(f"{where}: its label_name is {label!r:.60}; it has to be what the class is called, a text")
    png = image.get("bytes") if isinstance(image, dict) else None
    if not isinstance(png, bytes):
        raise ImageError(f"{where}: its image is no struct of bytes, a PNG's, and path, as Hugging Face's data sets have it")
    path, p, classifier = image.get("path"), row.get("confidence"), row.get("classifier")
    return TableImage(
        path if isinstance(path, str) else "",
        label,
        png,
        p if isinstance(p, float) and 0 <= p <= 1 else None,
        classifier if isinstance(classifier, str) else "",
    )


def _pyarrow() -> tuple[Any, Any]:
    try:
        with warnings.catch_warnings(action="ignore"):
            return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise EvofoolError(f"Parquet needs pyarrow ({error}): pip install 'evofool[bench]'") from None


def _labels(folder: Path) -> tuple[str, ...]:
    with StoredRun(folder) as run:
        return tuple(run.labels)


def _opened(runs: Sequence[tuple[Path, Mapping[str, object]]]) -> Generator[_Part, None, None]:
    for folder, more in runs:
        with StoredRun(folder) as run:
            yield run, run.elites() if run.store.cells() else [], more


def _write(
    path: Path, parts: Iterable[_Part], labels: Sequence[str] | None, extra: Mapping[str, str], size: int | None
) -> int:
    written = 0
    with table_writer(path, {**COLUMNS, **extra}, labels) as write_rows:
        for run, elites, more in parts:
            verdicts = people_say(run)
            for at in range(0, len(elites), _GROUP):
                write_rows([_row(elite, run, size, verdicts) | dict(more) for elite in elites[at : at + _GROUP]])
            written += len(elites)
    return written


@contextmanager
def table_writer(
    path: Path, columns: Mapping[str, str], labels: Sequence[str] | None = None
) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """A function that appends rows to a table, which appears whole at the end of the block, or not at all.

    A row has image, a struct of bytes and path; label, an int64; and the columns, given with their types. labels: the names
    of the classes, if all rows have the same. Equal rows in equal parts make equal bytes. EvofoolError without pyarrow.
    """
    arrow, parquet = _pyarrow()
    schema = _schema(arrow, labels, columns)
    words = [name for name, kind in columns.items() if kind == "string" and name not in _UNLIKE]
    # Pictures are packed already.
    packing = {name: "NONE" if name == "image.bytes" else "SNAPPY" for name in _leaves(schema)}
    with (
        whole_file(path) as draft,
        parquet.ParquetWriter(draft, schema, compression=packing, use_dictionary=words) as writer,
    ):
        yield lambda rows: writer.write_table(arrow.Table.from_pylist(rows, schema))


def _row(elite: ListedElite, run: StoredRun, size: int | None, verdicts: Mapping[int, Verdict]) -> dict[str, Any]:
    verdict = None if isinstance(elite, ListedRunnerUp) else verdicts.get(elite.row.cell)
    summary = elite.summary() | verdict_columns(verdict, run.labels)
    image = {"bytes": picture(elite, run, size), "path": f"{stem(elite, run)}.png"}
    own = {"image": image, "label": summary["class"], "label_name": summary["label"], "run": run.meta.id}
    return {name: summary[name] for name in COLUMNS if name in summary} | own


def _schema(arrow: Any, labels: Sequence[str] | None, columns: Mapping[str, str]) -> Any:
    """The columns, and what the `datasets` library reads of them: which are pictures, and what the classes are called."""
    value = lambda dtype: {"dtype": dtype, "_type": "Value"}  # noqa: E731
    label = value("int64") if labels is None else {"names": list(labels), "_type": "ClassLabel"}
    features = {"image": {"_type": "Image"}, "label": label, **{name: value(dtype) for name, dtype in columns.items()}}
    image = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    fields = [("image", image), ("label", arrow.int64())]
    fields += [(name, arrow.type_for_alias(dtype)) for name, dtype in columns.items()]
    return arrow.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})


def _leaves(schema: Any) -> list[str]:
    return [leaf for name in schema.names for leaf in (["image.bytes", "image.path"] if name == "image" else [name])]


def _extra(given: Sequence[Mapping[str, object]]) -> dict[str, str]:
    """The dtype of each extra column: of whole numbers and fractions together a fraction's, of nothing but None a text's."""
    names = list(given[0]) if given else []
    for more in given:
        if set(more) != set(names):
            raise ValueError(f"extra columns have to be the same for all runs: {sorted(names)} and {sorted(more)}")
    if taken := {"image", "label", *COLUMNS} & set(names):
        raise ValueError(f"extra columns cannot be called {', '.join(sorted(taken))}: every elite has these")
    kinds = {}
    for name in names:
        types = {type(more[name]) for more in given if more[name] is not None}
        types = {float} if types == {int, float} else types
        if len(types) > 1 or not types <= _TYPES.keys():
            what = " and ".join(sorted(t.__name__ for t in types))
            raise ValueError(f"the extra column {name} holds {what}; it has to be one of bool, int, float and str")
        kinds[name] = _TYPES[types.pop()] if types else "string"
    return kinds

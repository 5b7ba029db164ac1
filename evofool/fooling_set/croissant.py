"""croissant.json: the metadata of a set in the format Croissant 1.0 of MLCommons, which search engines and loaders read."""

from collections.abc import Mapping
from typing import Any

from evofool.fooling_set.index import SetIndex
from evofool.fooling_set.layouts import TABLE
from evofool.fooling_set.rows import COLUMNS, DESCRIPTIONS, matrix_columns, matrix_descriptions

FILE = "croissant.json"
LICENSE_URL = "https://creativecommons.org/publicdomain/zero/1.0/"
_TYPES = {"string": "sc:Text", "int64": "sc:Integer", "float64": "sc:Float"}
_MEDIA = {
    ".parquet": "application/x-parquet",
    ".tar": "application/x-tar",
    ".csv": "text/csv",
    ".safetensors": "application/octet-stream",
}
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The JSON-LD context that the specification gives."""


def croissant(index: SetIndex, title: str, description: str, cite: str) -> dict[str, Any]:
    """The metadata of a set: its files, and the columns of its table."""
    columns = {**COLUMNS, **matrix_columns(list(index.classifiers))}
    words = DESCRIPTIONS | matrix_descriptions(list(index.classifiers))
    image = {
        "@type": "cr:Field",
        "@id": "images/image",
        "name": "image",
        "description": words["image"],
        "dataType": "sc:ImageObject",
        "source": {
            "fileObject": {"@id": TABLE},
            "extract": {"column": "image"},
            "transform": {"jsonPath": "bytes"},
        },
    }
    fields = [image, *(_field(name, kind, words[name]) for name, kind in {"label": "int64", **columns}.items())]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": index.name,
        "description": description,
        "alternateName": title,
        "license": LICENSE_URL,
        "version": index.version,
        **({"datePublished": published} if (published := index.recipe.get("published")) else {}),
        "citeAs": cite,
        "keywords": ["fooling images", "robustness", "out-of-distribution"],
        "distribution": [_file(path, record) for path, record in index.files.items()],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "images",
                "name": "images",
                "description": "One record for each fooling image.",
                "key": {"@id": "images/id"},
                "field": fields,
            }
        ],
    }


def _file(path: str, record: Mapping[str, Any]) -> dict[str, Any]:
    ending = path[path.rindex(".") :]
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{record['bytes']} B",
        "encodingFormat": _MEDIA[ending],
        "sha256": record["sha256"],
    }


def _field(name: str, kind: str, words: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"images/{name}",
        "name": name,
        "description": words,
        "dataType": _TYPES[kind],
        "source": {"fileObject": {"@id": TABLE}, "extract": {"column": name}},
    }

"""Cases that once broke a rule, by area."""

from typing import Any

from tests.fuzz.areas import ledgers, runs
from tests.fuzz.mutations import DEEP, DIGITS

_TRIGGER = "CREATE TRIGGER t AFTER UPDATE ON bill BEGIN DELETE FROM answers; DELETE FROM bill; END"

ROWS: dict[str, list[Any]] = {
    "genomes": [
        ("direct", 0, "returned", 1.5),
        ("direct", 0, "returned", [0.5, 1.5]),
        ("direct", 0, "returned", ({"a": 1},)),
        ("direct", 0, "returned", (["x"],)),
        ("direct", 0, "changed", [("replace", 0, None)]),
        ("direct", 0, "returned", ([float("nan")] * 42,)),
        ("grey", 0, "returned", ({}, {})),
    ],
    "run tables": [
        ("cppn", "show", "tables", [("view", ("elites", "png"), runs.ENDLESS)]),
        ("cppn", "export", "tables", [("view", ("image_metrics", "value"), runs.ENDLESS)]),
        ("cppn", "show", "tables", [("set", ("elites", "png"), 0, "zeros 40000000")]),
        ("cppn", "verify", "tables", [("set", ("genomes", "batch"), 0, "zeros 40000000")]),
        ("cppn", "show --json", "tables", [("json", "target", [("replace", 0, DEEP)])]),
        ("cppn", "verify", "tables", [("row json", 0, [("replace", 0, DEEP)])]),
    ],
    "weights": [
        ("calibration", "whole", (4, "", "BF16", 0)),
        ("calibration", "whole", (12, "", "I32", 2)),
        ("calibration", "whole", (20, "", "BOOL", 0)),
        ("calibration", "whole", (3, "[" * 9999, "BF16", 0)),
        ("logits", "whole", (0, "", "F64", 1)),
        ("logits", "whole", (2, "", "I8", 3)),
        ("spec", "", "lenet?size=" + "9" * 5000),
        ("spec", "", "lenet?crops=" + "9" * 5000),
        ("spec", "", "lenet?labels=%00"),
    ],
    "models": [("onnx", "graph", (["n", 1, 4, 4], 1, ["images", "scores"], 0), "")],
    "sets": [
        ("index", "bytes", [("flip", 602, 4)]),
        ("index", "json", [("replace", 65535, -1.7976931348623157e308), ("double", 32), ("double", 1272)]),
    ],
    "servers": [
        (
            "get",
            "logits",
            "raw",
            b"x",
            ("HTTP/1.1 200 x", [("Set-Cookie", "\x1b]0;PWN\x07"), ("Set-Cookie", "é=é")], None, "whole"),
            "",
        ),
    ],
    "requests": [("POST", "json", [], [], "9" * 5000)],
    "recipes": [
        ("data", 0, [("replace", 0, DEEP)], []),
        ("data", 99, [("replace", 1097, DIGITS)], []),
        ("text", 0, [], ["x[0]=1"]),
        ("text", 0, [], ["search.constrained=1"]),
        ("text", 0, [], [".".join("a" * 3000) + "=1"]),
        ("text", 0, [], ["search.seed=" + "9" * 5000]),
        ("text", 0, [], ["niches.edges=" + "[" * 3000]),
        ("text", 0, [], ["a=" + "{" * 2000]),
    ],
    "benches": [
        ("retraining", "json", [("replace", 712, "")]),
        ("retraining", "json", [("delete", 10621)]),
        ("cell", "json", [("replace", 96, DEEP)]),
        ("manifest", "json", [("add", 4071, "", [float("nan")])]),
    ],
    "ledgers": [
        ("value", "bill", "free_at", b"x"),
        ("value", "bill", "entered_at", "x"),
        ("value", "bill", "requests", "x"),
        ("value", "bill", "answers", 1.5),
        ("value", "answers", "logits", -1),
        ("value", "bill", "reading", {**ledgers.FORMAT, "described": DEEP}),
        ("statement", _TRIGGER),
        ("bytes", [("set", 0, 185), ("set", 268, 0)]),
    ],
}

"""The options of the plugin. Each is also a setting of pytest's, --evofool-NAME as evofool_NAME, but what starts tests."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

Kind = Literal["text", "list", "flag"]


class Setting(NamedTuple):
    """An option and a setting. paths: whether its values are paths, which in a file begin at the root of the project."""

    name: str
    text: str
    kind: Kind = "text"
    paths: bool = False


GATE = (
    Setting("against", "A result of evofool bench that the classifier is compared with; may be repeated.", "list", True),
    Setting("strict", "With against: true to fail unless it is shown that it did not become easier to fool.", "flag"),
    Setting("accept", "The acceptance rule in production: 'p>=0.9', 'margin>=3' or 'log_odds>=2'."),
    Setting("max_fooled", "With accept: the largest share of classes that may be fooled (0.5)."),
    Setting("budget", "With accept: queries of all classes together."),
    Setting("seeds", "With accept: the number of seeds (3)."),
    Setting("arms", "The attacks, separated by commas."),
    Setting("surrogate", "A network whose gradients the arm surrogate climbs; may be repeated.", "list"),
    Setting("images", "Labelled real images, or digits, of the gate and of a set.", paths=True),
    Setting("workers", "Run cells in parallel in this number of Ray processes (0)."),
)
"""The settings of the gate."""
SET = (
    Setting("target", "The classifier that the images of a set are tried on."),
    Setting("set_by", "A test for each class, or each classifier that images were made for: class (default) or classifier."),
    Setting("set_fools", "When an image fools: 'p>=0.99' (default), or with images tau_5 (then the default) or tau_50."),
    Setting("set_known", "A survivors.json of images that are known to fool: they fail no test.", paths=True),
    Setting("set_out", "Write a page of the images that still fool there, index.html, and survivors.json.", paths=True),
    Setting("set_resize", "Resize images of another size than the classifier takes.", "flag"),
)
"""The settings of a set of fooling images."""

_PATHS = {setting.name for setting in (*GATE, *SET) if setting.paths}


def add_options(parser: pytest.Parser) -> None:
    """All options and settings."""
    gate = parser.getgroup("evofool", "evofool: is a classifier too easily fooled?")
    gate.addoption("--evofool", metavar="TARGET", action="append", help="Test this classifier; may be repeated.")
    set_ = parser.getgroup("evofool-set", "evofool: do fooling images of before still fool a classifier?")
    set_.addoption(
        "--evofool-set", metavar="DIR|RUN", help="Test whether these images fool the classifier of --evofool-target."
    )
    for group, settings in ((gate, GATE), (set_, SET)):
        for name, text, kind, _ in settings:
            option = f"--evofool-{name.replace('_', '-')}"
            if kind == "flag":
                group.addoption(option, action="store_const", const="true", help=text)
            else:
                group.addoption(option, action="append" if kind == "list" else "store", metavar=name.upper(), help=text)
            if kind == "list":
                parser.addini(f"evofool_{name}", f"As {option}.", type="linelist")
            else:
                parser.addini(f"evofool_{name}", f"As {option}.", default="")


def given(config: pytest.Config, name: str) -> Any:
    """A setting from the command line, or else from pytest's settings, whose paths begin at the root of the project."""
    if value := config.getoption(f"evofool_{name}"):
        return value
    value = config.getini(f"evofool_{name}")
    if name not in _PATHS or not value or value == "digits":
        return value
    return [str(Path(config.rootpath, path)) for path in value] if isinstance(value, list) else str(config.rootpath / value)


def is_true(value: object) -> bool:
    """Whether a flag is set."""
    return str(value or "").lower() in ("true", "1", "yes")

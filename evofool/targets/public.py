"""The name of a target as anybody may read it: it goes with what is published, and tells of no folder and no secret."""

import re
from dataclasses import replace
from pathlib import PurePosixPath, PureWindowsPath

from evofool.errors import TargetError
from evofool.targets import KINDS
from evofool.targets.spec import parse
from evofool.targets.wire import OPTIONS, public


def public_name(name: str) -> str:
    """A target's spec with files' names in the place of their paths, and a URL without what may be secret in it."""
    try:
        spec = parse(name, KINDS, OPTIONS)
    except TargetError:  # what somebody calls a classifier of their own
        return without_folders(last_part(name))
    head = public(spec.name) if spec.kind == "http" else last_part(spec.name)
    return replace(spec, name=head, options={key: last_part(value) for key, value in spec.options.items()}).text


def last_part(value: str) -> str:
    """A file's name, if value is its absolute path; else value."""
    if PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute():
        return PureWindowsPath(value).name
    return value


def without_folders(text: str) -> str:
    """text with nothing but the last part of each absolute path in it; URLs stay."""
    return re.sub(r"(?<![\w:/.~\\])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\'\"]+[/\\])*([^\s/\\'\"]+)", r"\1", text)

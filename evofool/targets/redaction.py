"""Names for publication, without folders and secrets."""

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from evofool.errors import TargetError
from evofool.targets.kinds import SERVERS, server_kind
from evofool.targets.remote.url import redacted_url
from evofool.targets.spec import parse


def public_name(name: str) -> str:
    """A target's spec with the names of files in place of their paths, and a URL without parts that may be secret."""
    return _public(name, only=None)


def short_name(name: str) -> str:
    """A target's name for the title of a picture: its public name, of the options only the weights."""
    return _public(name, only=("weights",))


def _public(name: str, only: Collection[str] | None) -> str:
    try:
        spec = parse(name)
    except TargetError:  # a user's classifier, whose name is not a spec
        return redacted_url(name) if server_kind(name) else without_folders(last_part(name))
    head = redacted_url(spec.name) if spec.kind in SERVERS else last_part(spec.name)
    options = {key: last_part(value) for key, value in spec.options.items() if only is None or key in only}
    return replace(spec, name=head, options=options).text


def last_part(value: str) -> str:
    """A file's name, if value is its absolute path; else value."""
    if PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute():
        return PureWindowsPath(value).name
    return value


def name_of(path: str | Path) -> str:
    """The name of a folder or a file."""
    return Path(path).resolve().name


def without_folders(text: str, known: Iterable[str | Path] = ()) -> str:
    """text with each absolute path replaced by its last part; URLs and relative paths stay.

    A path ends at a blank, unless it is quoted, and before an option of a spec (?size=224, &scale=1/255). known: folders
    and files whose paths may contain blanks, even without quotes.
    """
    for path in sorted((str(Path(path).absolute()) for path in known), key=len, reverse=True):
        text = text.replace(path, Path(path).name)
    quoted = _QUOTED.sub(lambda found: found[1] + _BETWEEN_QUOTES.sub(r"\1", found[2]) + found[1], text)
    return _BARE.sub(r"\1", quoted)


def _path(character: str) -> re.Pattern[str]:
    """An absolute path of these characters; its group is its last part."""
    # After a colon, as in onnx:/a/b.onnx, but not the // of a URL; after a letter or a dot a slash does not begin a path.
    begin = r"(?:(?<![\w:/.~\\)\]])(?:file://|~[\w.-]*|[A-Za-z]:)?|(?<=:)(?!//))[/\\]+"
    part = rf"(?:(?![?&]\w+=){character})+"
    return re.compile(rf"{begin}(?:{part}[/\\]+)*(?={character}*\w)({part})")


_QUOTED = re.compile(r"(?<!\w)(['\"`])(.*?)\1(?!\w)")  # not the apostrophe of "the target's"
_BETWEEN_QUOTES = _path(r"[^/\\]")
_BARE = _path(r"(?:[^\s/\\'\"`]|'(?=\w))")

"""The grammar that names a target: KIND, KIND:NAME or a URL, then ?option=value&option=value."""

import difflib
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote

from evofool.errors import TargetError
from evofool.targets.kinds import COMMON, KINDS, SERVERS, THROUGH, options_of_url, server_kind
from evofool.targets.remote.url import redacted_url
from evofool.text import shortened, whole_number

if TYPE_CHECKING:
    from evofool.targets.preprocessing import Preprocessing

_FILES = ("weights", "labels", "request")


@dataclass(frozen=True)
class Spec:
    """A parsed spec. `text` is the canonical spec, in which paths are absolute."""

    kind: str  # "lenet", "torchvision", "onnx", "http", ...
    name: str  # after the colon, "" if there is none; of a URL, everything but evofool's options
    options: dict[str, str]

    @property
    def head(self) -> str:
        """The spec without its options."""
        return self.name if self.kind in SERVERS else f"{self.kind}:{self.name}" if self.name else self.kind

    @property
    def shown(self) -> str:
        """The head for display, without parts of a URL that may be secret; error messages begin with it."""
        return redacted_url(self.name) if self.kind in SERVERS else self.head

    @property
    def text(self) -> str:
        if not self.options:
            return self.head
        tail = "&".join(f"{k}={quote(v, safe='/:,+.*')}" for k, v in self.options.items())
        return f"{self.head}{'&' if '?' in self.head else '?'}{tail}"

    def whole(self, option: str, default: int | None = None, least: int = 1, most: int = 1 << 53) -> int | None:
        """An option that is a whole number from `least` to `most`."""
        text = self.options.get(option)
        if text is None:
            return default
        number = whole_number(text)
        if number is None or not least <= number <= most:
            up_to = f"from {least} to {most:,}" if most < 1 << 53 else f"{least} or more"
            raise TargetError(f'{self.shown}: {option} is "{shortened(text)}"; it has to be a whole number, {up_to}')
        return number

    def number(self, option: str, default: float) -> float:
        """An option that is a number."""
        return self._numbers(option, (default,), 1)[0]

    def flag(self, option: str, default: bool = False) -> bool:
        """An option that is yes or no."""
        text = self.options.get(option, "yes" if default else "no")
        if text not in ("yes", "no"):
            raise TargetError(f'{self.shown}: {option} is "{shortened(text)}"; it has to be yes or no')
        return text == "yes"

    def side(self, default: tuple[int, int] | None = None) -> tuple[int, int]:
        """size=224 or size=HEIGHTxWIDTH, in pixels; TargetError if it is neither given nor has a default."""
        text = self.options.get("size")
        if text is None:
            if default is None:
                raise TargetError(f"{self.shown}: the size of its images is not known; give size=224, or size=HEIGHTxWIDTH")
            return default
        sides = [whole_number(part) or 0 for part in text.split("x")]
        if len(sides) > 2 or not all(1 <= side <= 16384 for side in sides):
            raise TargetError(f'{self.shown}: size is "{shortened(text)}"; it has to be pixels, 224 or HEIGHTxWIDTH')
        return sides[0], sides[-1]

    def preprocessing(self, default: "Preprocessing", size: tuple[int, int]) -> "tuple[Preprocessing, tuple[int, int]]":
        """default changed by the options, and (height, width) of the images for a network that takes `size`.

        With several crops the network takes crops of `size` from images of resize x resize (256 by default).
        """
        from evofool.targets.preprocessing import MOST_RESIZE, Preprocessing  # imports torch, which parsing does not need

        o, crops = self.options, self.whole("crops", default.crops) or 1
        resize = default.resize
        if "resize" in o:
            resize = None if o["resize"] == "squeeze" else self.whole("resize", most=MOST_RESIZE)
        scale, mean, std = (
            self.number("scale", default.scale),
            *(self._numbers(n, getattr(default, n)) for n in ("mean", "std")),
        )
        invert, transpose = self.flag("invert", default.invert), self.flag("transpose", default.transpose)
        try:
            made = Preprocessing(
                scale=scale,
                mean=mean,
                std=std,
                order=o.get("order", default.order).upper(),
                crops=crops,
                crop=size if crops > 1 else None,
                resize=(resize or 256) if crops > 1 else resize,
                interpolation=o.get("interpolation", default.interpolation),
                invert=invert,
                transpose=transpose,
            )
        except TargetError as error:
            raise TargetError(f"{self.shown}: {error}") from None
        if made.transpose and size[0] != size[1]:
            raise TargetError(f"{self.shown}: transpose=yes is for square images, and these are {size[0]}x{size[1]}")
        if crops == 1:
            return made, size
        side = made.resize or 256
        if max(size) > side:
            way_out = f"resize={max(size)}" if max(size) <= MOST_RESIZE else f"a size of at most {MOST_RESIZE:,}"
            raise TargetError(f"{self.shown}: crops of {size[0]}x{size[1]} do not fit into {side}x{side}; give {way_out}")
        return made, (side, side)

    def labels(self, default: Iterable[str] | None = None) -> list[str] | None:
        """The lines of the file of labels=FILE, else the default; duplicates get their class number appended."""
        if "labels" not in self.options:
            return None if default is None else distinct(default)
        path = Path(self.options["labels"])
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise TargetError(f"{self.shown}: the labels' file {path} cannot be read ({error})") from None
        return distinct(line.strip() for line in lines if line.strip())

    @property
    def outputs(self) -> str:
        return self.options.get("outputs", "auto")

    @property
    def device(self) -> str:
        """device=, or the GPU if there is one."""
        import torch

        given = self.options.get("device", "auto")
        if given == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(given)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise TargetError(f"{self.shown}: there is no device {given} ({str(error).splitlines()[0]})") from None
        return str(device)

    def _numbers(self, option: str, default: tuple[float, ...], most: int = 3) -> tuple[float, ...]:
        text = self.options.get(option)
        if text is None:
            return default
        try:
            # a scale is usually written as 1/255
            pairs = (part.partition("/") for part in text.split(","))
            values = tuple(float(top) / float(bottom if slash else 1) for top, slash, bottom in pairs)
        except (ValueError, ZeroDivisionError):
            values = ()
        if not 1 <= len(values) <= most:
            raise TargetError(
                f'{self.shown}: {option} is "{text}"; it has to be a number, or up to {most} separated by commas'
            )
        return values


def parse(text: str) -> Spec:
    """The Spec of a text. TargetError for an unknown kind or option, with the nearest valid one. Nothing is loaded."""
    text = text.strip()
    if kind := server_kind(text):
        return _url(text, kind)
    head, _, query = text.partition("?")
    kind, _, name = head.partition(":")
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, list(KINDS), 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise TargetError(f'no target is called "{kind}"; there are {", ".join(KINDS)}{hint} (evofool targets list)')
    if name and not KINDS[kind].takes_name:
        raise TargetError(f'{kind}: takes no name, but "{name}" is given; options follow a question mark')
    # A "+" in a file's name must stay a "+", so only % escapes are decoded.
    given = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)
    options = dict(given)
    if len(options) < len(given):
        raise TargetError(f"{head}: an option is given twice in {query}")
    if name and (KINDS[kind].is_file or (kind == "hf" and _is_folder(name))):
        name = _absolute(name)
    spec = Spec(kind, name, _absolute_files(options))
    _refuse_unknown_options(spec)
    return spec


def _refuse_unknown_options(spec: Spec) -> None:
    own = KINDS[spec.kind].options
    if own is None and not {*spec.options} <= {*THROUGH}:
        raise TargetError(
            f"{spec.head}: takes no options but {' and '.join(THROUGH)}; others belong to the base that its file names"
        )
    allowed = THROUGH if own is None else (*own, *COMMON)
    for option in spec.options:
        if option not in allowed:
            near = difflib.get_close_matches(option, allowed, 1)
            hint = f'; did you mean "{near[0]}"?' if near else f"; there are {', '.join(allowed)}"
            raise TargetError(f'{spec.head}: no option "{option}"{hint}')


def _url(text: str, kind: str) -> Spec:
    """Of a URL. Parts of its query that are no options of evofool, nor nearly one of this kind, are sent to the server.

    So are all whose key has an escape (%73ize): with one, the server's own keys can be called like options.
    """
    known, of_others = options_of_url(text), {option for other in SERVERS for option in KINDS[other].options or ()}
    head, _, query = text.partition("?")
    options: dict[str, Any] = {}
    sent = []
    for part in query.split("&") if query else []:
        key, _, value = part.partition("=")
        if key in known:
            options[key] = parse_qsl(f"v={value.replace('+', '%2B')}", keep_blank_values=True)[0][1]
        elif "%" not in key and (key in of_others or (near := difflib.get_close_matches(key, known, 1, 0.75))):
            escaped = f"%{ord(key[0]):02X}{key[1:]}" if key[:1].isascii() and key else key
            forms = [KINDS[other].form for other in KINDS if other in SERVERS and key in (KINDS[other].options or ())]
            hint = f"it is one of {' and '.join(forms)}." if forms else f'did you mean "{near[0]}"?'
            raise TargetError(f'{redacted_url(text)}: no option "{key}"; {hint} If it is the server\'s, write {escaped}=...')
        else:
            sent.append(part)
    return Spec(kind, head + ("?" + "&".join(sent) if sent else ""), _absolute_files(options))


def distinct(labels: Iterable[str]) -> list[str]:
    """Labels, with the class number appended where several classes share one: "crane [134]"."""
    names = list(labels)
    times = Counter(names)
    return [f"{name} [{c}]" if times[name] > 1 else name for c, name in enumerate(names)]


def data(**values: Any) -> dict[str, Any]:
    """A dict for a target's details, without the None values."""
    return {k: v for k, v in values.items() if v is not None}


def _absolute_files(options: dict[str, str]) -> dict[str, str]:
    return {k: _absolute(v) if k in _FILES and v and v != "random" else v for k, v in options.items()}


def _is_folder(name: str) -> bool:
    """Whether a model's name is that of a folder: it begins as a path does, or there is one."""
    return name.startswith((".", "/", "~")) or os.path.isdir(name)


def _absolute(file: str) -> str:
    return str(Path(file).expanduser().absolute())

"""Which classes an answer names: one key for digits, a text for other labels."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from evofool.errors import TargetError
from evofool.targets.labels import is_rejection
from evofool.text import visible

NOTHING: frozenset[int] = frozenset()
"""What a rater names who sees nothing."""

_NOTHING_WORDS = {"n", "no", "none", "nothing", "no idea", "dont know", "i dont know", "unknown"}
_NEGATIONS = {"no", "not", "isnt", "without", "neither"}
_ARTICLES = {"a", "an", "the", "some"}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_IRREGULAR = {
    "children": "child", "feet": "foot", "geese": "goose", "men": "man", "mice": "mouse", "oxen": "ox", "teeth": "tooth",
    "women": "woman",
}  # fmt: skip
_ENDINGS = (
    ("ie", "y"), ("oe", "o"), ("ve", "f"), ("fe", "f"), ("se", "s"), ("xe", "x"), ("ze", "z"), ("che", "ch"), ("she", "sh"),
)  # fmt: skip
"""Of words without their plural's s, so that both numbers end alike: potato(es), glove(s), knife and knives."""


class Names:
    """The labels of a classifier, as names that people give.

    codes: by text, the classes that it names, as somebody says who did not see the image. TargetError if no class can be
    shown.
    """

    def __init__(self, labels: Sequence[str], codes: Mapping[str, Iterable[int]] | None = None) -> None:
        self.labels = tuple(labels)
        self.nameable = tuple(c for c, label in enumerate(self.labels) if not is_rejection(label))
        """The classes that an image can show: all but rejection classes."""
        if not self.nameable:
            raise TargetError("none of the labels is of a class that an image can show, so people cannot be asked")
        self.by_key = all(len(self.labels[c]) == 1 for c in self.nameable)
        """Whether an answer is one key, the label itself."""
        self._codes = {normal(text): frozenset(classes) & set(self.nameable) for text, classes in (codes or {}).items()}
        self._whole: dict[str, set[int]] = {}
        self._heads: dict[str, set[int]] = {}
        for c in self.nameable:
            for synonym in _synonyms(self.labels[c]):
                words = normal(synonym).split()
                if words:
                    self._whole.setdefault(" ".join(words), set()).add(c)
                for begin in range(1, len(words)):
                    self._heads.setdefault(" ".join(words[begin:]), set()).add(c)

    def classes(self, answer: str) -> frozenset[int] | None:
        """The classes that an answer names. Empty: it says that there is nothing. None: somebody has to code it.

        Case, accents, articles, punctuation and plurals do not count, and of several names, separated by "or", a comma, a
        semicolon or a slash, the first one does. It names
        - the classes that have it as a label, or as one of the label's synonyms, which commas separate;
        - else those whose label ends it, the longest one: "a golden tench" names "tench";
        - else those whose label it ends: "shark" names "tiger shark" and "hammerhead shark". An English compound is a kind
          of its last word, so that "tiger" does not name "tiger shark".
        """
        # An answer that is a label with a comma in it is one name.
        for text in (answer, re.split(r"\s+or\s+|[,;/]", answer.strip(" ,;/"), maxsplit=1, flags=re.IGNORECASE)[0]):
            words = normal(text)
            if found := self._whole.get(words):
                return frozenset(found)
        if not words or words in _NOTHING_WORDS:
            return NOTHING
        parts = words.split()
        if not _NEGATIONS & set(parts):
            for begin in range(1, len(parts)):
                if found := self._whole.get(" ".join(parts[begin:])):
                    return frozenset(found)
            if found := self._heads.get(words):
                return frozenset(found)
        return self._codes.get(normal(answer))


def normal(text: str) -> str:
    """A text in small letters and singular words, without accents, punctuation and a leading article.

    The same for a text as it was typed and as a CSV file has it, where what is not printable is escaped.
    """
    plain = re.sub("['\N{RIGHT SINGLE QUOTATION MARK}]", "", visible(text).casefold())
    letters = unicodedata.normalize("NFKD", plain)
    words = re.findall(r"[^\W_]+", "".join(letter for letter in letters if not unicodedata.combining(letter)))
    while len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    return " ".join(map(_singular, words))


def _singular(word: str) -> str:
    """The same for both numbers of a word; not always a word itself."""
    word = _IRREGULAR.get(word, word)
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending, short in _ENDINGS:
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word.removesuffix(ending) + short
    return word


def _synonyms(label: str) -> list[str]:
    """The names in a label: its parts between commas, with and without what is in brackets; the word of a digit."""
    found = [label, *label.split(",")]
    found += [re.sub(r"\(.*?\)", " ", name) for name in found]
    if label in set("0123456789"):
        found.append(_NUMBERS[int(label)])
    return list(dict.fromkeys(found))

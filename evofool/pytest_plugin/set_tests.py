"""`pytest --evofool-set DIR --evofool-target SPEC`: do fooling images of before still fool a classifier?"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import pytest

from evofool.pytest_plugin.settings import SET, given, is_true

if TYPE_CHECKING:
    from evofool.bench.sets.image_set import ImageSet
    from evofool.bench.sets.survivors import By, FoolingRule, Survivors
    from evofool.targets import Target

_LISTED = 20  # images of a message


class SetCollector(pytest.Collector):
    """The images of a set, which are scored once, when the first test runs."""

    def __init__(self, name: str, parent: pytest.Session, path: str) -> None:
        super().__init__(name, parent, nodeid=name)
        self._path = Path(path)
        self._given = {setting.name: given(parent.config, setting.name) for setting in SET}
        self._real = given(parent.config, "images")

    def collect(self) -> Iterator["_GroupTest"]:
        from evofool.bench.sets.survivors import groups
        from evofool.errors import EvofoolError
        from evofool.text import visible

        try:
            self._prepare()
        except EvofoolError as error:
            raise pytest.UsageError(f"--evofool-set: {visible(error)}") from None
        images, by = self._images, self._by
        found = list(groups(images.classes, list(images.classifiers), self._target.labels, by))
        missing = [image.label if by == "class" else image.classifier for image in images.missing]
        for group in dict.fromkeys([*found, *missing]):
            test = _GroupTest.from_parent(self, name=visible(group), group=group, has=group in found)
            if self.config.pluginmanager.hasplugin("xdist"):
                test.add_marker(pytest.mark.xdist_group(self.name))  # one process scores the images
            yield test

    def _prepare(self) -> None:
        """Read what can be wrong before anything is scored."""
        from evofool.bench.sets.image_set import image_set, refuse_nothing
        from evofool.bench.sets.survivors import By, fooling_rule, known_survivors
        from evofool.errors import ImageError, RecipeError
        from evofool.targets import target

        if self._given["set_by"] not in ("", *get_args(By)):
            raise RecipeError(f"--evofool-set-by is class or classifier, not {self._given['set_by']!r}")
        self._by: By = cast("By", self._given["set_by"] or "class")
        refuse_nothing(self._path)
        if not self._given["target"]:
            raise RecipeError(f"name the classifier that {self._path} is tried on: --evofool-target SPEC")
        self._known = known_survivors(Path(self._given["set_known"])) if self._given["set_known"] else set()
        self._target: Target = target(self._given["target"])
        self._rule: FoolingRule = fooling_rule(self._given["set_fools"] or None, self._target, bool(self._real))
        self._images: ImageSet = image_set(self._path, self._target)
        if self._by == "classifier" and not all(self._images.classifiers):
            raise ImageError(f"{self._path} does not say for which classifier each image was made; test it by class")
        if self._images.other_sizes() and not is_true(self._given["set_resize"]):
            raise ImageError(f"{self._path}: {self._images.notes()[-1]}. --evofool-set-resize allows this")

    @cached_property
    def survivors(self) -> "Survivors":
        """Of all images; the page is written, if one is asked for."""
        from evofool.bench.sets.score_set import score_set
        from evofool.bench.sets.survivors import Survivors
        from evofool.bench.sets.survivors_page import survivors_folder
        from evofool.bench.sets.thresholds import thresholds

        calibration = thresholds(self._target, self._real)[1] if self._real else None
        found = Survivors(score_set(self._images, self._target, calibration), self._rule)
        if self._given["set_out"]:
            with survivors_folder(Path(self._given["set_out"])) as write:
                write(found)
        return found

    @cached_property
    def groups(self) -> "dict[str, Any]":
        """By class or classifier, the rows of its images."""
        return self.survivors.groups(self._by)

    def is_known(self, row: int) -> bool:
        """Whether an image is known to fool."""
        return bool(self._known) and self.survivors.digest(row) in self._known

    def why_missing(self, group: str) -> str:
        """Why there is nothing to score in a group of the set."""
        own = "class" if self._by == "class" else "class of the images made for"
        return f"{self._target.name} has no {own} {group}"


class _GroupTest(pytest.Item):
    """Whether the images of one class, or those made for one classifier, no longer fool the target."""

    def __init__(self, *, group: str, has: bool, **rest: Any) -> None:
        super().__init__(**rest)
        self._group, self._has = group, has
        assert isinstance(self.parent, SetCollector)
        self._set = self.parent

    def runtest(self) -> None:
        from evofool.errors import EvofoolError
        from evofool.targets.redaction import public_name
        from evofool.text import visible

        if not self._has:
            pytest.skip(visible(self._set.why_missing(self._group)))
        try:
            survivors = self._set.survivors
            rows = self._set.groups[self._group]
        except EvofoolError as error:
            raise _NotPassed(str(error)) from None
        judged = int(survivors.judged[rows].sum())
        if not judged:
            pytest.skip(visible(f"there are no real images of {self._group}, and so no threshold"))
        members = set(rows.tolist())
        left = [row for row in survivors.ranking.tolist() if row in members]
        known = [row for row in left if self._set.is_known(row)]
        new = [row for row in left if row not in known]
        if known:
            lines = [visible(survivors.line(row)) for row in known[:_LISTED]]
            self.add_report_section("call", "evofool", "\n".join([f"{len(known):,} are known to fool:", *lines]))
        if new:
            name, more = public_name(survivors.scored.target.name), len(new) - _LISTED
            beside = f", beside {len(known):,} that are known to" if known else ""
            lines = [f"{len(new):,} of {judged:,} images still fool {name} ({survivors.rule}){beside}:"]
            lines += [f"  {visible(survivors.line(row))}" for row in new[:_LISTED]]
            raise _NotPassed("\n".join(lines + ([f"  and {more:,} more"] if more > 0 else [])))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        from evofool.text import visible_lines

        if isinstance(excinfo.value, _NotPassed):
            return visible_lines(str(excinfo.value))
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        # Were this the end of the node's id, pytest would show each dot of a file's name as "::".
        return self.config.rootpath, None, f"{self._set.name} [{self.name}]"


class _NotPassed(Exception):
    """Images still fool, or cannot be scored."""

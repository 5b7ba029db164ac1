"""A plugin of pytest: `pytest --evofool TARGET` runs `evofool gate` on a classifier, with a test for each arm.

pytest loads this file wherever evofool is installed, so it imports nothing heavy before it is asked for a target.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from evofool.bench.gate.gate import GateOptions
    from evofool.bench.gate.gate_verdict import Check, GateVerdict

# name, whether it is a list, help. Each is an option, --evofool-NAME, and a setting of pytest's, evofool_NAME.
_SETTINGS = (
    ("against", True, "A result of evofool bench that the classifier is compared with; may be repeated."),
    ("strict", False, "With against: true to fail unless it is shown that it did not become easier to fool."),
    ("accept", False, "The acceptance rule in production: 'p>=0.9', 'margin>=3' or 'log_odds>=2'."),
    ("max_fooled", False, "With accept: the largest share of classes that may be fooled (0.5)."),
    ("budget", False, "With accept: queries of all classes together."),
    ("seeds", False, "With accept: the number of seeds (3)."),
    ("arms", False, "The attacks, separated by commas."),
    ("surrogate", True, "A network whose gradients the arm surrogate climbs; may be repeated."),
    ("images", False, "Labelled real images, or digits."),
    ("workers", False, "Run cells in parallel in this number of Ray processes (0)."),
)
_REST = "gate"  # the test of all that is no arm: the options, the validation, the real images


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `evofool gate`."""
    group = parser.getgroup("evofool", "evofool: is a classifier too easily fooled?")
    group.addoption("--evofool", metavar="TARGET", action="append", help="Test this classifier; may be repeated.")
    for name, is_list, text in _SETTINGS:
        option = f"--evofool-{name.replace('_', '-')}"
        if name == "strict":
            group.addoption(option, action="store_const", const="true", help=text)
        else:
            group.addoption(option, action="append" if is_list else "store", metavar=name.upper(), help=text)
        if is_list:
            parser.addini(f"evofool_{name}", f"As {option}.", type="linelist")
        else:
            parser.addini(f"evofool_{name}", f"As {option}.", default="")


@pytest.hookimpl(tryfirst=True)  # so that -k and -m choose among them, too
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the tests of each target after all others."""
    targets: list[str] = config.getoption("evofool") or []
    for target in targets:
        gate = _GateCollector.from_parent(session, name=f"evofool::{target}", target=target)
        items.extend(gate.collect())


class _GateCollector(pytest.Collector):
    """The gate of one target, which runs when its first test does."""

    def __init__(self, name: str, parent: pytest.Session, target: str) -> None:
        super().__init__(name, parent, nodeid=name)
        self.options = _options(parent.config, target)
        self._verdict: GateVerdict | None = None

    def collect(self) -> Iterator["_ArmTest"]:
        arms = _arms(self.options)
        for arm in [*arms, _REST]:
            test = _ArmTest.from_parent(self, name=arm, arms=arms)
            if self.config.pluginmanager.hasplugin("xdist"):
                test.add_marker(pytest.mark.xdist_group(self.name))  # one process runs the gate
            yield test

    @property
    def verdict(self) -> "GateVerdict":
        """Of the gate; it is run once."""
        if self._verdict is None:
            from evofool.bench.gate.gate import run_gate

            self._verdict = run_gate(self.options)
        return self._verdict


class _ArmTest(pytest.Item):
    """Whether the target passes the check of one arm; the last test is that of all that is no arm."""

    def __init__(self, *, arms: list[str], **rest: Any) -> None:
        super().__init__(**rest)
        self._arms = arms
        assert isinstance(self.parent, _GateCollector)
        self._gate = self.parent

    def runtest(self) -> None:
        verdict = self._gate.verdict
        if self.name == _REST:
            checks = [check for check in verdict.checks if check.arm not in self._arms]
            checks = [check for check in checks if check.status != "informs"]
        else:
            checks = [check for check in verdict.checks if check.arm == self.name]
            if not checks:
                pytest.skip("; ".join(verdict.notes) or "the gate ended before this arm")
        for check in checks:
            self._show(check)
        bad = [check for check in checks if check.status in ("fails", "invalid")]
        if self.name == _REST and all(check.status == "informs" for check in verdict.checks):
            raise _NotPassed("nothing was checked")
        if bad:
            raise _NotPassed("\n".join(f"{check.name} ({check.status}): {check.message}" for check in bad))
        if checks and all(check.status == "informs" for check in checks):
            pytest.skip("; ".join(check.message for check in checks))

    def _show(self, check: "Check") -> None:
        """Add the figures and the worst image to the reports of this test."""
        lines = [check.message, *(f"{name}: {value}" for name, value in check.figures.items())]
        if check.image:
            path = Path(os.path.relpath(check.image))
            lines += [f"{check.image_text}: {path}", f"[[ATTACHMENT|{path}]]"]
            self.user_properties.append(("evofool_worst_image", str(path)))
        self.add_report_section("call", "evofool", "\n".join(lines))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, _NotPassed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.config.rootpath, None, f"{self._gate.name}::{self.name}"


class _NotPassed(Exception):
    """A check failed, or is invalid."""


def _options(config: pytest.Config, target: str) -> "GateOptions":
    """What was asked, on the command line or in pytest's settings. UsageError for what is no number."""
    from evofool.bench.gate.gate import GateOptions

    given = {name: _given(config, name) for name, _, _ in _SETTINGS}
    for rule, other in (("accept", "against"), ("against", "accept")):
        if config.getoption(f"evofool_{rule}") and not config.getoption(f"evofool_{other}"):
            given[other] = None  # the command line decides which form of the gate it is

    def number(name: str, kind: type, default: Any) -> Any:
        try:
            return kind(given[name]) if given[name] else default
        except ValueError:
            raise pytest.UsageError(f"evofool_{name} has to be a number, not {given[name]!r}") from None

    if not given["against"] and not given["accept"]:
        raise pytest.UsageError(
            "--evofool TARGET needs --evofool-against RESULT.json, or --evofool-accept RULE with --evofool-budget N; both "
            "can stand in pytest's settings, as evofool_against or evofool_accept and evofool_budget"
        )
    return GateOptions(
        target=target,
        against=[Path(path) for path in given["against"] or []],
        strict=str(given["strict"] or "").lower() in ("true", "1", "yes"),
        accept=given["accept"] or None,
        max_fooled=number("max_fooled", float, 0.5),
        budget=number("budget", int, None),
        arms=[arm.strip() for arm in given["arms"].split(",")] if given["arms"] else None,
        surrogates=given["surrogate"] or [],
        seeds=number("seeds", int, 3),
        images=given["images"] or None,
        workers=number("workers", int, 0),
    )


def _given(config: pytest.Config, name: str) -> Any:
    """A setting from the command line, or else from pytest's settings, whose paths begin at the root of the project."""
    if value := config.getoption(f"evofool_{name}"):
        return value
    value = config.getini(f"evofool_{name}")
    if name == "against":
        return [str(Path(config.rootpath, path)) for path in value]
    return str(Path(config.rootpath, value)) if name == "images" and value and value != "digits" else value


def _arms(options: "GateOptions") -> list[str]:
    """The arms that the gate will check, as far as that is known before it runs."""
    from evofool.bench.gate.gate import arms_of
    from evofool.errors import EvofoolError

    try:
        return arms_of(options)
    except EvofoolError:  # the gate says what is wrong
        return []

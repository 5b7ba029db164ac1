"""`pytest --evofool TARGET` runs `evofool gate` on a classifier, with a test for each arm."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evofool.pytest_plugin.settings import GATE, given, is_true

if TYPE_CHECKING:
    from evofool.bench.gate.gate import GateOptions
    from evofool.bench.gate.gate_verdict import Check, GateVerdict

_REST = "gate"  # the test of all that is no arm: the options, the validation, the real images


class GateCollector(pytest.Collector):
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
        assert isinstance(self.parent, GateCollector)
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
        # Were this the end of the node's id, pytest would show each dot of a file's name as "::".
        return self.config.rootpath, None, f"{self._gate.name} [{self.name}]"


class _NotPassed(Exception):
    """A check failed, or is invalid."""


def _options(config: pytest.Config, target: str) -> "GateOptions":
    """What was asked, on the command line or in pytest's settings. UsageError for what is no number."""
    from evofool.bench.gate.gate import GateOptions

    found = {setting.name: given(config, setting.name) for setting in GATE}
    for rule, other in (("accept", "against"), ("against", "accept")):
        if config.getoption(f"evofool_{rule}") and not config.getoption(f"evofool_{other}"):
            found[other] = None  # the command line decides which form of the gate it is

    def number(name: str, kind: type, default: Any) -> Any:
        try:
            return kind(found[name]) if found[name] else default
        except ValueError:
            raise pytest.UsageError(f"evofool_{name} has to be a number, not {found[name]!r}") from None

    if not found["against"] and not found["accept"]:
        raise pytest.UsageError(
            "--evofool TARGET needs --evofool-against RESULT.json, or --evofool-accept RULE with --evofool-budget N; both "
            "can stand in pytest's settings, as evofool_against or evofool_accept and evofool_budget"
        )
    return GateOptions(
        target=target,
        against=[Path(path) for path in found["against"] or []],
        strict=is_true(found["strict"]),
        accept=found["accept"] or None,
        max_fooled=number("max_fooled", float, 0.5),
        budget=number("budget", int, None),
        arms=[arm.strip() for arm in found["arms"].split(",")] if found["arms"] else None,
        surrogates=found["surrogate"] or [],
        seeds=number("seeds", int, 3),
        images=found["images"] or None,
        workers=number("workers", int, 0),
    )


def _arms(options: "GateOptions") -> list[str]:
    """The arms that the gate will check, as far as that is known before it runs."""
    from evofool.bench.gate.gate import arms_of
    from evofool.errors import EvofoolError

    try:
        return arms_of(options)
    except EvofoolError:  # the gate says what is wrong
        return []

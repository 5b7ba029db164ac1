"""What `import evofool` gives: names that load when they are used, lines of the README, and types for a user's checker."""

import os
import re
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import evofool
import evofool.bench
import evofool.explain
from evofool.targets.networks import LeNet

pytestmark = pytest.mark.slow

ROOT = Path(evofool.__file__).parent.parent


def python_blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def docstring_block() -> str:
    """The indented lines of the docstring of evofool."""
    assert evofool.__doc__ is not None
    lines = evofool.__doc__.splitlines()
    return textwrap.dedent("\n".join(line for line in lines if line.startswith("    ") or not line)).strip() + "\n"


def run_python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=cwd)


# --- names


def test_the_import_loads_nothing_heavy() -> None:
    heavy = ("torch", "ray", "numba", "deap", "matplotlib", "pydantic", "numpy")
    code = f"import evofool, evofool.bench, evofool.explain, sys; print([m for m in {heavy} if m in sys.modules])"
    assert run_python("-c", code).stdout.strip() == "[]"


def test_a_spec_is_checked_before_torch_is_imported() -> None:
    code = "from evofool.targets import check_spec; import sys; check_spec('lenet?size=28'); print('torch' in sys.modules)"
    assert run_python("-c", code).stdout.strip() == "False"


@pytest.mark.parametrize("package", [evofool, evofool.bench, evofool.explain], ids=lambda p: p.__name__)
def test_every_public_name_is_there_and_an_unknown_one_names_them(package: Any) -> None:
    for name in package.__all__:
        getattr(package, name)
    with pytest.raises(AttributeError, match=f"{package.__name__} has no 'fool'; it has {package.__all__[0]}, "):
        package.fool  # noqa: B018


def test_the_import_alone_gives_verify_explain_and_bench() -> None:
    code = (
        "import evofool; from evofool.run.verify import verify; assert evofool.verify is verify; "
        "assert evofool.explain.explain.__name__ == 'explain'; assert evofool.bench.run_bench.__name__ == 'run_bench'"
    )
    done = run_python("-c", code)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_version_is_that_of_the_package() -> None:
    assert evofool.__version__ == version("evofool")
    done = run_python("-m", "evofool", "--version")
    assert (done.returncode, done.stdout) == (0, f"evofool {evofool.__version__}\n")


# --- the lines of the README and of the docstring


def test_the_docstring_shows_lines_of_the_readme() -> None:
    assert docstring_block() in python_blocks((ROOT / "README.md").read_text())


def test_the_lines_of_the_readme_and_of_the_docstring_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the order of the page, in one name space that has a user's network and its labels."""
    for name, blocks in (("README.md", python_blocks((ROOT / "README.md").read_text())), ("evofool", [docstring_block()])):
        assert blocks
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        names: dict[str, Any] = {"my_network": LeNet().eval(), "labels": list("0123456789")}
        for block in blocks:
            exec(compile(block, name, "exec"), names)
        assert capsys.readouterr().out.startswith("["), "the best log-odds of each class"


# --- types


USER = """\
import evofool

evofool.Run.strat("x")
evofool.load_recpie("mnist-cppn")
recipe = evofool.load_recipe("mnist-cppn", ["stop.evaluations=16"])
with evofool.Run.start(recipe, "runs/mine") as run:
    run.advance()
    best = run.best()
evofool.verify(evofool.StoredRun("runs/mine")).faults
evofool.bench.run_bench(evofool.bench.load_bench("bench-digits"))
"""
WRONG = {3: "strat", 4: "load_recpie", 10: "folder"}
"""By line of USER what a type checker has to name there; nothing else is wrong."""


def lines_with_errors(output: str) -> dict[int, str]:
    return {int(line): message for line, message in re.findall(r"user\.py:(\d+)(?::\d+)?\D*? error: (.*)", output)}


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """A folder with a user's file; libraries that it does not use itself are not followed, for speed."""
    (tmp_path / "user.py").write_text(USER)
    skipped = ("torch", "torchvision", "numpy", "PIL", "pydantic", "matplotlib", "scipy", "deap", "numba", "ray")
    sections = "".join(f"[mypy-{name}.*]\nfollow_imports = skip\nignore_missing_imports = True\n" for name in skipped)
    (tmp_path / "mypy.ini").write_text(f"[mypy]\ncheck_untyped_defs = True\n{sections}")
    return tmp_path


def test_a_misspelt_method_is_an_error_for_mypy(user: Path) -> None:
    done = run_python("-m", "mypy", "user.py", cwd=user)
    found = lines_with_errors(done.stdout)
    assert found.keys() == WRONG.keys(), done.stdout + done.stderr
    assert all(WRONG[line] in found[line] for line in WRONG)


def test_a_misspelt_method_is_an_error_for_pyright(user: Path) -> None:
    pytest.importorskip("pyright")
    done = run_python("-m", "pyright", "--pythonpath", sys.executable, "user.py", cwd=user)
    found = lines_with_errors(done.stdout)
    assert found.keys() == WRONG.keys(), done.stdout + done.stderr
    assert all(WRONG[line] in found[line] for line in WRONG)

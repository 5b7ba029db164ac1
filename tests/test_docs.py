"""The documents say what the code does."""

import argparse
import importlib.util
import re
import shlex
import sqlite3
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from pydantic import BaseModel
from typer.main import get_command

import evofool
from docs import pages
from evofool import recipe as recipes
from evofool import recipe_encodings, recipe_parts
from evofool.bench import plan
from evofool.bench.reference import FOLDER
from evofool.bench.result_file import load_result
from evofool.cli.app import PANELS, app
from evofool.errors import RecipeError
from evofool.run.meta import RunMeta
from evofool.run.schema import OPTIONAL_TABLES, TABLES
from evofool.run.store import VERSION
from tests.test_rooms import FLOORS, asks_for, rooms_of

ROOT = Path(__file__).parent.parent


def test_every_command_and_group_is_in_the_readme_under_its_panel() -> None:
    readme = (ROOT / "README.md").read_text()
    lines = re.findall(r"^- (\w+): (`evofool .*?)(?=\n- |\n\n)", readme, re.MULTILINE | re.DOTALL)
    named = {panel: re.findall(r"`evofool ([a-z-]+)`", line) for panel, line in lines}
    assert named == {panel: list(commands) for panel, commands in PANELS.items()}


def test_every_shipped_recipe_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert [p.stem for p in recipes.shipped_recipes() if f"`{p.stem}`" not in readme] == []


@pytest.mark.parametrize(
    ("page", "modules"), [("recipes", [recipes, recipe_parts, recipe_encodings]), ("benchmarks", [plan])]
)
def test_every_key_is_on_its_page_with_its_default_and_a_description(page: str, modules: list[ModuleType]) -> None:
    """The page has the table of every model of these modules; the tables are made from the models."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    assert text == pages.with_keys(text), "python -m docs.pages writes the tables"
    found = [m for module in modules for m in vars(module).values() if isinstance(m, type) and issubclass(m, BaseModel)]
    homes = {module.__name__ for module in modules}
    models = [model for model in dict.fromkeys(found) if model.__module__ in homes and model.model_fields]
    assert len(models) > 4
    for model in models:
        for key, field in model.model_fields.items():
            row = re.search(rf"^\| `(?:[a-z]+\.)?{key}` \| ([^|]+) \| ([^|]|\\\|)+ \| (\S.*) \|$", text, re.MULTILINE)
            assert row, f"{model.__name__}.{key}"
            assert field.description, f"{model.__name__}.{key}"
            assert " ".join(field.description.split()).replace("|", "\\|") in text
    assert "| `search.batch` | `16` | integer, at least 1, at most 2^20 |" in text or page == "benchmarks"


def test_the_examples_on_the_pages_of_keys_load() -> None:
    run, bench = ((ROOT / "docs" / f"{page}.md").read_text() for page in ("recipes", "benchmarks"))
    (example,) = re.findall(r"```toml\n(.*?)```", run, re.DOTALL)
    assert recipes.parse(tomllib.loads(example), "recipes.md").search.batch == 12
    (example,) = re.findall(r"```toml\n(.*?)```", bench, re.DOTALL)
    assert plan.parse(tomllib.loads(example), "benchmarks.md").changes("cppn") == ("search.batch=32",)


def test_the_page_of_commands_has_every_command_with_every_option() -> None:
    page = pages.commands_page()
    root = get_command(app)
    for path, command in every_command("evofool", root):
        assert f"### {path}\n" in page
        section = page.partition(f"### {path}\n")[2].partition("\n### ")[0]
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or parameter.opts[0] in section, f"{path}: {parameter.opts[0]}"


def test_every_recipe_travels_in_the_wheel():
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "force-include"
    ]
    assert packed == {f"runs/{p.name}": f"evofool/recipes/{p.name}" for p in (ROOT / "runs").glob("*.toml")}


def test_ci_runs_the_commands_of_the_readme() -> None:
    """A session of noxfile.py takes each command out of the README, and both scripts run these sessions."""
    source = (ROOT / "noxfile.py").read_text()
    blocks = re.findall(r"```sh\n(.*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    taken = dict(re.findall(r'def (\w+)\(session[^\n]*\n[^\n]*\n.*?readme_command\("([^"]+)"\)', source))
    assert taken.keys() == {"install", "tests"}
    for word in taken.values():
        assert len([block for block in blocks if word in block]) == 1, f"one shell block of the README has {word}"
    (tests,) = [block for block in blocks if taken["tests"] in block]
    assert "not slow" not in tests, "the README's command runs all tests"
    sessions = re.findall(r"@nox\.session\n(?:@nox.*\n)?def (\w+)", source)
    for script in ("run", "full"):
        (called,) = re.findall(r"nox --session (.*)", (ROOT / ".ci" / script).read_text())
        assert {*taken, "lint", "site", "notebook"} <= set(called.split()) <= set(sessions)


def test_the_version_is_the_same_everywhere() -> None:
    version = evofool.__version__
    assert re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1] == version  # type: ignore[index]
    docs = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    named = re.findall(r"evofool-(\d+\.\d+\.\d+)-py3|evofool:(\d+\.\d+\.\d+)", docs)
    assert {wheel or image for wheel, image in named} == {version}


def test_the_release_has_notes() -> None:
    pytest.importorskip("nox")
    spec = importlib.util.spec_from_file_location("noxfile", ROOT / "noxfile.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(noxfile := importlib.util.module_from_spec(spec))
    notes = noxfile.release_notes(evofool.__version__)
    assert notes.startswith(f"# evofool {evofool.__version__}\n")
    assert "### Moves results" in notes
    assert "](" not in notes
    with pytest.raises(SystemExit, match="no section on nothing"):
        noxfile.release_notes("nothing")


def test_lines_of_prose_wrap_at_100() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        prose = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        long = [line for line in prose.splitlines() if len(line) > 100 and not re.match(r" *(\||!\[|#|<)", line)]
        assert not long, f"{page.name}: {long[0]}"


def test_every_item_of_a_list_begins_a_line() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        prose = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        within = re.findall(r"^(?! *\|).*[.:;)] (?:- |\d+\. )(?=[*`]).*", prose, re.MULTILINE)
        assert not within, f"{page.name}: {within[0]}"


def test_the_pictures_of_the_documents_are_there():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text()):
            assert (page.parent / picture).is_file(), f"{page.name} shows {picture}"


def test_the_pages_link_the_examples_that_the_site_makes() -> None:
    texts = [page.read_text() for page in (ROOT / "docs").glob("*.md")]
    assert {link for text in texts for link in re.findall(r"\]\(examples/([^)]+)\)", text)} == set(pages.EXAMPLES)


def test_the_page_of_the_file_has_every_table_column_and_key() -> None:
    page = (ROOT / "docs" / "run-file.md").read_text()
    database = sqlite3.connect(":memory:")
    database.executescript(TABLES + "".join(OPTIONAL_TABLES.values()))
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        (row,) = re.findall(rf"^\| `{table}` \|.*$", page, re.MULTILINE)
        columns = [column[1] for column in database.execute(f"PRAGMA table_info({table})")]
        hidden = {"id", "key", "value", "class", "niche"} if table in ("meta", "cell_history", "elites") else set()
        assert [name for name in columns if name not in hidden and f"`{name}`" not in row] == [], table
    assert f"This is version {VERSION} of the file" in " ".join(page.split())
    keys = page.partition("## The keys of `meta`")[2].partition("\n## ")[0]
    assert [key for key in RunMeta.model_fields if not re.search(rf"^\| .*`{key}`.* \|", keys, re.MULTILINE)] == []


def test_the_drawing_of_rooms_has_every_floor_and_every_arrow() -> None:
    """Fails after a move; the drawing that has to be pasted into docs/architecture.md is in the message."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    (drawn,) = re.findall(r"```mermaid\n(.*?)```", page, re.DOTALL)
    assert drawn == drawing_of_rooms(), f"docs/architecture.md has to draw:\n\n{drawing_of_rooms()}"
    floors, arrows = pages.arrows(drawn)
    assert [room for floor in floors for room in floor] == [room for floor in reversed(FLOORS[:-1]) for room in floor]
    assert len(arrows) > len(floors)
    assert pages.drawing(drawn).count("<path") == len(arrows) + 1


def test_the_page_of_2015_has_thirteen_rows_with_their_sources_and_commands_that_parse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = (ROOT / "docs" / "fooling-2015.md").read_text()
    figures, measured = (
        [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        for table in re.findall(r"^\|[-|]+\|\n((?:\|.*\n)+)", page, re.MULTILINE)[:2]
    )
    assert [row[0] for row in figures] == [row[0] for row in measured] == [str(number) for number in range(1, 14)]
    assert {len(row) for row in figures} == {5}
    assert {len(row) for row in measured} == {3}
    for number, what, theirs, ours, difference in figures:
        assert re.search(r"\((read|recalled)\b", theirs), (
            f"row {number} ({what}): say whether 2015's figure was read or recalled"
        )
        assert re.search(r"\d", ours) or ours.startswith("none:"), number
        assert re.match(r"\*\*(holds|in part|does not hold|open)\*\*", difference), f"row {number}: {difference}"
    for number, commands, conditions in measured:
        assert re.findall(r"`((?:evofool|python -m) [^`]+)`", commands), f"row {number} has no command"
        assert conditions, number
    commands = re.findall(r"`((?:evofool|python -m) [^`]+)`", page)
    assert len(commands) >= 13
    for command in commands:
        refuse_unparsed(command, monkeypatch)
    for wrong in ("evofool transfer RUN --set a=1", "python -m tests.perf.reproduce_2015 --sead 1", "evofool run imagenot"):
        with pytest.raises((typer.TyperException, RecipeError, SystemExit)):
            refuse_unparsed(wrong, monkeypatch)


def refuse_unparsed(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises for a command whose options its program does not have, or whose recipe does not load; nothing is run."""
    program, *words = shlex.split(command)
    if program == "python":
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
        monkeypatch.setattr("sys.argv", words[1:])
        with pytest.raises(Parsed):
            import_module(words[1]).main()
        return
    here: Any = get_command(app)
    while hasattr(here, "commands"):
        here = here.commands[words.pop(0) if words[0] in here.commands else "run"]
    context = here.make_context(command, words)
    if here.name == "run" and "recipe_or_run" in context.params:
        changes = [change for change in context.params["changes"] or () if not change.startswith("target=")]
        recipes.load(context.params["recipe_or_run"], changes)


class Parsed(Exception):
    """The arguments of a script are valid."""


def parse_only(parser: argparse.ArgumentParser) -> None:
    """In the place of ArgumentParser.parse_args."""
    _, unknown = parser.parse_known_args()
    if unknown:
        parser.error(f"unknown: {unknown}")
    raise Parsed


def drawing_of_rooms() -> str:
    """The floors of tests/test_rooms.py as mermaid, without __main__, and without the arrows that follow from others."""
    rooms = rooms_of("evofool")
    order = [room for floor in FLOORS[:-1] for room in floor]
    below: dict[str, set[str]] = {}
    arrows = []
    for room in order:
        used = {other for other in below if any(asks_for(source, f"evofool.{other}") for source in rooms[room])}
        arrows += [(room, other) for other in sorted(used) if not any(other in below[third] for third in used)]
        below[room] = used.union(*(below[other] for other in used))
    lines = ["flowchart TB"]
    for number, floor in reversed(list(enumerate(FLOORS[:-1]))):
        lines += [f"  subgraph floor{number} [ ]", *(f"    {room}" for room in floor), "  end"]
    return "\n".join([*lines, *(f"  {room} --> {other}" for room, other in reversed(arrows))]) + "\n"


def every_command(path: str, group: Any) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield f"{path} {name}", command
        if hasattr(command, "commands"):
            yield from every_command(f"{path} {name}", command)


def test_the_board_has_every_result_that_is_shipped() -> None:
    page, files = pages.board(), sorted(FOLDER.rglob("*.json"))
    assert len(files) >= 3
    for file in files:
        assert f">{load_result(file)['target']['name']}<" in page
    assert "Without a rank" not in page
    assert "](board.html)" in (ROOT / "docs" / "benchmarks.md").read_text()

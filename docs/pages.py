"""Writes the generated part of the site (mkdocs.yml names this file as a hook), and the tables of keys in docs/.

Pages out of other files: index.md (README.md), changelog.md, contributing.md, commands.md (the typer app), board.html (the
results that the program ships), and a page for each notebook. Mermaid drawings are replaced by pictures that need no script.
Pages that evofool itself writes are linked as examples: they are made in docs/examples/ unless they are there (under a
minute; delete the folder to make them again).

`python -m docs.pages` writes the tables of keys into docs/*.md: a model's table stands between
`<!-- keys: MODULE.MODEL PREFIX -->` and `<!-- end of keys -->`.
"""

import logging
import re
import shutil
import subprocess
import sys
import tempfile
import types
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from evofool.whole_file import write_whole

ROOT = Path(__file__).parent.parent
EXAMPLES = {
    "explain.html": ("runs/mnist-cppn/explain-3/index.html", "run mnist-cppn", "explain runs/mnist-cppn --class 3"),
    "report.html": (
        "runs/lenet/report.html",
        "bench --target lenet --images digits --budget 100,400 --seeds 2 --workers 0 --out runs/lenet",
    ),
    "gallery/index.html": (
        "gallery/index.html",
        "run mnist-cppn --out runs/digits",
        "run imagenet --set search.classes=[1,107,340,417,562,920] --set search.random=128 --set stop.evaluations=2000 "
        "--set encoding.cosines=56 --out runs/efficientnet-lite0",
        "gallery runs --static gallery",
    ),
}
"""Of each example: the page that the commands leave in an empty folder, and the commands of evofool.

What the page shows or links to lies in a folder of its name, without .html, which is copied with it; with an index.html its
whole folder is.
"""


def on_pre_build(config: Any) -> None:
    """Make the examples that are missing, before mkdocs lists the files of docs/."""
    for name, (page, *commands) in EXAMPLES.items():
        if not (file := Path(config.docs_dir) / "examples" / name).exists():
            make_example(file, page, commands)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that no file in docs/ holds."""
    from mkdocs.structure.files import File

    def add(name: str, content: str | bytes) -> None:
        files.append(File.generated(config, name, content=content))

    add("index.md", "---\nhide: [navigation]\n---\n" + from_root("README.md"))
    add("changelog.md", from_root("CHANGELOG.md"))
    add("contributing.md", from_root("CONTRIBUTING.md"))
    add("commands.md", commands_page())
    add("board.html", board())
    for notebook in sorted((ROOT / "docs").glob("*.ipynb")):
        page, pictures = notebook_page(notebook)
        files.remove(files.get_file_from_path(notebook.name))
        add(f"{notebook.stem}.md", page)
        for name, data in pictures.items():
            add(name, data)
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace drawings by pictures, and links to a notebook by links to its page."""
    markdown = re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", markdown)
    return re.sub(r"```mermaid\n(.*?)```", lambda m: drawing(m[1]), markdown, flags=re.DOTALL)


# Pages out of other files


def from_root(name: str) -> str:
    """A file of the repository's root as a page of docs/: its links start one folder further down."""
    text = (ROOT / name).read_text(encoding="utf-8")
    pages = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}

    def link(match: re.Match[str]) -> str:
        target, anchor, fragment = match[1].partition("#")
        target = pages.get(target, target.removeprefix("docs/").replace(".ipynb", ".md"))
        return f"]({target}{anchor}{fragment})"

    return re.sub(r"\]\(((?!https?:)[^)]+)\)", link, text)


def board() -> str:
    """The leaderboard of the results that the program ships."""
    from evofool.bench.board.board import make_board
    from evofool.bench.board.board_page import board_page
    from evofool.bench.reference import FOLDER

    return board_page(make_board(sorted(FOLDER.rglob("*.json"))))


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, with the outputs that it was saved with, and its pictures by file name."""
    import nbformat
    from nbconvert import MarkdownExporter

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.outputs = _joined(cell.get("outputs", []))
    page, resources = MarkdownExporter().from_notebook_node(notebook)
    pictures = {f"{path.stem}_{name}": data for name, data in resources.get("outputs", {}).items()}
    for name in resources.get("outputs", {}):
        page = page.replace(f"({name})", f"({path.stem}_{name})")
    return page, pictures


def _joined(outputs: list[Any]) -> list[Any]:
    """Outputs with what one process printed in one piece, as it came in pieces of 100 characters."""
    joined: list[Any] = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


# Examples


def make_example(file: Path, page: str, commands: list[str]) -> None:
    """Write the file: the page that these commands of evofool leave in an empty folder."""
    from mkdocs.exceptions import PluginError

    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for command in commands:
            logging.getLogger("mkdocs.hooks").info("examples/%s: evofool %s", file.name, command)
            arguments = [sys.executable, "-m", "evofool", *command.split()]
            done = subprocess.run(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode:
                raise PluginError(f"examples/{file.name}: evofool {command} failed:\n{done.stdout}")
        if file.name == "index.html":
            shutil.copytree(Path(folder, page).parent, file.parent, dirs_exist_ok=True)
        elif (beside := Path(folder, page).with_suffix("")).is_dir():
            shutil.copytree(beside, file.with_suffix(""), dirs_exist_ok=True)
        write_whole(file, Path(folder, page).read_bytes())


# Commands


def commands_page() -> str:
    """Every command with all of its arguments and options, as the typer app declares them."""
    import typer
    from typer.main import get_command

    from evofool.cli.app import app

    panels: dict[str, list[str]] = {}
    root = get_command(app)
    for name, command, panel, context in _commands(typer.Context(root, info_name="evofool"), root):
        panels.setdefault(panel, []).append(_command(name, command, context))
    parts = ["# Commands", "Every command with all of its options, generated from the program itself."]
    for panel, texts in panels.items():
        parts += [f"## {panel}", *texts]
    return "\n\n".join(parts) + "\n"


def _commands(context: Any, group: Any, panel: str = "Commands") -> Iterator[tuple[str, Any, str, Any]]:
    import typer

    for name, command in group.commands.items():
        if command.hidden:
            continue
        here = command.rich_help_panel if isinstance(command.rich_help_panel, str) else panel
        inner = typer.Context(command, info_name=name, parent=context)
        yield inner.command_path, command, here, inner
        if hasattr(command, "commands"):
            yield from _commands(inner, command, here)


def _command(name: str, command: Any, context: Any) -> str:
    usage = f"```sh\n{name} {' '.join(command.collect_usage_pieces(context))}\n```"
    rows = [param.get_help_record(context) for param in command.get_params(context)]
    options = [f"`{words}`\n:   {_markup(text)}" for words, text in filter(None, rows)]
    return "\n\n".join([f"### {name}", usage, _markup(command.help or ""), *options])


def _markup(text: str) -> str:
    """Rich's [bold]...[/bold] as Markdown, and nothing outside `code` that Markdown would take for its own."""
    parts = text.replace("\\[", "[").split("`")
    for place in range(0, len(parts), 2):
        plain = re.sub(r"<(?=\w)", "&lt;", parts[place].replace("*", "\\*"))
        parts[place] = re.sub(r"\[/?bold\]", "**", plain)
    return "`".join(parts)


# Keys of recipes


def with_keys(markdown: str) -> str:
    """The page with the table of keys after each comment that names a model."""

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{keys_table(*match.groups()[1:])}\n\n<!-- end of keys -->"

    return re.sub(r"(<!-- keys: (\S+)\.(\w+) ?(\S*) -->).*?<!-- end of keys -->", block, markdown, flags=re.DOTALL)


def keys_table(module: str, model: str, prefix: str = "") -> str:
    """The keys of a pydantic model: default, accepted values, and the description in its source."""
    part = getattr(import_module(module), model)
    rows = ["| key | default | values | what it does |", "|---|---|---|---|"]
    for key, field in part.model_fields.items():
        default = _default(field)
        values = _values(field.annotation, field.metadata)
        text = " ".join((field.description or "").split())
        cells = (f"`{prefix}{key}`", default, values, text)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _default(field: Any) -> str:
    from pydantic import BaseModel

    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, BaseModel):
        return "below"
    return "none" if value in (None, "", (), {}) else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return f"{value:_}" if isinstance(value, int) else str(value)


def _values(annotation: Any, metadata: list[Any]) -> str:
    """The accepted values in words: "integer, at least 1", the strings of a Literal, "table"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        inner = [found for item in arguments[1:] for found in (getattr(item, "metadata", None) or [item])]
        return _values(arguments[0], [*metadata, *inner])
    if origin is Literal:
        return ", ".join(f'`"{value}"`' for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_values(a, metadata) for a in arguments if a is not type(None)))
    if origin is tuple:
        item = _values(arguments[0], [])
        return f"list of {len(arguments)}: {item}" if arguments[-1] is not Ellipsis else f"list of: {item}"
    names = {int: "integer", float: "number", str: "text", bool: "true or false"}
    return names.get(annotation, "table") + _bounds(metadata)


def _bounds(metadata: list[Any]) -> str:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found = [(text, getattr(item, name)) for item in metadata for name, text in words.items() if hasattr(item, name)]
    return "".join(f", {text} {_number(value)}" for text, value in found)


def _number(value: float) -> str:
    if isinstance(value, int) and value >= 1 << 16:
        return f"2^{value.bit_length() - 1}" if value & (value - 1) == 0 else f"{value:,}"
    return f"{value:,}"


# Drawings


def arrows(mermaid: str) -> tuple[list[list[str]], list[tuple[str, str]]]:
    """Floors (top first) of a mermaid drawing whose subgraphs are floors, and its arrows (user, used)."""
    blocks = re.findall(r"^  subgraph.*?^  end$", mermaid, re.DOTALL | re.MULTILINE)
    floors = [re.findall(r"^    (\w+)$", block, re.MULTILINE) for block in blocks]
    return floors, [(a, b) for a, b in re.findall(r"^\s*(\w+) --> (\w+)$", mermaid, re.MULTILINE)]


def drawing(mermaid: str) -> str:
    """The drawing as SVG: mermaid itself would load a script of 3 MB, from another server unless it lies here."""
    floors, pairs = arrows(mermaid)
    width, height, gap, room = 860, 34, 40, 118
    place = {}
    for row, names in enumerate(floors):
        step = width / len(names)
        for column, name in enumerate(names):
            place[name] = (step * (column + 0.5), row * (height + gap) + height / 2 + 2)
    lines = []
    for user, used in pairs:
        (x1, y1), (x2, y2) = place[user], place[used]
        y1, y2 = y1 + height / 2, y2 - height / 2
        middle = (y2 - y1) / 2
        lines.append(
            f'<path d="M{x1:.0f} {y1:.0f} C{x1:.0f} {y1 + middle:.0f} {x2:.0f} {y2 - middle:.0f} {x2:.0f} {y2 - 5:.0f}" '
            'fill="none" stroke="currentColor" stroke-opacity="0.45" marker-end="url(#tip)"/>'
        )
    boxes = [
        f'<rect x="{x - room / 2:.0f}" y="{y - height / 2:.0f}" width="{room}" height="{height}" rx="5" '
        'fill="var(--md-code-bg-color, #eee)" stroke="currentColor" stroke-opacity="0.5"/>'
        f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle" font-size="14" fill="currentColor">{name}</text>'
        for name, (x, y) in place.items()
    ]
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="5" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    tip += '<path d="M0 0 L8 4 L0 8 z" fill="currentColor" fill-opacity="0.6"/></marker>'
    box = f"0 0 {width} {len(floors) * (height + gap)}"
    return f'<svg viewBox="{box}" role="img" aria-label="layers"><defs>{tip}</defs>{"".join(lines + boxes)}</svg>\n'


if __name__ == "__main__":
    for path in sorted((ROOT / "docs").glob("*.md")):
        path.write_text(with_keys(path.read_text(encoding="utf-8")), encoding="utf-8")

"""Which room may know which: read from the imports of the sources, whether or not they are ever executed."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import typer
from typer.models import CommandInfo

import evofool
import genomes
from evofool.cli.app import app

ROOMS = {package.__name__: Path(package.__file__).parent for package in (evofool, genomes)}
SOURCES = {
    f"{name}/{path.relative_to(folder).as_posix()}": path
    for name, folder in ROOMS.items()
    for path in sorted(folder.rglob("*.py"))
}


def module_of(source: str) -> str:
    """evofool/targets/network.py is evofool.targets.network, evofool/targets/__init__.py is evofool.targets."""
    return source.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def imports(source: str) -> frozenset[str]:
    """Every module that a file asks for, anywhere in it, and `package.name` for what it takes from a package."""
    found: set[str] = set()
    tree = ast.parse(SOURCES[source].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module_of(source).split(".")
                keep = len(package) - node.level + source.endswith("/__init__.py")
                base = ".".join([*package[:keep], *([node.module] if node.module else [])])
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            found.update(str(a.value) for a in node.args if isinstance(a, ast.Constant))
    return frozenset(found)


def asks_for(source: str, *modules: str) -> bool:
    return any(name == m or name.startswith(f"{m}.") for name in imports(source) for m in modules)


def who_imports(*modules: str) -> set[str]:
    return {source for source in SOURCES if asks_for(source, *modules)}


FLOORS = (
    ("text",),
    ("errors", "json_text", "lazy", "machine", "printer"),
    ("whole_file", "whole_folder"),
    ("csv_file", "images", "json_file", "scores", "toml_file"),
    ("descriptors", "scores_torch", "pages"),
    ("targets",),
    ("generators", "image_metrics", "recipe_parts"),
    ("recipe_encodings",),
    ("ascend", "recipe"),
    ("search",),
    ("cluster", "explain"),
    ("run",),
    ("quiz",),
    ("attacks", "export"),
    ("sweep",),
    ("bench", "gallery"),
    ("fooling_set",),
    ("cli", "pytest_plugin"),
    ("__main__",),
)
"""The rooms of evofool/, files and packages, the lowest floor first. A room imports only from floors below its own."""

BENCH_FLOORS = (
    (
        "acceptance",
        "acceptance_rule",
        "answer_file",
        "cell_job",
        "interval",
        "limits",
        "network_features",
        "real",
        "result_file",
    ),
    ("arms", "calibration", "real_features", "seen_answers", "statistics", "training_images"),
    ("comparable", "headline", "trace"),
    ("reference",),
    ("cell", "compare", "report", "retraining", "scoring", "sets"),
    ("detect", "plan"),
    ("entries", "summary"),
    ("board", "manifest", "scheduler"),
    ("prepare", "time_budget"),
    ("detector_stage", "gradient_stage", "image_metrics_stage", "likeness_stage", "surrogate_stage", "transfer"),
    ("cell_plan",),
    ("collect",),
    ("results",),
    ("finish",),
    ("bench",),
    ("gate",),
)
"""The same of evofool/bench/. A benchmark passes through them from prepare to finish."""


def rooms_of(package: str) -> dict[str, set[str]]:
    """By room of a package, its sources: a room is a file or a package right inside it."""
    rooms: dict[str, set[str]] = {}
    for source in SOURCES:
        if source.startswith(f"{package}/") and source != f"{package}/__init__.py":
            name = source.removeprefix(f"{package}/").partition("/")[0].removesuffix(".py")
            rooms.setdefault(name, set()).add(source)
    return rooms


@pytest.mark.parametrize(("package", "floors"), [("evofool", FLOORS), ("evofool/bench", BENCH_FLOORS)])
def test_every_file_and_package_has_its_place(package: str, floors: tuple[tuple[str, ...], ...]) -> None:
    placed = [room for floor in floors for room in floor]
    assert sorted(placed) == sorted(rooms_of(package)), "place a new file or package on a floor of tests/test_rooms.py"


@pytest.mark.parametrize(("package", "floors"), [("evofool", FLOORS), ("evofool/bench", BENCH_FLOORS)])
def test_arrows_point_down_only(package: str, floors: tuple[tuple[str, ...], ...]) -> None:
    prefix = package.replace("/", ".")
    for floor, rooms in enumerate(floors):
        for room in rooms:
            not_below = {f"{prefix}.{other}" for upper in floors[floor:] for other in upper} - {f"{prefix}.{room}"}
            for source in rooms_of(package)[room]:
                up = sorted(name for name in not_below if asks_for(source, name))
                assert not up, f"{source} imports {', '.join(up)}, which {'is' if len(up) == 1 else 'are'} not below it"


def commands_of(group: typer.Typer) -> list[CommandInfo]:
    nested = [entry.typer_instance for entry in group.registered_groups]
    return [*group.registered_commands, *(command for inner in nested if inner for command in commands_of(inner))]


def test_no_source_has_over_450_lines() -> None:
    lengths = {source: len(path.read_text(encoding="utf-8").splitlines()) for source, path in SOURCES.items()}
    assert {source: lines for source, lines in lengths.items() if lines > 450} == {}


def test_no_function_has_over_8_parameters() -> None:
    """Left out are jitted functions, which take arrays one by one, and commands, whose parameters are options."""
    commands = {(c.callback.__module__, c.callback.__name__) for c in commands_of(app) if c.callback}
    assert ("evofool.cli.run", "run") in commands
    long = []
    for source, path in SOURCES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                a = node.args
                names = {argument.arg for argument in (*a.posonlyargs, *a.args, *a.kwonlyargs)} - {"self", "cls"}
                jitted = any("jit" in text or "kernel" in text for text in map(ast.unparse, node.decorator_list))
                if len(names) > 8 and not jitted and (module_of(source), node.name) not in commands:
                    long.append(f"{source}:{node.name} has {len(names)}")
    assert long == []


def test_the_reader_of_imports_reads_them() -> None:
    assert {"evofool/run/run.py", "genomes/cppn/vary.py", "evofool/targets/__init__.py"} <= SOURCES.keys()
    assert asks_for("evofool/run/run.py", "evofool.run.store")
    assert asks_for("evofool/search/evaluate.py", "evofool.scores"), "`from evofool import scores` counts"
    assert asks_for("evofool/run/verify.py", "evofool.targets")
    assert not asks_for("evofool/scores.py", "evofool.run.store")


def test_the_lazy_names_of_evofool_are_for_users() -> None:
    """`import evofool` or `from evofool import Run` inside the package would hide from which room a name comes."""
    modules = {module_of(source) for source in SOURCES}
    for source in SOURCES:
        for node in ast.walk(ast.parse(SOURCES[source].read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import) and not source.startswith("evofool/cli/"):
                assert "evofool" not in {alias.name for alias in node.names}, f"{source}: name the module"
            elif isinstance(node, ast.ImportFrom) and node.module == "evofool" and source != "evofool/__init__.py":
                assert {f"evofool.{alias.name}" for alias in node.names} <= modules, f"{source}: name the module"
            elif isinstance(node, ast.ImportFrom) and node.module == "importlib":
                assert all(alias.asname is None for alias in node.names), f"{source}: import_module keeps its name"


def test_genomes_never_imports_evofool() -> None:
    assert {source for source in who_imports("evofool") if source.startswith("genomes/")} == set()


@pytest.mark.parametrize(
    ("library", "home"),
    [
        (
            "ray",
            "cluster/evaluator.py cluster/slots.py cluster/tasks.py cluster/task_progress.py cluster/session.py "
            "cluster/dashboard.py cluster/actors.py cluster/ahead.py cluster/format_choice.py cluster/watch.py "
            "cluster/start_up.py cluster/room.py",
        ),
        ("deap", "search/evolve.py"),
        ("httpx", "targets/remote/client.py targets/remote/connection.py"),
        ("onnxruntime", "targets/loaders/onnx.py"),
        ("timm", "targets/loaders/zoo.py"),
        ("transformers", "targets/loaders/hf.py"),
        ("ai_edge_litert", "targets/loaders/tflite.py"),
        ("skops", "targets/loaders/sklearn.py"),
        ("rich", "printer.py"),
        ("csv", "csv_file.py"),
    ],
)
def test_one_file_alone_imports_each_of_these(library: str, home: str) -> None:
    homes = {f"evofool/{place}" for place in home.split()}
    assert who_imports(library) == homes & SOURCES.keys()


def test_only_the_http_client_uses_the_connection() -> None:
    assert who_imports("evofool.targets.remote.connection") == {"evofool/targets/remote/client.py"}


def test_only_the_printer_prints() -> None:
    """Whatever is printed elsewhere would reach the terminal with the escape sequences in it."""
    printing = re.compile(
        r"(print|input|breakpoint)|(typer|click)\.s?echo|sys\.(stdout|stderr|__stdout__|__stderr__)(\.buffer)?\.write(lines)?"
        r"|traceback\.print_\w+|os\.write|warnings\.(warn|showwarning)\w*|logging\.\w+"
    )
    found = [
        f"{source}:{node.lineno} {ast.unparse(node.func)}"
        for source, path in SOURCES.items()
        # __main__ writes a constant, before the printer can be imported. A compiling process writes names of functions into
        # the pipe to the process that started it.
        if source not in ("evofool/printer.py", "evofool/__main__.py", "genomes/compilation.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and printing.fullmatch(ast.unparse(node.func))
    ]
    assert found == [], "print with evofool.printer"


@pytest.mark.parametrize("library", ["pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"])
def test_nothing_imports_what_can_execute_a_file(library: str) -> None:
    assert who_imports(library) == set()


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    modules = {module_of(source): source for source in SOURCES}
    needs = {name: {m for m in imports(source) if m in modules} - {name} for name, source in modules.items()}
    packages = {name for name, source in modules.items() if source.endswith("/__init__.py")}
    # A package's own file gathers the names of its modules, and they import one another through it.
    needs = {name: set() if name in packages else wanted - packages for name, wanted in needs.items()}
    while needs:
        free = {name for name, wanted in needs.items() if not wanted & needs.keys()}
        assert free, f"these import each other: {sorted(needs)}"
        needs = {name: wanted for name, wanted in needs.items() if name not in free}

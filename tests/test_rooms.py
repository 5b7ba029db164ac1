"""Which room may know which: read from the imports of the sources, whether or not they are ever executed."""

import ast
from pathlib import Path

import pytest

import evofool
import genomes

ROOMS = {package.__name__: Path(package.__file__).parent for package in (evofool, genomes)}
SOURCES = {
    f"{name}/{path.relative_to(folder).as_posix()}": path
    for name, folder in ROOMS.items()
    for path in sorted(folder.rglob("*.py"))
}


def module_of(source: str) -> str:
    """evofool/targets/lenet.py is evofool.targets.lenet, evofool/targets/__init__.py is evofool.targets."""
    return source.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(source: str) -> set[str]:
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
    return found


def asks_for(source: str, *modules: str) -> bool:
    return any(name == m or name.startswith(f"{m}.") for name in imports(source) for m in modules)


def who_imports(*modules: str) -> set[str]:
    return {source for source in SOURCES if asks_for(source, *modules)}


def test_the_reader_of_imports_reads_them() -> None:
    assert {"evofool/run.py", "genomes/cppn/vary.py", "evofool/targets/__init__.py"} <= SOURCES.keys()
    assert asks_for("evofool/run.py", "evofool.store")
    assert asks_for("evofool/evaluate.py", "evofool.scores"), "`from evofool import scores` counts"
    assert asks_for("evofool/verify.py", "evofool.targets")
    assert not asks_for("evofool/scores.py", "evofool.store")


def test_genomes_never_imports_evofool() -> None:
    assert {source for source in who_imports("evofool") if source.startswith("genomes/")} == set()


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("ray", "cluster/evaluator.py cluster/farm.py cluster/membership.py cluster/gauges.py"),
        ("deap", "evolve.py"),
        ("httpx", "targets/wire.py targets/line.py"),
        ("onnxruntime", "targets/onnx.py"),
        ("timm", "targets/zoo.py"),
    ],
)
def test_one_file_alone_imports_each_of_these(library: str, home: str) -> None:
    homes = {f"evofool/{place}" for place in home.split()}
    assert who_imports(library) == homes & SOURCES.keys()


def test_the_files_of_one_door_are_neighbours() -> None:
    """What talks over the network is one room's: the requests, and the connection below them."""
    assert who_imports("evofool.targets.line") == {"evofool/targets/wire.py"}


@pytest.mark.parametrize("library", ["pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"])
def test_nothing_imports_what_can_execute_a_file(library: str) -> None:
    assert who_imports(library) == set()


def test_the_pages_know_nothing_of_runs() -> None:
    pages = {source for source in SOURCES if source.startswith("evofool/pages/")}
    assert pages
    above = [f"evofool.{room}" for room in ("run", "recipe", "store", "evaluate", "evolve", "elites", "verify", "cli")]
    assert who_imports(*above) & pages == set()


def test_arrows_point_down_only() -> None:
    """No room imports one that is drawn to its right: errors and images, then targets, scores and archive, ..."""
    floors = [
        ("errors", "images"),
        ("targets", "scores", "archive", "descriptors"),
        ("evaluate", "ascend"),
        ("baselines", "rivals", "explain"),
        ("shipping", "jobs", "evolve"),
        ("cluster",),
        ("recipe", "store"),
        ("elites",),
        ("parents",),
        ("measured", "restore"),
        ("run", "written"),
        ("serve", "baseline_run", "unit_run"),
        ("elite_file", "dataset", "data_card"),
        ("verify", "export", "lineage", "merge", "replay"),
        ("bench",),
        ("console", "console_targets", "console_bench"),
        ("cli_targets", "cli_merge", "cli_replay", "cli_workers", "cli_baseline", "cli_explain", "cli_polish", "cli_export"),
        ("cli_bench", "cli_judge", "cli_retrain", "cli_score_set", "cli_transfer"),
        ("cli_gate",),
        ("cli",),
    ]
    for floor, rooms in enumerate(floors):
        above = [f"evofool.{room}" for upper in floors[floor + 1 :] for room in upper]
        for source in SOURCES:
            if any(source == f"evofool/{room}.py" or source.startswith(f"evofool/{room}/") for room in rooms):
                assert not asks_for(source, *above), f"{source} looks up"


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

"""The documents say what the code does."""

import re
import tomllib
from pathlib import Path

from pydantic import BaseModel

from evofool import recipe as recipes
from evofool.bench import plan
from evofool.cli.app import PANELS

ROOT = Path(__file__).parent.parent


def test_every_command_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    names = [name for panel in PANELS.values() for name in panel]
    assert [name for name in names if f"`evofool {name} " not in readme] == []


def test_every_shipped_recipe_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert [p.stem for p in recipes.shipped_recipes() if f"`{p.stem}`" not in readme] == []


def test_every_key_of_a_recipe_is_documented_with_its_default():
    page = (ROOT / "docs" / "recipes.md").read_text()
    tables = {
        "search": recipes.SearchPart,
        "stop": recipes.StopPart,
        "compute": recipes.ComputePart,
        "save": recipes.SavePart,
    }
    keys = [f"{table}.{key}" for table, model in tables.items() for key in fields(model)]
    keys += [f"niches.{key}" for key in fields(recipes.NichesPart)] + fields(recipes.DirectPart)[1:]
    keys += [key for key in fields(recipes.CPPNPart) if key not in ("kind", "mutation")]
    keys += [f"mutation.{key}" for key in fields(recipes.MutationPart)]
    assert [key for key in keys if f"`{key}`" not in page] == []
    for key in ("batch", "seed", "lag"):
        row = re.search(rf"\| `search\.{key}` \| (\S+) \|", page)
        assert row
        assert row[1] == str(recipes.SearchPart.model_fields[key].default)


def test_every_key_of_a_benchmark_is_documented_with_its_default():
    page = (ROOT / "docs" / "recipes.md").read_text().partition("\n## Benchmarks\n")[2]
    tables = dict(
        zip(("top", "targets", "arm", "detectors", "image_metrics"), page.split("| key | default |")[1:], strict=True)
    )
    models = {
        "top": plan.BenchRecipe,
        "targets": plan.TargetPart,
        "arm": plan.ArmPart,
        "detectors": plan.DetectorsPart,
        "image_metrics": plan.ImageMetricsPart,
    }
    for part, model in models.items():
        named = [
            key for row in re.findall(r"^\| (`[^|]+) \|", tables[part], re.MULTILINE) for key in re.findall(r"`(\w+)`", row)
        ]
        assert sorted(named) == sorted(fields(model)), part
        for key, field in model.model_fields.items():
            if isinstance(field.default, (bool, int)):
                row = re.search(rf"^\| `{key}` \| (\w+)", tables[part], re.MULTILINE)
                assert row, key
                assert row[1] == str(field.default).lower(), key
    assert str(plan.TargetPart(train="none").each_epochs) == re.search(r"\| `epochs` \| (\d+) \|", page)[1]
    assert str(list(plan.QUICK)).replace("'", '"') in tables["top"]


def test_the_benchmark_on_the_page_loads():
    example = re.search(r"## Benchmarks.*?```toml\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text(), re.DOTALL)
    assert example
    assert plan.parse(tomllib.loads(example[1]), "recipes.md").changes("cppn") == ("search.batch=32",)


def test_every_recipe_travels_in_the_wheel():
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "force-include"
    ]
    assert packed == {f"runs/{p.name}": f"evofool/recipes/{p.name}" for p in (ROOT / "runs").glob("*.toml")}


def test_ci_calls_the_test_command_of_the_readme():
    blocks = re.findall(r"```sh\n(.*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    (command,) = [block for block in blocks if "pytest" in block]
    assert command in (ROOT / ".ci" / "run").read_text()


def test_the_pictures_of_the_documents_are_there():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text()):
            assert (page.parent / picture).is_file(), f"{page.name} shows {picture}"


def fields(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)

"""`polish`: better images replace elites, in a new run that all commands can read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from evofool.ascend.draws import Draws
from evofool.ascend.scaled_weights import ScaledWeights, effects
from evofool.attacks import polish as polishing
from evofool.attacks.polish import PolishOutcome, PolishPlan, polish
from evofool.cli.polish import polish as command
from evofool.descriptors import DESCRIPTORS, bins
from evofool.errors import EvofoolError, RecipeError, StoreError, TargetError
from evofool.export.export import export
from evofool.images import quantise
from evofool.recipe import load, parse
from evofool.run.lineage import lineage
from evofool.run.merge import merge
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from evofool.targets import Target
from evofool.targets import target as load_target
from genomes import CPPN, Key
from genomes.cppn.complete import complete

KINDS: dict[str, dict[str, Any]] = {"cppn": {"kind": "cppn"}, "direct": {"kind": "direct"}}
NICHES = {"descriptor": "mirror_symmetry", "edges": [0.75, 0.9]}
LENET = load_target("lenet")


def searched(kind: str, folder: Path, target: Target = LENET, **parts: Any) -> Path:
    data = {
        "target": "lenet",
        "encoding": KINDS[kind],
        "search": {"batch": 12, "seed": 4, **parts.pop("search", {})},
        "stop": {"evaluations": 120},
        **parts,
    }
    with Run.start(parse(data, "test"), folder, target) as run:
        run.advance()
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes the folder of a short search, with or without niches."""
    made: dict[tuple[str, bool], Path] = {}

    def of(kind: str, niches: bool = False) -> Path:
        if (kind, niches) not in made:
            parts = {"niches": NICHES} if niches else {}
            made[kind, niches] = searched(kind, tmp_path_factory.mktemp("runs") / kind, **parts)
        return made[kind, niches]

    return of


def holds(folder: Path) -> StoredRun:
    """The run, once verify has confirmed it to the bit."""
    with StoredRun(folder) as stored:
        verdict = verify(stored, LENET)
        assert verdict.exact
        assert not verdict.faults
    return StoredRun(folder)


def polished(folder: Path, out: Path, target: Target = LENET, streams: int = 0, **plan: Any) -> PolishOutcome:
    return polish(folder, out, PolishPlan(**plan), target=target, streams=streams)


def content(folder: Path) -> dict[str, Any]:
    with StoredRun(folder) as stored:
        births = {change.birth for change in stored.store.cell_history()}
        return {
            "elites": [(row.cell, row.birth, row.sha256, row.method) for row in stored.store.elites()],
            "cell_history": [(change.cell, change.birth, change.log_odds) for change in stored.store.cell_history()],
            "genomes": stored.store.genomes(births),
            "origins": stored.store.origins(),
            "curve": [{k: v for k, v in row.items() if k != "seconds"} for row in stored.rows()],
            "passes": stored.meta.attack.model_dump(include={"done", "forwards", "backwards"}),
        }


@pytest.mark.parametrize(
    ("kind", "by", "niches", "grow"),
    [
        ("cppn", "", False, True),
        ("cppn", "", False, False),
        ("cppn", "pixels", False, True),
        ("direct", "", False, True),
        ("cppn", "", True, True),
    ],
)
def test_better_images_replace_their_elites_and_the_others_stay(
    kind: str, by: str, niches: bool, grow: bool, source: Callable[..., Path], tmp_path: Path
) -> None:
    folder = source(kind, niches)
    done = polished(folder, tmp_path / "new", by=by, budget=4, grow=grow)
    by = by or {"cppn": "weights", "direct": "pixels"}[kind]
    with holds(tmp_path / "new") as new, StoredRun(folder) as old:
        before = {e.row.cell: e for e in old.elites()}
        after = {e.row.cell: e for e in new.elites()}
        assert before.keys() == after.keys()
        assert len(after) == done.elites == len(done.after)
        origins = new.store.origins()
        replaced = [e for e in after.values() if e.row.method == "polish"]
        assert len(replaced) == done.polished > len(after) // 2
        for cell, e in after.items():
            original = before[cell]
            if e.row.method == "polish":
                assert e.row.log_odds > original.row.log_odds
                assert origins[e.row.mother] == (old.meta.id, original.row.birth)
                first = lineage(new, e.row.birth)[0]
                assert (first.image == original.image).all()
                assert e.row.class_id in first.held
            else:
                assert (e.image == original.image).all()
                assert e.row.method == "seed"
                assert e.row.mother == -1
                assert e.row.log_odds == original.row.log_odds
        genomes = np.concatenate([new.genome(e) for e in after.values()])
        if by == "weights":
            theirs = np.concatenate([old.genome(before[cell]) for cell in after])
            for field in ("n_nodes", "node_id", "act", *(() if grow else ("n_edges", "src", "dst"))):
                assert (genomes[field] == theirs[field]).all(), "the graphs are the same"
            assert (genomes["n_edges"] > theirs["n_edges"]).any() == grow
            assert np.abs(genomes["weight"]).max() <= new.encoding.weight_limit
        else:
            assert new.encoding.name == "direct"
        if niches:
            images = np.stack([e.image for e in after.values()])
            found = bins(DESCRIPTORS[NICHES["descriptor"]](images), NICHES["edges"])
            assert found.tolist() == [e.row.niche for e in after.values()]
            assert len(set(found.tolist())) > 1
        assert done.forwards == 4 * done.elites
        assert done.backwards == 3 * done.elites == new.meta.attack.backwards
        assert np.array_equal(done.after, [after[cell].row.log_odds for cell in sorted(after)])


def test_an_elite_of_several_classes_is_polished_for_each_separately(tmp_path: Path) -> None:
    with Run.start(parse({"encoding": KINDS["cppn"], "search": {"batch": 2}, "stop": {"evaluations": 2}}, "test"),
                   tmp_path / "old", LENET) as run:  # fmt: skip
        run.advance()
    polished(tmp_path / "old", tmp_path / "new", budget=5)
    with holds(tmp_path / "new") as new:
        replaced = [e for e in new.elites() if e.row.method == "polish"]
        assert len({e.row.mother for e in replaced}) <= 2 < len({e.row.birth for e in replaced}) == len(replaced)
        assert len({e.row.png for e in replaced}) == len(replaced)
        assert new.meta.seeds.number == len(new.store.origins()) <= 2


def test_the_rank_of_the_search_is_maximised(source: Callable[..., Path], tmp_path: Path) -> None:
    folder = searched("cppn", tmp_path / "old", search={"rank": "margin"})
    polished(folder, tmp_path / "new", budget=4)
    with holds(tmp_path / "new") as new, StoredRun(folder) as old:
        gained = [(b.row.margin - a.row.margin) for a, b in zip(old.elites(), new.elites(), strict=True)]
        assert min(gained) >= 0 < max(gained)


def test_an_interrupted_polish_that_is_resumed_ends_with_the_same_bits(
    source: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polishing, "_GROUP", 3)
    folder = source("cppn")
    whole = polished(folder, tmp_path / "whole", budget=4, streams=1)
    for stop in (1, 6, 7):  # in the first group, which leaves nothing; then in later ones
        steps = []
        part = polish(
            folder, tmp_path / "part", PolishPlan(budget=4), target=LENET,
            tick=lambda p: steps.append(p) or len(steps) == stop,  # noqa: B023
        )  # fmt: skip
        assert len(part.after) < part.elites
        if stop == 1:
            assert not (tmp_path / "part").exists()
        else:
            holds(tmp_path / "part").store.close()
    done = polished(folder, tmp_path / "part", budget=4, streams=2)
    assert content(tmp_path / "part") == content(tmp_path / "whole")
    assert np.array_equal(done.after, whole.after)
    assert done.elites == len(done.after)
    again = polished(folder, tmp_path / "part", budget=4)
    assert np.array_equal(again.after, whole.after), "nothing is left to do"
    with pytest.raises(RecipeError, match="was begun with budget = 4, not 5; pass another --out"):
        polished(folder, tmp_path / "part", budget=5)


def test_the_new_run_can_be_exported_merged_polished_and_evolved_from(source: Callable[..., Path], tmp_path: Path) -> None:
    folder, new = source("cppn"), tmp_path / "new"
    polished(folder, new, budget=4)
    with StoredRun(new) as stored:
        elites = stored.elites()
        assert export(stored, tmp_path / "files").images == len(elites)
    merged = merge([folder, new], tmp_path / "merged")
    assert merged.cells == len(elites)
    with holds(tmp_path / "merged") as both:
        best = [(e.row.class_id, e.row.log_odds) for e in both.elites()]
        assert best == [(e.row.class_id, e.row.log_odds) for e in elites]
        assert {e.row.method for e in both.elites()} >= {"polish"}
    polished(tmp_path / "merged", tmp_path / "again", budget=3)
    with holds(tmp_path / "again") as twice:
        assert all(b.row.log_odds >= a.row.log_odds for a, b in zip(elites, twice.elites(), strict=True))
        e = next(e for e in twice.elites() if e.row.method == "polish" and twice.store.methods()[e.row.mother] == "polish")
        assert e.row.mother in twice.store.origins(), "polished from what was polished"
    recipe = load("mnist-cppn", [f"search.parents={new}", "search.random=0", "stop.evaluations=24"])
    with Run.start(recipe, tmp_path / "on", LENET) as run:
        run.advance()
        assert run.seeds is not None
        assert run.seeds.number == len({e.row.birth for e in elites})
    with pytest.raises(StoreError, match="was made by polish, not by a search"):
        Run.resume(new, target=LENET)


def test_single_classes_can_be_polished(source: Callable[..., Path], tmp_path: Path) -> None:
    polished(source("cppn"), tmp_path / "new", budget=3, classes=(7, 2))
    with holds(tmp_path / "new") as new:
        assert [e.row.class_id for e in new.elites()] == [2, 7]


class _Case:
    """Invalid arguments and the error that they give."""

    def __init__(self, error: type[EvofoolError], message: str, **how: Any) -> None:
        self.error, self.message, self.how = error, message, how


@pytest.mark.parametrize(
    "case",
    [
        _Case(
            RecipeError, "has direct images, which have no weights; pass --parameters pixels", kind="direct", by="weights"
        ),
        _Case(RecipeError, r'parameters to polish are weights or pixels, not "waits"', by="waits"),
        _Case(RecipeError, "a budget of 1 forward passes is too small", budget=1),
        _Case(RecipeError, "rate, the size of the first step, has to be finite and at least 0, not -1", rate=-1.0),
        _Case(StoreError, "is the run to be polished, which is not modified; pass another --out", out="source"),
        _Case(StoreError, "holds another kind of run; pass another --out", out="search"),
    ],
    ids=lambda case: case.message[:30],
)
def test_errors_name_invalid_arguments(case: _Case, source: Callable[..., Path], tmp_path: Path) -> None:
    how = dict(case.how)
    folder, out = source(how.pop("kind", "cppn")), how.pop("out", "new")
    to = {"source": folder, "search": source("direct"), "new": tmp_path / "new"}[out]
    with pytest.raises(case.error, match=case.message):
        polished(folder, to, **how)
    assert not (tmp_path / "new").exists()


def test_errors_for_a_class_without_an_elite_and_a_run_without_any(tmp_path: Path) -> None:
    recipe = parse({"encoding": KINDS["cppn"], "search": {"competition": "argmax"}, "stop": {"evaluations": 16}}, "test")
    with Run.start(recipe, tmp_path / "old", LENET) as run:
        with pytest.raises(StoreError, match="has saved nothing yet"):
            polished(tmp_path / "old", tmp_path / "new")
        run.advance()
    with StoredRun(tmp_path / "old") as stored:
        missing = sorted(set(range(10)) - {e.row.class_id for e in stored.elites()})
    assert missing
    with pytest.raises(RecipeError, match=f"has no elite of class {missing[0]}"):
        polished(tmp_path / "old", tmp_path / "new", classes=tuple(missing))


def test_errors_for_a_target_without_gradients_and_for_another_target(source: Callable[..., Path], tmp_path: Path) -> None:
    def forward(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, :10].astype(np.float32) / 64

    black = Target("black", [str(c) for c in range(10)], (1, 28, 28), forward, {})
    folder = searched("cppn", tmp_path / "old", black)
    with pytest.raises(TargetError, match="black: it has neither gradients nor layers"):
        polished(folder, tmp_path / "new", black)
    with pytest.raises(TargetError, match="the target black is not the one that this run was made with"):
        polished(source("cppn"), tmp_path / "new", black)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_the_command_prints_the_result(source: Callable[..., Path], tmp_path: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(command)
    folder, new = source("cppn"), tmp_path / "new"
    how = [str(folder), "--out", str(new), "--budget", "4", "--classes", "0-4", "--set", "rate=0.02", "--set", "grow=false"]
    result = CliRunner().invoke(app, how)
    assert result.exit_code == 0, result.output
    assert f"New run in {new}: 5 elites of {folder} polished by weights, 4 forward passes each, rate 0.02" in result.output
    assert "of 5 elites; median log-odds" in result.output
    assert "20 forward and 15 backward passes." in result.output
    assert (new / "elites.png").exists()
    assert (new / "curve.png").exists()
    again = CliRunner().invoke(app, how)
    assert again.exit_code == 0
    assert f"Continuing {new} at 5 of 5 elites" in again.output
    for wrong, message in (
        ("pace=1", 'no setting "pace"; it has rate, grow'),
        ("rate=fast", "rate is a number, not 'fast'"),
        ("grow=3", "grow is true or false, not 3"),
    ):
        refused = CliRunner().invoke(app, [str(folder), "--out", str(tmp_path / "no"), "--set", wrong])
        assert isinstance(refused.exception, RecipeError)
        assert message in str(refused.exception)


@pytest.mark.parametrize("encoding", [CPPN(), CPPN(mode="hsv", height=40, width=24), CPPN.nguyen2015(1, 28, 28)])
def test_scaled_weights_start_at_the_genome_and_decode_as_it_renders(encoding: CPPN) -> None:
    genomes = encoding.random(12, Key(2, 0))
    for batch in range(1, 9):
        genomes = encoding.vary(genomes, genomes, Key(2, batch))
    param, rows = ScaledWeights(encoding, genomes), torch.arange(12)
    start = param.init(Draws(0, range(12), 0))
    drawn = quantise(param.decode(start, rows).numpy())
    assert (drawn == encoding.render(genomes)).all()
    assert (param.genomes(start, rows) == genomes).all()
    sizes = effects(encoding, genomes)
    assert (sizes.log2() == sizes.log2().round()).all()
    moved = start + 0.02 * torch.randn(start.shape, generator=torch.Generator().manual_seed(0))
    assert (encoding.render(param.genomes(moved, rows)) == quantise(param.decode(moved, rows).numpy())).all()
    far = param.genomes(start + 1e4, rows)
    assert np.abs(far["weight"]).max() == np.float32(encoding.weight_limit), "clipped to the limit"


def test_effects_are_the_change_of_pixels_per_change_of_a_weight() -> None:
    encoding = CPPN(height=20, width=20)
    genomes = encoding.vary(encoding.random(6, Key(7, 0)), encoding.random(6, Key(7, 0)), Key(7, 1))
    param, rows = ScaledWeights(encoding, genomes), torch.arange(6)
    found, state = effects(encoding, genomes), param.init(Draws(0, range(6), 0))
    for k, edges in enumerate(genomes["n_edges"].tolist()):
        here = param.decode(state, rows)[k]
        changes = []
        for e in range(edges):
            more = state.clone()
            more[k, e] += 0.01 * found[k, e]  # 0.01 of the weight
            changes.append(float((param.decode(more, rows)[k] - here).square().mean().sqrt() / 0.01))
        for e, change in enumerate(changes):
            assert found[k, e] == pytest.approx(max(change, 0.01 * max(changes)), rel=0.5) or max(changes) == 0


@pytest.mark.parametrize("mode", ["grey", "hsv"])
def test_a_complete_graph_renders_the_same_image(mode: str) -> None:
    for max_edges in (64, 400):  # large enough for all edges, and too small
        encoding = CPPN(mode=mode, height=12, width=12, max_edges=max_edges)
        genomes = encoding.random(40, Key(3, 0))
        for batch in range(1, 16):
            genomes = encoding.vary(genomes, genomes, Key(3, batch))
        full = complete(genomes, encoding.channels)
        assert (encoding.render(full) == encoding.render(genomes)).all()
        assert (encoding.unpack([encoding.pack(genome) for genome in full]) == full).all(), "unpack refuses cycles"
        for was, now in zip(genomes, full, strict=True):
            theirs, all_ = (dict(_edges(record)) for record in (was, now))
            assert theirs.items() <= all_.items()
            assert all(weight == 0 for ends, weight in all_.items() if ends not in theirs)
            hidden = int(was["n_nodes"]) - encoding.channels
            possible = 4 * (hidden + encoding.channels) + hidden * (hidden - 1) // 2 + hidden * encoding.channels
            assert len(all_) == min(max_edges, possible)


def _edges(record: Any) -> list[tuple[tuple[int, int], float]]:
    count = int(record["n_edges"])
    ends = zip(record["src"][:count].tolist(), record["dst"][:count].tolist(), strict=True)
    return list(zip(ends, record["weight"][:count].tolist(), strict=True))

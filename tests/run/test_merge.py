"""Merging: the best of every cell with its whole descent, the same in whatever order, grouping or repetition."""

import itertools
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from evofool.cli.merge import merge as command
from evofool.errors import RecipeError, StoreError, TargetError
from evofool.export.export import export
from evofool.recipe import load, parse
from evofool.run.lineage import lineage
from evofool.run.lock import LOCK
from evofool.run.merge import Merged, merge
from evofool.run.reader import FILE
from evofool.run.run import Run
from evofool.run.schema import ImageMetric
from evofool.run.store import Store
from evofool.run.stored import StoredRun
from evofool.run.verify import verify
from tests.run.merging import (
    BIG,
    CLASSES,
    NICHES,
    SIDE,
    change,
    content,
    copy,
    elites_of,
    genomes_of,
    made,
    meta_of,
    origins_of,
    scaled_target,
)

KINDS: dict[str, dict[str, Any]] = {
    "direct": {"encoding": {"kind": "direct", "crossover": 0.5}},
    "cppn": {"encoding": {"kind": "cppn"}},
    "niches": {"encoding": {"kind": "direct"}, "niches": NICHES},
    "margin": {"encoding": {"kind": "direct"}, "search": {"rank": "margin"}},
    "differences": {"encoding": {"kind": "direct", "rate": 0.01}, "side": BIG},
}

DIGITS = {"images": "digits", "reference": 50, "held_out": 20}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Path]]:
    """Three runs of a kind that differ in seed and budget, each made once; they are not to be written to."""
    home, ready = tmp_path_factory.mktemp("runs"), {}

    def three(kind: str) -> list[Path]:
        if kind not in ready:
            budgets = enumerate((200, 320, 480))
            ready[kind] = [
                made(home / f"{kind}{seed}", seed, **{**KINDS[kind], "stop": {"evaluations": n}}) for seed, n in budgets
            ]
        return ready[kind]

    return three


# -- what comes out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["direct", "niches", "differences"])
def test_order_grouping_and_repetition_change_nothing(runs: Callable[[str], list[Path]], tmp_path: Path, kind: str) -> None:
    a, b, c = runs(kind)
    names = iter(range(1000))

    def of(*folders: Path) -> Path:
        out = tmp_path / f"{next(names)}"
        merge(folders, out)
        return out

    expected = content(of(a, b, c))
    assert len({run for _, run, _ in expected["origins"]}) > 1, "or this test shows nothing"
    ways = [of(*order) for order in itertools.permutations((a, b, c))]
    ab, bc, ca = of(a, b), of(b, c), of(c, a)
    ways += [
        of(ab, c),
        of(c, ab),
        of(a, bc),
        of(ca, b),
        of(ab, bc),
        of(ab, bc, ca, a),
        of(of(a), of(b), of(c)),
        of(of(ab, c)),
    ]
    ways += [of(a, a, b, c, b), of(ab, a, c)]
    for way in ways:
        assert content(way) == expected


@pytest.mark.parametrize("kind", ["direct", "niches", "margin"])
def test_every_cell_has_the_best_elite_of_all_runs(runs: Callable[[str], list[Path]], tmp_path: Path, kind: str) -> None:
    best: dict[int, Any] = {}
    for folder in runs(kind):
        for cell, row in elites_of(folder).items():
            score = row.margin if kind == "margin" else row.log_odds
            if cell not in best or score > best[cell][0]:
                best[cell] = score, meta_of(folder).id, row
    merge(runs(kind), tmp_path / "out")
    merged, origins = elites_of(tmp_path / "out"), origins_of(tmp_path / "out")
    assert merged.keys() == best.keys()
    assert len({id_ for _, id_, _ in best.values()}) > 1, "or this test shows nothing"
    for cell, (_, id_, row) in best.items():
        assert origins[merged[cell].birth] == (id_, row.birth)
        same = ("birth", "mother", "father", "sha256")
        assert replace(merged[cell], **dict.fromkeys(same, 0)) == replace(row, **dict.fromkeys(same, 0))
        assert merged[cell].digest() == merged[cell].sha256


def test_the_merge_of_one_run_is_a_copy_of_its_elites(runs: Callable[[str], list[Path]], tmp_path: Path) -> None:
    (a, *_) = runs("direct")
    merged_run = merge([a], tmp_path / "out")
    assert (merged_run.cells, merged_run.evaluations, len(merged_run.sources)) == (CLASSES, 200, 1)
    ours, theirs = elites_of(tmp_path / "out"), elites_of(a)
    assert [(r.png, r.log_odds) for r in ours.values()] == [(r.png, r.log_odds) for r in theirs.values()]
    assert genomes_of(tmp_path / "out") == genomes_of(a)


def test_of_equal_elites_the_lower_id_holds_the_cell(runs: Callable[[str], list[Path]], tmp_path: Path) -> None:
    (a, *_) = runs("direct")
    high, low = copy(a, tmp_path / "high", id="f" * 32), copy(a, tmp_path / "low", id="1" * 32)
    for name, order in (("one", (high, low)), ("other", (low, high))):
        merge(order, tmp_path / name)
        assert {run for run, _ in origins_of(tmp_path / name).values()} == {"1" * 32}
    assert content(tmp_path / "one") == content(tmp_path / "other")


@pytest.mark.parametrize("rank", ["log_odds", "margin"])
def test_the_measured_score_counts_and_not_what_the_search_ranked_by(tmp_path: Path, rank: str) -> None:
    other = {"log_odds": "margin", "margin": "log_odds"}[rank]
    a = made(tmp_path / "a", search={"rank": rank})
    b = copy(a, tmp_path / "b", id="f" * 32)
    praised = f"search_{rank} = {rank} + 9, search_{other} = {other} + 9, {other} = {other} + 9"
    change(b, f"UPDATE elites SET {rank} = {rank} - 1, {praised} WHERE class < 3")
    change(b, f"UPDATE elites SET {rank} = {rank} + 1 WHERE class >= 3")
    merge([b, a], tmp_path / "out")
    origins = origins_of(tmp_path / "out")
    held = [origins[row.birth][0] for row in elites_of(tmp_path / "out").values()]
    assert held == [meta_of(a).id] * 3 + ["f" * 32] * 2


def test_a_run_that_has_gone_on_is_taken_further(runs: Callable[[str], list[Path]], tmp_path: Path) -> None:
    b = runs("direct")[1]
    what = {"encoding": {"kind": "direct"}, "search": {"batch": 8, "seed": 7}, "stop": {"evaluations": 240}}
    with Run.start(parse({"target": "fake", **what}, "test"), tmp_path / "new", scaled_target()) as run:
        run.advance(batches=12)
    new, old = tmp_path / "new", copy(tmp_path / "new", tmp_path / "old")
    with Run.resume(new, target=scaled_target()) as run:
        run.advance()
    assert elites_of(old) != elites_of(new)
    merge([old, b], tmp_path / "early")
    assert merge([b, new], tmp_path / "late").evaluations == 240 + 320
    expected = content(tmp_path / "late")  # a search that ranks by what is measured only ever gets better
    for place, way in enumerate(
        [[tmp_path / "early", new], [new, tmp_path / "early"], [old, tmp_path / "late"], [new, old, b], [old, b, new]]
    ):
        merged_run = merge(way, tmp_path / str(place))
        assert merged_run.evaluations == 240 + 320
        assert content(tmp_path / str(place)) == expected


def test_a_run_can_be_merged_while_it_goes_on(runs: Callable[[str], list[Path]], tmp_path: Path) -> None:
    what = {"target": "fake", "encoding": {"kind": "direct"}, "stop": {"evaluations": 800}}
    with Run.start(parse(what, "test"), tmp_path / "going", scaled_target()) as run:
        for name in ("first", "second"):
            run.advance(batches=5)
            merge([tmp_path / "going", runs("direct")[0]], tmp_path / name)
            run.advance(batches=1)
        assert run.strategy.committed == 12
    for name in ("first", "second"):
        with StoredRun(tmp_path / name) as stored:
            assert not verify(stored, scaled_target()).faults


# -- descent


@pytest.mark.parametrize("kind", KINDS)
def test_an_elite_has_the_lineage_that_it_had(runs: Callable[[str], list[Path]], tmp_path: Path, kind: str) -> None:
    merge(runs(kind), tmp_path / "out")
    folders = {meta_of(folder).id: folder for folder in runs(kind)}
    depth = 0
    with StoredRun(tmp_path / "out") as merged:
        origins = merged.store.origins()
        there = lambda birth: origins[birth][1] if birth >= 0 else -1  # noqa: E731
        for elite in merged.elites():
            run, birth = origins[elite.row.birth]
            with StoredRun(folders[run]) as source:
                ours, theirs = lineage(merged, elite.row.birth), lineage(source, birth)
                assert len(ours) == len(theirs)
                for a, b in zip(ours, theirs, strict=True):
                    assert (there(a.birth), there(a.mother), there(a.father)) == (b.birth, b.mother, b.father)
                    assert (a.batch, a.held, a.switched) == (b.batch, b.held, b.switched)
                    assert np.array_equal(a.image, b.image)
                assert {run} == {origins[a.birth][0] for a in ours}
                depth = max(depth, len(ours))
    assert depth > 5


def test_all_ancestors_are_kept_and_nobody_else(runs: Callable[[str], list[Path]], tmp_path: Path) -> None:
    """By mothers and fathers, traced over the sources' tables one genome at a time."""
    merge(runs("direct"), tmp_path / "out")
    parents: dict[tuple[str, int], tuple[int, int]] = {}
    for folder in runs("direct"):
        run = meta_of(folder).id
        parents |= {(run, birth): (m, f) for birth, _, m, f, *_ in content(folder)["genomes"]}
    origins = origins_of(tmp_path / "out")
    todo = [origins[row.birth] for row in elites_of(tmp_path / "out").values()]
    expected: set[tuple[str, int]] = set()
    while todo:
        node = todo.pop()
        expected.add(node)
        todo += [(node[0], parent) for parent in parents[node] if parent >= 0]
    assert set(origins.values()) == expected
    assert list(origins.values()) == sorted(expected)
    assert len(expected) < len(parents)
    with Store.open(tmp_path / "out") as store:
        for birth, (_, mother, father) in store.ancestry(origins).items():
            there = tuple(origins[p][1] if p >= 0 else -1 for p in (mother, father))
            assert there == parents[origins[birth]]
    assert any(father >= 0 for _, father in parents.values())


@pytest.mark.parametrize("kind", ["direct", "niches"])
def test_the_last_change_of_a_cell_is_its_elite_s(runs: Callable[[str], list[Path]], tmp_path: Path, kind: str) -> None:
    merge(runs(kind), tmp_path / "out")
    with Store.open(tmp_path / "out") as store:
        held = {r.cell: (r.birth, r.log_odds, r.margin) for r in store.cell_history()}
        assert held == {r.cell: (r.birth, r.search_log_odds, r.search_margin) for r in store.elites()}
        assert len({(cell, birth) for cell, birth, *_ in store.cell_history()}) == len(store.cell_history())


def test_big_pixels_stay_differences(runs: Callable[[str], list[Path]], tmp_path: Path) -> None:
    merge(runs("differences"), tmp_path / "out")
    with Store.open(tmp_path / "out") as store:
        assert max(store.steps().values()) > 3
        origins, ours = store.origins(), store.genomes(store.origins())
    for folder in runs("differences"):
        run = meta_of(folder).id
        births = {birth: there for birth, (id_, there) in origins.items() if id_ == run}
        with Store.open(folder) as store:
            theirs = store.genomes(births.values())
        assert {there: ours[birth] for birth, there in births.items()} == theirs


# -- what goes along


def test_measures_go_along_and_so_does_what_they_were_measured_against(
    runs: Callable[[str], list[Path]], tmp_path: Path
) -> None:
    a, b, _ = runs("direct")
    measured, barely = copy(a, tmp_path / "measured"), copy(a, tmp_path / "barely")
    found = {cell: ImageMetric("nearest_real_hog_percentile", 12.5 * cell, "key") for cell in range(CLASSES)}
    rough = ImageMetric("total_variation", 0.25, "")
    for folder, rows, merged_run in (
        (
            measured,
            [(cell, each) for cell in range(CLASSES) for each in (found[cell], rough)],
            DIGITS,
        ),
        (
            barely,
            [(cell, ImageMetric("total_variation", 0.125, "")) for cell in range(CLASSES)],
            {**DIGITS, "images": "others"},
        ),
    ):
        with Store.open(folder, write=True) as store:
            store.set_image_metrics(rows, {"key": merged_run})
    merge([a], tmp_path / "plain")
    merge([barely, b], tmp_path / "some")
    for name, order in (
        ("one", [measured, barely, tmp_path / "plain", b]),
        ("other", [b, tmp_path / "plain", barely, measured]),
        ("third", [tmp_path / "some", measured, a]),
    ):
        merge(order, tmp_path / name)
    assert content(tmp_path / "one") == content(tmp_path / "other") == content(tmp_path / "third")
    origins, from_a = origins_of(tmp_path / "one"), 0
    for cell, row in elites_of(tmp_path / "one").items():
        ours = origins[row.birth][0] == meta_of(a).id
        assert row.image_metrics == ((found[cell], rough) if ours else ())
        from_a += ours
    assert 0 < from_a < CLASSES
    assert meta_of(tmp_path / "one").references == {"key": DIGITS}
    merge([a, b], tmp_path / "unmeasured")
    assert meta_of(tmp_path / "unmeasured").references == {}


def test_genomes_that_were_set_aside_go_along_with_the_parents_that_are_kept(
    runs: Callable[[str], list[Path]], tmp_path: Path
) -> None:
    (a, b, _), kept, ours = runs("direct"), {}, meta_of(runs("direct")[0]).id
    merge([a, b], tmp_path / "plain")
    kept = {there for run, there in origins_of(tmp_path / "plain").values() if run == ours}
    lost = {birth for birth, *_ in content(a)["genomes"]} - kept
    rows = [(900, 112, max(kept), max(lost), b"poison" * 6, "it kills"), (901, 112, max(lost), -1, b"more" * 9, "it hangs")]
    poisoned = copy(a, tmp_path / "poisoned")
    for row in rows:
        change(poisoned, "INSERT INTO quarantine VALUES (?, ?, ?, ?, ?, ?)", *row)
    merge([poisoned, b], tmp_path / "out")
    merge([tmp_path / "out", poisoned], tmp_path / "again")
    merge([b, tmp_path / "out"], tmp_path / "once more")
    assert content(tmp_path / "out") == content(tmp_path / "again") == content(tmp_path / "once more")
    with Store.open(tmp_path / "out") as store:
        origins = store.origins()
        number = {node: birth for birth, node in origins.items()}
        assert store.quarantine() == sorted(
            [
                (number[ours, 900], 112, number[ours, max(kept)], -1, b"poison" * 6, "it kills"),
                (number[ours, 901], 112, -1, -1, b"more" * 9, "it hangs"),
            ]
        )
    with StoredRun(tmp_path / "out") as stored:
        assert not verify(stored, scaled_target()).faults


def test_a_merged_run_tells_its_sources_and_counts_them_together(runs: Callable[[str], list[Path]], tmp_path: Path) -> None:
    merged_run = merge(runs("direct"), tmp_path / "out")
    assert isinstance(merged_run, Merged)
    assert [(s.folder, s.own_folder, s.evaluations) for s in merged_run.sources] == [
        (folder, True, n) for folder, n in zip(runs("direct"), (200, 320, 480), strict=True)
    ]
    assert sum(s.cells for s in merged_run.sources) == merged_run.cells == CLASSES
    with StoredRun(tmp_path / "out") as stored:
        assert stored.evaluations == merged_run.evaluations == 1000
        meta = stored.meta
        assert stored.recipe.name == "out"
    metas = sorted((meta_of(folder) for folder in runs("direct")), key=lambda m: m.id)
    assert meta.merged is not None
    assert [source.id for source in meta.merged] == [m.id for m in metas]
    assert [source.recipe for source in meta.merged] == [m.recipe for m in metas]
    assert meta.seconds == sum(m.seconds for m in metas)
    assert meta.answers == sum(m.answers for m in metas)
    assert meta.committed == meta.shown == 1000 // 8
    assert (meta.target, meta.machine) == (metas[0].target, metas[0].machine)
    assert meta.finished == "merged from 3 runs"
    for folder, n in zip(runs("direct"), (200, 320, 480), strict=True):
        with StoredRun(folder) as stored:
            assert stored.evaluations == n


def test_sources_stay_as_they_are(runs: Callable[[str], list[Path]], tmp_path: Path) -> None:
    before = [(folder / FILE).read_bytes() for folder in runs("direct")]
    merge(runs("direct"), tmp_path / "out")
    assert [(folder / FILE).read_bytes() for folder in runs("direct")] == before


# -- what can be done with it


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_run_holds_to_the_bit(runs: Callable[[str], list[Path]], tmp_path: Path, kind: str) -> None:
    merge(runs(kind), tmp_path / "out")
    with StoredRun(tmp_path / "out") as stored:
        verdict = verify(stored, scaled_target(KINDS[kind].get("side", SIDE)))
    assert (verdict.faults, verdict.exact, verdict.largest_difference) == ((), True, 0.0)


@pytest.mark.parametrize("other", ["machine", "chunk"])
def test_runs_of_several_kinds_of_machine_are_verified_within_the_tolerance(tmp_path: Path, other: str) -> None:
    a = made(tmp_path / "a")
    b = made(tmp_path / "b", 1, **({"compute": {"chunk": 4}} if other == "chunk" else {}))
    if other == "machine":
        b = copy(b, tmp_path / "c", machine={**meta_of(b).machine, "cpu": "an abacus"})
    merge([a, b], tmp_path / "out")
    merge([tmp_path / "out", a], tmp_path / "again")
    for folder in (tmp_path / "out", tmp_path / "again"):
        with StoredRun(folder) as stored:
            verdict = verify(stored, scaled_target())
        assert (verdict.faults, verdict.exact) == ((), False)


def test_a_merged_run_is_exported(runs: Callable[[str], list[Path]], tmp_path: Path) -> None:
    merge(runs("cppn"), tmp_path / "out")
    with StoredRun(tmp_path / "out") as stored:
        assert export(stored, tmp_path / "files", 40).images == CLASSES
    assert len(list((tmp_path / "files").glob("*/*.png"))) == CLASSES


def test_the_command_tells_what_each_run_gave_and_leaves_a_sheet(tmp_path: Path) -> None:
    for seed in (0, 1):
        changes = [f"search.seed={seed}", "stop.evaluations=240", "stop.confidence="]
        with Run.start(load("mnist-cppn", changes), tmp_path / f"run{seed}") as run:
            run.advance()
    app = typer.Typer()
    app.command()(command)
    out = tmp_path / "both"
    said = CliRunner().invoke(
        app, [str(tmp_path / "run0"), str(tmp_path / "run1"), "--out", str(out)], catch_exceptions=False
    )
    assert said.exit_code == 0
    first, second = said.output.splitlines()[:2]
    assert first.startswith(f"{tmp_path / 'run0'}: 240 evaluations, best in ")
    assert second.startswith(f"{tmp_path / 'run1'}: 240 evaluations, best in ")
    assert (out / "elites.png").is_file()
    with StoredRun(out) as stored:
        verdict = verify(stored)
    assert (verdict.faults, verdict.exact) == ((), True)
    said = CliRunner().invoke(app, [str(out), "--out", str(tmp_path / "again")], catch_exceptions=False)
    assert f"{out} (mnist-cppn, " in said.output


# -- refusals


@pytest.mark.parametrize(
    ("parts", "error", "words"),
    [
        (
            {"target": scaled_target(seed=10, weights_sha256="x")},
            TargetError,
            r"first.*second.*different classifiers \(fingerprint: ",
        ),
        ({"target": scaled_target(labels="abcdf")}, TargetError, r"labels: class 4 is 'e' and 'f'\)"),
        ({"target": scaled_target(labels="abc")}, TargetError, r"labels: 5 of them and 3\)"),
        ({"target": scaled_target(7)}, TargetError, r"shape: \[1, 6, 6\] and \[1, 7, 7\]"),
        ({"encoding": {"kind": "cppn"}}, RecipeError, r"first and .*second cannot.*encoding.kind is 'direct' .* 'cppn'"),
        ({"search": {"rank": "margin"}}, RecipeError, "search.rank is 'log_odds' in the first and 'margin' in the second"),
        ({"niches": NICHES}, RecipeError, "niches.descriptor is not given in the first and 'mirror_symmetry' in the second"),
    ],
    ids=["weights", "labels", "fewer labels", "shape", "kind", "rank", "niches"],
)
def test_runs_that_do_not_belong_together_are_refused(
    tmp_path: Path, parts: dict[str, Any], error: type[Exception], words: str
) -> None:
    first, second = made(tmp_path / "first"), made(tmp_path / "second", **parts)
    with pytest.raises(error, match=words):
        merge([first, second], tmp_path / "out")
    with pytest.raises(error, match="cannot be merged"):
        merge([second, first], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"color": "grey2015"}, "encoding.color is 'grey' in the first and 'grey2015' in the second"),
        ({"coordinates": "raw"}, "encoding.coordinates is 'centred' in the first and 'raw' in the second"),
        ({"weight_limit": 5.0}, "encoding.weight_limit is 10.0 in the first and 5.0 in the second"),
        ({"max_nodes": 65}, "encoding.max_nodes is 64 in the first and 65 in the second"),
        ({"max_edges": 193}, "encoding.max_edges is 192 in the first and 193 in the second"),
    ],
)
def test_graphs_that_are_drawn_or_packed_otherwise_are_refused(
    runs: Callable[[str], list[Path]], tmp_path: Path, setting: dict[str, Any], words: str
) -> None:
    other = made(tmp_path / "other", encoding={"kind": "cppn", **setting}, stop={"evaluations": 16})
    with pytest.raises(RecipeError, match=words):
        merge([runs("cppn")[0], other], tmp_path / "out")


def test_seeds_budgets_competition_and_ways_of_mutation_may_differ(tmp_path: Path) -> None:
    stop = {"evaluations": 80}
    a = made(tmp_path / "a", encoding={"kind": "direct"}, stop=stop)
    other = {"kind": "direct", "rate": 0.3, "eta": 2.0, "halve_every": 3, "crossover": 0.2, "eta_crossover": 3.0}
    b = made(
        tmp_path / "b",
        1,
        encoding=other,
        stop=stop,
        search={"competition": "per-class", "selection": "lagging", "batch": 10},
    )
    merge([a, b], tmp_path / "ab")
    graph = {"mutation": {"weight": 0.5, "add_edge": 0.1}, "activations": ["sin", "gauss"], "initial_weight": 2.0}
    c = made(tmp_path / "c", encoding={"kind": "cppn"}, stop=stop)
    d = made(tmp_path / "d", 1, encoding={"kind": "cppn", **graph}, stop=stop)
    merge([c, d], tmp_path / "cd")
    for folder in (tmp_path / "ab", tmp_path / "cd"):
        with StoredRun(folder) as stored:
            assert not verify(stored, scaled_target()).faults


def test_a_missing_run_an_out_that_is_there_and_nothing_to_merge_are_told(
    runs: Callable[[str], list[Path]], tmp_path: Path
) -> None:
    a, b, _ = runs("direct")
    with pytest.raises(StoreError, match=r"there is no folder .*nowhere"):
        merge([a, tmp_path / "nowhere"], tmp_path / "out")
    with pytest.raises(StoreError, match="is one of the runs to be merged, and is only read; pass another --out"):
        merge([a, b / FILE], b)
    with pytest.raises(StoreError, match="has a run already, and a merge makes a new one; pass another --out"):
        merge([a], b)
    with pytest.raises(StoreError, match="name at least one run"):
        merge([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_without_an_id_or_without_elites_is_refused(runs: Callable[[str], list[Path]], tmp_path: Path) -> None:
    damaged = change(copy(runs("direct")[0], tmp_path / "damaged"), "DELETE FROM meta WHERE key = 'id'")
    with pytest.raises(StoreError, match=r"is damaged: meta\.id is missing"):
        merge([damaged], tmp_path / "out")
    what = {"target": "fake", "encoding": {"kind": "direct"}, "stop": {"evaluations": 80}}
    with Run.start(parse(what, "test"), tmp_path / "young", scaled_target()):
        pass
    with pytest.raises(StoreError, match="young has saved nothing yet"):
        merge([tmp_path / "young"], tmp_path / "out")


def test_an_elite_that_was_changed_is_not_taken_along(runs: Callable[[str], list[Path]], tmp_path: Path) -> None:
    bad = copy(runs("direct")[0], tmp_path / "bad")
    database = sqlite3.connect(bad / FILE)
    database.execute("UPDATE elites SET log_odds = 99.0 WHERE class = 2")
    database.commit()
    database.close()
    with pytest.raises(StoreError, match=r"bad: the elite of class 2 \(c\) is not what its hash says; evofool verify"):
        merge([runs("direct")[1], bad], tmp_path / "out")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE genomes SET genome = (SELECT genome FROM genomes LIMIT 1)",
        "UPDATE genomes SET batch = batch + 1",
        "UPDATE cell_history SET log_odds = log_odds + 1",
    ],
)
def test_copies_of_one_run_that_went_different_ways_are_refused(tmp_path: Path, statement: str) -> None:
    a = made(tmp_path / "a")
    b = change(copy(a, tmp_path / "b"), statement)
    change(b, "UPDATE elites SET log_odds = log_odds + 1 WHERE class = 1")  # so that either gives something
    with pytest.raises(StoreError, match=r"copies of one run .* have gone different ways, and birth \d+ is not the same"):
        merge([a, b], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("there_before", [False, True])
def test_a_merge_that_fails_while_it_is_written_leaves_nothing(
    runs: Callable[[str], list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there_before: bool
) -> None:
    out = tmp_path / "out"
    if there_before:
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    read, calls = Store.stored, itertools.count()

    def broken(self: Store, birth: int) -> tuple[bytes, int]:
        if next(calls) == 5:
            raise StoreError("the disk is gone")
        return read(self, birth)

    monkeypatch.setattr(Store, "stored", broken)
    with pytest.raises(StoreError, match="the disk is gone"):
        merge(runs("direct"), out)
    assert [path.name for path in tmp_path.rglob("*")] == (["out", "notes.txt"] if there_before else [])
    monkeypatch.undo()
    merge(runs("direct"), out)
    assert {path.name for path in out.iterdir()} - {"notes.txt", LOCK} == {FILE}


def test_a_merge_that_was_killed_is_told_when_it_is_merged(runs: Callable[[str], list[Path]], tmp_path: Path) -> None:
    merge(runs("direct"), tmp_path / "whole")
    with Store.create(tmp_path / "half", meta_of(tmp_path / "whole")):
        pass
    with pytest.raises(StoreError, match=r"half has saved nothing: its merge was broken off\. Remove it, and merge"):
        merge([tmp_path / "half"], tmp_path / "out")

"""A gallery beside a run of a thousand classes: how soon a page paints and follows, and what it costs the run.

    python -m tests.perf.gallery_live --out FILES [--seconds 30] [--rounds 3]

The run: 1,000 classes, images of 3 x 64 x 64 pixels, a target that answers 200 images a second (it sleeps) with logits that
are linear in the pixels. In each round the run is made for so many seconds without a gallery and, in the other order every
second round, with one and a page of its grid in Chromium. Printed: the median over rounds of the ratio of evaluations; of
the page the time to its first paint, and from when a checkpoint is in the run's file to when the page shows it. Needs the
extra `gallery`, Playwright and Chromium. With --tabs N there are N pages of the grid, of which the last one is looked at.
"""

import argparse
import multiprocessing
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

from evofool.recipe import parse
from evofool.run.run import Run
from evofool.run.stored import StoredRun
from evofool.targets import Target
from tests.gallery.server import served

CLASSES, SHAPE, RATE = 1000, (3, 64, 64), 200.0
_SEEN = """() => {
    window.seen = [];
    const fact = document.querySelector('[data-fact="evaluations"]');
    new MutationObserver(() => window.seen.push([fact.textContent, Date.now() / 1000])).observe(fact, {childList: true});
}"""


def slow_target() -> Target:
    """RATE images a second, whatever the machine."""
    weights = np.random.default_rng(0).normal(0, 0.002, (int(np.prod(SHAPE)), CLASSES)).astype(np.float32)

    def forward(images: np.ndarray) -> np.ndarray:
        until = time.perf_counter() + len(images) / RATE
        logits = images.reshape(len(images), -1).astype(np.float32) @ weights
        time.sleep(max(0.0, until - time.perf_counter()))
        return np.asarray(logits, np.float32)

    return Target("slow", [f"class {c}" for c in range(CLASSES)], SHAPE, forward, {})


def evolve(folder: Path, seconds: float) -> None:
    recipe = parse(
        {
            "target": "slow",
            "encoding": {"kind": "canvas"},
            "search": {"batch": 20},
            "stop": {"seconds": seconds},
            "save": {"seconds": 1.0},
        },
        "gallery_live",
    )
    with Run.start(recipe, folder, slow_target()) as run:
        run.advance()


def with_pages(process: Any, folder: Path, seconds: float, tabs: int) -> tuple[float, list[float]]:
    """(seconds to the first paint, seconds from each checkpoint to its being shown)."""
    committed: dict[str, float] = {}
    with sync_playwright() as driver, served(folder.parent) as address:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.goto(address)
        run = page.locator("table.runs a", has_text=folder.name).get_attribute("href")
        base = address.split("/?")[0]
        for _ in range(tabs - 1):
            context.new_page().goto(base + run, wait_until="commit")
        page.bring_to_front()
        page.goto(base + run)
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
        page.evaluate(_SEEN)
        with StoredRun(folder) as stored:
            end = time.monotonic() + seconds - 8
            while time.monotonic() < end and process.is_alive():
                stored.meta = stored.store.meta()
                committed.setdefault(f"{stored.evaluations:,}", time.time())
                page.wait_for_timeout(20)
        seen = dict(reversed(page.evaluate("window.seen")))  # of the same text the first time
        browser.close()
    return paint, [seen[key] - committed[key] for key in seen if key in committed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tabs", type=int, default=1)
    args = parser.parse_args()
    ratios, paints, delays = [], [], []
    for number in range(args.rounds):
        done = {}
        for shown in (False, True) if number % 2 == 0 else (True, False):
            folder = args.out / f"round-{number}" / ("shown" if shown else "alone")
            process = multiprocessing.get_context("spawn").Process(target=evolve, args=(folder, args.seconds))
            process.start()
            while not (folder / "run.db").exists():
                time.sleep(0.1)
            if shown:
                time.sleep(5.0)
                paint, found = with_pages(process, folder, args.seconds, args.tabs)
                paints.append(paint)
                delays += found
            process.join()
            with StoredRun(folder) as stored:
                done[shown] = stored.evaluations
        ratios.append(done[True] / done[False])
        print(f"round {number}: {done[False]} evaluations without, {done[True]} with a gallery", flush=True)
    print(f"evaluations with over without: median {statistics.median(ratios):.3f} of {len(ratios)}")
    print(f"first paint: median {statistics.median(paints):.2f} s, most {max(paints):.2f} s")
    if delays:
        print(
            f"shown after a checkpoint: median {statistics.median(delays):.2f} s, most {max(delays):.2f} s of {len(delays)}"
        )


if __name__ == "__main__":
    main()

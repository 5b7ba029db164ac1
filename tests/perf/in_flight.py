"""A server that takes 50 ms for an answer: the rate with several requests in flight, and its limit under SIGKILL.

    python -m tests.perf.in_flight --pairs 5 --kills 5

The server is a process of its own and answers at once what it is asked at once. Rates are those of a search: alternately
with one request in flight and with --parallel; medians, their ratio, and whether both archives are the same. Then a run with
max_requests is killed at random moments and resumed, and its record is compared with what the server has received.
"""

import argparse
import multiprocessing
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from evofool.recipe import load
from evofool.run.run import Run
from evofool.run.store import Store
from evofool.targets.remote.ledger import Ledger


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency", type=float, default=0.05, help="seconds for an answer")
    parser.add_argument("--batch", type=int, default=8, help="images in a request; 64 are asked at a time")
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--evaluations", type=int, default=1280, help="of each search")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--cap", type=int, default=240, help="of requests, for the run that is killed")
    args = parser.parse_args()
    with server(args.latency) as (url, received), tempfile.TemporaryDirectory() as scratch:
        rates: dict[int, list[float]] = {1: [], args.parallel: []}
        archives = []
        for pair in range(args.pairs):
            for parallel in (1, args.parallel) if pair % 2 == 0 else (args.parallel, 1):
                folder = Path(scratch) / f"{pair}-{parallel}"
                seconds = search(f"{url}?batch={args.batch}&parallel={parallel}", folder, args.evaluations)
                rates[parallel].append(args.evaluations / seconds)
                archives.append(archive(folder))
        if args.pairs:
            one, several = (statistics.median(found) for found in rates.values())
            same = all(found == archives[0] for found in archives)
            print(
                f"{args.latency * 1000:g} ms, 64 images in requests of {args.batch}: {one:.0f} images/s one at a time, "
                f"{several:.0f} with {args.parallel} in flight, {several / one:.1f} times (medians of {args.pairs}); "
                f"archives {'identical' if same else 'DIFFERENT'}",
                flush=True,
            )
        if args.kills:
            spec = f"{url}?batch={args.batch}&parallel={args.parallel}&max_requests={args.cap}"
            killed(spec, Path(scratch) / "killed", args.kills, args.cap, received)


def search(spec: str, folder: Path, evaluations: int) -> float:
    """The seconds that a search takes, without its start."""
    with Run.start(load("mnist-cppn", [*changes(spec), f"stop.evaluations={evaluations}"]), folder) as run:
        began = time.perf_counter()
        run.advance()
        return time.perf_counter() - began


def changes(spec: str) -> list[str]:
    return ["search.batch=64", "compute.chunk=64", "stop.confidence=", "compute.recheck=0", f"target={spec}"]


def archive(folder: Path) -> list[Any]:
    with Store.open(folder) as store:
        return [(e.cell, e.birth, e.png, e.log_odds) for e in store.elites()]


def killed(spec: str, folder: Path, kills: int, cap: int, received: "Synchronized[int]") -> None:
    """Kill `evofool run` as soon as the server has received a random number of requests, and compare the counts."""
    moments, before = random.Random(0), received.value
    at = sorted(moments.sample(range(8, cap - 8), kills))
    command = [sys.executable, "-m", "evofool", "run"]
    start = [*command, "mnist-cppn", "--out", str(folder), *(f"--set={change}" for change in changes(spec))]
    for moment in at:
        process = subprocess.Popen(
            [*command, str(folder), "--trust"] if (folder / "run.db").exists() else start,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while received.value - before < moment and process.poll() is None:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.06))
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = subprocess.run([*command, str(folder), "--trust"], capture_output=True, text=True)
    said = re.search(r"the limit of \d+ requests is reached", last.stderr)
    ledger = Ledger()
    ledger.store_in(folder)
    sent = received.value - before
    print(
        f"{len(at)} kills, at requests {', '.join(map(str, at))}: the server received {sent} requests, the record has "
        f"{ledger.requests}, the limit is {cap}; the last run {'says so' if said else 'DOES NOT say so'}"
    )
    raise SystemExit(not (said and sent <= ledger.requests == cap))


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Clients that were killed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(None)

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes | None) -> None:
        server: Any = self.server
        with server.received.get_lock():
            server.received.value += 1
        time.sleep(server.latency)
        content = server.content(body)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def _serve(latency: float, received: "Synchronized[int]", port: "Synchronized[int]", ready: Event) -> None:
    import json

    import numpy as np
    import torch

    from evofool.targets import target
    from evofool.targets.remote.serve import images_of

    torch.set_num_threads(1)
    lenet, forward = target("lenet"), threading.Lock()

    def content(body: bytes | None) -> bytes:
        if body is None:
            described = {"labels": list(lenet.labels), "shape": list(lenet.shape), "answers": "logits"}
            return json.dumps({"format": "evofool.target", "version": 1, "name": "slow", **described}).encode()
        images = images_of(body, lenet.shape)
        with forward:
            return json.dumps({"logits": lenet.logits(images, 8).astype(np.float64).tolist()}).encode()

    there = _Server(("127.0.0.1", 0), _Handler)
    vars(there).update(latency=latency, received=received, content=content)
    port.value = there.server_address[1]
    ready.set()
    there.serve_forever()


@contextmanager
def server(latency: float) -> "Iterator[tuple[str, Synchronized[int]]]":
    """The URL of a server that waits so long before each answer, and its count of requests."""
    context = multiprocessing.get_context("spawn")
    received, port, ready = context.Value("i", 0), context.Value("i", 0), context.Event()
    process = context.Process(target=_serve, args=(latency, received, port, ready), daemon=True)
    process.start()
    ready.wait()
    try:
        yield f"http://127.0.0.1:{port.value}/", received
    finally:
        process.kill()
        process.join()


if __name__ == "__main__":
    main()

"""`evofool workers`: what each worker of a run was doing when it last saved."""

import time
from pathlib import Path
from typing import Annotated

import typer


def workers(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, for example runs/mnist-cppn.")],
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, exact numbers.")] = False,
) -> None:
    """The workers of a run: images/s, share of time busy, calls in flight, restarts, device, as of its last checkpoint.

    Works while the run goes on, from anywhere that its folder can be read.
    """
    from rich.table import Table

    from evofool.cli.console import table_console
    from evofool.run.stored import StoredRun, to_json

    with StoredRun(folder) as stored:
        seen = stored.meta.get("workers") or {"at": 0.0, "each": []}
        finished = stored.meta["finished"]
    if as_json:
        print(to_json(seen))
        return
    if not seen["each"]:
        print(f"{folder} has no workers; a search has some with evofool run ... --workers N")
        return
    table = Table(box=None, pad_edge=False)
    columns = ("worker", "state", "images/s", "busy", "in flight", "restarts", "images", "pid", "node", "device")
    for name in columns:
        table.add_column(name, justify="left" if name in ("state", "node", "device") else "right")
    for one in seen["each"]:
        table.add_row(
            str(one["worker"]),
            one["state"],
            f"{one['images_per_second']:,.1f}",
            f"{one['busy']:.0%}",
            str(one["in_flight"]),
            str(one["restarts"]),
            f"{one['images']:,}",
            str(one["pid"] or ""),
            one["node"],
            one["device"],
        )
    table_console().print(table)
    total = sum(one["images_per_second"] for one in seen["each"])
    age = max(0.0, time.time() - seen["at"])
    print(f"\n{total:,.1f} images/s together, {age:,.0f} s ago" + (f"; the run has ended: {finished}" if finished else ""))

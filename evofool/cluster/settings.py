"""How Ray runs workers: the fields of a recipe's [compute.ray] as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any


@dataclass(frozen=True)
class RayOptions:
    """Where workers run, what each reserves, and how failures are handled; recipe_parts.RayPart describes and checks them.

    in_flight, timeout and quarantine concern the orders of a search alone.
    """

    address: str = "local"
    cpus: float = 1.0
    gpus: float = 0.0
    memory: float = 0.0  # GiB
    resources: Mapping[str, float] = field(default_factory=dict)
    placement: str = "DEFAULT"
    environment: Mapping[str, Any] = field(default_factory=dict)  # Ray's runtime_env
    in_flight: int = 0  # 0: 1 at a worker whose calls are long, else 2
    timeout: float = 300.0  # seconds
    retries: int = 2
    quarantine: int = 16

    def requested(self) -> dict[str, float]:
        """What each worker reserves, as Ray counts it; memory in bytes."""
        return {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory * 2**30, **self.resources}

    def runtime_env(self) -> dict[str, Any] | None:
        """environment with lists in place of tuples, as Ray requires; None if it is empty."""
        return _with_lists(dict(self.environment)) or None

    def remote_options(self) -> dict[str, Any]:
        """The options of a Ray actor or task that is a worker."""
        options: dict[str, Any] = {
            "num_cpus": self.cpus,
            "num_gpus": self.gpus,
            "resources": dict(self.resources) or None,
            "scheduling_strategy": self.placement,
        }
        if self.memory:
            options["memory"] = int(self.memory * 2**30)
        if self.environment:
            options["runtime_env"] = self.runtime_env()
        return options


def lag_for(workers: int, chunks: int, in_flight: int = 0) -> int:
    """The least search.lag at which every worker has a chunk for each of its calls, 0 of which count as 1.

    chunks: of a batch.
    """
    return ceil(workers * max(1, in_flight) / chunks) - 1


def idle_workers_text(workers: int, chunks: int, lag: int, in_flight: int) -> str | None:
    """A note if some workers will have no work; None if all will have some. chunks: of a batch."""
    in_progress = (lag + 1) * chunks
    if in_progress >= workers:
        return None
    return (
        f"search.lag {lag} keeps {in_progress} chunk{'s' * (in_progress > 1)} in progress, so {workers - in_progress} of "
        f"{workers} workers will have no work. To use all of them, continue this run with --set "
        f"search.lag={lag_for(workers, chunks, in_flight)}, or start another one with a smaller compute.chunk or "
        "search.mode=free"
    )


def amounts_text(amounts: Mapping[str, float]) -> str:
    """Amounts as Ray counts them, for a message; memory, which Ray counts in bytes, in GiB."""
    shown = {k: v for k, v in sorted(amounts.items()) if v and not k.startswith(("node:", "object_store"))}
    return ", ".join(f"{v / 2**30:,.0f} GiB of memory" if k == "memory" else f"{v:g} {k}" for k, v in shown.items())


def _with_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_lists(item) for key, item in value.items()}
    return [_with_lists(item) for item in value] if isinstance(value, tuple) else value

"""Metrics of workers for the cluster's own dashboard (ray.util.metrics)."""

from collections.abc import Callable
from typing import Any

from ray.util import metrics

_INTERVAL = 2.0  # seconds


class Dashboard:
    """images/s and share of time busy since the last update, and restarts, of each worker."""

    def __init__(self) -> None:
        tags = ("worker", "node")
        self._images = metrics.Gauge("evofool_images_per_second", "Images that a worker classifies", tag_keys=tags)
        self._busy = metrics.Gauge("evofool_busy_share", "Share of time that a worker is busy", tag_keys=tags)
        self._restarts = metrics.Gauge("evofool_restarts", "How often a worker was replaced", tag_keys=tags)
        self._seen: dict[int, tuple[float, int, float]] = {}
        self._next = 0.0

    def update(self, workers: Callable[[], list[dict[str, Any]]], now: float) -> None:
        """Set the metrics at most every two seconds; workers is RayEvaluator.workers, called only then."""
        if now < self._next:
            return
        self._next = now + _INTERVAL
        for worker in workers():
            number, images, busy = worker["worker"], worker["images"], worker["busy_seconds"]
            tags = {"worker": str(number), "node": worker["node"]}
            then, images_then, busy_then = self._seen.get(number, (now, images, busy))
            self._seen[number] = now, images, busy
            span = max(now - then, 1e-9)
            self._images.set((images - images_then) / span, tags)
            self._busy.set(min(1.0, (busy - busy_then) / span), tags)
            self._restarts.set(worker["restarts"], tags)

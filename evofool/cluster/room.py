"""What a Ray cluster has free for workers, and which actors have got a process there. All of it asks the cluster."""

from collections.abc import Iterable
from typing import Any

import ray

from evofool.cluster.settings import RayOptions, amounts_text


def shortage_text(options: RayOptions) -> str:
    """What each worker needs and what the cluster has available, for a message."""
    available = amounts_text(ray.available_resources())
    return f"each needs {amounts_text(options.requested()) or 'nothing'}, available: {available or 'nothing'}"


def has_room(options: RayOptions, all_ours: bool = False) -> bool:
    """Whether some node has what one more worker needs; all_ours: every worker of this cluster has its own room there."""
    state = ray._private.state
    nodes = state.total_resources_per_node() if all_ours else state.available_resources_per_node()
    wanted = {name: amount for name, amount in options.requested().items() if amount}
    return any(all(node.get(name, 0.0) >= amount for name, amount in wanted.items()) for node in nodes.values())


def with_process(actors: Iterable[Any]) -> list[Any]:
    """Those of some actors that a process was given to, whether it answers or not."""
    return [actor for actor in actors if ray._private.state.actors(actor._actor_id.hex()).get("Pid")]

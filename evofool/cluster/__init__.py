"""Ray: the only room that imports it, and only when workers are asked for."""

from evofool.cluster.evaluator import RayEvaluator
from evofool.cluster.membership import choose_there

__all__ = ["RayEvaluator", "choose_there"]

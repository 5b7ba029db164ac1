"""Ray: the only package that imports it, and only when workers are requested."""

from evofool.cluster.evaluator import RayEvaluator
from evofool.cluster.session import choose_on_worker
from evofool.cluster.settings import RayOptions

__all__ = ["RayEvaluator", "RayOptions", "choose_on_worker"]

"""Layers of a program of torch.export as torch's own modules: convolutions, linear layers and batch norms.

The program has them as graphs of one operation. As modules they are found by what looks for a kind of layer: folding of
batch norms, the last linear layer, detectors on features.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

_aten = torch.ops.aten


def restore(network: nn.Module) -> None:
    """Replace in place every part of `network` that is one convolution, linear layer or batch norm. Tensors are shared."""
    for name, part in list(network.named_modules()):
        graph = getattr(part, "graph", None)
        if name and isinstance(graph, fx.Graph) and (layer := _layer(part, graph)) is not None:
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, layer.eval())


def _layer(part: nn.Module, graph: fx.Graph) -> nn.Module | None:
    """The layer that a graph of one operation on its input is, None for another one."""
    nodes = list(graph.nodes)
    taken = [node for node in nodes if node.op == "placeholder"]
    done = [node for node in nodes if node.op not in ("placeholder", "get_attr", "output")]
    (output,) = (node for node in nodes if node.op == "output")
    if len(taken) != 1 or len(done) != 1 or output.args[0] not in (done[0], (done[0],)) or done[0].kwargs:
        return None
    (operation,), attributes = done, {node: node.target for node in nodes if node.op == "get_attr"}
    if not operation.args or operation.args[0] is not taken[0]:
        return None
    values = [getattr(part, str(attributes[each])) if each in attributes else each for each in operation.args[1:]]
    make = _MAKERS.get(operation.target)
    return None if make is None else make(*values)


def _convolution(
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Any = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> nn.Module:
    settings: dict[str, Any] = {
        "kernel_size": tuple(weight.shape[2:]),
        "stride": tuple(stride),
        "padding": padding if isinstance(padding, str) else tuple(padding),
        "dilation": tuple(dilation),
        "groups": groups,
        "bias": bias is not None,
    }
    with torch.device("meta"):
        layer = nn.Conv2d(weight.shape[1] * groups, weight.shape[0], **settings)
    return _filled(layer, weight=weight, bias=bias)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Module:
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    return _filled(layer, weight=weight, bias=bias)


def _batch_norm(
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor | None,
    variance: torch.Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    _cudnn: bool,
) -> nn.Module | None:
    if training or mean is None or variance is None or (weight is None) != (bias is None):
        return None
    with torch.device("meta"):
        layer = nn.BatchNorm2d(len(mean), eps, momentum, affine=weight is not None)
    filled = _filled(layer, weight=weight, bias=bias)
    filled.running_mean, filled.running_var = mean, variance
    filled.num_batches_tracked = torch.zeros((), dtype=torch.long)
    return filled


def _filled(layer: nn.Module, **tensors: torch.Tensor | None) -> nn.Module:
    for name, tensor in tensors.items():
        if tensor is not None:
            setattr(layer, name, tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False))
    return layer


_MAKERS: dict[Any, Any] = {
    _aten.conv2d.default: _convolution,
    _aten.conv2d.padding: _convolution,
    _aten.linear.default: _linear,
    _aten.batch_norm.default: _batch_norm,
}

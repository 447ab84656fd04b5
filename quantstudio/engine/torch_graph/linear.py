"""Matrix products."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  torch's own convention

from quantstudio.engine.torch_graph.registry import Attributes, operator

Tensor = torch.Tensor


@operator("MatMul")
def matmul(_: Attributes, x: Tensor, y: Tensor) -> Tensor:
    """numpy's matmul."""
    return torch.matmul(x, y)


@operator("Gemm")
def gemm(attributes: Attributes, x: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
    """alpha * x' y' + beta * bias, with either factor transposed if asked."""
    alpha, beta = attributes.real("alpha", 1.0), attributes.real("beta", 1.0)
    if attributes.flag("transA"):
        x = x.T
    if attributes.flag("transB") and alpha == 1.0 and (bias is None or (beta == 1.0 and bias.ndim == 1)):
        return F.linear(x, y, bias)
    product = x @ (y.T if attributes.flag("transB") else y)
    if alpha != 1.0:
        product = product * alpha
    if bias is None:
        return product
    return product + (bias if beta == 1.0 else bias * beta)


@operator("Einsum")
def einsum(attributes: Attributes, *inputs: Tensor) -> Tensor:
    """Einstein summation."""
    return torch.einsum(attributes.text("equation", ""), *inputs)

"""Operators of ONNX Runtime's own domain, as its transformer optimizer writes them into files."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  torch's own convention

from quantstudio.engine.torch_graph.convolution import convolution
from quantstudio.engine.torch_graph.registry import Attributes, Result, operator, unsupported

Tensor = torch.Tensor


@operator("com.microsoft.Gelu")
def gelu(_: Attributes, x: Tensor) -> Tensor:
    """x times the normal distribution function of x."""
    return F.gelu(x)


@operator("com.microsoft.BiasGelu")
def bias_gelu(_: Attributes, x: Tensor, bias: Tensor) -> Tensor:
    """Gelu of x + bias."""
    return F.gelu(x + bias)


@operator("com.microsoft.FastGelu")
def fast_gelu(_: Attributes, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Gelu by tanh, of x + bias where there is one."""
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


@operator("com.microsoft.QuickGelu")
def quick_gelu(attributes: Attributes, x: Tensor) -> Tensor:
    """x sigmoid(alpha x)."""
    return x * torch.sigmoid(attributes.real("alpha", 1.702) * x)


@operator("com.microsoft.FusedMatMul")
def fused_matmul(attributes: Attributes, x: Tensor, y: Tensor) -> Tensor:
    """alpha x y, with either factor's last two axes exchanged if asked."""
    if attributes.flag("transBatchA") or attributes.flag("transBatchB"):
        raise unsupported("FusedMatMul with exchanged batch axes")
    x = x.mT if attributes.flag("transA") and x.ndim > 1 else x
    y = y.mT if attributes.flag("transB") and y.ndim > 1 else y
    return torch.matmul(x, y) * attributes.real("alpha", 1.0)


@operator("com.microsoft.FusedConv")
def fused_conv(
    attributes: Attributes,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    added: Tensor | None = None,
) -> Tensor:
    """Convolution, a sum where there is one, and an activation."""
    y: Tensor = convolution(attributes, x, weight, bias)  # type: ignore[assignment]
    y = y if added is None else y + added
    parameters: tuple[float, ...] = tuple(attributes.value("activation_params") or ())
    match attributes.text("activation", ""), parameters:
        case "", _:
            return y
        case "Relu", _:
            return torch.relu(y)
        case "Sigmoid", _:
            return torch.sigmoid(y)
        case "Tanh", _:
            return torch.tanh(y)
        case "LeakyRelu", (slope,):
            return F.leaky_relu(y, slope)
        case "Clip", (low, high):
            return y.clamp(low, high)
        case "HardSigmoid", (alpha, beta):
            return (alpha * y + beta).clamp(0, 1)
        case name, _:
            raise unsupported(f"FusedConv with {name}")


@operator("com.microsoft.SkipLayerNormalization")
def skip_layer_norm(
    attributes: Attributes,
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    shift: Tensor | None = None,
    bias: Tensor | None = None,
) -> Result:
    """Layer normalization of x + skip + bias over the last axis; the sum too where asked."""
    total = x + skip if bias is None else x + skip + bias
    y: Tensor = F.layer_norm(total, [total.shape[-1]], scale, shift, attributes.real("epsilon", 1e-12))
    return _with_sum(attributes, y, total)


@operator("com.microsoft.SkipSimplifiedLayerNormalization")
def skip_rms_norm(
    attributes: Attributes, x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None = None
) -> Result:
    """x + skip + bias divided by its root mean square; the sum too where asked."""
    total = x + skip if bias is None else x + skip + bias
    power = total.square().mean(-1, keepdim=True)
    y = total * torch.rsqrt(power + attributes.real("epsilon", 1e-5)) * scale
    return _with_sum(attributes, y, total)


def _with_sum(attributes: Attributes, y: Tensor, total: Tensor) -> Result:
    """The outputs: result, mean and deviation (which no CPU kernel gives), the sum."""
    return y if attributes.output_count < 4 else (y, total, total, total)

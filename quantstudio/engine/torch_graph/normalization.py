"""Normalisation layers in their inference form."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  torch's own convention

from quantstudio.engine.torch_graph.registry import Attributes, Result, operator, unsupported

Tensor = torch.Tensor


@operator("BatchNormalization")
def batch_norm(
    attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """Affine map by the stored mean and variance of each channel."""
    if attributes.flag("training_mode"):
        raise unsupported("BatchNormalization in training mode")
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, attributes.real("epsilon", 1e-5))


@operator("InstanceNormalization")
def instance_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Normalise each channel of each sample."""
    return F.instance_norm(x, None, None, scale, bias, True, 0.0, attributes.real("epsilon", 1e-5))


@operator("LayerNormalization")
def layer_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Result:
    """Normalise over the axes from `axis` on; mean and inverse deviation too where asked."""
    axis = attributes.integer("axis", -1) % x.ndim
    epsilon = attributes.real("epsilon", 1e-5)
    shape = list(x.shape[axis:])
    y = F.layer_norm(x, shape, scale.expand(shape), None if bias is None else bias.expand(shape), eps=epsilon)
    if attributes.output_count == 1:
        return y
    axes = list(range(axis, x.ndim))
    mean = x.mean(axes, keepdim=True)
    deviation = torch.rsqrt(x.var(axes, correction=0, keepdim=True) + epsilon)
    return (y, mean, deviation)[: attributes.output_count]


@operator("RMSNormalization", "SimplifiedLayerNormalization")
def rms_norm(attributes: Attributes, x: Tensor, scale: Tensor) -> Tensor:
    """Divide by the root mean square over the axes from `axis` on."""
    axes = list(range(attributes.integer("axis", -1) % x.ndim, x.ndim))
    power = x.square().mean(axes, keepdim=True)
    return x * torch.rsqrt(power + attributes.real("epsilon", 1e-5)) * scale


@operator("GroupNormalization")
def group_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Normalise groups of channels; opset 18 gives scale and bias per group, 21 per channel."""
    groups, channels = attributes.integer("num_groups", 1), x.shape[1]
    if scale.numel() != channels:
        scale = scale.repeat_interleave(channels // groups)
        bias = bias.repeat_interleave(channels // groups)
    return F.group_norm(x, groups, scale, bias, attributes.real("epsilon", 1e-5))


@operator("LpNormalization")
def lp_normalization(attributes: Attributes, x: Tensor) -> Tensor:
    """Divide by the p-norm along one axis."""
    return F.normalize(x, p=attributes.integer("p", 2), dim=attributes.integer("axis", -1), eps=0.0)


@operator("MeanVarianceNormalization")
def mean_variance_normalization(attributes: Attributes, x: Tensor) -> Tensor:
    """(x - mean) / (deviation + 1e-9) over the axes."""
    axes = attributes.integers("axes") or [0, 2, 3]
    centred = x - x.mean(axes, keepdim=True)
    return centred / (x.std(axes, correction=0, keepdim=True) + 1e-9)


@operator("LRN")
def local_response_norm(attributes: Attributes, x: Tensor) -> Tensor:
    """Normalise by the neighbouring channels (Krizhevsky et al. 2012)."""
    size = attributes.integer("size", 1)
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    power = F.pad(x.square().transpose(1, -1), (before, after)).unfold(-1, size, 1).sum(-1).transpose(1, -1)
    alpha, beta = attributes.real("alpha", 1e-4), attributes.real("beta", 0.75)
    return x / (attributes.real("bias", 1.0) + alpha / size * power) ** beta

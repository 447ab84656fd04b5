"""Resize: separable interpolation, one axis after the other, in every common coordinate mode."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  torch's own convention

from quantstudio.engine.torch_graph.registry import Attributes, integer_list, operator, unsupported

Tensor = torch.Tensor

LINEAR_TAPS: tuple[int, ...] = (0, 1)
CUBIC_TAPS: tuple[int, ...] = (-1, 0, 1, 2)

_TORCH_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}


@operator("Resize", "Upsample")
def resize(
    attributes: Attributes,
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """x at another size: nearest, linear or cubic."""
    del roi  # only tf_crop_and_resize reads it, which is refused below
    mode = attributes.text("mode", "nearest")
    coordinates = attributes.text("coordinate_transformation_mode", "half_pixel")
    if attributes.flag("antialias") or coordinates == "tf_crop_and_resize":
        raise unsupported("Resize with antialias or tf_crop_and_resize")
    if attributes.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise unsupported("Resize that keeps the aspect ratio")
    axes = attributes.integers("axes") or list(range(x.ndim))
    if sizes is not None and sizes.numel():
        lengths = integer_list(sizes)
        factors = [new / x.shape[axis] for axis, new in zip(axes, lengths, strict=True)]
    elif scales is not None and scales.numel():
        factors = [float(v) for v in scales.tolist()]
        lengths = [int(x.shape[axis] * factor) for axis, factor in zip(axes, factors, strict=True)]
    else:
        raise unsupported("Resize without sizes and scales")
    if _is_plain_linear(x, axes, lengths, factors, mode, coordinates):
        spatial = lengths[axes.index(2) :]
        return F.interpolate(
            x,
            spatial,
            mode=_TORCH_LINEAR[x.ndim],
            align_corners=coordinates == "align_corners",
        )
    for axis, length, factor in zip(axes, lengths, factors, strict=True):
        if length != x.shape[axis] or factor != 1.0:
            x = _resize_axis(attributes, x, axis, length, factor)
    return x


def _is_plain_linear(
    x: Tensor, axes: list[int], lengths: list[int], factors: list[float], mode: str, coordinates: str
) -> bool:
    """Whether torch's own, faster interpolation means the same."""
    if mode != "linear" or coordinates not in ("half_pixel", "align_corners") or x.ndim not in _TORCH_LINEAR:
        return False
    changed = dict(zip(axes, lengths, strict=True))
    is_spatial = all(axis in changed for axis in range(2, x.ndim))
    keeps_rest = all(changed.get(axis, x.shape[axis]) == x.shape[axis] for axis in (0, 1))
    exact = all(n == x.shape[a] * f for a, n, f in zip(axes, lengths, factors, strict=True))
    return is_spatial and keeps_rest and exact and axes == sorted(axes)


def _source_coordinates(
    mode: str, length_in: int, length_out: int, factor: float, device: torch.device
) -> Tensor:
    out = torch.arange(length_out, dtype=torch.float64, device=device)
    match mode:
        case "half_pixel":
            return (out + 0.5) / factor - 0.5
        case "pytorch_half_pixel":
            return (out + 0.5) / factor - 0.5 if length_out > 1 else torch.zeros_like(out)
        case "half_pixel_symmetric":
            adjustment = length_out / (factor * length_in)
            offset = length_in / 2 * (1 - adjustment)
            return offset + (out + 0.5) / factor - 0.5
        case "align_corners":
            return out * (length_in - 1) / (length_out - 1) if length_out > 1 else torch.zeros_like(out)
        case "asymmetric":
            return out / factor
        case _:
            raise unsupported(f"Resize with coordinates {mode!r}")


def _resize_axis(attributes: Attributes, x: Tensor, axis: int, length: int, factor: float) -> Tensor:
    transform = attributes.text("coordinate_transformation_mode", "half_pixel")
    source = _source_coordinates(transform, x.shape[axis], length, factor, x.device)
    mode = attributes.text("mode", "nearest")
    if mode == "nearest":
        rounded = _round(source, attributes.text("nearest_mode", "round_prefer_floor"))
        return x.index_select(axis, rounded.long().clamp(0, x.shape[axis] - 1))
    base = torch.floor(source)
    if mode == "linear":
        source = source.clamp(0, x.shape[axis] - 1)
        base = torch.floor(source)
        offsets, weights = LINEAR_TAPS, _linear_weights(source - base)
    elif mode == "cubic":
        offsets = CUBIC_TAPS
        weights = _cubic_weights(source - base, attributes.real("cubic_coeff_a", -0.75))
    else:
        raise unsupported(f"Resize mode {mode!r}")
    return _blend(x, axis, base.long(), offsets, weights, attributes.flag("exclude_outside"))


def _round(source: Tensor, mode: str) -> Tensor:
    match mode:
        case "round_prefer_floor":
            return torch.ceil(source - 0.5)
        case "round_prefer_ceil":
            return torch.floor(source + 0.5)
        case "floor":
            return torch.floor(source)
        case "ceil":
            return torch.ceil(source)
        case _:
            raise unsupported(f"Resize with nearest mode {mode!r}")


def _linear_weights(fraction: Tensor) -> Tensor:
    return torch.stack([1 - fraction, fraction])


def _cubic_weights(t: Tensor, a: float) -> Tensor:
    """Keys' kernel at distances 1 + t, t, 1 - t, 2 - t (Keys 1981)."""

    def near(d: Tensor) -> Tensor:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Tensor) -> Tensor:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return torch.stack([far(1 + t), near(t), near(1 - t), far(2 - t)])


def _blend(
    x: Tensor, axis: int, base: Tensor, offsets: tuple[int, ...], weights: Tensor, exclude_outside: bool
) -> Tensor:
    last = x.shape[axis] - 1
    if exclude_outside:
        positions = torch.stack([base + offset for offset in offsets])
        weights = weights * ((positions >= 0) & (positions <= last))
        weights = weights / weights.sum(0, keepdim=True)
    shape = [1] * x.ndim
    shape[axis] = -1
    total: Tensor | None = None
    for offset, weight in zip(offsets, weights, strict=True):
        part = x.index_select(axis, (base + offset).clamp(0, last)) * weight.to(x.dtype).reshape(shape)
        total = part if total is None else total + part
    assert total is not None
    return total

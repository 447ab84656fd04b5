"""Reading an image at positions that other tensors give."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  torch's own convention

from quantstudio.engine.torch_graph.registry import Attributes, operator, unsupported

Tensor = torch.Tensor

# Opset 20 renamed two modes.
_MODES = {"linear": "bilinear", "bilinear": "bilinear", "nearest": "nearest"}


@operator("GridSample")
def grid_sample(attributes: Attributes, x: Tensor, grid: Tensor) -> Tensor:
    """x [N, C, ...] at positions in [-1, 1]; grid [N, ..., 2 or 3]."""
    mode = _MODES.get(attributes.text("mode", "linear"))
    if mode is None:
        raise unsupported("GridSample with cubic interpolation, whose kernels differ")
    return F.grid_sample(
        x,
        grid,
        mode=mode,
        padding_mode=attributes.text("padding_mode", "zeros"),
        align_corners=attributes.flag("align_corners"),
    )


@operator("RoiAlign")
def roi_align(attributes: Attributes, x: Tensor, rois: Tensor, images: Tensor) -> Tensor:
    """Mean of bilinear samples in each bin of each region; x [N, C, H, W], rois [R, 4] as x1, y1, x2, y2.

    Source: He et al. 2017, "Mask R-CNN", section 3.
    """
    samples = attributes.integer("sampling_ratio", 0)
    if attributes.text("mode", "avg") != "avg" or samples < 1:
        raise unsupported("RoiAlign with a number of samples that depends on the region, or with max")
    height, width = attributes.integer("output_height", 1), attributes.integer("output_width", 1)
    is_half = attributes.text("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    boxes = rois * attributes.real("spatial_scale", 1.0) - (0.5 if is_half else 0.0)
    start, size = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    if not is_half:
        size = size.clamp(min=1.0)
    across = start[:, :1] + size[:, :1] * _centres(width * samples, x)
    down = start[:, 1:] + size[:, 1:] * _centres(height * samples, x)
    rows, columns = x.shape[2], x.shape[3]
    inside = _within(down, rows)[:, :, None] & _within(across, columns)[:, None, :]
    count, shape = len(rois), (len(rois), height * samples, width * samples)
    x_grid = (2 * across.clamp(0, columns - 1) + 1).reshape(count, 1, -1) / columns - 1
    y_grid = (2 * down.clamp(0, rows - 1) + 1).reshape(count, -1, 1) / rows - 1
    grid = torch.stack([x_grid.expand(shape), y_grid.expand(shape)], -1)
    values = F.grid_sample(x[images], grid, padding_mode="border", align_corners=False)
    return F.avg_pool2d(values * inside[:, None], samples)


def _centres(count: int, like: Tensor) -> Tensor:
    return (torch.arange(count, dtype=like.dtype, device=like.device) + 0.5) / count


def _within(positions: Tensor, length: int) -> Tensor:
    """Samples more than a pixel outside count as zero."""
    return (positions >= -1) & (positions <= length)

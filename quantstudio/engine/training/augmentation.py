"""Pictures changed at random in ways that change no label: mirrored, moved. Off by default."""

from __future__ import annotations

from collections.abc import Mapping

import torch

Tensor = torch.Tensor
Feed = dict[str, Tensor]
_PICTURE_AXES = 4
# Where a picture has so many on its last axis alone, channels are there.
_CHANNELS = (1, 3, 4)


def augmented(
    feed: Feed,
    sample_axes: Mapping[str, int],
    *,
    flip: bool,
    crop: int,
    generator: torch.Generator,
) -> Feed:
    """A feed with its pictures changed; inputs that are no pictures stay.

    Args:
        feed: Tensors by input; float inputs of four axes with the samples first are pictures.
        sample_axes: Axis of the samples by input.
        flip: Whether every other picture is mirrored left to right.
        crop: Pixels a picture is moved by at most, up or down and left or right; its edge is repeated.
        generator: Draws them.
    """
    if not flip and not crop:
        return feed
    made = dict(feed)
    for name, value in feed.items():
        if value.ndim != _PICTURE_AXES or not value.is_floating_point() or sample_axes.get(name) != 0:
            continue
        is_last = value.shape[3] in _CHANNELS and value.shape[1] not in _CHANNELS
        pictures = value.movedim(3, 1) if is_last else value
        if flip:
            mirrored = torch.rand(len(pictures), generator=generator) < 0.5
            pictures = torch.where(
                mirrored[:, None, None, None].to(pictures.device), pictures.flip(3), pictures
            )
        if crop:
            pictures = _moved(pictures, crop, generator)
        made[name] = (pictures.movedim(1, 3) if is_last else pictures).contiguous()
    return made


def _moved(pictures: Tensor, most: int, generator: torch.Generator) -> Tensor:
    height, width = pictures.shape[2:]
    ways = torch.randint(-most, most + 1, (2, len(pictures)), generator=generator).to(pictures.device)
    rows = (torch.arange(height, device=pictures.device) + ways[0][:, None]).clamp(0, height - 1)
    columns = (torch.arange(width, device=pictures.device) + ways[1][:, None]).clamp(0, width - 1)
    samples = torch.arange(len(pictures), device=pictures.device)
    return pictures[
        samples[:, None, None, None],
        torch.arange(pictures.shape[1], device=pictures.device)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]

"""Convex mixtures of samples: inputs that no step before has seen, for which the float network knows answers.

Zhang et al. 2018, mixup, arXiv:1710.09412, eq. 1. Their targets are mixed as well; here the float network
answers the mixture itself (Beyer et al. 2022, arXiv:2106.05237), so that no label is needed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

Tensor = torch.Tensor
Feed = dict[str, Tensor]


def mixed(
    first: Feed, second: Feed, sample_axes: Mapping[str, int], generator: torch.Generator
) -> Feed | None:
    """Every sample of a feed mixed with one of another, each pair by a share of its own between 0 and 1.

    Args:
        first: Tensors by input.
        second: Another feed. Where it is the same, or its sizes are others, samples of the first are mixed
            with each other.
        sample_axes: Axis of the samples by input; inputs that are not in it stay as they are.
        generator: Draws the shares.

    Returns:
        None where an input holds no float numbers: tokens have nothing in between.
    """
    apart = [name for name in first if name in sample_axes]
    if not apart or not all(first[name].is_floating_point() for name in apart):
        return None
    is_alike = first is not second and all(second[name].shape == first[name].shape for name in apart)
    count = first[apart[0]].shape[sample_axes[apart[0]]]
    shares = torch.rand(count, generator=generator)
    made = dict(first)
    for name in apart:
        value, axis = first[name], sample_axes[name]
        shape = [1] * value.ndim
        shape[axis] = -1
        other = second[name] if is_alike else value.flip(axis)
        made[name] = torch.lerp(other, value, shares.reshape(shape).to(value))
    return made

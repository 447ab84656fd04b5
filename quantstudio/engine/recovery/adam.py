"""Adam, in plain torch tensors.

The first optimizer of `torch.optim` imports torch's compiler: three processor seconds, as much as a hundred
steps of training take here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

Tensor = torch.Tensor
_FIRST, _SECOND, _SMALLEST = 0.9, 0.999, 1e-8


class Adam:
    """Gradient descent with steps of even size in every parameter, whatever the size of its gradient.

    Kingma & Ba 2015, Adam, arXiv:1412.6980, algorithm 1 with the paper's constants; it gives what
    `torch.optim.Adam` does, to the bit on a processor.

    Args:
        groups: Parameters with their learning rate.
    """

    def __init__(self, *groups: tuple[Sequence[Tensor], float]) -> None:
        self._parts = [
            (one, rate, torch.zeros_like(one), torch.zeros_like(one)) for ones, rate in groups for one in ones
        ]
        self._done = 0

    @property
    def moments(self) -> tuple[list[Tensor], list[Tensor]]:
        """Running means of gradients and of their squares, in the order of the parameters."""
        return [mean for _, _, mean, _ in self._parts], [square for *_, square in self._parts]

    @torch.no_grad()
    def resume(self, done: int, means: Sequence[Tensor], squares: Sequence[Tensor]) -> None:
        """Go on behind so many steps, with what `moments` gave there."""
        self._done = done
        for part, mean, square in zip(self._parts, means, squares, strict=True):
            part[2].copy_(mean)
            part[3].copy_(square)

    @torch.no_grad()
    def step(self, share: float = 1.0) -> None:
        """Go one step against the gradients, and forget them.

        Args:
            share: Part of the learning rates, for a schedule.
        """
        self._done += 1
        first, second = (1 - decay**self._done for decay in (_FIRST, _SECOND))
        for one, rate, mean, square in self._parts:
            if one.grad is None:
                continue
            mean.lerp_(one.grad, 1 - _FIRST)
            square.mul_(_SECOND).addcmul_(one.grad, one.grad, value=1 - _SECOND)
            root = (square.sqrt() / second**0.5).add_(_SMALLEST)
            one.addcdiv_(mean, root, value=-rate * share / first)
            one.grad = None

"""Adam without torch's own optimizers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

import quantstudio
from quantstudio.engine.recovery.adam import Adam


def test_that_steps_are_those_of_the_paper():
    start, goal = np.array([1.0, -2.0, 0.5]), np.array([0.5, -1.0, 1.0])
    found = torch.tensor(start, requires_grad=True)
    optimizer = Adam(([found], 0.05))
    wanted, mean, square = start.copy(), np.zeros(3), np.zeros(3)
    for done in range(1, 9):
        torch.autograd.backward((found - torch.from_numpy(goal)).square().sum())
        optimizer.step()
        gradient = 2 * (wanted - goal)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        wanted -= 0.05 * (mean / (1 - 0.9**done)) / (np.sqrt(square / (1 - 0.999**done)) + 1e-8)
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-10)


def test_that_every_group_has_its_rate_and_a_schedule_scales_all():
    near, far, idle = (torch.zeros(2, requires_grad=True) for _ in range(3))
    optimizer = Adam(([near, idle], 0.01), ([far], 0.1))
    torch.autograd.backward(near.sum() - far.sum())
    optimizer.step(0.5)
    assert near.grad is None
    np.testing.assert_allclose(near.detach(), [-0.005] * 2, rtol=1e-5)
    np.testing.assert_allclose(far.detach(), [0.05] * 2, rtol=1e-5)
    assert not idle.any()


def test_that_nothing_makes_an_optimizer_of_torch_which_takes_seconds_to_import():
    for path in Path(quantstudio.__file__).parent.rglob("*.py"):
        assert not re.search(r"optim\.\w+\(|import optim\b", path.read_text(encoding="utf-8")), path

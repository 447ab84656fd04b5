"""Mixtures of samples, and tables whose scale and entries are trained apart."""

from __future__ import annotations

import pytest
import torch

from quantstudio.engine.recovery.mixtures import mixed
from quantstudio.engine.recovery.trained_weights import TableWeight


def drawn(first, second, **axes):
    return mixed(first, second, axes, torch.Generator().manual_seed(3))


def test_that_every_pair_of_samples_has_one_share_for_all_inputs():
    zeros, ones = ({"a": value((4, 3)), "b": value((2, 4))} for value in (torch.zeros, torch.ones))
    found = drawn(zeros, ones, a=0, b=1)
    shares = found["a"][:, 0]
    assert len(shares.unique()) == 4
    assert ((shares > 0) & (shares < 1)).all()
    torch.testing.assert_close(found["a"], shares[:, None].expand(4, 3))
    torch.testing.assert_close(found["b"], shares.expand(2, 4))


@pytest.mark.parametrize("other", ["same", "shorter"])
def test_that_a_feed_without_a_partner_of_its_size_is_mixed_with_itself(other):
    feed = {"x": torch.arange(4.0)[:, None]}
    found = drawn(feed, feed if other == "same" else {"x": torch.zeros(2, 1)}, x=0)["x"].flatten()
    assert ((found >= 0) & (found <= 3)).all()
    assert not torch.equal(found, feed["x"].flatten())


def test_that_tokens_are_not_mixed_and_what_all_samples_share_stays():
    tokens = {"ids": torch.ones(2, 3, dtype=torch.int64), "x": torch.ones(2, 3)}
    assert drawn(tokens, dict(tokens), ids=0, x=0) is None
    assert drawn({"x": torch.ones(3)}, {"x": torch.ones(3)}) is None
    shared = {"x": torch.ones(2, 3), "sizes": torch.tensor([3, 3])}
    found = drawn(shared, {"x": torch.zeros(2, 3), "sizes": torch.tensor([4, 4])}, x=0)
    assert found["sizes"] is shared["sizes"]


def test_that_a_scale_moves_a_whole_table_and_an_entry_only_itself():
    written = torch.tensor([[-0.63, -0.1, 0.2, 0.1, 0.2], [0.0, 0.0, 0.0, 0.0, 0.0]])
    table = TableWeight(written, 0, 4, 63)
    torch.testing.assert_close(table.value(), written)
    torch.autograd.backward(table.value().sum())
    # The scale is felt by every weight; the largest entry stands for the scale and has no gradient itself.
    torch.testing.assert_close(table.parameter.grad, written.sum(1, keepdim=True))
    assert table.entries.grad is not None
    torch.testing.assert_close(table.entries.grad[0], torch.tensor([0.0, 0.63, 0.63, 1.26]))
    with torch.no_grad():
        table.parameter[0] = 1.1
        table.entries[0] += torch.tensor([0.5, 0.0, 2.0, 0.05])
    found = table.value()[0].detach() / 1.1
    torch.testing.assert_close(found, torch.tensor([-0.63, -0.1, 0.23, 0.63, 0.23]))

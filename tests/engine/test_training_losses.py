"""What labels cost: classes, decisions and targets by numbers; and networks with a batch of their own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.errors import DataError
from quantstudio.core.events import CancelToken
from quantstudio.core.layers import TensorInfo
from quantstudio.engine.data.dataset import open_dataset
from quantstudio.engine.training.losses import LabelLoss
from quantstudio.engine.training.samples import Samples

CPU = torch.device("cpu")


def test_that_classes_cost_their_cross_entropy():
    scores = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
    labels = torch.tensor([0, 2])
    wanted = -(math.log(0.5) + math.log(0.1)) / 2
    assert LabelLoss("y", "classes").value({"y": scores}, labels).item() == pytest.approx(wanted)
    probabilities = LabelLoss("y", "classes", is_probability=True)
    assert probabilities.value({"y": scores.exp()}, labels).item() == pytest.approx(wanted)
    assert probabilities.right({"y": scores.exp()}, labels) == 0.5


def test_that_tokens_are_classes_of_every_position():
    scores = torch.zeros(2, 3, 4)
    labels = torch.zeros(2, 3, dtype=torch.int64)
    assert LabelLoss("y", "classes").value({"y": scores}, labels).item() == pytest.approx(math.log(4))
    assert LabelLoss("y", "classes").right({"y": scores}, labels) == 1.0


def test_that_classes_with_flat_axes_behind_them_are_read():
    scores = torch.tensor([[2.0, 0.0], [0.0, 2.0]])[:, :, None, None]
    loss = LabelLoss("y", "classes", class_axis=1)
    wanted = math.log(1 + math.exp(-2))
    assert loss.value({"y": scores}, torch.tensor([0, 1])).item() == pytest.approx(wanted)
    assert loss.right({"y": scores}, torch.tensor([0, 1])) == 1.0


def test_that_decisions_cost_their_binary_cross_entropy():
    scores, labels = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    wanted = (math.log(2) + math.log(1 + math.exp(2))) / 2
    loss = LabelLoss("y", "decisions")
    assert loss.value({"y": scores}, labels).item() == pytest.approx(wanted)
    assert loss.right({"y": scores}, labels) is None
    passed = LabelLoss("y", "decisions", is_probability=True)
    assert passed.value({"y": scores.sigmoid()}, labels).item() == pytest.approx(wanted, rel=1e-5)


def test_that_targets_cost_half_the_squared_error_in_their_variance():
    loss = LabelLoss("y", "targets", variance=4.0)
    found = loss.value({"y": torch.tensor([[1.0], [3.0]])}, torch.tensor([1.0, 7.0]))
    assert found.item() == pytest.approx(8.0 / 8.0)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    """Twenty samples for a network that takes four at a time."""
    path = tmp_path_factory.mktemp("data") / "d.npz"
    np.savez(path, x=np.arange(20, dtype=np.float32)[:, None])
    return open_dataset(DataSpec(str(path)), (TensorInfo("x", "float32", (4, 1)),))


def test_that_a_network_with_a_batch_of_its_own_gets_whole_batches(fixed):
    samples = Samples(fixed, 0, 128, CPU, CancelToken())
    assert samples.batch == 4
    assert len(samples.held) == 4
    assert samples.steps(2.0) == 8
    places = samples.places_of(0, 0)
    assert places == list(range(places[0], places[0] + 4))
    assert samples.pick(places).feed["x"].flatten().tolist() == [float(place) for place in places]
    assert samples.held_batches(250) == [samples.held]


def test_that_one_batch_alone_is_too_few(fixed):
    with pytest.raises(DataError, match="too few to train on"):
        Samples(fixed, 7, 128, CPU, CancelToken())

"""The parts of a training by numbers: gradients through rounding, weights, order of samples, schedule."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.events import CancelToken
from quantstudio.core.layers import TensorInfo
from quantstudio.core.precision import ActivationPrecision, Precision, scheme_of
from quantstudio.engine.data.dataset import open_dataset
from quantstudio.engine.quantization.written_weights import ScaleLayout
from quantstudio.engine.torch_graph.rounding import learned_quantized
from quantstudio.engine.training.augmentation import augmented
from quantstudio.engine.training.learned_weights import SteppedWeight, learned_weight
from quantstudio.engine.training.samples import Samples
from quantstudio.engine.training.schedule import Schedule
from quantstudio.engine.training.students import shared_values

CPU = torch.device("cpu")


def static(weights):
    return scheme_of(weights, ActivationPrecision.INT8)


def slope(tensor):
    assert tensor.grad is not None
    return tensor.grad


def made(*arguments):
    found = learned_weight(*arguments)
    assert found is not None
    return found


def test_that_a_learned_scale_has_the_gradients_of_lsq():
    x = torch.tensor([-1.0, 0.3, 0.74, 5.0], requires_grad=True)
    scale = torch.tensor([0.5], requires_grad=True)
    out = learned_quantized(x, scale, 0, 0, 3)
    assert out.tolist() == [0.0, 0.5, 0.5, 1.5]
    out.backward(torch.ones(4))
    # Inside: what rounding missed in steps, 1 - 0.6 and 1 - 1.48; outside: the integer it was cut off at.
    assert slope(x).tolist() == [0.0, 1.0, 1.0, 0.0]
    assert slope(scale).item() == pytest.approx(0 + (1 - 0.6) + (1 - 1.48) + 3)


def test_that_a_zero_point_moves_both_ends():
    x = torch.tensor([-3.0, -0.4, 9.0])
    assert learned_quantized(x, torch.tensor([1.0]), 2, 0, 15).tolist() == [-2.0, 0.0, 9.0]


def test_that_a_stepped_weight_is_its_integers_times_its_scale():
    weight = torch.tensor([[0.9, -0.26, 0.1], [2.0, 0.0, -4.4]])
    layout = ScaleLayout(0, scales=np.array([0.25, 0.5], np.float32))
    learned = SteppedWeight(weight, layout, (-8, 7), is_sign=False)
    value = learned.value()
    assert value.tolist() == [[1.0, -0.25, 0.0], [2.0, 0.0, -4.0]]
    value.sum().backward()
    # In units of the channel: the last value of the second row was cut off, and learns nothing.
    passed = slope(learned.latent) / weight.square().mean(1, keepdim=True).sqrt()
    assert passed.tolist() == [[pytest.approx(1.0)] * 3, [pytest.approx(1.0), pytest.approx(1.0), 0.0]]
    missed = (4 - 3.6) + (-1 + 1.04) + (0 - 0.4)
    assert slope(learned.grid[0])[0, 0].item() == pytest.approx(0.25 * missed, abs=1e-6)
    assert slope(learned.grid[0])[1, 0].item() == pytest.approx(0.5 * (0 + 0 - 8), abs=1e-6)


def test_that_signs_have_no_zero_and_pass_gradients_near_it():
    weight = torch.tensor([[0.1, -0.2, 3.0, 0.0]])
    learned = SteppedWeight(weight, ScaleLayout(0, scales=np.array([1.0], np.float32)), (-1, 1), is_sign=True)
    value = learned.value()
    assert value.tolist() == [[1.0, -1.0, 1.0, 1.0]]
    value.sum().backward()
    assert slope(learned.latent).ne(0).tolist() == [[True, True, False, True]]


def test_that_a_table_takes_the_nearest_entry_and_assigns_anew():
    written = torch.tensor([[-1.0, 0.5, 1.0, 0.5, -1.0, 0.0]])
    weight = torch.tensor([[-1.1, 0.4, 0.9, 0.6, -0.7, 0.1]])
    layout = ScaleLayout(0, scales=np.array([1 / 127], np.float32))
    # The written values are -127, 63.5, 127 and 0: on the grid to half a step.
    written = torch.round(written * 127) / 127
    learned = made(weight, written, layout, static(Precision.CODEBOOK2), 8)
    assert learned.value().tolist()[0] == pytest.approx(written.tolist()[0], abs=1e-6)
    with torch.no_grad():
        learned.latent[0, 1] *= -1
    assert learned.value()[0, 1].item() == pytest.approx(0.0, abs=1e-6)


def test_that_entries_of_a_table_learn_the_sum_of_their_weights():
    weight = torch.tensor([[-1.0, 0.5, 1.0, 0.5, 0.0, 0.0]])
    written = torch.round(weight * 127) / 127
    layout = ScaleLayout(0, scales=np.array([1 / 127], np.float32))
    learned = made(weight, written, layout, static(Precision.CODEBOOK2), 8)
    value = learned.value()
    (value * torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])).sum().backward()
    # Entries in ascending order: -1, held as the largest; 0 has 5 + 6, 0.5 has 2 + 4, and 1 has 3.
    assert slope(learned.grid[1])[0].tolist() == pytest.approx([0.0, 11.0, 6.0, 3.0], rel=1e-5)
    assert slope(learned.latent)[0].tolist() == pytest.approx(
        [n * weight.square().mean().sqrt().item() for n in range(1, 7)], rel=1e-5
    )


def test_that_a_shared_table_stays_one():
    codes = torch.tensor([[127.0, -64.0, 0.0, 127.0], [127.0, 0.0, -64.0, -64.0]])
    scales = torch.tensor([[0.01], [0.1]])
    layout = ScaleLayout(0, scales=scales.numpy().reshape(-1))
    learned = made(codes * scales, codes * scales, layout, static(Precision.TABLE2), 8)
    with torch.no_grad():
        learned.grid[1].add_(0.1)
    rows = learned.value() / scales
    assert len(torch.unique(torch.round(rows))) <= 4
    assert torch.unique(torch.round(rows[0])).tolist() == torch.unique(torch.round(rows[1])).tolist()


@pytest.mark.parametrize(("weight", "values"), [([[1, 2] * 4, [2, 1] * 4], 2), ([[1, 2, 3], [4, 5, 6]], 0)])
def test_that_shared_values_are_found(weight, values):
    weight = torch.tensor(weight, dtype=torch.float32)
    found = shared_values(weight)
    assert (len(found[0]) if found else 0) == values
    if found:
        assert torch.equal(found[0][found[1]], weight)


def test_that_values_shared_along_a_channel_are_found():
    weight = torch.stack([torch.tensor([1.0, 2.0] * 8) * (row + 1.3) for row in range(9)])
    found = shared_values(weight)
    assert found is not None
    values, index = found
    assert len(values) == 18
    assert torch.equal(values[index], weight)


def test_that_values_shared_by_a_group_of_channels_are_found():
    # Ninety groups of eight channels of seven weights: 270 values are too many for a table of the whole.
    tables = torch.arange(270.0).reshape(90, 3)
    weight = tables[:, torch.arange(56) % 3].reshape(720, 7)
    found = shared_values(weight)
    assert found is not None
    assert found[0].tolist() == tables.flatten().tolist()
    assert torch.equal(found[0][found[1]], weight)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "d.npz"
    np.savez(path, x=np.arange(100, dtype=np.float32)[:, None], y=np.arange(100) % 3)
    return open_dataset(DataSpec(str(path)), (TensorInfo("x", "float32", ("n", 1)),))


def test_that_an_epoch_has_every_sample_once_in_an_order_of_its_own(dataset):
    samples = Samples(dataset, 0, 10, CPU, CancelToken())
    assert len(samples.held) == 5
    assert not set(samples.held) & {place for step in range(19) for place in samples.places_of(step, 0)}
    first = [place for step in range(10) for place in samples.places_of(step, 0)]
    assert sorted(first[:95]) == samples.trained
    assert samples.places_of(12, 0) == Samples(dataset, 0, 10, CPU, CancelToken()).places_of(12, 0)
    assert samples.places_of(0, 0) != samples.places_of(0, 1)
    assert first[:95] != [place for step in range(10, 20) for place in samples.places_of(step, 0)][5:]
    picked = samples.pick([3, 7])
    assert picked.feed["x"].tolist() == [[3.0], [7.0]]
    assert picked.labels is not None
    assert picked.labels.tolist() == [0, 1]


def test_that_too_much_to_keep_is_read_again(dataset, monkeypatch):
    kept = Samples(dataset, 0, 10, CPU, CancelToken()).pick([90, 2])
    monkeypatch.setattr("quantstudio.engine.training.samples._KEPT_BYTES", 10)
    read = Samples(dataset, 0, 10, CPU, CancelToken()).pick([90, 2])
    assert torch.equal(kept.feed["x"], read.feed["x"])


def test_that_the_rate_rises_and_falls_to_zero():
    schedule = Schedule(1000, 4.0)
    shares = [schedule.share_of_rate(step) for step in range(1, 1001)]
    assert shares[0] == pytest.approx(1 / 50)
    assert max(shares) == pytest.approx(1.0, abs=0.01)
    assert shares[524] == pytest.approx(0.5, abs=0.01)
    assert shares[-1] < 1e-4
    assert schedule.between_looks == 125
    assert Schedule(1000, 4.0, stop=300).last == 300


def test_that_pictures_are_mirrored_and_moved_within_their_edges():
    picture = torch.arange(12.0).reshape(1, 1, 3, 4)
    feed = {"x": picture.repeat(64, 1, 1, 1), "state": torch.zeros(64, 4)}
    generator = torch.Generator().manual_seed(0)
    made = augmented(feed, {"x": 0, "state": 0}, flip=True, crop=0, generator=generator)["x"]
    mirrored = [torch.equal(one, picture[0].flip(2)) for one in made]
    assert 16 < sum(mirrored) < 48
    assert all(is_so or torch.equal(one, picture[0]) for one, is_so in zip(made, mirrored, strict=True))
    moved = augmented(feed, {"x": 0, "state": 0}, flip=False, crop=1, generator=generator)["x"]
    assert {tuple(one.flatten().tolist()) for one in moved} >= {
        tuple(picture.flatten().tolist()),
        (4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 8.0, 9.0, 10.0, 11.0),
    }
    assert moved.shape == made.shape


def test_that_channels_on_the_last_axis_stay_there():
    picture = torch.arange(18.0).reshape(1, 2, 3, 3)
    feed = {"x": picture.repeat(20, 1, 1, 1)}
    made = augmented(feed, {"x": 0}, flip=True, crop=0, generator=torch.Generator().manual_seed(1))["x"]
    assert any(torch.equal(one, picture[0].flip(1)) for one in made)

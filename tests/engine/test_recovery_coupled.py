"""Channels chosen together: what answers hang on, and weights whose errors cancel in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.events import CancelToken
from quantstudio.engine.data.dataset import open_dataset
from quantstudio.engine.recovery.code_grids import TableGrid
from quantstudio.engine.recovery.compensation import Compensation
from quantstudio.engine.recovery.coupled import DAMPING, CoupledChannels
from quantstudio.engine.recovery.layer_matrix import layer_matrix
from quantstudio.engine.recovery.output_metric import OutputMetrics
from quantstudio.engine.recovery.second_moments import SecondMoments
from quantstudio.engine.recovery.weight_formats import LayerFormat
from quantstudio.engine.torch_graph.module import TorchGraph
from tests.engine.quantization_cases import NetBuilder, opened

TABLES = LayerFormat(-63, 63, entries=8)


def problem(outputs=24, columns=32, seed=0):
    """A target and second moments of inputs that hang together, as real ones do."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1, columns, 300)) + rng.normal(size=(1, 1, 300))
    moments = SecondMoments(1, columns)
    moments.add(torch.from_numpy(x).float())
    return Compensation(torch.from_numpy(rng.normal(size=(1, outputs, columns))), moments.hessian)


def metric_of_rank(rank, outputs=24, seed=1):
    directions = np.random.default_rng(seed).normal(size=(outputs, rank))
    found = directions @ directions.T
    return found / found.diagonal().mean()


def felt(one, metric, values):
    """What an error costs, computed another way: the mean power of its products with random inputs."""
    off = (values - one.target)[0].numpy()
    root, inputs = (
        np.linalg.cholesky(metric + 1e-9 * np.eye(len(metric))),
        np.linalg.cholesky(one.hessian[0].numpy()),
    )
    return float(np.square(root.T @ off @ inputs).sum())


@pytest.mark.parametrize("rank", [3, 12])
def test_that_errors_of_channels_cancel_where_few_directions_count(rank):
    one, metric = problem(), metric_of_rank(rank)
    grid = TABLES.best(one.rows, one.row_importance)
    alone, together = one.solved(grid, 2), one.solved(grid, 2, metric)
    assert felt(one, metric, together.values) < 0.6 * felt(one, metric, alone.values)


def test_that_channels_chosen_together_show_their_tables():
    one = problem()
    values = one.solved(TABLES.best(one.rows, one.row_importance), 2, metric_of_rank(5)).values[0].numpy()
    for row in values:
        codes = row / np.abs(row).max() * TABLES.high
        assert len(np.unique(np.round(codes))) <= TABLES.entries
        np.testing.assert_allclose(codes, np.round(codes), atol=1e-6)


def test_that_where_channels_count_apart_a_sweep_is_that_of_each_alone():
    one = problem()
    grid = TABLES.best(one.rows, one.row_importance)
    assert isinstance(grid, TableGrid)
    channels = CoupledChannels(one.rows, one.hessian[0].numpy(), np.eye(24), CancelToken())
    np.testing.assert_array_equal(channels._swept(grid), one._compensated(grid, one._order))


def test_that_a_table_is_refitted_to_what_others_leave_and_nothing_is_lost():
    one, metric = problem(outputs=6, columns=40), metric_of_rank(2, outputs=6)
    grid = TABLES.best(one.rows, one.row_importance)
    assert isinstance(grid, TableGrid)
    channels = CoupledChannels(one.rows, one.hessian[0].numpy(), metric, CancelToken())
    codes = one._rounded(grid)
    better = channels.better(grid, codes)
    assert better.loss == pytest.approx(channels.loss(better.grid, better.codes))
    assert better.loss == pytest.approx(
        felt(one, metric + DAMPING * np.eye(6), torch.from_numpy(better.grid.values(better.codes))[None]),
        rel=1e-3,
    )
    assert better.loss < channels.loss(grid, codes)


def metrics_of(tmp_path, last, count=40, **attributes):
    """The metric of the first of two products; the second one's weight is given, [8, outputs]."""
    net = NetBuilder(0)
    y = net.op("Relu", net.gemm("x", "a", 5, 8, transB=1), name="relu")
    y = net.op("MatMul", y, net.constant("b.w", last.astype(np.float32)), name="b")
    if attributes:
        y = net.op("Softmax", y, name="softmax", **attributes)
    graph = opened(net.model({"x": ["n", 5]}, [y]), tmp_path)
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(count, 5)).astype(np.float32))
    data = open_dataset(DataSpec(str(tmp_path / "data.npz")), graph.summary.inputs)
    network = TorchGraph(graph.proto).requires_grad_(False)
    node = network.node(graph.layers[0].name)
    matrix = layer_matrix(node, 1, network.initializer(graph.layers[0].weight_name))
    assert matrix is not None
    return OutputMetrics(graph, network, {node.name: matrix}, data, CancelToken()), node.name, network


def test_that_channels_the_answers_read_alike_count_together(tmp_path):
    last = np.random.default_rng(1).normal(size=(8, 4))
    last[1], last[2] = last[0], 0.0
    metrics, layer, network = metrics_of(tmp_path, last)
    found = metrics.of(layer)
    assert found is not None
    assert found.diagonal().mean() == pytest.approx(1.0)
    # Nothing reads the third; the first two are read alike, where both of them fire.
    assert float(found[2].abs().max()) == 0.0
    assert float(found[0, 1]) > 0
    assert torch.linalg.eigvalsh(found).min() > -1e-6
    assert not network.hooks


def test_that_probabilities_and_their_logits_give_one_metric(tmp_path):
    last = np.random.default_rng(1).normal(size=(8, 4))
    metrics, layer, _ = metrics_of(tmp_path, last, axis=-1)
    assert metrics.knows(layer)
    assert not metrics.knows("another")
    assert metrics.of("another") is None
    first = metrics.of(layer)
    assert first is not None
    assert metrics.of(layer) is first

"""Ranges by output error: never worse than the quantizer's own, better where inputs are uneven."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quantstudio.core.errors import JobCancelled
from quantstudio.core.events import NULL_REPORTER, CancelToken
from quantstudio.core.precision import (
    FP32,
    ActivationPrecision,
    Granularity,
    LayerScheme,
    Precision,
    WeightRange,
)
from quantstudio.core.recipe import uniform_recipe
from quantstudio.engine.quantization.emit import emit
from quantstudio.engine.recovery.ranges import RangesSettings, search_ranges
from quantstudio.engine.recovery.ranges_run import searched
from quantstudio.engine.recovery.weight_formats import LayerFormat
from tests.engine.quantization_cases import NetBuilder, normal, opened, outputs_of, relative_error
from tests.engine.test_recovery_bias import branches, constant, context_of

MSE = WeightRange.MSE
WEIGHT_INT3 = LayerScheme(Precision.INT3, granularity=Granularity.PER_CHANNEL, weight_range=MSE)
WEIGHT_INT3_PER_TENSOR = LayerScheme(Precision.INT3, granularity=Granularity.PER_TENSOR, weight_range=MSE)
STATIC_INT3 = LayerScheme(Precision.INT3, ActivationPrecision.INT8, Granularity.PER_CHANNEL)
CODEBOOK = LayerScheme(Precision.CODEBOOK2, granularity=Granularity.PER_CHANNEL)


def ranged(graph, context, cancel=None, **options):
    return search_ranges(
        graph, context, RangesSettings(**options), reporter=NULL_REPORTER, cancel=cancel or CancelToken()
    )


def test_that_a_weight_no_input_meets_is_clipped():
    # Inputs of column 0 are a hundred times smaller: its weight 7 may be clipped, and 1 and 2 be hit.
    hessian = torch.diag(torch.tensor([1e-4, 1.0, 1.0], dtype=torch.float64))[None]
    wanted = torch.tensor([[[7.0, 1.0, -2.0]]], dtype=torch.float64)
    found = searched(wanted, hessian, LayerFormat(-2, 1), candidates=100)
    np.testing.assert_allclose(found[0, 0, 1:], [1.0, -2.0], atol=0.05)
    assert found[0, 0, 0] == pytest.approx(1.0, abs=0.1)
    even = searched(wanted, torch.eye(3, dtype=torch.float64)[None], LayerFormat(-2, 1), candidates=100)
    assert even[0, 0, 0] > 4


@pytest.mark.parametrize("block", [0, 8, 5])
def test_that_ranges_are_those_of_looking_at_whole_rows(block):
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(1, 24, 200, dtype=torch.float64, generator=random).cumsum(1)
    hessian = inputs @ inputs.transpose(1, 2) / 200
    wanted = torch.randn(1, 6, 24, dtype=torch.float64, generator=random)
    found = searched(wanted, hessian, LayerFormat(-4, 3, block=block), candidates=20)
    expected, size = wanted.clone(), block or 24
    for start in range(0, 24, size):
        part = slice(start, start + size)
        rows = wanted[..., part]
        trials = []
        for ratio in torch.linspace(1.1, 0.2, 20):
            scale = rows.abs().amax(2, keepdim=True) / 3.5 * float(ratio)
            trial = expected.clone()
            trial[..., part] = (rows / scale).round().clamp(-4, 3) * scale
            trials.append(trial)
        off = torch.stack(trials) - wanted
        best = ((off @ hessian) * off).sum(3).argmin(0)
        expected = torch.stack(trials).gather(0, best[None, ..., None].expand(1, 1, 6, 24))[0]
    torch.testing.assert_close(found, expected)


def uneven_product():
    """x [n, 24] with inputs of very different size -> MatMul -> [n, 6]."""
    net = NetBuilder(5)
    y = net.op("Add", net.matmul("x", "only", 24, 6), net.weight("b", 6), name="add")
    return net.model({"x": ["n", 24]}, [y]), {
        "x": normal(64, 24) * (0.02 ** np.linspace(0, 1, 24)).astype(np.float32)
    }


@pytest.mark.parametrize(
    ("scheme", "gain"), [(WEIGHT_INT3, 0.9), (WEIGHT_INT3_PER_TENSOR, 0.95)], ids=["channel", "tensor"]
)
def test_that_outputs_err_less_where_inputs_are_uneven(tmp_path, scheme, gain):
    model, feed = uneven_product()
    graph = opened(model, tmp_path)
    context = context_of(graph, tmp_path, uniform_recipe(scheme), **feed)
    outcome = ranged(graph, context)
    expected = outputs_of(graph.proto, feed)[0]
    before, after = (
        relative_error(expected, outputs_of(emit(one, None, context.plan), feed)[0])
        for one in (graph, outcome.graph)
    )
    assert after < gain * before
    # What the step wrote is what the quantizer keeps.
    weight = constant(outcome.graph, "only.w")
    assert after == pytest.approx(
        relative_error(expected, outputs_of(outcome.graph.proto, feed)[0]), rel=0.02
    )
    assert all(len(np.unique(column)) <= 8 for column in weight.T)


def test_that_no_layer_errs_more_than_with_the_range_of_the_quantizer(tmp_path):
    graph = opened(branches(), tmp_path)
    context = context_of(graph, tmp_path, uniform_recipe(STATIC_INT3), x=normal(24, 3, 6, 6))
    outcome = ranged(graph, context)
    assert list(outcome.details["error_before"]) == ["stem", "depth", "point", "head"]
    for name, before in outcome.details["error_before"].items():
        assert outcome.details["error_after"][name] <= before * (1 + 1e-9)
    assert ranged(graph, context).graph.digest == outcome.graph.digest


@pytest.mark.parametrize("scheme", [FP32, CODEBOOK], ids=lambda scheme: scheme.label)
def test_that_float_layers_and_codebooks_are_left_alone(tmp_path, scheme):
    model, feed = uneven_product()
    graph = opened(model, tmp_path)
    outcome = ranged(graph, context_of(graph, tmp_path, uniform_recipe(scheme), **feed))
    if scheme is FP32 or outcome.details["layers"] == 0:
        assert outcome.graph is graph
        assert outcome.summary == "No layer has integer weights on equal steps: nothing to search."


def test_that_a_set_token_ends_it(tmp_path):
    graph = opened(branches(), tmp_path)
    context = context_of(graph, tmp_path, uniform_recipe(STATIC_INT3), x=normal(8, 3, 6, 6))
    context.statistics(graph)
    token = CancelToken()
    token.set()
    with pytest.raises(JobCancelled):
        ranged(graph, context, token)

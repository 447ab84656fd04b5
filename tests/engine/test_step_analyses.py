"""Sensitivity and costs behind the steps of a recipe: of the graph that will be quantized."""

from __future__ import annotations

import numpy as np
import pytest

from quantstudio.core.codec import to_json
from quantstudio.core.errors import JobCancelled
from quantstudio.core.events import CancelToken
from quantstudio.core.precision import STATIC_INT8, WEIGHT_INT8
from quantstudio.core.predict.table import PredictionTable
from quantstudio.core.statistics_file import save_statistics
from quantstudio.core.steps import Step
from quantstudio.engine.analysis import costs as cost_module
from quantstudio.engine.analysis.sensitivity import fisher_sensitivity
from quantstudio.engine.calibration.observer import calibrate
from quantstudio.engine.pipeline import observed, runner
from quantstudio.engine.pipeline.runner import StepInputs, prepare_before, resolved
from quantstudio.engine.tasks.costs import costs
from quantstudio.engine.tasks.quantize import quantize
from quantstudio.engine.tasks.sensitivity import sensitivity
from tests.engine.step_cases import BIAS, EQUALIZE, SAMPLES, recipe, uneven

ASKED = {"samples": SAMPLES, "calibrated": True, "precisions": ["int4/tensor", "int8-activations"]}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def net(cache, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTSTUDIO_CACHE", cache)
        # Sizes are what is looked at; times would take seconds.
        patch.setattr(cost_module, "_timed_feed", lambda *_: None)
        yield uneven(tmp_path_factory.mktemp("net"))


@pytest.fixture(autouse=True)
def _one_cache(cache, monkeypatch):
    monkeypatch.setenv("QUANTSTUDIO_CACHE", cache)


@pytest.fixture(scope="module")
def found(net):
    """Of the network as it is, and behind equalization."""
    asked = {**net.task, **ASKED}
    return sensitivity(**asked), sensitivity(**asked, recipe=to_json(recipe(EQUALIZE, BIAS)))


@pytest.fixture(scope="module")
def priced(net):
    return costs(**net.task, recipe=to_json(recipe(EQUALIZE, BIAS)))


def test_that_sensitivity_is_that_of_the_graph_behind_the_first_steps(net, found):
    plain, behind = found
    before = prepare_before(net.graph, recipe(EQUALIZE, BIAS), StepInputs(net.dataset))
    assert before.graph.digest != net.graph.digest
    expected = fisher_sensitivity(
        before.graph,
        net.dataset,
        samples=SAMPLES,
        precisions=("int4/tensor", "int8-activations"),
        statistics=calibrate(before.graph, net.dataset, samples=SAMPLES),
    )
    assert [row.by_precision for row in behind.layers] == [row.by_precision for row in expected.layers]
    assert (behind.steps, behind.left_out) == (("equalize",), ("bias",))
    assert (plain.steps, plain.left_out) == ((), ())
    total = [sum(row.by_precision["int4/tensor"] for row in one.layers) for one in found]
    assert total[1] < total[0] / 2, "equalization is what this network needs"


def test_that_nothing_is_made_twice_for_the_same_steps(net, found, priced, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("made again")

    monkeypatch.setattr(observed, "calibrate", refuse)
    seen: list[bool] = []
    applied = runner._applied

    def watched(*args):
        outcome = applied(*args)
        seen.append(outcome[-1])
        return outcome

    monkeypatch.setattr(runner, "_applied", watched)
    asked = {**net.task, **ASKED}
    again = sensitivity(**asked, recipe=to_json(recipe(EQUALIZE, BIAS)))
    assert again.layers == found[1].layers
    assert seen == [True]


def test_that_costs_behind_steps_are_those_of_the_file_that_is_written(net, priced, tmp_path):
    for scheme in (STATIC_INT8, WEIGHT_INT8):
        asked = recipe(EQUALIZE, scheme=scheme)
        built = quantize(**net.task, output=str(tmp_path / "out.onnx"), recipe=to_json(asked)).build
        before = prepare_before(net.graph, asked)
        table = PredictionTable(before.graph.layers, costs=priced, steps=before.plan.steps)
        predicted = table.predict(resolved(asked, before.graph))
        assert predicted.weight_bytes == sum(row.weight_bytes for row in built.layers)
        # The file names its recipe and steps, some hundred bytes that the tables do not know.
        assert predicted.size_bytes == pytest.approx(built.size_bytes, rel=0.15)


def test_that_analyses_behind_pruning_are_of_the_layers_that_are_left(net, tmp_path):
    prune = Step("prune", {"amount": 0.6, "round_to": 1, "rounds": 1})
    asked = recipe(prune, scheme=STATIC_INT8)
    built = quantize(**net.task, output=str(tmp_path / "out.onnx"), recipe=to_json(asked)).build
    before = prepare_before(net.graph, asked, StepInputs(net.dataset))
    shapes = {layer.name: layer.weight_shape for layer in before.graph.layers}
    assert shapes["c"][0] == shapes["b"][1] < 8 or shapes["b"][0] == shapes["a"][1] < 12
    table = PredictionTable(
        before.graph.layers, costs=costs(**net.task, recipe=to_json(asked)), steps=before.plan.steps
    )
    predicted = table.predict(resolved(asked, before.graph))
    assert predicted.weight_bytes == sum(row.weight_bytes for row in built.layers)
    given = {**net.task, **ASKED}
    behind = sensitivity(**given, recipe=to_json(asked))
    expected = fisher_sensitivity(
        before.graph,
        net.dataset,
        samples=SAMPLES,
        precisions=("int4/tensor", "int8-activations"),
        statistics=calibrate(before.graph, net.dataset, samples=SAMPLES),
    )
    assert [row.by_precision for row in behind.layers] == [row.by_precision for row in expected.layers]
    assert behind.steps == ("prune",)


def test_that_static_schemes_are_priced_from_data_alone(net, priced):
    assert "static-int8" in priced.layers["a"].weight_bytes
    without = costs(graph_path=net.task["graph_path"])
    assert "static-int8" not in without.layers["a"].weight_bytes


def test_that_statistics_of_the_opened_network_are_not_taken_for_those_behind_steps(net, tmp_path):
    path = tmp_path / "statistics.npz"
    save_statistics(path, calibrate(net.graph, net.dataset, samples=SAMPLES))
    asked = {**net.task, "samples": SAMPLES, "precisions": ["int8-activations"], "fresh": True}
    asked["recipe"] = to_json(recipe(EQUALIZE))
    given = sensitivity(**asked, statistics=str(path))
    own = sensitivity(**asked, calibrated=True)
    np.testing.assert_array_equal([row.kl for row in given.layers], [row.kl for row in own.layers])


def test_that_a_set_token_ends_the_steps_of_an_analysis(net):
    token = CancelToken()
    token.set()
    with pytest.raises(JobCancelled):
        sensitivity(**net.task, recipe=to_json(recipe(EQUALIZE)), cancel=token)

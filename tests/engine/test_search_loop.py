"""Whole searches on small networks: what is returned was measured and keeps its budget."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import onnx
import pytest

from quantstudio.core.codec import from_json
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import JobCancelled, RecipeError
from quantstudio.core.events import CancelToken, NullReporter
from quantstudio.core.packing import plan_bits
from quantstudio.core.precision import FP32, STATIC_INT4, Precision
from quantstudio.core.recipe import LayerRule
from quantstudio.core.results import Interval, LatencyResult
from quantstudio.core.samples import sample
from quantstudio.core.search_results import (
    ActivationFamily,
    BudgetObstacle,
    GroupKind,
    SearchBudget,
    SearchFront,
    SearchResult,
    searched_precisions,
)
from quantstudio.engine.analysis.sensitivity import fisher_sensitivity
from quantstudio.engine.calibration.observer import calibrate
from quantstudio.engine.data.dataset import Dataset, open_dataset
from quantstudio.engine.evaluation.latency import LatencyComparison
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.model.open import open_model
from quantstudio.engine.pipeline import observed
from quantstudio.engine.search import workbench
from quantstudio.engine.search.allocation import InfeasibleBudgetError
from quantstudio.engine.search.loop import search
from quantstudio.engine.search.measure import Judge
from quantstudio.engine.search.request import Known, SearchRequest
from quantstudio.engine.tasks.search import search as search_task
from tests.engine.quantization_cases import attention_net, opened

SAMPLE = sample("digits_resnet")
SAMPLES = 128


class Net(NamedTuple):
    """What is searched, and its tables: they are the same for every search."""

    graph: Graph
    data: Dataset
    known: Known


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(tmp_path_factory.mktemp("cache")))
    graph = open_model(SAMPLE.model)
    spec = DataSpec(str(SAMPLE.train), parse_transform(SAMPLE.transform))
    data = open_dataset(spec, graph.summary.inputs)
    statistics = calibrate(graph, data, samples=SAMPLES)
    sensitivity = fisher_sensitivity(
        graph, data, samples=SAMPLES, precisions=searched_precisions(), statistics=statistics
    )
    yield Net(graph, data, Known(statistics, sensitivity))
    monkeypatch.undo()


def found(net, tmp_path, *, pins=(), test=None, family=ActivationFamily.AUTO, **bounds) -> SearchResult:
    request = SearchRequest(SearchBudget(**bounds), family, pins, SAMPLES, time_chosen=False)
    return search(net.graph, net.data, tmp_path / "out.onnx", request, test=test, known=net.known)


@pytest.fixture(scope="module")
def few_bits(net, tmp_path_factory):
    """A search within 4.5 bits that nobody gave any tables, and the folder of its file."""
    folder = tmp_path_factory.mktemp("few bits")
    request = SearchRequest(SearchBudget(average_bits=4.5), samples=SAMPLES, time_chosen=False)
    return search(net.graph, net.data, folder / "out.onnx", request), folder


def weights_of(point, graph):
    schemes = resolve(point.recipe, graph.layers).schemes
    return {layer.name: schemes[layer.name].weights for layer in graph.layers}


def int8_bytes(result):
    (point,) = (p for p in result.tried if p.name == "INT8 everywhere")
    assert point.size_bytes is not None
    return point.size_bytes


def test_that_average_bits_are_kept_and_no_single_precision_is_better(net, few_bits):
    graph, data, _ = net
    result, folder = few_bits
    schemes = resolve(result.chosen.recipe, graph.layers).schemes
    sizes = {layer.name: int(np.prod(layer.weight_shape)) for layer in graph.layers}
    bits = sum(sizes[n] * schemes[n].weights.bits for n in sizes) / sum(sizes.values())
    assert bits <= 4.5
    assert result.chosen.measured is not None
    assert result.chosen.measured.average_bits == pytest.approx(bits)
    uniform = [p for p in result.tried if p.name.startswith("CB")]
    assert len(uniform) >= 2
    assert all(result.chosen.measured.kl <= p.measured.kl for p in uniform if p.measured)
    judged = Judge(graph, data, samples=SAMPLES, cancel=CancelToken()).measure_file(folder / "out.onnx")
    assert judged.kl == pytest.approx(result.chosen.measured.kl, rel=1e-6)


def test_that_the_file_is_all_integer_and_takes_its_bits(few_bits):
    result, _ = few_bits
    assert all(layer.is_integer_kernel for layer in result.build.layers)
    assert result.build.size_bytes < 0.65 * int8_bytes(result)


def test_that_a_drop_alone_makes_the_file_small(net, tmp_path):
    result = found(net, tmp_path, max_drop=1.0)
    chosen = result.chosen.measured
    assert chosen is not None
    assert chosen.drop is not None
    assert chosen.drop <= 1.0
    assert chosen.average_bits < 6
    assert result.metric_name == "top1"


def test_that_a_file_smaller_than_int8_packs_its_weights(net, few_bits, tmp_path):
    limit = int(int8_bytes(few_bits[0]) * 0.8)
    result = found(net, tmp_path, max_size_bytes=limit)
    assert (tmp_path / "out.onnx").stat().st_size <= limit
    assert any(one.bits < 8 for one in weights_of(result.chosen, net.graph).values())


def test_that_pins_hold_in_every_plan_of_the_front(net, tmp_path):
    graph = net.graph
    names = [layer.name for layer in graph.layers]
    pins = (LayerRule(FP32, (names[0],)), LayerRule(STATIC_INT4, (names[3],)))
    result = found(net, tmp_path, pins=pins, average_bits=8)
    for point in (*result.front, result.chosen):
        weights = weights_of(point, graph)
        assert weights[names[0]] == Precision.FP32
        assert weights[names[3]] == Precision.INT4


def test_that_a_share_of_layers_may_stay_float(net, tmp_path):
    graph = net.graph
    result = found(net, tmp_path, max_share_above_8=1 / len(graph.layers), average_bits=16)
    weights = list(weights_of(result.chosen, graph).values())
    assert weights.count(Precision.FP32) <= 1


def test_that_bounds_no_plan_can_join_name_the_nearest_value(net, tmp_path):
    with pytest.raises(InfeasibleBudgetError) as raised:
        found(net, tmp_path, max_drop=0.1, average_bits=2.0)
    assert raised.value.quantity == "average weight bits"
    assert 2 < raised.value.nearest < 8


def test_that_an_impossible_file_size_says_how_small_it_gets(net, tmp_path):
    with pytest.raises(InfeasibleBudgetError) as raised:
        found(net, tmp_path, max_size_bytes=1000)
    assert raised.value.nearest > 1000
    assert not (tmp_path / "out.onnx").exists()


class Listener(NullReporter):
    """Keeps the fronts that stream."""

    def __init__(self):
        self.fronts: list[SearchFront] = []

    def found(self, part):
        if isinstance(part, SearchFront):
            self.fronts.append(part)


def test_that_the_front_streams_and_an_impossible_budget_shows_it_with_its_obstacle(net, tmp_path):
    listener = Listener()
    request = SearchRequest(SearchBudget(max_drop=0.1, average_bits=2.0), samples=SAMPLES, time_chosen=False)
    with pytest.raises(InfeasibleBudgetError) as raised:
        search(net.graph, net.data, tmp_path / "out.onnx", request, known=net.known, reporter=listener)
    obstacle = from_json(BudgetObstacle, raised.value.details["obstacle"])
    assert (obstacle.bound, obstacle.value) == ("average_bits", 2.0)
    assert obstacle.nearest == raised.value.nearest
    last = listener.fronts[-1]
    assert len(listener.fronts) >= 2
    assert [p.size_bytes for p in last.front] == sorted(p.size_bytes for p in last.front if p.size_bytes)
    assert "INT8 everywhere" in {p.name for p in last.tried}
    assert last.samples == SAMPLES
    assert last.base_metric is not None


def test_that_mean_bits_of_a_recipe_are_those_of_the_search(net, few_bits):
    graph, (result, _) = net.graph, few_bits
    bits = plan_bits(graph.layers, result.chosen.recipe.schemes(graph.layers))
    assert result.chosen.measured is not None
    assert bits.average == pytest.approx(result.chosen.measured.average_bits)
    assert bits.share_above_8 == 0.0


def test_that_plans_that_break_on_the_test_data_are_followed_by_finer_ones(net, tmp_path, monkeypatch):
    limit = 0.012  # nats; the cheapest plans that keep half a point here have 0.02 to 0.04

    def judged(_loop, one):
        one.test = one.measurement
        return one.measurement.kl <= limit

    monkeypatch.setattr("quantstudio.engine.search.verdicts.Verdicts.keeps_drop_on_test", judged)
    result = found(net, tmp_path, max_drop=0.5, test=net.data)
    assert result.chosen.measured is not None
    assert result.chosen.measured.kl <= limit
    # Not eight bits everywhere, which held as well.
    assert result.chosen.measured.average_bits < 5


def timed_as(ratio):
    """Timing whose variants always take so much of FP32's time: a busy machine judges no test."""

    def interleaved(paths, feeds, **options):
        p50 = [1.0] + [ratio] * (len(paths) - 1)
        results = [LatencyResult(t, t, t, t, 1 / t, 1, 1, 1, "cpu") for t in p50]
        return LatencyComparison(tuple(results), tuple(Interval(1 / t, 1 / t, 1 / t) for t in p50))

    return interleaved


def test_that_what_measures_slower_than_fp32_is_not_returned(net, tmp_path, monkeypatch):
    monkeypatch.setattr(workbench, "interleaved_latency", timed_as(1.2))
    with pytest.raises(InfeasibleBudgetError, match="latency ratio") as raised:
        found(net, tmp_path, max_latency_ratio=1.0, average_bits=6)
    assert raised.value.nearest == pytest.approx(1.2)
    assert not (tmp_path / "out.onnx").exists()


def test_that_a_bounded_latency_is_measured(net, tmp_path, monkeypatch):
    monkeypatch.setattr(workbench, "interleaved_latency", timed_as(0.5))
    result = found(net, tmp_path, max_latency_ratio=1.0, average_bits=6)
    # Single layers timed on a busy machine say little: predictions follow what whole plans took.
    assert result.chosen.predicted.latency_ratio == pytest.approx(0.5, rel=0.2)
    assert result.chosen.measured is not None
    assert result.chosen.measured.latency_ratio == 0.5


def test_that_what_other_programs_add_to_a_run_makes_no_plan_slow():
    held_up = LatencyResult(9.0, 9.0, 9.0, 7.0, 0.1, 1, 1, 10, "cpu", samples_ms=(1.0, 1.0, *[9.0] * 8))
    assert workbench.undisturbed_ms(held_up) == 1.0
    assert workbench.undisturbed_ms(replace(held_up, samples_ms=())) == 9.0


def test_that_a_slow_plan_is_noted_where_latency_is_not_bounded(net, tmp_path, monkeypatch):
    graph, data, known = net
    monkeypatch.setattr(workbench, "interleaved_latency", timed_as(1.3))
    request = SearchRequest(SearchBudget(average_bits=6), samples=SAMPLES)
    slow = search(graph, data, tmp_path / "out.onnx", request, known=known)
    assert any("is slower than FP32" in note for note in slow.notes)
    monkeypatch.setattr(workbench, "interleaved_latency", timed_as(0.9))
    (note,) = search(graph, data, tmp_path / "out.onnx", request, known=known).notes
    assert note.startswith("Against INT8 everywhere the plan is")


@pytest.fixture(scope="module")
def shipped(net, tmp_path_factory):
    """The search people run first, on a machine where integers take half the time, whatever their bits."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(workbench, "interleaved_latency", timed_as(0.5))
        return found(net, tmp_path_factory.mktemp("shipped"))


def test_that_a_search_without_bounds_takes_the_smallest_file_that_keeps_the_accuracy(shipped):
    assert shipped.build.size_bytes < 0.7 * int8_bytes(shipped)
    assert any(note.startswith("Against INT8 everywhere the plan is") for note in shipped.notes)
    assert (shipped.budget.max_drop, shipped.budget.class_drop) == (0.5, 1.0)


def test_that_what_auto_tries_is_among_the_plans_of_a_search(shipped):
    names = {point.name for point in shipped.tried}
    assert {"INT8 everywhere", "static on weighted layers", "static, narrow convolutions float"} <= names


def test_that_every_measured_plan_says_which_class_loses_most(shipped):
    measured = shipped.chosen.measured
    assert measured is not None
    assert measured.worst_class in set("0123456789")
    assert measured.worst_class_drop is not None
    assert measured.worst_class_samples >= 20


@pytest.mark.parametrize("ratio", [1.5, 0.0, -1.0])
def test_that_a_latency_ratio_that_is_no_part_of_fp32_is_refused(net, tmp_path, ratio):
    with pytest.raises(RecipeError, match="latency ratio") as raised:
        found(net, tmp_path, max_latency_ratio=ratio)
    assert "to 1" in str(raised.value.hint)


def test_that_no_drop_at_all_leaves_more_than_fp32(net, tmp_path):
    result = found(net, tmp_path, max_drop=0.0)
    measured = result.chosen.measured
    assert measured is not None
    assert measured.drop is not None
    assert measured.drop <= 0
    assert measured.average_bits <= 8


def test_that_test_data_judges_the_chosen_plan(net, tmp_path):
    graph = net.graph
    spec = DataSpec(str(SAMPLE.test), parse_transform(SAMPLE.transform), 200)
    test = open_dataset(spec, graph.summary.inputs)
    result = found(net, tmp_path, test=test, max_drop=1.0)
    assert result.chosen.measured is not None
    assert result.chosen.measured.samples == 200
    assert result.chosen.measured.drop is not None
    assert result.chosen.measured.drop <= 1.0


def test_that_equal_searches_give_equal_files_and_known_tables_are_not_made_again(
    net, few_bits, tmp_path, monkeypatch
):
    monkeypatch.setattr(observed, "calibrate", None)
    monkeypatch.setattr(workbench, "fisher_sensitivity", None)
    found(net, tmp_path, average_bits=4.5)
    assert (tmp_path / "out.onnx").read_bytes() == (few_bits[1] / "out.onnx").read_bytes()


def attention_data(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.normal(size=(48, 6, 32)).astype(np.float32))
    return DataSpec(str(tmp_path / "data.npz"))


def test_that_query_key_and_value_share_one_precision_in_every_plan(tmp_path):
    graph = opened(attention_net(), tmp_path)
    data = open_dataset(attention_data(tmp_path), graph.summary.inputs)
    request = SearchRequest(SearchBudget(average_bits=5), samples=48, time_chosen=False)
    result = search(graph, data, tmp_path / "out.onnx", request)
    assert any(group.kind is GroupKind.ATTENTION for group in result.groups)
    for point in (*result.front, *result.tried, result.chosen):
        schemes = resolve(point.recipe, graph.layers).schemes
        assert schemes["query"] == schemes["key"] == schemes["value"]
    assert len({weights_of(p, graph)["query"] for p in result.front}) > 1


def test_that_a_bounded_latency_rules_out_slow_families(tmp_path, monkeypatch):
    graph = opened(attention_net(), tmp_path)
    data = open_dataset(attention_data(tmp_path), graph.summary.inputs)

    def only_dynamic_is_fast(paths, feeds, **options):
        fast = ["MatMulInteger" in {n.op_type for n in onnx.load(path).graph.node} for path in paths[1:]]
        ratios = [1.0, *(0.5 if one else 1.5 for one in fast)]
        results = tuple(LatencyResult(t, t, t, t, 1 / t, 1, 1, 1, "cpu") for t in ratios)
        return LatencyComparison(results, tuple(Interval(1 / t, 1 / t, 1 / t) for t in ratios))

    monkeypatch.setattr(workbench, "interleaved_latency", only_dynamic_is_fast)
    request = SearchRequest(SearchBudget(max_latency_ratio=1.0, average_bits=6), samples=48)
    result = search(graph, data, tmp_path / "out.onnx", request)
    assert result.family is ActivationFamily.DYNAMIC
    assert result.chosen.measured is not None
    assert result.chosen.measured.latency_ratio == 0.5


def test_that_layers_of_one_attention_cannot_be_pinned_apart(tmp_path):
    graph = opened(attention_net(), tmp_path)
    data = open_dataset(attention_data(tmp_path), graph.summary.inputs)
    pins = (LayerRule(FP32, ("query",)), LayerRule(STATIC_INT4, ("key",)))
    request = SearchRequest(SearchBudget(average_bits=8), pins=pins, samples=48)
    with pytest.raises(RecipeError, match="share one precision"):
        search(graph, data, tmp_path / "out.onnx", request)


def test_that_a_drop_of_value_outputs_is_refused(tmp_path):
    net = attention_net()
    graph = opened(net, tmp_path)
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "data.npz",
        x=rng.normal(size=(16, 6, 32)).astype(np.float32),
        labels=rng.normal(size=16).astype(np.float32),
    )
    data = open_dataset(DataSpec(str(tmp_path / "data.npz")), graph.summary.inputs)
    with pytest.raises(RecipeError, match="not a class score"):
        search(graph, data, tmp_path / "out.onnx", SearchRequest(SearchBudget(max_drop=1.0), samples=16))
    result = search(
        graph,
        data,
        tmp_path / "out.onnx",
        SearchRequest(SearchBudget(average_bits=6), samples=16, time_chosen=False),
    )
    assert result.metric_name == ""
    assert result.chosen.metric is None


def test_that_weights_alone_can_be_searched(tmp_path):
    graph = opened(attention_net(), tmp_path)
    data = open_dataset(attention_data(tmp_path), graph.summary.inputs)
    request = SearchRequest(
        SearchBudget(average_bits=6), ActivationFamily.WEIGHT_ONLY, samples=32, time_chosen=False
    )
    result = search(graph, data, tmp_path / "out.onnx", request)
    schemes = resolve(result.chosen.recipe, graph.layers).schemes
    assert all(s.is_weight_only or s.is_float for s in schemes.values())
    onnx.checker.check_model(str(tmp_path / "out.onnx"))


class CancelAt(NullReporter):
    """Sets the token at the first progress of a phase, and keeps what was still reported after that."""

    def __init__(self, token: CancelToken, phase: str) -> None:
        self.after: list[str] = []
        self._token, self._phase = token, phase

    def progress(self, done: int, total: int, unit: str, label: str) -> None:
        if self._token.is_set():
            self.after.append(f"{label} {done}")
        elif label == self._phase:
            self._token.set()


@pytest.mark.parametrize(
    ("phase", "knows"),
    [
        ("Calibrating", False),
        ("Estimating sensitivity", False),
        ("Building and measuring plans", True),
        ("Timing", True),
    ],
)
def test_that_a_cancelled_search_does_no_more_and_writes_nothing(net, tmp_path, phase, knows):
    graph, data, known = net
    token = CancelToken()
    reporter = CancelAt(token, phase)
    with pytest.raises(JobCancelled):
        search(
            graph,
            data,
            tmp_path / "out.onnx",
            SearchRequest(samples=SAMPLES),
            known=known if knows else None,
            reporter=reporter,
            cancel=token,
        )
    assert reporter.after == []
    assert not (tmp_path / "out.onnx").exists()


def test_that_the_task_takes_json(net, tmp_path):
    graph, data, _ = net
    result = search_task(
        graph_path=graph.summary.graph_path,
        data={"path": str(SAMPLE.train), "transform": {"scale": 1 / 16, "layout": "NCHW"}},
        output=str(tmp_path / "out.onnx"),
        budget={"average_bits": 6.0},
        samples=64,
    )
    assert result.data_digest == data.digest
    assert (tmp_path / "out.onnx").is_file()
    assert result.chosen.measured is not None
    assert result.chosen.measured.latency_ms is not None

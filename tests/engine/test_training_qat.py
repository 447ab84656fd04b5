"""Training through the rounding: what is learned, that the file computes it, and that runs can be ended."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.errors import DataError, JobCancelled, MeasureError, TrustRequiredError
from quantstudio.core.events import NULL_REPORTER, CancelToken
from quantstudio.core.folders import CACHE_VARIABLE, cache_root
from quantstudio.core.precision import LayerScheme
from quantstudio.core.recipe import uniform_recipe
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.core.steps import Step
from quantstudio.engine.graph.learned_ranges import learned_ranges, mark_range
from quantstudio.engine.graph.protos import as_array
from quantstudio.engine.graph.view import GraphView
from quantstudio.engine.pipeline.store import StepStore
from quantstudio.engine.quantization.fake_quantization import FakeQuantized
from quantstudio.engine.quantization.plan import make_plan
from quantstudio.engine.tasks.quantize import quantize
from quantstudio.engine.training import training
from quantstudio.engine.training.qat import qat
from quantstudio.engine.training.settings import TrainingSettings
from tests.engine.quantization_cases import opened
from tests.engine.training_cases import CALIBRATED, SAMPLES, Curve, context, file_outputs, network, written

SCHEMES = ["static-int4", "static-codebook2", "static-table2", "static-binary", "weight-int4", "dynamic-int8"]


def trained(graph, context, reporter=NULL_REPORTER, cancel=None, **options):
    settings = TrainingSettings(**{"epochs": 6, "batch": 16, "rate": 0.02, **options})
    return qat(graph, context, settings, reporter=reporter, cancel=cancel or CancelToken())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("net")


@pytest.fixture(scope="module")
def graph(folder):
    return opened(network(), folder)


@pytest.fixture(scope="module")
def done(graph, folder):
    """Outcome, context and what was told, by scheme."""
    made = {}

    def get(scheme):
        if scheme not in made:
            own, told = context(graph, folder, scheme), Curve()
            made[scheme] = (trained(graph, own, told), own, told)
        return made[scheme]

    return get


@pytest.mark.parametrize("scheme", SCHEMES)
def test_that_the_file_answers_the_labels_better_and_as_torch_does(graph, done, scheme):
    outcome, own, told = done(scheme)
    labels = own.dataset.labels
    before, after = (file_outputs(one, own) for one in (graph, outcome.graph))
    assert outcome.details["after"] < outcome.details["before"]
    assert loss(after, labels) < loss(before, labels)
    statistics = own.statistics(outcome.graph) if own.plan.is_static else None
    student = FakeQuantized(outcome.graph, statistics, own.plan)
    with torch.no_grad():
        torch_says = student.run(next(own.dataset.batches(SAMPLES)).feed)
    same = next(iter(torch_says.values())).numpy().argmax(1) == after.argmax(1)
    assert same.mean() >= 0.99
    assert told.points[0].done == 0
    assert any(point.is_best for point in told.points[1:])


def loss(scores, labels):
    shifted = scores - scores.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return float(-logs[np.arange(len(labels)), labels].mean())


def test_that_what_the_training_saw_is_what_the_file_gives(done):
    outcome, own, told = done("static-codebook2")
    held = [i for i in range(SAMPLES) if i in held_places()]
    best = next(point for point in reversed(told.points) if point.is_best)
    answers = file_outputs(outcome.graph, own)[held].argmax(1)
    assert best.right == pytest.approx(float((answers == own.dataset.labels[held]).mean()), abs=1e-6)


def held_places():
    count = int(np.ceil(0.05 * SAMPLES))
    return {int(np.floor((place + 0.5) * SAMPLES / count)) for place in range(count)}


def test_that_a_table_has_as_many_entries_as_its_bits_and_indices_changed(graph, done):
    outcome, own, _ = done("static-codebook2")
    before = FakeQuantized(graph, own.statistics(graph), own.plan).weights["a", 1].numpy()
    after = constant(outcome.graph, "a.w")
    assert all(len(np.unique(channel)) <= 4 for channel in after)
    moved = [np.unique(one, return_inverse=True)[1].reshape(-1) for one in (before, after)]
    assert (moved[0] != moved[1]).any()


def constant(graph, name):
    return next(as_array(one) for one in graph.proto.graph.initializer if one.name == name)


def test_that_learned_ranges_are_what_the_plan_uses_and_stay_within_a_clip(done):
    outcome, own, _ = done("static-int4")
    view = GraphView(outcome.graph.proto)
    ranges = learned_ranges(view.nodes)
    clip = next(node.output[0] for node in view.nodes if node.op_type == "Clip")
    plan = make_plan(view, own.statistics(outcome.graph), own.plan)
    assert ranges
    for (tensor, bits), (low, high) in ranges.items():
        params = plan.quantized[tensor]
        assert params.grid.bits == bits
        assert float(params.scale) == pytest.approx((high - low) / params.grid.steps, rel=1e-5)
    assert ranges[clip, 8][1] <= 6.0 * (1 + 1e-6)


def test_that_a_range_learned_at_other_bits_is_not_used(graph, folder):
    own = context(graph, folder, "static-int8")
    model = type(graph.proto)()
    model.CopyFrom(graph.proto)
    node = next(one for one in model.graph.node if one.op_type == "Relu")
    mark_range(node, node.output[0], 4, (0.0, 0.5))
    plain = make_plan(GraphView(graph.proto), own.statistics(graph), own.plan)
    marked = make_plan(GraphView(model), own.statistics(graph), own.plan)
    assert marked.quantized == plain.quantized
    mark_range(node, node.output[0], 8, (0.0, 0.5))
    found = make_plan(GraphView(model), own.statistics(graph), own.plan).quantized[node.output[0]]
    assert float(found.scale) == pytest.approx(0.5 / 255)


def test_that_the_same_seed_gives_the_same_bytes_and_another_seed_others(graph, done, folder):
    outcome, own, _ = done("static-int4")
    again = trained(graph, context(graph, folder, "static-int4"))
    other = trained(graph, replace(own, seed=1))
    assert again.graph.digest == outcome.graph.digest
    assert other.graph.digest != outcome.graph.digest


@pytest.mark.parametrize("at", [1, 17, 40])
def test_that_a_run_that_was_ended_goes_on_to_the_same_file(graph, done, folder, tmp_path, monkeypatch, at):
    outcome, _, told = done("static-int4")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    token = CancelToken()
    with pytest.raises(JobCancelled):
        trained(graph, context(graph, folder, "static-int4", key="k"), Curve(token, at), token)
    assert (cache_root() / "training" / "k.npz").is_file()
    rest = Curve()
    again = trained(graph, context(graph, folder, "static-int4", key="k"), rest)
    assert again.graph.digest == outcome.graph.digest
    assert rest.said
    assert [written(one) for one in rest.points] == [written(one) for one in told.points]
    assert not (cache_root() / "training" / "k.npz").exists()


def test_that_a_run_that_was_ended_in_a_look_looks_again(graph, done, folder, tmp_path, monkeypatch):
    outcome, _, told = done("static-int4")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    looks = []
    look = training.Training._look

    def ended(self):
        looks.append(self._done)
        if len(looks) == 4:
            raise JobCancelled
        return look(self)

    monkeypatch.setattr(training.Training, "_look", ended)
    with pytest.raises(JobCancelled):
        trained(graph, context(graph, folder, "static-int4", key="k"))
    rest = Curve()
    again = trained(graph, context(graph, folder, "static-int4", key="k"), rest)
    assert looks[3] == looks[4] > 0
    assert again.graph.digest == outcome.graph.digest
    assert [written(one) for one in rest.points] == [written(one) for one in told.points]


def test_that_a_batch_is_added_up_from_parts_where_memory_is_short(graph, folder, monkeypatch):
    own = context(graph, folder, "static-int4")
    whole = trained(graph, own, epochs=1)
    monkeypatch.setattr("quantstudio.engine.training.runs.samples_that_fit", lambda _graph: 5)
    parts = trained(graph, own, epochs=1)
    first, second = (constant(one.graph, "c.b") for one in (whole, parts))
    assert np.abs(first - second).max() < 1e-3 * np.abs(first).max()


def test_that_a_stand_that_is_broken_is_begun_anew(graph, done, folder, tmp_path, monkeypatch):
    outcome, _, _ = done("static-int4")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    (cache_root() / "training").mkdir(parents=True)
    (cache_root() / "training" / "k.npz").write_bytes(b"PK half a file")
    assert trained(graph, context(graph, folder, "static-int4", key="k")).graph.digest == outcome.graph.digest


def test_that_ending_by_hand_keeps_the_best_and_says_how_to_get_it_again(graph, folder):
    own, token = context(graph, folder, "static-int4"), CancelToken()
    ended = trained(graph, own, Curve(token, 31, by="finish"), token)
    assert ended.settings == {"stop": 32}
    assert "Ended by hand behind step 32 of 57" in ended.summary
    told = Curve()
    again = trained(graph, own, told, stop=32)
    assert told.points[-1].done == 32
    assert again.graph.digest == ended.graph.digest
    assert not again.settings


def test_that_patience_ends_a_training_that_wins_nothing(graph, folder):
    told = Curve()
    outcome = trained(graph, context(graph, folder, "static-int8"), told, rate=1e-7, patience=0.5, epochs=20)
    assert outcome.graph is graph or outcome.details["done"] < 190
    assert told.points[-1].done < told.points[-1].steps


def test_that_without_labels_it_learns_from_the_original(graph, folder):
    own = context(graph, folder, "static-int4", labels=False)
    outcome = trained(graph, own)
    assert outcome.details["after"] < outcome.details["before"]
    assert "the original network's answers" in outcome.summary


def test_that_a_float_plan_leaves_nothing_to_train(graph, folder):
    own = context(graph, folder, "static-int8")
    floats = replace(own, plan=replace(own.plan, schemes={name: LayerScheme() for name in own.plan.schemes}))
    outcome = trained(graph, floats)
    assert outcome.graph is graph
    assert "no rounding" in outcome.summary


def test_that_a_rate_that_diverges_stops_and_says_where_it_began(graph, folder, monkeypatch):
    step = training.Training._step
    monkeypatch.setattr(
        training.Training,
        "_step",
        lambda self, number: poisoned(self) if number == 20 else step(self, number),
    )
    outcome = trained(graph, context(graph, folder, "static-int4"))
    assert (
        "Stopped at step 20: the loss was no longer a number; it begins in the weights of a.w"
        in outcome.summary
    )
    assert outcome.details["done"] == 19


def poisoned(run):
    with torch.no_grad():
        run._parameters[0].fill_(float("nan"))
    return float("nan")


def test_that_one_sample_is_refused_in_one_line(graph, folder):
    x = np.ones((1, 6, 6, 6), np.float32)
    with pytest.raises(DataError, match="too few to train on"):
        trained(graph, context(graph, folder, "weight-int4", labels=False, x=x))


OWN = """
import torch
def good(outputs, labels):
    scores = next(iter(outputs.values()))
    return torch.nn.functional.cross_entropy(scores, labels)
def rows(outputs, labels):
    return next(iter(outputs.values()))
def text(outputs, labels):
    return "3"
def loose(outputs, labels):
    return torch.zeros(())
def broken(outputs, labels):
    raise KeyError("no such output")
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [("rows", "a tensor of shape"), ("text", "a str"), ("loose", "hang"), ("broken", "KeyError")],
)
def test_that_an_own_loss_is_checked(graph, folder, tmp_path, name, message):
    (tmp_path / "own.py").write_text(OWN)
    own = context(graph, folder, "static-int4")
    own.dataset.trusted = True
    with pytest.raises(MeasureError, match=message):
        trained(graph, own, loss=f"{tmp_path}/own.py:{name}")


def test_that_an_own_loss_trains_and_only_where_it_is_trusted(graph, folder, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    own = context(graph, folder, "static-int4")
    with pytest.raises(TrustRequiredError):
        trained(graph, own, loss=f"{tmp_path}/own.py:good")
    own.dataset.trusted = True
    outcome = trained(graph, own, loss=f"{tmp_path}/own.py:good")
    assert outcome.details["after"] < outcome.details["before"]


def test_that_the_recipe_of_a_training_ended_by_hand_gives_its_file(graph, folder, tmp_path, monkeypatch):
    context(graph, folder, "static-int4")
    recipe = replace(
        uniform_recipe(NAMED_SCHEMES["static-int4"]),
        calibration=CALIBRATED,
        steps=(Step("qat", {"epochs": 6, "batch": 16, "rate": 0.02}),),
    )
    data = to_json(DataSpec(str(folder / f"data-True-{SAMPLES}.npz")))
    asked = {"graph_path": graph.summary.graph_path, "data": data}
    token = CancelToken()
    told = Curve(token, 31, by="finish")
    output = tmp_path / "ended.onnx"
    ended = quantize(**asked, output=str(output), recipe=to_json(recipe), reporter=told, cancel=token)
    assert ended.recipe.steps[0].settings["stop"] == 32
    # The asked training, which nobody ended, is not what is in the store.
    monkeypatch.setattr(StepStore, "find", lambda *_: None)
    again = tmp_path / "again.onnx"
    made = quantize(**asked, output=str(again), recipe=to_json(ended.recipe))
    assert again.read_bytes() == output.read_bytes()
    assert made.recipe.steps[0].settings == ended.recipe.steps[0].settings

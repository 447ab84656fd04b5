"""Tuning: outputs nearer to the float network, by scales, table entries and biases alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from quantstudio.core.errors import DataError, JobCancelled, MeasureError, RecipeError
from quantstudio.core.events import NULL_REPORTER, CancelToken
from quantstudio.core.steps import Step
from quantstudio.engine.graph.protos import as_array, as_tensor
from quantstudio.engine.model.derive import derived_graph, editable_copy
from quantstudio.engine.pipeline.discovery import find_steps
from quantstudio.engine.quantization.fake_quantization import FakeQuantized
from quantstudio.engine.recovery import lessons, tuning
from quantstudio.engine.recovery.distillation import Distillation, output_losses
from quantstudio.engine.recovery.lessons import samples_a_step
from quantstudio.engine.recovery.training_settings import TuneSettings
from quantstudio.engine.recovery.tune import tune
from tests.engine.quantization_cases import NetBuilder, normal, opened
from tests.engine.recovery_cases import Told, behind, classifier, context_of, divergence

STEPS = 40


def tuned(graph, context, reporter=NULL_REPORTER, cancel=None, **options):
    settings = TuneSettings(**{"steps": STEPS, "rate": 0.01, **options})
    return tune(graph, context, settings, reporter=reporter, cancel=cancel or CancelToken())


def constants(graph):
    return {tensor.name: as_array(tensor) for tensor in graph.proto.graph.initializer}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("net")


@pytest.fixture(scope="module")
def graph(folder):
    return opened(classifier(transB=1), folder)


@pytest.fixture(scope="module")
def done(graph, folder):
    """Outcome, context and what was told, by scheme."""
    made = {}

    def get(scheme):
        if scheme not in made:
            context, told = context_of(graph, folder, scheme), Told()
            made[scheme] = (tuned(graph, context, told), context, told)
        return made[scheme]

    return get


@pytest.mark.parametrize("scheme", ["static-int3", "static-int4-a4", "static-codebook2", "weight-int2"])
def test_that_the_emitted_file_comes_nearer_to_the_float_network(graph, done, scheme):
    outcome, context, _ = done(scheme)
    assert outcome.details["after"] < outcome.details["before"]
    assert divergence(outcome.graph, context, graph) < 0.9 * divergence(graph, context, graph)
    assert "nats on 13 samples kept out of training" in outcome.summary


def written(graph, context, layer):
    statistics = context.statistics(graph) if context.plan.is_static else None
    return FakeQuantized(graph, statistics, context.plan).weights[layer, 1].numpy()


@pytest.mark.parametrize("scheme", ["static-int3", "static-table3"])
def test_that_every_integer_stays_as_it_was(graph, done, scheme):
    outcome, context, _ = done(scheme)
    for layer, axis in (("a", 1), ("b", 0), ("c", 0)):
        before, after = written(graph, context, layer), constants(outcome.graph)[f"{layer}.w"]
        ratio = after[before != 0] / before[before != 0]
        spread = np.where(before != 0, after / np.where(before == 0, 1, before), np.nan)
        np.testing.assert_allclose(np.nanmin(spread, axis), np.nanmax(spread, axis), rtol=1e-5)
        assert np.abs(ratio - 1).max() > 1e-3
        # The file holds exactly what was trained.
        np.testing.assert_allclose(written(outcome.graph, context, layer), after, rtol=1e-5)


def test_that_a_table_keeps_its_indices_and_its_entries_lie_on_the_integer_grid(graph, done):
    outcome, context, _ = done("static-codebook2")
    before, after = written(graph, context, "b"), constants(outcome.graph)["b.w"]
    for old, new in zip(before.T, after.T, strict=True):
        codes = 63 * new / np.abs(new).max()
        np.testing.assert_allclose(codes, np.rint(codes), atol=1e-3)
        assert len(np.unique(new)) <= len(np.unique(old)) <= 4
        for value in np.unique(old):
            assert np.ptp(new[old == value]) < 1e-6
    np.testing.assert_allclose(written(outcome.graph, context, "b"), after, rtol=1e-5)


def test_that_the_same_seed_gives_the_same_bytes_and_another_seed_others(graph, done, folder):
    outcome, context, _ = done("static-int3")
    assert tuned(graph, context).graph.digest == outcome.graph.digest
    assert tuned(graph, replace(context, seed=5)).graph.digest != outcome.graph.digest


def test_that_every_layer_is_told_with_its_error_before_and_after(done):
    _, _, told = done("static-int3")
    assert [row.layer for row in told.layers] == ["a", "b", "c"]
    assert told.layers[-1].after < told.layers[-1].before
    assert told.places[0] == (0, STEPS, "steps")
    assert told.places[-1] == (STEPS, STEPS, "steps")


def test_that_the_teacher_is_the_network_before_the_first_step(graph, done, folder):
    _, context, _ = done("weight-int2")
    model = editable_copy(graph)
    for tensor in model.graph.initializer:
        if tensor.name == "b.b":
            shifted = np.asarray(as_array(tensor), np.float32) + np.float32(0.5)
            tensor.CopyFrom(as_tensor("b.b", shifted))
    spoilt = derived_graph(graph, model, "Spoilt.")
    outcome = tuned(spoilt, behind(context, graph), rate=0.03)
    assert divergence(outcome.graph, context, graph) < 0.6 * divergence(spoilt, context, graph)
    # Steps before were fitted to the samples: these are mixed.
    assert "nats on 13 mixtures of samples kept out of training" in outcome.summary


def test_that_nothing_is_changed_where_no_state_is_better(graph, done):
    _, context, _ = done("static-int3")
    outcome = tuned(graph, context, steps=4, rate=1.0)
    assert outcome.graph is graph
    assert outcome.summary.startswith("Changed nothing: no state was nearer")


def test_that_a_loss_that_is_no_number_ends_training_with_the_best_state(graph, done, monkeypatch):
    _, context, _ = done("static-int3")
    loss, calls = Distillation.loss, []

    def broken(self, found, wanted):
        calls.append(torch.is_grad_enabled())
        return loss(self, found, wanted) * (float("nan") if calls[-1] and sum(calls) > 20 else 1.0)

    monkeypatch.setattr(Distillation, "loss", broken)
    outcome = tuned(graph, context)
    assert outcome.details["after"] < outcome.details["before"]
    assert outcome.summary.endswith("Stopped at step 21: the loss was no longer a number.")


def test_that_a_float_plan_leaves_nothing_to_tune(graph, folder):
    assert tuned(graph, context_of(graph, folder, "fp16")).summary.startswith("No layer is quantized")


@pytest.mark.parametrize(
    ("samples", "message"), [(1, "one sample is not enough"), (2, "")], ids=["one", "two"]
)
def test_that_one_sample_is_refused_in_one_line(graph, tmp_path, samples, message):
    context = context_of(graph, tmp_path, "weight-int3", samples)
    if not message:
        assert tuned(graph, context, steps=2).details["held_out"] == 1
        return
    with pytest.raises(DataError, match=message):
        tuned(graph, context)


def test_that_zero_steps_are_refused():
    with pytest.raises(RecipeError, match="steps"):
        find_steps()["tune"].settings_of(Step("tune", {"steps": 0}))


def test_that_a_network_without_float_outputs_is_refused(tmp_path):
    net = NetBuilder()
    net.op("ArgMax", net.gemm("x", "a", 8, 4), name="best", axis=1, keepdims=0)
    model = net.model({"x": ["n", 8]}, ["best_out"])
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    graph = opened(model, tmp_path)
    with pytest.raises(MeasureError, match="no output of the model holds float numbers"):
        tuned(graph, context_of(graph, tmp_path, "static-int4"))


def test_that_a_run_is_cancelled(graph, done):
    _, context, _ = done("static-int3")
    cancel = CancelToken()
    cancel.set()
    with pytest.raises(JobCancelled):
        tuned(graph, context, cancel=cancel)


@pytest.mark.parametrize("last", ["Softmax", "Sigmoid", "Tanh"])
def test_that_losses_of_other_outputs_are_zero_for_the_teacher_and_fall(tmp_path, last):
    graph = opened(classifier(last), tmp_path)
    outcome = tuned(graph, context_of(graph, tmp_path, "weight-int2"), steps=12)
    assert outcome.details["after"] < outcome.details["before"]


@pytest.mark.parametrize(("last", "compared"), [("Softmax", "c_out"), ("", "c_out"), ("Tanh", "last_out")])
def test_that_class_scores_are_compared_before_their_softmax(tmp_path, last, compared):
    graph = opened(classifier(last), tmp_path)
    context = context_of(graph, tmp_path, "weight-int2")
    losses = output_losses(graph, context.dataset, CancelToken())
    found = Distillation(losses, graph.proto, graph.proto)
    assert found.compared == found.wanted == (compared,)
    answer = torch.from_numpy(normal(6, 5))
    found.set_scale([[answer]])
    assert float(found.loss({compared: answer}, [answer])) == pytest.approx(0.0, abs=1e-6)
    assert float(found.loss({compared: answer.flip(1)}, [answer])) > 0.01


def test_that_a_step_has_fewer_samples_where_one_takes_much_work_or_memory(graph, monkeypatch):
    assert samples_a_step(graph, 300) == 32
    macs = sum(layer.macs for layer in graph.layers)
    monkeypatch.setattr(lessons, "_WORK", 7 * 300 * macs)
    assert samples_a_step(graph, 300) == 7
    assert samples_a_step(graph, 3000) == 1
    assert samples_a_step(graph, 100) == 21
    held = 4 * 3 * (24 + 24 + 24 + 24 + 5)
    monkeypatch.setattr(lessons, "_STEP_BYTES", 4 * held)
    assert samples_a_step(graph, 100) == 4


def test_that_small_batches_tune_as_well(graph, folder, monkeypatch):
    macs = sum(layer.macs for layer in graph.layers)
    monkeypatch.setattr(lessons, "_WORK", 4 * 80 * macs)
    context = context_of(graph, folder, "static-codebook2")
    outcome = tuned(graph, context, steps=80)
    assert outcome.details["held_out"] == 12
    assert divergence(outcome.graph, context, graph) < 0.9 * divergence(graph, context, graph)


@pytest.mark.parametrize(
    ("ends", "is_won"),
    [
        ([0.8, 1.7, 0.4, 2.5, 0.9], True),
        ([0.5, 2.4, 0.2, 3.0, 1.0], False),
        ([1.1, 2.1, 0.6, 3.1, 1.1], False),
    ],
)
def test_that_a_gain_that_batches_do_not_agree_on_is_none(ends, is_won):
    assert tuning._is_won([1.0, 2.0, 0.5, 3.0, 1.0], ends) is is_won


def test_that_few_batches_are_taken_at_their_word():
    assert tuning._is_won([1.0, 2.0], [0.2, 2.4])

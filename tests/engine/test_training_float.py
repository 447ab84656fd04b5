"""Training of float networks: from labels and from the original, with what compression left untouched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quantstudio.core.errors import RecipeError
from quantstudio.core.events import NULL_REPORTER, CancelToken
from quantstudio.core.precision import LayerScheme
from quantstudio.engine.graph.protos import as_array, as_tensor
from quantstudio.engine.model.derive import derived_graph, editable_copy
from quantstudio.engine.training.distill import distill
from quantstudio.engine.training.finetune import finetune
from quantstudio.engine.training.settings import DistillSettings, TrainingSettings
from tests.engine.quantization_cases import opened, outputs_of
from tests.engine.training_cases import Curve, context, file_outputs, network


def tuned(graph, context, **options):
    settings = TrainingSettings(**{"epochs": 5, "batch": 16, "rate": 0.02, **options})
    return finetune(graph, context, settings, reporter=NULL_REPORTER, cancel=CancelToken())


def taught(graph, context, **options):
    settings = DistillSettings(**{"epochs": 5, "batch": 16, "rate": 0.02, **options})
    return distill(graph, context, settings, reporter=NULL_REPORTER, cancel=CancelToken())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("net")


@pytest.fixture(scope="module")
def graph(folder):
    return opened(network(), folder)


def as_float(own):
    return replace(own, plan=replace(own.plan, schemes={name: LayerScheme() for name in own.plan.schemes}))


def edited(graph, **weights):
    model = editable_copy(graph)
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(as_tensor(tensor.name, weights[tensor.name]))
    return derived_graph(graph, model, "Edited.")


def constant(graph, name):
    return next(as_array(one) for one in graph.proto.graph.initializer if one.name == name)


def apart(graph, other, own):
    feed = next(own.dataset.batches(len(own.dataset))).feed
    return float(np.square(outputs_of(graph.proto, feed)[0] - outputs_of(other.proto, feed)[0]).mean())


@pytest.fixture(scope="module")
def sparse(graph):
    """The network with half the weights of its first layer at zero."""
    weight = constant(graph, "a.w").copy()
    weight[np.abs(weight) < np.median(np.abs(weight))] = 0
    return edited(graph, **{"a.w": weight})


def test_that_zeros_stay_zero_and_the_rest_makes_up_for_them(graph, sparse, folder):
    own = as_float(context(graph, folder, "static-int8", labels=False))
    outcome = tuned(sparse, own)
    before, after = constant(sparse, "a.w"), constant(outcome.graph, "a.w")
    assert ((before == 0) == (after == 0)).all()
    assert apart(graph, outcome.graph, own) < 0.8 * apart(graph, sparse, own)


def test_that_shared_values_stay_shared(graph, folder):
    weight = constant(graph, "a.w")
    table = np.array([-0.4, -0.1, 0.1, 0.4], np.float32)
    shared = edited(graph, **{"a.w": table[np.abs(weight[..., None] - table).argmin(-1)]})
    own = as_float(context(graph, folder, "static-int8"))
    after = constant(tuned(shared, own).graph, "a.w")
    assert len(np.unique(after)) == 4
    assert not np.isin(np.unique(after), table).any()


def test_that_labels_are_learned(graph, folder):
    own = as_float(context(graph, folder, "static-int8"))
    outcome = tuned(graph, own, teacher=0.0)
    assert outcome.details["after"] < outcome.details["before"]
    assert "towards labels:" in outcome.summary


def test_that_a_wrong_network_learns_to_answer_as_the_original(graph, sparse, folder):
    own = as_float(context(graph, folder, "static-int8", labels=False))
    outcome = taught(sparse, own)
    assert apart(graph, outcome.graph, own) < 0.8 * apart(graph, sparse, own)
    assert outcome.details["after"] < outcome.details["before"]


def test_that_distilling_trains_through_the_rounding_of_the_plan(graph, folder):
    own = context(graph, folder, "static-int3", labels=False)
    outcome = taught(graph, own)
    wanted = outputs_of(graph.proto, next(own.dataset.batches(len(own.dataset))).feed)[0]
    before, after = (file_outputs(one, own) for one in (graph, outcome.graph))
    assert np.square(after - wanted).mean() < 0.9 * np.square(before - wanted).mean()


def test_that_features_are_compared_as_well(graph, sparse, folder):
    own = as_float(context(graph, folder, "static-int8", labels=False))
    plain, with_features = taught(sparse, own), taught(sparse, own, features="relu, d")
    assert with_features.graph.digest != plain.graph.digest
    assert with_features.details["after"] < with_features.details["before"]


def test_that_it_says_by_what_answers_are_judged(graph, folder):
    own, told = as_float(context(graph, folder, "static-int8")), Curve()
    settings = TrainingSettings(epochs=2, batch=16, rate=0.02, teacher=1.0)
    outcome = finetune(graph, own, settings, reporter=told, cancel=CancelToken())
    # The teacher alone is learned from; labels, which there are, judge all the same.
    assert all(point.is_labelled for point in told.points)
    assert "as the original network's" not in outcome.summary
    labels = own.dataset.labels
    held = [place for place in range(160) if place % 20 == 10]
    answers = outputs_of(graph.proto, next(own.dataset.batches(160)).feed)[0].argmax(1)
    assert told.points[0].float_right == pytest.approx((answers[held] == labels[held]).mean())


def test_that_a_feature_nobody_has_is_refused(graph, folder):
    own = as_float(context(graph, folder, "static-int8", labels=False))
    with pytest.raises(RecipeError, match="no node 'middle' in both networks"):
        taught(graph, own, features="middle")


def test_that_probabilities_are_trained_by_their_logits(folder):
    graph = opened(network("Softmax"), folder)
    own = as_float(context(graph, folder, "static-int8"))
    outcome = tuned(graph, own, teacher=0.3)
    assert outcome.details["after"] < outcome.details["before"]

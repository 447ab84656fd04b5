"""The step `gptq` on a decoder whose weights are stored alone, with text as data."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest

from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.effective_plan import resolve
from quantstudio.core.events import NULL_REPORTER, CancelToken
from quantstudio.core.recipe import uniform_recipe
from quantstudio.core.schemes import named_scheme
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import as_array
from quantstudio.engine.model.open import open_model
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.quantization.emit import emit
from quantstudio.engine.quantization.fake_quantization import FakeQuantized
from quantstudio.engine.recovery.gptq import GptqSettings, choose_weights
from quantstudio.engine.recovery.gptq_solve import places_of
from quantstudio.engine.tasks.inputs import dataset_of
from tests.engine.decoders import TEXT, DecoderShape, decoder, tokenizer_json
from tests.engine.quantization_cases import outputs_of

SCHEMES = ("weight-int4/64", "weight-int3/32", "weight-int2/32/asymmetric", "weight-codebook3")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Graph, Dataset]:
    """A decoder of one block, its head the embedding, and a text."""
    folder = tmp_path_factory.mktemp("decoder")
    onnx.save(decoder(DecoderShape(layers=1)), folder / "model.onnx")
    tokenizer_json(folder / "tokenizer.json")
    (folder / "text.txt").write_text(TEXT * 8, encoding="utf-8")
    graph = open_model(folder / "model.onnx")
    spec = DataSpec(str(folder / "text.txt"), parse_transform("context=16"))
    return graph, dataset_of(graph, to_json(spec))


def chosen(graph: Graph, data: Dataset, scheme: str) -> tuple[StepOutcome, StepContext]:
    context = StepContext(resolve(uniform_recipe(named_scheme(scheme)), graph.layers), data=data)
    settings = GptqSettings(samples=32)
    outcome = choose_weights(graph, context, settings, reporter=NULL_REPORTER, cancel=CancelToken())
    return outcome, context


def error(graph: Graph, context: StepContext, base: Graph) -> float:
    """Noise power of a file's logits over unseen windows, over the power of the float ones."""
    feed = next(context.dataset.batches(16, start=40)).feed
    wanted, found = (outputs_of(one, feed)[0] for one in (base.proto, emit(graph, None, context.plan)))
    return float(((found - wanted) ** 2).sum() / (wanted**2).sum())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_that_weights_stored_alone_are_chosen_and_kept_by_the_quantizer(
    opened: tuple[Graph, Dataset], scheme: str
) -> None:
    graph, data = opened
    outcome, context = chosen(graph, data, scheme)
    assert outcome.details["layers"] == 7
    assert error(outcome.graph, context, graph) < 0.7 * error(graph, context, graph)
    kept = FakeQuantized(outcome.graph, None, context.plan).weights
    weights = {
        tensor.name: np.asarray(as_array(tensor), np.float32)
        for tensor in outcome.graph.proto.graph.initializer
    }
    for layer in outcome.graph.layers:
        if layer.op_type == "MatMul" and layer.weight_name and layer.name != "/lm_head/MatMul":
            np.testing.assert_allclose(kept[layer.name, 1], weights[layer.weight_name], rtol=1e-5, atol=1e-7)


def test_that_a_head_that_is_the_embedding_stays_it(opened: tuple[Graph, Dataset]) -> None:
    graph, data = opened
    outcome, context = chosen(graph, data, "weight-int3/32")
    head = next(layer for layer in outcome.graph.layers if layer.name == "/lm_head/MatMul")
    before, after = (
        next(as_array(t) for t in one.proto.graph.initializer if t.name == head.weight_name)
        for one in (graph, outcome.graph)
    )
    np.testing.assert_array_equal(before, after)
    sizes = [len(emit(one, None, context.plan).SerializeToString()) for one in (graph, outcome.graph)]
    assert sizes[0] == sizes[1]


def test_that_windows_come_from_all_over_a_long_text(opened: tuple[Graph, Dataset], tmp_path: Path) -> None:
    graph, data = opened
    assert places_of(data, 512, 32) == [(0, len(data))]
    tokenizer_json(tmp_path / "tokenizer.json")
    (tmp_path / "text.txt").write_text(TEXT * 400, encoding="utf-8")
    spec = DataSpec(str(tmp_path / "text.txt"), parse_transform("context=256"))
    long = dataset_of(graph, to_json(spec))
    places = places_of(long, 20, 32)
    assert sum(stop - start for start, stop in places) == 20
    assert places[0][0] == 0
    assert places[-1][1] == len(long)
    assert all(stop <= start for (_, stop), (start, _) in pairwise(places))
    assert sum(stop - start for start, stop in places_of(long, 512, 32)) == 96

"""Class scores are the same scores in whatever form a network writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.events import CancelToken
from quantstudio.core.samples import sample
from quantstudio.engine.analysis.divergence import class_rows
from quantstudio.engine.analysis.sensitivity import exact_sensitivity, fisher_sensitivity
from quantstudio.engine.data.dataset import open_dataset
from quantstudio.engine.model.open import open_model
from quantstudio.engine.search.measure import Judge

SAMPLE = sample("digits_resnet")
SAMPLES = 48


def written_as(folder: Path, *, softmax_axis: int | None, before: bool, trailing: tuple[int, ...]) -> Path:
    """The sample with its scores behind a Softmax, and in another form before or after that."""
    model = onnx.load(SAMPLE.model)
    graph, name = model.graph, model.graph.output[0].name

    def reshape(name: str) -> str:
        shape = np.array([0, 10, *trailing], dtype=np.int64)
        graph.initializer.append(numpy_helper.from_array(shape, "form"))
        graph.node.append(helper.make_node("Reshape", [name, "form"], ["formed"], "formed"))
        return "formed"

    if before:
        name = reshape(name)
    if softmax_axis is not None:
        graph.node.append(helper.make_node("Softmax", [name], ["softmax"], "softmax", axis=softmax_axis))
        name = "softmax"
    if before:
        graph.node.append(helper.make_node("Flatten", [name], ["flat"], "flat"))
        name = "flat"
    else:
        name = reshape(name)
    ones = [] if before else trailing
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 10, *ones]))
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(
    ("softmax_axis", "before", "trailing"),
    [
        pytest.param(None, False, (1, 1), id="logits [N, 10, 1, 1]"),
        pytest.param(-1, False, (1, 1), id="softmax, then [N, 10, 1, 1]"),
        pytest.param(-1, False, (1,), id="softmax, then [N, 10, 1]"),
        pytest.param(1, True, (1, 1), id="softmax of [N, 10, 1, 1], then flat"),
    ],
)
def test_that_the_form_of_class_scores_changes_no_figure(
    tmp_path: Path, labelled: bool, softmax_axis: int | None, before: bool, trailing: tuple[int, ...]
) -> None:
    path = written_as(tmp_path, softmax_axis=softmax_axis, before=before, trailing=trailing)
    data = tmp_path / "data.npz"
    with np.load(SAMPLE.train) as stored:
        arrays = {"images": stored["images"][:SAMPLES]}
        np.savez(data, **arrays | ({"labels": stored["labels"][:SAMPLES]} if labelled else {}))
    spec = DataSpec(str(data), parse_transform(SAMPLE.transform))
    found = []
    for net in (SAMPLE.model, path):
        graph = open_model(net)
        dataset = open_dataset(spec, graph.summary.inputs)
        judge = Judge(graph, dataset, samples=SAMPLES, cancel=CancelToken())
        fisher = fisher_sensitivity(graph, dataset, samples=SAMPLES)
        exact = exact_sensitivity(graph, dataset, samples=SAMPLES, precisions=("int4",))
        found.append((judge.metric_name, fisher, exact))
    (plain_metric, *plain), (metric, *formed) = found
    assert metric == plain_metric == ("top1" if labelled else "agreement")
    for one, other in zip(plain, formed, strict=True):
        assert [r.kl for r in other.layers] == pytest.approx([r.kl for r in one.layers], rel=1e-3, abs=1e-9)
        assert [r.accuracy_drop for r in other.layers] == [r.accuracy_drop for r in one.layers]
        assert other.classes == one.classes != ()
        assert other.curve is not None


@pytest.mark.parametrize(
    ("shape", "rows"),
    [
        ((3, 4, 1, 1), (3, 4)),
        ((3, 4, 1), (3, 4)),
        ((3, 4), (3, 4)),
        ((3, 1, 1), (3, 1, 1)),
        ((3, 4, 5), (3, 4, 5)),
    ],
)
def test_that_only_one_score_a_class_becomes_a_row(shape: tuple[int, ...], rows: tuple[int, ...]) -> None:
    scores: NDArray[np.float32] = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    assert class_rows(scores).shape == rows
    assert class_rows(scores).ravel().tolist() == scores.ravel().tolist()

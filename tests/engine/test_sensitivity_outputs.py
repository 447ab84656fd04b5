"""Class scores are the same scores in whatever form a network writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.events import CancelToken
from quantstudio.core.results import SensitivityResult
from quantstudio.engine.analysis.divergence import class_rows
from quantstudio.engine.analysis.sensitivity import exact_sensitivity, fisher_sensitivity
from quantstudio.engine.data.dataset import open_dataset
from quantstudio.engine.model.open import open_model
from quantstudio.engine.search.measure import Judge
from tests.engine.quantization_cases import normal, outputs_of
from tests.engine.recovery_cases import classifier

SAMPLES, CLASSES = 48, 5

Figures = tuple[str, SensitivityResult, SensitivityResult]


def written_as(folder: Path, *, softmax_axis: int | None, before: bool, trailing: tuple[int, ...]) -> Path:
    """The network with its scores behind a Softmax, and in another form before or after that."""
    model = classifier()
    graph, name = model.graph, model.graph.output[0].name

    def reshape(name: str) -> str:
        shape = np.array([0, CLASSES, *trailing], dtype=np.int64)
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
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", CLASSES, *ones]))
    return saved(model, folder)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    """The network with an output that is called what it is, in whatever form."""
    (output,) = model.graph.output
    model.graph.node.append(helper.make_node("Identity", [output.name], ["logits"], "named"))
    output.name = "logits"
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def figures(net: Path, data: Path) -> Figures:
    """What is judged, and the sensitivity of every layer, estimated and exact."""
    graph = open_model(net)
    dataset = open_dataset(DataSpec(str(data)), graph.summary.inputs)
    judge = Judge(graph, dataset, samples=SAMPLES, cancel=CancelToken())
    fisher = fisher_sensitivity(graph, dataset, samples=SAMPLES)
    return judge.metric_name, fisher, exact_sensitivity(graph, dataset, samples=SAMPLES, precisions=("int4",))


@pytest.fixture(scope="module", params=[True, False], ids=["labelled", "bare"])
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Figures]:
    """Data, and the figures of the network as it is."""
    folder = tmp_path_factory.mktemp("plain")
    net = saved(classifier(), folder)
    x = normal(SAMPLES, 8, seed=2)
    if request.param:
        np.savez(folder / "data.npz", x=x, labels=outputs_of(classifier(), {"x": x})[0].argmax(1))
    else:
        np.savez(folder / "data.npz", x=x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTSTUDIO_CACHE", str(folder / "cache"))
        return folder / "data.npz", figures(net, folder / "data.npz")


@pytest.mark.parametrize(
    ("softmax_axis", "before", "trailing"),
    [
        pytest.param(None, False, (1, 1), id="logits [N, C, 1, 1]"),
        pytest.param(-1, False, (1, 1), id="softmax, then [N, C, 1, 1]"),
        pytest.param(-1, False, (1,), id="softmax, then [N, C, 1]"),
        pytest.param(1, True, (1, 1), id="softmax of [N, C, 1, 1], then flat"),
    ],
)
def test_that_the_form_of_class_scores_changes_no_figure(
    tmp_path: Path,
    plain: tuple[Path, Figures],
    softmax_axis: int | None,
    before: bool,
    trailing: tuple[int, ...],
) -> None:
    data, (plain_metric, *ones) = plain
    path = written_as(tmp_path, softmax_axis=softmax_axis, before=before, trailing=trailing)
    metric, *formed = figures(path, data)
    with np.load(data) as stored:
        assert metric == plain_metric == ("top1" if "labels" in stored else "agreement")
    for one, other in zip(ones, formed, strict=True):
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

"""Every precision and both directions on networks of unusual structure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import DataSpec
from quantstudio.engine.tasks.models import open_model
from quantstudio.engine.tasks.sensitivity import sensitivity
from tests.engine import quirk_structures
from tests.engine.quirk_models import QUIRKS
from tests.engine.test_sensitivity_precisions import EVERY

assert quirk_structures  # registers its models


@pytest.mark.parametrize(
    "name",
    [
        "if_inside_a_loop",
        "fixed_batch",
        "several_inputs_and_outputs_and_a_scalar",
        "lstm",
        "text_with_attention",
    ],
)
def test_that_estimate_and_measurement_give_the_same_layers_and_precisions(name: str, tmp_path: Path) -> None:
    quirk = QUIRKS[name]
    onnx.save(quirk.make(tmp_path), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", **quirk.arrays())  # type: ignore[arg-type]  # its stub mistakes the names
    summary = open_model(path=str(tmp_path / "model.onnx"))
    task: dict[str, Any] = {
        "graph_path": summary.graph_path,
        "data": to_json(DataSpec(str(tmp_path / "data.npz"))),
        "samples": 8,
        "precisions": EVERY,
    }
    fisher = sensitivity(**task, method="fisher")
    exact = sensitivity(
        **task, method="exact", reference="int8+int8-activations", all_but=True, accumulated=True
    )
    able = {layer.name: layer for layer in summary.layers if layer.quantizable}
    assert set(able) == {row.name for row in fisher.layers} == {row.name for row in exact.layers}
    for estimate, truth in zip(fisher.layers, exact.layers, strict=True):
        assert estimate.by_precision.keys() | {"int4"} == truth.by_precision.keys() | {"int4"}
        assert 0 <= truth.kl_low <= truth.kl <= truth.kl_high < np.inf
        layer = able[truth.name]
        has_reference = "int8+int8-activations" in truth.by_precision
        assert (truth.kl_all_but is not None) == has_reference
        assert (truth.accumulated_sqnr_db is not None) == (not layer.scope)

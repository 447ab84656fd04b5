"""What a search measures of its plans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.errors import JobCancelled
from quantstudio.core.events import CancelToken
from quantstudio.engine.data.dataset import open_dataset
from quantstudio.engine.graph.runtime import run
from quantstudio.engine.search import measure
from quantstudio.engine.search.measure import Judge
from tests.engine.quantization_cases import attention_net, normal, opened


def test_that_a_measurement_hands_its_token_to_the_run(tmp_path, monkeypatch):
    graph = opened(attention_net(), tmp_path)
    np.savez(tmp_path / "d.npz", x=normal(8, 6, 32))
    data = open_dataset(DataSpec(str(tmp_path / "d.npz")), graph.summary.inputs)
    token = CancelToken()
    judge = Judge(graph, data, samples=8, cancel=token)
    given = []
    plain = run

    def watched(*arguments, cancel=None):
        given.append(cancel)
        token.set()
        return plain(*arguments, cancel=cancel)

    monkeypatch.setattr(measure, "run", watched)
    with pytest.raises(JobCancelled):
        judge.measure_file(Path(graph.summary.graph_path))
    assert given == [token]

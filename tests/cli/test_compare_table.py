"""What the table of a comparison says above its columns."""

from dataclasses import replace

import pytest

from quantstudio.cli.compare import print_comparison
from quantstudio.core.results import CompareResult
from tests.workspace.samples import variant_result


@pytest.mark.parametrize(("load", "is_said"), [(0.42, True), (None, False)])
def test_that_times_of_a_busy_machine_say_so(capsys, monkeypatch, load, is_said):
    monkeypatch.setenv("COLUMNS", "300")
    base = variant_result("FP32", "net.onnx", 0.9, 1000, 5.0, is_base=True)
    assert base.latency_ms is not None
    timed = replace(base, latency_ms=replace(base.latency_ms, other_load=load))
    print_comparison(CompareResult((timed,), 1000, 1.0, labelled=True, task="classification"))
    said = " ".join(capsys.readouterr().out.split())
    assert ("other programs used 42 % of the processors meanwhile" in said) is is_said

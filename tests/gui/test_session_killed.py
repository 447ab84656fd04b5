"""The application killed in the middle of a sensitivity analysis, and opened again."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from quantstudio.core.data_spec import DataSpec
from quantstudio.gui.session import Session
from quantstudio.jobs.backends.process import ProcessBackend
from quantstudio.project.store import Project
from tests.hundred_layers import LAYERS, hundred_layers

# Opens the model, measures every layer, and ends itself with kill -9 once some are in the project file.
APPLICATION = """
    import os, signal, sys, time
    from PySide6.QtWidgets import QApplication
    from quantstudio.core.data_spec import DataSpec
    from quantstudio.core.findings import SENSITIVITY
    from quantstudio.gui.session import Session
    from quantstudio.jobs.backends.process import ProcessBackend
    from quantstudio.project.store import Project

    project, model, data = sys.argv[1:]
    application = QApplication([])
    session = Session(ProcessBackend, project=Project.create(project))

    def wait(condition):
        end = time.monotonic() + 600
        while not condition():
            assert time.monotonic() < end
            application.processEvents()
            time.sleep(0.005)

    session.workspace.documents.open_path(model)
    wait(lambda: session.workspace.model is not None and not session.workspace.jobs.is_busy)
    session.workspace.opening.set_data(DataSpec(data), None)
    wait(lambda: not session.workspace.jobs.is_busy)
    session.workspace.runs.exact_sensitivity([layer.name for layer in session.workspace.layers])
    key = session.workspace.subject.sensitivity_key(SENSITIVITY, session.workspace.ground.graph)
    wait(lambda: len(session.workspace.project.findings.rows(SENSITIVITY, key)) >= 5)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_that_finished_layers_are_there_and_the_rest_alone_is_measured(qtbot, tmp_path: Path):
    model, data = hundred_layers(tmp_path, 640)
    project = tmp_path / "work.qstudio"
    code = textwrap.dedent(APPLICATION)
    ended = subprocess.run(
        [sys.executable, "-c", code, str(project), str(model), str(data)], timeout=2000, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    session = Session(ProcessBackend, project=Project.open(project))
    said: list[str] = []
    session.job_signals.logged.connect(lambda line: said.append(line.text))
    try:
        session.workspace.opening.open_project(session.workspace.project)
        kept = dict(session.workspace.layer_sensitivity)
        assert 5 <= len(kept) < LAYERS
        assert session.workspace.calibration_data == DataSpec(str(data))
        session.workspace.runs.exact_sensitivity([layer.name for layer in session.workspace.layers])
        qtbot.waitUntil(lambda: not session.workspace.jobs.is_busy)
        assert len(session.workspace.layer_sensitivity) == LAYERS
        assert {name: session.workspace.layer_sensitivity[name].kl for name in kept} == {
            n: row.kl for n, row in kept.items()
        }
        known = next(text for text in said if "known from before" in text)
        # "Exact sensitivity of 100 layers: 41 of 300 measurements are known from before; ..."
        count, total = (int(word) for word in known.split(": ")[1].split(" measurements")[0].split(" of "))
        assert len(kept) * 3 <= count < total == 3 * LAYERS
    finally:
        session.close()

"""A workspace whose jobs answer with canned events, pumped by the test; no Qt, no engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from quantstudio.core.data_spec import DataSpec
from quantstudio.jobs.pump import Pump
from quantstudio.project.store import Project
from quantstudio.workspace.workspace import Workspace
from tests.waiting import PATIENCE_S
from tests.workspace.canned import OUTLINE, ReplayRunner


class Desk:
    """A workspace with the pump that turns it and the runner that answers it."""

    def __init__(self, project: Project) -> None:
        self.pump = Pump()
        self.runner = ReplayRunner()
        self.known = Workspace(project=project, backend=self.runner.attach, call_soon=self.pump.call_soon)

    def settle(self) -> None:
        """Take everything that comes until nothing runs any more."""
        jobs, background = self.known.jobs, self.known.background
        assert self.pump.run_until(lambda: not jobs.is_busy and not background.is_busy, PATIENCE_S)

    def close(self) -> None:
        self.known.close()


@pytest.fixture
def data(tmp_path: Path) -> DataSpec:
    path = tmp_path / "train.npz"
    np.savez(path, x=np.zeros((4, 3, 32, 32), np.float32))
    return DataSpec(str(path))


@pytest.fixture
def other_data(tmp_path: Path) -> DataSpec:
    path = tmp_path / "other.npz"
    np.savez(path, x=np.ones((4, 3, 32, 32), np.float32))
    return DataSpec(str(path))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A model is open; no data yet."""
    model = tmp_path / "net.onnx"
    model.write_bytes(OUTLINE)
    made = Desk(Project.create(tmp_path / "work.qstudio"))
    made.known.documents.open_path(str(model))
    made.settle()
    yield made
    made.close()


@pytest.fixture
def measured(desk: Desk, data: DataSpec) -> Desk:
    """Everything is known of the first plan."""
    desk.known.opening.set_data(data, None)
    desk.known.runs.run_all()
    desk.settle()
    return desk

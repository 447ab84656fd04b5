"""The status bar: what the engine is doing, how long it will take, which plan is edited."""

from __future__ import annotations

from PySide6.QtCore import QObject, QSize, Signal
from PySide6.QtWidgets import QLabel, QProgressBar, QStatusBar, QToolButton

from quantstudio.core.events import JobState
from quantstudio.core.figures import count, counted, size
from quantstudio.gui.facts.job_facts import progress_text
from quantstudio.gui.session import Session
from quantstudio.gui.theme import icon, theme_hub
from quantstudio.jobs.rows import JobRow


class StatusLine(QObject):
    """Fills a status bar from the session. Emits `jobs_asked` when the job text is clicked."""

    jobs_asked = Signal()

    def __init__(self, bar: QStatusBar, session: Session) -> None:
        super().__init__(bar)
        self._session = session
        self._is_paused = False
        bar.setObjectName("status")
        bar.setSizeGripEnabled(False)
        self.engine = QLabel(bar)
        self.engine.setObjectName("status.engine")
        self.engine.setContentsMargins(8, 0, 0, 0)
        self.progress = QProgressBar(bar)
        self.progress.setObjectName("status.progress")
        self.progress.setAccessibleName("Progress of the running job")
        self.progress.setFixedWidth(160)
        self.progress.setTextVisible(False)
        self.job = QToolButton(bar)
        self.job.setObjectName("status.job")
        self.job.setAccessibleName("Show jobs")
        self.job.setAutoRaise(True)
        self.job.setToolTip("Show the jobs panel")
        self.job.clicked.connect(self.jobs_asked)
        self.pause = QToolButton(bar)
        self.pause.setObjectName("status.pause")
        self.pause.setAutoRaise(True)
        self.pause.setIconSize(QSize(14, 14))
        self.pause.clicked.connect(self._pause_or_resume)
        self.stop = QToolButton(bar)
        self.stop.setObjectName("status.stop")
        self.stop.setAccessibleName("Stop the running job")
        self.stop.setToolTip("Stop the running job; finished layers are kept")
        self.stop.setAutoRaise(True)
        self.stop.setIconSize(QSize(14, 14))
        self.stop.clicked.connect(lambda: session.workspace.jobs.cancel())
        bar.addWidget(self.engine, 1)
        for widget in (self.job, self.progress, self.pause, self.stop):
            bar.addPermanentWidget(widget)
        bar.setContentsMargins(0, 0, 8, 0)
        session.jobs_changed.connect(self._refresh)
        session.model_changed.connect(self._refresh)
        theme_hub().theme_changed.connect(self._retheme)
        self._retheme()
        self._refresh()

    def _refresh(self) -> None:
        row = self._session.workspace.jobs.running
        for widget in (self.progress, self.pause, self.stop):
            widget.setVisible(row is not None)
        self.job.setVisible(bool(self._session.workspace.jobs.rows))
        if row is None:
            last = self._session.workspace.jobs.rows[-1] if self._session.workspace.jobs.rows else None
            self.job.setText("Jobs" if last is None else _ended(last))
        else:
            self.job.setText(progress_text(row))
            fraction = row.fraction
            self.progress.setRange(0, 0 if fraction is None else 1000)
            if fraction is not None:
                self.progress.setValue(round(fraction * 1000))
            for button in (self.pause, self.stop):
                button.setEnabled(row.state is not JobState.CANCELLING)
            if self._is_paused is not (row.state is JobState.PAUSED):
                self._is_paused = row.state is JobState.PAUSED
                self._retheme()
        self.engine.setText(self._engine_text(row))

    def _engine_text(self, row: JobRow | None) -> str:
        state = "Engine ready" if row is None else "Engine working"
        if row is not None and row.state is JobState.PAUSED:
            state = "Engine paused"
        model = self._session.workspace.model
        if model is None:
            return state
        layers = counted(len(model.layers), "layer")
        return f"{state}  ·  {layers}, {count(model.parameters)} parameters, {size(model.file_bytes)}"

    def _pause_or_resume(self) -> None:
        row = self._session.workspace.jobs.running
        if row is not None:
            act = (
                self._session.workspace.jobs.resume
                if row.state is JobState.PAUSED
                else self._session.workspace.jobs.pause
            )
            act(row.job_id)

    def _retheme(self) -> None:
        self.pause.setIcon(icon("play" if self._is_paused else "pause", "muted", 14))
        self.pause.setAccessibleName(f"{'Resume' if self._is_paused else 'Pause'} the running job")
        self.pause.setToolTip(
            "Resume" if self._is_paused else "Pause after the current batch; nothing is lost"
        )
        self.stop.setIcon(icon("stop", "muted", 14))


def _ended(row: JobRow) -> str:
    words = {
        JobState.SUCCEEDED: "finished",
        JobState.FAILED: "failed",
        JobState.CANCELLED: "cancelled",
    }
    return f"{row.title} {words.get(row.state, row.state.value)}"

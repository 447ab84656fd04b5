"""The status bar: what the engine is doing, how long it will take, what it runs on and with."""

from __future__ import annotations

from PySide6.QtCore import QObject, QSize, QTimer, Signal
from PySide6.QtWidgets import QLabel, QProgressBar, QStatusBar, QToolButton
from shiboken6 import isValid

from quantstudio.core.events import JobState
from quantstudio.core.figures import count, counted, size
from quantstudio.gui.facts.job_facts import progress_text
from quantstudio.gui.session import Session
from quantstudio.gui.theme import icon, theme_hub
from quantstudio.gui.widgets.elided_label import ElidedLabel
from quantstudio.jobs.rows import JobRow

MEMORY_MS = 4000


class StatusLine(QObject):
    """Fills a status bar from the session. Emits `jobs_asked` when the job text is clicked."""

    jobs_asked = Signal()

    def __init__(self, bar: QStatusBar, session: Session) -> None:
        super().__init__(bar)
        self._session = session
        self._bar = bar
        self._is_paused = False
        self._runtime = ""
        bar.setObjectName("status")
        bar.setSizeGripEnabled(False)
        self.engine = ElidedLabel(parent=bar)
        self.engine.setObjectName("status.engine")
        self.engine.setContentsMargins(8, 0, 0, 0)
        self.machine = QLabel(bar)
        self.machine.setObjectName("status.machine")
        self.machine.setContentsMargins(8, 0, 8, 0)
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
        self._make_buttons(bar)
        bar.addWidget(self.engine, 1)
        for widget in (self.job, self.progress, self.pause, self.stop, self.machine):
            bar.addPermanentWidget(widget)
        bar.setContentsMargins(0, 0, 8, 0)
        session.jobs_changed.connect(self._refresh)
        session.model_changed.connect(self._refresh)
        theme_hub().theme_changed.connect(self._retheme)
        self._memory_timer = QTimer(self)
        self._memory_timer.setInterval(MEMORY_MS)
        self._memory_timer.timeout.connect(self.show_machine)
        self._memory_timer.start()
        self._retheme()
        self._refresh()

    def _make_buttons(self, bar: QStatusBar) -> None:
        self.pause = QToolButton(bar)
        self.pause.setObjectName("status.pause")
        self.pause.setAutoRaise(True)
        self.pause.setIconSize(QSize(14, 14))
        self.pause.clicked.connect(self._pause_or_resume)
        self.stop = QToolButton(bar)
        self.stop.setObjectName("status.stop")
        self.stop.setAccessibleName("Stop the running job")
        self.stop.setToolTip("Stop the running job; finished layers are kept, what waits goes on")
        self.stop.setAutoRaise(True)
        self.stop.setIconSize(QSize(14, 14))
        self.stop.clicked.connect(self._session.workspace.jobs.stop)

    def show_machine(self) -> None:
        """Say what judges the variants, on how many threads, and how much memory all of it takes now."""
        # Finding that out takes as long as half the window: it is asked once the window is there.
        from quantstudio.gui.facts.machine_facts import memory_in_use, runtime_name, threads_of

        if not isValid(self._bar) or self._bar.window().isMinimized():
            return
        self._runtime = self._runtime or runtime_name()
        options = self._session.workspace.options
        threads = counted(threads_of(options), "thread")
        used = memory_in_use()
        memory = size(used) if used else ""
        self.machine.setText("  ·  ".join(part for part in (self._runtime, threads, memory) if part))
        provider = options.provider.upper()
        self.machine.setToolTip(
            f"{self._runtime} on {provider} judges every variant with {threads}\n"
            + (f"{memory} in use by the window and its workers" if memory else "")
        )

    def _refresh(self) -> None:
        jobs = self._session.workspace.jobs
        row = jobs.running
        for widget in (self.progress, self.pause, self.stop):
            widget.setVisible(row is not None)
        last = jobs.last
        self.job.setVisible(row is not None or last is not None)
        if row is not None:
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
        elif last is not None:
            self.job.setText(_ended(last))
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

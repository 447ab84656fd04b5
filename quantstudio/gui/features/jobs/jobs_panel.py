"""Every job of this session with its progress, time left, result or error, and a way to stop it."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QSize, Qt
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QScrollArea,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from quantstudio.core.events import JobState
from quantstudio.gui.action import Context
from quantstudio.gui.facts.job_facts import time_left
from quantstudio.gui.theme import icon, icon_pixmap, theme_hub
from quantstudio.gui.widgets.elided_label import ElidedLabel
from quantstudio.gui.widgets.remedy import RemedyButton
from quantstudio.jobs.rows import JobRow

# With a button as without: lines stand at one distance.
_LINE_PX = 28
_ICONS = {
    JobState.QUEUED: ("more", "muted"),
    JobState.RUNNING: ("play", "accent"),
    JobState.PAUSED: ("pause", "muted"),
    JobState.CANCELLING: ("stop", "warn"),
    JobState.SUCCEEDED: ("success", "ok"),
    JobState.FAILED: ("error", "bad"),
    JobState.CANCELLED: ("stop", "muted"),
}


class JobsPanel(QWidget):
    """A list of jobs, newest first."""

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("jobs")
        self.setAccessibleName("Jobs")
        self._context = context
        self._lines: dict[str, JobLine] = {}
        self._empty = QLabel("Nothing has run yet. Results of every job appear here.", self)
        self._empty.setObjectName("jobs.empty")
        self._empty.setProperty("role", "muted")
        self._empty.setContentsMargins(14, 8, 14, 8)
        inner = QWidget()
        self._column = QVBoxLayout(inner)
        self._column.setContentsMargins(6, 4, 6, 4)
        self._column.setSpacing(0)
        self._column.addStretch(1)
        area = QScrollArea(self)
        area.setObjectName("jobs.area")
        area.setAccessibleName("List of jobs")
        area.setWidgetResizable(True)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(inner)
        inner.setObjectName("jobs.inner")
        inner.setAutoFillBackground(False)
        area.viewport().setAutoFillBackground(False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._empty)
        layout.addWidget(area, 1)
        context.session.jobs_changed.connect(self._refresh)
        self._refresh()

    def line(self, job_id: str) -> JobLine:
        """The widget of a job.

        Raises:
            KeyError: there is no such job.
        """
        return self._lines[job_id]

    def _refresh(self) -> None:
        rows = {row.job_id: row for row in self._context.session.workspace.jobs.rows}
        for job_id in [j for j in self._lines if j not in rows]:
            line = self._lines.pop(job_id)
            self._column.removeWidget(line)
            line.deleteLater()
        for job_id, row in rows.items():
            if job_id not in self._lines:
                line = JobLine(row, self._context)
                self._lines[job_id] = line
                self._column.insertWidget(0, line)
            self._lines[job_id].show_row(row)
        self._empty.setVisible(not rows)


class JobLine(QFrame):
    """One job: icon, title, what it does or came to, bar, buttons to mend, to pause and to stop it."""

    def __init__(self, row: JobRow, context: Context) -> None:
        super().__init__()
        self.setObjectName(f"jobs.line.{row.job_id}")
        self._row = row
        self._icon = QLabel(self)
        self._icon.setFixedWidth(18)
        self.title = QLabel(self)
        self.title.setObjectName("jobs.line.title")
        self.title.setMinimumWidth(170)
        self.detail = ElidedLabel()
        self.detail.setObjectName("jobs.line.detail")
        self.detail.setProperty("role", "muted")
        self.bar = QProgressBar(self)
        self.bar.setObjectName("jobs.line.progress")
        self.bar.setAccessibleName(f"Progress of {row.title}")
        self.bar.setFixedWidth(160)
        self.bar.setTextVisible(False)
        self.time = QLabel(self)
        self.time.setObjectName("jobs.line.time")
        self.time.setProperty("role", "caption")
        self.time.setMinimumWidth(80)
        self.time.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self._context = context
        self.remedy = RemedyButton("jobs.line.remedy", self)
        self.pause = self._button("pause", self._pause_or_resume)
        self.stop = self._button("stop", lambda: context.session.workspace.jobs.cancel(row.job_id))
        self.stop.setAccessibleName(f"Stop {row.title}")
        self.stop.setToolTip("Stop this job; finished layers are kept")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(8, 4, 8, 4)
        self.setMinimumHeight(_LINE_PX)
        layout.setSpacing(8)
        layout.addWidget(self._icon)
        layout.addWidget(self.title)
        layout.addWidget(self.detail, 1)
        layout.addWidget(self.remedy)
        layout.addWidget(self.bar)
        layout.addWidget(self.time)
        layout.addWidget(self.pause)
        layout.addWidget(self.stop)
        theme_hub().theme_changed.connect(self._retheme)
        self._retheme()

    def show_row(self, row: JobRow) -> None:
        """Show another state of the job."""
        is_new_state = row.state is not self._row.state
        self._row = row
        self.title.setText(row.title)
        detail = row.outcome or (row.label if not row.state.is_final else "")
        if row.state is JobState.QUEUED:
            detail = "waiting"
        elif row.state is JobState.PAUSED:
            detail = "paused"
        self.detail.setText(f"{detail}. {row.hint}" if row.hint else detail)
        self.remedy.offer(self._context.remedy(row.hint))
        running = row.state in (JobState.RUNNING, JobState.PAUSED, JobState.CANCELLING)
        self.bar.setVisible(running)
        if running:
            self.bar.setRange(0, 0 if row.fraction is None else 1000)
            self.bar.setValue(round((row.fraction or 0) * 1000))
        if row.seconds_left is not None and running:
            self.time.setText(time_left(row.seconds_left))
        else:
            self.time.setText(f"{row.seconds:.1f} s" if row.seconds else "")
        self.pause.setVisible(row.state in (JobState.RUNNING, JobState.PAUSED))
        self.stop.setVisible(not row.state.is_final)
        self.stop.setEnabled(row.state is not JobState.CANCELLING)
        self.setAccessibleName(f"{row.title}, {row.state.value}, {detail}")
        if is_new_state:
            self._retheme()

    def _button(self, name: str, on_click: Callable[[], None]) -> QToolButton:
        button = QToolButton(self)
        button.setObjectName(f"jobs.line.{name}")
        button.setAutoRaise(True)
        button.setIconSize(QSize(14, 14))
        button.clicked.connect(lambda: on_click())
        return button

    def _pause_or_resume(self) -> None:
        # Not the row shown: it may be a moment old.
        jobs = self._context.session.workspace.jobs
        running = jobs.running
        is_paused = running is not None and running.state is JobState.PAUSED
        act = jobs.resume if is_paused else jobs.pause
        act(self._row.job_id)

    def _retheme(self) -> None:
        name, role = _ICONS[self._row.state]
        self._icon.setPixmap(icon_pixmap(name, role, 16, self.devicePixelRatioF()))
        is_paused = self._row.state is JobState.PAUSED
        self.pause.setIcon(icon("play" if is_paused else "pause", "muted", 14))
        self.pause.setAccessibleName(f"{'Resume' if is_paused else 'Pause'} {self._row.title}")
        self.pause.setToolTip("Resume" if is_paused else "Pause after the current batch; nothing is lost")
        self.stop.setIcon(icon("stop", "muted", 14))

"""What single precisions cost, measured or predicted, held against a budget: one line each, with a mark."""

from __future__ import annotations

from collections.abc import Iterable

from PySide6.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from quantstudio.core.precision import Precision
from quantstudio.core.search_results import SearchBudget
from quantstudio.gui.theme import icon_pixmap
from quantstudio.gui.widgets.elided_label import ElidedLabel
from quantstudio.gui.widgets.tag import PREDICTED, Tag
from quantstudio.workspace.search_references import Reference, broken_bounds, is_foreseen

_ICON_PX = 13
# Uniform and codebook grids a file may really be made of.
_SHOWN = (Precision.INT8, Precision.INT4, Precision.CODEBOOK3, Precision.CODEBOOK2)


class ReferenceList(QWidget):
    """A line per precision: what it weighs and loses, the first bound it breaks; hidden while unknown."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.rows: list[tuple[QLabel, ElidedLabel]] = []
        title = QLabel("One precision everywhere")
        title.setProperty("role", "caption")
        head = QHBoxLayout()
        head.addWidget(title, 1)
        self.tag = Tag(PREDICTED)
        head.addWidget(self.tag)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addLayout(head)
        for precision in _SHOWN:
            mark, text = QLabel(), ElidedLabel()
            mark.setFixedWidth(_ICON_PX)
            text.setObjectName(f"search.reference.{precision.name}")
            text.setProperty("role", "caption")
            line = QHBoxLayout()
            line.setSpacing(6)
            line.addWidget(mark)
            line.addWidget(text, 1)
            column.addLayout(line)
            self.rows.append((mark, text))

    def show_references(self, references: Iterable[Reference], budget: SearchBudget) -> None:
        """Show what is known of each precision and whether it keeps the budget."""
        known = {one.precision: one for one in references}
        self.setVisible(bool(known))
        shown = [known[precision] for precision in _SHOWN if precision in known]
        # Lines that were measured say so.
        self.tag.setVisible(not all(one.is_measured for one in shown))
        for precision, (mark, text) in zip(_SHOWN, self.rows, strict=True):
            reference = known.get(precision)
            mark.setVisible(reference is not None)
            text.setVisible(reference is not None)
            if reference is None:
                continue
            broken = broken_bounds(reference, budget)
            is_known = is_foreseen(reference, budget)
            name, role = ("close", "bad") if broken else ("check", "ok") if is_known else ("help", "muted")
            mark.setPixmap(icon_pixmap(name, role, _ICON_PX, self.devicePixelRatioF()))
            said = f"{reference.text} measured" if reference.is_measured else reference.text
            words = f"{reference.name}: {said}"
            keeps = "keeps the budget" if reference.is_measured else "predicted to keep the budget"
            is_open = reference.is_recovered and reference.drop is None
            unknown = "recovered first: the search measures it" if is_open else "not known yet"
            kept = keeps if is_known else unknown
            reasons = ", ".join(broken) or kept
            short = f"{precision.label}: {said}"
            why = broken[0] if broken else "recovered first" if is_open else ""
            text.set_wordings(f"{words} — {why}" if why else words, words, short)
            text.setAccessibleName(f"{words}, {reasons}")

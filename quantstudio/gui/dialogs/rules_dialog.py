"""The recipe's rules in order, and an editor that shows which layers a rule speaks about as it is typed."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QComboBox,
    QDialogButtonBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import NAMED_SCHEMES, scheme_name
from quantstudio.core.recipe import LayerRule, Recipe, is_legal
from quantstudio.gui.dialogs.dialog import Dialog, caption
from quantstudio.gui.session import Session

SCHEME_TEXTS = {
    "fp32": "FP32",
    "fp16": "FP16 weights",
    "static-int8": "INT8",
    "dynamic-int8": "INT8, ranges at run time",
    "weight-int8": "INT8 weights only",
    "weight-int4": "INT4 weights only",
    "static-int4": "INT4 weights, INT8 activations",
}


def rule_preview(rule: LayerRule, layers: Sequence[LayerInfo]) -> tuple[list[LayerInfo], list[LayerInfo]]:
    """Layers a rule matches that can have its scheme, and those that cannot."""
    matched = [layer for layer in layers if rule.matches(layer)]
    can = [layer for layer in matched if is_legal(layer, rule.scheme)]
    return can, [layer for layer in matched if layer not in can]


def deciding_counts(recipe: Recipe, layers: Sequence[LayerInfo]) -> list[int]:
    """For each rule, how many layers it decides: the last rule that matches wins."""
    counts = [0] * len(recipe.rules)
    for layer in layers:
        for index in range(len(recipe.rules) - 1, -1, -1):
            if recipe.rules[index].matches(layer):
                counts[index] += 1
                break
    return counts


class RulesDialog(Dialog):
    """Rules on the left, editor and preview on the right; every change is one undo step at once."""

    def __init__(self, session: Session, parent: QWidget) -> None:
        super().__init__(
            "rules",
            "Rules",
            "Rules are read from top to bottom; the last one that matches a layer decides. "
            "Patterns know * and ?.",
            parent,
        )
        self._session = session
        columns = QHBoxLayout()
        columns.setSpacing(16)
        columns.addLayout(self._make_list(), 3)
        columns.addLayout(self._make_editor(), 4)
        self.body.addLayout(columns, 1)
        self.add_button("close", "Close", QDialogButtonBox.ButtonRole.RejectRole)
        session.recipe_changed.connect(self._refresh)
        session.model_changed.connect(self._refresh)
        self.resize(760, 520)
        self._refresh()

    @property
    def rule(self) -> LayerRule:
        """The rule as it stands in the editor."""
        names = tuple(part.strip() for part in self.pattern.text().split(",") if part.strip())
        op_type = self.op_type.currentData() or ""
        scheme = NAMED_SCHEMES[self.scheme.currentData()]
        return LayerRule(scheme, names, (op_type,) if op_type else ())

    def _make_list(self) -> QVBoxLayout:
        column = QVBoxLayout()
        column.setSpacing(8)
        self.list = QListWidget(self)
        self.list.setObjectName("rules.list")
        self.list.setAccessibleName("Rules in order")
        self.list.currentRowChanged.connect(self._on_row_changed)
        column.addWidget(self.list, 1)
        row = QHBoxLayout()
        row.setSpacing(8)
        self.up = self._button("up", "Up", self._on_up)
        self.down = self._button("down", "Down", self._on_down)
        self.remove = self._button("remove", "Remove", self._on_remove)
        for button in (self.up, self.down, self.remove):
            row.addWidget(button)
        row.addStretch(1)
        column.addLayout(row)
        return column

    def _make_editor(self) -> QVBoxLayout:
        self.pattern = QLineEdit(self)
        self.pattern.setObjectName("rules.pattern")
        self.pattern.setAccessibleName("Layer names or patterns, separated by commas")
        self.pattern.setPlaceholderText("every layer, or for example encoder.*, */conv?")
        self.op_type = QComboBox(self)
        self.op_type.setObjectName("rules.op_type")
        self.op_type.setAccessibleName("Operator type")
        self.scheme = QComboBox(self)
        self.scheme.setObjectName("rules.scheme")
        self.scheme.setAccessibleName("Precision")
        for name, text in SCHEME_TEXTS.items():
            self.scheme.addItem(text, name)
        self.scheme.setCurrentIndex(self.scheme.findData("static-int8"))
        grid = QGridLayout()
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(4)
        grid.addWidget(caption("Layers", self, "rules.pattern.label", self.pattern), 0, 0, 1, 2)
        grid.addWidget(self.pattern, 1, 0, 1, 2)
        grid.addWidget(caption("Type", self, "rules.op_type.label", self.op_type), 2, 0)
        grid.addWidget(caption("Precision", self, "rules.scheme.label", self.scheme), 2, 1)
        grid.addWidget(self.op_type, 3, 0)
        grid.addWidget(self.scheme, 3, 1)
        self.matched = QLabel("", self)
        self.matched.setObjectName("rules.matched")
        self.matched.setProperty("role", "muted")
        self.matched.setWordWrap(True)
        self.preview = QListWidget(self)
        self.preview.setObjectName("rules.preview")
        self.preview.setAccessibleName("Layers this rule matches")
        self.preview.setSelectionMode(QListWidget.SelectionMode.NoSelection)
        self.preview.setUniformItemSizes(True)
        self.add = self._button("add", "Add rule", self._on_add)
        self.add.setProperty("primary", True)
        self.change = self._button("change", "Change selected", self._on_change)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self.add)
        row.addWidget(self.change)
        row.addStretch(1)
        column = QVBoxLayout()
        column.setSpacing(8)
        column.addLayout(grid)
        column.addWidget(self.matched)
        column.addWidget(self.preview, 1)
        column.addLayout(row)
        self.pattern.textChanged.connect(self._refresh_preview)
        self.op_type.currentIndexChanged.connect(self._refresh_preview)
        self.scheme.currentIndexChanged.connect(self._refresh_preview)
        return column

    def _button(self, name: str, text: str, slot: object) -> QPushButton:
        button = QPushButton(text, self)
        button.setObjectName(f"rules.{name}")
        button.setAccessibleName(text)
        button.setAutoDefault(False)
        button.clicked.connect(slot)
        return button

    def _refresh(self) -> None:
        recipe, layers = self._session.recipe, self._session.layers
        row = self.list.currentRow()
        self.list.blockSignals(True)
        self.list.clear()
        for index, (rule, decides) in enumerate(
            zip(recipe.rules, deciding_counts(recipe, layers), strict=True)
        ):
            item = QListWidgetItem(
                f"{index + 1}.  {rule.label}\n     decides {decides} of {len(layers)} layers"
            )
            item.setToolTip(rule.label)
            self.list.addItem(item)
        self.list.setCurrentRow(min(row, self.list.count() - 1))
        self.list.blockSignals(False)
        chosen = self.op_type.currentData()
        self.op_type.blockSignals(True)
        self.op_type.clear()
        self.op_type.addItem("Every type", "")
        for op_type in sorted({layer.op_type for layer in layers}):
            self.op_type.addItem(op_type, op_type)
        self.op_type.setCurrentIndex(max(0, self.op_type.findData(chosen)))
        self.op_type.blockSignals(False)
        self._refresh_preview()
        self._refresh_buttons()

    def _refresh_preview(self) -> None:
        can, cannot = rule_preview(self.rule, self._session.layers)
        text = f"Sets {len(can)} of {len(self._session.layers)} layers"
        if cannot:
            text += f"; {len(cannot)} cannot have this precision and stay FP32"
        self.matched.setText(text)
        self.preview.clear()
        for layer in (can + cannot)[:500]:
            item = QListWidgetItem(f"{layer.name}   {layer.op_type}")
            if layer in cannot:
                item.setFlags(Qt.ItemFlag.NoItemFlags)
                item.setToolTip(layer.reason or f"{layer.op_type} layers cannot have this precision")
            self.preview.addItem(item)
        self._refresh_buttons()

    def _refresh_buttons(self) -> None:
        row, count = self.list.currentRow(), self.list.count()
        self.up.setEnabled(row > 0)
        self.down.setEnabled(0 <= row < count - 1)
        self.remove.setEnabled(row >= 0)
        self.change.setEnabled(row >= 0)
        self.add.setEnabled(self.preview.count() > 0)

    def _on_row_changed(self, row: int) -> None:
        rules = self._session.recipe.rules
        if 0 <= row < len(rules):
            rule = rules[row]
            self.pattern.setText(", ".join(rule.names))
            self.op_type.setCurrentIndex(
                max(0, self.op_type.findData(rule.op_types[0] if rule.op_types else ""))
            )
            index = self.scheme.findData(scheme_name(rule.scheme))
            if index >= 0:
                self.scheme.setCurrentIndex(index)
        self._refresh_buttons()

    def _on_add(self) -> None:
        self._session.add_rule(self.rule)
        self.list.setCurrentRow(self.list.count() - 1)

    def _on_change(self) -> None:
        self._session.replace_rule(self.list.currentRow(), self.rule)

    def _on_remove(self) -> None:
        self._session.remove_rule(self.list.currentRow())

    def _on_up(self) -> None:
        self._move(-1)

    def _on_down(self) -> None:
        self._move(1)

    def _move(self, by: int) -> None:
        row = self.list.currentRow()
        self._session.move_rule(row, row + by)
        self.list.setCurrentRow(row + by)

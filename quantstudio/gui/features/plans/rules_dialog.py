"""The recipe's rules in order, and an editor that shows which layers a rule speaks about as it is typed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QComboBox,
    QDialogButtonBox,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QListWidgetItem,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import LayerScheme
from quantstudio.core.recipe import LayerRule, Recipe
from quantstudio.core.schemes import CUSTOM, NAMED_SCHEMES, scheme_name, schemes_by_bits
from quantstudio.gui.session import Session
from quantstudio.gui.theme import current_theme
from quantstudio.gui.widgets.dialog import Dialog, caption
from quantstudio.gui.widgets.enabling import allow
from quantstudio.gui.widgets.reorder_list import ReorderList

MAX_SHOWN = 500
_TYPES = ", "
_WIDTHS = {1: 104, 2: 104}


@dataclass(frozen=True, slots=True)
class Match:
    """A layer that a rule matches.

    Attributes:
        layer: The layer.
        becomes: What it becomes, and by what where not by this rule.
        is_decided: Whether this rule decides about it.
        why: Why it does not; empty where it does.
    """

    layer: LayerInfo
    becomes: str
    is_decided: bool = True
    why: str = ""


def rule_matches(
    recipe: Recipe, layers: Sequence[LayerInfo], rule: LayerRule, index: int | None = None
) -> tuple[Match, ...]:
    """Layers a rule matches, those it decides about first.

    Args:
        recipe: The recipe the rule is in, or would be added to.
        layers: The model's layers.
        rule: The rule.
        index: Its place in the recipe; None for a rule that would come last.
    """
    later = () if index is None else tuple(enumerate(recipe.rules))[index + 1 :]
    found, target = [], recipe.on_target
    for layer in layers:
        if not rule.matches(layer):
            continue
        last = next(((i, one) for i, one in reversed(later) if one.matches(layer)), None)
        if last is not None:
            text = f"rule {last[0] + 1}: {recipe.scheme_for(layer).label}"
            found.append(Match(layer, text, is_decided=False, why=f"Rule {last[0] + 1} comes later and wins"))
        elif not (support := target.support(layer, rule.scheme)).is_legal:
            found.append(Match(layer, "stays FP32", is_decided=False, why=support.reason))
        else:
            found.append(Match(layer, rule.scheme.label))
    return tuple(sorted(found, key=lambda match: not match.is_decided))


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
            "Patterns may contain * and ?.",
            parent,
        )
        self._session = session
        self._own_scheme: LayerScheme | None = None
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
        scheme = self._own_scheme if self.scheme.currentData() == CUSTOM else None
        return LayerRule(
            scheme or NAMED_SCHEMES[self.scheme.currentData()],
            names,
            tuple(part for part in str(self.op_type.currentData() or "").split(_TYPES) if part),
        ).by_node(self._session.workspace.layers)

    def _make_list(self) -> QVBoxLayout:
        column = QVBoxLayout()
        column.setSpacing(8)
        self.list = ReorderList(self)
        self.list.setObjectName("rules.list")
        self.list.setAccessibleName("Rules in order")
        self.list.setToolTip("Drag a rule to another place; later rules win")
        self.list.currentRowChanged.connect(self._on_row_changed)
        self.list.row_dropped.connect(self._on_row_dropped)
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
        for group in schemes_by_bits(NAMED_SCHEMES).values():
            if self.scheme.count():
                self.scheme.insertSeparator(self.scheme.count())
            for name in group:
                self.scheme.addItem(NAMED_SCHEMES[name].text, name)
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
        self._make_preview()
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

    def _make_preview(self) -> None:
        self.preview = QTreeWidget(self)
        self.preview.setObjectName("rules.preview")
        self.preview.setAccessibleName("Layers this rule matches")
        self.preview.setHeaderLabels(("Layer", "Type", "Becomes"))
        self.preview.setRootIsDecorated(False)
        self.preview.setUniformRowHeights(True)
        self.preview.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.preview.header().setStretchLastSection(False)
        self.preview.header().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.preview.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for place, width in _WIDTHS.items():
            self.preview.setColumnWidth(place, width)
        self.preview.itemSelectionChanged.connect(self._on_layer_chosen)

    def _button(self, name: str, text: str, slot: object) -> QPushButton:
        button = QPushButton(text, self)
        button.setObjectName(f"rules.{name}")
        button.setAccessibleName(text)
        button.setAutoDefault(False)
        button.clicked.connect(slot)
        return button

    def _refresh(self) -> None:
        recipe, layers = self._session.workspace.recipe, self._session.workspace.layers
        row = self.list.currentRow()
        self.list.blockSignals(True)
        self.list.clear()
        for index, (rule, decides) in enumerate(
            zip(recipe.rules, deciding_counts(recipe, layers), strict=True)
        ):
            label = rule.by_title(layers).label
            item = QListWidgetItem(f"{index + 1}.  {label}\n     decides {decides} of {len(layers)} layers")
            item.setToolTip(label)
            self.list.addItem(item)
        self.list.setCurrentRow(min(row, self.list.count() - 1))
        self.list.blockSignals(False)
        chosen = self.op_type.currentData()
        self.op_type.blockSignals(True)
        self.op_type.clear()
        self.op_type.addItem("Every type", "")
        several = {_TYPES.join(rule.op_types) for rule in recipe.rules if len(rule.op_types) > 1}
        for op_types in (*sorted({layer.op_type for layer in layers}), *sorted(several)):
            self.op_type.addItem(op_types, op_types)
        self.op_type.setCurrentIndex(max(0, self.op_type.findData(chosen)))
        self.op_type.blockSignals(False)
        self._refresh_preview()
        self._refresh_buttons()

    def _refresh_preview(self) -> None:
        rule, recipe = self.rule, self._session.workspace.recipe
        row = self.list.currentRow()
        is_in_recipe = 0 <= row < len(recipe.rules) and recipe.rules[row] == rule
        found = rule_matches(recipe, self._session.workspace.layers, rule, row if is_in_recipe else None)
        self.matched.setText(_summary(found, len(self._session.workspace.layers)))
        self.preview.blockSignals(True)
        self.preview.clear()
        faint = current_theme().color("muted")
        items = []
        for match in found[:MAX_SHOWN]:
            item = QTreeWidgetItem((match.layer.title, match.layer.op_type, match.becomes))
            for column in range(3):
                if not match.is_decided:
                    item.setForeground(column, faint)
                item.setToolTip(column, match.why or match.layer.full_title)
            items.append(item)
        self.preview.addTopLevelItems(items)
        self.preview.blockSignals(False)
        self._refresh_buttons()

    def _refresh_buttons(self) -> None:
        row, count = self.list.currentRow(), self.list.count()
        missing = "" if row >= 0 else "Choose a rule first"
        allow(self.up, missing or ("" if row > 0 else "It is the first"))
        allow(self.down, missing or ("" if row < count - 1 else "It is the last"))
        allow(self.remove, missing)
        allow(self.change, missing)
        has_match = self.preview.topLevelItemCount() > 0
        allow(self.add, "" if has_match else "No layer matches")

    def _on_row_changed(self, row: int) -> None:
        rules = self._session.workspace.recipe.rules
        if 0 <= row < len(rules):
            self._show_rule(rules[row])
        self._refresh_preview()

    def _show_rule(self, rule: LayerRule) -> None:
        """Put a rule into the editor, also one in a scheme that has no name."""
        name = scheme_name(rule.scheme)
        if name == CUSTOM:
            self._own_scheme = rule.scheme
        own = self.scheme.findData(CUSTOM)
        if name == CUSTOM and own < 0:
            self.scheme.addItem("", CUSTOM)
            own = self.scheme.findData(CUSTOM)
        if name == CUSTOM:
            self.scheme.setItemText(own, rule.scheme.label)
        self.pattern.setText(", ".join(rule.by_title(self._session.workspace.layers).names))
        self.op_type.setCurrentIndex(max(0, self.op_type.findData(_TYPES.join(rule.op_types))))
        self.scheme.setCurrentIndex(self.scheme.findData(name))

    def _on_row_dropped(self, row: int, to: int) -> None:
        self._session.workspace.edits.move_rule(row, to)
        self.list.setCurrentRow(to)

    def _on_layer_chosen(self) -> None:
        self._session.select([item.text(0) for item in self.preview.selectedItems()])

    def _on_add(self) -> None:
        self._session.workspace.edits.add_rule(self.rule)
        self.list.setCurrentRow(self.list.count() - 1)

    def _on_change(self) -> None:
        self._session.workspace.edits.replace_rule(self.list.currentRow(), self.rule)

    def _on_remove(self) -> None:
        self._session.workspace.edits.remove_rule(self.list.currentRow())

    def _on_up(self) -> None:
        self._move(-1)

    def _on_down(self) -> None:
        self._move(1)

    def _move(self, by: int) -> None:
        row = self.list.currentRow()
        self._session.workspace.edits.move_rule(row, row + by)
        self.list.setCurrentRow(row + by)


def _summary(found: Sequence[Match], total: int) -> str:
    """One sentence about the layers a rule matches."""
    decided = sum(match.is_decided for match in found)
    later = sum(match.becomes.startswith("rule ") for match in found)
    cannot = len(found) - decided - later
    text = f"Sets {decided} of {total} layers"
    if later:
        text += f"; later rules decide {later} more it matches"
    if cannot:
        text += f"; {cannot} cannot have this precision and stay FP32"
    return text

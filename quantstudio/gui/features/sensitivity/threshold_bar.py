"""The controls of the line over the sensitivity bars: what is above it, what becomes of both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PySide6.QtWidgets import QComboBox, QHBoxLayout, QLabel, QPushButton, QSpinBox, QWidget

from quantstudio.core import figures
from quantstudio.core.layers import LayerInfo, ModelSummary
from quantstudio.core.precision import LayerScheme, Precision, WeightFormat, weight_format, weight_formats
from quantstudio.core.recipe import Recipe
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.gui.bridge import Throttle
from quantstudio.gui.plots.sensitivity_scale import StripRow
from quantstudio.gui.plots.sensitivity_strip import SensitivityStrip
from quantstudio.gui.plots.sensitivity_threshold import (
    first_level,
    layers_above,
    layers_below,
    level_for,
)
from quantstudio.gui.session import Session
from quantstudio.gui.widgets.elided_label import ElidedLabel
from quantstudio.gui.widgets.enabling import allow
from quantstudio.workspace.names import step_labels
from quantstudio.workspace.recipe_edits import form_of, with_threshold

AS_IS = ""
EFFECT_MS = 60
_COUNT_PX = 58
_NAMED_IN_TIP = 12
_DOT = "  ·  "
_ROLE_NAMES = {"faint": "FP32", "ok": "FP16", "fp": "INT8", "q": "under 8 bits"}
# A line of controls no higher than a line of small text.
_LOW = """
QComboBox, QSpinBox { padding: 1px 6px; min-height: 18px; font-size: 11px; }
QPushButton { padding: 1px 10px; min-height: 18px; font-size: 11px; }
"""


@dataclass
class _Side:
    """What becomes of the layers on one side of the line; nothing where `key` is None."""

    key: WeightFormat | None
    schemes: dict[str, LayerScheme] = field(default_factory=dict)
    unable: list[LayerInfo] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Layers on this side."""
        return len(self.schemes) + len(self.unable)

    def words(self, who: str) -> str:
        """One sentence: "7 layers above: stay FP16", or "7 layers above: 6 stay FP16, 1 cannot"."""
        if self.key is None:
            return ""
        able, many = len(self.schemes), len(self.unable)
        verb = ("stay" if not self.key.is_integer else "become") + ("s" if able == 1 else "")
        what = f"{verb} {self.key.label}"
        if many or not who:
            what = f"{able} {what}"
        cannot = f", {many} cannot" if many else ""
        return f"{who}: {what}{cannot}" if who else f"{what}{cannot}"


class ThresholdBar(QWidget):
    """How many layers are above the line, which precision they get, what becomes of the rest, and Apply."""

    def __init__(self, session: Session, strip: SensitivityStrip, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("sensitivity.threshold_bar")
        self.setAccessibleName("Threshold over the bars")
        self._session = session
        self._strip = strip
        self._legend_at = -1
        self._count_wanted = 0
        self._schemes: tuple[tuple[Recipe, ModelSummary | None], dict[str, LayerScheme]] | None = None
        self._effect = ""
        self._effect_throttle = Throttle(EFFECT_MS, self)
        self._effect_throttle.due.connect(self._on_effect_due)
        self.count = QSpinBox()
        self.count.setObjectName("threshold.count")
        self.count.setAccessibleName("Layers above the line")
        self.count.setKeyboardTracking(False)
        self.count.setFixedWidth(_COUNT_PX)
        self.keep = self._chooser("keep", "Precision of the layers above the line", AS_IS)
        self.rest = self._chooser("rest", "Precision of the layers below the line", "as they are")
        self.words = ElidedLabel()
        self.words.setObjectName("threshold.words")
        self.words.setProperty("role", "caption")
        self.apply = QPushButton("Apply")
        self.apply.setObjectName("threshold.apply")
        self.apply.setAccessibleName("Apply the threshold to the plan")
        self.apply.setProperty("primary", True)
        self.setStyleSheet(_LOW)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        for widget in (_caption("Above"), self.count, self.keep, _caption("below"), self.rest):
            row.addWidget(widget)
        row.addWidget(self.words, 1)
        row.addWidget(self.apply)
        self._row = row
        self.count.valueChanged.connect(self._on_count_changed)
        self.keep.activated.connect(self._on_choice)
        self.rest.activated.connect(self._on_choice)
        self.apply.clicked.connect(self._on_apply)
        strip.threshold_moved.connect(self.move_to)
        self.hide()

    def _chooser(self, name: str, meaning: str, first: str) -> QComboBox:
        chooser = QComboBox()
        chooser.setObjectName(f"threshold.{name}")
        chooser.setAccessibleName(meaning)
        chooser.setToolTip(meaning)
        if first:
            chooser.addItem(first, AS_IS)
        for row in weight_formats():
            if row.key:
                chooser.addItem(row.label, row.name)
        chooser.setCurrentIndex(0 if first else chooser.findData(Precision.FP16.name))
        return chooser

    # ------------------------------------------------------------------ state

    @property
    def is_on(self) -> bool:
        """Whether the line is shown."""
        return self._strip.threshold is not None

    @property
    def above(self) -> tuple[str, ...]:
        """Layers above the line."""
        level = self._strip.threshold
        return () if level is None else layers_above(self._strip.rows, level)

    @property
    def below(self) -> tuple[str, ...]:
        """Layers below the line that were analyzed."""
        level = self._strip.threshold
        return () if level is None else layers_below(self._strip.rows, level)

    def set_on(self, is_on: bool) -> None:
        """Show the line where the colours change, or take it and its preview away."""
        self.setVisible(is_on)
        legend = self._strip.legend
        if is_on:
            # Four names need the room that this line has and the header has not.
            self._legend_at = max(self._strip.header.indexOf(legend), self._legend_at)
            self._row.insertWidget(self._row.count() - 1, legend)
            self.move_to(first_level(self._strip.rows, self._strip.scale))
        else:
            if self._strip.header.indexOf(legend) < 0:
                self._strip.header.insertWidget(self._legend_at, legend)
            self._strip.set_threshold(None)
            self._strip.set_preview({}, ())

    def move_to(self, kl: float) -> None:
        """Put the line at a KL and say what that means."""
        self._strip.set_threshold(kl, "")
        self._count_wanted = len(self.above)
        self.refresh()

    def keep_count(self) -> None:
        """The bars are others now: put the line where as many of them are above it as before."""
        if self.is_on:
            self._strip.set_threshold(level_for(self._strip.rows, self._count_wanted), "")
            self.refresh()

    def refresh(self) -> None:
        """Bars, recipe or choices changed: count, preview and words anew."""
        level = self._strip.threshold
        if level is None or not self._is_of_this_model():
            return
        above, below = self.above, self.below
        self.count.blockSignals(True)
        self.count.setMaximum(len(above) + len(below))
        self.count.setValue(len(above))
        self.count.blockSignals(False)
        self._strip.set_threshold(level, f"{len(above)} above  ·  {figures.significant(level, 2)} nats")
        now = self._known_schemes()
        sides = self._sides()
        then = sides[1].schemes | sides[0].schemes
        roles = {name: then.get(name, scheme).weights.role for name, scheme in now.items()}
        self._strip.set_preview(roles, _legend(roles, self._strip.rows))
        self._say(*sides)
        self._effect_throttle.request()
        is_change = any(now[name] != scheme for name, scheme in then.items())
        allow(self.apply, "" if is_change else "Every layer has that precision already")

    # ------------------------------------------------------------------ inside

    def _keys(self) -> tuple[WeightFormat, WeightFormat | None]:
        rest = str(self.rest.currentData())
        return weight_format(str(self.keep.currentData())), weight_format(rest) if rest else None

    def _sides(self) -> tuple[_Side, _Side]:
        keep, rest = self._keys()
        return self._outcome(self.above, keep), self._outcome(self.below, rest)

    def _is_of_this_model(self) -> bool:
        """Whether the bars are those of the model that is open; another one's come a turn later."""
        return [row.layer for row in self._strip.rows] == [
            layer.name for layer in self._session.workspace.layers
        ]

    def _known_schemes(self) -> dict[str, LayerScheme]:
        made_of = (self._session.workspace.recipe, self._session.workspace.model)
        if self._schemes is None or any(a is not b for a, b in zip(self._schemes[0], made_of, strict=True)):
            recipe = self._session.workspace.recipe
            self._schemes = (
                made_of,
                {one.name: recipe.scheme_for(one) for one in self._session.workspace.layers},
            )
        return self._schemes[1]

    def _outcome(self, names: Sequence[str], key: WeightFormat | None) -> _Side:
        """What becomes of the layers on one side of the line."""
        side = _Side(key)
        if key is None:
            return side
        listed = {layer.name: layer for layer in self._session.workspace.layers}
        for name in names:
            form = form_of(listed[name], key, self._session.workspace.recipe.on_target)
            if form is not None:
                side.schemes[name] = NAMED_SCHEMES[form]
            else:
                side.unable.append(listed[name])
        return side

    def _say(self, above: _Side, below: _Side) -> None:
        unable = [*above.unable, *below.unable]
        named = [f"{one.name}: {one.reason or 'no such form'}" for one in unable[:_NAMED_IN_TIP]]
        if len(unable) > len(named):
            named.append(f"and {len(unable) - len(named)} more")
        self.words.set_detail("\n".join(named))
        full = [above.words(_layers(above.count) + " above"), below.words(f"{below.count} below")]
        sides = _DOT.join(part for part in full if part)
        short = above.words("")
        plain = (sides, full[0], short)
        with_effect = [f"{words}{_DOT}{self._effect}" for words in plain] if self._effect else []
        self.words.set_wordings(*with_effect, *plain)

    def _on_effect_due(self) -> None:
        """What the plan would be with the line applied, by prediction."""
        if not self.is_on or not self._is_of_this_model():
            return
        keep, rest = self._keys()
        session = self._session
        edit = with_threshold(
            session.workspace.recipe, session.workspace.layers, self.above, self.below, keep=keep, rest=rest
        )
        found = session.workspace.predicted(edit.recipe)
        parts = []
        if found is not None and found.accuracy is not None:
            parts.append(figures.percent(found.accuracy.value, 1))
        elif found is not None and found.accuracy_at_most is not None:
            parts.append(figures.below(found.accuracy_at_most))
        if found is not None and found.size_bytes is not None:
            parts.append(figures.size(found.size_bytes))
        left_out = step_labels(found.left_out, session.workspace.steps) if found is not None else ()
        self._effect = f"{figures.predicted(left_out)} {', '.join(parts)}" if parts else ""
        self._say(*self._sides())

    def _on_count_changed(self, count: int) -> None:
        self.move_to(level_for(self._strip.rows, count))

    def _on_choice(self, _index: int) -> None:
        self.refresh()

    def _on_apply(self) -> None:
        keep, rest = self._keys()
        self._session.workspace.edits.set_threshold(self.above, self.below, keep=keep, rest=rest)
        self._strip.view.setFocus()  # where the line can be moved on
        self.refresh()


def _caption(text: str) -> QLabel:
    label = QLabel(text)
    label.setProperty("role", "caption")
    return label


def _legend(roles: Mapping[str, str], rows: Sequence[StripRow]) -> tuple[tuple[str, str], ...]:
    shown = {roles.get(row.layer, "") for row in rows if row.kl is not None}
    return tuple((name, role) for role, name in _ROLE_NAMES.items() if role in shown)


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"

"""The row of key figures: is this recipe good? Predicted while it changes, measured once it was run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from PySide6.QtWidgets import QHBoxLayout, QWidget

from quantstudio.core import figures
from quantstudio.core.data_spec import ON_CALIBRATION
from quantstudio.core.quality import AGREEMENT, DEFAULT_FLOOR, METRIC_NAMES, Quality, share_ends
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import Interval
from quantstudio.core.variants import Variant
from quantstudio.gui.facts.layer_facts import precision_label
from quantstudio.gui.facts.variant_facts import (
    busy_text,
    latency_of,
    quality_of,
    size_of,
    speedup_text,
    timing_text,
)
from quantstudio.gui.session import Session
from quantstudio.gui.widgets.key_figure import KeyFigure, Tone
from quantstudio.gui.widgets.refresher import Refresher
from quantstudio.gui.widgets.tag import MEASURED, OUT_OF_DATE, PREDICTED
from quantstudio.workspace.names import base_name, step_labels
from quantstudio.workspace.values import NOT_TESTED

if TYPE_CHECKING:
    from quantstudio.core.predict.table import Prediction

NO_MODEL = "Open a model"
QUALITY = "Quality"
_HAIR = "\u200a"


class KeyFiguresPanel(QWidget):
    """Four cards: model size, accuracy, latency, layers quantized."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("panel.key_figures")
        self.setAccessibleName("Key figures")
        self._session = session
        self._refresher = Refresher(self)
        self._layers_shown: tuple[str, Recipe] | None = None
        self.size_card = KeyFigure("size", "size", "Model size")
        self.quality_card = KeyFigure("accuracy", "accuracy", QUALITY)
        self.latency_card = KeyFigure("latency", "latency", "Latency p50")
        self.layers_card = KeyFigure("layers", "layers", "Layers quantized")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        for card in (self.size_card, self.quality_card, self.latency_card, self.layers_card):
            row.addWidget(card, 1)
        for signal in (
            session.model_changed,
            session.recipe_changed,
            session.variants_changed,
            session.data_changed,
            session.prediction_changed,
        ):
            signal.connect(self._refresher.request)
        self._refresher.due.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the session's figures."""
        current = self._session.workspace.current_variant
        stale = _newest_measured(self._session.workspace.variants)
        self._show_size(current)
        self._show_quality(current, stale)
        self._show_latency(current, stale)
        self._show_layers()

    # ------------------------------------------------------------------ size

    def _show_size(self, current: Variant | None) -> None:
        model, prediction = self._session.workspace.model, self._session.workspace.prediction
        if model is None:
            self.size_card.set_figure(figures.NOTHING, detail=NO_MODEL)
            return
        base = model.file_bytes
        if current is not None and (current.build is not None or current.result is not None):
            value, tag, detail = size_of(current, base), MEASURED, f"File of {current.name}"
        elif model.can_be_quantized and prediction is not None and prediction.size_bytes is not None:
            value, tag = prediction.size_bytes, PREDICTED
            exact = "exact" if prediction.is_size_exact else "off by one percent at most"
            detail = f"From the bytes of each layer's scheme, {exact}{self._unknown(prediction)}"
        else:
            name = self._base_name()
            self.size_card.set_figure(figures.size(base), delta=name, detail=f"Size of the {name} model")
            return
        delta, tone = _times(base, value, "smaller", "larger")
        detail = f"{detail}; the {self._base_name()} file that was opened takes {figures.size(base)}"
        memory = self._memory_bytes(current, is_measured=tag == MEASURED)
        self.size_card.set_figure(
            figures.size(value),
            delta=delta,
            short_delta=_short(delta),
            tone=tone,
            tag=tag,
            detail=f"{detail}{_memory_detail(memory, tag)}",
            more=f"{figures.size(memory)} peak memory" if memory else "",
        )

    def _memory_bytes(self, current: Variant | None, *, is_measured: bool) -> int:
        """Peak memory of the process, wearing the same tag as the size; 0 where nobody knows it."""
        if is_measured:
            result = current.result if current is not None else None
            return result.peak_memory_bytes if result is not None else 0
        prediction = self._session.workspace.prediction
        return (prediction.memory_bytes or 0) if prediction is not None else 0

    def _base_name(self) -> str:
        """What the model as it was opened is: "FP32", or what its file holds."""
        return base_name(self._session.workspace.layers)

    # ------------------------------------------------------------------ accuracy

    def _show_quality(self, current: Variant | None, stale: Variant | None) -> None:
        base = quality_of(self._session.workspace.base) if self._session.workspace.base is not None else None
        self._name_quality(base)
        measured = quality_of(current) if current is not None else None
        if current is not None and measured is not None:
            self._show_measured_quality(measured, current, MEASURED)
            return
        prediction = self._session.workspace.prediction
        if prediction is not None and prediction.accuracy is not None:
            self._show_predicted_quality(prediction, prediction.accuracy, base)
            return
        if prediction is not None and prediction.accuracy_at_most is not None:
            self._show_collapse(prediction, prediction.accuracy_at_most, base)
            return
        if prediction is not None and prediction.unpriced and self._session.workspace.layer_sensitivity:
            many = figures.counted(prediction.unpriced, "layer")
            detail = f"{many} in a precision or a range that nobody analyzed: measure to know it"
            self.quality_card.set_figure(figures.NOTHING, detail=detail, more="measure to know")
            return
        old = quality_of(stale) if stale is not None else None
        if stale is not None and old is not None:
            self._show_measured_quality(old, stale, OUT_OF_DATE)
            return
        if base is not None:
            name = self._base_name()
            detail = _with_caveat(f"Of the {name} model", base)
            self._set_quality(base.text, delta=name, tag=MEASURED, detail=detail, caution=base.caveat)
            return
        hint = (
            NO_MODEL
            if self._session.workspace.model is None
            else "Run Sensitivity to predict it, Measure to know it"
        )
        self.quality_card.set_figure(figures.NOTHING, detail=hint)

    def _name_quality(self, base: Quality | None) -> None:
        curve = self._session.workspace.sensitivity_curve
        if base is not None:
            name = base.name
        elif curve is not None:
            name = METRIC_NAMES["top1" if curve.labelled else AGREEMENT]
        else:  # nobody knows yet what the outputs are, and so what they are judged by
            name = QUALITY
        self.quality_card.caption.set_wordings(
            name, name.split(" ", 1)[0] if base is None else base.short_name
        )

    def _show_measured_quality(self, quality: Quality, variant: Variant, tag: str) -> None:
        delta, tone, detail = "", Tone.NEUTRAL, f"{variant.name}"
        if variant.result is not None:
            detail += f", {figures.count(variant.result.samples)} samples"
        if quality.loss is not None:
            delta, tone = quality.delta_text, _measured_tone(quality)
            detail += f"; {self._base_name()} has {quality.base_text}"
        if quality.has_interval:
            detail += f"; 95 % interval {quality.ends_text}"
        worst = _worst_measured(variant)
        if worst:
            detail += f"; most lost, in points: {worst}"
        self._set_quality(
            quality.text,
            delta=delta,
            tone=tone,
            tag=tag,
            detail=_with_caveat(detail, quality),
            more=_joined(quality.short_ends_text, worst),
            caution=quality.caveat,
        )

    def _show_predicted_quality(
        self, prediction: Prediction, accuracy: Interval, base: Quality | None
    ) -> None:
        curve = self._session.workspace.sensitivity_curve
        reference = base.value.value if base is not None else (curve.accuracy[0] if curve else None)
        delta, tone = "", Tone.NEUTRAL
        if reference is not None:
            change = (accuracy.value - reference) * 100
            delta, tone = (
                figures.points(change),
                _tone(change, base.floor if base is not None else DEFAULT_FLOOR),
            )
        worst = _worst_predicted(prediction)
        self._set_quality(
            figures.percent(accuracy.value),
            delta=delta,
            tone=tone,
            tag=PREDICTED,
            detail=f"{_prediction_detail(prediction, accuracy)}{self._unknown(prediction)}",
            more=_joined(share_ends(accuracy), worst),
            caution=_joined(self._caution(prediction), base.caveat if base is not None else ""),
            # Until FP32 is measured, its accuracy is that of the samples layers were judged on.
            on_calibration=base is None,
        )

    def _show_collapse(self, prediction: Prediction, at_most: float, base: Quality | None) -> None:
        """So much is rounded away that errors of layers no longer add up: a bound, and no figure."""
        curve = self._session.workspace.sensitivity_curve
        reference = base.value.value if base is not None else (curve.accuracy[0] if curve else None)
        lost = (reference - at_most) * 100 if reference is not None else 0.0
        self._set_quality(
            figures.below(at_most),
            delta=figures.more_lost(lost) if lost > 0 else "",
            tone=Tone.BAD,
            tag=PREDICTED,
            detail="Layers rounded so coarsely may ruin the network together, by more than their own losses "
            f"add up to{self._unknown(prediction)}; measure to know",
            more="measure to know",
            caution=self._caution(prediction),
        )

    def _caution(self, prediction: Prediction) -> str:
        """The steps a prediction does not know, in the words of a caption."""
        left_out = step_labels(prediction.left_out, self._session.workspace.steps)
        return f"without {', '.join(left_out)}" if left_out else ""

    def _unknown(self, prediction: Prediction) -> str:
        """The same as part of a tool tip."""
        caution = self._caution(prediction)
        if not caution:
            return ""
        shown = ", but for what measured variants with it show" if prediction.plans else ""
        return f"; {caution}{shown}: measure to know what that does"

    def _set_quality(
        self,
        value: str,
        *,
        delta: str,
        tag: str,
        detail: str,
        tone: Tone = Tone.NEUTRAL,
        more: str = "",
        caution: str = "",
        on_calibration: bool = False,
    ) -> None:
        """The figure, and where it is biased upwards or leaves something out, that it is."""
        is_flattering = self._session.workspace.is_measured_on_calibration
        self.quality_card.set_figure(
            value,
            delta=delta,
            tone=tone,
            tag=tag,
            detail=f"{detail}; {NOT_TESTED}" if is_flattering else detail,
            note=_joined(caution, ON_CALIBRATION if is_flattering or on_calibration else ""),
            more=more,
        )

    # ------------------------------------------------------------------ latency

    def _show_latency(self, current: Variant | None, stale: Variant | None) -> None:
        base = self._session.workspace.base
        reference = latency_of(base) if base is not None else None
        prediction = self._session.workspace.prediction
        measured = latency_of(current) if current is not None else None
        if current is not None and measured is not None:
            self._set_latency(
                measured.value,
                _paired(current, reference),
                MEASURED,
                _latency_detail(current),
                note=busy_text(current),
            )
        elif prediction is not None and prediction.latency_ms is not None:
            known = prediction.fp32_ms
            fp32 = Interval(known, known, known) if known is not None else reference
            detail = f"From the time of each layer{self._unknown(prediction)}"
            self._set_latency(prediction.latency_ms, fp32, PREDICTED, detail)
        elif stale is not None and (old := latency_of(stale)) is not None:
            self._set_latency(old.value, _paired(stale, reference), OUT_OF_DATE, _latency_detail(stale))
        elif reference is not None and base is not None:
            self.latency_card.set_figure(
                figures.milliseconds(reference.value),
                delta=self._base_name(),
                tag=MEASURED,
                detail=_latency_detail(base),
                note=busy_text(base),
            )
        else:
            hint = NO_MODEL if self._session.workspace.model is None else "Measure to know it"
            self.latency_card.set_figure(figures.NOTHING, detail=hint)

    def _set_latency(
        self, value_ms: float, reference: Interval | None, tag: str, detail: str, note: str = ""
    ) -> None:
        """`reference` is what FP32 would take beside this figure."""
        delta, tone = "", Tone.NEUTRAL
        if reference is not None:
            delta, tone = _times(reference.value, value_ms, "faster", "slower")
        self.latency_card.set_figure(
            figures.milliseconds(value_ms),
            delta=delta,
            short_delta=_short(delta),
            tone=tone,
            tag=tag,
            detail=detail,
            note=note,
        )

    # ------------------------------------------------------------------ layers

    def _show_layers(self) -> None:
        session = self._session
        if session.workspace.model is None:
            self._layers_shown = None
            self.layers_card.set_figure(figures.NOTHING, detail=NO_MODEL)
            return
        shown = (session.workspace.model.digest, session.workspace.recipe)
        if shown == self._layers_shown:
            return
        self._layers_shown = shown
        schemes = session.workspace.recipe.schemes(session.workspace.layers)
        labels = {
            layer.name: precision_label(layer, schemes[layer.name]) for layer in session.workspace.layers
        }
        integer = [
            labels[layer.name]
            for layer in session.workspace.layers
            if layer.stored_as or not schemes[layer.name].is_float
        ]
        can = sum(layer.quantizable for layer in session.workspace.layers)
        detail = ", ".join(f"{n} at {label}" for label, n in Counter(labels.values()).most_common())
        detail += f"; {can} of {len(labels)} can be quantized"
        self.layers_card.set_figure(
            f"{figures.count(len(integer))}{_HAIR}/{_HAIR}{figures.count(len(labels))}",
            delta=_odd_ones(integer, can),
            short_delta=_odd_ones(integer, can).replace(" at ", " "),
            tone=Tone.GOOD,
            detail=detail,
        )


def _odd_ones(quantized: list[str], can: int) -> str:
    """What stands out among the quantized layers, of `can` that could be: "73 at W4A8", "all INT8"."""
    labels = Counter(quantized).most_common()
    if not labels:
        return ""
    if len(labels) == 1:
        return f"all {labels[0][0]}" if len(quantized) >= can else f"at {labels[0][0]}"
    label, number = labels[1]
    return f"{figures.count(number)} at {label}"


def _newest_measured(variants: tuple[Variant, ...]) -> Variant | None:
    return next((v for v in reversed(variants) if not v.is_base and v.result is not None), None)


def _paired(variant: Variant, reference: Interval | None) -> Interval | None:
    """FP32's time by the paired speed-up, wherever FP32 was timed otherwise since."""
    result = variant.result
    if result is None or result.latency_ms is None or result.speedup is None:
        return reference
    p50, speedup = result.latency_ms.p50, result.speedup
    return Interval(p50 * speedup.value, p50 * speedup.low, p50 * speedup.high)


def _latency_detail(variant: Variant) -> str:
    timing = timing_text(variant)
    if not timing:
        return variant.name
    text = f"{variant.name}, {timing}"
    if variant.result is not None and variant.result.speedup is not None and not variant.is_base:
        text += f"; speed-up {speedup_text(variant.result.speedup)}, paired with FP32"
    return text


def _memory_detail(memory_bytes: int, tag: str) -> str:
    if not memory_bytes:
        return ""
    return f"; peak memory of a process that runs one sample: {figures.size(memory_bytes)}, {tag}"


def _with_caveat(detail: str, quality: Quality) -> str:
    return f"{detail}; {quality.caveat}" if quality.caveat else detail


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _prediction_detail(prediction: Prediction, accuracy: Interval) -> str:
    rate = figures.percent(prediction.rate, 0)
    detail = f"{rate} interval {figures.percent(accuracy.low)} to {figures.percent(accuracy.high)}"
    worst = prediction.worst_class
    if worst is not None:
        detail += (
            f"; class {worst.name} is most at risk: {figures.percent(worst.accuracy.value, 1)} expected, "
            f"{rate} interval {share_ends(worst.accuracy)}, {figures.percent(worst.base, 1)} in FP32"
        )
    if not prediction.plans:
        return f"{detail}; not yet checked against a measured variant"
    known = f"{figures.count(prediction.plans)} measured variant{'s' if prediction.plans > 1 else ''}"
    return f"{detail}; corrected by {known}"


def _worst_predicted(prediction: Prediction) -> str:
    """The class that may well lose most, with the points it is expected to: "Shirt −4.2"."""
    worst = prediction.worst_class
    if worst is None:
        return ""
    return _class_text(worst.name, worst.accuracy.value - worst.base)


def _worst_measured(variant: Variant) -> str:
    rows = variant.result.per_class if variant.result is not None else ()
    worst = min((row for row in rows if row.support), key=lambda row: row.variant - row.base, default=None)
    return "" if worst is None or variant.is_base else _class_text(worst.label, worst.variant - worst.base)


def _class_text(name: str, change: float) -> str:
    """What a class loses: "Shirt −4.2", "class 4 −4.2"; nothing where no loss shows."""
    if round(100 * change, 1) >= 0:
        return ""
    shown = f"class {name}" if name.isdigit() else name
    return f"{shown} {figures.number(100 * change, 1, signed=True)}"


def _short(delta: str) -> str:
    """A comparison with an arrow for its word: "2.7× ↓"."""
    for word, arrow in (("smaller", "↓"), ("larger", "↑"), ("faster", "↓"), ("slower", "↑")):
        delta = delta.replace(word, arrow)
    return delta


def _measured_tone(quality: Quality) -> Tone:
    if quality.loss is not None and quality.loss.value > 0 and quality.is_noise:
        return Tone.NEUTRAL
    return _tone(-quality.loss.value if quality.loss is not None else 0.0, quality.floor)


def _tone(change: float, floor: float) -> Tone:
    """A loss beyond the floor is more than something to look at."""
    if change >= 0:
        return Tone.GOOD
    return Tone.BAD if change < -floor else Tone.WARN


def _times(base: float, value: float, better: str, worse: str) -> tuple[str, Tone]:
    """How many times better or worse, in words; "same" where the digits shown are equal."""
    if value <= 0 or base <= 0:
        return "", Tone.NEUTRAL
    ratio = base / value
    if figures.ratio(ratio) == figures.ratio(1.0):
        return f"{figures.ratio(1.0)} same", Tone.NEUTRAL
    if ratio > 1:
        return f"{figures.ratio(ratio)} {better}", Tone.GOOD
    return f"{figures.ratio(1 / ratio)} {worse}", Tone.WARN

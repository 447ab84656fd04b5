"""The inspector: one layer's distributions and errors above, what the window puts there below."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from PySide6.QtWidgets import QGridLayout, QWidget

from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import FP32, LayerScheme
from quantstudio.core.recipe import RangeOverride
from quantstudio.core.schemes import NAMED_SCHEMES, scheme_name
from quantstudio.core.statistics import WeightStatistics
from quantstudio.core.weight_error import weight_sqnr_db
from quantstudio.gui.facts.export_notice import tell_export_failed
from quantstudio.gui.facts.layer_facts import (
    activation_distribution,
    channel_distribution,
    has_few_levels,
    override_for,
    weight_distribution,
)
from quantstudio.gui.features.inspect.channel_box import ChannelBox
from quantstudio.gui.features.inspect.plot_row import GAP, PlotRow
from quantstudio.gui.plots.channel_ranges import ChannelRangesPlot
from quantstudio.gui.plots.error_bits import ErrorBitsPlot, columns_for, precision_costs
from quantstudio.gui.plots.histogram import HistogramPlot
from quantstudio.gui.session import Session
from quantstudio.gui.widgets.elided_combo import ElidedComboBox
from quantstudio.gui.widgets.refresher import Refresher
from quantstudio.gui.widgets.segmented import Segmented

WEIGHTS = "weights"
ACTIVATIONS = "activations"
CHANNELS = "channels"
BITS = "bits"
# Which of the plots is redrawn first when several changed; the key figures come before them.
HISTOGRAM_TURN, BITS_TURN, CHANNELS_TURN = 1, 2, 3
TITLES = {WEIGHTS: "Weight distribution", ACTIVATIONS: "Activation distribution"}


class InspectPanel(QWidget):
    """Histogram with clip lines, channel ranges, error against bits; below them what other features bring."""

    def __init__(
        self,
        session: Session,
        parts: Iterable[QWidget] = (),
        plots: tuple[HistogramPlot, ChannelRangesPlot, ErrorBitsPlot] | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("panel.inspect")
        self._session = session
        self.histogram, self.channels, self.bits = plots or (
            HistogramPlot(),
            ChannelRangesPlot(),
            ErrorBitsPlot(),
        )
        self._build(parts)
        self._connect()
        for refresher in (self._histogram_refresher, self._channels_refresher, self._bits_refresher):
            refresher.request()

    def _build(self, parts: Iterable[QWidget]) -> None:
        self.kind = Segmented(((WEIGHTS, "Weights"), (ACTIVATIONS, "Activations")), "Values shown")
        self.kind.setObjectName("inspect.kind")
        self.histogram.replace_title(self.kind)
        self.tensor = ElidedComboBox()
        self.tensor.setObjectName("inspect.tensor")
        self.tensor.setAccessibleName("Activation tensor")
        self.tensor.setMinimumContentsLength(8)
        self.histogram.chooser.addWidget(self.tensor)
        self.channel = ChannelBox()
        self.histogram.footer.insertWidget(1, self.channel)
        self._switches: list[Segmented] = []
        for plot, key in ((self.channels, CHANNELS), (self.bits, BITS)):
            switch = Segmented(((CHANNELS, "Channels"), (BITS, "Bits")), "Plot shown")
            switch.setObjectName(f"inspect.switch.{key}")
            switch.set_current(key)
            switch.chosen.connect(self._on_right_chosen)
            plot.replace_title(switch)
            self._switches.append(switch)
        self.top = PlotRow(self.histogram, (self.channels, self.bits))
        self.top.width_changed.connect(self._on_width_changed)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(GAP)
        grid.addWidget(self.top, 0, 0)
        grid.setRowStretch(0, 1)
        for row_below, part in enumerate(parts, start=1):
            grid.addWidget(part, row_below, 0)
            grid.setRowStretch(row_below, 1)

    def _connect(self) -> None:
        session = self._session
        self._histogram_refresher = Refresher(self.histogram, HISTOGRAM_TURN)
        self._channels_refresher = Refresher(self.channels, CHANNELS_TURN)
        self._bits_refresher = Refresher(self.bits, BITS_TURN)
        self._histogram_refresher.due.connect(self._on_values_changed)
        self._channels_refresher.due.connect(self._show_channels)
        self._bits_refresher.due.connect(self._show_bits)
        every = (self._histogram_refresher, self._channels_refresher, self._bits_refresher)
        for signal, concerned in (
            (session.selection_changed, every),
            (session.model_changed, every),
            (session.weights_changed, every),
            (session.activations_changed, every[:1]),
            (session.recipe_changed, (self._histogram_refresher, self._bits_refresher)),
            (session.variants_changed, every[:1]),
            (session.sensitivity_changed, (self._bits_refresher,)),
        ):
            for refresher in concerned:
                signal.connect(refresher.request)
        self.kind.chosen.connect(self._on_kind_chosen)
        self.tensor.activated.connect(self._on_tensor_chosen)
        self.channel.chosen.connect(self._on_channel_chosen)
        session.levels_changed.connect(self._histogram_refresher.request)
        self.histogram.range_edited.connect(self._on_range_edited)
        self.histogram.range_reset.connect(self._on_range_reset)
        self.histogram.action_asked.connect(self._on_action_asked)
        self.channels.action_asked.connect(session.workspace.runs.analyze)
        self.bits.scheme_chosen.connect(self._on_scheme_chosen)
        for plot in (self.histogram, self.channels, self.bits):
            plot.export_failed.connect(self._on_export_failed)

    # ------------------------------------------------------------------ layout

    def _on_width_changed(self, is_wide: bool) -> None:
        """Both right plots side by side where there is room, each with its title; else one with a switch."""
        for switch in self._switches:
            switch.setVisible(not is_wide)
        for plot in (self.channels, self.bits):
            plot.show_title(is_shown=is_wide)

    def show_right(self, key: str) -> None:
        """Show the channel ranges or the error against bits."""
        self._switches[0].set_current(CHANNELS)
        self._switches[1].set_current(BITS)
        self.top.choose(self.channels if key == CHANNELS else self.bits)

    def _on_right_chosen(self, key: str) -> None:
        self.show_right(key)

    # ------------------------------------------------------------------ content

    def _without_layer(self) -> str:
        has_model = self._session.workspace.model is not None
        return "Choose a layer in the table." if has_model else "Open a model to look into its layers."

    def _layer(self) -> LayerInfo | None:
        name, model = self._session.current_layer, self._session.workspace.model
        return model.layer(name) if model is not None and name is not None else None

    def _on_values_changed(self) -> None:
        layer = self._layer()
        self._show_tensors(layer)
        self._show_histogram(layer)

    def _show_tensors(self, layer: LayerInfo | None) -> None:
        known = (
            self._session.workspace.activations.tensors
            if self._session.workspace.activations is not None
            else {}
        )
        wanted = [t for t in (*layer.inputs, *layer.outputs) if t in known] if layer is not None else []
        have = [self.tensor.itemData(i) for i in range(self.tensor.count())]
        if wanted != have:
            self.tensor.clear()
            for tensor in wanted:
                side = "in" if layer is not None and tensor in layer.inputs else "out"
                self.tensor.addItem(f"{side}: {tensor}", tensor)
        has_choice = self.kind.current == ACTIVATIONS and len(wanted) > 1
        self.tensor.setVisible(has_choice)
        few = layer is not None and has_few_levels(self._session.workspace.recipe.scheme_for(layer))
        self.channel.offer(self._channels(layer), has_few_levels=few)
        self.histogram.set_compact(has_choice)

    def _channels(self, layer: LayerInfo | None) -> tuple[int, bool]:
        """How many channels have levels of their own to look at, and whether they share none."""
        workspace = self._session.workspace
        if layer is None or self.kind.current != WEIGHTS or layer.name not in workspace.weights:
            return 0, False
        return workspace.levels.channels(layer), workspace.recipe.scheme_for(layer).weights.has_codebook

    def _show_histogram(self, layer: LayerInfo | None) -> None:
        self.histogram.set_title(TITLES[self.kind.current])
        if layer is None:
            self.histogram.subtitle.setText("")
            self.histogram.show_empty(self._without_layer())
        elif self.kind.current == WEIGHTS:
            self._show_weights(layer)
        else:
            self._show_activations(layer)

    def _show_weights(self, layer: LayerInfo) -> None:
        statistics = self._session.workspace.weights.get(layer.name)
        if statistics is None:
            self.histogram.subtitle.setText(layer.title)
            if not layer.weight_name:
                self.histogram.show_empty(f"{layer.op_type} layers multiply activations: no weights to show.")
            elif layer.stored_as:
                self.histogram.show_empty(_stored_text(layer))
            else:
                self.histogram.show_empty("The weights have not been analyzed yet.", "Analyze")
            return
        recipe = self._session.workspace.recipe
        override = override_for(recipe.weight_ranges, layer.name)
        known, channel = self._session.workspace.levels, self.channel.channel
        levels = known.of(layer, channel)
        if levels is not None:
            are_written = known.are_written(layer, channel)
            self.histogram.show_distribution(
                channel_distribution(levels, layer.label, recipe, are_written=are_written)
            )
            return
        drawn = weight_distribution(statistics, recipe.scheme_for(layer), override, recipe.on_target)
        self.histogram.show_distribution(
            replace(drawn, label=layer.label, source=layer.stored_as or FP32.label)
        )

    def _show_activations(self, layer: LayerInfo) -> None:
        activations = self._session.workspace.activations
        tensor = self.tensor.currentData()
        if activations is None:
            self.histogram.subtitle.setText(layer.title)
            can = self._session.workspace.calibration_data is not None
            self.histogram.show_empty(
                "Calibrate to see the values that flow through this layer."
                if can
                else "Choose calibration data to see the values that flow through this layer.",
                "Calibrate" if can else "",
            )
            return
        if tensor is None:
            self.histogram.subtitle.setText(layer.title)
            self.histogram.show_empty("No activation of this layer was recorded.")
            return
        recipe = self._session.workspace.recipe
        override = override_for(recipe.activation_ranges, tensor)
        scheme = recipe.scheme_for(layer) if tensor in layer.inputs else self._consumer_scheme(tensor)
        self.histogram.show_distribution(
            activation_distribution(
                tensor,
                activations.tensors[tensor],
                scheme,
                override,
                recipe.calibration,
                recipe.on_target,
            )
        )

    def _consumer_scheme(self, tensor: str) -> LayerScheme:
        layers = self._session.workspace.layers
        reader = next((layer for layer in layers if tensor in layer.inputs), None)
        return self._session.workspace.recipe.scheme_for(reader) if reader is not None else FP32

    def _show_channels(self) -> None:
        layer = self._layer()
        statistics = self._session.workspace.weights.get(layer.name) if layer is not None else None
        if statistics is not None and len(statistics.channel_low):
            self.channels.show_statistics(statistics)
        elif layer is None:
            self.channels.show_empty(self._without_layer())
        elif not layer.weight_name:
            self.channels.show_empty("This layer has no weights.")
        elif layer.stored_as:
            self.channels.show_empty(_stored_text(layer))
        else:
            self.channels.show_empty("The weights have not been analyzed yet.", "Analyze")

    def _show_bits(self) -> None:
        layer = self._layer()
        if layer is None or not layer.schemes:
            why = layer.reason if layer is not None else ""
            self.bits.subtitle.setText(layer.title if layer is not None else "")
            self.bits.show_empty(
                f"This layer stays in floating point: {why}" if why else self._without_layer()
            )
            return
        statistics = self._session.workspace.weights.get(layer.name)
        recipe = self._session.workspace.recipe
        current = recipe.scheme_for(layer)
        override = override_for(recipe.weight_ranges, layer.name)
        columns = columns_for(recipe.on_target.schemes(layer), current)
        costs = precision_costs(
            columns,
            {name: self._sqnr(statistics, NAMED_SCHEMES[name], current, override) for name in columns},
            self._session.workspace.layer_sensitivity.get(layer.name),
        )
        self.bits.show_costs(layer.title, costs, scheme_name(current))

    def _sqnr(
        self,
        statistics: WeightStatistics | None,
        scheme: LayerScheme,
        current: LayerScheme,
        override: RangeOverride | None,
    ) -> float | None:
        """As the table shows it for the scheme the layer has; a range set by hand is of that alone."""
        is_current = scheme_name(scheme) == scheme_name(current)
        target = self._session.workspace.recipe.on_target
        return weight_sqnr_db(
            statistics, current if is_current else scheme, override if is_current else None, target
        )

    # ------------------------------------------------------------------ commands

    def show_kind(self, key: str) -> None:
        """Show weights or activations."""
        self.kind.set_current(key)
        self._on_kind_chosen(key)

    def _on_kind_chosen(self, _key: str) -> None:
        layer = self._layer()
        self._show_tensors(layer)
        self._show_histogram(layer)

    def _on_tensor_chosen(self, _index: int) -> None:
        self._show_histogram(self._layer())

    def _on_channel_chosen(self, _channel: int) -> None:
        self._show_histogram(self._layer())

    def _on_range_edited(self, key: str, low: float, high: float) -> None:
        if self.kind.current == WEIGHTS:
            self._session.workspace.edits.set_weight_range(key, low, high)
        else:
            self._session.workspace.edits.set_activation_range(key, low, high)

    def _on_range_reset(self, key: str) -> None:
        if self.kind.current == WEIGHTS:
            self._session.workspace.edits.clear_weight_range(key)
        else:
            self._session.workspace.edits.clear_activation_range(key)

    def _on_action_asked(self) -> None:
        if self.kind.current == WEIGHTS:
            self._session.workspace.runs.analyze()
        else:
            self._session.workspace.runs.calibrate()

    def _on_scheme_chosen(self, name: str) -> None:
        layer = self._layer()
        if layer is not None:
            self._session.workspace.edits.set_scheme([layer.name], name)

    def _on_export_failed(self, error: object) -> None:
        tell_export_failed(self._session, error)


def _stored_text(layer: LayerInfo) -> str:
    return (
        f"The file holds these weights as {layer.stored_as} already: open the float model to see them whole."
    )

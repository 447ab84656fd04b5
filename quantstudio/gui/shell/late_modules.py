"""What is imported once the window is on the screen, on another thread, so that nobody waits for it.

Whatever opens when it is asked for (a dialog, the palette) is imported by the function that opens it; named
here, it is there by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

MACHINE = ("quantstudio.gui.facts.machine_facts",)
"""What the status line says at its right end."""

# numpy.ma comes with the first call of np.unique, which the first prediction makes; pyqtgraph makes no object
# that belongs to a thread. Together they take a third of a second.
PAGES = (
    "numpy.ma",
    "pyqtgraph",
    "quantstudio.workspace.what_if",
    "quantstudio.gui.plots.channel_ranges",
    "quantstudio.gui.plots.class_accuracy",
    "quantstudio.gui.plots.error_bits",
    "quantstudio.gui.plots.histogram",
    "quantstudio.gui.plots.latency",
    "quantstudio.gui.plots.layer_recovery",
    "quantstudio.gui.plots.sensitivity_classes",
    "quantstudio.gui.plots.sensitivity_strip",
    "quantstudio.gui.plots.size_bars",
    "quantstudio.gui.plots.trade_off",
    "quantstudio.gui.plots.training_curve",
    "quantstudio.gui.plots.waterfall",
    "quantstudio.gui.features.sensitivity.sensitivity_panel",
    "quantstudio.gui.features.inspect.inspect_panel",
    "quantstudio.gui.features.improve.improve_panel",
    "quantstudio.gui.features.search.search_panel",
    "quantstudio.gui.features.tradeoff.check_panel",
    "quantstudio.gui.features.tradeoff.tradeoff_panel",
    "quantstudio.gui.features.compare.compare_panel",
)
"""The pages, what they draw with, and what predicts."""

DIALOGS = (
    "quantstudio.jobs.backends.supervisor",
    "quantstudio.workspace.exports",
    "quantstudio.workspace.report_data",
    "quantstudio.gui.features.data.data_dialog",
    "quantstudio.gui.features.data.trust_dialog",
    "quantstudio.gui.features.export.export_dialog",
    "quantstudio.gui.features.plans.rules_dialog",
    "quantstudio.gui.features.start.dialogs",
    "quantstudio.gui.shell.help_dialogs",
    "quantstudio.gui.shell.palette",
    "quantstudio.gui.shell.settings_dialog",
)
"""What opens when it is asked for; what the first job needs, and files that are written."""


def import_late(names: Sequence[str]) -> None:
    """Import modules; those that are there already cost nothing."""
    for name in names:
        import_module(name)

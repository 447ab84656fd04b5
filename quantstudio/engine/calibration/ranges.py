"""Activation ranges, as the engine names them; the mathematics is in core, where the window reads it too."""

from __future__ import annotations

from quantstudio.core.activation_ranges import activation_range, all_ranges

__all__ = ["activation_range", "all_ranges"]

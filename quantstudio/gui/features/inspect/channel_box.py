"""Which output channel the histogram shows."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QSpinBox, QWidget

EVERY = -1


class ChannelBox(QSpinBox):
    """A number with its name; of weights that have no codebook also "all channels".

    Signals:
        chosen(int): another channel is to be shown; -1 for all.
    """

    chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("inspect.channel")
        self.setAccessibleName("Output channel shown")
        self.setToolTip("Output channel whose weights and levels are shown")
        self.setPrefix("channel ")
        self.setRange(EVERY, EVERY)
        self._is_picked = False
        self.valueChanged.connect(self._on_changed)
        self.hide()

    @property
    def channel(self) -> int:
        """The channel shown; -1 for all."""
        return self.value() if self.maximum() >= 0 else EVERY

    def offer(self, channels: tuple[int, bool], *, has_few_levels: bool = False) -> bool:
        """Offer so many channels, with a codebook each or not; whether there are any.

        Channels with a codebook have no level in common: one of them is always the one that is shown. Where
        there are few levels that matter one by one, one is shown until another, or all, are picked.
        """
        count, has_codebook = channels
        least = 0 if has_codebook and count else EVERY
        before = self.blockSignals(True)
        self.setSpecialValueText("" if has_codebook else "all channels")
        wanted = self.value() if self._is_picked else 0 if has_few_levels else EVERY
        shown = min(max(wanted, least), count - 1) if count else EVERY
        self.setRange(least, count - 1)
        self.setValue(shown)
        self.blockSignals(before)
        self.setVisible(count > 0)
        return count > 0

    def _on_changed(self, channel: int) -> None:
        self._is_picked = True
        self.chosen.emit(channel)

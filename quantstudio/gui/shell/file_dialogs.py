"""Dialogs for files, which open and return at once; the folder of the last one is remembered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtWidgets import QFileDialog, QWidget

from quantstudio.gui.shell.settings import Settings


class FileDialogs:
    """Asks for files on behalf of a window."""

    def __init__(self, window: QWidget, settings: Settings) -> None:
        self._window = window
        self._settings = settings

    def ask_for_file(self, name: str, title: str, filters: str, then: Callable[[str], None]) -> None:
        """Ask for a file that exists and hand its path on.

        Args:
            name: Id of the action; the object name of the dialog is this and ".dialog".
            title: Title of the dialog.
            filters: Qt's filters, ";;" between them.
            then: Gets the path.
        """
        dialog = QFileDialog(self._window, title, self._settings.folder, filters)
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        self._open(dialog, name, then)

    def ask_for_target(
        self, name: str, title: str, proposed: str, filters: str, then: Callable[[str], None]
    ) -> None:
        """Ask for a file to write, `proposed` for its name, and hand its path on."""
        folder = Path(self._settings.folder)
        dialog = QFileDialog(self._window, title, str(folder / proposed), filters)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        self._open(dialog, name, then)

    def _open(self, dialog: QFileDialog, name: str, then: Callable[[str], None]) -> None:
        dialog.setObjectName(f"{name}.dialog")
        dialog.fileSelected.connect(lambda path: self._on_chosen(path, then))
        dialog.open()

    def _on_chosen(self, path: str, then: Callable[[str], None]) -> None:
        self._settings.folder = str(Path(path).parent)
        then(path)

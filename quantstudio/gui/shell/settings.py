"""What the window remembers between sessions: theme, threads, recent files, shortcuts, page, geometry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QByteArray, QObject, QSettings, Signal

from quantstudio.core.folders import config_folder
from quantstudio.gui.theme import ThemeChoice
from quantstudio.workspace.values import EngineOptions

RECENT_KEPT = 10
LAYOUT_VERSION = 1
ENGINE_KEYS = ("threads", "provider", "device", "batch")


class Settings(QObject):
    """One INI file in the configuration folder; every change is written at once.

    Emits `changed(key)`.
    """

    changed = Signal(str)

    def __init__(self, path: Path | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._store = QSettings(
            str(path or config_folder() / "settings.ini"), QSettings.Format.IniFormat, self
        )

    @property
    def theme(self) -> ThemeChoice:
        """System, light or dark."""
        try:
            return ThemeChoice(self._text("theme", ThemeChoice.SYSTEM.value))
        except ValueError:
            return ThemeChoice.SYSTEM

    @theme.setter
    def theme(self, choice: ThemeChoice) -> None:
        self._put("theme", choice.value)

    @property
    def engine(self) -> EngineOptions:
        """Where and how the engine computes."""
        batch = max(1, self._count("batch", 1))
        return EngineOptions(
            self._count("threads", 0), self._text("provider", "cpu"), self._text("device", "cpu"), batch
        )

    @engine.setter
    def engine(self, options: EngineOptions) -> None:
        before = self.engine
        for key in ENGINE_KEYS:
            if getattr(options, key) != getattr(before, key):
                self._put(key, str(getattr(options, key)))

    @property
    def last_project(self) -> str:
        """Session or project to open at the next start; empty for none, or where it is gone."""
        path = self._text("last_project", "")
        return path if path and Path(path).is_file() else ""

    @last_project.setter
    def last_project(self, path: str) -> None:
        self._put("last_project", path)

    @property
    def has_last_project(self) -> bool:
        """Whether a window noted what was open in it, there or not."""
        return bool(self._text("last_project", ""))

    @property
    def page(self) -> str:
        """Name of the page that was in front last; empty at the first start."""
        return self._text("page", "")

    @page.setter
    def page(self, name: str) -> None:
        self._put("page", name)

    @property
    def folder(self) -> str:
        """Folder file dialogs open in."""
        return self._text("folder", "")

    @folder.setter
    def folder(self, path: str) -> None:
        self._put("folder", path)

    @property
    def recent(self) -> tuple[str, ...]:
        """Models and projects opened lately, newest first, without missing ones; sessions are not here."""
        return tuple(p for p in self._list("recent") if Path(p).exists())

    def add_recent(self, path: str) -> None:
        """Put a file in front of the recent ones."""
        full = str(Path(path).resolve())
        kept = [full, *(p for p in self._list("recent") if p != full)][:RECENT_KEPT]
        self._put("recent", "\n".join(kept))

    def forget_recent(self, path: str) -> None:
        """Leave one file out of the recent ones."""
        self._put("recent", "\n".join(one for one in self._list("recent") if one != path))

    def clear_recent(self) -> None:
        """Forget recent files."""
        self._put("recent", "")

    def shortcut(self, action: str) -> str | None:
        """The user's key for an action; None where they did not choose one, empty for no key."""
        key = f"shortcuts/{action}"
        return self._text(key, "") if self._store.contains(key) else None

    def set_shortcut(self, action: str, keys: str | None) -> None:
        """Choose a key for an action, or go back to its own with None."""
        if keys is None:
            self._store.remove(f"shortcuts/{action}")
            self.changed.emit(f"shortcuts/{action}")
        else:
            self._put(f"shortcuts/{action}", keys)

    def layout(self, name: str) -> QByteArray:
        """A saved geometry or window state; empty if there is none."""
        value = self._store.value(f"layout{LAYOUT_VERSION}/{name}")
        return value if isinstance(value, QByteArray) else QByteArray()

    def save_layout(self, name: str, value: QByteArray) -> None:
        """Keep a geometry or window state; the file is not written for what it holds."""
        if self.layout(name) != value:
            self._store.setValue(f"layout{LAYOUT_VERSION}/{name}", value)

    def _count(self, key: str, otherwise: int) -> int:
        text = self._text(key, "")
        return int(text) if text.isdecimal() else otherwise

    def _text(self, key: str, default: str) -> str:
        value = self._store.value(key, default)
        # An unescaped comma makes QSettings return a list.
        return (
            ",".join(str(v) for v in value)
            if isinstance(value, Sequence) and not isinstance(value, str)
            else str(value)
        )

    def _list(self, key: str) -> list[str]:
        return [line for line in self._text(key, "").split("\n") if line]

    def _put(self, key: str, value: str) -> None:
        if self._text(key, "") == value and self._store.contains(key):
            return
        self._store.setValue(key, value)
        self.changed.emit(key)

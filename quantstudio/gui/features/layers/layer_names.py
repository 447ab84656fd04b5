"""Long layer names in a narrow column: what all share goes, what tells neighbours apart stays."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import takewhile

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, Qt
from PySide6.QtGui import QFontMetrics
from PySide6.QtWidgets import QStyledItemDelegate, QStyleOptionViewItem
from typing_extensions import override

LONG = 24  # characters; shorter names fit as they are
# Of all names; what so many begin with tells nothing, whatever an embedding and a head are called.
_MOST = 2 / 3
_PARTS = re.compile(r"[^/.]+|[/.]")
_PADDING_PX = 14


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names without the path parts that all of them begin or end with, or nearly all begin with.

    Args:
        names: Layer names, parts between slashes or dots.

    Returns:
        Short name by name, "…" standing for what was left out; empty where names are short or share nothing.
    """
    if len(names) < 2 or max(map(len, names)) <= LONG:
        return {}
    separator = "/" if any("/" in name for name in names) else "."
    parts = [name.split(separator) for name in names]
    room = min(map(len, parts)) - 1  # something of every name stays
    first = _shared(parts, room)
    last = _shared([part[::-1] for part in parts], room - first)
    if first or last:
        return {name: _cut(part, first, last, separator) for name, part in zip(names, parts, strict=True)}
    start = _start_of_most(parts)
    return {
        name: _cut(part, len(start), 0, separator)
        for name, part in zip(names, parts, strict=True)
        if start and part[: len(start)] == start
    }


def _cut(part: Sequence[str], first: int, last: int, separator: str) -> str:
    kept = separator.join([*part[first : len(part) - last], *["…"][: bool(last)]])
    # A dot behind the dots would be one too many.
    return f"…{separator if separator != '.' else ''}{kept}" if first else kept


def _start_of_most(parts: Sequence[Sequence[str]]) -> list[str]:
    """Parts that most names begin with: "model", "layers" of blocks between an embedding and a head."""
    start: list[str] = []
    rest = [part for part in parts if len(part) > 1]
    while rest:
        most, count = Counter(part[len(start)] for part in rest).most_common(1)[0]
        if count < _MOST * len(parts):
            break
        start.append(most)
        rest = [part for part in rest if part[len(start) - 1] == most and len(part) > len(start) + 1]
    return start


def _shared(parts: Sequence[Sequence[str]], room: int) -> int:
    """How many parts all begin with, `room` at most."""
    columns = list(zip(*parts, strict=False))[:room]
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def elided_apart(name: str, neighbours: Sequence[str], elide: Callable[[str], str]) -> str:
    """A name cut in the middle so that it still differs from its neighbours.

    Args:
        name: The whole name.
        neighbours: Names above and below it.
        elide: Cuts a text in the middle to the room there is.
    """
    shown = elide(name)
    if shown == name or all(elide(other) != shown for other in neighbours if other != name):
        return shown
    parts = _PARTS.findall(name)
    common = max(_common(parts, _PARTS.findall(other)) for other in neighbours if other != name)
    for start in range(1, common + 1):
        # From the left, as little as possible is lost.
        rest = "…" + "".join(parts[start:])
        shown = elide(rest)
        if all(elide("…" + "".join(_PARTS.findall(other)[start:])) != shown for other in neighbours):
            return shown
    return shown


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


class LayerNameDelegate(QStyledItemDelegate):
    """Draws a name; where it does not fit, the part that tells it from the rows above and below stays."""

    @override
    def initStyleOption(
        self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        super().initStyleOption(option, index)
        option.textElideMode = Qt.TextElideMode.ElideMiddle
        room = option.rect.width() - _PADDING_PX
        metrics = QFontMetrics(option.font)
        if metrics.horizontalAdvance(option.text) <= room:
            return
        around = (index.sibling(index.row() + step, index.column()).data() for step in (-1, 1))
        option.text = elided_apart(
            option.text,
            [str(name) for name in around if name is not None],
            lambda text: metrics.elidedText(text, Qt.TextElideMode.ElideMiddle, room),
        )

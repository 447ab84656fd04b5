"""The colours of both themes, by what they are for."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtGui import QColor


@dataclass(frozen=True, slots=True)
class Theme:
    """Colour roles as #RRGGBB; the names say what a colour is for.

    Attributes:
        name: "light" or "dark".
        window: Behind the cards.
        surface: Cards, tables, fields.
        raised: Tool tips, menus, toasts.
        border: One-pixel lines.
        text: Text.
        muted: Secondary text; at least 4.5:1 on `surface`.
        faint: Graphics and disabled text only; too pale to read.
        placeholder: Hints inside empty fields.
        accent: The one accent.
        accent_hover: The accent under the pointer.
        accent_soft: Selected rows.
        on_accent: Text on the accent.
        grid: Plot grid, tracks of bars.
        fp: Series colour of FP32 (Okabe-Ito blue).
        q: Series colour of quantized (Okabe-Ito vermilion).
        ok: Good.
        warn: Look at this.
        bad: Wrong.
        alt: Every second row.
        hover: Under the pointer.
        series: Colours of any number of series, in order.
    """

    name: str
    window: str
    surface: str
    raised: str
    border: str
    text: str
    muted: str
    faint: str
    placeholder: str
    accent: str
    accent_hover: str
    accent_soft: str
    on_accent: str
    grid: str
    fp: str
    q: str
    ok: str
    warn: str
    bad: str
    alt: str
    hover: str
    series: tuple[str, ...]

    @property
    def is_dark(self) -> bool:
        """Whether text is light on dark."""
        return self.name == "dark"

    def color(self, role: str) -> QColor:
        """The colour of a role by name.

        Raises:
            AttributeError: there is no such role.
        """
        return QColor(getattr(self, role))


LIGHT = Theme(
    name="light",
    window="#F4F5F7",
    surface="#FFFFFF",
    raised="#FAFBFC",
    border="#DDE1E6",
    text="#1B1F24",
    muted="#5B6470",
    faint="#8A929C",
    placeholder="#6B7480",
    accent="#2563C9",
    accent_hover="#1D55B0",
    accent_soft="#E4EDFB",
    on_accent="#FFFFFF",
    grid="#E9ECEF",
    fp="#0072B2",
    q="#D55E00",
    ok="#00795B",
    warn="#9A6700",
    bad="#B3261E",
    alt="#F8F9FB",
    hover="#EDF0F4",
    series=("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
)
DARK = Theme(
    name="dark",
    window="#15181D",
    surface="#1C2026",
    raised="#22272E",
    border="#313842",
    text="#E6E9ED",
    muted="#A3ACB8",
    faint="#7A838F",
    placeholder="#8B949F",
    accent="#6AA6FF",
    accent_hover="#86B7FF",
    accent_soft="#223452",
    on_accent="#0C1522",
    grid="#2A3038",
    fp="#56B4E9",
    q="#F08A3C",
    ok="#3FC79A",
    warn="#E3B341",
    bad="#FF7B72",
    alt="#1F242A",
    hover="#272D35",
    series=("#56B4E9", "#F08A3C", "#3FC79A", "#DE95BF", "#F0C24B", "#8FD0F5"),
)
THEMES = {LIGHT.name: LIGHT, DARK.name: DARK}

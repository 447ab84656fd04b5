"""Both themes: contrast, style sheet, icons, the signal."""

from collections import Counter
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QPalette
from PySide6.QtWidgets import QListWidget

from quantstudio.gui.theme import (
    DARK,
    LIGHT,
    Theme,
    ThemeChoice,
    apply_theme,
    current_theme,
    icon,
    icons,
    resolve_choice,
    style_sheet,
    theme_hub,
    ui_font,
)
from quantstudio.gui.theme.icons import pixmap, svg_source

BOTH = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])

ICONS = sorted(path.stem for path in Path(icons.__file__).parent.glob("*.svg"))


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2.1."""
    value = QColor(color)
    parts = [value.redF(), value.greenF(), value.blueF()]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@BOTH
@pytest.mark.parametrize("role", ["text", "muted", "placeholder", "accent", "ok", "warn", "bad"])
def test_that_text_colours_are_readable_on_cards(theme, role):
    assert contrast(getattr(theme, role), theme.surface) >= 4.5


@BOTH
def test_that_text_on_the_accent_and_on_selected_rows_is_readable(theme):
    assert contrast(theme.on_accent, theme.accent) >= 4.5
    assert contrast(theme.text, theme.accent_soft) >= 7


@BOTH
def test_that_series_colours_stand_out_from_the_card(theme):
    assert min(contrast(c, theme.surface) for c in (theme.fp, theme.q)) >= 3


@BOTH
def test_that_no_role_is_left_in_the_style_sheet(qapp, theme):
    text = style_sheet(theme)
    assert "@" not in text
    assert theme.accent in text


@BOTH
def test_that_applying_a_theme_tells_views_after_the_palette_is_set(qtbot, qapp, theme):
    seen: list[tuple[Theme, str]] = []

    def look(new: Theme) -> None:
        seen.append((new, qapp.palette().color(QPalette.ColorRole.Window).name()))

    theme_hub().theme_changed.connect(look)
    try:
        apply_theme(qapp, theme)
    finally:
        theme_hub().theme_changed.disconnect(look)
    assert seen == [(theme, theme.window.lower())]
    assert current_theme() is theme


@pytest.mark.parametrize(
    ("choice", "scheme", "expected"),
    [
        (ThemeChoice.SYSTEM, Qt.ColorScheme.Unknown, LIGHT),
        (ThemeChoice.SYSTEM, Qt.ColorScheme.Dark, DARK),
        (ThemeChoice.LIGHT, Qt.ColorScheme.Dark, LIGHT),
        (ThemeChoice.DARK, Qt.ColorScheme.Light, DARK),
    ],
    ids=["unknown-is-light", "follows-dark", "light-is-kept", "dark-is-kept"],
)
def test_that_the_setting_decides_and_system_follows(choice, scheme, expected):
    assert resolve_choice(choice, scheme) is expected


@pytest.mark.parametrize("name", ICONS)
def test_that_every_icon_draws_something_sharp_at_twice_the_size(qapp, name):
    made = pixmap(name, "#112233", 18, 2.0)
    assert made.width() == 36
    image = made.toImage()
    inked = sum(image.pixelColor(x, y).alpha() > 128 for x in range(36) for y in range(36))
    assert 5 < inked < 36 * 36


@pytest.mark.parametrize("name", [n for n in ICONS if n != "app"])
def test_that_icons_are_strokes_on_the_24_grid_in_the_current_colour(name):
    source = svg_source(name, "#ABCDEF")
    assert 'viewBox="0 0 24 24"' in source
    assert 'stroke="#ABCDEF"' in source
    assert "currentColor" not in source


def test_that_an_icon_follows_the_theme(qapp):
    def ink(image):
        """The commonest opaque colour: the edges are blended."""
        found = Counter(
            image.pixelColor(x, y).name()
            for x in range(image.width())
            for y in range(image.height())
            if image.pixelColor(x, y).alpha() == 255
        )
        return found.most_common(1)[0][0]

    apply_theme(qapp, LIGHT)
    light = ink(icon("stop", size=96).pixmap(96, 96).toImage())
    apply_theme(qapp, DARK)
    dark = ink(icon("stop", size=96).pixmap(96, 96).toImage())
    apply_theme(qapp, LIGHT)
    assert light == LIGHT.text.lower()
    assert dark == DARK.text.lower()


def test_that_figures_have_equal_width(qapp):
    from PySide6.QtGui import QFontMetricsF

    metrics = QFontMetricsF(ui_font())
    assert metrics.horizontalAdvance("111111") == pytest.approx(metrics.horizontalAdvance("888888"))


@BOTH
def test_that_an_empty_check_box_in_a_list_can_be_seen(qtbot, qapp, theme):
    apply_theme(qapp, theme)
    rows = QListWidget()
    qtbot.addWidget(rows)
    rows.addItem("Correct biases")
    rows.item(0).setCheckState(Qt.CheckState.Unchecked)
    rows.show()
    drawn = rows.viewport().grab(rows.visualItemRect(rows.item(0))).toImage()
    line = [drawn.pixelColor(x, drawn.height() // 2).name() for x in range(30)]
    assert max(contrast(colour, theme.surface) for colour in line) >= 2

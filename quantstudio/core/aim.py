"""What the preset `auto` is after, among the candidates that hold the floor of the task."""

from __future__ import annotations

from enum import StrEnum

from quantstudio.core.errors import RecipeError


class Aim(StrEnum):
    """What counts among candidates that lose no more than the floor and are no slower than FP32.

    FAST takes the fastest, of equally fast ones the smallest file; SMALL the smallest file, of equally small
    ones the fastest; ACCURATE the one that loses least, the fastest of those within the noise of it.
    """

    FAST = "fast"
    SMALL = "small"
    ACCURATE = "accurate"

    @property
    def text(self) -> str:
        """What it takes, for a menu and an explanation."""
        return _TEXTS[self]


_TEXTS = {
    Aim.FAST: "the fastest that holds the floor",
    Aim.SMALL: "the smallest that holds the floor",
    Aim.ACCURATE: "the most accurate that is not slower",
}
DEFAULT_AIM = Aim.FAST


def aim_named(name: str) -> Aim:
    """The aim of a name; the default one of an empty name.

    Raises:
        RecipeError: there is none; the hint lists what there is.
    """
    if not name:
        return DEFAULT_AIM
    if name not in list(Aim):
        raise RecipeError(f"unknown aim {name!r}", hint=f"Choose one of {', '.join(Aim)}")
    return Aim(name)

"""What a person can do about something that went wrong, said without any interface.

The engine does not know who reads it: the command line words the action as an option, the window as a button
that does it, a script as the sentence alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class HintAction(StrEnum):
    """Something that every interface offers in its own way."""

    CHOOSE_DATA = "choose_data"
    CHECK_DATA = "check_data"
    TRUST_DATA = "trust_data"
    USE_TRANSFORM = "use_transform"
    CHOOSE_TASK = "choose_task"
    NAME_BATCH_AXIS = "name_batch_axis"
    OPEN_MODEL = "open_model"
    OPEN_MODEL_AGAIN = "open_model_again"
    TRUST_MODEL = "trust_model"
    GIVE_FACTORY = "give_factory"
    LEAVE_OUT_FACTORY = "leave_out_factory"
    LIST_LAYERS = "list_layers"
    CALIBRATE = "calibrate"
    ANALYZE = "analyze"
    QUANTIZE = "quantize"
    RECOVER = "recover"
    CHOOSE_RECIPE = "choose_recipe"
    CHOOSE_DEVICE = "choose_device"
    OPEN_PROJECT = "open_project"
    OPEN_SESSION = "open_session"
    LOCATE_FILES = "locate_files"


@dataclass(frozen=True, slots=True)
class Hint:
    """What to do about an error or a notice; false where there is nothing.

    Attributes:
        text: One sentence that needs no interface: no option, no command, no menu.
        action: What an interface can offer beside it; None where the sentence is all.
    """

    text: str = ""
    action: HintAction | None = None

    @classmethod
    def from_text(cls, text: str) -> Hint:
        """A hint of words alone, as events and errors held them before there were actions."""
        return cls(text)

    def __bool__(self) -> bool:
        return bool(self.text)

    def __str__(self) -> str:
        return self.text


NO_HINT = Hint()


def as_hint(hint: str | Hint) -> Hint:
    """The hint itself; words alone become one without an action."""
    return hint if isinstance(hint, Hint) else Hint(hint)

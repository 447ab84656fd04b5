"""What the window offers for each action of a hint: the words of a button, and the action behind it."""

from __future__ import annotations

from collections.abc import Mapping

from quantstudio.core.hints import HintAction

OFFERS: Mapping[HintAction, tuple[str, str]] = {
    HintAction.CHOOSE_DATA: ("Choose data…", "model.data"),
    HintAction.CHECK_DATA: ("Check the data…", "model.data"),
    HintAction.TRUST_DATA: ("Agree to run it…", "model.data"),
    HintAction.USE_TRANSFORM: ("Choose the transform…", "model.data"),
    HintAction.CHOOSE_TASK: ("Choose the task…", "model.data"),
    HintAction.NAME_BATCH_AXIS: ("Name the axis…", "model.data"),
    HintAction.OPEN_MODEL: ("Open a model…", "file.open"),
    HintAction.OPEN_MODEL_AGAIN: ("Open it again", "file.reopen"),
    HintAction.TRUST_MODEL: ("Agree to run it…", "file.reopen"),
    HintAction.GIVE_FACTORY: ("Give a function…", "file.reopen"),
    HintAction.LEAVE_OUT_FACTORY: ("Open it again…", "file.reopen"),
    HintAction.LIST_LAYERS: ("Show the layers", "edit.find"),
    HintAction.CALIBRATE: ("Calibrate", "run.calibrate"),
    HintAction.ANALYZE: ("Sensitivity", "run.sensitivity"),
    HintAction.QUANTIZE: ("Quantize", "run.quantize"),
    HintAction.RECOVER: ("Improve", "view.improve"),
    HintAction.CHOOSE_RECIPE: ("Choose another…", "file.open"),
    HintAction.CHOOSE_DEVICE: ("Settings…", "edit.settings"),
    HintAction.OPEN_PROJECT: ("Open…", "file.open"),
    HintAction.OPEN_SESSION: ("Go on there", "file.earlier"),
    HintAction.LOCATE_FILES: ("Locate files…", "file.locate"),
}
"""Words and id of the window's action; dots say that it asks something first."""

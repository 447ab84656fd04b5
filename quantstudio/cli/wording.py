"""What to do about an error, as the command line says it: the sentence, and the option or command for it."""

from __future__ import annotations

from collections.abc import Mapping

from quantstudio.core.hints import Hint, HintAction

WORDS: Mapping[HintAction, str] = {
    HintAction.CHOOSE_DATA: "--data FILE",
    HintAction.CHECK_DATA: "--data, --transform",
    HintAction.TRUST_DATA: "--trust",
    HintAction.USE_TRANSFORM: "--transform",
    HintAction.CHOOSE_TASK: "--task, --judged-output",
    HintAction.NAME_BATCH_AXIS: "--batch-axis NAME=K",
    HintAction.OPEN_MODEL: "as MODEL",
    HintAction.OPEN_MODEL_AGAIN: "run the command again",
    HintAction.TRUST_MODEL: "--trust",
    HintAction.GIVE_FACTORY: "--factory module:callable",
    HintAction.LEAVE_OUT_FACTORY: "without --factory",
    HintAction.LIST_LAYERS: "`quantstudio inspect MODEL`",
    HintAction.CALIBRATE: "`quantstudio calibrate MODEL`",
    HintAction.ANALYZE: "`quantstudio sensitivity MODEL`",
    HintAction.QUANTIZE: "`quantstudio quantize MODEL -o OUT.onnx`",
    HintAction.CHOOSE_RECIPE: "`quantstudio quantize MODEL -o OUT.onnx`",
    HintAction.CHOOSE_DEVICE: "`quantstudio devices`",
    HintAction.OPEN_PROJECT: "`quantstudio PROJECT`",
    HintAction.RECOVER: "`quantstudio recover`",
    HintAction.OPEN_SESSION: "`quantstudio PROJECT`",
    HintAction.LOCATE_FILES: "`quantstudio PROJECT`",
}
"""The option or command behind each action, as it stands in brackets behind the sentence."""


def worded(hint: Hint) -> str:
    """A hint with the option or command that does it."""
    if hint.action is None:
        return hint.text
    return f"{hint.text.rstrip('.')} ({WORDS[hint.action]})"

"""What to do about an error, said for the window: the engine's hints name the command line too."""

from __future__ import annotations

# Phrases of hints and what they become here, the longer before what they contain.
_PHRASES = (
    ("Run `quantstudio inspect MODEL` for the layer names", "The layer table lists the names"),
    (
        "Run `quantstudio inspect MODEL` to see what each layer can be",
        "The layer table offers for each layer what it can be",
    ),
    ("Check its weights with `quantstudio inspect`", "Check its weights in the layer table"),
    (" (`quantstudio inspect`)", ""),
    ("Leave out --factory and --state, or give", "Open it without a function, or choose"),
    ("with --factory module:callable", "as module:callable"),
    (", agree when asked or pass --trust", ", open it again and agree when asked"),
    (", confirm the question, or pass --trust", ", open it again and agree when asked"),
    ("Choose data: Model, Data, or --data", "Choose data with Model, Data"),
    ("Choose calibration data: Model, Data, or --data", "Choose calibration data with Model, Data"),
    ("Give what `quantize -o` wrote", "Choose a model that was built here"),
    ("that `quantize` and Export write", "that Export writes"),
)


def window_hint(hint: str) -> str:
    """A hint with what can be done in the window in place of commands and options."""
    for phrase, said in _PHRASES:
        hint = hint.replace(phrase, said)
    return hint

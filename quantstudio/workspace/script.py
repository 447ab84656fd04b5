"""How to do again, outside, what the workspace did: as commands of a shell, as Python."""

from __future__ import annotations

import shlex
from pathlib import Path

from quantstudio.workspace.known import Known


def command_line(known: Known, output: str) -> str:
    """The shell commands that give the same file."""
    output = output or "OUT.onnx"
    recipe = str(Path(output).with_suffix(".recipe.json"))
    subject, data = known.subject, known.calibration_data
    parts = ["quantstudio", "quantize", (subject.state_path if subject else "") or _model_path(known)]
    if data is not None:
        parts += ["--data", data.path, "--samples", str(known.recipe.calibration.samples)]
        if data.transform.text:
            parts += ["--transform", data.transform.text]
        for name, axis in data.batch_axes:
            parts += ["--batch-axis", f"{name}={axis}"]
    if subject is not None and subject.factory:
        parts += ["--factory", subject.factory]
    if (subject is not None and subject.is_trusted) or (data is not None and data.trusted):
        parts += ["--trust"]
    parts += ["--recipe", recipe, "-o", output]
    again = shlex.join(["quantstudio", "run", recipe])
    if data is not None and data.samples:
        # Only the recipe can say that no more than the first samples count.
        return f"# Export the recipe too: it makes the same file again.\n{again}\n"
    return f"{shlex.join(parts)}\n\n# or, from the recipe alone, checked byte for byte:\n{again}\n"


def python_code(known: Known, output: str) -> str:
    """The same work in Python."""
    output = output or "OUT.onnx"
    recipe = str(Path(output).with_suffix(".recipe.json"))
    subject, data = known.subject, known.calibration_data
    is_trusted = subject is not None and (subject.is_trusted or bool(subject.factory))
    arguments = [repr((subject.state_path if subject else "") or _model_path(known))]
    if data is not None:
        arguments.append(f"data={data.path!r}")
        if data.transform.text:
            arguments.append(f"transform={data.transform.text!r}")
        if data.samples:
            arguments.append(f"samples={data.samples}")
        if data.batch_axes:
            arguments.append(f"batch_axes={dict(data.batch_axes)!r}")
    if subject is not None and subject.factory:
        arguments.append(f"factory={subject.factory!r}")
    if is_trusted or (data is not None and data.trusted):
        arguments.append("trust=True")
    lines = [
        "import quantstudio as qs",
        "",
        "with qs.Workspace(",
        *(f"    {argument}," for argument in arguments),
        ") as ws:",
        f"    ws.quantize({recipe!r})",
        f"    ws.export({output!r}, with_recipe=False)",
    ]
    return "\n".join(lines) + "\n"


def _model_path(known: Known) -> str:
    return known.model.source_path if known.model else "MODEL"

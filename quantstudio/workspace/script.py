"""How to do again, outside, what the workspace did: as commands of a shell, as Python."""

from __future__ import annotations

import shlex
from pathlib import Path

from quantstudio.core.data_spec import DataSpec
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
    opened = f"path={_model_path(known)!r}"
    if subject is not None and subject.is_trusted:
        opened += ", trust=True"
    if subject is not None and subject.factory:
        opened = f"path={subject.factory!r}, trust=True, state={subject.state_path!r}"
    lines = [
        "from pathlib import Path",
        "",
        "from quantstudio.core.codec import to_json",
        "from quantstudio.engine.tasks.models import open_model",
        "from quantstudio.engine.tasks.quantize import quantize",
        "from quantstudio.project.recipe_file import read_recipe_file",
        "",
        f"recipe = read_recipe_file(Path({recipe!r})).recipe",
        f"model = open_model({opened})",
    ]
    if data is not None:
        lines += [
            f"data = DataSpec({data.path!r}, parse_transform({data.transform.text!r}){_limits(data)})",
            "statistics = calibrate(",
            "    graph_path=model.graph_path, data=to_json(data), samples=recipe.calibration.samples",
            ")",
        ]
    statistics = "statistics=statistics.path, " if data is not None else ""
    lines += [
        "result = quantize(",
        f"    graph_path=model.graph_path, {statistics}recipe=to_json(recipe),",
        f"    output={output!r},",
        ")",
        "print(result.build.size_bytes, result.build.digest)",
    ]
    if data is not None:
        lines[3:3] = [
            "from quantstudio.core.data_spec import DataSpec, parse_transform",
            "from quantstudio.engine.tasks.calibration import calibrate",
        ]
    return "\n".join(lines) + "\n"


def _model_path(known: Known) -> str:
    return known.model.source_path if known.model else "MODEL"


def _limits(data: DataSpec) -> str:
    text = f", samples={data.samples}" if data.samples else ""
    return f"{text}, trusted=True" if data.trusted else text

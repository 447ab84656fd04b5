"""A format of somebody else: one module in an installed package, and nothing of QuantStudio touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from quantstudio.core.samples import sample
from tests.waiting import PATIENCE_S

MODULE = """
from quantstudio.core.precision import WeightFormat, register

register(WeightFormat("int7", 7, "INT7", "127 levels", "7"))
"""
SAMPLE = sample("digits_resnet")
DATA = ["--data", str(SAMPLE.train), "--transform", SAMPLE.transform]

# Everything the command line does with a format, in one process: starting the engine takes longest.
COMMANDS = """
import json, sys
from quantstudio.cli.main import invoke

for arguments in json.loads(sys.stdin.read()):
    code = invoke(arguments)
    assert code == 0, (code, arguments)
"""

# The window and its worker: what the menus offer, and a model built of it.
WINDOW = """
import json, sys
from pathlib import Path
from PySide6.QtCore import QEventLoop
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.gui.app import make_application
from quantstudio.gui.features.layers.layers_panel import LayersPanel
from quantstudio.gui.plots.sensitivity_scale import precision_names, precision_text
from quantstudio.gui.session import Session
from quantstudio.jobs.backends.process import ProcessBackend
from tests.waiting import wait_until

model, data, transform, output = sys.argv[1:]
app = make_application([])
session = Session(ProcessBackend)

def wait(condition):
    wait_until(lambda: app.processEvents(QEventLoop.ProcessEventsFlag.AllEvents) or condition())

workspace = session.workspace
workspace.documents.open_path(model)
wait(lambda: workspace.model is not None and not workspace.jobs.is_busy)
workspace.opening.set_data(DataSpec(data, parse_transform(transform)), None)
session.select([layer.name for layer in workspace.layers])
panel = LayersPanel(session)
menu = panel.context_menu()
submenu = menu.findChild(type(menu), "layers.menu.selection")
menus = [submenu, *submenu.findChildren(type(menu))]
offered = {action.text(): action for menu in menus for action in menu.actions()}
offered["INT7 weights, INT8 activations"].trigger()
labels = {workspace.recipe.scheme_for(layer).label for layer in workspace.layers if layer.quantizable}
workspace.documents.export(output)
wait(Path(output).with_suffix(".recipe.json").is_file)
session.close()
texts = [precision_text(name) for name in precision_names()]
print(json.dumps({"offered": list(offered), "labels": sorted(labels), "sensitivity": texts}))
"""


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a program beside which the package is installed."""
    site = tmp_path / "site"
    metadata = site / "int7_format-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "int7_format.py").write_text(MODULE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: int7-format\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[quantstudio.formats]\nint7 = int7_format\n")
    root = Path(__file__).parents[1]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(root)]), "COLUMNS": "200"}


def output_of(code: str, environment: dict[str, str], *arguments: str, given: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        input=given,
        env=environment,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def largest_integer(path: Path) -> int:
    """The largest magnitude among the INT8 constants of a file."""
    tensors = onnx.load(path).graph.initializer
    integers = [numpy_helper.to_array(t) for t in tensors if t.data_type == onnx.TensorProto.INT8]
    return max(int(abs(one.astype(int)).max()) for one in integers if one.size)


def test_that_the_command_line_knows_a_format_of_an_installed_package(installed, tmp_path):
    model, variant, found = str(SAMPLE.model), str(tmp_path / "v.onnx"), str(tmp_path / "s.json")
    again = str(tmp_path / "again.onnx")
    precisions = ["--precisions", "int7,int8-activations", "--reference", "int7"]
    commands = [
        ["quantize", model, *DATA, "--preset", "static-int7", "--set", "*linear*=weight-int7", "-o", variant],
        ["run", str(tmp_path / "v.recipe.json"), "-o", again],
        ["sensitivity", model, *DATA, "--samples", "32", *precisions, "--json", found],
    ]
    output_of(COMMANDS, installed, given=json.dumps(commands))
    assert largest_integer(Path(variant)) == 63
    assert Path(variant).read_bytes() == Path(again).read_bytes()
    recipe = json.loads((tmp_path / "v.recipe.json").read_text())
    assert '"int7"' in json.dumps(recipe)
    layers = json.loads(Path(found).read_text())["layers"]
    assert all("int7" in row["by_precision"] for row in layers)


def test_that_help_lists_a_format_of_an_installed_package(installed):
    for command in ("quantize", "sensitivity"):
        text = output_of(COMMANDS, installed, given=json.dumps([[command, "--help"]]))
        assert "int7" in text or "int8/7/6/5" in "".join(text.split())


def test_that_the_window_offers_and_its_worker_builds_a_format_of_an_installed_package(installed, tmp_path):
    variant = tmp_path / "v.onnx"
    arguments = (str(SAMPLE.model), str(SAMPLE.train), SAMPLE.transform, str(variant))
    found = json.loads(output_of(WINDOW, installed, *arguments).splitlines()[-1])
    assert {"INT7 weights, INT8 activations", "INT7 weights only"} <= set(found["offered"])
    assert "INT7 weights" in found["sensitivity"]
    assert found["labels"] == ["W7A8"]
    assert largest_integer(variant) == 63


def test_that_a_broken_package_is_left_out_and_named(installed, tmp_path):
    (tmp_path / "site" / "int7_format.py").write_text("raise RuntimeError('half an idea')\n")
    text = output_of(
        "from quantstudio.core.schemes import NAMED_SCHEMES\nprint('static-int8' in NAMED_SCHEMES)", installed
    )
    assert text.strip() == "True"


def test_that_nothing_is_looked_up_before_a_format_is_asked_for(installed):
    code = """
        import sys
        import quantstudio.core.precision, quantstudio.core.recipe, quantstudio.core.target
        print("int7_format" in sys.modules, "importlib.metadata" in sys.modules)
    """
    assert output_of(code, installed).split() == ["False", "False"]

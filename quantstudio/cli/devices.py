"""`quantstudio devices`: what this machine can compute on."""

from __future__ import annotations

from quantstudio.cli.execution import run_task
from quantstudio.cli.options import JsonOption, check_json
from quantstudio.cli.output import console_for, print_table, write_json
from quantstudio.core.codec import to_json


def command(json: JsonOption = "") -> None:
    """List the execution providers and torch devices that --provider and --device can name."""
    from quantstudio.engine.tasks.devices import devices

    check_json(json)
    found = run_task(devices)
    if json:
        write_json("devices", to_json(found), json)
    if json != "-":
        short = [name.removesuffix("ExecutionProvider").lower() for name in found.providers]
        rows = [("--provider", name) for name in short] + [("--device", name) for name in found.torch_devices]
        print_table(console_for(""), "Installed here", ("option", "value"), rows)

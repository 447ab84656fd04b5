"""The `quantstudio` command: every subcommand, and how errors leave the process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import typer
from typer.exceptions import TyperException

from quantstudio import __version__
from quantstudio.cli import calibrate, compare, demo, gui, inspect, quantize, report, run, sensitivity
from quantstudio.cli.execution import exit_code_of

app = typer.Typer(
    name="quantstudio",
    help="Make neural networks smaller and faster, and see what it costs.",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
)

_COMMANDS: dict[str, Callable[..., None]] = {
    "gui": gui.command,
    "demo": demo.command,
    "inspect": inspect.command,
    "calibrate": calibrate.command,
    "sensitivity": sensitivity.command,
    "quantize": quantize.command,
    "compare": compare.command,
    "run": run.command,
    "report": report.command,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    if version:
        sys.stdout.write(f"quantstudio {__version__}\n")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Exits with 0, 2 for a user's mistake, 130 when cancelled, 1 for an internal fault.
    """
    sys.exit(invoke(list(sys.argv[1:] if arguments is None else arguments)))


def invoke(arguments: list[str]) -> int:
    """Run the command line and say what to exit with."""
    # `quantstudio FILE` and plain `quantstudio` open the window.
    if not arguments or (arguments[0] not in _COMMANDS and arguments[0] not in ("--version", "--help")):
        arguments = ["gui", *arguments]
    try:
        code = app(args=arguments, prog_name="quantstudio", standalone_mode=False)
    except typer.Abort:
        return exit_code_of(KeyboardInterrupt())
    except TyperException as error:
        says = getattr(error, "format_message", error.__str__)()
        sys.stderr.write(f"quantstudio: {' '.join(says.split())}\n")
        return 2
    except (Exception, KeyboardInterrupt) as error:  # the one place where every fault of a command ends
        return exit_code_of(error)
    return code if isinstance(code, int) else 0

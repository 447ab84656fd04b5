"""The `quantstudio` command: every subcommand, and how errors leave the process."""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import typer
from typer.core import TyperCommand
from typer.exceptions import TyperException

from quantstudio.cli import (
    calibrate,
    compare,
    compress,
    data,
    demo,
    devices,
    gui,
    inspect,
    quantize,
    recover,
    report,
    run,
    search,
    sensitivity,
    train,
)
from quantstudio.cli.execution import CANCELLED, exit_code_of, leave
from quantstudio.cli.progress import WARNINGS
from quantstudio.core.errors import QuantStudioError
from quantstudio.core.version import VERSION

app = typer.Typer(
    name="quantstudio",
    help="Make neural networks smaller and faster, and see what it costs.",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMMANDS: dict[str, Callable[..., None]] = {
    "gui": gui.command,
    "demo": demo.command,
    "inspect": inspect.command,
    "data": data.command,
    "calibrate": calibrate.command,
    "sensitivity": sensitivity.command,
    "quantize": quantize.command,
    "recover": recover.command,
    "search": search.command,
    "compare": compare.command,
    "run": run.command,
    "report": report.command,
    "devices": devices.command,
}
# Commands with commands of their own.
_FAMILIES: dict[str, typer.Typer] = {"compress": compress.app, "train": train.app}
_NAMES = (*_COMMANDS, *_FAMILIES)
# What a shell says of a program whose output nobody reads any more.
UNREAD = 141

# Commands whose help is made when it is asked for.
_CLASSES: dict[str, type[TyperCommand]] = {"recover": recover.RecoverCommand}
for _name, _command in _COMMANDS.items():
    app.command(_name, cls=_CLASSES.get(_name))(_command)
for _name, _family in _FAMILIES.items():
    app.add_typer(_family, name=_name)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    if version:
        sys.stdout.write(f"quantstudio {VERSION}\n")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Exits with 0, 2 for a user's mistake, 130 when cancelled, 141 when the reader of its output has left, 1
    for an internal fault.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries warn developers; what users should know is reported
    code = invoke(list(sys.argv[1:] if arguments is None else arguments))
    leave(code if _is_delivered() else UNREAD)


def invoke(arguments: list[str]) -> int:
    """Run the command line and say what to exit with; warnings come last, and not after a refusal."""
    WARNINGS.clear()
    code = _run(arguments)
    if code != QuantStudioError.exit_code:
        WARNINGS.print()
    return code


def _run(arguments: list[str]) -> int:
    # `quantstudio FILE` and plain `quantstudio` open the window.
    first = arguments[0] if arguments else ""
    if first not in _NAMES and first not in ("--version", "--help", "-h"):
        arguments = ["gui", *arguments]
    try:
        _check_command(first)
        code = app(args=arguments, prog_name="quantstudio", standalone_mode=False)
    except typer.Abort:
        return exit_code_of(KeyboardInterrupt())
    except TyperException as error:
        says = getattr(error, "format_message", error.__str__)()
        command = arguments[0] if arguments[0] in _NAMES else ""
        usage = " ".join(["quantstudio", *filter(None, [command]), "--help"])
        sys.stderr.write(f"quantstudio: {' '.join(says.split()).rstrip('.')}. See `{usage}`.\n")
        return 2
    except (Exception, KeyboardInterrupt, SystemExit) as error:  # where every fault of a command ends
        # typer and rich make an exit of a pipe that `head` has closed.
        is_unread = isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError)
        return UNREAD if is_unread else exit_code_of(error)
    if code == CANCELLED:  # typer swallows a Ctrl+C between tasks
        return exit_code_of(KeyboardInterrupt())
    return code if isinstance(code, int) else 0


def _is_delivered() -> bool:
    """Write out what is buffered; False where nobody reads it any more."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more on its way out, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _check_command(first: str) -> None:
    """Refuse a mistyped command, which would otherwise be taken for a file to open in the window.

    Raises:
        UsageError: it is neither a command nor an option nor looks like a file.
    """
    if not first or first in _NAMES or first.startswith("-") or Path(first).suffix or Path(first).exists():
        return
    close = difflib.get_close_matches(first, _NAMES, n=1)
    guess = f" (did you mean {close[0]!r}?)" if close else ", and no such file"
    raise UsageError(f"there is no command {first!r}{guess}")


class UsageError(QuantStudioError):
    """The command line cannot be understood."""

    def __init__(self, what: str) -> None:
        super().__init__(what, hint=f"Commands: {', '.join(_NAMES)}")

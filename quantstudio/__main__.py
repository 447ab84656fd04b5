"""`quantstudio` and `python -m quantstudio` are the command line."""

from __future__ import annotations

from quantstudio.cli.interrupt import leave_on_interrupt


def main() -> None:
    """Run the command line and exit; see `cli.main.main`."""
    leave_on_interrupt()
    from quantstudio.cli.main import main as run  # loading it takes half a second

    run()


if __name__ == "__main__":
    main()

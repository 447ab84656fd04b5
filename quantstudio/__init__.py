"""QuantStudio: make neural networks smaller and faster, and see what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantstudio.core.version import VERSION

if TYPE_CHECKING:
    from quantstudio.workspace.workspace import Workspace

__all__ = ["Workspace", "__version__"]

__version__ = VERSION


def __getattr__(name: str) -> type[Workspace]:
    """`Workspace` when it is first asked for: importing the package stays cheap."""
    if name != "Workspace":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from quantstudio.workspace.workspace import Workspace

    return Workspace

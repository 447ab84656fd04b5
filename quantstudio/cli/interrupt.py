"""Ctrl+C where no task runs: while modules load, and between tasks. Imports little, as it comes first."""

from __future__ import annotations

import os
import signal
from types import FrameType

from quantstudio.core.errors import JobCancelled
from quantstudio.core.files import discard_unfinished

_STANDARD_ERROR = 2


def leave_on_interrupt() -> None:
    """Let Ctrl+C end the process at once with one line and the exit code of a cancelled run.

    Raised instead, a KeyboardInterrupt shows a traceback, gets lost in a callback or crashes an extension
    module, wherever it happens to hit an import. Tasks put their own handler in place while they run.
    """
    signal.signal(signal.SIGINT, _leave)


def _leave(signum: int, frame: FrameType | None) -> None:
    discard_unfinished()
    # Not through `sys.stderr`, which may be in the middle of a write.
    os.write(_STANDARD_ERROR, b"quantstudio: cancelled\n")
    os._exit(JobCancelled.exit_code)

"""What is kept only to save time: where the cache folder refuses it, work goes on without."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from quantstudio.core.errors import OutputError

logger = logging.getLogger(__name__)


@contextmanager
def kept_if_possible(what: str) -> Iterator[None]:
    """Write what can be made again; a folder that is read-only or full is logged, and no error.

    Args:
        what: What is made again next time, for a person: "results of steps".
    """
    try:
        yield
    except OutputError as error:
        logger.warning("%s are not kept, and made again the next time: %s", what, error)

"""Calls of a store that outlive its restart. obstore itself tries for some seconds, which is less than one takes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

from runner.errors import StorageError

SECONDS = 60.0
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 4.0
_TRIED = re.compile(r"after [1-9]\d* retries")

T = TypeVar("T")


def patiently(call: Callable[[], T]) -> T:
    """Call again for a minute while the store does not answer; what it refuses is refused at once.

    Args:
        call: does no harm when it is repeated.
    """
    end = time.monotonic() + SECONDS
    wait = _FIRST_WAIT
    while True:
        try:
            return call()
        except StorageError as exc:
            if not _TRIED.search(str(exc)) or time.monotonic() + wait > end:
                raise
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT)
